local clock = require "spec.support.clock"
local core = require "smtp.core"
local loopback = require "spec.support.loopback"
local play = require "spec.support.play"
local smtp = require "smtp"
local together = require "spec.support.together"

local server, listener

-- Options for a message to a server on this machine.
local function letter(to, changes)
  local given = { host = "127.0.0.1", port = to.port, tls = "none", helo = "client.example.org",
    from = "Ada <ada@example.org>", to = { "bob@example.org" }, subject = "hello", text = "Hello.\n.\n" }
  if changes and changes.raw then given.subject, given.text = nil, nil end
  for name, value in pairs(changes or {}) do given[name] = value end
  return given
end

local function listen()
  listener = assert(loopback.listen())
  return listener
end

-- A server for clock.run that says the lines of `script`, waits for so many lines where it has a number, for a lone dot
-- where it has 0, and then is silent; or says a byte every 20 ms, never a whole reply.
local function stuck(script, drips)
  local sock, first, at, heard, begun = nil, nil, 1, "", false
  local function say(bytes)
    assert.are.equal(#bytes, sock:write(bytes))
    clock.arrive(first)
  end
  return function(mode, fd)
    if mode == "write" and not sock then return false end -- it connects
    if not sock then sock, first = listener.accept(), fd end
    local step = script[at]
    if not step then
      if not drips then return true end
      if not begun then say "250-" end
      begun = true
      clock.pass(0.02)
      if fd == first then say "x" end
    elseif type(step) == "string" then
      say(step .. "\r\n")
      at = at + 1
    else
      heard = heard .. (sock:read() or "")
      local _, lines = heard:gsub("\n", "")
      if step > 0 and lines >= step or step == 0 and ("\n" .. heard):find "\n%.\r\n" then at, heard = at + 1, "" end
    end
    return false
  end
end

-- A client's wait for a greeting is in vain, on its first connection.
local function no_greeting()
  local first
  return function(mode, fd)
    server:step(0)
    if mode == "read" then first = first or fd end
    return mode == "read" and fd == first
  end
end

local function fate(err)
  return { err.kind, err.stage, err.outcome }
end

-- What holds for every error, whatever it is about.
local function well_formed(err)
  local text = tostring(err)
  assert.is_nil(text:find("[%c]"), text)
  assert.is_nil(text:find("%.lua:%d"), text)
  assert.is_nil(text:find("table: ", 1, true), text)
  assert.are.equal("<" .. text .. ">", "<" .. err .. ">")
  assert.are.equal(err.kind == err.stage and err.kind or err.kind .. " at " .. err.stage, text:match("^[^:]+"))
end

after_each(function()
  if server then server:close() end
  if listener then listener.close() end
  server, listener = nil, nil
end)

describe("smtp.send", function()
  for _, mode in ipairs { "none", "starttls", "implicit" } do
    it("gives a whole receipt, tls = " .. mode, function()
      local login = mode ~= "none"
      server = assert(smtp.server { tls = mode,
        auth = login and function(user, password) return user == "ada" and password == "secret" end or nil })
      local given = letter(server, { tls = mode, ca_file = server.certificate, trace = true,
        username = login and "ada" or nil, password = login and "secret" or nil,
        to = "bob@example.org, Cid <cid@example.org>", bcc = "dan@example.org" })
      local receipt, err = together.run(function() return smtp.send(given) end, server)
      assert.is_nil(err)
      local got = server.inbox[1]
      assert.are.equal(1, #server.inbox)
      assert.is_truthy(receipt.message_id:find("^<[^<>%s]+@[^<>%s]+>$"))
      assert.is_truthy(got.data:find("Message-ID: " .. receipt.message_id, 1, true))
      assert.are.same({ "bob@example.org", "cid@example.org", "dan@example.org" }, receipt.accepted)
      assert.are.same({}, receipt.rejected)
      assert.are.equal(250, receipt.reply.code)
      assert.are.equal("2.0.0", receipt.reply.enhanced)
      assert.are.equal(receipt.reply.text:match("%w+$"), receipt.queue_id)
      assert.are.equal(#got.data, receipt.size)
      assert.are.equal(({ none = 5, implicit = 7, starttls = 9 })[mode], receipt.round_trips)
      for _, name in ipairs(login and { "connect", "tls", "auth", "send", "total" } or { "connect", "send", "total" }) do
        assert.is_true(receipt.time[name] >= 0 and receipt.time[name] <= receipt.time.total, name)
      end
      if login then
        assert.are.equal("TLSv1.3", receipt.tls.version)
        assert.are.equal("string", type(receipt.tls.cipher))
        assert.is_false(receipt.tls.resumed)
        assert.are.equal("127.0.0.1", receipt.tls.peer.names[2])
      else
        assert.is_nil(receipt.tls)
      end
      assert.is_truthy(receipt.transcript:find("C: QUIT\nS: 250 .*\nS: 221 [^\n]*$"))
      assert.is_nil(play.dump(receipt):find(core.base64("\0ada\0secret"), 1, true))
    end)
  end

  it("does not change the caller's table", function()
    server = assert(smtp.server { tls = "none" })
    local function fresh()
      return letter(server, { to = { "bob@example.org", { name = "Cid", address = "cid@example.org" } },
        headers = { { "X-Test", "1" } }, timeouts = { final = 5 }, attachments = { { data = "x", filename = "x.txt" } } })
    end
    local given = fresh()
    assert(together.run(function() return smtp.send(given) end, server))
    assert.are.same(fresh(), given)
  end)

  it("raises for an unknown option and connects to nobody", function()
    local transport = { connect = function() error("connected") end }
    local fine, text = pcall(smtp.send, { host = "mail.example.org", transport = transport, form = "ada@example.org" })
    assert.is_false(fine)
    assert.are.equal('smtp.send: unknown option "form"; did you mean "from"?', text:match "^spec/client/send_spec.lua:%d+: (.*)$")
  end)

  it("finds what is wrong with a message before it connects", function()
    local transport = { connect = function() error("connected") end }
    for _, changes in ipairs {
      { to = "not an address" }, { subject = "a\r\nBcc: evil@example.org" }, { headers = { { "X", "a\nb" } } },
      { attachments = { { path = "/nonexistent/file" } } }, { message_id = "<a@b>\r\nX: y" },
      { raw = "x", envelope = { from = "a@example.org", to = { "b@example.org>\r\nRCPT TO:<c@example.org" } } },
    } do
      changes.transport = transport
      local receipt, err = smtp.send(letter({ port = 25 }, changes))
      assert.is_nil(receipt)
      assert.are.same({ "input", "compose", "not_sent" }, fate(err))
      well_formed(err)
    end
  end)

  it("says when nothing listens", function()
    local port = listen().port
    listener.close()
    local receipt, err = smtp.send(letter { port = port })
    listener = nil
    assert.is_nil(receipt)
    assert.are.same({ "connect", "connect", "not_sent" }, fate(err))
    assert.is_true(err.temporary)
    assert.is_truthy(err.hint:find("nothing listens", 1, true))
    well_formed(err)
  end)

  it("says what a server answered, in one line", function()
    server = assert(smtp.server { tls = "none", on_message = function() return "554 5.7.1 not\twanted" end })
    local receipt, err = together.run(function() return smtp.send(letter(server, { trace = true })) end, server)
    assert.is_nil(receipt)
    assert.are.same({ "rejected", "final", "not_sent" }, fate(err))
    assert.is_truthy(err.transcript:find("C: DATA", 1, true))
    well_formed(err)
  end)

  it("hands the lines to a trace function", function()
    server = assert(smtp.server { tls = "none" })
    local lines = {}
    local given = letter(server, { trace = function(direction, line) lines[#lines + 1] = direction .. ": " .. line end })
    local receipt = assert(together.run(function() return smtp.send(given) end, server))
    assert.is_nil(receipt.transcript)
    assert.are.equal("C: EHLO client.example.org", lines[2])
    assert.is_truthy(table.concat(lines, "\n"):find("S: 221", 1, true))
  end)
end)

describe("the wrong TLS mode", function()
  before_each(clock.stop)
  after_each(clock.go)

  it("implicit to a server that speaks first is told at once", function()
    server = assert(smtp.server { tls = "none" })
    local took, got = clock.run(function() server:step(0) end, smtp.send, letter(server, { tls = "implicit" }))
    local receipt, err = got[1], got[2]
    assert.is_nil(receipt)
    assert.are.same({ "tls", "tls", "not_sent" }, fate(err))
    assert.is_truthy(err.hint and err.hint:find('tls = "starttls"', 1, true), err.hint)
    assert.are.equal(0, took)
    well_formed(err)
  end)

  it("a server that waits for TLS is told within 5 seconds", function()
    server = assert(smtp.server { tls = "implicit" })
    for _, mode in ipairs { "none", "starttls", "opportunistic" } do
      local took, got = clock.run(no_greeting(), smtp.send, letter(server, { tls = mode }))
      assert.is_nil(got[1])
      assert.are.same({ "tls", "greeting", "not_sent" }, fate(got[2]), mode)
      assert.are.equal('this port speaks TLS from the first byte: use tls = "implicit"', got[2].hint)
      assert.is_true(took < 5, took)
      well_formed(got[2])
    end
  end)

  it("and sooner where the greeting has less time", function()
    server = assert(smtp.server { tls = "implicit" })
    local took, got = clock.run(no_greeting(), smtp.send, letter(server, { timeouts = { greeting = 0.6 } }))
    assert.are.same({ "tls", "greeting", "not_sent" }, fate(got[2]))
    assert.is_true(took < 0.6, took)
  end)

  it("a server that only greets late is not taken for one", function()
    listen()
    local first, sock, looked
    local _, got = clock.run(function(mode, fd)
      if mode ~= "read" then return false end
      first, sock = first or fd, sock or listener.accept()
      if fd ~= first and not looked then
        -- a second connection looks whether the port speaks TLS
        looked = true
        sock:write "554 5.3.2 no mail here\r\n"
        clock.arrive(first)
      end
      return true
    end, smtp.send, letter(listener, { timeouts = { greeting = 0.3 } }))
    assert.is_true(looked)
    assert.are.same({ "rejected", "greeting", "not_sent" }, fate(got[2]))
    assert.are.equal(554, got[2].code)
  end)
end)

describe("timeouts", function()
  before_each(clock.stop)
  after_each(clock.go)

  local HELLO = { "220 hi", 1, "250-hi\r\n250 PIPELINING" }
  local function said(...)
    local script = {}
    for i, step in ipairs(HELLO) do script[i] = step end
    for _, step in ipairs { ... } do script[#script + 1] = step end
    return script
  end

  local function on_time(took, limit, late)
    assert.is_true(took > limit - 1e-6 and took < limit + (late or 1e-6), ("%.3f seconds for %.3f"):format(took, limit))
  end

  for name, case in pairs {
    ["the greeting"] = { {}, "greeting", { greeting = 0.1 } },
    EHLO = { { "220 hi", 1 }, "ehlo", { command = 0.1 } },
    ["the envelope"] = { said(3), "mail", { command = 0.1 } },
    DATA = { said(3, "250 1\r\n250 2"), "data", { data = 0.1 } },
    ["the final reply"] = { said(3, "250 1\r\n250 2\r\n354 go", 0), "final", { final = 0.1 }, "unknown" },
  } do
    for _, how in ipairs { "silence", "drip" } do
      it(("%s, %s: its own limit, or the whole call's"):format(name, how), function()
        for _, changes in ipairs { { timeouts = case[3] }, { timeout = 0.1 } } do
          listen()
          local took, got = clock.run(stuck(case[1], how == "drip"), smtp.send, letter(listener, changes))
          local receipt, err = got[1], got[2]
          assert.is_nil(receipt)
          assert.are.same({ "timeout", case[2], case[4] or "not_sent" }, fate(err))
          assert.is_true(err.temporary)
          well_formed(err)
          on_time(took, 0.1, how == "drip" and 0.021)
          listener.close()
        end
      end)
    end
  end

  it("connecting", function()
    listen()
    local crowd = loopback.crowd(listener)
    for _, changes in ipairs { { timeouts = { connect = 0.1 } }, { timeout = 0.1 } } do
      local took, got = clock.run("write", smtp.send, letter(listener, changes))
      assert.is_nil(got[1])
      assert.are.same({ "timeout", "connect", "not_sent" }, fate(got[2]))
      well_formed(got[2])
      on_time(took, 0.1)
    end
    for _, sock in ipairs(crowd) do sock:close() end
  end)

  it("the TLS handshake", function()
    for _, changes in ipairs { { timeouts = { connect = 0.1 } }, { timeout = 0.1 } } do
      listen()
      changes.tls = "implicit"
      local took, got = clock.run("read", smtp.send, letter(listener, changes))
      assert.is_nil(got[1])
      assert.are.same({ "timeout", "tls", "not_sent" }, fate(got[2]))
      well_formed(got[2])
      on_time(took, 0.1)
      listener.close()
    end
  end)

  it("a block of the body that the server does not take", function()
    for _, changes in ipairs { { timeouts = { block = 0.1 } }, { timeout = 0.3 } } do
      listen()
      local chunk, count = (("x"):rep(998) .. "\r\n"):rep(256), 0
      changes.raw = function()
        count = count + 1
        return count < 100 and chunk or nil
      end
      local _, got = clock.run(stuck(said(3, "250 1\r\n250 2\r\n354 go")), smtp.send, letter(listener, changes))
      assert.is_nil(got[1])
      assert.are.same({ "timeout", "body", "not_sent" }, fate(got[2]))
      listener.close()
    end
  end)

  it("a source so slow that the call's time is over: the message is never ended", function()
    server = assert(smtp.server { tls = "none" })
    local given = letter(server, { timeout = 0.2, raw = function()
      clock.pass(0.05)
      return "x\r\n"
    end })
    local _, got = clock.run(function() server:step(0) end, smtp.send, given)
    assert.is_nil(got[1])
    assert.are.same({ "timeout", "body", "not_sent" }, fate(got[2]))
    while #server.connections > 0 do server:step(0.01) end
    assert.are.equal(0, #server.inbox)
  end)

  it("smtp.connect is one call: all its steps share the time", function()
    listen()
    local sock, replies = nil, { "220 hi", "250-hi\r\n250 AUTH PLAIN", "235 in" }
    local took, got = clock.run(function(mode, fd, deadline)
      if mode ~= "read" then return false end
      sock = sock or listener.accept()
      if core.now() + 0.15 >= deadline then return true end
      clock.pass(0.15)
      sock:write(table.remove(replies, 1) .. "\r\n")
      clock.arrive(fd)
    end, smtp.connect, { host = "127.0.0.1", port = listener.port, tls = "none", timeout = 0.35, helo = "client.example.org",
      username = "ada", password = "secret", allow_insecure_auth = true })
    assert.is_nil(got[1])
    assert.are.same({ "timeout", "auth", "not_sent" }, fate(got[2]))
    on_time(took, 0.35)
  end)
end)
