--- envelope: a message's MAIL, RCPT and DATA, in as few groups as the server allows, and what it said to each.
---
--- Does: plans what goes to this server, queues it group by group, reads the replies.
--- Never: decides what may stand in one group: that is protocol.pipeline's.
--- Called by: send, burst, send_many, shortcut.
--- RFC 5321 3.3, RFC 2920 3.1, RFC 9422 (LIMITS).
local command = require "smtp.client.command"
local content = require "smtp.client.content"
local errors = require "smtp.errors"
local receipts = require "smtp.client.receipt"
local state = require "smtp.client.state"
local capability = require "smtp.protocol.capability"
local limits = require "smtp.protocol.limits"
local parameter = require "smtp.protocol.parameter"
local pipeline = require "smtp.protocol.pipeline"

local envelope = {}

local concat, huge, rep = table.concat, math.huge, string.rep

---@class smtp.Terms what this server takes on this connection
---@field offered table its capabilities,
---@field trusted boolean with content in chunks,
---@field secure boolean encrypted, and the server verified; what follows from these:
---@field form "7bit"|"8bit"|"binary" the most of a message's content
---@field tier smtp.Tier
---@field chunks boolean the content goes by BDAT
---@field plain boolean an envelope of one group is nothing out of the ordinary
---@field sizes boolean MAIL says the size,
---@field most number octets that it may be

---@class smtp.Dispatch what goes to a server in which groups; the session keeps the latest
---@field mail smtp.Message that it was made of, and
---@field terms smtp.Terms for
---@field to string[] the recipients
---@field groups smtp.Group[]? of the envelope; made when needed, where there are
---@field bytes string? the whole content, where the envelope is one group and nobody watches the progress: then also
---@field id string? the Message-ID,
---@field block string? the group's commands,
---@field lines integer? how many they are,
---@field agreed string? and the classes of the replies hoped for, DATA's too

---@class smtp.Transaction
---@field mail smtp.Message
---@field plan smtp.Dispatch
---@field reset boolean? RSET went before it,
---@field cleared boolean? and was answered with a yes, as far as that was looked at
---@field at integer the group that is on the wire, or the next one
---@field accepted string[] recipients that the server took
---@field rejected table[] {address=, code=, enhanced=, text=, temporary=}
---@field refused smtp.Reply? of MAIL
---@field data smtp.Reply? of DATA, where it is not a 354
---@field ready boolean the server waits for the content
---@field open boolean DATA was answered with a 354

-- The lines of an envelope.
local function commands(to, wishes, first)
  local lines = { first }
  for i = 1, #to do
    lines[i + 1] = "RCPT TO:<" .. to[i] .. ">" .. (wishes and parameter.rcpt(wishes, to[i]) or "")
  end
  return lines
end

-- The plan of a message that is one group and one string; nil: its envelope is too long for that. MAIL has `words` and
-- `more` behind its path.
local function short(terms, mail, bytes, words, more, wishes)
  local from, to = mail.from, mail.to
  local count, data = #to + 1, "\nDATA"
  local lines, block, agreed = count + 1
  if terms.chunks then data, lines = "", count end
  if count == 2 and not wishes then
    block = "MAIL FROM:<" .. from .. words .. more .. "\nRCPT TO:<" .. to[1] .. ">" .. data
    agreed = data == "" and "22" or "223"
  else
    block = concat(commands(to, wishes, "MAIL FROM:<" .. from .. words .. more), "\n") .. data
    agreed = rep("2", count) .. (data == "" and "" or "3")
  end
  if #block + lines + 1 > pipeline.WINDOW then return nil end
  return {
    mail = mail, terms = terms, to = to, bytes = bytes, id = mail.id, block = block, lines = lines, agreed = agreed,
  }
end

-- The groups of a plan.
local function groups_of(plan)
  if not plan.groups then plan.groups = { pipeline.new(plan.block, plan.lines, 1, not plan.terms.chunks) } end
  return plan.groups
end

--- The terms as they are now.
---@return smtp.Terms
function envelope.terms(self)
  local offered, trusted, secure = self.capabilities, self.trusted, self.tls ~= nil and self.plan.verify
  local terms = self.notes.terms
  if not (terms and terms.offered == offered and terms.trusted == trusted and terms.secure == secure) then
    local tier = pipeline.tier(offered, self.plan.pipeline, trusted)
    terms = {
      offered = offered, trusted = trusted, secure = secure,
      form = trusted and offered.BINARYMIME and "binary" or offered["8BITMIME"] and "8bit" or "7bit",
      tier = tier, chunks = tier == "chunk", plain = tier ~= "step" and not offered.LIMITS,
      sizes = offered.SIZE ~= nil, most = offered.SIZE and capability.size(offered) or huge,
    }
    self.notes.terms = terms
  end
  return terms
