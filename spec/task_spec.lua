local away = require "spec.support.away"
local core = require "smtp.core"
local loopback = require "spec.support.loopback"
local smtp = require "smtp"

local STEP = 30 -- seconds: a step that blocks waits for what only another step could give it


local function options(port, given)
  local all = { host = "127.0.0.1", port = port, tls = "none", helo = "client.example.org", from = "ada@example.org",
    to = "user@example.org", subject = "A task", text = "Hello" }
  for name, value in pairs(given or {}) do all[name] = value end
  return all
end

-- Steps a task, watching the clock.
local function step(task)
  local began = core.now()
  local what, fd, deadline = task:step()
  local took = core.now() - began
  assert(took < STEP, ("a step took %.3f s"):format(took))
  return what, fd, deadline
end

describe("a task", function()
  it("gives back what its function returned, nils and all, at every step from then on", function()
    local task = smtp.task(function(...) return select("#", ...), nil, ..., nil end, nil, "b", nil)
    for _ = 1, 3 do
      local function check(...)
        assert.are.equal(5, select("#", ...))
        assert.are.same({ "done", 3, nil, nil, nil }, { ... })
      end
      check(task:step())
    end
    assert.are.equal(1, select("#", smtp.task(function() end):step()))
    task = smtp.task(function(...) return ... end, nil, "b", nil)
    assert.are.equal(4, select("#", task:step()))
    assert.are.same({ "done", nil, "b", nil }, { task:step() })
  end)

  it("runs its function once, at the first step", function()
    local runs = 0
    local task = smtp.task(function() runs = runs + 1 end)
    assert.are.equal(0, runs)
    task:step()
    task:step()
    assert.are.equal(1, runs)
  end)

  it("raises what its function raised, at every step from then on", function()
    for _, value in ipairs { "plain words", { a = "table" } } do
      local task = smtp.task(function() error(value, 0) end)
      for _ = 1, 2 do
        local ok, raised = pcall(task.step, task)
        assert.is_false(ok)
        assert.are.equal(value, raised)
      end
    end
  end)

  it("needs a function", function()
    for _, odd in ipairs { false, "send", {} } do
      assert.has_error(function() smtp.task(odd) end, "smtp.task: expected a function, got " .. type(odd))
    end
  end)

  it("yields what it waits for: mode, descriptor, deadline", function()
    local listener = loopback.listen()
    local task = smtp.task(smtp.connect, { host = "127.0.0.1", port = listener.port, tls = "none", timeout = 60 })
    -- before it waits for a peer it may wait to connect, or let others go on after a write on a busy machine
    local function settle()
      local what, fd, deadline = step(task)
      while what == "write" do
        assert.is_true(core.wait(what, fd, core.now() + 60))
        what, fd, deadline = step(task)
      end
      return what, fd, deadline
    end
    local what, fd, deadline = settle()
    local peer = listener.accept()
    assert.are.equal("read", what)
    assert.is_false(core.wait(what, fd, 0))
    assert(deadline > core.now() and deadline <= core.now() + 60)
    -- stepped too early it says the same again
    assert.are.same({ what, fd, deadline }, { step(task) })
    peer:write "220 hi\r\n"
    assert.is_true(core.wait(what, fd, core.now() + 60))
    assert.are.equal("read", (settle()))
    assert.are.equal("EHLO", loopback.finish(peer, "read", "read"):sub(1, 4))
    peer:close()
    assert.is_true(core.wait(what, fd, core.now() + 60))
    local done, session, err = step(task)
    assert.are.same({ "done", nil, "closed" }, { done, session, err.kind })
    listener.close()
  end)

  it("never blocks, the look-up of a name included", function()
    for _, host in ipairs { "localhost", "no-such-host.invalid" } do
      local task = smtp.task(smtp.connect, { host = host, port = 1, tls = "none", timeout = 1 })
      local what, fd, last = step(task)
      while what ~= "done" do
        core.wait(what, fd, math.min(last, core.now() + 0.2))
        what, fd, last = step(task)
      end
      assert.is_nil(fd)
      assert(last.kind == "connect" or last.kind == "resolve" or last.kind == "timeout", last.kind)
    end
  end)

  it("ends a step after some milliseconds, however fast the network is", function()
    local server = away.start "none"
    local pieces, most = 0, 0
    local task = smtp.task(smtp.send, options(server.port, { attachments = { {
      filename = "a.bin",
      source = function()
        pieces = pieces + 1
        local stop = core.now() + 0.003 -- the work of a slow machine
        while core.now() < stop do end
        return pieces < 30 and ("x"):rep(30000) or nil
      end,
    } } }))
    local what, receipt, err
    repeat
      local before = pieces
      what, receipt, err = task:step()
      most = math.max(most, pieces - before)
      core.wait("read", -1, core.now() + 0.005)
    until what == "done"
    server:stop()
    assert(receipt, err)
    assert.are.equal(30, pieces)
    assert.is_true(most < 15, most .. " pieces in one step")
  end)

  it("outside its own thread a call blocks, as it does without tasks", function()
    local listener = loopback.listen()
    local thread = coroutine.create(function()
      return smtp.connect { host = "127.0.0.1", port = listener.port, tls = "none", timeout = 0.1 }
    end)
    local ok, session, err = coroutine.resume(thread)
    assert.are.equal("dead", coroutine.status(thread))
    assert.are.same({ true, nil, "timeout" }, { ok, session, err.kind })
    listener.close()
  end)

  it("shares one thread with others and with the server", function()
    local server = assert(smtp.server {})
    local lines, tasks, receipts = {}, {}, {}
    for number = 1, 2 do
      tasks[number] = smtp.task(smtp.send, options(server.port, {
        -- an address: two look-ups would end when they like, and the tasks' order with them
        host = "127.0.0.1", to = ("user%d@example.org"):format(number),
        trace = function(direction, line) lines[#lines + 1] = { number, direction, line } end,
      }))
    end
    local stop = core.now() + 60
    while not (receipts[1] and receipts[2]) do
      assert(core.now() < stop, "the tasks take too long")
      for number, task in ipairs(tasks) do
        local what, receipt, err = step(task)
        if what == "done" then receipts[number] = assert(receipt, err) end
      end
      server:step(0.002)
    end
    assert.is_nil(server.failure)
    server:close()
    assert.are.equal(2, #server.inbox)
    for number, receipt in ipairs(receipts) do
      assert.are.same({ ("user%d@example.org"):format(number) }, receipt.accepted)
    end
    -- each saw a whole dialogue, and neither waited for the other's end
    local changes, dialogues = 0, { {}, {} }
    for i, line in ipairs(lines) do
      if i > 1 and lines[i - 1][1] ~= line[1] then changes = changes + 1 end
      table.insert(dialogues[line[1]], line[2] .. ": " .. line[3]:match("^%S+"))
    end
    assert.are.same(dialogues[1], dialogues[2])
    assert.are.same({ "S: 220", "C: EHLO" }, { dialogues[1][1], dialogues[1][2] })
    assert(changes >= 4, changes)
  end)

  it("given up half-way leaves no descriptor", function()
    local server = assert(smtp.server {})
    local before = loopback.descriptors()
    for steps = 0, 12 do
      local task = smtp.task(smtp.send, options(server.port, { host = steps % 2 == 0 and "127.0.0.1" or "localhost" }))
      for _ = 1, steps do
        step(task)
        server:step(0.001)
      end
      task = nil -- luacheck: ignore
      collectgarbage()
      collectgarbage()
      -- the server sees them go
      for _ = 1, 3 do server:step(0.001) end
    end
    local deadline = core.now() + 60
    while loopback.descriptors() > before and core.now() < deadline do server:step(0.01) end
    assert.are.equal(before, loopback.descriptors())
    server:close()
  end)
end)

describe("a server", function()
  it("runs in a task, until it is closed", function()
    local server = assert(smtp.server {})
    local run, send = smtp.task(server.run, server), smtp.task(smtp.send, options(server.port))
    local stop = core.now() + 60
    local what, receipt, err
    repeat
      assert.are_not.equal("done", (step(run)))
      what, receipt, err = step(send)
      core.wait("read", -1, core.now() + 0.002)
    until what == "done" or core.now() > stop
    assert(receipt, err)
    server:close()
    assert.are.equal("done", (step(run)))
    assert.are.equal(1, #server.inbox)
  end)
end)
