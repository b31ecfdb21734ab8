--- session: one connection to a server, each step of the dialogue a verb.
---
--- Does: straight-line code that reads like the RFC. Every wait is the transport's: it may yield where that does.
--- Never: writes its own fields: see state.
--- Called by: init, turns, verify.
--- RFC 5321.
local bdat = require "smtp.client.bdat"
local caller = require "smtp.client.caller"
local check = require "smtp.check"
local command = require "smtp.client.command"
local connect = require "smtp.client.connect"
local content = require "smtp.client.content"
local core = require "smtp.core"
local login = require "smtp.client.login"
local pump = require "smtp.client.pump"
local send = require "smtp.client.send"
local state = require "smtp.client.state"
local address = require "smtp.mail.address"
local capability = require "smtp.protocol.capability"
local helo = require "smtp.protocol.helo"
local limits = require "smtp.protocol.limits"
local parameter = require "smtp.protocol.parameter"

local session = {}

---@class smtp.Session
---@field capabilities table<string, string|true>? the EHLO reply, keyword -> parameters
---@field greeting smtp.Reply?
---@field tls table? {version=, cipher=, peer=, resumed=}
---@field state "new"|"connected"|"ready"|"dead"|"closed"
---@field time table seconds: {connect=, tls=, auth=}
local Session = {}
Session.__index = Session

-- The steps as they are inside of a call, by the names of the methods.
local steps = {}

--- A session that has not taken its first step.
---@param plan table from smtp.options
---@param expires number? an absolute deadline for the session's whole life, instead of one for each call
---@param seconds number? that the way to the content has, beside that
---@return smtp.Session
function session.new(plan, expires, seconds)
  local self = setmetatable(state.new(plan, expires, seconds), Session)
  -- a server may know them from the connection before
  if plan.credentials then login.hide(self, plan.credentials()) end
  if plan.proxy and plan.proxy.credentials then
    local username, password = plan.proxy.credentials()
    login.hide(self, { username = username, password = password })
  end
  return self
end

-- Seconds for all that comes before the content: RFC 5321 4.5.3.2 allows each wait minutes. Those for the content and
-- its final reply stay as they are there, for who is hasty then sends twice.
local WAY = 60

--- A session for one call, which does not hang before the content though no `timeout` ends it.
---@param plan table from smtp.options
---@param began number when the call did
---@return smtp.Session
function session.once(plan, began)
  if plan.timeout then return session.new(plan, began + plan.timeout) end
  return session.new(plan, math.huge, WAY)
end

--- Connects and reads the greeting; with tls = "implicit" encrypts first. RFC 5321 3.1, RFC 8314 3. May yield.
---@return smtp.Reply? greeting
---@return smtp.Error? err kinds "resolve", "connect", "timeout", "closed", "tls", "protocol", "rejected", "auth" (at a
--- proxy)
function Session:connect()
  if self.state ~= "new" then return command.fail_input(self, "connect", "the session was connected before") end
  caller.enter(self)
  state.set_deadline(self)
  local greeting, err = connect.now(self)
  if not greeting and self.pump then send.farewell(self, true) end
  return greeting, err
end

--- EHLO, and HELO where the server knows no EHLO and nothing needs one; with LMTP LHLO (RFC 2033 4.1). Fills
--- s.capabilities. RFC 5321 3.2. May yield.
---@param name string? default: option helo, else the host's full name, else an address literal
---@return smtp.Reply? reply
---@return smtp.Error? err kinds "input", "timeout", "closed", "protocol", "rejected"
function Session:ehlo(name)
  check.argument(name, "string nil", "session:ehlo", "name")
  local ok, err = command.begin(self, "ehlo")
  if not ok then return nil, err end
  local plan = self.plan
  name = name or plan.helo
  if not name then
    local pipe = self.pump.pipe
    name = helo.name(core.hostname(), pipe.name and (pipe:name()) or nil)
  end
  if not name:find("^[^%s]+$") then
    return command.fail_input(self, "ehlo", "the name for EHLO is empty or has a blank in it")
  end
  local reply
  reply, err = command.ask(self, "ehlo", (plan.lmtp and "LHLO " or "EHLO ") .. name)
  if not reply then return nil, err end
  state.offered(self, {})
  local old = command.class(reply) == 5 and not plan.lmtp and not (plan.tls == "starttls" and not self.tls)
    and not plan.credentials
  if old then
    reply, err = command.ask(self, "ehlo", "HELO " .. name)
    if not reply then return nil, err end
  end
  reply, err = command.expect(self, "ehlo", reply, 2)
  if not reply then return nil, err end
  local capabilities = old and {} or capability.parse(reply.text, self.trace.scrub)
  state.offered(self, capabilities, bdat.trusted(self.plan, capabilities))
  return command.clean(self, reply)
