--- message: one message: its envelope, its size, its bytes as often as they are wanted, what it asks of its delivery.
---
--- Does: keeps what goes out apart from what its owner has made of it since. Its bytes never change.
--- Never: speaks to a network, knows a server.
--- Called by: smtp, client/send and rows.
--- RFC 5321 2.3.1, RFC 6531.
local check = require "smtp.check"
local compose = require "smtp.mail.compose"
local core = require "smtp.core"
local errors = require "smtp.errors"
local save = require "smtp.mail.save"
local letter = require "smtp.mail.letter"
local parameter = require "smtp.protocol.parameter"
local people = require "smtp.mail.people"
local refusal = require "smtp.mail.refusal"
local source = require "smtp.mail.source"

local message = {}

local refuse, try = refusal.refuse, refusal.try

---@class smtp.Message
---@field id string? "<…@…>"; nil for `raw` where none was found
---@field envelope { from: string, to: string[] } what MAIL and RCPT name; from is "" for the null reverse path. The
--- caller's, who may change it between two sends
---@field from string the same two as they were checked last, and
---@field to string[] what goes out: nobody changes these
---@field utf8 boolean an address needs SMTPUTF8 (for `raw`: one of the envelope)
---@field partial boolean? the option, for the delivery; it and the next may be changed like the envelope
---@field on_progress nil|false|fun(sent: integer, total: integer?) the option, for the delivery: octets that the
--- transport has taken, before dot-stuffing; called after each block and when all is out. What it raises ends the
--- connection and is raised by send. It must not yield (a task would take that for a wait of its own)
--
-- Inside it has all of smtp.Composed, and
--   wishes   what its options ask of the servers on the way, see protocol.parameter
--   bytes    the whole message, where it is one piece of ASCII and asks for nothing: sending it takes no closer look
--   fixed    where it has an owner: the message as it went out last, and that has
--   seen     the envelope that it was made by, with
--   seen_to  its list
local Message = {}
Message.__index = Message
-- By what metatable a message is one: a class of the caller's may have an __eq.
local IS_MESSAGE = { [Message] = true }

--- The message that most are, made in one step.
---@param fields table message options, which nobody has looked at
---@return smtp.Message? nil: not that simple, or not right
function message.letter(fields)
  local self = letter.compose(fields)
  return self and setmetatable(self, Message)
end

local function make(fields)
  local wishes, why
  if fields.dsn or fields.require_tls or fields.deliver_by or fields.hold_for or fields.mt_priority then
    wishes, why = parameter.wishes(fields)
    if not wishes then refuse(why) end
  end
  local self = (fields.raw ~= nil and compose.raw or compose.parts)(fields)
  if wishes or fields.on_progress or fields.partial ~= nil then
    self.wishes, self.partial, self.on_progress = wishes, fields.partial, fields.on_progress
  elseif self.encoding == "7bit" and not self.utf8 then
    self.bytes = self.content.bytes
  end
  return self
end

--- Composes a message that goes out as it is. Never yields; opens `path` attachments only to look at them.
---@param fields table message options, not changed. A field that another option always writes cannot be in `headers`,
--- and one of `priority` or `list` cannot where that option writes it too
---@return smtp.Message?
---@return smtp.Error? err kind "input" ("source": an attachment to sign cannot be read), stage "compose"; the reason
--- begins with the option's name
function message.compose(fields)
  local self, err = try(make, fields)
  return self and setmetatable(self, Message), err
end

-- The message as it goes out, with what its owner's envelope says: what becomes of that later changes nothing here.
local function fix(self, envelope, from, to, utf8)
  local fixed = {}
  for name, value in pairs(self) do fixed[name] = value end
  fixed.envelope, fixed.fixed = nil, nil
  fixed.seen, fixed.seen_to, fixed.from, fixed.to, fixed.utf8 = envelope, envelope.to, from, to, utf8
  return setmetatable(fixed, Message)
end

-- The same, with what its owner has made of it since.
local function fix_again(self)
  local from, to, utf8 = people.of_envelope(self.envelope)
  if self.on_progress and type(self.on_progress) ~= "function" then
    refuse("on_progress: must be a function, not " .. type(self.on_progress))
  end
  local fixed = fix(self.fixed, self.envelope, from, to, utf8 or self.head_utf8 or false)
  fixed.partial, fixed.on_progress = self.partial, self.on_progress
  return fixed
end

