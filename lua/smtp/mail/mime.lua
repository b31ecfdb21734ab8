--- mime: the parts of a message and how they nest.
---
--- Does: builds text parts, attachments and multiparts out of checked values; lays them out as sources, for what a
--- server takes.
--- Called by: compose.
--- RFC 2045, 2046, 2183, 2387, 2392, 6047, 6152 (8BITMIME), 3030 (BINARYMIME).

-- A part is { type =, layout = function(form) -> laid }. The form is what the server takes: "7bit" (every server does),
-- "8bit" or "binary". Laid out it is { encoding =, fields = {field, …}, content = {source, …} }, the encoding being the
-- least of the three that carries it. Content does not include the CRLF that a boundary owns, so a text comes back from
-- a multipart exactly as it went in.

local content_type = require "smtp.mail.content_type"
local core = require "smtp.core"
local header = require "smtp.mail.header"
local id = require "smtp.mail.id"
local source = require "smtp.mail.source"
local text = require "smtp.mail.text"

local mime = {}

local LIMIT = 998 -- RFC 5322 2.1.1

--- The forms a message may have, the one that every server takes first.
mime.RANK = { ["7bit"] = 1, ["8bit"] = 2, binary = 3 }

local function ends_line(s)
  local last = s:byte(-1)
  return last == 10 or last == 13
end

-- Line ends become CRLF; the one that the encoder adds to an unfinished last line is taken off again.
local function normalise(s)
  local out = core.text(s)
  if out then return out end
  out = source.encode("crlf", s)
  if s ~= "" and not ends_line(s) then out = out:sub(1, -3) end
  return out
end

-- A text between CRLFs in the form: its encoding, and what is written.
local function encode_text(s, form)
  local control, _, _, _, longest, eightbit = core.scan(s)
  if not control and longest <= LIMIT then
    if not eightbit then
      return "7bit", s
    elseif form ~= "7bit" then
      return "8bit", s
    end
  end
  local base64, quoted = source.encode("base64", s), source.encode("quoted-printable", s)
  if not ends_line(s) and quoted:sub(-2) == "\r\n" then quoted = quoted:sub(1, -3) end
  if #base64 < #quoted then return "base64", base64 end
  return "quoted-printable", quoted
end

