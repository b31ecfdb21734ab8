--- Kept connections to one server, for many messages: opened when needed, used again, given up when idle too long. What
--- was not sent and may work later is sent again; what may have been sent never is.
local batch = require "smtp.batch"
local core = require "smtp.core"
local delivery = require "smtp.delivery"
local errors = require "smtp.errors"
local exchange = require "smtp.exchange"
local options = require "smtp.options"
local rows = require "smtp.rows"
local session = require "smtp.session"
local socket = require "smtp.transport.socket"

local pool = {}

---@class smtp.Pool
local Pool = {}
Pool.__index = Pool

local OWN = { size = "number", max_messages = "number", max_idle = "number", rate = "number", attempts = "number" }
local BACKOFF = 1  -- seconds before the second attempt; twice as long before each further one
local LONGEST = 60 -- seconds, of such a pause
local SHARE = 0.1   -- what a connection takes at once, of what it has sent: at the end the others should not be idle
local GLANCE = 0.02 -- seconds between two looks at what cannot be waited for
local PATIENCE = 1 -- seconds of waiting for a connection, until those that nobody uses any more are looked for

local function problem(self)
  local function whole(value) return value >= 1 and value % 1 == 0 end
  if not whole(self.size) then return "size must be a whole number, 1 or more" end
  if self.max_messages ~= math.huge and not whole(self.max_messages) then
    return "max_messages must be a whole number, 1 or more"
  end
  if not whole(self.attempts) then return "attempts must be a whole number, 1 or more" end
  local positive = self.max_idle > 0 and (not self.rate or self.rate > 0)
  if not positive then return "max_idle and rate must be more than 0" end
end

--- A pool of connections to one server. No connection is made yet. Its own options, beside those of the server:
---   size: 5, connections at once
---   max_messages: no limit; on one connection
---   max_idle: 60, seconds that an unused connection is kept
---   rate: no limit; messages a second, of the whole pool
---   attempts: 3, how often a message that was not sent and may work later is tried, after 1, 2, 4 … seconds
---@param given table
---@return smtp.Pool? pool
---@return smtp.Error? err kind "input"
function pool.new(given)
  options.check_server(given, "smtp.pool", OWN)
  local server, own = {}, {}
  for name, value in pairs(given) do
    if OWN[name] then own[name] = value else server[name] = value end
  end
  local plan, err = options.plan(server, "smtp.pool", true)
  if not plan then return nil, err end
  local self = setmetatable({
    plan = plan,
    transport = plan.transport or socket.new(),
    size = own.size or 5,
    max_messages = own.max_messages or math.huge,
    max_idle = own.max_idle or 60,
    rate = own.rate,
    attempts = own.attempts or 3,
    idle = {},      -- {session=, since=, sent=}, the longest unused first
    open = 0,       -- connections, idle ones too
    all = setmetatable({}, { __mode = "k" }), -- they
    due = 0,        -- when the next message may go (rate)
    counted = 0,    -- when they were counted anew
    closed = false,
  }, Pool)
  local reason = problem(self)
  if reason then return nil, errors.input(reason) end
  return self
end

-- Until then, without blocking a task or the transport's host.
local function sleep(self, deadline)
  local wait = self.transport.wait or socket.wait
  while core.now() < deadline do wait("read", -1, deadline) end
end

local function leave(self, one)
  self.open, self.all[one] = self.open - 1, nil
  -- who closes a pool waits for the last of its connections
  delivery.farewell(one.session, self.closed)
end

-- Counts anew: the user of a connection may be gone for good, a request that its host has ended or a task that is never
-- stepped again.
local function recount(self)
  collectgarbage()
  self.open = 0
  for _ in pairs(self.all) do self.open = self.open + 1 end
  self.counted = core.now()
end

-- Gives up what was idle too long.
local function tidy(self)
  while self.idle[1] and core.now() - self.idle[1].since > self.max_idle do leave(self, table.remove(self.idle, 1)) end
end

-- A connection: a kept one, or a new one; waits for its turn where `size` are in use.
local function acquire(self)
  tidy(self)
  local since = core.now()
  while #self.idle == 0 and self.open >= self.size do
    sleep(self, core.now() + GLANCE)
    -- one for all who wait
    if core.now() >= math.max(since, self.counted) + PATIENCE then recount(self) end
  end
  local one = table.remove(self.idle)
  if one then return one end
  one = { session = session.new(self.plan), sent = 0 }
  self.open, self.all[one] = self.open + 1, true
  local made, err = one.session:open()
  if made then return one end
  self.open, self.all[one] = self.open - 1, nil
  return nil, err
end

