-- Replies too many, and lines that are none.
local play = require "spec.support.play"
local smtp = require "smtp"

local hello, script = play.hello, play.script
local both = function(name, body) play.both(it, name, body) end

local RAW = "A: b\r\n\r\nc\r\n"
local CONTENT = { "C: A: b", "C: ", "C: c", "C: ." }
local ENVELOPE = { "C: MAIL FROM:<ada@example.org>", "C: RCPT TO:<bob@example.org>", "C: DATA" }
local LETTER = { from = "ada@example.org", to = "bob@example.org", raw = RAW }

local hosts = 0
local function options(lines, given, dribble)
  hosts = hosts + 1
  local all, transport = play.options(lines, given, dribble)
  all.host = "odd" .. hosts .. ".example.org"
  return all, transport
end

local function send(lines, given, dribble)
  local all, transport = options(lines, given, dribble)
  for name, value in pairs(LETTER) do all[name] = value end
  local receipt, err = smtp.send(all)
  return receipt, err, transport
end

describe("a reply too many", function()
  -- What the server said, one reply more than it was asked for, the stage at which that is found out and what does not go out.
  for name, case in pairs {
    ["to MAIL"] = { { hello(), ENVELOPE[1], "S: 250 1", "S: 250 once more" }, "rcpt", "RCPT" },
    ["to RCPT"] = { { hello(), ENVELOPE[1], "S: 250 1", ENVELOPE[2], "S: 250 2", "S: 354 come on" }, "data", "DATA" },
    ["to an EHLO that is not known"] = { { "S: 220 hi", "C: EHLO client.example.org", "S: 502 what?", "S: 250 well then" }, "ehlo",
      "HELO" },
    ["to EHLO"] = { { hello(), "S: 250 hello again" }, "mail", "MAIL" },
    ["to a login's first step"] = { { hello("AUTH LOGIN"), "C~ ^AUTH LOGIN", "S: 334 UGFzc3dvcmQ6", "S: 235 in" }, "auth",
      "cGVuY2lsLWNhc2U=", { username = "ada", password = "pencil-case", allow_insecure_auth = true } },
  } do
    both(name .. " is no later command's, and nothing more is said", function(dribble)
      local receipt, err, transport = send(script(case[1]), case[4], dribble)
      assert.is_nil(receipt)
      assert.are.same({ "protocol", case[2], "not_sent" }, { err.kind, err.stage, err.outcome })
      assert.is_nil(table.concat(transport.pipe.written):find(case[3], 1, true))
    end)
  end

  both("that is a farewell is told as one", function(dribble)
    local _, err, transport = send(script(hello(), ENVELOPE[1], "S: 250 1", "S: 451 4.4.2 timeout", "close"), nil, dribble)
    assert.are.same({ "closed", "rcpt", "not_sent", 451 }, { err.kind, err.stage, err.outcome, err.code })
    assert.is_nil(table.concat(transport.pipe.written):find("RCPT", 1, true))
  end)
end)

describe("EHLO's first line", function()
  both("may be blank: the keywords behind it count", function(dribble)
    for _, first in ipairs { "250-", "250- ", "250-\t" } do
      local s = play.open({ "S: 220 hi", "C: EHLO client.example.org", "S: " .. first, "S: 250-PIPELINING", "S: 250 SIZE 1000" }, nil,
        dribble)
      assert.are.same({ PIPELINING = true, SIZE = "1000" }, s.capabilities)
    end
  end)

  both("may be all there is, and blank", function(dribble)
    for _, only in ipairs { "250", "250 " } do
      local s = play.open({ "S: 220 hi", "C: EHLO client.example.org", "S: " .. only }, nil, dribble)
      assert.are.same({}, s.capabilities)
    end
  end)
end)