end

-- The plan of a letter; nil: it needs a closer look.
local function letter_plan(terms, mail)
  local bytes = mail.bytes
  if not terms.plain or #bytes > terms.most then return nil end
  local words, size = ">", ""
  if terms.sizes then words, size = "> SIZE=", #bytes end
  return short(terms, mail, bytes, words, size)
end

-- The plan of any message.
local function full_plan(self, terms, mail)
  local offered = terms.offered
  local form, to = mail:form(terms.form), mail.to
  local words, reason, insecure = parameter.mail(offered, mail, form, terms.secure)
  if words and offered.LIMITS then reason = limits.problem(offered, to) end
  if reason then return command.fail(self, "mail", insecure and "insecure" or "input", reason) end
  -- once DATA or BDAT is on its way nothing can be held back any more: where all recipients count, their replies
  -- come first
  local apart = mail.partial == false and #to > 1
  local bytes = not (apart or mail.on_progress) and terms.tier ~= "step" and form.content.bytes
  local plan = bytes and short(terms, mail, bytes, ">", words, mail.wishes)
  if plan then return plan end
  local lines = commands(to, mail.wishes, "MAIL FROM:<" .. mail.from .. ">" .. words)
  return { mail = mail, terms = terms, to = to, groups = pipeline.envelope(lines, terms.tier, apart) }
end

--- What goes to this server, in the form that suits it; or the error.
---@param terms smtp.Terms? as they are now, where they are known
---@return smtp.Dispatch?
---@return smtp.Error?
function envelope.plan(self, mail, terms)
  terms = terms or envelope.terms(self)
  local plan, err = self.notes.plan, nil
  if plan and plan.mail == mail and plan.terms == terms then return plan end
  plan = mail.bytes and letter_plan(terms, mail)
  if not plan then plan, err = full_plan(self, terms, mail) end
  if not plan then return nil, err end
  self.notes.plan = plan
  return plan
end

--- Whether the server takes one more message on this connection, behind `more` that are not begun yet.
function envelope.has_room(self, more)
  local most = self.capabilities and self.capabilities.LIMITS and limits.get(self.capabilities, "MAILMAX")
  return not most or self.mails + (more or 0) < most
end

--- A message's transaction, before its first command.
---@param plan smtp.Dispatch? where it is known
---@return smtp.Transaction? transaction
---@return smtp.Error? err the server cannot take it
function envelope.new(self, mail, plan)
  local ok, err = command.guard(self, "mail")
  if not ok then return nil, err end
  if self.state ~= "ready" then return command.fail_input(self, "mail", "call ehlo() first") end
  if not plan then plan, err = envelope.plan(self, mail) end
  if plan and not plan.bytes then ok, err = mail:again() end
  if not (plan and ok) then return nil, err end
  return { mail = mail, plan = plan, at = 1, accepted = {}, rejected = {}, ready = false }
end

--- Queues the present group. `reset`: an earlier transaction has to be given up first.
function envelope.queue(self, one, reset)
  local plan = one.plan
  -- a plan of one group has what the group would have
  local group = plan.block and plan or plan.groups[one.at]
  local block, lines = group.block, group.lines
  one.reset = reset
  if reset then block, lines = "RSET\n" .. block, lines + 1 end
  local ok, reason = self.pump:commands(block, lines, one.mail.utf8)
  if not ok then return command.fail_input(self, "mail", reason) end
  if plan.block or group.mail then state.begins(self) end
  return true
end

-- One reply that was not as hoped for, or may not be.
local function receive(self, one, stage, wait)
  local reply, err = command.receive(self, stage, wait)
  if not reply then return nil, err end
  if reply.code == 421 then
    if self.at ~= "burst" then return command.refuse(self, stage, reply) end
    state.leaves(self, one, stage, reply)
  elseif self.leaving and reply.code < 400 then
    state.stays(self)
  end
  if command.class(reply) == 3 and stage ~= "data" then return command.expect(self, stage, reply, 2) end
  return reply
end

