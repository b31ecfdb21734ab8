-- loopback: sockets of this machine for the specs, and what is left open of them.
local core = require "smtp.core"

local loopback = {}

local QUEUE = 128 -- connections that wait to be accepted
local PATIENCE = 60 -- seconds after which something hangs

--- The address of a literal.
---@return string? address
---@return string? reason
function loopback.address(host, port)
  local list, reason = core.resolve(host, port):result()
  return list and list[1], reason
end

--- Calls a method until it has more to say than "again".
function loopback.finish(sock, mode, method, ...)
  local deadline = core.now() + PATIENCE
  while true do
    local first, second, third = sock[method](sock, ...)
    if second ~= "again" then return first, second, third end
    assert(core.now() < deadline, method .. " takes too long")
    core.wait(mode, sock:fd(), deadline)
  end
end

local block = { first = 0, count = 0 } -- ports that are ours, see ports.sh

--- A port of this process alone: another program may listen there later, and until then nobody does.
---@return integer
function loopback.port()
  if block.count == 0 then
    local pipe = assert(io.popen "sh spec/support/ports.sh 50")
    block = { first = pipe:read "*n", count = 50 }
    pipe:close()
  end
  block.first, block.count = block.first + 1, block.count - 1
  return block.first - 1
end

--- A listening socket on a port of its own (`host` may be "unix": on a path).
---@param host string? default "127.0.0.1"
---@return table listener sock, address, port or path, close(); nil where the machine has no such addresses
function loopback.listen(host)
  local listener = {}
  if host == "unix" then
    listener.path = os.tmpname()
    os.remove(listener.path)
    listener.address = assert(core.unix(listener.path))
    listener.sock = assert(core.listen(listener.address))
  else
    host = host or "127.0.0.1"
    for _ = 1, 10 do -- somebody else may be there
      listener.sock = listener.sock or core.listen(loopback.address(host, loopback.port()), QUEUE)
    end
    if not listener.sock then return nil end
    listener.host, listener.port = listener.sock:name()
    listener.address = loopback.address(listener.host, listener.port)
  end
  function listener.accept()
    return assert(loopback.finish(listener.sock, "read", "accept"))
  end
  --- A connected pair: the client's socket, the server's.
  function listener.pair()
    local client = assert(core.connect(listener.address))
    local server = listener.accept()
    assert(loopback.finish(client, "write", "connected"))
    return client, server
  end
  function listener.close()
    listener.sock:close()
    if listener.path then os.remove(listener.path) end
  end
  return listener
end

-- Whether a listener's queue of connections is full, as Linux tells it.
local function is_full(listener)
  local port = (":%04X"):format(listener.port)
  for line in io.lines "/proc/net/tcp" do
    local here, queued = line:match "^%s*%d+: %x+(:%x+) %x+:%x+ 0A %x+:(%x+)"
    if here == port then return tonumber(queued, 16) > QUEUE end
  end
  error "no such listener"
end

--- Fills a listener's queue of connections, so that one more TCP connection stays under way.
---@return table socks to be kept
function loopback.crowd(listener)
  local socks = {}
  repeat
    local sock = assert(core.connect(listener.address))
    socks[#socks + 1] = sock
    local late = core.now() + PATIENCE
    while not sock:connected() and not is_full(listener) do
      assert(core.now() < late, "the queue of connections is never full")
      core.wait("write", sock:fd(), core.now() + 0.01)
    end
  until is_full(listener)
  -- the last one may have been let in or not; this one is not
  socks[#socks + 1] = assert(core.connect(listener.address))
  return socks
end

--- How many descriptors this process has open.
---@param garbage boolean? count those of objects that are only waiting to be collected too
---@return integer
function loopback.descriptors(garbage)
  if not garbage then
    collectgarbage()
    collectgarbage()
  end
  local count = 0
  for fd = 0, 1023 do
    local file = io.open("/proc/self/fdinfo/" .. fd)
    if file then
      file:close()
      count = count + 1
    end
  end
  return count
end

--- Waits until no more than `wanted` descriptors are open: a look-up's thread closes its own when it is done.
---@return integer count
function loopback.settle(wanted)
  local deadline = core.now() + PATIENCE
  local count
  repeat
    count = loopback.descriptors()
    if count > wanted then core.wait("read", -1, core.now() + 0.02) end
  until count <= wanted or core.now() > deadline
  return count
end

return loopback
