--- send: one message's way, from a table to a receipt, read from top to bottom.
---
--- Does: composes; sends it as a burst where that fits, else its envelope, then its content; makes the receipt; says
--- goodbye.
--- Never: sends again what may have been sent.
--- Called by: init, session, pool, attempts, turns, verify, send_many, rows.
local bdat = require "smtp.client.bdat"
local burst = require "smtp.client.burst"
local command = require "smtp.client.command"
local content = require "smtp.client.content"
local core = require "smtp.core"
local envelope = require "smtp.client.envelope"
local options = require "smtp.options"
local pump = require "smtp.client.pump"
local receipts = require "smtp.client.receipt"
local state = require "smtp.client.state"
local message = require "smtp.mail.message"
local sources = require "smtp.mail.source"
local pipeline = require "smtp.protocol.pipeline"

local send = {}

-- There are two plans: self.plan is what the session's options came to (smtp.plan), a message's own plan is what of it
-- goes to this server, and how (smtp.Dispatch, by envelope.plan).

-- Seconds that the server may take over a QUIT when everything else is decided.
local FAREWELL = 2
-- Replies that are listened to before the one to a QUIT that went along with a message.
local MOST_OTHERS = 16

--- A message ready to be sent from what a caller gave, who has no more to do with it: out of message options, or a
--- message composed before as it is now. Raises on unknown names.
---@param given table
---@param label string the call's name, for the message of an error
---@return smtp.Message? mail
---@return smtp.Error? err kind "input"
function send.compose(given, label)
  local mail, err = message.outgoing(given)
  mail = mail or not err and message.letter(given)
  if mail or err then return mail, err end
  return send.compose_any(given, label)
end

--- A message out of message options, of whatever kind. Raises on unknown names.
---@param given table
---@param label string the call's name, for the message of an error
---@return smtp.Message? mail
---@return smtp.Error? err kind "input"
function send.compose_any(given, label)
  options.check_message(given, label)
  return message.compose(given)
end

--- A connection for one message: connects, sends, quits.
---@param self table a session before its first step
---@param mail smtp.Message
---@param began number when the call did
---@return smtp.Receipt? receipt
---@return smtp.Error? err
function send.once(self, mail, began)
  local receipt, doubt
  local open, err = self:open(nil, true)
  if not open then return nil, err end
  receipt, err = send.send(self, mail, true)
  state.rethrow(self)
  if err and err.kind == "auth" and self.vain and err.outcome == "not_sent" then
    -- a login went along with the envelope, and its mechanism is not taken: the server has the envelope, too, or waits
    -- for content, so the next mechanism needs another connection
    doubt = send.farewell(self, true)
    if doubt then return nil, doubt end
    open, err = self:reopen(self.life)
    if open then receipt, err = send.send(self, mail, true) end
    state.rethrow(self)
  end
  if receipt then
    receipt.round_trips = self.pump.rounds
    receipt.time.total = core.now() - began
  end
  doubt = send.farewell(self, true, receipt)
  if doubt then return nil, doubt end
  if receipt then receipt.transcript = self.trace.transcript() end
  return receipt, err
end

--- One message over an open session. With `last`, QUIT goes along with the end of the content where the server
--- pipelines; what becomes of it changes nothing. LMTP may refuse a recipient after the content, too late for
--- `partial = false` to hold back what the others get: the receipt lists both.
---@param mail smtp.Message
---@param last boolean?
---@return smtp.Receipt? receipt
---@return smtp.Error? err
function send.send(self, mail, last)
  local quit = last and function()
    state.quits(self)
    return bdat.queue_quit(self, true)
  end or nil
  local plan = send.fits(self, mail)
  if plan then
    local ok, err = send.look(self)
    if not ok then return nil, err end
    local results, errs = burst.send(self, { mail }, { plan }, nil, quit)
    return results[1] or nil, errs[1]
  end
  local one, err = send.begin(self, mail)
  if not one then return nil, err end
  return send.carry(self, one, quit and pipeline.goes_on(self.capabilities, self.plan) and quit or nil)
end

--- The plan of a message that can go in a burst, perhaps with others; nil: this one cannot.
---@return smtp.Dispatch?
function send.fits(self, mail)
  if not self.trusted or self.state ~= "ready" then return nil end
  local plan = envelope.plan(self, mail)
  return plan and plan.terms.chunks and plan.bytes and plan or nil
end

