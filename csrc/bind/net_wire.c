/* net_wire: a wire's bytes over a socket, in as few calls as there are. Called by lua/smtp/transport/socket.lua and
 * batch.lua. */
#include "core.h"

#include "../net/sock.h"
#include "../net/sys.h"

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

/* send(wire) -> true: all that the wire had queued is out | nil, "again" | nil, why */
static int sock_send(lua_State *L)
{
	struct smtp_socket *sock = smtp_self(L, SMTP_SOCK_CLASS);
	int failure = put(smtp_socket_fd(L, sock), &smtp_check_wire(L, 2)->out);
	if (failure)
		return smtp_fail_system(L, failure);
	lua_pushboolean(L, 1);
	return 1;
}

/* Brings the wire what comes within `seconds`. Returns the number of octets, 0 at the end of the stream, or -errno. */
static ssize_t get(lua_State *L, struct smtp_socket *sock, double seconds, struct smtp_wire *wire, enum smtp_status *status)
{
	char bytes[16384];
	ssize_t count = smtp_sock_await(smtp_socket_fd(L, sock), &sock->patience, seconds, bytes, sizeof bytes);
	if (count > 0)
		*status = smtp_wire_feed(wire, bytes, (size_t)count);
	return count;
}

/* receive(wire[, deadline]) -> true: the wire got some bytes | nil, "again" | nil, "closed" | nil, why | nil, why, true: it
 * is the wire that takes no more; with a deadline it waits for them */
static int sock_receive(lua_State *L)
{
	enum smtp_status status = SMTP_OK;
	struct smtp_socket *sock = smtp_self(L, SMTP_SOCK_CLASS);
	struct smtp_wire *wire = smtp_check_wire(L, 2);
	ssize_t count = get(L, sock, smtp_seconds_until(luaL_optnumber(L, 3, 0)), wire, &status);
	if (count == 0)
		return smtp_fail(L, "closed");
	if (count < 0)
		return smtp_fail_system(L, (int)count);
	if (status == SMTP_OK) {
		lua_pushboolean(L, 1);
		return 1;
	}
	smtp_fail(L, smtp_status_text(status));
	lua_pushboolean(L, 1);
	return 3;
}

/* turn(wire, until, classes, content[, lines, how many[, utf8]]) -> what the wire's turn gives, two values, and then where
 * it has queued something: the time, and whether all of that is out, which send goes on with otherwise. false, and nothing
 * is done, where the time `until` is over. */
static int sock_turn(lua_State *L)
{
	struct smtp_socket *sock = smtp_self(L, SMTP_SOCK_CLASS);
	struct smtp_wire *wire = smtp_check_wire(L, 2);
	double now = smtp_sys_now();
	(void)smtp_socket_fd(L, sock);
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
	struct smtp_socket *sock = smtp_self(L, SMTP_SOCK_CLASS);
	struct smtp_wire *wire = smtp_check_wire(L, 2);
	if (get(L, sock, smtp_seconds_until(luaL_checknumber(L, 3)), wire, &status) <= 0)
		return smtp_fail(L, "again");
	int results = smtp_push_reply(L, wire);
	if (!lua_isnumber(L, -results))
		return results;
	lua_pushnumber(L, smtp_sys_now());
	return results + 1;
}

void smtp_open_net_wire(lua_State *L)
{
	static const luaL_Reg methods[] = {
		{"send", sock_send}, {"receive", sock_receive}, {"turn", sock_turn}, {"reply", sock_reply}, {NULL, NULL},
	};
	luaL_getmetatable(L, SMTP_SOCK_CLASS);
	lua_getfield(L, -1, "__index");
	lua_pushvalue(L, -2);
	luaL_getmetatable(L, SMTP_WIRE_CLASS);
	smtp_register(L, methods, 2);
	lua_pop(L, 2);
}
