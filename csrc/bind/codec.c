/* codec: smtp.core.encoder, decoder, base64, unbase64, scan, sieve and holds.
 *
 * Each object owns its output queue from the start, so that no Lua error can lose memory. Failing to get memory raises;
 * an object that has raised so stays unusable, since part of its input is gone. Where Lua has none for what comes out, that
 * stays in the queue for the next call. Used by lua/smtp/mail and lua/smtp/protocol/sasl.
 */
#include "../wire/base64.h"
#include "../wire/dkim_canon.h"
#include "../wire/dots.h"
#include "../wire/qp.h"
#include "../wire/scan.h"
#include "core.h"

#include <errno.h>
#include <lualib.h>
#include <stdio.h>

#define ENCODER "smtp.encoder"
#define DECODER "smtp.decoder"
#define SCRATCH "smtp.scratch"

static const size_t most = (size_t)64 << 20; /* bytes that one call may produce */

enum kind {
	BASE64,
	QUOTED_PRINTABLE,
	CRLF,
	DOTS,
	DKIM_SIMPLE,
	DKIM_RELAXED,
};

struct encoder {
	enum kind kind;          /* which of the four below is in use */
	enum smtp_status status; /* the error that ended its use */
	struct smtp_buf out;     /* what is handed to Lua at the end of a call */
	union {
		struct smtp_base64 base64;
		struct smtp_qp qp;
		struct smtp_dots dots;   /* CRLF and DOTS */
		struct smtp_canon canon; /* DKIM_SIMPLE and DKIM_RELAXED */
	};
};

struct decoder {
	enum smtp_status status;     /* the error that ended its use */
	struct smtp_buf out;         /* what is handed to Lua at the end of a call */
	struct smtp_unlines unlines; /* finds the end and takes the dots off */
};

static void check(lua_State *L, enum smtp_status status)
{
	if (status < 0)
		luaL_error(L, "%s", smtp_status_text(status));
}

static enum smtp_base64_kernel check_kernel(lua_State *L, int index)
{
	static const char *const names[] = {"portable", "avx2", NULL};
	int kernel = luaL_checkoption(L, index, NULL, names);
	if (kernel == 0)
		return SMTP_BASE64_PORTABLE;
	luaL_argcheck(L, smtp_base64_best() == SMTP_BASE64_AVX2, index, "this processor has no AVX2");
	return SMTP_BASE64_AVX2;
}

static int encoder_new(lua_State *L)
{
	static const char *const names[] = {"base64",      "quoted-printable", "crlf", "dots",
	                                    "dkim-simple", "dkim-relaxed",     NULL};
	int kind = luaL_checkoption(L, 1, NULL, names);
	bool kernel = !lua_isnoneornil(L, 2);
	luaL_argcheck(L, !kernel || kind == BASE64, 2, "only base64 has kernels");

	struct encoder *encoder = smtp_new(L, sizeof *encoder, ENCODER);
	encoder->kind = (enum kind)kind;
	smtp_buf_init(&encoder->out, most);
	switch (encoder->kind) {
	case BASE64:
		smtp_base64_init(&encoder->base64);
		if (kernel)
			encoder->base64.kernel = check_kernel(L, 2);
		break;
	case QUOTED_PRINTABLE:
		smtp_qp_init(&encoder->qp);
		break;
	case CRLF:
	case DOTS:
		smtp_dots_init(&encoder->dots, encoder->kind == DOTS);
		break;
	case DKIM_SIMPLE:
	case DKIM_RELAXED:
		smtp_canon_init(&encoder->canon, encoder->kind == DKIM_RELAXED);
		break;
	}
	return 1;
}

static enum smtp_status update(struct encoder *encoder, const char *bytes, size_t length)
{
	switch (encoder->kind) {
	case BASE64:
		return smtp_base64_update(&encoder->base64, bytes, length, &encoder->out);
	case QUOTED_PRINTABLE:
		return smtp_qp_update(&encoder->qp, bytes, length, &encoder->out);
	case DKIM_SIMPLE:
	case DKIM_RELAXED:
		return smtp_canon_update(&encoder->canon, bytes, length, &encoder->out);
	default:
		return smtp_dots_update(&encoder->dots, bytes, length, &encoder->out);
	}
}

static enum smtp_status finish(struct encoder *encoder)
{
	switch (encoder->kind) {
	case BASE64:
		return smtp_base64_finish(&encoder->base64, &encoder->out);
	case QUOTED_PRINTABLE:
		return smtp_qp_finish(&encoder->qp, &encoder->out);
	case DKIM_SIMPLE:
	case DKIM_RELAXED:
		return smtp_canon_finish(&encoder->canon, &encoder->out);
	default:
		return smtp_dots_finish(&encoder->dots, &encoder->out);
	}
}

static struct encoder *check_encoder(lua_State *L)
{
	struct encoder *encoder = luaL_checkudata(L, 1, ENCODER);
	luaL_argcheck(L, encoder->out.cap > 0, 1, "the encoder is closed");
	return encoder;
}

