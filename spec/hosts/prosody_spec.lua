-- The transport inside a real Prosody, which runs this file by busted, too: what is said here of its runners is said there.
-- Of: transport/prosody
local away = require "spec.support.away"
local core = require "smtp.core"
local loopback = require "spec.support.loopback"
local smtp = require "smtp"

if rawget(_G, "prosody") then
  local async, event_loop, timer = require "util.async", require "net.server", require "util.timer"
  local transport = require "smtp.transport.prosody"
  local host = {
    run = function(run) return run() end,
    spawn = function(run) async.runner(run):run(true) end,
    pause = async.sleep,
  }

  require "spec.transport_conformance"("the Prosody transport", transport, host)

  return describe("the Prosody transport", function()
    local server, letter

    setup(function()
      server = away.start "none"
      letter = { host = "127.0.0.1", port = server.port, tls = "none", from = "ada@example.org", to = "grace@example.test",
        text = "Hello.\n", transport = transport }
    end)

    teardown(function() server:stop() end)

    local function upvalue(of, wanted)
      for i = 1, 255 do
        local name, value = debug.getupvalue(of, i)
        if name == wanted then return value end
      end
    end

    -- How many descriptors the loop watches and how many timers it has.
    local function held()
      local counts = { 0, 0 }
      for i, list in ipairs { upvalue(event_loop.closeall, "fds"), upvalue(event_loop.add_task, "timers").items } do
        for _ in pairs(list) do counts[i] = counts[i] + 1 end
      end
      return counts
    end

    it("leaves no watch and no timer, however a wait ended", function()
      local silent, closed = loopback.listen(), loopback.listen()
      closed.close()
      local before = held()
      local pipe = assert(transport.connect("127.0.0.1", silent.port, {}, core.now() + 60))
      assert.are.equal("timeout", (select(2, pipe:read(core.now() + 0.02))))
      assert.are.same(before, held())
      local during, kind
      host.spawn(function() kind = select(2, pipe:read(core.now() + 60)) end)
      during = held()
      pipe:close()
      assert.are.equal("closed", kind)
      assert.are.same({ before[1] + 1, before[2] + 1 }, during)
      async.sleep(0.01) -- the runner ends at the loop's next turn
      assert.are.same(before, held())
      assert.are.equal("connect", (select(2, transport.connect("127.0.0.1", closed.port, {}, core.now() + 60))))
      assert(smtp.send(letter))
      assert.are.same(before, held())
      silent.close()
    end)

    it("says what to do where nobody can wait", function()
      local words
      timer.add_task(0, function() words = select(2, pcall(smtp.send, letter)) end)
      while not words do async.sleep(0.01) end
      assert.matches("call it in a runner", words)
      words = nil
      string.gsub("x", "x", function() words = select(2, pcall(smtp.send, letter)) end)
      assert.matches("call it in a runner", words)
    end)

    it("works in any coroutine", function()
      local receipt
      coroutine.wrap(function() receipt = smtp.send(letter) end)()
      local late = core.now() + 60
      while not receipt and core.now() < late do async.sleep(0.01) end
      assert.truthy(receipt)
    end)

    it("raises what one of several functions raises, when all have ended", function()
      local ended = 0
      local ok, reason = pcall(transport.together, {
        function() error("at once", 0) end,
        function()
          async.sleep(0.01)
          error("later", 0)
        end,
        function()
          async.sleep(0.02)
          ended = ended + 1
        end,
      })
      assert.are.same({ false, 1 }, { ok, ended })
      assert.matches("^at once", reason)
      transport.together {}
    end)

    it("sends thousands, every other one in vain, with no descriptor and no memory left behind", function()
      local before = held()
      require "spec.support.flat"(transport, host, server.port, 2)
      assert.are.same(before, held())
    end)
  end)
end

local child = require "spec.support.child"
local postfix = require "spec.support.postfix"
local prosody = require "spec.support.prosody"

