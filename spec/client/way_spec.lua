-- The way to the content (connecting, greeting, EHLO, TLS, login, envelope) ends in time though no option says when; the
-- content and its final reply have the RFC's time (RFC 5321 4.5.3.2), as who is hasty there sends twice.
-- Of: client/connect, client/state
local clock = require "spec.support.clock"
local core = require "smtp.core"
local loopback = require "spec.support.loopback"
local smtp = require "smtp"

local huge = math.huge

-- A server by its turns: { seconds that it takes, what it then says }; huge: it never does.
local Pipe = {}
Pipe.__index = Pipe

-- Lets so many seconds pass, but none behind the deadline. False: they were more.
local function pass(seconds, deadline)
  local left = deadline - core.now()
  assert(math.min(seconds, left) < huge, "who waits here waits for ever")
  clock.pass(math.max(0, math.min(seconds, left)))
  return seconds <= left
end

function Pipe:read(deadline)
  local turn = self.turns[self.at] or { huge }
  local began = core.now()
  if not pass(turn[1], deadline) then
    turn[1] = turn[1] - (core.now() - began)
    return nil, "timeout", "nothing came"
  end
  self.at = self.at + 1
  return (turn[2]:gsub("\n", "\r\n") .. "\r\n")
end

function Pipe:write(bytes)
  self.written = self.written .. bytes
  return true
end

function Pipe:peek() return self.closed and "closed" or "idle" end
function Pipe:close() self.closed = true end

-- Options that reach such a server.
local function options(turns, given, connect, handshake)
  local transport = {}
  function transport.connect(_, _, _, deadline)
    if not pass(connect or 0, deadline) then return nil, "timeout", "no answer came" end
    transport.pipe = setmetatable({ turns = turns, at = 1, written = "", closed = false }, Pipe)
    return transport.pipe
  end
  function transport.secure(pipe, _, deadline)
    if not pass(handshake or 0, deadline) then return nil, "timeout", "no answer came" end
    pipe.info = { version = "TLSv1.3" }
    return pipe
  end
  -- port 25: a server that greets late is not asked whether it waits for TLS
  local all = { host = "mail.example.org", port = 25, tls = "none", helo = "client.example.org", transport = transport }
  for name, value in pairs(given or {}) do all[name] = value end
  return all, transport
end

-- The same with a letter.
local function letter(turns, given, ...)
  local all, transport = options(turns, given, ...)
  all.from, all.to = "ada@example.org", "grace@example.org"
  all.subject, all.text = all.raw == nil and "Hello" or nil, all.raw == nil and "Hello.\n" or nil
  return all, transport
end

-- What a call gives, and the seconds that it took.
local function timed(call, ...)
  local began = core.now()
  local result, err = call(...)
  return math.floor((core.now() - began) * 1e6 + 0.5) / 1e6, result, err
end

local function fate(err)
  return { err.kind, err.stage, err.outcome, err.temporary }
end

local HINT = "before the content a server has 60 seconds altogether: a slow one gets more by timeout or timeouts"
local PORT = "is this an SMTP port? 587 and 465 are usual for mail" -- more likely than a slow server
local GREETING, EHLO = "220 mail.example.org", "250-mail.example.org\n250 PIPELINING"
local ENVELOPE = "250 2.1.0 ok\n250 2.1.5 ok\n354 go on"
local LOGIN = { tls = "starttls", username = "ada", password = "secret", auth = "PLAIN" }
local CLEAR, OFFERED = "250-mail.example.org\n250 STARTTLS", "250-mail.example.org\n250-PIPELINING\n250 AUTH PLAIN"

before_each(clock.stop)
after_each(clock.go)

