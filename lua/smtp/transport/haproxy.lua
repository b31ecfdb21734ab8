--- The transport inside HAProxy: its own sockets, in its tasks, actions and services, where whatever waits yields to
--- HAProxy. TLS is smtp's own: HAProxy's connect_ssl verifies nobody, and its sockets know no STARTTLS.
---
---   core.register_task(function() smtp.send { transport = require "smtp.transport.haproxy", … } end)
local check = require "smtp.check"
local core = require "smtp.core"

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

---@class smtp.transport.haproxy.pipe
local Pipe = {}
Pipe.__index = Pipe

local function arm(sock, deadline)
  sock:settimeout(math.min(math.max(deadline - core.now(), 0) + SLACK, LONGEST))
end

local function perform(sock, deadline, method, ...)
  arm(sock, deadline)
  return sock[method](sock, ...)
end

-- What a method of the socket gives; or nil, the kind and the reason. HAProxy ends a connection whose time is over.
local function call(self, deadline, late, method, ...)
  local sock = self.sock
  if not sock then return nil, "closed", "the connection is closed" end
  local ran, result = pcall(perform, sock, deadline, method, ...)
  if ran and result and result ~= -1 then return result end
  if core.now() >= deadline then return nil, "timeout", late end
  if not self.sock then return nil, "closed", "the connection is closed" end
  -- what is raised on a connection that has ended says nothing
  local raised = not ran and tostring(result)
  if raised and not raised:find("not yet initialised", 1, true) then return nil, "closed", raised end
  return nil, "closed", "the peer closed the connection"
end

--- Some bytes, as soon as there are any. Yields.
---@param deadline number
---@return string? bytes
---@return string? kind "timeout"|"closed"
---@return string? reason
function Pipe:read(deadline)
  local bytes, kind, reason = call(self, deadline, "nothing came in time", "receive", some)
  if kind == "closed" and some ~= 1 and reason:find("Unsupported", 1, true) then
    some = 1
    return self:read(deadline)
  end
  return bytes, kind, reason
end

--- All the bytes, or an error. Yields.
---@param bytes string
---@param deadline number
---@return boolean? ok
---@return string? kind "timeout"|"closed"
---@return string? reason
---@return integer? left octets at the end that are not on their way, at least
function Pipe:write(bytes, deadline)
  for from = 1, #bytes, SLICE do
    -- before a slice, not behind the last: what is whole was sent, be it late
    if from > 1 and core.now() >= deadline then
      return nil, "timeout", "the peer did not take all in time", #bytes - from + 1
    end
    local slice = #bytes > SLICE and bytes:sub(from, from + SLICE - 1) or bytes
    local sent, kind, reason = call(self, deadline, "the peer took nothing in time", "send", slice)
    if not sent then return nil, kind, reason, #bytes - from + 1 - #slice end
  end
  return true
end

--- HAProxy's sockets cannot be looked at: "closed" where HAProxy has ended the connection, else "idle".
---@return "idle"|"closed"
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

-- Addresses of a name, found off this thread: HAProxy's sockets take addresses only.
local function resolve(name, port, deadline)
  local lookup, reason = core.resolve(name, port)
  if not lookup then return nil, "resolve", reason, true end
  local rest = FIRST
  while true do
    local addresses, why, temporary = lookup:result()
    if addresses or why ~= "again" or core.now() >= deadline then
      lookup:close()
      if addresses then return addresses end
      if why == "again" then return nil, "timeout", "no answer to the look-up of the name in time" end
      return nil, "resolve", why, temporary, "in a chroot no name can be looked up: give host as an address and its "
        .. "name as server_name"
    end
    haproxy.wait("read", -1, math.min(deadline, core.now() + rest))
    rest = math.min(rest * 2, MOST)
  end
end

-- Ends an attempt to connect at its deadline. A HAProxy later than 2.6 would not: its timeout begins anew for each of
-- four attempts, and is that of whichever socket was given one last.
local function guard(sock, deadline)
  local over = false
  host.register_task(function()
    local rest = FIRST
    while not over and core.now() < deadline do
      haproxy.wait("read", -1, math.min(deadline, core.now() + rest))
      rest = rest * 2
    end
    -- close is for the thread that opened it, and this may be another; the collector may be in any
    if not over then getmetatable(sock).__gc(sock) end
  end)
  return function() over = true end
end

-- A pipe to one address; or nil and why not.
local function dial(deadline, ...)
  local made, sock = pcall(host.tcp)
  if not made then return nil, tostring(sock) end
  local guarded, settle = pcall(guard, sock, deadline)
  local ran, connected = pcall(perform, sock, guarded and math.huge or deadline, "connect", ...)
  if guarded then settle() end
  if ran and connected then return setmetatable({ sock = sock }, Pipe) end
  pcall(sock.close, sock)
  if not ran then return nil, tostring(connected) end
  return nil, core.now() >= deadline and "no answer in time" or "connection refused, or no way there"
end

--- A connected pipe, to the first of the name's addresses that answers. Yields.
---@param name string?
---@param port integer
---@param opts { path: string?, bind: string? }
---@param deadline number
---@return table? pipe
---@return string? kind "resolve"|"connect"|"timeout"
---@return string? reason
---@return boolean? temporary where the kind alone does not tell
---@return string? hint
function haproxy.connect(name, port, opts, deadline)
  if not coroutine.isyieldable() then
    return nil, "connect", "HAProxy has no sockets while it reads its configuration", false,
      "send from a task: core.register_task(function() smtp.send { … } end)"
  elseif opts.bind then
    return nil, "connect", "HAProxy's sockets cannot be bound to an address", false
  elseif opts.path then
    local pipe, reason = dial(deadline, "unix@" .. opts.path)
    if pipe then return pipe end
    return nil, core.now() >= deadline and "timeout" or "connect", opts.path .. ": " .. reason
  end
  local addresses, kind, why, temporary, hint = resolve(name, port, deadline)
  if not addresses then return nil, kind, why, temporary, hint end
  local tried = {}
  for i, address in ipairs(addresses) do
    local now = core.now()
    local literal = core.address(address)
    -- where one is silent the others still have their share of the time
    local pipe, reason = dial(now + (deadline - now) / (#addresses - i + 1), literal, port)
    if pipe then return pipe end
    tried[i] = ("%s port %d: %s"):format(literal, port, reason)
  end
  return nil, core.now() >= deadline and "timeout" or "connect", table.concat(tried, ", ")
end

return haproxy
