/* sock: sockets for Lua, and a wire's bytes over one in as few calls as there are. Nothing here waits, but what is given a
 * deadline. Called by lua/smtp/transport/socket.lua and server. */
#include "core.h"

#include "../net/sock.h"
#include "../net/sys.h"

#include <errno.h>
#include <stdbool.h>

#define SOCK_CLASS "smtp.sock"

struct sock {
	int fd1;         /* the descriptor + 1, so that a zeroed object is a closed one */
	double patience; /* see smtp_sock_await */
};

static bool is_early(ssize_t result)
{
	return result == -EAGAIN || result == -EWOULDBLOCK || result == -EINTR || result == -EINPROGRESS;
}

/* nil, and "again" or the system's words for -errno */
static int fail(lua_State *L, int failure)
{
	return smtp_fail(L, is_early(failure) ? "again" : strerror(-failure));
}

/* The same of what moves octets, and found the end (0) or failed: nil, and "again", or "closed" and words. */
static int fail_move(lua_State *L, ssize_t result)
{
	if (is_early(result))
		return smtp_fail(L, "again");
	smtp_fail(L, "closed");
	lua_pushstring(L, result == 0 ? "the peer closed the connection" : strerror((int)-result));
	return 3;
}

static struct sock *self(lua_State *L)
{
	return smtp_self(L, SOCK_CLASS);
}

/* Its descriptor; raises where it is closed. */
static int descriptor(lua_State *L, const struct sock *sock)
{
	if (sock->fd1 == 0)
		return luaL_argerror(L, 1, "the socket is closed");
	return sock->fd1 - 1;
}

static int check_fd(lua_State *L)
{
	return descriptor(L, self(L));
}

static int sock_connect(lua_State *L)
{
	struct smtp_address address, local;
	bool bound = !lua_isnoneornil(L, 2); /* asked now: the new object will be second where there was none */
	smtp_check_address(L, 1, &address);
	if (bound)
		smtp_check_address(L, 2, &local);
	struct sock *sock = smtp_new(L, sizeof *sock, SOCK_CLASS);
	int fd = smtp_sock_connect(&address, bound ? &local : NULL);
	if (fd < 0)
		return smtp_fail(L, strerror(-fd));
	sock->fd1 = fd + 1;
	return 1;
}

static int sock_listen(lua_State *L)
{
	struct smtp_address address;
	smtp_check_address(L, 1, &address);
	int queue = smtp_opt_number(L, 2, 0, 0);
	struct sock *sock = smtp_new(L, sizeof *sock, SOCK_CLASS);
	int fd = smtp_sock_listen(&address, queue);
	if (fd < 0)
		return smtp_fail(L, strerror(-fd));
	sock->fd1 = fd + 1;
	return 1;
}

static int sock_accept(lua_State *L)
{
	const struct sock *listener = self(L);
	(void)descriptor(L, listener);
	struct sock *sock = smtp_new(L, sizeof *sock, SOCK_CLASS);
	if (listener->fd1 == 0)
		return smtp_fail(L, "closed"); /* meanwhile */
	int fd = smtp_sock_accept(listener->fd1 - 1);
	if (fd < 0)
		return fail(L, fd);
	sock->fd1 = fd + 1;
	return 1;
}

static int sock_connected(lua_State *L)
{
	int failure = smtp_sock_connected(check_fd(L));
	if (failure)
		return fail(L, failure);
	lua_pushboolean(L, 1);
	return 1;
}

/* read([deadline]) -> bytes | nil, "again" | nil, "closed", words; with a deadline it waits for them */
static int sock_read(lua_State *L)
{
	char bytes[16384];
	struct sock *sock = self(L);
	int fd = descriptor(L, sock);
	double seconds = smtp_seconds_until(luaL_optnumber(L, 2, 0));
	ssize_t count = smtp_sock_await(fd, &sock->patience, seconds, bytes, sizeof bytes);
	if (count <= 0)
		return fail_move(L, count);
	lua_pushlstring(L, bytes, (size_t)count);
	return 1;
}

/* write(bytes[, from]) -> how many went | nil, "again" | nil, "closed", words */
static int sock_write(lua_State *L)
{
	size_t length;
	const char *bytes = luaL_checklstring(L, 2, &length);
	lua_Integer from = luaL_optinteger(L, 3, 1);
	luaL_argcheck(L, from >= 1 && from - 1 <= (lua_Integer)length, 3, "outside the string");
	size_t skip = (size_t)from - 1;
	ssize_t count = smtp_sock_write(check_fd(L), bytes + skip, length - skip);
	if (count < 0)
		return fail_move(L, count);
	lua_pushinteger(L, (lua_Integer)count);
	return 1;
}

/* All that the wire has queued; 0 or -errno. */
static int put(int fd, struct smtp_buf *out)
{
	while (smtp_buf_length(out) > 0) {
		ssize_t count = smtp_sock_write(fd, out->data + out->start, smtp_buf_length(out));
		if (count < 0)
			return (int)count;
		smtp_buf_drop(out, (size_t)count);
	}
	return 0;
}

