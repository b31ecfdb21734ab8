--- habits: what this process has learnt of the servers it sends to.
---
--- Does: remembers what one connection found out, so that the next one need not.
--- Never: remembers more than 2 × MOST servers: those not asked about for the longest time are forgotten, and are found
--- out about again.
--- Called by: bdat, send_many.
local pipeline = require "smtp.protocol.pipeline"

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

--- Whether another envelope may go behind the end of a content. Dovecot 2.3 takes the message, finds a RCPT or BDAT
--- there and ends with a failed assertion before it has answered, unless RSET stands between; servers that do not name
--- themselves may do the like.
---@param self table the session
---@return boolean goes
---@return boolean reset only behind RSET, and nothing else but QUIT
function habits.goes_on(self)
  local able = pipeline.goes_on(self.capabilities, self.plan) and habits.of(self.plan).bears ~= false
  if not able then return false, true end
  return true, self.greeting.text:find("Dovecot", 1, true) ~= nil
end

--- Learns from what became of a content with more than QUIT behind its end: one good answer is proof, and before there
--- was one a lost connection is taken for its consequence.
---@param self table the session
---@param err smtp.Error? of the content
function habits.learn(self, err)
  local known = habits.of(self.plan)
  if not err then
    known.bears = true
  elseif known.bears == nil and err.kind == "closed" and err.outcome == "unknown" then
    known.bears = false
  end
end

return habits
