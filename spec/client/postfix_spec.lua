-- Delivery through a real Postfix with Dovecot SASL #real: what lies in the maildir is compared byte for byte.
local smtp = require "smtp"
local postfix = require "spec.support.postfix"

local BYTES = {}
for i = 0, 255 do BYTES[i + 1] = string.char(i) end
BYTES = table.concat(BYTES)

describe("Postfix #real", function()
  local server, reason

  setup(function() server, reason = postfix.start() end)
  teardown(function() postfix.stop() end)

  -- The server options of a login over STARTTLS, and what a test adds or replaces.
  local function options(more)
    local all = {
      host = "localhost", port = server.submission_port, ca_file = server.ca_file, username = "user",
      password = "pass word", from = "Ada <ada@example.test>", to = "user@example.test", timeout = 60,
    }
    for name, value in pairs(more or {}) do all[name] = value end
    return all
  end

  local function need()
    if not server then pending(reason) end
    return server
  end

  -- What Postfix stored, with CRLF again and without the lines it put on top.
  local function delivered(id)
    local stored, why = postfix.wait_for_message(server.maildir, id)
    assert.truthy(stored, why)
    local text = stored:gsub("\n", "\r\n")
    local top, rest = "", text
    while rest:find("^Return%-Path:") or rest:find("^X%-Original%-To:") or rest:find("^Delivered%-To:")
      or rest:find("^Received:") or (top ~= "" and rest:find("^[ \t]")) do
      top, rest = rest:match("^(.-\r\n)(.*)$")
    end
    return rest
  end

  local LETTER = {
    subject = "Grüße — ✉ und ein langer Betreff, der in mehrere Wörter zerlegt werden muss, weil er so lang ist",
    text = ".a dot\n..two\n.\nDie Umlaute äöüß\ntrailing blank \nFrom here\n",
    html = "<p>.a dot</p>\n<p>äöüß</p>\n",
    attachments = {
      { data = BYTES, filename = "alle Bytes – ✉.bin" },
      { data = BYTES:rep(300), filename = "many.bin" },
    },
  }

  local function send_letter(more)
    local mail = {}
    for name, value in pairs(LETTER) do mail[name] = value end
    mail.from, mail.to = "Ada Lovelace <ada@example.test>", "Üser <user@example.test>"
    local message = assert(smtp.message(mail))
    local all = options(more)
    all.from, all.to = nil, nil
    local session = assert(smtp.connect(all))
    local receipt = assert(session:send(message))
    assert(session:quit())
    assert.are.equal(message:tostring "8bit", delivered(message.id))
    assert.are.equal(message:size "8bit", receipt.size)
    return receipt
  end

  it("delivers over STARTTLS with login, byte for byte", function()
    need()
    local receipt = send_letter()
    assert.are.equal("TLSv1.3", receipt.tls.version)
    assert.truthy(receipt.queue_id)
    assert.are.equal(2, receipt.round_trips)
  end)

  it("delivers over implicit TLS, byte for byte", function()
    need()
    send_letter { port = server.smtps_port, tls = "implicit" }
  end)

  for _, mechanism in ipairs { "PLAIN", "LOGIN", "CRAM-MD5" } do
    it("logs in by " .. mechanism, function()
      need()
      local session = assert(smtp.connect {
        host = "127.0.0.1", port = server.submission_port, ca_file = server.ca_file, username = "user2@example.test",
        password = "pässwörd", auth = mechanism,
      })
      assert(session:quit())
    end)
  end

  it("refuses a wrong password, and says so without showing it", function()
    need()
    local receipt, err = smtp.send(options { password = "canary-password", text = "no", trace = true })
    assert.is_nil(receipt)
    assert.are.equal("auth", err.kind)
    assert.are.equal(535, err.code)
    assert.are.equal("not_sent", err.outcome)
    assert.falsy((tostring(err) .. err.transcript):find("canary", 1, true))
  end)

  it("delivers 8-bit and dot lines of a raw message as they are", function()
    need()
    local id = "<raw-" .. os.time() .. "@example.test>"
    local body = "8-bit: äöü \255\254\r\n.\r\n..\r\n.dot\r\n\r\ntrailing \t\r\n" .. ("x"):rep(900) .. "\r\n"
    local raw = "Date: Tue, 24 Nov 2026 10:11:12 +0000\r\nFrom: ada@example.test\r\nMessage-ID: " .. id .. "\r\nSubject: raw\r\n\r\n" .. body
    assert(smtp.send(options { raw = raw }))
    assert.are.equal(raw, delivered(id))
    -- the same with LF alone and from a function, in pieces that end anywhere
    local other = raw:gsub("raw%-", "raw2-"):gsub("\r\n", "\n")
    local at = 0
    local function pieces()
      at = at + 7
      local piece = other:sub(at - 6, at)
      return piece ~= "" and piece or nil
    end
    local receipt = assert(smtp.send(options { raw = pieces }))
    assert.are.equal((raw:gsub("raw%-", "raw2-")), delivered((id:gsub("raw%-", "raw2-"))))
    assert.are.equal(#raw + 1, receipt.size)
  end)

  it("tells which recipients were refused", function()
    need()
    local to = { "user@example.test", "nobody-here@example.test" }
    local receipt = assert(smtp.send(options { to = to, text = "for one" }))
    assert.are.same({ "user@example.test" }, receipt.accepted)
    assert.are.equal("nobody-here@example.test", receipt.rejected[1].address)
    assert.are.equal(550, receipt.rejected[1].code)
    local none, err = smtp.send(options { to = to, partial = false, text = "for both" })
    assert.is_nil(none)
    assert.are.equal("rcpt", err.stage)
    assert.are.equal("not_sent", err.outcome)
    assert.are.equal(1, #err.rejected)
    none, err = smtp.send(options { to = to[2], text = "for nobody" })
    assert.is_nil(none)
    assert.are.equal(550, err.code)
  end)

  it("takes the next message after a refused one", function()
    need()
    local all = options()
    all.from, all.to = nil, nil
    local session = assert(smtp.connect(all))
    local _, err = session:send { from = "ada@example.test", to = "nobody-here@example.test", text = "no" }
    assert.are.equal("rejected", err.kind)
    local receipt = assert(session:send { from = "ada@example.test", to = "user@example.test", text = "yes" })
    assert.truthy(delivered(receipt.message_id))
    assert(session:quit())
  end)

  it("verifies the certificate", function()
    need()
    local _, err = smtp.send(options { ca_file = nil, verify = true, server_name = "wrong.example.test", text = "no" })
    assert.are.equal("tls", err.kind)
    assert.are.equal("not_sent", err.outcome)
    assert.truthy(err.hint)
    local all = options { text = "no" }
    all.ca_file = nil -- the system's trust store does not know the certificate
    _, err = smtp.send(all)
    assert.are.equal("tls", err.kind)
    assert.truthy(err.hint)
  end)

  it("keeps its memory flat however large an attachment is", function()
    need()
    local block = ("0123456789abcdef"):rep(4096)
    local left, peak = 512, 0 -- 32 MB
    local function big()
      left = left - 1
      if left % 16 == 0 then
        collectgarbage()
        peak = math.max(peak, collectgarbage("count"))
      end
      return left >= 0 and block or nil
    end
    collectgarbage()
    local before = collectgarbage("count")
    local _, err = smtp.send(options { text = "big", attachments = { { source = big, filename = "big.bin" } } })
    assert.is_nil(err, tostring(err))
    assert.truthy(peak - before < 1024, ("grew by %.0f KB"):format(peak - before))
  end)
end)
