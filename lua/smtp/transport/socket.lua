--- The built-in transport: TCP and unix sockets. Bytes and absolute deadlines, no SMTP words.
---
--- It waits in one place, `wait`, which by default polls and so blocks the calling thread; then it waits in the read
--- itself too, a system call less. A host with its own loop has its own, `socket.new(function(mode, fd, deadline) …
--- end)`: it returns when fd may be ready or the deadline has passed. In a coroutine that smtp.task has registered
--- either yields what it waits for instead.
local bell = require "smtp.transport.bell"
local core = require "smtp.core"
local together = require "smtp.transport.together"

local socket = {}

-- Seconds between the starts of two attempts to connect (RFC 8305 5).
local DELAY = 0.25
-- Seconds between looks at those attempts that are not waited for: a wait watches one descriptor.
local GLANCE = 0.05
-- Seconds after which a step of a task sends no more: a fast network would take whole megabytes.
local STEP = 0.002

--- Coroutines that are stepped by their host: a wait in them yields mode, fd, deadline.
---@type table<thread, boolean>
socket.stepped = setmetatable({}, { __mode = "k" })
--- Whether there has ever been one.
socket.stepping = false
--- When the step of a task began that is under way.
---@type number?
socket.began = nil

-- The way to wait outside of tasks, made one for tasks too.
local function in_tasks(waiter)
  return function(mode, fd, deadline)
    local running = coroutine.running()
    if running and socket.stepped[running] then
      coroutine.yield(mode, fd, deadline)
    else
      waiter(mode, fd, deadline)
    end
  end
end

--- The default wait. With fd -1: until the deadline.
socket.wait = in_tasks(core.wait)

--- Makes waits in this coroutine yields from now on.
---@param thread thread
function socket.register(thread)
  socket.stepped[thread], socket.stepping = true, true
end

local Pipe = {}
Pipe.__index = Pipe

--- The socket of a pipe, where its own calls may wait: nobody else's work does meanwhile. Else nil.
---@param pipe table of any transport; one that passes on to a pipe of ours does what it does itself
---@return userdata?
function socket.alone(pipe)
  local sock = getmetatable(pipe) == Pipe and pipe.alone
  return not (sock and socket.stepping and socket.stepped[coroutine.running()]) and sock or nil
end

-- Closes a socket or a look-up that the host may have watched.
local function shut(one, forget)
  if forget then
    -- it raises where this is called by a finalizer, and the socket's own was before it
    local open, fd = pcall(one.fd, one)
    if open and fd >= 0 then forget(fd) end
  end
  one:close()
end

-- A function in steps, as a smtp.task.
local function stepper(run)
  local thread = coroutine.create(run)
  socket.register(thread)
  return { thread = thread, step = function()
    local ok, mode, fd, deadline = coroutine.resume(thread)
    if not ok then error(mode, 0) end
    if coroutine.status(thread) == "dead" then return "done" end
    return mode, fd, deadline
  end }
end

-- False once the deadline has passed.
local function wait(self, mode, fd, deadline)
  if core.now() >= deadline then return false end
  self.wait(mode, fd, deadline)
  return true
end

-- After a write: lets a task's host go on, if the step has been long.
local function breathe(self, deadline)
  if socket.began and core.now() - socket.began > STEP then wait(self, "write", self.fd, deadline) end
  return true
end

-- What a failed read stands for.
local function ended(reason)
  return nil, "closed", reason == "closed" and "the peer closed the connection" or reason
end

--- Some bytes, as soon as there are any. A deadline in the past takes what is there already.
---@param deadline number
---@return string? bytes
---@return string? kind "timeout"|"closed"
---@return string? reason
function Pipe:read(deadline)
  local alone = socket.alone(self)
  if alone then
    local bytes, reason = alone:read(deadline)
    if bytes then return bytes end
    if reason ~= "again" then return ended(reason) end
  end
  local open = self.sock ~= nil
  while open do
    -- waiting first saves a system call: the answer is seldom there yet
    open = wait(self, "read", self.fd, deadline)
    if not self.sock then break end
    local bytes, reason = self.sock:read()
    if bytes then return bytes end
    if reason ~= "again" then return ended(reason) end
    if not open then return nil, "timeout", "nothing came in time" end
  end
  return nil, "closed", "the connection is closed"
end

--- All the bytes, or an error.
---@param bytes string
---@param deadline number
---@return boolean? ok
---@return string? kind "timeout"|"closed"
---@return string? reason
function Pipe:write(bytes, deadline)
  local from = 1
  while self.sock do
    local count, reason = self.sock:write(bytes, from)
    if count then
      from = from + count
      if from > #bytes then return breathe(self, deadline) end
    elseif reason ~= "again" then
      return nil, "closed", reason
    elseif not wait(self, "write", self.fd, deadline) then
      return nil, "timeout", "the peer took nothing in time"
    end
  end
  return nil, "closed", "the connection is closed"
