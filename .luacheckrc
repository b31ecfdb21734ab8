-- only what every Lua from 5.1 to 5.5 and LuaJIT has, read from one place
std = "max+busted"
max_line_length = 120
files["spec"] = { max_line_length = 150 } -- a case in a table reads best on one line
unused_args = true
self = false
files["examples/nginx"] = { std = "+ngx_lua" }
files["examples/love"] = { std = "+love" }
files["examples/prosody"] = { read_globals = { module = { other_fields = true } } }
files["examples/luanti"] = { read_globals = { "minetest" } }