--- Composes a message for its owner, who may send it often and change its envelope in between.
---@param fields table as for message.compose
---@return smtp.Message?
---@return smtp.Error?
function message.new(fields)
  local self, err = message.compose(fields)
  if not self then return nil, err end
  local envelope = { from = self.from, to = {} }
  for i, one in ipairs(self.to) do envelope.to[i] = one end
  self.bytes, self.partial, self.on_progress = nil, self.partial ~= false, self.on_progress or false
  self.fixed = fix(self, envelope, self.from, self.to, self.utf8)
  self.envelope = envelope
  return self
end

--- Whether a value is a message.
---@return boolean
function message.is(value)
  return IS_MESSAGE[getmetatable(value)] or false
end

--- A message as it goes out now, by the envelope that its owner has made of it: the same table as long as that is the
--- same. Whatever happens to the message afterwards, this stays as it is.
---@param self any
---@return smtp.Message? nil without an error: it is no message
---@return smtp.Error? err kind "input": the envelope cannot be used
function message.outgoing(self)
  if not IS_MESSAGE[getmetatable(self)] then return nil end
  local fixed = self.fixed
  if not fixed then return self end -- it has no owner
  if not (core.is_envelope(self.envelope, fixed.seen, fixed.from, fixed.seen_to, fixed.to)
    and self.partial == fixed.partial and self.on_progress == fixed.on_progress) then
    local err
    fixed, err = try(fix_again, self)
    if not fixed then return nil, err end
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
  if self.bytes then self.content = self.content or source.string(self.bytes) end
  if self.content then return self end -- the same in every form
  local laid = self.forms[form]
  if not laid then
    laid = compose.lay_out(self.head, self.body, form)
    self.forms[form] = laid
  end
  return laid
end

--- Exact octets with CRLF line ends, before dot-stuffing; nil when not known before the end (a function without size).
--- Never yields.
---@param form? "7bit"|"8bit"|"binary" default the one that every server takes
---@return integer?
function Message:size(form)
  return self:form(form or "7bit").content.size
end

--- Whether it can be read from its start: a function in it that was read before may be at its end. May yield where that
--- does.
---@return true?
---@return smtp.Error? err kind "source"
function Message:again()
  -- whichever form it was read in, the functions are the same
  local laid = self.content and self or self.forms and select(2, next(self.forms))
  local again = laid and laid.content.again
  if not again then return true end
  return again()
end

--- The message from its start, with CRLF line ends: files are opened anew. Reading may yield where a function that
--- gives content does.
---@param form? "7bit"|"8bit"|"binary" default the one that every server takes
---@return (fun(): string?, smtp.Error?) read a chunk, never ""; nil at the end; nil and an error of kind "source"
---@return fun() close for who does not read to the end: closes the file that is open then
function Message:source(form)
  local read, close = self:form(form or "7bit").content.open()
  return function()
    local chunk, err = read()
    return chunk, errors.apart(err)
  end, close
end

--- The whole message in memory, with CRLF line ends, before dot-stuffing. May yield where a function that gives content
--- does.
---@param form? "7bit"|"8bit"|"binary" default the one that every server takes
---@return string?
---@return smtp.Error? err kind "source"
function Message:tostring(form)
  local read, out = self:source(form), {}
  while true do
    local chunk, err = read()
    if err then return nil, err end
    if not chunk then return table.concat(out) end
    out[#out + 1] = chunk
  end
end

-- The path of save and preview: anything else is the program's mistake.
local function check_path(path, label)
  if type(path) ~= "string" then check.raise(("message:%s: expected a path, got %s"):format(label, type(path))) end
end

--- Writes the whole message to a file (.eml), with CRLF line ends, piece by piece: memory does not grow with it. It is
--- written under a name beside `path` and renamed when complete: a failure leaves nothing and an older file as it was.
--- May yield where a function that gives content does.
---@param path string
---@return true?
---@return smtp.Error? err stage "compose"; kind "source": the message cannot be read; "input": cannot write there
function Message:save(path)
  check_path(path, "save")
  local written, err = save.write(path, "save", self:source())
  return written, errors.apart(err)
end

--- Writes one HTML page that shows the message as a person would see it: header, html with its inline images, text,
--- attachments with type and size; of a `raw` message its source. Nothing in it runs or is loaded from elsewhere.
--- Written as save() writes. A `source` function of an image shown, or of `raw`, is read for it. May
--- yield where that does.
---@param path string
---@return true?
---@return smtp.Error? err stage "compose"; kind "source": an attachment cannot be read; "input": cannot write there
function Message:preview(path)
  check_path(path, "preview")
  local preview = require "smtp.mail.preview"
  local view, err = preview.view(self)
  local written
  if view then
    written, err = save.write(path, "preview", preview.page(view))
  else
    err = errors.new { kind = "source", stage = "compose", reason = err.reason, temporary = false }
  end
  return written, errors.apart(err)
end

check.methods(Message, "message")

return message
