--- letter: the message that most are, composed in one step: text or html or both, people and a subject, all of it plain
--- ASCII and short. A second way beside compose, for speed alone: of 1 KB it takes some 18,000 instructions where
--- compose, with the check of the options before it, takes 55,000.
---
--- Does: what compose does, octet by octet: spec/mail/letter_spec.lua composes thousands of messages both ways.
--- Never: says what is wrong: whatever is rare, or not right, is left to the check and to compose.
--- Called by: message.
--- RFC 5322.
local core = require "smtp.core"
local date = require "smtp.mail.date"

local letter = {}

local RANDOM = 28 -- octets: of the Message-ID and of a boundary

---@param fields table message options, of whatever kind
---@return smtp.Composed? nil: not that simple, or not right
function letter.compose(fields)
  local id, from, to, bytes = core.letter(fields, date.field(os.time()), core.random(RANDOM))
  if not id then return nil end
  return { id = id, from = from, to = to, utf8 = false, encoding = "7bit", bytes = bytes }
end

return letter
