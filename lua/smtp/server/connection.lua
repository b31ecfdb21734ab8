--- connection: the server's half of one connection's dialogue.
---
--- Does: hands each line that comes to its command, keeps content and has it judged, answers, and ends who is too late,
--- makes too many mistakes or is no mail client.
--- Never: knows a socket: the server gives it a byte pipe and runs it as a coroutine, and all waiting is the pipe's.
--- Called by: server.
--- RFC 5321, 2033 (LMTP), 2920.
local core = require "smtp.core"
local commands = require "smtp.server.commands"
local errors = require "smtp.errors"

local connection = {}

local MISTAKES = 20     -- since the last message taken; then the connection ends
local STRANGERS = 6     -- before the first EHLO
local JOIN = 256        -- pieces of content that are joined to one
local LINGER = 1        -- seconds
local COMMAND = 2048    -- octets of MAIL and RCPT: what a thousand recipients come with is kept
local REPLY = 480       -- octets of the owner's words in a reply (RFC 5321 4.5.3.1.5: 512 with all around)

---@class smtp.Connection
---@field over boolean the dialogue has ended, or is about to
local Connection = {}
Connection.__index = Connection

-- Bytes and lines -----------------------------------------------------------------------------------------------------

function Connection:respond(code, enhanced, text)
  if enhanced then text = enhanced .. " " .. text:gsub("\n", "\n" .. enhanced .. " ") end
  self.wire:respond(code, text)
end

function Connection:flush()
  if self.wire:queued() == 0 then return true end
  return self.pipe:write(self.wire:take(), core.now() + self.server.timeout)
end

-- More bytes from the client; what was answered goes out first, all of a pipelined group in one write. Nil: no more.
function Connection:fill(deadline)
  local bytes, kind
  if self:flush() then bytes, kind = self.pipe:read(deadline) end
  if bytes and self.wire:feed(bytes) then return true end
  self.over = true
  if kind == "timeout" then self:late() end
end

function Connection:late()
  self:leave(421, "4.4.2", "you took too long")
end

