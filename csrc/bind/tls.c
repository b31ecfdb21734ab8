/* tls: the shared object smtp/tls: TLS contexts and engines, minted certificates; digests and signatures are in sign.c.
 * Loaded by `require "smtp.tls"`.
 *
 * What an engine does not do comes as nil, a kind, words for a person, and perhaps what to do about it. The kind is
 * "again" (more octets are to come; no words), "closed" (the peer is gone, or the engine is closed), "protocol" (the wire of
 * the cleartext takes no more) or "tls".
 *
 * Glue only: arguments are checked before anything is made, and what is made hangs on a userdata at once.
 */
#include "tls.h"

#include "../tls/binding.h"
#include "../tls/context.h"
#include "../tls/engine.h"
#include "../tls/mint.h"
#include "core.h"

#define CONTEXT "smtp.tls.context"
#define ENGINE "smtp.tls.engine"
#define SESSION "smtp.tls.session"
#define PEER "smtp.tls.peer"
#define MINT "smtp.tls.mint"

SMTP_EXPORT int luaopen_smtp_tls(lua_State *L);

/* nil, text, hint or nil */
static int push_fault(lua_State *L, const struct smtp_fault *fault)
{
	lua_pushnil(L);
	lua_pushstring(L, fault->text);
	if (*fault->hint)
		lua_pushstring(L, fault->hint);
	else
		lua_pushnil(L);
	return 3;
}

/* Pushes options[name], read raw: a metamethod would be a call into Lua. */
static int get_option(lua_State *L, const char *name)
{
	lua_pushstring(L, name);
	lua_rawget(L, 1);
	return lua_type(L, -1);
}

/* The string stays on the stack, and so in memory, until the caller returns. */
static struct smtp_context_text text_option(lua_State *L, const char *name)
{
	struct smtp_context_text text = {NULL, 0};
	int type = get_option(L, name);
	if (type == LUA_TSTRING)
		text.bytes = lua_tolstring(L, -1, &text.length);
	else if (type != LUA_TNIL)
		luaL_error(L, "tls.context: %s must be a string", name);
	return text;
}

static bool flag_option(lua_State *L, const char *name, bool otherwise)
{
	int type = get_option(L, name);
	bool flag = type == LUA_TNIL ? otherwise : lua_toboolean(L, -1);
	if (type != LUA_TNIL && type != LUA_TBOOLEAN)
		luaL_error(L, "tls.context: %s must be a boolean", name);
	lua_pop(L, 1);
	return flag;
}

static int version_option(lua_State *L, const char *name)
{
	struct smtp_context_text text = text_option(L, name);
	int version = 0;
	if (text.bytes && strcmp(text.bytes, "1.2") == 0)
		version = 12;
	else if (text.bytes && strcmp(text.bytes, "1.3") == 0)
		version = 13;
	else if (text.bytes)
		luaL_error(L, "tls.context: %s must be \"1.2\" or \"1.3\"", name);
	lua_pop(L, 1);
	return version;
}

/* tls.context(options) -> context | nil, text, hint */
static int context_new(lua_State *L)
{
	struct smtp_fault fault;
	luaL_checktype(L, 1, LUA_TTABLE);
	luaL_checkstack(L, 16, NULL);
	struct smtp_context_options options = {
		.server = flag_option(L, "server", false),
		.verify = flag_option(L, "verify", true),
		.min = version_option(L, "min"),
		.max = version_option(L, "max"),
	};
	options.ca_file = text_option(L, "ca_file");
	options.ca_path = text_option(L, "ca_path");
	options.cert = text_option(L, "cert");
	options.key = text_option(L, "key");
	struct smtp_context *context = smtp_new(L, sizeof *context, CONTEXT);
	if (smtp_context_init(context, &options, &fault) < 0) {
		smtp_context_wipe(context);
		return push_fault(L, &fault);
	}
	return 1;
}

static int context_gc(lua_State *L)
{
	smtp_context_wipe(luaL_checkudata(L, 1, CONTEXT));
	return 0;
}

static int session_gc(lua_State *L)
{
	smtp_session_wipe(luaL_checkudata(L, 1, SESSION));
	return 0;
}

/* context:engine([server_name[, session]]) -> engine | nil, text */
static int context_engine(lua_State *L)
{
	size_t length = 0;
	const char *name = lua_isnoneornil(L, 2) ? NULL : luaL_checklstring(L, 2, &length);
	const struct smtp_session *session = lua_isnoneornil(L, 3) ? NULL : luaL_checkudata(L, 3, SESSION);
	const struct smtp_context *context = luaL_checkudata(L, 1, CONTEXT);
	struct smtp_engine *engine = smtp_new(L, sizeof *engine, ENGINE);
	luaL_argcheck(L, context->ctx, 1, "the context is closed");
	if (smtp_engine_init(engine, context, name, length) < 0)
		return push_fault(L, &engine->fault);
	if (session && engine->client)
		smtp_session_offer(engine, session);
	return 1;
}

