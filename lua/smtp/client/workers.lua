--- workers: one call of a pool's send_many: jobs, and coroutines that do them side by side.
---
--- Does: a worker takes a job and a connection, and goes on with that as long as there are jobs. One without either
--- waits, until whoever gives a job back or ends wakes it.
--- Called by: client/pool.
local core = require "smtp.core"
local errors = require "smtp.errors"
local attempts = require "smtp.client.attempts"
local rows = require "smtp.client.rows"
local send_many = require "smtp.client.send_many"
local state = require "smtp.client.state"
local turns = require "smtp.client.turns"

local workers = {}

local LONGEST = 60 -- seconds of a rest
local SHARE = 0.1  -- what a connection takes at once, of what it has sent: at the end the others should not be idle

local catch, huge = errors.catch, math.huge

-- The jobs ------------------------------------------------------------------------------------------------------------

-- (`self` is the table that workers.run makes.)

-- What was raised goes on when all that is under way has its result.
local function stop(self, value)
  self.raised = self.raised or { value = value }
  self.ended = true
end

local function tell(self, receipt, err, given)
  local ran, raised = catch(self.on_result, receipt, err, given)
  if not ran then stop(self, raised) end
end

-- The next job out of the iterator. May yield.
local function fetch(self)
  while not self.ended do
    local mail, err, given = self.next_row()
    if mail then return attempts.new(self.pool, mail, given) end
    if mail == nil then self.ended = true else tell(self, nil, err, given) end
  end
end

-- All that would be tried again has its result: that error, or the one of its last attempt.
local function give_up(self, err)
  while self.again[1] do
    local left = table.remove(self.again, 1)
    tell(self, nil, err or left.err or errors.new { kind = "closed", stage = "mail", temporary = true,
      reason = "the call was broken off before this message was begun" }, left.given)
  end
end

-- Every message that is left gets to know why. May yield.
local function despair(self, err)
  self.broken = err
  -- a pool that was closed is no reason to empty a queue
  if self.turns.closed then self.ended = true end
  give_up(self, err)
  local left = fetch(self)
  while left do
    tell(self, nil, err, left.given)
    left = fetch(self)
  end
end

-- A job that may go now; nil: there is none, and when there will be one of those to be tried again. May yield.
local function take(self)
  if self.turns.closed and not self.broken and (self.again[1] or not self.ended) then despair(self, turns.closed()) end
  if self.raised then give_up(self) end
  local now, due, this = core.now(), huge, nil
  for place, other in ipairs(self.again) do
    if other.due <= now then
      this = table.remove(self.again, place)
      break
    end
    due = math.min(due, other.due)
  end
  this = this or fetch(self)
  if not this then return nil, due end
  self.under_way = self.under_way + 1
  return this
end