static int encoder_update(lua_State *L)
{
	size_t length;
	const char *bytes = luaL_checklstring(L, 2, &length);
	struct encoder *encoder = check_encoder(L);
	if (encoder->status == SMTP_OK)
		encoder->status = update(encoder, bytes, length);
	check(L, encoder->status);
	smtp_push_queue(L, &encoder->out);
	return 1;
}

/* pour(bytes, wire) -> octets that are queued now: base64 as content of a client's wire, line by line; the rest comes
 * with finish */
static int encoder_pour(lua_State *L)
{
	size_t length;
	const char *bytes = luaL_checklstring(L, 2, &length);
	struct encoder *encoder = check_encoder(L);
	struct smtp_wire *wire = smtp_check_wire(L, 3);
	luaL_argcheck(L, encoder->kind == BASE64, 1, "only base64 can be poured");
	size_t before = smtp_buf_length(&wire->out);
	if (encoder->status == SMTP_OK)
		encoder->status = smtp_wire_pour(wire, &encoder->base64, (const unsigned char *)bytes, length);
	check(L, encoder->status);
	lua_pushinteger(L, (lua_Integer)(smtp_buf_length(&wire->out) - before));
	return 1;
}

/* A file of Lua's io library, open. Every Lua has its FILE * first. */
static FILE *check_file(lua_State *L, int index)
{
	FILE **file = (FILE **)luaL_checkudata(L, index, LUA_FILEHANDLE);
#if LUA_VERSION_NUM >= 502
	luaL_argcheck(L, ((luaL_Stream *)(void *)file)->closef != NULL, index, "the file is closed");
#endif
	luaL_argcheck(L, *file != NULL, index, "the file is closed");
	return *file;
}

/* pour_file(file, most, wire) -> octets read, 0 at its end, and how many are queued for them | nil, why: as pour, of what
 * comes next in a file */
static int encoder_pour_file(lua_State *L)
{
	size_t most_read = smtp_check_most(L, 3);
	struct encoder *encoder = check_encoder(L);
	FILE *file = check_file(L, 2);
	struct smtp_wire *wire = smtp_check_wire(L, 4);
	unsigned char *room = NULL;
	luaL_argcheck(L, encoder->kind == BASE64, 1, "only base64 can be poured");
	luaL_argcheck(L, most_read > 0 && most_read <= most, 3, "a number of octets");
	size_t before = smtp_buf_length(&wire->out), count = 0;
	/* the encoder's own queue, empty between two calls, is where the octets stand meanwhile */
	if (encoder->status == SMTP_OK)
		encoder->status = smtp_buf_reserve(&encoder->out, most_read, &room);
	if (encoder->status != SMTP_OK)
		return luaL_error(L, "%s", smtp_status_text(encoder->status));
	errno = 0;
	count = fread(room, 1, most_read, file);
	if (count == 0 && ferror(file))
		return smtp_fail(L, strerror(errno));
	encoder->status = smtp_wire_pour(wire, &encoder->base64, room, count);
	check(L, encoder->status);
	lua_pushinteger(L, (lua_Integer)count);
	lua_pushinteger(L, (lua_Integer)(smtp_buf_length(&wire->out) - before));
	return 2;
}

static int encoder_finish(lua_State *L)
{
	struct encoder *encoder = check_encoder(L);
	if (encoder->status == SMTP_OK)
		encoder->status = finish(encoder);
	check(L, encoder->status);
	smtp_push_queue(L, &encoder->out);
	smtp_buf_wipe(&encoder->out);
	return 1;
}

static int encoder_gc(lua_State *L)
{
	struct encoder *encoder = luaL_checkudata(L, 1, ENCODER);
	smtp_buf_wipe(&encoder->out);
	encoder->out.cap = 0;
	return 0;
}

static int decoder_new(lua_State *L)
{
	static const char *const names[] = {"dots", NULL};
	luaL_checkoption(L, 1, NULL, names);
	struct decoder *decoder = smtp_new(L, sizeof *decoder, DECODER);
	smtp_buf_init(&decoder->out, most);
	smtp_unlines_init(&decoder->unlines);
	return 1;
}

/* decoder:update(bytes) -> content, number of bytes used, whether the data has ended */
static int decoder_update(lua_State *L)
{
	size_t length;
	size_t used = 0;
	const char *bytes = luaL_checklstring(L, 2, &length);
	struct decoder *decoder = luaL_checkudata(L, 1, DECODER);
	luaL_argcheck(L, decoder->out.cap > 0, 1, "the decoder is closed");
	check(L, decoder->status);
	if (decoder->unlines.state == SMTP_UNLINES_END)
		smtp_unlines_init(&decoder->unlines);
	enum smtp_status status =
		smtp_unlines_update(&decoder->unlines, (const unsigned char *)bytes, length, &used, &decoder->out);
	if (status < 0)
		decoder->status = status;
	check(L, decoder->status);
	smtp_push_queue(L, &decoder->out);
	lua_pushinteger(L, (lua_Integer)used);
	lua_pushboolean(L, status == SMTP_OK);
	return 3;
}