-- Keeps a connection for the next one who needs it, where it still is one.
local function release(self, one)
  if one.session.state ~= "ready" or one.sent >= self.max_messages or self.closed then return leave(self, one) end
  -- where the host keeps it: the next one may be another request's
  local pipe = one.session.pump.pipe
  if pipe.park and not pipe:park(self.max_idle) then return leave(self, one) end
  one.since = core.now()
  self.idle[#self.idle + 1] = one
end

-- Waits for the turn that `rate` gives the next message.
local function pace(self)
  if not self.rate then return end
  local now = core.now()
  local turn = math.max(now, self.due)
  self.due = turn + 1 / self.rate
  if turn > now then sleep(self, turn) end
end

-- Whether it is known that the message was not sent, and the same may work later.
---@param mail table? that was tried: what its functions gave must come again
local function may_retry(err, mail)
  return err.outcome == "not_sent" and (err.temporary or err.kind == "closed") and (not mail or mail:again() ~= nil)
end

local function pause(attempt)
  return math.min(BACKOFF * 2 ^ (attempt - 1), LONGEST)
end

local function closed()
  return nil, errors.new { kind = "closed", stage = "connect", reason = "the pool is closed", temporary = false }
end

--- Sends one message over a kept connection, or a new one. May yield.
---@param given table message options, or a message
---@return smtp.Receipt? receipt
---@return smtp.Error? err of the last attempt
function Pool:send(given)
  if self.closed then return closed() end
  local mail, err = delivery.compose(given, "pool:send")
  if not mail then return nil, err end
  pace(self)
  local attempt = 1
  while true do
    local one, receipt
    one, err = acquire(self)
    if one then
      local kept = one.sent > 0
      one.sent = one.sent + 1
      receipt, err = delivery.send(one.session, mail)
      release(self, one)
      exchange.rethrow(one.session)
      if receipt then return receipt end
      -- a kept connection that the server had given up is no attempt
      if kept and err.kind == "closed" and err.stage == "mail" then attempt = attempt - 1 end
    end
    if attempt >= self.attempts or not may_retry(err, mail) then return nil, err end
    if attempt >= 1 then sleep(self, core.now() + pause(attempt)) end
    attempt = attempt + 1
  end
end

--- Sends many messages over `size` connections side by side, each pipelining; over a transport without `together` one
--- after the other. Returns when every message has its result. May yield.
---@param iterator fun(): table? message options, or messages; nil: no more
---@param on_result fun(receipt: smtp.Receipt?, err: smtp.Error?, given: table) called once for each, as results come;
--- must not raise
---@return true|nil
---@return smtp.Error? err kind "closed": the pool is closed
function Pool:send_many(iterator, on_result)
  if type(iterator) ~= "function" or type(on_result) ~= "function" then
    error("pool:send_many: expected an iterator and a function for the results", 2)
  end
  if self.closed then return closed() end
  local again = {}     -- jobs to be tried again, each with the time for that
  local ended = false
  local under_way = 0  -- jobs taken and not decided
  local broken         -- why no connection can be had
  local workers = self.transport.together and self.size or 1
  local run = {}       -- `raised`: what the iterator raised
  local next_row = rows.new(iterator, run)

  -- A job that may go now; nil: there is none.
  local function take()
    local now = core.now()
    for i, job in ipairs(again) do
      if job.due <= now then
        table.remove(again, i)
        under_way = under_way + 1
        return job
      end
    end
    local mail, err, given
    while not ended do
      mail, err, given = next_row()
      if mail then
        under_way = under_way + 1
        return { mail = mail, given = given, attempt = 1 }
      elseif mail == nil then
        ended = true
      else
        on_result(nil, err, given)
      end
    end
  end

  local function decide(job, receipt, err)
    under_way = under_way - 1
    if not (receipt or broken) and job.attempt < self.attempts and may_retry(err, job.mail) then
      -- a connection that broke has a successor at once
      job.due = core.now() + (err.kind == "closed" and 0 or pause(job.attempt))
      job.attempt = job.attempt + 1
      again[#again + 1] = job
    else
      on_result(receipt or nil, err, job.given)
    end
  end

  -- One connection's work, from `job` on, until there is none left for it.
  local function serve(one, job)
    local jobs, first = {}, 1
    local results = batch.each(one.session, function()
      local this = job
      job = nil
      if not this then
        if one.sent >= self.max_messages or one.session.state ~= "ready" then return nil end
        this = take()
        if not this then return nil end
      end
      pace(self)
      one.sent = one.sent + 1
      jobs[#jobs + 1] = this
      return this.mail
    end, function() return self.rate and 1 or math.max(1, math.floor(one.sent * SHARE)) end)
    local receipt, err = results()
    while receipt ~= nil do
      decide(jobs[first], receipt, err)
      jobs[first], first = false, first + 1
      receipt, err = results()
    end
    -- what a message's on_progress raised
    if one.session.raised then run.raised, ended = run.raised or one.session.raised, true end
  end

  -- No connection: after some attempts every message that is left gets to know why.
  local function despair(job, err)
    broken = err
    while job do
      decide(job, nil, err)
      job = take()
    end
    for _, resting in ipairs(again) do on_result(nil, err, resting.given) end
    again = {}
  end

  local function work()
    local attempt = 1
    while not broken and not (ended and #again == 0 and under_way == 0) do
      local job = take()
      if not job then
        -- each job that others have and may give back, and each that rests, has a worker without this one
        if workers > under_way + #again then break end
        sleep(self, core.now() + GLANCE)
      else
        local one, err = acquire(self)
        if one then
          attempt = 1
          serve(one, job)
          release(self, one)
        elseif broken or (self.open == 0 or workers == 1) and not (may_retry(err) and attempt < self.attempts) then
          despair(job, broken or err)
        else
          under_way = under_way - 1
          job.due = core.now()
          again[#again + 1] = job
          if self.open > 0 and workers > 1 then break end -- others have connections: they do what is left
          sleep(self, core.now() + pause(attempt))
          attempt = attempt + 1
        end
      end
    end
    workers = workers - 1
  end

  if self.transport.together then
    local works = {}
    for i = 1, workers do works[i] = work end
    self.transport.together(works)
  else
    work()
  end
  if run.raised then error(run.raised.value, 0) end
  return true
end

--- Says goodbye on every idle connection; those in use end when their message has its result. Later calls fail.
function Pool:close()
  self.closed = true
  local together, goodbyes = self.transport.together, {}
  while #self.idle > 0 do
    local one = table.remove(self.idle)
    if together then
      goodbyes[#goodbyes + 1] = function() leave(self, one) end
    else
      leave(self, one)
    end
  end
  if together then together(goodbyes) end
end

Pool.__close = Pool.close

return pool
