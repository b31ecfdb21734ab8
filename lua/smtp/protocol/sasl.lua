--- SASL mechanisms as pure steps: challenge -> response. Nothing here does I/O or base64. RFC 4422, 4616, 2195, 5802,
--- 7677, 7628; LOGIN and XOAUTH2 have no RFC.
---
--- A mechanism of your own is one more entry, used where the option `auth` names it:
---
---     local sasl = require "smtp.protocol.sasl"
---     sasl.mechanisms["X-PIN"] = {
---       needs = { "username", "password" },
---       start = function(credentials, server)
---         return credentials.username, function(challenge) return challenge .. credentials.password end
---       end,
---     }
---     smtp.send { auth = "X-PIN", username = "ada", password = "1815", … }
local scram = require "smtp.protocol.scram"

local sasl = {}

---@class smtp.Mechanism
---@field needs string[] the parts of the credentials it cannot do without
---@field plus boolean? it binds the login to the TLS connection
---@field start smtp.SaslStart

--- The initial response (nil: none), a step, and a check or nil; or nil, nil and the reason why it cannot begin.
---@alias smtp.SaslStart
---| fun(credentials: smtp.Credentials, server: smtp.SaslServer): string?, smtp.SaslStep?, smtp.SaslCheck|string|nil

--- A response, and (2nd) what the server said against the login if that is in the challenge; or nil and what is wrong
--- with the challenge: the login is broken off.
---@alias smtp.SaslStep fun(challenge: string): string?, string?

--- Called when the server says that the login succeeded, with the data in its reply, if any: nil where that may be
--- believed, else what is wrong.
---@alias smtp.SaslCheck fun(data: string?): string?

---@class smtp.SaslServer
---@field host string
---@field port integer
---@field offered table<string, boolean>? the mechanisms it offers
---@field binding (fun(kind: string): string?)? what binds to the TLS connection, by kind (RFC 5929, 9266)
---@field certificate boolean? we gave it one (option client_cert)
---@field pause fun()? lets the host do something else between two pieces of long work; may yield
---@field hide (fun(words: string))? keeps out of transcript and errors what gives the secret away

local function over()
  return nil, "it asks for more than the mechanism has to say"
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

local PASSWORD = { "username", "password" }

--- By name, in upper case.
---@type table<string, smtp.Mechanism>
sasl.mechanisms = {
  -- who we are is known from without, by our certificate; the name, if any, is who to act as (RFC 4422 appendix A)
  EXTERNAL = { needs = {}, start = function(credentials) return credentials.username or "", over end },

  PLAIN = {
    needs = PASSWORD,
    start = function(credentials) return "\0" .. credentials.username .. "\0" .. credentials.password, over end,
  },

  LOGIN = {
    needs = PASSWORD,
    start = function(credentials) return credentials.username, once(function() return credentials.password end) end,
  },

  ["CRAM-MD5"] = {
    needs = PASSWORD,
    start = function(credentials)
      return nil, once(function(challenge)
        local digest, reason = require "smtp.tls".hmac("md5", credentials.password, challenge)
        if not digest then return nil, reason end
        return credentials.username .. " " .. digest:gsub(".", function(byte) return ("%02x"):format(byte:byte()) end)
      end)
    end,
  },

  -- A refused token is told in a challenge (JSON); an answer to it is owed before the final reply comes.
  OAUTHBEARER = {
    needs = { "token" },
    start = function(credentials, server)
      local gs2 = "n,a=" .. (credentials.username or ""):gsub("=", "=3D"):gsub(",", "=2C") .. ","
      return ("%s\1host=%s\1port=%d\1auth=Bearer %s\1\1"):format(gs2, server.host, server.port, credentials.token),
        once(function(challenge) return "\1", challenge end)
    end,
  },

  XOAUTH2 = {
    needs = { "username", "token" },
    start = function(credentials)
      return ("user=%s\1auth=Bearer %s\1\1"):format(credentials.username, credentials.token),
        once(function(challenge) return "", challenge end)
    end,
  },
}

for _, kind in ipairs { { "SCRAM-SHA-256", "sha256" }, { "SCRAM-SHA-1", "sha1" } } do
  for suffix, plus in pairs { [""] = false, ["-PLUS"] = true } do
    sasl.mechanisms[kind[1] .. suffix] = {
      needs = PASSWORD,
      plus = plus,
      start = function(credentials, server) return scram.start(kind[2], plus, credentials, server) end,
    }
  end
end

-- The strongest first.
local BY_PASSWORD = {
  "SCRAM-SHA-256-PLUS", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-256", "SCRAM-SHA-1", "CRAM-MD5", "PLAIN", "LOGIN",
}
local BY_TOKEN = { "OAUTHBEARER", "XOAUTH2" }
local BY_CERTIFICATE = "EXTERNAL"

local function usable(credentials, server)
  local names = credentials.token and BY_TOKEN or credentials.password and BY_PASSWORD or {}
  if not server.certificate then return names end
  -- beside a password or token the certificate may be for TLS alone: it logs in where nothing else does
  local all = {}
  for i, name in ipairs(names) do all[i] = name end
  all[#all + 1] = BY_CERTIFICATE
  return all
end

--- The mechanism to use: the first the caller names, or the strongest, that the server offers too.
---@param credentials smtp.Credentials
---@param server smtp.SaslServer
---@param wanted string[]? names in the caller's order
---@return string? name
---@return string? reason
function sasl.choose(credentials, server, wanted)
  wanted = wanted or usable(credentials, server)
  for _, name in ipairs(wanted) do
    local mechanism = sasl.mechanisms[name]
    if mechanism and server.offered[name] and (not mechanism.plus or scram.binding(server)) then return name end
  end
  local names = {}
  for name in pairs(server.offered) do names[#names + 1] = name end
  table.sort(names)
  return nil, ("no mechanism in common: the server offers %s, this login can use %s"):format(
    #names > 0 and table.concat(names, " ") or "none", #wanted > 0 and table.concat(wanted, " ") or "none")
end

-- What cannot be sent: a missing part, or a byte that would end it early.
local function problem(name, credentials)
  for _, field in ipairs(sasl.mechanisms[name].needs) do
    if not credentials[field] then return name .. " needs a " .. field end
  end
  for _, field in ipairs { "username", "password", "token" } do
    local value = credentials[field]
    if value and (value:find("\0", 1, true) or (credentials.token and value:find("\1", 1, true))) then
      return "the " .. field .. " has a byte that cannot be sent"
    end
  end
end

--- Begins a login.
---@param name string a mechanism sasl.choose gave
---@param credentials smtp.Credentials token already a string
---@param server smtp.SaslServer
---@return string? initial
---@return smtp.SaslStep? step nil: it cannot begin
---@return smtp.SaslCheck|string|nil check or, where it cannot begin, the reason
function sasl.start(name, credentials, server)
  local reason = problem(name, credentials)
  if reason then return nil, nil, reason end
  return sasl.mechanisms[name].start(credentials, server)
end

return sasl