describe("empty lines between replies are passed over:", function()
  for name, line in pairs { ["CRLF"] = "\r\n", ["bare LF"] = "\n", ["several"] = "\r\n\n\r\n" } do
    local blank = "S! " .. line

    both("without PIPELINING, " .. name, function(dribble)
      local receipt, err, transport = send(script(blank, "S: 220 hi", blank, play.ehlo(), blank, ENVELOPE[1], "S: 250 1", blank,
        ENVELOPE[2], "S: 250 2", blank, ENVELOPE[3], "S: 354 go", blank, CONTENT, "S: 250 in", blank, "C: QUIT", "S: 221 bye"), nil,
        dribble)
      assert(receipt, err)
      play.finished(transport)
    end)

    both("with it, " .. name, function(dribble)
      local receipt, err, transport = send(script(hello("PIPELINING"), blank, ENVELOPE, "S: 250 1", blank, "S: 250 2", blank,
        "S: 354 go", blank, CONTENT, "C: QUIT", blank, "S: 250 in", blank, "S: 221 bye"), nil, dribble)
      assert(receipt, err)
      play.finished(transport)
    end)

    both("in a batch by DATA, " .. name, function(dribble)
      local again = { CONTENT, ENVELOPE, "S: 250 in", blank, "S: 250 1", "S: 250 2", blank, "S: 354 go", blank }
      local all, transport = options(script(hello("PIPELINING"), ENVELOPE, "S: 250 1", "S: 250 2", blank, "S: 354 go", blank, again, again,
        CONTENT, "S: 250 in", blank, "C: NOOP", "S: 250 ok"), nil, dribble)
      local session, count = assert(smtp.connect(all)), 0
      for receipt, err in session:send_many(function()
        count = count + 1
        return count <= 3 and LETTER or nil
      end) do
        assert(receipt, err)
      end
      assert(session:noop())
      assert.are.equal("ready", session.state)
      play.finished(transport)
    end)

    both("in a burst of whole messages, " .. name, function(dribble)
      local whole = { ENVELOPE[1], ENVELOPE[2], "C: BDAT 11 LAST", "C: A: b", "C: ", "C: c" }
      local taken = { "S: 250 1", blank, "S: 250 2", "S: 250 in", blank }
      local all = options(script(hello("PIPELINING", "CHUNKING"), whole, "C: RSET", whole, taken, "S: 250 reset", blank, taken),
        { pipeline = "chunk" }, dribble)
      local session, count = assert(smtp.connect(all)), 0
      for receipt, err in session:send_many(function()
        count = count + 1
        return count <= 2 and LETTER or nil
      end) do
        assert(receipt, err)
      end
      assert.are.equal("ready", session.state)
    end)

    both("but behind the reply to STARTTLS nothing may come in clear, " .. name, function(dribble)
      local s = play.session(script(hello("STARTTLS"), "C: STARTTLS", "S: 220 go", blank), { tls = "starttls" }, dribble)
      local _, err = s:open()
      assert.are.same({ "protocol", "starttls" }, { err.kind, err.stage })
    end)
  end
end)

