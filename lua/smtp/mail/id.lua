--- id: the identifiers a message carries: Message-ID and what refers to one, Content-ID, boundaries.
---
--- Does: makes random parts by the system's CSPRNG; reads what others gave.
--- Never: puts anything of the host (name, address, pid) into one.
--- Called by: compose, mime, file.
--- RFC 5322 3.6.4, RFC 2392, RFC 2046 5.1.1.
local core = require "smtp.core"
local text = require "smtp.mail.text"

local id = {}

local NO_RANDOM = "no random bytes from the system: "

--- Random bytes as hexadecimal digits.
---@param bytes integer how many
---@return string?
---@return string? reason
function id.random(bytes)
  local random, why = core.random(bytes)
  if not random then return nil, NO_RANDOM .. tostring(why) end
  return core.hex(random)
end

--- A new Message-ID on the sender's domain; "mail.invalid" (RFC 2606) where that domain is not ASCII.
---@param address string the sender's "local@domain"
---@return string? "<…@…>"
---@return string? reason
function id.message(address)
  local random, why = core.random(16)
  if not random then return nil, NO_RANDOM .. tostring(why) end
  local plain = core.message_id(random, address)
  if plain then return plain end
  local domain = address:match("@[^@]*$")
  if domain:find("[\128-\255]") then domain = "@mail.invalid" end
  return "<" .. core.hex(random) .. domain .. ">"
end

--- A new multipart boundary. Quoted-printable cannot hold "=_", base64 has no "_": no encoded part can contain it.
---@return string?
---@return string? reason
function id.boundary()
  local hex, why = id.random(12)
  if not hex then return nil, why end
  return "=_" .. hex
end

local BRACKETED = "^<([\33-\59\61\63-\126]+)>()"
local SIDE = "[!#-'*+%-./0-:=?A-[%]^-~]+" -- printable, and none of "(),;<>@ or a backslash
local BARE = "^" .. SIDE .. "@" .. SIDE .. "$"

-- What is behind the comment at `at`, nil where it is never closed: they nest (RFC 5322 3.2.2).
local function behind_comment(s, at)
  local depth = 0
  repeat
    local mark, after = s:match("([()\\])()", at)
    if not mark then return nil end
    depth = depth + (mark == "(" and 1 or mark == ")" and -1 or 0)
    at = mark == "\\" and after + 1 or after
  until depth == 0
  return at
end

-- The identifier at `at` without its brackets, and the position after it.
local function identifier(s, at)
  local inner, after = s:match(BRACKETED, at)
  if not inner then
    inner, after = s:match("^([^ \t(]+)()", at)
    if not inner:find(BARE) then return nil end
  elseif after <= #s and not s:find("^[ \t(<]", after) then
    return nil
  end
  if #inner > 900 or inner:find("=?", 1, true) and inner:find("?=", 1, true) then -- an encoded word to readers
    return nil
  end
  return inner, after
end

--- Message-IDs others gave, as In-Reply-To and References repeat them. Between "<" and ">" anything printable will do,
--- because identifiers in the wild keep no stricter rule; without brackets, which are added, it must be left@right.
--- Comments are skipped. Linear time.
---@param value string|string[] ids with or without blanks between, or a list
---@return string[]? ids each with its brackets
---@return string? reason
function id.list(value)
  if type(value) == "string" then
    value = { value }
  elseif type(value) ~= "table" then
    return nil, "a string or a list of strings is needed, not " .. type(value)
  end
  local ids = {}
  for _, item in ipairs(value) do
    local ok, why = text.check(item, true)
    if not ok then return nil, why end
    local at = item:match("^[ \t]*()")
    while at <= #item do
      local inner, after
      if item:byte(at) == 40 then
        after = behind_comment(item, at)
      else
        inner, after = identifier(item, at)
        ids[#ids + 1] = inner and "<" .. inner .. ">"
      end
      if not after then return nil, "not a message identifier: " .. text.show(item, at) end
      at = item:match("^[ \t]*()", after)
    end
  end
  if #ids == 0 then return nil, "a message identifier is missing" end
  return ids
end

local ATOM = "[A-Za-z0-9!#$%%&'*+/=?^_`{|}~.-]+"

--- One identifier of our own making, strictly: dot-atoms on both sides of the "@", or an address literal on its right.
---@param value string with or without brackets
---@param bare? boolean whether the "@" may be missing, as it often is in a Content-ID
---@return string? "<…>"
---@return string? reason
function id.parse(value, bare)
  local ok, why = text.check(value)
  if not ok then return nil, why end
  local inner = value:match("^<(.*)>$") or value
  local found = inner:find("^" .. ATOM .. "@" .. ATOM .. "$") or inner:find("^" .. ATOM .. "@%[[A-Za-z0-9.:]+%]$")
    or (bare and inner:find("^" .. ATOM .. "$"))
  if not found or #inner > 900 or inner:find("..", 1, true) then
    return nil, "not an identifier of the form left@right: " .. text.show(value)
  end
  return "<" .. inner .. ">"
end

return id
