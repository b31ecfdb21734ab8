/* net: addresses and their look-up, names beyond ASCII, waiting, clock and randomness for Lua. Nothing here waits, but poll
 * and wait, until a deadline. Called by lua/smtp/transport, server, task.lua and mail/address.lua. */
#include "core.h"

#include "../net/idn.h"
#include "../net/poller.h"
#include "../net/resolve.h"
#include "../net/sock.h"
#include "../net/sys.h"

#include <stdbool.h>
#include <stdio.h>

#define LOOKUP_CLASS "smtp.lookup"
#define POLLER_CLASS "smtp.poller"

struct poller {
	int fd1; /* as in smtp_socket */
	int alarm1;
};

struct lookup {
	struct smtp_resolve *resolve;
};

void smtp_check_address(lua_State *L, int index, struct smtp_address *address)
{
	size_t length;
	const char *bytes = luaL_checklstring(L, index, &length);
	luaL_argcheck(L, length > 0 && length <= sizeof address->bytes, index, "not an address");
	*address = (struct smtp_address){.length = (unsigned)length};
	memcpy(address->bytes, bytes, length);
}

int smtp_push_name(lua_State *L, const struct smtp_address *address)
{
	char host[128];
	int port;
	smtp_sock_name(address, host, sizeof host, &port);
	lua_pushstring(L, host);
	lua_pushinteger(L, port);
	return 2;
}

double smtp_seconds_until(double deadline)
{
	double left = deadline - smtp_sys_now();
	return left > 0 ? left : 0;
}

static int net_address(lua_State *L)
{
	struct smtp_address address;
	smtp_check_address(L, 1, &address);
	return smtp_push_name(L, &address);
}

static int net_unix(lua_State *L)
{
	size_t length;
	const char *path = luaL_checklstring(L, 1, &length);
	struct smtp_address address;
	if (!smtp_sock_unix(&address, path, length))
		return smtp_fail(L, "the path of a unix socket must be neither empty nor too long, with no NUL in it");
	lua_pushlstring(L, (const char *)address.bytes, address.length);
	return 1;
}

static int net_resolve(lua_State *L)
{
	size_t length;
	const char *host = luaL_checklstring(L, 1, &length);
	lua_Integer port = luaL_checkinteger(L, 2);
	luaL_argcheck(L, strlen(host) == length, 1, "not a host name");
	luaL_argcheck(L, port >= 0 && port <= 65535, 2, "not a port");
	struct lookup *lookup = smtp_new(L, sizeof *lookup, LOOKUP_CLASS);
	int failure = smtp_resolve_start(&lookup->resolve, host, (int)port);
	if (failure)
		return smtp_fail(L, strerror(-failure));
	return 1;
}

static struct smtp_resolve *check_lookup(lua_State *L)
{
	struct lookup *lookup = luaL_checkudata(L, 1, LOOKUP_CLASS);
	if (!lookup->resolve)
		luaL_argerror(L, 1, "the look-up is closed");
	return lookup->resolve;
}

static int lookup_fd(lua_State *L)
{
	lua_pushinteger(L, smtp_resolve_fd(check_lookup(L)));
	return 1;
}

/* list of addresses | nil, "again" | nil, words, temporary */
static int lookup_result(lua_State *L)
{
	const struct smtp_address *addresses = NULL;
	size_t count = 0;
	const char *text = NULL;
	bool temporary = false;
	lua_newtable(L);
	for (size_t i = 0;; i++) {
		/* asked anew for each: the push of the last one may have closed the look-up */
		enum smtp_status status = smtp_resolve_result(check_lookup(L), &addresses, &count, &text, &temporary);
		if (status == SMTP_MORE)
			return smtp_fail(L, "again");
		if (status != SMTP_OK) {
			char words[160];
			(void)snprintf(words, sizeof words, "%s", text);
			smtp_fail(L, words);
			lua_pushboolean(L, temporary);
			return 3;
		}
		if (i >= count)
			return 1;
		struct smtp_address address = addresses[i];
		lua_pushlstring(L, (const char *)address.bytes, address.length);
		lua_rawseti(L, -2, (int)i + 1);
	}
}