describe("a reply too many among those to whole messages:", function()
  local OFFER = hello("PIPELINING", "CHUNKING")
  local TAKEN, RESET = { "S: 250 1", "S: 250 2", "S: 250 in" }, "S: 250 reset"

  local function whole(to)
    local lines = { ENVELOPE[1] }
    for _, one in ipairs(to or { "bob@example.org" }) do lines[#lines + 1] = ("C: RCPT TO:<%s>"):format(one) end
    return { lines, "C: BDAT 11 LAST", "C: A: b", "C: ", "C: c" }
  end

  local function fate(receipt, err)
    return receipt and "sent" or err.kind .. " " .. err.outcome
  end

  -- What became of each message of one burst.
  local function send_burst(count, replies, dribble)
    local lines = { whole() }
    for i = 2, count do lines[i] = { "C: RSET", whole() } end
    local session, results, given = assert(smtp.connect((options(script(OFFER, lines, replies), { pipeline = "chunk" }, dribble)))), {}, 0
    for receipt, err in session:send_many(function()
      given = given + 1
      return given <= count and LETTER or nil
    end) do
      results[#results + 1] = fate(receipt, err)
    end
    assert.are.equal("dead", session.state)
    return results
  end

  local UNKNOWN = "protocol unknown"
  for name, case in pairs {
    ["the last is refused"] = { { "S: 250 1", "S: 250 1 again", "S: 250 2", "S: 554 no" }, UNKNOWN },
    ["the last is refused for now"] = { { "S: 250 1", "S: 250 2", "S: 250 2 again", "S: 421 later" }, UNKNOWN },
    ["the last is taken"] = { { "S: 250 1", "S: 250 1 again", "S: 250 2", "S: 250 in" }, "sent" },
    ["two of them, and the last is refused"] = { { "S: 250 1", "S: 250", "S: 250", "S: 250 2", "S: 554 no" }, UNKNOWN },
    ["the first is refused"] = { { "S: 250 1", "S: 250 1 again", "S: 250 2", "S: 554 no", RESET, TAKEN }, UNKNOWN, "sent" },
    ["and then the end, the first refused"] = { { "S: 250 1", "S: 250 1 again", "S: 250 2", "S: 554 no", RESET, "close" }, UNKNOWN,
      "closed unknown" },
    ["behind the first one"] = { { TAKEN, "S: 250 in, really", RESET, "S: 250 1", "S: 250 2", "S: 554 no" }, "sent", UNKNOWN },
    ["behind the last one"] = { { TAKEN, RESET, TAKEN, "S: 500 what?" }, "sent", UNKNOWN },
    ["two behind the first one"] = { { TAKEN, "S: 250", "S: 250", RESET, "S: 250 1", "S: 250 2", "S: 554 no" }, UNKNOWN, UNKNOWN },
    ["a no behind the envelope"] = { { "S: 250 1", "S: 250 2", "S: 500 what?", "S: 250 in" }, "rejected unknown" },
  } do
    both(name, function(dribble)
      local wanted = { case[2], case[3] }
      assert.are.same(wanted, send_burst(#wanted, case[1], dribble))
    end)
  end

  both("a yes to a message that did not go out whole", function(dribble)
    local all, transport = options(script(OFFER), { pipeline = "chunk" }, dribble)
    local session = assert(smtp.connect(all))
    local pipe = transport.pipe
    function pipe.write()
      pipe.pending = "250 1\r\n250 1 again\r\n250 2\r\n"
      return nil, "timeout", "the peer takes nothing more", 1
    end
    pipe.send = pipe.send and function(_, wire) return pipe.write(wire:take()) end
    local _, err = session:send(LETTER)
    assert.are.same({ "timeout", "final", "not_sent" }, { err.kind, err.stage, err.outcome })
    assert.are.equal("dead", session.state)
  end)

  -- Behind the message there is a QUIT, and whatever that is answered with is the last reply.
  for name, case in pairs {
    ["a refused one"] = { { "S: 250 1", "S: 250 1 again", "S: 250 2", "S: 554 no", "S: 221 bye" }, UNKNOWN },
    ["one taken"] = { { "S: 250 1", "S: 250 1 again", "S: 250 2", "S: 250 in", "S: 221 bye" }, "sent" },
    ["one that seems refused"] = { { "S: 250 1", "S: 250 2", "S: 500 what?", "S: 250 in", "S: 221 bye" }, UNKNOWN },
    ["one that seems refused by a farewell"] = { { "S: 250 1", "S: 250 2", "S: 421 bye?", "S: 250 in", "S: 221 bye" }, UNKNOWN },
    ["one refused by a farewell"] = { { "S: 250 1", "S: 250 2", "S: 421 bye", "close" }, "rejected not_sent" },
    ["and a recipient who seems refused by a farewell"] = { { "S: 250 1", "S: 421 bye?", "S: 250 2", "S: 250 in", "S: 221 bye" },
      UNKNOWN },
    ["none, and an odd answer to QUIT"] = { { TAKEN, "S: 502 no QUIT here", "close" }, "sent" },
    ["one that seems refused, and the end"] = { { "S: 250 1", "S: 250 2", "S: 500 what?", "S: 250 in", "close" }, UNKNOWN },
    ["none, a refusal, and an odd answer to QUIT"] = { { "S: 250 1", "S: 250 2", "S: 554 no", "S: 502 no QUIT here", "close" },
      "rejected not_sent" },
    ["none, and the end"] = { { TAKEN, "close" }, "sent" },
    ["a reply too few, and a goodbye in its place"] = { { "S: 250 1", "S: 250 2", "S: 221 bye" }, UNKNOWN },
  } do
    both("before a QUIT, " .. name, function(dribble)
      assert.are.equal(case[2], fate((send(script(OFFER, whole(), "C: QUIT", case[1]), { pipeline = "chunk" }, dribble))
        or nil, select(2, send(script(OFFER, whole(), "C: QUIT", case[1]), { pipeline = "chunk" }, dribble))))
    end)
  end

  both("content in chunks, the last one refused behind a yes too many", function(dribble)
    for reply, words in pairs { ["554 no"] = UNKNOWN, ["250 in"] = "sent" } do
      local all, transport = options(script(OFFER, ENVELOPE[1], ENVELOPE[2], "S: 250 1", "S: 250 2"), { pipeline = "chunk" }, dribble)
      local session = assert(smtp.connect(all))
      local write, chunks = transport.pipe.write, 0
      function transport.pipe:write(bytes, deadline)
        if not bytes:find "^BDAT" then return write(self, bytes, deadline) end
        chunks = chunks + 1
        self.pending = self.pending .. (chunks == 1 and "250 a\r\n250 a again\r\n" or reply .. "\r\n")
        return true
      end
      local pieces = 0
      assert.are.equal(words, fate(session:send { from = LETTER.from, to = LETTER.to, raw = function()
        pieces = pieces + 1
        return pieces <= 40 and ("x"):rep(9998) .. "\r\n" or nil
      end }))
      assert.are.equal(2, chunks)
    end
  end)

  both("to a chunk that is waited for: the next one does not go out", function(dribble)
    local session, transport = play.open(script(hello "CHUNKING", "C: MAIL FROM:<ada@example.org>", "S: 250 1",
      "C: RCPT TO:<bob@example.org>", "S: 250 2", "S: 250 2 again"), nil, dribble)
    assert(session:mail "ada@example.org")
    assert(session:rcpt "bob@example.org")
    local _, err = session:bdat "x"
    assert.are.same({ "protocol", "not_sent" }, { err.kind, err.outcome })
    assert.is_nil(play.written(transport):find "BDAT")
  end)
end)

describe("a reply too many to a content by DATA", function()
  local GO = { ENVELOPE, "S: 250 1", "S: 250 2", "S: 354 go", CONTENT }

  both("makes a refusal doubtful where a yes is behind it, and a receipt where a no is", function(dribble)
    for _, case in ipairs {
      { "S: 451 what?", "S: 250 in", "unknown" }, { "S: 250 what?", "S: 554 no", "unknown" }, { "S: 554 no", "S: 554 no", "not_sent" },
      { "S: 250 in", "S: 250 in", "sent" }, { "S: 250 in", "S: 421 bye", "sent" }, { "S: 421 bye?", "S: 250 in", "unknown" },
    } do
      local session = assert(smtp.connect((options(script(hello "PIPELINING", GO, case[1], case[2]), nil, dribble))))
      local receipt, err = session:send(LETTER)
      assert.are.equal(case[3], receipt and "sent" or err.outcome, case[1] .. case[2])
      receipt, err = send(script(hello "PIPELINING", GO, "C: QUIT", case[1], case[2], "S: 221 bye"), nil, dribble)
      local wanted = case[2] == "S: 421 bye" and "unknown" or case[3]
      assert.are.equal(wanted, receipt and "sent" or err.outcome, case[1] .. case[2])
    end
  end)

  both("a goodbye in place of the reply says nothing about the message", function(dribble)
    local session = assert(smtp.connect((options(script(hello "PIPELINING", GO, "S: 221 bye", "close"), nil, dribble))))
    local _, err = session:send(LETTER)
    assert.are.same({ "protocol", "unknown", 221 }, { err.kind, err.outcome, err.code })
    session = assert(smtp.connect((options(script(hello "PIPELINING", ENVELOPE, "S: 250 1", "S: 250 2", "S: 354 go", CONTENT, ENVELOPE,
      "S: 250 in", "S: 250 1", "S: 250 2", "S: 354 go", CONTENT, "S: 221 bye"), nil, dribble))))
    local count, outcomes = 0, {}
    for receipt, no in session:send_many(function()
      count = count + 1
      return count <= 2 and LETTER or nil
    end) do
      outcomes[#outcomes + 1] = receipt and "sent" or no.outcome
    end
    assert.are.same({ "sent", "unknown" }, outcomes)
  end)
end)

describe("a reply too many among LMTP's, one a recipient", function()
  local TO = { "a@example.org", "b@example.org", "c@example.org" }
  local OPEN = hello "PIPELINING"
  OPEN[2] = "C: LHLO client.example.org"
  local GO = { ENVELOPE[1], "C: RCPT TO:<a@example.org>", "C: RCPT TO:<b@example.org>", "C: RCPT TO:<c@example.org>", "C: DATA",
    "S: 250 0", "S: 250 a", "S: 250 b", "S: 250 c", "S: 354 go", CONTENT }

  -- The final replies, and who got it, who did not, and whether there is a receipt; all others are unknown.
  for name, case in pairs {
    ["before a refusal"] = { { "250 a", "250 a again", "550 b", "250 c" }, "a", "" },
    ["behind all, a no"] = { { "250 a", "250 b", "250 c", "550 what?" }, "a b", "" },
    ["all say yes"] = { { "250 a", "250 b", "250 b again", "250 c" }, "a b c", "", true },
    ["all say no"] = { { "550 a", "550 b", "550 b again", "451 c" }, "", "a b c" },
    ["one no at the end of all"] = { { "550 a", "550 b", "550 again", "250 c" }, "", "a b" },
    ["two of them"] = { { "250 a", "250", "250", "550 b", "250 c" }, "a", "" },
  } do
    both(name, function(dribble)
      local finals = {}
      for i, reply in ipairs(case[1]) do finals[i] = "S: " .. reply end
      local session = assert(smtp.connect((options(script(OPEN, GO, finals), { lmtp = true }, dribble))))
      local receipt, err = session:send { from = LETTER.from, to = TO, raw = RAW }
      local result, refused = receipt or err, {}
      for i, one in ipairs(result.rejected or {}) do refused[i] = one.address:sub(1, 1) end
      local taken = table.concat(result.accepted or {}, " "):gsub("@example%.org", "")
      assert.are.same({ case[2], case[3] }, { taken, table.concat(refused, " ") })
      assert.are.equal(case[4] or false, receipt ~= nil)
      if case[2] ~= "" and not receipt then assert.are.same({ "protocol", "unknown" }, { err.kind, err.outcome }) end
    end)
  end
end)
