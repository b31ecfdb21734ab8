--- bell: what one coroutine waits for and another rings.
---
--- Does: waits by what the host has: it wakes a coroutine, or else watches a descriptor; where neither can be had who
--- waits looks now and again whether it was rung. So hundreds may wait.
--- Never: keeps who waits from the collector.
--- Called by: transport/socket, for all transports over it; client/turns, for those of others.
local core = require "smtp.core"
local loop = require "smtp.transport.loop"

local bell = {}

local GLANCE = 0.02 -- seconds between two looks of who is among the first that wait for the same,
local FIRST = 4     -- which so many are; the others look the more seldom
local MOST = 16     -- bells of this process that have a poller, which is two descriptors: there may be few of these

---@class smtp.Bell
local Bell = {}
Bell.__index = Bell

local watched = setmetatable({}, { __mode = "k" })  -- bell that has a poller -> true
local waiting = setmetatable({}, { __mode = "kv" }) -- bell -> who waits for it and can be woken

---@class smtp.Host how coroutines wait
---@field wait fun(mode: string, fd: integer, deadline: number)
---@field blocks fun(): boolean whether that blocks this thread: then nobody can ring
---@field waker? fun(): fun(thread: thread)? what ends a wait of this coroutine's for no descriptor, if anything can
---@field watches? boolean whether it waits for descriptors of any kind
---@field forget? fun(fd: integer)

---@param host smtp.Host
---@return smtp.Bell
function bell.new(host)
  return setmetatable({ host = host, rung = false, wake = nil, poller = nil }, Bell)
end

--- Whether a wait would block the thread.
function Bell:blocks()
  return self.host.blocks()
end

-- A poller, where there is one left.
local function poller_for(self)
  local count = 0
  for _ in pairs(watched) do count = count + 1 end
  local poller = count < MOST and core.poller()
  if poller then watched[self] = true end
  return poller or nil
end

-- Waits for a descriptor of its own, or where there is none, a little.
local function watch(self, deadline, place)
  self.poller = self.poller or self.host.watches and poller_for(self) or nil
  if self.poller then return self.host.wait("read", self.poller:fd(), deadline) end
  self.host.wait("read", -1, math.min(deadline, core.now() + GLANCE * math.max(1, place / FIRST)))
end

--- Waits until it has been rung, or the deadline has passed. May yield.
---@param deadline number
---@param place integer? among those who wait for the same
function Bell:wait(deadline, place)
  local host, blocks, thread = self.host, self:blocks(), coroutine.running()
  self.wake = thread and not blocks and host.waker and host.waker() or nil
  waiting[self] = self.wake and thread
  while not self.rung and core.now() < deadline do
    if blocks or self.wake then host.wait("read", -1, deadline) else watch(self, deadline, place or 1) end
  end
  waiting[self] = nil
  -- what has rung would go on
  if self.rung and self.poller then self.poller:alarm(math.huge) end
  self.rung = false
end

--- Ends a wait that is under way, or else the next one. Never waits.
function Bell:ring()
  if self.rung then return end
  self.rung = true
  if self.poller then self.poller:alarm(0) end
  if waiting[self] then self.wake(waiting[self]) end
end

--- Nobody waits for it any more.
function Bell:close()
  local poller, forget = self.poller, self.host.forget
  self.poller, watched[self] = nil, nil
  if poller then loop.shut(poller, forget) end
end

return bell
