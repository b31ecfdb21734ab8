-- A message whose content comes from a function, sent again: whole or not at all, and never where the function is at its end.
local clock = require "spec.support.clock"
local relay = require "spec.support.relay"
local smtp = require "smtp"

local PIECES = { "Subject: many pieces\r\n\r\n", ("one line of many\r\n"):rep(20000), ("another\r\n"):rep(20000) }
local WHOLE = table.concat(PIECES)

-- RFC 8463 A.2.
local KEY = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n"

-- Functions, each with what its first run gives.
local FUNCTIONS = {
  -- like io.lines or a query's rows: over when it is over
  ["at its end"] = function()
    local i = 0
    return function()
      i = i + 1
      return PIECES[i]
    end
  end,
  ["begins anew"] = function()
    local i = 0
    return function()
      i = i + 1
      if i > #PIECES then i = 0 end
      return PIECES[i]
    end
  end,
  ["gives less"] = function()
    local i, runs = 0, 0
    return function()
      i = i + 1
      if i <= #PIECES - runs then return PIECES[i] end
      i, runs = 0, runs + 1
    end
  end,
  ["gives nothing but empty strings first"] = function()
    local i = -2
    return function()
      i = i + 1
      if i > #PIECES then i = -2 end
      return i <= 0 and i > -2 and "" or PIECES[i]
    end
  end,
}

