/* core: the parts of smtp/core. Each adds its functions to the module table on top of the stack. */
#ifndef SMTP_BIND_CORE_H
#define SMTP_BIND_CORE_H

#include "../wire/wire.h"
#include "compat.h"

#define SMTP_WIRE_CLASS "smtp.wire"

/* The argument `index`, a wire; raises where it is closed. */
static inline struct smtp_wire *smtp_check_wire(lua_State *L, int index)
{
	struct smtp_wire *wire = smtp_object(L, index, SMTP_WIRE_CLASS);
	luaL_argcheck(L, wire->in.cap > 0, index, "the wire is closed");
	return wire;
}

/* Pushes the first `length` of the bytes in a queue, fewer where a finalizer takes of them, and returns how many: they stay
 * in it, also where this raises. */
static inline size_t smtp_push_front(lua_State *L, const struct smtp_buf *queue, size_t length)
{
#if LUA_VERSION_NUM >= 503
	lua_pushlstring(L, (const char *)smtp_buf_view(queue), length);
#else
	/* these collect before they make a copy themselves */
	char brief[4096];
	char *copy = smtp_room(L, brief, sizeof brief, length);
	if (length > smtp_buf_length(queue))
		length = smtp_buf_length(queue);
	memcpy(copy, smtp_buf_view(queue), length);
	lua_pushlstring(L, copy, length);
	if (copy != brief)
		lua_remove(L, -2);
	else
		smtp_wipe(brief, length); /* the other, like the string, is Lua's */
#endif
	return length;
}

/* The same, and takes them off. */
static inline void smtp_push_queue(lua_State *L, struct smtp_buf *queue)
{
	smtp_buf_drop(queue, smtp_push_front(L, queue, smtp_buf_length(queue)));
}

struct smtp_address;

/* The argument `index`, an address. */
void smtp_check_address(lua_State *L, int index, struct smtp_address *address);

/* Pushes host and port. */
int smtp_push_name(lua_State *L, const struct smtp_address *address);

/* Seconds from now on, at least 0. */
double smtp_seconds_until(double deadline);

/* What a wire's methods turn and reply do: turn with its arguments from `index` on, and always two results. */
void smtp_push_turn(lua_State *L, struct smtp_wire *wire, int index);
int smtp_push_reply(lua_State *L, struct smtp_wire *wire);

void smtp_open_codec(lua_State *L);
void smtp_open_draft(lua_State *L);
void smtp_open_wire(lua_State *L);
void smtp_open_sock(lua_State *L); /* after wire */
void smtp_open_net(lua_State *L);

#endif
