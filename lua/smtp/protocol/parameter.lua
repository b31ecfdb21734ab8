--- parameter: what MAIL and RCPT carry behind the path.
---
--- Does: checks it when a message is composed, writes it for the server that the message goes to.
--- Never: sends a parameter that the server does not know, or leaves one out silently.
--- Called by: mail/message, client/envelope, client/session.
--- RFC 1870 (SIZE), 6152 (BODY), 3030 (BINARYMIME), 6531 (SMTPUTF8), 3461 and 6533 (DSN), 8689 (REQUIRETLS),
--- 2852 (DELIVERBY), 4865 (FUTURERELEASE), 6710 (MT-PRIORITY).
local capability = require "smtp.protocol.capability"
local check = require "smtp.check"
local text = require "smtp.mail.text"

local parameter = {}

local format = string.format

local BODY = { ["8bit"] = "8BITMIME", binary = "BINARYMIME" }
local NOTIFY = { success = "SUCCESS", failure = "FAILURE", delay = "DELAY" }
local RET = { full = "FULL", headers = "HDRS" }
local MODES = { ["return"] = "R", notify = "N" }
local EXACT = 2 ^ 53 -- the greatest number that is told from its neighbours
local MOST = 999999999 -- seconds: nine digits (RFC 2852 4, RFC 4865 4.1)

local function hex(c)
  return ("+%02X"):format(c:byte())
end

--- RFC 3461 4: printable ASCII as it is, but for "+" and "=".
---@param s string
---@return string
function parameter.xtext(s)
  return (s:gsub("[^!-*,-<>-~]", hex))
end

--- RFC 6533 3, utf-8-addr-xtext: ASCII throughout, so that it may go anywhere.
---@param s string UTF-8
---@return string
function parameter.utf8_xtext(s)
  return (s:gsub("[^]-~!-*,-<>-[][\128-\191]*", function(character)
    return ("\\x{%02X}"):format(text.code_point(character))
  end))
end

local function is_whole(number, least, most)
  return type(number) == "number" and number % 1 == 0 and number >= least and number <= most
end

-- Each checks an option and gives its parameters as they are written, or nil and a reason.

