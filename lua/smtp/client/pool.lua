--- pool: kept connections to one server, for many messages.
---
--- Does: opens connections when needed, uses them again, gives them up when idle too long. What was not sent and may
--- work later is sent again; what may have been sent never is.
--- Called by: smtp.pool.
local check = require "smtp.check"
local errors = require "smtp.errors"
local attempts = require "smtp.client.attempts"
local options = require "smtp.options"
local plans = require "smtp.plan"
local send = require "smtp.client.send"
local turns = require "smtp.client.turns"
local workers = require "smtp.client.workers"

local pool = {}

---@class smtp.Pool
local Pool = {}
Pool.__index = Pool

local OWN = options.POOL

-- What is wrong with a pool's own options; nil: nothing.
local function problem(own)
  for _, name in ipairs { "size", "max_messages", "attempts" } do
    local value = own[name] or 1
    if not (value >= 1 and (value % 1 == 0 or name == "max_messages" and value == math.huge)) then
      return name .. " must be a whole number, 1 or more"
    end
  end
  if not ((own.max_idle or 1) > 0 and (own.rate or 1) > 0) then return "max_idle and rate must be more than 0" end
end

--- A pool of connections to one server. No connection is made yet. `timeout` is for each message's whole way: waiting
--- for its turn, attempts and the pauses between them. What is no fault of a message's, such as a kept connection that
--- the server has ended, counts for no attempt.
---@param given smtp.PoolOptions and server options
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
  local reason = problem(own)
  if reason then return nil, errors.input(reason) end
  return setmetatable({
    plan = plan,
    turns = turns.new(plan, own),
    attempts = own.attempts or 3,
    -- messages that had to keep it so far, and when the last of them went
    pace = own.rate and { rate = own.rate, count = 0, last = -math.huge } or nil,
    sent = 0,
    failed = 0,
  }, Pool)
end

-- Counts what became of a message.
local function count(self, receipt)
  if receipt then self.sent = self.sent + 1 else self.failed = self.failed + 1 end
end

-- One attempt. What it raises ends the connection, and goes on.
local function try(self, this, one)
  local ran, receipt, err = errors.catch(this.send, this, self, one)
  if ran then return receipt, err end
  self.turns:drop(one)
  error(receipt, 0)
end

-- The result of one message.
local function send_one(self, mail)
  local this = attempts.new(self, mail)
  while true do
    self.turns:pause(this.due)
    local receipt
    local one, err = self.turns:take(this.expires)
    if one then receipt, err = try(self, this, one) end
    local again = not receipt and this:may_go_again(self, one, err)
    if one then self.turns:give(one) end
    if not again then return receipt, err end
  end
end

--- Sends one message over a kept connection, or a new one. Callers get their turns in the order of their calls. May
--- yield.
---@param given smtp.MessageOptions|smtp.Message
---@return smtp.Receipt? receipt
---@return smtp.Error? err of the last attempt
function Pool:send(given, ...)
  check.callback((...), "pool:send")
  local mail, receipt, err
  if self.turns.closed then err = turns.closed() else mail, err = send.compose(given, "pool:send") end
  if mail then receipt, err = send_one(self, mail) end
  count(self, receipt)
  return receipt, err
end

--- Sends many messages over `size` connections side by side, each pipelining; over a transport without `together`, or
--- inside of a call that holds a connection of this pool, one after the other. Returns when every message has its
--- result. May yield.
---@param iterator fun(): (smtp.MessageOptions|smtp.Message)? the next one; nil: no more. What it or `on_result` raises
--- is raised when all that is under way has its result; on Lua 5.1, which cannot catch it in a coroutine, at once
---@param on_result fun(receipt: smtp.Receipt?, err: smtp.Error?, given: table) called once for each, as results come
---@return true|nil
---@return smtp.Error? err kind "closed": the pool is closed, and the iterator is not asked any more
function Pool:send_many(iterator, on_result)
  check.argument(iterator, "function", "pool:send_many", "iterator")
  check.argument(on_result, "function", "pool:send_many", "on_result")
  if self.turns.closed then return nil, errors.apart(turns.closed()) end
  return workers.run(self, iterator, function(receipt, err, given_row)
    count(self, receipt)
    on_result(receipt, err, given_row)
  end)
end

--- How the pool stands: connections `open`, of them `idle`, at most `limit` for now; who is `waiting` for one; results
--- so far, `sent` and `failed`. Never waits.
---@return { open: integer, idle: integer, limit: integer, waiting: integer, sent: integer, failed: integer }
function Pool:counts()
  local now = self.turns
  now:look()
  return { open = now.open, idle = #now.idle, limit = now.limit, waiting = #now.queue, sent = self.sent,
    failed = self.failed }
end

--- Says goodbye on every idle connection; those in use end when their message has its result. No connection is opened
--- from now on: who waits for one, or will try again, is told that the pool is closed, and later calls fail. May yield.
function Pool:close()
  self.turns:close()
end

Pool.__close = Pool.close
check.methods(Pool, "pool")

return pool
