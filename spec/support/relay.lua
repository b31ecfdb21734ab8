-- relay: stands between a client and a server, writes down who said what in which order, and cuts the connection where it
-- is told to. Over sockets, to any server of this machine; or in memory, to one of smtp.server's own dialogues, without
-- any wait.
local core = require "smtp.core"
local dialogue = require "smtp.server.connection"
local loopback = require "spec.support.loopback"

local relay = {}

-- What was said, one after the other; neighbours of one side are one.
local function note(said, who, bytes)
  local last = said[#said]
  if last and last.who == who then
    last.bytes = last.bytes .. bytes
  elseif bytes ~= "" then
    said[#said + 1] = { who = who, bytes = bytes }
  end
end

-- How many of these bytes go through; what was told to be cut there ends here.
local function passed(link, way, bytes)
  local limit = link.cut and link.cut[way]
  local count = limit and math.max(0, math.min(#bytes, limit - link[way])) or #bytes
  link[way] = link[way] + count
  return count, limit ~= nil and link[way] >= limit
end

--- The client's flights of a connection: what it said between two answers.
---@param link table
---@return string[]
function relay.flights(link)
  local list = {}
  for _, one in ipairs(link.said) do
    if one.who == "client" then list[#list + 1] = one.bytes end
  end
  return list
end

-- Over sockets ---------------------------------------------------------------------------------------------------------

local Relay = {}
Relay.__index = Relay

--- A relay to a port of 127.0.0.1: relay.port, relay.links, step(timeout), close().
---@param port integer
---@param cut (fun(number: integer): table?)? where to cut that connection: { up = octets, down = octets }
---@param beside table? a server to step too
function relay.new(port, cut, beside)
  local listener = loopback.listen()
  return setmetatable({ listener = listener, port = listener.port, links = {}, cut = cut, beside = beside,
    target = loopback.address("127.0.0.1", port) }, Relay)
end

local function drop(link)
  for _, side in ipairs { link.client, link.server } do side:close() end
  link.over = true
end

-- From one side to the other, as much as there is.
local function carry(link, who, from, to, way)
  if link.over then return end
  local bytes, reason = from:read()
  if not bytes then
    if reason ~= "again" then drop(link) end
    return
  end
  note(link.said, who, bytes)
  local count, over = passed(link, way, bytes)
  local at = 1
  while at <= count and not link.over do
    local sent, why = to:write(bytes:sub(1, count), at)
    if sent then
      at = at + sent
    elseif why == "again" then
      core.wait("write", to:fd(), core.now() + 1)
    else
      drop(link)
    end
  end
  if over and not link.over then drop(link) end
end

function Relay:step(timeout)
  if self.beside then self.beside:step(0) end
  local fds, modes = { self.listener.sock:fd() }, { "read" }
  local open = {}
  for _, link in ipairs(self.links) do
    if not link.over then
      open[#open + 1] = link
      fds[#fds + 1], modes[#modes + 1] = link.client:fd(), "read"
      fds[#fds + 1], modes[#modes + 1] = link.server:fd(), "read"
    end
  end
  local ready = core.poll(fds, modes, core.now() + (timeout or 0))
  for i, link in ipairs(open) do
    if ready[2 * i] then carry(link, "client", link.client, link.server, "up") end
    if ready[2 * i + 1] then carry(link, "server", link.server, link.client, "down") end
  end
  local sock = ready[1] and self.listener.sock:accept()
  if sock then
    local link = { client = sock, server = assert(core.connect(self.target)), up = 0, down = 0, said = {} }
    assert(loopback.finish(link.server, "write", "connected"))
    self.links[#self.links + 1] = link
    link.cut = self.cut and self.cut(#self.links)
  end
  if self.beside then self.beside:step(0) end
end

function Relay:close()
  for _, link in ipairs(self.links) do
    if not link.over then drop(link) end
  end
  self.listener.close()
end

-- In memory ------------------------------------------------------------------------------------------------------------

-- The server's end of a link.
local Inner = {}
Inner.__index = Inner

function Inner:read()
  local link = self.link
  while link.inbound == "" and not link.over do coroutine.yield() end
  if link.inbound == "" then return nil, "closed", "the peer closed the connection" end
  local bytes = link.inbound
  link.inbound = ""
  return bytes
end

function Inner:write(bytes)
  local link = self.link
  if link.over then return nil, "closed", "Broken pipe" end
  note(link.said, "server", bytes)
  local count, over = passed(link, "down", bytes)
  link.outbound = link.outbound .. bytes:sub(1, count)
  if over then link.over = true end
  return true
end

function Inner:peek()
  return self.link.inbound ~= "" and "data" or self.link.over and "closed" or "idle"
end

function Inner:close()
  self.link.over = true
end

-- The client's end.
local Outer = {}
Outer.__index = Outer

-- Lets the server work off what it has.
local function run(link)
  while coroutine.status(link.thread) ~= "dead" do
    assert(coroutine.resume(link.thread, link.connection))
    if link.inbound == "" then
      if link.over and coroutine.status(link.thread) ~= "dead" then
        assert(coroutine.resume(link.thread, link.connection))
      end
      return
    end
  end
end

-- How many of the bytes the transport takes.
local function put(self, bytes)
  local link = self.link
  if link.over then return link.cut and link.cut.took and not self.closed and #bytes or 0 end
  note(link.said, "client", bytes)
  local count, over = passed(link, "up", bytes)
  link.inbound = link.inbound .. bytes:sub(1, count)
  run(link)
  if over and not link.over then
    link.over = true
    run(link)
  end
  -- the kernel takes more than ever arrives
  return (link.cut and link.cut.took or not over) and #bytes or count
end

function Outer:write(bytes)
  if put(self, bytes) < #bytes then return nil, "closed", "Broken pipe" end
  return true
end

local function send(self, wire)
  local bytes = wire:take()
  local left = #bytes - put(self, bytes)
  if left == 0 then return true end
  -- what was not taken stays in the queue: nobody looks at more than its length
  wire:body(("x"):rep(left))
  return nil, "closed", "Broken pipe"
end

function Outer:read()
  local link = self.link
  if self.closed then return nil, "closed", "the connection is closed" end
  run(link)
  if link.over and link.cut and link.cut.mute then link.outbound = "" end
  if link.outbound ~= "" then
    local bytes = link.outbound
    link.outbound = ""
    return bytes
  end
  if link.over then return nil, "closed", "the peer closed the connection" end
  return nil, "timeout", "nothing came in time"
end

local function receive(self, wire)
  local bytes, kind, reason = self:read()
  if not bytes then return nil, kind, reason end
  local ok, why = wire:feed(bytes)
  if not ok then return nil, "protocol", why end
  return true
end

function Outer:peek()
  local link = self.link
  if self.closed then return "closed" end
  run(link)
  if link.over and link.cut and link.cut.mute then link.outbound = "" end
  return link.outbound ~= "" and "data" or link.over and "closed" or "idle"
end

function Outer:name()
  return "127.0.0.1", 1
end

function Outer:close()
  if self.closed then return end
  self.closed = true
  self.link.over = true
  run(self.link)
end

--- A transport whose connections lead to dialogues of `server` in memory: transport.links. `cut(number)` is where that
--- connection is cut: { up = octets, down = octets }; there `took`: the client's writes go on well all the same; `mute`:
--- what the server has said and the client not yet read is lost; `plain`: the pipe has neither send nor receive.
---@param server smtp.Server
---@param cut (fun(number: integer): table?)?
---@return table transport
function relay.memory(server, cut)
  local transport = { links = {} }
  function transport.connect()
    local link = { inbound = "", outbound = "", up = 0, down = 0, said = {}, over = false }
    transport.links[#transport.links + 1] = link
    link.cut = cut and cut(#transport.links)
    link.connection = dialogue.new(server, setmetatable({ link = link }, Inner))
    link.thread = coroutine.create(link.connection.serve)
    run(link)
    local plain = link.cut and link.cut.plain
    return setmetatable({ link = link, closed = false, send = not plain and send or nil,
      receive = not plain and receive or nil }, Outer)
  end
  return transport
end

return relay
