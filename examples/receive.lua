--- A receiving server: prints what arrives, until it is interrupted. With COUNT set it ends after that many messages.
--- Try it: lua receive.lua 2525, and in another terminal swaks --server 127.0.0.1:2525 --to you@example.org
local smtp = require "smtp"

local left = tonumber(os.getenv "COUNT") or math.huge

local server, err = smtp.server {
  port = tonumber(arg[1] or 2525),
  on_message = function(envelope, message)
    print(("from <%s> for <%s>, %d octets"):format(envelope.from, table.concat(envelope.to, ">, <"), #message))
    print((message:gsub("\r\n", "\n")))
    left = left - 1
    -- returning nil takes the message; a reply refuses it: return "550 5.7.1 not wanted"
  end,
}
if not server then
  io.stderr:write(tostring(err), "\n")
  os.exit(1)
end

io.stdout:setvbuf("line")
print(("listening on %s port %d"):format(server.host, server.port))
while left > 0 do server:step(1) end
server:step(0.1) -- the last client's QUIT
server:close()
