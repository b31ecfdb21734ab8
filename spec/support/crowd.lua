-- crowd: a pool's connections played from scripts, in a time that stands and passes where all rest. Each connection plays
-- the next script; so what happens is the same each time, however many work side by side.
local clock = require "spec.support.clock"
local core = require "smtp.core"
local memory = require "smtp.transport.memory"
local smtp = require "smtp"
local socket = require "smtp.transport.socket"

local crowd = {}

--- The lines of one message that is taken, by one command at a time; `replies`: other ones than "250 ok", by verb.
---@param i any in the Message-ID, as of crowd.letter
---@param replies table<string, string>?
---@return string[]
function crowd.message(i, replies)
  local function of(verb, usual) return "S: " .. (replies and replies[verb] or usual) end
  return { "C: MAIL FROM:<ada@example.org>", of("mail", "250 ok"), "C: RCPT TO:<bob@example.test>", of("rcpt", "250 ok"),
    "C: DATA", "S: 354 go", ("C: Message-ID: <%s@example.org>"):format(i), "C: ", "C: x", "C: .", of("final", "250 taken") }
end

---@return table message options
function crowd.letter(i, more)
  local fields = { from = "ada@example.org", to = "bob@example.test",
    raw = ("Message-ID: <%s@example.org>\r\n\r\nx\r\n"):format(i) }
  for name, value in pairs(more or {}) do fields[name] = value end
  return fields
end

--- A transport whose connections play `scripts` in turn; a script may be a list of what connect() gives instead, its
--- first value nil. `transport.said`: each line of the client, { connection, time, line }; `transport.opened`: how many.
---@param scripts table[]
---@param slow boolean? each reading lets others go on first
---@return table transport
function crowd.transport(scripts, slow)
  local host = socket.new()
  local transport = { said = {}, opened = 0, together = host.together, bell = host.bell, pipes = {} }
  function transport.wait(mode, fd, deadline)
    local thread = coroutine.running()
    if thread and socket.stepped[thread] then return host.wait(mode, fd, deadline) end
    clock.pass(math.max(0, deadline - core.now()))
  end
  function transport.connect()
    local number = transport.opened + 1
    transport.opened = number
    if slow then transport.wait("read", -1, core.now() + 0.01) end
    local script = scripts[number] or error(("connection %d is one too many"):format(number), 0)
    if script.failure then return nil, "connect", script.failure end
    local pipe = memory.new(script).connect()
    transport.pipes[number] = pipe
    local inner = getmetatable(pipe).__index
    function pipe.write(self, bytes)
      for line in bytes:gmatch("([^\r\n]+)\r\n") do
        transport.said[#transport.said + 1] = { number, core.now(), line }
      end
      return inner.write(self, bytes)
    end
    function pipe.read(self, deadline)
      if slow and deadline > core.now() then transport.wait("read", -1, core.now() + 0.01) end
      return inner.read(self)
    end
    pipe.send, pipe.receive = nil, nil
    return pipe
  end
  return transport
end

--- A pool over such a transport.
---@param scripts table[]
---@param given table? options
---@param slow boolean?
---@return smtp.Pool pool
---@return table transport
function crowd.pool(scripts, given, slow)
  local transport = crowd.transport(scripts, slow)
  local options = { host = "mail.example.org", tls = "none", helo = "client.example.org", transport = transport }
  for name, value in pairs(given or {}) do options[name] = value end
  return assert(smtp.pool(options)), transport
end

--- Runs functions as tasks side by side, each stepped when what it waits for is there; where all rest, time passes. To
--- be called while the clock stands.
---@param runs function[]
---@return table[] results of each
function crowd.run(runs)
  local tasks, waits, results, left = {}, {}, {}, #runs
  for i, run in ipairs(runs) do tasks[i] = smtp.task(run) end
  while left > 0 do
    local stepped, soonest = false, math.huge
    for i, task in ipairs(tasks) do
      local one = waits[i]
      local ready = not one or core.now() >= one.deadline or one.fd >= 0 and core.wait(one.mode, one.fd, 0)
      if not results[i] and ready then
        stepped = true
        local got = { task:step() }
        if got[1] == "done" then
          results[i], left = { got[2], got[3], got[4] }, left - 1
        else
          waits[i] = { mode = got[1], fd = got[2], deadline = got[3] }
        end
      end
      if not results[i] then soonest = math.min(soonest, waits[i].deadline) end
    end
    if not stepped then
      assert(soonest < core.now() + 1e6, "all wait for ever")
      clock.pass(soonest - core.now())
    end
  end
  return results
end

return crowd
