/* core: the shared object smtp/core, everything but TLS. Loaded by `require "smtp.core"`. */
#include "core.h"

SMTP_EXPORT int luaopen_smtp_core(lua_State *L);

int luaopen_smtp_core(lua_State *L)
{
	smtp_check_version(L);
	lua_newtable(L);
	smtp_open_codec(L);
	smtp_open_draft(L);
	smtp_open_wire(L);
	smtp_open_sock(L);
	smtp_open_net(L);
	return 1;
}
