-- Logins at servers nobody here wrote #real: Dovecot, Cyrus SASL, libgsasl.
local child = require "spec.support.child"
local dovecot = require "spec.support.dovecot"
local postfix = require "spec.support.postfix"
local scram_plus = require "spec.support.daemon" "scram_plus"
local smtp = require "smtp"

local SCRAM = { "SCRAM-SHA-256", "SCRAM-SHA-1" }
local USERS = { user = "pass word", ["user2@example.test"] = "p\195\164ssw\195\182rd" }

local function with(base, more)
  local all = { timeout = 60, trace = true }
  for _, part in ipairs { base, more } do
    for name, value in pairs(part) do all[name] = value end
  end
  return all
end

-- The mechanism of the last login in a transcript.
local function mechanism(transcript)
  return transcript:match(".*\nC: AUTH (%S+)")
end

local function assert_in(options, wanted)
  local session, err = smtp.connect(options)
  assert.is_nil(err, tostring(err) .. "\n" .. tostring(err and err.transcript))
  assert.are.equal(wanted, mechanism(session.trace.transcript()))
  assert(session:quit())
end

-- Refused by the server itself, and the secret not told.
local function assert_refused(options, text)
  local session, err = smtp.connect(options)
  assert.is_nil(session)
  assert.are.same({ "auth", "auth", "not_sent", 535, false },
    { err.kind, err.stage, err.outcome, err.code, err.temporary }, tostring(err))
  assert.is_truthy(not text or err.text:find(text, 1, true), err.text)
  local secret = options.password or options.token
  assert.is_nil(type(secret) == "string" and (tostring(err) .. err.transcript):find(secret, 1, true) or nil)
  return err
end

describe("Postfix #real", function()
  local server, reason
  setup(function() server, reason = postfix.start() end)
  teardown(postfix.stop)

  for _, case in ipairs {
    { "with Dovecot's SASL", "smtps_port", { "SCRAM-SHA-256", "SCRAM-SHA-1", "CRAM-MD5", "PLAIN", "LOGIN" } },
    { "with Cyrus SASL", "cyrus_port", { "SCRAM-SHA-256", "SCRAM-SHA-1", "CRAM-MD5", "PLAIN", "LOGIN" } },
  } do
    describe(case[1], function()
      local function options(more)
        if not server then pending(reason) end
        local port = tonumber(server[case[2]])
        if not port then pending "NO CYRUS SASL: sasl2-bin is not installed (spec/support/install.sh test installs it)" end
        return with({ host = "localhost", port = port, tls = "implicit", ca_file = server.ca_file }, more)
      end

      for _, name in ipairs(case[3]) do
        it("takes " .. name, function()
          for username, password in pairs(USERS) do
            assert_in(options { username = username, password = password, auth = name }, name)
          end
        end)

        it("refuses a wrong password by " .. name, function()
          assert_refused(options { username = "user", password = "canary-password", auth = name })
        end)
      end

      it("is asked for the strongest it has", function()
        assert_in(options { username = "user", password = "pass word" }, "SCRAM-SHA-256")
      end)

      it("refuses somebody it does not know", function()
        assert_refused(options { username = "nobody", password = "canary-password" })
      end)
    end)
  end
end)

