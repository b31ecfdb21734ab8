-- LuaSocket peer: luasocket.lua WORKLOAD PORT N [RCPTS]; keep = smtp.open once; send = smtp.send (a connection a message)
local smtp, socket, ltn12, mime = require "socket.smtp", require "socket", require "ltn12", require "mime"
local w, port, n, rc = arg[1], tonumber(arg[2]), tonumber(arg[3]), tonumber(arg[4] or 1)
local to = {} for i = 0, rc - 1 do to[#to + 1] = "<b" .. i .. "@example.net>" end
local function slurp(f) local h = assert(io.open(f, "rb")) local s = h:read("a") h:close() return s end
local msg, text = slurp("data/small.eml"), slurp("data/small.txt")
local tls = w:find("tls") or w == "cold"
local create
if tls then
  local ssl = require "ssl"
  create = function()
    local sock = socket.tcp()
    return setmetatable({connect = function(_, h, p)
      local r, e = sock:connect(h, p)
      if not r then return r, e end
      if w:find("nd$") then sock:setoption("tcp-nodelay", true) end
      sock = assert(ssl.wrap(sock, {mode = "client", protocol = "any", verify = "none", options = "all"}))
      return sock:dohandshake()
    end}, {__index = function(_, k) return function(_, ...) return sock[k](sock, ...) end end})
  end
end
local function mail()
  local m = {from = "<a@example.com>", rcpt = to}
  if w:find("^compose") or w == "sendcompose" then
    m.source = smtp.message{headers = {from = "Alice Example <a@example.com>", to = "Bob Example <b@example.net>",
      subject = "Quarterly report, small test message"}, body = mime.eol(0, text)}
  elseif w:sub(1, 3) == "big" then
    m.source = smtp.message{headers = {from = "a@example.com", to = "b@example.net", subject = "Big"}, body = {
      [1] = {body = "See attached.\r\n"},
      [2] = {headers = {["content-type"] = "application/octet-stream", ["content-disposition"] = 'attachment; filename="att.bin"',
        ["content-transfer-encoding"] = "base64"},
        body = ltn12.source.chain(ltn12.source.file(io.open("data/att.bin", "rb")),
          ltn12.filter.chain(mime.encode("base64"), mime.wrap("base64")))}}}
  else m.source = ltn12.source.string(msg) end
  return m
end
local function try(...) local a, e = ... if not a then io.stderr:write("luasocket: " .. tostring(e) .. "\n") os.exit(1) end return ... end
if w == "send" or w == "sendcompose" then
  for _ = 1, n do local m = mail() m.server, m.port = "127.0.0.1", port try(smtp.send(m)) end
elseif w == "cold" then
  for _ = 1, n do local m = mail() m.server, m.port, m.create, m.user, m.password = "127.0.0.1", port, create, "user", "secret" try(smtp.send(m)) end
else
  local s = smtp.open("127.0.0.1", port, create)
  if w:find("nd$") and not tls then s.tp.c:setoption("tcp-nodelay", true) end -- what smtp.open leaves off
  s:greet("localhost")
  for _ = 1, n do s:send(mail()) end
  s:quit() s:close()
end
