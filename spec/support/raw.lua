-- raw: a client that says exactly the bytes a spec wants to a server of this process. Whenever it waits, it steps the
-- server.
local core = require "smtp.core"
local socket = require "smtp.transport.socket"

local raw = {}

local LIMIT = 60 -- seconds after which something hangs

local Client = {}
Client.__index = Client

--- A client of `server`, connected; it has read nothing yet.
function raw.connect(server)
  local sock = assert(core.connect(core.resolve(server.host, server.port):result()[1]))
  local pipe = socket.pipe(sock, function(mode, fd)
    if not core.wait(mode, fd, 0) then server:step(0.01) end
  end)
  return setmetatable({ server = server, pipe = pipe, held = "" }, Client)
end

--- A client that has read the greeting and said EHLO.
function raw.greeted(server)
  local client = raw.connect(server)
  assert(client:reply():find("^220 "))
  assert(client:say("EHLO client.example.org"):find("^250%-"))
  return client
end

--- A client with one recipient accepted.
function raw.addressed(server)
  local client = raw.greeted(server)
  assert(client:say("MAIL FROM:<ada@example.org>"):find("^250 "))
  assert(client:say("RCPT TO:<grace@example.org>"):find("^250 "))
  return client
end

function Client:send(bytes)
  return self.pipe:write(bytes, core.now() + LIMIT)
end

-- Some bytes from the server: nil when it closed.
function Client:fill(seconds)
  local bytes, kind = self.pipe:read(core.now() + (seconds or LIMIT))
  if bytes then
    self.held = self.held .. bytes
    return true
  end
  return nil, kind
end

--- The next reply, its lines joined by LF; nil and "closed" or "timeout" when there is none.
function Client:reply(seconds)
  local lines = {}
  while true do
    local line, rest = self.held:match("^(.-)\r\n(.*)$")
    if line then
      self.held = rest
      lines[#lines + 1] = line
      if line:find("^%d%d%d ") then return table.concat(lines, "\n") end
      assert(line:find("^%d%d%d%-"), "not a reply line: " .. line)
    else
      local more, kind = self:fill(seconds)
      if not more then return nil, kind end
    end
  end
end

--- The codes of the next `count` replies: "250 354".
function Client:codes(count)
  local codes = {}
  for i = 1, count do
    local reply, kind = self:reply()
    codes[i] = reply and reply:sub(1, 3) or kind
    if not reply then break end
  end
  return table.concat(codes, " ")
end

--- Says a line, and gives the reply.
function Client:say(line)
  self:send(line .. "\r\n")
  return self:reply()
end

--- Says the bytes one at a time, each in a packet of its own.
function Client:dribble(bytes)
  for i = 1, #bytes do
    self:send(bytes:sub(i, i))
    self.server:step(0.01)
  end
end

--- Whether the server has closed, and said nothing more before it did.
function Client:ended()
  while self.held == "" do
    local more, kind = self:fill()
    if not more then return kind == "closed" end
  end
  return false
end

--- Goes on over TLS; the server's certificate is verified.
function Client:encrypt()
  local wrap = require "smtp.transport.tls".wrap
  local options = { ca_file = self.server.certificate, server_name = "localhost" }
  local pipe, kind, text = wrap(self.pipe, options, core.now() + LIMIT)
  if not pipe then return nil, kind, text end
  self.pipe, self.held = pipe, ""
  return true
end

function Client:close()
  self.pipe:close()
end

return raw
