--- One message over a session: its envelope, its content, its receipt. What goes together into one flight is decided
--- here.
local burst = require "smtp.client.burst"
local bdat = require "smtp.client.bdat"
local core = require "smtp.core"
local errors = require "smtp.errors"
local command = require "smtp.client.command"
local content = require "smtp.client.content"
local habits = require "smtp.client.habits"
local message = require "smtp.mail.message"
local options = require "smtp.options"
local parameter = require "smtp.protocol.parameter"
local pump = require "smtp.client.pump"
local receipts = require "smtp.client.receipt"
local sources = require "smtp.mail.source"
local envelope = require "smtp.client.envelope"

local send = {}

-- Seconds that the server may take over a QUIT when everything else is decided.
local FAREWELL = 2
-- Replies that are listened to before the one to a QUIT that went along with a message.
local MOST_OTHERS = 16

send.hand_over = content.hand_over -- for send_many, so far

--- A message out of message options, of whatever kind. Raises on unknown names.
---@param given table
---@param label string the call's name, for the message of an error
---@return smtp.Message? mail
---@return smtp.Error? err kind "input"
function send.compose_any(given, label)
  options.check_message(given, label)
  local wishes, reason
  if given.dsn or given.require_tls or given.deliver_by or given.hold_for or given.mt_priority then
    wishes, reason = parameter.wishes(given)
    if not wishes then return nil, errors.input(reason) end
  end
  local mail, err = message.new(given)
  if not mail then return nil, err end
  mail.wishes = wishes
  mail.partial = given.partial
  mail.on_progress = given.on_progress
  return mail
end

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

-- A message's on_progress with its total, told each number once; false: it raised.
local function reporter(self, mail, total)
  local on_progress, last = mail.on_progress, nil
  return on_progress and function(sent)
    if sent == last then return true end
    last = sent
    return (command.call(self, pcall, on_progress, sent, total))
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
  if terms.chunks or not source then source, self.reading = laid.open() end
  local reply, err, octets
  if terms.chunks then
    reply, err, octets = bdat.content(self, source, report)
  else
    reply, err, octets = content.send(self, source, one, more, report)
  end
  command.put_away(self)
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
  self.way = nil
  return conclude(self, one, more)
end

--- Begins a message: its first flight is queued.
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
    self.transaction = false
  end
  ok, err = envelope.queue(self, one, self.transaction)
  if not ok then return nil, err end
  return one
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

--- The plan of a message that can go in a flight by BDAT, perhaps with others; nil: this one cannot.
---@return smtp.Dispatch?
function send.fits(self, mail)
  if not self.trusted or self.state ~= "ready" then return nil end
  local plan = envelope.plan(self, mail)
  return plan and plan.terms.chunks and plan.bytes and plan or nil
end

--- Whether QUIT, or another envelope, may go behind the end of a content.
function send.pipelines(self)
  return self.capabilities.PIPELINING and self.plan.pipeline and not self.plan.lmtp
end

--- Whether another envelope may go behind the end of a content. Dovecot 2.3 takes the message, finds a RCPT or BDAT
--- there and ends with a failed assertion before it has answered, unless RSET stands between; servers that do not name
--- themselves may do the like.
---@return boolean goes
---@return boolean reset only behind RSET, and nothing else but QUIT
function send.goes_on(self)
  local able = send.pipelines(self) and habits.of(self.plan).bears ~= false
  if not able then return false, true end
  return true, self.greeting.text:find("Dovecot", 1, true) ~= nil
end

--- Learns from what became of a content with more than QUIT behind its end: one good answer is proof, and before there
--- was one a lost connection is taken for its consequence.
---@param err smtp.Error? of the content
function send.learn(self, err)
  local known = habits.of(self.plan)
  if not err then
    known.bears = true
  elseif known.bears == nil and err.kind == "closed" and err.outcome == "unknown" then
    known.bears = false
  end
end

--- Sends one message. With `last`, QUIT goes along with the end of the content where the server pipelines; what
--- becomes of it changes nothing. LMTP may refuse a recipient after the content, too late for `partial = false` to hold
--- back what the others get: the receipt lists both.
---@param mail table a message
---@param last boolean?
---@return smtp.Receipt? receipt
---@return smtp.Error? err
function send.send(self, mail, last)
  local quit = last and function()
    -- the content's end in front ends the transaction
    self.quitting, self.transaction = true, false
    return bdat.queue_quit(self, true)
  end or nil
  local plan = send.fits(self, mail)
  if plan then
    local ok, err = send.look(self)
    if not ok then return nil, err end
    self.way = nil -- the content goes along
    local results, errs = burst.send(self, { mail }, { plan }, nil, quit)
    return results[1] or nil, errs[1]
  end
  local one, err = send.begin(self, mail)
  if not one then return nil, err end
  return send.carry(self, one, send.pipelines(self) and quit or nil)
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
  -- some answer oddly and close; but a yes behind a refusal may be the message's own
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
  local able, err = self.state == "ready" or self.state == "connected", nil
  if able and not self.midway then
    self.expires = math.min(self.expires, core.now() + FAREWELL)
    if self.quitting then
      if not agrees(self, receipt) then
        self.outcome = "unknown"
        err = select(2, command.fail(self, "final", "protocol", pump.SURPLUS))
      end
    elseif bdat.queue_quit(self, alone) then
      bdat.quit_reply(self, function() return self.pump:reply(self.expires) end)
    end
  end
  self:close()
  return err
end

return send
