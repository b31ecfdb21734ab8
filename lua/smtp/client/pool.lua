--- Kept connections to one server, for many messages: opened when needed, used again, given up when idle too long. What
--- was not sent and may work later is sent again; what may have been sent never is.
local send_many = require "smtp.client.send_many"
local check = require "smtp.check"
local core = require "smtp.core"
local send = require "smtp.client.send"
local errors = require "smtp.errors"
local command = require "smtp.client.command"
local options = require "smtp.options"
local plans = require "smtp.plan"
local rows = require "smtp.client.rows"
local socket = require "smtp.transport.socket"
local turns = require "smtp.client.turns"

local pool = {}

---@class smtp.Pool
local Pool = {}
Pool.__index = Pool

local OWN = options.POOL
local BACKOFF = 1  -- seconds before the second attempt; twice as long before each further one
local LONGEST = 60 -- seconds, of such a pause and of a rest
local SHARE = 0.1  -- what a connection takes at once, of what it has sent: at the end the others should not be idle

local catch, huge = errors.catch, math.huge

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
---   rate: no limit; messages a second, of the whole pool: each waits before its envelope goes out
---   attempts: 3, how often a message that was not sent and may work later is tried, after 1, 2, 4 … seconds; what
---     is no fault of the message's, such as a kept connection that the server has ended, counts for nothing
--- `timeout` is for each message's whole way: waiting for its turn, attempts and the pauses between them.
---@param given table
---@return smtp.Pool? pool
---@return smtp.Error? err kind "input"
function pool.new(given)
  options.check_server(given, "smtp.pool", OWN)
  local server, own = {}, {}
  for name, value in next, given do
    if OWN[name] then own[name] = value else server[name] = value end
  end
  local plan, err = plans.new(server, "smtp.pool", true)
  if not plan then return nil, err end
  local self = setmetatable({
    plan = plan,
    transport = plan.transport or socket.new(),
    size = own.size or 5,
    max_messages = own.max_messages or math.huge,
    max_idle = own.max_idle or 60,
    rate = own.rate,
    attempts = own.attempts or 3,
    limit = own.size or 5, -- as many as the server takes, as far as is known,
    grows = 0,             -- and when one more may be tried
    open = 0,              -- connections, idle ones too
    idle = {},             -- the longest unused first
    used = {},             -- connection -> true
    users = setmetatable({}, { __mode = "v" }), -- used connection, or who waits for one -> the coroutine
    calls = 0,             -- for one, so far
    queue = {},            -- who waits for one, by the number of the call
    waiting = setmetatable({}, { __mode = "k" }), -- coroutine -> true, of these
    resting = setmetatable({}, { __mode = "k" }), -- bell of who rests -> true
    looked = -math.huge,   -- when users that are gone were looked for
    paced = 0,             -- messages that had to keep the pace so far,
    last = -math.huge,     -- and when the last of them went
    sent = 0,
    failed = 0,
    closed = false,
  }, Pool)
  local reason = problem(self)
  if reason then return nil, errors.input(reason) end
  return self
end

-- When the next message on this connection may go, by `rate`: one after the other, in the order in which they came.
local function turn_of(self, one)
  local place = 1
  for other in pairs(self.used) do
    if other.place and other.place < one.place then place = place + 1 end
  end
  return self.last + place / self.rate
end

-- Waits for that; a job whose connection has ended meanwhile keeps its place. Returns that error, or the one of a
-- deadline that comes before.
local function pace(self, one, job)
  if not job.place then self.paced = self.paced + 1 end
  job.place = job.place or self.paced
  one.place = job.place
  local ok, err = true, nil
  while ok do
    local now, due = core.now(), turn_of(self, one)
    if now >= due then
      self.last, job.place = now, nil
      break
    elseif now >= job.expires then
      ok, err = nil, turns.late()
    elseif self.closed then
      ok, err = nil, turns.closed()
    else
      turns.pause(self, math.min(due, job.expires))
      ok, err = send.look(one.session)
      one.ended = not ok
    end
  end
  one.place = nil
  return ok, err
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
local function is_crowd(self, one, err)
  local status = err.enhanced or ""
  local fewer = err.stage == "mail" and (err.code == 421 or status == "4.3.2" or status:find("^4%.7%.") ~= nil)
  local working, opening = turns.others(self, one)
  if not fewer or working == 0 then return false end
  turns.shrink(self, working + opening)
  one.session:close() -- at once: the next message is composed already, and waits to go over it
  return true
