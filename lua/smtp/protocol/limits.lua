--- limits: how much a server takes of a client: the LIMITS extension. Pure.
---
--- Called by: whatever in client/ may reach one.
--- RFC 9422.
local limits = {}

---@param offered table capabilities
---@param name "MAILMAX"|"RCPTMAX"|"RCPTDOMAINMAX"
---@return integer? most nil: none told
function limits.get(offered, name)
  local words = offered.LIMITS
  local digits = type(words) == "string" and (" " .. words:upper() .. " "):match(" " .. name .. "=(%d+) ")
  local most = digits and #digits <= 6 and tonumber(digits)
  return most and most > 0 and most or nil
end

--- Why a message has too many recipients for the server; nil: it has not.
---@param offered table
---@param recipients string[]
---@return string?
function limits.problem(offered, recipients)
  if not offered.LIMITS then return nil end
  local most = limits.get(offered, "RCPTMAX")
  if most and #recipients > most then
    return ("the message has %d recipients, the server takes %d (LIMITS RCPTMAX)"):format(#recipients, most)
  end
  most = limits.get(offered, "RCPTDOMAINMAX")
  if not most then return nil end
  local seen, count = {}, 0
  for _, address in ipairs(recipients) do
    local domain = (address:match("@([^@]*)$") or ""):lower() -- "postmaster" has none
    if not seen[domain] then
      seen[domain], count = true, count + 1
    end
  end
  if count > most then
    return ("the recipients are of %d domains, the server takes %d (LIMITS RCPTDOMAINMAX)"):format(count, most)
  end
end

--- Whether a refused recipient is one too many: it may be taken in another transaction, whatever the reply's class (RFC
--- 5321 4.5.3.1.10).
---@param reply { code: integer, enhanced: string?, text: string } to RCPT
---@param taken integer recipients that were taken before
---@return boolean
function limits.reached(reply, taken)
  if reply.enhanced == "5.5.3" then return true end
  local bare = not reply.enhanced and taken > 0
  return reply.code == 552 and (bare or reply.text:lower():find("too many", 1, true) ~= nil)
end

return limits
