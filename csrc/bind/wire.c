/* wire: the wire engine for Lua. Called by lua/smtp/client/pump.lua and server/connection.lua. */
#include "core.h"

static struct smtp_wire *check_wire(lua_State *L)
{
	return smtp_check_wire(L, 1);
}

static int fail_status(lua_State *L, enum smtp_status status)
{
	return smtp_fail(L, status == SMTP_MORE ? "again" : smtp_status_text(status));
}

/* wire([replies owed from the start]) */
static int wire_new(lua_State *L)
{
	int expected = smtp_opt_number(L, 1, 0, 0);
	struct smtp_wire *wire = smtp_new(L, sizeof *wire, SMTP_WIRE_CLASS);
	smtp_wire_init(wire, (size_t)expected);
	return 1;
}

static int queued(lua_State *L, enum smtp_status status)
{
	if (status == SMTP_E_INPUT)
		return smtp_fail(L, "a line break, another control byte or (without SMTPUTF8) a non-ASCII byte cannot be "
		                    "sent in a command");
	return smtp_result(L, status);
}

/* command(line[, utf8]) -> true | nil, why */
static int wire_command(lua_State *L)
{
	size_t length;
	const char *line = luaL_checklstring(L, 2, &length);
	return queued(L, smtp_wire_command(check_wire(L), (const unsigned char *)line, length, lua_toboolean(L, 3)));
}

/* commands(lines with LF between them, how many[, utf8]) -> true | nil, why */
static int wire_commands(lua_State *L)
{
	size_t length;
	const char *block = luaL_checklstring(L, 2, &length);
	size_t count = (size_t)smtp_check_number(L, 3, 1);
	struct smtp_wire *wire = check_wire(L);
	return queued(L, smtp_wire_commands(wire, (const unsigned char *)block, length, count, lua_toboolean(L, 4)));
}

/* body(bytes[, from, to]) -> true | nil, why */
static int wire_body(lua_State *L)
{
	size_t length;
	const char *bytes = luaL_checklstring(L, 2, &length);
	struct smtp_wire *wire = check_wire(L);
	lua_Integer from = luaL_optinteger(L, 3, 1);
	lua_Integer to = luaL_optinteger(L, 4, (lua_Integer)length);
	luaL_argcheck(L, from >= 1 && to <= (lua_Integer)length && from <= to + 1, 3, "outside the string");
	return smtp_result(L, smtp_wire_body(wire, (const unsigned char *)bytes + (from - 1), (size_t)(to - from + 1)));
}

/* finish([replies]) -> true | nil, why */
static int wire_finish(lua_State *L)
{
	int replies = smtp_opt_number(L, 2, 1, 1);
	return smtp_result(L, smtp_wire_finish(check_wire(L), (size_t)replies));
}

void smtp_push_turn(lua_State *L, struct smtp_wire *wire, int index)
{
	/* all asked now: what is pushed below would be the last where there was none */
	size_t length;
	size_t block_length = 0;
	const char *classes = luaL_checkstring(L, index);
	const char *content = luaL_checklstring(L, index + 1, &length);
	size_t count = (size_t)smtp_opt_number(L, index + 3, 0, 0);
	const char *block = count > 0 ? luaL_checklstring(L, index + 2, &block_length) : NULL;
	bool utf8 = lua_toboolean(L, index + 4);
	enum smtp_status status = smtp_wire_agree(wire, classes);
	if (status == SMTP_MORE)
		lua_pushnil(L);
	else
		lua_pushboolean(L, status == SMTP_OK);
	if (status != SMTP_OK) {
		lua_pushnil(L);
		return;
	}
	if (smtp_wire_unread(wire) > 0)
		status = SMTP_MORE;
	else
		status = smtp_wire_body(wire, (const unsigned char *)content, length);
	if (status == SMTP_OK)
		status = smtp_wire_finish(wire, 1);
	if (status != SMTP_OK) {
		lua_pop(L, 1);
		lua_pushboolean(L, 0);
		lua_pushstring(L, status == SMTP_MORE ? "more" : smtp_status_text(status));
		return;
	}
	if (block)
		status = smtp_wire_commands(wire, (const unsigned char *)block, block_length, count, utf8);
	lua_pushboolean(L, block && status == SMTP_OK);
}

