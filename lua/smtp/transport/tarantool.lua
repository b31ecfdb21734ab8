--- The transport for programs that run in Tarantool: nobody waits but the fiber that calls it.
---
---   fiber.create(function() smtp.send { transport = require "smtp.transport.tarantool", … } end)
local core = require "smtp.core"
local fiber = require "fiber"
local iowait = require "socket".iowait
local socket = require "smtp.transport.socket"

local EVENTS = { read = "R", write = "W" }
local waiting = {} -- descriptor -> the fiber that waits for it

local function wait(mode, fd, deadline)
  local rest = math.max(0, deadline - core.now())
  if fd < 0 then return fiber.sleep(rest) end
  waiting[fd] = fiber.self()
  local ok, reason = pcall(iowait, fd, EVENTS[mode], rest) -- raises where the fiber is cancelled
  waiting[fd] = nil
  if not ok then error(reason, 0) end
end

local function forget(fd)
  if waiting[fd] then waiting[fd]:wakeup() end
end

-- In fibers of their own, so that what is called there may wait in its other ways, too.
local function beside(runs)
  local fibers, failure = {}, nil
  for i, run in ipairs(runs) do
    fibers[i] = fiber.new(function()
      local ok, reason = pcall(run)
      if not ok then failure = failure or reason end
    end)
    fibers[i]:set_joinable(true)
  end
  for _, one in ipairs(fibers) do one:join() end
  if failure then error(failure, 0) end
end

return socket.new(wait, forget, beside)
