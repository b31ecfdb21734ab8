--- The server's half of one connection's dialogue, read top to bottom like the RFC. Waits are the pipe's.
local core = require "smtp.core"
local address = require "smtp.mail.address"

local dialogue = {}

local IDLE = 300 -- seconds a client may be silent (RFC 5321 4.5.3.2.7)
local MISTAKES = 20
local LOGINS = 3
local RECIPIENTS = 1000

---@class smtp.Connection
local Connection = {}
Connection.__index = Connection

-- Bytes and lines ------------------------------------------------------------------------------------------------------

function Connection:respond(code, enhanced, text)
  if enhanced then text = enhanced .. " " .. text:gsub("\n", "\n" .. enhanced .. " ") end
  self.wire:respond(code, text)
end

function Connection:flush()
  if self.wire:queued() == 0 then return true end
  return self.pipe:write(self.wire:take(), core.now() + IDLE)
end

-- More bytes from the client; what was answered goes out first, all of a pipelined group in one write. Nil: it is gone.
function Connection:fill()
  if not self:flush() then return nil end
  local bytes, kind = self.pipe:read(core.now() + IDLE)
  if bytes then return self.wire:feed(bytes) end
  if kind == "timeout" then self:leave(421, "4.4.2", "you were silent for too long") end
  return nil
end

-- A last word on a wire of its own: the connection's may have failed.
function Connection:leave(code, enhanced, text)
  local wire = core.wire()
  wire:respond(code, enhanced .. " " .. text)
  self:flush()
  self.pipe:write(wire:take(), core.now())
end

function Connection:line()
  while true do
    local line, reason = self.wire:line()
    if line then return line end
    if reason ~= "again" then
      self:leave(500, "5.5.2", "a line must end in CRLF and hold no CR, LF or NUL before it")
      return nil
    end
    if not self:fill() then return nil end
  end
end

-- State ----------------------------------------------------------------------------------------------------------------

function Connection:reset()
  self.from = nil    -- reverse-path; nil: no transaction
  self.to = {}
  self.params = {}
  self.chunks = nil  -- what BDAT has brought so far
  self.octets = 0
end

function Connection:mistake(code, enhanced, text)
  self.mistakes = self.mistakes + 1
  self:respond(code, enhanced, text)
end

