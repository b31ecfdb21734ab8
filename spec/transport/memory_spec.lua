local memory = require "smtp.transport.memory"

local function open(script, opts)
  return memory.new(script, opts).connect()
end

-- What a pipe says until it stops.
local function read(pipe)
  local parts = {}
  while true do
    local bytes, kind = pipe:read()
    if not bytes then return table.concat(parts), kind, #parts end
    parts[#parts + 1] = bytes
  end
end

describe("the scripted transport", function()
  it("plays its lines in turn", function()
    local transport = memory.new {
      "S: 220 hi", "C: EHLO x", "S: 250-a", "S: 250 b", "C~ ^MAIL FROM:", "S! raw\n", "close",
    }
    local pipe = transport.connect("mail.example.org", 25, {}, math.huge)
    assert.are.equal(pipe, transport.pipe)
    assert.are.same({ "220 hi\r\n", "timeout", 1 }, { read(pipe) }, "the client's turn")
    assert.is_true(pipe:write "EHLO x\r\n")
    assert.are.equal("250-a\r\n250 b\r\n", pipe:read())
    pipe:write "MAIL FROM:<a@example.org> SIZE=1\r\n"
    assert.are.same({ "raw\n", "closed", 1 }, { read(pipe) })
    assert.are.same({ "EHLO x\r\n", "MAIL FROM:<a@example.org> SIZE=1\r\n" }, pipe.written)
  end)

  it("takes a line in parts, and several at once", function()
    local pipe = open { "C: A", "C: B", "S: 250 a", "S: 250 b" }
    pipe:write "A"
    assert.is_nil((pipe:read()))
    pipe:write "\r\nB\r"
    assert.is_nil((pipe:read()))
    pipe:write "\n"
    assert.are.equal("250 a\r\n250 b\r\n", pipe:read())
  end)

  it("begins anew with each connection", function()
    local transport = memory.new { "S: 220 hi" }
    for _ = 1, 2 do assert.are.equal("220 hi\r\n", transport.connect():read()) end
  end)

  it("can give its bytes one at a time", function()
    local pipe = open({ "S: 220 hi", "S: 250 ok" }, { dribble = true })
    assert.are.same({ "220 hi\r\n250 ok\r\n", "timeout", 16 }, { read(pipe) })
  end)

  for name, case in pairs {
    ["another line"] = { { "S: 220 hi", "C: EHLO x" }, "HELO x\r\n", 'line 2 of the script, "C: EHLO x"' },
    ["a line too much"] = { { "C: A", "S: 250 a" }, "A\r\nB\r\n", 'line 2 of the script, "S: 250 a"' },
    ["a line that does not match"] = { { "C~ ^MAIL " }, "RCPT x\r\n", 'line 1 of the script, "C~ ^MAIL "' },
    ["a pattern's characters"] = { { "C: A.B" }, "AxB\r\n", 'line 1 of the script, "C: A.B"' },
    ["part of a line"] = { { "C: NOOP" }, "NOOP x\r\n", 'line 1 of the script, "C: NOOP"' },
    ["something before the greeting"] = { { "S: 220 hi" }, "EHLO x\r\n", 'line 1 of the script, "S: 220 hi"' },
  } do
    it("raises, naming the line, when the client says " .. name, function()
      local pipe = open(case[1])
      if name == "another line" then pipe:read() end
      local ok, why = pcall(function()
        pipe:write(case[2])
        pipe:read()
      end)
      assert.is_false(ok)
      assert.are.equal(case[3], why:sub(1, #case[3]))
      assert.matches("the client s[ap]", why) -- "said", or "spoke early"
    end)
  end

  it("falls silent, closes and goes deaf when told to", function()
    assert.are.same({ nil, "timeout", "nothing came in time" }, { open({ "hang" }):read() })
    assert.are.same({ nil, "timeout", "nothing came in time" }, { open({}):read() })
    local pipe = open { "close" }
    for _ = 1, 2 do assert.are.same({ nil, "closed", "the peer closed the connection" }, { pipe:read() }) end
    pipe = open { "C: A", "deaf", "S: 421 bye" }
    assert.is_true(pipe:write "A\r\n")
    assert.are.same({ nil, "closed", "Broken pipe" }, { pipe:write "B\r\n" })
    assert.are.same({ "A\r\n" }, pipe.written)
    assert.are.equal("421 bye\r\n", pipe:read())
  end)

  it("shows what a read would find", function()
    local pipe = open { "C: A", "S: 250 a", "C: B", "close" }
    assert.are.equal("idle", pipe:peek())
    pipe:write "A\r\n"
    assert.are.equal("data", pipe:peek())
    pipe:read()
    assert.are.equal("idle", pipe:peek())
    pipe:write "B\r\n"
    assert.are.equal("closed", pipe:peek())
    pipe = open({ "S: 220 hi" }, { dribble = true })
    pipe:read()
    assert.are.equal("data", pipe:peek())
  end)

  it("is dead once closed", function()
    local pipe = open { "S: 220 hi" }
    assert.are.same({ "127.0.0.1", 1 }, { pipe:name() })
    pipe:close()
    pipe:close()
    local closed = { nil, "closed", "the connection is closed" }
    assert.are.same(closed, { pipe:read() })
    assert.are.same(closed, { pipe:write "x" })
    assert.are.equal("closed", pipe:peek())
  end)
end)