--- Whether the session can take a message now.
---@return boolean?
---@return smtp.Error?
function send.look(self)
  local ok, err = command.begin(self, "mail")
  if ok and not envelope.has_room(self) then
    return command.fail(self, "mail", "closed",
      "the server takes no more messages on this connection (LIMITS MAILMAX)")
  end
  return ok, err
end

--- Begins a message: its first group is queued.
---@return smtp.Transaction?
---@return smtp.Error?
function send.begin(self, mail)
  local ok, err = send.look(self)
  if not ok then return nil, err end
  local one
  one, err = envelope.new(self, mail)
  if not one then return nil, err end
  one.began, one.rounds = core.now(), self.pump.rounds
  if self.transaction and one.plan.terms.tier == "step" then
    local reply
    reply, err = command.command(self, "reset", "RSET")
    if reply then reply, err = command.expect(self, "reset", reply, 2) end
    if not reply then return nil, err end
    state.transaction_over(self)
  end
  ok, err = envelope.queue(self, one, self.transaction)
  if not ok then return nil, err end
  return one
end

-- A message's on_progress with its total, told each number once; false: it raised.
local function reporter(self, mail, total)
  local on_progress, last = mail.on_progress, nil
  return on_progress and function(sent)
    if sent == last then return true end
    last = sent
    return (state.call(self, pcall, on_progress, sent, total))
  end
end

-- What goes out. A function's octets are not known before: what the server does not take must not reach it.
local function content_of(mail, terms)
  local laid = mail:form(terms.form)
  if laid.encoding or terms.offered["8BITMIME"] then return laid.content end
  return sources.without(laid.content, "[\128-\255]",
    "raw: an octet beyond ASCII is in it, and the server does not offer 8BITMIME")
end

-- The content of a message that the server waits for, and the receipt. `more` queues what goes along with its end.
local function conclude(self, one, more)
  local mail, terms = one.mail, one.plan.terms
  local laid = content_of(mail, terms)
  local report = reporter(self, mail, laid.size)
  local source = laid.bytes
  if terms.chunks or not source then
    local close
    source, close = laid.open()
    state.reads(self, close)
  end
  local reply, err, octets
  if terms.chunks then
    reply, err, octets = bdat.content(self, source, one, report)
  else
    reply, err, octets = content.send(self, source, one, more, report)
  end
  if not reply then return nil, err end
  if command.class(reply) ~= 2 then
    local _, no = command.expect(self, "final", reply, 2)
    no.rejected = #one.rejected > 0 and one.rejected or nil
    if self.plan.lmtp then no.temporary = receipts.may_work_later(one.rejected, mail) end
    return nil, no
  end
  return receipts.new(self, one, reply, octets)
end

--- From the replies to the envelope on.
function send.carry(self, one, more)
  local ok, err = envelope.finish(self, one)
  if not ok then return nil, err end
  if not one.ready then return envelope.refusal(self, one) end
  return conclude(self, one, more)
end

-- Reads the reply to a QUIT that went along with a message. Whatever it says, it is the last one: what comes before it
-- is too many, and the message's own reply may be among that. Whether all of it says what the message's result does.
local function agrees(self, receipt)
  local line, others = self.pump, {}
  local reply = line:reply(self.expires)
  while reply and reply.code ~= 221 and #others < MOST_OTHERS do
    others[#others + 1] = reply
    line.wire:owe(1)
    reply = line:reply(self.expires)
  end
  -- some answer QUIT oddly and close: their last reply was the goodbye. Not after a refusal: a yes behind that may be
  -- the message's own
  if receipt and not reply then others[#others] = nil end
  for _, other in ipairs(others) do
    local yes = command.class(other) == 2
    if yes ~= (receipt ~= nil) or receipt and receipt.rejected[1] then return false end
  end
  return true
end

--- Says goodbye and closes: what comes of it changes nothing any more, but where QUIT went along with the message
--- before.
---@param self table the session
---@param alone boolean? the server is not asked about chunks along with it
---@param receipt smtp.Receipt? of that message
---@return smtp.Error? err it is not known after all whether the server took that
function send.farewell(self, alone, receipt)
  local err
  if (self.state == "ready" or self.state == "connected") and state.may(self, "goodbye") then
    state.hurry(self, FAREWELL)
    local quit_reply = not self.parting and bdat.queue_quit(self, alone)
    if quit_reply then
      quit_reply(function() return self.pump:reply(self.expires) end)
    elseif self.parting and not agrees(self, receipt) then
      err = select(2, command.fail(self, "final", "protocol", pump.SURPLUS, { outcome = "unknown" }))
    end
  end
  self:close()
  return err
end

return send