/* turn(classes, content[, lines, how many[, utf8]]) -> nil: the replies have not come | false: one is of another class, and
 * none is taken | true, whether the lines, commands to go along, are queued too: they are taken, and the content with its
 * end is queued, as body and finish do it | false, why: they are taken, but it is not; "more": another reply lies behind
 * them */
static int wire_turn(lua_State *L)
{
	smtp_push_turn(L, check_wire(L), 2);
	return 2;
}

/* chunk(bytes, last) -> how many bytes are queued now | nil, why */
static int wire_chunk(lua_State *L)
{
	size_t length;
	const char *bytes = luaL_checklstring(L, 2, &length);
	struct smtp_wire *wire = check_wire(L);
	enum smtp_status status = smtp_wire_chunk(wire, (const unsigned char *)bytes, length, lua_toboolean(L, 3));
	if (status != SMTP_OK)
		return fail_status(L, status);
	lua_pushinteger(L, (lua_Integer)smtp_buf_length(&wire->out));
	return 1;
}

/* take() -> everything queued for the peer */
static int wire_take(lua_State *L)
{
	smtp_push_queue(L, &check_wire(L)->out);
	return 1;
}

/* queued() -> how many bytes take would give */
static int wire_queued(lua_State *L)
{
	lua_pushinteger(L, (lua_Integer)smtp_buf_length(&check_wire(L)->out));
	return 1;
}

/* feed(bytes) -> true | nil, why */
static int wire_feed(lua_State *L)
{
	size_t length;
	const char *bytes = luaL_checklstring(L, 2, &length);
	return smtp_result(L, smtp_wire_feed(check_wire(L), bytes, length));
}

static void push_queue_id(lua_State *L, const char *text, size_t length)
{
	size_t size = 0;
	bool numbers;
	const char *id = smtp_reply_queue_id(text, length, &size, &numbers);
	if (id)
		lua_pushlstring(L, id, size);
	else if (numbers)
		lua_pushnil(L);
	else
		lua_pushboolean(L, 0);
}

int smtp_push_reply(lua_State *L, struct smtp_wire *wire)
{
	const struct smtp_buf *text = &wire->reply.text;
	size_t length;
	bool failed = wire->failed;
	enum smtp_status status = smtp_wire_reply(wire);
	if (status != SMTP_OK) {
		bool shown = status == SMTP_E_PROTOCOL && !failed && wire->expected > 0;
		int results = fail_status(L, status);
		if (shown)
			smtp_push_front(L, text, smtp_buf_length(text));
		return results + shown;
	}
	char enhanced[sizeof wire->reply.enhanced];
	memcpy(enhanced, wire->reply.enhanced, sizeof enhanced);
	lua_pushinteger(L, wire->reply.code);
	smtp_push_front(L, text, smtp_buf_length(text));
	const char *words = lua_tolstring(L, -1, &length);
	if (enhanced[0])
		lua_pushstring(L, enhanced);
	else
		lua_pushnil(L);
	push_queue_id(L, words, length);
	return 4;
}

/* reply() -> code, text, enhanced or nil, what queue_id gives of the text | nil, "again" | nil, why, the line that is no
 * reply's (the first time) or nil */
static int wire_reply(lua_State *L)
{
	return smtp_push_reply(L, check_wire(L));
}

/* queue_id(a reply's text) -> the id in it, as Postfix writes it | nil: there is none, but perhaps in another form | false */
static int core_queue_id(lua_State *L)
{
	size_t length;
	const char *text = luaL_checklstring(L, 1, &length);
	push_queue_id(L, text, length);
	return 1;
}

/* agree("2223") -> true: the next replies had come, are of these classes, and are taken | false: one is not, and none is
 * taken | nil, "again" | nil, why */
