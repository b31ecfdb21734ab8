--- haproxy: the transport inside HAProxy, over its own sockets, in its tasks, actions and services.
---
--- Does: yields to HAProxy whatever waits.
--- Never: TLS, which is smtp's own: HAProxy's connect_ssl verifies nobody, and its sockets know no STARTTLS.
---
---   core.register_task(function() smtp.send { transport = require "smtp.transport.haproxy", … } end)
local check = require "smtp.check"
local core = require "smtp.core"
local dial = require "smtp.transport.dial"
local fault = require "smtp.transport.fault"

-- now: what a chroot hides later
require "smtp.transport.tls"

local host = rawget(_G, "core")
if not (host and host.tcp) then check.raise "smtp.transport.haproxy works inside HAProxy only" end

local haproxy = {}

local SLACK = 0.02      -- seconds: HAProxy counts a timeout from its last look at the clock
local LONGEST = 2000000 -- seconds of a timeout
local SLICE = 16384     -- octets of a write: HAProxy's timeout begins anew whenever some of them are taken
-- seconds between two looks at what is under way, and between two at a look-up at most
local FIRST, MOST = 0.001, 0.02

-- What receive takes for "some": a count below those of "*l" and "*a" is what is there, in every HAProxy from 2.0 to
-- 3.4. It is nowhere written down; one that refuses it is asked for octet after octet.
local some = "-3"

---@class smtp.transport.haproxy.pipe: smtp.Pipe
local Pipe = {}
Pipe.__index = Pipe

local function arm(sock, deadline)
  sock:settimeout(math.min(math.max(deadline - core.now(), 0) + SLACK, LONGEST))
end

local function perform(sock, deadline, method, ...)
  arm(sock, deadline)
  return sock[method](sock, ...)
end

-- What a method of the socket gives; else what `late` or another fault does. HAProxy ends a connection whose time is
-- over.
local function call(self, deadline, late, method, ...)
  local sock = self.sock
  if not sock then return fault.closed() end
  local ran, result = pcall(perform, sock, deadline, method, ...)
  if ran and result and result ~= -1 then return result end
  if core.now() >= deadline then return late() end
  if not self.sock then return fault.closed() end
  -- what is raised on a connection that has ended says nothing
  local raised = not ran and tostring(result)
  return fault.ended(raised and not raised:find("not yet initialised", 1, true) and raised or nil)
end

--- Some bytes, as soon as there are any. Yields.
function Pipe:read(deadline)
  local bytes, kind, reason = call(self, deadline, fault.nothing_came, "receive", some)
  if kind == "closed" and some ~= 1 and reason:find("Unsupported", 1, true) then
    some = 1
    return self:read(deadline)
  end
  return bytes, kind, reason
end

--- All the bytes, or an error. Yields.
function Pipe:write(bytes, deadline)
  for from = 1, #bytes, SLICE do
    -- before a slice, not behind the last: what is whole was sent, be it late
    if from > 1 and core.now() >= deadline then
      return nil, "timeout", "the peer did not take all in time", #bytes - from + 1
    end
    local slice = #bytes > SLICE and bytes:sub(from, from + SLICE - 1) or bytes
    local sent, kind, reason = call(self, deadline, fault.nothing_taken, "send", slice)
    if not sent then return nil, kind, reason, #bytes - from + 1 - #slice end
  end
  return true
end

--- HAProxy's sockets cannot be looked at: "closed" where HAProxy has ended the connection, else "idle".
function Pipe:peek()
  local ran, peer = pcall(self.sock and self.sock.getpeername, self.sock)
  return ran and peer and "idle" or "closed"
end

--- Has HAProxy keep the connection until its next use, which may be later than the last deadline.
---@param seconds number
---@return boolean? ok nil: it has ended
function Pipe:park(seconds)
  return self.sock and pcall(arm, self.sock, core.now() + seconds) or nil
end

--- Never waits.
function Pipe:close()
  local sock = self.sock
  self.sock = nil
  if sock then pcall(sock.close, sock) end
end

--- Waits until a time by smtp.now. Yields.
---@param deadline number
function haproxy.wait(_, _, deadline)
  host.msleep(math.max(math.ceil((deadline - core.now()) * 1000), 1))
end

-- Rests, each time twice as long as before, and `most` at the most.
local function resting(most)
  local rest = FIRST
  return function(_, _, deadline)
    haproxy.wait("read", -1, math.min(deadline, core.now() + rest))
    rest = math.min(rest * 2, most)
  end
end

-- Ends an attempt to connect at its deadline. A HAProxy later than 2.6 would not: its timeout begins anew for each of
-- four attempts, and is that of whichever socket was given one last. There a task has its maker's thread, and with that
-- a hand on the socket; where it has not, the attempt is left to the timeout.
local function guard(sock, deadline)
  local over = false
  host.register_task(function()
    if over or not pcall(arm, sock, math.huge) then return end
    local rest = resting(math.huge)
    while not over and core.now() < deadline do rest("read", -1, deadline) end
    if not over then sock:close() end
  end)
  return function() over = true end
end

-- A pipe to one address; or nil and why not.
local function attempt(name, port, deadline)
  local made, sock = pcall(host.tcp)
  if not made then return nil, tostring(sock) end
  local guarded, settle = pcall(guard, sock, deadline)
  local ran, connected
  if port == 0 then
    ran, connected = pcall(perform, sock, deadline, "connect", "unix@" .. name)
  else
    ran, connected = pcall(perform, sock, deadline, "connect", name, port)
  end
  if guarded then settle() end
  if ran and connected then return setmetatable({ sock = sock }, Pipe) end
  pcall(sock.close, sock)
  if not ran then return nil, tostring(connected) end
  return nil, core.now() < deadline and "connection refused, or no way there" or nil
end

--- A connected pipe, to the first of the name's addresses that answers. Yields.
function haproxy.connect(name, port, opts, deadline)
  if not coroutine.isyieldable() then
    return nil, "connect", "HAProxy has no sockets while it reads its configuration", false,
      "send from a task: core.register_task(function() smtp.send { … } end)"
  elseif opts.bind then
    return nil, "connect", "HAProxy's sockets cannot be bound to an address", false
  elseif opts.path then
    local address, reason = core.unix(opts.path)
    if not address then return nil, "connect", reason, false end
    return dial.in_turn({ address }, attempt, deadline)
  end
  local addresses, kind, reason, temporary = dial.resolve(resting(MOST), nil, name, port, deadline)
  if addresses then return dial.in_turn(addresses, attempt, deadline) end
  return nil, kind, reason, temporary, kind == "resolve"
    and "in a chroot no name can be looked up: give host as an address and its name as server_name" or nil
end

return haproxy
