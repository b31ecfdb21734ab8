--- The queue id in a server's final reply: what its postmaster will ask for. Servers write it in forms of their own.
local core = require "smtp.core"

local queue = {}

local match = string.match

local FORMS = {
  "[Oo][Kk] id=([%w%-]+)",                          -- Exim
  "^([%w]+) [Mm]essage accepted for delivery",      -- sendmail, OpenSMTPD
  "[Mm]essage [Qq]ueued %(([%w%-.]+)%)",            -- Haraka
  "InternalId=(%d+)",                               -- Exchange
  "^OK +%d+ ([%w%-.]+) %- gsmtp",                   -- Google
  "^ok %d+ qp (%d+)",                               -- qmail
  "^<[^>]*> ([%w+/]+) Saved",                       -- Dovecot's LMTP
  "^Ok (%x+%-%x+%-%x+%-%x+%-%x+%-%x+%-%x+)",        -- Amazon SES
}

--- The id, or nil where the reply is in no known form.
---@param text string the reply's words, without codes
---@return string?
function queue.id(text)
  local known = core.queue_id(text)
  if known ~= nil then return known or nil end
  for _, form in ipairs(FORMS) do
    local id = match(text, form)
    if id then return id end
  end
end

return queue
