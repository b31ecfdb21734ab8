-- Of: mail/finished
local play = require "spec.support.play"
local smtp = require "smtp"
local steps = require "spec.support.steps"

local hello, script = play.hello, play.script

local function compose(raw)
  return smtp.message { raw = raw, from = "ada@example.org", to = "bob@example.org" }
end

-- A function that gives a string in pieces of so many octets.
local function feed(s, size)
  local at = 1
  return function()
    if at > #s then return nil end
    at = at + size
    return s:sub(at - size, at - 1)
  end
end

-- What arrives, the same whether the message is a string or comes from a function, in whatever pieces.
local function arrives(raw)
  local mail = assert(compose(raw))
  local whole = assert(mail:tostring())
  assert.are.equal(#whole, mail:size())
  for _, size in ipairs { 1, 2, 3, 7, #raw + 1 } do
    assert.are.equal(whole, (assert(assert(compose(feed(raw, size))):tostring())), "in pieces of " .. size)
  end
  return whole
end

describe("Bcc in a finished message", function()
  local cases = {
    -- what it is, the message, what is left of it
    { "is taken out", "From: a@b\r\nBcc: x@y\r\nTo: c@d\r\n\r\nHi\r\n", "From: a@b\r\nTo: c@d\r\n\r\nHi\r\n" },
    { "is taken out where it comes first", "Bcc: x@y\r\nTo: c@d\r\n\r\nHi\r\n", "To: c@d\r\n\r\nHi\r\n" },
    { "is taken out where it comes last", "To: c@d\r\nBcc: x@y\r\n\r\nHi\r\n", "To: c@d\r\n\r\nHi\r\n" },
    { "is taken out where it is all", "Bcc: x@y\r\n\r\nHi\r\n", "\r\nHi\r\n" },
    { "is taken out without a body", "To: c@d\r\nBcc: x@y", "To: c@d\r\n" },
    { "is taken out with its folded lines", "Bcc: x@y,\r\n z@y,\r\n\tw@y\r\nTo: c@d,\r\n e@f\r\n\r\nHi\r\n", "To: c@d,\r\n e@f\r\n\r\nHi\r\n" },
    { "is taken out where its name is folded from its value", "Bcc:\r\n x@y\r\nTo: c@d\r\n\r\nHi\r\n", "To: c@d\r\n\r\nHi\r\n" },
    { "is taken out in any case", "BCC: x@y\r\nbCc: x@y\r\nbcc: x@y\r\nTo: c@d\r\n\r\nHi\r\n", "To: c@d\r\n\r\nHi\r\n" },
    { "is taken out with blanks before the colon", "Bcc : x@y\r\nBcc \t : x@y\r\nTo: c@d\r\n\r\nHi\r\n", "To: c@d\r\n\r\nHi\r\n" },
    { "is taken out with many blanks", "Bcc" .. (" "):rep(5000) .. ": x@y\r\nTo: c@d\r\n\r\nHi\r\n", "To: c@d\r\n\r\nHi\r\n" },
    { "is taken out without a blank", "Bcc:x@y\r\nTo: c@d\r\n\r\nHi\r\n", "To: c@d\r\n\r\nHi\r\n" },
    { "is taken out where it is empty", "Bcc:\r\nTo: c@d\r\n\r\nHi\r\n", "To: c@d\r\n\r\nHi\r\n" },
    { "is taken out several times", "Bcc: x@y\r\nBcc: z@y\r\nTo: c@d\r\nBcc: w@y\r\n\r\nHi\r\n", "To: c@d\r\n\r\nHi\r\n" },
    { "is taken out between lines that end with LF",
      "From: a@b\nBcc: x@y,\n z@y\nTo: c@d\n\nHi\n", "From: a@b\r\nTo: c@d\r\n\r\nHi\r\n" },
    { "is taken out between lines that end with CR", "From: a@b\rBcc: x@y,\r z@y\rTo: c@d\r\rHi\r", "From: a@b\r\nTo: c@d\r\n\r\nHi\r\n" },
    { "is taken out between a CR and the LF of a blank line", "A: b\rBcc: x@y\n\nHi\n", "A: b\r\n\r\nHi\r\n" },
    { "is taken out several times between a CR and an LF", "A: b\rBcc: x@y\n z\rBcc: w\n\nHi\n", "A: b\r\n\r\nHi\r\n" },
    { "is taken out behind a CR, between fields that end in LF", "A: b\r c\rBcc: x@y\nD: e\n\nHi\n", "A: b\r\n c\r\nD: e\r\n\r\nHi\r\n" },
    { "is taken out behind a CR, at the end", "A: b\rBcc: x@y\n", "A: b\r\n" },
    { "stays where no colon follows, between a CR and an LF", "A: b\rBcc\nC: d\n\nHi\n", "A: b\r\nBcc\r\nC: d\r\n\r\nHi\r\n" },
    { "is taken out, Resent-Bcc too", "Resent-Bcc: x@y\r\nRESENT-BCC :\r\n x@y\r\nTo: c@d\r\n\r\nHi\r\n", "To: c@d\r\n\r\nHi\r\n" },
    { "is taken out behind a long field",
      "X-A: " .. ("v"):rep(9000) .. "\r\nBcc: x@y\r\n\r\nHi\r\n", "X-A: " .. ("v"):rep(9000) .. "\r\n\r\nHi\r\n" },
    { "stays in the body", "To: c@d\r\n\r\nBcc: x@y\r\n\r\nBcc: x@y\r\n z\r\n", "To: c@d\r\n\r\nBcc: x@y\r\n\r\nBcc: x@y\r\n z\r\n" },
    { "stays in the body, with LF", "To: c@d\n\nBcc: x@y\n", "To: c@d\r\n\r\nBcc: x@y\r\n" },
    { "stays where there is no header", "\r\nBcc: x@y\r\n", "\r\nBcc: x@y\r\n" },
    { "stays in another field", "Subject: a\r\n Bcc: x@y\r\n\tBcc: x\r\n\r\nHi\r\n", "Subject: a\r\n Bcc: x@y\r\n\tBcc: x\r\n\r\nHi\r\n" },
    { "stays where another name begins or ends so", "Bccx: 1\r\nX-Bcc: 2\r\nBc: 3\r\nB: 4\r\nResent-Bccx: 5\r\nResent-B: 6\r\nBcc-X: 7\r\n\r\n",
      "Bccx: 1\r\nX-Bcc: 2\r\nBc: 3\r\nB: 4\r\nResent-Bccx: 5\r\nResent-B: 6\r\nBcc-X: 7\r\n\r\n" },
    { "stays where no colon follows", "To: c@d\r\nBcc\r\nBcc x: y\r\nBcc \r\n\r\nHi\r\n", "To: c@d\r\nBcc\r\nBcc x: y\r\nBcc \r\n\r\nHi\r\n" },
    { "stays where the message ends in its name", "To: c@d\r\nBcc", "To: c@d\r\nBcc\r\n" },
    { "stays where the message ends in the blanks behind it", "To: c@d\r\nBcc  ", "To: c@d\r\nBcc  \r\n" },
  }
  for _, case in ipairs(cases) do
    it(case[1], function()
      assert.are.equal(case[3], arrives(case[2]))
    end)
  end

  it("is taken out of large messages", function()
    local body = ("A line of the body.\r\n"):rep(20000)
    assert.are.equal("To: c@d\r\n\r\n" .. body, assert(compose("Bcc: x@y\r\nTo: c@d\r\n\r\n" .. body)):tostring())
    assert.are.equal("To: c@d\r\n\r\n" .. body, assert(compose(feed("Bcc: x@y\r\nTo: c@d\r\n\r\n" .. body, 1000))):tostring())
  end)

  it("is not part of the size that the server is told", function()
    local s, transport = play.open(script(hello("SIZE"), "C: MAIL FROM:<ada@example.org> SIZE=15", "S: 550 enough"))
    assert.is_nil((s:send { raw = "Bcc: x@y\r\nTo: c@d\r\n\r\nHi\r\n", from = "ada@example.org", to = "bob@example.org" }))
    play.finished(transport)
  end)

  it("does not go out over the wire, from a string or a function", function()
    local raw = "Message-ID: <1@example.org>\r\nBcc: eve@example.org\r\n\r\nHi\r\n"
    for _, given in ipairs { raw, feed(raw, 9) } do
      local s, transport = play.open(script(hello("PIPELINING"), "C: MAIL FROM:<ada@example.org>", "C: RCPT TO:<bob@example.org>", "C: DATA",
        "S: 250 1", "S: 250 2", "S: 354 go", "C: Message-ID: <1@example.org>", "C: ", "C: Hi", "C: .", "S: 250 in"))
      assert(s:send { raw = given, from = "ada@example.org", to = "bob@example.org" })
      play.finished(transport)
    end
  end)

  it("costs linear time, whatever pieces it comes in #linear", function()
    for _, make in ipairs { function(n) return ("Bcc"):rep(n) end, function(n) return "Bcc" .. (" "):rep(n) end,
      function(n) return ("Bcc: x\r\n"):rep(n) end, function(n) return ("Bcc \r\n"):rep(n) end, function(n) return ("\r\n "):rep(n) end } do
      local function cost(n)
        local mail = assert(compose(feed(make(n), 1)))
        return steps(function() assert(mail:tostring()) end)
      end
      local once, twice = cost(2000), cost(4000)
      assert.is_true(twice <= 2.2 * once + 100, ("%d, then %d"):format(once, twice))
    end
  end)
end)

describe("A long header of a finished message", function()
  -- A line of it, and the instructions (in tens) that an octet may cost.
  for line, most in pairs {
    ["X-Header: a value that is neither short nor long\r\n"] = 0.02, ["X-A: b\r\n folded\r\n"] = 0.02, ["X-A: b\n"] = 0.02,
    ["Received: from a.example.org\r\n\tby b.example.org; now\r\n"] = 0.15, ["B: c\r\n"] = 1.5,
  } do
    it(("is hardly looked at where nothing is to be taken out: %q"):format(line), function()
      local raw = line:rep(math.ceil(600000 / #line)) .. "\r\n"
      local whole = steps(compose, raw)
      assert.is_true(whole < most * #raw, whole)
      local pieces = steps(function()
        local read = compose(feed(raw, 65536)):source()
        repeat until not read()
      end)
      assert.is_true(pieces < most * #raw, pieces)
    end)
  end

  it("is the same in whatever pieces, with lines that end otherwise and a Bcc among them", function()
    local filler = ("X: y\r\n"):rep(900)
    local raw = filler .. "B: 1\rBcc: a\nBc\n bcc: no\r\nResent-Bcc : a\r\n b\r\nRese: x\rX: y\r\rbody\nBcc: c\n"
    local wanted = (filler .. "B: 1\rBc\n bcc: no\r\nRese: x\rX: y\r\rbody\nBcc: c\n"):gsub("\r\n", "\n"):gsub("[\r\n]", "\r\n")
    for size = 1, 40 do assert.are.equal(wanted, compose(feed(raw, size)):tostring()) end
    assert.are.equal(wanted, compose(raw):tostring())
  end)
end)

describe("NUL in a finished message", function()
  for _, raw in ipairs { "A: b\r\n\r\n\0", "A: \0b\r\n\r\n", "\0", "A: b\r\nBcc: \0\r\n\r\nx" } do
    it(("is refused in a string: %q"):format(raw), function()
      local mail, err = compose(raw)
      assert.is_nil(mail)
      assert.are.same({ "input", "compose", "not_sent" }, { err.kind, err.stage, err.outcome })
      assert.is_truthy(err.reason:find("^raw: a NUL"))
    end)

    it(("ends the connection where a function gives it: %q"):format(raw), function()
      for _, size in ipairs { 1, 100 } do
        local s, transport = play.open(script(hello("PIPELINING", "8BITMIME"), "C: MAIL FROM:<ada@example.org> BODY=8BITMIME",
          "C: RCPT TO:<bob@example.org>", "C: DATA", "S: 250 1", "S: 250 2", "S: 354 go", "hang"))
        local receipt, err = s:send { raw = feed(raw, size), from = "ada@example.org", to = "bob@example.org" }
        assert.is_nil(receipt)
        assert.are.same({ "source", "body", "not_sent", false }, { err.kind, err.stage, err.outcome, err.temporary })
        assert.is_truthy(err.reason:find("a NUL", 1, true))
        assert.are.equal("dead", s.state)
        assert.is_nil(play.written(transport):find("[%z]"))
        assert.is_nil(play.written(transport):find("\r\n.\r\n", 1, true))
      end
    end)
  end
end)

describe("Octets beyond ASCII in a finished message, and no 8BITMIME", function()
  local RAW = "Subject: x\r\n\r\nAscii first.\r\nGr\195\188n\r\n"
  local ENVELOPE = { "C: MAIL FROM:<ada@example.org>", "C: RCPT TO:<bob@example.org>", "C: DATA" }

  it("refuses a string before MAIL; the session lives on", function()
    local s, transport = play.open(script(hello("PIPELINING"), "C: NOOP", "S: 250 ok"))
    local receipt, err = s:send { raw = RAW, from = "ada@example.org", to = "bob@example.org" }
    assert.is_nil(receipt)
    assert.are.same({ "input", "mail", "not_sent" }, { err.kind, err.stage, err.outcome })
    assert.is_truthy(err.reason:find("8BITMIME", 1, true))
    assert(s:noop())
    play.finished(transport)
  end)

  for name, offers in pairs { ["by DATA"] = { "PIPELINING" }, ["step by step"] = { "SIZE" }, ["by BDAT"] = { "PIPELINING", "CHUNKING" } } do
    it("ends the connection at the first of them from a function, " .. name, function()
      local chunked = offers[2] == "CHUNKING"
      for _, size in ipairs { 1, 1000 } do
        local lines = { ENVELOPE[1], "S: 250 1", ENVELOPE[2], "S: 250 2", ENVELOPE[3], "S: 354 go" }
        if chunked then
          lines = { ENVELOPE[1], ENVELOPE[2], "S: 250 1", "S: 250 2" }
        elseif offers[1] == "PIPELINING" then
          lines = { ENVELOPE, "S: 250 1", "S: 250 2", "S: 354 go" }
        end
        local s, transport = play.open(script(hello((table.unpack or unpack)(offers)), lines, "hang"),
          { pipeline = chunked and "chunk" or nil })
        local receipt, err = s:send { raw = feed(RAW, size), from = "ada@example.org", to = "bob@example.org" }
        assert.is_nil(receipt)
        assert.are.same({ "source", "body", "not_sent", false }, { err.kind, err.stage, err.outcome, err.temporary })
        assert.is_truthy(err.reason:find("8BITMIME", 1, true), err.reason)
        assert.are.equal("dead", s.state)
        assert.is_true(transport.pipe.closed)
        local written = play.written(transport)
        assert.is_nil(written:find("[\128-\255]"))
        assert.is_nil(written:find("\r\n.\r\n", 1, true))
        assert.is_nil(written:find("LAST", 1, true))
      end
    end)
  end

  it("is no fault where the only ones stood in Bcc", function()
    local raw = "Subject: x\r\nBcc: Gr\195\188n <x@y>\r\n\r\nHi\r\n"
    for _, given in ipairs { raw, feed(raw, 9) } do
      local s, transport = play.open(script(hello("PIPELINING"), ENVELOPE, "S: 250 1", "S: 250 2", "S: 354 go",
        "C: Subject: x", "C: ", "C: Hi", "C: .", "S: 250 in"))
      assert(s:send { raw = given, from = "ada@example.org", to = "bob@example.org" })
      play.finished(transport)
    end
  end)

  it("goes from a function where the server does offer it", function()
    local s, transport = play.open(script(hello("PIPELINING", "8BITMIME"), ENVELOPE[1] .. " BODY=8BITMIME", ENVELOPE[2], ENVELOPE[3],
      "S: 250 1", "S: 250 2", "S: 354 go", "C: Subject: x", "C: ", "C: Ascii first.", "C: Gr\195\188n", "C: .", "S: 250 in"))
    assert(s:send { raw = feed(RAW, 9), from = "ada@example.org", to = "bob@example.org" })
    play.finished(transport)
    assert.are.equal(RAW, assert(compose(feed(RAW, 9))):tostring())
  end)
end)

describe("A line of a finished message", function()
  it("goes as it is, however long", function()
    local raw = "X-A: " .. ("v"):rep(2000) .. "\r\n\r\n" .. ("w"):rep(3000) .. "\r\n"
    assert.are.equal(raw, arrives(raw))
  end)
end)
