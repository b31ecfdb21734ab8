-- Two coroutines on one session: the call that comes second is refused, and the first goes on as if it had not been.
local memory = require "smtp.transport.memory"
local play = require "spec.support.play"
local smtp = require "smtp"

local hello, script = play.hello, play.script
local letter, envelope, content = play.letter, play.envelope, play.content
local GO = { "S: 250 1", "S: 250 2", "S: 354 go" }

-- Whatever waits for this transport yields first, in a coroutine that `waits`.
local function cooperative(transport, waits)
  local connect = transport.connect
  local function yielding(call)
    return call and function(...)
      if waits[coroutine.running() or 0] then coroutine.yield() end
      return call(...)
    end
  end
  function transport.connect(...)
    if waits[coroutine.running() or 0] then coroutine.yield() end
    local pipe = connect(...)
    for _, name in ipairs { "read", "write", "send", "receive" } do pipe[name] = yielding(pipe[name]) end
    return pipe
  end
  return transport
end

-- A session, not connected, whose waits yield in the coroutines that `start` makes.
local function session(lines, given)
  local waits = {}
  local s, transport = play.session(lines, given)
  cooperative(transport, waits)
  return s, transport, function(run)
    local thread = coroutine.create(run)
    waits[thread] = true
    return thread
  end
end

-- One more step of a coroutine; raises what it does.
local function resume(thread)
  local fine, why = coroutine.resume(thread)
  if not fine then error(why, 0) end
end

local SENDS = { mail = "mail", rcpt = "rcpt", data = "data", bdat = "data", send = "mail" }

-- Every call that waits, its stage.
local CALLS = {
  connect = { "connect" }, open = { "connect" }, ehlo = { "ehlo" }, starttls = { "starttls" }, auth = { "auth" },
  mail = { "mail", "ada@example.org" }, rcpt = { "rcpt", "bob@example.test" }, data = { "data", "x" }, bdat = { "data", "x" },
  reset = { "reset" }, noop = { "noop" }, verify = { "verify", "bob" }, command = { "command", "HELP" }, quit = { "quit" },
  send = { "mail", letter(9) },
}

local REFUSED = "another coroutine is in a call on this session"
local HINT = "; hint: a session does one thing at a time: use a pool (smtp.pool) for several"

-- Each of these calls is refused.
local function refused(s, only)
  for name, call in pairs(CALLS) do
    if not only or only[name] then
      local got, err = s[name](s, call[2])
      assert.is_nil(got)
      local stage = call[1]
      assert.are.same({ stage, "not_sent", true }, { err.stage, err.outcome, err.temporary })
      local words = (SENDS[name] or name == "open") and "; the message was not sent, trying later may work"
        or "; trying later may work"
      assert.are.equal(("protocol at %s: %s%s%s"):format(stage, REFUSED, words, HINT), tostring(err))
    end
  end
end

