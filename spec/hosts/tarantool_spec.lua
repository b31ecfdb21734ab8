-- The transport inside a real Tarantool, which runs this file by busted, too: what is said here of its fibers is said there.
if rawget(_G, "_TARANTOOL") then
  local fiber = require "fiber"
  local core = require "smtp.core"
  local loopback = require "spec.support.loopback"
  local smtp = require "smtp"
  local transport = require "smtp.transport.tarantool"

  require "spec.transport_conformance"("the Tarantool transport", transport, {
    run = function(run) return run() end,
    spawn = fiber.create,
    pause = fiber.sleep,
    drop = function(run)
      local one = fiber.create(run)
      fiber.sleep(0.05)
      one:cancel()
      fiber.sleep(0.02)
    end,
  })

  return describe("a fiber", function()
    it("that is cancelled while it sends ends at once, and leaves no connection", function()
      local silent = loopback.listen()
      local before, raised = #require "fio".listdir "/proc/self/fd", nil
      for _ = 1, 20 do
        local one = fiber.create(function()
          fiber.self():set_joinable(true)
          local _, reason = pcall(smtp.send, { host = "127.0.0.1", port = silent.port, tls = "none", timeout = 30,
            from = "ada@example.org", to = "grace@example.org", text = "", transport = transport })
          raised = tostring(reason)
        end)
        fiber.sleep(0.01)
        local began = core.now()
        one:cancel()
        one:join()
        assert.is_true(core.now() - began < 1)
        assert.matches("cancelled", raised)
      end
      silent.close()
      collectgarbage()
      collectgarbage()
      assert.is_true(#require "fio".listdir "/proc/self/fd" <= before)
    end)
  end)
end

describe("inside Tarantool #real", function()
  it("all is as everywhere", function()
    local pipe = assert(io.popen([[command -v tarantool >/dev/null || { echo missing; exit; }
      unset LD_PRELOAD MAKEFLAGS MFLAGS MAKELEVEL
      make -s LUA=luajit && eval "$(make -s env LUA=luajit)" && LUA_PATH="$LUA_PATH;/usr/share/lua/5.1/?.lua;/usr/share/lua/5.1/?/init.lua" \
      tarantool "$(command -v busted)" --output=utfTerminal spec/hosts/tarantool_spec.lua </dev/null 2>&1]]))
    local output = pipe:read "*a"
    pipe:close()
    if output == "missing\n" then return pending "NO TARANTOOL (spec/support/install.sh test installs tarantool)" end
    local passed, failed = output:match "(%d+) successes / (%d+) failures / 0 errors / 0 pending"
    assert.are.equal("0", failed, output)
    assert.is_true(tonumber(passed) > 15, output)
  end)
end)
