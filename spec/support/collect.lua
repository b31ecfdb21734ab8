-- collect: has a finalizer run in whatever place of a call could run one. A full collection then goes with each
-- allocation, so this is for a process of its own with little in memory.
local collect = {}

local VERSION = tonumber(_VERSION:match "%d%.%d")

local function press()
  if VERSION >= 5.5 then
    collectgarbage "incremental"
    collectgarbage("param", "pause", 0)
    collectgarbage("param", "stepmul", 0)
  elseif VERSION == 5.4 then
    collectgarbage("incremental", 1, 1000, 100)
  else
    collectgarbage("setpause", 0)
    collectgarbage("setstepmul", VERSION == 5.1 and 0 or 1000000)
  end
end

local function ease()
  if VERSION >= 5.5 then
    collectgarbage("param", "pause", 200)
    collectgarbage("param", "stepmul", 200)
  else
    collectgarbage("setpause", 200)
    collectgarbage("setstepmul", 200)
  end
end

local left, action -- collections until the action, nil: there is none

local finalize

-- Garbage with a finalizer.
local function drop()
  if newproxy then
    getmetatable(newproxy(true)).__gc = finalize
  else
    setmetatable({}, { __gc = finalize })
  end
end

function finalize()
  if not action then return end
  left = left - 1
  if left == 0 then
    local act = action
    action = nil
    act()
  else
    drop()
  end
  if VERSION == 5.2 then collectgarbage "restart" end
end

--- Closes any object that has a __close, where there is that.
collect.close = VERSION >= 5.4 and load "local object <close> = ..." or nil

--- Calls `make` for a call and what a finalizer is to do in its midst, again and again: the first time the finalizer runs
--- in the first place where one can, then in the second and so on; of those behind the twentieth in some. What the call
--- raises is of no interest.
---@param make fun(): fun(), fun(), fun()? the call, what the finalizer does, and what is looked at afterwards
---@return integer places where it can run, or somewhat fewer
function collect.everywhere(make)
  local place = 1
  while true do
    local call, act, look = make()
    press()
    collectgarbage() -- a pace holds from the next cycle on
    collectgarbage() -- without finalizers, after which 5.2 rests
    left, action = place, act
    drop()
    pcall(call)
    ease()
    local ran = not action
    action = nil
    if look then look() end
    collectgarbage()
    if not ran then return place - 1 end
    place = place + 1 + math.floor(place / 20)
  end
end

local function fill(size) return ("x"):rep(size) end

--- The same with the collector that looks at what is young, where Lua has one: it comes by when one part in a hundred is
--- new, so nearly as much goes before the call, and less and less.
---@return integer count in how many calls the finalizer ran
function collect.young(make)
  local old = ("x"):rep(1000000) -- a hundredth of it is more than most calls need
  local ran = 0
  collectgarbage("generational", 1)
  for less = 0, 24 do
    local call, act, look = make()
    collectgarbage "step"
    left, action = 1, act
    drop()
    local count = collectgarbage "count"
    local most = count * 1.01 - less / 25
    while action and collectgarbage "count" < most - 1 do fill(900) end
    while action and collectgarbage "count" < most do fill(50) end
    local before = not action
    pcall(call, old)
    if not action and not before then ran = ran + 1 end
    action = nil
    if look then look() end
  end
  collectgarbage "incremental"
  return ran
end

return collect
