/* draft: smtp.core.field, mailboxes, text, message_id, body and letter, which take what is plain and give nil for
 * everything else; hex, distinct and is_envelope.
 *
 * They write on the C stack, never into memory of their own. Spans point there or into strings on Lua's stack, not into
 * those that only an argument's table holds: a finalizer that a push runs may take them out of it. Used by
 * lua/smtp/mail.
 */
#include "../wire/draft.h"
#include "core.h"

enum {
	ROOM = 16384,  /* octets of a field, or of a message that is plain: what is longer is not */
	SPARE = 8,     /* slots of Lua's stack for what is pushed between two checks */
	ID = 16,       /* random octets in a Message-ID */
	BOUNDARY = 12, /* and in a boundary */
};

/* The options that a letter may have, each in a slot of Lua's stack behind the arguments. */
enum option {
	FROM,
	SENDER,
	REPLY_TO,
	TO,
	CC,
	BCC,
	SUBJECT,
	TEXT,
	HTML,
	OPTIONS,
};

/* The string at `index`; false: it is none, or a number that would become one. */
static bool span_at(lua_State *L, int index, struct smtp_span *span)
{
	if (lua_type(L, index) != LUA_TSTRING)
		return false;
	span->bytes = lua_tolstring(L, index, &span->length);
	return true;
}

static int push(lua_State *L, const struct smtp_draft *out)
{
	lua_pushlstring(L, out->bytes, out->length);
	return 1;
}

static bool put_words(struct smtp_draft *out, struct smtp_span name, struct smtp_span value)
{
	return smtp_draft_begin(out, name) && smtp_draft_words(out, value) && smtp_draft_end(out);
}

/* field(name, value) -> "name: value\r\n", folded */
static int core_field(lua_State *L)
{
	char room[ROOM];
	struct smtp_draft out;
	struct smtp_span name;
	struct smtp_span value;
	smtp_draft_init(&out, room, sizeof room);
	if (!span_at(L, 1, &name) || !span_at(L, 2, &value) || !smtp_draft_is_name(name) || !put_words(&out, name, value))
		return 0;
	return push(L, &out);
}

/* Writes the mailboxes of a string and pushes their addresses, one or more. */
static bool push_list(lua_State *L, struct smtp_draft *out, struct smtp_span list, bool more)
{
	struct smtp_span address;
	do {
		if (!lua_checkstack(L, SPARE) || !smtp_draft_mailbox(out, &list, more, &address))
			return false;
		lua_pushlstring(L, address.bytes, address.length);
	} while (list.length > 0);
	return true;
}

/* The same where there may be nothing: its bytes are NULL then. */
static bool maybe_at(lua_State *L, int index, struct smtp_span *span)
{
	*span = (struct smtp_span){NULL, 0};
	return lua_isnoneornil(L, index) || span_at(L, index, span);
}

/* The same of a field, which is pushed. */
static bool push_field(lua_State *L, int index, const char *key, struct smtp_span *span)
{
	lua_pushstring(L, key);
	lua_rawget(L, index);
	return maybe_at(L, -1, span);
}

/* How many keys the table at `index` has. */
static size_t count_keys(lua_State *L, int index)
{
	size_t count = 0;
	for (lua_pushnil(L); lua_next(L, index); count++)
		lua_pop(L, 1);
	return count;
}

/* The same of one value: a string, or the table of a mailbox. *several: it is a list. */
static bool push_value(lua_State *L, struct smtp_draft *out, int index, bool more, bool *several)
{
	struct smtp_span name;
	struct smtp_span address;
	int first = lua_gettop(L) + 1;
	*several = false;
	if (span_at(L, index, &address))
		return push_list(L, out, address, more);
	if (!lua_istable(L, index) || !lua_checkstack(L, SPARE) || lua_getmetatable(L, index))
		return false;
	*several = lua_rawlen(L, index) > 0;
	if (*several)
		return true;
	if (!push_field(L, index, "address", &address) || !push_field(L, index, "name", &name) ||
	    count_keys(L, index) != (size_t)(address.bytes != NULL) + (name.bytes != NULL) ||
	    !smtp_draft_named(out, name, address, more))
		return false;
	lua_settop(L, first); /* the address stays */
	return true;
}

