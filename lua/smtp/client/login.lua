--- login: which mechanism, its dialogue, its secrets kept out of sight.
---
--- Never: sends credentials in clear, where nobody asked for that, or tries another mechanism after a refused
--- password.
--- Called by: session.
--- RFC 4954.
local command = require "smtp.client.command"
local core = require "smtp.core"
local errors = require "smtp.errors"
local options = require "smtp.options"
local plans = require "smtp.plan"
local state = require "smtp.client.state"
local capability = require "smtp.protocol.capability"
local pipeline = require "smtp.protocol.pipeline"
local sasl = require "smtp.protocol.sasl"

local login = {}

-- More than any mechanism needs.
local CHALLENGES = 16
-- A command's most octets (RFC 5321 4.5.3.1.4), without its end. A longer AUTH leaves the initial response for an empty
-- challenge (RFC 4954 4); challenges and responses have no such limit.
local COMMAND = 510

-- What a mechanism may know of the connection.
local function sasl_server(self)
  local plan, pipe = self.plan, self.pump.pipe
  local wait = self.transport.wait
  return {
    host = plan.server_name or plan.host or "localhost", port = plan.port,
    offered = capability.mechanisms(self.capabilities),
    binding = pipe.binding and function(kind) return (pipe:binding(kind)) end,
    certificate = plan.identity ~= nil,
    verified = self.tls ~= nil and plan.verify,
    hide = self.trace.hide,
    pause = wait and function() wait("read", -1, core.now()) end,
  }
end

-- What a server has against a token or a proof comes in a challenge (RFC 7628 3.2.2, RFC 5802 7).
local function with_detail(self, reply, detail)
  if not detail then return reply end
  local function escape(byte) return ("\\x%02x"):format(byte:byte()) end
  local shown = self.trace.scrub(detail):gsub("[%c\128-\255]", escape)
  return { code = reply.code, enhanced = reply.enhanced, text = reply.text .. "\n" .. shown }
end

local function converse(self, mechanism, credentials, server)
  local initial, step, check = sasl.start(mechanism, credentials, server)
  local blind = sasl.mechanisms[mechanism].blind
  if not step then return command.fail_input(self, "auth", check) end
  local line, shown = "AUTH " .. mechanism, "AUTH " .. mechanism
  if initial then
    local encoded = initial == "" and "=" or core.base64(initial)
    self.trace.hide(encoded)
    if #line + 1 + #encoded <= COMMAND then
      line, shown, initial = line .. " " .. encoded, shown .. " ****", nil
    end
  end
  local reply, err = command.ask(self, "auth", line, false, shown)
  local detail, count = nil, 0
  while reply and reply.code == 334 do
    count = count + 1
    local challenge, response, words = core.unbase64(reply.text), nil, "it is not base64"
    if blind then challenge = challenge or "" end
    if initial then
      response, words, initial = initial, nil, nil
    elseif count > CHALLENGES then
      words = "it is one of too many"
    elseif challenge then
      response, words = step(challenge)
    end
    if response then detail = words or detail end
    local encoded = response and core.base64(response) or "*"
    if response and response ~= "" then self.trace.hide(encoded) end
    reply, err = command.ask(self, "auth", encoded, false, response and "****" or "*")
    if reply and not response then
      return command.fail(self, "auth", "protocol",
        ("the server's challenge is not one that %s knows: %s"):format(mechanism, words))
    end
  end
  if not reply then return nil, err end
  if reply.code ~= 235 then return command.refuse(self, "auth", with_detail(self, reply, detail), "auth") end
  local doubt = check and check(core.unbase64(reply.text))
  if doubt then return command.fail(self, "auth", "protocol", "the server's yes is not to be believed: " .. doubt) end
  return command.clean(self, reply)
end

--- Keeps the secrets of these out of all that anybody gets to see.
---@param credentials smtp.Credentials
function login.hide(self, credentials)
  local hide, password, token = self.trace.hide, credentials.password, credentials.token
  if password then
    hide(password)
    -- as it goes in PLAIN, which in base64 does not show the password's own
    hide("\0" .. (credentials.username or "") .. "\0" .. password)
  end
  if type(token) == "string" then hide(token) end
end

-- What one login goes by: its credentials, with a token that is a string, its mechanism and what that may know.
local function prepare(self, credentials, wanted)
  if type(credentials.token) == "function" then
    local ran, token, reason = state.call(self, errors.catch, credentials.token)
    if not ran then state.rethrow(self) end
    if type(token) ~= "string" then
      return command.fail_input(self, "auth", "the token function gave no token: "
        .. (reason ~= nil and tostring(reason) or "it returned " .. (token == nil and "nil" or "a " .. type(token))))
    end
    credentials = { username = credentials.username, token = token }
    local flaw = sasl.flaw(credentials)
    if flaw then return command.fail_input(self, "auth", flaw) end
  end
  login.hide(self, credentials)
  local server = sasl_server(self)
  local mechanism, reason = sasl.choose(credentials, server, wanted)
  if not mechanism then return command.fail(self, "auth", "auth", reason) end
  return { credentials = credentials, mechanism = mechanism, server = server }
