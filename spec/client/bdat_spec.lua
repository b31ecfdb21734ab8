local play = require "spec.support.play"
local smtp = require "smtp"
local together = require "spec.support.together"

local both = function(name, body) play.both(it, name, body) end
local BYTES = {}
for byte = 0, 255 do BYTES[#BYTES + 1] = string.char(byte) end
BYTES = table.concat(BYTES):rep(5000) -- 1.28 MB: several chunks

local function letter(more)
  local fields = { from = "ada@example.org", to = "bob@example.test", subject = "s", date = 0, text = "t\n.\n",
    attachments = { { data = BYTES } } }
  for name, value in pairs(more or {}) do fields[name] = value end
  return assert(smtp.message(fields))
end

-- What the process knows about a host is for ever: each spec has a host of its own.
local hosts = 0
local function fresh(lines, given, dribble)
  hosts = hosts + 1
  local all = { host = "host" .. hosts .. ".example.org" }
  for name, value in pairs(given or {}) do all[name] = value end
  local options, transport = play.options(lines, all, dribble)
  return assert(smtp.session(options)), transport
end

-- A second session with the host of the last one.
local function again(lines, given, dribble)
  hosts = hosts - 1
  return fresh(lines, given, dribble)
end

local OFFER = play.hello("PIPELINING", "CHUNKING", "BINARYMIME", "8BITMIME")
local ASKED = { "C: BDAT 6 LAST", "C: XNOP", "C: QUIT" }

-- A message that goes out in two groups, and one that goes command by command.
local GROUP = { "C~ ^MAIL FROM", "C~ ^RCPT TO", "C: DATA", "S: 250 1", "S: 250 2", "S: 354 go", "C: A: b", "C: ", "C: .", "S: 250 in" }
local STEPS = { "C~ ^MAIL FROM", "S: 250 1", "C~ ^RCPT TO", "S: 250 2", "C: DATA", "S: 354 go", "C: A: b", "C: ", "C: .",
  "S: 250 in" }
local FIELDS = { from = "ada@example.org", to = "bob@example.test", raw = "A: b\r\n\r\n" }

-- One message to a fresh host by a pool, which gives up the connection then.
local function pooled(dribble, ...)
  hosts = hosts + 1
  local options, transport = play.options(play.script(...), { host = "host" .. hosts .. ".example.org", max_messages = 1 }, dribble)
  local pool = assert(smtp.pool(options))
  assert(pool:send(FIELDS))
  pool:close()
  return transport
end

-- Has the host shown that it swallows.
local function taught(dribble)
  play.finished(pooled(dribble, OFFER, GROUP, ASKED, "S: 503 5.5.1 no", "S: 221 bye"))
end

local function open(session)
  assert(session:open())
  return session
end

describe("a server that offers BINARYMIME", function()
  both("is asked by a pool, at the end, whether it swallows a refused chunk", function(dribble)
    taught(dribble)
    local session, transport = again(play.script(OFFER, "C: MAIL FROM:<ada@example.org> BODY=BINARYMIME",
      "C: RCPT TO:<bob@example.test>", "S: 250 1", "S: 250 2", "C~ ^BDAT %d+$"), nil, dribble)
    open(session):send(letter())
    assert.is_truthy(play.written(transport):find("Content-Transfer-Encoding: binary", 1, true))
    assert.is_nil(play.written(transport):find("DATA", 1, true))
  end)

  both("that does not is not trusted, and neither is one that was not asked or said odd things", function(dribble)
    for _, replies in ipairs {
      { "S: 503 5.5.1 no", "S: 250 2.0.0 that was a NOOP", "S: 221 bye" }, { "S: 250 2.0.0 chunk taken", "S: 221 bye" },
      { "S: 503 5.5.1 no", "S: 421 going" }, { "S: 503 5.5.1 no", "close" }, { "close" },
    } do
      pooled(dribble, OFFER, GROUP, ASKED, replies)
      local next_one, transport = again(play.script(OFFER), nil, dribble)
      open(next_one):send(letter())
      assert.is_truthy(play.written(transport):find("\r\nDATA\r\n", 1, true))
      assert.is_nil(play.written(transport):find("BINARYMIME", 1, true))
    end
  end)

  both("is not asked twice, nor one that does not offer it, nor without PIPELINING", function(dribble)
    pooled(dribble, OFFER, GROUP, ASKED, "close")
    hosts = hosts - 1
    play.finished(pooled(dribble, OFFER, GROUP, "C: QUIT", "S: 221 bye"))
    for _, case in ipairs { { play.hello("PIPELINING", "CHUNKING"), GROUP }, { play.hello("CHUNKING", "BINARYMIME"), STEPS },
      { play.hello("PIPELINING", "BINARYMIME"), GROUP } } do
      play.finished(pooled(dribble, case[1], case[2], "C: QUIT", "S: 221 bye"))
    end
  end)

  both("is not asked inside a transaction: its recipients would get the chunk", function(dribble)
    hosts = hosts + 1
    local options, transport = play.options(play.script(OFFER, "C~ ^MAIL FROM", "C: RCPT TO:<bob@example.test>",
      "C: RCPT TO:<eve@example.test>", "S: 250 1", "S: 250 2", "S: 550 3", "C: QUIT", "S: 221 bye"),
      { host = "host" .. hosts .. ".example.org", max_messages = 1 }, dribble)
    local pool = assert(smtp.pool(options))
    local _, err = pool:send { from = "ada@example.org", to = { "bob@example.test", "eve@example.test" }, raw = "A: b\r\n\r\n",
      partial = false }
    assert.are.equal(550, err.code)
    play.finished(transport)
    pool:close()
  end)

  both("is asked by nobody else: not by smtp.send, by a session or by smtp.verify", function(dribble)
    local END = { "C: QUIT", "S: 221 bye" }
    for name, case in pairs {
      ["smtp.send"] = { play.script("C~ ^MAIL FROM", "C~ ^RCPT TO", "C: DATA", "S: 250 1", "S: 250 2", "S: 354 go", "C: A: b", "C: ",
        "C: .", "C: QUIT", "S: 250 in", "S: 221 bye"), function(options)
          for field, value in pairs(FIELDS) do options[field] = value end
          return smtp.send(options)
        end },
      ["session:send"] = { play.script(GROUP, END), function(options)
        local session = assert(smtp.connect(options))
        assert(session:send(FIELDS))
        return session:quit()
      end },
      ["a session's quit"] = { END, function(options) return assert(smtp.connect(options)):quit() end },
      ["smtp.verify"] = { END, smtp.verify },
    } do
      hosts = hosts + 1
      local options, transport = play.options(play.script(OFFER, case[1]), { host = "host" .. hosts .. ".example.org" }, dribble)
      assert(case[2](options), name)
      play.finished(transport)
    end
  end)
end)

describe("content in chunks", function()
  both("ends where the server refuses a chunk; the session lives on after RSET", function(dribble)
    taught(dribble)
    local envelope = { "C~ ^MAIL FROM", "C: RCPT TO:<bob@example.test>", "S: 250 1", "S: 250 2" }
    local session = again(play.script(OFFER, envelope), nil, dribble)
    assert(session:open())
    -- the script cannot swallow octets: the wire's own end is played by hand
    local pipe = session.pump.pipe
    local plain = pipe.write
    local chunks = 0
    function pipe:write(bytes, deadline)
      if not bytes:find("^BDAT") then return plain(self, bytes, deadline) end
      chunks = chunks + 1
      self.pending = self.pending .. (chunks == 2 and "552 5.3.4 too large\r\n" or "250 2.0.0 taken\r\n")
      return true
    end
    local receipt, err = session:send(letter())
    assert.is_nil(receipt)
    assert.are.same({ "rejected", "not_sent", 552 }, { err.kind, err.outcome, err.code })
    assert.are.equal("ready", session.state)
    assert.is_true(session.transaction)
  end)

  -- A server that was shown to swallow, what it says to the second chunk, then to the last, and what becomes of it all.
  for name, case in pairs {
    ["a 552 and its end"] = { "552 5.3.4 too large\r\n", nil, "rejected not_sent 552" },
    ["a 421 and its end"] = { "421 4.3.2 closing\r\n", nil, "rejected not_sent 421" },
    ["a 421, and then it takes the last one"] = { "421 4.3.2 closing\r\n", "250 2.0.0 taken\r\n", "rejected unknown 421" },
    ["a 421, and then it refuses the last one"] = { "421 4.3.2 closing\r\n", "503 no\r\n", "rejected not_sent 421" },
  } do
    both("refused with " .. name, function(dribble)
      taught(dribble)
      local session = again(play.script(OFFER, "C~ ^MAIL FROM", "C: RCPT TO:<bob@example.test>", "S: 250 1", "S: 250 2", "close"), nil,
        dribble)
      assert(session:open())
      local pipe = session.pump.pipe
      local plain, chunks = pipe.write, 0
      function pipe:write(bytes, deadline)
        if not bytes:find("^BDAT") then return plain(self, bytes, deadline) end
        chunks = chunks + 1
        local says = chunks == 2 and case[1] or bytes:find("^BDAT %d+ LAST") and case[2] or chunks == 1 and "250 2.0.0 taken\r\n"
          or chunks > 2 and case[2] and "503 no\r\n" or ""
        self.pending = self.pending .. says
        return true
      end
      local _, err = session:send(letter())
      assert.are.equal(case[3], ("%s %s %s"):format(err.kind, err.outcome, err.code))
    end)
  end

  it("are not sent to a server that offers none", function()
    local session = play.open(play.hello("PIPELINING"))
    local reply, err = session:bdat("x")
    assert.is_nil(reply)
    assert.are.same({ "input", "not_sent" }, { err.kind, err.outcome })
  end)

  it("a refused one ends the session with a server that was not asked", function()
    local session, transport = fresh(play.script(play.hello("CHUNKING"), "C: BDAT 0 LAST", "S: 503 no"))
    assert(session:open())
    local _, err = session:bdat("")
    assert.are.same({ "rejected", "not_sent", "dead" }, { err.kind, err.outcome, session.state })
    play.finished(transport)
  end)

  it("a source that fails never sends the last one", function()
    local session, transport = fresh(play.script(play.hello("CHUNKING")))
    assert(session:open())
    local count = 0
    local _, err = session:bdat(function()
      count = count + 1
      if count == 3 then return nil, "the disk is gone" end
      return "x"
    end)
    assert.are.same({ "source", "body", "not_sent", "dead" }, { err.kind, err.stage, err.outcome, session.state })
    assert.is_nil(play.written(transport):find("BDAT", 1, true))
  end)

  it("the last one answered with a 3xx: nobody knows", function()
    local session = fresh(play.script(play.hello("CHUNKING"), "C: BDAT 2 LAST", "C: ", "S: 354 go on"))
    assert(session:open())
    local _, err = session:bdat("\r\n")
    assert.are.same({ "protocol", "final", "unknown", "dead" }, { err.kind, err.stage, err.outcome, session.state })
  end)

  it("lost before the reply to the last one: nobody knows", function()
    local session = fresh(play.script(play.hello("CHUNKING"), "C: BDAT 2 LAST", "C: ", "close"))
    assert(session:open())
    local _, err = session:bdat("\r\n")
    assert.are.same({ "closed", "final", "unknown" }, { err.kind, err.stage, err.outcome })
  end)
end)

describe("the receiving server", function()
  local server
  after_each(function() server:close() end)

  it("gets a binary attachment a quarter shorter, byte for byte", function()
    server = assert(smtp.server { extensions = { "BINARYMIME" } })
    local pool = assert(smtp.pool { host = "127.0.0.1", port = server.port, tls = "none", max_messages = 1 })
    local sent = {}
    local composed = letter { on_progress = function(octets, total) sent[#sent + 1] = { octets, total } end }
    local function send()
      return together.run(function() return pool:send(composed) end, server)
    end
    local first, second = assert(send()), assert(send())
    assert.are.same({ "8BITMIME", "BINARYMIME" }, { server.inbox[1].params.BODY or "8BITMIME", server.inbox[2].params.BODY })
    assert.is_true(second.size < first.size * 0.75)
    assert.are.equal(second.size, #server.inbox[2].data)
    assert.are.equal(tostring(second.size), server.inbox[2].params.SIZE)
    assert.is_truthy(server.inbox[2].data:find("\r\n\r\n" .. BYTES .. "\r\n--", 1, true))
    assert.are.same({ second.size, second.size }, sent[#sent])
  end)

  it("takes what bdat() gives it as it is, in several chunks, LF and all", function()
    server = assert(smtp.server { extensions = { "BINARYMIME" } })
    together.run(function()
      local session = assert(smtp.connect { host = "127.0.0.1", port = server.port, tls = "none" })
      assert(session:mail("a@example.org", { BODY = "BINARYMIME" }))
      assert(session:rcpt("b@example.org"))
      local pieces = 0
      assert(session:bdat(function()
        pieces = pieces + 1
        return pieces <= 40 and "a\nb\r" .. ("x"):rep(30000) or nil
      end))
      session:quit()
    end, server)
    assert.are.equal(("a\nb\r" .. ("x"):rep(30000)):rep(40), server.inbox[1].data)
  end)

  it("wants chunks for binary content", function()
    server = assert(smtp.server { extensions = { "BINARYMIME" } })
    local code = together.run(function()
      local session = assert(smtp.connect { host = "127.0.0.1", port = server.port, tls = "none" })
      assert(session:mail("a@example.org", { BODY = "BINARYMIME" }))
      assert(session:rcpt("b@example.org"))
      local _, err = session:data("x")
      session:close()
      return err.code
    end, server)
    assert.are.equal(503, code)
  end)
end)
