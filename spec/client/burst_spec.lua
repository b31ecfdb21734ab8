local play = require "spec.support.play"
local relay = require "spec.support.relay"
local smtp = require "smtp"
local together = require "spec.support.together"

local hello, script = play.hello, play.script
local both = function(name, body) play.both(it, name, body) end

local OFFER = hello("PIPELINING", "CHUNKING")
local ASKED = { "C: RSET", "C: BDAT 6 LAST", "C: XNOP", "C: RSET" }

-- What the process knows about a host is for ever: each spec has a host of its own.
local hosts = 0
local function open(lines, given, dribble)
  hosts = hosts + 1
  local all = { host = "bundle" .. hosts .. ".example.org" }
  for name, value in pairs(given or {}) do all[name] = value end
  return play.open(lines, all, dribble)
end

local function letter(i, more)
  local fields = { from = "ada@example.org", to = ("to%d@example.test"):format(i), raw = ("A: %d\r\n\r\nRSET\r\n"):format(i) }
  for name, value in pairs(more or {}) do fields[name] = value end
  return fields
end

-- What goes out for a message, by BDAT and by DATA.
local function whole(i) return {
  "C: MAIL FROM:<ada@example.org>", ("C: RCPT TO:<to%d@example.test>"):format(i), "C: BDAT 14 LAST", "C: A: " .. i, "C: ", "C: RSET",
} end
local function envelope(i)
  return { "C: MAIL FROM:<ada@example.org>", ("C: RCPT TO:<to%d@example.test>"):format(i), "C: DATA" }
end
local function content(i) return { "C: A: " .. i, "C: ", "C: RSET", "C: ." } end
local GO, TAKEN, RESET = { "S: 250 1", "S: 250 2", "S: 354 go" }, { "S: 250 1", "S: 250 2", "S: 250 in" }, "S: 250 reset"

local function letters(count)
  local i = 0
  return function()
    i = i + 1
    return i <= count and letter(i) or nil
  end
end

local function fate(receipt, err)
  return receipt and "sent" or table.concat({ err.kind, err.stage, err.outcome, err.code }, " ")
end

