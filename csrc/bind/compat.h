/* compat: one Lua C API for 5.1 to 5.5 and LuaJIT, and the few helpers every binding file needs.
 *
 * The bindings never call Lua (no call, no resume, no yield): a host may yield at any point of the Lua code above them.
 * But whatever allocates in Lua (a push of a string, table or userdata, a number asked for as a string) may collect, and
 * then a finalizer of the host's may close, change or use the very object that a function works on, or raise. So: arguments
 * first, new objects next, and only then the object itself is looked at, after a push anew. What is pushed stands on the
 * C stack, in Lua, or in an object that nobody else can reach; what a queue holds goes through smtp_push_front.
 */
#ifndef SMTP_COMPAT_H
#define SMTP_COMPAT_H

#include "../wire/status.h"

#include <lauxlib.h>
#include <limits.h>
#include <lua.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#if defined(__GNUC__)
#define SMTP_EXPORT __attribute__((visibility("default")))
#else
#define SMTP_EXPORT
#endif

#if LUA_VERSION_NUM < 502
#define lua_rawlen(L, index) lua_objlen(L, index)

static inline void smtp_register(lua_State *L, const luaL_Reg *functions, int upvalues)
{
	for (; functions->name; functions++) {
		for (int i = 0; i < upvalues; i++)
			lua_pushvalue(L, -upvalues);
		lua_pushcclosure(L, functions->func, upvalues);
		lua_setfield(L, -(upvalues + 2), functions->name);
	}
	lua_pop(L, upvalues);
}

/* The userdata at `index` if it is of the class `name`, else NULL. */
static inline void *smtp_testudata(lua_State *L, int index, const char *name)
{
	void *object = lua_touserdata(L, index);
	if (!object || !lua_getmetatable(L, index))
		return NULL;
	lua_getfield(L, LUA_REGISTRYINDEX, name);
	if (!lua_rawequal(L, -1, -2))
		object = NULL;
	lua_pop(L, 2);
	return object;
}
#else
#define smtp_register(L, functions, upvalues) luaL_setfuncs(L, functions, upvalues)
#define smtp_testudata(L, index, name) luaL_testudata(L, index, name)
#endif

/* A module that was built for another Lua says so instead of crashing. */
static inline void smtp_check_version(lua_State *L)
{
#if LUA_VERSION_NUM >= 502
	luaL_checkversion(L);
#else
	(void)L;
#endif
}

#define smtp_setfuncs(L, functions) smtp_register(L, functions, 0)

/* A class: methods under __index; `gc` as __gc and, where Lua has it, __close. Each method has two upvalues for
 * smtp_object, the metatable and that of the class `second` (may be NULL). Leaves the stack as it was. */
static inline void smtp_class(lua_State *L, const char *name, const luaL_Reg *methods, const char *second,
                              lua_CFunction gc)
{
	luaL_newmetatable(L, name);
	lua_newtable(L);
	lua_pushvalue(L, -2);
	if (second)
		luaL_getmetatable(L, second);
	else
		lua_pushnil(L);
	smtp_register(L, methods, 2);
	lua_setfield(L, -2, "__index");
	lua_pushstring(L, name);
	lua_setfield(L, -2, "__name");
	lua_pushliteral(L, "locked"); /* getmetatable(object) gives this, so no script can call __gc with a foreign value */
	lua_setfield(L, -2, "__metatable");
	lua_pushcfunction(L, gc);
	lua_setfield(L, -2, "__gc");
	lua_pushcfunction(L, gc);
	lua_setfield(L, -2, "__close");
	lua_pop(L, 1);
}

/* A new zeroed object of the class, on top of the stack. All zeros must be a state its `gc` can take. */
static inline void *smtp_new(lua_State *L, size_t size, const char *name)
{
	void *object = memset(lua_newuserdata(L, size), 0, size);
	luaL_getmetatable(L, name);
	lua_setmetatable(L, -2);
	return object;
}

/* The argument `index` of a function, an object of the class `name` whose metatable is the upvalue of that index. The
 * usual check looks the name up each time. */
static inline void *smtp_object(lua_State *L, int index, const char *name)
{
	void *object = lua_touserdata(L, index);
	if (object && lua_getmetatable(L, index)) {
		bool same = lua_rawequal(L, -1, lua_upvalueindex(index));
		lua_pop(L, 1);
		if (same)
			return object;
	}
	return luaL_checkudata(L, index, name);
}

/* The first argument of a method. */
static inline void *smtp_self(lua_State *L, const char *name)
{
	return smtp_object(L, 1, name);
}

/* A whole number from `least` on that every type of C holds. */
static inline int smtp_check_number(lua_State *L, int index, int least)
{
	/* before it is an integer: that one may have lost what is too large */
	lua_Number number = luaL_checknumber(L, index);
	luaL_argcheck(L, number >= least && number <= INT_MAX, index, "out of range");
	return (int)luaL_checkinteger(L, index);
}

static inline int smtp_opt_number(lua_State *L, int index, int least, int otherwise)
{
	return lua_isnoneornil(L, index) ? otherwise : smtp_check_number(L, index, least);
}

/* The most octets that may be wanted, of which there are never more than memory holds. */
static inline size_t smtp_check_most(lua_State *L, int index)
{
	lua_Number most = luaL_checknumber(L, index);
	luaL_argcheck(L, most >= 0, index, "not a count");
	return most < (lua_Number)(SIZE_MAX / 2) ? (size_t)most : SIZE_MAX / 2;
}

/* Where `length` bytes may be copied to and pushed from: `brief`, or a userdata, which this then leaves on the stack. */
static inline char *smtp_room(lua_State *L, char *brief, size_t size, size_t length)
{
	return length <= size ? brief : lua_newuserdata(L, length);
}

/* nil, message */
static inline int smtp_fail(lua_State *L, const char *message)
{
	lua_pushnil(L);
	lua_pushstring(L, message);
	return 2;
}

/* true, or nil and the status' phrase */
static inline int smtp_result(lua_State *L, enum smtp_status status)
{
	if (status < 0)
		return smtp_fail(L, smtp_status_text(status));
	lua_pushboolean(L, 1);
	return 1;
}

#endif