end

local function backoff(attempt)
  return math.min(BACKOFF * 2 ^ (attempt - 1), LONGEST)
end

-- When a message that failed may be tried again; nil: it may not.
---@param one smtp.Turn? the connection it failed on
local function retry_at(self, job, one, err)
  local now = core.now()
  if err.outcome ~= "not_sent" or self.closed or now >= job.expires then return nil end
  -- what counts for nothing has an end all the same
  if one and job.spared <= self.size and (is_farewell(one, err) or is_crowd(self, one, err)) then
    if not job.mail:again() then return nil end
    job.spared = job.spared + 1
    return now
  end
  if job.attempt >= self.attempts or not (err.temporary or err.kind == "closed" and not err.code) then return nil end
  local due = now + backoff(job.attempt)
  if due >= job.expires or not job.mail:again() then return nil end
  job.attempt = job.attempt + 1
  return due
end

local function new_job(self, mail, given)
  local timeout = self.plan.timeout
  return { mail = mail, given = given, attempt = 1, spared = 0, due = 0,
    expires = timeout and core.now() + timeout or huge }
end

-- One message over one connection.
local function deliver(self, one, job)
  local this = one.session
  this.life = job.expires
  if self.rate then
    local ok, err = pace(self, one, job)
    if not ok then return nil, err end
  end
  one.sent = one.sent + 1
  local receipt, err = send.send(this, job.mail)
  command.rethrow(this)
  return receipt, err
end

-- The result of a call that uses a connection. What it raises ends that connection, and goes on.
local function using(self, one, call, ...)
  local ran, receipt, err = catch(call, ...)
  if ran then return receipt, err end
  turns.drop(self, one)
  error(receipt, 0)
end

-- Counts what became of a message.
local function count(self, receipt)
  if receipt then self.sent = self.sent + 1 else self.failed = self.failed + 1 end
end

-- The result of one message.
local function send_one(self, mail)
  local job = new_job(self, mail)
  while true do
    turns.pause(self, job.due)
    local receipt
    local one, err = turns.take(self, job.expires)
    if one then receipt, err = using(self, one, deliver, self, one, job) end
    local due = not receipt and retry_at(self, job, one, err)
    if one then turns.give(self, one) end
    if not due then return receipt, err end
    job.due = due
  end
end

--- Sends one message over a kept connection, or a new one. Callers get their turns in the order of their calls. May
--- yield.
---@param given table message options, or a message
---@return smtp.Receipt? receipt
---@return smtp.Error? err of the last attempt
function Pool:send(given, ...)
  check.callback((...), "pool:send")
  local mail, receipt, err
  if self.closed then err = turns.closed() else mail, err = send.compose(given, "pool:send") end
  if mail then receipt, err = send_one(self, mail) end
  count(self, receipt)
  return receipt, err
end

-- One call of send_many -----------------------------------------------------------------------------------------------

---@class smtp.Run
---@field again table[] jobs to be tried again
---@field ended boolean nothing more is taken from the iterator
---@field raised table? { value }: what code of the caller's raised
---@field broken smtp.Error? why no connection can be had
---@field workers integer coroutines that work, or wait for work,
---@field holding integer those of them that have a connection
---@field under_way integer jobs taken and not decided
---@field bells table<table, boolean> of workers that wait
local Run = {}
Run.__index = Run

-- Workers that wait look again.
function Run:wake()
  for bell in pairs(self.bells) do bell:ring() end
end

-- Until then, or something happens, or a while has passed.
function Run:rest(deadline)
  turns.rest(self.pool, math.min(deadline, core.now() + LONGEST), self.bells)
end

