-- Code of the caller's that raises while something is sent.
-- Of: client/rows
local play = require "spec.support.play"
local smtp = require "smtp"
local together = require "spec.support.together"

local hello, script = play.hello, play.script
local letter, envelope, content = play.letter, play.envelope, play.content
local unpack = table.unpack or unpack

local OFFER = hello("PIPELINING")
local GO = { "S: 250 1", "S: 250 2", "S: 354 go" }

-- The path of a file of 3.2 MB, which is there as long as the present block of specs.
local function large_file()
  local path = os.tmpname()
  setup(function()
    local file = assert(io.open(path, "wb"))
    file:write(("0123456789abcdef"):rep(200000))
    file:close()
  end)
  teardown(function() os.remove(path) end)
  return path
end

-- An error value like no other: what comes through is this one.
local WORDS = setmetatable({}, { __tostring = function() return "of the caller's own" end })

-- The session is dead, its connection closed, and nothing that is called says otherwise.
local function check_dead(session, pipe)
  assert.are.equal("dead", session.state)
  assert.is_true(pipe.closed)
  for _, call in ipairs { function() return session:noop() end, function() return session:send(letter(9)) end,
    function() return session:quit() end } do
    local result, err = call()
    assert.is_nil(result)
    assert.are.same({ "closed", "not_sent" }, { err.kind, err.outcome })
    assert.is_truthy(err.reason:find("dead", 1, true) or err.reason:find("closed", 1, true))
  end
end

