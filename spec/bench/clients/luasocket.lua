-- luasocket.lua WORK PORT N [RCPTS]: LuaSocket's smtp, with LuaSec for TLS; keep (FORM=raw|compose), cold, big.
-- NODELAY: with Nagle's algorithm switched off, which smtp.open does not do.
local smtp, socket, ltn12, mime = require "socket.smtp", require "socket", require "ltn12", require "mime"

local work, port, count, rcpts = arg[1], tonumber(arg[2]), tonumber(arg[3]), tonumber(arg[4] or 1)
local tls, nodelay, bench = os.getenv "TLS", os.getenv "NODELAY", os.getenv "BENCH"

local to = {}
for i = 1, rcpts do to[i] = ("<b%d@example.net>"):format(i) end

local function read(name)
  local file = assert(io.open(bench .. "/" .. name, "rb"))
  local bytes = file:read "*a"
  file:close()
  return bytes
end

local raw, text = read "small.eml", read "small.txt"

-- A socket that does its handshake as soon as it is connected.
local function create()
  local sock = assert(socket.tcp())
  return setmetatable({
    connect = function(_, host, number)
      assert(sock:connect(host, number))
      if nodelay then sock:setoption("tcp-nodelay", true) end
      if not tls then return 1 end
      sock = assert(require "ssl".wrap(sock,
        { mode = "client", protocol = "any", verify = "peer", options = "all", cafile = bench .. "/pki/ca.pem" }))
      return sock:dohandshake()
    end,
  }, {
    __index = function(_, name) return function(_, ...) return sock[name](sock, ...) end end,
  })
end

local function mail()
  local message = { from = "<ada@example.org>", rcpt = to }
  local headers = { from = "Ada <ada@example.org>", to = "Bob <bob@example.net>", subject = "A small message" }
  if work == "big" then
    message.source = smtp.message { headers = headers, body = {
      { body = "See attached.\r\n" },
      {
        headers = { ["content-type"] = "application/octet-stream", ["content-transfer-encoding"] = "base64",
          ["content-disposition"] = 'attachment; filename="att.bin"' },
        body = ltn12.source.chain(ltn12.source.file(assert(io.open(bench .. "/att.bin", "rb"))),
          ltn12.filter.chain(mime.encode "base64", mime.wrap "base64")),
      },
    } }
  elseif os.getenv "FORM" == "compose" then
    message.source = smtp.message { headers = headers, body = mime.eol(0, text) }
  else
    message.source = ltn12.source.string(raw)
  end
  return message
end

if work == "cold" then
  for _ = 1, count do
    local message = mail()
    message.server, message.port, message.create = "127.0.0.1", port, create
    message.user, message.password = "user", "secret"
    assert(smtp.send(message))
  end
else
  local session = smtp.open("127.0.0.1", port, create)
  session:greet "localhost"
  for _ = 1, count do session:send(mail()) end
  session:quit()
  session:close()
end
