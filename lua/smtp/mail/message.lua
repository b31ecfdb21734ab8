--- message: a user's table made into one message: its envelope, its size, its bytes as often as they are wanted.
--
-- Does: every check of a value that could be wrong, before anything is on the network. Bcc goes to the envelope alone.
-- Never: keeps an attachment in memory, changes the caller's table, speaks to a network.
-- Called by: delivery. RFC 5322 3.6, RFC 5321 2.3.1, RFC 2046, RFC 6531, RFC 2156 (Importance, Priority).

local address = require "smtp.mail.address"
local date = require "smtp.mail.date"
local dkim = require "smtp.mail.dkim"
local encoded_word = require "smtp.mail.encoded_word"
local errors = require "smtp.errors"
local file = require "smtp.mail.file"
local header = require "smtp.mail.header"
local id = require "smtp.mail.id"
local list_fields = require "smtp.mail.list"
local mime = require "smtp.mail.mime"
local preview = require "smtp.mail.preview"
local source = require "smtp.mail.source"

local message = {}

---@class smtp.Message
---@field id string|nil "<…@…>"; nil for `raw` where none was found
---@field envelope {from: string, to: string[]} what MAIL and RCPT name; from is "" for the null reverse path
---@field utf8 boolean an address needs SMTPUTF8 (for `raw`: one of the envelope)
---@field partial boolean|nil the option, for the delivery
---@field on_progress nil|fun(sent: integer, total: integer|nil) the option, for the delivery: octets that the transport
--- has taken, before dot-stuffing; called after each block and when all is out. It must not raise (send would raise it
--- too) and must not yield (a task would take that for a wait of its own; Lua 5.1 may not be able to)
local Message = {}
Message.__index = Message

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

-- Inside this room a value that cannot be sent is raised as a Refusal, so that the checks read as straight lines. It is
-- caught in message.new, where nothing that could yield runs.
local Refusal = {}

local function refuse(reason, kind)
  error(setmetatable({ reason = reason, kind = kind or "input" }, Refusal), 0)
end

-- Passes a result through; refuses with the option's name in front where there is none.
local function need(label, value, why)
  if value == nil then
    refuse(label .. ": " .. why)
  end
  return value
end

local function boxes_of(fields, option)
  if fields[option] == nil then
    return {}
  end
  return need(option, address.list(fields[option]))
end

local function box_of(fields, option)
  if fields[option] ~= nil then
    return need(option, address.mailbox(fields[option]))
  end
end

-- Everyone the message names: what both the envelope and the header are made of.
local function people_of(fields)
  return {
    from = box_of(fields, "from"),
    sender = box_of(fields, "sender"),
    reply_to = boxes_of(fields, "reply_to"),
    to = boxes_of(fields, "to"),
    cc = boxes_of(fields, "cc"),
    bcc = boxes_of(fields, "bcc"),
  }
end

