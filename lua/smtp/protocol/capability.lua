--- What a server says it can do: the EHLO reply as a table (RFC 5321 4.1.1.1).
local capability = {}

local function read(text)
  local found = {}
  local first = true
  for line in text:gmatch("([^\n]*)\n?") do
    if not first then
      -- "AUTH=LOGIN" is an old form of "AUTH LOGIN" that some servers still send beside it
      local keyword, parameters = line:match("^([%w][%w-]*)[ =]?(.*)$")
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

-- Words that tell nobody's secret, even where they are one: what they say is acted upon.
local PUBLIC = {}
for word in ([[
  8BITMIME AUTH BINARYMIME CHUNKING DELIVERBY DSN ENHANCEDSTATUSCODES FUTURERELEASE LIMITS MT-PRIORITY PIPELINING
  REQUIRETLS SIZE SMTPUTF8 STARTTLS
  CRAM-MD5 DIGEST-MD5 EXTERNAL GSSAPI LOGIN NTLM OAUTHBEARER PLAIN SCRAM-SHA-1 SCRAM-SHA-1-PLUS SCRAM-SHA-256
  SCRAM-SHA-256-PLUS XOAUTH2]]):gmatch("%S+") do
  PUBLIC[word] = true
end

-- A keyword or its parameters as they may be shown.
local function shown(words, scrub)
  for word in words:gmatch("%S+") do
    if not PUBLIC[word:upper()] then return scrub(words) end
  end
  return words
end

local last_text, last_found -- the same server says the same each time

--- Keyword in upper case -> its parameters as one string, or true where it has none.
---@param text string the reply's lines; the first greets and names no capability
---@param scrub (fun(text: string): string)? takes secrets out
---@return table<string, string|true>
function capability.parse(text, scrub)
  if text ~= last_text then last_text, last_found = text, read(text) end
  local found = {}
  local clean = not scrub or scrub(text) == text
  for keyword, parameters in pairs(last_found) do
    if not clean then
      keyword, parameters = shown(keyword, scrub), parameters == true or shown(parameters, scrub)
    end
    found[keyword] = parameters
  end
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

local last_words, last_size -- it is asked for each message, and of the same server mostly

--- The largest message taken, in octets; nil: no limit known (RFC 1870 3).
---@param capabilities table
---@return number?
function capability.size(capabilities)
  local words = capabilities.SIZE
  if words ~= last_words then
    local digits = type(words) == "string" and words:match("^%d+$")
    local size = digits and tonumber(digits)
    last_words, last_size = words, size and size > 0 and size or nil
  end
  return last_size
end

return capability
