-- skynet: a stand-in for skynet, which is packaged nowhere: what smtp.transport.skynet uses of a service's coroutines and
-- sockets, with what skynet 1.8 makes of each call, in this thread. It finds out by messages what became of a socket,
-- takes all it is given to write, and knows hundredths of a second. As a host: see loops.lua.
local core = require "smtp.core"

local skynet, socket, host = {}, {}, {}

local forks, woken = {}, {} -- coroutines to begin; tokens of those to go on
local sleeping = {}         -- token -> thread and time
local slots = {}            -- of the thread of all sockets: id -> what is open
local pool = {}             -- of the service: id -> what it knows of it
local mailbox = {}          -- from that thread to the service
local last = 0

local function ticks()
  return math.floor(core.now() * 100)
end

local function resume(thread)
  local ok, what = coroutine.resume(thread)
  if not ok then error(debug.traceback(thread, tostring(what)), 0) end
  assert(what == "SUSPEND" or coroutine.status(thread) == "dead", "it waits in a way that is not skynet's")
end

function skynet.fork(run, ...)
  local arguments = table.pack(...)
  forks[#forks + 1] = coroutine.create(function() run(table.unpack(arguments, 1, arguments.n)) end)
  return forks[#forks]
end

local function suspend(token, at)
  local thread = coroutine.running()
  token = token or thread
  assert(not sleeping[token], "token duplicative")
  sleeping[token] = { thread = thread, at = at }
  coroutine.yield "SUSPEND"
end

function skynet.sleep(hundredths, token)
  suspend(token, ticks() + assert(math.tointeger(hundredths)))
end

function skynet.wait(token)
  suspend(token, math.huge)
end

function skynet.wakeup(token)
  if sleeping[token] then woken[#woken + 1] = token end
end

function skynet.killthread(thread)
  for token, one in pairs(sleeping) do
    if one.thread == thread then sleeping[token] = nil end
  end
  coroutine.close(thread)
end

local function tell(slot, what, words)
  mailbox[#mailbox + 1] = { id = slot.id, what = what, words = words }
end

local function free(slot)
  slots[slot.id] = nil
  slot.sock:close()
end

local function flush(slot)
  while slot.queue ~= "" do
    local count, reason = slot.sock:write(slot.queue, 1)
    if not count then return reason ~= "again" and tell(slot, "error", reason) end
    slot.queue, slot.write = slot.queue:sub(count + 1), slot.write + count
  end
  if slot.closing then free(slot) end
end

local function serve(slot)
  if slot.connecting then
    local ok, reason = slot.sock:connected()
    if not ok and reason == "again" then return end
    slot.connecting = false
    tell(slot, ok and "connect" or "error", reason)
    if not ok then free(slot) end
    return
  end
  if slot.reading then
    local bytes, reason = slot.sock:read()
    if bytes then
      tell(slot, "data", bytes)
    elseif reason ~= "again" then
      slot.reading, slot.ended = false, true
      tell(slot, reason == "closed" and "close" or "error", reason)
    end
  end
  flush(slot)
end

-- Has the thread close one: what is queued is still sent, but not where it is shut down.
local function finish(id, now)
  local slot = slots[id]
  if not slot then return end
  if not slot.ended then tell(slot, "close") end
  slot.reading, slot.ended, slot.closing = false, true, true
  if now or slot.queue == "" then free(slot) end
end

local function wake(one)
  local thread = one.thread
  one.thread = nil
  if thread then skynet.wakeup(thread) end
end

local function rest(one)
  assert(not one.thread)
  one.thread = coroutine.running()
  skynet.wait()
  if one.closer then skynet.wakeup(one.closer) end
end

local function dispatch(message)
  local one = pool[message.id]
  if not one then return finish(message.id, true) end
  if message.what == "data" then
    one.held = one.held .. message.words
    if one.required then wake(one) end
    one.required = false
    return
  end
  one.connected, one.reason = message.what == "connect", message.words
  if message.what == "error" then finish(message.id, true) end
  wake(one)
end

function socket.open(address, port)
  local sock, reason = core.connect(assert(core.resolve(address, port):result())[1])
  last = last + 1
  local slot = { id = last, sock = sock, connecting = true, reading = true, queue = "", write = 0 }
  local one = { id = last, held = "" }
  pool[last] = one
  if sock then slots[last] = slot else tell(slot, "error", reason) end
  rest(one)
  if one.connected then return one.id end
  pool[one.id] = nil
  return nil, one.reason
end

function socket.read(id)
  local one = assert(pool[id])
  if one.held == "" and one.connected then
    assert(not one.required)
    one.required = true
    rest(one)
  end
  local bytes = one.held
  one.held = ""
  if bytes == "" then return false, bytes end
  return bytes
end

function socket.write(id, bytes)
  local slot = slots[id]
  if not slot or slot.closing then return false end
  slot.queue = slot.queue .. bytes
  flush(slot)
  return true
end

function socket.shutdown(id)
  if pool[id] then finish(id, true) end
end

function socket.close(id)
  local one = pool[id]
  if not one then return end
  finish(id)
  if one.connected then
    if one.thread then
      one.closer = coroutine.running()
      skynet.wait()
    else
      rest(one)
    end
  end
  pool[id] = nil
end

function socket.netstat()
  local list = {}
  for id, slot in pairs(slots) do list[#list + 1] = { id = id, write = slot.write, wbuffer = #slot.queue } end
  return list
end

-- One thing after the other: those woken and begun, then a message, then what the thread and the clock bring.
local function turn()
  local token = table.remove(woken, 1)
  if token then
    local one = sleeping[token]
    sleeping[token] = nil
    return one and resume(one.thread)
  elseif forks[1] then
    return resume(table.remove(forks, 1))
  elseif mailbox[1] then
    return dispatch(table.remove(mailbox, 1))
  end
  local fds, modes, due = {}, {}, math.huge
  local function watch(slot, mode) fds[#fds + 1], modes[#modes + 1] = slot.sock:fd(), mode end
  for _, slot in pairs(slots) do
    if slot.reading and not slot.connecting then watch(slot, "read") end
    if slot.connecting or slot.queue ~= "" then watch(slot, "write") end
  end
  for _, one in pairs(sleeping) do due = math.min(due, one.at) end
  core.poll(fds, modes, due / 100)
  for _, slot in pairs(slots) do serve(slot) end
  for name, one in pairs(sleeping) do
    if one.at <= ticks() then woken[#woken + 1] = name end
  end
end

function host.run(run)
  local results
  skynet.fork(function() results = { run() } end)
  repeat turn() until results
  return results[1], results[2], results[3]
end

host.spawn = skynet.fork

function host.pause(seconds)
  skynet.sleep(math.ceil(seconds * 100))
end

function host.drop(run)
  host.run(function()
    local one = skynet.fork(run)
    host.pause(0.05)
    skynet.killthread(one)
  end)
end

package.loaded.skynet = skynet
package.loaded["skynet.socket"] = socket
package.loaded["skynet.socketdriver"] = { nodelay = function() end }

return host
