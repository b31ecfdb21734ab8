-- The transport inside a real HAProxy: in its services and tasks, while it serves others.
local away = require "spec.support.away"
local child = require "spec.support.child"
local core = require "smtp.core"
local haproxy = require "spec.support.haproxy"
local loopback = require "spec.support.loopback"
local smtp = require "smtp"
local tls = require "smtp.tls"

-- Sends by the options that stand behind it, and tells what came of it in words that are the same each time.
local SEND = [[
  local given = %s
  given.host, given.helo, given.message_id = given.host or "127.0.0.1", "client.example.org", "<1@example.org>"
  given.from, given.to, given.subject, given.text = "ada@example.org", "grace@example.test", given.subject or "hello", "Hello.\n"
  given.transport, given.timeout = transport, given.timeout or 60
  local receipt, err = smtp.send(given)
  if not receipt then
    return (("%%s %%s %%s %%s %%s"):format(err.kind, err.stage, err.outcome, tostring(err.code), tostring(err.temporary)))
  end
  return (("sent, %%d octets, %%s"):format(receipt.size, receipt.tls and receipt.tls.version or "in clear"))
]]

describe("inside HAProxy #real", function()
  local host, missing, closed
  local servers = {}

  setup(function()
    host, missing = haproxy.start()
    if missing then return end
    for _, mode in ipairs { "none", "starttls", "implicit" } do servers[mode] = away.start(mode) end
    closed = loopback.listen()
    closed.close()
  end)

  teardown(function()
    for _, server in pairs(servers) do server:stop() end
    if host then host:stop() end
  end)

  -- What a send there gives, which is what the blocking transport gives here.
  local function same(given, ...)
    local options = given:format(...)
    local mine = host:run("service", SEND, options)
    local run = assert((loadstring or load)("local smtp, transport = ... " .. SEND:format(options)))
    assert.are.equal(run(smtp, require "smtp.transport.socket".new()), mine)
    return mine
  end

  -- What a piece of Lua there gives, and how long it took there, in seconds.
  local function timed(where, code, ...)
    local result = host:run(where, [[
      local now = require "smtp.core".now
      local began = now()
      local function run() ]] .. code .. [[ end
      local result = run()
      return now() - began, result]], ...)
    local took, words = result:match "^([%d.]+)\n(.*)$"
    return tonumber(took) or error(result), words
  end

  it("sends from a service and from a task: in clear, by STARTTLS with a login, by TLS at once", function()
    if missing then return pending(missing) end
    assert.matches("in clear$", same("{ port = %d, tls = 'none' }", servers.none.port))
    local starttls = ("{ host = 'localhost', port = %d, tls = 'starttls', ca_file = %q, username = 'ada', password = 'pass word' }")
      :format(servers.starttls.port, servers.starttls.certificate)
    assert.matches("TLSv1.3$", same("%s", starttls))
    assert.matches("^sent.*TLSv1.3$", host:run("task", SEND, starttls))
    assert.matches("TLSv1.3$", same("{ host = 'localhost', port = %d, tls = 'implicit', ca_file = %q }",
      servers.implicit.port, servers.implicit.certificate))
    assert.are.same({ 2, 3, 2 }, { #servers.none:messages(), #servers.starttls:messages(), #servers.implicit:messages() })
  end)

  it("fails as elsewhere, too: certificates are verified", function()
    if missing then return pending(missing) end
    assert.matches("^rejected", same("{ port = %d, tls = 'none', subject = 'refuse this' }", servers.none.port))
    assert.matches("^auth", same("{ host = 'localhost', port = %d, tls = 'starttls', ca_file = %q, username = 'ada', password = 'no' }",
      servers.starttls.port, servers.starttls.certificate))
    assert.matches("^tls", same("{ host = 'localhost', port = %d, tls = 'starttls' }", servers.starttls.port))
    assert.matches("^tls", same("{ port = %d, tls = 'implicit', server_name = 'mail.example.org', ca_file = %q }",
      servers.implicit.port, servers.implicit.certificate))
    assert.matches("^connect", same("{ port = %d }", closed.port))
    assert.matches("^connect", same("{ host = 'localhost', port = %d }", closed.port))
    assert.matches("^connect", same("{ path = '/nowhere/at/all', tls = 'none' }"))
    assert.matches("^resolve", same("{ host = 'no-such-host.invalid' }"))
  end)

  it("tells of a server's odd ways what the blocking one tells", function()
    if missing then return pending(missing) end
    for _, script in ipairs {
      { "S: 554 5.3.2 not today", "C:", "close" }, { "S: 220 mail.example.test ESMTP", "C:" }, { "close" },
      { "S: HTTP/1.0 400 Bad Request" },
      { "S: 220 mail.example.test ESMTP", "C:", "S: 250 mail.example.test", "C:", "S: 421 4.3.2 bye" },
    } do
      local server = away.start(script)
      local told = same("{ port = %d, tls = 'none' }", server.port)
      server:stop()
      assert.is_nil(told:find "^sent")
    end
  end)

  it("says why nothing is sent while the configuration is read, and that it cannot bind", function()
    if missing then return pending(missing) end
    assert.matches("reads its configuration.*core.register_task", host:run("service", "return while_loading"))
    assert.matches("^connect", host:run("service", SEND, ("{ port = %d, bind = '127.0.0.1' }"):format(servers.none.port)))
  end)

  it("ends by the deadline what a silent server keeps waiting, and serves others meanwhile", function()
    if missing then return pending(missing) end
    local silent = loopback.listen()
    local crowded = loopback.listen()
    local crowd = loopback.crowd(crowded)
    local out = os.tmpname()
    os.execute(("(%s; echo over) >%s &"):format(host:request("service", SEND, ("{ port = %d, tls = 'none', timeout = 60 }")
      :format(silent.port)), out))
    local waiting = silent.accept()
    for _ = 1, 10 do assert.are.equal("here", host:run("service", "return 'here'")) end
    assert.are.equal("", child.read(out))
    waiting:write "554 5.3.2 not today\r\n"
    child.says(out, "over\n$")
    waiting:close()
    assert.matches("^rejected", child.read(out))
    os.remove(out)

    for title, code in pairs {
      ["a greeting"] = SEND:format(("{ port = %d, tls = 'none', timeout = 0.3 }"):format(silent.port)):gsub("%%", "%%%%"),
      ["a read"] = ([[local pipe = assert(transport.connect("127.0.0.1", %d, {}, now() + 60))
        return select(2, pipe:read(now() + 0.3))]]):format(silent.port),
      ["a write"] = ([[local pipe = assert(transport.connect("127.0.0.1", %d, {}, now() + 60))
        return select(2, pipe:write(("x"):rep(2 ^ 24), now() + 0.3))]]):format(silent.port),
      ["to connect"] = ([[return select(2, transport.connect("127.0.0.1", %d, {}, now() + 0.3))]]):format(crowded.port),
    } do
      -- HAProxy's timeout of a write begins anew with each octet that was taken: it ends, and that is all
      local late = title == "a write" and 60 or 0.05
      -- a machine that is busy with something else gets more tries
      local stop = core.now() + 60
      local took, kind
      repeat
        took, kind = timed("service", code)
        assert.matches("^timeout", kind, title)
        assert.is_true(took >= 0.299, ("%s ended after %.3f s"):format(title, took))
        assert.is_true(core.now() < stop, ("%s took %.3f s, again and again"):format(title, took))
      until took < 0.3 + late
    end
    for _, sock in ipairs(crowd) do sock:close() end
    crowded.close()
    silent.close()
  end)

  it("gives up to connect at the deadline, with no further attempts of HAProxy's own", function()
    if missing then return pending(missing) end
    local crowded = loopback.listen()
    local crowd = loopback.crowd(crowded)
    local peer = (":%04X 02"):format(crowded.port) -- whom it is that SYNs are sent to
    local attempts = {}
    local function look()
      for line in io.lines "/proc/net/tcp" do
        local from, to = line:match "^%s*%d+: (%x+:%x+) %x+(:%x+ %x+)"
        if to == peer then attempts[from] = true end
      end
      local count = 0
      for _ in pairs(attempts) do count = count + 1 end
      return count
    end
    local before = look()
    local out, requests = os.tmpname(), {}
    for i = 1, 8 do -- in both threads
      requests[i] = host:request(i % 2 == 0 and "service" or "task",
        [[return (select(2, transport.connect("127.0.0.1", %d, {}, require "smtp.core".now() + 0.5)))]], crowded.port)
    end
    os.execute(("(%s & wait; echo over) >%s &"):format(table.concat(requests, " & "), out))
    local late = core.now() + 60
    while not child.read(out):find "over" and core.now() < late do
      look()
      core.wait("read", -1, core.now() + 0.01)
    end
    local made = look() - before
    for _, sock in ipairs(crowd) do sock:close() end
    crowded.close()
    assert.are.equal(("timeout"):rep(8) .. "over\n", child.read(out))
    os.remove(out)
    assert.is_true(made <= 8, made .. " attempts of 8 calls")
  end)

  it("keeps a pool's connections, and finds a new one where the server has given them up", function()
    if missing then return pending(missing) end
    local before = #servers.none:messages()
    local code = [[
      pool = pool or assert(smtp.pool { host = "127.0.0.1", port = %d, tls = "none", size = 2, transport = transport })
      local function letter(i) return { from = "ada@example.org", to = "grace@example.test", subject = "many " .. i, text = "x" } end
      local sent, i = 0, 0
      pool:send_many(function()
        i = i + 1
        return i <= 20 and letter(i) or nil
      end, function(receipt, err) sent = sent + (assert(receipt, err) and 1) end)
      for j = 1, 3 do sent = sent + (assert(pool:send(letter(j))) and 1) end
      return sent, pool:counts().open]]
    assert.are.equal("23\n1", host:run("task", code, servers.none.port))
    assert.are.equal(before + 23, #servers.none:messages())
    -- a server that ends after one message
    local short = away.start { "S: 220 mail.example.test ESMTP", "C:", "S: 250 mail.example.test", "C:", "S: 250 ok", "C:",
      "S: 250 ok", "C:", "S: 354 go", "C:", "C:", "C:", "C:", "C:", "C:", "C:", "C:", "C:", "C:", "S: 250 taken", "close" }
    assert.are.equal("2\n250", host:run("task", [[
      local pool = assert(smtp.pool { host = "127.0.0.1", port = %d, tls = "none", transport = transport, helo = "client.example.org" })
      local function letter()
        return { raw = "From: ada@example.org\r\n\r\n1\r\n2\r\n3\r\n4\r\n5\r\n6\r\n7\r\n",
          envelope = { from = "ada@example.org", to = { "grace@example.test" } } }
      end
      local count, last = 0, nil
      for _ = 1, 2 do
        last = assert(pool:send(letter()))
        count = count + 1
        core.msleep(300)
      end
      return count, last.reply.code]], short.port))
    short:stop()
  end)

  it("sends much to a server that reads slowly, whole", function()
    if missing then return pending(missing) end
    local slow = away.start("none", 0.002)
    local raw = "Subject: large\r\n\r\n" .. ("0123456789abcdefghijklmnopqrstuvwxyz.\r\n.\r\n"):rep(120000)
    assert.are.equal("true", host:run("service", [[
      local receipt, err = smtp.send { host = "127.0.0.1", port = %d, tls = "none", transport = transport, timeout = 60,
        envelope = { from = "ada@example.org", to = { "grace@example.test" } },
        raw = "Subject: large\r\n\r\n" .. ("0123456789abcdefghijklmnopqrstuvwxyz.\r\n.\r\n"):rep(120000) }
      return receipt and true or err]], slow.port))
    local messages = slow:messages()
    slow:stop()
    local digest = tls.hash("sha256", raw):gsub(".", function(c) return ("%02x"):format(c:byte()) end)
    assert.are.same({ ("large %d %s"):format(#raw, digest) }, messages)
  end)

  it("asks a HAProxy that knows no other way for octet after octet", function()
    if missing then return pending(missing) end
    local before = #servers.starttls:messages()
    local result = host:run("service", [[
      local made = core.tcp
      local strict = { __index = function(self, name)
        return function(_, ...)
          if name == "receive" and type((...)) == "string" then error "Unsupported pattern." end
          return self.sock[name](self.sock, ...)
        end
      end }
      package.loaded["smtp.transport.haproxy"] = nil
      local other = require "smtp.transport.haproxy"
      core.tcp = function() return setmetatable({ sock = made() }, strict) end
      local receipt, err = smtp.send { host = "localhost", port = %d, ca_file = %q, username = "ada", password = "pass word",
        transport = other, from = "ada@example.org", to = "grace@example.test", subject = "s", text = "t", timeout = 60 }
      core.tcp = made
      return receipt and receipt.tls.version or err]], servers.starttls.port, servers.starttls.certificate)
    assert.are.equal("TLSv1.3", result)
    assert.are.equal(before + 1, #servers.starttls:messages())
  end)

  it("sends out of a chroot, to an address", function()
    if missing then return pending(missing) end
    local jailed, reason = haproxy.start "chroot %s"
    if not jailed then return pending(reason) end -- only root may
    local result = jailed:run("service", SEND, ([[{ server_name = "localhost", port = %d, tls = "starttls", ca_file = %q,
      username = "ada", password = "pass word" }]]):format(servers.starttls.port, servers.starttls.certificate))
    local named = jailed:run("service", [[
      local _, err = smtp.send { host = "mail.example.test", transport = transport, from = "ada@example.org",
        to = "grace@example.test", text = "" }
      return err]])
    -- what is seldom needed is there all the same
    local verified = jailed:run("service", ([[
      local report, err = smtp.verify { transport = transport, host = "127.0.0.1", server_name = "localhost", port = %d, ca_file = %q }
      return report and report.tls.version or err]]):format(servers.starttls.port, servers.starttls.certificate))
    jailed:stop()
    assert.matches("^sent.*TLSv1.3$", result)
    assert.matches("^resolve.*server_name", named)
    assert.are.equal("TLSv1.3", verified)
  end)
end)