describe("the way to the content has 60 seconds altogether", function()
  -- The turns of a whole dialogue, with login: `seconds` each.
  local function all_turns(seconds)
    local turns = {}
    for i, words in ipairs { GREETING, CLEAR, "220 2.0.0 ready", OFFERED, "235 2.7.0 welcome", ENVELOPE, "250 2.0.0 ok" } do
      turns[i] = { seconds, words }
    end
    return turns
  end

  for silent, stage in ipairs { "greeting", "ehlo", "starttls", "ehlo", "auth", "mail" } do
    it(("and a server that falls silent at number %d, %s, is given up then"):format(silent, stage), function()
      local turns = all_turns(5)
      turns[silent][1] = huge
      local given, transport = letter(turns, LOGIN)
      local took, receipt, err = timed(smtp.send, given)
      assert.is_nil(receipt)
      assert.are.same({ "timeout", stage, "not_sent", true }, fate(err))
      assert.are.equal(60, took)
      assert.are.equal(stage == "greeting" and PORT or HINT, err.hint)
      assert.is_nil(transport.pipe.written:find("Subject", 1, true))
      assert.is_true(transport.pipe.closed)
    end)
  end

  it("and a server that is slow at each step is given up in the midst", function()
    for _, trace in ipairs { false, true } do
      local took, receipt, err = timed(smtp.send, (letter(all_turns(14), { tls = LOGIN.tls, username = "ada", password = "secret",
        trace = trace })))
      assert.is_nil(receipt)
      assert.are.same({ 60, "timeout", "auth" }, { took, err.kind, err.stage })
    end
  end)

  it("and recipients that are answered one by one share them", function()
    local turns = { { 1, GREETING }, { 1, "250 mail.example.org" }, { 1, "250 2.1.0 ok" } }
    for i = 4, 10 do turns[i] = { 20, "250 2.1.5 ok" } end
    local given = letter(turns, { to = nil })
    given.to = { "a@example.org", "b@example.org", "c@example.org", "d@example.org" }
    local took, receipt, err = timed(smtp.send, given)
    assert.is_nil(receipt)
    assert.are.same({ "timeout", "rcpt", "not_sent", true }, fate(err))
    assert.are.equal(60, took)
  end)

  it("and connecting and a handshake their own limit within", function()
    local took, receipt, err = timed(smtp.send, (letter({}, nil, huge)))
    assert.is_nil(receipt)
    assert.are.same({ "timeout", "connect", "not_sent", true }, fate(err))
    assert.are.equal(30, took)
    took, receipt, err = timed(smtp.send, (letter(all_turns(5), LOGIN, 10, huge)))
    assert.is_nil(receipt)
    assert.are.same({ "timeout", "tls", "not_sent", true }, fate(err))
    assert.are.equal(55, took)
    took, receipt, err = timed(smtp.send, (letter({}, { tls = "implicit" }, 25, huge)))
    assert.is_nil(receipt)
    assert.are.same({ "timeout", "tls", "not_sent", true }, fate(err))
    assert.are.equal(55, took)
  end)

  it("through a proxy too", function()
    local took, receipt, err = timed(smtp.send, (letter({ { 20, "HTTP/1.1 200 ok\n" }, { huge } }, { proxy = "http://localhost:80" })))
    assert.is_nil(receipt)
    assert.are.same({ "timeout", "greeting", "not_sent", true }, fate(err))
    assert.are.equal(60, took)
  end)

  it("with LMTP and with a login that goes along", function()
    local took, receipt, err = timed(smtp.send, (letter({ { 1, GREETING }, { huge } }, { lmtp = true })))
    assert.is_nil(receipt)
    assert.are.same({ 60, "ehlo" }, { took, err.stage })
    local turns = { { 20, GREETING }, { 20, "250-mail.example.org\n250-PIPELINING\n250 AUTH PLAIN" }, { huge } }
    took, receipt, err = timed(smtp.send, (letter(turns, { username = "ada", password = "secret", auth = "PLAIN", pipeline = "auth",
      allow_insecure_auth = true })))
    assert.is_nil(receipt)
    assert.are.same({ "timeout", "auth", "not_sent", true }, fate(err))
    assert.are.equal(60, took)
  end)

  it("and so do the two connections that a login which goes along may need", function()
    local offers = "250-mail.example.org\n250-PIPELINING\n250-CHUNKING\n250 AUTH PLAIN LOGIN"
    local answers = { auth = "504 no\n250 1\n250 2\n354 go on",
      ["auth+chunk"] = "504 no\n530 log in\n503 no\n503 no\n221 bye" }
    for pipeline, answer in pairs(answers) do
      local given, transport = letter({ { 10, GREETING }, { 10, offers }, { 10, answer } }, { username = "ada", password = "secret",
        pipeline = pipeline, allow_insecure_auth = true })
      local connect, connections = transport.connect, 0
      function transport.connect(...)
        connections = connections + 1
        local pipe = connect(...)
        if connections > 1 then pipe.turns = {} end
        return pipe
      end
      local took, receipt, err = timed(smtp.send, given)
      assert.is_nil(receipt)
      assert.are.same({ "timeout", "greeting", "not_sent", true }, fate(err))
      assert.are.same({ 2, 60 }, { connections, took })
    end
  end)

  it("and a server that wants content for nobody does not add to them", function()
    local took, receipt, err = timed(smtp.send, (letter({ { 10, GREETING }, { 10, EHLO },
      { 10, "250 2.1.0 ok\n550 5.1.1 nobody\n354 go on" }, { huge } })))
    assert.is_nil(receipt)
    assert.are.same({ "rejected", "rcpt", "not_sent", false }, fate(err))
    assert.are.equal(60, took)
  end)

  it("of smtp.verify as well, and its report says how far it came", function()
    local turns = all_turns(5)
    turns[4][1] = huge
    local given = options(turns, LOGIN)
    local took, report, err = timed(smtp.verify, given)
    assert.is_nil(report)
    assert.are.same({ 60, "timeout", "ehlo", HINT }, { took, err.kind, err.stage, err.hint })
    assert.are.equal(60, err.report.time)
    assert.is_false(err.report.steps[#err.report.steps].ok)
  end)

  it("where only the sockets below know of time", function()
    local listener = loopback.listen()
    local took, got = clock.run("read", smtp.send, { host = "127.0.0.1", port = listener.port, tls = "none",
      from = "ada@example.org", to = "grace@example.org", text = "Hello.\n" })
    listener.close()
    assert.is_nil(got[1])
    assert.are.same({ "timeout", "greeting", "not_sent", true }, fate(got[2]))
    assert.is_true(math.abs(took - 60) < 1e-6, took)
  end)
end)

describe("the content and its final reply keep their time", function()
  local BEFORE = { { 25, GREETING }, { 25, EHLO }, { 5, ENVELOPE } }

  local function behind(...)
    local turns = {}
    for i, turn in ipairs(BEFORE) do turns[i] = { turn[1], turn[2] } end
    for _, turn in ipairs { ... } do turns[#turns + 1] = turn end
    return turns
  end

  it("after a slow envelope", function()
    local took, receipt, err = timed(smtp.send, (letter(behind { 590, "250 2.0.0 ok" })))
    assert(receipt, err)
    assert.is_true(took >= 645 and took < 648, took)
  end)

  it("where the content comes from a function that takes its time", function()
    local count = 0
    local given = letter(behind { 590, "250 2.0.0 ok" }, { raw = function()
      count = count + 1
      if count > 3 then return nil end
      clock.pass(100)
      return "Subject: slowly\r\n"
    end })
    local took, receipt, err = timed(smtp.send, given)
    assert(receipt, err)
    assert.is_true(took >= 945, took)
  end)

  it("and a final reply that never comes is waited for as long as the RFC says", function()
    local took, receipt, err = timed(smtp.send, (letter(behind { huge })))
    assert.is_nil(receipt)
    assert.are.same({ "timeout", "final", "unknown", true }, fate(err))
    assert.are_not.equal(HINT, err.hint)
    assert.are.equal(655, took)
  end)

  local CHUNKS = "250-mail.example.org\n250-PIPELINING\n250 CHUNKING"

  it("in one group with the envelope, whose replies may come only behind the content's", function()
    for _, turn in ipairs { { 250, "250 2.1.0 ok\n250 2.1.5 ok\n250 2.0.0 ok" }, { 250, "250 2.1.0 ok\n250 2.1.5 ok" } } do
      local given = letter({ { 25, GREETING }, { 25, CHUNKS }, turn, { 590, "250 2.0.0 ok" } }, { pipeline = "chunk" })
      local _, receipt, err = timed(smtp.send, given)
      assert(receipt, err)
    end
    local given = letter({ { 25, GREETING }, { 25, CHUNKS }, { huge } }, { pipeline = "chunk" })
    local took, receipt, err = timed(smtp.send, given)
    assert.is_nil(receipt)
    assert.are.equal("unknown", err.outcome)
    assert.are.equal(350, took)
  end)

  it("in chunks", function()
    local pieces = { "Subject: Hello\r\n\r\n", "Hello.\r\n" }
    local given = letter({ { 25, GREETING }, { 25, CHUNKS }, { 5, "250 2.1.0 ok\n250 2.1.5 ok" }, { 590, "250 2.0.0 ok" } },
      { pipeline = "chunk", raw = function() return table.remove(pieces, 1) end })
    local _, receipt, err = timed(smtp.send, given)
    assert(receipt, err)
  end)

  it("with LMTP", function()
    local turns = { { 25, GREETING }, { 25, EHLO }, { 5, "250 2.1.0 ok\n250 2.1.5 ok\n250 2.1.5 ok\n354 go on" },
      { 590, "250 2.0.0 ok" }, { 590, "250 2.0.0 ok" } }
    local given = letter(turns, { lmtp = true })
    given.to = { "a@example.org", "b@example.org" }
    local _, receipt, err = timed(smtp.send, given)
    assert(receipt, err)
    assert.are.same(given.to, receipt.accepted)
  end)
end)

describe("what the caller says of the way", function()
  it("with timeout holds, longer or shorter", function()
    for timeout, seconds in pairs { [20] = 20, [100] = 100, [1000] = 300, [huge] = 300 } do
      for _, call in ipairs { smtp.send, smtp.verify } do
        local given = (call == smtp.send and letter or options)({ { huge } }, { timeout = timeout })
        local took, result, err = timed(call, given)
        assert.is_nil(result)
        assert.are.same({ seconds, "timeout", "greeting", "not_sent" }, { took, err.kind, err.stage, err.outcome })
        assert.are_not.equal(HINT, err.hint)
      end
    end
  end)

  for stage, turns in pairs {
    greeting = { { huge } }, command = { { 1, GREETING }, { huge } }, data = { { 1, GREETING }, { 1, EHLO },
      { 1, "250 2.1.0 ok\n250 2.1.5 ok" }, { huge } },
  } do
    it(("in timeouts with %s holds for that wait"):format(stage), function()
      for _, seconds in ipairs { 5, 60, 100, 400 } do
        local script = {}
        for i, turn in ipairs(turns) do script[i] = { turn[1], turn[2] } end
        local took, receipt, err = timed(smtp.send, (letter(script, { timeouts = { [stage] = seconds } })))
        assert.is_nil(receipt)
        assert.are.same({ seconds + #turns - 1, "timeout", "not_sent" }, { took, err.kind, err.outcome })
        assert.are_not.equal(HINT, err.hint)
      end
    end)
  end

  it("in timeouts with connect holds for connecting and the handshake", function()
    for _, seconds in ipairs { 5, 100 } do
      local took, receipt, err = timed(smtp.send, (letter({}, { timeouts = { connect = seconds } }, huge)))
      assert.is_nil(receipt)
      assert.are.same({ seconds, "timeout", "connect" }, { took, err.kind, err.stage })
    end
    local took, receipt, err = timed(smtp.send, (letter({}, { tls = "implicit", timeouts = { connect = 100 } }, 90, huge)))
    assert.is_nil(receipt)
    assert.are.same({ 190, "timeout", "tls" }, { took, err.kind, err.stage })
  end)

  it("in timeouts leaves the other waits their 60 seconds, of which it takes none", function()
    -- connecting and the handshake have a time of their own
    local took, receipt, err = timed(smtp.send, (letter({ { huge } }, { timeouts = { connect = 5 } }, 4)))
    assert.is_nil(receipt)
    assert.are.same({ 64, "timeout", "greeting", PORT }, { took, err.kind, err.stage, err.hint })
    took, receipt, err = timed(smtp.send, (letter({ { 90, GREETING }, { 50, EHLO }, { huge } }, { timeouts = { greeting = 100 } })))
    assert.is_nil(receipt)
    assert.are.same({ 150, "timeout", "mail", HINT }, { took, err.kind, err.stage, err.hint })
    took, receipt, err = timed(smtp.send, (letter({ { 50, GREETING }, { 90, EHLO }, { 90, "250 ok\n250 ok" }, { huge } },
      { timeouts = { command = 100 } })))
    assert.is_nil(receipt)
    assert.are.same({ 240, "timeout", "data", HINT }, { took, err.kind, err.stage, err.hint })
  end)

  it("in timeouts of the content alone leaves it as it is", function()
    for _, name in ipairs { "block", "final" } do
      local took, receipt, err = timed(smtp.send, (letter({ { huge } }, { timeouts = { [name] = 5 } })))
      assert.is_nil(receipt)
      assert.are.same({ 60, "timeout", "greeting" }, { took, err.kind, err.stage })
    end
  end)
end)

describe("the way has no end of its own", function()
  it("for a session, which may wait as the RFC says", function()
    for _, call in ipairs { smtp.connect, function(given) return assert(smtp.session(given)):connect() end } do
      local took, result, err = timed(call, (options({ { huge } })))
      assert.is_nil(result)
      assert.are.same({ 300, "timeout", "greeting" }, { took, err.kind, err.stage })
      assert.are_not.equal(HINT, err.hint)
    end
  end)

  it("for a pool", function()
    local pool = assert(smtp.pool((options({ { huge } }, { attempts = 1 }))))
    local took, receipt, err = timed(pool.send, pool, { from = "ada@example.org", to = "grace@example.org", text = "Hello.\n" })
    assert.is_nil(receipt)
    assert.are.same({ 300, "timeout", "greeting" }, { took, err.kind, err.stage })
  end)
end)