-- What was raised goes on when all that is under way has its result.
function Run:stop(value)
  self.raised = self.raised or { value = value }
  self.ended = true
end

function Run:tell(receipt, err, given)
  count(self.pool, receipt)
  local ran, raised = catch(self.on_result, receipt or nil, err, given)
  if not ran then self:stop(raised) end
end

-- A job that may go now. Nil: there is none, and when there will be one that rests already.
function Run:take()
  local now, due = core.now(), huge
  if self.pool.closed and not self.broken and (self.again[1] or not self.ended) then self:despair(turns.closed()) end
  while self.raised and self.again[1] do
    local job = table.remove(self.again)
    self:tell(nil, job.err or errors.new { kind = "closed", stage = "mail", temporary = true,
      reason = "the call was broken off before this message was begun" }, job.given)
  end
  for i, job in ipairs(self.again) do
    if job.due <= now then
      table.remove(self.again, i)
      self.under_way = self.under_way + 1
      return job
    end
    due = math.min(due, job.due)
  end
  while not self.ended do
    local mail, err, given = self.next_row()
    if mail then
      self.under_way = self.under_way + 1
      return new_job(self.pool, mail, given)
    elseif mail == nil then
      self.ended = true
    else
      self:tell(nil, err, given)
    end
  end
  return nil, due
end

