-- Batches where the socket's own calls wait: the client is no task, so its server is in another process.
local away = require "spec.support.away"
local smtp = require "smtp"
local socket = require "smtp.transport.socket"

local function letter(i)
  return { from = "ada@example.org", to = "bob@example.test", subject = "s" .. i, text = ("line %d\n"):format(i) }
end

describe("send_many over a socket of its own", function()
  local server
  setup(function() server = away.start "none" end)
  teardown(function() server:stop() end)

  local function connect(more)
    local options = { host = "127.0.0.1", port = server.port, tls = "none", pipeline = "data" }
    for name, value in pairs(more or {}) do options[name] = value end
    return assert(smtp.connect(options))
  end

  -- The subjects that the server has got since `before` messages.
  local function subjects(before)
    local list = {}
    for i, line in ipairs(server:messages()) do
      if i > before then list[#list + 1] = line:match("^%S+") end
    end
    return list
  end

  it("sends what it composes as it goes: each once, one wait a message", function()
    local before, session, i, expected = #server:messages(), connect(), 0, {}
    local rounds = session.pump.rounds
    for receipt, err in session:send_many(function()
      i = i + 1
      return i <= 50 and letter(i) or nil
    end) do
      expected[#expected + 1] = "s" .. #expected + 1
      assert(receipt, err)
      assert.are.same({ "bob@example.test" }, receipt.accepted)
      assert.is_truthy(receipt.queue_id)
    end
    assert.are.equal(51, session.pump.rounds - rounds)
    session:quit()
    assert.are.same(expected, subjects(before))
  end)

  it("goes on behind a message that is refused, and one that cannot be composed", function()
    local before, session, i, results = #server:messages(), connect(), 0, {}
    for receipt, err in session:send_many(function()
      i = i + 1
      if i > 9 then return nil end
      local one = letter(i)
      if i % 3 == 0 then one.subject = "refused" end
      if i % 4 == 0 then one.from = "nobody" end
      return one
    end) do
      results[#results + 1] = receipt and "sent" or ("%s %s"):format(err.stage, err.outcome)
    end
    session:quit()
    assert.are.same({ "sent", "sent", "final not_sent", "compose not_sent", "sent", "final not_sent", "sent",
      "compose not_sent", "final not_sent" }, results)
    assert.are.same({ "s1", "s2", "s5", "s7" }, subjects(before))
  end)

  it("says what became of a message whose session is closed while it waits", function()
    for last = 1, 4 do
      local session, i, results = connect(), 0, {}
      for receipt, err in session:send_many(function()
        i = i + 1
        if i <= last then return letter(i) end
        session:close()
      end) do
        results[#results + 1] = receipt and "sent" or ("%s %s %s"):format(err.kind, err.stage, err.outcome)
      end
      assert.are.equal(last, #results)
      for k = 1, last - 2 do assert.are.equal("sent", results[k]) end
      local final = results[math.max(1, last - 1)]
      assert.is_truthy(final == "sent" or final:find("^closed %a+ "), final)
    end
  end)

  it("goes through a pipe that passes on to one of ours", function()
    local transport, octets = socket.new(), 0
    local connect_to = transport.connect
    function transport.connect(...)
      local pipe, kind, reason = connect_to(...)
      if not pipe then return nil, kind, reason end
      local wrapper = {}
      function wrapper:send(wire, deadline)
        octets = octets + wire:queued()
        return pipe:send(wire, deadline)
      end
      function wrapper:receive(wire, deadline) return pipe:receive(wire, deadline) end
      return setmetatable(wrapper, { __index = function(_, name)
        local value = pipe[name]
        return type(value) == "function" and function(_, ...) return value(pipe, ...) end or value
      end })
    end
    local session, i, contents = connect { transport = transport }, 0, 0
    for receipt, err in session:send_many(function()
      i = i + 1
      return i <= 5 and letter(i) or nil
    end) do contents = contents + assert(receipt, err).size end
    session:quit()
    assert(octets > contents, octets)
  end)
end)