static int engine_gc(lua_State *L)
{
	smtp_engine_wipe(luaL_checkudata(L, 1, ENGINE));
	return 0;
}

/* Open or not: a finalizer may close a connection whose engine the collector has had before, or, on its way into one of
 * these calls (Lua 5.2 collects there), the one that it was made on. To what moves octets that is an end. */
static struct smtp_engine *any_engine(lua_State *L)
{
	return smtp_self(L, ENGINE);
}

static struct smtp_engine *check_engine(lua_State *L)
{
	struct smtp_engine *engine = any_engine(L);
	luaL_argcheck(L, engine->ssl, 1, "the engine is closed");
	return engine;
}

/* nil, kind, words */
static int fail(lua_State *L, const char *kind, const char *text)
{
	smtp_fail(L, kind);
	lua_pushstring(L, text);
	return 3;
}

static int fail_closed(lua_State *L)
{
	return fail(L, "closed", "the connection is closed");
}

/* true, or what the status tells */
static int push_result(lua_State *L, const struct smtp_engine *engine, enum smtp_status status)
{
	if (status == SMTP_MORE)
		return smtp_fail(L, "again");
	if (status >= 0) {
		lua_pushboolean(L, 1);
		return 1;
	}
	push_fault(L, &engine->fault);
	lua_pushstring(L, status == SMTP_E_CLOSED ? "closed" : "tls");
	lua_insert(L, -3);
	return 4;
}

/* The wire of the ciphertext, which these calls take from what it has received and leave in what it has queued; NULL:
 * feed and take do that. */
static struct smtp_wire *check_sealed(lua_State *L, int index)
{
	return lua_isnoneornil(L, index) ? NULL : smtp_check_wire(L, index);
}

static enum smtp_status absorb(struct smtp_engine *engine, struct smtp_wire *sealed)
{
	if (!sealed)
		return SMTP_OK;
	size_t length = smtp_buf_length(&sealed->in);
	enum smtp_status status = smtp_engine_feed(engine, smtp_buf_view(&sealed->in), length);
	if (status == SMTP_OK)
		smtp_buf_drop(&sealed->in, length);
	return status;
}

/* `status`, unless what there is for the peer finds no room. */
static enum smtp_status drain(struct smtp_engine *engine, struct smtp_wire *sealed, enum smtp_status status)
{
	enum smtp_status drained = sealed ? smtp_engine_drain(engine, &sealed->out) : SMTP_OK;
	return drained < 0 ? drained : status;
}

/* handshake([sealed]) -> true | nil, kind, … */
static int engine_handshake(lua_State *L)
{
	struct smtp_engine *engine = any_engine(L);
	if (!engine->ssl)
		return fail_closed(L);
	struct smtp_wire *sealed = check_sealed(L, 2);
	enum smtp_status status = absorb(engine, sealed);
	if (status == SMTP_OK)
		status = smtp_engine_handshake(engine);
	return push_result(L, engine, drain(engine, sealed, status));
}

/* feed(bytes) -> true | nil, kind, … */
static int engine_feed(lua_State *L)
{
	size_t length;
	const char *bytes = luaL_checklstring(L, 2, &length);
	struct smtp_engine *engine = any_engine(L);
	if (!engine->ssl)
		return fail_closed(L);
	return push_result(L, engine, smtp_engine_feed(engine, bytes, length));
}

static int engine_eof(lua_State *L)
{
	struct smtp_engine *engine = any_engine(L);
	if (engine->ssl)
		smtp_engine_eof(engine);
	return 0;
}

static int engine_take(lua_State *L)
{
	char brief[1024];
	struct smtp_engine *engine = any_engine(L);
	size_t length = engine->ssl ? smtp_engine_waiting(engine) : 0;
	char *copy = smtp_room(L, brief, sizeof brief, length);
	engine = any_engine(L);
	length = engine->ssl ? smtp_engine_show(engine, copy, length) : 0;
	lua_pushlstring(L, copy, length);
	if (engine->ssl)
		smtp_engine_drop(engine, length);
	return 1;
}

/* write(bytes[, sealed]) -> true | nil, kind, … */
static int engine_write(lua_State *L)
{
	size_t length;
	const char *bytes = luaL_checklstring(L, 2, &length);
	struct smtp_engine *engine = any_engine(L);
	if (!engine->ssl)
		return fail_closed(L);
	struct smtp_wire *sealed = check_sealed(L, 3);
	return push_result(L, engine, drain(engine, sealed, smtp_engine_write(engine, bytes, length)));
}

/* encrypt(sealed or nil, wire, most) -> how many | nil, kind, …: as write, up to `most` octets of what a wire has queued,
 * taken off it */
