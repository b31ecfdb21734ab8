local child = require "spec.support.child"
local clock = require "spec.support.clock"
local core = require "smtp.core"
local each = require "spec.support.each"
local loopback = require "spec.support.loopback"
local play = require "spec.support.play"
local smtp = require "smtp"
local socket = require "smtp.transport.socket"
local together = require "spec.support.together"

local function letter(i, more)
  local fields = { from = "ada@example.org", to = "bob@example.test", subject = "s" .. i, text = "t" }
  for name, value in pairs(more or {}) do fields[name] = value end
  return fields
end

describe("smtp.pool", function()
  local server, pool, verdicts, seen

  -- verdicts: subject -> a list of what the server says, one after the other
  before_each(function()
    verdicts, seen = {}, {}
    server = assert(smtp.server {
      on_message = function(_, message)
        local subject = message:match("\nSubject: (%S+)")
        seen[subject] = (seen[subject] or 0) + 1
        local list = verdicts[subject] or {}
        return table.remove(list, 1)
      end,
    })
  end)

  local function close()
    together.run(function() pool:close() end, server)
  end

  after_each(function()
    clock.go()
    close()
    server:close()
  end)

  local function open(given)
    local all = { host = "127.0.0.1", port = server.port, tls = "none" }
    for name, value in pairs(given or {}) do all[name] = value end
    pool = assert(smtp.pool(all))
  end

  -- Sends one while the clock stands: the seconds that passed, and what came of it.
  local function timed(i)
    local took, got = clock.run(function() server:step(0) end, pool.send, pool, letter(i))
    return took, got[1], got[2]
  end

  -- Sends them all; the results by subject, "sent" or the error.
  local function send_many(list)
    local results, count = {}, 0
    together.run(function()
      assert(pool:send_many(each(list), function(receipt, err, given)
        assert(results[given.subject] == nil, "a second result")
        results[given.subject], count = receipt and "sent" or err, count + 1
      end))
    end, server)
    assert.are.equal(#list, count)
    return results
  end

  local function letters(count, more)
    local list = {}
    for i = 1, count do list[i] = letter(i, more) end
    return list
  end

  it("sends over one connection again and again", function()
    open()
    for i = 1, 5 do assert(together.run(function() return pool:send(letter(i)) end, server)) end
    assert.are.same({ 1, 1 }, { pool:counts().open, #server.connections })
    assert.are.same({ s1 = 1, s2 = 1, s3 = 1, s4 = 1, s5 = 1 }, seen)
  end)

  it("opens another where the server has closed the kept one, at once", function()
    open()
    assert(together.run(function() return pool:send(letter(1)) end, server))
    for _, connection in ipairs(server.connections) do connection:close() end
    server:step(0)
    clock.stop()
    local took, receipt, err = timed(2)
    assert(receipt, err)
    assert.are.equal(0, took)
    assert.are.equal(1, pool:counts().open)
  end)

  it("takes back the connection of a task that is never stepped again, as soon as the collector has it", function()
    open { size = 1 }
    do
      local abandoned = smtp.task(pool.send, pool, letter(1))
      for _ = 1, 3 do abandoned:step() end
    end
    assert.are.equal(1, pool:counts().open)
    collectgarbage()
    collectgarbage()
    assert(together.run(function() return pool:send(letter(2)) end, server))
    assert.are.equal(1, pool:counts().open)
    assert.are.same({ s2 = 1 }, seen)
  end)

  it("has hundreds of tasks wait for their turn with a few descriptors, and each gets it in order", function()
    open { size = 1 }
    local before, most, tasks, order, inbox = loopback.descriptors(), 0, {}, {}, {}
    for i = 1, 300 do
      tasks[i] = smtp.task(function()
        assert(pool:send(letter(i)))
        order[#order + 1], inbox[#inbox + 1] = i, i
      end)
    end
    local rounds, late = 0, core.now() + 60
    while #order < 300 and core.now() < late do
      for _, task in ipairs(tasks) do task:step() end
      -- to count them takes its time
      if rounds % 100 == 1 then most = math.max(most, loopback.descriptors() - before) end
      rounds = rounds + 1
      server:step(0)
    end
    table.sort(order)
    assert.are.same(order, inbox)
    assert.are.equal(300, #order)
    -- a connection has two on this side
    assert.is_true(most <= 40, most)
    close()
    collectgarbage()
    assert.is_true(loopback.settle(before) <= before)
  end)

  it("wakes each of hundreds once, in a loop that can, when its turn has come, and needs no descriptor for that", function()
    local rests, woken, wakes, waits, order = {}, {}, 0, 0, {}
    open { size = 1, transport = socket.new(function(mode, fd)
      waits = waits + (fd < 0 and 1 or 0)
      rests[coroutine.running()] = { mode, fd }
      coroutine.yield()
    end, nil, nil, function(thread)
      wakes = wakes + 1
      woken[#woken + 1] = thread
    end) }
    clock.stop()
    local before = loopback.descriptors()
    for i = 1, 200 do
      assert(coroutine.resume(coroutine.create(function()
        assert(pool:send(letter(i)))
        order[#order + 1] = i
      end)))
    end
    local more = loopback.descriptors() - before
    while #order < 200 do
      for _, thread in ipairs(woken) do rests[thread] = { "read", 0, true } end
      woken = {}
      for thread, one in pairs(rests) do
        if one[3] or one[2] >= 0 and core.wait(one[1], one[2], 0) then
          rests[thread] = nil
          assert(coroutine.resume(thread))
          break
        end
      end
      server:step(0)
    end
    for i = 1, 200 do assert.are.equal(i, order[i]) end
    assert.are.same({ 199, 199 }, { wakes, waits })
    assert.is_true(more <= 4, more)
  end)

  it("takes back the connection of a coroutine that an error has ended, though it is still there", function()
    -- an error that the pool has no part in: the host's
    local broken
    open { size = 1, transport = socket.new(function()
      coroutine.yield()
      if broken then error("no more", 0) end
    end) }
    local thread = coroutine.create(function() return pool:send(letter(1)) end)
    repeat
      server:step(0.01)
      assert(coroutine.resume(thread))
    until server.connections[1]
    assert.are.equal(1, pool:counts().open)
    broken = true
    assert.are.same({ false, "no more" }, { coroutine.resume(thread) })
    assert.are.equal("dead", coroutine.status(thread))
    broken = false
    assert(together.run(function() return pool:send(letter(2)) end, server))
    assert.are.equal(1, pool:counts().open)
  end)

  it("never has the host's whole memory collected, and wakes who waits when there is something for it", function()
    open { size = 1 }
    local globals, collections, waits = package.loaded._G, 0, 0
    local collect = globals.collectgarbage
    local tasks, done, turn = {}, 0, {}
    for i = 1, 5 do
      tasks[i] = smtp.task(function()
        assert(pool:send(letter(i)))
        turn[#turn + 1] = i
        done = done + 1
      end)
    end
    globals.collectgarbage = function(...)
      collections = collections + 1
      return collect(...)
    end
    clock.stop()
    local rests, ready = {}, {}
    for i = 1, 5 do ready[i] = true end
    -- a host that steps a task only where its descriptor is ready, in a time that stands
    for _ = 1, 20000 do
      for i = 1, 5 do
        if ready[i] or rests[i] and core.wait(rests[i][1], rests[i][2], 0) then
          ready[i] = false
          local mode, fd = tasks[i]:step()
          rests[i] = mode ~= "done" and { mode, fd } or nil
          if i == 5 and rests[i] then waits = waits + 1 end
        end
      end
      if done == 5 then break end
      server:step(0)
    end
    globals.collectgarbage = collect
    assert.are.equal(5, done)
    assert.are.same({ 1, 2, 3, 4, 5 }, turn)
    assert.are.equal(0, collections)
    assert.is_true(waits < 20, waits .. " waits") -- for its turn one, the others for the server's replies
  end)

  it("gives up a connection after max_messages, or when it was idle too long", function()
    clock.stop()
    local greetings = 0
    open { max_messages = 2, max_idle = 0.05, trace = function(_, line)
      greetings = greetings + (line:find "^220 " and 1 or 0)
    end }
    local ended = 0
    for i = 1, 4 do
      assert(together.run(function() return pool:send(letter(i)) end, server))
      ended = ended + (pool:counts().open == 0 and 1 or 0)
    end
    assert.are.equal(2, ended)
    assert.are.equal(2, greetings)
    assert(together.run(function() return pool:send(letter(5)) end, server))
    clock.pass(0.1)
    assert(together.run(function() return pool:send(letter(6)) end, server))
    assert.are.equal(4, greetings)
    assert.are.equal(1, pool:counts().open)
  end)

  it("sends a refused message again where that may help, and never one that may have been sent", function()
    open { attempts = 2 }
    verdicts.s1, verdicts.s2, verdicts.s3 = { "451 4.3.0 later" }, { "550 5.7.1 no" }, { "451 a", "451 b", "451 c" }
    clock.stop()
    local took, receipt, err = timed(1)
    assert(receipt, err)
    assert.is_true(took >= 1 and took < 1.1, took)
    took, receipt, err = timed(2)
    assert.are.same({ 0, nil, 550 }, { took, receipt, err.code })
    took, receipt, err = timed(3)
    assert.are.same({ nil, 451 }, { receipt, err.code })
    assert.is_true(took >= 1 and took < 1.1, took)
    assert.are.same({ s1 = 2, s2 = 1, s3 = 2 }, seen)
  end)

  it("send_many works with several connections side by side; each message arrives once", function()
    open { size = 4 }
    local most = 0
    local step = server.step
    function server.step(self, timeout)
      step(self, timeout)
      most = math.max(most, #self.connections)
    end
    for name, result in pairs(send_many(letters(60))) do assert.are.equal("sent", result, name) end
    for i = 1, 60 do assert.are.equal(1, seen["s" .. i]) end
    assert.are.equal(4, most)
    assert.are.equal(4, pool:counts().open)
    assert.are.equal(4, pool:counts().idle)
  end)

  it("send_many opens no more connections than there are messages, and none for nothing", function()
    open { size = 5 }
    send_many {}
    assert.are.equal(0, pool:counts().open)
    send_many(letters(2))
    assert.are.equal(2, pool:counts().open)
  end)

  it("send_many tells each message's own end, and tries again what may work", function()
    open { size = 2, attempts = 2 }
    verdicts.s2, verdicts.s3, verdicts.s5 = { "451 later" }, { "554 no" }, { "451 a", "451 b" }
    local list = letters(6)
    list[4].to = "nobody at all"
    local results = send_many(list)
    assert.are.same({ "sent", "sent", 554, "input", 451, "sent" }, { results.s1, results.s2, results.s3.code, results.s4.kind,
      results.s5.code, results.s6 })
    assert.are.same({ s1 = 1, s2 = 2, s3 = 1, s5 = 2, s6 = 1 }, seen)
  end)

  it("send_many loses nothing and doubles nothing when connections die", function()
    open { size = 3, attempts = 5 }
    local steps, step = 0, server.step
    function server.step(self, timeout)
      step(self, timeout)
      steps = steps + 1
      if steps % 12 == 0 and self.connections[1] then self.connections[1]:close() end
    end
    local results = send_many(letters(40))
    for i = 1, 40 do
      local result, times = results["s" .. i], seen["s" .. i] or 0
      -- what was cut between its end and the reply nobody knows; it is told so, and not sent again
      assert.is_true(result == "sent" and times == 1 or result.outcome == "unknown" and times <= 1,
        i .. " " .. tostring(result) .. " " .. times)
    end
  end)

  it("send_many over connections that end after some messages", function()
    open { size = 2, max_messages = 3 }
    for name, result in pairs(send_many(letters(20))) do assert.are.equal("sent", result, name) end
  end)

  it("keeps to its rate", function()
    open { rate = 20, size = 3 }
    local before = core.now()
    send_many(letters(9))
    assert.is_true(core.now() - before >= 8 / 20 - 0.01)
  end)

  it("send_many tells every message when there is no connection", function()
    open { size = 3, attempts = 1 }
    server:close()
    local results = send_many(letters(5))
    for i = 1, 5 do assert.are.same({ "connect", "not_sent" }, { results["s" .. i].kind, results["s" .. i].outcome }) end
    assert.are.equal(0, pool:counts().open)
  end)

  it("send_many ends with the last result: nobody sleeps who has nothing left to do", function()
    local transport, sleeps = socket.new(), 0
    local wait = transport.wait
    transport.wait = function(...)
      sleeps = sleeps + 1
      return wait(...)
    end
    open { size = 5, transport = transport }
    send_many(letters(2))
    assert.are.equal(0, sleeps)
  end)

  -- A pool of that size whose login is refused; gives how often it was tried.
  local function refused(size)
    local logins = 0
    server:close()
    server = assert(smtp.server { auth = function()
      logins = logins + 1
      return false
    end })
    open { size = size, username = "ada", password = "kumquat", allow_insecure_auth = true, port = server.port }
    return function() return logins end
  end

  it("does not knock again and again with a password that is refused", function()
    local logins = refused(1)
    local results = send_many(letters(8))
    assert.are.equal("auth", results.s8.kind)
    assert.are.equal(1, logins())
    assert.is_nil(play.dump(pool):find("kumquat", 1, true))
  end)

  it("does not knock once for each who waits, with a password that is refused", function()
    local logins = refused(2)
    local runs = {}
    for i = 1, 12 do runs[i] = function() return pool:send(letter(i)) end end
    for _, result in ipairs(together.all(runs, server)) do assert.are.equal("auth", result[2].kind) end
    assert.are.equal(2, logins())
    assert.are.same({ 12, 0 }, { pool:counts().failed, pool:counts().waiting })
  end)

  it("works in a plain script, without a task", function()
    open()
    local code, output = child.beside(("%s %s %d"):format(child.interpreter, "spec/support/pool_script.lua", server.port), server)
    assert.are.same({ 0, "30 sent\n" }, { code, output })
    for i = 1, 30 do assert.are.equal(1, seen["s" .. i]) end
  end)

  it("says no when it is closed, and refuses options that make no sense", function()
    open()
    assert(together.run(function() return pool:send(letter(1)) end, server))
    close()
    assert.are.equal(0, pool:counts().open)
    local _, err = pool:send(letter(2))
    assert.are.same({ "closed", "not_sent" }, { err.kind, err.outcome })
    assert.is_nil((pool:send_many(each {}, print)))
    for _, bad in ipairs { { size = 0 }, { size = 1.5 }, { max_messages = 0 }, { max_idle = 0 }, { rate = -1 }, { attempts = 0 },
      { rate = 0 / 0 } } do
      bad.host = "localhost"
      local _, wrong = smtp.pool(bad)
      assert.are.equal("input", wrong.kind)
    end
    assert.has_error(function() smtp.pool { host = "x", sise = 3 } end)
    assert.has_error(function() smtp.pool "x" end)
    assert.has_error(function() pool:send_many({}, print) end)
  end)

  it("begins nothing more when it is closed in the midst of send_many", function()
    for size = 1, 2 do
      open { size = size }
      local asked, told = 0, 0
      local ok, err = together.run(function()
        return pool:send_many(function()
          asked = asked + 1
          return letter(size .. "-" .. asked)
        end, function()
          told = told + 1
          if told == 1 then pool:close() end
        end)
      end, server)
      assert.are.same({ nil, "closed" }, { ok, err.kind })
      assert.are.equal(asked, told)
      assert.is_true(asked <= 4 * size, asked .. " messages")
      assert.are.equal(0, pool:counts().open)
    end
  end)

  it("leaves no descriptor", function()
    local before = loopback.descriptors()
    open { size = 4 }
    send_many(letters(10))
    close()
    server:close()
    assert.is_true(loopback.settle(before) <= before)
  end)
end)

describe("who waits for a pool", function()
  it("is rung with all others, though each goes on at once and waits anew", function()
    local bells, rung = {}, 0
    local function wait()
      local bell = {}
      function bell.ring()
        rung, bells[bell] = rung + 1, nil
        for _ = 1, 8 do wait() end
      end
      bells[bell] = true
    end
    for _ = 1, 8 do wait() end
    require "smtp.client.turns".ring(bells)
    assert.are.equal(8, rung)
  end)
end)
