/* starve: calls with memory for so many allocations of Lua's and no more. */
#include <lauxlib.h>
#include <lua.h>

struct supply {
	lua_Alloc allocate;
	void *state;
	lua_Integer left;
	int refused;
};

static void *allocate(void *state, void *block, size_t before, size_t wanted)
{
	struct supply *supply = state;
	/* to give memory back must never fail */
	if (wanted > 0 && (!block || wanted > before) && supply->left-- <= 0) {
		supply->refused = 1;
		return NULL;
	}
	return supply->allocate(supply->state, block, before, wanted);
}

/* starve(count, f, ...) -> whether it was refused any, then what pcall gives */
static int starve(lua_State *L)
{
	static struct supply supply; /* Lua 5.5 keeps it in long strings, to give their memory back */
	supply.left = luaL_checkinteger(L, 1);
	supply.refused = 0;
	int results = lua_gettop(L) - 2;
	luaL_checkany(L, 2);
	supply.allocate = lua_getallocf(L, &supply.state);
	lua_setallocf(L, allocate, &supply);
	int failed = lua_pcall(L, results, LUA_MULTRET, 0);
	lua_setallocf(L, supply.allocate, supply.state);
	results = lua_gettop(L) - 1;
	lua_pushboolean(L, supply.refused);
	lua_insert(L, 2);
	lua_pushboolean(L, !failed);
	lua_insert(L, 3);
	return results + 2;
}

__attribute__((visibility("default"))) int luaopen_starve(lua_State *L);

int luaopen_starve(lua_State *L)
{
	lua_pushcfunction(L, starve);
	return 1;
}
