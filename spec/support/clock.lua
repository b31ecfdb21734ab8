-- clock: the library's time in a spec's hand. It stands still from clock.stop() to clock.go() and passes where the spec
-- says so, or where the library rests. Other programs, and event loops of others, keep the machine's time.
local core = require "smtp.core"
local smtp = require "smtp"

local clock = {}

local PATIENCE = 60 -- seconds of the machine after which something hangs
local LOOKS = 1e6   -- at the clock while it stands, and nobody could turn it
local now, wait, poll = core.now, core.wait, core.poll
local at, looks -- nil: it goes by itself

local unpack = table.unpack or unpack

local function pack(...)
  return { n = select("#", ...), ... }
end

-- As many seconds from now as there are until that time of the library's.
local function real(deadline)
  return now() + math.max(0, deadline - at)
end

--- Lets so many seconds pass at once.
---@param seconds number
function clock.pass(seconds)
  at, looks = at + seconds, 0
end

--- Stops the time. A wait for a descriptor takes its seconds, but lets none pass; one for nothing takes none, and does.
function clock.stop()
  at, looks = math.ceil(now()), 0 -- a whole number: what is added to it and taken from it again stays as it is
  core.now = function() -- luacheck: ignore
    looks = looks + 1
    if looks > LOOKS then error("who waits here waits for ever", 0) end
    return at
  end
  core.wait = function(mode, fd, deadline) -- luacheck: ignore
    if fd >= 0 then return wait(mode, fd, real(deadline)) end
    at = math.max(at, deadline)
    return false
  end
  core.poll = function(fds, modes, deadline) -- luacheck: ignore
    if fds[1] then return poll(fds, modes, real(deadline)) end
    at = math.max(at, deadline)
    return {}
  end
end

--- Lets it go on, as that of the machine.
function clock.go()
  core.now, core.wait, core.poll = now, wait, poll -- luacheck: ignore
  at = nil
end

--- Waits until something sent on this machine has come.
---@param fd integer
function clock.arrive(fd)
  assert(wait("read", fd, now() + PATIENCE), "nothing comes")
end

local function forbidden()
  error("a step waits", 0)
end

-- A step of a task, which must not wait.
local function step(task)
  local outer_wait, outer_poll = core.wait, core.poll
  core.wait, core.poll, looks = forbidden, forbidden, 0 -- luacheck: ignore
  local got = pack(pcall(task.step, task))
  core.wait, core.poll = outer_wait, outer_poll -- luacheck: ignore
  if not got[1] then error(got[2], 0) end
  return unpack(got, 2, got.n)
end

--- Runs a function as a task, with the time stopped; no step of it may wait. Where it rests, or waits in vain for what `passes` names, the time
--- goes on to its deadline at once; `passes` as a function is asked first: it may do something, let some time pass itself,
--- and tells whether all of it passes.
---@param passes "read"|"write"|fun(mode: string, fd: integer, deadline: number): boolean?
---@param run function
---@return number seconds that passed
---@return table results with `n`
function clock.run(passes, run, ...)
  local began, late = at, now() + PATIENCE
  local task = smtp.task(run, ...)
  while true do
    local got = pack(step(task))
    local mode, fd, deadline = got[1], got[2], got[3]
    if mode == "done" then return at - began, { n = got.n - 1, unpack(got, 2, got.n) } end
    assert(now() < late, "the task hangs")
    if fd < 0 then
      at = math.max(at, deadline)
    elseif not wait(mode, fd, 0) then
      local all = passes == mode
      if type(passes) == "function" then all = passes(mode, fd, deadline) end
      if all then at = math.max(at, deadline) else wait(mode, fd, now() + 0.01) end
    end
  end
end

return clock
