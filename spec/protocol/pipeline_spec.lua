local flight = require "smtp.protocol.pipeline"

local function blocks(flights)
  local all = {}
  for i, one in ipairs(flights) do all[i] = one.block end
  return all
end

describe("the tier", function()
  it("is what the server offers, the caller wants and the host has shown", function()
    for _, case in ipairs {
      { {}, true, true, "step" }, { { CHUNKING = true }, true, true, "step" }, { { PIPELINING = true }, false, true, "step" },
      { { PIPELINING = true }, true, false, "pipeline" }, { { PIPELINING = true }, true, true, "pipeline" },
      { { PIPELINING = true, CHUNKING = true }, true, false, "pipeline" },
      { { PIPELINING = true, CHUNKING = true }, true, true, "chunk" },
    } do
      assert.are.equal(case[4], flight.tier(case[1], case[2], case[3]))
    end
  end)
end)

describe("an envelope", function()
  it("is one flight with DATA at its end; step by step each line is one; for chunks there is no DATA", function()
    assert.are.same({ "M\nR1\nR2\nDATA" }, blocks(flight.envelope({ "M", "R1", "R2" }, "pipeline", false)))
    assert.are.same({ "M", "R1", "R2", "DATA" }, blocks(flight.envelope({ "M", "R1", "R2" }, "step", false)))
    assert.are.same({ "M\nR1\nR2" }, blocks(flight.envelope({ "M", "R1", "R2" }, "chunk", false)))
  end)

  it("keeps DATA back where the replies to RCPT decide", function()
    assert.are.same({ "M\nR1\nR2", "DATA" }, blocks(flight.envelope({ "M", "R1", "R2" }, "pipeline", true)))
  end)

  it("tells which recipients and replies are whose", function()
    local flights = flight.envelope({ "M", "R1", "R2" }, "pipeline", true)
    assert.are.same({ mail = true, first = 1, count = 2, data = false, block = "M\nR1\nR2", lines = 3, classes = "222" },
      flights[1])
    assert.are.same({ mail = false, first = 3, count = 0, data = true, block = "DATA", lines = 1, classes = "" }, flights[2])
  end)

  it("of many recipients is several flights, none larger than small buffers take", function()
    local lines = { "M" }
    for i = 1, 3000 do lines[i + 1] = ("RCPT TO:<%032d@example.org>"):format(i) end
    local seen = 0
    local flights = flight.envelope(lines, "pipeline", false)
    for _, one in ipairs(flights) do
      assert.is_true(#one.block + one.lines + 1 <= 32768)
      assert.are.equal(select(2, one.block:gsub("\n", "")) + 1, one.lines)
      assert.are.equal(seen == 0, one.mail)
      assert.are.equal(seen + one.count == 3000, one.data)
      assert.are.equal(seen + 1, one.first)
      seen = seen + one.count
    end
    assert.are.equal(3000, seen)
    assert.is_true(#flights < 8)
  end)
end)

describe("a flight by BDAT", function()
  it("holds one message of any size, and else ten at most, of 256 KB and 32 KB of commands together", function()
    assert.is_true(flight.has_room(0, 1e9, 1e9))
    assert.is_true(flight.has_room(9, 262144, 32768))
    assert.is_false(flight.has_room(10, 10, 10))
    assert.is_false(flight.has_room(1, 262145, 10))
    assert.is_false(flight.has_room(1, 10, 32769))
  end)
end)
