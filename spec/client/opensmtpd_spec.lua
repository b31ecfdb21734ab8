-- A real server whose TLS fails behind a good reply to STARTTLS, and which knows no PIPELINING.
local child = require "spec.support.child"
local smtp = require "smtp"

describe("OpenSMTPD #real", function()
  local dir, port, ca_file, reason

  setup(function()
    dir = os.tmpname()
    os.remove(dir)
    os.execute(("env -u LD_PRELOAD bash spec/support/opensmtpd.sh start %s >%s.log 2>&1 </dev/null"):format(dir, dir))
    reason = child.read(dir .. ".log")
    port, ca_file = tonumber(reason:match("PORT=(%d+)")), reason:match("CA_FILE=([^\n]+)")
  end)

  teardown(function()
    os.execute(("bash spec/support/opensmtpd.sh stop %s; rm -rf %s %s.log"):format(dir, dir, dir))
  end)

  local function options(more)
    if not port then pending("NO OPENSMTPD: " .. reason) end
    local all = { host = "127.0.0.1", port = port, ca_file = ca_file, from = "ada@example.org", to = "root@example.org",
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
