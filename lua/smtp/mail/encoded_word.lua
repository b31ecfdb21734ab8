--- encoded_word: header fields as a person reads them.
---
--- Does: unfolds a header, decodes the encoded words in it. What it cannot decode it leaves as it stands.
--- Called by: preview.
--- RFC 2047, RFC 5322 2.2.3.
local core = require "smtp.core"

local encoded_word = {}

local function unhex(digits)
  return string.char(tonumber(digits, 16))
end

local DECODE = {
  B = function(s) return core.unbase64(s) end,
  Q = function(s) return (s:gsub("_", " "):gsub("=(%x%x)", unhex)) end,
}

local function latin(s)
  return (s:gsub("[\128-\255]", function(c)
    local byte = c:byte()
    return string.char(byte < 192 and 194 or 195, byte % 64 + 128)
  end))
end

local function same(s) return s end

-- To UTF-8, by the names that RFC 2231 5 lets a language follow.
local CHARSETS = { ["utf-8"] = same, ["us-ascii"] = same, ["iso-8859-1"] = latin }

local WORD = "=%?([^? \t]+)%?([BbQq])%?([^? \t]*)%?="

--- A field's value with its encoded words decoded, those of UTF-8, ASCII and ISO-8859-1.
---@param value string
---@return string
function encoded_word.decode(value)
  -- the white space between two words is none of the text (RFC 2047 6.2)
  local out, from = {}, 1
  local joined = false
  while true do
    local start, stop, charset, kind, body = value:find(WORD, from)
    local between = value:sub(from, (start or 0) - 1)
    local to_utf8 = start and CHARSETS[charset:lower():match("^[^*]*")]
    local plain = to_utf8 and DECODE[kind:upper()](body)
    if not (joined and plain and between:find("^[ \t]*$")) then out[#out + 1] = between end
    if not start then return table.concat(out) end
    out[#out + 1] = plain and to_utf8(plain) or value:sub(start, stop)
    joined, from = plain ~= nil, stop + 1
  end
end

--- A header's fields, in order, unfolded and decoded.
---@param head string lines with CRLF or LF ends, up to the empty line or the end
---@return string[][] fields {name, value} each
function encoded_word.fields(head)
  local fields = {}
  for ended in (head .. "\n"):gmatch("([^\n]*)\n") do
    local line = ended:gsub("\r$", "")
    local name, value = line:match("^([\33-\57\59-\126]+)[ \t]*:(.*)$")
    if line == "" then
      break
    elseif line:find("^[ \t]") and #fields > 0 then
      local folded = fields[#fields]
      folded[#folded + 1] = line
    elseif name then
      fields[#fields + 1] = { name, value }
    end
  end
  for i, field in ipairs(fields) do
    local value = table.concat(field, "", 2)
    fields[i] = { field[1], encoded_word.decode((value:gsub("^[ \t]+", ""))) }
  end
  return fields
end

return encoded_word