/* Writes an address field out of what its option holds, and pushes the addresses, one or more. */
static bool push_people(lua_State *L, struct smtp_draft *out, struct smtp_span name, int index)
{
	bool several;
	int before = lua_gettop(L);
	if (!smtp_draft_begin(out, name) || !push_value(L, out, index, false, &several))
		return false;
	int count = several ? (int)lua_rawlen(L, index) : 0;
	if (several && count_keys(L, index) != (size_t)count) /* a hole, or a name where a number is due */
		return false;
	for (int i = 1; i <= count; i++) {
		if (!lua_checkstack(L, SPARE))
			return false;
		lua_rawgeti(L, index, i);
		int item = lua_gettop(L);
		if (!push_value(L, out, item, i < count, &several) || several)
			return false;
		lua_remove(L, item);
	}
	return lua_gettop(L) > before && smtp_draft_end(out);
}

/* A list of what stands on the stack from `first` on. */
static void push_table(lua_State *L, int first)
{
	int last = lua_gettop(L);
	lua_createtable(L, last + 1 - first, 0);
	for (int i = first; i <= last; i++) {
		lua_pushvalue(L, i);
		lua_rawseti(L, -2, i + 1 - first);
	}
}

/* mailboxes(name, value) -> the field, the first address, and a list of all where there are more; `value` is what an
 * address option takes. */
static int core_mailboxes(lua_State *L)
{
	char room[ROOM];
	struct smtp_draft out;
	struct smtp_span name;
	lua_settop(L, 2);
	smtp_draft_init(&out, room, sizeof room);
	if (!span_at(L, 1, &name) || !smtp_draft_is_name(name) || !push_people(L, &out, name, 2))
		return 0;
	bool more = lua_gettop(L) > 3;
	if (more)
		push_table(L, 3);
	push(L, &out);
	lua_pushvalue(L, 3);
	if (!more)
		return 2;
	lua_pushvalue(L, -3);
	return 3;
}

static bool is_upper(char c)
{
	return c >= 'A' && c <= 'Z';
}

/* Pushes what tells the address on top of the stack from others: the case of its domain does not (RFC 5321 2.4). */
static void push_identity(lua_State *L)
{
	size_t length;
	const char *address = lua_tolstring(L, -1, &length);
	size_t host = length;
	bool same = true;
	for (; host > 0 && address[host - 1] != '@'; host--)
		same = same && !is_upper(address[host - 1]);
	if (same || host == 0) {
		lua_pushvalue(L, -1);
		return;
	}
	luaL_Buffer out;
	luaL_buffinit(L, &out);
	luaL_addlstring(&out, address, host);
	for (size_t i = host; i < length; i++)
		luaL_addchar(&out, (char)(is_upper(address[i]) ? address[i] + 32 : address[i]));
	luaL_pushresult(&out);
}

/* Leaves each mailbox once in the list at `index`, the first of its addresses. */
static void dedupe(lua_State *L, int index)
{
	int count = (int)lua_rawlen(L, index);
	int kept = 0;
	luaL_checkstack(L, SPARE, "too many recipients");
	lua_createtable(L, 0, count);
	int seen = lua_gettop(L);
	for (int i = 1; i <= count; i++) {
		lua_rawgeti(L, index, i);
		luaL_checktype(L, -1, LUA_TSTRING);
		push_identity(L);
		lua_pushvalue(L, -1);
		lua_rawget(L, seen);
		if (lua_isnil(L, -1)) {
			lua_pop(L, 1);
			lua_pushboolean(L, 1);
			lua_rawset(L, seen);
			if (++kept < i)
				lua_rawseti(L, index, kept);
		}
		lua_settop(L, seen);
	}
	while (kept < count) {
		lua_pushnil(L);
		lua_rawseti(L, index, ++kept);
	}
	lua_settop(L, seen - 1);
}

/* distinct(addresses): leaves each mailbox once in it */
static int core_distinct(lua_State *L)
{
	luaL_checktype(L, 1, LUA_TTABLE);
	lua_settop(L, 1);
	dedupe(L, 1);
	return 0;
}