describe("inside Prosody #real", function()
  local host, missing, server, slow, certificate

  setup(function()
    server, slow = away.start "starttls", away.start("none", 0.005)
    certificate = child.keep(server.certificate)
    host, missing = prosody.start(([[mail_registrations = { host = "localhost", port = %d, ca_file = %q, username = "ada",
      password = "pass word", from = "ada@example.org", to = "grace@example.test" }]]):format(server.port, certificate))
  end)

  teardown(function()
    if host then host:stop() end
    server:stop()
    slow:stop()
    postfix.stop()
    os.remove(certificate)
  end)

  -- Sends by the options that stand behind it; gives what came of it.
  local SEND = [[
    local receipt, err = smtp.send { transport = transport, from = "ada@example.org", to = "grace@example.test",
      subject = "from Prosody", text = "Hello.\n", %s }
    if not receipt then return err end
    return "sent", receipt.tls and receipt.tls.version, receipt.message_id]]

  -- Options for the server that wants a login.
  local function login(password)
    return ([[host = "localhost", port = %d, ca_file = %q, username = "ada", password = %q]])
      :format(server.port, server.certificate, password)
  end

  it("all is as everywhere", function()
    if missing then return pending(missing) end
    -- that of Prosody collects garbage without a rest, which takes its time beside busted
    local output = prosody.busted("spec/hosts/prosody_spec.lua", "gc = { threshold = 200 }")
    local passed, failed = output:match "(%d+) successes / (%d+) failures / 0 errors / 0 pending"
    assert.are.equal("0", failed, output)
    assert.is_true(tonumber(passed) > 18, output)
  end)

  it("an HTTP request mails over STARTTLS with a login; Prosody's own TLS has the same OpenSSL", function()
    if missing then return pending(missing) end
    local before = #server:messages()
    for _ = 1, 2 do
      assert.matches("^sent\nTLSv1.3", host:run(SEND, login "pass word"))
      assert.matches("^auth: ", host:run(SEND, login "mistaken"))
      assert.matches("^tls: .*self%-signed", host:run(SEND, ([[host = "localhost", port = %d]]):format(server.port)))
    end
    assert.are.equal(before + 2, #server:messages())
    local libraries, count = {}, 0
    for path in child.read(("/proc/%s/maps"):format(host.pid)):gmatch "%S*/lib[sc][sr][ly]%S*" do
      count = count + (libraries[path] and 0 or 1)
      libraries[path] = true
    end
    assert.are.equal(2, count) -- libssl, libcrypto
  end)

  it("delivers to Postfix over STARTTLS with a login", function()
    if missing then return pending(missing) end
    local mailer, reason = postfix.start()
    if not mailer then return pending(reason) end
    local result = host:run(SEND, ([[host = "localhost", port = %d, ca_file = %q, username = "user", password = "pass word",
      to = "user@example.test", timeout = 60]]):format(mailer.submission_port, mailer.ca_file))
    assert.matches("^sent\nTLSv1.3", result)
    assert.truthy(postfix.wait_for_message(mailer.maildir, result:match "<.*>"))
  end)

  it("serves others while a mail is under way", function()
    if missing then return pending(missing) end
    local out = os.tmpname()
    -- in the middle of the content the server rests
    os.execute(("(%s; echo over) >%s &"):format(host:request([[
      local raw = "Subject: large\r\n\r\n" .. ("0123456789abcdefghijklmnopqrstuvwxyz.\r\n"):rep(80000)
      local held
      local receipt, err = smtp.send { host = "127.0.0.1", port = %d, tls = "none", transport = transport, raw = raw, timeout = 60,
        envelope = { from = "ada@example.org", to = { "grace@example.test" } }, on_progress = function()
          held = held or assert(io.open(%q, "w")):close()
        end }
      return receipt and "sent" or err]], slow.port, slow.path .. "/hold"), out))
    child.there(slow.path .. "/hold")
    for _ = 1, 5 do assert.are.equal("here", host:run "return 'here'") end
    assert.are.equal("", child.read(out))
    slow:release()
    child.says(out, "over\n$")
    assert.are.equal("sentover\n", child.read(out))
    os.remove(out)
  end)

  it("mails who has registered, by the example", function()
    if missing then return pending(missing) end
    local before = #server:messages()
    local sock = assert(core.connect(loopback.address("127.0.0.1", host.c2s)))
    local function ask(bytes, wanted)
      assert(loopback.finish(sock, "write", "write", bytes))
      local answer = ""
      repeat answer = answer .. assert(loopback.finish(sock, "read", "read")) until answer:find(wanted, 1, true)
      return answer
    end
    assert(loopback.finish(sock, "write", "connected"))
    ask("<?xml version='1.0'?><stream:stream to='localhost' version='1.0' xmlns='jabber:client' "
      .. "xmlns:stream='http://etherx.jabber.org/streams'>", "</stream:features>")
    assert.matches("type='result'", ask("<iq type='set' id='1'><query xmlns='jabber:iq:register'><username>grace</username>"
      .. "<password>pass word</password></query></iq>", "<iq"))
    sock:close()
    local late = core.now() + 60
    while #server:messages() == before and core.now() < late do core.wait("read", -1, core.now() + 0.02) end
    assert.matches("^grace@localhost has registered ", server:messages()[before + 1])
  end)

  it("touches no global", function()
    if missing then return pending(missing) end
    assert.falsy(host:log():find("global", 1, true), host:log())
  end)

  for backend, name in pairs { epoll = "^epoll", select = "^select", event = "^libevent" } do
    it(("goes on, and comes to its end, with network_backend = %q"):format(backend), function()
      if missing then return pending(missing) end
      local before, silent, closed = #slow:messages(), loopback.listen(), loopback.listen()
      closed.close()
      local other = assert(prosody.start(("network_backend = %q"):format(backend)))
      if not other:run [[return require "net.server".get_backend()]]:find(name) then
        other:stop()
        return pending "NO LIBEVENT (spec/support/install.sh test installs lua-event)"
      end
      assert.matches("^sent\nTLSv1.3", other:run(SEND, login "pass word"))
      local plain = [[host = "127.0.0.1", port = %d, tls = "none", %s]]
      assert.matches("^connect: ", other:run(SEND, plain:format(closed.port, "")))
      assert.matches("^timeout ", other:run(SEND, plain:format(silent.port, "timeout = 0.1")))
      assert.are.equal("true\ntrue\ntimeout", other:run([[
        local now = require "smtp.core".now
        local pipe = assert(transport.connect("127.0.0.1", %d, {}, now() + 5))
        local began = now()
        transport.wait("write", pipe.fd, began + 3600)
        local took, steps = now() - began, 0
        require "util.timer".add_task(0, function() -- by the loop itself, which a watch that was left would keep busy
          debug.sethook(function() steps = steps + 1 end, "", 1)
        end)
        require "util.async".sleep(0.5)
        local _, kind = pipe:write(("x"):rep(2 ^ 24), now() + 0.1)
        pipe:close()
        return took < 1800, steps > 0 and steps < 1e5 or steps, kind]], silent.port))
      -- a mail when it ends is sent, and one that gets no answer does not keep it
      other:run([[
        module:hook_global("server-stopping", function() %s end)
        require "util.async".runner(function() %s end):run(true)
      ]], SEND:format(plain:format(slow.port, [[subject = "it ends"]])), SEND:format(plain:format(silent.port, "")))
      assert.is_true(other:finish())
      other:stop()
      silent.close()
      local messages = slow:messages()
      assert.are.equal(before + 1, #messages)
      assert.matches("^it ends ", messages[before + 1])
    end)
  end
end)
