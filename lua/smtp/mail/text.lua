--- text: what a byte string must be before it may become part of a message.
---
--- Does: finds invalid UTF-8 and control bytes, shows a stretch of text safely in a reason, cuts between characters.
--- Never: changes what it is given; depends on the locale (no %a, %c, %s: all classes are spelt out).
--- Called by: all of smtp.mail, protocol/parameter and saslprep.
--- RFC 3629 (UTF-8), RFC 5322 2.2 (what a field body may hold).
local core = require "smtp.core"

local text = {}

--- By bytes, whatever the locale.
function text.lower(s)
  return (s:gsub("[A-Z]", string.lower))
end

function text.upper(s)
  return (s:gsub("[a-z]", string.upper))
end

--- The words of a quoted string (RFC 5322 3.2.4).
function text.quote(s)
  return '"' .. s:gsub('["\\]', "\\%0") .. '"'
end

--- Where a string stops being UTF-8 (RFC 3629: no overlong forms, no surrogates).
---@param s string
---@return integer? position the first offending byte; nil when all is well
function text.invalid(s)
  local _, _, _, invalid = core.scan(s)
  return invalid
end

--- The number of a UTF-8 character.
---@param character string
---@return integer
function text.code_point(character)
  local first, rest = character:byte(), character:sub(2)
  local point = first % (first < 128 and 128 or first < 224 and 32 or first < 240 and 16 or 8)
  for continuation in rest:gmatch(".") do
    point = point * 64 + continuation:byte() % 64
  end
  return point
end

-- What leaves no trace, or that of a blank, on a screen: the Default_Ignorable_Code_Point of Unicode, blanks beyond
-- ASCII, marks of annotations and layout, fillers. First and last of each run, in order. (U+2028 and 2029 part lines.)
local INVISIBLE = {
  { 0xA0, 0xA0 }, { 0xAD, 0xAD }, { 0x34F, 0x34F }, { 0x61C, 0x61C }, { 0x115F, 0x1160 }, { 0x1680, 0x1680 },
  { 0x17B4, 0x17B5 }, { 0x180B, 0x180F }, { 0x2000, 0x200F }, { 0x202A, 0x202F }, { 0x205F, 0x206F },
  { 0x2800, 0x2800 }, { 0x3000, 0x3000 }, { 0x3164, 0x3164 }, { 0xFE00, 0xFE0F }, { 0xFEFF, 0xFEFF },
  { 0xFFA0, 0xFFA0 }, { 0xFFF0, 0xFFFB }, { 0x13430, 0x1343F }, { 0x16FE4, 0x16FE4 }, { 0x1BCA0, 0x1BCA3 },
  { 0x1D159, 0x1D159 }, { 0x1D173, 0x1D17A }, { 0xE0000, 0xE0FFF },
}

--- Where the first character is that nobody sees.
---@param s string valid UTF-8
---@return integer? position
function text.invisible(s)
  for at, character in s:gmatch("()([\194-\244][\128-\191]+)") do
    local point = text.code_point(character)
    for _, run in ipairs(INVISIBLE) do
      if point <= run[2] then
        if point >= run[1] then return at end
        break
      end
    end
  end
end

--- The greatest end <= `last` that does not split a UTF-8 character.
---@param s string valid UTF-8
---@param last integer
---@return integer
function text.boundary(s, last)
  while last > 0 do
    local byte = s:byte(last + 1)
    if not byte or byte < 128 or byte > 191 then break end
    last = last - 1
  end
  return last
end

local function escape(c)
  return ("\\x%02X"):format(c:byte())
end

--- A string fit for a reason: one line, control and stray bytes escaped.
---@param s string
---@return string
function text.escape(s)
  return (s:gsub(text.invalid(s) and "[^\32-\126]" or "[^\32-\126\128-\255]", escape))
end

--- A short quoted excerpt for a reason.
---@param s string
---@param from? integer where the excerpt starts (default 1)
---@return string
function text.show(s, from)
  from = from or 1
  local last = text.boundary(s, math.min(#s, from + 31))
  return '"' .. text.escape(s:sub(from, last)) .. (last < #s and '"…' or '"')
end

--- The gate for everything that goes on one line: valid UTF-8, no CR, LF, NUL or other control byte.
---@param s any
---@param tab? boolean whether TAB may stand in it
---@return true?
---@return string? reason names the position and shows the text there
function text.check(s, tab)
  if type(s) ~= "string" then return nil, "a string is needed, not " .. type(s) end
  local control, blank, ending, invalid = core.scan(s)
  local at = math.min(control or math.huge, ending or math.huge, not tab and blank or math.huge)
  if at <= #s then
    local named = ({ [0] = "NUL", [9] = "TAB", [10] = "line feed", [13] = "carriage return" })[s:byte(at)]
    return nil, ("%s at position %d: %s"):format(named or "control byte", at, text.show(s, at))
  elseif invalid then
    return nil, ("invalid UTF-8 at position %d: %s"):format(invalid, text.show(s, invalid))
  end
  return true
end

return text
