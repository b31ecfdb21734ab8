--- compose: a user's table made into what goes out: header, body and signatures, laid out for what a server takes.
---
--- Does: every check of a value that could be wrong, before anything is on the network. Bcc goes to the envelope alone.
--- Never: keeps an attachment in memory, changes the caller's table. What it refuses is raised, see refusal.
--- Called by: message.
--- RFC 5322 3.6, RFC 2046, RFC 6531, RFC 2156 (Importance, Priority).
local core = require "smtp.core"
local date = require "smtp.mail.date"
local finished = require "smtp.mail.finished"
local header = require "smtp.mail.header"
local id = require "smtp.mail.id"
local list_fields = require "smtp.mail.list"
local mime = require "smtp.mail.mime"
local people = require "smtp.mail.people"
local refusal = require "smtp.mail.refusal"
local source = require "smtp.mail.source"
local text = require "smtp.mail.text"

local compose = {}

local refuse, need, field_of = refusal.refuse, refusal.need, refusal.field

---@class smtp.Composed
---@field id string? "<…@…>"
---@field from string
---@field to string[]
---@field utf8 boolean
---@field head_utf8 boolean? an address of the header needs SMTPUTF8
---@field content smtp.source? where it is the same in every form: then also
---@field encoding "7bit"|"8bit"|nil
---@field forms table? else: what it is in the forms it has been laid out in, made of
---@field head string and
---@field body table a part, see mime
---@field text string? what a preview shows of it, as the next four
---@field html string?
---@field calendar string?
---@field files table[]? parts
---@field raw boolean? it came finished

-- The fields that have an option, lower-case -> the option.
local OWN = {
  from = "from", sender = "sender", ["reply-to"] = "reply_to", to = "to", cc = "cc", bcc = "bcc", subject = "subject",
  date = "date", ["message-id"] = "message_id", ["in-reply-to"] = "in_reply_to", references = "references",
  ["mime-version"] = "text, html or attachments",
}

-- What composing makes, and a finished message already holds.
local COMPOSED = {
  "subject", "text", "html", "attachments", "headers", "date", "message_id", "in_reply_to", "references", "reply_to",
  "priority", "list", "calendar", "dkim",
}

-- No one field is read everywhere, so each of the three forms in use is written.
local PRIORITIES = {
  high = { { "X-Priority", "1 (Highest)" }, { "Importance", "high" }, { "Priority", "urgent" } },
  normal = {},
  low = { { "X-Priority", "5 (Lowest)" }, { "Importance", "low" }, { "Priority", "non-urgent" } },
}

-- A table that comes from outside must not name what is read here.
local function refuse_files(fields)
  local function look(label, list, option)
    for i, one in ipairs(list) do
      if type(one) == "table" and one[option] ~= nil then
        refuse(("%s: %s: is not allowed by files = false"):format(label:format(i), option))
      end
    end
  end
  local dkim = fields.dkim
  look("attachments[%d]", fields.attachments or {}, "path")
  look("dkim", dkim and dkim[1] == nil and { dkim } or dkim or {}, "key_file")
end

-- A field of message identifiers.
local function id_field(option, name, value)
  return field_of(option, name, header.field(name, table.concat(need(option, id.list(value)), " ")))
end

