--- luv: the transport for programs that run on luv (libuv for Lua), to be used in a coroutine.
---
--- Does: waits by uv.run, which then resumes the coroutine. An error in it after that is written to stderr, as nobody
--- is there to catch it.
---
---   coroutine.wrap(function() smtp.send { transport = require "smtp.transport.luv", … } end)()
---   uv.run()
local check = require "smtp.check"
local core = require "smtp.core"
local loop = require "smtp.transport.loop"
local socket = require "smtp.transport.socket"

do -- luv calls back into the thread that has loaded it, and crashes where that is a coroutine
  local running, main = coroutine.running()
  if running and not main and not package.loaded.luv then
    check.raise('smtp.transport.luv: require "luv" in the main coroutine first')
  end
end
local uv = require "luv"

local EVENTS = { read = "r", write = "w" }

local handles = {} -- descriptor -> its poll handle and timer, and the thread that waits for them
local resting = {} -- thread that waits for no descriptor -> its timer, likewise

-- Who gets to know the error that ends a coroutine.
local failures = setmetatable({}, { __mode = "k" })

local function report(reason, thread)
  io.stderr:write(debug.traceback(thread, tostring(reason)), "\n")
end

local function resume(thread)
  local ok, reason = coroutine.resume(thread)
  if not ok then (failures[thread] or report)(reason, thread) end
end

local function go_on(one)
  local thread = one.thread
  one.thread = nil
  if one.poll then one.poll:stop() end
  one.timer:stop()
  if not one.kept then
    one.timer:close()
    resting[thread] = nil
  end
  resume(thread)
end

local function watch(fd)
  local one = { timer = uv.new_timer() }
  one.ready = function() if one.thread then go_on(one) end end
  if fd < 0 then return one end
  local poll, reason = uv.new_poll(fd)
  if not poll then
    one.timer:close()
    error("smtp.transport.luv: cannot watch a descriptor: " .. reason, 0)
  end
  one.poll, one.kept = poll, true
  handles[fd] = one
  return one
end

local function this_coroutine()
  local thread, main = coroutine.running()
  if thread and not main then return thread end
  check.raise("smtp.transport.luv: call it in a coroutine, coroutine.wrap(function() … end)(), then uv.run()")
end

local function wait(mode, fd, deadline)
  local thread = this_coroutine()
  local one = handles[fd] or watch(fd)
  one.thread = thread
  if one.poll then one.poll:start(EVENTS[mode], one.ready) else resting[thread] = one end
  -- rounded up: waking a fraction early would only wait again
  one.timer:start(math.ceil(math.min(math.max(0, deadline - core.now()) * 1000, 2 ^ 31)), 0, one.ready)
  coroutine.yield()
end

local function forget(fd)
  local one = handles[fd]
  if not one then return end
  handles[fd] = nil
  one.poll:close()
  one.poll, one.kept = nil, false
  if one.thread then
    one.timer:start(0, 0, one.ready)
  else
    one.timer:close()
  end
end

local function wake(thread)
  local one = resting[thread]
  if one then one.timer:start(0, 0, one.ready) end
end

-- In coroutines that anybody may resume, so that what is called there may wait in other ways, too.
local function beside(runs)
  local caller, waiting = this_coroutine(), false
  loop.all(runs, function(run, ended)
    local thread = coroutine.create(function()
      run()
      ended()
    end)
    failures[thread] = ended
    resume(thread)
  end, function()
    waiting = true
    coroutine.yield()
  end, function()
    if waiting then resume(caller) end
  end)
end

return socket.new(wait, forget, beside, wake)