-- How it gets into a message.
local SHAPES = {
  raw = function(source) return { raw = source } end,
  attachment = function(source) return { text = "see there", attachments = { { source = source, filename = "rows.txt" } } } end,
  ["attachment of a known size"] = function(source)
    return { text = "see there", attachments = { { source = source, size = #WHOLE, filename = "rows.txt" } } }
  end,
}

describe("content that comes from a function,", function()
  local server, verdicts, arrived, transport, asked
  before_each(function()
    verdicts, arrived, asked = {}, {}, 0
    server = assert(smtp.server {
      on_message = function(_, message)
        arrived[#arrived + 1] = message
        return table.remove(verdicts, 1)
      end,
    })
    clock.stop()
  end)
  after_each(function()
    clock.go()
    server:close()
  end)

  -- Options to reach the server by; `cut`: where its connections break.
  local function reach(given, cut)
    transport = relay.memory(server, cut)
    function transport.wait(_, _, deadline) clock.pass(math.max(0, deadline - smtp.now())) end
    local options = { host = "mail.example.org", tls = "none", helo = "client.example.org", transport = transport }
    for name, value in pairs(given or {}) do options[name] = value end
    return options
  end

  local function letter(shape, source)
    local fields = SHAPES[shape](source)
    fields.from, fields.to = "ada@example.org", "bob@example.test"
    return fields
  end

  -- How many messages were begun.
  local function begun()
    local count = 0
    for _, link in ipairs(transport.links) do
      for _, said in ipairs(relay.flights(link)) do
        if said:find("MAIL FROM", 1, true) then count = count + 1 end
      end
    end
    return count
  end

  local function fate(receipt, err)
    return receipt and "sent" or ("%s %s %s"):format(err.kind, err.outcome, err.code or "-")
  end

  -- One message through a pool, in each way.
  local WAYS = {
    ["pool:send"] = function(options, fields)
      local pool = assert(smtp.pool(options))
      local result = fate(pool:send(fields))
      pool:close()
      return result
    end,
    ["pool:send_many"] = function(options, fields)
      local pool = assert(smtp.pool(options))
      local result
      local function iterator()
        asked = asked + 1
        return asked == 1 and fields or nil
      end
      assert(pool:send_many(iterator, function(...) result = fate(...) end))
      pool:close()
      return result
    end,
  }

  for shape in pairs(SHAPES) do
    for _, pipeline in ipairs { "data", "chunk" } do
      for way, send in pairs(WAYS) do
        local where = (" (%s, %s, pipeline %s)"):format(way, shape, pipeline)

        it("is not tried again where the function is at its end" .. where, function()
          verdicts = { "451 4.3.0 later" }
          assert.are.equal("rejected not_sent 451", send(reach { pipeline = pipeline }, letter(shape, FUNCTIONS["at its end"]())))
          assert.are.same({ 1, 1 }, { #arrived, begun() })
        end)

        it("is sent again whole where the function begins anew, with the same Message-ID" .. where, function()
          for _, name in ipairs { "begins anew", "gives nothing but empty strings first" } do
            verdicts, arrived, asked = { "451 4.3.0 later" }, {}, 0
            assert.are.equal("sent", send(reach { pipeline = pipeline }, letter(shape, FUNCTIONS[name]())))
            assert.are.equal(2, #arrived)
            assert.is_true(arrived[1] == arrived[2])
          end
        end)

        it("never ends where the function gives less" .. where, function()
          verdicts = { "451 4.3.0 later" }
          assert.are.equal("source not_sent -", send(reach { pipeline = pipeline }, letter(shape, FUNCTIONS["gives less"]())))
          assert.are.equal(1, #arrived)
        end)

        it("is not tried again where it was left halfway" .. where, function()
          local function cut(number) return number == 1 and { up = 200000, mute = true } or nil end
          local result = send(reach({ pipeline = pipeline }, cut), letter(shape, FUNCTIONS["at its end"]()))
          assert.are.equal("closed not_sent -", result)
          assert.are.same({ 0, 1 }, { #arrived, begun() })
        end)

        it("is tried again where nothing of it was asked for" .. where, function()
          local function cut(number) return number == 1 and { up = #"EHLO client.example.org\r\nMAIL" } or nil end
          assert.are.equal("sent", send(reach({ pipeline = pipeline }, cut), letter(shape, FUNCTIONS["at its end"]())))
          assert.are.equal(1, #arrived)
        end)
      end
    end

    it("does not go out where the same options are given once more and the function is at its end: " .. shape, function()
      local fields = letter(shape, FUNCTIONS["at its end"]())
      local session = assert(smtp.connect(reach()))
      assert(session:send(fields))
      local receipt, err = session:send(fields)
      assert.are.equal("source not_sent -", fate(receipt, err))
      assert.is_truthy(err.reason:find(shape == "raw" and "raw: " or "attachments[1].source: ", 1, true))
      assert.are.same({ 1, 1, "ready" }, { #arrived, begun(), session.state })
    end)

    it("does not go out cut where it was left halfway in another message: " .. shape, function()
      local source = FUNCTIONS["at its end"]()
      local options = reach(nil, function(number) return number == 1 and { up = 200000 } or nil end)
      for name, value in pairs(letter(shape, source)) do options[name] = value end
      assert.are.equal("closed not_sent -", fate(smtp.send(options)))
      assert.are.equal("source not_sent -", fate(smtp.send(options)))
      assert.are.equal(0, #arrived)
    end)
  end

  it("signed, is read for the signature and has to begin anew for the sending", function()
    for name, result in pairs { ["at its end"] = "source not_sent -", ["begins anew"] = "sent" } do
      local fields = letter("attachment", FUNCTIONS[name]())
      fields.dkim = { domain = "example.org", selector = "s1", key = KEY }
      local session = assert(smtp.connect(reach()))
      assert.are.equal(result, fate(session:send(fields)))
      assert.are.same({ result == "sent" and 1 or 0, "ready" }, { begun(), session.state })
    end
  end)

  it("a message's own count holds in whichever session it is sent again", function()
    local mail = assert(smtp.message(letter("raw", FUNCTIONS["gives less"]())))
    local first, second = assert(smtp.connect(reach())), assert(smtp.connect(reach()))
    assert(first:send(mail))
    assert.are.equal("source not_sent -", fate(second:send(mail)))
    assert.are.same({ 1, "dead" }, { #arrived, second.state })
  end)
end)
