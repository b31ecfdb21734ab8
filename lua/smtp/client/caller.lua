--- caller: who is in a call on a session: one coroutine at a time.
---
--- Does: refuses what is called meanwhile, by another coroutine or by a function of the caller's in that call: nothing
--- changes for the first. A coroutine that has ended, or that the collector has taken, is in none: it was broken off.
--- Called by: session (all its methods), command, send_many, turns.
local errors = require "smtp.errors"

local caller = {}

-- session -> the coroutine that is, or was last, in a call on it
local threads = setmetatable({}, { __mode = "kv" })

--- This coroutine; Lua 5.1 has no name for the main one.
---@return thread|"main"
function caller.myself()
  local thread = coroutine.running()
  return thread or "main"
end

--- This function is what the session is used by from now on.
function caller.by(self, call)
  self.call = call
end

--- From now on this coroutine is in a call on the session.
---@param again boolean? it was the one in the last call, too
---@param call function? as for by
function caller.enter(self, again, call)
  if not again then threads[self] = caller.myself() end
  self.busy, self.call = true, call or self.call
end

--- Nobody is in one.
function caller.leave(self)
  self.busy = false
end

local getinfo = debug and debug.getinfo

-- Whether this coroutine is inside of a function, beside the one that asks for a refusal. What raised is not.
local function is_inside(call)
  local level, one = 4, getinfo and getinfo(4, "f")
  while one and one.func ~= call do
    level = level + 1
    one = getinfo(level, "f")
  end
  return one and true or false
end

--- The error of a call that comes while another is under way; nil: it may go on.
---@param self table the session, which is busy
---@param stage string of the call
---@return smtp.Error?
function caller.refusal(self, stage)
  local user = threads[self]
  if user == nil or self.state == "dead" or self.state == "closed" then return nil end
  local reason = "another coroutine is in a call on this session"
  if user == caller.myself() then
    if not is_inside(self.call) then return nil end
    reason = "this comes from inside of a call on the same session"
  elseif user ~= "main" and coroutine.status(user) == "dead" then
    return nil
  end
  return errors.new { kind = "protocol", stage = stage, temporary = true, reason = reason,
    hint = "a session does one thing at a time: use a pool (smtp.pool) for several" }
end

-- A method that is for one coroutine at a time. `about`: what becomes of its error.
local function alone(method, stage, about)
  local function finish(self, result, err, ...)
    caller.leave(self)
    return result, about(err), ...
  end
  local function call(self, ...)
    local err = self.busy and caller.refusal(self, stage)
    if err then return nil, about(err) end
    caller.by(self, call)
    return finish(self, method(self, ...))
  end
  return call
end

-- The methods of a session that wait, and the stage of each; the first ones send no message.
local APART = {
  connect = "connect", ehlo = "ehlo", starttls = "starttls", auth = "auth", reset = "reset", noop = "noop",
  verify = "verify", command = "command", quit = "quit",
}
local SENDING = { open = "connect", mail = "mail", rcpt = "rcpt", data = "data", bdat = "data", send = "mail" }

local function same(err)
  return err
end

--- Makes a session's methods be for one coroutine at a time.
---@param class table the methods
---@param steps table<string, function> gets them as they were, for use inside of a call
function caller.guard(class, steps)
  for name, stage in pairs(APART) do
    steps[name], class[name] = class[name], alone(class[name], stage, errors.apart)
  end
  for name, stage in pairs(SENDING) do
    steps[name], class[name] = class[name], alone(class[name], stage, same)
  end
end

return caller
