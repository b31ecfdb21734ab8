--- command: one command and its reply, or the error: what every verb is built from.
---
--- Does: writes, waits and reads; an error made here knows its stage, what became of the message under way, and whether
--- the connection survives it.
--- Called by: all of client.
local caller = require "smtp.client.caller"
local errors = require "smtp.errors"
local state = require "smtp.client.state"
local capability = require "smtp.protocol.capability"
local hint = require "smtp.protocol.hint"

local command = {}

-- Errors --------------------------------------------------------------------------------------------------------------

-- After one of these the two sides may no longer agree on where they are.
local FATAL = {
  timeout = true, closed = true, protocol = true, tls = true, source = true, connect = true, resolve = true,
}

-- What there is beside an error that tells what to do about it.
local function scene(self)
  return { greeting = self.greeting and self.greeting.text, known = self.known, mechanism = self.mechanism,
    offered = self.capabilities and capability.mechanisms(self.capabilities), late = state.is_late(self) }
end

--- nil, err. `fields` may hold code, enhanced, text, rejected, temporary, hint.
function command.fail(self, stage, kind, reason, fields)
  local err = fields or {}
  err.kind, err.stage = kind, stage
  err.outcome = err.outcome or self.message and self.message.outcome
  err.reason = reason and self.trace.scrub(tostring(reason))
  err.text = err.text and self.trace.scrub(err.text)
  err.port = self.plan.port
  err.transcript = self.trace.transcript()
  err = errors.new(err)
  err.hint = err.hint or kind == "tls" and self.pump and self.pump.pipe.hint or hint.find(err, scene(self))
  err.port = nil
  -- behind a 421 there is still to be heard of whole messages, and of a QUIT that went along
  if FATAL[kind] or err.code == 421 and not (self.at == "burst" or self.parting) then state.kill(self, err) end
  return nil, err
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
    state.kill(self, err)
    return nil, err
  end
  -- a source may give a whole error value
  if kind == "source" and type(reason) == "table" and reason.kind then reason = reason.reason end
  if kind == "timeout" and stage ~= "body" then reason = "the server did not answer in time" end
  return command.fail(self, stage, kind, reason)
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

-- One command and its reply -------------------------------------------------------------------------------------------

--- Before a command is written nothing may be unread: a reply that nobody waits for must never be taken for its.
function command.look(self, stage)
  if self.pump.wire:expected() > 0 then return true end
  local kind, reason, words = self.pump:unasked()
  if kind == "tls" and self.state == "ready" then kind = "closed" end -- a farewell, later on
  if kind then return command.fail(self, stage, kind, reason, words and said(words)) end
  return true
end

--- Whether the server, which waits for content or its end, says nothing yet; else the session ends.
---@return boolean? quiet
---@return smtp.Error? err
function command.listen(self)
  local kind, reason, words = self.pump:unasked()
  if not kind then return true end
  local _, err = command.fail_pump(self, "body", kind, reason, words)
  state.kill(self, err)
  return nil, err
end

--- Every verb begins here: the call's deadline, and whether the session can be used at all.
function command.begin(self, stage)
  caller.enter(self)
  if self.series then self.series:settle() end
  state.set_deadline(self)
  state.under_way(self, nil) -- whatever became of what was broken off
  if self.state == "dead" then return dead(self, stage) end
  if self.state == "closed" then return command.closed(self, stage) end
  if self.state == "new" then return unusable(self, stage, "not connected yet: call connect() first") end
  if not state.may(self, stage == "command" and "line" or "verb") then
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
  local ok, kind, reason, words = self.pump:flush(state.deadline(self, "command"))
  if not ok then return command.fail_pump(self, stage, kind, reason, words) end
  return true
end

-- The next reply, as the server said it.
local function hear(self, stage, wait)
  local reply, kind, reason, words = self.pump:reply(state.deadline(self, wait))
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
