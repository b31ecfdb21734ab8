local clock = require "spec.support.clock"
local core = require "smtp.core"
local memory = require "smtp.transport.memory"
local pump = require "smtp.client.pump"

local unpack = table.unpack or unpack
local LATER = math.huge

-- A pump over a scripted server, and what its trace was told.
local function play(script, dribble)
  local told = {}
  local trace = {
    sent = function(line) told[#told + 1] = "C: " .. line end,
    received = function(reply) told[#told + 1] = ("S: %d %s"):format(reply.code, reply.text) end,
  }
  local pipe = memory.new(script, { dribble = dribble }).connect()
  return pump.new(pipe, trace), told, pipe
end

local function chunks(...)
  local list, at = { ... }, 0
  return function()
    at = at + 1
    return list[at]
  end
end

-- A pipe that takes note of what it is asked for.
local function recorder()
  local pipe = { writes = {} }
  function pipe:write(bytes, deadline)
    self.writes[#self.writes + 1] = { bytes = bytes, deadline = deadline }
    return true
  end
  return pipe
end

local silent = { sent = function() end, received = function() end }

describe("a pump", function()
  for _, dribble in ipairs { false, true } do
    it("reads the greeting, then a reply for each command" .. (dribble and ", byte by byte" or ""), function()
      local one, told = play({
        "S: 220 mail.example.org", "C: EHLO x", "S: 250-mail.example.org", "S: 250 SIZE", "C: NOOP", "S: 250 2.0.0 Ok",
      }, dribble)
      assert.are.same({ code = 220, text = "mail.example.org" }, one:reply(LATER))
      assert.is_true(one:command "EHLO x")
      assert.are.same({ code = 250, text = "mail.example.org\nSIZE" }, one:reply(LATER))
      one:command "NOOP"
      assert.are.same({ code = 250, text = "Ok", enhanced = "2.0.0" }, one:reply(LATER))
      assert.are.equal(3, one.rounds)
      assert.are.same({ "S: 220 mail.example.org", "C: EHLO x", "S: 250 mail.example.org\nSIZE", "C: NOOP",
        "S: 250 Ok" }, told)
    end)
  end

  it("writes what is queued in one go, and waits once for its replies", function()
    local one, _, pipe = play { "S: 220 hi", "C: A", "C: B", "C: C", "S: 250 a", "S: 251 b", "S: 252 c" }
    one:reply(LATER)
    for _, line in ipairs { "A", "B", "C" } do one:command(line) end
    for code = 250, 252 do assert.are.equal(code, one:reply(LATER).code) end
    assert.are.same({ "A\r\nB\r\nC\r\n" }, pipe.written)
    assert.are.equal(2, one.rounds)
    assert.is_true(one:flush(LATER))
    assert.are.equal(1, #pipe.written)
  end)

  it("neither queues nor traces what must not be sent, nor a secret", function()
    local one, told = play { "S: 220 hi" }
    local ok, why = one:command "NOOP\r\nQUIT"
    assert.is_nil(ok)
    assert.are.equal("string", type(why))
    assert.is_nil(one:command "VRFY \195\188")
    assert.is_true(one:command("VRFY \195\188", true))
    assert.is_true(one:command("AUTH PLAIN c2VjcmV0", false, "AUTH PLAIN ****"))
    assert.are.same({ "C: VRFY \195\188", "C: AUTH PLAIN ****" }, told)
    assert.are.equal("VRFY \195\188\r\nAUTH PLAIN c2VjcmV0\r\n", one.wire:take())
  end)

  for name, case in pairs {
    ["silence"] = { { "hang" }, "timeout", "nothing came in time" },
    ["the end"] = { { "close" }, "closed", "the peer closed the connection" },
    ["the end within a reply"] = { { "S: 220-hi", "close" }, "closed", "the peer closed the connection" },
    ["another protocol"] = { { "S: SSH-2.0-x" }, "protocol", 'the server\'s reply is not SMTP: "SSH-2.0-x"' },
  } do
    it("tells what came instead of a reply: " .. name, function()
      local reply, kind, reason, words = play(case[1]):reply(LATER)
      assert.is_nil(reply)
      assert.are.same({ case[2], case[3] }, { kind, reason })
      assert.is_nil(words)
    end)
  end

  it("forgets over another pipe what the old one said", function()
    local one = play { "S: 220 hi", "C: STARTTLS", "S: 220 go", "S: 250 injected" }
    one:reply(LATER)
    one:command "STARTTLS"
    one:reply(LATER)
    assert.are.equal(14, one.wire:residue())
    one:switch(memory.new({ "C: NOOP", "S: 250 genuine" }).connect())
    assert.are.equal(0, one.wire:residue())
    one:command "NOOP"
    assert.are.equal("genuine", one:reply(LATER).text)
  end)
end)

describe("what a server says unasked", function()
  -- after a greeting, and what came with it
  local function unasked(script, with_greeting)
    table.insert(script, 1, "S! 220 hi\r\n" .. (with_greeting or ""))
    if not with_greeting then
      table.insert(script, 2, "C: NOOP")
      table.insert(script, 3, "S: 250 ok")
    end
    local one = play(script)
    one:reply(LATER)
    if not with_greeting then
      one:command "NOOP"
      one:reply(LATER)
    end
    return one:unasked()
  end

  it("is nothing, mostly", function()
    local one = play { "S: 220 hi", "C: NOOP", "S: 250 ok" }
    one:reply(LATER)
    assert.are.same({ n = 1 }, { n = select("#", one:unasked()), one:unasked() })
    one:command "NOOP"
    assert.are.equal(250, one:reply(LATER).code)
  end)

  it("is the end", function()
    assert.are.same({ "closed", "the server closed the connection" }, { unasked({ "close" }, "") })
  end)

  for name, case in pairs {
    ["421"] = { "421 4.4.2 idle", "closed", { code = 421, text = "idle", enhanced = "4.4.2" } },
    ["another refusal"] = { "451 4.4.2 Timeout", "closed", { code = 451, text = "Timeout", enhanced = "4.4.2" } },
    ["a permanent one"] = { "554 no", "closed", { code = 554, text = "no" } },
    ["a goodbye"] = { "221 idle", "closed" },
    ["a reply too many"] = { "250 ok", "protocol" },
    ["nonsense"] = { "what?", "protocol" },
  } do
    it("is found with the last reply: " .. name, function()
      local kind, reason, reply = unasked({ "close" }, case[1] .. "\r\n")
      assert.are.equal(case[2], kind)
      assert.are.equal("string", type(reason))
      assert.are.same(case[3], reply)
    end)

    it("is found behind it, in parts: " .. name, function()
      local kind, _, reply = unasked({ "S! " .. case[1]:sub(4) .. "\n", "close" }, case[1]:sub(1, 3))
      assert.are.equal(case[2], kind)
      assert.are.same(case[3], reply)
    end)
  end

  it("is found on the connection, without waiting", function()
    local deadline
    local pipe = {
      peek = function() return "data" end,
      read = function(_, limit)
        if deadline then return nil, "timeout" end
        deadline = limit
        return "421 bye\r\n"
      end,
    }
    local one = pump.new(pipe, silent)
    one.wire = core.wire()
    assert.are.same({ "closed", "the server closed the connection", { code = 421, text = "bye" } }, { one:unasked() })
    assert(deadline <= core.now())
  end)
end)

describe("after a failed write", function()
  local WORDS = { code = 552, text = "too large", enhanced = "5.3.4" }

  it("the server's last words are the reason", function()
    for _, verb in ipairs { "flush", "reply" } do
      local one = play { "S: 220 hi", "deaf", "S: 552 5.3.4 too large", "close" }
      one:reply(LATER)
      one:command "NOOP"
      local ok, kind, reason, words = one[verb](one, LATER)
      assert.are.same({ n = 4, nil, "closed", "Broken pipe", WORDS }, { n = 4, ok, kind, reason, words })
    end
  end)

  it("they are found behind good replies to what was written before", function()
    local one = play { "S: 220 hi", "C: A", "deaf", "S: 250 ok", "S: 552 5.3.4 too large", "close" }
    one:reply(LATER)
    one:command "A"
    assert.is_true(one:flush(LATER))
    one:command "B"
    assert.are.same(WORDS, (select(4, one:flush(LATER))))
  end)

  it("they are found while content goes out, when no reply is due", function()
    for _, script in ipairs {
      { "S: 220 hi", "C: DATA", "S: 354 go", "deaf", "S: 552 5.3.4 too large", "close" },
      { "S: 220 hi", "C: DATA", "S! 354 go\r\n552 5.3", "deaf", "S! .4 too large\n", "close" },
      { "S: 220 hi", "C: DATA", "S! 354 go\r\n552 5.3.4 too large\r\n", "deaf", "close" },
    } do
      local one = play(script)
      one:reply(LATER)
      one:command "DATA"
      assert.are.equal(354, one:reply(LATER).code)
      local got = { one:content(chunks(("x"):rep(300000)), 10, LATER) }
      assert.are.same({ nil, "closed", "Broken pipe", WORDS }, got)
    end
  end)

  it("there may be none", function()
    for _, last in ipairs { "close", "hang", "S: 250 ok", "S: nonsense" } do
      local one = play { "S: 220 hi", "deaf", last }
      one:reply(LATER)
      one:command "NOOP"
      local ok, kind, reason, words = one:flush(LATER)
      assert.are.same({ n = 4, nil, "closed", "Broken pipe", nil }, { n = 4, ok, kind, reason, words })
    end
  end)
end)

describe("content", function()
  local function send(source, pipe)
    pipe = pipe or recorder()
    local one = pump.new(pipe, silent)
    return one, pipe, one:content(source, 10, LATER)
  end

  local function written(pipe, one)
    local all = {}
    for i, write in ipairs(pipe.writes) do all[i] = write.bytes end
    return table.concat(all) .. one.wire:take()
  end

  it("is normalised and dot-stuffed across chunks; its octets are what the source gave", function()
    local one, pipe, octets = send(chunks("a\r", "\n", "", ".b\n.", "\nc"))
    assert.are.equal(9, octets)
    assert.are.equal(0, #pipe.writes)
    one:finish(octets)
    assert.are.equal("a\r\n..b\r\n..\r\nc\r\n.\r\n", written(pipe, one))
    assert.are.equal(2, one.wire:expected())
  end)

  it("may be nothing", function()
    local one, pipe, octets = send(chunks())
    assert.are.equal(0, octets)
    assert.are.equal("", written(pipe, one))
  end)

  it("is written in blocks, whatever the size of its chunks, but for the last", function()
    local text = ("0123456789\r\n"):rep(100000)
    local small = {}
    for at = 1, #text, 5000 do small[#small + 1] = text:sub(at, at + 4999) end
    for _, source in ipairs { chunks(text), chunks(unpack(small)) } do
      local one, pipe, octets = send(source)
      assert.are.equal(#text, octets)
      assert.are.equal(4, #pipe.writes)
      for _, write in ipairs(pipe.writes) do assert(#write.bytes >= 262144 and #write.bytes < 262144 + 5000) end
      assert(written(pipe, one) == text)
    end
  end)

  it("gives each block its time, within the whole call's", function()
    clock.stop()
    finally(clock.go)
    for _, case in ipairs { { 10, LATER, 10 }, { 10, 3, 3 }, { 2, 3, 2 } } do
      local pipe, now = recorder(), core.now()
      pump.new(pipe, silent):content(chunks(("x"):rep(600000)), case[1], now + case[2])
      for _, write in ipairs(pipe.writes) do assert.are.equal(now + case[3], write.deadline) end
    end
  end)

  it("ends at the whole call's deadline although no write has to wait", function()
    clock.stop()
    finally(clock.go)
    local pipe, given = recorder(), 0
    local octets, kind = pump.new(pipe, silent):content(function()
      given = given + 1
      clock.pass(5)
      return "x"
    end, 10, core.now() + 29)
    assert.are.same({ nil, "timeout", 6 }, { octets, kind, given })
  end)

  for name, case in pairs {
    ["raises"] = { function() error("no such file", 0) end, "no such file" },
    ["raises a table"] = { function() error { kind = "input" } end, { kind = "input" } },
    ["gives nil and a reason"] = { function() return nil, "disk gone" end, "disk gone" },
    ["gives a number"] = { function() return 42 end, "the source gave a number, not a string" },
    ["gives false"] = { function() return false end, "the source gave a boolean, not a string" },
  } do
    it("tells of a source that " .. name, function()
      local first = true
      local one, pipe, octets, kind, reason = send(function()
        if first then
          first = false
          return "begun"
        end
        return case[1]()
      end)
      assert.is_nil(octets)
      assert.are.equal("source", kind)
      assert.are.same(case[2], reason)
      -- never the terminator
      assert.are.equal("begun", written(pipe, one))
      assert.are.equal(1, one.wire:expected())
    end)
  end
end)
