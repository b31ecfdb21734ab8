-- What a pool does when a server is slow, impatient, full or gone, in a time of the spec's own.
-- Of: client/pool, client/turns, client/attempts
local clock = require "spec.support.clock"
local core = require "smtp.core"
local crowd = require "spec.support.crowd"
local play = require "spec.support.play"
local smtp = require "smtp"
local socket = require "smtp.transport.socket"

local hello, message, letter, script = play.hello, crowd.message, crowd.letter, play.script

local BYE = { "C: QUIT", "S: 221 bye" }

-- An iterator over numbered letters.
local function letters(count, more)
  local i = 0
  return function()
    i = i + 1
    return i <= count and letter(i, more) or nil
  end
end

-- A connection that takes so many messages, in whatever order.
local function any(count)
  local lines = script(hello("X"))
  for _ = 1, count do
    for _, line in ipairs(message "x") do
      lines[#lines + 1] = line:find "^C: Message%-ID" and "C~ ^Message%-ID" or line
    end
  end
  return lines
end

-- The times of the lines that begin so.
local function times(transport, words)
  local list = {}
  for _, one in ipairs(transport.said) do
    if one[3]:find(words, 1, true) == 1 then list[#list + 1] = one[2] end
  end
  return list
end

describe("a pool", function()
  before_each(clock.stop)
  after_each(clock.go)

  local function told()
    local list = {}
    return list, function(receipt, err) list[#list + 1] = receipt and "sent" or err.kind .. " " .. tostring(err.code) end
  end

  describe("with a rate", function()
    it("paces envelopes, and no content waits for that, whatever the server offers", function()
      for _, offer in ipairs { { "X" }, { "PIPELINING" } } do
        local lines = offer[1] == "PIPELINING" and function(i)
          local one = message(i)
          return { one[1], one[3], one[5], one[2], one[4], one[6], one[7], one[8], one[9], one[10], one[11] }
        end or message
        local pool, transport = crowd.pool({ script(hello(offer[1]), lines(1), lines(2), lines(3)) },
          { rate = 0.5, size = 1 })
        local results, tell = told()
        crowd.run { function() return assert(pool:send_many(letters(3), tell)) end }
        assert.are.same({ "sent", "sent", "sent" }, results)
        local mails, ends = times(transport, "MAIL"), times(transport, ".")
        for i = 1, 3 do assert.are.equal(mails[i], ends[i]) end
        for i = 2, 3 do assert.is_true(mails[i] - mails[i - 1] >= 2) end
      end
    end)

    it("paces each attempt, and all connections together", function()
      local later = { final = "451 4.3.0 later" }
      local pool, transport = crowd.pool({ script(hello("X"), message(1, later), message(1)) }, { rate = 0.1 })
      assert(pool:send(letter(1)))
      local mails = times(transport, "MAIL")
      assert.are.equal(2, #mails)
      assert.is_true(mails[2] - mails[1] >= 10)

      pool, transport = crowd.pool({ script(hello("X"), message("a")), script(hello("X"), message("b")),
        script(hello("X"), message("c")) }, { rate = 2, size = 3 }, true)
      local runs = {}
      for i, name in ipairs { "a", "b", "c" } do runs[i] = function() return pool:send(letter(name)) end end
      for _, result in ipairs(crowd.run(runs)) do assert(result[1], result[2]) end
      mails = times(transport, "MAIL")
      for i = 2, 3 do assert.is_true(mails[i] - mails[i - 1] >= 0.5) end
    end)

    it("lets the messages of several connections go in the order in which they came", function()
      local pool = crowd.pool({ any(20), any(20), any(20), any(20) }, { rate = 1, size = 4, timeout = 10 }, true)
      local results, tell = told()
      crowd.run { function() return assert(pool:send_many(letters(20), tell)) end }
      assert.are.equal(20, #results)
      for _, result in ipairs(results) do assert.are.equal("sent", result) end
    end)

    it("takes a server's farewell meanwhile for no attempt", function()
      local first = script(hello("X"), message(1), "S: 421 4.4.2 too long", "close")
      local pool = crowd.pool({ first, script(hello("X"), message(2)) }, { rate = 0.01, attempts = 1 })
      assert(pool:send(letter(1)))
      assert(pool:send(letter(2)))
    end)
  end)

  it("takes whatever a server says unasked for a farewell, on several connections, with one attempt", function()
    for _, words in ipairs { "451 4.4.2 Timeout waiting for data from client", "221 2.0.0 Idle timeout", "554 go away",
      "421 4.4.2 bye", "500 what", "250 hm" } do
      local function kept(name) return script(hello("X"), message(name), "S: " .. words, "close") end
      local pool, transport = crowd.pool({ kept "a", kept "b", script(hello("X"), message "c") },
        { attempts = 1, size = 3 }, true)
      for _, result in ipairs(crowd.run { function() return pool:send(letter "a") end,
        function() return pool:send(letter "b") end }) do assert(result[1], result[2]) end
      assert.are.equal(2, pool:counts().idle)
      local began = core.now()
      local result = crowd.run { function() return pool:send(letter "c") end }[1]
      assert(result[1], words .. ": " .. tostring(result[2]))
      assert.are.equal(3, transport.opened)
      assert.is_true(core.now() - began < 1)
    end
  end)

  it("has a server that closes after each message serve many callers over one connection, with one attempt", function()
    local one = script(hello("X"), message "x", "S: 221 next, please", "close")
    local pool, transport = crowd.pool({ one, one, one, one, one, one, one, one }, { size = 1, attempts = 1 }, true)
    local runs = {}
    for i = 1, 4 do
      runs[i] = function()
        for _ = 1, 2 do assert(pool:send(letter "x")) end
      end
    end
    crowd.run(runs)
    assert.are.equal(8, transport.opened)
  end)

  it("takes a farewell that crosses the command for no attempt, one by one and in send_many", function()
    for _, words in ipairs { "451 4.4.2 Timeout", "221 Idle", "550 5.0.0 idle", "421 4.4.2 bye" } do
      for _, many in ipairs { false, true } do
        local pool, transport = crowd.pool({ script(hello("X"), message(1), "C: MAIL FROM:<ada@example.org>",
          "S: " .. words, "close"), script(hello("X"), message(2)) }, { attempts = 1 })
        assert(pool:send(letter(1)))
        if many then
          local results, tell = told()
          local given = false
          assert(pool:send_many(function()
            if given then return nil end
            given = true
            return letter(2)
          end, tell))
          assert.are.same({ "sent" }, results, words)
        else
          assert(pool:send(letter(2)), words)
        end
        assert.are.equal(2, transport.opened)
      end
    end
  end)

  it("sends nothing again that was refused for good, though the connection ended over it", function()
    for _, words in ipairs { "552 5.3.4 too large", "554 5.7.1 spam" } do
      local pool, transport = crowd.pool({ script(hello("X"), message(1, { final = words }), "close") }, { attempts = 3 })
      local _, err = pool:send(letter(1))
      assert.are.same({ "rejected", false, tonumber(words:sub(1, 3)) }, { err.kind, err.temporary, err.code })
      assert.are.equal(1, transport.opened)
    end
  end)

  it("counts attempts and pauses into the timeout", function()
    local later = message(1, { final = "451 4.3.0 later" })
    for _, case in ipairs { { 1, 1 }, { 2.5, 2 } } do
      local pool, transport = crowd.pool({ script(hello("X"), later, later, later, later) },
        { attempts = 4, timeout = case[1] })
      local began = core.now()
      local _, err = pool:send(letter(1))
      assert.are.equal(451, err.code)
      assert.is_true(core.now() - began <= case[1])
      assert.are.equal(case[2], #times(transport, "MAIL"))
    end
  end)

  it("counts waiting for a turn into the timeout", function()
    -- a server that says nothing to the one who has the connection
    local pool, transport = crowd.pool({ script(hello("X")) }, { size = 1, timeout = 5, attempts = 1 }, true)
    transport.connect = function() -- which takes as long as it may
      transport.wait("read", -1, core.now() + 20)
      return nil, "timeout", "no answer"
    end
    local began, runs = core.now(), {}
    for i = 1, 4 do
      runs[i] = function()
        local _, err = pool:send(letter(i))
        return err.kind, core.now() - began
      end
    end
    local results = crowd.run(runs)
    for i = 2, 4 do assert.are.same({ "timeout", true }, { results[i][1], results[i][2] <= 6 }) end
  end)

  it("gives turns in the order of the calls", function()
    local order = {}
    local pool = crowd.pool({ script(hello("X"), message "a", message "b", message "c", message "a", message "b") },
      { size = 1 }, true)
    local function sends(name, count)
      return function()
        for _ = 1, count do
          assert(pool:send(letter(name)))
          order[#order + 1] = name
        end
      end
    end
    crowd.run { sends("a", 2), sends("b", 2), sends("c", 1) }
    assert.are.equal("abcab", table.concat(order))
  end)

  it("lets one who sends once have a turn between the messages of send_many", function()
    local order = {}
    local pool = crowd.pool({ any(7) }, { size = 1 }, true)
    crowd.run {
      function()
        return pool:send_many(letters(6), function(receipt, err, given)
          assert(receipt, err)
          order[#order + 1] = given.raw:match "<(%w+)"
        end)
      end,
      function()
        assert(pool:send(letter "once"))
        order[#order + 1] = "once"
      end,
    }
    assert.are.equal(7, #order)
    assert.are_not.equal("once", order[7])
  end)

  it("costs no message an attempt that the server takes fewer connections, and tries one more later", function()
    for _, refusal in ipairs { { "S: 421 4.3.2 too many connections", "close" },
      script(hello("X"), "C: MAIL FROM:<ada@example.org>", "S: 452 4.3.2 too many"), { failure = "reset" } } do
      local pool, transport = crowd.pool({ any(8), refusal, any(2) },
        { size = 2, attempts = 1, max_idle = 100 }, true)
      local results, tell = told()
      crowd.run { function() return assert(pool:send_many(letters(6), tell)) end }
      assert.are.same({ "sent", "sent", "sent", "sent", "sent", "sent" }, results)
      assert.are.equal(2, transport.opened)
      assert.are.equal(1, pool:counts().limit)
      assert.are.equal(6, pool:counts().sent)
      -- two at once, when some time has passed: there is one connection more
      clock.pass(60)
      crowd.run { function() return assert(pool:send_many(letters(1), tell)) end, function() return pool:send(letter "x") end }
      assert.are.same({ 3, 2, 8 }, { transport.opened, pool:counts().limit, pool:counts().sent })
    end
  end)

  it("has a server with room for two serve six who send at once, with one attempt", function()
    local full = { "S: 421 4.7.0 too many connections from you", "close" }
    local pool, transport = crowd.pool({ full, any(6), full, any(6), full, full }, { size = 6, attempts = 1 }, true)
    local runs = {}
    for i = 1, 6 do runs[i] = function() return pool:send(letter "x") end end
    for _, result in ipairs(crowd.run(runs)) do assert(result[1], tostring(result[2])) end
    assert.are.equal(6, transport.opened)
    assert.are.equal(2, pool:counts().limit)
  end)

  it("keeps the order of the calls when the server takes fewer connections", function()
    local full = { "S: 421 4.7.0 too many connections from you", "close" }
    local pool = crowd.pool({ any(8), full, full, full, full }, { size = 5, attempts = 1 }, true)
    local order, runs = {}, {}
    for i = 1, 8 do
      runs[i] = function()
        assert(pool:send(letter(i)))
        order[#order + 1] = i
      end
    end
    crowd.run(runs)
    assert.are.same({ 1, 2, 3, 4, 5, 6, 7, 8 }, order)
  end)

  it("leaves to others who work the message that found no room, before its time is over", function()
    local full = { "S: 421 4.3.2 too many connections", "close" }
    local pool = crowd.pool({ any(100), full }, { size = 2, attempts = 1, timeout = 2 }, true)
    local results, tell = told()
    crowd.run { function() return assert(pool:send_many(letters(80), tell)) end }
    assert.are.equal(80, #results)
    for _, result in ipairs(results) do assert.are.equal("sent", result) end
  end)

  it("counts waiting for a turn into the timeout of send_many's messages, too", function()
    local pool, transport = crowd.pool({ any(2) }, { size = 1, timeout = 5, attempts = 1 }, true)
    local connect, began = transport.connect, core.now()
    transport.connect = function(...)
      transport.wait("read", -1, core.now() + 4.5)
      local pipe = connect(...)
      local read = pipe.read
      function pipe.read(self, deadline)
        local answer = core.now() + 0.2
        transport.wait("read", -1, math.min(answer, deadline))
        if answer > deadline then return nil, "timeout", "nothing came in time" end
        return read(self, deadline)
      end
      return pipe
    end
    local results, tell = told()
    crowd.run { function() return assert(pool:send_many(letters(1), tell)) end }
    assert.are.same({ "timeout nil" }, results)
    assert.is_true(core.now() - began < 6)
  end)

  it("says so to each, once, where no connection can be had at all", function()
    local full = { "S: 421 4.3.2 closed today", "close" }
    local pool, transport = crowd.pool({ full, full, full }, { size = 3, attempts = 1 }, true)
    local runs = {}
    for i = 1, 3 do runs[i] = function() return pool:send(letter(i)) end end
    for _, result in ipairs(crowd.run(runs)) do assert.are.equal(421, result[2].code) end
    assert.are.equal(3, transport.opened)
    assert.are.same({ open = 0, idle = 0, limit = 3, waiting = 0, sent = 0, failed = 3 }, pool:counts())
  end)

  it("tells every message of send_many where only another user had a connection, and that ends", function()
    local scripts = { script(hello("X"), "C: MAIL FROM:<ada@example.org>", "S: 250 ok", "close") }
    for i = 2, 9 do scripts[i] = { failure = "refused" } end
    local pool = crowd.pool(scripts, { size = 3, attempts = 1 }, true)
    local results, tell = told()
    local first = crowd.run {
      function() return pool:send(letter(1)) end,
      function() return assert(pool:send_many(letters(5), tell)) end,
    }[1]
    assert.are.equal("closed", first[2].kind)
    assert.are.same({ "connect nil", "connect nil", "connect nil", "connect nil", "connect nil" }, results)
    assert.are.equal(0, pool:counts().open)
  end)

  it("takes another connection where the server takes no more messages on one (MAILMAX)", function()
    local function limited(a, b) return script(hello("LIMITS MAILMAX=2"), message(a), message(b), BYE) end
    local pool, transport = crowd.pool({ limited(1, 2), limited(3, 4), limited(5, 6) }, { size = 1, attempts = 1 })
    local results, tell = told()
    assert(pool:send_many(letters(6), tell))
    assert.are.same({ "sent", "sent", "sent", "sent", "sent", "sent" }, results)
    assert.are.equal(3, transport.opened)
  end)

  it("sends inside on_result, or says why not, and goes on", function()
    for size = 1, 2 do
      local pool = crowd.pool({ any(5), any(5) }, { size = size }, true)
      local inner = {}
      local results, tell = told()
      crowd.run { function()
        return assert(pool:send_many(letters(2), function(receipt, err)
          tell(receipt, err)
          local more, why = pool:send(letter "y")
          inner[#inner + 1] = more and "sent" or why.reason
          local ok, reason = pool:send_many(letters(1), function() end)
          assert(ok, reason)
        end))
      end }
      assert.are.same({ "sent", "sent" }, results)
      assert.are.equal(2, #inner)
      for _, words in ipairs(inner) do
        assert.is_true(words == "sent" or words:find("held by who waits for this call", 1, true) ~= nil, words)
      end
    end
  end)

  it("fails no message because others wait inside on_result", function()
    local full = { "S: 421 4.3.2 too many connections", "close" }
    local pool, transport = crowd.pool({ any(9), script(hello("X"), message "x", "close"), full }, { size = 2, attempts = 1 }, true)
    local results, tell = told()
    local inner
    crowd.run {
      function()
        return assert(pool:send_many(letters(1), function()
          inner = select(2, pool:send(letter "x"))
        end))
      end,
      function()
        transport.wait("read", -1, core.now() + 0.005)
        return assert(pool:send_many(letters(3), tell))
      end,
      function() return assert(pool:send(letter "x")) end,
    }
    assert.are.same({ "sent", "sent", "sent" }, results)
    assert.truthy(inner.reason:find("held by who waits for this call", 1, true))
  end)

  it("takes back in a plain script what the collector has, though it has just looked for that", function()
    local pool, transport = crowd.pool({ any(1), any(1), any(1), any(1) }, { size = 1 }, true)
    for i = 1, 2 do
      smtp.task(pool.send, pool, letter(i)):step()
      collectgarbage()
      collectgarbage()
      assert(pool:send(letter(i)))
      transport.pipes[transport.opened]:close()
    end
  end)

  it("counts every result", function()
    local pool = crowd.pool({ any(1) }, {})
    assert(pool:send(letter(1)))
    assert.are.equal("input", select(2, pool:send(letter(2, { to = "nobody" }))).kind)
    pool:close()
    assert.are.equal("closed", select(2, pool:send(letter(3))).kind)
    assert.are.same({ open = 0, idle = 0, limit = 5, waiting = 0, sent = 1, failed = 2 }, pool:counts())
  end)

  describe("that is closed", function()
    it("tells who pauses between two attempts within a second", function()
      local later = message(1, { final = "451 later" })
      local pool, transport = crowd.pool({ script(hello("X"), later, later, later, later, BYE) }, { attempts = 9 }, true)
      local closed
      local results = crowd.run {
        function()
          local _, err = pool:send(letter(1))
          return err.kind, core.now()
        end,
        function()
          transport.wait("read", -1, core.now() + 8)
          pool:close()
          closed = core.now()
        end,
      }
      assert.are.equal("closed", results[1][1])
      assert.is_true(results[1][2] <= closed + 1)
    end)

    it("ends the connection of a task that the collector has taken", function()
      local pool, transport = crowd.pool({ any(1) }, {}, true)
      do
        local abandoned = smtp.task(pool.send, pool, letter(1))
        for _ = 1, 3 do abandoned:step() end
      end
      collectgarbage()
      collectgarbage()
      pool:close()
      assert.are.equal(0, pool:counts().open)
      assert.is_true(transport.pipes[1].closed)
    end)

    it("counts none of a task that the collector has taken, and the next call ends its connection", function()
      for _, asks in ipairs { true, false } do
        local pool, transport = crowd.pool({ any(1), script(hello("X"), message "b") }, { size = 2 }, true)
        do
          local abandoned = smtp.task(pool.send, pool, letter "a")
          for _ = 1, 3 do abandoned:step() end
        end
        collectgarbage()
        collectgarbage()
        if asks then
          assert.are.equal(0, pool:counts().open)
        else
          clock.pass(2)
          assert(crowd.run { function() return pool:send(letter "b") end }[1][1])
        end
        assert.is_true(transport.pipes[1].closed)
      end
    end)

    it("wakes a task that pauses, between two attempts or for its pace", function()
      local later = script(hello("X"), message(1, { final = "451 later" }), BYE)
      for _, case in ipairs {
        { { later }, { attempts = 9 } }, { { script(hello("X"), message(1), BYE) }, { rate = 0.01 } },
      } do
        local pool, transport = crowd.pool(case[1], case[2])
        local closed
        local results = crowd.run {
          function()
            local receipt, err = pool:send(letter(1))
            if receipt then err = select(2, pool:send(letter(1))) end
            return err, core.now()
          end,
          function()
            transport.wait("read", -1, core.now() + 0.3)
            pool:close()
            closed = core.now()
          end,
        }
        assert.are.same({ "closed", "not_sent" }, { results[1][1].kind, results[1][1].outcome })
        assert.is_true(results[1][2] <= closed + 0.1)
        assert.are.equal(0, pool:counts().open)
      end
    end)

    it("wakes a coroutine of a host with a wait of its own at once: it pauses by a descriptor", function()
      local fd
      local host = socket.new(function(_, waited)
        fd = waited
        coroutine.yield()
      end)
      local pool, transport = crowd.pool({ script(hello("X"), message(1, { final = "451 later" }), BYE) })
      transport.wait, transport.bell = host.wait, host.bell
      local err
      local thread = coroutine.create(function() err = select(2, pool:send(letter(1))) end)
      assert(coroutine.resume(thread))
      assert.is_false(core.wait("read", fd, 0))
      pool:close()
      assert.is_true(core.wait("read", fd, 0))
      assert(coroutine.resume(thread))
      assert.are.same({ "dead", "closed" }, { coroutine.status(thread), err.kind })
    end)

    it("opens no connection in a pause between two attempts", function()
      local pool, transport = crowd.pool({ script(hello("X"), message(1, { final = "451 later" }), BYE) }, {}, true)
      local results = crowd.run {
        function() return pool:send(letter(1)) end,
        function()
          while transport.opened == 0 or pool:counts().idle == 0 do transport.wait("read", -1, core.now() + 0.1) end
          pool:close()
        end,
      }
      assert.are.same({ "closed", "the pool is closed" }, { results[1][2].kind, results[1][2].reason })
      assert.are.equal(1, transport.opened)
      assert.are.equal(0, pool:counts().open)
    end)

    it("lets a worker of send_many, who has nothing to do, wait for what another has under way", function()
      local pool, transport = crowd.pool({ script(any(2), BYE), script(any(1), BYE) }, { size = 2 }, true)
      local connect = transport.connect
      function transport.connect()
        local pipe = connect()
        if pipe == transport.pipes[1] then
          local read = pipe.read
          function pipe.read(...) -- slowly
            transport.wait("read", -1, core.now() + 1)
            return read(...)
          end
        end
        return pipe
      end
      local calls, over = 0, false
      local function pause_until(is_so)
        while not is_so() do transport.wait("read", -1, core.now() + 0.1) end
      end
      local results, tell = told()
      crowd.run {
        function()
          return pool:send_many(function()
            calls = calls + 1
            if calls ~= 3 then return calls < 5 and letter(calls) or nil end
            -- the fast one gets no more, the slow one gets another ahead
            pause_until(function() return calls > 3 end)
            over = true
          end, tell)
        end,
        function()
          pause_until(function() return over end)
          pool:close()
        end,
      }
      assert.are.same({ "sent", "sent", "sent" }, results)
      assert.are.equal(0, pool:counts().open)
    end)

    it("opens none for those who wait, and ends one that is being opened", function()
      local pool, transport = crowd.pool({ script(hello("X"), message(1)) }, { size = 1 }, true)
      local results = crowd.run {
        function() return pool:send(letter(1)) end,
        function() return pool:send(letter(2)) end,
        function() return pool:send_many(letters(2), function(_, err) assert.are.equal("closed", err.kind) end) end,
        function() pool:close() end,
      }
      for i = 1, 3 do assert.are.same({ nil, "closed" }, { results[i][1], results[i][2].kind }) end
      assert.are.equal(1, transport.opened)
      assert.are.same({}, times(transport, "MAIL"))
      assert.are.equal(0, pool:counts().open)
    end)
  end)
end)
