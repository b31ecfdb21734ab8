/* tls: the parts of smtp/tls beside TLS itself. Each adds its functions to the module table on top of the stack. */
#ifndef SMTP_BIND_TLS_H
#define SMTP_BIND_TLS_H

#include "compat.h"

void smtp_open_sign(lua_State *L);

#endif