local function notify_of(wanted)
  if wanted == "never" then return "NEVER" end
  if type(wanted) == "string" then wanted = { wanted } end
  local words, seen = {}, {}
  for i, name in ipairs(wanted) do
    if not NOTIFY[name] then
      return nil, 'dsn.notify: must be "never", or a list of "success", "failure" and "delay"'
    end
    if not seen[name] then words[#words + 1] = NOTIFY[name] end
    seen[name] = i
  end
  if #words == 0 then return nil, "dsn.notify: is empty" end
  return table.concat(words, ",")
end

local function dsn_of(given)
  local dsn = {}
  if given.notify ~= nil then
    local notify, why = notify_of(given.notify)
    if not notify then return nil, why end
    dsn.notify = notify
  end
  if given.ret ~= nil then
    dsn.ret = RET[given.ret]
    if not dsn.ret then return nil, 'dsn.ret: must be "full" or "headers"' end
  end
  if given.envid ~= nil then
    if given.envid == "" or given.envid:find("[^\32-\126]") then
      return nil, "dsn.envid: must be printable ASCII, and not empty"
    end
    dsn.envid = parameter.xtext(given.envid)
    if #dsn.envid > 100 then return nil, "dsn.envid: is longer than 100 octets" end
  end
  return dsn
end

local function by_of(given)
  if type(given) == "number" then given = { seconds = given } end
  local mode = MODES[given.mode or "return"]
  if not mode then return nil, 'deliver_by.mode: must be "return" or "notify"' end
  if not is_whole(given.seconds, mode == "R" and 1 or -MOST, MOST) then
    return nil, "deliver_by: must be a whole number of seconds" .. (mode == "R" and ", at least 1" or "")
  end
  return { seconds = given.seconds, words = ("%.0f;%s%s"):format(given.seconds, mode, given.trace and "T" or "") }
end

--- What a message asks of the servers that carry it, out of its options dsn, require_tls, deliver_by, hold_for and
--- mt_priority.
---@param given table message options
---@return table? wishes
---@return string? reason begins with the option's name
function parameter.wishes(given)
  local wishes = { require_tls = given.require_tls }
  local function take(name, value, why)
    wishes[name] = value
    return value == nil and why or nil
  end
  local reason = given.dsn and take("dsn", dsn_of(given.dsn))
    or given.deliver_by and take("by", by_of(given.deliver_by))
  if reason then return nil, reason end
  if given.hold_for then
    if not is_whole(given.hold_for, 1, MOST) then
      return nil, "hold_for: must be a whole number of seconds, at least 1"
    end
    wishes.hold = given.hold_for
  end
  if given.mt_priority then
    if not is_whole(given.mt_priority, -9, 9) then return nil, "mt_priority: must be a whole number from -9 to 9" end
    wishes.priority = given.mt_priority
  end
  return wishes
end

-- A capability's own limit, the first of its parameters; nil: none.
local function limit(offered, keyword)
  local digits = type(offered[keyword]) == "string" and offered[keyword]:match("^%d+")
  return digits and tonumber(digits)
end

local function lacks(what, keyword)
  return nil, ("%s, and the server does not offer %s"):format(what, keyword)
end

--- The parameters of MAIL, or what the server cannot take.
---@param offered table the server's capabilities
---@param mail table `utf8`, `wishes` or nil
---@param form table `content.size` octets or nil, `encoding` "7bit"|"8bit"|"binary"|nil (not known)
---@param secure boolean whether the connection is encrypted and the server verified
---@return string? words each with a blank before it
---@return string? reason
---@return boolean? insecure the reason is that the message would go on unprotected
function parameter.mail(offered, mail, form, secure)
  local size, encoding, wishes = form.content.size, form.encoding, mail.wishes
  local words = ""
  if size and offered.SIZE then
    local most = capability.size(offered)
    if most and size > most then
      return nil, ("the message has %.0f octets, the server takes %.0f"):format(size, most)
    end
    words = format(" SIZE=%d", size)
  end
  local body = BODY[encoding or "8bit"]
  if body and offered[body] then
    words = words .. " BODY=" .. body
  elseif body and encoding then
    return lacks("the message has 8-bit text", body)
  end
  if not (mail.utf8 or wishes) then return words end
  wishes = wishes or {}
  local function add(word, ...) words = words .. " " .. word:format(...) end
  if mail.utf8 then
    if not offered.SMTPUTF8 then return lacks("an address has non-ASCII characters", "SMTPUTF8") end
    add "SMTPUTF8"
  end
  local dsn = wishes.dsn
  if dsn then
    if not offered.DSN then return lacks("dsn asks for delivery status notifications", "DSN") end
    if dsn.ret then add("RET=%s", dsn.ret) end
    if dsn.envid then add("ENVID=%s", dsn.envid) end
  end
  if wishes.require_tls then
    if not secure then
      return nil, "require_tls needs an encrypted connection to a verified server", true
    elseif not offered.REQUIRETLS then
      local _, why = lacks("require_tls is asked for", "REQUIRETLS")
      return nil, why, true
    end
    add "REQUIRETLS"
  end
  if wishes.by then
    if not offered.DELIVERBY then return lacks("deliver_by is asked for", "DELIVERBY") end
    local least = limit(offered, "DELIVERBY")
    if least and wishes.by.seconds < least then
      return nil, ("deliver_by is %.0f seconds, the server needs at least %.0f"):format(wishes.by.seconds, least)
    end
    add("BY=%s", wishes.by.words)
  end
  if wishes.hold then
    if not offered.FUTURERELEASE then return lacks("hold_for is asked for", "FUTURERELEASE") end
    local longest = limit(offered, "FUTURERELEASE")
    if longest and wishes.hold > longest then
      return nil, ("hold_for is %.0f seconds, the server takes at most %.0f"):format(wishes.hold, longest)
    end
    add("HOLDFOR=%.0f", wishes.hold)
  end
  if wishes.priority then
    if not offered["MT-PRIORITY"] then return lacks("mt_priority is asked for", "MT-PRIORITY") end
    add("MT-PRIORITY=%.0f", wishes.priority)
  end
  return words
end

--- The parameters of RCPT for one recipient, of a message that MAIL was written for.
---@param wishes table?
---@param address string
---@return string words each with a blank before it
function parameter.rcpt(wishes, address)
  local dsn = wishes and wishes.dsn
  if not dsn then return "" end
  local words = dsn.notify and " NOTIFY=" .. dsn.notify or ""
  if address:find("[\128-\255]") then return words .. " ORCPT=utf-8;" .. parameter.utf8_xtext(address) end
  return words .. " ORCPT=rfc822;" .. parameter.xtext(address)
end

local check_words = check.map "string number boolean"

--- " NAME=value" for each parameter that a caller gives, in order of name. Raises where one is of a wrong type.
---@param params table<string, string|number|boolean>?
---@param label string the call's name
---@return string?
---@return string? reason
function parameter.words(params, label)
  local names, words = {}, {}
  params = params or {}
  check_words(params, label)
  for name, value in pairs(params) do names[#names + 1] = value ~= false and name or nil end
  table.sort(names)
  for i, name in ipairs(names) do
    local value = params[name]
    if type(value) == "number" then
      if not is_whole(value, -EXACT, EXACT) then return nil, "the parameter " .. name .. " is no whole number" end
      value = ("%.0f"):format(value)
    end
    -- joined, not formatted: Lua 5.1's %s ends at a NUL, which the gate must see
    words[i] = " " .. name .. (value == true and "" or "=" .. tostring(value))
    -- a blank would begin another parameter
    if words[i]:find("%s", 2) or words[i]:find("[<>]") then
      return nil, "the parameter " .. name .. " has a blank or < > in it"
    end
  end
  return table.concat(words)
end

--- Whether a caller gives this one, in whichever case.
---@param params table?
---@param keyword string
---@return boolean
function parameter.has(params, keyword)
  for name, value in pairs(type(params) == "table" and params or {}) do
    if value and type(name) == "string" and name:upper() == keyword then return true end
  end
  return false
end

return parameter
