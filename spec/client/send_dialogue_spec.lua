-- Of: client/send, client/command, client/content, client/receipt
local play = require "spec.support.play"
local smtp = require "smtp"

local hello, script = play.hello, play.script
local unpack = table.unpack or unpack
local both = function(name, body) play.both(it, name, body) end

local RAW = "Message-ID: <1@example.org>\r\n\r\nHello.\r\n.\r\n"
local CONTENT = { "C: Message-ID: <1@example.org>", "C: ", "C: Hello.", "C: ..", "C: ." }
local ENVELOPE = { "C: MAIL FROM:<ada@example.org>", "C: RCPT TO:<bob@example.org>", "C: DATA" }
local EHLO = "EHLO client.example.org\r\n"
local OPENING = "MAIL FROM:<ada@example.org>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\n"
local BODY = "Message-ID: <1@example.org>\r\n\r\nHello.\r\n..\r\n.\r\n"

local function letter(changes)
  local given = { from = "ada@example.org", to = "bob@example.org", raw = RAW }
  for name, value in pairs(changes or {}) do given[name] = value end
  return given
end

-- smtp.send against a script.
local function send(lines, changes, dribble)
  local options, transport = play.options(lines, letter(changes), dribble)
  local receipt, err = smtp.send(options)
  return receipt, err, transport
end

-- The same content from a function: it is not one piece with its end, and there is a look at the server before that.
local function streamed()
  local text = RAW
  return { raw = function()
    local piece = text
    text = nil
    return piece
  end }
end

local function fate(err)
  return { err.kind, err.stage, err.outcome, err.code }
end

-- Whether the end of a message was ever written.
local function terminated(transport)
  return play.written(transport):find("\r\n.\r\n", 1, true) ~= nil
end

