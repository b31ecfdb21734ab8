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

    both("in a flight of whole messages, " .. name, function(dribble)
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