static int lookup_close(lua_State *L)
{
	struct lookup *lookup = luaL_checkudata(L, 1, LOOKUP_CLASS);
	if (lookup->resolve)
		smtp_resolve_free(lookup->resolve);
	lookup->resolve = NULL;
	return 0;
}

static bool to_mode(lua_State *L, const char *mode, int index)
{
	if (mode && strcmp(mode, "write") == 0)
		return true;
	luaL_argcheck(L, mode && strcmp(mode, "read") == 0, index, "\"read\" or \"write\"");
	return false;
}

/* wait(mode, fd, deadline) -> whether it is ready */
static int net_wait(lua_State *L)
{
	struct smtp_sock_wait wait = {
		.fd = smtp_check_number(L, 2, -1),
		.write = to_mode(L, luaL_checkstring(L, 1), 1),
	};
	lua_pushboolean(L, smtp_sock_poll(&wait, 1, smtp_seconds_until(luaL_checknumber(L, 3))) > 0);
	return 1;
}

/* poll({fd, …}, {mode, …}, deadline) -> {[index] = true, …} */
static int net_poll(lua_State *L)
{
	luaL_checktype(L, 1, LUA_TTABLE);
	luaL_checktype(L, 2, LUA_TTABLE);
	double seconds = smtp_seconds_until(luaL_checknumber(L, 3));
	size_t count = (size_t)lua_rawlen(L, 1);
	struct smtp_sock_wait *waits = lua_newuserdata(L, (count + 1) * sizeof *waits);
	for (size_t i = 0; i < count; i++) {
		lua_rawgeti(L, 1, (int)i + 1);
		lua_rawgeti(L, 2, (int)i + 1);
		luaL_argcheck(L, lua_isnumber(L, -2) && lua_tonumber(L, -2) <= INT_MAX, 1, "a list of descriptors");
		bool write = to_mode(L, lua_tostring(L, -1), 2);
		waits[i] = (struct smtp_sock_wait){.fd = (int)lua_tointeger(L, -2), .write = write};
		lua_pop(L, 2);
	}
	int ready = smtp_sock_poll(waits, count, seconds);
	lua_newtable(L);
	for (size_t i = 0; i < count && ready > 0; i++) {
		if (!waits[i].ready)
			continue;
		lua_pushboolean(L, 1);
		lua_rawseti(L, -2, (int)i + 1);
	}
	return 1;
}

/* poller() -> poller | nil, why: also where the system has none */
static int net_poller(lua_State *L)
{
	struct poller *poller = smtp_new(L, sizeof *poller, POLLER_CLASS);
	int fd = smtp_poller_open();
	if (fd < 0)
		return smtp_fail(L, strerror(-fd));
	poller->fd1 = fd + 1;
	return 1;
}

static struct poller *check_poller(lua_State *L)
{
	struct poller *poller = luaL_checkudata(L, 1, POLLER_CLASS);
	if (poller->fd1 == 0)
		luaL_argerror(L, 1, "the poller is closed");
	return poller;
}

static int poller_fd(lua_State *L)
{
	lua_pushinteger(L, check_poller(L)->fd1 - 1);
	return 1;
}

static int push_done(lua_State *L, int result)
{
	if (result < 0)
		return smtp_fail(L, strerror(-result));
	lua_pushboolean(L, 1);
	return 1;
}

/* watch(mode, fd) -> true | nil, why */
static int poller_watch(lua_State *L)
{
	bool write = to_mode(L, luaL_checkstring(L, 2), 2);
	int fd = smtp_check_number(L, 3, -1);
	return push_done(L, smtp_poller_watch(check_poller(L)->fd1 - 1, fd, write));
}

static int poller_drop(lua_State *L)
{
	int fd = smtp_check_number(L, 2, -1);
	smtp_poller_drop(check_poller(L)->fd1 - 1, fd);
	return 0;
}

