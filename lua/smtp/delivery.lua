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
local transaction = require "smtp.transaction"

local delivery = {}

-- Seconds that the server may take over a QUIT when everything else is decided.
local FAREWELL = 2
-- Seconds since the 354 after which a look is due before content goes out: the server may have left.
local LATE = 0.05

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
      tally.rejected[#tally.rejected + 1] = transaction.refused(self, address, reply)
    end
  end
  return first
end

--- The content behind a 354 and its final reply; `more` is queued behind the terminator, `report` hears how many octets
--- the transport has taken.
---@param source string|fun(): string?, any
---@param tally { accepted: string[], rejected: table[] } the recipients; with LMTP what became of them, afterwards
--- `tally.late`: the 354 came a while ago; `tally.meanwhile` is called while the server is busy with what it got
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
  -- a reply that comes before its time is a refusal, or else would pass for the final one; content that goes out in one
  -- piece with its end, right behind the 354, leaves it no time
  if type(source) ~= "string" or tally.late or self.pump.wire:residue() > 0 then
    kind, reason, words = self.pump:unasked()
  end
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
    if tally.meanwhile then tally.meanwhile() end
    reply, err = verdict(self, tally)
  elseif more and said and exchange.class(said) == 2 then
    -- only what stood behind the terminator was lost
    reply = said
    exchange.kill(self, { kind = failed, stage = "final", reason = failure })
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

-- The content of a message that the server waits for, and the receipt. `more` queues what goes along with its end.
local function conclude(self, one, more)
  local mail, content = one.mail, one.plan.content
  local report = reporter(mail, content.size)
  local reply, err, octets
  if one.plan.chunks then
    reply, err, octets = chunk.content(self, content.open(), report)
  else
    reply, err, octets = delivery.content(self, content.bytes or content.open(), one, more, report)
  end
  if not reply then return nil, err end
  if exchange.class(reply) ~= 2 then
    local _, no = exchange.expect(self, "final", reply, 2)
    no.rejected = #one.rejected > 0 and one.rejected or nil
    if self.plan.lmtp then no.temporary = transaction.may_work_later(one.rejected, mail) end
    return nil, no
  end
  local time, took = self.time, core.now() - one.began
  return {
    message_id = mail.id,
    accepted = one.accepted,
    rejected = one.rejected,
    reply = reply,
    queue_id = queue.id(reply.text),
    size = octets,
    round_trips = self.pump.rounds - one.rounds,
    time = { connect = time.connect, tls = time.tls, auth = time.auth, send = took, total = took },
    tls = self.tls,
    transcript = self.trace.transcript(),
  }
end

-- A server that waits for content gets none; what it says to that is no news.
local function abandon(self, one)
  return function() delivery.content(self, "", one) end
end

-- From the replies to the envelope on.
local function carry(self, one, more)
  local ok, err = transaction.finish(self, one)
  if not ok then return nil, err end
  if not one.ready then return transaction.refusal(self, one, abandon(self, one)) end
  return conclude(self, one, more)
end

local function begin(self, mail)
  local ok, err = exchange.begin(self, "mail")
  if ok and not transaction.has_room(self) then
    ok, err = exchange.fail(self, "mail", "closed",
      "the server takes no more messages on this connection (LIMITS MAILMAX)")
  end
  if not ok then return nil, err end
  local one
  one, err = transaction.new(self, mail)
  if not one then return nil, err end
  one.began, one.rounds = core.now(), self.pump.rounds
  ok, err = transaction.queue(self, one, self.transaction)
  if not ok then return nil, err end
  return one
end

local function pipelines(self)
  return self.capabilities.PIPELINING and self.plan.pipeline and not self.plan.lmtp
end

--- Sends one message. With `last`, QUIT goes along with the end of the content where the server pipelines; what
--- becomes of it changes nothing. LMTP may refuse a recipient after the content, too late for `partial = false` to hold
--- back what the others get: the receipt lists both.
---@param mail table a message
---@param last boolean?
---@return smtp.Receipt? receipt
---@return smtp.Error? err
function delivery.send(self, mail, last)
  local one, err = begin(self, mail)
  if not one then return nil, err end
  return carry(self, one, last and pipelines(self) and function()
    -- the terminator in front ends the transaction
    self.quitting, self.transaction = true, false
    return chunk.queue_quit(self)
  end or nil)
end

--- Sends messages one after the other, each envelope in the flight of the content before it: where the server
--- pipelines, N messages wait N + 1 times. The next message is composed while the server is busy.
---@param iterator fun(): table? messages or message options; nil: no more
---@return fun(): smtp.Receipt|false|nil, smtp.Error? results in order: a receipt, or false and the error; nil at last
function delivery.many(self, iterator)
  local waiting, ended = {}, false -- transactions and errors that wait for their turn, in order
  local on_wire                    -- the transaction whose envelope has gone along already

  -- Looks ahead: a message that can be sent, or the error it ends in.
  local function fetch()
    if ended then return end
    local given = iterator()
    if given == nil then
      ended = true
      return
    end
    local mail, err = delivery.compose(given, "session:send_many")
    waiting[#waiting + 1] = mail and { mail = mail } or { err = err }
  end

  -- Queues the next message's envelope behind the end of a content, where it can go there.
  local function along()
    local item = waiting[1]
    if not (item and item.mail and transaction.has_room(self)) then return true end
    local one = transaction.new(self, item.mail)
    if one and transaction.queue(self, one, false) then
      one.began, one.rounds = core.now(), self.pump.rounds
      on_wire = one
      table.remove(waiting, 1)
    end
    return true
  end

  local function meanwhile()
    if #waiting == 0 then fetch() end
  end

  local left = 0 -- when the last result was handed over

  return function()
    local one, err = on_wire, nil
    on_wire = nil
    if one and self.state == "ready" then
      exchange.set_deadline(self)
      one.late = core.now() - left > LATE
    elseif one then
      -- its envelope went along with what broke the connection
      one, err = exchange.begin(self, "mail")
    else
      meanwhile()
      local item = table.remove(waiting, 1)
      if not item then return nil end
      err = item.err
      if not err then one, err = begin(self, item.mail) end
      local written
      if one then written, err = exchange.write(self, "mail") end
      if not written then one = nil end
    end
    if not one then return false, err end
    one.meanwhile = meanwhile
    meanwhile()
    local receipt
    receipt, err = carry(self, one, pipelines(self) and along or nil)
    left = core.now()
    if receipt then return receipt end
    return false, err
  end
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
