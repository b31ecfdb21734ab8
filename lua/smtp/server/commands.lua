--- commands: what a server does for each command: functions by verb, of the connection and what stands behind the verb.
---
--- Does: answers, and reads on where that is due: a login's responses, a message's content.
--- Never: knows a socket; all bytes go through its connection.
--- Called by: server/connection.
--- RFC 5321 4.1.1, 2033 (LMTP), 3207 (STARTTLS), 4954 and 4616 (AUTH), 1870 (SIZE), 6531 (SMTPUTF8), 3030 (BDAT,
--- BINARYMIME).
local core = require "smtp.core"
local path = require "smtp.server.path"

---@type table<string, fun(self: smtp.Connection, argument: string)>
local commands = {}

local LOGINS = 3        -- failed ones; then the connection ends
local RECIPIENTS = 1000
local PACE = 1000       -- octets a second that content must make in the long run, so that a dripping client ends too

local function greet(self, argument, lmtp)
  if (self.server.lmtp or false) ~= lmtp then
    return self:mistake(500, "5.5.1", lmtp and "this is not LMTP" or "this is LMTP: say LHLO")
  elseif argument == "" or argument:find("%c") then
    return self:mistake(501, "5.5.4", "give your name")
  end
  self:reset()
  self.greeted = true
  return true
end

local UPGRADES = { starttls = true, opportunistic = true }

local function may_login(self)
  return self.server.auth and not self.user and (self.pipe.info or self.server.mode == "none")
end

