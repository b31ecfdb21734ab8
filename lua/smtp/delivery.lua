--- One message over a session: its envelope, its content, its receipt. What goes together into one flight is decided
--- here.
local chunk = require "smtp.chunk"
local core = require "smtp.core"
local errors = require "smtp.errors"
local exchange = require "smtp.exchange"
local message = require "smtp.mail.message"
local options = require "smtp.options"
local parameter = require "smtp.protocol.parameter"
local queue = require "smtp.protocol.queue"

local delivery = {}

-- Commands written before their replies are read: no more than the smallest usual socket buffers take, so that the
-- two sides can never both be stuck writing.
local WINDOW = 32768
-- Seconds that the server may take over a QUIT when everything else is decided.
local FAREWELL = 2

---@class smtp.Receipt
---@field message_id string? "<...@...>" as sent
---@field accepted string[] addresses the server took; with LMTP those it delivered to
---@field rejected table[] {address=, code=, enhanced=, text=, temporary=}; empty when all were taken
---@field reply smtp.Reply of the end of data; with LMTP the first good one
---@field queue_id string? the server's queue id, where its reply carries one in a known form
---@field size integer message octets before dot-stuffing
---@field round_trips integer times this send waited for the server
---@field time table seconds: {connect=, tls=, auth=, send=, total=}
---@field tls table? {version=, cipher=, peer=, resumed=}
---@field transcript string?

-- A recipient that the server does not want, as receipts and errors list it.
local function refused(self, address, reply)
  return { address = address, code = reply.code, enhanced = reply.enhanced, text = self.trace.scrub(reply.text),
    temporary = exchange.class(reply) == 4 }
end

