--- state: where a connection stands: in the dialogue with its server, with the message under way, with its time.
---
--- Does: makes the table that a session is, every field of which is listed here, and changes it by what happens; says
--- what may come next.
--- Never: lets another module write these fields: the others tell what happened.
--- Called by: all of client.
local core = require "smtp.core"
local errors = require "smtp.errors"
local pump = require "smtp.client.pump"
local socket = require "smtp.transport.socket"
local trace = require "smtp.protocol.trace"

local state = {}

local huge = math.huge

-- What belongs to one connection, before its first step.
local function unconnected(self)
  self.state = "new"       -- "new", "connected", "ready" (for mail), "dead" (see cause) or "closed"
  self.at = "command"      -- where in the dialogue: see NEXT
  self.parting = false     -- QUIT is on its way, behind the message that is under way
  self.pump = nil          -- over the pipe to the server
  self.tls = nil           -- { version=, cipher=, peer=, resumed= }
  self.time = {}           -- seconds: { resolve=, connect=, tls=, auth= }
  self.greeting = nil      -- the server's first reply
  self.capabilities = nil  -- what it offers
  self.opened = false      -- by open, which can do it again
  self.cause = nil         -- the error that killed the session, in words
  self.mechanism = nil     -- of the last login that was tried
  self.known = false       -- a login succeeded
  self.prelude = nil       -- reads the reply to a login that goes along with the first envelope: see login.along
  self.vain = false        -- the server did not take that login's mechanism, and there is another one
  self.trusted = false     -- content may go in chunks
  self.mails = 0           -- messages begun
  self.transaction = false -- MAIL was taken and nothing ended it,
  self.utf8 = false        -- with SMTPUTF8,
  self.taken = {}          -- and these recipients by rcpt
  self.message = nil       -- the one under way: `outcome` says what an error now means for it
  self.reading = nil       -- closes the files of the content that is being read
  self.leaving = nil       -- the server said 421 while whole messages were under way: see state.leaves
  self.notes = {}          -- envelope's: the `terms` of the server, and the `plan` that was made last
  if self.way then self.way.over = false end
  return self
end

--- The state of a session that has not taken its first step.
---@param plan table from smtp.options
---@param life number? an absolute deadline for the session's whole life, instead of one for each call
---@param seconds number? that the way to the content has, beside that
---@return table
function state.new(plan, life, seconds)
  local secure = plan.tls ~= "none" and not (plan.transport and plan.transport.secure)
  local self = unconnected {
    plan = plan,
    transport = plan.transport or socket.new(),
    wrapper = secure and require "smtp.transport.tls" or nil,
    trace = nil,
    life = life or false,   -- a nil would be looked for among the methods each time
    expires = huge,    -- the present call's deadline
    way = seconds and { left = seconds, since = core.now(), counts = true, over = false },
    series = nil,           -- of send_many, that the last result was asked of: a message of it may be on the wire
    raised = nil,           -- what code of the caller's raised, until that may go on to the caller: { value }
    busy = false,           -- a coroutine is in a call,
    call = nil,             -- of this function: both are caller's
  }
  local watch = plan.trace
  self.trace = trace.new(type(watch) == "function" and function(direction, line)
    if not state.call(self, errors.catch, watch, direction, line) then state.rethrow(self) end
  end or watch)
  return self
end

--- The same session, for another connection.
state.unconnected = unconnected

-- Where in the dialogue -> what may come next: any verb, the next line of s:command, or a goodbye. What is broken off
-- halfway stays there.
local NEXT = {
  command = { verb = true, line = true, goodbye = true }, -- between two commands
  answer = { line = true },                               -- s:command was answered with a 3xx
  handshake = {}, login = {}, content = {},
  burst = {},                                             -- whole messages are on their way
}

--- Whether this may come next in the dialogue.
---@param what "verb"|"line"|"goodbye"
function state.may(self, what)
  local owed = what ~= "goodbye" and not self.prelude and self.pump.wire:expected() > 0
  return NEXT[self.at][what] ~= nil and not owed
