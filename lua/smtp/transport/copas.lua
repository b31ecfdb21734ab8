--- copas: the transport for programs that run on copas, to be used in a coroutine of its scheduler.
---
--- Does: waits by copas. Linux only: a copas of old has no timers, so each coroutine here has a descriptor that tells
--- of its deadlines, too. With these there is room for some 300 coroutines at once in the select by which copas waits.
---
---   copas.addthread(function() smtp.send { transport = require "smtp.transport.copas", … } end)
local copas = require "copas"
local check = require "smtp.check"
local core = require "smtp.core"
local loop = require "smtp.transport.loop"
local socket = require "smtp.transport.socket"

-- What copas takes for a socket: its "receive" has something when the poller is readable.
local Gate = {}
Gate.__index = Gate

function Gate:getfd()
  return self.poller:fd()
end

function Gate:dirty()
  return false
end

function Gate:receive()
  self.looks = self.looks + 1
  if self.looks > 1 then return "" end
  return nil, "timeout"
end

function Gate:close()
  self.poller:close()
end

local gates = setmetatable({}, { __mode = "k" }) -- thread -> its gate
local watching = {}                                -- descriptor -> the gate that waits for it

local function this_gate()
  local thread, main = coroutine.running()
  if not thread or main then
    check.raise("smtp.transport.copas: call it in a coroutine of copas, copas.addthread(function() … end)")
  end
  local gate = gates[thread]
  if not gate then
    gate = setmetatable({ poller = assert(core.poller()), looks = 0 }, Gate)
    gates[thread] = gate
  end
  return gate
end

local function wait(mode, fd, deadline)
  local gate = this_gate()
  gate.looks = 0
  assert(gate.poller:alarm(deadline))
  if fd < 0 then
    copas.receive(gate, 1)
  else
    assert(gate.poller:watch(mode, fd))
    watching[fd] = gate
    copas.receive(gate, 1)
    -- its number may be another's by now
    if watching[fd] == gate then watching[fd] = nil end
    gate.poller:drop(fd)
  end
end

local function forget(fd)
  if watching[fd] then watching[fd].poller:alarm(0) end
end

local function wake(thread)
  if gates[thread] then gates[thread].poller:alarm(0) end
end

-- In threads of copas, so that what is called there may wait in its other ways, too.
local function beside(runs)
  local gate = runs[1] and this_gate()
  loop.all(runs, function(run, ended)
    copas.addthread(function()
      copas.setErrorHandler(ended)
      run()
      ended()
    end)
  end, function() wait("read", -1, core.now() + 60) end, function() gate.poller:alarm(0) end)
end

return socket.new(wait, forget, beside, wake)