-- Takes a whole message: the inbox, or the owner's function and its verdict.
function Connection:deliver(pieces)
  local server, data = self.server, table.concat(pieces)
  local letter = { from = self.from, to = self.to, auth = self.user, tls = self.pipe.info, params = self.params }
  self:reset()
  local verdict
  if server.on_message then
    local ran, answer = pcall(server.on_message, letter, data)
    if not ran then
      server.failure = tostring(answer)
      return self:respond(451, "4.3.0", "the receiver failed; try again later")
    end
    verdict = answer
  else
    letter.data = data
    server.inbox[#server.inbox + 1] = letter
  end
  if verdict == nil then
    local id = core.random(6):gsub(".", function(byte) return ("%02X"):format(byte:byte()) end)
    return self:respond(250, "2.0.0", "Ok: queued as " .. id)
  end
  local code, text = tostring(verdict):match("^([45]%d%d) ?(.*)$")
  if not code or text:find("%c") then code, text = "554", "5.0.0 not accepted" end
  self.wire:respond(tonumber(code), text)
end

-- Commands -------------------------------------------------------------------------------------------------------------

local verbs = {}

local function greet(self, argument)
  if argument == "" then return self:mistake(501, "5.5.4", "give your name") end
  self:reset()
  self.greeted = true
  return true
end

function verbs.HELO(self, argument)
  if greet(self, argument) then self:respond(250, nil, self.name) end
end

function verbs.EHLO(self, argument)
  if not greet(self, argument) then return end
  local lines = { self.name, "PIPELINING", ("SIZE %d"):format(self.server.size), "8BITMIME", "SMTPUTF8",
    "ENHANCEDSTATUSCODES", "CHUNKING" }
  if self.server.mode == "starttls" and not self.pipe.info then lines[#lines + 1] = "STARTTLS" end
  if self:may_login() then lines[#lines + 1] = "AUTH PLAIN LOGIN" end
  self:respond(250, nil, table.concat(lines, "\n"))
end

function verbs.NOOP(self) self:respond(250, "2.0.0", "Ok") end

function verbs.RSET(self)
  self:reset()
  self:respond(250, "2.0.0", "Ok")
end

function verbs.VRFY(self) self:respond(252, "2.5.2", "send it and see") end

function verbs.QUIT(self)
  self:respond(221, "2.0.0", "Bye")
  self:flush()
  self.over = true
end

function verbs.STARTTLS(self)
  local server = self.server
  if server.mode ~= "starttls" then return self:mistake(502, "5.5.1", "TLS is not offered") end
  if self.pipe.info then return self:mistake(503, "5.5.1", "the connection is encrypted already") end
  self:respond(220, "2.0.0", "Go ahead")
  -- what came in clear behind the command must not be read as if it had come encrypted (RFC 3207 6)
  local injected = self.wire:residue() > 0
  self.over = not self:flush() or injected or not self:encrypt()
end

function Connection:encrypt()
  local pipe = self.server.secure(self.pipe, { server = true, context = self.server.context }, core.now() + IDLE)
  if not pipe then return nil end
  self.pipe, self.wire = pipe, core.wire()
  self.greeted, self.user = false, nil
  self:reset()
  return true
end

function Connection:may_login()
  return self.server.auth and not self.user and (self.pipe.info or self.server.mode == "none")
end

-- A response to a challenge, decoded; nil: it was "*", not base64, or the client is gone.
function Connection:challenge(words)
  self:respond(334, nil, core.base64(words))
  local line = self:line()
  return line and line ~= "*" and core.unbase64(line) or nil
end

function Connection:plain(initial)
  local response = initial or self:challenge("")
  if response then return response:match("^[^%z]*%z([^%z]+)%z([^%z]*)$") end
end

function Connection:login(initial)
  local user = initial or self:challenge("Username:")
  local password = user and self:challenge("Password:")
  return user, password
end

function verbs.AUTH(self, argument)
  if not self:may_login() then
    return self:mistake(503, "5.5.1", self.user and "you are logged in already" or "AUTH is not offered here")
  end
  if self.from then return self:mistake(503, "5.5.1", "not during a message") end
  local mechanism, initial = argument:match("^(%S+) ?(%S*)$")
  mechanism = mechanism and mechanism:upper()
  if mechanism ~= "PLAIN" and mechanism ~= "LOGIN" then return self:mistake(504, "5.5.4", "PLAIN and LOGIN are offered") end
  if initial == "" then
    initial = nil
  else
    initial = initial == "=" and "" or core.unbase64(initial)
    if not initial then return self:mistake(501, "5.5.2", "not valid base64") end
  end
  local user, password = self[mechanism:lower()](self, initial)
  if not (user and password) then return self:mistake(501, "5.5.2", "the login was broken off") end
  local ran, welcome = pcall(self.server.auth, user, password)
  if not ran then
    self.server.failure = tostring(welcome)
    return self:respond(454, "4.7.0", "logins cannot be checked now")
  end
  if welcome then
    self.user = user
    return self:respond(235, "2.7.0", "Welcome")
  end
  self.logins = self.logins + 1
  self:mistake(535, "5.7.8", "user name or password is wrong")
  if self.logins == LOGINS then
    self:leave(421, "4.7.0", "too many failed logins")
    self.over = true
  end
end

-- "FROM:<address> NAME=value …" -> mailbox, parameters; the mailbox is nil where it cannot be read.
local function path(argument, keyword, parse)
  local word, inside, rest = argument:match("^(%a+): ?<(.*)>(.*)$")
  if not word or word:upper() ~= keyword or not (rest == "" or rest:find("^ ")) then return nil end
  local params = {}
  for name, value in rest:gmatch(" +([%w][%w-]*)=?([^%s=]*)") do params[name:upper()] = value ~= "" and value or true end
  return parse(inside), params
end

local BODIES = { ["7BIT"] = true, ["8BITMIME"] = true }

function verbs.MAIL(self, argument)
  local server = self.server
  if not self.greeted then return self:mistake(503, "5.5.1", "say EHLO first") end
  if server.auth and not self.user then return self:mistake(530, "5.7.0", "Authentication required") end
  if self.from then return self:mistake(503, "5.5.1", "a message is under way") end
  local mailbox, params = path(argument, "FROM", address.reverse_path)
  if not mailbox then return self:mistake(501, "5.1.7", "the sender is not a mailbox in < >") end
  for name, value in pairs(params) do
    local known = name == "SIZE" and tostring(value):find("^%d+$") or name == "BODY" and BODIES[tostring(value):upper()]
      or name == "SMTPUTF8" or name == "AUTH"
    if not known then return self:mistake(555, "5.5.4", "a parameter of MAIL is not known here") end
  end
  if mailbox.utf8 and not params.SMTPUTF8 then return self:mistake(553, "5.6.7", "such an address needs SMTPUTF8") end
  if tonumber(params.SIZE) and tonumber(params.SIZE) > server.size then
    return self:respond(552, "5.3.4", "the message is too large")
  end
  self.from, self.params = mailbox.address, params
  self:respond(250, "2.1.0", "Ok")
end

function verbs.RCPT(self, argument)
  if not self.from then return self:mistake(503, "5.5.1", "say MAIL first") end
  local mailbox, params = path(argument, "TO", address.parse)
  if not mailbox then return self:mistake(501, "5.1.3", "the recipient is not a mailbox in < >") end
  if next(params) then return self:mistake(555, "5.5.4", "a parameter of RCPT is not known here") end
  if mailbox.utf8 and not self.params.SMTPUTF8 then return self:mistake(553, "5.6.7", "such an address needs SMTPUTF8") end
  if #self.to == RECIPIENTS then return self:respond(452, "4.5.3", "too many recipients") end
  self.to[#self.to + 1] = mailbox.address
  self:respond(250, "2.1.5", "Ok")
end

function verbs.DATA(self, argument)
  if argument ~= "" then return self:mistake(501, "5.5.4", "DATA has no argument") end
  if #self.to == 0 or self.chunks then return self:mistake(503, "5.5.1", "not now") end
  self:respond(354, nil, "End with a line that is a lone dot")
  local pieces, octets = {}, 0
  while true do
    local bytes, done, bare = self.wire:content()
    if not bytes then
      self.over = true
      return
    end
    octets = octets + #bytes
    if octets <= self.server.size then pieces[#pieces + 1] = bytes end
    if done then
      if octets > self.server.size then
        self:reset()
        return self:respond(552, "5.3.4", "the message is too large")
      elseif bare then
        self:reset()
        return self:respond(554, "5.6.0", "a CR without LF or an LF without CR is in the message")
      end
      return self:deliver(pieces)
    end
    if not self:fill() then
      self.over = true
      return
    end
  end
end

-- Reads a chunk's octets, kept or not: they must never be taken for commands.
function Connection:octets_of(count, pieces)
  while count > 0 do
    local bytes = self.wire:octets(count)
    if not bytes then return nil end
    if bytes == "" then
      if not self:fill() then return nil end
    else
      count = count - #bytes
      if pieces then pieces[#pieces + 1] = bytes end
    end
  end
  return true
end

function verbs.BDAT(self, argument)
  local digits, last = argument:upper():match("^(%d+) *(%u*)$")
  local count = digits and #digits <= 15 and tonumber(digits)
  if not count or (last ~= "" and last ~= "LAST") then
    -- without its length the chunk cannot be told from commands
    self:leave(501, "5.5.4", "BDAT needs a length")
    self.over = true
    return
  end
  local wanted = #self.to > 0
  self.chunks = self.chunks or {}
  local fits = self.octets + count <= self.server.size
  if not self:octets_of(count, wanted and fits and self.chunks or nil) then
    self.over = true
    return
  end
  self.octets = self.octets + count
  if not wanted then
    self:reset()
    return self:mistake(503, "5.5.1", "say RCPT first")
  elseif not fits then
    self:reset()
    return self:respond(552, "5.3.4", "the message is too large")
  elseif last == "LAST" then
    return self:deliver(self.chunks)
  end
  self:respond(250, "2.0.0", ("%d octets"):format(count))
end

--- Serves one connection until it ends.
---@param server smtp.Server
---@param pipe table
function dialogue.serve(server, pipe)
  local name = core.hostname()
  local self = setmetatable({
    server = server,
    pipe = pipe,
    wire = core.wire(),
    name = name:find("^[%w%.%-]+$") and name or "localhost",
    greeted = false,
    user = nil,     -- who is logged in
    mistakes = 0,
    logins = 0,     -- failed ones
    over = false,
  }, Connection)
  self:reset()
  if server.mode == "implicit" and not self:encrypt() then return end
  self:respond(220, nil, self.name .. " ESMTP")
  while not self.over do
    local line = self:line()
    if not line then break end
    local verb, argument = line:match("^(%a+) *(.-) *$")
    local run = verb and verbs[verb:upper()]
    if run then
      run(self, argument)
    else
      self:mistake(500, "5.5.1", "no such command")
    end
    if self.mistakes >= MISTAKES and not self.over then
      self:leave(421, "4.7.0", "too many mistakes")
      break
    end
  end
  self.pipe:close()
end

return dialogue
