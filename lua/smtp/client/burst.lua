--- burst: whole messages by BDAT, several in one group: each envelope with its content behind it, then all the replies.
---
--- Never: goes to a server that may read what it refuses as commands: see bdat.
--- Called by: send, send_many.
--- RFC 3030 4.1.
local bdat = require "smtp.client.bdat"
local command = require "smtp.client.command"
local core = require "smtp.core"
local envelope = require "smtp.client.envelope"
local errors = require "smtp.errors"
local pump = require "smtp.client.pump"
local receipts = require "smtp.client.receipt"
local state = require "smtp.client.state"

local burst = {}

local SURPLUS = pump.SURPLUS

-- Queues the messages. Returns their transactions, each with the octets queued up to its end, and the error of those
-- that cannot be sent. What the server took and refused is kept only where it has to be looked at.
local function queue(self, mails, plans)
  local line, jobs = self.pump, {}
  for i = 1, #mails do
    local one = { mail = mails[i], plan = plans[i], at = 1, outcome = nil, reset = nil, cleared = nil, stop = nil,
      err = nil }
    local ok, err = command.guard(self, "mail")
    -- where a content was refused the transaction may still be open: without RSET the next message's recipients would
    -- be added to its
    if ok then ok, err = envelope.queue(self, one, self.transaction or i > 1) end
    if ok then
      local why
      ok, why = line:chunk(one.plan.bytes, true)
      if not ok then ok, err = command.fail(self, "body", "protocol", why) end
    end
    one.stop, one.err = ok or line.wire:queued(), err
    jobs[i] = one
  end
  return jobs
end

-- The error of a message whose replies broke off: what the server said so far may decide all the same.
local function doubt(self, one, err, denied)
  local leaving = self.leaving
  local went = err.kind == "closed" and state.has_left(self)
  if went or err.kind == "closed" and #one.accepted == 0 and envelope.is_refused(one) then
    -- it had said no, and yes to nothing behind that
    err.outcome, one.outcome = "not_sent", nil
    if went and leaving.one == one then
      err = select(2, command.refuse(self, leaving.stage, leaving.reply))
    elseif envelope.is_refused(one) then
      err = select(2, envelope.refusal(self, one))
    end
  end
  return denied and err.outcome == "not_sent" and denied or err
end

