--- task: a call in steps, for a host with its own loop: a game's tick, an event loop that can watch a descriptor.
---
--- Does: runs the call in a coroutine that the built-in sockets know: where they would wait, a step ends.
--- Called by: smtp.
local check = require "smtp.check"
local core = require "smtp.core"
local socket = require "smtp.transport.socket"

local task = {}

---@class smtp.Task
local Task = {}
Task.__index = Task

local unpack = table.unpack or unpack

local function pack(...)
  return { n = select("#", ...), ... }
end

--- A task that will run `run(...)`: smtp.send, a session's method, or a function of yours that calls several of them.
--- It begins with the first step.
---@param run function
---@return smtp.Task
function task.new(run, ...)
  if type(run) ~= "function" then
    check.raise("smtp.task: expected a function, got " .. type(run)
      .. (run == nil and ": write smtp.task(smtp.send, { … })" or ""))
  end
  -- Lua 5.1 makes no coroutine of a function in C
  local thread = coroutine.create(function(...) return run(...) end)
  socket.register(thread)
  return setmetatable({ thread = thread, arguments = pack(...) }, Task)
end

--- Goes on as far as it can without waiting, but hardly for longer than some milliseconds. Never blocks, name look-up
--- included. Raises what `run` raised, at every later call too.
---@return "read"|"write"|"done" what the event that is waited for; "done": the call is over
---@return any ... fd and deadline (absolute, by smtp.now): call again when fd is ready or the deadline has passed, or
--- simply at the next tick; fd -1: only the deadline is waited for; after "done" the results of `run`, again at every
--- later call
function Task:step()
  if not self.results then
    local arguments = self.arguments
    self.arguments = { n = 0 }
    local outer = socket.began
    socket.began = core.now()
    local got = pack(coroutine.resume(self.thread, unpack(arguments, 1, arguments.n)))
    socket.began = outer
    if got[1] and coroutine.status(self.thread) ~= "dead" then return unpack(got, 2, got.n) end
    self.results = got
  end
  if not self.results[1] then error(self.results[2], 0) end
  return "done", unpack(self.results, 2, self.results.n)
end

check.methods(Task, "task")

return task