describe("Dovecot submission #real", function()
  local relay, server, reason
  setup(function()
    relay, reason = postfix.start()
    if relay then server, reason = dovecot.start(relay.plain_port) end
  end)
  teardown(function()
    dovecot.stop()
    postfix.stop()
  end)

  -- From the address it listens on it offers AUTH without TLS too.
  local function options(more)
    if not server then pending(reason) end
    return with({ host = "127.0.0.1", bind = "127.0.0.2", port = server.port, ca_file = server.ca_file }, more)
  end

  for _, name in ipairs { "SCRAM-SHA-256", "SCRAM-SHA-1", "CRAM-MD5", "PLAIN", "LOGIN" } do
    it("takes " .. name .. ", and refuses a wrong password by it", function()
      for username, password in pairs(USERS) do
        assert_in(options { username = username, password = password, auth = name }, name)
      end
      assert_refused(options { username = "user", password = "canary-password", auth = name })
    end)
  end

  it("takes a message after a login by SCRAM, and hands it on", function()
    local receipt = assert(smtp.send(options {
      username = "user", password = "pass word", from = "ada@example.test", to = "user@example.test", text = "through SCRAM",
    }))
    assert.are.equal("SCRAM-SHA-256", mechanism(receipt.transcript))
    assert.truthy(postfix.wait_for_message(relay.maildir, receipt.message_id))
  end)

  it("offers no login before TLS, and is told nothing", function()
    local session, err = smtp.connect(options { tls = "none", username = "user", password = "pass word" })
    assert.is_nil(session)
    assert.are.equal("insecure", err.kind)
    assert.is_nil(err.transcript:find("C: AUTH", 1, true))
  end)

  for _, name in ipairs { "OAUTHBEARER", "XOAUTH2" } do
    it("takes a token by " .. name, function()
      local token = server and dovecot.token(server.token_key, 300)
      assert_in(options { username = "user", token = token, auth = name }, name)
      -- longer than a command may be
      assert_in(options { username = "user", token = dovecot.token(server.token_key, 300, 2000), auth = name }, name)
    end)

    it("refuses by " .. name .. " a token that ran out, is forged or is no token, and says why", function()
      if not server then pending(reason) end
      local expired, forged = dovecot.token(server.token_key, -60), dovecot.token(("x"):rep(32), 300)
      for _, token in ipairs { expired, forged, "canary-token" } do
        assert_refused(options { username = "user", token = token, auth = name }, '"status":"')
      end
      -- another's token
      assert_refused(options { username = "user2@example.test", token = dovecot.token(server.token_key, 300), auth = name })
    end)

    it("gets a new token by " .. name .. " where the old one ran out", function()
      local asked = 0
      local function token()
        asked = asked + 1
        return dovecot.token(server.token_key, asked == 1 and -60 or 300)
      end
      assert_in(options { username = "user", token = token, auth = name }, name)
      assert.are.equal(2, asked)
    end)
  end

  it("is asked for OAUTHBEARER before XOAUTH2", function()
    assert_in(options { username = "user", token = server and dovecot.token(server.token_key, 300) }, "OAUTHBEARER")
  end)

  it("knows us by our certificate", function()
    if not server then pending(reason) end
    local certificate = { client_cert = server.client_cert, client_key = server.client_key }
    assert_in(options(with(certificate, { auth = "external" })), "EXTERNAL")
    assert_in(options(with(certificate, { username = "user" })), "EXTERNAL")
    assert_in(options(with(certificate, { tls_min = "1.3", auth = "EXTERNAL" })), "EXTERNAL")
    assert_in(options(with(certificate, { username = "user", password = "pass word" })), "SCRAM-SHA-256")
    assert_refused(options { auth = "EXTERNAL" })
  end)
end)

for version, kind in pairs { ["1.3"] = "tls-exporter", ["1.2"] = "tls-exporter", ["1.2-old"] = "tls-server-end-point" } do
  describe(("SCRAM bound to TLS %s by %s #real"):format(version, kind), function()
    local server, reason
    setup(function() server, reason = scram_plus.start(version) end)
    teardown(scram_plus.stop)

    local function options(more)
      if not server then pending(reason) end
      return with({ host = "localhost", port = server.port, ca_file = server.ca_file, username = "user", password = "pass word" },
        more)
    end

    local function pretend(name, run)
      local file = assert(io.open(server.dir .. "/" .. name, "w"))
      file:close()
      run()
      os.remove(server.dir .. "/" .. name)
    end

    it("lets us in, unasked", function()
      assert_in(options {}, "SCRAM-SHA-256-PLUS")
      local said = child.read(server.dir .. "/log")
      assert.truthy(said:find("SCRAM-SHA-256-PLUS TLSv" .. version:match("^[%d.]+") .. " in\n", 1, true), said)
    end)

    it("refuses a wrong password", function()
      assert_refused(options { password = "canary-password" })
    end)

    it("refuses us where somebody sits in between", function()
      local all = options {}
      pretend("lie", function() assert_refused(all) end)
      assert_in(all, "SCRAM-SHA-256-PLUS")
    end)

    if kind == "tls-exporter" then
      it("refuses us where somebody took the offer away, and takes us unbound where we ask for that", function()
        local all = options {}
        pretend("strip", function() assert_refused(all) end)
        assert_in(options { auth = SCRAM }, "SCRAM-SHA-256")
      end)
    end
  end)
end