-- A last word, on a wire of its own (the connection's may have failed), and the end.
function Connection:leave(code, enhanced, text)
  self.over = true
  self:flush()
  local wire = core.wire()
  wire:respond(code, enhanced .. " " .. text)
  self.pipe:write(wire:take(), core.now())
  -- a connection closed over unread bytes may take that word with it
  local deadline = core.now() + LINGER
  while core.now() < deadline and self.pipe:peek() == "data" and self.pipe:read(deadline) do end
end

-- The next line; nil once the dialogue is over.
function Connection:line()
  local deadline = core.now() + self.server.timeout
  while not self.over do
    local line, reason = self.wire:line()
    if line then
      return line
    elseif reason == "again" then
      self:fill(deadline)
    elseif reason == "larger than allowed" then
      self:leave(500, "5.5.2", "the line is too long")
    else
      self:leave(500, "5.5.2", "a line must end in CRLF and hold no other CR, LF or NUL")
    end
  end
end

-- State ---------------------------------------------------------------------------------------------------------------

function Connection:reset()
  self.from = nil               -- reverse-path; nil: no transaction
  self.to = {}
  self.params = {}              -- of MAIL
  self.asked = {}               -- the parameters of each RCPT taken
  self.binary = false           -- BODY=BINARYMIME: CR and LF are what they are
  self.lines = nil              -- finds bare CR and LF in what BDAT brings; nil: no BDAT yet
  self.bare = false             -- one was found
  self.octets = 0               -- of content,
  self.began = nil              -- and since when it comes by BDAT
  self.parts, self.recent = {}, {}
end

function Connection:mistake(code, enhanced, text)
  self.mistakes = self.mistakes + 1
  self:respond(code, enhanced, text)
end

-- Keeps content, joined now and then: what comes byte by byte must not cost a table's slot for each. Content over
-- `size` is let go at once, and the rest of it only counted.
function Connection:keep(bytes)
  self.octets = self.octets + #bytes
  if self.octets > self.server.size then
    self.parts, self.recent = {}, {}
  elseif bytes ~= "" then
    self.recent[#self.recent + 1] = bytes
    if #self.recent == JOIN then
      self.parts[#self.parts + 1] = table.concat(self.recent)
      self.recent = {}
    end
  end
end

-- What became of a message where its owner cannot say so.
local FAILED = { code = 451, text = "4.3.0 the receiver failed; try again later" }

-- Calls what may run code of the owner's: in a coroutine of its own, so that it can neither end nor suspend the
-- dialogue.
function Connection:ask(run, ...)
  local thread = coroutine.create(function(...) return run(...) end)
  local ran, answer = coroutine.resume(thread, ...)
  if ran and coroutine.status(thread) ~= "dead" then ran, answer = false, "on_message and auth must not yield" end
  if not ran then self.server.failure = tostring(answer) end
  return ran, answer
end

-- The reply that a verdict of on_message's stands for.
function Connection:reply_of(verdict)
  if verdict == nil then return { code = 250, text = "2.0.0 Ok: queued as " .. self.id } end
  local line = type(verdict) == "table" and verdict.code and errors.reply_line(verdict) or tostring(verdict)
  local code, blank, text = line:match("^([245]%d%d)(%s?)(.*)$")
  if code and (blank ~= "" or text == "") and (code == "250" or code >= "400") then
    return { code = tonumber(code), text = (text:gsub("%c", " "):sub(1, REPLY)) }
  end
  self.server.failure = "on_message gave neither nil nor a reply such as 550 5.7.1 not wanted: " .. line
  return FAILED
end

-- The replies to a message, out of on_message's verdict: one for all, or a table address -> reply.
function Connection:replies_of(verdict)
  local to, replies, known = self.to, {}, {}
  for _, recipient in ipairs(to) do known[recipient] = true end
  local each = self.server.lmtp and type(verdict) == "table"
  for name in pairs(each and verdict or {}) do each = each and known[name] end
  for i = 1, self.server.lmtp and #to or 1 do
    local one = verdict
    if each then one = verdict[to[i]] end
    replies[i] = self:reply_of(one)
  end
  return replies
end

-- The whole content has come: its reply, in LMTP one for each recipient (RFC 2033 4.2). The transaction is over.
function Connection:conclude()
  local server, to = self.server, self.to
  local function answer(code, enhanced, text)
    for _ = 1, server.lmtp and #to or 1 do self:respond(code, enhanced, text) end
    self:reset()
  end
  if self.octets > server.size then return answer(552, "5.3.4", "the message is too large") end
  self.parts[#self.parts + 1] = table.concat(self.recent)
  local data = table.concat(self.parts)
  if self.bare or data:sub(-1) == "\r" and not self.binary then
    return answer(554, "5.6.0", "a CR without LF or an LF without CR is in the message")
  end

  local letter = { from = self.from, to = {}, auth = self.user, tls = self.pipe.info, params = self.params }
  for i, recipient in ipairs(to) do letter.to[i] = recipient end
  if next(server.extensions.rcpt) then letter.rcpt_params = self.asked end
  self.id = core.random(6):gsub(".", function(byte) return ("%02X"):format(byte:byte()) end)
  local ran, replies
  if server.on_message then
    ran, replies = self:ask(function() return self:replies_of(server.on_message(letter, data)) end)
  else
    letter.data = data
    server.inbox[#server.inbox + 1] = letter
    ran, replies = true, self:replies_of(nil)
  end
  for i = 1, server.lmtp and #to or 1 do
    local reply = ran and replies[i] or FAILED
    self:respond(reply.code, nil, reply.text)
    if reply.code == 250 then self.mistakes = 0 end
  end
  self:reset()
end

-- The dialogue --------------------------------------------------------------------------------------------------------

-- The verb, and what stands behind it without the blanks around it. Linear: the line may be 64 KB of blanks.
local function split(line)
  local verb, rest = (line .. " "):match("^(%a+) (.*)$")
  if not verb then return "", "" end
  rest = rest:match("^.*[^ ]") or ""
  return verb:upper(), (rest:gsub("^ +", ""))
end

-- The methods of HTTP. A web page can make a browser send its text to any port of this machine: the lines of a
-- request's body would be commands.
local METHODS = {}
for method in ("GET HEAD POST PUT DELETE CONNECT OPTIONS TRACE PATCH PRI"):gmatch("%a+") do METHODS[method] = true end

-- These stand alone (RFC 5321 4.1.1, RFC 3207 4).
local BARE = { DATA = true, RSET = true, QUIT = true, STARTTLS = true }

function Connection:obey(line)
  local verb, argument = split(line)
  if METHODS[verb] or line:find(" HTTP/%d[%d.]* *$") then
    self:leave(421, "4.7.0", "this is no web server")
  elseif not commands[verb] then
    self:mistake(500, "5.5.1", "no such command")
  elseif #line > COMMAND and (verb == "MAIL" or verb == "RCPT") then
    self:mistake(500, "5.5.2", "the line is too long")
  elseif BARE[verb] and argument ~= "" then
    self:mistake(501, "5.5.4", verb .. " has no argument")
  else
    commands[verb](self, argument)
  end
end

-- What was said before TLS is forgotten (RFC 3207 4.2).
function Connection:encrypt()
  local server = self.server
  local pipe = server.secure(self.pipe, { server = true, context = server.context }, core.now() + server.timeout)
  if not pipe then return nil end
  self.pipe, self.wire = pipe, core.wire()
  self.greeted, self.user, self.mistakes = false, nil, 0
  self:reset()
  return true
end

--- The dialogue, until it ends: the body of the connection's coroutine.
function Connection:serve()
  if self.server.mode == "implicit" and not self:encrypt() then return end
  self:respond(220, nil, self.name .. (self.server.lmtp and " LMTP" or " ESMTP"))
  while not self.over do
    local line = self:line()
    if line then self:obey(line) end
    local most = self.greeted and MISTAKES or STRANGERS
    if self.mistakes >= most and not self.over then self:leave(421, "4.7.0", "too many mistakes") end
  end
  self:close()
end

--- Ends the connection, at once. Never waits; calling it again does nothing.
function Connection:close()
  self.over = true
  self.pipe:close()
end

--- A connection, before its first word.
---@param server smtp.Server
---@param pipe table a byte pipe; what waits in it yields
---@return smtp.Connection
function connection.new(server, pipe)
  local name = core.hostname()
  local self = setmetatable({
    server = server,
    pipe = pipe,    -- of TLS once it is encrypted
    wire = core.wire(),
    name = name:find("^[%w.-]+$") and name or "localhost",
    greeted = false,
    user = nil,     -- who is logged in
    mistakes = 0,   -- since the last message taken
    logins = 0,     -- failed ones
    id = nil,       -- of the last message taken
    over = false,
  }, Connection)
  self:reset()
  return self
end

return connection
