local core = require "smtp.core"
local smtp = require "smtp"
local tls = require "smtp.tls"
local together = require "spec.support.together"
local transport = require "smtp.transport.tls"

local unpack = table.unpack or unpack
local LATER = 1e9 -- a deadline that never comes

local cert, key = tls.mint { "mail.example.org", "127.0.0.1" }

-- Two pipes that are each other's ends. A read that has to wait yields; `run` lets it time out once nothing moves.
local moves = 0

local Pipe = {}
Pipe.__index = Pipe

function Pipe:read(deadline)
  while self.inbox == "" do
    if self.closed or self.peer.closed then
      return nil, "closed", "end of file"
    elseif deadline <= 0 or coroutine.yield() == "late" then
      return nil, "timeout", "nothing came in time"
    end
  end
  moves = moves + 1
  local bytes = self.inbox:sub(1, self.most)
  self.inbox = self.inbox:sub(#bytes + 1)
  return bytes
end

function Pipe:write(bytes, deadline)
  self.deadlines[#self.deadlines + 1] = deadline
  if self.full then
    return nil, "timeout", "the peer takes nothing"
  elseif self.closed or self.peer.closed then
    return nil, "closed", "broken pipe"
  end
  moves = moves + 1
  self.peer.inbox = self.peer.inbox .. bytes
  return true
end

function Pipe:peek()
  if self.inbox ~= "" then
    return "data"
  end
  return (self.closed or self.peer.closed) and "closed" or "idle"
end

function Pipe:close()
  moves = moves + 1
  self.closed = true
end

function Pipe:name()
  return "127.0.0.1", 2525
end

local function send_wire(self, wire, deadline)
  return self:write(wire:take(), deadline)
end

local function receive_wire(self, wire, deadline)
  local bytes, kind, reason = self:read(deadline)
  if bytes then return wire:feed(bytes) end
  return nil, kind, reason
end

-- Whether pipes take and give wires too.
local wires

local function both(name, specs)
  for _, word in ipairs { "strings", "wires" } do
    describe(name .. " over pipes of " .. word, function()
      setup(function() wires = word == "wires" end)
      specs()
    end)
  end
end

local function one_end()
  return setmetatable({ inbox = "", most = 65536, deadlines = {}, send = wires and send_wire, receive = wires and receive_wire }, Pipe)
end

local function pipes()
  local a, b = one_end(), one_end()
  a.peer, b.peer = b, a
  return a, b
end

-- Runs the functions in turns to their end; gives what each returned.
local function run(...)
  local tasks, results, left = {}, {}, select("#", ...)
  for i = 1, left do
    tasks[i] = coroutine.create((select(i, ...)))
  end
  local word
  while left > 0 do
    local before = moves
    for i, task in ipairs(tasks) do
      if coroutine.status(task) ~= "dead" then
        local got = { coroutine.resume(task, word) }
        assert(got[1], got[2])
        if coroutine.status(task) == "dead" then
          left = left - 1
          results[i] = { unpack(got, 2, 5) }
          moves = moves + 1
        end
      end
    end
    word = moves == before and "late" or nil
  end
  return unpack(results)
end

local SERVER = { server = true, cert = cert, key = key }

local function client_options(more)
  local options = { ca_file = cert, server_name = "mail.example.org" }
  for name, value in pairs(more or {}) do
    options[name] = value
  end
  return options
end

-- Both ends wrapped, and the pipes below.
local function secured(more, server)
  local a, b = pipes()
  local c, s = run(function() return transport.wrap(a, client_options(more), LATER) end,
    function() return transport.wrap(b, server or SERVER, LATER) end)
  assert(c[1], c[3])
  assert(s[1], s[3])
  return c[1], s[1], a, b
end

both("smtp.transport.tls", function()
  it("carries bytes both ways and says how it is encrypted", function()
    local client, server = secured()
    assert.are.equal("TLSv1.3", client.info.version)
    assert.are.equal("CN=mail.example.org", client.info.peer.subject)
    assert.are.equal(1, client.rounds)
    assert.are.same({ "127.0.0.1", 2525 }, { client:name() })
    assert.is_true(server:write("220 mail.example.org\r\n", LATER))
    assert.are.equal("220 mail.example.org\r\n", client:read(LATER))
    assert.is_true(client:write("EHLO client.example.org\r\n", LATER))
    assert.are.equal("EHLO client.example.org\r\n", server:read(LATER))
    assert.are.same({ nil, "timeout", "nothing came in time" }, { client:read(0) })
  end)

  it("counts the waits of TLS 1.2 too", function()
    local old = assert(tls.context { server = true, cert = cert, key = key, max = "1.2" })
    local client = secured(nil, { context = old })
    assert.are.equal("TLSv1.2", client.info.version)
    assert.are.equal(2, client.rounds)
  end)

  it("works over pipes that drip", function()
    local a, b = pipes()
    a.most, b.most = 1, 7
    local c, s = run(function()
      local pipe = assert(transport.wrap(a, client_options(), LATER))
      assert(pipe:write("QUIT\r\n", LATER))
      return pipe:read(LATER)
    end, function()
      local pipe = assert(transport.wrap(b, SERVER, LATER))
      local got = pipe:read(LATER)
      assert(pipe:write("221 bye\r\n", LATER))
      return got
    end)
    assert.are.equal("221 bye\r\n", c[1])
    assert.are.equal("QUIT\r\n", s[1])
  end)

  it("gives what it reads to a wire, behind what a look found", function()
    local c, s = secured()
    local wire = core.wire(3)
    assert.are.same({ nil, "timeout", "nothing came in time" }, { c:receive(wire, 0) })
    assert(s:write("220 mail.example.org\r\n250 ", LATER))
    assert.are.equal("data", c:peek())
    assert(s:write("fine\r\n", LATER))
    assert.is_true(c:receive(wire, 0))
    assert.are.equal("mail.example.org", select(2, wire:reply()))
    assert.are.equal("again", select(2, wire:reply()))
    assert.is_true(c:receive(wire, 0))
    assert.are.equal("fine", select(2, wire:reply()))
    s:close()
    assert.are.same({ nil, "closed", "the peer closed the connection" }, { c:receive(wire, 0) })
    c:close()
    assert.are.same({ nil, "closed", "the connection is closed" }, { c:receive(wire, 0) })
  end)

  it("gives a wire all that has come, each reply in a record of its own, and then how it ended", function()
    for _, goodbye in ipairs { true, false } do
      local c, s, _, below = secured()
      local wire = core.wire(3)
      for _, reply in ipairs { "250 sender\r\n", "250 recipient\r\n", "550 one too many\r\n" } do assert(s:write(reply, LATER)) end
      if goodbye then s:close() else below:close() end
      assert.is_true(c:receive(wire, 0))
      assert.are.equal("sender", select(2, wire:reply()))
      assert.are.equal("recipient", select(2, wire:reply()))
      assert.is_true(wire:unread() > 0)
      assert.are.equal("one too many", select(2, wire:reply()))
      local bytes, kind, text = c:receive(wire, 0)
      assert.are.same({ nil, "closed" }, { bytes, kind })
      assert.are.equal(goodbye, text == "the peer closed the connection")
    end
  end)

  it("that is closed while it is written to or looked at tells so", function()
    for _, how in ipairs { "write", "send", "peek" } do
      local client = secured()
      local inner, late = client.inner, false
      local function wait(...)
        if late then return true end
        coroutine.yield()
        return ...
      end
      function inner.write(_, bytes) return wait(bytes ~= nil) end
      function inner.read() return wait "\23\3\3" end
      function inner.peek() return "data" end
      local thread = coroutine.create(function()
        if how == "write" then return client:write(("x"):rep(200000), LATER) end
        if how == "peek" then return client:peek() end
        local wire = core.wire()
        wire:body(("x\r\n"):rep(60000))
        return client:send(wire, LATER)
      end)
      assert.is_true(coroutine.resume(thread))
      late = true
      client:close()
      local got = { coroutine.resume(thread) }
      assert.are.same(how == "peek" and { true, "closed" } or { true, nil, "closed", "the connection is closed" }, got, how)
    end
  end)

  it("that is closed by another when all is written takes no write for failed", function()
    for _, how in ipairs { "write", "send" } do
      local client = secured()
      local write = client.inner.write
      function client.inner.write(...)
        local ok, kind, reason = write(...)
        client:close()
        return ok, kind, reason
      end
      local wire = core.wire()
      wire:command "NOOP"
      assert.are.same({ true }, { client[how](client, how == "write" and "NOOP\r\n" or wire, LATER) })
      assert.are.same({ nil, "closed", "the connection is closed" }, { client[how](client, how == "write" and "x" or wire, LATER) })
    end
  end)

  it("that is closed while it is read from tells so", function()
    local c = secured()
    local read = run(function() return c:read(LATER) end, function() c:close() end)
    assert.are.same({ nil, "closed", "the connection is closed" }, { read[1], read[2], read[3] })
  end)

  it("tells of a wire that is full", function()
    local c, s = secured()
    local wire = core.wire(1)
    assert(wire:feed(("x"):rep(16 * 1048576)))
    assert(s:write("220 mail.example.org\r\n", LATER))
    local ok, kind, reason = c:receive(wire, 0)
    assert.are.same({ false, "protocol", "string" }, { ok or false, kind, type(reason) })
  end)

  it("carries a megabyte", function()
    local client, server = secured()
    local mega = ("0123456789abcdef"):rep(65536)
    local _, got = run(function() return client:write(mega, LATER) end, function()
      local parts, size = {}, 0
      while size < #mega do
        local bytes = assert(server:read(LATER))
        parts[#parts + 1] = bytes
        size = size + #bytes
      end
      return table.concat(parts)
    end)
    assert.is_true(got[1] == mega)
    assert.is_true(client:write("", LATER))
  end)

  describe("a handshake that fails", function()
    it("over trust tells both sides and closes both pipes", function()
      local other = tls.mint { "mail.example.org" }
      local a, b = pipes()
      local c, s = run(function() return transport.wrap(a, client_options { ca_file = other }, LATER) end,
        function() return transport.wrap(b, SERVER, LATER) end)
      assert.are.equal(nil, c[1])
      assert.are.equal("tls", c[2])
      assert.are.equal("the server's certificate is self-signed and not trusted here", c[3])
      assert.is_truthy(c[4]:find("ca_file", 1, true))
      assert.are.equal("tls", s[2])
      assert.is_truthy(s[3]:find("the client refused the TLS handshake: unknown ca", 1, true))
      assert.is_true(a.closed and b.closed)
      assert.are.equal(0, a.deadlines[#a.deadlines]) -- the alert does not wait
    end)

    it("over plain SMTP names the cause", function()
      local a, b = pipes()
      b:write("220 mail.example.org ESMTP\r\n", LATER)
      local c = run(function() return transport.wrap(a, client_options(), LATER) end)
      assert.are.same({ nil, "tls", "the server did not answer in TLS",
        'this port speaks plain SMTP first: use tls = "starttls"' }, c)
      assert.is_true(a.closed)
    end)

    it("because the peer closes", function()
      local a, b = pipes()
      local c = run(function() return transport.wrap(a, client_options(), LATER) end, function() b:close() end)
      assert.are.same({ nil, "tls", "the server closed the connection during the TLS handshake" }, c)
      -- closed before anything could be written
      a, b = pipes()
      b:close()
      c = run(function() return transport.wrap(a, client_options(), LATER) end)
      assert.are.same({ nil, "tls", "the server closed the connection during the TLS handshake" }, c)
    end)

    it("because the peer closes leaving an alert", function()
      local a, b = pipes()
      b:write("\21\3\1\0\2\2\70", LATER)
      b:close()
      local c = run(function() return transport.wrap(a, client_options(), LATER) end)
      assert.are.equal("the server refused the TLS handshake: protocol version", c[3])
    end)

    it("because nothing more can be written ends at once, with the alert if there is one", function()
      for alert, reason in pairs {
        [""] = "the peer closed the connection during the TLS handshake",
        ["\21\3\1\0\2\2\70"] = "the server refused the TLS handshake: protocol version",
      } do
        local a = pipes()
        local waited = 0
        local read = a.read
        a.inbox = alert
        function a.write() return nil, "closed", "Broken pipe" end
        function a.read(self, deadline)
          if self.inbox == "" and deadline > 0 then waited = waited + 1 end
          return read(self, deadline)
        end
        local c = run(function() return transport.wrap(a, client_options(), LATER) end)
        assert.are.same({ nil, "tls", reason }, { c[1], c[2], c[3] })
        assert.are.equal(0, waited)
        assert.is_true(a.closed)
      end
    end)

    it("in its last write tells what the server said behind its own", function()
      local asking = assert(tls.context { server = true, cert = cert, key = key, ca_file = cert })
      for _, case in ipairs {
        { SERVER, "421 too many\r\n", { "421 too many\r\n", "closed" } },
        { SERVER, nil, { "tls", "the peer closed the connection during the TLS handshake" } },
        { { context = asking }, nil, { "tls", "the server wants a client certificate" } },
      } do
        local a, b = pipes()
        local writes, write = 0, a.write
        function a.write(self, bytes, deadline)
          writes = writes + 1
          write(self, bytes, deadline)
          if writes == 1 then return true end
          while not b.closed do coroutine.yield() end
          return nil, "closed", "Broken pipe"
        end
        local c = run(function()
          local pipe, kind, reason = transport.wrap(a, client_options(), LATER)
          if not pipe then return kind, reason end
          return pipe:read(LATER), (select(2, pipe:write("QUIT\r\n", LATER)))
        end, function()
          local pipe = transport.wrap(b, case[1], LATER)
          if pipe and case[2] then pipe:write(case[2], LATER) end
          b:close()
        end)
        assert.are.same(case[3], c)
      end
    end)

    it("behind the handshake is told by the write that it makes fail", function()
      local asking = assert(tls.context { server = true, cert = cert, key = key, ca_file = cert })
      for _, how in ipairs { "write", "send" } do
        local a, b = pipes()
        local c = run(function()
          local pipe = assert(transport.wrap(a, client_options(), LATER))
          while not b.closed do coroutine.yield() end
          local wire = core.wire()
          wire:command "EHLO client.example.org"
          local ok, kind, reason = pipe[how](pipe, how == "write" and "EHLO client.example.org\r\n" or wire, LATER)
          return ok, kind, reason, pipe.hint
        end, function()
          transport.wrap(b, { context = asking }, LATER)
          b:close()
        end)
        assert.are.same({ nil, "tls", "the server wants a client certificate", "set client_cert and client_key" }, c)
      end
    end)

    it("because time is over", function()
      local a = pipes()
      local c = run(function() return transport.wrap(a, client_options(), LATER) end)
      assert.are.same({ nil, "timeout", "nothing came in time" }, c)
      assert.is_true(a.closed)
      a = pipes()
      a.full = true
      c = run(function() return transport.wrap(a, client_options(), LATER) end)
      assert.are.same({ nil, "timeout", "the peer takes nothing" }, c)
    end)

    it("because of what it was given", function()
      for _, options in ipairs { { ca_file = "/no/such/file.pem" }, { client_cert = cert, client_key = "" } } do
        local a = pipes()
        local pipe, kind, text = transport.wrap(a, client_options(options), LATER)
        assert.are.equal(nil, pipe)
        assert.are.equal("tls", kind)
        assert.is_truthy(text:find("file.pem", 1, true) or text:find("key", 1, true))
        assert.is_true(a.closed)
      end
      local a = pipes()
      local _, kind, text = transport.wrap(a, { ca_file = cert }, LATER)
      assert.are.equal("tls", kind)
      assert.is_truthy(text:find("a server name is needed", 1, true))
    end)
  end)

  it("reads what connections trust once for those that trust the same, and a private key each time", function()
    local made, original = 0, tls.context
    tls.context = function(...)
      made = made + 1
      return original(...)
    end
    local function refused(options)
      local a, b = pipes()
      options.server_name = "mail.example.org"
      run(function() return transport.wrap(a, options, LATER) end,
        function() return transport.wrap(b, { context = original { server = true, cert = cert, key = key } }, LATER) end)
    end
    for _ = 1, 3 do refused {} end
    local shared = made
    local other_cert, other_key = tls.mint { "localhost" }
    for _ = 1, 3 do refused { ca_file = other_cert } end
    for _ = 1, 3 do refused { ca_file = other_cert, verify = false } end
    for _ = 1, 3 do refused { ca_file = other_cert, tls_min = "1.3" } end
    assert.is_true(shared <= 1, shared)
    assert.are.equal(3, made - shared)
    for _ = 1, 3 do refused { ca_file = other_cert, client_cert = other_cert, client_key = other_key } end
    tls.context = original
    assert.are.equal(6, made - shared)
  end)

  it("shares a context", function()
    local context = assert(transport.context { ca_file = cert })
    for _ = 1, 2 do
      assert.is_truthy((secured { context = context }))
    end
    local made, text = transport.context { ca_file = "/no/such/file.pem" }
    assert.are.equal(nil, made)
    assert.is_truthy(text:find("No such file", 1, true))
  end)

  describe("a pin", function()
    local other = tls.mint { "mail.example.org" }
    local WRONG = ("A"):rep(43) .. "="
    local pin = secured().info.peer.pin

    it("admits its key, alone or among others", function()
      assert.are.equal("TLSv1.3", secured({ pins = { pin } }).info.version)
      assert.are.equal("TLSv1.3", secured({ pins = { WRONG, pin } }).info.version)
    end)

    it("refuses any other before anything is said", function()
      for _, more in ipairs { { pins = { WRONG } }, { pins = {} }, { pins = { WRONG }, verify = false } } do
        local a, b = pipes()
        local c, s = run(function() return transport.wrap(a, client_options(more), LATER) end, function()
          local pipe = transport.wrap(b, SERVER, LATER)
          return pipe and pipe:read(LATER)
        end)
        assert.are.same({ nil, "tls", "the server's key is not one that was pinned; its pin is " .. pin }, { c[1], c[2], c[3] })
        assert.is_truthy(c[4]:find("whether its key was changed", 1, true))
        assert.is_nil(s[1])
        assert.is_true(a.closed)
      end
    end)

    it("decides alone where the certificate is not verified, and never for a certificate that is not trusted", function()
      assert.are.equal("TLSv1.3", secured({ pins = { pin }, ca_file = other, verify = false }).info.version)
      local a, b = pipes()
      local c = run(function() return transport.wrap(a, client_options { pins = { pin }, ca_file = other }, LATER) end,
        function() return transport.wrap(b, SERVER, LATER) end)
      assert.is_truthy(c[3]:find("is self-signed and not trusted here", 1, true))
    end)

    it("is a hash in base64, or a list of them: else nothing is connected to", function()
      local transport_called
      local function try(given)
        local _, err = smtp.connect { host = "mail.example.org", pin = given, transport = {
          connect = function()
            transport_called = true
            return nil, "connect", "called"
          end,
        } }
        return err
      end
      for _, given in ipairs { "", "x", pin:sub(1, -2), pin .. "=", "sha256/" .. pin, "sha256//" .. pin, pin:rep(2), {}, { pin, "x" },
        " " .. pin, pin .. "\n", ("00"):rep(32) } do
        local err = try(given)
        assert.are.equal("input", err.kind)
        assert.is_truthy(err.reason:find("pin must be the SHA-256 of a server's public key in base64", 1, true))
      end
      for _, given in ipairs { { pin, 7 }, { first = pin } } do assert.has_error(function() try(given) end) end
      assert.is_nil(transport_called)
      assert.has_error(function() try(7) end)
      assert.are.equal("connect", try(pin).kind)
      assert.are.equal("connect", try({ pin, WRONG }).kind)
      assert.is_true(transport_called)
    end)

    it("is an option that smtp.send keeps to", function()
      local server = assert(smtp.server { tls = "implicit", cert = cert, key = key })
      local function send(given)
        return together.run(function()
          return smtp.send { host = "127.0.0.1", port = server.port, tls = "implicit", ca_file = cert, pin = given,
            from = "ada@example.org", to = "grace@example.org", text = "hi" }
        end, server)
      end
      assert.are.equal(pin, assert(send(pin)).tls.peer.pin)
      assert.are.equal(pin, assert(send { WRONG, pin }).tls.peer.pin)
      local receipt, err = send(WRONG)
      assert.is_nil(receipt)
      assert.are.equal("tls", err.kind)
      assert.are.equal("tls", err.stage)
      assert.are.equal("not_sent", err.outcome)
      assert.is_false(err.temporary)
      assert.is_truthy(tostring(err):find("its pin is " .. pin, 1, true))
      assert.are.equal(2, #server.inbox)
      server:close()
    end)

    it("is not left out by a transport that does TLS itself", function()
      local pipe = { closed = false, write = function() return true end, read = function() end, peek = function() return "idle" end }
      function pipe.close() pipe.closed = true end
      local _, err = smtp.connect { host = "mail.example.org", tls = "implicit", pin = pin, transport = {
        connect = function() return pipe end,
        secure = function() error("it must not come to this") end,
      } }
      assert.are.equal("tls", err.kind)
      assert.is_truthy(err.reason:find("cannot check pin", 1, true))
      assert.is_true(pipe.closed)
    end)
  end)

  it("binds a login to the connection", function()
    local client, server = secured()
    for kind, length in pairs { ["tls-exporter"] = 32, ["tls-server-end-point"] = 32 } do
      assert.are.equal(length, #client:binding(kind))
      assert.are.equal(server:binding(kind), client:binding(kind))
    end
    assert.is_nil((client:binding("tls-unique")))
    client:close()
    assert.are.same({ nil, "the connection is closed" }, { client:binding("tls-exporter") })
  end)

  it("tells an end from a cut", function()
    local client, server, a = secured()
    assert(server:write("221 bye\r\n", LATER))
    server:close()
    assert.are.equal("221 bye\r\n", client:read(LATER))
    assert.are.same({ nil, "closed", "the peer closed the connection" }, { client:read(LATER) })
    client:close()
    client:close()
    assert.is_true(a.closed)
    assert.are.same({ nil, "closed", "the connection is closed" }, { client:read(LATER) })
    assert.are.same({ nil, "closed", "the connection is closed" }, { client:write("x", LATER) })
    assert.are.equal("closed", client:peek())

    local _, below
    client, server, _, below = secured()
    assert(server:write("221 bye\r\n", LATER))
    below:close()
    assert.are.equal("221 bye\r\n", client:read(LATER))
    assert.are.same({ nil, "closed", "connection cut without TLS close_notify" }, { client:read(LATER) })
    assert.are.same({ nil, "closed", "connection cut without TLS close_notify" }, { client:read(LATER) })
    assert.are.equal("closed", (select(2, client:write("x", LATER))))
  end)

  it("does not wait to say goodbye", function()
    local client, _, a = secured()
    a.full = true
    client:close()
    assert.are.equal(0, a.deadlines[#a.deadlines])
    assert.is_true(a.closed)
  end)

  it("writes no more after a failed write, but still reads", function()
    local client, server, a = secured()
    a.full = true
    assert.are.same({ nil, "timeout", "the peer takes nothing" }, { client:write("DATA\r\n", LATER) })
    a.full = false
    assert.are.same({ nil, "closed", "the peer takes nothing" }, { client:write("DATA\r\n", LATER) })
    assert(server:write("421 too late\r\n", LATER))
    assert.are.equal("421 too late\r\n", client:read(LATER))
    local sent = #a.deadlines
    client:close()
    assert.are.equal(sent, #a.deadlines)
  end)

  it("tells that a client certificate is asked for, which shows after the handshake", function()
    local asking = assert(tls.context { server = true, cert = cert, key = key, ca_file = cert })
    local a, b = pipes()
    local c, s = run(function()
      local pipe = assert(transport.wrap(a, client_options(), LATER))
      return pipe:read(LATER)
    end, function() return transport.wrap(b, { context = asking }, LATER) end)
    assert.are.same({ nil, "tls", "the client gave no certificate" }, s)
    assert.are.same({ nil, "tls", "the server wants a client certificate", "set client_cert and client_key" }, c)
  end)

  it("reports damage as tls", function()
    local client, _, _, b = secured()
    b:write("\23\3\3\0\5hello", LATER)
    local bytes, kind, text = client:read(LATER)
    assert.are.equal(nil, bytes)
    assert.are.equal("tls", kind)
    assert.is_truthy(text:find("TLS failed", 1, true))
  end)

  describe("peek", function()
    it("does not take session tickets for data", function()
      local client, server, a = secured()
      assert.is_true(#a.inbox > 0)
      assert.are.equal("idle", client:peek())
      assert.are.equal("", a.inbox)
      assert(server:write("421 going down\r\n", LATER))
      assert.are.equal("data", client:peek())
      assert.are.equal("data", client:peek())
      assert.are.equal("421 going down\r\n", client:read(0))
      assert.are.equal("idle", client:peek())
    end)

    it("waits for the rest of half a record", function()
      local client, server, a = secured()
      client:peek()
      assert(server:write("250 ok\r\n", LATER))
      local rest = a.inbox:sub(11)
      a.inbox = a.inbox:sub(1, 10)
      assert.are.equal("idle", client:peek())
      a.inbox = rest
      assert.are.equal("data", client:peek())
    end)

    it("sees the end, with and without close_notify", function()
      local client, server, a = secured()
      client:peek()
      server.inner.close = function() end
      server:close()
      assert.is_true(#a.inbox > 0)
      assert.are.equal("closed", client:peek())
      client, server = secured()
      server.inner:close()
      assert.are.equal("closed", client:peek())
      assert.are.equal("closed", (select(2, client:read(LATER))))
      client, server = secured()
      assert(server:write("221 bye\r\n", LATER))
      server:close()
      assert.are.equal("data", client:peek())
      assert.are.equal("221 bye\r\n", client:read(LATER))
      assert.are.equal("closed", client:peek())
    end)
  end)

  it("finds out whether a port speaks TLS", function()
    local a, b = pipes()
    local c = run(function() return transport.probe(a, LATER) end, function() transport.wrap(b, SERVER, LATER) end)
    assert.is_true(c[1])
    assert.is_true(a.closed)
    a, b = pipes()
    b:write("500 what?\r\n", LATER)
    c = run(function() return transport.probe(a, LATER) end)
    assert.is_false(c[1])
    a = pipes()
    c = run(function() return transport.probe(a, LATER) end)
    assert.is_false(c[1])
  end)
end)

both("records that carry no data", function()
  -- A pipe whose engine never has data, over a peer that never stops.
  local function endless()
    local a, b = pipes()
    local client
    run(function()
      client = assert(transport.wrap(a, { ca_file = cert, server_name = "mail.example.org" }, LATER))
    end, function() assert(transport.wrap(b, { server = true, cert = cert, key = key }, LATER)) end)
    client.engine = {
      read = function() return nil, "again" end, feed = function() return true end, take = function() return "" end,
      decrypt = function() return nil, "again" end,
    }
    local reads = 0
    local function read()
      reads = reads + 1
      assert(reads < 1000, "it would never end")
      return "x"
    end
    client.inner = {
      read = read, receive = wires and read,
      peek = function() return "data" end,
    }
    return client
  end

  it("do not outlive a read's deadline", function()
    local bytes, kind = endless():read(0)
    assert.is_nil(bytes)
    assert.are.equal("timeout", kind)
    bytes, kind = endless():receive(core.wire(), 0)
    assert.is_nil(bytes)
    assert.are.equal("timeout", kind)
  end)

  it("do not keep a look going", function()
    assert.are.equal("idle", endless():peek())
  end)

  it("do not keep a handshake going behind its deadline", function()
    local HELLO_REQUEST = "\22\3\3\0\4\0\0\0\0" -- which a client in a handshake passes over (RFC 5246 7.4.1.1)
    local a = pipes()
    local reads, read = 0, a.read
    function a.read(self, deadline)
      reads = reads + 1
      assert(reads < 1000, "it would never end")
      self.inbox = HELLO_REQUEST:rep(100)
      return read(self, deadline)
    end
    local c = run(function() return transport.wrap(a, client_options(), 0) end)
    assert.are.same({ nil, "timeout", "the TLS handshake did not end in time" }, c)
    assert.is_true(a.closed)
  end)
end)