/* Whether the field of the table at index 1 is the value at `index`. */
static bool has_field(lua_State *L, const char *name, int index)
{
	lua_pushstring(L, name);
	lua_rawget(L, 1);
	bool same = lua_rawequal(L, -1, index);
	lua_pop(L, 1);
	return same;
}

/* is_envelope(envelope, seen, from, to, addresses) -> whether it is the table that was seen, with that sender and that
 * list, and the list has these addresses and nothing else. Asks no metatable. */
static int core_is_envelope(lua_State *L)
{
	luaL_checktype(L, 5, LUA_TTABLE);
	size_t count = 0, length = (size_t)lua_rawlen(L, 5);
	bool same = lua_istable(L, 1) && lua_rawequal(L, 1, 2) && has_field(L, "from", 3) && has_field(L, "to", 4) &&
	            lua_istable(L, 4);
	lua_settop(L, 5);
	lua_pushnil(L);
	while (same && lua_next(L, 4)) {
		lua_pushvalue(L, -2);
		lua_rawget(L, 5);
		same = lua_rawequal(L, -1, -2) && ++count <= length;
		lua_pop(L, 2);
	}
	lua_pushboolean(L, same && count == length);
	return 1;
}

/* text(s) -> s with CRLF line ends; nil: it is not plain, or empty */
static int core_text(lua_State *L)
{
	char small[ROOM];
	struct smtp_draft out;
	struct smtp_span text;
	text.bytes = luaL_checklstring(L, 1, &text.length);
	size_t size = smtp_draft_text_size(text);
	smtp_draft_init(&out, size <= sizeof small ? small : lua_newuserdata(L, size), size);
	return smtp_draft_text(&out, text) ? push(L, &out) : 0;
}

static int core_hex(lua_State *L)
{
	char room[256];
	struct smtp_draft out;
	struct smtp_span bytes;
	bytes.bytes = luaL_checklstring(L, 1, &bytes.length);
	smtp_draft_init(&out, room, sizeof room);
	luaL_argcheck(L, smtp_draft_hex(&out, bytes), 1, "too long");
	return push(L, &out);
}

/* message_id(random, address) -> "<…@…>" at the address's domain; nil: that is not plain */
static int core_message_id(lua_State *L)
{
	char room[512];
	struct smtp_draft out;
	struct smtp_span random;
	struct smtp_span address;
	smtp_draft_init(&out, room, sizeof room);
	if (!span_at(L, 1, &random) || !span_at(L, 2, &address) || !smtp_draft_id(&out, random, address))
		return 0;
	return push(L, &out);
}

/* body(head, text, html, random) -> the head with the body behind it, the body's fields first. Either of the two texts
 * may be nil; where both are given `random` is 12 octets. */
static int core_body(lua_State *L)
{
	char room[ROOM];
	struct smtp_draft out;
	struct smtp_span head;
	struct smtp_span text;
	struct smtp_span html;
	struct smtp_span boundary = {NULL, 0};
	smtp_draft_init(&out, room, sizeof room);
	if (!span_at(L, 1, &head) || !maybe_at(L, 2, &text) || !maybe_at(L, 3, &html))
		return 0;
	if (text.bytes && html.bytes && (!span_at(L, 4, &boundary) || boundary.length != BOUNDARY))
		return 0;
	return smtp_draft_add(&out, head) && smtp_draft_body(&out, text, html, boundary) ? push(L, &out) : 0;
}

/* Spreads a table of options over the slots from `base` on: nothing else may be in it, and nothing behind it. */
static bool spread(lua_State *L, int index, int base)
{
	static const struct smtp_span names[OPTIONS] = {
		[FROM] = {"from", 4},       [SENDER] = {"sender", 6}, [REPLY_TO] = {"reply_to", 8},
		[TO] = {"to", 2},           [CC] = {"cc", 2},         [BCC] = {"bcc", 3},
		[SUBJECT] = {"subject", 7}, [TEXT] = {"text", 4},     [HTML] = {"html", 4}};
	if (!lua_istable(L, index) || lua_getmetatable(L, index))
		return false;
	lua_settop(L, base + OPTIONS);
	for (lua_pushnil(L); lua_next(L, index);) {
		struct smtp_span key;
		int option = 0;
		if (!span_at(L, -2, &key))
			return false;
		while (option < OPTIONS &&
		       (key.length != names[option].length || memcmp(key.bytes, names[option].bytes, key.length) != 0))
			option++;
		if (option == OPTIONS)
			return false;
		lua_replace(L, base + option);
	}
	return true;
}

