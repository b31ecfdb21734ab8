--- message: a user's table made into one message: its envelope, its size, its bytes as often as they are wanted.
--
-- Does: every check of a value that could be wrong, before anything is on the network. Bcc goes to the envelope alone.
-- Never: keeps an attachment in memory, changes the caller's table, speaks to a network.
-- Called by: client/send. RFC 5322 3.6, RFC 5321 2.3.1, RFC 2046, RFC 6531, RFC 2156 (Importance, Priority).

local check = require "smtp.check"
local core = require "smtp.core"
local date = require "smtp.mail.date"
local encoded_word = require "smtp.mail.encoded_word"
local errors = require "smtp.errors"
local file = require "smtp.mail.file"
local finished = require "smtp.mail.finished"
local header = require "smtp.mail.header"
local id = require "smtp.mail.id"
local list_fields = require "smtp.mail.list"
local mime = require "smtp.mail.mime"
local people = require "smtp.mail.people"
local refusal = require "smtp.mail.refusal"
local source = require "smtp.mail.source"

local message = {}

local refuse, need, field_of, try = refusal.refuse, refusal.need, refusal.field, refusal.try

---@class smtp.Message
---@field id string|nil "<…@…>"; nil for `raw` where none was found
---@field envelope {from: string, to: string[]} what MAIL and RCPT name; from is "" for the null reverse path. Made when
--- it is asked for: the caller's, who may change it between two sends
---@field from string the same two as they were checked last, and
---@field to string[] what goes out: nobody changes these
---@field utf8 boolean an address needs SMTPUTF8 (for `raw`: one of the envelope)
---@field partial boolean|nil the option, for the delivery; it and the next may be changed like the envelope
---@field on_progress nil|false|fun(sent: integer, total: integer|nil) the option, for the delivery: octets that the
--- transport has taken, before dot-stuffing; called after each block and when all is out. What it raises ends the
--- connection and is raised by send. It must not yield (a task would take that for a wait of its own)
local Message = {}
-- By what metatable a message is one: a class of the caller's may have an __eq.
local IS_MESSAGE = { [Message] = true }

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