end

--- STARTTLS and the handshake; EHLO is owed again afterwards. RFC 3207. May yield.
---@return smtp.Reply? reply
---@return smtp.Error? err kinds "insecure" (not offered or refused), "tls", "protocol", "timeout", "closed"
function Session:starttls()
  local ok, err = command.begin(self, "starttls")
  if not ok then return nil, err end
  if self.tls then return command.fail_input(self, "starttls", "the connection is encrypted already") end
  if not (self.capabilities and self.capabilities.STARTTLS) then
    return command.fail(self, "starttls", "insecure", "the server does not offer STARTTLS")
  end
  local reply
  reply, err = command.command(self, "starttls", "STARTTLS")
  if not reply then return nil, err end
  if reply.code ~= 220 then return command.refuse(self, "starttls", reply, "insecure") end
  if self.pump.wire:residue() > 0 or self.pump.pipe:peek() == "data" then
    return command.fail(self, "starttls", "protocol",
      "bytes came in clear behind the reply to STARTTLS: somebody may be injecting replies")
  end
  ok, err = connect.encrypt(self)
  if not ok then return nil, err end
  return reply
end

--- Logs in with the strongest mechanism both sides have. RFC 4954. May yield, but not while SCRAM computes (some
--- milliseconds; 0.15 s at the most that a server may ask for).
---@param given smtp.LoginOptions? default: the session's own
---@return smtp.Reply? reply
---@return smtp.Error? err kinds "insecure", "auth", "input", "protocol", "timeout", "closed"
function Session:auth(given)
  check.argument(given, "table nil", "session:auth", "options")
  if given then state.opened(self, false) end
  return login.now(self, given)
end

--- All that comes before a message: connect, EHLO, STARTTLS, EHLO, AUTH, as the options ask. May yield.
---@param observe (fun(verb: string, seconds: number, reply: smtp.Reply?, err: smtp.Error?))? told of each step
---@param along boolean? the login may go along with the first message, which is sent next
---@return smtp.Session? self
---@return smtp.Error? err
function Session:open(observe, along)
  local plan, life = self.plan, self.life
  local function take(verb)
    local began = core.now()
    local reply, err = steps[verb](self)
    if observe then observe(verb, core.now() - began, reply, err) end
    return err
  end
  local wanted = plan.credentials and plan.mechanisms ~= false
  local lack = wanted and login.lack(self, plan.credentials())
  if lack then return command.fail_input(self, "compose", lack) end
  -- one call, one deadline
  state.set_life(self, life or plan.timeout and core.now() + plan.timeout)
  local err = take "connect" or take "ehlo"
  local upgrade = not self.tls and (plan.tls == "starttls"
    or plan.tls == "opportunistic" and self.capabilities and self.capabilities.STARTTLS)
  if not err and upgrade then err = take "starttls" or take "ehlo" end
  if not err and wanted then
    if along and plan.login_along then
      err = select(2, login.along(self))
    else
      err = take "auth"
    end
  end
  if not err and self.state == "closed" then err = select(2, command.closed(self, "auth")) end
  state.set_life(self, life)
  if err then
    send.farewell(self, true)
    return nil, err
  end
  state.opened(self, true)
  return self
end

-- A session that open has opened, and whose connection is lost, on another one. May yield.
function Session:reopen(expires)
  local life = self.life
  state.unconnected(self)
  state.set_life(self, expires)
  local ok, err = steps.open(self)
  state.set_life(self, life)
  return ok, err
end

-- The transaction, step by step --------------------------------------------------------------------------------------

-- `utf8`: it goes with SMTPUTF8 or needs that.
local function envelope_command(self, stage, verb, mailbox, params, utf8)
  local words, reason = parameter.words(params, "session:" .. stage)
  local ok, err = command.begin(self, stage)
  if ok then ok, err = command.guard(self, stage) end
  if not ok then return nil, err end
  if utf8 and not (self.capabilities and self.capabilities.SMTPUTF8) then
    return command.fail_input(self, stage, "the server does not offer SMTPUTF8")
  end
  if not words then return command.fail_input(self, stage, reason) end
  local reply
  reply, err = command.command(self, stage, verb .. ":<" .. mailbox.address .. ">" .. words, nil, mailbox.utf8)
  if not reply then return nil, err end
  return command.expect(self, stage, reply, 2)