static struct smtp_span literal(const char *words)
{
	return (struct smtp_span){words, strlen(words)};
}

static bool push_option(lua_State *L, struct smtp_draft *out, const char *name, int index)
{
	return lua_isnil(L, index) || push_people(L, out, literal(name), index);
}

/* Writes From to Cc; pushes the sender's address and those of the recipients. */
static bool put_people(lua_State *L, struct smtp_draft *out, int base)
{
	int top = lua_gettop(L);
	if (!push_option(L, out, "From", base + FROM) || lua_gettop(L) != top + 1)
		return false;
	if (!push_option(L, out, "Sender", base + SENDER) || lua_gettop(L) > top + 2)
		return false;
	if (lua_gettop(L) == top + 2)
		lua_remove(L, top + 1);
	if (!push_option(L, out, "Reply-To", base + REPLY_TO))
		return false;
	lua_settop(L, top + 1);
	if (!push_option(L, out, "To", base + TO) || !push_option(L, out, "Cc", base + CC))
		return false;
	/* looked at, but not part of the header */
	struct smtp_draft hidden = *out;
	return push_option(L, &hidden, "Bcc", base + BCC) && lua_gettop(L) > top + 1;
}

/* letter(options, date, random) -> Message-ID, sender, list of recipients, the message: what most messages are, whole.
 * It takes the options of the enum alone. `date` is that field, complete; `random` has 28 octets. */
static int core_letter(lua_State *L)
{
	enum { BASE = 4, SENDER_AT = BASE + OPTIONS };
	char room[ROOM];
	struct smtp_draft out;
	struct smtp_span date;
	struct smtp_span random;
	struct smtp_span sender;
	struct smtp_span subject;
	struct smtp_span text;
	struct smtp_span html;
	smtp_draft_init(&out, room, sizeof room);
	if (!span_at(L, 2, &date) || !span_at(L, 3, &random) || random.length != ID + BOUNDARY || !spread(L, 1, BASE))
		return 0;
	lua_settop(L, SENDER_AT - 1);
	if (!smtp_draft_add(&out, date) || !put_people(L, &out, BASE) || !span_at(L, SENDER_AT, &sender) ||
	    !smtp_draft_add(&out, literal("Message-ID: ")))
		return 0;
	struct smtp_span id = {out.bytes + out.length, out.length};
	if (!smtp_draft_id(&out, (struct smtp_span){random.bytes, ID}, sender))
		return 0;
	id.length = out.length - id.length;
	if (!maybe_at(L, BASE + SUBJECT, &subject) || !maybe_at(L, BASE + TEXT, &text) || !maybe_at(L, BASE + HTML, &html))
		return 0;
	if (!smtp_draft_end(&out) || (subject.bytes && !put_words(&out, literal("Subject"), subject)) ||
	    !smtp_draft_add(&out, literal("MIME-Version: 1.0\r\n")) ||
	    !smtp_draft_body(&out, text, html, (struct smtp_span){random.bytes + ID, BOUNDARY}))
		return 0;

	bool several = lua_gettop(L) > SENDER_AT + 1;
	push_table(L, SENDER_AT + 1);
	if (several)
		dedupe(L, lua_gettop(L));
	lua_replace(L, 1);
	lua_pushlstring(L, id.bytes, id.length);
	lua_pushvalue(L, SENDER_AT);
	lua_pushvalue(L, 1);
	push(L, &out);
	return 4;
}

void smtp_open_draft(lua_State *L)
{
	static const luaL_Reg functions[] = {
		{"field", core_field},
		{"mailboxes", core_mailboxes},
		{"distinct", core_distinct},
		{"is_envelope", core_is_envelope},
		{"text", core_text},
		{"hex", core_hex},
		{"message_id", core_message_id},
		{"body", core_body},
		{"letter", core_letter},
		{NULL, NULL},
	};
	smtp_setfuncs(L, functions);
}