static int engine_encrypt(lua_State *L)
{
	size_t most = smtp_check_most(L, 4);
	struct smtp_engine *engine = any_engine(L);
	if (!engine->ssl)
		return fail_closed(L);
	struct smtp_wire *sealed = check_sealed(L, 2);
	struct smtp_buf *out = &smtp_check_wire(L, 3)->out;
	luaL_argcheck(L, most > 0, 4, "at least 1");
	size_t length = smtp_buf_length(out) < most ? smtp_buf_length(out) : most;
	enum smtp_status status = drain(engine, sealed, smtp_engine_write(engine, smtp_buf_view(out), length));
	if (status < 0)
		return push_result(L, engine, status);
	smtp_buf_drop(out, length);
	lua_pushinteger(L, (lua_Integer)length);
	return 1;
}

/* Cleartext into `bytes`; 0, or how many results there are where there is none, which are pushed. */
static int read_some(lua_State *L, struct smtp_engine *engine, char bytes[SMTP_ENGINE_RECORD], size_t *length)
{
	struct smtp_wire *sealed = check_sealed(L, 2);
	*length = 0;
	enum smtp_status status = absorb(engine, sealed);
	if (status == SMTP_OK)
		status = smtp_engine_read(engine, bytes, SMTP_ENGINE_RECORD, length);
	status = drain(engine, sealed, status);
	if (status == SMTP_OK)
		return 0;
	smtp_wipe(bytes, *length);
	bool waiting = (sealed ? smtp_buf_length(&sealed->out) : smtp_engine_waiting(engine)) > 0;
	int results = push_result(L, engine, status);
	if (status != SMTP_MORE || !waiting)
		return results;
	lua_pushboolean(L, 1);
	return results + 1;
}

/* read([sealed]) -> bytes | nil, "again"[, true: there is something for the peer] | nil, kind, … */
static int engine_read(lua_State *L)
{
	char bytes[SMTP_ENGINE_RECORD];
	size_t length;
	struct smtp_engine *engine = any_engine(L);
	if (!engine->ssl)
		return fail_closed(L);
	int results = read_some(L, engine, bytes, &length);
	if (results > 0)
		return results;
	lua_pushlstring(L, bytes, length);
	smtp_wipe(bytes, length);
	return 1;
}

/* decrypt(sealed or nil, wire) -> true | nil, as read: what read would give, call after call until "again", to the end of
 * what the wire has received: a reply too many is often a record of its own. What ends that is told next time */
static int engine_decrypt(lua_State *L)
{
	char bytes[SMTP_ENGINE_RECORD];
	size_t length;
	struct smtp_engine *engine = any_engine(L);
	if (!engine->ssl)
		return fail_closed(L);
	struct smtp_wire *wire = smtp_check_wire(L, 3);
	int results = read_some(L, engine, bytes, &length);
	if (results > 0)
		return results;
	enum smtp_status status;
	bool more;
	do {
		status = smtp_buf_append(&wire->in, bytes, length);
		smtp_wipe(bytes, length);
		more = status == SMTP_OK && wire->in.cap - smtp_buf_length(&wire->in) >= SMTP_ENGINE_RECORD &&
		       smtp_engine_read(engine, bytes, SMTP_ENGINE_RECORD, &length) == SMTP_OK;
	} while (more);
	if (status != SMTP_OK)
		return fail(L, "protocol", smtp_status_text(status));
	lua_pushboolean(L, 1);
	return 1;
}

/* shutdown([sealed]) -> false: it is closed */
static int engine_shutdown(lua_State *L)
{
	struct smtp_engine *engine = any_engine(L);
	if (engine->ssl) {
		struct smtp_wire *sealed = check_sealed(L, 2);
		smtp_engine_shutdown(engine);
		(void)drain(engine, sealed, SMTP_OK);
	}
	lua_pushboolean(L, engine->ssl != NULL);
	return 1;
}

/* engine:session() -> session | nil: what context:engine can resume, or need not verify again */
static int engine_session(lua_State *L)
{
	struct smtp_session *session = smtp_new(L, sizeof *session, SESSION);
	const struct smtp_engine *engine = any_engine(L);
	if (engine->ssl)
		smtp_session_take(engine, session);
	if (!session->session && !session->chain)
		lua_pushnil(L);
	return 1;
}

/* engine:binding(kind) -> bytes | nil, text */
static int engine_binding(lua_State *L)
{
	unsigned char binding[SMTP_BINDING_MAX];
	size_t length;
	const char *kind = luaL_checkstring(L, 2);
	struct smtp_engine *engine = check_engine(L);
	enum smtp_status status = smtp_binding(engine, kind, binding, &length);
	if (status < 0)
		return smtp_fail(L, engine->fault.text);
	lua_pushlstring(L, (const char *)binding, length);
	return 1;
}