-- The replies to a group one by one. `late`: no more of them than have come.
local function read_each(self, one, group, late)
  local wait = not late and "command"
  local reply, err
  if one.reset then
    reply, err = receive(self, one, "reset", wait)
    if not reply then return nil, err end
    state.transaction_over(self)
    one.cleared = command.class(reply) == 2
  end
  if group.mail then
    reply, err = receive(self, one, "mail", wait)
    if not reply then return nil, err end
    if command.class(reply) == 2 then state.transaction_begun(self) else one.refused = reply end
  end
  for i = group.first, group.first + group.count - 1 do
    local address = one.plan.to[i]
    reply, err = receive(self, one, "rcpt", wait)
    if not reply then return nil, err end
    if command.class(reply) == 2 then
      one.accepted[#one.accepted + 1] = address
      state.transaction_begun(self) -- whatever it said to MAIL
    else
      one.rejected[#one.rejected + 1] = receipts.refused(self, address, reply, #one.accepted)
    end
  end
  if not group.data then return true end
  reply, err = receive(self, one, "data", not late and "data")
  if not reply then return nil, err end
  one.open, one.data = reply.code == 354, reply
  return true
end

--- The replies to the group on the wire: all at once where they are what is hoped for.
---@return boolean? ok
---@return smtp.Error? err the connection is lost, or the login that went along was refused
function envelope.read(self, one)
  local group = groups_of(one.plan)[one.at]
  local deadline = state.deadline(self, "command")
  local written, kind, reason, words = self.pump:flush(deadline)
  if written and self.prelude then
    local ok, err, try_next = state.take_prelude(self)()
    if not ok and try_next and read_each(self, one, group) and not one.open then
      ok, err = try_next()
      one.accepted, one.rejected, one.refused, one.data = {}, {}, nil, nil
      if ok then ok, err = envelope.queue(self, one, self.transaction) end
      if ok then return envelope.read(self, one) end
    end
    if not ok then
      -- the server may wait for content now, and gets none
      state.kill(self, err)
      return nil, err
    end
  end
  if not written then
    local stage = one.reset and "reset" or group.mail and "mail" or group.count > 0 and "rcpt" or "data"
    return command.fail_pump(self, stage, kind, reason, words)
  end
  if group.classes == "" or self.trace.wanted then return read_each(self, one, group) end
  local agreed = self.pump:agree(one.reset and "2" .. group.classes or group.classes, deadline)
  -- what came is still there to be read; where the time is over nothing more is waited for
  if not agreed then return read_each(self, one, group, agreed == nil) end
  if group.mail then
    state.transaction_begun(self)
    one.cleared = true
  end
  local accepted, to = one.accepted, one.plan.to
  for i = group.first, group.first + group.count - 1 do accepted[#accepted + 1] = to[i] end
  if not group.data then return true end
  one.open = self.pump:agree("3", state.deadline(self, "data"))
  if one.open then return true end
  local reply, err = receive(self, one, "data", one.open ~= nil and "data")
  if not reply then return nil, err end
  one.open, one.data = reply.code == 354, reply
  return true
end

--- Whether the server's answers so far end it.
function envelope.is_refused(one)
  local asked = #one.accepted + #one.rejected == #one.plan.to
  return one.refused ~= nil
    or #one.rejected > 0 and asked and (#one.accepted == 0 or one.mail.partial == false)
end

--- The replies to the group on the wire, and the groups that follow it, until the server waits for the content or has
--- refused the message: `ready` tells.
---@return boolean? ok
---@return smtp.Error? err the connection is lost
function envelope.finish(self, one)
  local groups = groups_of(one.plan)
  while true do
    local ok, err = envelope.read(self, one)
    if not ok then return nil, err end
    one.at = one.at + 1
    if envelope.is_refused(one) then return true end
    local group = groups[one.at]
    if not group then break end
    ok, err = command.look(self, group.count > 0 and "rcpt" or "data")
    if ok then ok, err = envelope.queue(self, one, false) end
    if not ok then return nil, err end
  end
  one.ready = one.plan.terms.chunks or one.open or false
  return true
end

--- The error for a message that the server refused before its content.
function envelope.refusal(self, one)
  local stage, reply = "data", one.data
  if one.refused then
    stage, reply = "mail", one.refused
  elseif envelope.is_refused(one) then
    stage, reply = "rcpt", one.rejected[1]
  end
  if one.open and #one.accepted > 0 then
    -- MAIL was refused and RCPT not: these would get an empty message
    state.kill(self, { kind = "rejected", stage = stage, reason = errors.reply_line(reply) })
  elseif one.open then
    content.send(self, "", one) -- what it says to none at all is no news
  end
  if command.class(reply) < 4 then return command.expect(self, stage, reply, 4) end
  local temporary = command.class(reply) == 4
  if stage == "rcpt" then temporary = receipts.may_work_later(one.rejected, one.mail) end
  return command.fail(self, stage, "rejected", nil, { code = reply.code, enhanced = reply.enhanced, text = reply.text,
    temporary = temporary,
    -- after a refused MAIL the answers to RCPT say nothing about the recipients
    rejected = stage ~= "mail" and #one.rejected > 0 and one.rejected or nil })
end

return envelope
