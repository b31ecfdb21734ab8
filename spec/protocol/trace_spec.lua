local core = require "smtp.core"
local trace = require "smtp.protocol.trace"

local SECRET = "s3cr3t/Pa ss+\195\188"

local function hex(s, form)
  return (s:gsub(".", function(c) return (form or "%02x"):format(c:byte()) end))
end

describe("trace", function()
  it("keeps the lines of both sides in order", function()
    local t = trace.new(true)
    t.sent("EHLO client.example.org")
    t.received { code = 250, text = "mail.example.org\nPIPELINING" }
    t.received { code = 550, enhanced = "5.1.1", text = "no" }
    assert.are.equal("C: EHLO client.example.org\nS: 250-mail.example.org\nS: 250 PIPELINING\nS: 550 5.1.1 no", t.transcript())
  end)

  it("keeps nothing unless asked", function()
    local t = trace.new(false)
    t.sent("NOOP")
    assert.is_nil(t.transcript())
  end)

  it("gives each line to a function", function()
    local lines = {}
    local t = trace.new(function(direction, line) lines[#lines + 1] = direction .. line end)
    t.hide(SECRET)
    t.sent("NOOP " .. SECRET)
    t.received { code = 250, text = "a\nb" }
    assert.are.same({ "CNOOP ****", "S250-a", "S250 b" }, lines)
    assert.is_nil(t.transcript())
  end)

  for name, form in pairs {
    raw = SECRET, base64 = core.base64(SECRET), hex = hex(SECRET), ["upper-case hex"] = hex(SECRET, "%02X"),
    ["url-encoded"] = "s3cr3t%2FPa%20ss%2B%C3%BC", ["url-encoded in lower case"] = "s3cr3t%2fPa%20ss%2b%c3%bc",
  } do
    it("takes the secret out where it comes back as " .. name, function()
      local t = trace.new(true)
      t.hide(SECRET)
      assert.are.equal("you said **** and ****.", t.scrub("you said " .. form .. " and " .. form .. "."))
      t.received { code = 535, text = form }
      assert.are.equal("S: 535 ****", t.transcript())
    end)
  end

  it("takes a secret out that a reply shows with escaped bytes", function()
    local secret = "caf\233\tse\1cret"
    local wire = core.wire(1)
    wire:feed("535 no: " .. secret .. "\r\n")
    local _, shown = wire:reply()
    local t = trace.new(true)
    t.hide(secret)
    assert.are.equal("no: ****", t.scrub(shown))
    t.hide("line\r\nbreak")
  end)

  it("takes a secret out that is part of something in base64, whole or cut at either end, with padding or without", function()
    for _, secret in ipairs { SECRET, "hunter2", "pass", "correct horse battery staple 0123456789" } do
      local t = trace.new(false)
      t.hide(secret)
      for _, before in ipairs { "", "\0ada\0", "\0a\0", "ada:", "\0grace\0" } do
        local whole, head = core.base64(before .. secret .. "\r\n"), #before * 4 / 3
        for _, form in ipairs { whole, (whole:gsub("=", "")), whole:sub(math.floor(head) + 1) } do
          local left = t.scrub(form)
          assert.is_truthy(left:find("****", 1, true), form)
          -- what is left of it is a character or two that it shares with its neighbours
          assert.is_true(#left <= math.ceil(head) + 2 + #"****" + 4, left)
        end
      end
    end
  end)

  it("takes a secret out that comes back as a quoted string", function()
    local t = trace.new(false)
    t.hide('a"b\\c')
    assert.are.equal('no: "****"', t.scrub('no: "a\\"b\\\\c"'))
  end)

  it("takes a secret out that the server cuts short", function()
    local secret = ("0123456789abcdef"):rep(200)
    local t = trace.new(false)
    t.hide(secret)
    assert.are.equal("bad token ****", t.scrub("bad token " .. secret:sub(1, 2000)))
    assert.are.equal("bad token ****…", t.scrub("bad token " .. core.base64(secret):sub(1, 13) .. "…"))
  end)

  it("takes line breaks in a secret for what they are", function()
    for _, secret in ipairs { "\nsecret1", "a\nbcdef", "\r\n\r\n", ("x"):rep(70000) } do
      local t = trace.new(false)
      t.hide(secret)
      assert.are.equal("an account was banned", t.scrub("an account was banned"))
      assert.are.equal("no: ****", t.scrub("no: " .. secret))
    end
  end)

  it("takes the longer of two secrets first", function()
    local t = trace.new(true)
    t.hide("hunter2")
    t.hide("hunter2-and-more")
    assert.are.equal("****, ****", t.scrub("hunter2-and-more, hunter2"))
  end)

  it("leaves secrets of under four bytes alone: they stand in ordinary words", function()
    local t = trace.new(true)
    t.hide("ok")
    assert.are.equal("250 ok", t.scrub("250 ok"))
  end)

  it("does not show its secrets in a dump", function()
    local t = trace.new(true)
    t.hide(SECRET)
    assert.is_true(t.wanted)
    t.wanted = nil
    for key, value in pairs(t) do assert.are.equal("function", type(value), key) end
  end)
end)