describe("A second coroutine on a session", function()
  -- What the first one does: the dialogue, the options, the call.
  local FIRST = {
    ["connects"] = { { "S: 220 mail.example.org ESMTP" }, nil, function(s) return s:connect() end },
    ["opens"] = { script(hello "AUTH PLAIN", "C~ ^AUTH PLAIN ", "S: 235 in"),
      { username = "ada", password = "x", allow_insecure_auth = true }, function(s) return s:open() end },
    ["sends"] = { script(hello(), "C: MAIL FROM:<ada@example.org>", "S: 250 1", "C: RCPT TO:<to1@example.test>", "S: 250 2", "C: DATA",
      "S: 354 go", content(1), "S: 250 in"), nil, function(s) return s:open() and s:send(letter(1)) end },
    ["sends in one group"] = { script(hello "PIPELINING", envelope(1), GO, content(1), "S: 250 in"), nil,
      function(s) return s:open() and s:send(letter(1)) end },
    ["gives data"] = { script(hello(), "C: DATA", "S: 354 go", "C: x", "C: .", "S: 250 in"), nil,
      function(s) return s:open() and s:data("x") end },
    ["logs in, its token still to come"] = { script(hello "AUTH OAUTHBEARER", "C~ ^AUTH OAUTHBEARER ", "S: 235 in"),
      { username = "ada", allow_insecure_auth = true, token = function()
        coroutine.yield()
        return "t"
      end }, function(s) return s:open() end },
    ["quits"] = { script(hello(), "C: QUIT", "S: 221 bye"), nil, function(s) return s:open() and s:quit() end },
  }

  for name, case in pairs(FIRST) do
    it("is refused whatever it calls, in whichever wait of one that " .. name, function()
      if name:find "token" and _VERSION == "Lua 5.1" and not rawget(_G, "jit") then return end -- nor may it yield there
      local s, transport, start = session(case[1], case[2])
      local result
      local first = start(function() result = assert(case[3](s)) end)
      local steps = 0
      repeat
        resume(first)
        if coroutine.status(first) == "suspended" then
          refused(s)
          steps = steps + 1
        end
      until coroutine.status(first) == "dead"
      assert.is_true(steps > 1)
      assert.is_truthy(result)
      assert.is_true(s.state ~= "dead")
      play.finished(transport)
      -- and the session is free again
      if s.state == "ready" then assert.are.equal("the server did not answer in time", select(2, s:noop()).reason) end
    end)
  end

  it("is refused in the midst of send_many, each of its messages; and the first loses none", function()
    local s, transport, start = session(script(hello "PIPELINING", envelope(1), GO, content(1), envelope(2), "S: 250 in", GO,
      content(2), envelope(3), "S: 250 in", GO, content(3), "S: 250 in"))
    local told, results = {}, nil
    local first = start(function()
      assert(s:open())
      local i = 0
      results = s:send_many(function()
        i = i + 1
        return i < 4 and letter(i) or nil
      end)
      local receipt, err = results()
      while receipt ~= nil do
        told[#told + 1] = assert(receipt, err).message_id
        receipt, err = results()
      end
    end)
    local others = 0
    repeat
      resume(first)
      if coroutine.status(first) == "suspended" and results then
        refused(s)
        local i = 6
        for receipt, err in s:send_many(function()
          i = i + 1
          return i < 9 and letter(i) or nil
        end) do
          assert.is_false(receipt)
          assert.are.same({ REFUSED, "not_sent" }, { err.reason, err.outcome })
          others = others + 1
        end
        -- to take another's results would be to lose them
        local fine, words = pcall(results)
        assert.is_false(fine)
        assert.are.equal("send_many: the next of these results is being waited for already: use a pool",
          (words:gsub("^%S+:%d+: ", "")))
      end
    until coroutine.status(first) == "dead"
    assert.is_true(others > 3)
    assert.are.same({ "<1@example.org>", "<2@example.org>", "<3@example.org>" }, told)
    play.finished(transport)
  end)

  it("may close what the first one waits for: nothing more is begun, and the first ends what is on its way", function()
    local s, transport, start = session(script(hello "PIPELINING", envelope(1), GO, content(1), envelope(2), "S: 250 in", GO,
      content(2), "S: 250 in"))
    local told, results, i = {}, nil, 0
    local first = start(function()
      assert(s:open())
      results = s:send_many(function()
        i = i + 1
        return letter(i)
      end)
      local receipt, err = results()
      while receipt ~= nil do
        told[#told + 1] = receipt and receipt.message_id or err.reason
        receipt, err = results()
      end
    end)
    repeat
      resume(first)
      if i == 2 then results:close() end
    until coroutine.status(first) == "dead"
    assert.are.same({ "<1@example.org>", "<2@example.org>" }, { told[1], told[2] })
    assert.are.equal(i, #told)
    for at = 3, i do assert.are.equal("no more messages were wanted before this one was begun", told[at]) end
    play.finished(transport)
  end)

  it("may close the session: the first call ends, and says so", function()
    local s, transport, start = session(script(hello(), "C: NOOP", "S: 250 ok"))
    local got, err
    local first = start(function()
      assert(s:open())
      got, err = s:noop()
    end)
    repeat resume(first) until transport.pipe and transport.pipe.written[2] == "NOOP\r\n"
    s:close()
    while coroutine.status(first) ~= "dead" do resume(first) end
    assert.is_nil(got)
    assert.are.same({ "closed", "closed" }, { err.kind, s.state })
    assert.are.equal("closed at noop: the session is closed", tostring(select(2, s:noop())))
  end)

  it("goes on with a session that the first has done with, ended in or left to the collector", function()
    local s, transport, start = session(script(hello(), "C: NOOP", "S: 250 ok", "C: RSET", "S: 250 ok", "C: NOOP", "S: 250 ok"))
    local first = start(function()
      assert(s:open())
      assert(s:noop())
      -- what is a mistake of the program's begins no call
      assert.is_false(pcall(s.mail, s, "ada@example.org", { SIZE = {} }))
      assert.is_false(pcall(s.auth, s, { user = "x" }))
      coroutine.yield "done"
    end)
    local what
    repeat what = select(2, coroutine.resume(first)) until what == "done"
    assert(s:reset())
    assert(s:noop())
    play.finished(transport)

    s, transport, start = session(script(hello(), "C: NOOP", "S: 250 ok"))
    first = start(function()
      assert(s:open())
      transport.pipe.receive = function() error("lost", 0) end
      s:noop()
    end)
    repeat local fine = coroutine.resume(first) until not fine
    assert.are.equal("an earlier call was broken off halfway", select(2, s:noop()).reason)
    assert.are.equal("dead", s.state)
  end)

  it("is refused, too, where the first has not yet connected, over a transport of any kind", function()
    local reached = 0
    local transport = memory.new(hello())
    local connect = transport.connect
    function transport.connect()
      reached = reached + 1
      coroutine.yield()
      return connect()
    end
    local s = assert(smtp.session { host = "mail.example.org", tls = "none", helo = "client.example.org", transport = transport })
    local first = coroutine.create(function() assert(s:open()) end)
    resume(first)
    refused(s)
    resume(first)
    assert.are.same({ "dead", "ready", 1 }, { coroutine.status(first), s.state, reached })
  end)
end)

describe("What a call has called for it", function()
  local INSIDE = "this comes from inside of a call on the same session"

  -- Notes what a session's methods answer there, and takes its words back.
  local function meddle(s, told)
    for _, name in ipairs { "noop", "send", "quit" } do
      local got, err = s[name](s, letter(9))
      assert.is_nil(got)
      assert.are.same({ INSIDE, "not_sent" }, { err.reason, err.outcome })
      told[#told + 1] = name
    end
  end

  it("cannot use the session, and the call goes on: on_progress, whose message then has the right outcome", function()
    for _, ending in ipairs { "S: 250 in", "hang" } do
      local s, transport = play.open(script(hello "PIPELINING", envelope(1), GO, content(1), ending))
      local told = {}
      local receipt, err = s:send(letter(1, { on_progress = function() meddle(s, told) end }))
      assert.are.same({ "noop", "send", "quit" }, told)
      if receipt then
        play.finished(transport)
      else
        assert.are.same({ "timeout", "final", "unknown" }, { err.kind, err.stage, err.outcome })
      end
    end
  end)

  it("likewise an iterator, which ends a batch by closing its results", function()
    local s, transport = play.open(script(hello "PIPELINING", envelope(1), GO, content(1), envelope(2), "S: 250 in", GO, content(2),
      "S: 250 in", "C: NOOP", "S: 250 ok"))
    local told, results, i = {}, nil, 0
    results = s:send_many(function()
      i = i + 1
      if i == 2 then meddle(s, told) end
      if i == 3 then results:close() end
      return letter(i)
    end)
    assert.are.equal("<1@example.org>", assert(results()).message_id)
    assert.are.equal("<2@example.org>", assert(results()).message_id)
    local receipt, err = results()
    assert.are.same({ false, "no more messages were wanted before this one was begun" }, { receipt, err.reason })
    assert.is_nil((results()))
    assert.are.same({ "noop", "send", "quit" }, told)
    assert(s:noop())
    play.finished(transport)
  end)

  it("likewise on_progress of the message that closing the results ends", function()
    local s, transport = play.open(script(hello "PIPELINING", envelope(1), GO, content(1), envelope(2), "S: 250 in", GO, content(2),
      "S: 250 in", "C: NOOP", "S: 250 ok"))
    local told, i = {}, 0
    local results = s:send_many(function()
      i = i + 1
      return letter(i, { on_progress = i == 2 and function() meddle(s, told) end or nil })
    end)
    assert.are.equal("<1@example.org>", assert(results()).message_id)
    results:close()
    assert.are.equal("<2@example.org>", assert(results()).message_id)
    assert.are.same({ "noop", "send", "quit" }, told)
    assert(s:noop())
    play.finished(transport)
  end)

  it("likewise a token, a trace, and a source", function()
    local told, s = {}, nil
    local transport
    s, transport = play.session(script(hello "AUTH OAUTHBEARER", "C~ ^AUTH OAUTHBEARER ", "S: 235 in", "C: DATA", "S: 354 go", "C: x",
      "C: .", "S: 250 in"), { username = "ada", allow_insecure_auth = true,
      token = function()
        meddle(s, told)
        return "t"
      end,
      trace = function(_, line)
        if line == "DATA" then meddle(s, told) end
      end })
    assert(s:open())
    local given = false
    assert(s:data(function()
      if given then return nil end
      given = true
      meddle(s, told)
      return "x"
    end))
    assert.are.equal(9, #told)
    play.finished(transport)
  end)
end)
