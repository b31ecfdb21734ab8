--- socket: the built-in transport, over TCP and unix sockets.
---
--- Does: bytes and absolute deadlines. It waits in one place, `wait`, which by default polls and so blocks the calling
--- thread; then it waits in the read itself too, a system call less. A host with its own loop has its own,
--- `socket.new(function(mode, fd, deadline) … end)`: it returns when fd may be ready or the deadline has passed. In a
--- coroutine that smtp.task has registered either yields what it waits for instead.
--- Never: SMTP words.
--- Called by: client and server, tasks, the transports of hosts that can watch a descriptor.
local check = require "smtp.check"
local core = require "smtp.core"
local dial = require "smtp.transport.dial"
local fault = require "smtp.transport.fault"
local loop = require "smtp.transport.loop"

local socket = {}

-- What several coroutines side by side need is loaded for those who have several.
local function together() return require "smtp.transport.together" end

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
    if socket.stepped[coroutine.running()] then
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

---@class smtp.transport.socket.pipe: smtp.Pipe
local Pipe = {}
Pipe.__index = Pipe

--- The socket of a pipe, where its own calls may wait: nobody else's work does meanwhile. Else nil.
---@param pipe table of any transport; one that passes on to a pipe of ours does what it does itself
---@return userdata?
function socket.alone(pipe)
  local sock = getmetatable(pipe) == Pipe and pipe.alone
  return not (sock and socket.stepping and socket.stepped[coroutine.running()]) and sock or nil
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

-- Some bytes, as soon as there are any: a string of them, or true where they are in `wire`.
local function take(self, deadline, wire)
  local sock, limit, open = socket.alone(self), deadline, true
  while true do
    if not sock then
      -- waiting first saves a system call: the answer is seldom there yet
      if self.sock then open = wait(self, "read", self.fd, deadline) end
      sock, limit = self.sock, nil
      if not sock then return fault.closed() end
    end
    local got, kind, reason
    if wire then
      got, kind, reason = sock:receive(wire, limit)
    else
      got, kind, reason = sock:read(limit)
    end
    if got then return got end
    if kind ~= "again" then return nil, kind, reason end
    if not open then return fault.nothing_came() end
    sock = nil
  end
end

-- Puts out all the bytes, or all that `wire` has queued.
local function give(self, deadline, bytes, wire)
  local from = 1
  while self.sock do
    local gone, kind, reason
    if wire then
      gone, kind, reason = self.sock:send(wire)
    else
      gone, kind, reason = self.sock:write(bytes, from)
    end
    if gone then
      if not wire then from = from + gone end
      if wire or from > #bytes then
        -- lets a task's host go on, if the step has been long
        if socket.began and core.now() - socket.began > STEP then wait(self, "write", self.fd, deadline) end
        return true
      end
    elseif kind ~= "again" then
      return nil, kind, reason
    elseif not wait(self, "write", self.fd, deadline) then
      return fault.nothing_taken()
    end
  end
  return fault.closed()
end

--- Some bytes, as soon as there are any. A deadline in the past takes what is there already.
function Pipe:read(deadline)
  return take(self, deadline)
end

--- Some bytes, into a wire; else as read(). "protocol": the wire has no room for them.
---@param wire userdata
---@param deadline number
---@return boolean? ok
---@return string? kind "timeout"|"closed"|"protocol"
---@return string? reason
function Pipe:receive(wire, deadline)
  return take(self, deadline, wire)
end

--- All the bytes, or an error.
function Pipe:write(bytes, deadline)
  return give(self, deadline, bytes)
end

--- All that a wire has queued, without a copy; else as write(). What could not be written stays queued.
---@param wire userdata
---@param deadline number
function Pipe:send(wire, deadline)
  return give(self, deadline, nil, wire)
end

--- What lies on the connection, without waiting or taking it.
function Pipe:peek()
  return self.sock and self.sock:peek() or "closed"
end

--- The connection's own address.
function Pipe:name()
  if self.sock then return self.sock:name() end
end

function Pipe:close()
  local sock = self.sock
  self.sock, self.alone = nil, nil
  if sock then loop.shut(sock, self.forget) end
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

--- A transport over sockets, to be given as option. Never waits; its pipes wait by `waiter`.
---@param waiter? fun(mode: "read"|"write", fd: integer, deadline: number) how to wait; with fd -1: until the deadline
--- (seconds of smtp.now). Default: poll. In a task the task's step waits instead.
---@param forget? fun(fd: integer) called before a descriptor is closed, but not where the collector does that. A wait
--- for it that is under way is to return.
---@param beside? fun(runs: function[]) calls functions in coroutines of the host, until all have returned, and raises
--- what one of them raises. Default: in coroutines of our own, where they can wait by `waiter` only
---@param wake? fun(thread: thread) ends the wait for no descriptor (fd -1) that a coroutine is in: that goes on later,
--- not inside of this call. Default: who waits for another has a descriptor for it, as long as there are few, or else
--- looks now and again
function socket.new(waiter, forget, beside, wake)
  local given = { waiter = waiter, forget = forget, beside = beside, wake = wake }
  for name, value in pairs(given) do check.argument(value, "function", "smtp.transport.socket.new", name) end
  waiter = waiter and in_tasks(waiter) or socket.wait

  local function first(addresses, from, deadline)
    local sock, kind, reason = dial.race(waiter, forget, addresses, from, deadline)
    if not sock then return nil, kind, reason end
    return socket.pipe(sock, waiter, forget)
  end

  --- A connected pipe: to whichever of the name's addresses answers first, tried in turn; its `resolved` is the time
  --- that the look-up took, in seconds.
  local function connect(host, port, opts, deadline)
    if opts.path then
      local address, reason = core.unix(opts.path)
      if not address then return nil, "connect", reason, false end
      return first({ address }, nil, deadline)
    end
    local began = core.now()
    local addresses, kind, reason, temporary = dial.resolve(waiter, forget, host, port, deadline)
    if not addresses then return nil, kind, reason, temporary end
    local took, from = core.now() - began, nil
    if opts.bind then
      local found, _, why = dial.resolve(waiter, forget, opts.bind, 0, deadline)
      if not found then return nil, "connect", "cannot bind to " .. opts.bind .. ": " .. why, false end
      from = found
    end
    local pipe, failed, why = first(addresses, from, deadline)
    if pipe then pipe.resolved = took end
    return pipe, failed, why
  end

  -- Whether a wait blocks this thread: no task or host's loop is to go on meanwhile.
  local function blocks()
    return waiter == socket.wait and not socket.stepped[coroutine.running()]
  end

  --- What waits for several descriptors as this transport does.
  ---@return table watch wait(fds, modes, deadline) -> ready indices; close()
  local function watch()
    return together().watch(waiter, forget, blocks)
  end

  local host = { wait = waiter, forget = forget, watches = true, blocks = blocks }

  function host.waker()
    local running = coroutine.running()
    if not socket.stepped[running] then return wake end
    return together().runs(running) and together().wake or nil
  end

  --- What a coroutine waits for and another rings, as this transport waits.
  ---@return smtp.Bell
  local function bell() return require "smtp.transport.bell".new(host) end

  --- Calls several functions side by side until each has returned; raises what one of them raises. May yield.
  ---@param runs function[]
  local function all(runs)
    if beside and not socket.stepped[coroutine.running()] then return beside(runs) end
    local tasks = {}
    for i, run in ipairs(runs) do tasks[i] = stepper(run) end
    together().run(tasks, not blocks() and waiter or nil, forget)
  end

  return { connect = connect, wait = waiter, together = all, watch = watch, bell = bell }
end

return socket
