--- The queue id in a server's final reply: what its postmaster will ask for. Servers write it in forms of their own.
local queue = {}

local find, match = string.find, string.match

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
  -- Postfix, this library's server
  local _, stop = find(text, "queued as ", 1, true)
  if stop then return match(text, "^[%w%-_.]+", stop + 1) end
  if not find(text, "%d") then return nil end
  for _, form in ipairs(FORMS) do
    local id = match(text, form)
    if id then return id end
  end
end

return queue