--- A text part: as it is where the form carries it in lines that fit, else the shorter of quoted-printable and base64.
---@param subtype "plain"|"html"|"calendar"
---@param s string UTF-8
---@param parameters? table[] list of {name, value} for the Content-Type, before the charset
---@return table? part
---@return string? reason
function mime.text(subtype, s, parameters)
  local at = text.invalid(s)
  if at then return nil, ("invalid UTF-8 at position %d: %s"):format(at, text.show(s, at)) end
  parameters = parameters or {}
  parameters[#parameters + 1] = { "charset", "utf-8" }
  local media = assert(header.parameter("Content-Type", "text/" .. subtype, parameters))
  local plain = normalise(s)
  return {
    type = "text/" .. subtype,
    layout = function(form)
      local encoding, body = encode_text(plain, form)
      return {
        encoding = encoding == "8bit" and "8bit" or "7bit",
        fields = { media, assert(header.field("Content-Transfer-Encoding", encoding)) },
        content = { source.string(body) },
        open_ended = body ~= "" and not ends_line(body), -- as the whole body of a message it needs a last CRLF
      }
    end,
  }
end

-- A filename is what its owner says it is; of a path it is the last part.
local function filename_of(name, label, is_path)
  local ok, why = text.check(name)
  if not ok then return nil, label .. ": " .. why end
  local last = name:match("[^/]*$")
  if last == "" or last == "." or last == ".." then return nil, label .. ": no file's name: " .. text.show(name) end
  return is_path and last or name
end

-- The source of an attachment, from exactly one of path, data and source.
local function content_of(spec, label)
  local found
  for _, key in ipairs { "path", "data", "source" } do
    if spec[key] ~= nil then
      if found then return nil, ("give either %s or %s"):format(found, key) end
      found = key
    end
  end
  if not found then return nil, "path, data or source is missing" end
  local value = spec[found]
  local needed = found == "source" and "function" or "string"
  if type(value) ~= needed then
    return nil, ("%s must be a %s, not a %s"):format(found, needed, type(value))
  elseif found == "path" then
    return source.file(value)
  elseif found == "data" then
    return source.string(value)
  end
  return source.call(value, spec.size, label .. ".source")
end

-- What is in a message to attach: its exact size, and whether it has bytes beyond ASCII. RFC 2046 5.2.1 lets nothing
-- encode it, so a server must take it line by line.
local function survey(read)
  local size, column, eightbit = 0, 0, false
  while true do
    local chunk, err = read()
    if err then
      return nil, err.reason
    elseif not chunk then
      return size, eightbit
    elseif chunk:find("[^\1-\255]") then
      return nil, "a NUL is in it, which no message may hold"
    end
    size, eightbit = size + #chunk, eightbit or chunk:find("[\128-\255]") ~= nil
    for line, stop in chunk:gmatch("([^\n]*)(\n?)") do
      column = column + #line
      if column > LIMIT + 1 then -- with its CR
        return nil, ("a line is longer than %d octets"):format(LIMIT)
      end
      column = stop == "" and column or 0
    end
  end
end

-- Messages, and parts of reports on such, that may be encoded: RFC 6532 3.7, RFC 6533 4 and 5.
local ENCODABLE = {
  ["message/global"] = true, ["message/global-headers"] = true, ["message/global-delivery-status"] = true,
  ["message/global-disposition-notification"] = true,
}

-- How an attachment's bytes are written in a form: Content-Transfer-Encoding, the least form that carries that, source.
local function encode_file(content, form)
  if form == "binary" then return "binary", "binary", content end
  return "base64", "7bit", source.base64(content)
end

-- The same for a message to attach.
local function encode_message(content)
  local read, close = source.crlf(content).open()
  local size, eightbit = survey(read)
  close()
  if not size then return nil, eightbit end
  local encoding = eightbit and "8bit" or "7bit"
  return function()
    return encoding, encoding, source.crlf(content, size)
  end
end

--- An attachment: base64, so that it arrives byte by byte; binary where the form carries that.
---@param spec table {path= or data= or source=, size=, filename=, content_type=, content_id=, disposition=}
---@param label string what a reason calls it: "attachments[1]"
---@return table? part
---@return string? reason
function mime.attachment(spec, label)
  if type(spec) ~= "table" then return nil, "a table is needed, not a " .. type(spec) end
  local content, why = content_of(spec, label)
  if not content then return nil, why end
  local filename
  if spec.filename ~= nil then
    filename, why = filename_of(spec.filename, "filename")
  elseif spec.path then
    filename, why = filename_of(spec.path, "path (give a filename)", true)
  end
  if why then return nil, why end
  local media, parameters = content_type.guess(filename), {}
  if spec.content_type ~= nil then
    media, parameters = content_type.parse(spec.content_type)
    if not media then return nil, "content_type: " .. parameters end
  end
  local content_id
  if spec.content_id ~= nil then
    content_id, why = id.parse(spec.content_id, true)
    if not content_id then return nil, "content_id: " .. why end
  end
  local disposition = spec.disposition or (content_id and "inline" or "attachment")
  if disposition ~= "attachment" and disposition ~= "inline" then
    return nil, 'disposition: must be "attachment" or "inline"'
  end
  local encode, kind = encode_file, text.lower(media)
  if kind == "message/rfc822" then
    if spec.source then return nil, "source: a message is looked at before it is sent: give data or path" end
    encode, why = encode_message(content)
    if not encode then return nil, "not a message that can be attached as message/rfc822: " .. why end
  elseif kind:find("^multipart/") or kind:find("^message/") and not ENCODABLE[kind] then
    return nil, "content_type: cannot be attached in base64 (RFC 2045 6.4): " .. media
  end
  return {
    type = media,
    id = content_id,
    filename = filename,
    file = content,
    layout = function(form)
      local encoding, least, body = encode(content, form)
      -- All values are checked by now: none of these can fail.
      local fields = {
        assert(header.parameter("Content-Type", media, parameters)),
        assert(header.field("Content-Transfer-Encoding", encoding)),
        assert(header.parameter("Content-Disposition", disposition, filename and { { "filename", filename } })),
        content_id and assert(header.field("Content-ID", content_id)),
      }
      return { encoding = least, fields = fields, content = { body } }
    end,
  }
end

-- Whether a text is an iCalendar object, and its METHOD property, nil where it has none: one of a component in it is
-- another (RFC 5545 3.1, 3.4, 3.7.2).
local function method_of(content)
  local depth, begun = 0, false
  for line in content:gsub("\r\n?", "\n"):gsub("\n[ \t]", ""):gmatch("[^\n]+") do
    local name, rest = line:match("^([A-Za-z0-9-]*)(.*)")
    local value = rest:match("^[^:]*:[ \t]*([^ \t]*)") or ""
    name = text.upper(name)
    if depth == 0 and not (name == "BEGIN" and text.upper(value) == "VCALENDAR") then
      return begun
    elseif name == "METHOD" and depth == 1 then
      return true, value
    end
    depth, begun = depth + (name == "BEGIN" and 1 or name == "END" and -1 or 0), true
  end
  return begun
end

--- An invitation, an answer to one or the like (iMIP, RFC 6047), twice: as an alternative to the text, which mail
--- programs act on, and as a file of the same bytes for those that do not.
---@param given table {content= iCalendar text with a METHOD property, method= the same}
---@return table? alternative text/calendar
---@return table|string file application/ics, "invite.ics"; the reason where there is none
function mime.calendar(given)
  local content, method = given.content, given.method
  if type(content) ~= "string" then return nil, "content: a string is needed, not " .. type(content) end
  local at = core.scan(content)
  if at then return nil, ("content: control byte at position %d: %s"):format(at, text.show(content, at)) end
  local is_calendar, own = method_of(content)
  method = method or own
  if type(method) ~= "string" or #method > 40 or not method:find("^[A-Za-z0-9-]+$") then
    return nil, "method: must be a word like REQUEST, CANCEL, REPLY or PUBLISH"
  elseif own and text.upper(own) ~= text.upper(method) then -- RFC 6047 2.4: programs drop a message where they differ
    return nil, ("method: is %s, but the content says METHOD:%s"):format(method, text.escape(own))
  end
  content = source.encode("crlf", content)
  local part, why = mime.text("calendar", content, { { "method", text.upper(method) } })
  if not part then
    return nil, "content: " .. why
  elseif not is_calendar then
    return nil, "content: must begin with BEGIN:VCALENDAR"
  elseif not own then
    return nil, "content: has no METHOD property, which must say the same (RFC 6047 2.4)"
  end
  return part, assert(mime.attachment({ data = content, filename = "invite.ics", content_type = "application/ics" }))
end

--- Parts under one multipart.
---@param subtype "mixed"|"alternative"|"related"
---@param parts table[]
---@return table? part
---@return string? reason
function mime.multipart(subtype, parts)
  local boundary, why = id.boundary()
  if not boundary then return nil, why end
  local parameters = { { "boundary", boundary } }
  if subtype == "related" then -- RFC 2387 3.1 wants the root's type
    table.insert(parameters, 1, { "type", parts[1].type })
  end
  local media = assert(header.parameter("Content-Type", "multipart/" .. subtype, parameters))
  local function layout(form)
    local content, lead, encoding = {}, "", "7bit"
    for _, part in ipairs(parts) do
      local laid = part.layout(form)
      encoding = mime.RANK[laid.encoding] > mime.RANK[encoding] and laid.encoding or encoding
      content[#content + 1] = source.string(lead .. "--" .. boundary .. "\r\n" .. table.concat(laid.fields) .. "\r\n")
      for _, piece in ipairs(laid.content) do
        content[#content + 1] = piece
      end
      lead = "\r\n"
    end
    content[#content + 1] = source.string("\r\n--" .. boundary .. "--\r\n")
    -- RFC 2045 6.4: what a part needs, everything around it says too
    local field = encoding ~= "7bit" and assert(header.field("Content-Transfer-Encoding", encoding)) or nil
    return { encoding = encoding, fields = { media, field }, content = content }
  end
  return { type = "multipart/" .. subtype, layout = layout }
end

return mime
