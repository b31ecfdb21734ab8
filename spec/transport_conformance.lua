-- transport_conformance: what every transport over sockets must do, whatever loop it waits in: the same as the blocking
-- one over the same dialogues, never later than its deadlines, with nothing left over.
local assert = require "luassert"
local away = require "spec.support.away"
local busted = require "busted"
local core = require "smtp.core"
local loopback = require "spec.support.loopback"
local punctual = require "spec.support.punctual"
local smtp = require "smtp"
local tls = require "smtp.tls"

local PATIENCE = 60 -- seconds after which something hangs
local blocking = require "smtp.transport.socket".new()

local SCRIPTS = {
  ["a greeting that says no"] = { "S: 554 5.3.2 not today", "C:", "close" },
  ["an end after the greeting"] = { "S: 220 mail.example.test ESMTP", "C:" },
  ["an end before it"] = { "close" },
  ["something that is no SMTP"] = { "S: HTTP/1.0 400 Bad Request" },
  ["an end in the content"] = { "S: 220 mail.example.test ESMTP", "C:", "S: 250 mail.example.test", "C:", "S: 250 ok", "C:",
    "S: 250 ok", "C:", "S: 354 go", "C:", "close" },
  ["421 after MAIL"] = { "S: 220 mail.example.test ESMTP", "C:", "S: 250 mail.example.test", "C:", "S: 421 4.3.2 bye" },
}

local function soon()
  return core.now() + PATIENCE
end

-- What a call gave, in words that are the same each time. `bare`: without the reason, which is the host's own.
local function told(receipt, err, bare)
  if receipt then
    return ("sent to %s, %d octets, %s"):format(table.concat(receipt.accepted, " "), receipt.size,
      receipt.tls and receipt.tls.version or "in clear")
  end
  return ("%s %s %s %s %s %s"):format(err.kind, err.stage, err.outcome, tostring(err.code), tostring(err.temporary),
    bare and "" or tostring(err.reason):gsub("Message%-ID:.*", ""))
end

local function digest(bytes)
  return (tls.hash("sha256", bytes):gsub(".", function(c) return ("%02x"):format(c:byte()) end))
end