end

--- MAIL FROM. RFC 5321 4.1.1.2. May yield.
---@param from string a mailbox's address; "" for the null reverse-path
---@param params table<string, string|number|true>? e.g. { SIZE = 1000, BODY = "8BITMIME" }
---@return smtp.Reply? reply
---@return smtp.Error? err
function Session:mail(from, params)
  check.argument(from, "string", "session:mail", "from")
  check.argument(params, "table nil", "session:mail", "params")
  local mailbox, reason = address.reverse_path(from)
  if not mailbox then return command.fail_input(self, "mail", reason) end
  local utf8 = parameter.has(params, "SMTPUTF8")
  if mailbox.utf8 and not utf8 then
    return command.fail_input(self, "mail", "an address with non-ASCII characters needs the parameter SMTPUTF8 = true")
  end
  local reply, err = envelope_command(self, "mail", "MAIL FROM", mailbox, params, utf8)
  if reply then state.transaction_begun(self, utf8) end
  return reply, err
end

--- RCPT TO. RFC 5321 4.1.1.3. May yield.
---@param to string a mailbox's address
---@param params table<string, string|number|true>?
---@return smtp.Reply? reply
---@return smtp.Error? err
function Session:rcpt(to, params)
  check.argument(to, "string", "session:rcpt", "to")
  check.argument(params, "table nil", "session:rcpt", "params")
  local mailbox, reason = address.parse(to, true)
  if not mailbox then return command.fail_input(self, "rcpt", reason) end
  if mailbox.utf8 and self.transaction and not self.utf8 then
    return command.fail_input(self, "rcpt", "an address with non-ASCII characters needs mail() with SMTPUTF8 = true")
  end
  local reply, err = envelope_command(self, "rcpt", "RCPT TO", mailbox, params, mailbox.utf8)
  if reply then
    state.recipient_taken(self, mailbox.address)
  elseif err.code then
    err.temporary = err.temporary or limits.reached(err, #self.taken)
  end
  return reply, err
end

-- pump.source, or the misuse.
local function source_of(value, label)
  local source, close = pump.source(value)
  if source then return source, close end
  check.raise(("%s: source must be a string, a function or a message, not a %s"):format(label, type(value)))
end

--- DATA, the content and its final reply. Line ends become CRLF, dots are stuffed. RFC 5321 4.1.1.4. May yield.
--- With LMTP there is a reply for each recipient: the one returned is the first good one, and it (or the error) has the
--- lists `accepted` and `rejected` of a receipt. RFC 2033 4.2.
---@param source string|function|table text, a function that returns chunks and then nil, or a message
---@return smtp.Reply? reply
---@return smtp.Error? err
function Session:data(source)
  local close
  source, close = source_of(source, "session:data")
  local ok, err = command.begin(self, "data")
  if ok then ok, err = command.guard(self, "data") end
  if not ok then return nil, err end
  local reply
  reply, err = command.command(self, "data", "DATA", "data")
  if not reply then return nil, err end
  if reply.code ~= 354 then return command.expect(self, "data", reply, 354) end
  local one = { accepted = self.taken, rejected = {} }
  state.reads(self, close)
  reply, err = content.send(self, source, one)
  if not reply then return nil, err end
  reply, err = command.expect(self, "final", reply, 2)
  if self.plan.lmtp then
    local result = reply or err
    result.accepted, result.rejected = one.accepted, one.rejected
  end
  return reply, err
end

--- The content in chunks, as it is: no line end is changed, no dot stuffed; its final reply. What the server refuses it
--- might read as commands: where it has not shown otherwise, a refused chunk ends the session. RFC 3030. May yield.
---@param source string|function|table bytes, a function that returns chunks and then nil, or a message
---@return smtp.Reply? reply
---@return smtp.Error? err kind "input" where the server does not offer CHUNKING
function Session:bdat(source)
  local close
  source, close = source_of(source, "session:bdat")
  local ok, err = command.begin(self, "data")
  if ok then ok, err = command.guard(self, "data") end
  if not ok then return nil, err end
  if self.plan.lmtp then return command.fail_input(self, "data", "LMTP has no chunks here: call data()") end
  if not (self.capabilities and self.capabilities.CHUNKING) then
    return command.fail_input(self, "data", "the server does not offer CHUNKING")
  end
  local reply
  state.reads(self, close)
  reply, err = bdat.content(self, source, {})
  return reply, err -- and not the octets
end

--- Sends one message and returns its receipt; the session can send the next one. May yield.
---@param mail smtp.MessageOptions|smtp.Message
---@return smtp.Receipt? receipt
---@return smtp.Error? err
function Session:send(mail, ...)
  check.callback((...), "session:send")
  local composed, err = send.compose(mail, "session:send")
  if not composed then return nil, err end
  local receipt
  receipt, err = send.send(self, composed)
  state.rethrow(self)
  return receipt, err
end

--- Sends messages one after the other, N of them with N + 1 waits where the server pipelines: the next envelope goes
--- along with the end of the content before it. For each message in order the function that is returned gives its
--- receipt, or false (so that a `for` goes on) and its error; at the end nil. May yield.
---
---     for receipt, err in s:send_many(next_message) do … end
---
--- (A task cannot wait inside a `for` on Lua 5.1: call the function yourself there.)
---
--- Whoever needs no more results than these calls close() on what is returned; where the Lua has closing values (5.4) a
--- `for` that is left does that. Nothing more is begun then, and what is on its way is ended; calling on gives what
--- became of all that the iterator gave.
---@param iterator fun(): (smtp.MessageOptions|smtp.Message)? the next one; nil: no more. It is called ahead of the
--- results, while the server works. What it raises is raised when all that it gave before has its result, and the
--- session is dead then
---@return smtp.Results results
---@return nil
---@return nil
---@return smtp.Results results for a `for` to close
function Session:send_many(iterator, ...)
  if type(iterator) ~= "function" then check.raise("session:send_many: expected a function, got " .. type(iterator)) end
  if select("#", ...) > 0 then
    check.raise "session:send_many: takes one function; the results come from what it returns: call that"
  end
  local results = require "smtp.client.send_many".of(self, iterator)
  return results, nil, nil, results
end

--- RSET: gives up the transaction. RFC 5321 4.1.1.5. May yield.
---@return smtp.Reply? reply
---@return smtp.Error? err
function Session:reset()
  local reply, err = command.simple(self, "reset", "RSET", 2)
  if reply then state.transaction_over(self) end
  return reply, err
end

--- NOOP. RFC 5321 4.1.1.9. May yield.
---@return smtp.Reply? reply
---@return smtp.Error? err
function Session:noop()
  return command.simple(self, "noop", "NOOP", 2)
end

--- VRFY: asks about a mailbox; most servers answer 252. RFC 5321 4.1.1.6. May yield.
---@param mailbox string
---@return smtp.Reply? reply
---@return smtp.Error? err
function Session:verify(mailbox)
  check.argument(mailbox, "string", "session:verify", "mailbox")
  return command.simple(self, "verify", "VRFY " .. mailbox, 2)
end

--- Any command line and its reply, whatever it says; for what has no verb here. After a 3xx reply only this may go on.
--- An AUTH and the lines of its dialogue are kept out of the transcript. May yield.
---@param line string
---@return smtp.Reply? reply
---@return smtp.Error? err kind "insecure" for an AUTH in clear, without allow_insecure_auth
function Session:command(line)
  check.argument(line, "string", "session:command", "line")
  local ok, err = command.begin(self, "command")
  if not ok then return nil, err end
  local start, words = line:match("^([Aa][Uu][Tt][Hh] +%S+) *(.*)$")
  if start and not self.tls and not self.plan.allow_insecure_auth then
    return command.fail(self, "command", "insecure", "the connection is not encrypted: the credentials were not sent")
  end
  local answer = self.at == "answer"
  local shown = answer and "****" or start and words ~= "" and start .. " ****" or line
  if answer or start then self.trace.hide(start and words or line) end
  if line:find("^[Mm][Aa][Ii][Ll]") then
    state.transaction_begun(self, line:upper():find(" SMTPUTF8", 1, true) ~= nil)
  end
  local reply
  reply, err = command.command(self, "command", line, nil, false, shown)
  if not reply then return nil, err end
  if reply.code == 235 then state.tried(self, true) end
  if command.class(reply) == 3 then state.into(self, "answer") else state.back(self) end
  return reply
end

--- QUIT; the session is closed afterwards, whatever came of it. RFC 5321 4.1.1.10. May yield.
---@return smtp.Reply? reply
---@return smtp.Error? err
function Session:quit()
  local reply, err = command.simple(self, "quit", "QUIT", 2)
  self:close()
  return reply, err
end

--- Closes the connection without a word. Never waits; calling it again does nothing.
function Session:close()
  state.close(self)
end

Session.__close = Session.close

caller.guard(Session, steps)
check.methods(Session, "session")

return session