-- Results until one raises: "sent <id>" or kind, outcome; then what was raised.
local function run(results)
  local list = {}
  while true do
    local fine, receipt, err = pcall(results)
    if not fine then return list, receipt end
    if receipt == nil then return list end
    list[#list + 1] = receipt and "sent " .. receipt.message_id or err.kind .. " " .. err.outcome
  end
end

-- Every file that is opened while the body runs is closed at its end.
local function with_files(body)
  local open, files = io.open, {}
  io.open = function(...) -- luacheck: ignore
    local file, why = open(...)
    if file then files[#files + 1] = file end
    return file, why
  end
  local fine, why = pcall(body)
  io.open = open -- luacheck: ignore
  if not fine then error(why, 0) end
  assert.is_true(#files > 0)
  for i, file in ipairs(files) do assert.are.equal("closed file", io.type(file), i) end
end

describe("an iterator that raises", function()
  it("does so when all that it gave has its result, and the session is dead then", function()
    local session, transport = play.open(script(OFFER, envelope(1), GO, content(1), envelope(2), "S: 250 in", GO,
      content(2), "S: 250 in"))
    local i = 0
    local list, raised = run(session:send_many(function()
      i = i + 1
      if i == 3 then error(WORDS) end
      return letter(i)
    end))
    assert.are.same({ "sent <1@example.org>", "sent <2@example.org>" }, list)
    assert.are.equal(WORDS, raised)
    assert.are.equal(3, i)
    assert.is_nil(transport.pipe.script[transport.pipe.at])
    check_dead(session, transport.pipe)
  end)

  it("at once, before anything was given", function()
    local session, transport = play.open(OFFER)
    local results = session:send_many(function() error("no rows", 0) end)
    local list, raised = run(results)
    assert.are.same({ {}, "no rows" }, { list, raised })
    assert.is_nil((results()))
    check_dead(session, transport.pipe)
  end)

  it("whichever way messages go together: each delivered message is told of", function()
    for _, options in ipairs { { pipeline = "data" }, { pipeline = "chunk" }, {}, { pipeline = false }, { trace = true } } do
      for stop = 1, 24 do
        local server = assert(smtp.server {})
        together.run(function()
          options.host, options.port, options.tls = "127.0.0.1", server.port, "none"
          local session, i = assert(smtp.connect(options)), 0
          local list, fine, receipt = {}
          local results = session:send_many(function()
            i = i + 1
            if i == stop then error(WORDS) end
            return letter(i)
          end)
          -- a task of Lua 5.1 can either wait or catch
          if _VERSION == "Lua 5.1" and not rawget(_G, "jit") then
            session:close()
            return
          end
          repeat
            fine, receipt = pcall(results)
            if fine then list[#list + 1] = assert(receipt).message_id end
          until not fine
          assert.are.equal(WORDS, receipt)
          assert.are.equal(stop - 1, #list)
          assert.are.equal("dead", session.state)
        end, server)
        if _VERSION ~= "Lua 5.1" or rawget(_G, "jit") then assert.are.equal(stop - 1, #server.inbox) end
        server:close()
      end
    end
  end)
end)

describe("a row that cannot be composed", function()
  local BAD = {
    ["by value"] = { { from = "nobody", to = "a@example.test" }, "from" },
    ["by type"] = { { from = "ada@example.org", to = "a@example.test", text = 42 }, "text" },
    ["by type of a recipient"] = { { from = "ada@example.org", to = { 42 }, text = "x" }, "to" },
    ["by the name of an option"] = { { from = "ada@example.org", to = "a@example.test", txt = "x" }, 'did you mean "text"' },
    ["by a nested name"] = { { from = "ada@example.org", to = "a@example.test", text = "x", dsn = { ret = 1 } }, "ret" },
    ["as a number"] = { 42, "number" },
    ["as a string"] = { "x", "string" },
    ["as false"] = { false, "boolean" },
    ["as a function"] = { function() end, "function" },
    ["as a table that raises"] = { setmetatable({}, { __index = function() error "in the way" end }), "" },
  }

  it("is that row's result, named, and the others go on", function()
    for name, case in pairs(BAD) do
      local session, transport = play.open(script(OFFER, envelope(1), GO, content(1), "S: 250 in", envelope(3), GO, content(3),
        "S: 250 in"))
      local rows, i = { letter(1), case[1], letter(3) }, 0
      local results = session:send_many(function()
        i = i + 1
        return rows[i]
      end)
      assert(results())
      local receipt, err = results()
      assert.is_false(receipt, name)
      assert.are.same({ "input", "compose", "not_sent", false }, { err.kind, err.stage, err.outcome, err.temporary }, name)
      assert.is_truthy(err.reason:find("^row 2: "), err.reason)
      assert.is_truthy(err.reason:find(case[2], 1, true), err.reason)
      assert.are.equal("<3@example.org>", assert(results()).message_id)
      assert.is_nil((results()))
      play.finished(transport)
    end
  end)

  it("is that of a pool's row likewise", function()
    local server = assert(smtp.server {})
    together.run(function()
      local pool = assert(smtp.pool { host = "127.0.0.1", port = server.port, tls = "none", size = 2 })
      local rows, told, i = {}, {}, 0
      for name, case in pairs(BAD) do
        rows[#rows + 1] = letter(#rows + 1)
        rows[#rows + 1] = case[1]
        told[#rows] = name
      end
      local sent = 0
      pool:send_many(function()
        i = i + 1
        return rows[i]
      end, function(receipt, err, given)
        if receipt then
          sent = sent + 1
        else
          local number = tonumber(err.reason:match "^row (%d+): ")
          assert.are.equal("input", err.kind)
          assert.is_true(rows[number] == given)
          assert.is_truthy(told[number])
          told[number] = nil
        end
      end)
      assert.are.equal(#rows / 2, sent)
      assert.is_nil((next(told)))
      pool:close()
    end, server)
  end)

  it("with a function for the results send_many sends nothing and says so", function()
    local session, transport = play.open(OFFER)
    local written = #transport.pipe.written
    local fine, why = pcall(session.send_many, session, function() return letter(1) end, function() end)
    assert.is_false(fine)
    assert.is_truthy(why:find("session:send_many", 1, true))
    assert.are.equal(written, #transport.pipe.written)
  end)
end)

describe("on_progress that raises", function()
  local PATH = large_file()

  local function large(on_progress)
    return { from = "ada@example.org", to = "bob@example.test", text = "x", attachments = { { path = PATH } },
      on_progress = on_progress }
  end

  -- Each way over which it is sent, with the server's part up to where the content is read.
  local TALKS = {
    { hello("PIPELINING"), "C: MAIL FROM:<ada@example.org>", "C: RCPT TO:<bob@example.test>", "C: DATA", GO },
    { hello("PIPELINING", "CHUNKING"), "C: MAIL FROM:<ada@example.org>", "C: RCPT TO:<bob@example.test>", "S: 250 1",
      "S: 250 2" },
  }

  it("ends the connection at once, closes the files, and comes through", function()
    for i, talk in ipairs(TALKS) do
      for _, many in ipairs { false, true } do
        with_files(function()
          local session, transport = play.open(script(talk), { pipeline = i == 2 and "chunk" or "data" })
          local calls = 0
          local mail = large(function()
            calls = calls + 1
            error(WORDS)
          end)
          local raised
          if many then
            local given, list = false
            list, raised = run(session:send_many(function()
              if given then return nil end
              given = true
              return mail
            end))
            assert.are.same({ "source not_sent" }, list)
          else
            raised = select(2, pcall(session.send, session, mail))
          end
          assert.are.equal(WORDS, raised)
          assert.are.equal(1, calls)
          assert.is_nil(play.written(transport):find("\r\n.\r\n", 1, true))
          assert.is_nil(play.written(transport):find(" LAST", 1, true))
          check_dead(session, transport.pipe)
        end)
      end
    end
  end)

  it("behind the whole content leaves it unknown what became of the message, and the next is not sent", function()
    local session, transport = play.open(script(OFFER, envelope(1), GO, content(1), envelope(2), "S: 250 in", GO))
    local rows, i = { letter(1, { on_progress = function() error(WORDS) end }), letter(2) }, 0
    local list, raised = run(session:send_many(function()
      i = i + 1
      return rows[i]
    end))
    assert.are.same({ "closed unknown", "closed not_sent" }, list)
    assert.are.equal(WORDS, raised)
    check_dead(session, transport.pipe)
  end)

  it("likewise in a task", function()
    with_files(function()
      local session, transport = play.open(script(TALKS[1]), { pipeline = "data" })
      local task = smtp.task(session.send, session, large(function() error(WORDS) end))
      local fine, raised = pcall(task.step, task)
      assert.are.same({ false, WORDS }, { fine, raised })
      check_dead(session, transport.pipe)
    end)
  end)

  it("comes through smtp.send and a pool, which has its place free again", function()
    local server = assert(smtp.server {})
    local options = { host = "127.0.0.1", port = server.port, tls = "none", size = 1 }
    local mail = large(function() error(WORDS) end)
    local results = {}
    local tasks = {
      function()
        local all = { host = "127.0.0.1", port = server.port, tls = "none" }
        for name, value in pairs(mail) do all[name] = value end
        return smtp.send(all)
      end,
      function()
        local pool = assert(smtp.pool(options))
        results.pool = pool
        return pool:send(mail)
      end,
    }
    for _, run_it in ipairs(tasks) do
      local fine, raised = pcall(together.run, run_it, server)
      assert.are.same({ false, WORDS }, { fine, raised })
    end
    assert.are.equal("<5@example.org>", together.run(function() return results.pool:send(letter(5)).message_id end, server))
    server:close()
  end)
end)

describe("a function that gives a token and raises", function()
  it("ends the connection at once, and comes through", function()
    for _, call in ipairs { "auth", "open" } do
      local session, transport = play.session(hello("AUTH XOAUTH2"),
        { username = "ada", token = function() error(WORDS) end, allow_insecure_auth = true })
      if call == "auth" then
        assert(session:connect())
        assert(session:ehlo())
      end
      local fine, raised = pcall(session[call], session)
      assert.are.same({ false, WORDS }, { fine, raised })
      check_dead(session, transport.pipe)
    end
  end)
end)

describe("a trace that raises", function()
  it("ends the connection at once, and comes through; results that follow are not out of step", function()
    local count = 0
    local session, transport = play.open(script(OFFER, envelope(1), GO, content(1), envelope(2), "S: 250 in", GO), {
      trace = function(_, line)
        if line == "250 in" then
          count = count + 1
          error(WORDS)
        end
      end,
    })
    local i = 0
    local results = session:send_many(function()
      i = i + 1
      return i <= 3 and letter(i) or nil
    end)
    local fine, raised = pcall(results)
    assert.are.same({ false, WORDS, 1 }, { fine, raised, count })
    assert.is_true(transport.pipe.closed)
    assert.are.same({ "closed unknown", "closed not_sent", "closed not_sent" }, (run(results)))
    check_dead(session, transport.pipe)
  end)
end)

describe("a transport that raises", function()
  -- At the n-th read from now on.
  local function raise_at(transport, n)
    local read = transport.pipe.read
    function transport.pipe.read(...)
      n = n - 1
      if n == 0 then error(WORDS) end
      return read(...)
    end
  end

  local function each(count)
    local i = 0
    return function()
      i = i + 1
      return i <= count and letter(i) or nil
    end
  end

  it("leaves each result in its place: unknown where a content was handed over, and not sent behind that", function()
    local talk = script(OFFER, envelope(1), GO, content(1), envelope(2), "S: 250 in", GO, content(2), "S: 250 in")
    for n, expected in ipairs {
      { "closed not_sent", "closed not_sent", "closed not_sent" },
      { "closed unknown", "closed not_sent", "closed not_sent" },
      { "closed unknown", "closed not_sent", n = 1 },
    } do
      for _, options in ipairs { { pipeline = "data" }, { pipeline = "data", trace = true } } do
        local session, transport = play.open(talk, options)
        local results = session:send_many(each(3))
        raise_at(transport, n)
        for _ = 1, expected.n or 0 do assert(results()) end
        local fine, raised = pcall(results)
        assert.are.same({ false, WORDS }, { fine, raised })
        assert.are.same({ unpack(expected, 1, #expected) }, (run(results)), n)
        assert.are.equal("dead", session.state)
        assert.is_true(transport.pipe.closed)
      end
    end
  end)

  it("likewise where whole messages go together", function()
    local function whole(i)
      return { "C: MAIL FROM:<ada@example.org>", ("C: RCPT TO:<to%d@example.test>"):format(i), "C: BDAT 34 LAST",
        "C: Message-ID: <" .. i .. "@example.org>", "C: ", "C: " .. i }
    end
    local session, transport = play.open(script(hello("PIPELINING", "CHUNKING"), whole(1), "S: 250 1", "S: 250 2", "S: 250 in"),
      { pipeline = "chunk" })
    local results = session:send_many(each(3))
    raise_at(transport, 1)
    assert.is_false((pcall(results)))
    assert.are.same({ "closed unknown", "closed unknown", "closed unknown" }, (run(results)))
    assert.are.equal("dead", session.state)
  end)
end)

describe("files of a message", function()
  local PATH = large_file()

  local function message(more)
    return assert(smtp.message { from = "ada@example.org", to = "bob@example.test", text = "x",
      attachments = { { path = PATH }, more } })
  end

  local TALK = script(OFFER, "C: MAIL FROM:<ada@example.org>", "C: RCPT TO:<bob@example.test>", "C: DATA", GO)

  it("are closed where the connection breaks in the midst of one", function()
    with_files(function()
      local session = play.open(script(TALK, "deaf"))
      local receipt, err = session:send(message())
      assert.are.same({ nil, "closed" }, { receipt, err.kind })
    end)
  end)

  it("where the session is closed meanwhile", function()
    with_files(function()
      local session, transport = play.open(TALK)
      local write = transport.pipe.write
      function transport.pipe.write(...)
        if session.reading then session:close() end
        return write(...)
      end
      assert.is_nil((session:send(message())))
    end)
  end)

  it("where the source behind it raises", function()
    with_files(function()
      local session = play.open(TALK)
      local _, err = session:send(message { source = function() error("of its own", 0) end, filename = "x" })
      assert.are.same({ "source", "not_sent" }, { err.kind, err.outcome })
      assert.is_truthy(err.reason:find("of its own", 1, true))
    end)
  end)

  it("likewise in chunks", function()
    with_files(function()
      local session = play.open(script(hello("CHUNKING", "PIPELINING"), "C: MAIL FROM:<ada@example.org>",
        "C: RCPT TO:<bob@example.test>", "S: 250 1", "S: 250 2", "deaf"), { pipeline = "chunk" })
      assert.is_nil((session:send(message())))
    end)
  end)

  it("where data() breaks off", function()
    with_files(function()
      local session = play.open(script(hello(), "C: MAIL FROM:<ada@example.org>", "S: 250 1", "C: RCPT TO:<bob@example.test>",
        "S: 250 2", "C: DATA", "S: 354 go", "deaf"))
      assert(session:mail "ada@example.org")
      assert(session:rcpt "bob@example.test")
      assert.is_nil((session:data(message())))
    end)
  end)

  it("where a message to attach is refused", function()
    with_files(function()
      local path = os.tmpname()
      local file = assert(io.open(path, "wb"))
      file:write("Subject: x\r\n\r\n" .. ("x"):rep(2000) .. "\r\n" .. ("0123456789abcde\n"):rep(200000))
      file:close()
      local mail, err = smtp.message { from = "ada@example.org", to = "bob@example.test", text = "x",
        attachments = { { path = path, filename = "x.eml" } } }
      os.remove(path)
      assert.are.same({ nil, "input" }, { mail, err.kind })
    end)
  end)

  it("where who reads them has enough", function()
    with_files(function()
      local read, close = message():source()
      local size = 0
      repeat size = size + #read() until size > 200000
      close()
      local chunk, err = read()
      assert.are.same({ nil, "source" }, { chunk, err.kind })
    end)
  end)
end)
