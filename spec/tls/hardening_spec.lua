-- What a server may do inside TLS that an ordinary one does not, at every point of the dialogue.
-- Of: tls/mint
local smtp = require "smtp"
local tls = require "smtp.tls"
local child = require "spec.support.child"
local tls_peer = require "spec.support.tls_peer"

local unpack = table.unpack or unpack

local cert, key = tls.mint { "localhost", "127.0.0.1" }
local cert_file, key_file

-- Every byte a server says in one delivery, and what it waits for in between.
local DIALOGUE = {
  "say 220 mail.example.org\\r\\n", "hear \\r\\n", "say 250-mail.example.org\\r\\n250 PIPELINING\\r\\n", "hear DATA\\r\\n",
  "say 250 2.1.0 ok\\r\\n", "say 250 2.1.5 ok\\r\\n", "say 354 go\\r\\n", "hear \\r\\n.\\r\\n", "say 250 2.0.0 queued\\r\\n",
}

-- What came of smtp.send to a server that makes these moves.
local function send(version, moves)
  local server = tls_peer.start(cert_file, key_file, version, moves)
  local receipt, err = smtp.send {
    host = "127.0.0.1", port = server.port, tls = "implicit", ca_file = cert, from = "ada@example.org", to = "grace@example.org",
    text = "hi", helo = "client.example.org", timeout = 60,
  }
  local printed = server:finish()
  return receipt, err, printed
end

-- X509_V_ERR_ numbers by which a server refuses a client's certificate, and how the alert for each is called.
local REFUSALS = {
  [10] = "certificate expired", [18] = "unknown ca", [23] = "certificate revoked", [28] = "bad certificate",
  [26] = "unsupported certificate", [50] = "handshake failure",
}