describe("what goes into one write", function()
  both("with PIPELINING: the envelope with DATA; the content with QUIT", function(dribble)
    local receipt, _, transport = send(script(hello("PIPELINING"), ENVELOPE, "S: 250 1", "S: 250 2", "S: 354 go", CONTENT,
      "C: QUIT", "S: 250 2.0.0 Ok: queued as 4ZX", "S: 221 bye"), nil, dribble)
    assert.are.same({ EHLO, OPENING, BODY .. "QUIT\r\n" }, transport.pipe.written)
    assert.are.equal(5, receipt.round_trips) -- connect, greeting, EHLO, envelope, content
    play.finished(transport)
  end)

  local LOCKSTEP = script(ENVELOPE[1], "S: 250 1", ENVELOPE[2], "S: 250 2", ENVELOPE[3], "S: 354 go", CONTENT, "S: 250 in",
    "C: QUIT", "S: 221 bye")

  both("without PIPELINING: one command", function(dribble)
    local receipt, _, transport = send(script(hello(), LOCKSTEP), nil, dribble)
    assert.are.equal(1 + 3 + 1 + 1, #transport.pipe.written)
    assert.are.equal(7, receipt.round_trips)
    play.finished(transport)
  end)

  both("with pipeline = false: one command, whatever is offered", function(dribble)
    local receipt, _, transport = send(script(hello("PIPELINING"), LOCKSTEP), { pipeline = false }, dribble)
    assert.are.equal(7, receipt.round_trips)
    play.finished(transport)
  end)

  both("several messages on one session: two waits each", function(dribble)
    local one = script(ENVELOPE, "S: 250 1", "S: 250 2", "S: 354 go", CONTENT, "S: 250 in")
    local s, transport = play.open(script(hello("PIPELINING"), one, one, one, "C: QUIT", "S: 221 bye"), nil, dribble)
    for _ = 1, 3 do assert.are.equal(2, assert(s:send(letter())).round_trips) end
    assert(s:quit())
    assert.are.same({ EHLO, OPENING, BODY, OPENING, BODY, OPENING, BODY, "QUIT\r\n" }, transport.pipe.written)
    play.finished(transport)
  end)

  both("after a refused message RSET goes along with the next", function(dribble)
    local s, transport = play.open(script(hello("PIPELINING"), ENVELOPE, "S: 250 1", "S: 550 2", "S: 554 3",
      "C: RSET", ENVELOPE, "S: 250 0", "S: 250 1", "S: 250 2", "S: 354 go", CONTENT, "S: 250 in",
      ENVELOPE, "S: 250 1", "S: 250 2", "S: 354 go", CONTENT, "S: 250 in"), nil, dribble)
    assert.is_nil((s:send(letter())))
    assert.are.equal(2, assert(s:send(letter())).round_trips)
    assert.are.equal(2, assert(s:send(letter())).round_trips)
    assert.are.equal("RSET\r\n" .. OPENING, transport.pipe.written[3])
    play.finished(transport)
  end)

  both("after a refused message RSET goes alone to a server without PIPELINING", function(dribble)
    for name, begin in pairs {
      ["a message refused"] = { { ENVELOPE[1], "S: 250 1", ENVELOPE[2], "S: 550 2" }, function(s) assert.is_nil((s:send(letter()))) end },
      ["a transaction step by step"] = { { ENVELOPE[1], "S: 250 1" }, function(s) assert(s:mail "ada@example.org") end },
    } do
      for _, way in ipairs { "send", "send_many" } do
        local s, transport = play.open(script(hello(), begin[1], "C: RSET", "S: 250 0", ENVELOPE[1], "S: 250 1", ENVELOPE[2], "S: 250 2",
          ENVELOPE[3], "S: 354 go", CONTENT, "S: 250 in"), nil, dribble)
        begin[2](s)
        local given = letter()
        local receipt, err
        if way == "send" then
          receipt, err = s:send(given)
        else
          receipt, err = s:send_many(function()
            local one = given
            given = nil
            return one
          end)()
        end
        assert(receipt, name .. ": " .. tostring(err))
        play.finished(transport)
      end
    end
  end)

  both("where such an RSET is refused nothing follows: its recipients would be added to the earlier ones", function(dribble)
    local s, transport = play.open(script(hello(), ENVELOPE[1], "S: 250 1", "C: RSET", "S: 502 what?"), nil, dribble)
    assert(s:mail "ada@example.org")
    local _, err = s:send(letter())
    assert.are.same({ "rejected", "reset", "not_sent", 502 }, fate(err))
    play.finished(transport)
  end)

  both("a recipient too many is no permanent refusal, whatever the class of the reply", function(dribble)
    local many = { to = { "bob@example.org", "ann@example.org", "eve@example.org" } }
    local receipt = send(script(hello("PIPELINING"), ENVELOPE[1], ENVELOPE[2], "C: RCPT TO:<ann@example.org>",
      "C: RCPT TO:<eve@example.org>", "C: DATA", "S: 250 1", "S: 250 2", "S: 552 too many recipients", "S: 550 5.1.1 nobody", "S: 354 go",
      CONTENT, "C: QUIT", "S: 250 in", "S: 221 bye"), many, dribble)
    assert.are.same({ true, false }, { receipt.rejected[1].temporary, receipt.rejected[2].temporary })
    many.partial = false
    local _, err = send(script(hello(), ENVELOPE[1], "S: 250 1", ENVELOPE[2], "S: 250 2", "C: RCPT TO:<ann@example.org>",
      "S: 552 5.5.3 no more", "C: RCPT TO:<eve@example.org>", "S: 452 4.5.3 no more"), many, dribble)
    assert.are.same({ "rejected", "rcpt", "not_sent", 552 }, fate(err))
    assert.is_true(err.temporary)
  end)

  it("no RSET where MAIL itself was refused", function()
    local s, transport = play.open(script(hello("PIPELINING"), ENVELOPE, "S: 451 1", "S: 503 2", "S: 503 3",
      ENVELOPE, "S: 250 1", "S: 250 2", "S: 354 go", CONTENT, "S: 250 in"))
    assert.is_nil((s:send(letter())))
    assert(s:send(letter()))
    play.finished(transport)
  end)

  it("a refused QUIT, or none, is a receipt all the same", function()
    for _, farewell in ipairs { { "S: 500 what?" }, { "S: 421 bye" }, { "S: garbage" }, { "close" }, { "hang" }, {} } do
      local receipt, err = send(script(hello("PIPELINING"), ENVELOPE, "S: 250 1", "S: 250 2", "S: 354 go", CONTENT,
        "C: QUIT", "S: 250 in", farewell))
      assert.is_nil(err)
      assert.are.equal("in", receipt.reply.text)
      receipt = send(script(hello(), ENVELOPE[1], "S: 250 1", ENVELOPE[2], "S: 250 2", ENVELOPE[3], "S: 354 go", CONTENT,
        "S: 250 in", "C: QUIT", farewell))
      assert.are.equal("in", receipt.reply.text)
    end
  end)

  it("a QUIT that went along is not said again after a refusal", function()
    local _, err, transport = send(script(hello("PIPELINING"), ENVELOPE, "S: 250 1", "S: 250 2", "S: 354 go", CONTENT,
      "C: QUIT", "S: 554 5.6.0 spam", "S: 221 bye"))
    assert.are.same({ "rejected", "final", "not_sent", 554 }, fate(err))
    play.finished(transport)
  end)
end)

-- Each stage once: what the client has said by then, and the answer that goes on.
local STEPS = {
  { "greeting", {}, "S: 220 hi" },
  { "ehlo", { "C: EHLO client.example.org" }, nil },
  { "mail", { ENVELOPE[1] }, "S: 250 1" },
  { "rcpt", { ENVELOPE[2] }, "S: 250 2" },
  { "data", { ENVELOPE[3] }, "S: 354 go" },
  { "body", {}, nil },
  { "final", CONTENT, "S: 250 in" },
}
local GROUPED = { mail = true, rcpt = true, data = true }

-- The script up to a stage, where `event` happens instead of the answer.
local function until_stage(stage, event, pipelining)
  local lines, said = {}, false
  local function add(...)
    for _, line in ipairs(script(...)) do lines[#lines + 1] = line end
  end
  for _, step in ipairs(STEPS) do
    local name, says, answer = step[1], step[2], step[3]
    if pipelining and GROUPED[name] then
      if not said then add(ENVELOPE) end
      said = true
    else
      add(says)
    end
    if pipelining and name == "final" then add "C: QUIT" end
    if name == stage then
      add(event)
      return lines
    end
    add(name == "ehlo" and (pipelining and { "S: 250-hi", "S: 250 PIPELINING" } or { "S: 250 hi" }) or answer or {})
  end
end

describe("at every stage", function()
  local EVENTS = {
    -- what happens, the kind, the code, the outcome after the terminator, temporary
    { { "close" }, "closed", nil, "unknown", true },
    { { "S! 25", "close" }, "closed", nil, "unknown", true },
    { { "S! 250-one\r\n", "close" }, "closed", nil, "unknown", true },
    { { "hang" }, "timeout", nil, "unknown", true },
    { { "S: what?", "close" }, "protocol", nil, "unknown", false },
    { { "S: 999 odd", "close" }, "protocol", nil, "unknown", false },
    { { "S! 250-one\r\n251 two\r\n", "close" }, "protocol", nil, "unknown", false },
    { { "S: 421 4.3.2 closing", "close" }, "rejected", 421, "not_sent", true },
  }
  for _, step in ipairs(STEPS) do
    for _, event in ipairs(EVENTS) do
      for _, pipelining in ipairs { true, false } do
        local stage = step[1]
        local happens, kind, code, after, temporary = event[1], event[2], event[3], event[4], event[5]
        -- before the content nothing is waited for: only what is seen without waiting counts
        local seen = stage ~= "body" or happens[1] == "close" or kind == "rejected"
        if stage == "body" and not code then kind = "closed" end
        if seen then
          both(("%s: %s%s"):format(stage, table.concat(happens, ", "):gsub("%c", " "), pipelining and ", pipelined" or ""),
            function(dribble)
              local receipt, err, transport = send(until_stage(stage, happens, pipelining), stage == "body" and streamed(), dribble)
              assert.is_nil(receipt)
              assert.are.same({ kind, stage, stage == "final" and after or "not_sent", code }, fate(err))
              assert.are.equal(temporary, err.temporary)
              assert.are.equal(stage == "final", terminated(transport))
              assert.is_true(transport.pipe.closed)
            end)
        end
      end
    end
  end

  for _, case in ipairs {
    -- stage, reply, kind
    { "mail", 250 + 84, "protocol" }, { "rcpt", 354, "protocol" }, { "data", 250, "protocol" }, { "data", 334, "protocol" },
    { "final", 354, "protocol" }, { "mail", 452, "rejected" }, { "mail", 550, "rejected" }, { "data", 451, "rejected" },
    { "data", 554, "rejected" }, { "final", 452, "rejected" }, { "final", 554, "rejected" },
  } do
    local stage, code, kind = case[1], case[2], case[3]
    both(("%s answered %d"):format(stage, code), function(dribble)
      local receipt, err = send(script(until_stage(stage, ("S: %d no"):format(code), false), "C: QUIT", "S: 221 bye"), nil,
        dribble)
      assert.is_nil(receipt)
      assert.are.same({ kind, stage, kind == "protocol" and stage == "final" and "unknown" or "not_sent", code }, fate(err))
    end)
  end
end)

describe("recipients", function()
  local function rcpts(...)
    local lines, to = {}, {}
    for i, name in ipairs { ... } do
      to[i] = name .. "@example.org"
      lines[i] = "C: RCPT TO:<" .. to[i] .. ">"
    end
    return lines, to
  end
  local LINES, TO = rcpts("ann", "bob", "cid")
  local GROUP = script(ENVELOPE[1], LINES)
  local MIXED = { "S: 250 1", "S: 250 2.1.5 ok", "S: 550 5.1.1 no such user", "S: 251 2.1.5 will forward" }
  local LISTED = { { address = "bob@example.org", code = 550, enhanced = "5.1.1", text = "no such user", temporary = false } }

  both("some refused: sent to the others, who are listed", function(dribble)
    local receipt, err, transport = send(script(hello("PIPELINING"), GROUP, "C: DATA", MIXED, "S: 354 go", CONTENT, "C: QUIT",
      "S: 250 in", "S: 221 bye"), { to = TO }, dribble)
    assert.is_nil(err)
    assert.are.same({ "ann@example.org", "cid@example.org" }, receipt.accepted)
    assert.are.same(LISTED, receipt.rejected)
    play.finished(transport)
  end)

  both("some refused, and then the message: the error lists them", function(dribble)
    local _, err = send(script(hello("PIPELINING"), GROUP, "C: DATA", MIXED, "S: 354 go", CONTENT, "C: QUIT",
      "S: 554 5.6.0 spam", "S: 221 bye"), { to = TO }, dribble)
    assert.are.same({ "rejected", "final", "not_sent", 554 }, fate(err))
    assert.are.same(LISTED, err.rejected)
  end)

  for _, pipelining in ipairs { true, false } do
    both("partial = false: one refused and DATA is never said" .. (pipelining and ", pipelined" or ""), function(dribble)
      local dialogue = script(GROUP, MIXED)
      if not pipelining then
        dialogue = {}
        for i, line in ipairs(GROUP) do
          dialogue[2 * i - 1], dialogue[2 * i] = line, MIXED[i]
        end
      end
      local receipt, err, transport = send(script(hello(pipelining and "PIPELINING" or nil), dialogue, "C: QUIT",
        "S: 221 bye"), { to = TO, partial = false }, dribble)
      assert.is_nil(receipt)
      assert.are.same({ "rejected", "rcpt", "not_sent", 550 }, fate(err))
      assert.are.same(LISTED, err.rejected)
      play.finished(transport)
    end)
  end

  it("partial = false: all taken costs one wait more, but not for one recipient", function()
    local receipt, _, transport = send(script(hello("PIPELINING"), GROUP, "S: 250 1", "S: 250 2", "S: 250 3", "S: 250 4",
      "C: DATA", "S: 354 go", CONTENT, "C: QUIT", "S: 250 in", "S: 221 bye"), { to = TO, partial = false })
    assert.are.equal(6, receipt.round_trips)
    play.finished(transport)
    receipt = send(script(hello("PIPELINING"), ENVELOPE, "S: 250 1", "S: 250 2", "S: 354 go", CONTENT, "C: QUIT", "S: 250 in",
      "S: 221 bye"), { partial = false })
    assert.are.equal(5, receipt.round_trips)
  end)

  both("an odd answer to one of them breaks it off: who knows what it answers", function(dribble)
    local receipt, err, transport = send(script(hello("PIPELINING"), GROUP, "C: DATA", "S: 250 1", "S: 250 2", "S: 354 go",
      "S: 250 4", "S: 354 go", "hang"), { to = TO }, dribble)
    assert.is_nil(receipt)
    assert.are.same({ "protocol", "rcpt", "not_sent", 354 }, fate(err))
    assert.are.equal(2, #transport.pipe.written)
  end)

  local ALL_REFUSED = { "S: 250 1", "S: 550 5.1.1 no", "S: 450 4.2.1 later", "S: 550 5.1.1 no" }

  both("all refused and so is DATA", function(dribble)
    local _, err, transport = send(script(hello("PIPELINING"), GROUP, "C: DATA", ALL_REFUSED, "S: 503 5.5.1 no recipients",
      "C: QUIT", "S: 221 bye"), { to = TO }, dribble)
    assert.are.same({ "rejected", "rcpt", "not_sent", 550 }, fate(err))
    assert.are.equal(3, #err.rejected)
    assert.is_true(err.temporary) -- one of them may be taken later
    play.finished(transport)
  end)

  for name, last in pairs {
    ["and refused"] = { "S: 554 5.5.1 no recipients", "C: QUIT", "S: 221 bye" },
    ["and taken"] = { "S: 250 thanks", "C: QUIT", "S: 221 bye" },
    ["and the connection is lost"] = { "close" },
    ["and nothing comes"] = { "hang" },
    ["and garbage comes"] = { "S: what?" },
  } do
    both("all refused while DATA is answered 354: a lone dot ends it, " .. name, function(dribble)
      local _, err, transport = send(script(hello("PIPELINING"), GROUP, "C: DATA", ALL_REFUSED, "S: 354 go", "C: .", last),
        { to = TO }, dribble)
      assert.are.same({ "rejected", "rcpt", "not_sent", 550 }, fate(err))
      assert.are.equal(3, #err.rejected)
      assert.is_nil(play.written(transport):find("Hello", 1, true))
      if #last > 1 then play.finished(transport) end
    end)
  end

  both("MAIL refused, and so all behind it", function(dribble)
    local _, err, transport = send(script(hello("PIPELINING"), GROUP, "C: DATA", "S: 550 5.7.1 not you", "S: 503 a", "S: 503 b",
      "S: 503 c", "S: 503 d", "C: QUIT", "S: 221 bye"), { to = TO }, dribble)
    assert.are.same({ "rejected", "mail", "not_sent", 550 }, fate(err))
    assert.is_nil(err.rejected) -- a 503 says nothing about a recipient
    assert.is_false(err.temporary)
    play.finished(transport)
  end)

  both("MAIL refused and nothing behind it: who was taken must not get an empty message", function(dribble)
    local receipt, err, transport = send(script(hello("PIPELINING"), ENVELOPE, "S: 503 5.5.1 nested", "S: 250 2",
      "S: 354 3"), nil, dribble)
    assert.is_nil(receipt)
    assert.are.same({ "rejected", "mail", "not_sent", 503 }, fate(err))
    assert.are.equal(EHLO .. OPENING, table.concat(transport.pipe.written))
    assert.is_true(transport.pipe.closed)
  end)

  it("MAIL refused in lockstep: nothing follows", function()
    local _, err, transport = send(script(hello(), ENVELOPE[1], "S: 450 4.7.1 later", "C: QUIT", "S: 221 bye"), { to = TO })
    assert.are.same({ "rejected", "mail", "not_sent", 450 }, fate(err))
    assert.is_true(err.temporary)
    play.finished(transport)
  end)

  for _, case in ipairs {
    { "450 550", nil, true }, { "550 550", nil, false }, { "450 450", nil, true },
    { "250 450", false, true }, { "450 550", false, false }, { "250 550", false, false },
  } do
    it(("%s, partial %s: temporary %s"):format(case[1], tostring(case[2]), tostring(case[3])), function()
      local a, b = case[1]:match("(%d+) (%d+)")
      local lines, to = rcpts("ann", "bob")
      local data = case[2] == nil and { "C: DATA" } or {}
      local _, err = send(script(hello("PIPELINING"), ENVELOPE[1], lines, data, "S: 250 1", "S: " .. a .. " a", "S: " .. b .. " b",
        data[1] and "S: 503 no" or {}, "C: QUIT", "S: 221 bye"), { to = to, partial = case[2] })
      assert.are.equal(case[3], err.temporary)
    end)
  end

  -- A server that answers each command by a function, and counts what each write held.
  local function answering(answer)
    local transport, heard, said, sizes = {}, "", {}, {}
    local pipe = {
      write = function(_, bytes)
        heard = heard .. bytes
        sizes[#sizes + 1] = #bytes
        while true do
          local line, rest = heard:match("^(.-)\r\n(.*)$")
          if not line then return true end
          heard = rest
          said[#said + 1] = answer(line)
        end
      end,
      read = function()
        if #said == 0 then return nil, "timeout", "nothing" end
        local bytes = table.concat(said, "\r\n") .. "\r\n"
        said = {}
        return bytes
      end,
      peek = function() return #said > 0 and "data" or "idle" end,
      close = function() end,
    }
    function transport.connect()
      said = { "220 hi" }
      return pipe
    end
    return transport, sizes
  end

  for _, refused in ipairs { 0, 1499 } do
    it(("1500 go in windows, the first %d refused"):format(refused), function()
      local to, count, in_body = {}, 0, false
      for i = 1, 1500 do to[i] = ("recipient%04d@a-long-domain.example.org"):format(i) end
      local transport, sizes = answering(function(line)
        if in_body then return line == "." and "250 in" or nil end
        if line:find("^EHLO") then return "250-hi\r\n250 PIPELINING" end
        if line:find("^RCPT") then
          count = count + 1
          return count <= refused and "550 no" or "250 ok"
        end
        in_body = line == "DATA"
        return in_body and "354 go" or "250 ok"
      end)
      local receipt = assert(smtp.send { host = "mail.example.org", tls = "none", transport = transport,
        from = "ada@example.org", to = to, raw = RAW })
      assert.are.equal(1500 - refused, #receipt.accepted)
      assert.are.equal(refused, #receipt.rejected)
      assert.are.equal(to[1500], receipt.accepted[#receipt.accepted])
      for _, size in ipairs(sizes) do assert.is_true(size <= 32768 + 512) end
      assert.is_true(#sizes >= 4)
    end)
  end
end)

describe("MAIL's parameters", function()
  local size = #RAW
  for name, case in pairs {
    ["SIZE where it is offered"] = { { "SIZE" }, {}, (" SIZE=%d"):format(size) },
    ["SIZE up to the limit"] = { { "SIZE " .. size }, {}, (" SIZE=%d"):format(size) },
    ["no limit with SIZE 0"] = { { "SIZE 0" }, {}, (" SIZE=%d"):format(size) },
    ["an absurd SIZE does no harm"] = { { "SIZE 99999999999999999999999" }, {}, (" SIZE=%d"):format(size) },
    ["no SIZE where it is not known"] = { { "SIZE" }, { raw = "function" }, "" },
    ["8BITMIME for 8-bit text"] = { { "8BITMIME" }, { raw = RAW .. "\195\188\r\n" }, " BODY=8BITMIME" },
    ["8BITMIME where it is not known"] = { { "8BITMIME" }, { raw = "function" }, " BODY=8BITMIME" },
    ["nothing for ASCII"] = { { "8BITMIME", "SMTPUTF8" }, {}, "" },
    ["SMTPUTF8 for an address"] = { { "8BITMIME", "SMTPUTF8" }, { to = "b\195\188b@example.org" }, " SMTPUTF8" },
    ["all three"] = { { "SMTPUTF8", "SIZE 1000", "8BITMIME" },
      { to = "b\195\188b@example.org", raw = RAW .. "\195\188\r\n" }, (" SIZE=%d BODY=8BITMIME SMTPUTF8"):format(size + 4) },
  } do
    it(name, function()
      local given = letter(case[2])
      if given.raw == "function" then
        local chunk = RAW
        given.raw = function()
          local now = chunk
          chunk = nil
          return now
        end
      end
      local s, transport = play.open(script(hello(unpack(case[1])),
        "C: MAIL FROM:<ada@example.org>" .. case[3], "S: 550 enough"))
      local _, err = s:send(given)
      assert.are.same({ "rejected", "mail", "not_sent", 550 }, fate(err))
      play.finished(transport)
    end)
  end

  for name, case in pairs {
    ["too large for SIZE"] = { { "SIZE " .. size - 1 }, {}, "takes" },
    ["8-bit text without 8BITMIME"] = { {}, { raw = RAW .. "\195\188\r\n" }, "8BITMIME" },
    ["an address beyond ASCII without SMTPUTF8"] = { { "8BITMIME" }, { to = "b\195\188b@example.org" }, "SMTPUTF8" },
  } do
    both(name .. ": an input error, nothing is sent, the session lives on", function(dribble)
      local s, transport = play.open(script(hello("PIPELINING", case[1][1]), "C: NOOP", "S: 250 ok"), nil, dribble)
      local receipt, err = s:send(letter(case[2]))
      assert.is_nil(receipt)
      assert.are.same({ "input", "mail", "not_sent" }, fate(err))
      assert.is_truthy(err.reason:find(case[3], 1, true))
      assert.are.same({ EHLO }, transport.pipe.written)
      assert(s:noop())
      play.finished(transport)
    end)
  end
end)

describe("a source that fails", function()
  local BIG = ("x"):rep(998) .. "\r\n"
  for name, fail in pairs {
    ["raises"] = function() error("the disk is on fire") end,
    ["raises a table"] = function() error({}) end,
    ["gives nil and a reason"] = function() return nil, "the disk is on fire" end,
    ["gives a number"] = function() return 7 end,
    ["gives a table"] = function() return {} end,
    ["gives false"] = function() return false end,
  } do
    for _, before in ipairs { 0, 1, 600 } do
      it(("%s after %d chunks: no terminator, not_sent, and the session is dead"):format(name, before), function()
        for _, by_verb in ipairs { true, false } do
          local count = 0
          local function source()
            count = count + 1
            if count > before then return fail() end
            return BIG
          end
          local s, transport = play.open(script(hello("PIPELINING"),
            by_verb and "C: DATA" or { ENVELOPE, "S: 250 1", "S: 250 2" }, "S: 354 go"))
          transport.pipe.script[#transport.pipe.script + 1] = "hang"
          local reply, err
          if by_verb then
            reply, err = s:data(source)
          else
            reply, err = s:send(letter { raw = source })
          end
          assert.is_nil(reply)
          assert.are.same({ "source", "body", "not_sent" }, fate(err))
          assert.is_false(err.temporary)
          assert.are.equal("dead", s.state)
          assert.is_false(terminated(transport))
          assert.is_true(transport.pipe.closed)
          assert.are.equal("closed", select(2, s:send(letter())).kind)
        end
      end)
    end
  end

  it("an attachment that cannot be read any more", function()
    local path = os.tmpname()
    local file = assert(io.open(path, "wb"))
    file:write("something")
    file:close()
    local mail = assert(smtp.message { from = "ada@example.org", to = "bob@example.org", text = "x",
      attachments = { { path = path } } })
    os.remove(path)
    local s, transport = play.open(script(hello("PIPELINING"), ENVELOPE, "S: 250 1", "S: 250 2", "S: 354 go", "hang"))
    local receipt, err = s:send(mail)
    assert.is_nil(receipt)
    assert.are.same({ "source", "body", "not_sent" }, fate(err))
    assert.is_false(terminated(transport))
  end)
end)

describe("replies out of turn", function()
  both("a surplus 250 behind the 354 is not the receipt", function(dribble)
    local receipt, err, transport = send(script(hello("PIPELINING"), ENVELOPE, "S: 250 1", "S: 250 2", "S: 354 go",
      "S: 250 queued", "hang"), streamed(), dribble)
    assert.is_nil(receipt)
    assert.are.same({ "protocol", "body", "not_sent" }, fate(err))
    assert.is_false(terminated(transport))
  end)

  both("a refusal before its time is one, and the terminator is never sent", function(dribble)
    local receipt, err, transport = send(script(hello("PIPELINING"), ENVELOPE, "S: 250 1", "S: 250 2", "S: 354 go",
      "S: 552 5.3.4 too big", "hang"), streamed(), dribble)
    assert.is_nil(receipt)
    assert.are.same({ "rejected", "body", "not_sent", 552 }, fate(err))
    assert.is_false(terminated(transport))
  end)

  both("a surplus reply in the envelope shifts all behind it: the message is not sent", function(dribble)
    local receipt, err, transport = send(script(hello("PIPELINING"), ENVELOPE, "S: 250 1", "S: 250 1 again", "S: 250 2",
      "S: 354 go", "hang"), nil, dribble)
    assert.is_nil(receipt)
    assert.are.same({ "protocol", "data", "not_sent", 250 }, fate(err))
    assert.is_false(terminated(transport))
  end)

  both("a surplus reply behind the receipt spoils the next message, not this one", function(dribble)
    local s, transport = play.open(script(hello("PIPELINING"), ENVELOPE, "S: 250 1", "S: 250 2", "S: 354 go", CONTENT,
      "S: 250 in", "S: 250 surplus"), nil, dribble)
    assert.are.equal("in", s:send(letter()).reply.text)
    local written = #transport.pipe.written
    local receipt, err = s:send(letter())
    assert.is_nil(receipt)
    assert.are.same({ "protocol", "mail", "not_sent" }, fate(err))
    assert.are.equal(written, #transport.pipe.written)
  end)

  both("a 421 behind the receipt is told as such to the next message", function(dribble)
    local s = play.open(script(hello("PIPELINING"), ENVELOPE, "S: 250 1", "S: 250 2", "S: 354 go", CONTENT, "S: 250 in",
      "S: 421 4.7.0 enough for today"), nil, dribble)
    assert(s:send(letter()))
    local _, err = s:send(letter())
    assert.are.same({ "closed", "mail", "not_sent", 421 }, fate(err))
    assert.is_true(err.temporary)
  end)
end)

describe("a write that fails", function()
  for name, case in pairs {
    ["at the envelope, with a 421"] = { { "deaf", "S: 421 4.3.2 bye" }, "mail", "closed", 421 },
    ["at the envelope, with a 554"] = { { "deaf", "S: 554 5.7.1 blocked" }, "mail", "rejected", 554 },
    ["at the envelope, without a word"] = { { "deaf", "close" }, "mail", "closed" },
    ["at the envelope, with garbage"] = { { "deaf", "S: what?", "close" }, "mail", "closed" },
  } do
    both(name, function(dribble)
      local receipt, err = send(script(hello("PIPELINING"), case[1]), nil, dribble)
      assert.is_nil(receipt)
      assert.are.same({ case[3], case[2], "not_sent", case[4] }, fate(err))
      assert.are.equal(case[4] ~= 554, err.temporary)
    end)
  end

  it("in the middle of a large body", function()
    for _, words in ipairs { "S: 421 4.3.2 bye", "S: 552 5.3.4 too big", "S: 250 odd", "close" } do
      local receipt, err, transport = send(script(hello("PIPELINING"), ENVELOPE, "S: 250 1", "S: 250 2", "S: 354 go", "deaf",
        words, "close"), { raw = ("x\r\n"):rep(200000) })
      assert.is_nil(receipt)
      local code = tonumber(words:match("S: ([45]%d%d)"))
      assert.are.same({ code and "rejected" or "closed", "body", "not_sent", code }, fate(err))
      assert.are.equal(code ~= 552, err.temporary)
      assert.is_false(terminated(transport))
    end
  end)

  for _, case in ipairs {
    -- what the server said, and the outcome where the transport cannot tell how far it came
    { { "close" }, "unknown" },
    { { "S: 421 4.3.2 bye", "close" }, "not_sent", 421 },
    { { "S: 552 5.3.4 too big", "close" }, "not_sent", 552 },
    { { "S: 354 odd", "close" }, "unknown" },
    { { "S: 221 bye", "close" }, "unknown" },
    { { "S: 250 in", "close" }, "receipt" },
    { { "S: 250 in", "S: 421 bye", "close" }, "receipt" },
  } do
    both("at the end: " .. table.concat(case[1], ", "), function(dribble)
      local lines = script(hello("PIPELINING"), ENVELOPE, "S: 250 1", "S: 250 2", "S: 354 go", "deaf", case[1])
      for _, way in ipairs {
        function() return send(lines, nil, dribble) end,
        function() return send(lines, streamed(), dribble) end,
        function()
          local s = play.open(lines, nil, dribble)
          local receipt, err = s:send(letter())
          assert.are.equal("dead", s.state)
          return receipt, err
        end,
      } do
        local receipt, err = way()
        if case[2] == "receipt" and dribble then
          assert.are.equal("in", receipt.reply.text)
        else
          assert.is_nil(receipt)
          -- the pipe of the other variant can tell that nothing went out at all
          assert.are.same({ case[3] and "rejected" or "closed", "final", dribble and case[2] or "not_sent", case[3] }, fate(err))
        end
      end
    end)
  end
end)

describe("a secret that a server echoes later", function()
  it("is in no refused recipient either", function()
    local given = { tls = "implicit", username = "ada", password = "c4n4ry-c4n4ry", trace = true }
    local options, transport = play.options(script(hello("PIPELINING", "AUTH PLAIN"), "C~ ^AUTH PLAIN ", "S: 235 in", ENVELOPE,
      "S: 250 1", "S: 550 5.1.1 c4n4ry-c4n4ry", "S: 503 c4n4ry-c4n4ry", "C: QUIT", "S: 221 bye"), letter(given))
    local receipt, err = smtp.send(options)
    assert.is_nil(receipt)
    assert.is_nil(play.dump(err):find("c4n4ry", 1, true))
    assert.is_truthy(err.transcript:find("550 5.1.1 ****", 1, true))
    play.finished(transport)
  end)
end)
