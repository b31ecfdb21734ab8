--- queue: the queue id in a server's final reply: what its postmaster will ask for. Pure.
---
--- Does: knows the forms that servers write it in; each has its own.
--- Never: gives a part of one.
--- Called by: client/receipt.
local core = require "smtp.core"

local queue = {}

local match = string.match

-- Each gives all that stands in the id's place, up to a blank or what closes it.
local FORMS = {
  "^[Oo][Kk] id=(%S+)",                             -- Exim
  "completed: id=(%S+)",                            -- GMX, WEB.DE
  "^(%S+) [Mm]essage accepted for delivery",        -- sendmail, OpenSMTPD, Proofpoint
  "[Mm]essage [Qq]ueued %(([^)]+)%)",               -- Haraka
  "[Mm]essage queued with id (%S+)",                -- Stalwart
  "[Mm]essage id (%S+) accepted for delivery",      -- IceWarp
  "[Oo][Kk]: +Message (%d+) accepted",              -- Cisco
  "InternalId=([^],%s]+)",                          -- Exchange
  "^OK +%d+ (%S+) %- gsmtp",                        -- Google
  "[Oo][Kk]: queued on %S+ (%S+)",                  -- Yandex
  "^[Oo]k, envelope id (%S+)",                      -- iCloud
  "^(%S+) Received OK",                             -- Mimecast
  "^ok %d+ qp (%d+)",                               -- qmail
  "^<[^>]*> (%S+) Saved",                           -- Dovecot's LMTP
  "^OK (%x+/%S+)",                                  -- SparkPost
  "^Ok (%x+%-%x+%-%x+%-%x+%-%x+%-%x+%-%x+%S*)",     -- Amazon SES
}

--- The id, whole; or nil where the reply is in no known form.
---@param text string the reply's words, without codes
---@return string?
function queue.id(text)
  local known = core.queue_id(text)
  if known ~= nil then return known or nil end
  for _, form in ipairs(FORMS) do
    local id = match(text, form)
    if id then
      id = match(id, "^(.-)[.,:;)%]]*$")
      return not match(id, "[^%w_.+/=@,:-]") and id ~= "" and id or nil
    end
  end
end

return queue
