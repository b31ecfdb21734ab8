--- helo: the name that a client gives in EHLO where its user has none for it.
---
--- Called by: client/session. RFC 5321 4.1.1.1, 4.1.3.
local helo = {}

local function is_ipv4(text)
  local octets = { text:match("^(%d%d?%d?)%.(%d%d?%d?)%.(%d%d?%d?)%.(%d%d?%d?)$") }
  for i = 1, #octets do
    if tonumber(octets[i]) > 255 then return false end
  end
  return #octets == 4
end

-- Names that every machine has for itself.
local EVERYBODY = { localhost = true, localdomain = true, localhost4 = true, localhost6 = true, localdomain4 = true,
  localdomain6 = true }

-- Whether it is a full name of this machine alone.
local function is_full(name)
  local count, last = 0, nil
  for label in (name .. "."):gmatch("([^.]*)%.") do
    if not label:find("^%w[%w-]*$") or label:sub(-1) == "-" then return false end
    count, last = count + 1, label:lower()
  end
  return count > 1 and not (EVERYBODY[last] or last:find("^%d+$"))
end

--- The host's name if it is a full one, else an address literal.
---@param hostname string
---@param address string? of our end of the connection, where it is known
---@return string
function helo.name(hostname, address)
  if is_ipv4(hostname) then return "[" .. hostname .. "]" end
  if is_full(hostname) then return hostname end
  address = address or "127.0.0.1"
  if address:find(":", 1, true) then return "[IPv6:" .. address:gsub("%%.*", "") .. "]" end
  return is_ipv4(address) and "[" .. address .. "]" or "[127.0.0.1]"
end

return helo