static int decoder_bare(lua_State *L)
{
	struct decoder *decoder = luaL_checkudata(L, 1, DECODER);
	lua_pushboolean(L, decoder->unlines.bare);
	return 1;
}

static int decoder_gc(lua_State *L)
{
	struct decoder *decoder = luaL_checkudata(L, 1, DECODER);
	smtp_buf_wipe(&decoder->out);
	decoder->out.cap = 0;
	return 0;
}

static struct smtp_buf *scratch_new(lua_State *L)
{
	struct smtp_buf *out = smtp_new(L, sizeof *out, SCRATCH);
	smtp_buf_init(out, most);
	return out;
}

static int scratch_gc(lua_State *L)
{
	smtp_buf_wipe(luaL_checkudata(L, 1, SCRATCH));
	return 0;
}

static int push_scratch(lua_State *L, struct smtp_buf *out)
{
	lua_pushlstring(L, (const char *)smtp_buf_view(out), smtp_buf_length(out));
	smtp_buf_wipe(out); /* it is often a password */
	return 1;
}

static int core_base64(lua_State *L)
{
	size_t length;
	const char *bytes = luaL_checklstring(L, 1, &length);
	struct smtp_buf *out = scratch_new(L);
	check(L, smtp_base64_encode(bytes, length, out));
	return push_scratch(L, out);
}

static int core_unbase64(lua_State *L)
{
	size_t length;
	const char *text = luaL_checklstring(L, 1, &length);
	struct smtp_buf *out = scratch_new(L);
	enum smtp_status status = smtp_base64_decode(text, length, out);
	if (status == SMTP_E_INPUT) {
		smtp_buf_wipe(out);
		return smtp_fail(L, "not valid base64");
	}
	check(L, status);
	return push_scratch(L, out);
}

static void push_place(lua_State *L, size_t offset)
{
	if (offset == SMTP_SCAN_NONE)
		lua_pushnil(L);
	else
		lua_pushinteger(L, (lua_Integer)offset + 1);
}

/* scan(text) -> the places of the first control byte, TAB, line end and broken UTF-8 (nil: there is none); the length of
 * the longest line; whether there is a byte beyond ASCII */
static int core_scan(lua_State *L)
{
	struct smtp_scan scan;
	size_t length;
	const char *text = luaL_checklstring(L, 1, &length);
	smtp_scan(&scan, (const unsigned char *)text, length);
	push_place(L, scan.control);
	push_place(L, scan.blank);
	push_place(L, scan.end);
	push_place(L, scan.invalid);
	lua_pushinteger(L, (lua_Integer)scan.longest);
	lua_pushboolean(L, scan.eightbit);
	return 6;
}

/* sieve(list of words, each of four octets or more) -> the sieve that holds them back */
static int core_sieve(lua_State *L)
{
	unsigned char sieve[SMTP_SIEVE_SIZE] = {0};
	luaL_checktype(L, 1, LUA_TTABLE);
	for (int i = 1; lua_rawgeti(L, 1, i), !lua_isnil(L, -1); i++) {
		size_t length;
		const char *word = luaL_checklstring(L, -1, &length);
		luaL_argcheck(L, length >= SMTP_SIEVE_WORD, 1, "a word is too short");
		smtp_sieve_add(sieve, (const unsigned char *)word);
		lua_pop(L, 1);
	}
	lua_pushlstring(L, (const char *)sieve, sizeof sieve);
	return 1;
}

/* holds(sieve, text) -> whether one of its words may stand in the text; false is certain */
static int core_holds(lua_State *L)
{
	size_t size, length;
	const char *sieve = luaL_checklstring(L, 1, &size);
	const char *text = luaL_checklstring(L, 2, &length);
	luaL_argcheck(L, size == SMTP_SIEVE_SIZE, 1, "not a sieve");
	lua_pushboolean(L, smtp_sieve_holds((const unsigned char *)sieve, (const unsigned char *)text, length));
	return 1;
}

void smtp_open_codec(lua_State *L)
{
	static const luaL_Reg encoder_methods[] = {{"update", encoder_update},
	                                           {"pour", encoder_pour},
	                                           {"pour_file", encoder_pour_file},
	                                           {"finish", encoder_finish},
	                                           {NULL, NULL}};
	static const luaL_Reg decoder_methods[] = {{"update", decoder_update}, {"bare", decoder_bare}, {NULL, NULL}};
	static const luaL_Reg no_methods[] = {{NULL, NULL}};
	static const luaL_Reg functions[] = {
		{"encoder", encoder_new}, {"decoder", decoder_new}, {"base64", core_base64}, {"unbase64", core_unbase64},
		{"scan", core_scan},      {"sieve", core_sieve},    {"holds", core_holds},   {NULL, NULL},
	};
	smtp_class(L, ENCODER, encoder_methods, NULL, encoder_gc);
	smtp_class(L, DECODER, decoder_methods, NULL, decoder_gc);
	smtp_class(L, SCRATCH, no_methods, NULL, scratch_gc);
	smtp_setfuncs(L, functions);
}
