/* core: the parts of smtp/core. Each adds its functions to the module table on top of the stack. */
#ifndef SMTP_BIND_CORE_H
#define SMTP_BIND_CORE_H

#include "compat.h"

#define SMTP_WIRE_CLASS "smtp.wire"

void smtp_open_codec(lua_State *L);
void smtp_open_plain(lua_State *L);
void smtp_open_wire(lua_State *L);
void smtp_open_net(lua_State *L);

#endif
