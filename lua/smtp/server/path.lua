--- path: the arguments of MAIL and RCPT, read by a server: a path in angle brackets and parameters. Pure.
---
--- Never: takes more than linear time, whatever they are.
--- Called by: server/commands.
--- RFC 5321 4.1.1.2, 4.1.1.3 and 4.1.2.
local address = require "smtp.mail.address"

local path = {}

-- Where the ">" is that closes the path: a quoted local part may hold one too.
local function closing(text)
  local masked = text:gsub("\\.", "__"):gsub('"[^"]*"', function(quoted) return ("_"):rep(#quoted) end)
  return masked:find(">", 1, true)
end

-- " NAME=value NAME": a table of upper-case name -> value, or true where there is none. Nil: not so.
local function parameters(text)
  local params = {}
  if text ~= "" and text:sub(1, 1) ~= " " then return nil end
  for word in text:gmatch("[^ ]+") do
    local equals = word:find("=", 1, true)
    local name, value = word:upper(), true
    if equals then name, value = name:sub(1, equals - 1), word:sub(equals + 1) end
    if not name:find("^%w[%w-]*$") or params[name] or value == "" then return nil end
    if equals and value:find("[=%c]") then return nil end
    params[name] = value
  end
  return params
end

--- Reads "FROM:<user@example.org> SIZE=1000".
---@param argument string what stands behind the verb
---@param keyword "FROM"|"TO"
---@return smtp.mailbox? mailbox FROM: address "" for the null reverse-path; TO: "postmaster" may stand without a domain
---@return table<string, string|true>? params by upper-case name
function path.parse(argument, keyword)
  local word, rest = argument:match("^(%a+): ?<(.*)$")
  local close = word and word:upper() == keyword and closing(rest)
  local params = close and parameters(rest:sub(close + 1))
  if not params then return nil end
  -- a source route is taken and ignored
  local inside = rest:sub(1, close - 1):gsub("^@[%w.,@-]+:", "")
  if keyword == "FROM" and inside == "" or keyword == "TO" and inside:lower() == "postmaster" then
    return { address = inside }, params
  end
  local mailbox = address.exact(inside)
  return mailbox, mailbox and params
end

return path
