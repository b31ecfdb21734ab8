-- The transport inside a real nginx #real: to a server of ours and to a Postfix.
local child = require "spec.support.child"
local core = require "smtp.core"
local nginx = require "spec.support.nginx"
local postfix = require "spec.support.postfix"
local smtp = require "smtp"
local tls = require "smtp.tls"

describe("nginx #real", function()
  local host, reason, mailer, no_mailer, cert, key, trusted, trusted_cert, trusted_key
  local server

  setup(function()
    trusted_cert, trusted_key = tls.mint { "localhost", "127.0.0.1" }
    mailer, no_mailer = postfix.start()
    trusted = child.keep(trusted_cert .. (mailer and child.read(mailer.ca_file) or ""))
    host, reason = nginx.start("lua_ssl_protocols TLSv1.2 TLSv1.3; lua_ssl_trusted_certificate " .. trusted .. ";")
  end)

  teardown(function()
    if host then host:stop() end
    postfix.stop()
    os.remove(trusted)
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

  -- What a send there returns: the error, or the receipt's TLS version and last reply.
  local SEND = [[
    local receipt, err = smtp.send { host = "127.0.0.1", port = %d, from = "ada@example.org", to = "grace@example.org",
      subject = "Hello", text = "It works.\n", timeout = 20, %s }
    if not receipt then return err end
    return receipt.tls and receipt.tls.version or "clear", receipt.reply.code
  ]]

  local function send(phase, port, more)
    return host:run(server, phase, SEND, port, more or "")
  end

  for _, phase in ipairs { "content", "access", "timer" } do
    it("sends from the " .. phase .. " phase, over STARTTLS with login", function()
      local logins = {}
      local port = listen {
        tls = "starttls",
        auth = function(username, password)
          logins[#logins + 1] = username .. " " .. password
          return true
        end,
      }
      assert.are.equal("TLSv1.3\n250", send(phase, port, 'username = "ada", password = "secret"'))
      assert.are.same({ "ada secret" }, logins)
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
      local there = assert(require "smtp.transport.socket".new().connect("127.0.0.1", port, {}, core.now() + 5))
      -- the same, by our own TLS
      local step = there.read
      function there.read(self, deadline)
        server:step(0)
        return step(self, deadline)
      end
      there.receive = nil
      there.wait = function() server:step(0.01) end
      local peer = assert(engine.wrap(there, { ca_file = cert, server_name = "localhost" }, core.now() + 5)).info.peer
      there:close()
      local expected = table.concat({ "true", peer.subject, peer.not_after, table.concat(peer.names, " "), peer.pin }, "\n")
      assert.are.equal(expected, host:run(server, "content", code, port, ""))
      assert.are.equal(expected, host:run(server, "content", code, port, 'server_name = "localhost"'))
      local words = host:run(server, "content", code, port, 'server_name = "mail.example.org"')
      assert.truthy(words:find("tls: the server's certificate is not for mail.example.org", 1, true), words)
      words = host:run(server, "content", code, port, 'server_name = "127.0.0.2"')
      assert.truthy(words:find("the certificate is for localhost, 127.0.0.1", 1, true), words)
    end)

    it("heeds pin and tls_min", function()
      local port = listen { tls = "implicit" }
      local words = send("content", port, 'tls = "implicit", pin = ("A"):rep(43) .. "="')
      local pin = words:match "its pin is (%S+);"
      assert.truthy(pin, words)
      assert.are.equal("TLSv1.3\n250", send("content", port, ('tls = "implicit", tls_min = "1.3", pin = %q'):format(pin)))
    end)

    it("refuses an authority that nginx does not trust, and says by which directive it would", function()
      cert, key = tls.mint { "localhost", "127.0.0.1" }
      local port = listen { tls = "starttls" }
      local words = send("content", port)
      assert.truthy(words:find "^tls: ", words)
      assert.truthy(words:find("lua_ssl_trusted_certificate", 1, true), words)
      assert.are.equal(0, #server.inbox)
      -- only when told to
      assert.are.equal("TLSv1.3\n250", send("content", port, "verify = false"))
    end)

    it("says that certificates to trust are not given by ca_file", function()
      cert, key = tls.mint { "localhost", "127.0.0.1" }
      local port = listen { tls = "implicit" }
      local words = send("content", port, 'tls = "implicit", ca_file = "/etc/ssl/certs/ca-certificates.crt"')
      assert.truthy(words:find("lua_ssl_trusted_certificate", 1, true), words)
    end)
  end)
end)
