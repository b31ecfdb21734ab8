--- send_many: messages one after the other over a session, with as few waits as the server allows.
---
--- Does: by DATA each envelope goes in the group of the content before it; by BDAT several whole messages make a burst.
--- The next message is composed while the server is busy, and what became of each is told in order.
--- Never: begins a message once it is closed, or loses the result of one that the iterator gave.
--- Called by: session, workers. What it does a thousand times alike goes by the shortcut.
--- RFC 2920 3.1 (what may stand in one group), RFC 3030 4.1 (BDAT anywhere).
local bdat = require "smtp.client.bdat"
local burst = require "smtp.client.burst"
local caller = require "smtp.client.caller"
local check = require "smtp.check"
local command = require "smtp.client.command"
local core = require "smtp.core"
local envelope = require "smtp.client.envelope"
local errors = require "smtp.errors"
local habits = require "smtp.client.habits"
local pipeline = require "smtp.protocol.pipeline"
local rows = require "smtp.client.rows"
local send = require "smtp.client.send"
local shortcut = require "smtp.client.shortcut"
local state = require "smtp.client.state"
local socket = require "smtp.transport.socket"

local send_many = {}

local BROKEN_OFF = "an earlier call was broken off halfway"

---@class smtp.Queue what waits in order: of each a value, or false and an error
---@field values table by number
---@field errs table<integer, smtp.Error?> by the same
---@field first integer
---@field last integer 0: there is nothing
local Queue = {}
Queue.__index = Queue

