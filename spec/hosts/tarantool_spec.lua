-- The transport inside a real Tarantool, which runs this file by busted, too: what is said here of its fibers is said there.
-- Of: transport/tarantool
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
    -- Runs in a fiber that is cancelled once `ready`; the turns of the loop it took to end after that, and with what.
    local function cancelled(run, ready)
      local result
      local one = fiber.new(function() result = { pcall(run) } end)
      one:set_joinable(true)
      while not ready() do fiber.sleep(0.001) end
      local turns = 0
      one:cancel()
      while not result and turns < 1000 do
        fiber.sleep(0)
        turns = turns + 1
      end
      one:join()
      return turns, tostring(result[2])
    end

    it("that is cancelled while it sends ends at once, and closes its connection", function()
      local silent = loopback.listen()
      local before = loopback.descriptors()
      collectgarbage "stop"
      for _ = 1, 20 do
        local accepted
        local turns, reason = cancelled(function() smtp.send(to(silent.port)) end, function()
          accepted = accepted or silent.sock:accept()
          return accepted
        end)
        assert.is_true(turns < 10, turns)
        assert.are.equal("fiber is cancelled", reason)
        assert.are.equal("closed", (select(2, loopback.finish(accepted, "read", "read"))))
        accepted:close()
      end
      local now = loopback.descriptors(true)
      collectgarbage "restart"
      silent.close()
      assert.are.equal(before, now)
    end)

    it("that is cancelled closes none that has its connection's descriptor by now", function()
      local silent = loopback.listen()
      local function pipe() return assert(transport.connect("127.0.0.1", silent.port, {}, core.now() + 60)) end
      local first = pipe()
      local one = fiber.create(function() first:read(core.now() + 60) end)
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
      local turns, reason = cancelled(function()
        pool:send_many(function()
          given = given + 1
          return LETTER
        end, error)
      end, function() return given == 4 end)
      assert.is_true(turns < 10, turns)
      assert.are.equal("fiber is cancelled", reason)
      pool.plan.port = server.port
      assert(pool:send(LETTER))
      assert.are.equal(1, pool:counts().open)
      pool:close()
      silent.close()
      server:stop()
    end)

    it("has the transport for its own where none is chosen, and lets others go on", function()
      local silent = loopback.listen()
      local ticks = 0
      -- it answers once another fiber has had its turns
      fiber.create(function()
        local accepted
        while not accepted do
          fiber.sleep(0.001)
          accepted = silent.sock:accept()
        end
        for _ = 1, 10 do
          fiber.sleep(0.001)
          ticks = ticks + 1
        end
        accepted:write "554 not today\r\n"
      end)
      local _, err = smtp.send(to(silent.port, 60))
      silent.close()
      assert.are.same({ "rejected", 10 }, { err.kind, ticks })
      local server = assert(smtp.server {})
      fiber.create(server.run, server)
      assert(smtp.send(to(server.port)))
      assert.are.equal(1, #server.inbox)
      server:close()
    end)
  end)
end

-- Sends a mail by STARTTLS while another fiber fills a table; `held` is there as long as the server waits for rows.
local APPLICATION = [[
box.cfg { log = "log", wal_mode = "none" }
local fio, fiber, smtp = require "fio", require "fiber", require "smtp"
local outbox = box.schema.space.create "outbox"
outbox:create_index "primary"
local rows = 0 -- while the mail waits for its answer
fiber.create(function()
  while true do
    outbox:auto_increment { "a row" }
    if fio.path.exists "held" then
      rows = rows + 1
      if rows == 100 then fio.unlink "held" end
    end
    fiber.sleep(0.001)
  end
end)
local receipt, err = smtp.send { host = "localhost", port = %d, ca_file = %q, username = "ada", password = "pass word",
  from = "ada@example.org", to = "grace@example.test", text = "x", timeout = 60 }
assert(receipt, tostring(err))
io.write(("%%s, %%d rows"):format(receipt.tls.version, rows))
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
      tarantool "$(command -v busted)" --output=utfTerminal spec/hosts/tarantool_spec.lua spec/hosts/loops_spec.lua]]
    local passed = output:match "(%d+) successes / 0 failures / 0 errors / 0 pending"
    assert.is_true(tonumber(passed or 0) > 20, output)
  end)

  it("a database mails over verified STARTTLS with a login, and goes on; the library is where applications have theirs", function()
    if missing then return pending(missing) end
    local directory = output_of "mktemp -d /tmp/smtp-tarantool.XXXXXX":match "%S+"
    local from, logins = nil, {}
    local server = assert(smtp.server {
      tls = "starttls",
      auth = function(username, password) return username == "ada" and password == "pass word" end,
      on_message = function(envelope)
        from, logins[#logins + 1] = envelope.from, envelope.auth
        child.write(directory .. "/held", "")
        child.gone(directory .. "/held")
      end,
    })
    child.write(directory .. "/application.lua", APPLICATION:format(server.port, server.certificate))
    local installed = output_of(("make -s install LUA=luajit DESTDIR=%s INST_LUADIR=/.rocks/share/tarantool "
      .. "INST_LIBDIR=/.rocks/lib/tarantool"):format(directory))
    local code, output = child.beside(("env -u LD_PRELOAD -u LUA_PATH -u LUA_CPATH sh -c 'cd %s && exec tarantool application.lua'")
      :format(directory), server)
    os.execute("rm -rf " .. directory)
    server:close()
    assert.are.equal(0, code, installed .. output)
    assert.are.equal("TLSv1.3, 100 rows", output)
    assert.are.same({ "ada@example.org", { "ada" } }, { from, logins })
  end)
end)
