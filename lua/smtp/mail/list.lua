--- list: the fields of a mailing list: what it is, how to leave it, where to ask.
---
--- Does: checks URIs and the list's identifier, one field at a time.
--- Never: breaks a URI over two lines (readers would not put it together), guesses a scheme.
--- Called by: compose.
--- RFC 2369, RFC 2919 (List-Id), RFC 8058 (one click).
local header = require "smtp.mail.header"
local text = require "smtp.mail.text"

local list = {}

-- The keys, in the order their fields are written, and those fields.
list.KEYS = { "id", "help", "unsubscribe", "unsubscribe_post", "subscribe", "post", "owner", "archive" }
list.NAMES = {
  id = "List-Id", help = "List-Help", unsubscribe = "List-Unsubscribe", unsubscribe_post = "List-Unsubscribe-Post",
  subscribe = "List-Subscribe", post = "List-Post", owner = "List-Owner", archive = "List-Archive",
}

local STRANGER = "[^A-Za-z0-9._~:/?#%[%]@!$&'()*+,;=%%-]" -- to RFC 3986 2
local DOT_ATOM = "^[A-Za-z0-9!#$%%&'*+/=?^_`{|}~.-]+$"

local HTTPS = "^[Hh][Tt][Tt][Pp][Ss]://[^/?#]"
local SCHEMES = { HTTPS, "^[Hh][Tt][Tt][Pp]://[^/?#]", "^[Mm][Aa][Ii][Ll][Tt][Oo]:[^?#]" }

local function check_uri(uri)
  local ok, why = text.check(uri)
  if not ok then return nil, why end
  local known = false
  for _, pattern in ipairs(SCHEMES) do
    known = known or uri:find(pattern) ~= nil
  end
  if not known then return nil, "must begin with mailto:, https:// or http://: " .. text.show(uri) end
  local at = uri:find(STRANGER) or uri:gsub("%%%x%x", "   "):find("%", 1, true)
  if at then
    return nil, ("a character that must be percent-encoded in a URI at position %d: %s"):format(at, text.show(uri, at))
  end
  return true
end

local function as_list(value)
  return type(value) == "table" and value or { value }
end

-- "<uri>, <uri>"
local function uris(value)
  local words = {}
  for i, uri in ipairs(as_list(value)) do
    local ok, why = check_uri(uri)
    if not ok then return nil, type(value) == "table" and ("item %d: %s"):format(i, why) or why end
    words[i] = "<" .. uri .. ">"
  end
  if #words == 0 then return nil, "a URI is missing" end
  return table.concat(words, ", ")
end

local function has_https(value)
  for _, uri in ipairs(as_list(value)) do
    if uri:find(HTTPS) then return true end
  end
  return false
end

local function id_field(value)
  local ok, why = text.check(value)
  if not ok then return nil, why end
  local name, inner = value:match("^([^<>]*)<([^<>]*)>$")
  inner = inner or value
  -- its blanks one side after the other: in one pattern they take time in the cube of their number
  name = ((name or ""):match("^.*[^ ]") or ""):gsub("^ +", "")
  if #inner > 255 or not inner:find(DOT_ATOM) or not inner:find(".", 1, true)
    or ("." .. inner .. "."):find("..", 1, true) then
    return nil, "must be list.example.org or Name <list.example.org>: " .. text.show(value)
  elseif name == "" then
    return header.field("List-Id", "<" .. inner .. ">")
  end
  return header.addresses("List-Id", { { name = name:match('^"([^"\\]*)"$') or name, address = inner } })
end

--- The field of one key of the option `list`; for `unsubscribe_post`, `unsubscribe` has been made before.
---@param given smtp.ListOptions
---@param key string one of list.KEYS that is given, and not false
---@return string? field "List-…: …\r\n"
---@return string? reason
function list.field(given, key)
  local value = given[key]
  if key == "id" then
    return id_field(value)
  elseif key == "unsubscribe_post" then
    if not has_https(given.unsubscribe) then return nil, "needs an https URI in unsubscribe (RFC 8058 3.1)" end
    return header.field(list.NAMES[key], "List-Unsubscribe=One-Click")
  end
  local words, why = value, nil
  if not (key == "post" and value == "NO") then words, why = uris(value) end
  if not words then return nil, why end
  return header.field(list.NAMES[key], words)
end

return list