-- The final reply. In LMTP there is one for each recipient (RFC 2033 4.2): `tally` tells them apart, and the first good
-- one speaks for all, or else the first.
local function verdict(self, tally)
  local seconds = self.plan.timeouts.final
  local function receive()
    local reply, err = exchange.receive(self, "final", seconds)
    if reply and exchange.class(reply) == 3 then return exchange.expect(self, "final", reply, 2) end
    return reply, err
  end
  if not self.plan.lmtp then return receive() end
  local recipients, first = tally.accepted, nil
  tally.accepted = {}
  for _, address in ipairs(recipients) do
    local reply, err = receive()
    if not reply then
      -- what is known; of the others nothing is
      err.accepted, err.rejected = tally.accepted, tally.rejected
      return nil, err
    elseif exchange.class(reply) == 2 then
      first = #tally.accepted > 0 and first or reply
      tally.accepted[#tally.accepted + 1] = address
    else
      first = first or reply
      tally.rejected[#tally.rejected + 1] = refused(self, address, reply)
    end
  end
  return first
end

--- The content behind a 354 and its final reply; `more` is queued behind the terminator, `report` hears how many octets
--- the transport has taken.
---@param tally { accepted: string[], rejected: table[] } the recipients; with LMTP what became of them, afterwards
---@param more (fun(): any)? queues it
function delivery.content(self, source, tally, more, report)
  local plan = self.plan
  if plan.lmtp and #tally.accepted == 0 then
    return exchange.fail(self, "data", "protocol", "the server wants a message for no recipient")
  end
  self.midway = true
  local octets, kind, reason, words = self.pump:content(source, plan.timeouts.block, self.expires, report)
  if not octets then
    -- never the terminator: half a message must not look like a whole one
    local _, err = exchange.fail_pump(self, "body", kind, reason, words)
    exchange.kill(self, err)
    return nil, err
  end
  -- a reply that comes before its time is a refusal, or else would pass for the final one
  kind, reason, words = self.pump:unasked()
  if kind then
    if words and kind == "protocol" then kind, reason = "rejected", nil end
    local _, err = exchange.fail_pump(self, "body", kind, reason, words)
    exchange.kill(self, err)
    return nil, err
  end
  local ok, why = self.pump:finish(octets, plan.lmtp and #tally.accepted or 1)
  if not ok then return exchange.fail(self, "body", "protocol", why) end
  if more then
    local queued, err = more()
    if not queued then return nil, err end
  end
  local written, failed, failure, said = self.pump:flush(exchange.deadline(self, plan.timeouts.block), true)
  local reply, err
  if written then
    self.outcome = "unknown"
    if report then report(octets) end
    reply, err = verdict(self, tally)
  elseif more and said and exchange.class(said) == 2 then
    -- only the command behind the terminator was lost
    reply = said
  else
    -- the terminator is the last thing written: what was not written whole cannot have been a message, unless only the
    -- command behind it is missing
    local no = said and said.code >= 400
    self.outcome = more and not no and "unknown" or "not_sent"
    reply, err = exchange.fail_pump(self, "final", failed, failure, no and said or nil)
  end
  self.outcome = "not_sent"
  self.transaction = false
  self.midway = false
  return reply, err, octets
end

--- A message ready to be sent from what a caller gave: message options, or a message composed before. Raises on
--- unknown names.
---@param given table
---@param label string the call's name, for the message of an error
---@return table? mail
---@return smtp.Error? err kind "input"
function delivery.compose(given, label)
  if type(given) == "table" and type(given.source) == "function" then return given end
  options.check_message(given, label)
  local wishes, reason = parameter.wishes(given)
  if not wishes then return nil, errors.input(reason) end
  local mail, err = message.new(given)
  if not mail then return nil, err end
  mail.wishes = wishes
  mail.partial = given.partial
  mail.on_progress = given.on_progress
  return mail
end

-- A message's on_progress with its total, told each number once. It runs outside any pcall: what it raises reaches the
-- caller of send.
local function reporter(mail, total)
  local on_progress, last = mail.on_progress, nil
  return on_progress and function(sent)
    if sent ~= last then
      last = sent
      on_progress(sent, total)
    end
  end
end

-- The parameters of MAIL for the form that suits the server, and that form; or the error.
local function fit(self, mail)
  local offered = self.capabilities
  local binary = offered.BINARYMIME and chunk.trusted(self)
  local form = mail:form(binary and "binary" or offered["8BITMIME"] and "8bit" or "7bit")
  local words, reason, insecure = parameter.mail(offered,
    { size = form.content.size, encoding = form.encoding, utf8 = mail.utf8, wishes = mail.wishes },
    self.tls ~= nil and self.plan.verify)
  if not words then return exchange.fail(self, "mail", insecure and "insecure" or "input", reason) end
  return words, form
end

-- The commands up to DATA, which binary content has not, as groups that may each go in one flight (RFC 2920 3.1).
local function plan_flights(self, mail, words, binary)
  local pipelining = self.capabilities.PIPELINING and self.plan.pipeline
  local flights, length = { {} }, 0
  local function add(stage, line, address, apart)
    local flight = flights[#flights]
    if #flight > 0 and (not pipelining or apart or length + #line > WINDOW) then
      flight = {}
      flights[#flights + 1] = flight
      length = 0
    end
    length = length + #line + 2
    flight[#flight + 1] = { stage = stage, line = line, address = address }
  end
  if self.transaction then add("reset", "RSET") end
  add("mail", "MAIL FROM:<" .. mail.envelope.from .. ">" .. words)
  for _, address in ipairs(mail.envelope.to) do
    add("rcpt", "RCPT TO:<" .. address .. ">" .. parameter.rcpt(mail.wishes, address), address)
  end
  if binary then return flights end
  -- once DATA is on its way nothing can be held back any more: where all recipients count, their replies come first
  add("data", "DATA", nil, mail.partial == false and #mail.envelope.to > 1)
  return flights
end

-- Which recipients were taken decides whether to go on.
local function refusal(tally, mail)
  if tally.mail and exchange.class(tally.mail) ~= 2 then return "mail", tally.mail end
  local none = tally.asked and #tally.accepted == 0
  if #tally.rejected > 0 and (none or mail.partial == false) then return "rcpt", tally.rejected[1] end
end

-- Whether the same call may work later: with `partial` one recipient is enough, else it takes all of them.
local function may_work_later(rejected, mail)
  local later, never = false, false
  for _, one in ipairs(rejected) do
    if one.temporary then later = true else never = true end
  end
  return later and (mail.partial ~= false or not never)
end

local function note(self, tally, command, reply)
  if command.stage == "mail" then
    tally.mail = reply
  elseif command.stage == "data" then
    tally.data = reply
  elseif exchange.class(reply) == 2 then
    tally.accepted[#tally.accepted + 1] = command.address
  else
    tally.rejected[#tally.rejected + 1] = refused(self, command.address, reply)
  end
end

-- Everything up to the reply of DATA, or the first chunk: what the server said to each command, or a broken connection.
local function envelope(self, mail, words, binary)
  local plan, flights = self.plan, plan_flights(self, mail, words, binary)
  local tally = { accepted = {}, rejected = {}, mail = nil, data = nil, asked = false }
  for _, flight in ipairs(flights) do
    for _, command in ipairs(flight) do
      local ok, err = exchange.queue(self, command.stage, command.line, mail.utf8)
      if not ok then return nil, err end
    end
    for _, command in ipairs(flight) do
      local seconds = command.stage == "data" and plan.timeouts.data or plan.timeouts.command
      local reply, err = exchange.receive(self, command.stage, seconds)
      if not reply then return nil, err end
      if reply.code == 421 then return exchange.refuse(self, command.stage, reply) end
      if exchange.class(reply) == 3 and command.stage ~= "data" then
        return exchange.expect(self, command.stage, reply, 2)
      end
      if command.stage == "reset" then
        self.transaction = false
      else
        note(self, tally, command, reply)
      end
    end
    tally.asked = #tally.accepted + #tally.rejected == #mail.envelope.to
    if tally.mail and exchange.class(tally.mail) == 2 then self.transaction = true end
    if refusal(tally, mail) and (tally.asked or exchange.class(tally.mail) ~= 2) then break end
  end
  return tally
end

-- The error for a message that the server refused before its content.
local function refuse_envelope(self, mail, tally)
  local stage, reply = refusal(tally, mail)
  if not stage then stage, reply = "data", tally.data end
  if tally.data and tally.data.code == 354 then
    -- DATA was under way already and the server now waits for content: it gets none, and what it says to that is no
    -- news
    delivery.content(self, function() end, tally)
  end
  if exchange.class(reply) < 4 then return exchange.expect(self, stage, reply, 4) end
  local temporary = exchange.class(reply) == 4
  if stage == "rcpt" then temporary = may_work_later(tally.rejected, mail) end
  return exchange.fail(self, stage, "rejected", nil, { code = reply.code, enhanced = reply.enhanced, text = reply.text,
    temporary = temporary,
    -- after a refused MAIL the answers to RCPT say nothing about the recipients
    rejected = stage ~= "mail" and #tally.rejected > 0 and tally.rejected or nil })
end

--- Sends one message. With `last`, QUIT goes along with the end of the content where the server pipelines; what
--- becomes of it changes nothing. LMTP may refuse a recipient after the content, too late for `partial = false` to hold
--- back what the others get: the receipt lists both.
---@param mail table a message
---@param last boolean?
---@return smtp.Receipt? receipt
---@return smtp.Error? err
function delivery.send(self, mail, last)
  local started, rounds = core.now(), self.pump and self.pump.rounds or 0
  local ok, err = exchange.begin(self, "mail")
  if ok then ok, err = exchange.guard(self, "mail") end
  if not ok then return nil, err end
  if self.state ~= "ready" then return exchange.fail_input(self, "mail", "call ehlo() first") end
  local words, form = fit(self, mail)
  if not words then return nil, form end
  local source = form.content.open()

  local binary = form.encoding == "binary"
  local tally
  tally, err = envelope(self, mail, words, binary)
  if not tally then return nil, err end
  if refusal(tally, mail) or not (binary or tally.data and tally.data.code == 354) then
    return refuse_envelope(self, mail, tally)
  end

  local report = reporter(mail, form.content.size)
  local reply, octets
  if binary then
    reply, err, octets = chunk.content(self, source, report)
  else
    self.quitting = last and self.capabilities.PIPELINING and self.plan.pipeline and not self.plan.lmtp
    reply, err, octets = delivery.content(self, source, tally,
      self.quitting and function() return chunk.queue_quit(self) end or nil, report)
  end
  if not reply then return nil, err end
  if exchange.class(reply) ~= 2 then
    local _, no = exchange.expect(self, "final", reply, 2)
    no.rejected = #tally.rejected > 0 and tally.rejected or nil
    if self.plan.lmtp then no.temporary = may_work_later(tally.rejected, mail) end
    return nil, no
  end
  local ended = core.now()
  return {
    message_id = mail.id,
    accepted = tally.accepted,
    rejected = tally.rejected,
    reply = reply,
    queue_id = queue.id(reply.text),
    size = octets,
    round_trips = self.pump.rounds - rounds,
    time = { connect = self.time.connect, tls = self.time.tls, auth = self.time.auth, send = ended - started,
      total = ended - started },
    tls = self.tls,
    transcript = self.trace.transcript(),
  }
end

--- Says goodbye and closes: what comes of it changes nothing any more.
---@param self table the session
function delivery.farewell(self)
  local able = self.state == "ready" or self.state == "connected"
  if able and not self.midway then
    self.expires = math.min(self.expires, core.now() + FAREWELL)
    if self.quitting or chunk.queue_quit(self) then
      chunk.quit_reply(self, function() return self.pump:reply(self.expires) end)
    end
  end
  self:close()
end

return delivery
