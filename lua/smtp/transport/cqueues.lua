--- cqueues: the transport for programs that run on cqueues.
---
--- Does: waits by cqueues: in a coroutine of a cqueues loop nothing blocks; outside of one it does, as cqueues' own
--- sockets do. Coroutines of yours inside one of the loop's are to be made by cqueues.auxlib.
---
---   cqueues.new():wrap(function() smtp.send { transport = require "smtp.transport.cqueues", … } end)
local condition = require "cqueues.condition"
local core = require "smtp.core"
local cqueues = require "cqueues"
local socket = require "smtp.transport.socket"

local EVENTS = { read = "r", write = "w" }

local resting = setmetatable({}, { __mode = "k" }) -- coroutine that waits for no descriptor -> what wakes it

local function rest(seconds)
  local thread, rung = coroutine.running(), condition.new()
  resting[thread] = rung
  rung:wait(seconds)
  resting[thread] = nil
end

local function wake(thread)
  if resting[thread] then resting[thread]:signal() end
end

local function wait(mode, fd, deadline)
  if not cqueues.running() then
    core.wait(mode, fd, deadline)
  elseif fd < 0 then
    rest(math.max(0, deadline - core.now()))
  else
    cqueues.poll { pollfd = fd, events = EVENTS[mode], timeout = math.max(0, deadline - core.now()) }
    -- a loop would keep it registered, and end with an error when the collector closes it
    cqueues.cancel(fd)
  end
end

-- In coroutines of the loop, so that what is called there may wait in its other ways, too.
local function beside(runs)
  if not runs[1] then return end -- an empty loop would wait for ever
  local loop = cqueues.new()
  for _, run in ipairs(runs) do loop:wrap(run) end
  local ok, reason = loop:loop()
  loop:close()
  if not ok then error(reason, 0) end
end

return socket.new(wait, cqueues.cancel, beside, wake)
