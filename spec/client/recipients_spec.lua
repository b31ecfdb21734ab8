local play = require "spec.support.play"
local smtp = require "smtp"

local hello, script = play.hello, play.script

describe("The postmaster without a domain", function()
  it("is a recipient of the step s:rcpt", function()
    local s, transport = play.open(script(hello(), "C: MAIL FROM:<ada@example.org>", "S: 250 1", "C: RCPT TO:<postmaster>", "S: 250 2",
      "C: RCPT TO:<Postmaster>", "S: 250 3"))
    assert(s:mail "ada@example.org")
    assert(s:rcpt "postmaster")
    assert(s:rcpt "<Postmaster>")
    local reply, err = s:rcpt "root"
    assert.is_nil(reply)
    assert.are.equal("input", err.kind)
    play.finished(transport)
  end)

  for name, people in pairs { envelope = { to = "bob@example.org", envelope = { to = "<postmaster>" } }, bcc = { bcc = "postmaster" } } do
    it("is a recipient in " .. name .. ", whatever limits the server has for domains", function()
      local s, transport = play.open(script(hello("PIPELINING", "DSN", "LIMITS RCPTDOMAINMAX=1"), "C: MAIL FROM:<ada@example.org>",
        "C: RCPT TO:<postmaster> ORCPT=rfc822;postmaster", "C: DATA", "S: 550 enough", "S: 503 no", "S: 503 no"))
      people.from, people.text, people.dsn = "ada@example.org", "Hello.\n", {}
      local receipt, err = s:send(people)
      assert.is_nil(receipt)
      assert.are.equal(550, err.code)
      play.finished(transport)
    end)
  end

  it("stands in no header field", function()
    for _, option in ipairs { "to", "cc", "from", "sender", "reply_to" } do
      local given = { from = "ada@example.org", to = "bob@example.org", text = "Hello.\n" }
      given[option] = "postmaster"
      local mail, err = smtp.message(given)
      assert.is_nil(mail)
      assert.are.equal("input", err.kind)
    end
  end)
end)

describe("A domain with an underscore", function()
  it("is a domain, in the header and in the envelope", function()
    local mail = assert(smtp.message { from = "ada@my_host.example.org", to = { "bob@_x.example.org", "carol@a_b" }, text = "Hello.\n" })
    assert.are.same({ from = "ada@my_host.example.org", to = { "bob@_x.example.org", "carol@a_b" } }, mail.envelope)
    assert.is_truthy(mail:tostring():find("\r\nTo: bob@_x.example.org, carol@a_b\r\n", 1, true))
    assert.is_truthy(mail.id:find("@my_host.example.org>", 1, true))
  end)
end)