-- All results of a batch.
local function run(session, iterator)
  local results = {}
  for receipt, err in session:send_many(iterator) do results[#results + 1] = fate(receipt, err) end
  return results
end

describe("a whole message in one group", function()
  both("that is answered with a 3xx may have been sent all the same", function(dribble)
    for _, replies in ipairs {
      { "S: 250 1", "S: 250 2", "S: 354 go on", "S: 250 in" }, { "S: 250 1", "S: 354 2", "S: 250 in" },
    } do
      local session = open(script(OFFER, whole(1), replies), { pipeline = "chunk" }, dribble)
      local receipt, err = session:send(letter(1))
      assert.is_nil(receipt)
      assert.are.same({ "protocol", "unknown", 354, "dead" }, { err.kind, err.outcome, err.code, session.state })
    end
  end)
end)

describe("a batch to a server with CHUNKING", function()
  both("asks once whether it swallows, and then sends whole messages in one burst", function(dribble)
    local session, transport = open(script(OFFER, envelope(1), GO, content(1), ASKED, "S: 250 in", "S: 250 reset", "S: 503 no", "S: 250 reset",
      whole(2), "C: RSET", whole(3), "C: RSET", whole(4), TAKEN, RESET, TAKEN, RESET, TAKEN), nil, dribble)
    local rounds = session.pump.rounds
    assert.are.same({ "sent", "sent", "sent", "sent" }, run(session, letters(4)))
    assert.are.equal(3, session.pump.rounds - rounds)
    play.finished(transport)
  end)

  both("does not ask where fewer than two messages make up for it", function(dribble)
    local session, transport = open(script(OFFER, envelope(1), GO, content(1), envelope(2), "S: 250 in", GO, content(2),
      "S: 250 in"), nil, dribble)
    assert.are.same({ "sent", "sent" }, run(session, letters(2)))
    play.finished(transport)
  end)

  both("goes on by DATA, in step with the server, where it reads what it refused", function(dribble)
    local session, transport = open(script(OFFER, envelope(1), GO, content(1), ASKED, "S: 250 in", "S: 250 reset", "S: 503 no",
      "S: 500 what is XNOP?", "S: 250 reset", envelope(2), GO, content(2), envelope(3), "S: 250 in", GO, content(3), "S: 250 in"),
      nil, dribble)
    assert.are.same({ "sent", "sent", "sent" }, run(session, letters(3)))
    play.finished(transport)
  end)

  both("does not trust one that takes a chunk nobody announced", function(dribble)
    local session, transport = open(script(OFFER, envelope(1), GO, content(1), ASKED, "S: 250 in", "S: 250 reset", "S: 250 taken", "S: 250 reset",
      envelope(2), GO, content(2), envelope(3), "S: 250 in", GO, content(3), "S: 250 in"), nil, dribble)
    assert.are.same({ "sent", "sent", "sent" }, run(session, letters(3)))
    play.finished(transport)
  end)

  -- The server closes over the question: with or without an answer to the content in front of it.
  for name, case in pairs {
    ["at once"] = { {}, "closed final unknown" }, ["after the content"] = { "S: 250 in", "sent" },
    ["after RSET"] = { { "S: 250 in", "S: 250 reset" }, "sent" },
    ["after the chunk"] = { { "S: 250 in", "S: 250 reset", "S: 503 no" }, "sent" },
    ["with a 421"] = { { "S: 250 in", "S: 250 reset", "S: 421 what is that?" }, "sent" },
  } do
    both("is lost over the question " .. name .. ": the rest goes over another connection, and it is not asked again", function(dribble)
      hosts = hosts + 1
      local options, transport = play.several({
        script(OFFER, envelope(1), GO, content(1), ASKED, case[1], "close"),
        case[2] == "sent" and script(OFFER, envelope(2), GO, content(2), envelope(3), "S: 250 in", GO, content(3), envelope(4), "S: 250 in",
          GO, content(4), "S: 250 in", "C: NOOP", "S: 250 ok")
          -- nor does anything else go behind the end of a content any more
          or script(OFFER, envelope(2), GO, content(2), "S: 250 in", envelope(3), GO, content(3), "S: 250 in", envelope(4), GO, content(4),
            "S: 250 in", "C: NOOP", "S: 250 ok"),
      }, { host = "bundle" .. hosts .. ".example.org" }, dribble)
      local session = assert(smtp.connect(options))
      assert.are.same({ case[2], "sent", "sent", "sent" }, run(session, letters(4)))
      assert(session:noop())
      play.finished(transport)
      assert.are.equal(2, #transport.pipes)
    end)
  end

  it("is lost over the question: a pool's messages behind it lose no attempt", function()
    local server, asked, results = assert(smtp.server {}), 0, {}
    local transport = relay.memory(server)
    local connect = transport.connect
    function transport.connect(...)
      local pipe = connect(...)
      local write = pipe.write
      pipe.send, pipe.receive = nil, nil
      function pipe.write(self, bytes, deadline)
        local at = bytes:find("RSET\r\nBDAT 6 LAST", 1, true)
        if not at then return write(self, bytes, deadline) end
        asked = asked + 1
        write(self, bytes:sub(1, at - 1), deadline)
        self.link.over = true
        return true
      end
      return pipe
    end
    local pool = assert(smtp.pool { host = "closing.example.org", tls = "none", transport = transport, size = 1, attempts = 1 })
    assert(pool:send_many(letters(60), function(receipt, err) results[#results + 1] = fate(receipt, err) end))
    pool:close()
    for i = 1, 60 do assert.are.equal("sent", results[i]) end
    assert.are.same({ 60, 60, 1, 2 }, { #results, #server.inbox, asked, #transport.links })
    server:close()
  end)

  both("is lost over the question, and no other connection comes: the rest was not sent", function(dribble)
    hosts = hosts + 1
    local options = play.several({ script(OFFER, envelope(1), GO, content(1), ASKED, "S: 250 in", "close"),
      { "S: 554 5.7.1 go away" } }, { host = "bundle" .. hosts .. ".example.org" }, dribble)
    local session = assert(smtp.connect(options))
    local results = run(session, letters(3))
    assert.are.same({ "sent", "rejected greeting not_sent 554" }, { results[1], results[2] })
    assert.is_truthy(results[3]:find "^closed %w+ not_sent$", results[3])
  end)

  both("lost over the question and closed then: no other connection is made", function(dribble)
    hosts = hosts + 1
    local options, transport = play.several({ script(OFFER, envelope(1), GO, content(1), ASKED, "S: 250 in", "close") },
      { host = "bundle" .. hosts .. ".example.org" }, dribble)
    local session = assert(smtp.connect(options))
    local results = session:send_many(letters(3))
    assert(results())
    session:close()
    assert.are.equal("closed mail not_sent", fate(results()))
    assert.are.equal(1, #transport.pipes)
  end)

  both("lost, but not over the question: the rest was not sent", function(dribble)
    hosts = hosts + 1
    local options = play.several({ script(OFFER, envelope(1), GO, content(1), ASKED, "S: 421 4.3.2 going down", "close") },
      { host = "bundle" .. hosts .. ".example.org" }, dribble)
    assert.are.same({ "rejected final not_sent 421", "closed mail not_sent", "closed mail not_sent" },
      run(assert(smtp.connect(options)), letters(3)))
  end)

  both("lost over the question where its steps were taken one by one: what was sent is sent, the rest was not", function(dribble)
    hosts = hosts + 1
    local session = play.session(script(OFFER, envelope(1), GO, content(1), ASKED, "S: 250 in", "close"),
      { host = "bundle" .. hosts .. ".example.org" }, dribble)
    assert(session:connect())
    assert(session:ehlo())
    assert.are.same({ "sent", "closed mail not_sent", "closed mail not_sent" }, run(session, letters(3)))
  end)

  it("is never asked with pipeline = \"data\"", function()
    local session, transport = open(script(OFFER, envelope(1), GO, content(1), envelope(2), "S: 250 in", GO, content(2),
      envelope(3), "S: 250 in", GO, content(3), "S: 250 in"), { pipeline = "data" })
    assert.are.same({ "sent", "sent", "sent" }, run(session, letters(3)))
    play.finished(transport)
  end)
end)

describe("a burst of whole messages", function()
  local TRUST = { pipeline = "chunk" }

  both("keeps the outcome of each: MAIL, RCPT, content refused in the middle", function(dribble)
    for name, case in pairs {
      mail = { { "S: 450 4.1.0 later", "S: 503 no", "S: 503 no" }, "rejected mail not_sent 450" },
      rcpt = { { "S: 250 1", "S: 550 5.1.1 nobody", "S: 503 no" }, "rejected rcpt not_sent 550" },
      content = { { "S: 250 1", "S: 250 2", "S: 554 5.7.1 spam" }, "rejected final not_sent 554" },
    } do
      local session, transport = open(script(OFFER, whole(1), "C: RSET", whole(2), "C: RSET", whole(3), TAKEN, RESET, case[1], RESET,
        TAKEN), TRUST, dribble)
      assert.are.same({ "sent", case[2], "sent" }, run(session, letters(3)), name)
      assert.are.equal("ready", session.state)
      play.finished(transport)
    end
  end)

  both("after a content refused at its end RSET comes first", function(dribble)
    local session, transport = open(script(OFFER, whole(1), "S: 250 1", "S: 250 2", "S: 552 too large", "C: RSET", whole(2), RESET,
      TAKEN), TRUST, dribble)
    local _, err = session:send(letter(1))
    assert.are.equal("rejected final not_sent 552", fate(nil, err))
    assert(session:send(letter(2)))
    play.finished(transport)
  end)

  both("when the connection ends: what has no reply is unknown", function(dribble)
    for name, case in pairs {
      ["before all"] = { { "close" }, "closed reset unknown" },
      ["in the envelope"] = { { RESET, "S: 250 1", "close" }, "closed rcpt unknown" },
      ["before the last reply"] = { { RESET, "S: 250 1", "S: 250 2", "close" }, "closed final unknown" },
    } do
      local session = open(script(OFFER, whole(1), "C: RSET", whole(2), "C: RSET", whole(3), TAKEN, case[1]), TRUST, dribble)
      assert.are.same({ "sent", case[2], "closed final unknown" }, run(session, letters(3)), name)
    end
  end)

  both("a 421 is a refusal, and the server reads nothing behind it", function(dribble)
    local session = open(script(OFFER, whole(1), "C: RSET", whole(2), "C: RSET", whole(3), TAKEN, RESET, "S: 421 4.3.2 bye", "close"),
      TRUST, dribble)
    assert.are.same({ "sent", "rejected mail not_sent 421", "closed final not_sent" }, run(session, letters(3)))
  end)

  both("a 421 from a server that stays all the same decides nothing about what it takes then", function(dribble)
    local session = open(script(OFFER, whole(1), "C: RSET", whole(2), "C: RSET", whole(3), TAKEN, "S: 421 4.7.0 slowly",
      "S: 250 1", "S: 250 2", "S: 250 in", RESET, "S: 421 4.7.0 slowly", "S: 503 no", "S: 503 no"), TRUST, dribble)
    assert.are.same({ "sent", "sent", "rejected mail not_sent 421" }, run(session, letters(3)))
    assert.are.equal("dead", session.state)
    for last, words in pairs {
      ["S: 250 in"] = "sent", close = "closed reset not_sent", hang = "timeout reset unknown",
    } do
      session = open(script(OFFER, whole(1), "C: RSET", whole(2), "S: 250 1", "S: 250 2", "S: 421 4.3.0 full",
        last == "S: 250 in" and { RESET, "S: 250 1", "S: 250 2" } or {}, last), TRUST, dribble)
      assert.are.same({ "rejected final not_sent 421", words }, run(session, letters(2)))
      assert.are.equal("dead", session.state)
    end
  end)

  -- After a 421 to the first of three, in the middle of a burst: what the server says behind it, and what became of each.
  for name, case in pairs {
    ["takes what comes behind the refused message"] = { { "S: 503 no", "S: 503 no", RESET, TAKEN, RESET, TAKEN },
      "rejected mail not_sent 421", "sent", "sent" },
    ["says no to the rest, each time"] = { { "S: 503 no", "S: 503 no", RESET, "S: 450 no", "S: 503 no", "S: 503 no", RESET,
      "S: 450 no", "S: 503 no", "S: 503 no" }, "rejected mail not_sent 421", "rejected mail not_sent 450",
      "rejected mail not_sent 450" },
    ["goes at once"] = { { "close" }, "rejected mail not_sent 421", "closed final not_sent", "closed final not_sent" },
    ["says no once more and goes"] = { { "S: 503 no", "close" }, "rejected mail not_sent 421", "closed final not_sent",
      "closed final not_sent" },
    ["takes the recipient and goes"] = { { "S: 250 2", "close" }, "closed final unknown", "closed final unknown",
      "closed final unknown" },
    ["begins the next one and goes"] = { { "S: 503 no", "S: 503 no", RESET, "S: 250 1", "close" }, "rejected mail not_sent 421",
      "closed rcpt unknown", "closed final unknown" },
    ["takes the next one and goes"] = { { "S: 503 no", "S: 503 no", RESET, TAKEN, "close" }, "rejected mail not_sent 421", "sent",
      "closed reset unknown" },
    ["takes it all the same and goes"] = { { "S: 250 2", "S: 250 in", "close" }, "sent", "closed reset unknown",
      "closed final unknown" },
    ["says no more and stays"] = { { "hang" }, "timeout rcpt unknown", "timeout final unknown", "timeout final unknown" },
  } do
    both("a 421 in it from a server that " .. name, function(dribble)
      local session = open(script(OFFER, whole(1), "C: RSET", whole(2), "C: RSET", whole(3), "S: 421 4.3.2 too many", case[1]), TRUST,
        dribble)
      assert.are.same({ case[2], case[3], case[4] }, run(session, letters(3)))
      assert.are.equal("dead", session.state)
    end)
  end

  both("refused message by message, it is not in doubt where the server then goes", function(dribble)
    for _, case in ipairs {
      { { "S: 554 5.7.1 blocked", "close" }, "rejected mail not_sent 554" },
      { { "S: 554 5.7.1 blocked", "S: 503 no", "close" }, "rejected mail not_sent 554" },
      { { "S: 250 1", "S: 550 5.1.1 nobody", "close" }, "rejected rcpt not_sent 550" },
      { { "S: 554 5.7.1 blocked", "S: 250 2", "close" }, "closed final unknown" },
    } do
      local session = open(script(OFFER, whole(1), "C: RSET", whole(2), case[1]), TRUST, dribble)
      assert.are.same({ case[2], "closed final unknown" }, run(session, letters(2)))
      assert.are.equal("dead", session.state)
    end
  end)

  both("a reply too many ends the connection: it is no later message's", function(dribble)
    local session = open(script(OFFER, whole(1), "C: RSET", whole(2), TAKEN, "S: 250 surplus", RESET, TAKEN), TRUST, dribble)
    run(session, letters(2))
    local _, err = session:send(letter(3))
    assert.are.same({ "not_sent", "dead" }, { err.outcome, session.state })
    assert.is_truthy(err.reason:find("no command was waiting", 1, true))
  end)

  it("a reply too many behind the last one ends the connection, and the trust in that server: the last may have been refused", function()
    local lines = script(OFFER, envelope(1), GO, content(1), ASKED, "S: 250 in", "S: 250 reset", "S: 503 no", "S: 250 reset", whole(2), "C: RSET",
      whole(3), TAKEN, RESET, TAKEN, "S: 500 what?")
    local session = open(lines)
    assert.are.same({ "sent", "sent", "protocol final unknown" }, run(session, letters(3)))
    assert.are.equal("dead", session.state)
    hosts = hosts - 1
    local transport
    session, transport = open(script(OFFER, envelope(1), GO, content(1), "S: 250 in"))
    assert(session:send(letter(1)))
    play.finished(transport)
  end)

  both("a reply too many somewhere: a refusal in that burst may be another message's, and decides nothing", function(dribble)
    local session = open(script(OFFER, whole(1), "C: RSET", whole(2), TAKEN, RESET, "S: 250 1", "S: 250 surplus", "S: 550 2",
      "S: 250 in"), TRUST, dribble)
    assert.are.same({ "sent", "rejected final unknown 550" }, run(session, letters(2)))
    assert.are.equal("dead", session.state)
  end)

  both("a reply too many somewhere: a recipient refused in that burst may be another, and no receipt names it", function(dribble)
    local two = { "C: MAIL FROM:<ada@example.org>", "C: RCPT TO:<bob@example.org>", "C: RCPT TO:<eve@example.org>", "C: BDAT 14 LAST",
      "C: A: 1", "C: ", "C: RSET" }
    local session = open(script(OFFER, two, "S: 250 1", "S: 250 surplus", "S: 250 bob", "S: 550 eve", "S: 250 in"), TRUST, dribble)
    local mail = letter(1)
    mail.envelope = { from = "ada@example.org", to = { "bob@example.org", "eve@example.org" } }
    local receipt, err = session:send(mail)
    assert.is_nil(receipt)
    assert.are.same({ "unknown", "dead" }, { err.outcome, session.state })
    session = open(script(OFFER, two, "S: 250 1", "S: 250 surplus", "S: 550 bob", "S: 250 eve", "S: 250 in"), TRUST, dribble)
    receipt, err = session:send(mail)
    assert.is_nil(receipt)
    assert.are.same({ "unknown", "dead" }, { err.outcome, session.state })
  end)

  both("with nobody accepted, a content taken all the same is a broken protocol", function(dribble)
    local session = open(script(OFFER, whole(1), "S: 250 1", "S: 550 no", "S: 250 in"), TRUST, dribble)
    local _, err = session:send(letter(1))
    assert.are.same({ "rejected", "not_sent", "rcpt" }, { err.kind, err.outcome, err.stage })
  end)

  it("what cannot be sent has its place among the results", function()
    local session, transport = open(script(hello("PIPELINING", "CHUNKING", "SIZE 14"), script("C: MAIL FROM:<ada@example.org> SIZE=14",
      whole(1)[2], "C: BDAT 14 LAST", "C: A: 1", "C: ", "C: RSET", TAKEN), script("C: MAIL FROM:<ada@example.org> SIZE=14",
      whole(3)[2], "C: BDAT 14 LAST", "C: A: 3", "C: ", "C: RSET", TAKEN)), TRUST)
    local i = 0
    assert.are.same({ "sent", "input mail not_sent", "sent" }, run(session, function()
      i = i + 1
      return i <= 3 and letter(i, { raw = i == 2 and ("A: b\r\n\r\n"):rep(9) or nil }) or nil
    end))
    play.finished(transport)
  end)

  it("all recipients or none: their replies come before the content", function()
    local session, transport = open(script(OFFER, "C: MAIL FROM:<ada@example.org>", "C: RCPT TO:<a@example.test>",
      "C: RCPT TO:<b@example.test>", "S: 250 1", "S: 250 2", "S: 550 no"), TRUST)
    local _, err = session:send(letter(1, { to = "a@example.test, b@example.test", partial = false }))
    assert.are.equal("rejected rcpt not_sent 550", fate(nil, err))
    play.finished(transport)
  end)

  it("keeps MAILMAX", function()
    local session, transport = open(script(hello("PIPELINING", "CHUNKING", "LIMITS MAILMAX=2"), whole(1), "C: RSET", whole(2), TAKEN,
      RESET, TAKEN), TRUST)
    assert.are.same({ "sent", "sent", "closed mail not_sent" }, run(session, letters(3)))
    play.finished(transport)
  end)

  both("a write that fails: nobody knows of any, unless the transport can tell how far it came", function(dribble)
    local session = open(script(OFFER, "deaf", "close"), TRUST, dribble)
    -- this one can, but for a pipe that has only write()
    for i, result in ipairs(run(session, letters(2))) do
      assert.is_truthy(result:find(dribble and "^closed %w+ unknown$" or "^closed %w+ not_sent$"), i .. result)
    end
  end)
end)

describe("a login along with the envelope", function()
  local LOGIN = { tls = "implicit", username = "ada", password = "pencil-case", host = "mail.example.org" }
  local OFFERS = hello("PIPELINING", "CHUNKING", "AUTH PLAIN LOGIN")
  local AUTH = "C: AUTH PLAIN AGFkYQBwZW5jaWwtY2FzZQ=="

  local function send(lines, pipeline, dribble, more)
    local all = letter(1, LOGIN)
    all.pipeline, all.trace = pipeline, true
    for name, value in pairs(more or {}) do all[name] = value end
    local options, transport = play.options(lines, all, dribble)
    local receipt, err = smtp.send(options)
    return receipt, err, transport
  end

  both("waits once less", function(dribble)
    local receipt, err, transport = send(script(OFFERS, AUTH, envelope(1), "S: 235 in", GO, content(1), "C: QUIT", "S: 250 in",
      "S: 221 bye"), "auth", dribble)
    assert(receipt, err)
    play.finished(transport)
    assert.is_nil(receipt.transcript:find("pencil", 1, true) or receipt.transcript:find("AGFk", 1, true))
  end)

  both("and with chunks twice", function(dribble)
    local receipt, err, transport = send(script(OFFERS, AUTH, whole(1), "C: QUIT", "S: 235 in", TAKEN, "S: 221 bye"), "auth+chunk",
      dribble)
    assert(receipt, err)
    play.finished(transport)
  end)

  both("refused: no content follows, whatever the server says to the envelope", function(dribble)
    for _, replies in ipairs { GO, { "S: 530 5.7.0 log in", "S: 503 no", "S: 503 no" } } do
      local _, err, transport = send(script(OFFERS, AUTH, envelope(1), "S: 535 5.7.8 no", replies), "auth", dribble)
      assert.are.equal("auth auth not_sent 535", fate(nil, err))
      assert.is_nil(play.written(transport):find("A: 1", 1, true))
    end
  end)

  both("refused, with chunks: the server's word on the message decides", function(dribble)
    local _, err = send(script(OFFERS, AUTH, whole(1), "C: QUIT", "S: 535 5.7.8 no", "S: 530 5.7.0 log in", "S: 503 no", "S: 503 no",
      "S: 221 bye"), "auth+chunk", dribble)
    assert.are.equal("auth auth not_sent 535", fate(nil, err))
    assert(send(script(OFFERS, AUTH, whole(1), "C: QUIT", "S: 535 5.7.8 no", TAKEN, "S: 221 bye"), "auth+chunk", dribble))
  end)

  both("refused with a 421, with chunks: not sent where the server goes, else its word on the message decides", function(dribble)
    for last, words in pairs { close = "auth auth not_sent 421", hang = "timeout mail unknown" } do
      local _, err = send(script(OFFERS, AUTH, whole(1), "C: QUIT", "S: 421 4.7.0 too many logins", last), "auth+chunk", dribble)
      assert.are.equal(words, fate(nil, err))
    end
    assert(send(script(OFFERS, AUTH, whole(1), "C: QUIT", "S: 421 4.7.0 too many logins", TAKEN, "close"), "auth+chunk", dribble))
    local _, err = send(script(OFFERS, AUTH, whole(1), "C: QUIT", "S: 421 4.7.0 too many logins", "S: 250 1", "close"), "auth+chunk",
      dribble)
    assert.are.equal("closed rcpt unknown", fate(nil, err))
  end)

  local IN = { "C: AUTH LOGIN", "S: 334 VXNlcm5hbWU6", "C: YWRh", "S: 334 UGFzc3dvcmQ6", "C: cGVuY2lsLWNhc2U=" }
  local VAIN = { "S: 504 5.5.4 unrecognized", "S: 502 5.5.1 what?", "S: 534 5.7.9 too weak" }

  both("by a mechanism that the server does not take: the next one, and the envelope again", function(dribble)
    for _, no in ipairs(VAIN) do
      for _, case in ipairs {
        { { "S: 530 5.7.0 log in", "S: 503 no", "S: 503 no" }, {}, {} }, { { "S: 250 1", "S: 530 5.7.0", "S: 503 no" }, "C: RSET", "S: 250 0" },
      } do
        local receipt, err, transport = send(script(OFFERS, AUTH, envelope(1), no, case[1], IN, "S: 235 in", case[2], envelope(1), case[3],
          GO, content(1), "C: QUIT", "S: 250 in", "S: 221 bye"), "auth", dribble)
        assert(receipt, err)
        assert.are.same({ "to1@example.test" }, receipt.accepted)
        play.finished(transport)
      end
    end
  end)

  both("by such a mechanism, where the server waits for content, or has it: on another connection", function(dribble)
    for _, no in ipairs(VAIN) do
      for pipeline, first in pairs {
        auth = { envelope(1), no, GO }, ["auth+chunk"] = { whole(1), "C: QUIT", no, "S: 530 5.7.0 log in", "S: 503 no", "S: 503 no", "S: 221 bye" },
      } do
        local message = pipeline == "auth" and { envelope(1), GO, content(1), "C: QUIT", "S: 250 in" } or { whole(1), "C: QUIT", TAKEN }
        local all = letter(1, LOGIN)
        all.pipeline = pipeline
        local given, transport = play.several({ script(OFFERS, AUTH, first), script(OFFERS, AUTH, no, IN, "S: 235 in", message, "S: 221 bye") },
          all, dribble)
        function transport.secure(pipe)
          pipe.info = { version = "TLSv1.3" }
          return pipe
        end
        local receipt, err = smtp.send(given)
        assert(receipt, err)
        assert.is_true(transport.pipes[1].closed)
        if pipeline == "auth" then assert.is_nil(table.concat(transport.pipes[1].written):find "A: 1") end
        play.finished(transport)
      end
    end
  end)

  both("by such a mechanism, among replies one of which is too many: nothing is sent again that may have been taken", function(dribble)
    local to = { "to1@example.test", "b@example.test" }
    local _, err = send(script(OFFERS, AUTH, "C: MAIL FROM:<ada@example.org>", "C: RCPT TO:<to1@example.test>",
      "C: RCPT TO:<b@example.test>", "C: BDAT 14 LAST", content(1)[1], "C: ", "C: RSET", "C: QUIT", VAIN[1], "S: 235 in",
      "S: 250 1", "S: 250 2", "S: 550 no", "S: 250 in", "S: 221 bye"), "auth+chunk", dribble, { to = to })
    assert.are.equal("protocol final unknown", fate(nil, err))
  end)

  both("by such a mechanism, and no other, or one that is refused, too: that is told", function(dribble)
    local no = { "S: 530 5.7.0 log in", "S: 503 no", "S: 503 no" }
    local _, err = send(script(OFFERS, AUTH, envelope(1), VAIN[1], no), "auth", dribble, { auth = "PLAIN" })
    assert.are.equal("auth auth not_sent 504", fate(nil, err))
    _, err = send(script(OFFERS, AUTH, envelope(1), VAIN[1], no, IN, "S: 535 5.7.8 no"), "auth", dribble)
    assert.are.equal("auth auth not_sent 535", fate(nil, err))
  end)

  both("a challenge instead of a verdict ends the connection", function(dribble)
    local _, err = send(script(OFFERS, AUTH, envelope(1), "S: 334 more", GO), "auth", dribble)
    assert.are.equal("protocol auth not_sent 334", fate(nil, err))
    _, err = send(script(OFFERS, AUTH, whole(1), "C: QUIT", "S: 334 more", TAKEN), "auth+chunk", dribble)
    assert.are.same({ "protocol", 334 }, { err.kind, err.code })
  end)

  both("goes alone where its mechanism takes several steps, or the server does not pipeline", function(dribble)
    assert(send(script(hello("PIPELINING", "AUTH LOGIN"), "C: AUTH LOGIN", "S: 334 VXNlcm5hbWU6", "C: YWRh",
      "S: 334 UGFzc3dvcmQ6", "C: cGVuY2lsLWNhc2U=", "S: 235 in",
      envelope(1), GO, content(1), "C: QUIT", "S: 250 in", "S: 221 bye"), "auth", dribble))
    assert(send(script(hello("AUTH PLAIN"), AUTH, "S: 235 in", envelope(1)[1], "S: 250 1", envelope(1)[2], "S: 250 2", "C: DATA",
      "S: 354 go", content(1), "S: 250 in", "C: QUIT", "S: 221 bye"), "auth", dribble))
  end)

  it("never goes in clear", function()
    local _, err = send(script(OFFERS), "auth", false, { tls = "none" })
    assert.are.equal("insecure auth not_sent", fate(nil, err))
  end)
end)

describe("to the receiving server", function()
  local server
  after_each(function() server:close() end)

  it("a hundred messages, many recipients, dots and 8 bits arrive as they are, in few waits", function()
    server = assert(smtp.server {})
    local to, sent = {}, {}
    for i = 1, 50 do to[i] = ("to%d@example.test"):format(i) end
    together.run(function()
      local session = assert(smtp.connect { host = "127.0.0.1", port = server.port, tls = "none" })
      local i = 0
      local results = session:send_many(function()
        i = i + 1
        sent[i] = i <= 100 and assert(smtp.message { from = "ada@example.org", to = i % 7 == 0 and to or to[1], subject = "s" .. i,
          text = (".\n..\n\195\188 %d\nRSET\nMAIL FROM:<x@example.org>\n"):format(i):rep(i) }) or nil
        return sent[i]
      end)
      local receipt, err = results()
      while receipt ~= nil do
        assert(receipt, err)
        receipt, err = results()
      end
      assert.is_true(session.pump.rounds < 20)
      assert(session:quit())
    end, server)
    assert.are.equal(100, #server.inbox)
    for i, got in ipairs(server.inbox) do
      assert.are.equal(sent[i]:tostring("8bit"), got.data)
      assert.are.equal(i % 7 == 0 and 50 or 1, #got.to)
    end
  end)
end)