describe("a TLS server", function()
  setup(function() cert_file, key_file = child.keep(cert), child.keep(key) end)

  teardown(function()
    os.remove(cert_file)
    os.remove(key_file)
  end)

  for _, version in ipairs { "1.2", "1.3" } do
    it("of version " .. version .. " may put each byte in a record of its own", function()
      local moves = {}
      for i, move in ipairs(DIALOGUE) do moves[i] = move:gsub("^say", "drip") end
      moves[#moves + 1] = "drip 221 bye\\r\\n"
      moves[#moves + 1] = "bye"
      local receipt, err, printed = send(version, moves)
      assert.are.equal("", printed)
      assert.are.equal("2.0.0", assert(receipt, err).reply.enhanced)
    end)
  end

  it("may change its keys, and give session tickets, within a reply", function()
    local moves = {}
    for _, move in ipairs(DIALOGUE) do
      local verb, text = move:match("^(%a+) (.*)$")
      if verb == "say" then
        for _, part in ipairs { "say " .. text:sub(1, 2), "update", "say " .. text:sub(3, 4), "ticket", "say " .. text:sub(5) } do
          moves[#moves + 1] = part
        end
      else
        moves[#moves + 1] = move
      end
    end
    local receipt, err, printed = send("1.3", moves)
    assert.are.equal("", printed)
    assert.are.equal("2.0.0", assert(receipt, err).reply.enhanced)
  end)

  -- Cut off without close_notify behind each thing it says: somebody in between may have done it.
  for count = 0, #DIALOGUE - 1 do
    it("may cut the connection after: " .. (DIALOGUE[count] or "nothing"), function()
      local moves = { unpack(DIALOGUE, 1, count) }
      moves[#moves + 1] = "cut"
      local receipt, err, printed = send("1.3", moves)
      assert.are.equal("", printed)
      assert.is_nil(receipt)
      assert.are.equal("closed", err.kind)
      -- a short message is written with its end right behind the 354: the cut may not be seen before
      local written = count >= #DIALOGUE - 2
      assert.are.equal(written and "unknown" or "not_sent", err.outcome)
    end)
  end

  for _, version in ipairs { "1.2", "1.3" } do
    it(("of version %s may cut its last reply, which then does not count"):format(version), function()
      local moves = { unpack(DIALOGUE, 1, #DIALOGUE - 1) }
      moves[#moves + 1] = "say 250 2.0.0 queued"
      moves[#moves + 1] = "cut"
      local receipt, err = send(version, moves)
      assert.is_nil(receipt)
      assert.are.equal("closed", err.kind)
      assert.are.equal("unknown", err.outcome)
      assert.is_truthy(err.reason:find("without TLS close_notify", 1, true), err.reason)
    end)
  end

  -- Shows behind a handshake that the client took for good: in what it reads, or what it writes first.
  for _, mode in ipairs { "implicit", "starttls" } do
    local function refused(version, number, with_certificate)
      local moves = { "ask " .. number }
      if mode == "starttls" then table.insert(moves, 1, "starttls") end
      local server = tls_peer.start(cert_file, key_file, version, moves)
      local receipt, err = smtp.send {
        host = "127.0.0.1", port = server.port, tls = mode, ca_file = cert, from = "ada@example.org", to = "grace@example.org",
        client_cert = with_certificate and cert or nil, client_key = with_certificate and key or nil,
        text = "hi", helo = "client.example.org", timeout = 60,
      }
      server:finish()
      assert.is_nil(receipt)
      return { err.kind, err.outcome, err.temporary, err.reason, err.hint }
    end

    for _, version in ipairs { "1.2", "1.3" } do
      it(("of version %s (%s) may want a client certificate, and says so"):format(version, mode), function()
        assert.are.same({ "tls", "not_sent", false, "the server wants a client certificate", "set client_cert and client_key" },
          refused(version, 0))
        assert.are.same({ "tls", "not_sent", false, "the server wants a client certificate", "it takes none of the kind that client_cert is of" },
          refused(version, "0 RSA+SHA256:RSA-PSS+SHA256", true))
      end)

      it(("of version %s (%s) may refuse a client's certificate, and says why"):format(version, mode), function()
        local how = version == "1.2" and "the server refused the TLS handshake: " or "the server ended TLS: "
        for number, alert in pairs(REFUSALS) do
          assert.are.same({ "tls", "not_sent", false, how .. alert,
            alert ~= "handshake failure" and "the server does not accept the certificate in client_cert" or nil },
            refused(version, number, true))
        end
      end)
    end
  end

  it("may cut the connection behind its last reply: the message is the server's", function()
    local moves = { unpack(DIALOGUE) }
    moves[#moves + 1] = "cut"
    local receipt, err = send("1.3", moves)
    assert.are.equal("2.0.0", assert(receipt, err).reply.enhanced)
  end)

  describe("of TLS 1.2 without forward secrecy", function()
    local rsa_cert, rsa_key

    setup(function()
      rsa_cert, rsa_key = child.keep "", child.keep ""
      child.output(("openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1"
        .. " -keyout %s -out %s"):format(rsa_key, rsa_cert))
    end)

    teardown(function()
      os.remove(rsa_cert)
      os.remove(rsa_key)
    end)

    it("is all that a system's configuration allows: that is told, and does not matter to TLS 1.3", function()
      local config = child.keep("openssl_conf = conf\n[conf]\nssl_conf = ssl\n[ssl]\nsystem_default = all\n[all]\nCipherString = kRSA\n")
      local output = child.run([[
        local smtp = require "smtp"
        local together = require "spec.support.together"
        local server = assert(smtp.server { tls = "none" })
        for _, min in ipairs { "1.2", "1.3" } do
          local context, reason, hint = require "smtp.tls".context { verify = false, min = min }
          print(min, context and "made", reason, hint)
        end
        print(select(2, smtp.connect { host = "127.0.0.1", port = server.port, tls = "implicit", tls_min = "1.2", timeout = 5 }))
      ]], "OPENSSL_CONF=" .. config)
      os.remove(config)
      local words = "this system's configuration of OpenSSL allows no cipher suite of TLS 1.2 with forward secrecy"
      local hint = 'use tls_min = "1.3", or let CipherString in openssl.cnf allow ECDHE'
      assert.are.equal(("1.2\tnil\t%s\t%s\n1.3\tmade\tnil\tnil\n"):format(words, hint), output:match("^.-\n.-\n"))
      assert.is_truthy(output:find("tls: " .. words, 1, true), output)
    end)

    it("is told no cipher suite, and given nothing", function()
      local server = tls_peer.start(rsa_cert, rsa_key, "1.2-static", {})
      local receipt, err = smtp.send {
        host = "127.0.0.1", port = server.port, tls = "implicit", ca_file = rsa_cert, from = "ada@example.org",
        to = "grace@example.org", text = "hi", helo = "client.example.org", timeout = 60,
      }
      server:finish()
      assert.are.same({ nil, "tls", "not_sent" }, { receipt, err.kind, err.outcome })
      assert.are.equal("the server refused the TLS handshake: handshake failure", err.reason)
      assert.matches("forward secrecy", err.hint)
      -- RFC 9325 4.2: what a client says is (besides TLS 1.3's) ECDHE_ or DHE_, whose names OpenSSL knows
      local engine = assert(tls.context { verify = false }):engine()
      engine:handshake()
      local hello = engine:take()
      local at = 5 + 4 + 2 + 32 + 1 + hello:byte(5 + 4 + 2 + 32 + 1)
      local length = hello:byte(at + 1) * 256 + hello:byte(at + 2)
      local known = child.output "openssl ciphers -V 'ALL:COMPLEMENTOFALL'"
      local count = 0
      for i = at + 3, at + 1 + length, 2 do
        local code = ("0x%02X,0x%02X"):format(hello:byte(i, i + 1))
        local name = known:match(code .. " %- (%S+)") or code
        assert.is_truthy(name:find "^TLS_" or name:find "^E?C?DHE%-" or code == "0x00,0xFF", name)
        count = count + 1
      end
      assert.is_true(count > 5)
    end)

    it("is no server of ours", function()
      local server = assert(smtp.server { tls = "implicit", cert = child.read(rsa_cert), key = child.read(rsa_key) })
      local function greeting(ciphers)
        local _, output = child.beside(("openssl s_client -connect 127.0.0.1:%d -tls1_2 -cipher %s@SECLEVEL=0 -brief"):format(
          server.port, ciphers), server)
        return output
      end
      assert.matches("handshake failure", greeting "kRSA")
      assert.matches("ECDHE%-RSA%-AES128%-GCM%-SHA256", greeting "ECDHE-RSA-AES128-GCM-SHA256")
      server:close()
    end)
  end)
end)
