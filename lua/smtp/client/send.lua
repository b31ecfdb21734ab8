--- One message over a session: its envelope, its content, its receipt. What goes together into one flight is decided
--- here.
local burst = require "smtp.client.burst"
local bdat = require "smtp.client.bdat"
local core = require "smtp.core"
local errors = require "smtp.errors"
local command = require "smtp.client.command"
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
local SURPLUS = pump.SURPLUS

-- Whether `count` replies from a place in the list on say the same, a yes or a no.
local function agree(replies, from, count)
  local yes = command.class(replies[from]) == 2
  for i = from + 1, from + count - 1 do
    if (command.class(replies[i]) == 2) ~= yes then return false end
  end
  return true
end

-- What a server says behind the last reply that it owes: one of those may have been one too many. Behind a single yes
-- it may as well be a goodbye.
local function unexpected(self, replies)
  local line = self.pump
  local single = #replies == 1 and command.class(replies[1]) == 2
  local strays = line.wire:expected() == 0 and line:strays(not single) or {}
  local goodbye = single and #strays == 1
    and (strays[1].code == 421 or line.pipe:peek() == "closed")
  return goodbye and {} or strays
end

-- The final reply. In LMTP there is one for each recipient (RFC 2033 4.2): `tally` tells them apart, and the first good
-- one speaks for all, or else the first.
local function verdict(self, tally)
  local lmtp, recipients = self.plan.lmtp, tally.accepted
  local count, replies, err = lmtp and #recipients or 1, {}, nil
  while #replies < count and not err do
    local reply
    reply, err = command.receive(self, "final", "final")
    if reply then reply, err = command.verdict(self, "final", reply) end
    replies[#replies + 1] = reply
  end
  local known, strays = #replies, err and {} or unexpected(self, replies)
  for i, reply in ipairs(strays) do replies[known + i] = reply end

  local first, doubt = nil, false
  if lmtp then tally.accepted = {} end
  for i = 1, known do
    local reply = replies[i]
    if not agree(replies, i, #strays + 1) then
      doubt = true
    elseif not lmtp then
      first = reply
    elseif command.class(reply) == 2 then
      first = #tally.accepted > 0 and first or reply
      tally.accepted[#tally.accepted + 1] = recipients[i]
    else
      first = first or reply
      tally.rejected[#tally.rejected + 1] = envelope.refused(self, recipients[i], reply)
    end
  end
  if doubt then err = select(2, command.fail(self, "final", "protocol", SURPLUS)) end
  if not err then return first end
  -- what is known; of the others nothing is
  if lmtp then err.accepted, err.rejected = tally.accepted, tally.rejected end
  return nil, err
end

--- Writes a content's end, which is queued, and reads the final reply.
---@param tally table as for content
---@param behind integer octets that are queued behind that end
---@param report fun()?
---@param lost { kind: string, reason: string, left: integer }? the end was written already, and that failed
function send.hand_over(self, tally, behind, report, lost)
  local deadline, line = command.deadline(self, "block"), self.pump
  local written, failed, failure, said, left
  if lost then
    written, failed, failure, said, left = line:fail(deadline, true, lost.kind, lost.reason, lost.left)
  else
    written, failed, failure, said, left = line:flush(deadline, true)
  end
  -- without its terminator it cannot have been a message
  local ended = not written and behind >= left
  -- in LMTP a reply is one recipient's
  if ended and self.plan.lmtp and #tally.accepted > 1 then said = nil end
  local reply, err
  if written then
    self.outcome = "unknown"
    if report then report() end
    if tally.meanwhile then tally.meanwhile() end
    reply, err = verdict(self, tally)
  elseif ended and said and said.code ~= 221 and command.class(said) == 2 then
    -- only what stood behind the terminator was lost, if anything
    reply = command.clean(self, said)
    command.kill(self, { kind = failed, stage = "final", reason = failure })
  else
    local no = said and said.code >= 400
    self.outcome = ended and not no and "unknown" or "not_sent"
    reply, err = command.fail_pump(self, "final", failed, failure, no and said or nil)
  end
  self.outcome = "not_sent"
  self.transaction = false
  return reply, err
end

--- The content behind a 354 and its final reply; `more` is queued behind the terminator, `report` hears how many octets
--- the transport has taken.
---@param source string|fun(): string?, any
---@param tally { accepted: string[], rejected: table[] } the recipients; with LMTP what became of them, afterwards
--- `tally.late`: the 354 came a while ago; `tally.meanwhile` is called while the server is busy with what it got
---@param more (fun(): any)? queues it
function send.content(self, source, tally, more, report)
  local plan = self.plan
  if plan.lmtp and #tally.accepted == 0 then
    return command.fail(self, "data", "protocol", "the server wants a message for no recipient")
  end
  self.midway = true
  local own = tally.plan ~= nil
  local octets, kind, reason, words = self.pump:content(source, plan.timeouts.block, self.expires, report, own)
  if not octets then
    -- never the terminator: half a message must not look like a whole one
    local _, err = command.fail_pump(self, "body", kind, reason, words)
    command.kill(self, err)
    return nil, err
  end
  -- a reply that comes before its time is a refusal, or else would pass for the final one; content that goes out in one
  -- piece with its end, right behind the 354, leaves it no time
  if type(source) ~= "string" or tally.late or self.pump.wire:unread() > 0 then
    local quiet, err = command.listen(self)
    if not quiet then return nil, err end
  end
  local ok, why = self.pump:finish(octets, plan.lmtp and #tally.accepted or 1)
  if not ok then return command.fail(self, "body", "protocol", why) end
  local behind = 0
  if more then
    local before = self.pump.wire:queued()
    local queued, err = more()
    if not queued then return nil, err end
    behind = self.pump.wire:queued() - before
  end
  local reply, err = send.hand_over(self, tally, behind, report and function() report(octets) end)
  self.midway = false
  return reply, err, octets
end

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
  local content = content_of(mail, terms)
  local report = reporter(self, mail, content.size)
  local source = content.bytes
  if terms.chunks or not source then source, self.reading = content.open() end
  local reply, err, octets
  if terms.chunks then
    reply, err, octets = bdat.content(self, source, report)
  else
    reply, err, octets = send.content(self, source, one, more, report)
  end
  command.put_away(self)
  if not reply then return nil, err end
  if command.class(reply) ~= 2 then
    local _, no = command.expect(self, "final", reply, 2)
    no.rejected = #one.rejected > 0 and one.rejected or nil
    if self.plan.lmtp then no.temporary = envelope.may_work_later(one.rejected, mail) end
    return nil, no
  end
  return receipts.new(self, one, reply, octets)
end

-- A server that waits for content gets none; what it says to that is no news.
local function abandon(self, one)
  return function() send.content(self, "", one) end
end

--- From the replies to the envelope on.
function send.carry(self, one, more)
  local ok, err = envelope.finish(self, one)
  if not ok then return nil, err end
  if not one.ready then return envelope.refusal(self, one, abandon(self, one)) end
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

-- What this process has learnt: command.key -> whether the server bears commands behind the end of a content.
local bears = {}

--- Whether another envelope may go behind the end of a content. Dovecot 2.3 takes the message, finds a RCPT or BDAT
--- there and ends with a failed assertion before it has answered, unless RSET stands between; servers that do not name
--- themselves may do the like.
---@return boolean goes
---@return boolean reset only behind RSET, and nothing else but QUIT
function send.goes_on(self)
  local able = send.pipelines(self) and bears[command.key(self.plan)] ~= false
  if not able then return false, true end
  return true, self.greeting.text:find("Dovecot", 1, true) ~= nil
end

--- Learns from what became of a content with more than QUIT behind its end: one good answer is proof, and before there
--- was one a lost connection is taken for its consequence.
---@param err smtp.Error? of the content
function send.learn(self, err)
  local key = command.key(self.plan)
  if not err then
    bears[key] = true
  elseif bears[key] == nil and err.kind == "closed" and err.outcome == "unknown" then
    bears[key] = false
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
        err = select(2, command.fail(self, "final", "protocol", SURPLUS))
      end
    elseif bdat.queue_quit(self, alone) then
      bdat.quit_reply(self, function() return self.pump:reply(self.expires) end)
    end
  end
  self:close()
  return err
end

return send
