local core = require "smtp.core"
local loopback = require "spec.support.loopback"
local smtp = require "smtp"
local socket = require "smtp.transport.socket"
local together = require "smtp.transport.together"

-- A host that waits for one descriptor at a time, and writes down for which.
local function host(seen)
  return function(mode, fd, deadline)
    seen[#seen + 1] = fd
    core.wait(mode, fd, deadline)
  end
end

local function rest(seconds)
  local deadline = core.now() + seconds
  while core.now() < deadline do socket.wait("read", -1, deadline) end
end

describe("tasks together", function()
  local listener, client, server

  before_each(function()
    listener = loopback.listen()
    client, server = listener.pair()
  end)

  after_each(function()
    for _, one in ipairs { client, server, listener } do one:close() end
  end)

  -- In a thread that may block; by a host's wait; by that on a system without pollers.
  local function each(run)
    run()
    local seen = {}
    run(host(seen))
    assert(#seen > 0)
    local poller = core.poller
    core.poller = function() end -- luacheck: ignore
    local ok, reason = pcall(run, host(seen))
    core.poller = poller -- luacheck: ignore
    if not ok then error(reason, 0) end
  end

  it("wait for each other's doings, and end each when it can", function()
    each(function(wait)
      local order = {}
      local tasks = {
        smtp.task(function()
          while not client:read() do socket.wait("read", client:fd(), core.now() + 60) end
          order[#order + 1] = "read"
        end),
        smtp.task(function()
          rest(0.03)
          order[#order + 1] = "written"
          server:write "x"
        end),
        smtp.task(function() order[#order + 1] = "at once" end),
      }
      local late = core.now() + 60
      together.run(tasks, wait)
      assert.are.same({ "at once", "written", "read" }, order)
      assert.are.equal(0, #tasks)
      assert.is_true(core.now() < late)
    end)
  end)

  it("are not disturbed by what comes after their deadline", function()
    each(function(wait)
      local late
      together.run({
        smtp.task(function()
          socket.wait("read", client:fd(), core.now() + 0.02)
          rest(0.06)
          socket.wait("read", client:fd(), core.now() + 60)
          late = client:read()
        end),
        smtp.task(function()
          rest(0.04)
          server:write "x"
        end),
      }, wait)
      assert.are.equal("x", late)
    end)
  end)

  it("wake seldom while nothing happens", function()
    local seen = {}
    local task = smtp.task(function()
      socket.wait("read", client:fd(), core.now() + 0.2)
    end)
    together.run({ task, smtp.task(rest, 0.2) }, host(seen))
    assert.is_true(#seen <= 4, #seen .. " waits")
  end)

  it("tell the host of their descriptor's end, and raise what a task raises", function()
    local forgotten = {}
    local before = loopback.descriptors()
    together.run({ smtp.task(rest, 0.01) }, host {}, function(fd) forgotten[#forgotten + 1] = fd end)
    assert.is_true(#forgotten == 1 or not core.poller())
    local ok, reason = pcall(together.run, { smtp.task(function() error("mine", 0) end) }, host {})
    assert.are.same({ false, "mine" }, { ok, reason })
    assert.are.equal(before, loopback.descriptors())
  end)
end)