local function envelope_of(fields, people)
  local given = fields.envelope or {}
  local from
  if given.from ~= nil then
    from = need("envelope.from", address.reverse_path(given.from))
  else
    from = people.sender or people.from
    if not from then
      refuse("from: the sender's address is missing")
    end
  end
  local lists = { people.to, people.cc, people.bcc }
  if given.to ~= nil then
    lists = { need("envelope.to", address.mailboxes(given.to)) }
  end
  local to, seen, utf8 = {}, {}, from.utf8 or false
  for _, list in ipairs(lists) do
    for _, box in ipairs(list) do
      local key = address.key(box.address)
      if not seen[key] then
        seen[key] = true
        to[#to + 1] = box.address
        utf8 = utf8 or box.utf8 or false
      end
    end
  end
  if #to == 0 then
    refuse(given.to and "envelope.to: no recipient" or "to: no recipient in to, cc or bcc")
  end
  return { from = from.address, to = to }, utf8
end

local function is_utf8(list)
  for _, box in ipairs(list) do
    if box.utf8 then
      return true
    end
  end
  return false
end

local function lower(name)
  return (name:gsub("[A-Z]", string.lower))
end

-- The user's own fields as a list of {name, value}; a table by name comes in sorted order.
local function pairs_of(headers)
  if headers[1] ~= nil then
    return headers
  end
  local names, list = {}, {}
  for name in pairs(headers) do
    names[#names + 1] = tostring(name)
  end
  table.sort(names)
  for i, name in ipairs(names) do
    list[i] = { name, headers[name] }
  end
  return list
end

-- `written`: fields that an option has written already, lower-case -> the option
local function add_user_fields(out, headers, written)
  for i, pair in ipairs(pairs_of(headers)) do
    local name, value = nil, nil
    if type(pair) == "table" then
      name, value = pair[1], pair[2]
    end
    if type(name) ~= "string" then
      refuse(("headers: item %d must be a pair of name and value"):format(i))
    end
    local key = lower(name)
    local option = OWN[key] or written[key] or (key:find("^content%-") and "text, html or attachments")
    if option then
      refuse(("headers: %s is written by the option %s"):format(name, option))
    end
    out[#out + 1] = need("headers", header.text(name, type(value) == "number" and tostring(value) or value))
  end
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
  if #alternatives > 1 then
    part = need("text", mime.multipart("alternative", alternatives))
  end
  if #mixed > 0 then
    if part then
      table.insert(mixed, 1, part)
    end
    part = need("attachments", mime.multipart("mixed", mixed))
  end
  return part, files
end

-- The header that all forms share is in `out`; the body's own fields and content follow it.
local function lay_out(out, body, form, signatures)
  local laid = body.layout(form)
  local content = source.chain(laid.content)
  if laid.open_ended then
    content = source.chain { content, source.string("\r\n") }
  end
  local head = table.concat(out) .. table.concat(laid.fields)
  if signatures then
    local fields = {}
    for _, list in ipairs { out, laid.fields } do
      for _, field in ipairs(list) do
        fields[#fields + 1] = field
      end
    end
    local signed, why = dkim.fields(signatures, fields, content, os.time())
    if not signed then
      refuse("dkim: " .. (type(why) == "table" and why.reason or why), type(why) == "table" and "source")
    end
    head = table.concat(signed) .. head
  end
  return { encoding = laid.encoding, content = source.chain { source.string(head .. "\r\n"), content } }
end

local function compose(fields)
  local people = people_of(fields)
  if not people.from then
    refuse("from: the author's address is missing")
  end
  local envelope, utf8 = envelope_of(fields, people)
  local message_id
  if fields.message_id ~= nil then
    message_id = need("message_id", id.parse(fields.message_id))
  else
    message_id = need("message_id", id.message((people.sender or people.from).address))
  end

  local out = {}
  local function add(label, field, why)
    out[#out + 1] = need(label, field, why)
  end
  local function add_people(name, option, list)
    if #(list.items or list) > 0 then
      add(option, header.addresses(name, list))
      utf8 = utf8 or is_utf8(list)
    end
  end
  local function add_ids(name, option)
    if fields[option] ~= nil then
      local ids = need(option, id.list(fields[option]))
      add(option, header.field(name, table.concat(ids, " ")))
    end
  end
  add("date", header.field("Date", need("date", date.format(fields.date or os.time()))))
  add_people("From", "from", { people.from })
  add_people("Sender", "sender", { people.sender })
  add_people("Reply-To", "reply_to", people.reply_to)
  add_people("To", "to", people.to)
  add_people("Cc", "cc", people.cc)
  add("message_id", header.field("Message-ID", message_id))
  add_ids("In-Reply-To", "in_reply_to")
  add_ids("References", "references")
  if fields.subject ~= nil then
    add("subject", header.text("Subject", fields.subject))
  end
  local written = {}
  local function add_written(option, label, name, field, why)
    add(label, field, why)
    written[lower(name)] = option
  end
  if fields.priority ~= nil then
    local three = need("priority", PRIORITIES[fields.priority], 'must be "high", "normal" or "low"')
    for _, pair in ipairs(three) do
      add_written("priority", "priority", pair[1], header.field(pair[1], pair[2]))
    end
  end
  for _, key in ipairs(fields.list and list_fields.KEYS or {}) do
    if fields.list[key] then
      add_written("list", "list." .. key, list_fields.NAMES[key], list_fields.field(fields.list, key))
    end
  end
  add("headers", header.field("MIME-Version", "1.0"))
  add_user_fields(out, fields.headers or {}, written)

  local body, files = body_of(fields)
  local self = {
    id = message_id, envelope = envelope, utf8 = utf8, forms = {},
    lay_out = function(form) return lay_out(out, body, form) end,
    view = function()
      local view = {
        fields = encoded_word.fields(table.concat(out)), attachments = {},
        text = fields.text, html = fields.html, calendar = fields.calendar and fields.calendar.content,
      }
      for i, file_part in ipairs(files) do
        view.attachments[i] = { filename = file_part.filename, type = file_part.type, id = file_part.id,
          size = file_part.file.size, content = file_part.file }
      end
      return view
    end,
  }
  if fields.dkim ~= nil then
    -- what is signed must arrive as it is, and a server on the way may not take 8bit (RFC 6376 5.3): one form for all
    local signed = lay_out(out, body, "7bit", need("dkim", dkim.new(fields.dkim)))
    self.lay_out = function() return signed end
  end
  return self
end

-- The Message-ID of a finished message: looked for in its header alone.
local function find_id(raw)
  local stop = raw:find("\r?\n\r?\n") or #raw
  local head = "\n" .. raw:sub(1, stop)
  return head:match("\n[Mm][Ee][Ss][Ss][Aa][Gg][Ee]%-[Ii][Dd]:[ \t\r\n]*(<[\33-\59\61\63-\126]+>)")
end

local SHOWN = 1048576 -- octets of a finished message in a preview

local function view_raw(content)
  local read, out, size = content.open(), {}, 0
  while true do
    local chunk, err = read()
    if err then
      return nil, err
    elseif not chunk then
      local raw = table.concat(out):sub(1, SHOWN)
      return { fields = encoded_word.fields(raw), raw = raw }
    elseif size < SHOWN then
      out[#out + 1], size = chunk, size + #chunk
    end
  end
end

local function wrap(fields)
  for _, option in ipairs(COMPOSED) do
    if fields[option] ~= nil then
      refuse(option .. ": cannot go with raw, which is a finished message")
    end
  end
  local raw = fields.raw
  local envelope, utf8 = envelope_of(fields, people_of(fields))
  local content, encoding
  if type(raw) == "string" then
    content = source.text(raw)
    encoding = raw:find("[\128-\255]") and "8bit" or "7bit"
  else
    content = source.crlf(source.call(raw, nil, "raw"))
  end
  return {
    id = encoding and find_id(raw), envelope = envelope, utf8 = utf8, forms = {},
    lay_out = function() return { encoding = encoding, content = content } end,
    view = function() return view_raw(content) end,
  }
end

--- Composes a message. Never yields; opens `path` attachments only to look at them.
---@param fields table message options: from, sender, to, cc, bcc, reply_to, subject, text, html, attachments, calendar,
--- headers, date, message_id, in_reply_to, references, priority, list, dkim, envelope, raw; not changed. A field that
--- another option always writes cannot be in `headers`, and one of `priority` or `list` cannot where that option writes
--- it too
---@return smtp.Message|nil
---@return smtp.Error|nil err kind "input" ("source": an attachment to sign cannot be read), stage "compose"; the reason
--- begins with the option's name
function message.new(fields)
  local fine, result = pcall(fields.raw ~= nil and wrap or compose, fields)
  if fine then
    return setmetatable(result, Message)
  elseif getmetatable(result) == Refusal then
    return nil, errors.new {
      kind = result.kind, stage = "compose", outcome = "not_sent", temporary = false, reason = result.reason,
    }
  end
  error(result, 0)
end

--- The message in the form that suits a server: text beyond ASCII goes as it is where the server takes 8bit,
--- attachments where it takes binary. Made once for each form.
---@param form "7bit"|"8bit"|"binary" the most that the server takes
---@return table laid `content` (a source) and `encoding`, the least of the three that carries it; it is more than was
--- asked for where a message is given or attached that has 8-bit text, and nil for a raw function
function Message:form(form)
  local laid = self.forms[form]
  if not laid then
    laid = self.lay_out(form)
    self.forms[form] = laid
  end
  return laid
end

--- Exact octets with CRLF line ends, before dot-stuffing; nil when not known before the end (a function without size).
---@param form? "7bit"|"8bit"|"binary" default the one that every server takes
---@return integer|nil
function Message:size(form)
  return self:form(form or "7bit").content.size
end

--- The message from its start, with CRLF line ends: files are opened anew.
---@param form? "7bit"|"8bit"|"binary" default the one that every server takes
---@return fun(): string|nil, smtp.Error|nil read a chunk, never ""; nil at the end; nil and an error of kind "source"
function Message:source(form)
  return self:form(form or "7bit").content.open()
end

--- The whole message in memory, with CRLF line ends, before dot-stuffing.
---@param form? "7bit"|"8bit"|"binary" default the one that every server takes
---@return string|nil
---@return smtp.Error|nil err kind "source"
function Message:tostring(form)
  local read, out = self:source(form), {}
  while true do
    local chunk, err = read()
    if err then
      return nil, err
    elseif not chunk then
      return table.concat(out)
    end
    out[#out + 1] = chunk
  end
end

-- The path of save and preview: anything else is the program's mistake.
local function check_path(path, label)
  if type(path) ~= "string" then
    error(("message:%s: expected a path, got %s"):format(label, type(path)), 3)
  end
end

--- Writes the whole message to a file (.eml), with CRLF line ends, piece by piece: memory does not grow with it. It is
--- written under a name beside `path` and renamed when complete: a failure leaves nothing and an older file as it was.
---@param path string
---@return true|nil
---@return smtp.Error|nil err stage "compose"; kind "source": the message cannot be read; "input": cannot write there
function Message:save(path)
  check_path(path, "save")
  return file.write(path, self:source(), "save")
end

--- Writes one HTML page that shows the message as a person would see it: header, html with its inline images, text,
--- attachments with type and size; of a `raw` message its source. Nothing in it runs or is loaded from elsewhere.
--- Written as save() writes. A `source` function of an image shown, or of `raw`, is read for it.
---@param path string
---@return true|nil
---@return smtp.Error|nil err stage "compose"; kind "source": an attachment cannot be read; "input": cannot write there
function Message:preview(path)
  check_path(path, "preview")
  local view, err = self.view()
  if not view then
    return nil, errors.new { kind = "source", stage = "compose", reason = err.reason, temporary = false }
  end
  return file.write(path, preview.page(view), "preview")
end

return message