end

-- What happens, as the others tell it ---------------------------------------------------------------------------------

--- There is a connection.
function state.connected(self, pipe, seconds)
  self.state = "connected"
  self.pump = pump.new(pipe, self.trace)
  self.pump.rounds = 1
  self.time.connect, self.time.resolve = seconds, pipe.resolved
end

--- It is encrypted from here on. What was said before is forgotten (RFC 3207 4.2).
function state.encrypted(self, pipe, seconds)
  self.tls, self.time.tls = pipe.info, seconds
  self.pump.rounds = self.pump.rounds + (pipe.rounds or 0)
  if self.greeting then
    self.pump:switch(pipe)
    self.capabilities, self.state = nil, "connected"
  else
    self.pump.pipe = pipe
  end
  state.back(self)
end

--- The server greets.
function state.greeted(self, greeting)
  self.greeting = greeting
end

--- EHLO was answered, and ends a transaction. `trusted`: content may go in chunks; nil: that was a no.
function state.offered(self, capabilities, trusted)
  self.capabilities, self.transaction = capabilities, false
  if trusted == nil then return end
  self.trusted = trusted
  -- whoever heard of the reply may have closed the session
  if self.state ~= "closed" then self.state = "ready" end
end

--- More, or less, is known of what the server makes of chunks.
function state.trust(self, trusted)
  self.trusted = trusted
end

--- All that open does is done; false: it could not be done again.
function state.opened(self, opened)
  self.opened = opened
end

--- A login by this mechanism goes out.
---@param prelude function? reads the reply, where it goes along with the first envelope
function state.tries(self, mechanism, prelude)
  self.mechanism, self.prelude, self.vain = mechanism, prelude, false
end

--- Its reply is going to be read.
---@return function prelude
function state.take_prelude(self)
  local prelude = self.prelude
  self.prelude = nil
  return prelude
end

--- Its reply came, or will not. `vain`: it says nothing against the credentials, and there is another mechanism.
function state.tried(self, succeeded, vain)
  self.known, self.vain = self.known or succeeded, vain or false
end

--- All of the logging in took so many seconds.
function state.logged_in(self, seconds)
  self.time.auth = seconds
end

--- The dialogue is there from now on.
---@param place "answer"|"handshake"|"login"
function state.into(self, place)
  self.at = place
end

--- Messages go out one after the other, by this series of send_many: whatever comes in between settles it first.
---@param series smtp.Series? nil: they have
function state.serves(self, series)
  self.series = series
end

--- It is between two commands again.
function state.back(self)
  self.at = "command"
end

--- QUIT is on its way, behind the message that is under way.
function state.quits(self)
  self.parting = true
end

--- MAIL goes out.
function state.begins(self)
  self.mails = self.mails + 1
end

--- The server has a transaction. `utf8`: by verbs, with SMTPUTF8 or not.
function state.transaction_begun(self, utf8)
  self.transaction = true
  if utf8 ~= nil then self.utf8, self.taken = utf8, {} end
end

--- It has none any more.
function state.transaction_over(self)
  self.transaction = false
end

