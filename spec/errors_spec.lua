local errors = require "smtp.errors"

describe("an error value", function()
  it("says in one line what happened", function()
    for _, case in ipairs {
      { { kind = "connect", stage = "connect", reason = "refused" },
        "connect: refused; the message was not sent, trying later may work" },
      { { kind = "input", stage = "compose", reason = "no sender" },
        "input at compose: no sender; the message was not sent" },
      { { kind = "rejected", stage = "rcpt", code = 550, enhanced = "5.1.1", text = "No such user\nGo away" },
        "rejected at rcpt: 550 5.1.1 No such user Go away; the message was not sent" },
      { { kind = "rejected", stage = "mail", code = 451, text = "later" },
        "rejected at mail: 451 later; the message was not sent, trying later may work" },
      { { kind = "closed", stage = "data", reason = "Broken pipe", code = 421, enhanced = "4.3.2", text = "" },
        "closed at data: Broken pipe: 421 4.3.2; the message was not sent, trying later may work" },
      { { kind = "timeout", stage = "final", reason = "late", outcome = "unknown" },
        "timeout at final: late; the message may have been sent: sending it again may duplicate it" },
      { { kind = "tls", stage = "tls", reason = "a\nb\0c\27", hint = "do this" },
        "tls: a b c ; the message was not sent; hint: do this" },
      { { kind = "rejected", stage = "rcpt", rejected = { { address = "a@example.org", code = 550, text = "no" } } },
        "rejected at rcpt: <a@example.org> 550 no; the message was not sent" },
      { { kind = "rejected", stage = "rcpt", reason = "nobody",
        rejected = { { address = "a@example.org", code = 450, text = "" },
          { address = "b@example.org", code = 550 } } },
        "rejected at rcpt: nobody: <a@example.org> 450; the message was not sent" },
    } do
      assert.are.equal(case[2], tostring(errors.new(case[1])))
    end
  end)

  it("speaks of no message where none was to be sent", function()
    assert.are.equal("input at compose: no name", tostring(errors.apart(errors.input "no name")))
    assert.are.equal("connect: refused; trying later may work; hint: do this",
      tostring(errors.apart(errors.new { kind = "connect", stage = "connect", reason = "refused", hint = "do this" })))
    assert.is_nil(errors.apart(nil))
  end)

  it("can be put together with strings, numbers and its own kind", function()
    local err = errors.input "x"
    local text = tostring(err)
    assert.are.equal("failed: " .. text, "failed: " .. err)
    assert.are.equal(text .. "!", err .. "!")
    assert.are.equal("1" .. text, 1 .. err)
    assert.are.equal(text .. text, err .. err)
  end)

  it("knows whether the same call may work later", function()
    for kind, later in pairs {
      input = false, resolve = true, connect = true, timeout = true, closed = true, tls = false, insecure = false,
      auth = false, rejected = false, protocol = false, source = false,
    } do
      local err = errors.new { kind = kind, stage = "connect" }
      assert.are.equal(later, err.temporary, kind)
      assert.are.equal("not_sent", err.outcome)
      -- who made it knows better
      assert.are.equal(not later, errors.new({ kind = kind, stage = "connect", temporary = not later }).temporary)
      -- and so does the server
      for code, temporary in pairs { [250] = false, [399] = false, [400] = true, [499] = true, [500] = false } do
        assert.are.equal(temporary, errors.new({ kind = kind, stage = "connect", code = code }).temporary)
      end
    end
  end)

  it("of a bad value blames the composing", function()
    local err = errors.input("no sender", "give from")
    assert.are.same({ kind = "input", stage = "compose", outcome = "not_sent", temporary = false, reason = "no sender",
      hint = "give from" }, { kind = err.kind, stage = err.stage, outcome = err.outcome, temporary = err.temporary,
      reason = err.reason, hint = err.hint })
  end)
end)

describe("a reply's line", function()
  it("has what the reply has", function()
    assert.are.equal("250", errors.reply_line { code = 250 })
    assert.are.equal("250", errors.reply_line { code = 250, text = "" })
    assert.are.equal("250 ok", errors.reply_line { code = 250, text = "ok" })
    assert.are.equal("550 5.1.1 a b", errors.reply_line { code = 550, enhanced = "5.1.1", text = "a\nb" })
  end)
end)