-- Puts a job back that may go at that time.
function Run:put_back(job, due, err)
  self.under_way, job.due, job.err = self.under_way - 1, due, err
  self.again[#self.again + 1] = job
end

function Run:decide(job, one, receipt, err)
  local due = not (receipt or self.broken or self.raised) and retry_at(self.pool, job, one, err)
  if due then
    self:put_back(job, due, err)
  else
    self.under_way = self.under_way - 1
    self:tell(receipt, err, job.given)
  end
  if due or self.ended then self:wake() end
end

-- Whether somebody waits for a turn who has nothing to do with this run.
function Run:is_in_the_way()
  for _, waiting in ipairs(self.pool.queue) do
    if not self.threads[self.pool.users[waiting] or waiting] then return true end
  end
  return false
end

-- One connection's work, from `job` on, until there is none left for it or others are to have it.
---@param jobs table[] it is the first of them
function Run:serve(one, jobs)
  local this, first, begun = one.session, 1, false
  this.life = jobs[1].expires
  local results = send_many.each(this, function()
    local next_job = not begun and jobs[1]
    begun = true
    if not next_job then
      if one.sent >= one.most or this.state ~= "ready" or self:is_in_the_way() then return nil end
      next_job = self:take()
      if not next_job then return nil end
      if next_job.due > 0 and self.pool.plan.timeout then
        -- with what is left of its time it comes first
        self:put_back(next_job, next_job.due, next_job.err)
        return nil
      end
      jobs[#jobs + 1] = next_job
    end
    one.sent = one.sent + 1
    return next_job.mail
  end, function() return self:is_in_the_way() and 1 or math.max(1, math.floor(one.sent * SHARE)) end)
  local receipt, err = results()
  while receipt ~= nil do
    local done = jobs[first]
    jobs[first], first = false, first + 1
    this.life = nil -- the others have not waited for a turn
    self:decide(done, one, receipt, err)
    receipt, err = results()
  end
  command.rethrow(this)
end

-- With a pace to keep a message goes alone.
function Run:serve_one(one, jobs)
  local job = jobs[1]
  local receipt, err = deliver(self.pool, one, job)
  jobs[1] = false
  self:decide(job, one, receipt, err)
end

-- The same, guarded: what is raised ends the connection, and the run when all else that is under way has its result.
function Run:occupy(one, job)
  local jobs = { job }
  self.holding = self.holding + 1
  local ran, raised = catch(self.pool.rate and self.serve_one or self.serve, self, one, jobs)
  self.holding = self.holding - 1
  if ran then return turns.give(self.pool, one) end
  self:stop(raised)
  turns.drop(self.pool, one)
  for _, left in ipairs(jobs) do
    if left then
      self:decide(left, nil, nil, errors.new { kind = "closed", stage = "body", outcome = "unknown",
        reason = "the call was broken off by an error" })
    end
  end
end

-- Every message that is left gets to know why.
function Run:despair(err)
  self.broken = err
  -- a pool that was closed is no reason to empty a queue
  if self.pool.closed then self.ended = true end
  for _, job in ipairs(self.again) do job.due = 0 end
  local job = self:take()
  while job do
    self:decide(job, nil, nil, err)
    job = self:take()
  end
end

function Run:work()
  local this, attempt = self.pool, 1
  local function others_work() return self.holding > 0 end
  self.threads[coroutine.running() or "main"] = true
  while not self.broken do
    local job, due = self:take()
    if not job then
      -- each job that others have and may give back, and each that rests, has a worker without this one
      if self.workers > self.under_way + #self.again then break end
      if self.under_way == 0 then turns.pause(this, due) else self:rest(due) end
    else
      local one, err = turns.take(this, job.expires, others_work)
      if one then
        attempt = 1
        self:occupy(one, job)
      elseif self.broken then
        self:decide(job, nil, nil, self.broken)
      elseif not err then
        -- others do what is left, until there may be one more connection
        self:put_back(job, core.now(), job.err)
        self:rest(math.max(this.grows, core.now() + 1))
      elseif core.now() >= job.expires and not this.closed then
        self:decide(job, nil, nil, err)
      else
        self:put_back(job, core.now(), err)
        if this.closed or not err.temporary or attempt >= this.attempts then
          self:despair(err)
        else
          turns.pause(this, core.now() + backoff(attempt))
          attempt = attempt + 1
        end
      end
    end
  end
  self.workers = self.workers - 1
  self:wake()
end

--- Sends many messages over `size` connections side by side, each pipelining; over a transport without `together`, or
--- inside of a call that holds a connection of this pool, one after the other. Returns when every message has its
--- result. May yield.
---@param iterator fun(): table? message options, or messages; nil: no more. What it or `on_result` raises is raised
--- when all that is under way has its result; on Lua 5.1, which cannot catch it in a coroutine, at once
---@param on_result fun(receipt: smtp.Receipt?, err: smtp.Error?, given: table) called once for each, as results come
---@return true|nil
---@return smtp.Error? err kind "closed": the pool is closed, and the iterator is not asked any more
function Pool:send_many(iterator, on_result)
  check.argument(iterator, "function", "pool:send_many", "iterator")
  check.argument(on_result, "function", "pool:send_many", "on_result")
  if self.closed then return nil, errors.apart(turns.closed()) end
  local together = not turns.holds(self) and self.transport.together
  local run = setmetatable({
    pool = self, next_row = nil, on_result = on_result, again = {}, ended = false, raised = nil, broken = nil,
    workers = together and self.size or 1, holding = 0, under_way = 0, bells = {},
    threads = setmetatable({}, { __mode = "k" }),
  }, Run)
  run.next_row = rows.new(iterator, run)
  local function work() run:work() end
  local works, ran, raised = {}
  for i = 1, run.workers do works[i] = work end
  if together then ran, raised = catch(together, works) else ran, raised = catch(work) end
  if not ran then
    turns.drop_all(self, run.threads)
    error(raised, 0)
  end
  if run.raised then error(run.raised.value, 0) end
  if run.broken and self.closed then return nil, errors.apart(turns.closed()) end
  return true
end

--- How the pool stands: connections `open`, of them `idle`, at most `limit` for now; who is `waiting` for one; results
--- so far, `sent` and `failed`.
---@return { open: integer, idle: integer, limit: integer, waiting: integer, sent: integer, failed: integer }
function Pool:counts()
  turns.look(self)
  return { open = self.open, idle = #self.idle, limit = self.limit, waiting = #self.queue, sent = self.sent,
    failed = self.failed }
end

--- Says goodbye on every idle connection; those in use end when their message has its result. No connection is opened
--- from now on: who waits for one, or will try again, is told that the pool is closed, and later calls fail. May yield.
Pool.close = turns.close

Pool.__close = Pool.close
check.methods(Pool, "pool")

return pool
