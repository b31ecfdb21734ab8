--- people: whom a message names, in its header and in its envelope.
---
--- Does: every check of these options. What it refuses is raised, see refusal.
--- Called by: compose, message.
--- RFC 5322 3.6.2 and 3.6.3, RFC 5321 4.1.1.2 and 4.1.1.3.
local address = require "smtp.mail.address"
local check = require "smtp.check"
local core = require "smtp.core"
local header = require "smtp.mail.header"
local refusal = require "smtp.mail.refusal"

local people = {}

local refuse, need, field_of = refusal.refuse, refusal.need, refusal.field

-- What an option says of people: their header field, "" where there are none; a list of their addresses, nil where the
-- option is not given; whether one of these needs SMTPUTF8.
local function several(option, name, value, parse)
  if value == nil then return "" end
  local field, first, list = core.mailboxes(name, value)
  if field then return field, list or { first }, false end
  local boxes = need(option, parse(value))
  local addresses, utf8 = {}, false
  for i, box in ipairs(boxes) do
    addresses[i], utf8 = box.address, utf8 or box.utf8 or false
  end
  return #boxes.items > 0 and field_of(option, name, header.addresses(name, boxes)) or "", addresses, utf8
end

-- The same of one mailbox: its field, its address and whether that needs SMTPUTF8.
local function person(option, name, value)
  if value == nil then return "" end
  local field, one, list = core.mailboxes(name, value)
  if field and not list then return field, one, false end
  local box = need(option, address.mailbox(value))
  return field_of(option, name, header.addresses(name, { box })), box.address, box.utf8 or false
end

local function join(...)
  local all = {}
  for i = 1, 3 do
    for _, one in ipairs((select(i, ...)) or {}) do
      all[#all + 1] = one
    end
  end
  return all
end

-- The sender that an envelope names, and whether its address needs SMTPUTF8.
local function origin_of(envelope)
  if envelope.from == "" or envelope.from == "<>" then -- the null reverse path (RFC 5321 4.5.5)
    return "", false
  end
  local _, origin, utf8 = person("envelope.from", "From", envelope.from)
  return origin, utf8
end

-- Its recipients, and whether one of their addresses needs SMTPUTF8.
local function recipients_of(envelope)
  local _, to, utf8 = several("envelope.to", "To", envelope.to, address.mailboxes)
  return to, utf8
end

-- Recipients, each once. `given`: the envelope names them.
local function distinct(to, given)
  if #to == 0 then
    refuse(given and "envelope.to: no recipient" or "to: no recipient in to, cc or bcc")
  elseif #to > 1 then
    core.distinct(to)
  end
  return to
end

--- Everyone a message names: whose envelope it is, its recipients, whether one of these needs SMTPUTF8; the fields From
-- to Cc, and whether one of those does; who sends it.
function people.of(fields)
  local from_field, from, from_utf8 = person("from", "From", fields.from)
  local sender_field, sender, sender_utf8 = person("sender", "Sender", fields.sender)
  local reply_field, _, reply_utf8 = several("reply_to", "Reply-To", fields.reply_to, address.list)
  local to_field, to, to_utf8 = several("to", "To", fields.to, address.list)
  local cc_field, cc, cc_utf8 = several("cc", "Cc", fields.cc, address.list)
  local _, bcc, bcc_utf8 = several("bcc", "Bcc", fields.bcc, address.hidden)
  if not from and fields.raw == nil then refuse("from: the author's address is missing") end
  local head = from_field .. sender_field .. reply_field .. to_field .. cc_field
  local head_utf8 = from_utf8 or sender_utf8 or reply_utf8 or to_utf8 or cc_utf8 or false
  if not sender then sender, sender_utf8 = from, from_utf8 end

  local given = fields.envelope or {}
  local origin, utf8 = sender, sender_utf8
  if given.from ~= nil then
    origin, utf8 = origin_of(given)
  elseif not origin then
    refuse("from: the sender's address is missing")
  end
  if given.to ~= nil then
    to, to_utf8 = recipients_of(given)
    utf8 = utf8 or to_utf8
  else
    utf8 = utf8 or to_utf8 or cc_utf8 or bcc_utf8 or false
    if cc or bcc or not to then to = join(to, cc, bcc) end
  end
  return origin, distinct(to, given.to), utf8, head, head_utf8, sender
end

-- What a metatable adds to a table has not been looked at.
local function check_plain(label, value)
  local reason = check.flaw(value)
  if reason then refuse(label .. ": " .. reason) end
end

-- Behind a hole of a list nothing would be seen.
local function check_list(label, list)
  check_plain(label, list)
  local last, count = type(list) == "table" and #list or 0, 0
  for key, one in next, last > 0 and list or {} do
    count = count + 1
    check_plain(("%s[%s]"):format(label, tostring(key)), one)
    if type(key) ~= "number" then refuse(("%s: is a list, %q is no number in it"):format(label, tostring(key))) end
  end
  if count ~= last then refuse(label .. ": is a list with a hole in it") end
end

--- What an envelope says that its owner may have changed, checked as the option is.
---@return string from
---@return string[] to
---@return boolean? utf8 one of these needs SMTPUTF8
function people.of_envelope(envelope)
  if type(envelope) ~= "table" then refuse("envelope: must be a table with from and to, not " .. type(envelope)) end
  check_plain("envelope", envelope)
  check_plain("envelope.from", envelope.from)
  for name in next, envelope do
    if name ~= "from" and name ~= "to" then refuse(("envelope: has from and to, not %q"):format(tostring(name))) end
  end
  check_list("envelope.to", envelope.to)
  if envelope.from == nil then
    refuse('envelope.from: the sender\'s address is missing; "" is the null reverse path')
  elseif envelope.to == nil then
    refuse("envelope.to: no recipient")
  end
  local from, utf8 = origin_of(envelope)
  local to, to_utf8 = recipients_of(envelope)
  return from, distinct(to, true), utf8 or to_utf8
end

return people
