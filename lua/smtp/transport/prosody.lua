--- prosody: the transport inside Prosody, to be used in a runner of util.async.
---
--- Does: waits by Prosody: nobody else waits but that runner, such as handles a client's stanzas or an HTTP request.
--- What it is to do next waits for the mail: where that must not be, and in callbacks of timers and promises, start
--- one.
---
---   async.runner(function() smtp.send { transport = require "smtp.transport.prosody", … } end):run(true)
local check = require "smtp.check"
local core = require "smtp.core"
local loop = require "smtp.transport.loop"
local socket = require "smtp.transport.socket"

if not rawget(_G, "prosody") then check.raise "smtp.transport.prosody works inside Prosody only" end

local async = require "util.async"
local server = require "net.server"
local timer = require "util.timer"

local LONGEST = 86400 -- seconds of a timer

local can_wait = coroutine.isyieldable or async.ready
local waiting = {} -- descriptor -> what ends the wait for it
local resting = {} -- coroutine that waits for no descriptor -> what ends that

-- A function that waits until another has been called, and that other.
local function waiter()
  if can_wait() then return async.waiter() end
  check.raise("smtp.transport.prosody: call it in a runner, async.runner(function() … end):run(true)")
end

local function unwatch(watch)
  -- those of server_event cannot be closed, only what they are made of
  local event = watch.wantread or watch.wantwrite or watch
  event:close()
end

local function wait(mode, fd, deadline)
  local rest, done = waiter()
  local thread, over, watch = coroutine.running(), nil, nil
  local function go_on()
    if over then return end
    over = true
    if watch then
      unwatch(watch)
      -- its number may be another's by now
      if waiting[fd] == go_on then waiting[fd] = nil end
    end
    done()
  end
  local alarm = timer.add_task(math.min(math.max(0, deadline - core.now()), LONGEST), go_on)
  if fd >= 0 then
    watch = server.watchfd(fd, mode == "read" and go_on or nil, mode == "write" and go_on or nil)
    -- server_epoll calls both where a connection has failed
    watch.onreadable, watch.onwritable = go_on, go_on
    waiting[fd] = go_on
  else
    resting[thread] = go_on
  end
  rest()
  resting[thread] = nil
  timer.stop(alarm)
end

local function forget(fd)
  if waiting[fd] then waiting[fd]() end
end

-- later: a runner that is told at once goes on inside of who tells it
local function wake(thread)
  if resting[thread] then timer.add_task(0, resting[thread]) end
end

-- In runners of their own, so that what is called there may wait in its other ways, too.
local function beside(runs)
  local rest, done = waiter()
  loop.all(runs, function(run, ended)
    local function call()
      run()
      ended()
    end
    async.runner(call, { error = function(_, reason) ended(reason) end }):run(true)
  end, rest, done)
end

return socket.new(wait, forget, beside, wake)