end

-- Whether the server offered a mechanism that it does not take: it says nothing against the credentials then. What
-- Google means by 5.7.9 is an app password.
local function is_vain(err)
  return err.code == 502 or err.code == 504
    or err.code == 534 and err.enhanced == "5.7.9" and not err.text:lower():find("application-specific", 1, true)
end

-- The mechanism that is tried behind one that was offered in vain, if it was: the next one that is no weaker. After a
-- refused password there is none: somebody may be making the server say so.
local function next_one(self, way, wanted, mechanism, err)
  if not (err and is_vain(err) and self.state == "ready") then return nil end
  return (sasl.choose(way.credentials, way.server, wanted, mechanism))
end

-- One login, from its first mechanism to the server's verdict.
local function try(self, way, wanted, mechanism)
  local reply, err
  repeat
    state.into(self, "login")
    state.tries(self, mechanism)
    reply, err = converse(self, mechanism, way.credentials, way.server)
    state.back(self)
    state.tried(self, reply ~= nil)
    mechanism = next_one(self, way, wanted, mechanism, err)
  until not mechanism
  return reply, err
end

-- The same, and the choice of the mechanism.
local function attempt(self, credentials, wanted)
  local way, err = prepare(self, credentials, wanted)
  if not way then return nil, err end
  return try(self, way, wanted, way.mechanism)
end

--- What a login lacks, whatever the server offers; nil: nothing.
---@param credentials smtp.Credentials
---@param wanted string[]|false|nil mechanisms
function login.lack(self, credentials, wanted)
  return sasl.lack(credentials, wanted or self.plan.mechanisms or nil, self.plan.identity ~= nil)
end

-- Whom to log in, if that may be done now.
local function credentials_for(self, given)
  if given then options.check_login(given) end
  local ok, err = command.begin(self, "auth")
  if not ok then return nil, err end
  local held = self.plan.credentials
  if given then held = plans.credentials(given) end
  if not held then
    return command.fail_input(self, "auth", "nothing to log in with: give username and password, or token")
  end
  if not self.tls and not self.plan.allow_insecure_auth then
    return command.fail(self, "auth", "insecure", "the connection is not encrypted: the credentials were not sent")
  end
  if not self.capabilities then return command.fail_input(self, "auth", "call ehlo() first") end
  local credentials = held()
  local wanted = given and plans.mechanisms(given.auth)
  local reason = given and sasl.flaw(credentials, wanted) or login.lack(self, credentials, wanted)
  if reason then return command.fail_input(self, "auth", reason) end
  return credentials
end

--- Logs in with the strongest mechanism both sides have. See Session:auth.
function login.now(self, given)
  local credentials, err = credentials_for(self, given)
  if not credentials then return nil, err end
  local wanted = given and plans.mechanisms(given.auth) or self.plan.mechanisms or nil
  local now = core.now()
  local reply
  reply, err = attempt(self, credentials, wanted)
  -- a token runs out: the function may have a newer one
  if err and err.code == 535 and type(credentials.token) == "function" then
    reply, err = attempt(self, credentials, wanted)
  end
  state.logged_in(self, core.now() - now)
  return reply, err
end

-- Mechanisms that end with the reply to their initial response and bring no security layer (RFC 4954 4): what stands
-- behind it cannot be taken for the answer to a challenge.
local ALONG = { PLAIN = true, EXTERNAL = true }

--- Queues a login that goes in one group with the envelope, where its mechanism allows that; else logs in at once.
---@return any ok
---@return smtp.Error? err
function login.along(self)
  local credentials, err = credentials_for(self)
  if not credentials then return nil, err end
  local way
  way, err = prepare(self, credentials, self.plan.mechanisms)
  if not way then return nil, err end
  if not (ALONG[way.mechanism] and pipeline.goes_on(self.capabilities, self.plan)) then return login.now(self) end
  local initial, _, reason = sasl.start(way.mechanism, way.credentials, way.server)
  if not initial then return command.fail_input(self, "auth", reason) end
  local encoded = initial == "" and "=" or core.base64(initial)
  local line = "AUTH " .. way.mechanism .. " "
  if #line + #encoded > COMMAND then return login.now(self) end
  self.trace.hide(encoded)
  local ok
  ok, err = command.queue(self, "auth", line .. encoded, false, line .. "****")
  if not ok then return nil, err end
  local now = core.now()
  state.tries(self, way.mechanism, function()
    local reply, lost = command.receive(self, "auth", "command")
    state.logged_in(self, core.now() - now)
    state.tried(self, reply ~= nil and reply.code == 235)
    if not reply or reply.code == 235 then return reply, lost end
    -- it would take the envelope for an answer
    if command.class(reply) == 3 then return command.expect(self, "auth", reply, 2) end
    local _, no = command.refuse(self, "auth", reply, "auth")
    local wanted = self.plan.mechanisms or nil
    local following = next_one(self, way, wanted, way.mechanism, no)
    state.tried(self, false, following ~= nil)
    return nil, no, following and function() return try(self, way, wanted, following) end
  end)
  return true
end

return login
