--- id: the identifiers a message carries: Message-ID and what refers to one, Content-ID, boundaries.
--
-- Random parts come from the system's CSPRNG. Nothing of the host (name, address, pid) goes into an identifier.
-- Called by: message, mime. RFC 5322 3.6.4, RFC 2392, RFC 2046 5.1.1.

local core = require "smtp.core"
local text = require "smtp.mail.text"

local id = {}

--- Random bytes as hexadecimal digits.
---@param bytes integer how many
---@return string|nil
---@return string|nil reason
function id.random(bytes)
  local random, why = core.random(bytes)
  if not random then
    return nil, "no random bytes from the system: " .. tostring(why)
  end
  return core.hex(random)
end

--- A new Message-ID on the sender's domain; "mail.invalid" (RFC 2606) where that domain is not ASCII.
---@param address string the sender's "local@domain"
---@return string|nil "<…@…>"
---@return string|nil reason
function id.message(address)
  local hex, why = id.random(16)
  if not hex then
    return nil, why
  end
  local domain = address:match("@[^@]*$")
  if domain:find("[\128-\255]") then
    domain = "@mail.invalid"
  end
  return "<" .. hex .. domain .. ">"
end

--- A new multipart boundary. Quoted-printable cannot hold "=_", base64 has no "_": no encoded part can contain it.
---@return string|nil
---@return string|nil reason
function id.boundary()
  local hex, why = id.random(12)
  if not hex then
    return nil, why
  end
  return "=_" .. hex
end

--- Message-IDs others gave, as In-Reply-To and References repeat them: anything printable between "<" and ">", because
--- identifiers in the wild keep no stricter rule. Brackets are added where they are missing.
---@param value string|string[] ids parted by blanks, or a list
---@return string[]|nil ids each with its brackets
---@return string|nil reason
function id.list(value)
  if type(value) == "string" then
    value = { value }
  elseif type(value) ~= "table" then
    return nil, "a string or a list of strings is needed, not " .. type(value)
  end
  local ids = {}
  for _, item in ipairs(value) do
    local ok, why = text.check(item, true)
    if not ok then
      return nil, why
    end
    for word in item:gmatch("[^ \t]+") do
      local inner = word:match("^<([^<>]+)>$") or word
      if #inner > 900 or not inner:find("^[\33-\59\61\63-\126]+$") then
        return nil, "not a message identifier: " .. text.show(word)
      end
      ids[#ids + 1] = "<" .. inner .. ">"
    end
  end
  if #ids == 0 then
    return nil, "a message identifier is missing"
  end
  return ids
end

local ATOM = "[A-Za-z0-9!#$%%&'*+/=?^_`{|}~.-]+"

--- One identifier of our own making, strictly: dot-atoms on both sides of the "@", or an address literal on its right.
---@param value string with or without brackets
---@param bare? boolean whether the "@" may be missing, as it often is in a Content-ID
---@return string|nil "<…>"
---@return string|nil reason
function id.parse(value, bare)
  local ok, why = text.check(value)
  if not ok then
    return nil, why
  end
  local inner = value:match("^<(.*)>$") or value
  local found = inner:find("^" .. ATOM .. "@" .. ATOM .. "$") or inner:find("^" .. ATOM .. "@%[[A-Za-z0-9.:]+%]$")
    or (bare and inner:find("^" .. ATOM .. "$"))
  if not found or #inner > 900 or inner:find("..", 1, true) then
    return nil, "not an identifier of the form left@right: " .. text.show(value)
  end
  return "<" .. inner .. ">"
end

return id
