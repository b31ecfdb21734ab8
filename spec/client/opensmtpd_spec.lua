-- A real server whose TLS fails behind a good reply to STARTTLS, and which knows no PIPELINING.
local child = require "spec.support.child"
local opensmtpd = require "spec.support.daemon" "opensmtpd"
local smtp = require "smtp"

describe("OpenSMTPD #real", function()
  local server, reason

  setup(function() server, reason = opensmtpd.start() end)
  teardown(opensmtpd.stop)

  local function options(more)
    if not server then pending(reason) end
    local all = { host = "127.0.0.1", port = server.port, ca_file = server.ca_file, from = "ada@example.org", to = "root@example.org",
      subject = "s", text = "canary", trace = true, timeout = 60 }
    for name, value in pairs(more or {}) do all[name] = value end
    return all
  end

  for _, mode in ipairs { "starttls", "opportunistic" } do
    it("whose handshake fails gets neither message nor login in clear: " .. mode, function()
      local version = child.output "build/opensmtpd/usr/sbin/smtpd -h 2>&1":match "OpenSMTPD (%S+)"
      if version and not version:find "^6%." then pending("the TLS of OpenSMTPD " .. version .. " works") end
      local receipt, err = smtp.send(options { tls = mode, username = "ada", password = "kumquat" })
      assert.is_nil(receipt)
      assert.are.same({ "tls", "tls", "not_sent" }, { err.kind, err.stage, err.outcome })
      assert.is_truthy(err.reason:find("internal error", 1, true), err.reason)
      for _, word in ipairs { "MAIL", "AUTH ", "kumquat", "canary" } do
        assert.is_nil(err.transcript:find("C: " .. word, 1, true), err.transcript)
      end
    end)
  end

  it("takes a message one command at a time where no TLS is asked for", function()
    local receipt = assert(smtp.send(options { tls = "none" }))
    assert.are.same({ "root@example.org" }, receipt.accepted)
    assert.are.equal(7, receipt.round_trips) -- connect, greeting, EHLO, MAIL, RCPT, DATA, content
  end)
end)
