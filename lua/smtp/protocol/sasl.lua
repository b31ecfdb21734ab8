--- SASL mechanisms as pure steps: a mechanism is a function of the credentials that returns the initial response
--- (nil: none) and a step, challenge -> response. Nothing here does I/O or base64. RFC 4616, 2195, 7628; LOGIN and
--- XOAUTH2 have no RFC.
local sasl = {}

---@class smtp.Mechanism
---@field start fun(credentials: smtp.Credentials, server: table): string?, smtp.SaslStep
---@alias smtp.SaslStep fun(challenge: string): string?, string?

local function over()
  return nil, "the server asked for more than the mechanism has to say"
end

-- A step that answers one challenge, so that no login goes on for ever.
local function once(answer)
  local asked = false
  return function(challenge)
    if asked then return over() end
    asked = true
    return answer(challenge)
  end
end

local mechanisms = {}

function mechanisms.PLAIN(credentials)
  return "\0" .. credentials.username .. "\0" .. credentials.password, over
end

function mechanisms.LOGIN(credentials)
  return credentials.username, once(function() return credentials.password end)
end

mechanisms["CRAM-MD5"] = function(credentials)
  return nil, once(function(challenge)
    local digest, reason = require "smtp.tls".hmac("md5", credentials.password, challenge)
    if not digest then return nil, reason end
    return credentials.username .. " " .. digest:gsub(".", function(byte) return ("%02x"):format(byte:byte()) end)
  end)
end

-- A refused token is told in a challenge (JSON); an answer to it is owed before the final reply comes.
function mechanisms.OAUTHBEARER(credentials, server)
  local gs2 = "n,a=" .. (credentials.username or ""):gsub("=", "=3D"):gsub(",", "=2C") .. ","
  return ("%s\1host=%s\1port=%d\1auth=Bearer %s\1\1"):format(gs2, server.host, server.port, credentials.token),
    once(function() return "\1" end)
end

function mechanisms.XOAUTH2(credentials)
  return ("user=%s\1auth=Bearer %s\1\1"):format(credentials.username, credentials.token), once(function() return "" end)
end

local BY_PASSWORD = { "CRAM-MD5", "PLAIN", "LOGIN" }
local BY_TOKEN = { "OAUTHBEARER", "XOAUTH2" }

--- The mechanism to use: the first the caller names, or the strongest, that the server offers too.
---@param credentials smtp.Credentials
---@param offered table<string, boolean>
---@param wanted string[]? names in the caller's order
---@return string? name
---@return string? reason
function sasl.choose(credentials, offered, wanted)
  local usable = credentials.token and BY_TOKEN or BY_PASSWORD
  for _, name in ipairs(wanted or usable) do
    if mechanisms[name] and offered[name] then return name end
  end
  local names = {}
  for name in pairs(offered) do names[#names + 1] = name end
  table.sort(names)
  return nil, ("no mechanism in common: the server offers %s, this login can use %s"):format(
    #names > 0 and table.concat(names, " ") or "none", table.concat(wanted or usable, " "))
end

--- What cannot be sent: a missing part, or a NUL that would end it early.
---@param name string the mechanism
---@param credentials smtp.Credentials
---@return string? reason
function sasl.problem(name, credentials)
  local by_token = name == "OAUTHBEARER" or name == "XOAUTH2"
  local needed = by_token and { "username", "token" } or { "username", "password" }
  for _, field in ipairs(needed) do
    local value = credentials[field]
    if not value and not (name == "OAUTHBEARER" and field == "username") then return name .. " needs a " .. field end
    if value and (value:find("\0", 1, true) or (by_token and value:find("\1", 1, true))) then
      return "the " .. field .. " has a byte that cannot be sent"
    end
  end
end

--- Begins: the initial response and the step.
---@param name string a mechanism sasl.choose gave
---@param credentials smtp.Credentials token already a string
---@param server { host: string, port: integer }
---@return string? initial
---@return fun(challenge: string): string?, string? step
function sasl.start(name, credentials, server)
  return mechanisms[name](credentials, server)
end

return sasl
