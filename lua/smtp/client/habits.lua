--- habits: what this process has learnt of the servers it sends to.
---
--- Does: remembers what one connection found out, so that the next one need not.
--- Never: remembers more than 2 × MOST servers: those not asked about for the longest time are forgotten, and are found
--- out about again.
--- Called by: bdat, send.
local habits = {}

--- Servers in each of two generations.
habits.MOST = 500

local young, old, count = {}, {}, 0

---@class smtp.Habits what is nil is not known
---@field swallows boolean? what it refuses of a chunk is not read as commands,
---@field bears boolean? and it takes other commands than QUIT behind the end of a content

--- A server's, to be read and written at once: what is held on to may be forgotten here.
---@param plan table
---@return smtp.Habits
function habits.of(plan)
  plan.key = plan.key or plan.path or plan.host:lower() .. ":" .. plan.port
  local key = plan.key
  local known = young[key]
  if known then return known end
  if count == habits.MOST then young, old, count = {}, young, 0 end
  known = old[key] or {}
  young[key], count = known, count + 1
  return known
end

return habits