-- A queue that takes over two lists of what is in it.
local function queue(values, errs)
  return setmetatable({ values = values, errs = errs, first = 1, last = #values }, Queue)
end

function Queue:put(value, err)
  local last = self.last + 1
  self.values[last], self.errs[last], self.last = value or false, err, last
end

function Queue:take()
  local values, errs, first = self.values, self.errs, self.first
  local value, err = values[first], errs[first]
  values[first], errs[first] = nil, nil
  -- small numbers keep the lists small
  if first >= self.last then self.first, self.last = 1, 0 else self.first = first + 1 end
  return value, err
end

---@class smtp.Results Called, it gives the next result: a receipt, or false and the error; in the end nil. May yield.
---@overload fun(): (smtp.Receipt|false)?, smtp.Error?
---@field close fun(self: smtp.Results) nothing more is begun, and what is on its way is ended: by the coroutine that
--- waits for a result, if another calls this meanwhile. May wait and yield

---@class smtp.Series: smtp.Results messages that go over one session
local Series = {}
Series.__index = Series

local function new(session, iterator, most, owner)
  return setmetatable({
    session = session,
    iterator = iterator,     -- gives the messages
    most = most,             -- gives how many a burst may hold now
    owner = owner,           -- has what the iterator raised in `raised`, see state.rethrow; nil: that is not for here

    -- what changes with each message is false where there is none: a nil would be looked for among the methods
    ahead = false,           -- the next message, where it has been fetched and could be composed
    further = queue({}, {}), -- others behind it that have been fetched; false: it cannot be composed, and why
    ended = false,           -- no more are fetched
    done = queue({}, {}),    -- results that are not handed over yet

    on_wire = false,         -- the plan of the message whose envelope has gone along with the one before,
    began = 0,               -- at this time,
    rounds = 0,              -- after so many waits, that one's among them
    reset = false,           -- and with RSET before it
    short = false,           -- it is one for the shortcut
    own = false,             -- the connection's socket, where its own calls may wait

    front = false,           -- of so many messages a result is being found out, if one is,
    handed = false,          -- and their content may have been handed over
    stopped = false,         -- close() was called meanwhile, from elsewhere
    left = 0,                -- when the last result was handed over

    curious = true,          -- perhaps the server's ways with chunks are worth finding out,
    lost = false,            -- and the server closed over the question
  }, Series)
end

-- Messages ------------------------------------------------------------------------------------------------------------

--- The next message, fetched if need be; false: it cannot be composed; nil: there are no more.
function Series:look_ahead()
  if self.ahead then return self.ahead end
  local further = self.further
  if further.last == 0 then
    if self.ended then return nil end
    local mail, err = self.iterator()
    if mail then
      self.ahead = mail
    elseif mail == nil then
      self.ended = true
    else
      further:put(false, err)
    end
    return mail
  end
  if further.values[further.first] then self.ahead = further:take() end
  return self.ahead
end

--- Fetches one more, if there is one, behind those that are known.
function Series:look_further()
  local mail, err = self.iterator()
  if mail == nil then self.ended = true else self.further:put(mail, err) end
end

--- As many as may make the next burst.
function Series:look_far_ahead()
  local further, limit = self.further, math.min(self.most(), pipeline.MESSAGES)
  self:look_ahead()
  while not self.ended and further.last - further.first + 2 < limit do self:look_further() end
end

--- The next message, or false and why not. It is no longer the next one.
function Series:take()
  local mail = self.ahead
  if not mail then return self.further:take() end
  self.ahead = false
  return mail
end

-- One by one ----------------------------------------------------------------------------------------------------------

--- Queues the next message's envelope behind the end of a content, where it can go there.
function Series:along()
  local session, mail = self.session, self.ahead
  local one = mail and envelope.has_room(session) and envelope.new(session, mail)
  if one and not one.plan.terms.chunks and envelope.queue(session, one, self.reset) then
    local line = session.pump
    self:take()
    -- the next wait is the content's
    self.on_wire, self.began, self.rounds = one.plan, core.now(), line.rounds + 1
    self.own = socket.alone(line.pipe) or false
    self.short = not (self.reset or self.curious) and shortcut.fits(session, one.plan)
  end
  return true
end

--- Whether to find out about chunks now: that takes the place of the next envelope, which two messages in one burst
--- make up for.
function Series:asks()
  self.curious = self.curious and bdat.is_unknown(self.session)
  if not self.curious or self.most() < 2 then return false end
  local further = self.further
  if self.ahead and further.last == 0 and not self.ended then self:look_further() end
  return self.ahead and further.values[further.first] and envelope.has_room(self.session, 1)
end

--- The transaction of the message at the front, whose envelope is on the wire then.
function Series:begin()
  local session, plan = self.session, self.on_wire
  self.on_wire, self.short = false, false
  local mail, one, err
  if plan and session.state == "ready" then
    one = envelope.new(session, plan.mail, plan)
    one.began, one.rounds, one.reset = self.began, self.rounds, self.reset
    one.late = core.now() - self.left > shortcut.LATE
    return one
  end
  -- its envelope went along with what broke the connection
  if plan then return command.begin(session, "mail") end
  mail, err = self:take()
  self.front = 1
  if mail then one, err = send.begin(session, mail) end
  if not one then return nil, err end
  local written
  written, err = command.write(session, "mail")
  if not written then return nil, err end
  return one
end

--- Sends the message at the front by itself. `last`: nothing goes along.
function Series:send_one(last)
  local session = self.session
  local one, err = self:begin()
  if not one then return nil, err end
  local goes, more, asked
  goes, self.reset = habits.goes_on(session)
  if not last then
    one.meanwhile = function()
      self.handed = true
      self:look_ahead()
    end
    self:look_ahead()
    if not self.reset and self:asks() then
      more = function()
        asked = true
        return bdat.queue_question(session)
      end
    elseif goes then
      more = function() return self:along() end
    end
  end
  local receipt
  receipt, err = send.carry(session, one, more)
  if self.on_wire or asked and err then habits.learn(session, err) end
  if asked then
    if session.state == "ready" then bdat.answer(session) end
    self.lost = session.state == "dead" and not (session.raised or err and err.code)
  end
  return receipt, err
end

-- Bursts --------------------------------------------------------------------------------------------------------------

--- As many messages as go into one burst, and their plans.
function Series:gather()
  local mails, plans, count, octets, commands, limit = {}, {}, 0, 0, 0, self.most()
  local session = self.session
  local terms = envelope.terms(session)
  while count == 0 or count < limit do
    local mail = self:look_ahead()
    local plan = mail and envelope.plan(session, mail, terms)
    if not (plan and plan.bytes) or terms.offered.LIMITS and not envelope.has_room(session, count) then break end
    octets, commands = octets + #plan.bytes, commands + #plan.block + #"RSET\r\nBDAT 1234567 LAST\r\n"
    if not pipeline.has_room(count, octets, commands) then break end
    count = count + 1
    mails[count], plans[count] = self:take(), plan
    self.front = count
  end
  return mails, plans
end

--- Sends a burst. Returns its first result.
function Series:send_burst()
  local ok, err = send.look(self.session)
  if not ok then
    self:take()
    return nil, err
  end
  local mails, plans = self:gather()
  self.handed = true
  self.done = queue(burst.send(self.session, mails, plans, function() self:look_far_ahead() end))
  return self.done:take()
end

-- Results -------------------------------------------------------------------------------------------------------------

--- Another connection after one that was lost over the question about chunks, which the messages behind that must not
--- suffer from.
function Series:reopen()
  local session = self.session
  local expires = session.expires
  self.lost = false
  local ok, err = session:reopen(expires)
  state.set_deadline(session, expires)
  return ok, err
end

--- The next result, the long way.
function Series:advance()
  local session = self.session
  local receipt, err = self.done:take()
  if receipt ~= nil then return receipt, err end
  local mail = not self.on_wire and self:look_ahead()
  if mail == nil then return nil end
  if self.lost and session.opened then
    local ok
    ok, err = self:reopen()
    if not ok then
      self:take()
      return false, err
    end
  end
  if mail and send.fits(session, mail) then
    receipt, err = self:send_burst()
  else
    receipt, err = self:send_one()
  end
  self.left = core.now()
  return receipt or false, err
end

-- What was under way when an error broke the call off: nobody knows the state of the connection that it leaves.
local function break_off(self)
  local session = self.session
  local message = session.message
  local outcome = (self.handed or message and message.outcome == "unknown") and "unknown" or "not_sent"
  state.kill(session, { kind = "closed", stage = "mail", reason = BROKEN_OFF })
  for _ = 1, self.front do
    self.done:put(false, errors.new { kind = "closed", stage = "final", outcome = outcome, reason = BROKEN_OFF })
  end
end

-- Begins a call, of this function where it is the caller's own.
local function enter(self, session, call)
  if self.front then break_off(self) end
  -- over a socket of its own it is the same coroutine as in the first call
  caller.enter(session, self.own and not socket.stepping, call)
  self.handed, self.front = false, self.on_wire and 1 or 0
  state.set_deadline(session)
end

--- Ends the message whose envelope is on the wire; its result waits.
function Series:settle()
  if self.front or not self.on_wire then return end
  enter(self, self.session)
  self.done:put(self:send_one(true))
  self.left, self.front = core.now(), false
end

--- The next result: a receipt, or false and the error; nil: there are no more.
function Series:next()
  local session = self.session
  local err = session.busy and caller.refusal(session, "mail")
  if err then return self:refuse(err) end
  -- another series may have been left
  if session.series ~= self then
    caller.by(session, Series.next)
    if session.series then session.series:settle() end
    state.serves(session, self)
  end
  enter(self, session, Series.next)
  local receipt
  if self.short and session.state == "ready" then receipt, err = shortcut.send(self) end
  if receipt == nil then receipt, err = self:advance() end
  self.front = false
  caller.leave(session)
  if self.stopped then self:close() end
  if receipt ~= nil then return receipt, err end
  state.serves(session, nil)
  if self.owner then
    state.rethrow(session)
    state.rethrow(session, self.owner)
  end
end

--- The next result while another coroutine is in a call: each message's is that error.
function Series:refuse(err)
  if self.front then check.raise("send_many: the next of these results is being waited for already: use a pool") end
  local receipt, why = self.done:take()
  if receipt ~= nil or self:look_ahead() == nil then return receipt, why end
  receipt, why = self:take()
  return false, receipt and err or why
end

--- Begins nothing more, and ends what is on the wire: next() then gives what became of all that the iterator gave.
function Series:close()
  local session = self.session
  local elsewhere = session.busy and caller.refusal(session, "mail") ~= nil
  self.ended = true
  -- who waits for a result ends what is on its way
  self.stopped = elsewhere and self.front ~= false
  if self.stopped then return end
  if not elsewhere then caller.by(session, Series.close) end
  if self.front then
    enter(self, session)
    self.front = false
  end
  self:settle()
  while self:look_ahead() ~= nil do
    local mail, err = self:take()
    if mail then
      err = errors.new { kind = "closed", stage = "mail", temporary = true,
        reason = "no more messages were wanted before this one was begun" }
    end
    self.done:put(false, err)
  end
  if not elsewhere then caller.leave(session) end
end

Series.__call, Series.__close = Series.next, Series.close

--- Sends what an iterator gives.
---@param session table
---@param iterator fun(): smtp.Message|false|nil, smtp.Error? messages that nobody else changes; false: this one could
--- not be composed, and why; nil: no more
---@param most (fun(): number)? how many messages a burst may hold now, beside the limits of its own
---@param owner table? has what the iterator raised in `raised`, which is raised at the end
---@return smtp.Series results
function send_many.each(session, iterator, most, owner)
  return new(session, iterator, most or function() return math.huge end, owner)
end

--- Sends what a caller's iterator gives.
---@param session table
---@param iterator fun(): table? messages or message options; nil: no more
---@return smtp.Results
function send_many.of(session, iterator)
  local owner = {}
  return send_many.each(session, rows.new(iterator, owner), nil, owner)
end

return send_many
