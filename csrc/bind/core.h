/* core: the parts of smtp/core. Each adds its functions to the module table on top of the stack. */
#ifndef SMTP_BIND_CORE_H
#define SMTP_BIND_CORE_H

#include "compat.h"

#define SMTP_WIRE_CLASS "smtp.wire"
#define SMTP_SOCK_CLASS "smtp.sock"

struct smtp_wire;

struct smtp_socket {
	int fd1;         /* the descriptor + 1, so that a zeroed object is a closed one */
	double patience; /* see smtp_sock_await */
};

/* Its descriptor; raises an error about the first argument where it is closed. */
int smtp_socket_fd(lua_State *L, const struct smtp_socket *sock);

/* nil and "again", or the system's words for -errno */
int smtp_fail_system(lua_State *L, int failure);

/* Seconds from now on, at least 0. */
double smtp_seconds_until(double deadline);

/* What a wire's methods turn and reply do: turn with its arguments from `index` on, and always two results. */
void smtp_push_turn(lua_State *L, struct smtp_wire *wire, int index);
int smtp_push_reply(lua_State *L, struct smtp_wire *wire);

void smtp_open_codec(lua_State *L);
void smtp_open_plain(lua_State *L);
void smtp_open_wire(lua_State *L);
void smtp_open_net(lua_State *L);
void smtp_open_net_wire(lua_State *L); /* after wire and net */

#endif
