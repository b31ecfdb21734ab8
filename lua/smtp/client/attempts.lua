--- attempts: a message on its way through a pool: when it may go, until when, and whether it may go again.
---
--- Never: sends again what may have been sent.
--- Called by: client/pool, client/workers.
local core = require "smtp.core"
local send = require "smtp.client.send"
local state = require "smtp.client.state"
local turns = require "smtp.client.turns"

local attempts = {}

local BACKOFF = 1  -- seconds before the second attempt; twice as long before each further one
local LONGEST = 60 -- seconds of such a pause

---@class smtp.Job
local Job = {}
Job.__index = Job

---@param given table what the caller gave
---@return smtp.Job
function attempts.new(pool, mail, given)
  local timeout = pool.plan.timeout
  return setmetatable({
    mail = mail,
    given = given,
    expires = timeout and core.now() + timeout or math.huge,
    due = 0,      -- when it may go
    attempt = 1,  -- the one that it is at,
    spared = 0,   -- and those that counted for nothing
    number = nil, -- its place, where it has to keep a pace
    err = nil,    -- of its last attempt, while it rests
  }, Job)
end

--- The seconds between an attempt and the next one.
---@param attempt integer
---@return number
function attempts.backoff(attempt)
  return math.min(BACKOFF * 2 ^ (attempt - 1), LONGEST)
end

-- When the next message on a connection may go, by `rate`: one after the other, in the order in which they came.
local function turn_of(pool, one)
  local place = 1
  for other in pairs(pool.turns.used) do
    if other.number and other.number < one.number then place = place + 1 end
  end
  return pool.pace.last + place / pool.pace.rate
end

-- Waits for that; a job whose connection has ended meanwhile keeps its place. Returns that error, or the one of a
-- deadline that comes before. May yield.
local function keep_pace(self, pool, one)
  local pace, ok, err = pool.pace, true, nil
  if not self.number then
    pace.count = pace.count + 1
    self.number = pace.count
  end
  one.number = self.number
  while ok do
    local now, due = core.now(), turn_of(pool, one)
    if now >= due then
      pace.last, self.number = now, nil
      break
    elseif now >= self.expires then
      ok, err = nil, turns.late()
    elseif pool.turns.closed then
      ok, err = nil, turns.closed()
    else
      pool.turns:pause(math.min(due, self.expires))
      ok, err = send.look(one.session)
      one.ended = not ok
    end
  end
  one.number = nil
  return ok, err
end

--- Sends it over a connection. May yield.
---@return smtp.Receipt? receipt
---@return smtp.Error? err
function Job:send(pool, one)
  local this = one.session
  state.set_life(this, self.expires)
  if pool.pace then
    local ok, err = keep_pace(self, pool, one)
    if not ok then return nil, err end
  end
  one.sent = one.sent + 1
  local receipt, err = send.send(this, self.mail)
  state.rethrow(this)
  return receipt, err
end

-- Stages in which a server may end a connection that was kept, crossing what was just written.
local ENVELOPE = { reset = true, mail = true, rcpt = true, data = true }

-- Whether a connection ended that had carried others before: no fault of the message's.
local function is_farewell(one, err)
  if one.ended then return true end -- before anything of the message went out
  if one.sent < 2 or not ENVELOPE[err.stage] then return false end
  if err.stage ~= "mail" and (err.code or 0) >= 500 then return false end
  return err.enhanced == "4.4.2" or not send.look(one.session)
end

-- Whether the server wants fewer connections than there are; then there are fewer from now on.
local function is_crowd(pool, one, err)
  local status = err.enhanced or ""
  local fewer = err.stage == "mail" and (err.code == 421 or status == "4.3.2" or status:find("^4%.7%.") ~= nil)
  local working, opening = pool.turns:others(one)
  if not fewer or working == 0 then return false end
  pool.turns:shrink(working + opening)
  one.session:close() -- at once: the next message is composed already, and waits to go over it
  return true
end

--- Whether it may be tried again, after it failed with that error; it is due then.
---@param one smtp.Connection? on which it failed
---@param err smtp.Error
---@return boolean
function Job:may_go_again(pool, one, err)
  local now = core.now()
  if err.outcome ~= "not_sent" or pool.turns.closed or now >= self.expires then return false end
  -- what counts for nothing has an end all the same
  if one and self.spared <= pool.turns.size and (is_farewell(one, err) or is_crowd(pool, one, err)) then
    self.spared, self.due = self.spared + 1, now
    return self.mail:again()
  end
  if self.attempt >= pool.attempts or not (err.temporary or err.kind == "closed" and not err.code) then return false end
  self.due = now + attempts.backoff(self.attempt)
  self.attempt = self.attempt + 1
  return self.due < self.expires and self.mail:again()
end

return attempts
