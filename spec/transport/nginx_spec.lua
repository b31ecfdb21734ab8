-- The transport inside a real nginx #real: to a server of ours and to a Postfix.
-- Of: transport/nginx_openssl
local away = require "spec.support.away"
local child = require "spec.support.child"
local core = require "smtp.core"
local dovecot = require "spec.support.dovecot"
local inside = require "spec.support.inside"
local nginx = require "spec.support.nginx"
local postfix = require "spec.support.postfix"
local smtp = require "smtp"
local tls = require "smtp.tls"
local tls_peer = require "spec.support.tls_peer"

describe("nginx #real", function()
  local host, reason, mailer, no_mailer, logins, cert, key, common, trusted, trusted_cert, trusted_key
  local server

  setup(function()
    trusted_cert, trusted_key = tls.mint { "localhost", "127.0.0.1", "::1" }
    mailer, no_mailer = postfix.start()
    if mailer then logins, no_mailer = dovecot.start(mailer.plain_port) end
    local authorities = (mailer and child.read(mailer.ca_file) or "") .. (logins and child.read(logins.ca_file) or "")
    common = os.tmpname()
    os.execute(("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=localhost "
      .. "-keyout %s.key -out %s 2>/dev/null"):format(common, common))
    trusted = child.keep(trusted_cert .. authorities .. child.read(common))
    host, reason = nginx.start("lua_ssl_protocols TLSv1.2 TLSv1.3; lua_ssl_trusted_certificate " .. trusted .. ";")
  end)

  teardown(function()
    if host then host:stop() end
    dovecot.stop()
    postfix.stop()
    os.remove(trusted)
    os.remove(common)
    os.remove(common .. ".key")
  end)

  before_each(function() cert, key = trusted_cert, trusted_key end)

  after_each(function()
    if server then server:close() end
    server = nil
  end)

  local function listen(given)
    if not host then pending(reason) end
    given.cert, given.key = cert, key
    server = assert(smtp.server(given))
    return server.port
  end

  -- A server that says its next line whenever it hears one, the first at once; a line may be { bytes, seconds, bytes }.
  local function talker(lines)
    local peer = { lines = lines, accepted = 0, socks = {} }
    local listener = assert(core.listen(core.resolve("127.0.0.1", 0):result()[1]))
    local function say(one)
      one = one or peer.socks[#peer.socks]
      local line = peer.lines[one.at + 1]
      if not line then return end
      one.at = one.at + 1
      if type(line) == "table" and line[2] == 0 then line = line[1] .. line[3] end
      one.sock:write(type(line) == "table" and line[1] or line)
      if type(line) == "table" then
        os.execute("sleep " .. line[2])
        one.sock:write(line[3])
      end
    end
    function peer.step(_, seconds)
      core.wait("read", listener:fd(), core.now() + seconds)
      local sock = listener:accept()
      if sock then
        peer.accepted = peer.accepted + 1
        peer.socks[#peer.socks + 1] = { sock = sock, at = 0 }
        say(peer.socks[#peer.socks])
      end
      for _, one in ipairs(peer.socks) do
        local bytes, why = one.sock:read()
        one.gone = one.gone or why == "closed"
        if bytes and bytes:find "\r\n$" and (one.at ~= 5 or bytes:find "\r\n%.\r\n$") then say(one) end
      end
    end
    peer.say = say
    function peer.left()
      return peer.socks[1].gone or false
    end
    function peer.close()
      for _, one in ipairs(peer.socks) do one.sock:close() end
      listener:close()
    end
    local _, port = listener:name()
    return peer, port
  end

  -- Steps it until something is so.
  local function step_until(peer, holds)
    local late = core.now() + 60
    while not holds() do
      assert(core.now() < late, "it never comes to that")
      peer:step(0.02)
    end
  end

  -- What such a server says to one message.
  local DIALOGUE = { "220 mail.example.org\r\n", "250 mail.example.org\r\n", "250 ok\r\n", "250 ok\r\n", "354 go\r\n", "250 ok\r\n" }

  -- What a send there returns: the error, or the receipt's TLS version and last reply.
  local SEND = [[
    local receipt, err = smtp.send { host = "127.0.0.1", port = %d, from = "ada@example.org", to = "grace@example.org",
      subject = "Hello", text = "It works.\n", timeout = 60, %s }
    if not receipt then return err end
    return receipt.tls and receipt.tls.version or "clear", receipt.reply.code
  ]]

  local function send(phase, port, more)
    return host:run(server, phase, SEND, port, more or "")
  end

  for _, phase in ipairs { "content", "access", "timer" } do
    it("sends from the " .. phase .. " phase, over STARTTLS with login", function()
      local seen = {}
      local port = listen {
        tls = "starttls",
        auth = function(username, password)
          seen[#seen + 1] = username .. " " .. password
          return true
        end,
      }
      assert.are.equal("TLSv1.3\n250", send(phase, port, 'username = "ada", password = "secret"'))
      assert.are.same({ "ada secret" }, seen)
      assert.truthy(server.inbox[1].data:find("It works.\r\n", 1, true))
      assert.truthy(server.inbox[1].tls)
    end)
  end

  it("sends over TLS from the first byte, and in clear when told to", function()
    local port = listen { tls = "implicit" }
    assert.are.equal("TLSv1.3\n250", send("content", port, 'tls = "implicit"'))
    server:close()
    port = listen {}
    assert.are.equal("clear\n250", send("content", port, 'tls = "none"'))
  end)

  it("does what every transport does", function()
    if not host then pending(reason) end
    -- nginx decides on TLS and names, and closes no socket that is being read
    local code = inside("require 'smtp.transport.nginx'",
      "spawn = ngx.thread.spawn, pause = ngx.sleep, lacks = { tls = true, names = true, words = true, waking = true }")
    local report = child.output(host:request("content", "%s", code))
    local _, fine = ("\n" .. report):gsub("\nok ", "")
    assert.is_nil(report:find "not ok", report)
    assert.is_true(fine >= 10, report)
  end)

  it("says where to send from in a phase without sockets", function()
    local port = listen {}
    assert.are.equal("logged", send("log", port, 'tls = "none"'))
    local err = host:run(nil, "content", 'return ngx.shared.kept:get "log"')
    assert.truthy(err:find('no sockets in its phase "log"', 1, true), err)
    assert.truthy(err:find("ngx.timer.at(0", 1, true), err)
    assert.are.equal(0, #server.inbox)
  end)

  it("names the directive where nginx has no name server", function()
    listen {}
    local words = host:run(server, "content", [[
      local _, err = smtp.send { host = "mail.example.test", from = "a@example.org", to = "b@example.org", text = "" }
      return err.kind, err.temporary, err ]])
    assert.truthy(words:find '^resolve\nfalse\n', words)
    assert.truthy(words:find("resolver 127.0.0.1;", 1, true), words)
  end)

  it("says whom it could not reach", function()
    local port = listen {}
    server:close()
    server = nil
    local words = send("content", port, 'tls = "none"')
    assert.truthy(words:find "^connect: 127.0.0.1: connection refused", words)
    words = host:run(nil, "content", [[
      local _, err = smtp.send { path = "/nowhere/at/all", from = "a@example.org", to = "b@example.org", text = "" }
      return err]])
    assert.truthy(words:find "^connect: .*no such file", words)
  end)

  describe("TLS", function()
    it("shows the peer, and verifies names and addresses by subjectAltName", function()
      local port = listen { tls = "implicit" }
      local code = [[
        local session, err = smtp.connect { host = "127.0.0.1", port = %d, tls = "implicit", %s }
        if not session then return err end
        local peer = session.tls.peer
        session:quit()
        return session.tls.cipher ~= "", peer.subject, peer.not_after, table.concat(peer.names, " "), peer.pin
      ]]
      local engine = require "smtp.transport.tls"
      local there = assert(require "smtp.transport.socket".new().connect("127.0.0.1", port, {}, core.now() + 60))
      -- the same, by our own TLS
      local step = there.read
      function there.read(self, deadline)
        server:step(0)
        return step(self, deadline)
      end
      there.receive, there.alone = false, nil
      there.wait = function() server:step(0.01) end
      local peer = assert(engine.wrap(there, { ca_file = cert, server_name = "localhost" }, core.now() + 60)).info.peer
      there:close()
      local expected = table.concat({ "true", peer.subject, peer.not_after, table.concat(peer.names, " "), peer.pin }, "\n")
      assert.are.equal(expected, host:run(server, "content", code, port, ""))
      assert.are.equal(expected, host:run(server, "content", code, port, 'server_name = "localhost"'))
      local words = host:run(server, "content", code, port, 'server_name = "mail.example.org"')
      assert.truthy(words:find("the server's certificate is not for mail.example.org", 1, true)
        or words:find("unable to verify the server's certificate", 1, true), words)
      assert.truthy(words:find("^tls: "), words)
      words = host:run(server, "content", code, port, 'server_name = "127.0.0.2"')
      assert.truthy(words:find("the certificate is for localhost, 127.0.0.1, ::1", 1, true), words)
    end)

    it("takes no common name for a name", function()
      cert, key = common, common .. ".key"
      local port = listen { tls = "implicit" }
      local words = send("content", port, 'tls = "implicit", server_name = "localhost"')
      assert.truthy(words:find("the server's certificate is not for localhost; ", 1, true), words)
      assert.truthy(words:find("names no host at all", 1, true), words)
    end)

    it("heeds pin and tls_min", function()
      local port = listen { tls = "implicit" }
      local words = send("content", port, 'tls = "implicit", pin = ("A"):rep(43) .. "="')
      local pin = words:match "its pin is (%S+);"
      assert.truthy(pin, words)
      assert.are.equal("TLSv1.3\n250", send("content", port, ('tls = "implicit", tls_min = "1.3", pin = %q'):format(pin)))
    end)

    it("goes without forward secrecy nowhere, and says by which directive nginx does not offer that", function()
      if not host then return pending(reason) end
      local rsa = os.tmpname()
      os.execute(("openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -keyout %s.key -out %s 2>/dev/null")
        :format(rsa, rsa))
      local peer = tls_peer.start(rsa, rsa .. ".key", "1.2-static", {})
      local words = send("content", peer.port, 'tls = "implicit", verify = false')
      peer:finish()
      os.remove(rsa)
      os.remove(rsa .. ".key")
      assert.truthy(words:find("the connection would have no forward secrecy: AES", 1, true), words)
      assert.truthy(words:find("lua_ssl_ciphers ECDHE", 1, true), words)
    end)

    it("refuses an authority that nginx does not trust, and says by which directive it would", function()
      cert, key = tls.mint { "localhost", "127.0.0.1", "::1" }
      local port = listen { tls = "starttls" }
      local words = send("content", port)
      assert.truthy(words:find "^tls: ", words)
      assert.truthy(words:find("lua_ssl_trusted_certificate", 1, true), words)
      assert.are.equal(0, #server.inbox)
      -- only when told to
      assert.are.equal("TLSv1.3\n250", send("content", port, "verify = false"))
    end)

    it("says which directive is missing where nginx trusts nobody", function()
      local port = listen { tls = "implicit" }
      local bare = assert(nginx.start(""))
      local words = bare:run(server, "content", SEND, port, 'tls = "implicit"')
      bare:stop()
      assert.truthy(words:find("hint: .*lua_ssl_trusted_certificate /etc/ssl"), words)
      assert.are.equal(0, #server.inbox)
    end)

    it("says that certificates to trust are not given by ca_file", function()
      cert, key = tls.mint { "localhost", "127.0.0.1", "::1" }
      local port = listen { tls = "implicit" }
      local words = send("content", port, 'tls = "implicit", ca_file = "/etc/ssl/certs/ca-certificates.crt"')
      assert.truthy(words:find("lua_ssl_trusted_certificate", 1, true), words)
    end)

    it("ends where replies were injected before it began", function()
      if not host then pending(reason) end
      local greeted = "220 mail.example.org\r\n"
      local offers = "250-mail.example.org\r\n250 STARTTLS\r\n"
      -- with the reply, and behind it
      for _, pause in ipairs { 0, 0.05 } do
        local peer, port = talker { greeted, offers, { "220 go on\r\n", pause, "250 injected\r\n" } }
        local words = host:run(peer, "content", SEND, port, "")
        assert.truthy(words:find "^protocol at starttls: bytes came in clear" or pause > 0 and words:find "^tls: ", words)
        peer:close()
      end
    end)
  end)

  describe("to Postfix and Dovecot", function()
    local function options(more)
      if not host then pending(reason) end
      if not logins then pending(no_mailer) end
      return ('host = "127.0.0.1", from = "ada@example.test", to = "user@example.test", text = "x", timeout = 60, ' .. more)
    end

    local TRACED = [[
      local receipt, err = smtp.send { trace = true, %s }
      return receipt and receipt.message_id or err, receipt and receipt.transcript:match "C: AUTH (%%S+)"
    ]]

    local function deliver(more)
      local output = host:run(nil, "content", TRACED, options(more))
      local id, mechanism = output:match "^(<%S+>)\n(%S+)$"
      assert.truthy(id, output)
      assert.truthy(postfix.wait_for_message(mailer.maildir, id))
      return mechanism
    end

    it("logs in and delivers over STARTTLS and over implicit TLS", function()
      local login = 'username = "user", password = "pass word", port = '
      options ""
      assert.are.equal("SCRAM-SHA-256", deliver(login .. mailer.submission_port))
      assert.are.equal("SCRAM-SHA-256", deliver(login .. mailer.smtps_port .. ', tls = "implicit"'))
      for _, name in ipairs { "SCRAM-SHA-1", "CRAM-MD5", "PLAIN", "LOGIN" } do
        assert.are.equal(name, deliver(("auth = %q, %s%d"):format(name, login, mailer.submission_port)))
      end
    end)

    it("shows a certificate of ours", function()
      options ""
      local ours = ("port = %d, tls = 'implicit', client_cert = %q, client_key = %q, auth = 'EXTERNAL'")
      assert.are.equal("EXTERNAL", deliver(ours:format(logins.submissions_port, logins.client_cert, logins.client_key)))
      local pem = ours:format(logins.submissions_port, child.read(logins.client_cert), child.read(logins.client_key))
      assert.are.equal("EXTERNAL", deliver(pem:gsub("\\\n", "\\n")))
      local words = host:run(nil, "content", TRACED, options(ours:format(logins.submissions_port, "/none", "/none")))
      assert.truthy(words:find("^tls: client_cert: /none: No such file"), words)
    end)
  end)

  describe("OpenSSL", function()
    it("computes what our own does", function()
      if not host then pending(reason) end
      local code = [[
        local tls = require "smtp.tls"
        local out = {}
        local function add(bytes) out[#out + 1] = (bytes:gsub(".", function(c) return ("%%02x"):format(c:byte()) end)) end
        for _, name in ipairs { "md5", "sha1", "sha256", "sha512" } do
          add(tls.hash(name, "")) add(tls.hash(name, "a\0b")) add(tls.hmac(name, "key\0", "text"))
          local derivation = tls.pbkdf2(name, "p\0ass", "salt\0", 4096)
          assert(not derivation:step(4094))
          add(derivation:step(2048))
          add(tls.pbkdf2(name, ("long"):rep(50), "", 1):step(1))
          local hasher = tls.hasher(name)
          for _ = 1, 2 do
            hasher:update "a" hasher:update "\0b"
            add(hasher:finish())
          end
        end
        add(tls.xor("\1\2\255", "\3\2\1"))
        out[#out + 1] = tostring(tls.same("ab", "ab")) .. tostring(tls.same("ab", "ac")) .. tostring(tls.same("ab", "a"))
        return table.concat(out, " ")
      ]]
      local here = assert((loadstring or load)(code:format()))()
      assert.truthy(#here > 1000)
      assert.are.equal(here, host:run(nil, "content", "%s", code:format()))
    end)

    it("signs as our own does", function()
      if not host then pending(reason) end
      local code = [[
        local dkim, source = require "smtp.mail.dkim", require "smtp.mail.source"
        local signatures, why = dkim.new { domain = "example.org", selector = "s", key_file = %q }
        if not signatures then return why end
        local fields = { "From: ada@example.org\r\n", "Subject: Hello\r\n" }
        return table.concat(assert(dkim.fields(signatures, fields, source.string "Hi\r\n", 1528637909)))
      ]]
      local path = os.tmpname()
      for _, kind in ipairs { "rsa -pkeyopt rsa_keygen_bits:2048", "ed25519" } do
        os.execute(("openssl genpkey -algorithm %s -out %s 2>/dev/null"):format(kind, path))
        local here = assert((loadstring or load)(code:format(path)))()
        assert.truthy(here:find("^DKIM%-Signature: .*b=[%w+/]+"), here)
        assert.are.equal(here, (host:run(nil, "content", code, path):gsub("\n$", "") .. "\n"):gsub("\r?\n", "\r\n"), nil)
      end
      for words, make in pairs {
        ["locked with a password"] = "openssl genpkey -algorithm ed25519 -aes256 -pass pass:x", ["neither RSA nor Ed25519"] =
          "openssl genpkey -algorithm ec -pkeyopt ec_paramgen_curve:P-256", ["no PEM private key"] = "echo no",
      } do
        os.execute(("%s >%s 2>/dev/null"):format(make, path))
        local said = host:run(nil, "content", code, path)
        assert.truthy(said:find(words, 1, true), said)
      end
      os.remove(path)
    end)

    it("is there once", function()
      if not host then pending(reason) end
      local port = listen { tls = "implicit" }
      assert.are.equal("TLSv1.3\n250", send("content", port, 'tls = "implicit"'))
      local seen = {}
      for line in child.read("/proc/" .. host:worker() .. "/maps"):gmatch "[^\n]+" do
        local path = line:match "(/%S+)$"
        local library = path and (path:match "libssl" or path:match "libcrypto" or path:match "smtp/%a+%.so")
        if library then
          seen[library] = seen[library] or path
          assert.are.equal(seen[library], path)
        end
      end
      assert.is_nil(seen["smtp/tls.so"])
      assert.truthy(seen.libssl and seen.libcrypto and seen["smtp/core.so"])
    end)
  end)

  it("says that a session is of one request, where another one uses it", function()
    local port = listen {}
    local words = host:run(server, "content", [[
      local session, err = assert(smtp.connect { host = "127.0.0.1", port = %d, tls = "none" }), nil
      ngx.timer.at(0, function() err = select(2, session:noop()) end)
      while not err do ngx.sleep(0.01) end
      return err.kind, err
    ]], port)
    assert.truthy(words:find "^closed\n.*own request only", words)
  end)

  -- One pool for the worker, made at first use.
  local POOL = [[
    package.loaded.pool = package.loaded.pool or assert(smtp.pool { %s })
    local receipt, err = package.loaded.pool:send { from = "ada@example.org", to = "grace@example.org", text = "x" }
    return receipt and receipt.reply.code or err
  ]]
  local FORGET = "local pool = package.loaded.pool package.loaded.pool = nil if pool then pool:close() end return 'ok'"

  describe("a pool", function()
    after_each(function()
      if host then host:run(server, "content", FORGET) end
    end)

    local function pooled(port, more)
      return ('host = "127.0.0.1", port = %d, username = "ada", password = "x", timeout = 60, %s'):format(port, more or "")
    end

    it("keeps its connections from one request to the next", function()
      local count = 0
      local port = listen { tls = "starttls", auth = function()
        count = count + 1
        return true
      end }
      for _, phase in ipairs { "content", "access", "timer", "content" } do
        assert.are.equal("250", host:run(server, phase, POOL, pooled(port)))
      end
      assert.are.equal(4, #server.inbox)
      assert.are.equal(1, count)
      assert.are.equal("ok", host:run(server, "content", FORGET))
      server:step(0.1)
      assert.are.equal(0, #server.connections)
    end)

    it("sends many over connections side by side, and says goodbye on all at once", function()
      local slow = away.start("none", 0.05)
      local words = host:run(server, "content", [[
        local pool = assert(smtp.pool { host = "127.0.0.1", port = %d, tls = "none", size = 4 })
        local left, sent, most = 12, 0, 0
        assert(pool:send_many(function()
          left = left - 1
          if left >= 0 then return { from = "ada@example.org", to = "grace@example.test", subject = "x", text = "x" } end
        end, function(receipt, err)
          assert(receipt, err)
          sent, most = sent + 1, math.max(most, pool:counts().open)
        end))
        local ok, reason = pcall(pool.send_many, pool, function() error("no more", 0) end, print)
        pool:close()
        return sent, most, pool:counts().open, ok, reason
      ]], slow.port)
      local messages = #slow:messages()
      slow:stop()
      assert.are.equal("12\n4\n0\nfalse\nno more", words)
      assert.are.equal(12, messages)
    end)

    it("takes a new connection where the server has left, and no message is lost or sent twice", function()
      local port = listen { auth = function() return true end }
      local more = pooled(port, 'tls = "none", allow_insecure_auth = true')
      assert.are.equal("250", host:run(server, "content", POOL, more))
      for i = 2, 4 do
        for _, connection in ipairs(server.connections) do connection:close() end
        server.connections = {}
        assert.are.equal("250", host:run(server, "content", POOL, more))
        assert.are.equal(i, #server.inbox)
      end
    end)

    it("gets back the connection of a request that was aborted", function()
      if not host then pending(reason) end
      local peer, port = talker { "220 mail.example.org\r\n" } -- and no more
      local more = ('host = "127.0.0.1", port = %d, tls = "none", size = 1'):format(port)
      local browser = child.start(host:request("abort", POOL, more))
      step_until(peer, function() return peer.accepted == 1 end)
      os.execute("kill " .. browser)
      step_until(peer, function() return peer.left() end)
      -- its successor has to wait for the collector; it gets a connection, and a server that works
      peer.lines = DIALOGUE
      assert.are.equal("250", host:run(peer, "content", POOL, more))
      assert.are.equal(2, peer.accepted)
    end)
  end)

  it("serves others while a mail waits", function()
    if not host then pending(reason) end
    local peer, port = talker {} -- says nothing
    local out = os.tmpname()
    os.execute(("(%s >%s; echo over >>%s) 2>/dev/null </dev/null &"):format(host:request("content", SEND, port, 'tls = "none"'),
      out, out))
    step_until(peer, function() return peer.accepted == 1 end)
    local hello = host:request("content", "return 'hello'"):gsub("(/content)$", "%1?[1-100]")
    hello = hello:gsub("http://%S+", "'%0'")
    local _, output = child.beside(hello, nil)
    assert.are.equal(("hello\n"):rep(100), output)
    assert.are.equal("", child.read(out)) -- the mail still waits
    peer:close()
    child.says(out, "over")
    assert.truthy(child.read(out):find "the server closed the connection" or child.read(out):find "closed", child.read(out))
    os.remove(out)
  end)

  it("ends what it has begun when nginx is reloaded", function()
    if not host then pending(reason) end
    local peer, port = talker {}
    local out = os.tmpname()
    os.execute(("(%s >%s; echo over >>%s) 2>/dev/null </dev/null &"):format(host:request("content", SEND, port, 'tls = "none"'),
      out, out))
    step_until(peer, function() return peer.accepted == 1 end)
    local worker = host:worker()
    host:reload()
    step_until(peer, function() return host:worker() ~= worker end)
    peer.lines = DIALOGUE
    peer.say()
    step_until(peer, function() return child.read(out):find "over" end)
    peer:close()
    assert.are.equal("clear\n250\nover\n", child.read(out))
    os.remove(out)
  end)

  it("neither leaks descriptors nor memory", function()
    local count = 0
    local port = listen { auth = function()
      count = count + 1
      return true
    end }
    local login = ('host = "127.0.0.1", port = %d, tls = "none", username = "ada", password = "x", '):format(port)
      .. "allow_insecure_auth = true"
    local function many(code)
      local command = host:request("content", code):gsub("(/content)$", "%1?[1-500]"):gsub("http://%S+", "'%0'")
      local _, output = child.beside(command .. " -Z --parallel-max 4", server)
      local _, fine = output:gsub("250\n", "")
      assert.are.equal(500, fine, output:sub(1, 1000))
      server.inbox = {}
    end
    local pool = POOL:format(login)
    local alone = ([[
      local receipt, err = smtp.send { from = "ada@example.org", to = "grace@example.org", text = "x", %s }
      return receipt and receipt.reply.code or err
    ]]):format(login)
    local worker = "/proc/" .. host:worker()
    local function descriptors() return tonumber(child.output("ls " .. worker .. "/fd | wc -l")) end
    local function memory() return tonumber(child.read(worker .. "/status"):match "VmRSS:%s+(%d+)") end
    many(alone)
    many(pool)
    local open, before = descriptors(), memory()
    count = 0
    many(pool)
    assert.truthy(count < 10, count)
    many(alone)
    step_until(server, function() return descriptors() <= open + 4 end) -- the client's own
    -- what leaks grows each time
    local grown = memory() - before
    for _ = 1, 3 do
      if grown < 1024 then break end
      before = memory()
      many(pool)
      many(alone)
      grown = memory() - before
    end
    assert.truthy(grown < 1024, ("%d KB more each time"):format(grown))
    host:run(server, "content", FORGET)
  end)

  it("has an example: a contact form", function()
    local port = listen { tls = "starttls", auth = function(_, password) return password == "secret" end }
    local form = assert(nginx.example(trusted, ("SMTP_URL=smtp://ada:secret@127.0.0.1:%d SMTP_NAME=localhost ")
      :format(port) .. "FROM=web@example.org TO=you@example.org"))
    local function post(fields)
      local words = {}
      for name, value in pairs(fields) do words[#words + 1] = ("--data-urlencode '%s=%s'"):format(name, value) end
      local _, page = child.beside(("curl -s -w '%%{http_code}' %s http://127.0.0.1:%d/send"):format(table.concat(words, " "),
        form.port), server)
      return page
    end
    local empty = post { name = "Grace", address = "grace@example.org", message = " " }
    local wrong = post { name = "Grace", address = "not an address", message = "<b>" }
    local sent = post { name = 'Grace "<i>" ✉\r\nBcc: x@example.org', address = "grace@example.org", message = "Hello.\n.\n" }
    local often = post { name = "Grace", address = "grace@example.org", message = "Again." }
    local large = post { name = "Grace", address = "grace@example.org", message = ("x"):rep(70000) }
    local seen = post { name = "Grace", address = "grace@example.org", message = "</textarea><b>" }
    form:stop()
    assert.truthy(empty:find "Please fill in all three fields.*400$", empty)
    assert.truthy(wrong:find "Please check your address.*&lt;b&gt;.*400$", wrong)
    assert.truthy(sent:find "Thank you.*200$", sent)
    -- pages of its own, which keep what was written
    assert.truthy(often:find "You have sent several messages just now.*value=\"Grace\".*>Again.</textarea>.*</html>\n429$", often)
    assert.truthy(seen:find ">&lt;/textarea&gt;&lt;b&gt;</textarea>.*429$", seen)
    assert.truthy(large:find "Your message is too long.*</html>\n413$", large)
    assert.are.equal(1, #server.inbox)
    assert.are.same({ "you@example.org" }, server.inbox[1].to)
    assert.truthy(server.inbox[1].data:find "\r\nReply%-To: [^\r]*\r\n <grace@example.org>\r\n", server.inbox[1].data)
    assert.is_nil(server.inbox[1].data:find "\nBcc:")
  end)

  it("has an example that a person can use, in a browser", function()
    if os.execute "command -v chromium node >/dev/null" ~= true then
      return pending "NO CHROMIUM, OR NO NODE (spec/support/install.sh test installs chromium and nodejs)"
    end
    local port = listen { tls = "starttls", auth = function(_, password) return password == "secret" end }
    local form = assert(nginx.example(trusted, ("SMTP_URL=smtp://ada:secret@127.0.0.1:%d SMTP_NAME=localhost ")
      :format(port) .. "FROM=web@example.org TO=you@example.org"))
    local folder = os.tmpname()
    os.execute(("rm %s && mkdir %s"):format(folder, folder))
    local _, words = child.beside(([[node spec/support/fill_form.js http://127.0.0.1:%d/ %s '{"name": "Grace ✉",
      "address": "grace@example.org", "message": "Hello.\n.\n<b>Bye."}']]):format(form.port, folder), server)
    local picture = child.read(folder .. "/page.png")
    os.execute("rm -rf " .. folder)
    form:stop()
    assert.truthy(words:find "Write to us.*Thank you, your message is on its way", words)
    assert.truthy(picture:find "^\137PNG")
    assert.are.equal(1, #server.inbox)
    assert.truthy(server.inbox[1].data:find("\r\n\r\nHello.\r\n.\r\n<b>Bye.\r\n", 1, true), server.inbox[1].data)
  end)

  it("leaves nothing in nginx's error log but what went wrong", function()
    if not host then pending(reason) end
    for line in host:log():gmatch "[^\n]+" do
      assert.truthy(line:find "Connection refused" or line:find "No such file" or line:find "certificate"
        or line:find "SSL_do_handshake" or line:find "timed out" or line:find "reset by peer", line)
    end
  end)
end)