static void set_string(lua_State *L, const char *name, const char *value)
{
	lua_pushstring(L, value);
	lua_setfield(L, -2, name);
}

static int peer_gc(lua_State *L)
{
	smtp_peer_wipe(luaL_checkudata(L, 1, PEER));
	return 0;
}

static void push_peer(lua_State *L, const struct smtp_peer *peer)
{
	int count = 0;
	lua_newtable(L);
	set_string(L, "subject", smtp_peer_text(&peer->subject));
	set_string(L, "issuer", smtp_peer_text(&peer->issuer));
	set_string(L, "not_after", peer->not_after);
	set_string(L, "pin", peer->pin);
	lua_newtable(L);
	for (const char *name = smtp_peer_names(peer, NULL); name; name = smtp_peer_names(peer, name)) {
		lua_pushstring(L, name);
		lua_rawseti(L, -2, ++count);
	}
	lua_setfield(L, -2, "names");
}

static int engine_info(lua_State *L)
{
	(void)check_engine(L);
	struct smtp_peer *peer = smtp_new(L, sizeof *peer, PEER);
	smtp_peer_init(peer);
	lua_newtable(L);
	struct smtp_engine *engine = check_engine(L);
	bool shown = smtp_engine_peer(engine, peer);
	bool resumed = smtp_engine_resumed(engine);
	/* OpenSSL's own, for good */
	const char *version = smtp_engine_version(engine);
	const char *cipher = smtp_engine_cipher(engine);
	set_string(L, "version", version);
	set_string(L, "cipher", cipher);
	lua_pushboolean(L, resumed);
	lua_setfield(L, -2, "resumed");
	if (shown) {
		push_peer(L, peer);
		lua_setfield(L, -2, "peer");
	}
	smtp_peer_wipe(peer);
	return 1;
}

static int mint_gc(lua_State *L)
{
	smtp_mint_wipe(luaL_checkudata(L, 1, MINT));
	return 0;
}

static void push_buf(lua_State *L, const struct smtp_buf *buf)
{
	lua_pushlstring(L, (const char *)smtp_buf_view(buf), smtp_buf_length(buf));
}

/* tls.mint(names) -> certificate, key | nil, text */
static int mint(lua_State *L)
{
	luaL_checktype(L, 1, LUA_TTABLE);
	int count = (int)lua_rawlen(L, 1);
	luaL_argcheck(L, count > 0, 1, "at least one name is needed");
	struct smtp_mint *made = smtp_new(L, sizeof *made, MINT);
	smtp_mint_init(made);
	for (int i = 1; i <= count; i++) {
		size_t length;
		lua_rawgeti(L, 1, i);
		const char *name = lua_type(L, -1) == LUA_TSTRING ? lua_tolstring(L, -1, &length) : NULL;
		enum smtp_status status = name ? smtp_mint_name(made, name, length) : SMTP_E_INPUT;
		luaL_argcheck(L, status != SMTP_E_INPUT, 1, "a name is neither a host name nor an address");
		if (status < 0)
			return smtp_result(L, status);
		lua_pop(L, 1);
	}
	if (smtp_mint_strike(made) < 0) {
		smtp_mint_wipe(made);
		return smtp_fail(L, "OpenSSL could not make a certificate");
	}
	push_buf(L, &made->cert);
	push_buf(L, &made->key);
	smtp_mint_wipe(made);
	return 2;
}

static const luaL_Reg context_methods[] = {{"engine", context_engine}, {NULL, NULL}};

static const luaL_Reg engine_methods[] = {
	{"handshake", engine_handshake},
	{"feed", engine_feed},
	{"eof", engine_eof},
	{"take", engine_take},
	{"write", engine_write},
	{"read", engine_read},
	{"shutdown", engine_shutdown},
	{"info", engine_info},
	{"session", engine_session},
	{"binding", engine_binding},
	{"encrypt", engine_encrypt},
	{"decrypt", engine_decrypt},
	{"close", engine_gc},
	{NULL, NULL},
};

static const luaL_Reg no_methods[] = {{NULL, NULL}};

static const luaL_Reg functions[] = {
	{"context", context_new},
	{"mint", mint},
	{NULL, NULL},
};

int luaopen_smtp_tls(lua_State *L)
{
	smtp_check_version(L);
	smtp_class(L, CONTEXT, context_methods, NULL, context_gc);
	smtp_class(L, ENGINE, engine_methods, SMTP_WIRE_CLASS, engine_gc);
	smtp_class(L, SESSION, no_methods, NULL, session_gc);
	smtp_class(L, PEER, no_methods, NULL, peer_gc);
	smtp_class(L, MINT, no_methods, NULL, mint_gc);
	lua_newtable(L);
	smtp_setfuncs(L, functions);
	smtp_open_sign(L);
	return 1;
}
