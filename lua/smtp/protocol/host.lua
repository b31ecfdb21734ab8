--- host: what is written where a host's name or address belongs, and is more than that: what to write instead.
---
--- Never: shows what may be a password.
--- Called by: plan, server. RFC 3986 (URLs).
local host = {}

local URLS = { smtp = true, smtps = true, ["smtp+insecure"] = true, lmtp = true, ["lmtp+unix"] = true }

--- What is wrong with it; nil: it may be one. Never shows what stands in front of an "@": a password may be in it.
---@param given string
---@param label string the option's name
---@param beside string other options that there are: "url", "port", "path", with blanks around each
---@return string? reason
function host.flaw(given, label, beside)
  local function has(option) return beside:find(" " .. option .. " ", 1, true) ~= nil end
  local trimmed = given:match("^%s*(.*)$"):match("^(.*%S)") or ""
  local scheme, rest = trimmed:match("^(%a[%w+.-]*)://(.*)$")
  local authority, behind = (rest or trimmed:match("^//(.+)$") or trimmed):match("^([^/?#\\]*)(.*)$")
  local user, server = authority:match("^(.*)@([^@]*)$")
  server = server or authority
  local name, port = server:match("^%[([^%]]*)%]:(.*)$")
  if not name then name, port = server:match("^([^:]*):([^:]*)$") end
  name = name or server:match("^%[([^%]]*)%]$") or server

  local instead = name:find("^[%w._:%%\128-\255-]+$") and (': write %s = "%s"'):format(label, name) or ""
  if port and has "port" and instead ~= "" then
    instead = instead .. (port:find("^%d+$") and ", port = " .. port or ", and the port as a number in port")
  end
  if scheme and URLS[scheme:lower()] and has "url" then
    local shown = not user and rest ~= "" and trimmed:find("^[%w+.:/%[%]_-]+$")
      and (': write url = "%s"'):format(trimmed)
    return label .. " is a URL" .. (shown or ": give it as url")
  elseif scheme then
    return label .. " is a URL" .. instead
  elseif user then
    return label .. " has a user name in it" .. instead
      .. (has "url" and instead ~= "" and ", and the user name in username" or "")
  elseif has "path" and trimmed:find("^/[%w._/-]+$") and not trimmed:find("^//") then
    return ('%s is the path of a file: write path = "%s"'):format(label, trimmed)
  elseif port then
    return label .. " has a port in it" .. instead
  elseif behind ~= "" or trimmed:find("^//") then
    return label .. " has a slash or the like in it" .. instead
  elseif trimmed ~= given and trimmed ~= "" and instead ~= "" then
    return label .. " has a blank or line break around it" .. instead
  end
end

return host
