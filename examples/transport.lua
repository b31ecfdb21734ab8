--- A transport of your own, here over LuaSocket: what a connection has to be able to do, and how to make one.
local smtp = require "smtp"
local socket = require "socket"

local function ended(reason)
  return nil, "closed", reason == "closed" and "the peer closed the connection" or reason
end

local Pipe = {}
Pipe.__index = Pipe

-- What has come and was not read, without waiting; nil and "timeout" or "closed" where nothing has.
function Pipe:take()
  if self.held == "" then
    local bytes, reason, part = self.tcp:receive(8192)
    self.held = bytes or part
    if self.held == "" then return nil, reason end
  end
  return self.held
end

function Pipe:read(deadline)
  while true do
    local bytes, reason = self:take()
    self.held = ""
    if bytes then return bytes end
    if reason ~= "timeout" then return ended(reason) end
    if smtp.now() >= deadline then return nil, "timeout", "nothing came in time" end
    socket.select({ self.tcp }, nil, deadline - smtp.now())
  end
end

function Pipe:write(bytes, deadline)
  local from = 1
  while true do
    local last, reason, partly = self.tcp:send(bytes, from)
    if last then return true end
    if reason ~= "timeout" then return ended(reason) end
    if smtp.now() >= deadline then return nil, "timeout", "the peer took nothing in time" end
    from = partly + 1
    socket.select(nil, { self.tcp }, deadline - smtp.now())
  end
end

function Pipe:peek()
  local bytes, reason = self:take()
  return bytes and "data" or reason == "timeout" and "idle" or "closed"
end

function Pipe:close()
  self.tcp:close()
end

local transport = {}

function transport.connect(host, port, _, deadline)
  local tcp = socket.tcp()
  tcp:settimeout(math.max(0, deadline - smtp.now()))
  local ok, reason = tcp:connect(host, port)
  if not ok then
    tcp:close()
    if reason == "timeout" then return nil, "timeout", "the peer did not answer in time" end
    return nil, "connect", reason
  end
  tcp:settimeout(0)
  return setmetatable({ tcp = tcp, held = "" }, Pipe)
end

function transport.wait(_, _, deadline)
  socket.sleep(math.max(0, deadline - smtp.now()))
end

local receipt, err = smtp.send {
  transport = transport,
  url = os.getenv "SMTP_URL" or "smtp://user:password@mail.example.org:587",
  from = os.getenv "FROM" or "ada@example.org",
  to = os.getenv "TO" or "grace@example.org",
  subject = "By another way",
  text = "Sent over LuaSocket.\n",
}
if not receipt then
  io.stderr:write(tostring(err), "\n")
  os.exit(1)
end
print("delivered as " .. receipt.message_id)
