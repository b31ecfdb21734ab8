-- lifetime: what tells `openssl x509` how long a certificate lives.
local child = require "spec.support.child"

local dated = child.output "openssl x509 -help":find("-not_after", 1, true) -- from 3.4 on

---@param days integer -1: its time is over
---@return string options
return function(days)
  -- who knows dates may take no number below 0, and the others know nothing else
  if days < 0 and dated then return "-not_before 20200101000000Z -not_after 20200102000000Z" end
  return "-days " .. days
end
