-- What waits for another coroutine is woken by it, whatever loop it is in: by the host, by a loop of ours, by a descriptor.
local bell = require "smtp.transport.bell"
local clock = require "spec.support.clock"
local core = require "smtp.core"
local loopback = require "spec.support.loopback"
local loops = require "spec.support.loops"
local smtp = require "smtp"
local socket = require "smtp.transport.socket"

local COUNT = 200

describe("a bell", function()
  local bells, order, late

  before_each(function()
    bells, order, late = {}, {}, core.now() + 60
  end)

  after_each(clock.go)

  -- What waits for bell number i.
  local function waiter(transport, i)
    bells[i] = transport.bell()
    return function()
      bells[i]:wait(late)
      assert(core.now() < late)
      bells[i]:close()
      order[#order + 1] = i
    end
  end

  local function all()
    local list = {}
    for i = 1, COUNT do list[i] = i end
    return list
  end

  -- A host with coroutines; waits are counted.
  local function new_host(wakes)
    local host = { waits = 0, threads = {}, fds = {} }
    host.transport = socket.new(function(_, fd)
      host.waits = host.waits + 1
      host.fds[coroutine.running()] = fd
      coroutine.yield()
    end, nil, nil, wakes and function(thread) host.woken = thread end or nil)
    function host.spawn(run)
      local thread = coroutine.create(run)
      host.threads[#host.threads + 1] = thread
      assert(coroutine.resume(thread))
    end
    return host
  end

  it("has hundreds wait in a host that wakes, without a descriptor and without a look", function()
    local before, host = loopback.descriptors(), new_host(true)
    for i = 1, COUNT do host.spawn(waiter(host.transport, i)) end
    assert.are.equal(before, loopback.descriptors())
    for i = 1, COUNT do
      bells[i]:ring()
      assert.are.equal(host.threads[i], host.woken)
      assert(coroutine.resume(host.woken))
    end
    assert.are.same(all(), order)
    assert.are.equal(COUNT, host.waits)
  end)

  it("has few wait by a descriptor in a host that does not wake, and the others look", function()
    local before, host = loopback.descriptors(), new_host(false)
    for i = 1, COUNT do host.spawn(waiter(host.transport, i)) end
    assert.is_true(loopback.descriptors() - before <= 32)
    for i = 1, COUNT do
      bells[i]:ring()
      local fd = host.fds[host.threads[i]]
      assert.is_true(fd < 0 or core.wait("read", fd, 0))
      assert(coroutine.resume(host.threads[i]))
    end
    assert.are.same(all(), order)
    assert.are.equal(before, loopback.descriptors())
  end)

  it("has who is far from its turn look seldom", function()
    clock.stop()
    for place, seconds in pairs { [1] = 0.02, [4] = 0.02, [40] = 0.2, [400] = 2 } do
      local began, one = core.now(), nil
      one = bell.new { blocks = function() return false end, wait = function(_, fd, deadline)
        assert.are.equal(-1, fd)
        clock.pass(deadline - core.now())
        one:ring()
      end }
      one:wait(began + 60, place)
      assert.is_true(math.abs(core.now() - began - seconds) < 1e-6)
    end
  end)

  -- Waiters and who rings them, side by side; `wait`s of all are counted.
  local function tasks_of(transport)
    local runs = {}
    for i = 1, COUNT do runs[i] = waiter(transport, i) end
    runs[#runs + 1] = function()
      for i = 1, COUNT do
        transport.wait("read", -1, core.now()) -- so that each is rung by itself
        bells[i]:ring()
      end
    end
    return runs
  end

  it("has hundreds wait in a loop of ours, and each goes on when it is rung", function()
    local before, transport = loopback.descriptors(), socket.new()
    local runs, poll, polls = tasks_of(transport), core.poll, 0
    core.poll = function(...) -- luacheck: ignore
      polls = polls + 1
      assert.are.equal(before, loopback.descriptors())
      return poll(...)
    end
    local ok, reason = pcall(transport.together, runs)
    core.poll = poll -- luacheck: ignore
    assert(ok, reason)
    assert.are.same(all(), order)
    assert.is_true(polls <= COUNT + 2, polls)
  end)

  for _, name in ipairs { "cqueues", "luv" } do
    it("has hundreds wait in a loop of " .. name .. " without a descriptor", function()
      local loop = loops[name]
      if loop.missing then return pending(loop.missing) end
      local transport = require("smtp.transport." .. name)
      local before, most = loopback.descriptors(), 0
      loop.run(function()
        local runs = tasks_of(transport)
        runs[#runs + 1] = function() most = loopback.descriptors() - before end
        transport.together(runs)
      end)
      assert.are.same(all(), order)
      assert.is_true(most < 32, most)
    end)
  end

  it("rings out of a task into a loop of ours that rests in another task", function()
    local transport, steps = socket.new(), 0
    local loop = smtp.task(transport.together, { waiter(transport, 1), waiter(transport, 2) })
    local mode, fd = loop:step()
    assert.are.equal("read", mode)
    assert.is_false(core.wait("read", fd, 0))
    for i = 1, 2 do
      bells[i]:ring()
      assert.is_true(core.wait("read", fd, 0))
      repeat
        mode = loop:step()
        steps = steps + 1
      until mode == "done" or not core.wait("read", fd, 0)
    end
    assert.are.equal("done", mode)
    assert.are.same({ 1, 2 }, order)
    assert.are.equal(2, steps)
  end)

  it("keeps nobody from the collector who waits for it", function()
    for _, wakes in ipairs { true, false } do
      local host, gone = new_host(wakes), setmetatable({}, { __mode = "v" })
      host.spawn(waiter(host.transport, 1))
      gone[1], host.threads, host.fds = host.threads[1], {}, {}
      collectgarbage()
      collectgarbage()
      assert.is_nil(gone[1])
      bells[1]:ring()
    end
  end)

  it("that was rung before ends the wait at once, and only one", function()
    local waits = 0
    local one = bell.new { wait = function() waits = waits + 1 end, blocks = function() return true end }
    one:ring()
    one:ring()
    one:wait(late)
    assert.are.equal(0, waits)
    one:wait(core.now() - 1)
    assert.are.equal(0, waits)
  end)
end)
