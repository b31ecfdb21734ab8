--- Several tasks side by side, in a thread that waits for all of them at once: by one poll, or where the thread is a
--- host's, who waits for one descriptor, by one that stands for all.
local core = require "smtp.core"

local together = {}

local GLANCE = 0.02 -- seconds between two looks at what cannot be waited for
local MOST = 16     -- bells of this process that have descriptors, of which there may be few: hundreds may wait

-- Waits by one poll.
local function poll(tasks, waits, deadline)
  local fds, modes = {}, {}
  for i, task in ipairs(tasks) do fds[i], modes[i] = waits[task].fd, waits[task].mode end
  local ready = core.poll(fds, modes, deadline)
  for i, task in ipairs(tasks) do waits[task].ready = ready[i] end
end

-- Waits by the host's wait and a poller. `watched`: descriptor -> who waits for it.
local function poll_hosted(wait, poller, watched, deadline)
  wait("read", poller:fd(), deadline)
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

--- Runs tasks until all have ended; raises what one of them raises. May yield.
---@param tasks table[] each with step(), as a smtp.task; is empty in the end
---@param wait? fun(mode: string, fd: integer, deadline: number) the host's; nil: this thread may block
---@param forget? fun(fd: integer) the host's
function together.run(tasks, wait, forget)
  local poller = wait and core.poller()
  local waits, watched = {}, {}
  while #tasks > 0 do
    local deadline, now = math.huge, core.now()
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
          waits[task] = nil
          table.remove(tasks, i)
        else
          one = { mode = mode, fd = fd, deadline = limit, ready = false }
          waits[task] = one
          if poller and fd >= 0 then
            watched[fd] = one
            if not poller:watch(mode, fd) then one.deadline = math.min(limit, core.now() + GLANCE) end
          end
        end
      end
      if waits[task] then deadline = math.min(deadline, one.deadline) end
    end
    if #tasks > 0 then
      if poller then
        poll_hosted(wait, poller, watched, deadline)
      elseif wait then
        glance(wait, tasks, waits, deadline)
      else
        poll(tasks, waits, deadline)
      end
    end
  end
  if poller then
    if forget then forget(poller:fd()) end
    poller:close()
  end
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
  if poller then
    if self.forget then self.forget(poller:fd()) end
    poller:close()
  end
end

local Bell = {}
Bell.__index = Bell

local watched = setmetatable({}, { __mode = "k" }) -- bell that has a poller -> true

-- A poller for a bell. Who finds none left looks again when it looks whether it was rung.
local function poller_for(bell)
  local count = 0
  for _ in pairs(watched) do count = count + 1 end
  local poller = count < MOST and core.poller()
  if poller then watched[bell] = true end
  return poller or nil
end

--- What one coroutine waits for and another rings.
---@param wait fun(mode: string, fd: integer, deadline: number) the host's
---@param forget? fun(fd: integer) the host's
---@param watches boolean whether that can wait for a descriptor
---@param blocks fun(): boolean whether a wait would block this thread: then nobody can ring
---@return table bell
function together.bell(wait, forget, watches, blocks)
  return setmetatable({
    host_wait = wait, forget = forget, watches = watches, blocks = blocks, poller = nil, rung = false,
  }, Bell)
end

--- Waits until it has been rung, or the deadline has passed. May yield.
---@param deadline number
function Bell:wait(deadline)
  while not self.rung and core.now() < deadline do
    if self.watches and not self.blocks() then self.poller = self.poller or poller_for(self) end
    if self.poller then
      self.host_wait("read", self.poller:fd(), deadline)
    else
      self.host_wait("read", -1, self.blocks() and deadline or math.min(deadline, core.now() + GLANCE))
    end
  end
  -- what has rung would go on
  if self.rung and self.poller then self.poller:alarm(math.huge) end
  self.rung = false
end

--- Ends a wait that is under way, or else the next one. Never waits.
function Bell:ring()
  self.rung = true
  if self.poller then self.poller:alarm(0) end
end

--- Nobody waits for it any more.
function Bell:close()
  local poller = self.poller
  self.poller, self.watches, watched[self] = nil, false, nil
  if poller then
    if self.forget then self.forget(poller:fd()) end
    poller:close()
  end
end

return together
