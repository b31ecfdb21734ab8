-- A message composed once whose envelope its caller changes between two sends.
local play = require "spec.support.play"
local smtp = require "smtp"
local together = require "spec.support.together"

local function address(i)
  return ("to%d@example.test"):format(i)
end

-- What a message is made of, in each form that takes a way of its own.
local FORMS = {
  letter = { text = "hello\n" },
  encoded = { text = "h\195\169llo\n" },
  raw = { raw = "Message-ID: <1@example.org>\r\n\r\nhello\r\n" },
  large = { raw = ("x\r\n"):rep(30000) },
  ["from a function"] = { attachments = { { source = function() return nil end, size = 0, filename = "none" } } },
  watched = { text = "hello\n", on_progress = function() end },
  ["all or nothing"] = { text = "hello\n", partial = false },
}

local function compose(form)
  local fields = { from = "ada@example.org", to = address(0) }
  for name, value in pairs(FORMS[form]) do fields[name] = value end
  return assert(smtp.message(fields))
end

-- Ways to say it.
local CHANGES = {
  ["replaced"] = function(message, to, from) message.envelope = { from = from, to = to } end,
  ["with a new list"] = function(message, to, from)
    message.envelope.from, message.envelope.to = from, to
  end,
  ["with the same list"] = function(message, to, from)
    local envelope = message.envelope
    envelope.from = from
    for i = 1, math.max(#to, #envelope.to) do envelope.to[i] = to[i] end
  end,
}

-- The i-th envelope: one to three recipients, and another sender each time.
local function nth(i)
  local to = {}
  for j = 1, i % 3 + 1 do to[j] = address(10 * i + j) end
  return to, ("from%d@example.org"):format(i)
end

-- The server's envelopes, and the receipts' recipients, are those of 1 to `count`, in whatever order.
local function check(server, receipts, count, name)
  local expected, arrived, told = { {}, {} }, {}, {}
  for i = 1, count do
    local to, from = nth(i)
    expected[1][i], expected[2][i] = from .. " " .. table.concat(to, " "), table.concat(to, " ")
    local got = server.inbox[i] or { from = "nobody", to = {} }
    arrived[i] = got.from .. " " .. table.concat(got.to, " ")
    told[i] = table.concat(receipts[i].accepted, " ")
    assert.are.same({}, receipts[i].rejected)
  end
  for _, list in ipairs { expected[1], expected[2], arrived, told } do table.sort(list) end
  assert.are.same(expected, { arrived, told }, name)
  assert.are.equal(count, #server.inbox, name)
end

-- Each row by a message of the iterator's, changed before it is given.
local function rows(message, change, count)
  local i = 0
  return function()
    i = i + 1
    if i > count then return nil end
    change(message, nth(i))
    return message
  end
end

local WAYS = {}

function WAYS.send(session, message, change, count)
  local receipts = {}
  for i = 1, count do
    change(message, nth(i))
    receipts[i] = assert(session:send(message))
  end
  return receipts
end

function WAYS.send_many(session, message, change, count)
  local receipts, results = {}, session:send_many(rows(message, change, count))
  for i = 1, count do receipts[i] = assert(results()) end
  assert.is_nil((results()))
  return receipts
end

describe("a message whose envelope is changed goes to whom it names then, and the receipt says so:", function()
  local function run(how, body)
    local given = { extensions = how.extensions, lmtp = how.options.lmtp }
    local server = assert(smtp.server(given))
    together.run(function()
      local options = { host = "127.0.0.1", port = server.port, tls = "none" }
      for name, value in pairs(how.options) do options[name] = value end
      body(server, options)
    end, server)
    server:close()
  end

  for name, how in pairs {
    ["step by step"] = { options = { pipeline = false } },
    ["by DATA"] = { options = { pipeline = "data" } },
    ["by BDAT"] = { options = { pipeline = "chunk" } },
    ["by what the server shows"] = { options = {}, extensions = { "BINARYMIME" } },
    traced = { options = { trace = true } },
    ["by LMTP"] = { options = { lmtp = true } },
  } do
    for form in pairs(FORMS) do
      it(name .. ", " .. form, function()
        for changed, change in pairs(CHANGES) do
          for way, send in pairs(WAYS) do
            run(how, function(server, options)
              local session = assert(smtp.connect(options))
              check(server, send(session, compose(form), change, 7), 7, way .. ", " .. changed)
              assert(session:quit())
            end)
          end
        end
      end)
    end
  end

  it("by a pool", function()
    for changed, change in pairs(CHANGES) do
      run({ options = { size = 2 } }, function(server, options)
        local pool, receipts, message = assert(smtp.pool(options)), {}, compose "letter"
        for i = 1, 4 do
          change(message, nth(i))
          receipts[i] = assert(pool:send(message))
        end
        local i = 4
        pool:send_many(function()
          i = i + 1
          if i > 12 then return nil end
          change(message, nth(i))
          return message
        end, function(receipt, err) receipts[#receipts + 1] = assert(receipt, err) end)
        check(server, receipts, 12, changed)
        pool:close()
      end)
    end
  end)

  it("by a pool that tries again", function()
    run({ options = { size = 1, pipeline = "data" } }, function(server, options)
      local refused = {}
      server.on_message = function(envelope)
        -- each is refused once
        if not refused[envelope.from] then
          refused[envelope.from] = true
          return "451 4.3.0 later"
        end
        server.inbox[#server.inbox + 1] = envelope
      end
      local pool, receipts = assert(smtp.pool(options)), {}
      pool:send_many(rows(compose "letter", CHANGES.replaced, 2), function(receipt, err)
        receipts[#receipts + 1] = assert(receipt, err)
      end)
      check(server, receipts, 2)
      pool:close()
    end)
  end)

  it("by two sessions at once", function()
    run({ options = { pipeline = "data" } }, function(server, options)
      local message, i, receipts = compose "letter", 0, {}
      local function more()
        i = i + 1
        if i > 12 then return nil end
        CHANGES["with the same list"](message, nth(i))
        return message
      end
      local first, second = assert(smtp.connect(options)):send_many(more), assert(smtp.connect(options)):send_many(more)
      local one, other = first(), second()
      while one or other do
        receipts[#receipts + 1], receipts[#receipts + 2] = one, other
        one, other = first(), second()
      end
      check(server, receipts, 12)
    end)
  end)

  it("and who is refused is named as he was then", function()
    local session = play.open(play.script(play.hello "PIPELINING", "C: MAIL FROM:<ada@example.org>", "C: RCPT TO:<a@example.test>",
      "C: RCPT TO:<b@example.test>", "C: DATA", "S: 250 1", "S: 550 5.1.1 no", "S: 250 2", "S: 354 go", "C: x", "C: .", "S: 250 in"))
    local message = assert(smtp.message { from = "ada@example.org", to = "c@example.test", raw = "x\r\n" })
    message.envelope.to = { "a@example.test", "b@example.test" }
    local results = session:send_many(function()
      if not message then return nil end
      local given = message
      message = nil
      return given
    end)
    local receipt = assert(results())
    assert.are.same({ "b@example.test" }, receipt.accepted)
    assert.are.equal("a@example.test", receipt.rejected[1].address)
  end)

  it("with SMTPUTF8 where an address needs it now", function()
    local session, transport = play.open(play.script(play.hello("PIPELINING", "SMTPUTF8"),
      "C: MAIL FROM:<ada@example.org> SMTPUTF8", "C: RCPT TO:<j\195\182rg@example.test>", "C: DATA", "S: 250 1", "S: 250 2", "S: 354 go",
      "C: x", "C: .", "S: 250 in", "C: MAIL FROM:<ada@example.org>", "C: RCPT TO:<c@example.test>", "C: DATA", "S: 250 1", "S: 250 2",
      "S: 354 go", "C: x", "C: .", "S: 250 in"))
    local message = assert(smtp.message { from = "ada@example.org", to = "c@example.test", raw = "x\r\n" })
    message.envelope.to[1] = "j\195\182rg@example.test"
    assert(session:send(message))
    message.envelope.to[1] = "c@example.test"
    assert(session:send(message))
    play.finished(transport)
    session = play.open(play.hello "PIPELINING")
    message.envelope.to = { "j\195\182rg@example.test" }
    local _, err = session:send(message)
    assert.are.same({ "input", "mail", "not_sent" }, { err.kind, err.stage, err.outcome })
  end)

  it("and may be said as the option says it, time and again", function()
    run({ options = {} }, function(server, options)
      local session, message = assert(smtp.connect(options)), compose "letter"
      for to, expected in pairs {
        ["Grace <grace@example.test>, a@example.test"] = { "grace@example.test", "a@example.test" },
        [{ { name = "Grace", address = "grace@example.test" } }] = { "grace@example.test" },
        [{ "a@example.test", "a@example.test", "b@example.test" }] = { "a@example.test", "b@example.test" },
      } do
        message.envelope = { from = "", to = to }
        for _ = 1, 2 do
          local receipt = assert(session:send(message))
          assert.are.same(expected, receipt.accepted)
          assert.are.same(expected, server.inbox[#server.inbox].to)
          assert.are.equal("", server.inbox[#server.inbox].from)
        end
      end
    end)
  end)

  it("and is an error of the input where it cannot be used: nothing of it goes out", function()
    local bad = {
      ["no table"] = function(message) message.envelope = "a@example.test" end,
      gone = function(message) message.envelope = nil end,
      ["no list"] = function(message) message.envelope.to = nil end,
      ["an empty list"] = function(message) message.envelope.to = {} end,
      ["a list emptied"] = function(message) message.envelope.to[1] = nil end,
      ["a list with a hole"] = function(message) message.envelope.to[3] = "c@example.test" end,
      ["a list by name"] = function(message) message.envelope.to = { "a@example.test", cc = "b@example.test" } end,
      ["a number for a list"] = function(message) message.envelope.to = 42 end,
      ["a number in it"] = function(message) message.envelope.to[1] = 42 end,
      ["no address"] = function(message) message.envelope.to[1] = "nobody" end,
      ["a command"] = function(message) message.envelope.to[1] = "a@example.test>\r\nRSET" end,
      ["a command for the sender"] = function(message) message.envelope.from = "a@example.test>\r\nRSET" end,
      ["a parameter"] = function(message) message.envelope.to[1] = "a@example.test> NOTIFY=NEVER" end,
      ["no sender"] = function(message) message.envelope.from = nil end,
      ["a sender of a wrong type"] = function(message) message.envelope.from = false end,
      ["two senders"] = function(message) message.envelope.from = "a@example.test, b@example.test" end,
      ["another name"] = function(message) message.envelope = { from = "a@example.test", to = "b@example.test", cc = "c@example.test" } end,
    }
    for name, change in pairs(bad) do
      for _, offer in ipairs { "PIPELINING", "SIZE" } do
        local session, transport = play.open(play.hello(offer))
        local written = #transport.pipe.written
        local message = compose "letter"
        change(message)
        local receipt, err = session:send(message)
        assert.is_nil(receipt, name)
        assert.are.same({ "input", "compose", "not_sent" }, { err.kind, err.stage, err.outcome }, name)
        assert.is_truthy(err.reason:find("^envelope"), err.reason)
        local given = message
        local results = session:send_many(function()
          local one = given
          given = nil
          return one
        end)
        receipt, err = results()
        assert.are.same({ false, "input" }, { receipt, err.kind }, name)
        assert.is_nil((results()))
        assert.are.equal(written, #transport.pipe.written, name)
        -- put right, it goes
        message.envelope = { from = "a@example.test", to = { "b@example.test" } }
        assert.are.same({ "b@example.test" }, message.envelope.to)
      end
    end
  end)

  it("with the partial and on_progress that it has then", function()
    local session, transport = play.open(play.script(play.hello "PIPELINING", "C: MAIL FROM:<ada@example.org>",
      "C: RCPT TO:<a@example.test>", "C: RCPT TO:<b@example.test>", "C: DATA", "S: 250 1", "S: 250 2", "S: 250 3", "S: 354 go",
      "C: x", "C: .", "S: 250 in", "C: MAIL FROM:<ada@example.org>", "C: RCPT TO:<a@example.test>", "C: RCPT TO:<b@example.test>",
      "S: 250 1", "S: 550 no", "S: 250 3", "C: RSET", "C: MAIL FROM:<ada@example.org>", "C: RCPT TO:<a@example.test>",
      "C: RCPT TO:<b@example.test>", "C: DATA", "S: 250 reset", "S: 250 1", "S: 250 2", "S: 250 3", "S: 354 go", "C: x", "C: .",
      "S: 250 in"))
    local message = assert(smtp.message { from = "ada@example.org", to = "a@example.test, b@example.test", raw = "x\r\n" })
    assert(session:send(message))
    message.partial = false
    local _, err = session:send(message)
    assert.are.equal("rejected", err.kind)
    local seen = 0
    message.partial, message.on_progress = nil, function(sent) seen = sent end
    assert(session:send(message))
    assert.are.equal(3, seen)
    play.finished(transport)
    message.on_progress = 42
    _, err = session:send(message)
    assert.are.equal("input", err.kind)
  end)

  it("and the receipt names the Message-ID that went out", function()
    local session = play.open(play.script(play.hello "PIPELINING", "C: MAIL FROM:<ada@example.org>", "C: RCPT TO:<b@example.test>",
      "C: DATA", "S: 250 1", "S: 250 2", "S: 354 go", "C: Message-ID: <1@example.org>", "C: ", "C: x", "C: .", "S: 250 in"))
    local message = assert(smtp.message { from = "ada@example.org", to = "a@example.test",
      raw = "Message-ID: <1@example.org>\r\n\r\nx\r\n" })
    message.id, message.envelope.to = "<2@example.org>", { "b@example.test" }
    assert.are.equal("<1@example.org>", assert(session:send(message)).message_id)
  end)

  it("and nothing of a connection stays on the message", function()
    run({ options = {} }, function(_, options)
      local message = compose "letter"
      assert(assert(smtp.connect(options)):send(message))
      local found = play.dump(message)
      assert.is_nil(found:find("RCPT TO", 1, true))
      assert.is_nil(found:find("PIPELINING", 1, true))
    end)
  end)
end)

describe("a receipt", function()
  it("has lists of its own", function()
    local server = assert(smtp.server {})
    together.run(function()
      for _, pipeline in ipairs { "data", "chunk", "auto" } do
        local options = { host = "127.0.0.1", port = server.port, tls = "none", pipeline = pipeline }
        local session, message = assert(smtp.connect(options)), compose "letter"
        local i, seen = 0, {}
        local results = session:send_many(function()
          i = i + 1
          return i <= 5 and message or nil
        end)
        for _ = 1, 5 do
          local receipt = assert(results())
          assert.are.same({ { address(0) }, {} }, { receipt.accepted, receipt.rejected })
          for _, list in ipairs { receipt.accepted, receipt.rejected, receipt.reply, receipt.time } do
            assert.is_nil(seen[list])
            seen[list] = true
            list[1], list[2] = "eve@example.test", "mallory@example.test"
          end
        end
        local receipt = assert(session:send(message))
        assert.are.same({ { address(0) }, {} }, { receipt.accepted, receipt.rejected })
        assert.are.same({ address(0) }, message.envelope.to)
      end
    end, server)
    for _, got in ipairs(server.inbox) do assert.are.same({ address(0) }, got.to) end
  end)
end)
