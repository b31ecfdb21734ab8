-- only what every Lua from 5.1 to 5.5 and LuaJIT has, read from one place
std = "max+busted"
max_line_length = 120
unused_args = true
self = false
