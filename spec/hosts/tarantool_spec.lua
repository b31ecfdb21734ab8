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

    it("that is cancelled closes none that has its connection's descriptor by now", function()
      local silent = loopback.listen()
      local function pipe() return assert(transport.connect("127.0.0.1", silent.port, {}, core.now() + 5)) end
      local first = pipe()
      local one = fiber.create(function() first:read(core.now() + 5) end)
      first:close()
      local second = pipe()
      assert.are.equal(first.fd, second.fd)
      one:cancel()
      while one:status() ~= "dead" do fiber.sleep(0.001) end
      assert.are.equal("idle", second:peek())
      second:close()
      silent.close()
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

-- Sends a mail by STARTTLS while another fiber fills a table.
local APPLICATION = [[
box.cfg { log = "log", wal_mode = "none" }
local fiber, smtp = require "fiber", require "smtp"
local outbox = box.schema.space.create "outbox"
outbox:create_index "primary"
fiber.create(function()
  while true do
    outbox:auto_increment { "a row" }
    fiber.yield()
  end
end)
local receipt, err = smtp.send { host = "localhost", port = %d, ca_file = %q, username = "ada", password = "pass word",
  from = "ada@example.org", to = "grace@example.test", text = "x", timeout = 20 }
assert(receipt, tostring(err))
io.write(("%%s, %%d round trips, %%d rows"):format(receipt.tls.version, receipt.round_trips, outbox:len()))
os.exit()
]]

describe("inside Tarantool #real", function()
  local missing = not os.execute "command -v tarantool >/dev/null" and "NO TARANTOOL (spec/support/install.sh test installs tarantool)"

  local function output_of(command)
    return child.output("unset LD_PRELOAD MAKEFLAGS MFLAGS MAKELEVEL; " .. command .. " </dev/null")
  end

  it("all is as everywhere", function()
    if missing then return pending(missing) end
    local output = output_of [[make -s LUA=luajit && eval "$(make -s env LUA=luajit)" &&
      LUA_PATH="$LUA_PATH;/usr/share/lua/5.1/?.lua;/usr/share/lua/5.1/?/init.lua" \
      tarantool "$(command -v busted)" --output=utfTerminal spec/hosts/tarantool_spec.lua spec/loops_spec.lua]]
    local passed = output:match "(%d+) successes / 0 failures / 0 errors / 0 pending"
    assert.is_true(tonumber(passed or 0) > 20, output)
  end)

  it("a database mails over verified STARTTLS with a login, and goes on; the library is where applications have theirs", function()
    if missing then return pending(missing) end
    local server = assert(smtp.server {
      tls = "starttls",
      auth = function(username, password) return username == "ada" and password == "pass word" end,
    })
    local directory = output_of "mktemp -d /tmp/smtp-tarantool.XXXXXX":match "%S+"
    child.write(directory .. "/application.lua", APPLICATION:format(server.port, server.certificate))
    local installed = output_of(("make -s install LUA=luajit DESTDIR=%s INST_LUADIR=/.rocks/share/tarantool "
      .. "INST_LIBDIR=/.rocks/lib/tarantool"):format(directory))
    local code, output = child.beside(("env -u LD_PRELOAD -u LUA_PATH -u LUA_CPATH sh -c 'cd %s && exec tarantool application.lua'")
      :format(directory), server)
    os.execute("rm -rf " .. directory)
    server:close()
    assert.are.equal(0, code, installed .. output)
    local waits, rows = output:match "^TLSv1.3, (%d+) round trips, (%d+) rows$"
    assert.is_true(tonumber(rows or 0) >= tonumber(waits or 9), output)
    assert.are.equal(1, #server.inbox)
    assert.are.equal("ada", server.inbox[1].auth)
  end)
end)