end

--- All that a wire has queued, without a copy; else as write(). What could not be written stays queued.
---@param wire userdata
---@param deadline number
function Pipe:send(wire, deadline)
  while self.sock do
    local ok, reason = self.sock:send(wire)
    if ok then
      return breathe(self, deadline)
    elseif reason ~= "again" then
      return nil, "closed", reason
    elseif not wait(self, "write", self.fd, deadline) then
      return nil, "timeout", "the peer took nothing in time"
    end
  end
  return nil, "closed", "the connection is closed"
end

--- Some bytes, into a wire; else as read(). "protocol": the wire has no room for them.
---@param wire userdata
---@param deadline number
---@return boolean? ok
---@return string? kind "timeout"|"closed"|"protocol"
---@return string? reason
function Pipe:receive(wire, deadline)
  local alone = socket.alone(self)
  if alone then
    local ok, reason, full = alone:receive(wire, deadline)
    if ok then return true end
    if full then return nil, "protocol", reason end
    if reason ~= "again" then return ended(reason) end
  end
  local open = self.sock ~= nil
  while open do
    open = wait(self, "read", self.fd, deadline)
    if not self.sock then break end
    local ok, reason, full = self.sock:receive(wire)
    if ok then return true end
    if full then return nil, "protocol", reason end
    if reason ~= "again" then return ended(reason) end
    if not open then return nil, "timeout", "nothing came in time" end
  end
  return nil, "closed", "the connection is closed"
end

--- What lies on the connection, without waiting or taking it.
---@return "idle"|"data"|"closed"
function Pipe:peek()
  return self.sock and self.sock:peek() or "closed"
end

--- The connection's own address.
---@return string? host
---@return integer? port
function Pipe:name()
  if self.sock then return self.sock:name() end
end

function Pipe:close()
  local sock = self.sock
  self.sock, self.alone = nil, nil
  if sock then shut(sock, self.forget) end
end

--- A pipe over a socket that is connected already.
---@param sock userdata
---@param waiter? fun(mode: string, fd: integer, deadline: number)
---@param forget? fun(fd: integer)
function socket.pipe(sock, waiter, forget)
  local how = waiter or socket.wait
  return setmetatable({ sock = sock, fd = sock:fd(), wait = how, forget = forget,
    alone = how == socket.wait and sock or nil, -- see socket.alone
  }, Pipe)
end

--- Addresses of a name, found off this thread.
---@param waiter fun(mode: string, fd: integer, deadline: number)
---@param forget? fun(fd: integer)
---@param host string?
---@param port integer
---@param deadline number
---@return string[]? addresses
---@return string kind "resolve"|"timeout"
---@return string? reason
---@return boolean? temporary
function socket.resolve(waiter, forget, host, port, deadline)
  local lookup, reason = core.resolve(host, port)
  if not lookup then return nil, "resolve", reason, true end
  while true do
    local addresses, why, temporary = lookup:result()
    if addresses or why ~= "again" then
      shut(lookup, forget)
      return addresses, "resolve", why, temporary
    end
    if core.now() >= deadline then
      shut(lookup, forget)
      return nil, "timeout", "no answer to the look-up of the name in time"
    end
    waiter("read", lookup:fd(), deadline)
  end
end

local function is_ipv6(address)
  return (core.address(address)):find(":", 1, true) ~= nil
end

