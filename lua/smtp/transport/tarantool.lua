--- tarantool: the transport inside Tarantool, which transport = "auto" stands for there.
---
--- Does: waits in the fiber, and lets the others run. In one that is cancelled it raises, as Tarantool's own calls do,
--- and the connection is closed.
---
---   fiber.create(function() smtp.send { … } end)
local core = require "smtp.core"
local fiber = require "fiber"
local iowait = require "socket".iowait
local loop = require "smtp.transport.loop"
local socket = require "smtp.transport.socket"

local EVENTS = { read = "R", write = "W" }

local waiting = {}                               -- descriptor -> the fiber that waits for it
local resting = {}                               -- coroutine of a fiber that waits for none -> that fiber
local pipes = setmetatable({}, { __mode = "v" }) -- descriptor -> its connection

local function sleep(seconds)
  local thread = coroutine.running() or "main"
  resting[thread] = fiber.self()
  local ok, reason = pcall(fiber.sleep, seconds)
  resting[thread] = nil
  if not ok then error(reason, 0) end
end

local function wake(thread)
  if resting[thread] then resting[thread]:wakeup() end
end

local function wait(mode, fd, deadline)
  local rest = math.max(0, deadline - core.now())
  if fd < 0 then return sleep(rest) end
  local this, pipe = fiber.self(), pipes[fd]
  waiting[fd] = this
  local ok, reason = pcall(iowait, fd, EVENTS[mode], rest)
  -- its number may be another's by now
  if waiting[fd] == this then waiting[fd] = nil end
  if ok then return end
  if pipe then pipe:close() end
  error(reason, 0)
end

local function forget(fd)
  local one = waiting[fd]
  waiting[fd] = nil
  if one then one:wakeup() end
end

-- In fibers of their own, so that what is called there may wait in its other ways, too. They are cancelled with the
-- caller's.
local function beside(runs)
  local fibers, last = {}, fiber.cond()
  local ok, reason = pcall(loop.all, runs, function(run, ended)
    local one = fiber.new(loop.guard, run, ended)
    one:set_joinable(true)
    table.insert(fibers, one)
  end, function()
    last:wait()
    fiber.testcancel()
  end, function() last:signal() end)
  for _, one in ipairs(fibers) do
    if not ok then pcall(one.cancel, one) end -- which raises where the caller's is cancelled
  end
  for _, one in ipairs(fibers) do one:join() end
  if not ok then error(reason, 0) end
end

local transport = socket.new(wait, forget, beside, wake)
local connect = transport.connect

function transport.connect(...)
  local pipe, kind, reason, temporary = connect(...)
  if pipe then pipes[pipe.fd] = pipe end
  return pipe, kind, reason, temporary
end

return transport