-- The fields that the options priority and list write, and which those are: lower-case -> the option.
local function option_fields(fields)
  local out, written = {}, {}
  local function add(option, label, name, field, why)
    out[#out + 1] = field_of(label, name, field, why)
    written[lower(name)] = option
  end
  if fields.priority ~= nil then
    local three = need("priority", PRIORITIES[fields.priority], 'must be "high", "normal" or "low"')
    for _, pair in ipairs(three) do
      add("priority", "priority", pair[1], header.field(pair[1], pair[2]))
    end
  end
  for _, key in ipairs(fields.list and list_fields.KEYS or {}) do
    if fields.list[key] then
      add("list", "list." .. key, list_fields.NAMES[key], list_fields.field(fields.list, key))
    end
  end
  return table.concat(out), written
end

local function user_fields(headers, written)
  local out = {}
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

-- A field of message identifiers, "" where the option is not given.
local function id_field(option, name, value)
  if value == nil then
    return ""
  end
  return field_of(option, name, header.field(name, table.concat(need(option, id.list(value)), " ")))
end

-- The Date field, nil and a reason where it is no time. In a batch many messages have the same.
local last_time, last_field
local function date_field(time)
  if time ~= last_time then
    local written, why = date.format(time)
    if not written then
      return nil, why
    end
    last_time, last_field = time, header.field("Date", written)
  end
  return last_field
end

-- The header that all forms share, from Date to the user's own fields.
local function head_of(fields, message_id, people_fields)
  local own, written = "", nil
  local head = need("date", date_field(fields.date or os.time())) .. people_fields
    .. header.field("Message-ID", message_id)
    .. id_field("in_reply_to", "In-Reply-To", fields.in_reply_to)
    .. id_field("references", "References", fields.references)
    .. (fields.subject ~= nil and field_of("subject", "Subject", header.text("Subject", fields.subject)) or "")
  if fields.priority ~= nil or fields.list then
    own, written = option_fields(fields)
  end
  local given = fields.headers and user_fields(fields.headers, written or {}) or ""
  return head .. own .. "MIME-Version: 1.0\r\n" .. given
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

-- The single fields of a header.
local function split(head)
  local fields, from = {}, 1
  for after in head:gmatch("\r\n()") do
    if not head:find("^[ \t]", after) then
      fields[#fields + 1], from = head:sub(from, after - 1), after
    end
  end
  return fields
end

-- Behind the header that all forms share come the body's own fields, and its content.
local function lay_out(head, body, form, signatures)
  local laid = body.layout(form)
  local content = source.chain(laid.content)
  if laid.open_ended then
    content = source.chain { content, source.string("\r\n") }
  end
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

local function compose(fields)
  if fields.files == false then
    refuse_files(fields)
  end
  local from, to, utf8, people_fields, head_utf8, sender = people.of(fields)
  local message_id
  if fields.message_id ~= nil then
    message_id = need("message_id", id.parse(fields.message_id))
  else
    message_id = need("message_id", id.message(sender))
  end
  local head = head_of(fields, message_id, people_fields)
  local self = { id = message_id, from = from, to = to, utf8 = utf8 or head_utf8, head_utf8 = head_utf8,
    head = head, text = fields.text, html = fields.html }
  local plain = not (fields.attachments or fields.calendar or fields.dkim)
    and core.body(fields.text, fields.html, core.random(12))
  if plain then
    self.encoding, self.content = "7bit", source.string(head .. plain)
    return self
  end
  self.calendar = fields.calendar and fields.calendar.content
  local body, files = body_of(fields)
  self.body, self.files, self.forms = body, files, {}
  if fields.dkim ~= nil then
    -- what is signed must arrive as it is, and a server on the way may not take 8bit (RFC 6376 5.3): one form for all
    local signed = lay_out(head, body, "7bit", need("dkim", require "smtp.mail.dkim".new(fields.dkim)))
    self.encoding, self.content = signed.encoding, signed.content
  end
  return self
end

-- What a preview shows of a message composed here.
local function view_composed(self)
  local head = self.head or self.content.bytes:match("^.-\r\nMIME%-Version: [^\r]*\r\n")
  local view = { fields = encoded_word.fields(head), attachments = {},
    text = self.text, html = self.html, calendar = self.calendar }
  for i, part in ipairs(self.files or {}) do
    view.attachments[i] = { filename = part.filename, type = part.type, id = part.id, size = part.file.size,
      content = part.file }
  end
  return view
end

local SHOWN = 1048576 -- octets of a finished message in a preview

local function view_raw(self)
  local read, out, size = self.content.open(), {}, 0
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
  local from, to, utf8 = people.of(fields)
  local content, encoding, message_id = finished.read(fields.raw)
  need("raw", content, encoding)
  return { id = message_id, from = from, to = to, utf8 = utf8, encoding = encoding, content = content, raw = true }
end

-- The message as it goes out, with what its caller's envelope says: what becomes of that later changes nothing here.
local function fix(self, envelope, from, to, utf8)
  local fixed = {}
  for name, value in pairs(self) do
    fixed[name] = value
  end
  fixed.envelope, fixed.fixed = nil, nil
  fixed.seen, fixed.seen_to, fixed.from, fixed.to, fixed.utf8 = envelope, envelope.to, from, to, utf8
  return setmetatable(fixed, Message)
end

-- What is made only where it is asked for; most messages are letters that need none of it.
local PARTS = {
  -- from here on the caller may change it, and what goes out is another table
  envelope = function(self)
    if self.fixed then
      return nil -- it was taken away
    end
    if self.bytes then
      self.content, self.encoding, self.bytes = source.string(self.bytes), "7bit", nil
    end
    local envelope = { from = self.from, to = {} }
    for i, one in ipairs(self.to) do
      envelope.to[i] = one
    end
    self.partial, self.on_progress = self.partial ~= false, self.on_progress or false
    self.fixed = fix(self, envelope, self.from, self.to, self.utf8)
    return envelope
  end,
  content = function(self)
    return self.bytes and source.string(self.bytes)
  end,
  encoding = function(self)
    return self.bytes and "7bit"
  end,
}

function Message:__index(key)
  local make = PARTS[key]
  if not make then
    return Message[key]
  end
  local part = make(self)
  rawset(self, key, part)
  return part
end

-- The same, with what the caller has made of it since.
local function fix_again(self)
  local from, to, utf8 = people.of_envelope(self.envelope)
  if self.on_progress and type(self.on_progress) ~= "function" then
    refuse("on_progress: must be a function, not " .. type(self.on_progress))
  end
  local fixed = fix(self.fixed, self.envelope, from, to, utf8 or self.head_utf8 or false)
  fixed.partial, fixed.on_progress = self.partial, self.on_progress
  return fixed
end

--- How many random octets a letter needs: of its Message-ID and of a boundary.
message.SEED = 28

--- The message that most are, made in one step: text or html or both, with people and a subject, all of it plain ASCII
--- and short. What it makes is what new() makes, and has in itself what its plan takes: from, to, bytes.
---@param fields table message options
---@param random? string has as many random octets as SEED says,
---@param at? integer behind so many others
---@return smtp.Message|nil nil: not that simple, or not right
function message.letter(fields, random, at)
  random = random or core.random(message.SEED)
  local message_id, from, to, bytes = core.letter(fields, date_field(os.time()), random, at)
  if message_id then
    return setmetatable({
      id = message_id, from = from, to = to, bytes = bytes, utf8 = false, text = fields.text, html = fields.html,
    }, Message)
  end
end

--- Composes a message. Never yields; opens `path` attachments only to look at them.
---@param fields table message options: from, sender, to, cc, bcc, reply_to, subject, text, html, attachments, calendar,
--- headers, date, message_id, in_reply_to, references, priority, list, dkim, envelope, raw, files; not changed. A field
--- that another option always writes cannot be in `headers`, and one of `priority` or `list` cannot where that option
--- writes it too
---@return smtp.Message|nil
---@return smtp.Error|nil err kind "input" ("source": an attachment to sign cannot be read), stage "compose"; the reason
--- begins with the option's name
function message.new(fields)
  local composed, err = try(fields.raw ~= nil and wrap or compose, fields)
  return composed and setmetatable(composed, Message), err
end

--- Whether a value is a message.
---@return boolean
function message.is(value)
  return IS_MESSAGE[getmetatable(value)] or false
end

--- A message as it goes out now, by the envelope that its caller has made of it: the same table as long as that is the
--- same. Whatever happens to the message afterwards, this stays as it is.
---@param self any
---@return smtp.Message|nil nil without an error: it is no message
---@return smtp.Error|nil err kind "input": the envelope cannot be used
function message.outgoing(self)
  if not IS_MESSAGE[getmetatable(self)] then
    return nil
  end
  local fixed = self.fixed
  if not fixed then -- nobody has seen its envelope
    return self
  end
  if not (core.is_envelope(self.envelope, fixed.seen, fixed.from, fixed.seen_to, fixed.to)
    and self.partial == fixed.partial and self.on_progress == fixed.on_progress) then
    local err
    fixed, err = try(fix_again, self)
    if not fixed then
      return nil, err
    end
    self.fixed, self.utf8 = fixed, fixed.utf8
  end
  return fixed
end

--- The message in the form that suits a server: text beyond ASCII goes as it is where the server takes 8bit,
--- attachments where it takes binary. Made once for each form.
---@param form "7bit"|"8bit"|"binary" the most that the server takes
---@return table laid `content` (a source) and `encoding`, the least of the three that carries it; it is more than was
--- asked for where a message is given or attached that has 8-bit text, and nil for a raw function
function Message:form(form)
  if self.content then -- the same in every form
    return self
  end
  local laid = self.forms[form]
  if not laid then
    laid = lay_out(self.head, self.body, form)
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

--- Whether it can be read from its start: a function in it that was read before may be at its end. May yield where that
--- does.
---@return true|nil
---@return smtp.Error|nil err kind "source"
function Message:again()
  -- whichever form it was read in, the functions are the same
  local laid = self.content and self or self.forms and select(2, next(self.forms))
  local again = laid and laid.content.again
  if not again then
    return true
  end
  return again()
end

--- The message from its start, with CRLF line ends: files are opened anew.
---@param form? "7bit"|"8bit"|"binary" default the one that every server takes
---@return fun(): string|nil, smtp.Error|nil read a chunk, never ""; nil at the end; nil and an error of kind "source"
---@return fun() close for who does not read to the end: closes the file that is open then
function Message:source(form)
  local read, close = self:form(form or "7bit").content.open()
  return function()
    local chunk, err = read()
    return chunk, errors.apart(err)
  end, close
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
    check.raise(("message:%s: expected a path, got %s"):format(label, type(path)))
  end
end

--- Writes the whole message to a file (.eml), with CRLF line ends, piece by piece: memory does not grow with it. It is
--- written under a name beside `path` and renamed when complete: a failure leaves nothing and an older file as it was.
---@param path string
---@return true|nil
---@return smtp.Error|nil err stage "compose"; kind "source": the message cannot be read; "input": cannot write there
function Message:save(path)
  check_path(path, "save")
  local written, err = file.write(path, "save", self:source())
  return written, errors.apart(err)
end

--- Writes one HTML page that shows the message as a person would see it: header, html with its inline images, text,
--- attachments with type and size; of a `raw` message its source. Nothing in it runs or is loaded from elsewhere.
--- Written as save() writes. A `source` function of an image shown, or of `raw`, is read for it.
---@param path string
---@return true|nil
---@return smtp.Error|nil err stage "compose"; kind "source": an attachment cannot be read; "input": cannot write there
function Message:preview(path)
  check_path(path, "preview")
  local view, err = (self.raw and view_raw or view_composed)(self)
  local written
  if view then
    written, err = file.write(path, "preview", require "smtp.mail.preview".page(view))
  else
    err = errors.new { kind = "source", stage = "compose", reason = err.reason, temporary = false }
  end
  return written, errors.apart(err)
end

check.methods(Message, "message")

return message
