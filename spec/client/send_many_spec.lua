local each = require "spec.support.each"
local play = require "spec.support.play"
local smtp = require "smtp"
local together = require "spec.support.together"

local hello, script = play.hello, play.script
local letter, envelope, content = play.letter, play.envelope, play.content
local both = function(name, body) play.both(it, name, body) end

-- All results, each a receipt. Not by `for`, through which a task cannot wait on Lua 5.1.
local function drain(results)
  local receipt, err = results()
  while receipt ~= nil do
    assert(receipt, err)
    receipt, err = results()
  end
end

-- All results: "sent", or the error's kind, stage, outcome and code.
local function run(session, list)
  local results, errors = {}, {}
  for receipt, err in session:send_many(each(list)) do
    results[#results + 1] = receipt and "sent " .. receipt.message_id
      or table.concat({ err.kind, err.stage, err.outcome, err.code }, " ")
    errors[#results] = err or receipt
  end
  return results, errors
end

local OFFER = hello("PIPELINING")
local GO = { "S: 250 1", "S: 250 2", "S: 354 go" }

describe("send_many", function()
  both("sends each envelope in the group of the content before it: N messages, N + 1 waits", function(dribble)
    local session, transport = play.open(script(OFFER, envelope(1), GO, content(1), envelope(2), "S: 250 in", GO,
      content(2), envelope(3), "S: 250 in", GO, content(3), "S: 250 in"), nil, dribble)
    local rounds, writes = session.pump.rounds, #transport.pipe.written
    local results = run(session, { letter(1), letter(2), letter(3) })
    assert.are.same({ "sent <1@example.org>", "sent <2@example.org>", "sent <3@example.org>" }, results)
    assert.are.equal(4, session.pump.rounds - rounds)
    assert.are.equal(4, #transport.pipe.written - writes)
    play.finished(transport)
  end)

  both("without PIPELINING sends one command at a time", function(dribble)
    local steps = {}
    for i = 1, 2 do
      steps[i] = { envelope(i)[1], "S: 250 1", envelope(i)[2], "S: 250 2", "C: DATA", "S: 354 go", content(i), "S: 250 in" }
    end
    local session, transport = play.open(script(hello(), steps), nil, dribble)
    assert.are.same({ "sent <1@example.org>", "sent <2@example.org>" }, (run(session, { letter(1), letter(2) })))
    play.finished(transport)
  end)

  both("a message refused in the middle, at each stage, leaves its neighbours as they are", function(dribble)
    for stage, case in pairs {
      mail = { { "S: 450 4.1.0 later", "S: 503 no", "S: 503 no" }, {}, "rejected mail not_sent 450" },
      rcpt = { { "S: 250 1", "S: 550 5.1.1 nobody", "S: 503 no" }, {}, "rejected rcpt not_sent 550", reset = true },
      -- DATA was taken all the same: it gets no content
      none = { { "S: 250 1", "S: 550 5.1.1 nobody", "S: 354 go" }, { "C: .", "S: 554 no" }, "rejected rcpt not_sent 550" },
      data = { { "S: 250 1", "S: 250 2", "S: 451 no" }, {}, "rejected data not_sent 451", reset = true },
    } do
      local session, transport = play.open(script(OFFER, envelope(1), GO, content(1), envelope(2), "S: 250 in", case[1], case[2],
        case.reset and "C: RSET" or {}, envelope(3), case.reset and "S: 250 reset" or {}, GO, content(3), "S: 250 in"), nil,
        dribble)
      assert.are.same({ "sent <1@example.org>", case[3], "sent <3@example.org>" },
        (run(session, { letter(1), letter(2), letter(3) })), stage)
      play.finished(transport)
    end
  end)

  it("a reply that comes right behind the 354 is not the receipt", function()
    local session, transport = play.open(script(OFFER, envelope(1), GO, content(1), envelope(2), "S: 250 in", GO,
      "S: 250 early"))
    assert.are.same({ "sent <1@example.org>", "protocol body not_sent", "closed mail not_sent" },
      (run(session, { letter(1), letter(2), letter(3) })))
    assert.is_nil(table.concat(transport.pipe.written):find("<2@example.org>", 1, true))
  end)

  it("a content's end that could not be written was not sent, also where the pipe kept it (TLS)", function()
    for kind, words in pairs { timeout = "timeout final not_sent", closed = "closed final not_sent" } do
      local session, transport = play.open(script(OFFER, envelope(1), GO, content(1), envelope(2), "S: 250 in", GO, "hang"))
      local results = session:send_many(each { letter(1), letter(2) })
      assert(results())
      function transport.pipe.send(_, wire)
        wire:take()
        return nil, kind, "nothing went"
      end
      local receipt, err = results()
      assert.is_false(receipt)
      assert.are.equal(words, table.concat({ err.kind, err.stage, err.outcome }, " "))
    end
  end)

  both("a content that is answered with a 3xx may have been taken", function(dribble)
    local session = play.open(script(OFFER, envelope(1), GO, content(1), envelope(2), "S: 250 in", GO, content(2),
      "S: 354 go on"), nil, dribble)
    assert.are.same({ "sent <1@example.org>", "protocol final unknown 354" }, (run(session, { letter(1), letter(2) })))
  end)

  both("a content refused leaves the envelope behind it as it is", function(dribble)
    local session, transport = play.open(script(OFFER, envelope(1), GO, content(1), envelope(2), "S: 554 5.7.1 spam", GO,
      content(2), "S: 250 in"), nil, dribble)
    assert.are.same({ "rejected final not_sent 554", "sent <2@example.org>" }, (run(session, { letter(1), letter(2) })))
    play.finished(transport)
  end)

  both("likewise over a pipe that takes a wire's bytes itself, whatever the pieces that it comes in", function(dribble)
    local session, transport = play.open(script(OFFER, envelope(1), GO, content(1), envelope(2), "S: 250 in", GO, content(2),
      "S: 354 go on"), nil, dribble)
    local pipe = transport.pipe
    function pipe:send(wire, deadline) return self:write(wire:take(), deadline) end
    function pipe:receive(wire, deadline)
      local bytes, kind, reason = self:read(deadline)
      if not bytes then return nil, kind, reason end
      return wire:feed(bytes)
    end
    assert.are.same({ "sent <1@example.org>", "protocol final unknown 354" }, (run(session, { letter(1), letter(2) })))
  end)

  both("when the connection dies: what was handed over whole is unknown, the rest was not sent", function(dribble)
    for name, case in pairs {
      ["before the reply"] = { { "close" }, "closed final unknown" },
      ["after the reply"] = { { "S: 250 in", "close" }, "sent <1@example.org>" },
      ["by 421"] = { { "S: 421 bye", "close" }, "rejected final not_sent 421" },
    } do
      local session = play.open(script(OFFER, envelope(1), GO, content(1), envelope(2), case[1]), nil, dribble)
      local results = run(session, { letter(1), letter(2), letter(3) })
      assert.are.equal(case[2], results[1], name)
      for i = 2, 3 do assert.is_truthy(results[i]:find(" not_sent", 1, true), name .. ": " .. results[i]) end
      assert.are.equal(3, #results)
    end
  end)

  both("a message that cannot be sent has its place among the results, and nothing of it goes out", function(dribble)
    local session, transport = play.open(script(hello("PIPELINING", "SIZE 100"), "C: MAIL FROM:<ada@example.org> SIZE=34",
      envelope(1)[2], "C: DATA", GO, content(1), "S: 250 in", "C: MAIL FROM:<ada@example.org> SIZE=34", envelope(4)[2], "C: DATA",
      GO, content(4), "S: 250 in"), nil, dribble)
    local results = run(session, { letter(1), letter(2, { to = "nobody at all" }), letter(3, { raw = ("x"):rep(200) }), letter(4) })
    assert.are.same({ "sent <1@example.org>", "input compose not_sent", "input mail not_sent", "sent <4@example.org>" }, results)
    play.finished(transport)
  end)

  both("a source that fails ends the connection; nothing after it is sent", function(dribble)
    local session, transport = play.open(script(OFFER, envelope(1), GO), nil, dribble)
    local gone = "the disk is gone" -- Lua 5.2 and 5.3 have one function for both runs where nothing in it differs
    local results = run(session, { letter(1, { raw = function() return nil, gone end }), letter(2), letter(3) })
    assert.are.same({ "source body not_sent", "closed mail not_sent", "closed mail not_sent" }, results)
    assert.is_nil(play.written(transport):find("\r\n.\r\n", 1, true))
  end)

  both("with partial = false DATA waits for the recipients' replies", function(dribble)
    local two = { to = "b@example.test, c@example.test", partial = false }
    local rcpt = { "C: RCPT TO:<b@example.test>", "C: RCPT TO:<c@example.test>" }
    local session, transport = play.open(script(OFFER, envelope(1), GO, content(1), envelope(1)[1], rcpt, "S: 250 in", "S: 250 1",
      "S: 250 2", "S: 250 3", "C: DATA", "S: 354 go", content(2), envelope(1)[1], rcpt, "S: 250 in", "S: 250 1", "S: 250 2",
      "S: 550 no"), nil, dribble)
    local results = run(session, { letter(1), letter(2, two), letter(3, two) })
    assert.are.same({ "sent <1@example.org>", "sent <2@example.org>", "rejected rcpt not_sent 550" }, results)
    play.finished(transport)
  end)

  both("reports recipients refused beside others", function(dribble)
    local session = play.open(script(OFFER, envelope(1)[1], envelope(1)[2], envelope(2)[2], "C: DATA", "S: 250 1", "S: 550 5.1.1 no",
      "S: 250 3", "S: 354 go", content(1), "S: 250 in"), nil, dribble)
    local _, receipts = run(session, { letter(1, { to = { "to1@example.test", "to2@example.test" } }) })
    assert.are.same({ "to2@example.test" }, receipts[1].accepted)
    assert.are.same({ address = "to1@example.test", code = 550, enhanced = "5.1.1", text = "no", temporary = false },
      receipts[1].rejected[1])
  end)

  it("asks for the next message while the server works, and sends one at once where there is none yet", function()
    local log = {}
    local session, transport = play.open(script(OFFER, envelope(1), GO, content(1), envelope(2), "S: 250 in", GO, content(2),
      "S: 250 in"))
    local write = transport.pipe.write
    function transport.pipe.write(pipe, bytes, deadline)
      log[#log + 1] = "write"
      return write(pipe, bytes, deadline)
    end
    local i = 0
    for _ in session:send_many(function()
      i = i + 1
      log[#log + 1] = "ask"
      return i <= 2 and letter(i) or nil
    end) do log[#log + 1] = "result" end
    assert.are.equal("ask write ask write ask result write result", table.concat(log, " "))
  end)

  it("of nothing gives nothing, and wants a function", function()
    local session = play.open(OFFER)
    assert.are.same({}, (run(session, {})))
    assert.has_error(function() session:send_many {} end, "session:send_many: expected a function, got table")
  end)

  it("keeps what LIMITS says", function()
    local session = play.open(script(hello("PIPELINING", "LIMITS MAILMAX=2 RCPTMAX=2 RCPTDOMAINMAX=1"), envelope(1), GO, content(1),
      envelope(2), "S: 250 in", GO, content(2), "S: 250 in"))
    local results = run(session, { letter(1), letter(2), letter(3) })
    assert.are.same({ "sent <1@example.org>", "sent <2@example.org>", "closed mail not_sent" }, results)
    session = play.open(hello("PIPELINING", "LIMITS RCPTMAX=2 RCPTDOMAINMAX=1"))
    local _, err = session:send(letter(1, { to = "a@b.test, c@b.test, d@b.test" }))
    assert.is_truthy(err.reason:find("RCPTMAX", 1, true))
    _, err = session:send(letter(1, { to = "a@b.test, c@d.test" }))
    assert.are.same({ "input", "mail", "not_sent" }, { err.kind, err.stage, err.outcome })
    assert.is_truthy(err.reason:find("RCPTDOMAINMAX", 1, true))
  end)

  it("keeps MAILMAX with one message again and again", function()
    local server = assert(smtp.server {})
    together.run(function()
      local session = assert(smtp.connect { host = "127.0.0.1", port = server.port, tls = "none" })
      session.capabilities.LIMITS = "MAILMAX=3"
      local ready = assert(smtp.message(letter(1)))
      local results = session:send_many(each { ready, ready, ready, ready })
      for _ = 1, 3 do assert(results()) end
      local receipt, err = results()
      assert.are.same({ false, "closed", "mail", "not_sent" }, { receipt, err.kind, err.stage, err.outcome })
    end, server)
    assert.are.equal(3, #server.inbox)
  end)

  it("goes on with session:send afterwards, and sends one message a hundred times", function()
    local server = assert(smtp.server {})
    together.run(function()
      local session = assert(smtp.connect { host = "127.0.0.1", port = server.port, tls = "none", pipeline = "data" })
      local ready, i = assert(smtp.message(letter(1))), 0
      local rounds = session.pump.rounds
      drain(session:send_many(function()
        i = i + 1
        return i <= 100 and ready or nil
      end))
      assert.are.equal(101, session.pump.rounds - rounds)
      assert(session:send(letter(2, { raw = ("x\r\n"):rep(100000) })))
      assert(session:quit())
    end, server)
    assert.are.equal(101, #server.inbox)
    for i = 1, 100 do assert.are.equal(letter(1).raw, server.inbox[i].data) end
  end)

  it("large contents and small ones, in pieces, arrive as they are", function()
    local server = assert(smtp.server {})
    local list, expected = {}, {}
    for i = 1, 12 do
      local composed = assert(smtp.message { from = "a@example.org", to = "b@example.org", subject = "s" .. i, text = ".t\n.\n",
        attachments = i % 3 == 0 and { { data = ("\0\255" .. i):rep(i * 40000) } } or nil })
      list[i], expected[i] = composed, composed:tostring "8bit"
    end
    together.run(function()
      local session = assert(smtp.connect { host = "127.0.0.1", port = server.port, tls = "none" })
      drain(session:send_many(each(list)))
      session:quit()
    end, server)
    for i = 1, 12 do assert.is_true(expected[i] == server.inbox[i].data, i) end
  end)

  describe("of a message that other sessions send too", function()
    local server, ready
    before_each(function()
      server = assert(smtp.server {})
      ready = {}
      for i = 1, 4 do
        ready[i] = assert(smtp.message { from = "ada@example.org", to = ("to%d@example.test"):format(i), subject = "s",
          text = ".\nRSET\n." .. i .. "\n" })
      end
    end)
    after_each(function() server:close() end)

    local function connect(pipeline)
      return assert(smtp.connect { host = "127.0.0.1", port = server.port, tls = "none", pipeline = pipeline })
    end

    -- Each of these, so often, as it was composed.
    local function arrived(count)
      local found = {}
      for _, got in ipairs(server.inbox) do
        local i = tonumber(got.to[1]:match("%d"))
        assert.are.equal(ready[i]:tostring(), got.data)
        found[i] = (found[i] or 0) + 1
      end
      for i = 1, 4 do assert.are.equal(count, found[i], i) end
    end

    for _, ways in ipairs { { "chunk", "data" }, { "data", "chunk" }, { "chunk", "chunk" }, { "data", "data" } } do
      it(("takes its own plan: %s, and %s meanwhile"):format(ways[1], ways[2]), function()
        together.run(function()
          local one, other = connect(ways[1]), connect(ways[2])
          local i, list = 0, each(ready)
          drain(one:send_many(function()
            if i > 0 then assert(other:send(ready[i])) end
            i = i + 1
            return list()
          end))
        end, server)
        arrived(2)
      end)

      it(("walks along with another batch: %s, and %s"):format(ways[1], ways[2]), function()
        together.run(function()
          local first, second = connect(ways[1]):send_many(each(ready)), connect(ways[2]):send_many(each(ready))
          for _ = 1, 5 do
            local receipt, err = first()
            assert(receipt or receipt == nil, err)
            receipt, err = second()
            assert(receipt or receipt == nil, err)
          end
        end, server)
        arrived(2)
      end)
    end

    it("is not misled by what became of a receipt, and heeds a changed envelope", function()
      together.run(function()
        local results = connect():send_many(each(ready))
        for _ = 1, 4 do assert(results()).accepted[1] = "eve@example.test" end
        drain(connect():send_many(each(ready)))
        for i = 1, 4 do ready[i].envelope.to = { ("new%d@example.test"):format(i) } end
        results = connect():send_many(each(ready))
        for i = 1, 4 do assert.are.same({ ("new%d@example.test"):format(i) }, assert(results()).accepted) end
      end, server)
      arrived(3)
      for i, got in ipairs(server.inbox) do
        assert.are.same({ ("%s%d@example.test"):format(i > 8 and "new" or "to", (i - 1) % 4 + 1) }, got.to)
      end
    end)
  end)
end)
