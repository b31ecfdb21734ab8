--- together: several side by side, in a thread that waits for all of them at once.
---
--- Does: waits by one poll, or where the thread is a host's, who waits for one descriptor, by one that stands for all.
--- Never: makes a coroutine, or looks at what is read.
--- Called by: transport/socket, the pool.
local core = require "smtp.core"
local loop = require "smtp.transport.loop"

local together = {}

local GLANCE = 0.02 -- seconds between two looks at what cannot be waited for

local waiting = setmetatable({}, { __mode = "k" }) -- thread of a task that runs here -> its wait

-- Waits by one poll.
local function poll(tasks, waits, deadline)
  local fds, modes = {}, {}
  for i, task in ipairs(tasks) do fds[i], modes[i] = waits[task].fd, waits[task].mode end
  local ready = core.poll(fds, modes, deadline)
  for i, task in ipairs(tasks) do waits[task].ready = ready[i] end
end

-- Waits by the host's wait and their poller. `watched`: descriptor -> who waits for it.
local function poll_hosted(wait, crew, watched, deadline)
  local poller = crew.poller
  crew.asleep = true
  wait("read", poller:fd(), deadline)
  crew.asleep = false
  -- what has rung would go on
  if crew.rung then poller:alarm(math.huge) end
  for _, fd in ipairs(poller:ready()) do
    watched[fd].ready, watched[fd] = true, nil
  end
end

-- Waits a little, for one of them.
local function glance(wait, tasks, waits, deadline)
  local one = waits[tasks[1]]
  wait(one.mode, one.fd, math.min(deadline, core.now() + GLANCE))
  for _, task in ipairs(tasks) do waits[task].ready = true end
end

--- Whether a thread is a task's that runs here.
---@param thread thread
---@return boolean
function together.runs(thread)
  return waiting[thread] ~= nil
end

--- Ends the wait of such a task. Never waits.
---@param thread thread
function together.wake(thread)
  local one = waiting[thread]
  if not one then return end
  one.ready, one.crew.rung = true, true
  if one.crew.asleep then one.crew.poller:alarm(0) end
end

--- Runs tasks until all have ended; raises what one of them raises. May yield.
---@param tasks table[] each with step() and thread, as a smtp.task; is empty in the end
---@param wait? fun(mode: string, fd: integer, deadline: number) the host's; nil: this thread may block
---@param forget? fun(fd: integer) the host's
function together.run(tasks, wait, forget)
  local poller = wait and core.poller()
  local crew = { poller = poller, rung = false, asleep = false }
  local waits, watched = {}, {}
  for _, task in ipairs(tasks) do waiting[task.thread] = { crew = crew } end
  while #tasks > 0 do
    local deadline, now = math.huge, core.now()
    crew.rung = false
    for i = #tasks, 1, -1 do
      local task = tasks[i]
      local one = waits[task]
      if not one or one.ready or now >= one.deadline then
        -- before the task can close it
        if one and watched[one.fd] == one then
          poller:drop(one.fd)
          watched[one.fd] = nil
        end
        local mode, fd, limit = task:step()
        if mode == "done" then
          waits[task], waiting[task.thread] = nil, nil
          table.remove(tasks, i)
        else
          one = { mode = mode, fd = fd, deadline = limit, ready = false, crew = crew }
          waits[task], waiting[task.thread] = one, one
          if poller and fd >= 0 then
            watched[fd] = one
            if not poller:watch(mode, fd) then one.deadline = math.min(limit, core.now() + GLANCE) end
          end
        end
      end
      if waits[task] then deadline = math.min(deadline, one.deadline) end
    end
    if #tasks > 0 and not crew.rung then
      if poller then
        poll_hosted(wait, crew, watched, deadline)
      elseif wait then
        glance(wait, tasks, waits, deadline)
      else
        poll(tasks, waits, deadline)
      end
    end
  end
  if poller then loop.shut(poller, forget) end
end

local Watch = {}
Watch.__index = Watch

--- What waits for several descriptors, again and again.
---@param wait fun(mode: string, fd: integer, deadline: number) the host's
---@param forget? fun(fd: integer) the host's
---@param may_block fun(): boolean whether this thread may
---@return table watch
function together.watch(wait, forget, may_block)
  return setmetatable({ host_wait = wait, forget = forget, may_block = may_block, poller = nil }, Watch)
end

--- Waits until one of them is ready, or the deadline has passed, or the watch is closed. May yield.
---@param fds integer[]
---@param modes string[] "read" or "write", of each
---@param deadline number
---@return table<integer, boolean> ready the indices of those that are
function Watch:wait(fds, modes, deadline)
  if self.may_block() then return core.poll(fds, modes, deadline) end
  if core.now() < deadline then
    self.poller = self.poller or core.poller()
    if self.poller then
      for i, fd in ipairs(fds) do self.poller:watch(modes[i], fd) end
      self.host_wait("read", self.poller:fd(), deadline)
      -- so that it does not tell again of one that is not watched next time
      if self.poller then self.poller:ready() end
    else
      self.host_wait("read", -1, math.min(deadline, core.now() + GLANCE))
    end
  end
  return core.poll(fds, modes, 0)
end

--- Ends a wait that is under way.
function Watch:close()
  local poller = self.poller
  self.poller = nil
  if poller then loop.shut(poller, self.forget) end
end

return together
