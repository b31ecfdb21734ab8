--- sasl: the mechanisms of a login as pure steps: challenge -> response.
---
--- Does: chooses the strongest mechanism that both sides have.
--- Never: does I/O or base64.
--- Called by: client/login; plan, which looks for what a login lacks.
--- RFC 4422, 4616, 2195, 5802, 7677, 7628; LOGIN and XOAUTH2 have no RFC.
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
---@field strength integer? 4: bound to the TLS connection, or by a certificate; 3: the server does not learn the
--- secret, and shows that it knows it; 2: it does not learn the secret, but may guess at it; nil or 1: it is told
---@field plus boolean? it binds the login to the TLS connection
---@field blind boolean? it says what it has to say whatever the challenges are, even if they are not base64
---@field start smtp.SaslStart

--- The initial response (nil: none), a step, and a check or nil; or nil, nil and the reason why it cannot begin.
---@alias smtp.SaslStart
---| fun(credentials: smtp.Credentials, server: smtp.SaslServer): string?, smtp.SaslStep?, smtp.SaslCheck|string?

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
---@field verified boolean? the connection is encrypted, and the server verified
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
  EXTERNAL = { needs = {}, strength = 4, start = function(credentials) return credentials.username or "", over end },

  PLAIN = {
    needs = PASSWORD,
    start = function(credentials) return "\0" .. credentials.username .. "\0" .. credentials.password, over end,
  },

  -- never with an initial response: a server that asks for the name all the same would get the password for it
  LOGIN = {
    needs = PASSWORD,
    blind = true,
    start = function(credentials)
      local password = once(function() return credentials.password end)
      local named = false
      return nil, function(challenge)
        if named then return password(challenge) end
        named = true
        return credentials.username
      end
    end,
  },

  ["CRAM-MD5"] = {
    needs = PASSWORD,
    strength = 2,
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
      strength = plus and 4 or 3,
      plus = plus,
      start = function(credentials, server) return scram.start(kind[2], plus, credentials, server) end,
    }
  end
end

-- In order of preference. CRAM-MD5 is deprecated, takes one wait more than PLAIN, and servers that keep hashes offer it
-- in vain: it is worth that only where others may listen.
local SCRAM = { "SCRAM-SHA-256-PLUS", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-256", "SCRAM-SHA-1" }
local TOLD, GUESSED = { "PLAIN", "CRAM-MD5", "LOGIN" }, { "CRAM-MD5", "PLAIN", "LOGIN" }
local BY_TOKEN = { "OAUTHBEARER", "XOAUTH2" }
local BY_CERTIFICATE = "EXTERNAL"

local function usable(credentials, server)
  local all = {}
  local function add(names)
    for _, name in ipairs(names) do all[#all + 1] = name end
  end
  if credentials.token then
    add(BY_TOKEN)
  elseif credentials.password then
    add(SCRAM)
    add(server.verified and TOLD or GUESSED)
  end
  -- beside a password or token the certificate may be for TLS alone: it logs in where nothing else does
  if server.certificate then add { BY_CERTIFICATE } end
  return all
end

-- Towards a server that has shown who it is, over TLS, CRAM-MD5 hides nothing that counts.
local function strength(name, server)
  local own = sasl.mechanisms[name].strength or 1
  return own == 2 and server.verified and 1 or own
end

--- The mechanism to use: the first the caller names, or prefers, that the server offers too.
---@param credentials smtp.Credentials
---@param server smtp.SaslServer
---@param wanted string[]? names in the caller's order
---@param vain string? the one that the server offered and did not take: what comes behind it, and is no weaker
---@return string? name
---@return string? reason
function sasl.choose(credentials, server, wanted, vain)
  wanted = wanted or usable(credentials, server)
  local least, passed = vain and strength(vain, server) or 0, not vain
  for _, name in ipairs(wanted) do
    local mechanism = passed and sasl.mechanisms[name]
    if mechanism and server.offered[name] and (not mechanism.plus or scram.binding(server))
      and strength(name, server) >= least then
      return name
    end
    passed = passed or name == vain
  end
  local names = {}
  for name in pairs(server.offered) do names[#names + 1] = name end
  table.sort(names)
  return nil, ("no mechanism in common: the server offers %s, this login can use %s"):format(
    #names > 0 and table.concat(names, " ") or "none", #wanted > 0 and table.concat(wanted, " ") or "none")
end

-- `why`: what it is missing for. Most often it was to come from the environment.
local function lacking(field, why)
  return ("%s is missing: %s (is an environment variable not set?)"):format(field, why)
end

local function missing(name, credentials)
  for _, field in ipairs(sasl.mechanisms[name].needs) do
    if not credentials[field] then return lacking(field, ("%s needs one"):format(name)) end
  end
end

-- RFC 4013 2.3.
local function has_control(value)
  return value:find("[\1-\31\127]") ~= nil or value:find("\0", 1, true) ~= nil
end

local FIELDS = { "username", "password", "token" }

--- What no login can carry, in username, password or token, or in the mechanisms; nil: nothing.
---@param credentials smtp.Credentials
---@param wanted string[]|false? mechanisms in the caller's order
---@return string? reason never with a part of a value in it
function sasl.flaw(credentials, wanted)
  if wanted and #wanted == 0 then return "auth names no mechanism: leave it out, or auth = false for no login" end
  for _, name in ipairs(wanted or {}) do
    if not name:find("^[%w_-]+$") then
      return "auth has a name that no mechanism can have (RFC 4422 3.1); a login is given by username and password, or "
        .. "token"
    end
  end
  for _, field in ipairs(FIELDS) do
    local value = credentials[field]
    if value == "" then return lacking(field, "it is empty") end
    if type(value) == "string" and has_control(value) then
      if not has_control(value:match("^(.-)[\r\n]*$")) then
        return field .. " ends in a line break, as a file that it was read from does: take that off"
      end
      return field .. " has a control character in it, which no login can carry"
    end
  end
end

--- What a login lacks, whatever the server offers; nil: nothing.
---@param credentials smtp.Credentials
---@param wanted string[]? mechanisms in the caller's order
---@param certificate boolean there is one (option client_cert)
---@return string? reason
function sasl.lack(credentials, wanted, certificate)
  local lacks
  for _, name in ipairs(wanted or {}) do
    local known = sasl.mechanisms[name]
    local lack = known and missing(name, credentials)
    if known and not lack then return nil end
    lacks = lacks or lack
  end
  if wanted and not lacks then
    -- not shown: it may be a password
    return "auth names no mechanism that is known here, such as PLAIN, LOGIN or XOAUTH2; a login is given by username "
      .. "and password, or token"
  end
  if lacks or credentials.token or certificate then return lacks end
  if not credentials.username then return lacking("username", "a password is given without one") end
  if not credentials.password then
    return lacking("password", "a username is given without one, and without a token")
  end
end

--- Begins a login.
---@param name string a mechanism sasl.choose gave
---@param credentials smtp.Credentials token already a string
---@param server smtp.SaslServer
---@return string? initial
---@return smtp.SaslStep? step nil: it cannot begin
---@return smtp.SaslCheck|string? check or, where it cannot begin, the reason
function sasl.start(name, credentials, server)
  local reason = sasl.flaw(credentials) or missing(name, credentials)
  if reason then return nil, nil, reason end
  return sasl.mechanisms[name].start(credentials, server)
end

return sasl
