-- The transport inside a real Tarantool, which runs this file by busted, too: what is said here of its fibers is said there.
local child = require "spec.support.child"
local core = require "smtp.core"
local loopback = require "spec.support.loopback"
local smtp = require "smtp"

local LETTER = { from = "ada@example.org", to = "grace@example.test", text = "x" }

-- What sends it.
local function to(port, timeout)
  return { host = "127.0.0.1", port = port, tls = "none", timeout = timeout, from = LETTER.from, to = LETTER.to, text = "x" }
end

if rawget(_G, "_TARANTOOL") then
  local away = require "spec.support.away"
  local fiber = require "fiber"
  local host = require "spec.support.loops".tarantool
  local transport = require "smtp.transport.tarantool"

  require "spec.transport_conformance"("the Tarantool transport", transport, host)

  return describe("a fiber", function()
    -- Runs in a fiber that is cancelled once `ready`; how long it took to end after that, and with what.
    local function cancelled(run, ready)
      local result
      local one = fiber.new(function() result = { pcall(run) } end)
      one:set_joinable(true)
      local late = core.now() + 5
      while not ready() and core.now() < late do fiber.sleep(0.001) end
      local began = core.now()
      one:cancel()
      one:join()
      return core.now() - began, tostring(result[2])
    end

    it("that is cancelled while it sends ends at once, and closes its connection", function()
      local silent = loopback.listen()
      local before = loopback.descriptors()
      collectgarbage "stop"
      for _ = 1, 20 do
        local accepted
        local took, reason = cancelled(function() smtp.send(to(silent.port)) end, function()
          accepted = accepted or silent.sock:accept()
          return accepted
        end)
        assert.is_true(took < 1, took)
        assert.are.equal("fiber is cancelled", reason)
        assert.are.same({ nil, "closed" }, { loopback.finish(accepted, "read", "read") })
        accepted:close()
      end
      local now = loopback.descriptors(true)
      collectgarbage "restart"
      silent.close()
      assert.are.equal(before, now)
    end)

    it("that is cancelled while a pool sends for it takes those beside it along, and leaves the pool to others", function()
      local server, silent = away.start "none", loopback.listen()
      local pool = assert(smtp.pool { host = "127.0.0.1", port = silent.port, tls = "none", size = 4 })
      local given = 0
      local took, reason = cancelled(function()
        pool:send_many(function()
          given = given + 1
          return LETTER
        end, error)
      end, function() return given == 4 end)
      assert.is_true(took < 1, took)
      assert.are.equal("fiber is cancelled", reason)
      pool.plan.port = server.port
      assert(pool:send(LETTER))
      assert.are.equal(1, pool.open)
      pool:close()
      silent.close()
      server:stop()
    end)

    it("has the transport for its own where none is chosen, and lets others go on", function()
      local silent = loopback.listen()
      local ticks, ended = 0, false
      fiber.create(function()
        while not ended do
          fiber.sleep(0.001)
          ticks = ticks + 1
        end
      end)
      local _, err = smtp.send(to(silent.port, 0.2))
      ended = true
      silent.close()
      assert.are.equal("timeout", err.kind)
      assert.is_true(ticks > 10, ticks)
      local server = assert(smtp.server {})
      fiber.create(server.run, server)
      assert(smtp.send(to(server.port)))
      assert.are.equal(1, #server.inbox)
      server:close()
    end)
  end)
end

describe("inside Tarantool #real", function()
  local missing = not os.execute "command -v tarantool >/dev/null" and "NO TARANTOOL (spec/support/install.sh test installs tarantool)"

  local function output_of(command)
    local pipe = assert(io.popen("unset LD_PRELOAD MAKEFLAGS MFLAGS MAKELEVEL; " .. command .. " 2>&1 </dev/null"))
    local output = pipe:read "*a"
    pipe:close()
    return output
  end

  it("all is as everywhere", function()
    if missing then return pending(missing) end
    local output = output_of [[make -s LUA=luajit && eval "$(make -s env LUA=luajit)" &&
      LUA_PATH="$LUA_PATH;/usr/share/lua/5.1/?.lua;/usr/share/lua/5.1/?/init.lua" \
      tarantool "$(command -v busted)" --output=utfTerminal spec/hosts/tarantool_spec.lua spec/loops_spec.lua]]
    local passed = output:match "(%d+) successes / 0 failures / 0 errors / 0 pending"
    assert.is_true(tonumber(passed or 0) > 20, output)
  end)
end)