local function offer(self)
  local lines = { self.name, "PIPELINING", ("SIZE %d"):format(self.server.size), "8BITMIME", "SMTPUTF8",
    "ENHANCEDSTATUSCODES", "CHUNKING" }
  for _, line in ipairs(self.server.extensions.lines) do
    -- RFC 8689 2: only under TLS
    if line ~= "REQUIRETLS" or self.pipe.info then lines[#lines + 1] = line end
  end
  if UPGRADES[self.server.mode] and not self.pipe.info then lines[#lines + 1] = "STARTTLS" end
  if may_login(self) then lines[#lines + 1] = "AUTH PLAIN LOGIN" end
  self:respond(250, nil, table.concat(lines, "\n"))
end

function commands.HELO(self, argument)
  if greet(self, argument, false) then self:respond(250, nil, self.name) end
end

function commands.EHLO(self, argument)
  if greet(self, argument, false) then offer(self) end
end

function commands.LHLO(self, argument)
  if greet(self, argument, true) then offer(self) end
end

function commands.NOOP(self) self:respond(250, "2.0.0", "Ok") end

function commands.HELP(self) self:respond(214, "2.0.0", "see RFC 5321") end

function commands.VRFY(self) self:respond(252, "2.5.2", "send it and see") end

function commands.RSET(self)
  self:reset()
  self:respond(250, "2.0.0", "Ok")
end

function commands.QUIT(self)
  self:respond(221, "2.0.0", "Bye")
  self:flush()
  self.over = true
end

function commands.STARTTLS(self)
  if not UPGRADES[self.server.mode] then return self:mistake(502, "5.5.1", "TLS is not offered") end
  if self.pipe.info then return self:mistake(503, "5.5.1", "the connection is encrypted already") end
  -- what came in clear behind the command must not be read as if it had come encrypted (RFC 3207 6)
  if self.wire:residue() > 0 then return self:leave(501, "5.5.1", "nothing may follow STARTTLS before its reply") end
  self:respond(220, "2.0.0", "Go ahead")
  self.over = not self:flush() or not self:encrypt()
end

-- A response to a challenge, decoded; nil: it was "*" or not base64, or the client is gone.
local function challenge(self, words)
  self:respond(334, nil, core.base64(words))
  local line = self:line()
  return line and core.unbase64(line)
end

local mechanisms = {}

function mechanisms.PLAIN(self, initial)
  local response = initial or challenge(self, "")
  if not response then return nil end
  local authority, user, password = response:match("^([^%z]*)%z([^%z]+)%z([^%z]+)$")
  -- nobody may act as somebody else here (RFC 4616 2)
  if authority == "" or authority == user then return user, password end
end

function mechanisms.LOGIN(self, initial)
  local user = initial or challenge(self, "Username:")
  return user, user and challenge(self, "Password:")
end

function commands.AUTH(self, argument)
  if not may_login(self) then
    if self.server.auth and not self.user then return self:mistake(538, "5.7.11", "STARTTLS first") end
    return self:mistake(503, "5.5.1", self.user and "you are logged in already" or "AUTH is not offered here")
  end
  if not self.greeted or self.from then return self:mistake(503, "5.5.1", "after EHLO, and not during a message") end
  local name, rest = argument:match("^(%S+)(.*)$")
  local login = name and mechanisms[name:upper()]
  if not login then return self:mistake(504, "5.5.4", "PLAIN and LOGIN are offered") end
  local initial = rest:match("^ (%S+)$")
  if initial then initial = initial == "=" and "" or core.unbase64(initial) end
  if rest ~= "" and not initial then return self:mistake(501, "5.5.2", "not valid base64") end

  local user, password = login(self, initial)
  -- what PLAIN cannot carry (RFC 4616 2), LOGIN must not either; a name is written into logs and envelopes
  local whole = user and password and user ~= "" and password ~= "" and not (user:find("%c") or password:find("%z"))
  if not whole then return self:mistake(501, "5.5.2", "the login is malformed or was broken off") end
  local ran, welcome = self:ask(self.server.auth, user, password)
  if not ran then return self:respond(454, "4.7.0", "logins cannot be checked now") end
  if welcome then
    self.user = user
    return self:respond(235, "2.7.0", "Welcome")
  end
  self.logins = self.logins + 1
  self:mistake(535, "5.7.8", "user name or password is wrong")
  if self.logins == LOGINS then self:leave(421, "4.7.0", "too many failed logins") end
end

-- What is wrong with parameters that are not known, or have no such value: code, enhanced status code and words.
local function problem(params, known, verb)
  for name, value in pairs(params) do
    if not known[name] then return 555, "5.5.4", "a parameter of " .. verb .. " is not known here" end
    if not known[name](value) then return 501, "5.5.4", "a parameter of " .. verb .. " has no such value" end
  end
end

function commands.MAIL(self, argument)
  local server = self.server
  if not self.greeted then return self:mistake(503, "5.5.1", server.lmtp and "say LHLO first" or "say EHLO first") end
  local clear = server.mode == "starttls" and not self.pipe.info
  if clear or server.auth and not self.user then
    return self:mistake(530, "5.7.0", not server.auth and "STARTTLS first" or may_login(self) and "log in first"
      or "STARTTLS first, then log in")
  end
  if self.from then return self:mistake(503, "5.5.1", "a message is under way") end
  local mailbox, params = path.parse(argument, "FROM")
  if not mailbox then return self:mistake(501, "5.1.7", "the sender is not a mailbox in < >") end
  local code, enhanced, words = problem(params, server.extensions.mail, "MAIL")
  if code then return self:mistake(code, enhanced, words) end
  if mailbox.utf8 and not params.SMTPUTF8 then return self:mistake(553, "5.6.7", "such an address needs SMTPUTF8") end
  if (tonumber(params.SIZE) or 0) > server.size then return self:respond(552, "5.3.4", "the message is too large") end
  self.from, self.params = mailbox.address, params
  self.binary = type(params.BODY) == "string" and params.BODY:upper() == "BINARYMIME"
  self:respond(250, "2.1.0", "Ok")
end

-- A recipient that is refused is no mistake: an honest sender's list may be full of typing errors.
function commands.RCPT(self, argument)
  if not self.from or self.lines then return self:mistake(503, "5.5.1", "say MAIL first") end
  local mailbox, params = path.parse(argument, "TO")
  if not mailbox then return self:respond(501, "5.1.3", "the recipient is not a mailbox in < >") end
  local code, enhanced, words = problem(params, self.server.extensions.rcpt, "RCPT")
  if code then return self:respond(code, enhanced, words) end
  if mailbox.utf8 and not self.params.SMTPUTF8 then
    return self:respond(553, "5.6.7", "such an address needs SMTPUTF8")
  end
  if #self.to == RECIPIENTS then return self:respond(452, "4.5.3", "too many recipients") end
  self.to[#self.to + 1] = mailbox.address
  self.asked[#self.to] = params
  self:respond(250, "2.1.5", "Ok")
end

-- How long content that has come so far may take in all.
local function allowance(self, began, octets)
  return began + self.server.timeout + math.min(octets, self.server.size) / PACE
end

function commands.DATA(self)
  if #self.to == 0 or self.lines then return self:mistake(503, "5.5.1", "say MAIL and RCPT first, and not BDAT") end
  if self.binary then return self:mistake(503, "5.5.1", "BODY=BINARYMIME needs BDAT") end
  self:respond(354, nil, "End with a line that is a lone dot")
  local began = core.now()
  while not self.over do
    local bytes, done, bare = self.wire:content()
    if not bytes then
      self.over = true
      return
    end
    self:keep(bytes)
    self.bare = bare
    if done then return self:conclude() end
    self:fill(allowance(self, began, self.octets))
  end
end

function commands.BDAT(self, argument)
  local digits, last = argument:upper():match("^(%d+)(.*)$")
  -- without its length the chunk cannot be told from commands
  if not digits or #digits > 15 or (last ~= "" and last ~= " LAST") then
    return self:leave(501, "5.5.4", "BDAT needs a length")
  end
  local count, come, before = tonumber(digits), 0, self.octets
  local wanted = #self.to > 0
  -- one time for all chunks of a message: else a client could drip it, each octet in a chunk of its own
  self.began = self.began or core.now()
  if core.now() >= allowance(self, self.began, before) then return self:late() end
  self.lines = self.lines or core.encoder("crlf")
  if self.octets + count > self.server.size then self.octets = math.huge end
  -- the octets are taken, kept or not: they must never be read as commands
  while come < count do
    local bytes = self.wire:octets(count - come)
    come = come + #bytes
    if wanted then
      self.bare = not self.binary and self.lines:update(bytes) ~= bytes or self.bare
      self:keep(bytes)
    end
    if bytes == "" and not self:fill(allowance(self, self.began, before + come)) then return end
  end
  if not wanted then
    self:reset()
    return self:mistake(503, "5.5.1", "say MAIL and RCPT first")
  elseif last ~= "" then
    return self:conclude()
  elseif self.octets > self.server.size then
    self:reset()
    return self:respond(552, "5.3.4", "the message is too large")
  end
  self:respond(250, "2.0.0", ("%d octets"):format(count))
end

return commands