-- The resolver's order, but each address followed by one of the other family as long as there are any (RFC 8305 4).
local function interleave(addresses)
  if #addresses == 1 then return addresses end
  local lists, mixed = { [true] = {}, [false] = {} }, {}
  for _, address in ipairs(addresses) do table.insert(lists[is_ipv6(address)], address) end
  local family = addresses[1] ~= nil and is_ipv6(addresses[1])
  for i = 1, #addresses do
    mixed[#mixed + 1] = lists[family][i]
    mixed[#mixed + 1] = lists[not family][i]
  end
  return mixed
end

-- Begins to connect, from the one of `locals` (family -> address) that fits.
local function begin(address, locals)
  local from = locals and locals[is_ipv6(address)]
  if locals and not from then return nil, "the address to bind to is of another family" end
  return core.connect(address, from)
end

-- A connection to the first address that answers. Each is tried a while after the one before it, or as soon as one
-- failed; those that are slow stay in the race (RFC 8305 5).
local function race(waiter, forget, addresses, locals, deadline)
  local running, reasons, started, due, late = {}, {}, 0, 0, false

  local function startable()
    return started < #addresses and (#running == 0 or core.now() >= due) and (started == 0 or not late)
  end

  repeat
    late = core.now() >= deadline
    if startable() then
      started = started + 1
      local now = core.now()
      -- where there is little time every address still has its share of it
      due = now + math.min(DELAY, (deadline - now) / (#addresses - started + 1))
      local sock, reason = begin(addresses[started], locals)
      if sock then
        running[#running + 1] = { sock = sock, number = started }
      else
        reasons[started], due = reason, 0
      end
    end
    for i = #running, 1, -1 do
      local one = running[i]
      local ok, reason = one.sock:connected()
      if ok then
        for _, other in ipairs(running) do
          if other ~= one then shut(other.sock, forget) end
        end
        return socket.pipe(one.sock, waiter, forget)
      elseif reason ~= "again" then
        shut(one.sock, forget)
        table.remove(running, i)
        reasons[one.number], due = reason, 0
      end
    end
    local newest = running[#running]
    if newest and not late and not startable() then
      local limit = started < #addresses and math.min(deadline, due) or deadline
      if #running > 1 then limit = math.min(limit, core.now() + GLANCE) end
      waiter("write", newest.sock:fd(), limit)
    end
  until late or started == #addresses and #running == 0

  local tried = {}
  for i = 1, started do
    local name, port = core.address(addresses[i])
    local where = port == 0 and name or ("%s port %d"):format(name, port)
    tried[i] = where .. ": " .. (reasons[i] or "no answer in time")
  end
  if started < #addresses then tried[started + 1] = ("%d more not tried"):format(#addresses - started) end
  for _, one in ipairs(running) do shut(one.sock, forget) end
  return nil, late and (#running > 0 or started < #addresses) and "timeout" or "connect", table.concat(tried, ", ")
end

--- A transport over sockets.
---@param waiter? fun(mode: "read"|"write", fd: integer, deadline: number) how to wait; with fd -1: until the deadline
--- (seconds of smtp.now). Default: poll. In a task the task's step waits instead.
---@param forget? fun(fd: integer) called before a descriptor is closed, but not where the collector does that. A wait
--- for it that is under way is to return.
---@param beside? fun(runs: function[]) calls functions in coroutines of the host, until all have returned, and raises
--- what one of them raises. Default: in coroutines of our own, where they can wait by `waiter` only
---@param wake? fun(thread: thread) ends the wait for no descriptor (fd -1) that a coroutine is in. Default: who waits
--- for another has a descriptor for it, as long as there are few, or else looks now and again
function socket.new(waiter, forget, beside, wake)
  waiter = waiter and in_tasks(waiter) or socket.wait

  --- A connected pipe: to whichever of the name's addresses answers first, tried in turn; its `resolved` is the time
  --- that the look-up took, in seconds.
  ---@param host string?
  ---@param port integer
  ---@param opts { path: string?, bind: string? }
  ---@param deadline number
  ---@return table? pipe
  ---@return string? kind "resolve"|"connect"|"timeout"
  ---@return string? reason
  ---@return boolean? temporary where the kind alone does not tell
  local function connect(host, port, opts, deadline)
    if opts.path then
      local address, reason = core.unix(opts.path)
      if not address then return nil, "connect", reason, false end
      return race(waiter, forget, { address }, nil, deadline)
    end
    local began = core.now()
    local addresses, kind, reason, temporary = socket.resolve(waiter, forget, host, port, deadline)
    if not addresses then return nil, kind, reason, temporary end
    local took = core.now() - began
    local locals
    if opts.bind then
      local found, _, why = socket.resolve(waiter, forget, opts.bind, 0, deadline)
      if not found then return nil, "connect", "cannot bind to " .. opts.bind .. ": " .. why, false end
      locals = {}
      for i = #found, 1, -1 do locals[is_ipv6(found[i])] = found[i] end
    end
    local pipe, failed, why = race(waiter, forget, interleave(addresses), locals, deadline)
    if not pipe then return nil, failed, why end
    pipe.resolved = took
    return pipe
  end

  -- Whether a task or a host's loop is to go on while this thread waits.
  local function hosted()
    local running = coroutine.running()
    return waiter ~= socket.wait or (running and socket.stepped[running] or false)
  end

  --- What waits for several descriptors as this transport does.
  ---@return table watch wait(fds, modes, deadline) -> ready indices; close()
  local function watch()
    return together.watch(waiter, forget, function() return not hosted() end)
  end

  local host = { wait = waiter, forget = forget, watches = true }

  function host.blocks() return not hosted() end

  function host.waker()
    local running = coroutine.running()
    if not (running and socket.stepped[running]) then return wake end
    return together.runs(running) and together.wake or nil
  end

  --- What a coroutine waits for and another rings, as this transport waits.
  ---@return smtp.Bell
  local function new_bell() return bell.new(host) end

  --- Calls several functions side by side until each has returned; raises what one of them raises. May yield.
  ---@param runs function[]
  local function all(runs)
    local running = coroutine.running()
    local stepped = running and socket.stepped[running]
    if beside and not stepped then return beside(runs) end
    local tasks = {}
    for i, run in ipairs(runs) do tasks[i] = stepper(run) end
    together.run(tasks, hosted() and waiter or nil, forget)
  end

  return { connect = connect, wait = waiter, together = all, watch = watch, bell = new_bell }
end

return socket
