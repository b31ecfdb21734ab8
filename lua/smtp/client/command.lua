--- One command and its reply, or the error: what every verb of a session is built from. These functions take the
--- session as `self` and keep its state honest: an error here knows its stage, what became of the message, and
--- whether the session survives it.
local caller = require "smtp.client.caller"
local core = require "smtp.core"
local errors = require "smtp.errors"
local capability = require "smtp.protocol.capability"
local hint = require "smtp.protocol.hint"

local command = {}

-- After one of these the two sides may no longer agree on where they are.
local FATAL = {
  timeout = true, closed = true, protocol = true, tls = true, source = true, connect = true, resolve = true,
}

--- Closes the files of a content that is not read to its end.
function command.put_away(self)
  local close = self.reading
  self.reading = nil
  if close then close() end
end

--- Nothing more can be said on this connection.
function command.kill(self, err)
  command.put_away(self)
  if self.state ~= "closed" then self.state = "dead" end
  self.cause = self.cause or ("%s at %s: %s"):format(err.kind, err.stage, err.reason or errors.reply_line(err))
  if self.pump then self.pump.pipe:close() end
end

-- What there is beside an error that tells what to do about it.
local function scene(self)
  return { greeting = self.greeting and self.greeting.text, known = self.known, mechanism = self.mechanism,
    offered = self.capabilities and capability.mechanisms(self.capabilities),
    late = self.way ~= nil and self.way.counts and core.now() >= self.way.since + self.way.left }
end

--- nil, err. `fields` may hold code, enhanced, text, rejected, temporary, hint.
function command.fail(self, stage, kind, reason, fields)
  local err = fields or {}
  err.kind, err.stage, err.outcome = kind, stage, self.outcome
  err.reason = reason and self.trace.scrub(tostring(reason))
  err.text = err.text and self.trace.scrub(err.text)
  err.port = self.plan.port
  err.transcript = self.trace.transcript()
  err = errors.new(err)
  err.hint = err.hint or kind == "tls" and self.pump and self.pump.pipe.hint or hint.find(err, scene(self))
  err.port = nil
  -- behind a 421 there is still to be heard of whole messages, and of a QUIT that went along
  if FATAL[kind] or err.code == 421 and not (self.whole or self.quitting) then command.kill(self, err) end
  return nil, err
end

--- Calls code of the caller's. What it raises ends the connection, and is raised when all that hangs on that is done:
--- see command.rethrow.
---@param catch function errors.catch, or pcall for code that must not yield
---@return boolean ran
---@return any ... what it returned
function command.call(self, catch, call, ...)
  local ran, value, more = catch(call, ...)
  if ran then return true, value, more end
  self.raised = self.raised or { value = value }
  command.kill(self, { kind = "closed", stage = "body", reason = "a function of the caller's raised an error" })
  return false
end

--- Raises what code of the caller's raised, in its own words.
---@param owner table? what has it in `raised`: the session
function command.rethrow(self, owner)
  owner = owner or self
  local raised = owner.raised
  if not raised then return end
  owner.raised = nil
  command.kill(self, { kind = "closed", stage = "body", reason = "a function of the caller's raised an error" })
  error(raised.value, 0)
end

-- What an error keeps of a reply.
local function said(reply)
  return { code = reply.code, enhanced = reply.enhanced, text = reply.text }
end

--- The server said no.
function command.refuse(self, stage, reply, kind)
  return command.fail(self, stage, kind or "rejected", nil, said(reply))
end

--- A value that cannot be sent; the session lives on.
function command.fail_input(self, stage, reason)
  return command.fail(self, stage, "input", reason)
end

-- Here the server has heard of the message. Before that, a 4xx said into a write that fails is a farewell.
local UNDER_WAY = { rcpt = true, data = true, body = true, final = true }

--- A failure of the pump; `words` is the no that the server said before it closed.
function command.fail_pump(self, stage, kind, reason, words)
  if words and kind == "closed" and words.code < 500 and not UNDER_WAY[stage] then
    return command.fail(self, stage, kind, reason, said(words))
  elseif words then
    local _, err = command.refuse(self, stage, words)
    command.kill(self, err)
    return nil, err
  end
  -- a source may give a whole error value
  if kind == "source" and type(reason) == "table" and reason.kind then reason = reason.reason end
  if kind == "timeout" and stage ~= "body" then reason = "the server did not answer in time" end
  return command.fail(self, stage, kind, reason)
end

--- Whether the server, which waits for content or its end, says nothing yet; else the session ends.
---@return boolean? quiet
---@return smtp.Error? err
function command.listen(self)
  local kind, reason, words = self.pump:unasked()
  if not kind then return true end
  local _, err = command.fail_pump(self, "body", kind, reason, words)
  command.kill(self, err)
  return nil, err
end

-- When the way to the content ends. A wait that `timeouts` names has its own time, and takes none of that; what passes
-- between two waits belongs to the first.
local function end_of(way, now, named)
  if way.counts then way.left = way.left - (now - way.since) end
  way.since, way.counts = now, not named
  return named and math.huge or now + way.left
end