-- The replies to one message of those that began at a time, after so many waits.
local function settle(self, one, denied, began, rounds)
  local plan, line = one.plan, self.pump
  local wire, reply, err = line.wire, nil, nil
  local hoped = one.reset and "2" .. plan.agreed or plan.agreed
  -- those to the envelope need not be looked at one by one where all have come that are hoped for
  if not (denied or self.leaving or self.trace.wanted) and wire:agree(hoped) then
    local code, text, enhanced, id = wire:reply()
    if code and code < 300 and code ~= 221 then
      state.transaction_over(self)
      return receipts.short(self, plan, code, enhanced, text, id, core.now() - began, line.rounds - rounds)
    end
    state.transaction_begun(self)
    one.accepted, one.rejected, one.cleared = receipts.all(plan), {}, true
    if code then
      reply = { code = code, enhanced = enhanced, text = text }
    elseif text ~= "again" then
      reply, err = command.fail_pump(self, "final", pump.odd(enhanced))
    end
  else
    one.accepted, one.rejected = {}, {}
    err = select(2, envelope.read(self, one))
  end
  if not (reply or err) then reply, err = command.receive(self, "final", "final") end
  if reply then reply, err = command.verdict(self, "final", reply) end
  if not reply then return nil, doubt(self, one, err, denied) end
  one.outcome = nil
  if command.class(reply) == 2 and #one.accepted > 0 then
    state.transaction_over(self)
    one.began, one.rounds = began, rounds
    state.stays(self)
    return receipts.new(self, one, reply, #plan.bytes)
  end
  if denied then return nil, denied end
  if reply.code == 421 then state.leaves(self, one, "final", reply) end
  if one.refused or envelope.is_refused(one) then return envelope.refusal(self, one) end
  local ok
  ok, err = command.expect(self, "final", reply, 2)
  if ok then return command.fail(self, "final", "protocol", "the server took a message for no recipient") end
  err.rejected = #one.rejected > 0 and one.rejected or nil
  return nil, err
end

-- The error of a message behind the one whose error ended the connection.
local function left_behind(self, one, gone)
  local went = gone.kind == "closed" or gone.kind == "rejected"
  -- a server that says 421 and goes leaves what comes after that alone
  local alone = went and state.has_left(self)
  return errors.new { kind = went and "closed" or gone.kind, stage = "final",
    reason = went and "the server closed the connection" or gone.reason,
    outcome = not alone and one.outcome or "not_sent", temporary = went or gone.temporary,
    transcript = self.trace.transcript() }
end

-- Where replies too many have come it is not known which ones they are: each reply may be the command's before. A
-- receipt holds all the same where what is behind the message's last reply says yes, too; a refusal decides nothing.
local function doubt_all(self, jobs, results, errs, strays)
  local yes = true
  for _, reply in ipairs(strays) do
    self.trace.received(reply)
    yes = yes and command.class(reply) == 2
  end
  for i = #jobs, 1, -1 do
    local err, receipt = errs[i], results[i]
    local whole = receipt and not receipt.rejected[1]
    if err and err.kind == "rejected" then
      err.outcome = "unknown"
    elseif receipt and not (whole and yes) then
      results[i], errs[i] = false, errors.new { kind = "protocol", stage = "final", outcome = "unknown",
        reason = SURPLUS, transcript = self.trace.transcript() }
    end
    -- one reply too many puts the message before in the place of the RSET between the two, more of them farther
    local reset = jobs[i].cleared
    if reset == nil then reset = whole end
    yes = reset and (#strays < 2 or whole and yes) or false
  end
  bdat.distrust(self)
  state.kill(self, { kind = "protocol", stage = "final", reason = SURPLUS })
end

--- Sends messages, each of them one string, on a session that is ready.
---@param self table the session
---@param mails smtp.Message[]
---@param plans smtp.Dispatch[] of each, for chunks; a message's own may be for another session by now
---@param meanwhile fun()? called while the server is busy with them
---@param more (fun(): any)? queues what goes along with the end
---@return (smtp.Receipt|false)[] receipts as many
---@return smtp.Error[] errors by number, of those that have no receipt
function burst.send(self, mails, plans, meanwhile, more)
  local line = self.pump
  local began, rounds = core.now(), line.rounds
  local jobs = queue(self, mails, plans)
  local behind = more and more()
  local total = line.wire:queued()
  state.burst_begins(self)
  local limit = state.deadline(self, "block")
  local written, kind, reason, left = line:write(limit)
  if written and meanwhile then meanwhile() end
  if not written then
    -- what the server has said to the first ones still counts, and nothing more is waited for than that
    state.hurry(self, 1)
  end
  local denied
  if self.prelude then
    local _
    _, denied = state.take_prelude(self)()
    if denied and denied.code == 421 then state.leaves(self, nil, "auth", denied) end
  end

  local results, errs, gone = {}, {}, self.state ~= "ready" and denied or nil
  local refused, amiss = false, false
  for i = 1, #jobs do
    local one = jobs[i]
    local receipt, err = nil, one.err
    local ended = written or one.stop <= total - left
    one.outcome = ended and "unknown" or nil
    state.under_way(self, one)
    if not err and i == 1 and gone then
      err = gone
      err.outcome = one.outcome or "not_sent"
    elseif not err and gone then
      err = left_behind(self, one, gone)
    elseif not err then
      receipt, err = settle(self, one, i == 1 and denied, began, rounds)
      if receipt and not ended then
        -- that was another command's yes
        amiss = true
        receipt, err = command.fail(self, "final", kind, reason)
      elseif not written and err and err.kind ~= "rejected" then
        err.kind, err.reason = kind, reason
      end
      if self.state ~= "ready" then gone = err end
    end
    results[i], errs[i] = receipt or false, err
    refused = refused or err or receipt.rejected[1]
    amiss = amiss or one.cleared == false and not self.leaving
  end
  if not (written or gone) then state.kill(self, { kind = kind, stage = "final", reason = reason }) end
  -- with QUIT behind, its reply is still due: see send.farewell
  local strays = self.state == "ready" and not behind and line:strays(refused) or {}
  -- RSET is never refused: that is another command's reply
  if strays[1] or amiss then doubt_all(self, jobs, results, errs, strays) end
  if self.leaving and self.state == "ready" and not behind then
    state.kill(self, { kind = "closed", stage = "final", reason = "the server said that it closes the connection" })
  end
  state.burst_over(self)
  return results, errs
end

return burst
