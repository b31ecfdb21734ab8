--- saslprep: the one form of a user name or password that both sides of a login compute with. Pure.
---
--- Does: ASCII, and text of nothing but the letters below, already has that form. All else is the work of libidn, where
--- the host has it.
--- Never: lets a text through as it is where that may be wrong: what Unicode 3.2 did not know (emoji), control
--- characters and, without libidn, other letters are refused.
--- Called by: protocol/scram.
--- RFC 4013, as for stored strings.
local text = require "smtp.mail.text"

local saslprep = {}

-- First and last of ranges without a character that the profile changes, forbids or sorts: Latin, Greek, Cyrillic,
-- kana, Han, Hangul.
local STABLE = {
  { 0xC0, 0x131 }, { 0x134, 0x13E }, { 0x141, 0x148 }, { 0x14A, 0x17E }, { 0x391, 0x3A1 }, { 0x3A3, 0x3CE },
  { 0x400, 0x482 }, { 0x3041, 0x3096 }, { 0x30A1, 0x30FA }, { 0x4E00, 0x9FA5 }, { 0xAC00, 0xD7A3 },
}

local function is_stable(code)
  for _, range in ipairs(STABLE) do
    if code >= range[1] and code <= range[2] then return true end
  end
  return false
end

-- Of valid UTF-8.
local function all_stable(value)
  for lead, rest in value:gmatch("([\194-\244])([\128-\191]*)") do
    local second, third = rest:byte(1, 2)
    local code = #rest == 1 and (lead:byte() - 192) * 64 + second - 128
      or #rest == 2 and (lead:byte() - 224) * 4096 + (second - 128) * 64 + third - 128
    if not (code and is_stable(code)) then return false end
  end
  return true
end

--- The text as it is to be compared.
---@param value string
---@return string? prepared
---@return string? reason never with a part of the text in it
function saslprep.prepare(value)
  if value:find("[\1-\31\127]") or value:find("\0", 1, true) then return nil, "has a control character" end
  if text.invalid(value) then return nil, "is not UTF-8" end
  if all_stable(value) then return value end
  local prepared, reason = require "smtp.tls".saslprep(value)
  if prepared then return prepared end
  return nil, "cannot be brought into its one form (SASLprep): " .. reason
end

return saslprep
