-- send_many whose results nobody wants any more: what is on its way is ended, and all that the iterator gave is told of.
local play = require "spec.support.play"
local smtp = require "smtp"
local together = require "spec.support.together"

local hello, script = play.hello, play.script
local letter, envelope, content = play.letter, play.envelope, play.content

local OFFER = hello("PIPELINING")
local GO = { "S: 250 1", "S: 250 2", "S: 354 go" }

-- Letters 1 to `count`, and how many of them have been given.
local function letters(count)
  local given = { count = 0 }
  return function()
    if given.count >= count then return nil end
    given.count = given.count + 1
    return letter(given.count)
  end, given
end

-- The results that are left: "sent <id>", or the error's kind and outcome.
local function rest(results)
  local list = {}
  local receipt, err = results()
  while receipt ~= nil do
    list[#list + 1] = receipt and "sent " .. receipt.message_id or err.kind .. " " .. err.outcome
    receipt, err = results()
  end
  return list
end

-- Whether a `for` closes its fourth value: Lua 5.4 on.
local CLOSES = (loadstring or load)("local a <close> = nil return true") ~= nil

describe("send_many that is left before its end", function()
  -- A server, and a session for each way that messages go together.
  local WAYS = { data = { pipeline = "data" }, chunk = { pipeline = "chunk" }, auto = {}, step = { pipeline = false },
    traced = { trace = true }, lmtp = { lmtp = true } }

  local function each_way(body)
    for name, how in pairs(WAYS) do
      local server = assert(smtp.server { lmtp = how.lmtp })
      together.run(function()
        local options = { host = "127.0.0.1", port = server.port, tls = "none" }
        for key, value in pairs(how) do options[key] = value end
        body(assert(smtp.connect(options)), server, name)
      end, server)
      server:close()
    end
  end

  for _, after in ipairs { 0, 1, 2, 3 } do
    for ending, leave in pairs {
      ["is closed"] = function(results) results:close() end,
      ["is closed twice"] = function(results)
        results:close()
        results:close()
      end,
      ["is forgotten"] = function() end,
    } do
      it(("after %d results and %s: the session goes on, each message delivered is told of"):format(after, ending), function()
        each_way(function(session, server, name)
          local iterator, given = letters(40)
          local results, told = session:send_many(iterator), {}
          for i = 1, after do told[i] = "sent " .. assert(results()).message_id end
          leave(results)
          local asked = given.count
          assert(session:noop(), name)
          assert.are.equal("<99@example.org>", assert(session:send(letter(99))).message_id)
          assert.are.equal(asked, given.count, name)
          -- who forgot may come back
          if ending ~= "is forgotten" then
            for _, one in ipairs(rest(results)) do told[#told + 1] = one end
            assert.are.equal(asked, #told, name)
          else
            told[#told + 1] = "sent " .. assert(results()).message_id
            results:close()
            for _, one in ipairs(rest(results)) do told[#told + 1] = one end
            assert.are.equal(given.count, #told, name)
          end
          assert.is_nil((results()))
          assert(session:quit(), name)
          local sent, arrived = {}, {}
          for i, one in ipairs(told) do
            if one:find "^sent" then sent[#sent + 1] = ("sent <%d@example.org>"):format(i) end
            assert.is_truthy(one == ("sent <%d@example.org>"):format(i) or one == "closed not_sent", one)
          end
          for _, got in ipairs(server.inbox) do
            local id = got.data:match("^Message%-ID: (%S+)")
            if id ~= "<99@example.org>" then arrived[#arrived + 1] = "sent " .. id end
          end
          assert.are.same(sent, arrived, name)
          assert.are.equal(#arrived + 1, #server.inbox)
        end)
      end)
    end
  end

  it("says QUIT behind the content that was due, on every Lua", function()
    local session, transport = play.open(script(OFFER, envelope(1), GO, content(1), envelope(2), "S: 250 in", GO,
      content(2), "S: 250 in", "C: QUIT", "S: 221 bye"))
    local results = session:send_many((letters(3)))
    assert(results())
    assert(session:quit())
    play.finished(transport)
    -- 2 went, 3 was fetched and did not go
    assert.are.same({ "sent <2@example.org>" }, { rest(results)[1] })
  end)

  it("is closed by the loop that is left, where the Lua has closing values", function()
    if not CLOSES then return end
    local session, transport = play.open(script(OFFER, envelope(1), GO, content(1), envelope(2), "S: 250 in", GO,
      content(2), "S: 250 in"))
    local iterator, given = letters(5)
    for receipt in session:send_many(iterator) do
      if receipt.message_id == "<1@example.org>" then break end
    end
    play.finished(transport)
    assert.are.equal(3, given.count) -- the third had been asked for, and was not sent
  end)

  it("likewise in a task, and where the loop is left by an error", function()
    if not CLOSES then return end
    each_way(function(session, server, name)
      local told = {}
      for receipt in session:send_many((letters(40))) do
        told[#told + 1] = receipt.message_id
        if #told == 2 then break end
      end
      local fine, why = pcall(function()
        for _ in session:send_many((letters(40))) do error("enough", 0) end
      end)
      assert.are.same({ false, "enough" }, { fine, why })
      assert.are.equal("<99@example.org>", assert(session:send(letter(99)), name).message_id)
      assert(session:quit())
      assert.is_truthy(server.inbox[#server.inbox].data:find("<99@example.org>", 1, true))
    end)
  end)

  it("is no news to later calls where the iterator has raised meanwhile", function()
    local session, transport = play.open(script(OFFER, envelope(1), GO, content(1), "S: 250 in", envelope(2), GO, content(2),
      "S: 250 in"))
    local i = 0
    local results = session:send_many(function()
      i = i + 1
      return i == 1 and letter(1) or error("no rows", 0)
    end)
    assert(results())
    results:close()
    assert.are.equal("<2@example.org>", assert(session:send(letter(2))).message_id)
    play.finished(transport)
    assert.has_error(function() results() end, "no rows")
  end)

  it("gives the error of a message on its way that is refused then", function()
    local session, transport = play.open(script(OFFER, envelope(1), GO, content(1), envelope(2), "S: 250 in", GO,
      content(2), "S: 554 5.7.1 no", "C: NOOP", "S: 250 ok"))
    local results = session:send_many((letters(2)))
    assert(results())
    results:close()
    assert.are.same({ "rejected not_sent" }, rest(results))
    assert(session:noop())
    play.finished(transport)
  end)

  it("gives what could not be composed its error all the same", function()
    local session = play.open(script(OFFER, envelope(1), GO, content(1), "S: 250 in"))
    local rows, i = { letter(1), { from = "nobody" } }, 0
    local results = session:send_many(function()
      i = i + 1
      return rows[i]
    end)
    assert(results())
    results:close()
    assert.are.same({ "input not_sent" }, rest(results))
  end)

  it("sends nothing more where the connection is lost or closed meanwhile", function()
    local session, transport = play.open(script(OFFER, envelope(1), GO, content(1), envelope(2), "S: 250 in", "close"))
    local results = session:send_many((letters(3)))
    assert(results())
    results:close()
    local list = rest(results)
    assert.is_truthy(list[1]:find " not_sent")
    assert.is_nil(table.concat(transport.pipe.written):find("<2@example.org>", 1, true))

    session, transport = play.open(script(OFFER, envelope(1), GO, content(1), envelope(2), "S: 250 in", GO))
    results = session:send_many((letters(3)))
    assert(results())
    session:close()
    results:close()
    assert.are.equal("closed not_sent", rest(results)[1])
    assert.is_nil(table.concat(transport.pipe.written):find("<2@example.org>", 1, true))
  end)

  it("tells of what had been fetched, where the server closed over the question about chunks", function()
    local session = play.open(script(hello("PIPELINING", "CHUNKING"), envelope(1), GO, content(1), "C: RSET",
      "C: BDAT 6 LAST", "C: XNOP", "C: RSET", "S: 250 in", "close"), { host = "left.example.org" })
    local iterator, given = letters(9)
    local results = session:send_many(iterator)
    assert(results())
    results:close()
    assert.are.same({ "closed not_sent", "closed not_sent" }, rest(results))
    assert.are.equal(3, given.count)
  end)

  it("may be followed by another on the same session", function()
    each_way(function(session, server, name)
      local first = session:send_many((letters(20)))
      assert(first())
      local second = session:send_many((letters(3)))
      for _ = 1, 3 do assert(second(), name) end
      assert.is_nil((second()))
      local more = assert(first())
      assert.are.equal("<2@example.org>", more.message_id)
      first:close()
      local sent = 2
      for _, one in ipairs(rest(first)) do sent = sent + (one:find "^sent" and 1 or 0) end
      assert(session:quit())
      assert.are.equal(sent + 3, #server.inbox, name)
    end)
  end)
end)
