--- content: a message's content by DATA, from the server's 354 to its final reply.
---
--- Does: writes the content and its end, and finds out which of the replies behind it are the message's.
--- Never: ends half a content: it would look like a whole one.
--- Called by: send, envelope, shortcut, session.
--- RFC 5321 4.1.1.4, RFC 2033 4.2 (LMTP).
local command = require "smtp.client.command"
local pump = require "smtp.client.pump"
local receipts = require "smtp.client.receipt"
local state = require "smtp.client.state"

local content = {}

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

-- The final reply. In LMTP there is one for each recipient (RFC 2033 4.2): the message's lists tell them apart, and the
-- first good one speaks for all, or else the first.
local function verdict(self, one)
  local lmtp, recipients = self.plan.lmtp, one.accepted
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
  if lmtp then one.accepted = {} end
  for i = 1, known do
    local reply = replies[i]
    if not agree(replies, i, #strays + 1) then
      doubt = true
    elseif not lmtp then
      first = reply
    elseif command.class(reply) == 2 then
      first = #one.accepted > 0 and first or reply
      one.accepted[#one.accepted + 1] = recipients[i]
    else
      first = first or reply
      one.rejected[#one.rejected + 1] = receipts.refused(self, recipients[i], reply)
    end
  end
  if doubt then err = select(2, command.fail(self, "final", "protocol", SURPLUS)) end
  if not err then return first end
  -- what is known; of the others nothing is
  if lmtp then err.accepted, err.rejected = one.accepted, one.rejected end
  return nil, err
end

--- Writes a content's end, which is queued, and reads the final reply.
---@param one table as for send
---@param behind integer octets that are queued behind that end
---@param report fun()?
---@param lost { kind: string, reason: string, left: integer }? the end was written already, and that failed
function content.hand_over(self, one, behind, report, lost)
  local deadline, line = state.deadline(self, "block"), self.pump
  local written, failed, failure, said, left
  if lost then
    state.under_way(self, one)
    written, failed, failure, said, left = line:fail(deadline, true, lost.kind, lost.reason, lost.left)
  else
    written, failed, failure, said, left = line:flush(deadline, true)
  end
  -- without its terminator it cannot have been a message
  local ended = not written and behind >= left
  -- in LMTP a reply is one recipient's
  if ended and self.plan.lmtp and #one.accepted > 1 then said = nil end
  local reply, err
  if written then
    one.outcome = "unknown"
    if report then report() end
    if one.meanwhile then one.meanwhile() end
    reply, err = verdict(self, one)
  elseif ended and said and said.code ~= 221 and command.class(said) == 2 then
    -- only what stood behind the terminator was lost, if anything
    reply = command.clean(self, said)
    state.kill(self, { kind = failed, stage = "final", reason = failure })
  else
    local no = said and said.code >= 400
    one.outcome = ended and not no and "unknown" or nil
    reply, err = command.fail_pump(self, "final", failed, failure, no and said or nil)
  end
  one.outcome = nil
  return reply, err
end

--- The content behind a 354 and its final reply; `more` is queued behind the terminator, `report` hears how many octets
--- the transport has taken.
---@param source string|fun(): string?, any
---@param one { accepted: string[], rejected: table[] } the message; with LMTP the lists tell what became of them,
--- afterwards. `late`: the 354 came a while ago; `meanwhile` is called while the server is busy with what it got
---@param more (fun(): any)? queues it
function content.send(self, source, one, more, report)
  local plan = self.plan
  if plan.lmtp and #one.accepted == 0 then
    return command.fail(self, "data", "protocol", "the server wants a message for no recipient")
  end
  state.content_begins(self, one)
  local own = one.plan ~= nil
  local octets, kind, reason, words = self.pump:content(source, plan.timeouts.block, self.expires, report, own)
  if not octets then
    -- never the terminator: half a message must not look like a whole one
    local _, err = command.fail_pump(self, "body", kind, reason, words)
    state.kill(self, err)
    return nil, err
  end
  -- a reply that comes before its time is a refusal, or else would pass for the final one; content that goes out in one
  -- piece with its end, right behind the 354, leaves it no time
  if type(source) ~= "string" or one.late or self.pump.wire:unread() > 0 then
    local quiet, err = command.listen(self)
    if not quiet then return nil, err end
  end
  local ok, why = self.pump:finish(octets, plan.lmtp and #one.accepted or 1)
  if not ok then return command.fail(self, "body", "protocol", why) end
  local behind = 0
  if more then
    local before = self.pump.wire:queued()
    local queued, err = more()
    if not queued then return nil, err end
    behind = self.pump.wire:queued() - before
  end
  local reply, err = content.hand_over(self, one, behind, report and function() report(octets) end)
  state.content_over(self)
  return reply, err, octets
end

return content
