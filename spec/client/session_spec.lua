local core = require "smtp.core"
local play = require "spec.support.play"
local smtp = require "smtp"
local together = require "spec.support.together"

local hello, script = play.hello, play.script
local both = function(name, body) play.both(it, name, body) end

-- The fields of an error that a caller decides by.
local function fate(err)
  return { err.kind, err.stage, err.outcome, err.code }
end

-- Lets the collector take what nobody has any more.
local function forget()
  collectgarbage()
  collectgarbage()
end

local function b64(...)
  return core.base64(table.concat({ ... }))
end

describe("each verb alone", function()
  -- name, what it says, the session's call, a good reply, the stage
  local VERBS = {
    { "mail", "MAIL FROM:<ada@example.org>", function(s) return s:mail "ada@example.org" end, "250 2.1.0 ok" },
    { "mail with parameters", "MAIL FROM:<> BODY=8BITMIME SIZE=10 SMTPUTF8",
      function(s) return s:mail("", { SIZE = 10, BODY = "8BITMIME", SMTPUTF8 = true }) end, "250 2.1.0 ok", "mail" },
    { "rcpt", "RCPT TO:<bob@example.org> NOTIFY=NEVER",
      function(s) return s:rcpt("Bob <bob@example.org>", { NOTIFY = "NEVER" }) end, "251 2.1.5 will forward" },
    { "reset", "RSET", function(s) return s:reset() end, "250 2.0.0 ok" },
    { "noop", "NOOP", function(s) return s:noop() end, "250 2.0.0 ok" },
    { "verify", "VRFY bob", function(s) return s:verify "bob" end, "252 2.5.2 send it and see" },
    { "quit", "QUIT", function(s) return s:quit() end, "221 2.0.0 bye" },
    { "data", "DATA", function(s) return s:data "x" end },
    { "ehlo", "EHLO other.example.org", function(s) return s:ehlo "other.example.org" end, "250 mail.example.org" },
  }

  for _, verb in ipairs(VERBS) do
    local name, line, call, good, stage = verb[1], verb[2], verb[3], verb[4], verb[5] or verb[1]

    if good then
      both(name .. ": done", function(dribble)
        local s, transport = play.open(script(hello "SMTPUTF8", "C: " .. line, "S: " .. good), nil, dribble)
        local reply = assert(call(s))
        assert.are.equal(tonumber(good:sub(1, 3)), reply.code)
        assert.are.equal(good:match("^%d+ (%d%.%d%.%d)"), reply.enhanced)
        assert.are.equal(name == "quit" and "closed" or "ready", s.state)
        play.finished(transport)
      end)
    end

    for _, case in ipairs {
      { "S: 450 4.2.0 later", "rejected", 450, true, false },
      { "S: 550 5.2.0 never", "rejected", 550, false, false },
      { "S: 421 4.3.2 closing", "rejected", 421, true, true },
      { name ~= "data" and "S: 334 odd" or "S: 250 odd", "protocol", name ~= "data" and 334 or 250, false, true },
      { "S: what?", "protocol", nil, false, true },
      { "S! 250-a\r\n251 b\r\n", "protocol", nil, false, true },
      { "close", "closed", nil, true, true },
      { "hang", "timeout", nil, true, true },
    } do
      local event, kind, code, temporary, dead = case[1], case[2], case[3], case[4], case[5]
      local ehlo_helo = name == "ehlo" and code == 550
      both(("%s: %q"):format(name, event), function(dribble)
        local helo = ehlo_helo and { "C: HELO other.example.org", "S: 550 5.2.0 never" } or {}
        local s, transport = play.open(script(hello "SMTPUTF8", "C: " .. line, event, helo), nil, dribble)
        local reply, err = call(s)
        assert.is_nil(reply)
        assert.are.same({ kind, stage, "not_sent", code }, fate(err))
        assert.are.equal(temporary, err.temporary)
        assert.are.equal(code == 450 and "later" or code == 550 and "never" or err.text, err.text)
        assert.are.equal(dead and "dead" or name == "quit" and "closed" or "ready", s.state)
        if dead then
          local written = #transport.pipe.written
          for _, other in ipairs(VERBS) do
            reply, err = other[3](s)
            assert.is_nil(reply)
            assert.are.equal("closed", err.kind)
            assert.is_truthy(err.reason:find("dead", 1, true), err.reason)
            assert.is_truthy(err.reason:find(kind, 1, true), err.reason)
          end
          assert.are.equal(written, #transport.pipe.written)
          assert.is_true(transport.pipe.closed)
        end
      end)
    end
  end

  both("mail and rcpt: nothing beyond ASCII and no SMTPUTF8 to a server that does not offer it", function(dribble)
    for name, call in pairs {
      rcpt = function(s) return s:rcpt "j\195\182rg@example.org" end,
      ["rcpt with a name"] = function(s) return s:rcpt "J <j\195\182rg@example.org>" end,
      mail = function(s) return s:mail("j\195\182rg@example.org", { SMTPUTF8 = true }) end,
      ["mail of an ASCII address"] = function(s) return s:mail("ada@example.org", { SMTPUTF8 = true }) end,
      ["mail of nobody, in small letters"] = function(s) return s:mail("", { smtputf8 = true }) end,
    } do
      local s, transport = play.open(script(hello("8BITMIME"), "C: MAIL FROM:<ada@example.org>", "S: 250 1", "C: NOOP", "S: 250 ok"),
        nil, dribble)
      assert(s:mail("ada@example.org", { SMTPUTF8 = false }))
      local reply, err = call(s)
      assert.is_nil(reply, name)
      assert.are.same({ "input", name:sub(1, 4), "not_sent" }, fate(err))
      assert.is_truthy(err.reason:find("SMTPUTF8", 1, true))
      assert(s:noop())
      play.finished(transport)
    end
  end)

  both("rcpt: beyond ASCII only where MAIL had SMTPUTF8", function(dribble)
    local s, transport = play.open(script(hello("SMTPUTF8"), "C: MAIL FROM:<ada@example.org>", "S: 250 1", "C: RSET", "S: 250 0",
      "C: MAIL FROM:<ada@example.org> SMTPUTF8", "S: 250 1", "C: RCPT TO:<j\195\182rg@example.org>", "S: 250 2"), nil, dribble)
    assert(s:mail "ada@example.org")
    local reply, err = s:rcpt "j\195\182rg@example.org"
    assert.is_nil(reply)
    assert.are.same({ "input", "rcpt", "not_sent" }, fate(err))
    assert(s:reset())
    assert(s:mail("ada@example.org", { SMTPUTF8 = true }))
    assert(s:rcpt "j\195\182rg@example.org")
    play.finished(transport)
  end)

  -- RFC 5321 4.5.3.1.10
  for _, case in ipairs {
    { "552 too many recipients", true }, { "552 Too many recipients received this hour", true }, { "552 5.5.3 no more", true },
    { "550 5.5.3 no more", true }, { "552 no more", false, true }, { "452 4.5.3 no more", true },
    { "552 5.2.2 mailbox full", false }, { "550 5.1.1 nobody", false }, { "550 no such user, too many have tried", false },
  } do
    both(("rcpt: %q may be one recipient too many, and is temporary then"):format(case[1]), function(dribble)
      local s = play.open(script(hello(), "C: RCPT TO:<a@example.org>", "S: " .. case[1], "C: RCPT TO:<b@example.org>", "S: 250 ok",
        "C: RCPT TO:<c@example.org>", "S: " .. case[1]), nil, dribble)
      local _, err = s:rcpt "a@example.org"
      assert.are.equal(case[2], err.temporary)
      assert(s:rcpt "b@example.org")
      _, err = s:rcpt "c@example.org"
      assert.are.equal(case[2] or case[3] or false, err.temporary)
      assert.are.same({ "rejected", "rcpt", "not_sent", tonumber(case[1]:sub(1, 3)) }, fate(err))
    end)
  end

  both("data: content with dots and every line end", function(dribble)
    local s, transport = play.open(script(hello(), "C: DATA", "S: 354 go", "C: ..a", "C: b", "C: c", "C: ...", "C: .",
      "S: 250 2.0.0 taken"), nil, dribble)
    assert.are.equal("taken", s:data(".a\nb\rc\r\n..").text)
    play.finished(transport)
  end)

  it("data: a function, a message, an empty string", function()
    local s, transport = play.open(script(hello(), "C: DATA", "S: 354 go", "C: ab", "C: .", "S: 250 1",
      "C: DATA", "S: 354 go", "C: Subject: hi", "C: .", "S: 250 2", "C: DATA", "S: 354 go", "C: .", "S: 250 3"))
    local chunks = { "a", "", "b" }
    assert(s:data(function() return table.remove(chunks, 1) end))
    assert(s:data(smtp.message { from = "a@example.org", to = "b@example.org", raw = "Subject: hi\r\n" }))
    assert(s:data "")
    play.finished(transport)
    assert.has_error(function() s:data(7) end)
  end)

  both("command: any line, whatever it is answered", function(dribble)
    local s, transport = play.open(script(hello(), "C: HELP me", "S: 214-one", "S: 214 two", "C: X", "S: 500 5.5.1 no",
      "C: Y", "S: 334 odd"), nil, dribble)
    assert.are.equal("one\ntwo", s:command("HELP me").text)
    assert.are.same({ code = 500, enhanced = "5.5.1", text = "no" }, s:command "X")
    assert.are.equal(334, s:command("Y").code)
    play.finished(transport)
  end)
end)

describe("a session's state", function()
  local function every_verb(s, visit)
    for _, call in ipairs {
      function() return s:ehlo() end, function() return s:starttls() end,
      function() return s:auth { username = "u", password = "p" } end, function() return s:mail "a@example.org" end,
      function() return s:rcpt "b@example.org" end, function() return s:data "x" end, function() return s:reset() end,
      function() return s:noop() end, function() return s:verify "a" end, function() return s:command "X" end,
      function() return s:send { from = "a@example.org", to = "b@example.org", text = "x" } end,
    } do
      visit(call())
    end
  end

  it("before connect: every verb says so", function()
    local s = play.session {}
    assert.are.equal("new", s.state)
    every_verb(s, function(reply, err)
      assert.is_nil(reply)
      assert.are.equal("closed", err.kind)
      assert.is_truthy(err.reason:find("connect()", 1, true))
    end)
  end)

  it("after close: every verb says so, and close is idempotent", function()
    local s, transport = play.open(hello())
    s:close()
    s:close()
    assert.are.equal("closed", s.state)
    every_verb(s, function(reply, err)
      assert.is_nil(reply)
      assert.are.equal("closed", err.kind)
    end)
    assert.is_nil((s:connect()))
    assert.are.equal(1, #transport.pipe.written)
    s:close()
  end)

  it("close before connect is no crime, and connect is refused then", function()
    local s = play.session(hello())
    s:close()
    local reply, err = s:connect()
    assert.is_nil(reply)
    assert.are.equal("input", err.kind)
  end)

  both("close means closed, in whichever wait of connecting: no verb undoes it, and no mail goes out", function(dribble)
    local LOGIN = { username = "ada", password = "pencil-case", tls = "starttls", trace = true }
    local lines = script(hello("STARTTLS"), "C: STARTTLS", "S: 220 go", play.ehlo("AUTH PLAIN"), "C~ ^AUTH PLAIN ", "S: 235 in",
      "C: MAIL FROM:<ada@example.org>", "S: 250 1", "C: RCPT TO:<bob@example.org>", "S: 250 2", "C: DATA", "S: 354 go", "C~ .",
      "C~ .", "C: ", "C: .", "S: 250 in")
    local hook
    local options, transport = play.options(lines, LOGIN, dribble)
    -- each wait of the transport ends well although the session is closed meanwhile
    local connect, secure = transport.connect, transport.secure
    function transport.connect(...)
      local pipe = connect(...)
      local read = pipe.read
      pipe.receive = nil
      function pipe.read(this)
        local bytes, kind, reason = read(this)
        hook()
        return bytes, kind, reason
      end
      hook()
      return pipe
    end
    function transport.secure(pipe)
      hook()
      return secure(pipe)
    end
    local at, steps, s = 0, nil, nil
    function hook()
      steps = steps + 1
      if steps == at then s:close() end
    end
    repeat
      at, steps, s = at + 1, 0, assert(smtp.session(options))
      local opened, err = s:open()
      local last = steps < at
      assert.are.equal(last, opened ~= nil)
      if not last then
        assert.are.same({ "closed", "not_sent" }, { err.kind, err.outcome }, tostring(err))
        local receipt
        receipt, err = s:send { from = "ada@example.org", to = "bob@example.org", raw = "A: b\n\nc" }
        assert.is_nil(receipt)
        assert.are.same({ "closed", "not_sent", "the session is closed" }, { err.kind, err.outcome, err.reason })
        assert.are.equal("closed", s.state)
        assert.is_true(transport.pipe.closed)
        assert.is_nil(table.concat(transport.pipe.written):find("MAIL", 1, true))
      end
    until last
    assert.is_true(at > 6)
    -- who listens to what is said may close it too
    options.trace = function(_, line)
      if line:find("^235") then s:close() end
    end
    s = assert(smtp.session(options))
    s:open()
    assert.are.equal("closed", s.state)
    assert.is_nil((s:send { from = "ada@example.org", to = "bob@example.org", text = "c" }))
  end)

  it("close means closed, also in a handshake of TLS and over sockets", function()
    local server = assert(smtp.server { tls = "starttls" })
    local count, opened = 0
    repeat
      count = count + 1
      local s = assert(smtp.session { host = "localhost", port = server.port, ca_file = server.certificate })
      local task, stop = smtp.task(function() return s:open() end), core.now() + 60
      local function step()
        server:step(0)
        return task:step()
      end
      local what
      for _ = 1, count do
        what = step()
      end
      opened = what == "done"
      s:close()
      local reply, err
      repeat
        what, reply, err = step()
        assert(core.now() < stop)
      until what == "done"
      assert.are.equal("closed", s.state)
      if not opened then
        assert.is_nil(reply)
        assert.are.equal("not_sent", err.outcome)
        assert.is_nil((s:send { from = "ada@example.org", to = "bob@example.org", text = "c" }))
      end
    until opened
    server:step(0)
    assert.are.same({}, server.inbox)
    server:close()
  end)

  it("connect, ehlo: new, connected, ready", function()
    local s = play.session(hello("PIPELINING", "SIZE 1000"))
    assert.are.equal(220, assert(s:connect()).code)
    assert.are.equal("connected", s.state)
    assert.are.equal("mail.example.org ESMTP", s.greeting.text)
    assert(s:ehlo())
    assert.are.equal("ready", s.state)
    assert.are.same({ PIPELINING = true, SIZE = "1000" }, s.capabilities)
    assert.are.equal("input", select(2, s:connect()).kind)
    assert.are.equal("ready", s.state)
  end)

  it("no message before ehlo", function()
    local s, transport = play.session { "S: 220 hi" }
    s:connect()
    local receipt, err = s:send { from = "a@example.org", to = "b@example.org", text = "x" }
    assert.is_nil(receipt)
    assert.are.equal("input", err.kind)
    assert.are.equal(0, #transport.pipe.written)
  end)

  it("an idle server's 421 is told as what it is", function()
    local s, transport = play.open(script(hello(), "S: 421 4.3.2 idle for too long"))
    local reply, err = s:noop()
    assert.is_nil(reply)
    assert.are.same({ "closed", "noop", "not_sent", 421 }, fate(err))
    assert.is_true(err.temporary)
    assert.are.equal(1, #transport.pipe.written)
  end)

  both("a 421 behind the last reply too", function(dribble)
    local s = play.open(script(hello(), "C: NOOP", "S: 250 ok", "S: 421 4.3.2 bye"), nil, dribble)
    assert(s:noop())
    assert.are.same({ "closed", "noop", "not_sent", 421 }, fate(select(2, s:noop())))
  end)

  both("a surplus reply never pairs with the next command", function(dribble)
    local s, transport = play.open(script(hello(), "C: NOOP", "S: 250 ok", "S: 250 surplus"), nil, dribble)
    assert(s:noop())
    local reply, err = s:verify "bob"
    assert.is_nil(reply)
    assert.are.same({ "protocol", "verify", "not_sent" }, fate(err))
    assert.are.equal(2, #transport.pipe.written)
    assert.are.equal("dead", s.state)
  end)

  it("a session whose task was dropped while a reply was due is dead", function()
    local server = assert(smtp.server { tls = "none" })
    local s
    together.run(function() s = assert(smtp.connect { host = "127.0.0.1", port = server.port, tls = "none" }) end, server)
    local task = smtp.task(function() return s:noop() end)
    assert.are_not.equal("done", (task:step()))
    task = nil -- luacheck: ignore
    forget()
    local reply, err = s:noop()
    assert.is_nil(reply)
    assert.are.equal("protocol", err.kind)
    assert.are.equal("dead", s.state)
    server:close()
  end)

  it("a session whose task was dropped, in whichever wait, has not sent the next message", function()
    local lines = script(hello(), "C: MAIL FROM:<ada@example.org>", "S: 250 1", "C: RCPT TO:<bob@example.org>", "S: 250 2", "C: DATA",
      "S: 354 go", "C: A: b", "C: .", "S: 250 in")
    for _, pipeline in ipairs { "auto", "chunk" } do
      local at, waits = 0, nil
      repeat
        at, waits = at + 1, 0
        local s, transport = play.open(pipeline == "auto" and lines or script(hello("PIPELINING", "CHUNKING"),
          "C: MAIL FROM:<ada@example.org>", "C: RCPT TO:<bob@example.org>", "C: BDAT 6 LAST", "C: A: b", "S: 250 1", "S: 250 2",
          "S: 250 in"), { pipeline = pipeline }, true)
        local read = transport.pipe.read
        function transport.pipe.read(self)
          waits = waits + 1
          if waits == at then coroutine.yield() end
          return read(self)
        end
        local letter = { from = "ada@example.org", to = "bob@example.org", raw = "A: b" }
        local thread = coroutine.create(function() assert(s:send(letter)) end)
        assert(coroutine.resume(thread))
        local dropped = coroutine.status(thread) == "suspended"
        thread = nil -- luacheck: ignore
        forget()
        if dropped then
          local receipt, err = s:send(letter)
          assert.is_nil(receipt)
          assert.are.same({ "protocol", "mail", "not_sent" }, fate(err))
          assert.are.equal("dead", s.state)
        end
      until not dropped
      assert.is_true(at > 3)
    end
  end)

  it("a session that was broken off in the middle of content never takes a command for content", function()
    local s, transport = play.open(script(hello(), "C: DATA", "S: 354 go"))
    local inside = coroutine.create(function() s:data(("half a message\n"):rep(40000)) end)
    local plain = getmetatable(transport.pipe).__index.write
    transport.pipe.write = function(self, bytes, ...)
      if not bytes:find("^DATA") then coroutine.yield() end
      return plain(self, bytes, ...)
    end
    assert(coroutine.resume(inside))
    assert.are.equal("suspended", coroutine.status(inside))
    transport.pipe.write = nil
    inside = nil -- luacheck: ignore
    forget()
    local reply, err = s:noop()
    assert.is_nil(reply)
    assert.are.same({ "protocol", "dead" }, { err.kind, s.state })
    assert.is_nil(play.written(transport):find("NOOP", 1, true))
  end)
end)

describe("connect", function()
  for _, case in ipairs {
    { "S: 554 5.3.2 no mail here", "rejected", 554 },
    { "S: 421 4.3.2 busy", "rejected", 421 },
    { "S: 354 odd", "protocol", 354 },
    { "S: SSH-2.0-OpenSSH_9.2", "protocol" },
    { "S! 220-endless\r\n", "closed" },
    { "close", "closed" },
    { "hang", "timeout" },
  } do
    both(("a greeting of %q"):format(case[1]), function(dribble)
      local s, transport = play.session({ case[1], "close" }, nil, dribble)
      local reply, err = s:connect()
      assert.is_nil(reply)
      assert.are.same({ case[2], "greeting", "not_sent", case[3] }, fate(err))
      assert.are.equal("", case[1] == "hang" and "" or play.written(transport))
      assert.is_true(s.state == "dead" or s.state == "closed")
      assert.is_nil((s:ehlo()))
    end)
  end

  for kind, stage in pairs { connect = "connect", resolve = "resolve", timeout = "connect" } do
    it("a transport's " .. kind .. " error", function()
      local transport = { connect = function() return nil, kind, "no luck", kind ~= "resolve" end }
      local s = smtp.session { host = "mail.example.org", transport = transport, tls = "none" }
      local reply, err = s:connect()
      assert.is_nil(reply)
      assert.are.same({ kind, stage, "not_sent" }, fate(err))
      assert.are.equal("mail.example.org: no luck", err.reason)
      assert.are.equal(kind ~= "resolve", err.temporary)
      assert.are.equal("dead", s.state)
      assert.is_nil((s:connect()))
    end)
  end
end)

describe("ehlo", function()
  it("falls back to HELO where nothing needs EHLO", function()
    for _, tls in ipairs { "none", "opportunistic" } do
      local s, transport = play.open({ "S: 220 hi", "C: EHLO client.example.org", "S: 502 5.5.1 what?",
        "C: HELO client.example.org", "S: 250 hi" }, { tls = tls })
      assert.are.same({}, s.capabilities)
      assert.are.equal("ready", s.state)
      play.finished(transport)
    end
  end)

  for name, given in pairs {
    ["TLS is required"] = { tls = "starttls" },
    ["a login is owed"] = { username = "u", password = "p", allow_insecure_auth = true },
  } do
    it("does not where " .. name, function()
      local options, transport = play.options({ "S: 220 hi", "C: EHLO client.example.org", "S: 502 5.5.1 what?" }, given)
      local s, err = smtp.connect(options)
      assert.is_nil(s)
      assert.are.same({ "rejected", "ehlo", "not_sent", 502 }, fate(err))
      play.finished(transport)
    end)
  end

  it("does not after a 4xx", function()
    local s, err = smtp.connect((play.options { "S: 220 hi", "C: EHLO client.example.org", "S: 451 4.3.0 later" }))
    assert.is_nil(s)
    assert.are.same({ "rejected", "ehlo", "not_sent", 451 }, fate(err))
  end)

  it("finds a name of its own", function()
    local options = play.options({ "S: 220 hi", "C~ ^EHLO [%w%.%-%[%]:]+$", "S: 250 hi" })
    options.helo = nil
    assert(smtp.connect(options))
  end)

  it("forgets what was offered before", function()
    local s = play.open(script(hello("SIZE 10", "PIPELINING"), play.ehlo("8BITMIME")))
    assert(s:ehlo())
    assert.are.same({ ["8BITMIME"] = true }, s.capabilities)
  end)
end)

describe("STARTTLS", function()
  local OFFERS = hello("STARTTLS", "AUTH PLAIN", "PIPELINING")
  local LOGIN = { tls = "starttls", username = "ada", password = "hunter2-hunter2" }

  both("done: what was learnt before it is forgotten", function(dribble)
    local s, transport = play.session(script(OFFERS, "C: STARTTLS", "S: 220 2.0.0 go", play.ehlo("SIZE 10")),
      { tls = "starttls" }, dribble)
    assert(s:connect())
    assert(s:ehlo())
    assert.are.equal(220, s:starttls().code)
    assert.is_nil(s.capabilities)
    assert.are.equal("TLSv1.3", s.tls.version)
    assert(s:ehlo())
    assert.are.same({ SIZE = "10" }, s.capabilities)
    assert.are.equal("input", select(2, s:starttls()).kind)
    play.finished(transport)
  end)

  for name, case in pairs {
    ["not offered"] = { hello("AUTH PLAIN", "PIPELINING"), {}, "insecure" },
    ["refused for now"] = { OFFERS, { "C: STARTTLS", "S: 454 4.7.0 not now" }, "insecure", 454 },
    ["refused"] = { OFFERS, { "C: STARTTLS", "S: 502 5.5.1 no" }, "insecure", 502 },
    ["answered with 250"] = { OFFERS, { "C: STARTTLS", "S: 250 sure" }, "insecure", 250 },
    ["answered with 221"] = { OFFERS, { "C: STARTTLS", "S: 221 bye" }, "insecure", 221 },
    ["answered with 354"] = { OFFERS, { "C: STARTTLS", "S: 354 go" }, "insecure", 354 },
    ["answered with 421"] = { OFFERS, { "C: STARTTLS", "S: 421 4.3.2 bye" }, "insecure", 421 },
    ["answered with garbage"] = { OFFERS, { "C: STARTTLS", "S: go ahead" }, "protocol" },
    ["not answered"] = { OFFERS, { "C: STARTTLS", "hang" }, "timeout" },
    ["cut off"] = { OFFERS, { "C: STARTTLS", "close" }, "closed" },
    ["followed by a reply in clear"] = { OFFERS, { "C: STARTTLS", "S: 220 go", "S: 250-mail.example.org",
      "S: 250 AUTH PLAIN" }, "protocol" },
    ["followed by one byte in clear"] = { OFFERS, { "C: STARTTLS", "S: 220 go", "S! 2" }, "protocol" },
  } do
    both(name .. ": an error, and nothing of AUTH or MAIL is written", function(dribble)
      local options, transport = play.options(script(case[1], case[2]), LOGIN, dribble)
      options.from, options.to, options.text = "ada@example.org", "bob@example.org", "x"
      local receipt, err = smtp.send(options)
      assert.is_nil(receipt)
      assert.are.same({ case[3], "starttls", "not_sent", case[4] }, fate(err))
      local written = play.written(transport)
      assert.is_nil(written:find("AUTH", 1, true))
      assert.is_nil(written:find("MAIL", 1, true))
      assert.is_nil(written:find("hunter2", 1, true))
      assert.are.equal(case[2][1] and "EHLO client.example.org\r\nSTARTTLS\r\n" or "EHLO client.example.org\r\n", written)
      assert.is_true(transport.pipe.closed)
    end)
  end

  it("a session that requires TLS sends no content without it", function()
    local s, transport = play.session(script(hello()), { tls = "starttls" })
    assert(s:connect())
    assert(s:ehlo())
    local reply, err = s:data("secret\r\n")
    assert.is_nil(reply)
    assert.are.equal("insecure", err.kind)
    assert.is_nil(play.written(transport):find("DATA", 1, true))
  end)

  it("a session that requires TLS sends no message without it", function()
    for _, refused in ipairs { false, true } do
      local s, transport = play.session(script(OFFERS, refused and { "C: STARTTLS", "S: 454 no" } or {}),
        { tls = "starttls" })
      s:connect()
      s:ehlo()
      if refused then s:starttls() end
      for _, call in ipairs {
        function() return s:mail "ada@example.org" end,
        function() return s:send { from = "ada@example.org", to = "bob@example.org", text = "x" } end,
      } do
        local reply, err = call()
        assert.is_nil(reply)
        assert.are.same({ "insecure", "mail", "not_sent" }, fate(err))
      end
      assert.is_nil(play.written(transport):find("MAIL", 1, true))
    end
  end)

  it("opportunistic: used when offered, never given up once begun, not missed when not", function()
    local s = play.open(script(OFFERS, "C: STARTTLS", "S: 220 go", play.ehlo()), { tls = "opportunistic" })
    assert.are.equal("TLSv1.3", s.tls.version)
    local _, err = smtp.connect((play.options(script(OFFERS, "C: STARTTLS", "S: 454 no"), { tls = "opportunistic" })))
    assert.are.equal("insecure", err.kind)
    assert.is_nil(play.open(hello(), { tls = "opportunistic" }).tls)
  end)
end)

describe("AUTH", function()
  local PASSWORD = { tls = "implicit", username = "tim", password = "tanstaaftanstaaf" }
  local TOKEN = { tls = "implicit", username = "someuser@example.com", token = "ya29.token" }

  local function with(given, extra)
    local all = {}
    for name, value in pairs(given) do all[name] = value end
    for name, value in pairs(extra or {}) do all[name] = value end
    return all
  end

  local BEARER = b64("n,a=someuser@example.com,\1host=mail.example.org\1port=465\1auth=Bearer ya29.token\1\1")
  local XOAUTH2 = b64("user=someuser@example.com\1auth=Bearer ya29.token\1\1")
  local NAMED = { "C: AUTH LOGIN", "S: 334 " .. b64 "Username:", "C: " .. b64 "tim" }
  local REFUSED_TOKEN = b64('{"status":"401"}')

  for name, case in pairs {
    PLAIN = { PASSWORD, "AUTH LOGIN PLAIN", { "C: AUTH PLAIN AHRpbQB0YW5zdGFhZnRhbnN0YWFm", "S: 235 2.7.0 in" } },
    LOGIN = { PASSWORD, "AUTH LOGIN", { NAMED, "S: 334 " .. b64 "Password:",
      "C: " .. b64 "tanstaaftanstaaf", "S: 235 in" } },
    ["PLAIN, offered in lower case and the old form"] = { PASSWORD, "auth=plain",
      { "C: AUTH PLAIN AHRpbQB0YW5zdGFhZnRhbnN0YWFm", "S: 235 in" } },
    ["CRAM-MD5 (RFC 2195)"] = { PASSWORD, "AUTH CRAM-MD5", { "C: AUTH CRAM-MD5",
      "S: 334 PDE4OTYuNjk3MTcwOTUyQHBvc3RvZmZpY2UucmVzdG9uLm1jaS5uZXQ+",
      "C: dGltIGI5MTNhNjAyYzdlZGE3YTQ5NWI0ZTZlNzMzNGQzODkw", "S: 235 in" } },
    ["the next in the list after one that nobody knows"] = { with(PASSWORD, { auth = { "XYZZY", "LOGIN" } }),
      "AUTH XYZZY LOGIN", { NAMED, "S: 334 ", "C: " .. b64 "tanstaaftanstaaf", "S: 235 in" } },
    ["the mechanism asked for, in any case"] = { with(PASSWORD, { auth = "login" }), "AUTH PLAIN LOGIN",
      { NAMED, "S: 334 ", "C: " .. b64 "tanstaaftanstaaf", "S: 235 in" } },
    ["a malformed challenge, LOGIN"] = { PASSWORD, "AUTH LOGIN",
      { NAMED, "S: 334 x", "C: " .. b64 "tanstaaftanstaaf", "S: 235 in" } },
    OAUTHBEARER = { TOKEN, "AUTH XOAUTH2 OAUTHBEARER", { "C: AUTH OAUTHBEARER " .. BEARER, "S: 235 in" } },
    XOAUTH2 = { TOKEN, "AUTH XOAUTH2 PLAIN", { "C: AUTH XOAUTH2 " .. XOAUTH2, "S: 235 in" } },
    ["XOAUTH2 refused"] = { TOKEN, "AUTH XOAUTH2", { "C: AUTH XOAUTH2 " .. XOAUTH2, "S: 334 " .. REFUSED_TOKEN, "C: ",
      "S: 535 5.7.8 no" }, "auth", 535, '"status":"401"' },
    ["OAUTHBEARER refused"] = { TOKEN, "AUTH OAUTHBEARER", { "C: AUTH OAUTHBEARER " .. BEARER, "S: 334 " .. REFUSED_TOKEN,
      "C: AQ==", "S: 535 5.7.8 no" }, "auth", 535, '"status":"401"' },
    ["PLAIN refused: nothing weaker is tried"] = { PASSWORD, "AUTH PLAIN LOGIN",
      { "C: AUTH PLAIN AHRpbQB0YW5zdGFhZnRhbnN0YWFm", "S: 535 5.7.8 wrong" }, "auth", 535 },
    ["a failure for now"] = { PASSWORD, "AUTH PLAIN LOGIN",
      { "C: AUTH PLAIN AHRpbQB0YW5zdGFhZnRhbnN0YWFm", "S: 454 4.7.0 later" }, "auth", 454 },
    ["an odd reply"] = { PASSWORD, "AUTH PLAIN",
      { "C: AUTH PLAIN AHRpbQB0YW5zdGFhZnRhbnN0YWFm", "S: 250 sure" }, "auth", 250 },
    ["a challenge too many, PLAIN"] = { PASSWORD, "AUTH PLAIN",
      { "C: AUTH PLAIN AHRpbQB0YW5zdGFhZnRhbnN0YWFm", "S: 334 ", "C: *", "S: 501 x" }, "protocol" },
    ["a challenge too many, LOGIN"] = { PASSWORD, "AUTH LOGIN", { NAMED, "S: 334 ",
      "C: " .. b64 "tanstaaftanstaaf", "S: 334 ", "C: *", "S: 501 x" }, "protocol" },
    ["a challenge too many, CRAM-MD5"] = { PASSWORD, "AUTH CRAM-MD5", { "C: AUTH CRAM-MD5", "S: 334 YQ==", "C~ ^%w",
      "S: 334 YQ==", "C: *", "S: 501 x" }, "protocol" },
    ["endless challenges, XOAUTH2"] = { TOKEN, "AUTH XOAUTH2", { "C: AUTH XOAUTH2 " .. XOAUTH2, "S: 334 ", "C: ",
      "S: 334 ", "C: *", "S: 501 x" }, "protocol" },
    ["endless challenges, OAUTHBEARER"] = { TOKEN, "AUTH OAUTHBEARER", { "C: AUTH OAUTHBEARER " .. BEARER, "S: 334 ",
      "C: AQ==", "S: 334 ", "C: *", "S: 334 " }, "protocol" },
    ["a malformed challenge"] = { PASSWORD, "AUTH CRAM-MD5", { "C: AUTH CRAM-MD5", "S: 334 not base64", "C: *",
      "S: 501 x" }, "protocol" },
    ["welcome after a cancelled login"] = { PASSWORD, "AUTH CRAM-MD5", { "C: AUTH CRAM-MD5", "S: 334 not base64", "C: *",
      "S: 235 in" }, "protocol" },
    ["cut off"] = { PASSWORD, "AUTH CRAM-MD5", { "C: AUTH CRAM-MD5", "S: 334 YQ==", "C~ ^%w", "close" }, "closed" },
    ["no answer"] = { PASSWORD, "AUTH CRAM-MD5", { "C: AUTH CRAM-MD5", "hang" }, "timeout" },
    ["no mechanism in common"] = { PASSWORD, "AUTH GSSAPI", {}, "auth" },
    ["not offered"] = { PASSWORD, "PIPELINING", {}, "auth" },
    ["a token where only passwords are taken"] = { TOKEN, "AUTH PLAIN LOGIN", {}, "auth" },
  } do
    local given, offer, dialogue, kind, code, text = case[1], case[2], case[3], case[4], case[5], case[6]
    both(name, function(dribble)
      local options, transport = play.options(script(hello(offer), dialogue), given, dribble)
      local s, err = smtp.connect(options)
      if kind then
        assert.is_nil(s)
        assert.are.same({ kind, "auth", "not_sent", code }, fate(err))
        assert.is_truthy(not text or err.text:find(text, 1, true), err.text)
        assert.is_true(transport.pipe.closed)
      else
        assert.is_nil(err)
        assert.are.equal("ready", s.state)
      end
      if kind ~= "closed" and kind ~= "timeout" then play.finished(transport) end
    end)
  end

  it("says goodbye to a server that refused, and to none that is gone", function()
    for ending, goodbye in pairs { ["S: 535 5.7.8 no"] = true, close = false, hang = false } do
      local _, transport = play.options(script(hello("AUTH PLAIN"), "C~ ^AUTH", ending, "C: QUIT", "S: 221 bye"), PASSWORD)
      assert.is_nil((smtp.connect(with(PASSWORD, { host = "mail.example.org", tls = "none", helo = "client.example.org",
        transport = transport, allow_insecure_auth = true }))))
      assert.are.equal(goodbye, select(2, play.written(transport)), ending)
    end
  end)

  it("is never in clear, not even on the loopback", function()
    for _, host in ipairs { "mail.example.org", "localhost", "127.0.0.1" } do
      for _, tls in ipairs { "none", "opportunistic" } do
        local options, transport = play.options(hello("AUTH PLAIN LOGIN"), with(PASSWORD, { tls = tls, host = host }))
        local s, err = smtp.connect(options)
        assert.is_nil(s)
        assert.are.same({ "insecure", "auth", "not_sent" }, fate(err))
        assert.are.equal("EHLO client.example.org\r\n", play.written(transport))
      end
    end
  end)

  it("is, where allow_insecure_auth says so", function()
    local _, transport = play.open(script(hello("AUTH PLAIN"), "C: AUTH PLAIN AHRpbQB0YW5zdGFhZnRhbnN0YWFm", "S: 235 in"),
      with(PASSWORD, { tls = "none", allow_insecure_auth = true }))
    play.finished(transport)
  end)

  it("does not happen with auth = false", function()
    local _, transport = play.open(hello("AUTH PLAIN"), with(PASSWORD, { auth = false }))
    play.finished(transport)
  end)

  it("alone, with credentials of the call's own", function()
    local s, transport = play.open(script(hello("AUTH PLAIN LOGIN"), "C: AUTH LOGIN", "S: 334 ", "C: " .. b64 "ada", "S: 334 ",
      "C: " .. b64 "xyzzy", "S: 535 no", "C: AUTH PLAIN " .. b64 "\0ada\0plugh", "S: 235 in"), { tls = "implicit" })
    assert.are.equal("input", select(2, s:auth()).kind)
    assert.are.equal("auth", select(2, s:auth { username = "ada", password = "xyzzy", auth = "LOGIN" }).kind)
    assert.are.equal("ready", s.state)
    assert.are.equal(235, s:auth({ username = "ada", password = "plugh" }).code)
    play.finished(transport)
    assert.has_error(function() s:auth { user = "ada" } end)
  end)

  it("asks a token function once more when its token was refused", function()
    local asked = 0
    local function token()
      asked = asked + 1
      return "token" .. asked
    end
    local function line(n) return "C: AUTH XOAUTH2 " .. b64("user=u\1auth=Bearer token", n, "\1\1") end
    local given = { tls = "implicit", username = "u", token = token }
    local _, transport = play.open(script(hello("AUTH XOAUTH2"), line(1), "S: 535 old", line(2), "S: 235 in"), given)
    play.finished(transport)
    asked = 0
    local s, err = smtp.connect((play.options(
      script(hello("AUTH XOAUTH2"), line(1), "S: 535 old", line(2), "S: 535 old too"), given)))
    assert.is_nil(s)
    assert.are.equal("auth", err.kind)
    assert.are.equal(2, asked)
  end)

  it("a token function without a token", function()
    local given = { tls = "implicit", username = "u", token = function() return nil, "the vault is shut" end }
    local s, err = smtp.connect((play.options(hello("AUTH XOAUTH2"), given)))
    assert.is_nil(s)
    assert.are.same({ "input", "auth", "not_sent" }, fate(err))
    assert.is_truthy(err.reason:find("the vault is shut", 1, true))
  end)

  describe("a server that echoes the secret", function()
    local CANARY = "c4n4ry/Pa ss+\233x"
    local function hex(form) return (CANARY:gsub(".", function(c) return (form or "%02x"):format(c:byte()) end)) end
    local url = CANARY:gsub("[^%w]", function(c) return ("%%%02X"):format(c:byte()) end)
    local encoded = { PLAIN = b64("\0ada\0", CANARY) }
    local ECHOES = { CANARY, b64(CANARY), hex(), hex("%02X"), url, (url:gsub("%%%x%x", string.lower)) }

    for mechanism, dialogue in pairs {
      PLAIN = { "C: AUTH PLAIN " .. b64("\0ada\0", CANARY) },
      LOGIN = { "C: AUTH LOGIN", "S: 334 x===", "C: " .. b64 "ada" },
      ["LOGIN to its end"] = { "C: AUTH LOGIN", "S: 334 ", "C: " .. b64 "ada", "S: 334 ", "C: " .. b64(CANARY) },
    } do
      for i, echo in ipairs(script(ECHOES, encoded[mechanism] or {})) do
        both(("%s, form %d: is quoted in no error, transcript or trace"):format(mechanism, i), function(dribble)
          local lines = {}
          for _, trace in ipairs { true, function(direction, line) lines[#lines + 1] = direction .. line end } do
            local s = play.session(script(hello("AUTH " .. mechanism:match("%a+")), dialogue,
              { "S: 535-5.7.8 no: " .. echo, "S: 535 5.7.8 " .. echo .. "!" },
              "C: NOOP", "S: 550 5.0.0 " .. echo),
              { tls = "implicit", username = "ada", password = CANARY, trace = trace }, dribble)
            assert(s:connect())
            assert(s:ehlo())
            local reply, err = s:auth()
            assert.is_nil(reply)
            local _, later = s:noop()
            local skip = { [s.transport] = true, [s.pump.pipe] = true }
            local all = play.dump({ err, later, s, lines, s.trace.transcript() }, skip) .. tostring(err) .. tostring(later)
            for _, form in ipairs(script(ECHOES, encoded.PLAIN)) do
              assert.is_nil(all:find(form, 1, true), form)
            end
            assert.is_nil(all:find("c4n4ry", 1, true))
          end
          assert.is_true(#lines > 4)
        end)
      end
    end
  end)
end)

describe("command", function()
  it("keeps a login out of the transcript, and does none in clear", function()
    local s, transport = play.open(script(hello("AUTH PLAIN LOGIN"), "C: AUTH LOGIN", "S: 334 VXNlcm5hbWU6", "C: dGlt",
      "S: 334 UGFzc3dvcmQ6", "C: dGFuc3RhYWZ0YW5zdGFhZg==", "S: 535 no dGFuc3RhYWZ0YW5zdGFhZg==",
      "C: auth plain AHRpbQB0YW5z", "S: 235 in"), { trace = true, allow_insecure_auth = true })
    for _, line in ipairs { "AUTH LOGIN", "dGlt", "dGFuc3RhYWZ0YW5zdGFhZg==", "auth plain AHRpbQB0YW5z" } do
      assert(s:command(line))
    end
    local shown = s.trace.transcript()
    for _, secret in ipairs { "dGlt", "dGFuc3", "AHRpbQB0YW5z" } do assert.is_nil(shown:find(secret, 1, true), shown) end
    play.finished(transport)

    s, transport = play.open(script(hello("AUTH PLAIN")))
    local reply, err = s:command("AUTH PLAIN AHRpbQB0YW5z")
    assert.is_nil(reply)
    assert.are.equal("insecure", err.kind)
    assert.is_nil(play.written(transport):find("AUTH", 1, true))
  end)

  it("answered with a 354 leaves no verb to be taken for content", function()
    local s, transport = play.open(script(hello(), "C: DATA", "S: 354 go"))
    assert.are.equal(354, s:command("DATA").code)
    local reply, err = s:noop()
    assert.is_nil(reply)
    assert.are.same({ "protocol", "dead" }, { err.kind, s.state })
    assert.is_nil(play.written(transport):find("NOOP", 1, true))
  end)
end)

describe("injection", function()
  local BAD = { "\r", "\n", "\0", "\r\nRCPT TO:<evil@example.org>" }

  local function everywhere(good, visit)
    for _, bad in ipairs(BAD) do
      for _, at in ipairs { 0, math.floor(#good / 2), #good } do
        visit(good:sub(1, at) .. bad .. good:sub(at + 1))
      end
    end
  end

  for name, case in pairs {
    ehlo = { "client.example.org", function(s, text) return s:ehlo(text) end },
    mail = { "ada@example.org", function(s, text) return s:mail(text) end },
    ["mail with a name"] = { "Ada <ada@example.org>", function(s, text) return s:mail(text) end },
    ["a parameter's value"] = { "8BITMIME", function(s, text) return s:mail("ada@example.org", { BODY = text }) end },
    ["a parameter's name"] = { "SMTPUTF8", function(s, text) return s:mail("ada@example.org", { [text] = true }) end },
    rcpt = { "bob@example.org", function(s, text) return s:rcpt(text) end },
    ["a parameter of rcpt"] = { "NEVER", function(s, text) return s:rcpt("bob@example.org", { NOTIFY = text }) end },
    verify = { "bob", function(s, text) return s:verify(text) end },
    command = { "HELP me", function(s, text) return s:command(text) end },
    ["from of a message"] = { "ada@example.org",
      function(s, text) return s:send { from = text, to = "bob@example.org", text = "x" } end },
    ["to of a message"] = { "bob@example.org",
      function(s, text) return s:send { from = "ada@example.org", to = text, text = "x" } end },
    ["bcc of a message"] = { "bob@example.org",
      function(s, text) return s:send { from = "ada@example.org", bcc = { text }, text = "x" } end },
    ["the envelope's from"] = { "ada@example.org", function(s, text)
      return s:send { from = "ada@example.org", envelope = { from = text, to = { "bob@example.org" } }, text = "x" }
    end },
    ["the envelope's to"] = { "bob@example.org", function(s, text)
      return s:send { from = "ada@example.org", envelope = { to = { "ann@example.org", text } }, raw = "x" }
    end },
  } do
    it(name .. ": refused before anything is written, and the session lives on", function()
      local s, transport = play.open(script(hello("PIPELINING"), "C: NOOP", "S: 250 ok"))
      everywhere(case[1], function(text)
        local reply, err = case[2](s, text)
        assert.is_nil(reply, ("%q"):format(text))
        assert.are.equal("input", err.kind)
        assert.are.equal("not_sent", err.outcome)
        assert.is_nil(tostring(err):find("[%c]"))
      end)
      assert.are.equal("EHLO client.example.org\r\n", play.written(transport))
      assert(s:noop())
      play.finished(transport)
    end)
  end

  for name, good in pairs { helo = "client.example.org", host = "mail.example.org", server_name = "mail.example.org" } do
    it("option " .. name, function()
      everywhere(good, function(text)
        local given = play.options({}, { [name] = text })
        local s, err = smtp.session(given)
        assert.is_nil(s)
        assert.are.equal("input", err.kind)
      end)
    end)
  end

  it("the mechanism, the name and the password of a login", function()
    everywhere("PLAIN", function(text)
      local s, transport = play.open(hello("AUTH PLAIN"), { tls = "implicit" })
      assert.is_nil((s:auth { username = "u", password = "p", auth = text }))
      assert.are.equal("EHLO client.example.org\r\n", play.written(transport))
    end)
    everywhere("user", function(text)
      local s, transport = play.open(script(hello("AUTH PLAIN"), "C~ ^AUTH PLAIN [%w+/=]+$", "S: 235 in"), { tls = "implicit" })
      s:auth { username = text, password = text }
      assert.is_nil(play.written(transport):find("RCPT", 1, true))
    end)
  end)

  it("a blank or angle bracket in a parameter, that would begin another", function()
    local s, transport = play.open(hello())
    for _, text in ipairs { "a b", "a>", "<a", " " } do
      assert.are.equal("input", select(2, s:mail("ada@example.org", { BODY = text })).kind)
    end
    for _, text in ipairs { "a@example.org> SIZE=1", "a@example.org>,<b@example.org", "a b@example.org", "<a@example.org" } do
      assert.are.equal("input", select(2, s:mail(text)).kind)
      assert.are.equal("input", select(2, s:rcpt(text)).kind)
    end
    assert.are.equal("EHLO client.example.org\r\n", play.written(transport))
  end)

  it("bytes beyond ASCII in a command", function()
    local s, transport = play.open(hello())
    assert.are.equal("input", select(2, s:command "HELP \195\188").kind)
    assert.are.equal("input", select(2, s:verify "\195\188").kind)
    assert.are.equal("EHLO client.example.org\r\n", play.written(transport))
  end)
end)
