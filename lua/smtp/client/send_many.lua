--- Messages one after the other over a session, with as few waits as the server allows: by DATA each envelope goes in
--- the flight of the content before it; by BDAT several whole messages make a flight. The next message is composed
--- while the server is busy.
local burst = require "smtp.client.burst"
local caller = require "smtp.client.caller"
local check = require "smtp.check"
local bdat = require "smtp.client.bdat"
local core = require "smtp.core"
local send = require "smtp.client.send"
local errors = require "smtp.errors"
local command = require "smtp.client.command"
local pipeline = require "smtp.protocol.pipeline"
local pump = require "smtp.client.pump"
local receipts = require "smtp.client.receipt"
local rows = require "smtp.client.rows"
local socket = require "smtp.transport.socket"
local envelope = require "smtp.client.envelope"

local send_many = {}

local huge, min = math.huge, math.min

-- Seconds between two results after which a look is due before content goes out: the server may have left.
local LATE = 0.05

local BROKEN_OFF = "an earlier call was broken off halfway"

-- The error of a message that was not begun.
local function unbegun()
  return errors.new { kind = "closed", stage = "mail", temporary = true,
    reason = "no more messages were wanted before this one was begun" }
end

--- Sends what an iterator gives.
---@param self table the session
---@param iterator fun(): smtp.Message|false|nil, smtp.Error? messages that nobody else changes; false: this one could
--- not be composed, and why; nil: no more
---@param most (fun(): number)? how many messages a flight may hold now, beside the limits of its own
---@param finish (fun(self: table))? called at the end
---@return fun(): smtp.Receipt|false|nil, smtp.Error? results in order: a receipt, or false and the error; nil at last
---@return fun() close nothing more is begun: what is on the wire is ended, and `results` tells what became of all that
--- the iterator gave
function send_many.each(self, iterator, most, finish)
  local ahead, problem             -- the next message; false: it cannot be composed, and why; nil: not fetched yet
  local further, problems = {}, {} -- by number, the same of those behind it that have been fetched
  local first, last, ended = 1, 0, false
  local on_wire, began, rounds     -- the message whose envelope has gone along already, since when
  local on_plan                    -- and by which plan: the message's own may be for another session by now
  local reset = false              -- with RSET before it
  local done, errs, next_done = {}, {}, 1 -- results of a flight that are not handed over yet
  local left = 0                   -- when the last result was handed over
  local curious = true             -- perhaps the server's ways with chunks are worth finding out,
  local lost = false               -- and the server closed over the question
  local front                      -- a result is being found out, of so many messages; nil: none is,
  local handed = false             -- and their content may have been handed over
  local stopped = false            -- close() was called meanwhile, from elsewhere
  local short = false              -- the connection, and the envelope on it, are for the short way,
  local own                        -- over a socket of its own
  local timeouts, timeout = self.plan.timeouts, self.plan.timeout
  local expires = huge             -- the present call's deadline

  most = most or function() return huge end

  local function look_ahead()
    if ahead ~= nil then return end
    if first <= last then
      ahead, problem = further[first], problems[first]
      further[first], problems[first] = nil, nil
      -- small numbers keep the lists small
      if first == last then first, last = 1, 0 else first = first + 1 end
    elseif not ended then
      ahead, problem = iterator()
      if ahead == nil then ended = true end
    end
  end

  local function look_further()
    local mail, err = iterator()
    if mail == nil then
      ended = true
      return
    end
    last = last + 1
    further[last], problems[last] = mail, err
  end

  local function take()
    local mail, err = ahead, problem
    ahead, problem = nil, nil
    return mail, err
  end

  -- Queues the next message's envelope behind the end of a content, where it can go there.
  local function along()
    if not (ahead and envelope.has_room(self)) then return true end
    local one = envelope.new(self, ahead)
    if one and not one.plan.terms.chunks and envelope.queue(self, one, reset) then
      on_wire, on_plan, began, rounds = take(), one.plan, core.now(), self.pump.rounds
      own = socket.alone(self.pump.pipe)
      short = self.pump.pipe.send ~= nil and on_plan.bytes
        and not (reset or self.trace.wanted or self.plan.lmtp or self.capabilities.LIMITS)
    end
    return true
  end

  -- Whether to find out now: it takes the place of the next envelope, which two messages in one flight make up for.
  local function asks()
    curious = curious and bdat.is_unknown(self)
    if not curious or most() < 2 then return false end
    if ahead and first > last and not ended then look_further() end
    return ahead and further[first] and envelope.has_room(self, 1)
  end

  -- What a message's end was handed over for and did not come, or came otherwise.
  local function no_reply(text, line, limit)
    local reply, err
    self.outcome = "unknown"
    if text == "again" then
      self.expires = limit
      reply, err = command.receive(self, "final", "final")
    else
      reply, err = command.fail_pump(self, "final", pump.odd(line))
    end
    self.outcome = "not_sent"
    return reply, err
  end

  -- One message whose envelope is on the wire, by the shortest way, which holds as long as all goes well. Nil: nothing
  -- was done, the long way is due.
  local function quick()
    local plan, after, follower, bytes, block, lines, utf8 = on_plan, ahead
    if curious and most() > 1 then return nil end
    bytes = plan.bytes
    if after then
      -- with an envelope on the wire the terms stay as they are
      follower = after == on_wire and plan or envelope.plan(self, after, plan.terms)
      if not (follower and follower.bytes) then return nil end
      block, lines, utf8 = follower.block, follower.lines, after.utf8
    end
    local line = self.pump
    local wire, pipe = line.wire, line.pipe
    local alone = own and pipe.alone
    if alone and socket.stepping then alone = socket.alone(pipe) end
    local ok, went, now, sent
    if alone then
      ok, went, now, sent = alone:turn(wire, left + LATE, plan.agreed, bytes, block, lines, utf8)
    elseif core.now() <= left + LATE then
      ok, went = wire:turn(plan.agreed, bytes, block, lines, utf8)
    else
      return nil
    end
    if ok == nil then
      local due = min(core.now() + timeouts.command, expires)
      while ok == nil and pipe:receive(wire, due) do
        ok, went = wire:turn(plan.agreed, bytes, block, lines, utf8)
      end
      -- the long way waits no longer for what did not come
      if ok == nil then self.expires = due end
    end
    if not ok then
      if not went then return nil end
      on_wire = nil
      -- a reply too many would pass for the final one, and each for the next message's
      if went == "more" then
        local _, err = command.listen(self)
        if err then return false, err end
      end
      return false, select(2, command.fail(self, "body", "protocol", went))
    end

    now = now or core.now()
    local started, rounds_before, kind, reason, unsent = began, rounds
    on_wire = nil
    if not sent then sent, kind, reason, unsent = pipe:send(wire, min(now + timeouts.block, expires)) end
    local code, text, enhanced, id, limit, came = nil, "again"
    if sent then
      rounds = line.rounds + 1
      line.rounds = rounds
      if went then on_wire, on_plan, began, ahead = after, follower, now, nil end
      handed = true
      look_ahead()
      limit = now + timeouts.final
      if limit > expires then limit = expires end
      -- whoever makes the messages may have closed the session
      if alone and pipe.alone then code, text, enhanced, id, came = alone:reply(wire, limit) end
      if text == "again" and pipe:receive(wire, limit) then code, text, enhanced, id = wire:reply() end
    end

    local reply, err
    if not sent then
      reply, err = send.hand_over(self, {}, went and #block + lines + 1 or 0, nil,
        { kind = kind, reason = reason, left = line:untaken(unsent) })
    elseif not code then
      reply, err = no_reply(text, enhanced, limit)
    end
    if reply then code, text, enhanced = reply.code, reply.text, reply.enhanced end
    left = came or core.now()
    if not code then return false, err end
    if code < 300 and code ~= 221 then
      return receipts.short(self, plan, code, enhanced, text, id, left - started, rounds - rounds_before)
    end
    if code < 400 then self.outcome = "unknown" end
    reply, err = command.verdict(self, "final", { code = code, enhanced = enhanced, text = text })
    if reply then reply, err = command.expect(self, "final", reply, 2) end
    self.outcome = "not_sent"
    return reply or false, err
  end

  -- As many messages as go into one flight, and their plans.
  local function flight()
    local mails, plans, count, octets, commands, limit = {}, {}, 0, 0, 0, most()
    local terms = envelope.terms(self)
    while count == 0 or count < limit do
      look_ahead()
      local plan = ahead and envelope.plan(self, ahead, terms)
      if not (plan and plan.bytes) or terms.offered.LIMITS and not envelope.has_room(self, count) then break end
      octets, commands = octets + #plan.bytes, commands + #plan.block + #"RSET\r\nBDAT 1234567 LAST\r\n"
      if not pipeline.has_room(count, octets, commands) then break end
      count = count + 1
      mails[count], plans[count] = take(), plan
      front = count
    end
    return mails, plans
  end

  local function look_far_ahead()
    local limit = min(most(), pipeline.MESSAGES)
    look_ahead()
    while not ended and last - first + 2 < limit do look_further() end
  end

  local function meanwhile()
    handed = true
    look_ahead()
  end

  -- The long way for the message at the front. `last_one`: nothing goes along.
  local function send_next(last_one)
    local one, err
    if on_wire and self.state == "ready" then
      one = envelope.new(self, on_wire, on_plan)
      one.began, one.rounds, one.late, one.reset = began, rounds, core.now() - left > LATE, reset
    elseif on_wire then
      -- its envelope went along with what broke the connection
      one, err = command.begin(self, "mail")
    else
      local mail
      mail, err = take()
      front = 1
      if mail then one, err = send.begin(self, mail) end
      local written
      if one then written, err = command.write(self, "mail") end
      if not written then one = nil end
    end
    on_wire = nil
    if not one then return nil, err end
    local goes, asked
    goes, reset = send.goes_on(self)
    local more
    if not last_one then
      one.meanwhile = meanwhile
      look_ahead()
      more = goes and along or nil
    end
    if not (last_one or reset) and asks() then
      more = function()
        asked = true
        return bdat.queue_question(self)
      end
    end
    local receipt
    receipt, err = send.carry(self, one, more)
    if on_wire or asked and err then send.learn(self, err) end
    if asked then
      if self.state == "ready" then bdat.answer(self) end
      lost = self.state == "dead" and not (self.raised or err and err.code)
    end
    return receipt, err
  end

  -- Keeps a result for later.
  local function keep(receipt, err)
    local at = next_done
    while done[at] ~= nil do at = at + 1 end
    done[at], errs[at] = receipt or false, err
  end

  -- Begins a call. One before it that was broken off by an error leaves a connection that nobody knows the state of.
  local function enter()
    if front then
      local outcome = (handed or self.message and self.message.outcome == "unknown") and "unknown" or "not_sent"
      command.kill(self, { kind = "closed", stage = "mail", reason = BROKEN_OFF })
      for _ = 1, front do
        keep(false, errors.new { kind = "closed", stage = "final", outcome = outcome, reason = BROKEN_OFF })
      end
    end
    -- over a socket of its own it is the same coroutine as in the first call
    if own and not socket.stepping then self.busy = true else caller.enter(self) end
    handed, front = false, on_wire and 1 or 0
    expires = self.life or timeout and core.now() + timeout or huge
    self.expires = expires
  end

  -- Ends the message whose envelope is on the wire; its result waits.
  local function settle()
    if front or not on_wire then return end
    enter()
    keep(send_next(true))
    left, front = core.now(), nil
  end

  -- A result that was kept.
  local function kept()
    local receipt, err = done[next_done], errs[next_done]
    if receipt ~= nil then done[next_done], next_done = nil, next_done + 1 end
    return receipt, err
  end

  -- The result while another coroutine is in a call: each row's is that error.
  local function refuse(err)
    if front then check.raise("send_many: the next of these results is being waited for already: use a pool") end
    local receipt, why = kept()
    if receipt ~= nil then return receipt, why end
    look_ahead()
    if ahead == nil then return nil end
    receipt, why = take()
    return false, receipt and err or why
  end

  -- The next result, the long way.
  local function advance()
    local receipt, err
    if lost and self.opened then
      -- which the messages behind it must not suffer from
      lost = false
      look_ahead()
      if ahead == nil then return nil end
      local open
      open, err = self:reopen(expires)
      if not open then
        take()
        return false, err
      end
      self.expires = expires
    end
    receipt, err = kept()
    if receipt ~= nil then return receipt, err end
    if not on_wire then
      look_ahead()
      if ahead == nil then return nil end
    end
    if not on_wire and ahead and send.fits(self, ahead) then
      local ok
      ok, err = send.look(self)
      if ok then
        local mails, plans = flight()
        handed = true
        done, errs = burst.send(self, mails, plans, look_far_ahead)
        receipt, err, next_done = done[1], errs[1], 2
      else
        take()
      end
    else
      receipt, err = send_next()
    end
    left = core.now()
    return receipt or false, err
  end

  local function close()
    local elsewhere = self.busy and caller.refusal(self, "mail") ~= nil
    ended = true
    -- who waits for a result ends what is on its way
    stopped = elsewhere and front ~= nil
    if stopped then return end
    if front then
      enter()
      front = nil
    end
    settle()
    look_ahead()
    while ahead ~= nil do
      local mail, err = take()
      keep(false, mail and unbegun() or err)
      look_ahead()
    end
    self.busy = elsewhere
  end

  local results
  function results()
    local err = self.busy and caller.refusal(self, "mail")
    if err then return refuse(err) end
    -- another batch may have been left
    if self.settle ~= settle then
      if self.settle then self.settle() end
      self.settle = settle
    end
    enter()
    self.call = results
    local receipt
    if on_wire and short and self.state == "ready" then receipt, err = quick() end
    if receipt == nil then receipt, err = advance() end
    front, self.busy = nil, false
    if stopped then close() end
    if receipt == nil then
      self.settle = nil
      if finish then finish(self) end
    end
    return receipt, err
  end

  return results, close
end

---@class smtp.Results called, the next result: fun(): smtp.Receipt|false|nil, smtp.Error?
---@field close fun(self: smtp.Results) nothing more is begun, and what is on its way is ended: by the coroutine that
--- waits for a result, if another calls this meanwhile. May wait and yield

--- Sends what a caller's iterator gives.
---@param self table the session
---@param iterator fun(): table? messages or message options; nil: no more
---@return smtp.Results
function send_many.of(self, iterator)
  local owner = {} -- of what the iterator raises
  local results, close = send_many.each(self, rows.new(iterator, owner), nil, function()
    command.rethrow(self)
    command.rethrow(self, owner)
  end)
  return setmetatable({ close = close }, { __call = results, __close = close })
end

return send_many
