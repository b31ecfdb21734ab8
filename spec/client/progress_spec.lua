local play = require "spec.support.play"
local smtp = require "smtp"

local hello, script = play.hello, play.script
local unpack = table.unpack or unpack

local ENVELOPE = { "C: MAIL FROM:<ada@example.org>", "C: RCPT TO:<bob@example.org>", "C: DATA", "S: 250 1", "S: 250 2",
  "S: 354 go" }

-- Sends a body, and says what on_progress heard. `text` is what the server gets, where that is not `raw`.
local function progress(raw, changes, text)
  local heard = {}
  local given = { from = "ada@example.org", to = "bob@example.org", raw = raw,
    on_progress = function(...) heard[#heard + 1] = { n = select("#", ...), ... } end }
  for name, value in pairs(changes or {}) do given[name] = value end
  local lines = {}
  for line in (text or raw):gmatch("(.-)\r\n") do lines[#lines + 1] = "C: " .. line:gsub("^%.", "..") end
  local options, transport = play.options(script(hello("PIPELINING"), ENVELOPE, lines, "C: .", "C: QUIT", "S: 250 in",
    "S: 221 bye"), given)
  local receipt, err = smtp.send(options)
  return heard, receipt, err, transport
end

local LINE = ("x"):rep(1022) .. "\r\n"

describe("on_progress", function()
  it("hears each block and then the whole, once, with the total", function()
    for _, count in ipairs { 0, 1, 255, 256, 300, 1000, 1024 } do
      local raw = LINE:rep(count)
      local heard, receipt, err, transport = progress(raw)
      assert.is_nil(err and tostring(err))
      play.finished(transport)
      local before = -1
      for _, one in ipairs(heard) do
        assert.are.same({ 2, #raw }, { one.n, one[2] })
        assert.is_true(one[1] > before)
        before = one[1]
      end
      assert.are.equal(#raw, before)
      assert.are.equal(receipt.size, before)
      -- a block is 256 KiB
      assert.is_true(#heard >= math.floor(#raw / 262144) and #heard <= math.floor(#raw / 262144) + 1, #heard)
    end
  end)

  it("counts octets before dot-stuffing", function()
    local raw = ("." .. ("x"):rep(509) .. "\r\n"):rep(600)
    local heard, receipt, _, transport = progress(raw)
    assert.are.equal(2, #heard)
    local lines = heard[1][1] / 512
    assert.are.equal(heard[1][1] + lines, #transport.pipe.written[3]) -- behind EHLO and the envelope
    assert.are.same({ n = 2, #raw, #raw }, heard[2])
    assert.are.equal(#raw, receipt.size)
  end)

  it("has no total where the size is not known", function()
    local left = 3
    local heard = progress(function()
      left = left - 1
      return left >= 0 and LINE:rep(200) or nil
    end, nil, LINE:rep(600))
    assert.is_true(#heard > 1)
    for _, one in ipairs(heard) do assert.is_nil(one[2]) end
    assert.are.equal(600 * #LINE, heard[#heard][1])
  end)

  it("hears nothing of a body that never went, nor the whole of one that broke off", function()
    local calls = 0
    local function count() calls = calls + 1 end
    local _, err = smtp.send(play.options(script(hello("PIPELINING"), { unpack(ENVELOPE, 1, 3) }, "S: 550 no", "S: 503 no",
      "S: 503 no", "C: QUIT", "S: 221 bye"), { from = "ada@example.org", to = "bob@example.org", raw = LINE,
      on_progress = count }))
    assert.are.same({ "rejected", "mail" }, { err.kind, err.stage })
    assert.are.equal(0, calls)

    local given = 0
    local heard
    heard, _, err = progress(function()
      given = given + 1
      if given == 4 then return nil, "disk on fire" end
      return LINE:rep(200)
    end, nil, LINE:rep(600))
    assert.are.equal("source", err.kind)
    assert.are.equal(2, #heard)
    assert.is_true(heard[2][1] < 600 * #LINE)
  end)

  it("goes with a composed message, each time it is sent", function()
    local heard = {}
    local mail = assert(smtp.message { from = "ada@example.org", to = "bob@example.org", raw = LINE,
      on_progress = function(sent, total) heard[#heard + 1] = { sent, total } end })
    local one = script(ENVELOPE, "C: " .. LINE:sub(1, -3), "C: .", "S: 250 in")
    local s, transport = play.open(script(hello("PIPELINING"), one, one))
    assert(s:send(mail))
    assert(s:send(mail))
    assert.are.same({ { #LINE, #LINE }, { #LINE, #LINE } }, heard)
    play.finished(transport)
  end)

  it("is a function, and what it raises comes out of send", function()
    local fine, words = pcall(progress, LINE, { on_progress = 5 })
    assert.is_false(fine)
    assert.truthy(words:find('"on_progress" must be a function', 1, true))
    fine, words = pcall(progress, LINE, { on_progress = function() error("mine", 0) end })
    assert.is_false(fine)
    assert.are.equal("mine", words)
  end)
end)