/* alarm(deadline) -> true | nil, why: the poller will be readable then, whatever else happens */
static int poller_alarm(lua_State *L)
{
	struct poller *poller = check_poller(L);
	double seconds = luaL_checknumber(L, 2) - smtp_sys_now();
	if (poller->alarm1 == 0) {
		int alarm = smtp_poller_add_alarm(poller->fd1 - 1);
		if (alarm < 0)
			return push_done(L, alarm);
		poller->alarm1 = alarm + 1;
	}
	return push_done(L, smtp_poller_set_alarm(poller->alarm1 - 1, seconds));
}

/* ready() -> {fd, …}: each is no longer watched */
static int poller_ready(lua_State *L)
{
	int fds[64];
	int count = smtp_poller_ready(check_poller(L)->fd1 - 1, fds, 64);
	lua_createtable(L, count < 0 ? 0 : count, 0);
	for (int i = 0; i < count; i++) {
		lua_pushinteger(L, fds[i]);
		lua_rawseti(L, -2, i + 1);
	}
	return 1;
}

static int poller_close(lua_State *L)
{
	struct poller *poller = luaL_checkudata(L, 1, POLLER_CLASS);
	if (poller->fd1)
		smtp_sock_close(poller->fd1 - 1);
	if (poller->alarm1)
		smtp_sock_close(poller->alarm1 - 1);
	*poller = (struct poller){0};
	return 0;
}

/* idn(domain) -> A-labels, U-labels | nil, words | nothing: libidn2 is not installed */
static int net_idn(lua_State *L)
{
	size_t length;
	const char *domain = luaL_checklstring(L, 1, &length);
	struct smtp_idn idn;
	enum smtp_status status = smtp_idn_convert(&idn, domain, length);
	if (status == SMTP_E_MISSING)
		return 0;
	if (status != SMTP_OK)
		return smtp_fail(L, idn.reason);
	lua_pushstring(L, idn.ascii);
	lua_pushstring(L, idn.unicode);
	return 2;
}

static int net_now(lua_State *L)
{
	lua_pushnumber(L, smtp_sys_now());
	return 1;
}

static int net_random(lua_State *L)
{
	unsigned char bytes[1024];
	lua_Integer count = luaL_checkinteger(L, 1);
	luaL_argcheck(L, count >= 0 && count <= (lua_Integer)sizeof bytes, 1, "0 to 1024");
	if (!smtp_sys_random(bytes, (size_t)count))
		return smtp_fail(L, "the system has no random bytes to give");
	lua_pushlstring(L, (const char *)bytes, (size_t)count);
	return 1;
}

static int net_hostname(lua_State *L)
{
	char name[256];
	smtp_sys_hostname(name, sizeof name);
	lua_pushstring(L, name);
	return 1;
}

void smtp_open_net(lua_State *L)
{
	static const luaL_Reg lookup_methods[] = {
		{"fd", lookup_fd},
		{"result", lookup_result},
		{"close", lookup_close},
		{NULL, NULL},
	};
	static const luaL_Reg poller_methods[] = {
		{"fd", poller_fd},       {"watch", poller_watch}, {"drop", poller_drop}, {"alarm", poller_alarm},
		{"ready", poller_ready}, {"close", poller_close}, {NULL, NULL},
	};
	static const luaL_Reg functions[] = {
		{"address", net_address},
		{"unix", net_unix},
		{"resolve", net_resolve},
		{"wait", net_wait},
		{"poll", net_poll},
		{"now", net_now},
		{"random", net_random},
		{"hostname", net_hostname},
		{"idn", net_idn},
		{"poller", net_poller},
		{NULL, NULL},
	};
	smtp_class(L, LOOKUP_CLASS, lookup_methods, NULL, lookup_close);
	smtp_class(L, POLLER_CLASS, poller_methods, NULL, poller_close);
	smtp_setfuncs(L, functions);
}
