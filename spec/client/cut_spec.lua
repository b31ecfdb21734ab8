-- The connection is cut at every octet of a dialogue, of what either side says: what the results claim is held against
-- what the server has.
local each = require "spec.support.each"
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

-- How a connection is cut, beside where.
local WAYS = {
  { took = true, mute = true }, { took = true }, { mute = true }, {}, { plain = true }, { plain = true, took = true },
}

describe("a connection cut in the middle", function()
  local server, guarded, delivered, arrived, refuses
  setup(function()
    local function on_message(_, message)
      arrived[message] = true
      if refuses and message == raw(2) then return "554 5.7.1 not wanted" end
      delivered[message] = (delivered[message] or 0) + 1
    end
    server = assert(smtp.server { on_message = on_message })
    guarded = assert(smtp.server {
      on_message = on_message,
      auth = function(_, password) return password == "open sesame" end,
    })
  end)
  teardown(function()
    server:close()
    guarded:close()
  end)

  local hosts = 0
  -- One dialogue, cut like that. Returns its link, uncut where `cut` is nil, and the results.
  local function play(how, cut, more)
    delivered, arrived, hosts = {}, {}, hosts + 1
    local results, list = {}, {}
    for i = 1, COUNT do list[i] = letter(i, more) end
    local options = { host = "host" .. hosts .. ".example.org", tls = "none", helo = "client.example.org" }
    local transport = relay.memory(how.guarded and guarded or server, function() return cut end)
    options.transport = transport
    for name, value in pairs(how.guarded or {}) do options[name] = value end
    how.run(options, list, function(receipt, err) results[#results + 1] = receipt or err end)
    return transport.links[1], results
  end

  local function by_send_many(pipeline)
    return { run = function(options, list, report)
      options.pipeline = pipeline
      local session, lost = smtp.connect(options)
      if not session then
        for _ = 1, #list do report(nil, lost) end
        return
      end
      for receipt, err in session:send_many(each(list)) do report(receipt, err) end
      session:quit()
    end }
  end

  local function by_send(pipeline)
    return { run = function(options, list, report)
      options.pipeline = pipeline
      local session, lost = smtp.connect(options)
      for _, mail in ipairs(list) do
        if session then report(session:send(mail)) else report(nil, lost) end
      end
      if session then session:quit() end
    end }
  end

  local function alone(pipeline, login)
    return { guarded = login, run = function(options, list, report)
      options.pipeline = pipeline
      for name, value in pairs(list[1]) do options[name] = value end
      report(smtp.send(options))
    end }
  end

  local LOGIN = { username = "ada", password = "open sesame", allow_insecure_auth = true }
  local WRONG = { username = "ada", password = "open barley", allow_insecure_auth = true }
  local CASES = {
    ["session:send"] = by_send "data", ["session:send by BDAT"] = by_send "chunk",
    ["session:send, command by command"] = by_send(false),
    ["send_many"] = by_send_many "data", ["send_many by BDAT"] = by_send_many "chunk",
    ["send_many that asks about BDAT"] = by_send_many(nil), ["send_many, command by command"] = by_send_many(false),
    ["smtp.send"] = alone(nil), ["smtp.send by BDAT"] = alone "chunk",
    ["smtp.send with a login along"] = alone("auth", LOGIN),
    ["smtp.send with a login along and by BDAT"] = alone("auth+chunk", LOGIN),
    ["smtp.send with a wrong login along"] = alone("auth", WRONG),
    ["smtp.send with a wrong login along and by BDAT"] = alone("auth+chunk", WRONG),
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

  -- Where messages end, and one octet before and behind that.
  local function ends(link)
    local said, list = table.concat(relay.flights(link)), {}
    for i = 1, COUNT do
      local stop = select(2, said:find(("..%d\r\n"):format(i), 1, true))
      -- behind it stands the terminator, where there is one
      for at = stop and stop - 1 or 1, stop and stop + 4 or 0 do list[#list + 1] = at end
    end
    return list
  end

  -- At every so many octets, each time in another way (all ways at every octet take minutes), and at every message's end.
  local function sweep(stride)
    local turn = 0
    for name, how in pairs(CASES) do
      for _, more in ipairs { {}, { partial = false } } do
        for _, refusing in ipairs { false, true } do
          refuses = refusing
          local whole, results = play(how, nil, more)
          local count = #results
          check(results, count, name)
          for _, at in ipairs(ends(whole)) do
            for _, plain in ipairs { false, true } do
              results = select(2, play(how, { up = at, mute = true, plain = plain }, more))
              check(results, count, ("%s cut up at the end %d"):format(name, at), not plain and how.guarded ~= WRONG)
            end
          end
          for _, direction in ipairs { "up", "down" } do
            for at = turn % stride, whole[direction] - 1, stride do
              turn = turn + 1
              local way = WAYS[turn % #WAYS + 1]
              local cut = { [direction] = at }
              for key, value in pairs(way) do cut[key] = value end
              results = select(2, play(how, cut, more))
              check(results, count, ("%s cut %s at %d, way %d"):format(name, direction, at, turn % #WAYS + 1),
                direction == "up" and not (way.took or way.plain) and how.guarded ~= WRONG)
            end
          end
        end
      end
    end
  end

  it("never makes a result untrue", function() sweep(23) end)
  it("never makes a result untrue, wherever it is #real", function() sweep(1) end)
end)

describe("a pool whose connections are cut in the middle", function()
  local COUNT_OF_POOL, CUTS = 6, 3
  local server, delivered
  setup(function()
    server = assert(smtp.server {
      on_message = function(_, message) delivered[message] = (delivered[message] or 0) + 1 end,
    })
  end)
  teardown(function() server:close() end)

  -- All messages through a pool whose first connections are cut like that. Returns the first one's link.
  local function play(pipeline, cut)
    delivered = {}
    local between = relay.new(server.port, function(number) return number <= CUTS and cut or nil end, server)
    local pool = assert(smtp.pool { host = "127.0.0.1", port = between.port, tls = "none", size = 3, attempts = CUTS + 1,
      helo = "client.example.org", pipeline = pipeline })
    local list, results, stop = {}, {}, smtp.now() + 60
    for i = 1, COUNT_OF_POOL do list[i] = letter(i) end
    local task = smtp.task(function()
      pool:send_many(each(list), function(receipt, err, given)
        assert(not results[given.raw], "a second result")
        results[given.raw] = receipt and "sent" or err.outcome .. ": " .. tostring(err)
      end)
      pool:close()
    end)
    while task:step() ~= "done" do
      between:step(0.001)
      assert(smtp.now() < stop, "it takes too long")
    end
    between:close()
    server:step(0)
    local unknown = 0
    for i = 1, COUNT_OF_POOL do
      local times, result = delivered[raw(i)] or 0, results[raw(i)]
      delivered[raw(i)] = nil
      -- only the first connections are cut: what is known not to be sent is sent in the end
      if not (result == "sent" and times == 1 or result:find "^unknown" and times <= 1) then
        error(("message %d is %s and was delivered %d times"):format(i, result, times))
      end
      unknown = unknown + (result == "sent" and 0 or 1)
    end
    assert.is_nil(next(delivered))
    return between.links[1], unknown
  end

  local function sweep(stride)
    for _, pipeline in ipairs { "data", "chunk" } do
      local whole = play(pipeline, nil)
      local said, doubts = whole.said, 0
      -- what comes before the first envelope is not about messages, and a pool rests after that
      local from = { up = #said[2].bytes + 1, down = #said[1].bytes + #said[3].bytes }
      for _, direction in ipairs { "up", "down" } do
        for at = from[direction], whole[direction] - 1, stride do
          local ran, result, unknown = pcall(play, pipeline, { [direction] = at })
          if not ran then error(("%s cut %s at %d: %s"):format(pipeline, direction, at, tostring(result)), 0) end
          doubts = doubts + unknown
        end
      end
      assert.is_true(doubts > 0)
    end
  end

  it("loses no message and sends none twice", function() sweep(97) end)
  it("loses no message and sends none twice, nearly wherever they are #real", function() sweep(5) end)
end)