-- The fields that the options priority and list write, and which those are: lower-case -> the option.
local function option_fields(fields)
  local out, written = {}, {}
  local function add(option, label, name, field, why)
    out[#out + 1] = field_of(label, name, field, why)
    written[text.lower(name)] = option
  end
  if fields.priority ~= nil then
    local three = need("priority", PRIORITIES[fields.priority], 'must be "high", "normal" or "low"')
    for _, pair in ipairs(three) do add("priority", "priority", pair[1], header.field(pair[1], pair[2])) end
  end
  for _, key in ipairs(fields.list and list_fields.KEYS or {}) do
    if fields.list[key] then
      add("list", "list." .. key, list_fields.NAMES[key], list_fields.field(fields.list, key))
    end
  end
  return table.concat(out), written
end

-- The user's own fields as a list of {name, value}; a table by name comes in sorted order.
local function pairs_of(headers)
  if headers[1] ~= nil then return headers end
  local names, list = {}, {}
  for name in pairs(headers) do names[#names + 1] = tostring(name) end
  table.sort(names)
  for i, name in ipairs(names) do list[i] = { name, headers[name] } end
  return list
end

local function user_fields(headers, written)
  local out = {}
  for i, pair in ipairs(pairs_of(headers)) do
    local name, value = nil, nil
    if type(pair) == "table" then name, value = pair[1], pair[2] end
    if type(name) ~= "string" then refuse(("headers: item %d must be a pair of name and value"):format(i)) end
    local key = text.lower(name)
    local option = OWN[key] or written[key] or (key:find("^content%-") and "text, html or attachments")
    if option then refuse(("headers: %s is written by the option %s"):format(name, option)) end
    if type(value) == "number" then
      if value - value ~= 0 then -- NaN or infinite
        refuse(("headers: %s is no finite number"):format(name))
      end
      value = tostring(value)
    end
    out[i] = need("headers", header.text(name, value))
  end
  return table.concat(out)
end

-- The header that all forms share, from Date to the user's own fields.
local function head_of(fields, message_id, named)
  local when = need("date", date.field(fields.date or os.time()))
  local answered, before, subject, own, given, written = "", "", "", "", "", nil
  if fields.in_reply_to ~= nil then answered = id_field("in_reply_to", "In-Reply-To", fields.in_reply_to) end
  if fields.references ~= nil then before = id_field("references", "References", fields.references) end
  if fields.subject ~= nil then subject = field_of("subject", "Subject", header.text("Subject", fields.subject)) end
  if fields.priority ~= nil or fields.list then own, written = option_fields(fields) end
  if fields.headers then given = user_fields(fields.headers, written or {}) end
  return when .. named .. "Message-ID: " .. message_id .. "\r\n" .. answered .. before .. subject .. own
    .. "MIME-Version: 1.0\r\n" .. given
end

-- The body, and the files in it.
local function body_of(fields)
  local part, related, mixed, alternatives, files = nil, {}, {}, {}, {}
  for i, spec in ipairs(fields.attachments or {}) do
    local label = ("attachments[%d]"):format(i)
    local attached = need(label, mime.attachment(spec, label))
    local list = attached.id and fields.html and related or mixed
    list[#list + 1] = attached
    files[i] = attached
  end
  if fields.html then
    part = need("html", mime.text("html", fields.html))
    if #related > 0 then
      table.insert(related, 1, part)
      part = need("html", mime.multipart("related", related))
    end
  end
  local invitation
  if fields.calendar then
    local attached
    invitation, attached = mime.calendar(fields.calendar)
    mixed[#mixed + 1] = need("calendar", invitation, attached) and attached
    files[#files + 1] = attached
  end
  if fields.text or (not part and #mixed == 0) then
    alternatives[1] = need("text", mime.text("plain", fields.text or ""))
  end
  alternatives[#alternatives + 1] = part
  alternatives[#alternatives + 1] = invitation
  part = alternatives[1]
  if #alternatives > 1 then part = need("text", mime.multipart("alternative", alternatives)) end
  if #mixed > 0 then
    if part then table.insert(mixed, 1, part) end
    part = need("attachments", mime.multipart("mixed", mixed))
  end
  return part, files
end

-- The single fields of a header.
local function split(head)
  local fields, from = {}, 1
  for after in head:gmatch("\r\n()") do
    if not head:find("^[ \t]", after) then fields[#fields + 1], from = head:sub(from, after - 1), after end
  end
  return fields
end

--- A message laid out in a form: behind the header that all forms share come the body's own fields, and its content.
---@param head string
---@param body table a part, see mime
---@param form "7bit"|"8bit"|"binary"
---@param signatures table? see dkim
---@return { encoding: string, content: smtp.source }
function compose.lay_out(head, body, form, signatures)
  local laid = body.layout(form)
  local content = source.chain(laid.content)
  if laid.open_ended then content = source.chain { content, source.string("\r\n") } end
  head = head .. table.concat(laid.fields)
  if signatures then
    local signed, why = require "smtp.mail.dkim".fields(signatures, split(head), content, os.time())
    if not signed then
      refuse("dkim: " .. (type(why) == "table" and why.reason or why), type(why) == "table" and "source")
    end
    head = table.concat(signed) .. head
  end
  return { encoding = laid.encoding, content = source.chain { source.string(head .. "\r\n"), content } }
end

--- A message out of its parts.
---@param fields table message options
---@return smtp.Composed
function compose.parts(fields)
  if fields.files == false then refuse_files(fields) end
  local from, to, utf8, named, head_utf8, sender = people.of(fields)
  local message_id
  if fields.message_id ~= nil then
    message_id = need("message_id", id.parse(fields.message_id))
  else
    message_id = need("message_id", id.message(sender))
  end
  local head = head_of(fields, message_id, named)

  local whole = not (fields.attachments or fields.calendar or fields.dkim)
    and core.body(head, fields.text, fields.html, fields.text and fields.html and core.random(12))
  if whole then
    return { id = message_id, from = from, to = to, utf8 = utf8 or head_utf8, head_utf8 = head_utf8, encoding = "7bit",
      content = source.string(whole), text = fields.text, html = fields.html }
  end
  local body, files = body_of(fields)
  local composed = { id = message_id, from = from, to = to, utf8 = utf8 or head_utf8, head_utf8 = head_utf8,
    head = head, body = body, forms = {}, text = fields.text, html = fields.html, files = files,
    calendar = fields.calendar and fields.calendar.content }
  if fields.dkim ~= nil then
    -- what is signed must arrive as it is, and a server on the way may not take 8bit (RFC 6376 5.3): one form for all
    local signed = compose.lay_out(head, body, "7bit", need("dkim", require "smtp.mail.dkim".new(fields.dkim)))
    composed.encoding, composed.content = signed.encoding, signed.content
  end
  return composed
end

--- A message that came finished, as `raw`.
---@param fields table message options
---@return smtp.Composed
function compose.raw(fields)
  for _, option in ipairs(COMPOSED) do
    if fields[option] ~= nil then refuse(option .. ": cannot go with raw, which is a finished message") end
  end
  local from, to, utf8 = people.of(fields)
  local content, encoding, message_id = finished.read(fields.raw)
  need("raw", content, encoding)
  return { id = message_id, from = from, to = to, utf8 = utf8, encoding = encoding, content = content, raw = true }
end

return compose