--- Describes a transport. `host`: see spec/support/loops.lua; without spawn, nothing can run beside. `host.lacks`: what it
--- does otherwise, which specs of its own have to show: tls, names, words, and waking who reads by closing the pipe.
---@param name string
---@param transport table
---@param host table
return function(name, transport, host)
  local describe, it, setup, teardown = busted.describe, busted.it, busted.setup, busted.teardown
  describe(name, function()
    local servers, closed = {}, nil
    local lacks = host.lacks or {}
    local localhost = lacks.names and "127.0.0.1" or "localhost"

    setup(function()
      for _, mode in ipairs { "none", "starttls", "implicit" } do servers[mode] = away.start(mode) end
      closed = loopback.listen()
      closed.close()
    end)

    teardown(function()
      for _, server in pairs(servers) do server:stop() end
    end)

    local function letter(port, more)
      local all = { host = "127.0.0.1", port = port, tls = "none", helo = "client.example.org", from = "ada@example.org",
        to = "grace@example.test", transport = transport, timeout = PATIENCE }
      for key, value in pairs(more or {}) do all[key] = value end
      if not all.raw then
        all.subject, all.text, all.message_id = all.subject or "hello", "Hello.\n", "<1@example.org>"
      end
      return all
    end

    local function send(given)
      return host.run(function() return smtp.send(given) end)
    end

    -- The same results as over the blocking transport.
    local function same(given)
      local receipt, err = send(given)
      local mine = told(receipt, err, lacks.words)
      given.transport = blocking
      receipt, err = smtp.send(given)
      assert.are.equal(told(receipt, err, lacks.words), mine)
      return mine
    end

    -- Runs in the loop what ends by its deadline: not before, and not much later.
    local function takes(seconds, run)
      return host.run(function() return punctual(seconds, run) end)
    end

    it("sends as the blocking one does: in clear, by STARTTLS with a login, by TLS at once", function()
      assert.matches("^sent", same(letter(servers.none.port)))
      if lacks.tls then return end
      assert.matches("TLSv1", same(letter(servers.starttls.port, { tls = "starttls", host = "localhost",
        ca_file = servers.starttls.certificate, username = "ada", password = "pass word" })))
      assert.matches("TLSv1", same(letter(servers.implicit.port, { tls = "implicit", host = "localhost",
        ca_file = servers.implicit.certificate })))
    end)

    it("fails as the blocking one does", function()
      assert.matches("^rejected final", same(letter(servers.none.port, { subject = "refuse this" })))
      assert.matches("^connect", same(letter(closed.port)))
      if lacks.tls or lacks.names then return end
      assert.matches("^auth", same(letter(servers.starttls.port, { tls = "starttls", ca_file = servers.starttls.certificate,
        username = "ada", password = "mistaken" })))
      assert.matches("^tls", same(letter(servers.implicit.port, { tls = "implicit" })))
      assert.matches("^connect", same(letter(closed.port, { host = "localhost" })))
      assert.matches("^resolve", same(letter(25, { host = "no-such-host.invalid" })))
    end)

    it("tells of a server's odd ways what the blocking one tells", function()
      for title, script in pairs(SCRIPTS) do
        local server = away.start(script)
        local given = letter(server.port)
        local receipt, err = send(given)
        local mine = told(receipt, err, lacks.words)
        given.transport = blocking
        receipt, err = smtp.send(given)
        local theirs = told(receipt, err, lacks.words)
        server:stop()
        assert.are.equal(theirs, mine, title)
      end
    end)

    it("carries a session with many messages, and pool:send_many with connections side by side", function()
      local server = servers.none
      local before = #server:messages()
      local function each(count)
        local i = 0
        return function()
          i = i + 1
          if i <= count then
            return { from = "ada@example.org", to = "grace@example.test", subject = "many " .. i, text = "x" }
          end
        end
      end
      local sent, most = 0, 0
      host.run(function()
        local pool = assert(smtp.pool { host = "127.0.0.1", port = server.port, tls = "none", size = 4, transport = transport })
        assert(pool:send_many(each(60), function(receipt, err)
          assert(receipt, err)
          sent, most = sent + 1, math.max(most, pool:counts().open)
        end))
        -- the same connections go on outside of it
        assert(pool:send { from = "ada@example.org", to = "grace@example.test", subject = "one", text = "x" })
        assert(pool:send_many(each(10), function(receipt, err) sent = sent + (assert(receipt, err) and 1) end))
        pool:close()
        assert(pool:counts().open == 0)
      end)
      assert.are.same({ 70, 4, before + 71 }, { sent, most, #server:messages() })
    end)

    it("has those who wait for a pool's one connection take turns, in the order of their calls", function()
      local server, asked, order = servers.none, {}, {}
      host.run(function()
        local pool = assert(smtp.pool { host = "127.0.0.1", port = server.port, tls = "none", size = 1, transport = transport })
        local runs = {}
        for i = 1, 8 do
          runs[i] = function()
            asked[#asked + 1] = i
            assert(pool:send { from = "ada@example.org", to = "grace@example.test", subject = "turn " .. i, text = "x" })
            order[#order + 1] = i
          end
        end
        transport.together(runs)
        assert.are.same({ open = 1, idle = 1, limit = 1, waiting = 0, sent = 8, failed = 0 }, pool:counts())
        pool:close()
      end)
      assert.are.same({ 8, asked }, { #asked, order })
    end)

    if host.pause then
      it("lets what pool:send_many is given wait in the loop's own way", function()
        local server, asked, results, began = servers.none, 0, 0, smtp.now()
        host.run(function()
          local pool = assert(smtp.pool { host = "127.0.0.1", port = server.port, tls = "none", size = 3, transport = transport })
          assert(pool:send_many(function()
            asked = asked + 1
            if asked > 9 then return nil end
            host.pause(0.01)
            return { from = "ada@example.org", to = "grace@example.test", subject = "s", text = "t" }
          end, function(receipt, err)
            assert(receipt, err)
            host.pause(0.01)
            results = results + 1
          end))
          pool:close()
        end)
        assert.are.equal(9, results)
        assert(smtp.now() - began > 0.03)
      end)
    end

    if host.spawn and transport.watch then
      it("carries the receiving side too, until it is closed", function()
        local server = assert(smtp.server {
          tls = "starttls", transport = transport, auth = function() return true end, max_connections = 3,
        })
        local count, ended, late = 0, false, nil
        host.run(function()
          host.spawn(function()
            server:run()
            ended = true
          end)
          local runs = {}
          for i = 1, 8 do
            runs[i] = function()
              assert(smtp.send { transport = transport, host = "localhost", port = server.port, tls = "starttls",
                ca_file = server.certificate, username = "ada", password = "x", from = "ada@example.org",
                to = "grace@example.test", subject = "s", text = "t" })
              count = count + 1
            end
          end
          transport.together(runs)
          server:close()
          late = core.now() + PATIENCE / 2 -- a step of run may wait for twice as long
          while not ended and core.now() < late do transport.wait("read", -1, core.now() + 0.01) end
        end)
        assert.is_nil(server.failure)
        assert.are.same({ 8, 8 }, { count, #server.inbox })
        assert(ended, "it goes on")
      end)
    end

    it("says goodbye on all of a pool's connections at once", function()
      local open, said = nil, ""
      host.run(function()
        local pool = assert(smtp.pool { host = "127.0.0.1", port = servers.none.port, tls = "none", size = 12, transport = transport,
          trace = function(direction, line)
            if direction == "C" and line == "QUIT" or line:find "^221" then said = said .. direction end
          end })
        local left = 12
        assert(pool:send_many(function()
          left = left - 1
          if left >= 0 then return { from = "ada@example.org", to = "grace@example.test", subject = "x", text = "x" } end
        end, function(receipt, err) assert(receipt, err) end))
        open = pool:counts().open
        pool:close()
      end)
      assert.are.equal(12, open)
      assert.are.equal(("C"):rep(12) .. ("S"):rep(12), said)
    end)

    it("ends a read, a write and a rest at their deadline", function()
      local silent = loopback.listen()
      local function pipe()
        return assert(transport.connect("127.0.0.1", silent.port, {}, soon()))
      end
      for _, seconds in ipairs { 0.1, 0.011 } do
        local got = takes(seconds, function(deadline)
          local one = pipe()
          local bytes, kind = one:read(deadline)
          one:close()
          return bytes, kind
        end)
        assert.are.same({ nil, "timeout" }, { got[1], got[2] })
        -- it may come back a little early
        takes(seconds, function(deadline)
          while core.now() < deadline do transport.wait("read", -1, deadline) end
        end)
      end
      local much = ("x"):rep(2 ^ 24)
      local got = takes(0.1, function(deadline)
        local one = pipe()
        local ok, kind = one:write(much, deadline)
        one:close()
        return ok, kind
      end)
      assert.are.same({ nil, "timeout" }, { got[1], got[2] })
      got = takes(0.2, function() return smtp.send(letter(silent.port, { timeout = 0.2 })) end)
      assert.are.equal("timeout", got[2].kind)
      silent.close()
    end)

    it("takes no write for failed that was whole, however late it ends", function()
      local listener = loopback.listen()
      local bytes, now = ("0123456789abcdef"):rep(5000), core.now
      for on_time = 0, 15 do
        local looks, ok, kind = 0, nil, nil
        host.run(function()
          local pipe = assert(transport.connect("127.0.0.1", listener.port, {}, soon()))
          local deadline = soon()
          core.now = function() -- luacheck: ignore
            looks = looks + 1
            return now() + (looks > on_time and 3600 or 0)
          end
          ok, kind = pipe:write(bytes, deadline)
          core.now = now -- luacheck: ignore
          pipe:close()
        end)
        local peer, octets = listener.accept(), 0
        local part
        repeat
          part = loopback.finish(peer, "read", "read")
          octets = octets + #(part or "")
        until not part
        peer:close()
        if not ok then
          assert.are.equal("timeout", kind)
          assert.is_true(octets < #bytes)
        end
      end
      listener.close()
    end)

    it("gives what has come, though the deadline has passed", function()
      local listener, heard, kind = loopback.listen(), nil, nil
      host.run(function()
        local pipe = assert(transport.connect("127.0.0.1", listener.port, {}, soon()))
        local peer, late = listener.accept(), soon()
        peer:write "220 mail.example.test\r\n"
        -- where a loop reads it needs a turn or two of that
        repeat heard, kind = pipe:read(0) until heard or kind ~= "timeout" or core.now() > late
        pipe:close()
        peer:close()
      end)
      listener.close()
      assert.are.same({ "220 mail.example.test\r\n" }, { heard, kind })
    end)

    it("ends an attempt to connect at its deadline", function()
      local silent = loopback.listen()
      local crowd = loopback.crowd(silent)
      local got = takes(0.1, function(deadline) return transport.connect("127.0.0.1", silent.port, {}, deadline) end)
      for _, sock in ipairs(crowd) do sock:close() end
      silent.close()
      assert.are.equal("timeout", got[2])
    end)

    it("sends much to a server that reads slowly, whole; the loop goes on meanwhile", function()
      local slow = away.start("none", 0.002)
      local raw = "Subject: large\r\n\r\n" .. ("0123456789abcdefghijklmnopqrstuvwxyz.\r\n.\r\n"):rep(120000)
      local ticks, receipt, err = 0, nil, nil
      local holds = false
      local function hold()
        if host.spawn and not holds then slow:hold() end
        holds = true
      end
      host.run(function()
        local ended
        if host.spawn then
          host.spawn(function()
            while not ended and ticks < 20 do
              transport.wait("read", -1, core.now() + 0.005)
              if holds then ticks = ticks + 1 end
            end
            slow:release()
          end)
        end
        -- in the middle of the content the server rests, until the loop has gone on for a while
        receipt, err = smtp.send(letter(slow.port, { raw = raw, on_progress = hold }))
        ended = true
      end)
      assert.truthy(receipt, tostring(err))
      local messages = slow:messages()
      slow:stop()
      assert.are.same({ ("large %d %s"):format(#raw, digest(raw)) }, messages)
      if host.spawn then assert.are.equal(20, ticks) end
    end)

    if host.spawn and not lacks.waking then
      it("wakes who reads when another closes the pipe", function()
        local silent = loopback.listen()
        local began = core.now()
        local bytes, kind = host.run(function()
          local pipe = assert(transport.connect("127.0.0.1", silent.port, {}, soon()))
          host.spawn(function()
            transport.wait("read", -1, core.now() + 0.05)
            pipe:close()
          end)
          return pipe:read(soon())
        end)
        silent.close()
        assert.are.same({ nil, "closed" }, { bytes, kind })
        assert.is_true(core.now() - began < PATIENCE / 2)
      end)

      it("wakes who reads where the descriptor was another's a moment ago, too", function()
        local silent = loopback.listen()
        local began, woken = core.now(), 0
        host.run(function()
          local ended = 0
          local function read(pipe)
            host.spawn(function()
              local _, kind = pipe:read(soon())
              woken, ended = woken + (kind == "closed" and 1 or 0), ended + 1
            end)
          end
          local function pipe()
            return assert(transport.connect("127.0.0.1", silent.port, {}, soon()))
          end
          local first = pipe()
          read(first)
          transport.wait("read", -1, core.now() + 0.02)
          first:close()
          -- lower numbers may have become free meanwhile
          local second, others = pipe(), {}
          while second.fd ~= first.fd and #others < 50 do
            others[#others + 1] = second
            second = pipe()
          end
          assert.are.equal(first.fd, second.fd)
          for _, other in ipairs(others) do other:close() end
          read(second)
          transport.wait("read", -1, core.now() + 0.02)
          second:close()
          while ended < 2 and core.now() < began + PATIENCE / 2 do transport.wait("read", -1, core.now() + 0.01) end
        end)
        silent.close()
        assert.are.equal(2, woken)
      end)
    end

    if host.spawn then
      it("keeps twenty sends at once apart", function()
        local before = #servers.none:messages()
        local sent = 0
        host.run(function()
          local left = 20
          for i = 1, 20 do
            host.spawn(function()
              local receipt = smtp.send(letter(servers.none.port, { subject = "apart " .. i, host = localhost }))
              sent, left = sent + (receipt and 1 or 0), left - 1
            end)
          end
          local late = soon()
          while left > 0 and core.now() < late do transport.wait("read", -1, core.now() + 0.01) end
        end)
        assert.are.same({ 20, before + 20 }, { sent, #servers.none:messages() })
      end)
    end

    if host.spawn then
      it("has a second coroutine on one session refused, and the first goes on", function()
        local listener = loopback.listen()
        host.run(function()
          local s = assert(smtp.session { host = "127.0.0.1", port = listener.port, tls = "none", transport = transport })
          local greeting, ended, late = nil, false, soon()
          host.spawn(function()
            greeting = s:connect()
            ended = true
          end)
          while s.state ~= "connected" and core.now() < late do transport.wait("read", -1, core.now() + 0.01) end
          for _, call in ipairs { "connect", "noop", "quit" } do
            local reply, err = s[call](s)
            assert.are.same({ nil, "another coroutine is in a call on this session" }, { reply, err.reason })
          end
          local peer = listener.accept()
          peer:write "220 mail.example.test\r\n"
          while not ended and core.now() < late do transport.wait("read", -1, core.now() + 0.01) end
          assert.are.equal(220, greeting.code)
          s:close()
          peer:close()
        end)
        listener.close()
      end)
    end

    it("works in a task, whatever it is the transport of", function()
      local task = smtp.task(smtp.send, letter(servers.none.port))
      local what, fd, deadline, receipt
      local late = soon()
      repeat
        what, fd, deadline = task:step()
        if what == "done" then receipt = fd else core.wait(what, fd, math.min(deadline, late)) end
      until receipt or core.now() > late
      assert.truthy(receipt)
    end)

    it("leaves no descriptor, whether it worked or not, and mistakes none for one that was left to the collector", function()
      send(letter(servers.none.port))
      local before = loopback.descriptors()
      host.run(function()
        for i = 1, 6 do
          local failing = i % 3 == 0
          local receipt, err = smtp.send(letter(failing and closed.port or servers.none.port, {
            host = i % 2 == 0 and localhost or nil }))
          assert((receipt ~= nil) == not failing, tostring(err))
          -- one that nobody closes: its number comes again
          assert(smtp.connect { host = "127.0.0.1", port = servers.none.port, tls = "none", transport = transport })
          collectgarbage()
          collectgarbage()
        end
      end)
      assert.is_true(loopback.settle(before) <= before, ("%d before, %d now"):format(before, loopback.descriptors()))
    end)

    if host.drop then
      it("given up in the middle leaves no descriptor", function()
        local silent = loopback.listen()
        local before = loopback.descriptors()
        for _ = 1, 5 do
          host.drop(function() smtp.send(letter(silent.port)) end)
          host.drop(function() smtp.send(letter(silent.port, { host = "localhost" })) end)
        end
        assert.is_true(loopback.settle(before) <= before)
        silent.close()
      end)
    end
  end)
end