-- Puts a job back, which may go at that time.
local function put_back(self, this, due, err)
  self.under_way, this.due, this.err = self.under_way - 1, due, err
  self.again[#self.again + 1] = this
end

-- Workers that wait look again.
local function wake(self)
  turns.ring(self.bells)
end

-- What becomes of a job that has had an attempt.
local function decide(self, this, one, receipt, err)
  local again = not (receipt or self.broken or self.raised) and this:may_go_again(self.pool, one, err)
  if again then
    put_back(self, this, this.due, err)
  else
    self.under_way = self.under_way - 1
    tell(self, receipt or nil, err, this.given)
  end
  if again or self.ended then wake(self) end
end

-- A worker ------------------------------------------------------------------------------------------------------------

-- Until then, or another worker wakes it, or the pool is closed, or a while has passed. May yield.
local function rest(self, deadline)
  -- closed while the iterator waited
  if self.turns.closed and self.again[1] then return end
  self.turns:rest(math.min(deadline, core.now() + LONGEST), self.bells)
end

-- One more job for a connection that has done some; nil: there is none for it, or others are to have it. May yield.
local function another(self, one)
  if one.sent >= one.most or one.session.state ~= "ready" then return nil end
  if self.turns:is_wanted_beside(self.threads) then return nil end
  local this = take(self)
  if not (this and this.due > 0 and self.pool.plan.timeout) then return this end
  -- with what is left of its time it comes first on a connection
  put_back(self, this, this.due, this.err)
end

-- One connection's work, until there is none left for it.
---@param jobs { first: integer, last: integer, [integer]: smtp.Job } those without a result; one has come with it
local function serve(self, one, jobs)
  local this, begun = one.session, false
  state.set_life(this, jobs[1].expires)
  local results = send_many.each(this, function()
    if begun then
      local next_job = another(self, one)
      if not next_job then return nil end
      jobs.last = jobs.last + 1
      jobs[jobs.last] = next_job
    end
    begun, one.sent = true, one.sent + 1
    return jobs[jobs.last].mail
  end, function()
    return self.turns:is_wanted_beside(self.threads) and 1 or math.max(1, math.floor(one.sent * SHARE))
  end)
  local receipt, err = results()
  while receipt ~= nil do
    local done = jobs[jobs.first]
    jobs[jobs.first], jobs.first = nil, jobs.first + 1
    state.set_life(this, nil) -- the others have not waited for a turn
    decide(self, done, one, receipt, err)
    receipt, err = results()
  end
  state.rethrow(this)
end

-- With a pace to keep a message goes alone.
local function serve_one(self, one, jobs)
  local only = jobs[1]
  local receipt, err = only:send(self.pool, one)
  jobs.first = 2
  decide(self, only, one, receipt, err)
end

-- The same, guarded: what is raised ends the connection, and the call when all else that is under way has its result.
local function occupy(self, one, first_job)
  local jobs = { first = 1, last = 1, first_job }
  self.holding = self.holding + 1
  local ran, raised = catch(self.pool.pace and serve_one or serve, self, one, jobs)
  self.holding = self.holding - 1
  if ran then return self.turns:give(one) end
  stop(self, raised)
  self.turns:drop(one)
  for place = jobs.first, jobs.last do
    decide(self, jobs[place], nil, nil, errors.new { kind = "closed", stage = "body", outcome = "unknown",
      reason = "the call was broken off by an error" })
  end
end

-- What becomes of a job without a connection: that error, or others have some. Returns how often this worker has tried.
local function bear(self, this, err, tried)
  local place, now = self.turns, core.now()
  if self.broken or err and now >= this.expires and not place.closed then
    decide(self, this, nil, nil, self.broken or err)
  elseif not err then
    -- others do what is left, until there may be one more connection
    put_back(self, this, now, this.err)
    rest(self, math.max(place.grows, now + 1))
  else
    put_back(self, this, now, err)
    if place.closed or not err.temporary or tried >= self.pool.attempts then
      despair(self, err)
    else
      place:pause(now + attempts.backoff(tried))
      tried = tried + 1
    end
  end
  return tried
end

local function work(self)
  local tried = 1
  local function others_work() return self.holding > 0 end
  self.threads[coroutine.running() or "main"] = true
  while not self.broken do
    local this, due = take(self)
    if this then
      local one, err = self.turns:take(this.expires, others_work)
      if one then occupy(self, one, this) end
      tried = one and 1 or bear(self, this, err, tried)
    else
      -- each job that others have and may give back, and each that rests, has a worker without this one
      if self.count > self.under_way + #self.again then break end
      rest(self, due)
    end
  end
  self.count = self.count - 1
  wake(self)
end

--- Sends what an iterator gives, over as many connections as the pool may have. Returns when every message has its
--- result. May yield.
---@param pool smtp.Pool
---@param iterator fun(): table?
---@param on_result fun(receipt: smtp.Receipt?, err: smtp.Error?, given: table)
---@return true|nil
---@return smtp.Error? err the pool is closed
function workers.run(pool, iterator, on_result)
  local this = pool.turns
  local together = not this:holds() and this.transport.together
  local self = {
    pool = pool,
    turns = this,
    next_row = nil,
    on_result = on_result,
    again = {},     -- jobs to be tried again
    under_way = 0,  -- jobs taken and not decided
    ended = false,  -- nothing more is taken from the iterator
    raised = nil,   -- { value }: what code of the caller's raised
    broken = nil,   -- the error for which no connection can be had
    count = together and this.size or 1, -- workers that work, or wait for work,
    holding = 0,    -- those of them that have a connection
    bells = {},     -- of those that wait -> true
    threads = setmetatable({}, { __mode = "k" }), -- coroutine of a worker -> true
  }
  self.next_row = rows.new(iterator, self)
  local works = {}
  for i = 1, self.count do works[i] = function() work(self) end end
  local ran, raised = catch(together or works[1], works)
  if not ran then
    this:drop_all(self.threads)
    error(raised, 0)
  end
  if self.raised then error(self.raised.value, 0) end
  if self.broken and this.closed then return nil, errors.apart(turns.closed()) end
  return true
end

return workers
