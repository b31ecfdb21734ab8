-- The connection is cut at every octet of a dialogue, of what either side says: what the results claim is held against
-- what the server has.
local relay = require "spec.support.relay"
local smtp = require "smtp"

local COUNT = 4

-- Text that is commands, for whoever reads it as such.
local function raw(i)
  return ("Message-ID: <%d@example.org>\r\n\r\n.\r\nRSET\r\nMAIL FROM:<eve@example.org>\r\n..%d\r\n"):format(i, i)
end

local function letter(i, more)
  local fields = { from = "ada@example.org", to = { "bob@example.test", "carol@example.test" }, raw = raw(i) }
  for name, value in pairs(more or {}) do fields[name] = value end
  return fields
end

local function each(list)
  local i = 0
  return function()
    i = i + 1
    return list[i]
  end
end

-- How a connection is cut, beside where.
local WAYS = {
  { took = true, mute = true }, { took = true }, { mute = true }, {}, { plain = true }, { plain = true, took = true },
}

describe("a connection cut in the middle", function()
  local server, delivered, arrived, refuses
  setup(function()
    server = assert(smtp.server {
      on_message = function(_, message)
        arrived[message] = true
        if refuses and message == raw(2) then return "554 5.7.1 not wanted" end
        delivered[message] = (delivered[message] or 0) + 1
      end,
    })
  end)
  teardown(function() server:close() end)

  local hosts = 0
  -- One dialogue, cut like that. Returns its link, uncut where `cut` is nil, and the results.
  local function play(how, cut, more)
    delivered, arrived, hosts = {}, {}, hosts + 1
    local results, list = {}, {}
    for i = 1, COUNT do list[i] = letter(i, more) end
    local transport = relay.memory(server, function() return cut end)
    how({ host = "host" .. hosts .. ".example.org", tls = "none", helo = "client.example.org", transport = transport },
      list, function(receipt, err) results[#results + 1] = receipt or err end)
    return transport.links[1], results
  end

  local function by_send_many(pipeline)
    return function(options, list, report)
      options.pipeline = pipeline
      local session, lost = smtp.connect(options)
      if not session then
        for _ = 1, #list do report(nil, lost) end
        return
      end
      for receipt, err in session:send_many(each(list)) do report(receipt, err) end
      session:quit()
    end
  end

  local function by_send(pipeline)
    return function(options, list, report)
      options.pipeline = pipeline
      local session, lost = smtp.connect(options)
      for _, mail in ipairs(list) do
        if session then report(session:send(mail)) else report(nil, lost) end
      end
      if session then session:quit() end
    end
  end

  local function alone(pipeline)
    return function(options, list, report)
      options.pipeline = pipeline
      for name, value in pairs(list[1]) do options[name] = value end
      report(smtp.send(options))
    end
  end

  local CASES = {
    ["session:send"] = by_send "data", ["session:send by BDAT"] = by_send "chunk",
    ["session:send, command by command"] = by_send(false),
    ["send_many"] = by_send_many "data", ["send_many by BDAT"] = by_send_many "chunk",
    ["send_many that asks about BDAT"] = by_send_many(nil), ["send_many, command by command"] = by_send_many(false),
    ["smtp.send"] = alone(nil), ["smtp.send by BDAT"] = alone "chunk",
  }

  -- Raises where a result is not true of what the server has. `exact`: the client knows how much the server got.
  local function check(results, count, label, exact)
    assert.are.equal(count, #results, label)
    for i, result in ipairs(results) do
      local times = delivered[raw(i)] or 0
      delivered[raw(i)] = nil
      local claim = result.accepted and result.reply and "sent" or result.outcome
      local true_claim = claim == "sent" and times == 1
        or claim == "unknown" and times <= 1 and (arrived[raw(i)] or not exact)
        or claim == "not_sent" and times == 0
      if not true_claim then
        error(("%s: message %d is %s and was delivered %d times: %s"):format(label, i, claim, times, tostring(result)))
      end
    end
    assert.is_nil(next(delivered), label .. ": something else was delivered")
  end

  -- At every so many octets, each time in another way; all ways at every octet take minutes.
  local function sweep(stride)
    local turn = 0
    for name, how in pairs(CASES) do
      for _, more in ipairs { {}, { partial = false } } do
        for _, refusing in ipairs { false, true } do
          refuses = refusing
          local whole, results = play(how, nil, more)
          local count = #results
          check(results, count, name)
          for _, direction in ipairs { "up", "down" } do
            for at = turn % stride, whole[direction] - 1, stride do
              turn = turn + 1
              local way = WAYS[turn % #WAYS + 1]
              local cut = { [direction] = at }
              for key, value in pairs(way) do cut[key] = value end
              results = select(2, play(how, cut, more))
              check(results, count, ("%s cut %s at %d, way %d"):format(name, direction, at, turn % #WAYS + 1),
                direction == "up" and not (way.took or way.plain))
            end
          end
        end
      end
    end
  end

  it("never makes a result untrue", function() sweep(5) end)
  it("never makes a result untrue, wherever it is #real", function() sweep(1) end)
end)