/* send(wire) -> true: all that the wire had queued is out | nil, "again" | nil, "closed", words */
static int sock_send(lua_State *L)
{
	struct sock *sock = self(L);
	int failure = put(descriptor(L, sock), &smtp_check_wire(L, 2)->out);
	if (failure)
		return fail_move(L, failure);
	lua_pushboolean(L, 1);
	return 1;
}

/* Brings the wire what comes within `seconds`. Returns the number of octets, 0 at the end of the stream, or -errno. */
static ssize_t get(lua_State *L, struct sock *sock, double seconds, struct smtp_wire *wire, enum smtp_status *status)
{
	char bytes[16384];
	ssize_t count = smtp_sock_await(descriptor(L, sock), &sock->patience, seconds, bytes, sizeof bytes);
	if (count > 0)
		*status = smtp_wire_feed(wire, bytes, (size_t)count);
	return count;
}

/* receive(wire[, deadline]) -> true: the wire got some bytes | as read | nil, "protocol", words: the wire takes no more */
static int sock_receive(lua_State *L)
{
	enum smtp_status status = SMTP_OK;
	struct sock *sock = self(L);
	struct smtp_wire *wire = smtp_check_wire(L, 2);
	ssize_t count = get(L, sock, smtp_seconds_until(luaL_optnumber(L, 3, 0)), wire, &status);
	if (count <= 0)
		return fail_move(L, count);
	if (status == SMTP_OK) {
		lua_pushboolean(L, 1);
		return 1;
	}
	smtp_fail(L, "protocol");
	lua_pushstring(L, smtp_status_text(status));
	return 3;
}

/* turn(wire, until, classes, content[, lines, how many[, utf8]]) -> what the wire's turn gives, two values, and then where
 * it has queued something: the time, and whether all of that is out, which send goes on with otherwise. false, and nothing
 * is done, where the time `until` is over. */
static int sock_turn(lua_State *L)
{
	struct sock *sock = self(L);
	struct smtp_wire *wire = smtp_check_wire(L, 2);
	double now = smtp_sys_now();
	(void)descriptor(L, sock);
	if (now > luaL_checknumber(L, 3)) {
		lua_pushboolean(L, 0);
		return 1;
	}
	smtp_push_turn(L, wire, 4);
	if (!lua_toboolean(L, -2))
		return 2;
	lua_pushnumber(L, now);
	lua_pushboolean(L, sock->fd1 && put(sock->fd1 - 1, &wire->out) == 0);
	return 4;
}

/* reply(wire, deadline) -> what the wire's reply gives, once something has come or the time is over; behind a reply also
 * the time */
static int sock_reply(lua_State *L)
{
	enum smtp_status status = SMTP_OK;
	struct sock *sock = self(L);
	struct smtp_wire *wire = smtp_check_wire(L, 2);
	if (get(L, sock, smtp_seconds_until(luaL_checknumber(L, 3)), wire, &status) <= 0)
		return smtp_fail(L, "again");
	int results = smtp_push_reply(L, wire);
	if (!lua_isnumber(L, -results))
		return results;
	lua_pushnumber(L, smtp_sys_now());
	return results + 1;
}

static int sock_peek(lua_State *L)
{
	static const char *const looks[] = {"idle", "data", "closed"};
	lua_pushstring(L, looks[smtp_sock_peek(check_fd(L))]);
	return 1;
}

static int sock_name(lua_State *L)
{
	struct smtp_address address;
	int failure = smtp_sock_local(check_fd(L), &address);
	if (failure)
		return fail(L, failure);
	return smtp_push_name(L, &address);
}

static int sock_fd(lua_State *L)
{
	lua_pushinteger(L, check_fd(L));
	return 1;
}

static int sock_close(lua_State *L)
{
	struct sock *sock = luaL_checkudata(L, 1, SOCK_CLASS);
	if (sock->fd1)
		smtp_sock_close(sock->fd1 - 1);
	sock->fd1 = 0;
	return 0;
}

void smtp_open_sock(lua_State *L)
{
	static const luaL_Reg methods[] = {
		{"connected", sock_connected},
		{"accept", sock_accept},
		{"read", sock_read},
		{"write", sock_write},
		{"send", sock_send},
		{"receive", sock_receive},
		{"turn", sock_turn},
		{"reply", sock_reply},
		{"peek", sock_peek},
		{"name", sock_name},
		{"fd", sock_fd},
		{"close", sock_close},
		{NULL, NULL},
	};
	static const luaL_Reg functions[] = {{"connect", sock_connect}, {"listen", sock_listen}, {NULL, NULL}};
	smtp_class(L, SOCK_CLASS, methods, SMTP_WIRE_CLASS, sock_close);
	smtp_setfuncs(L, functions);
}