--- It took a recipient, by rcpt.
function state.recipient_taken(self, recipient)
  self.taken[#self.taken + 1] = recipient
end

-- Closes the files of a content that is not read to its end.
local function put_away(self)
  local close = self.reading
  self.reading = nil
  if close then close() end
end

--- A content is read, and `close` puts its files away.
function state.reads(self, close)
  self.reading = close
end

--- Errors are about this message from now on.
---@param one { outcome: "unknown"? }? nil: about none
function state.under_way(self, one)
  self.message = one
end

--- The content of a message goes out, or none to a server that wants one for nobody.
---@param one { ready: boolean?, outcome: "unknown"? } the message; not `ready`: what comes before it is not over
function state.content_begins(self, one)
  self.at, self.message = "content", one
  if self.way and one.ready then self.way.over = true end
end

--- What became of it has been found out.
---@param open boolean? the server still has the transaction
function state.content_over(self, open)
  self.at, self.transaction = "command", open or false
  if self.reading then put_away(self) end
end

--- Whole messages go out.
function state.burst_begins(self)
  self.at = "burst"
  if self.way then self.way.over = true end
end

--- What became of them has been found out.
function state.burst_over(self)
  self.at, self.message = "command", nil
end

-- Seconds that a server which said 421 has to close.
local LEAVING = 2

--- A server that says 421 closes, or else what went out behind that command may be taken all the same: the connection
--- is listened to for a while yet.
---@param one smtp.Transaction? nil: it said so to the login in front
function state.leaves(self, one, stage, reply)
  if self.leaving then return end
  self.leaving = { one = one, stage = stage, reply = reply, stays = false }
  state.hurry(self, LEAVING)
end

--- It said yes: if it was leaving it has thought better of it.
function state.stays(self)
  if self.leaving then self.leaving.stays = true end
end

--- Whether it said 421 and then yes to nothing: what went out behind that was not taken.
function state.has_left(self)
  return self.leaving ~= nil and not self.leaving.stays
end

--- Nothing more can be said on this connection.
function state.kill(self, err)
  put_away(self)
  if self.state ~= "closed" then self.state = "dead" end
  self.cause = self.cause or ("%s at %s: %s"):format(err.kind, err.stage, err.reason or errors.reply_line(err))
  if self.pump then self.pump.pipe:close() end
end

--- The connection is over, without a word.
function state.close(self)
  put_away(self)
  if self.pump then self.pump.pipe:close() end
  if self.state ~= "dead" then self.state = "closed" end
  self.opened = false
end

--- Calls code of the caller's. What it raises ends the connection, and is raised when all that hangs on that is done:
--- see state.rethrow.
---@param catch function errors.catch, or pcall for code that must not yield
---@return boolean ran
---@return any ... what it returned
function state.call(self, catch, call, ...)
  local ran, value, more = catch(call, ...)
  if ran then return true, value, more end
  self.raised = self.raised or { value = value }
  state.kill(self, { kind = "closed", stage = "body", reason = "a function of the caller's raised an error" })
  return false
end

--- Raises what code of the caller's raised, in its own words.
---@param owner table? what has it in `raised`: the session
function state.rethrow(self, owner)
  owner = owner or self
  local raised = owner.raised
  if not raised then return end
  owner.raised = nil
  state.kill(self, { kind = "closed", stage = "body", reason = "a function of the caller's raised an error" })
  error(raised.value, 0)
end

-- Time ----------------------------------------------------------------------------------------------------------------

--- The deadline of the present call.
---@param expires number? absolute; nil: by the session's life, or else by `timeout`
function state.set_deadline(self, expires)
  self.expires = expires or self.life or (self.plan.timeout and core.now() + self.plan.timeout) or huge
end

--- No more than so many seconds from now on.
function state.hurry(self, seconds)
  self.expires = math.min(self.expires, core.now() + seconds)
end

--- The deadline of all calls from now on; nil: each has its own.
function state.set_life(self, life)
  self.life = life or false
end

--- Whether the time for all that comes before the content has run out.
function state.is_late(self)
  local way = self.way
  return way and not way.over and way.counts and core.now() >= way.since + way.left or false
end

-- When the way to the content ends. A wait that `timeouts` names has its own time, and takes none of that; what passes
-- between two waits belongs to the first.
local function end_of(way, now, named)
  if way.counts then way.left = way.left - (now - way.since) end
  way.since, way.counts = now, not named
  return named and huge or now + way.left
end

--- The deadline of one wait.
---@param wait string|false which of `timeouts`; false: nothing more is waited for
---@return number
function state.deadline(self, wait)
  local plan, way, now = self.plan, self.way, core.now()
  local deadline = wait and now + plan.timeouts[wait] or now
  if way and not way.over then deadline = math.min(deadline, end_of(way, now, plan.named[wait])) end
  return deadline < self.expires and deadline or self.expires
end

return state
