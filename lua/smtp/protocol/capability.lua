--- capability: what a server says it can do: the EHLO reply as a table. Pure.
---
--- Called by: whatever in client/ asks what is offered.
--- RFC 5321 4.1.1.1.
local capability = {}

-- Words that tell nobody's secret, even where they are one: what they say is acted upon.
local PUBLIC = {}
for word in ([[
  8BITMIME AUTH BINARYMIME CHUNKING DELIVERBY DSN ENHANCEDSTATUSCODES FUTURERELEASE LIMITS MT-PRIORITY PIPELINING
  REQUIRETLS SIZE SMTPUTF8 STARTTLS
  CRAM-MD5 DIGEST-MD5 EXTERNAL GSSAPI LOGIN NTLM OAUTHBEARER PLAIN SCRAM-SHA-1 SCRAM-SHA-1-PLUS SCRAM-SHA-256
  SCRAM-SHA-256-PLUS XOAUTH2]]):gmatch("%S+") do
  PUBLIC[word] = true
end

local KEYWORD = "^(%w[%w-]*)[ =]?(.*)$" -- "AUTH=LOGIN" is an old form of "AUTH LOGIN" that some still send beside it
local BEHIND = "^[%w-]*%**[ =]?(.*)$"

local function is_public(line)
  for word in line:gmatch("[^%s=]+") do
    if not PUBLIC[word:upper()] then return false end
  end
  return true
end

-- A line's keyword and parameters as they may be shown. A secret may begin in the one and end in the other.
local function split(line, scrub)
  local keyword, parameters = line:match(KEYWORD)
  if not keyword or not scrub or is_public(line) then return keyword, parameters end
  if PUBLIC[keyword:upper()] then return keyword, scrub(line):match(BEHIND) end
  return scrub(line):match(KEYWORD)
end

local function read(text, scrub)
  local found = {}
  local first = true
  for line in text:gmatch("([^\n]*)\n?") do
    if not first then
      local keyword, parameters = split(line, scrub)
      if keyword then
        -- the last that is not blank first: one pattern for all would take time in the square of a line of blanks
        if parameters ~= "" then parameters = (parameters:match("^.*%S") or ""):gsub("^%s+", "") end
        keyword = keyword:upper()
        if keyword == "AUTH" and type(found.AUTH) == "string" then parameters = found.AUTH .. " " .. parameters end
        found[keyword] = parameters ~= "" and parameters or true
      end
    end
    first = false
  end
  return found
end

local last_text, last_found -- the same server says the same each time

--- Keyword in upper case -> its parameters as one string, or true where it has none.
---@param text string the reply's lines; the first greets and names no capability
---@param scrub (fun(text: string): string)? takes secrets out
---@return table<string, string|true>
function capability.parse(text, scrub)
  if scrub and scrub(text) ~= text then return read(text, scrub) end
  if text ~= last_text then last_text, last_found = text, read(text) end
  local found = {}
  for keyword, parameters in pairs(last_found) do found[keyword] = parameters end
  return found
end

--- The mechanisms of AUTH, as a set of upper-case names (RFC 4954 3).
---@param capabilities table
---@return table<string, boolean>
function capability.mechanisms(capabilities)
  local set = {}
  if type(capabilities.AUTH) == "string" then
    for name in capabilities.AUTH:gmatch("%S+") do set[name:upper()] = true end
  end
  return set
end

--- The largest message taken, in octets; nil: no limit known (RFC 1870 3).
---@param capabilities table
---@return number?
function capability.size(capabilities)
  local words = capabilities.SIZE
  local digits = type(words) == "string" and words:match("^%d+$")
  local size = digits and tonumber(digits)
  return size and size > 0 and size or nil
end

return capability