--- The deadline of one wait.
---@param wait string|false which of `timeouts`; false: nothing more is waited for
---@return number
function command.deadline(self, wait)
  local plan, way, now = self.plan, self.way, core.now()
  local deadline = wait and now + plan.timeouts[wait] or now
  if way then deadline = math.min(deadline, end_of(way, now, plan.named[wait])) end
  return deadline < self.expires and deadline or self.expires
end

-- The session cannot be used, and was not before either.
local function unusable(self, stage, reason)
  return nil, errors.new { kind = "closed", stage = stage, reason = reason, temporary = false,
    transcript = self.trace.transcript() }
end

--- The error of what a call of close() ended, or came too late for.
function command.closed(self, stage)
  return unusable(self, stage, "the session is closed")
end

-- The error of a call on a dead session.
local function dead(self, stage)
  return unusable(self, stage, "the session is dead: " .. self.cause)
end

--- The present call's deadline, absolute.
function command.set_deadline(self)
  self.expires = self.life or (self.plan.timeout and core.now() + self.plan.timeout) or math.huge
end

--- Before a command is written nothing may be unread: a reply that nobody waits for must never be taken for its.
function command.look(self, stage)
  if self.pump.wire:expected() > 0 then return true end
  local kind, reason, words = self.pump:unasked()
  if kind == "tls" and self.state == "ready" then kind = "closed" end -- a farewell, later on
  if kind then return command.fail(self, stage, kind, reason, words and said(words)) end
  return true
end

--- Every verb begins here: the call's deadline, and whether the session can be used at all.
---@param more boolean? the verb may go on after a 3xx reply to another of its kind
function command.begin(self, stage, more)
  caller.enter(self)
  if self.settle then self.settle() end
  command.set_deadline(self)
  self.outcome = "not_sent" -- whatever became of what was broken off
  if self.state == "dead" then return dead(self, stage) end
  if self.state == "closed" then return command.closed(self, stage) end
  if self.state == "new" then return unusable(self, stage, "not connected yet: call connect() first") end
  local broken = self.midway and not (more and self.midway == "command")
  if broken or self.pump.wire:expected() > 0 and not self.prelude then
    return command.fail(self, stage, "protocol", "an earlier call was broken off halfway")
  end
  return command.look(self, stage)
end

--- Where TLS is required no message goes out in clear.
function command.guard(self, stage)
  if self.plan.tls ~= "starttls" or self.tls then return true end
  return command.fail(self, stage, "insecure",
      'TLS is required and not on: call starttls() first, or use tls = "none"')
end

--- Queues a command; a line that must not be sent is an input error.
function command.queue(self, stage, line, utf8, shown)
  local ok, reason = self.pump:command(line, utf8, shown)
  if not ok then return command.fail_input(self, stage, reason) end
  return true
end

--- Writes all that is queued.
function command.write(self, stage)
  local ok, kind, reason, words = self.pump:flush(command.deadline(self, "command"))
  if not ok then return command.fail_pump(self, stage, kind, reason, words) end
  return true
end

-- The next reply, as the server said it.
local function hear(self, stage, wait)
  local reply, kind, reason, words = self.pump:reply(command.deadline(self, wait))
  if not reply then return command.fail_pump(self, stage, kind, reason, words) end
  return reply
end

--- A reply as a caller may see it: without the secrets that a server may echo.
function command.clean(self, reply)
  reply.text = self.trace.scrub(reply.text)
  return reply
end

--- The next reply, whatever it says.
---@param wait string|false as for deadline
function command.receive(self, stage, wait)
  local reply, err = hear(self, stage, wait)
  if not reply then return nil, err end
  return command.clean(self, reply)
end

--- A command and its reply as the server said it, for what is read by this library. No caller may see that.
function command.ask(self, stage, line, utf8, shown, wait)
  local ok, err = command.look(self, stage)
  if ok then ok, err = command.queue(self, stage, line, utf8, shown) end
  if not ok then return nil, err end
  return hear(self, stage, wait or "command")
end

--- A command and its reply, whatever it says.
function command.command(self, stage, line, wait, utf8, shown)
  local reply, err = command.ask(self, stage, line, utf8, shown, wait)
  if not reply then return nil, err end
  return command.clean(self, reply)
end

--- The reply's class: 2, 3, 4 or 5.
function command.class(reply)
  return math.floor(reply.code / 100)
end

-- A reply that no server gives to such a command.
local function odd(self, stage, reply)
  return command.fail(self, stage, "protocol", "the server answered with an odd code", said(reply))
end

--- The reply if it is of the class a command hopes for, else an error.
function command.expect(self, stage, reply, wanted)
  local got = command.class(reply)
  if got == wanted then return reply end
  if got >= 4 then return command.refuse(self, stage, reply) end
  return odd(self, stage, reply)
end

--- The reply to content, if it is a yes or a no. A goodbye in its place says nothing of that.
function command.verdict(self, stage, reply)
  if reply.code ~= 221 and command.class(reply) ~= 3 then return reply end
  return odd(self, stage, reply)
end

--- A whole verb: begin, the command, its reply of the class hoped for.
function command.simple(self, stage, line, wanted, utf8)
  local ok, err = command.begin(self, stage)
  if not ok then return nil, err end
  local reply
  reply, err = command.command(self, stage, line, nil, utf8)
  if not reply then return nil, err end
  return command.expect(self, stage, reply, wanted)
end

return command