static int wire_agree(lua_State *L)
{
	const char *classes = luaL_checkstring(L, 2);
	enum smtp_status status = smtp_wire_agree(check_wire(L), classes);
	if (status != SMTP_OK && status != SMTP_E_INPUT)
		return fail_status(L, status);
	lua_pushboolean(L, status == SMTP_OK);
	return 1;
}

/* residue() -> bytes received and not yet understood */
static int wire_residue(lua_State *L)
{
	lua_pushinteger(L, (lua_Integer)smtp_buf_length(&check_wire(L)->in));
	return 1;
}

/* unread() -> the same, without the empty lines between two replies */
static int wire_unread(lua_State *L)
{
	lua_pushinteger(L, (lua_Integer)smtp_wire_unread(check_wire(L)));
	return 1;
}

/* expected() -> replies the server still owes */
static int wire_expected(lua_State *L)
{
	lua_pushinteger(L, (lua_Integer)check_wire(L)->expected);
	return 1;
}

/* owe(count): more replies will come than commands went out */
static int wire_owe(lua_State *L)
{
	int count = smtp_check_number(L, 2, 0);
	check_wire(L)->expected += (size_t)count;
	return 0;
}

/* line() -> line | nil, "again" | nil, why */
static int wire_line(lua_State *L)
{
	struct smtp_wire *wire = check_wire(L);
	size_t length = 0;
	enum smtp_status status = smtp_wire_line(wire, &length);
	if (status != SMTP_OK)
		return fail_status(L, status);
	smtp_push_front(L, &wire->in, length);
	smtp_wire_line_taken(wire, length);
	return 1;
}

/* content() -> bytes, whether that was all, whether a bare CR or LF was in it | nil, why */
static int wire_content(lua_State *L)
{
	struct smtp_wire *wire = check_wire(L);
	enum smtp_status status = smtp_wire_content(wire);
	if (status < 0)
		return fail_status(L, status);
	bool bare = wire->unlines.bare;
	smtp_push_queue(L, &wire->content);
	if (status == SMTP_OK)
		smtp_unlines_init(&wire->unlines);
	lua_pushboolean(L, status == SMTP_OK);
	lua_pushboolean(L, bare);
	return 3;
}

/* octets(most) -> bytes, "" when there are none yet | nil, why */
static int wire_octets(lua_State *L)
{
	size_t moved = 0;
	size_t most = smtp_check_most(L, 2);
	struct smtp_wire *wire = check_wire(L);
	enum smtp_status status = smtp_wire_octets(wire, most, &moved);
	if (status != SMTP_OK)
		return fail_status(L, status);
	smtp_push_queue(L, &wire->content);
	return 1;
}

/* respond(code, text) -> true | nil, why */
static int wire_respond(lua_State *L)
{
	size_t length;
	int code = smtp_check_number(L, 2, INT_MIN);
	const char *text = luaL_checklstring(L, 3, &length);
	return smtp_result(L, smtp_wire_respond(check_wire(L), code, (const unsigned char *)text, length));
}

static int wire_gc(lua_State *L)
{
	smtp_wire_wipe(luaL_checkudata(L, 1, SMTP_WIRE_CLASS));
	return 0;
}

void smtp_open_wire(lua_State *L)
{
	static const luaL_Reg methods[] = {
		{"command", wire_command},   {"commands", wire_commands}, {"agree", wire_agree},     {"body", wire_body},
		{"finish", wire_finish},     {"turn", wire_turn},         {"chunk", wire_chunk},     {"take", wire_take},
		{"queued", wire_queued},     {"feed", wire_feed},         {"reply", wire_reply},     {"residue", wire_residue},
		{"expected", wire_expected}, {"line", wire_line},         {"content", wire_content}, {"octets", wire_octets},
		{"respond", wire_respond},   {"owe", wire_owe},           {"unread", wire_unread},   {NULL, NULL},
	};
	static const luaL_Reg functions[] = {{"wire", wire_new}, {"queue_id", core_queue_id}, {NULL, NULL}};
	smtp_class(L, SMTP_WIRE_CLASS, methods, NULL, wire_gc);
	smtp_setfuncs(L, functions);
}
