--- skynet: the transport inside a service of skynet, over skynet's sockets.
---
--- Does: waits in the coroutine, and lets the service go on. One that sends may be killed (skynet.killthread): its
--- connection goes with the garbage.
--- Never: TLS, which is smtp's own.
---
---   skynet.start(function() smtp.send { transport = require "smtp.transport.skynet", … } end)
local core = require "smtp.core"
local builtin = require "smtp.transport.socket"
local dial = require "smtp.transport.dial"
local driver = require "skynet.socketdriver"
local fault = require "smtp.transport.fault"
local loop = require "smtp.transport.loop"
local skynet = require "skynet"
local socket = require "skynet.socket"

local transport = {}

local NAP = 100       -- hundredths of a second: a sleep that was ended early lies in skynet until its time is over
local LOOKS = 4       -- hundredths between two looks at what is sent, at most
local LONGEST = 6000  -- hundredths of a rest
local SLICE = 65536   -- octets of a write
local WINDOW = 524288 -- octets given to skynet and not sent yet, that more may be added to; at 1 MiB it warns

-- In a task the built-in sockets wait, by its steps: skynet resumes only coroutines of its own.
local stepwise = builtin.new()

local function in_task()
  return builtin.stepped[coroutine.running()]
end

-- Rests until the deadline at most; sooner where `token` is woken.
local function rest(deadline, most, token)
  skynet.sleep(math.max(0, math.min(math.ceil((deadline - core.now()) * 100), most)), token)
end

---@class smtp.transport.skynet.pipe: smtp.Pipe
local Pipe = {}
Pipe.__index = Pipe

-- Opens a connection, reads from it and closes it, in a coroutine of its own: a read of skynet's cannot be given up. It
-- holds what came until that is taken. The pipe is no part of it, so that one that nobody has is collected.
local function carry(line, address, port)
  local id, reason = socket.open(address, port)
  line.id, line.reason = id, reason or not id and "no connection"
  skynet.wakeup(line)
  if not id then return end
  driver.nodelay(id)
  while not line.closed do
    local bytes = socket.read(id)
    line.bytes, line.ended = bytes or nil, not bytes
    skynet.wakeup(line)
    while not line.closed and (line.bytes or line.ended) do skynet.wait(line.taken) end
  end
  socket.close(id)
end

--- Some bytes, as soon as there are any. After the deadline what is there. Yields.
function Pipe:read(deadline)
  local line, late = self.line, false
  while not line.closed do
    local bytes = line.bytes
    if bytes then
      line.bytes = nil
      skynet.wakeup(line.taken)
      return bytes
    end
    if line.ended then return fault.ended() end
    if late then return fault.nothing_came() end
    late = core.now() >= deadline
    rest(deadline, NAP, line)
  end
  return fault.closed()
end

-- How much of what skynet was given it has sent. It takes all it gets, so without a look here a large message would end
-- in memory.
local function sent(line)
  for _, one in ipairs(socket.netstat()) do
    if one.id == line.id then return one.write end
  end
  return line.given -- it has ended
end

-- Waits until not too much lies with skynet. False: not in time.
local function room(line, deadline)
  local nap = 1
  while line.given - line.sent > WINDOW and not line.closed do
    local began = core.now()
    line.sent = sent(line)
    if line.given - line.sent <= WINDOW then break end
    local now = core.now()
    if now >= deadline then return false end
    -- among thousands of sockets a look takes long: it is to have a tenth of the time at most
    rest(deadline, math.max(nap, math.ceil((now - began) * 1000)), line)
    nap = math.min(nap * 2, LOOKS)
  end
  return true
end

--- All the bytes given to skynet, or an error. Yields.
--- After an error the last of them were not given to it and never will be, so that a message whose end is among them
--- was not sent; and close() has skynet forget what it has. After true the connection may still die before they are on
--- it: the session takes that for possibly sent, as it does with what lies in the system's buffers.
function Pipe:write(bytes, deadline)
  local line = self.line
  for from = 1, #bytes, SLICE do
    local slice = bytes:sub(from, from + SLICE - 1)
    local left = #bytes - from + 1
    if not room(line, deadline) then return fault.nothing_taken(left) end
    if line.closed then return fault.closed(left) end
    if not socket.write(line.id, slice) then return fault.ended(nil, left) end
    line.given = line.given + #slice
  end
  return true
end

--- What a read would find, without waiting.
function Pipe:peek()
  local line = self.line
  return line.bytes and "data" or (line.closed or line.ended) and "closed" or "idle"
end

--- Never waits. What skynet has not sent yet is lost.
function Pipe:close()
  local line = self.line
  if line.closed then return end
  line.closed, line.bytes = true, nil
  if line.id then socket.shutdown(line.id) end
  skynet.wakeup(line.taken)
  skynet.wakeup(line)
end

Pipe.__gc = Pipe.close

--- Waits until a time by smtp.now; may come back early. Yields.
---@param deadline number
function transport.wait(mode, fd, deadline)
  if in_task() then return stepwise.wait(mode, fd, deadline) end
  rest(deadline, LONGEST)
end

-- A pipe to one address; or nil and why not. An attempt that is given up cannot be stopped: it is closed when it ends.
local function attempt(address, port, deadline)
  local line = { given = 0, sent = 0, taken = {} }
  local pipe = setmetatable({ line = line }, Pipe)
  skynet.fork(carry, line, address, port)
  while not line.id and not line.reason do
    if core.now() >= deadline then
      pipe:close()
      return nil
    end
    rest(deadline, NAP, line)
  end
  if line.id then return pipe end
  return nil, line.reason
end

-- A look-up has a descriptor to wait for, which skynet cannot watch.
local function glance(_, _, deadline)
  rest(deadline, 1)
end

--- A connected pipe, to the first of the name's addresses that answers. The name is looked up by smtp: skynet would do
--- it in the thread of all its sockets, and try one address only. Yields.
function transport.connect(name, port, opts, deadline)
  if in_task() then return stepwise.connect(name, port, opts, deadline) end
  if not coroutine.isyieldable() then
    return nil, "connect", "a service of skynet has no sockets before it has started", false,
      "send from its start: skynet.start(function() smtp.send { … } end)"
  elseif opts.path or opts.bind then
    return nil, "connect", "skynet's sockets know no paths and cannot be bound to an address", false
  end
  local addresses, kind, why, temporary = dial.resolve(glance, nil, name, port, deadline)
  if not addresses then return nil, kind, why, temporary end
  return dial.in_turn(addresses, attempt, deadline)
end

--- What a coroutine of the service waits for and another rings.
---@return table bell
function transport.bell()
  if in_task() then return stepwise.bell() end
  local rung = false
  local bell = {}
  function bell.wait(_, deadline)
    if not rung then rest(deadline, LONGEST, bell) end
    rung = false
  end
  function bell.ring()
    rung = true
    skynet.wakeup(bell)
  end
  function bell.close() end
  function bell.blocks() return false end
  return bell
end

--- Calls functions in coroutines of the service until each has returned; raises what one of them raises. Yields.
---@param runs function[]
function transport.together(runs)
  if in_task() then return stepwise.together(runs) end
  local last = {}
  loop.all(runs, function(run, ended) skynet.fork(loop.guard, run, ended) end,
    function() skynet.wait(last) end, function() skynet.wakeup(last) end)
end

return transport
