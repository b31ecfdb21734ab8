-- A server that knows the password says it back wherever it can: nothing that a caller gets to see has it.
local core = require "smtp.core"
local memory = require "smtp.transport.memory"
local play = require "spec.support.play"
local smtp = require "smtp"

local hello, script = play.hello, play.script

local SECRET = "c4n4ry/Pa ss+word"
local BASE64 = core.base64(SECRET)
local LOGIN = { tls = "implicit", username = "ada", password = SECRET }
local IN = { "C: AUTH PLAIN " .. core.base64("\0ada\0" .. SECRET), "S: 235 2.7.0 in" }
local LETTER = { from = "ada@example.org", to = "bob@example.test", raw = "A: b\r\n\r\nc\r\n" }
local ENVELOPE = { "C: MAIL FROM:<ada@example.org>", "C: RCPT TO:<bob@example.test>", "C: DATA" }
local CONTENT = { "C: A: b", "C: ", "C: c", "C: ." }
local GO = { "S: 250 1", "S: 250 2", "S: 354 go" }
local FINAL = "S: 250 2.0.0 Ok: queued as " .. SECRET

local function assert_hidden(value, ...)
  local shown = play.dump({ value, ... })
  assert.is_nil(shown:find("c4n4", 1, true), shown)
  assert.is_nil(shown:find(BASE64:sub(1, 8), 1, true), shown)
end

-- Runs a call on a session that is logged in, and looks through what it returns.
local function on_session(lines, call, offer)
  local session, transport = play.open(script(hello("AUTH PLAIN", offer or "VRFY"), IN, lines), LOGIN)
  local results = { call(session) }
  assert_hidden(results)
  play.finished(transport)
  return (table.unpack or unpack)(results)
end

describe("A password said back", function()
  it("is in no reply to a verb", function()
    for line, call in pairs {
      ["MAIL FROM:<ada@example.org>"] = function(s) return s:mail "ada@example.org" end,
      ["RCPT TO:<bob@example.test>"] = function(s) return s:rcpt "bob@example.test" end,
      ["VRFY bob"] = function(s) return s:verify "bob" end,
      RSET = function(s) return s:reset() end,
      NOOP = function(s) return s:noop() end,
      QUIT = function(s) return s:quit() end,
      ["XCLIENT x"] = function(s) return s:command "XCLIENT x" end,
    } do
      for _, code in ipairs { "250 2.0.0", "250", "450 4.2.0", "550 5.1.1" } do
        for _, form in ipairs { SECRET, BASE64, "is " .. SECRET .. "; and " .. BASE64 .. "!" } do
          on_session({ "C: " .. line, ("S: %s-so: %s"):format(code:sub(1, 3), form), ("S: %s %s"):format(code, form) }, call)
        end
      end
    end
  end)

  it("is in no reply to a content", function()
    local reply = on_session({ "C: DATA", "S: 354 " .. SECRET, "C: x", "C: .", FINAL }, function(s) return s:data "x\r\n" end)
    assert.are.equal("Ok: queued as ****", reply.text)
    on_session({ "C: BDAT 3 LAST", "C: x", FINAL }, function(s) return s:bdat "x\r\n" end, "CHUNKING")
  end)

  it("is in no receipt, whichever way the message goes", function()
    for _, offer in ipairs { "8BITMIME", "PIPELINING" } do
      local along = offer == "PIPELINING"
      local lines = along and { ENVELOPE, GO, CONTENT, FINAL }
        or { ENVELOPE[1], GO[1], ENVELOPE[2], GO[2], ENVELOPE[3], GO[3], CONTENT, FINAL }
      local receipt = on_session(script { lines }, function(s) return s:send(LETTER) end, offer)
      assert.are.equal("Ok: queued as ****", receipt.reply.text)
      assert.is_nil(receipt.queue_id)
    end
  end)

  it("is in no receipt of a batch, and not in what it says of refused recipients", function()
    local lines = script(ENVELOPE, GO, CONTENT, ENVELOPE, FINAL, GO, CONTENT, ENVELOPE, FINAL, GO, CONTENT, FINAL)
    on_session(lines, function(s)
      local count, receipts = 0, {}
      for receipt in s:send_many(function()
        count = count + 1
        return count <= 3 and LETTER or nil
      end) do
        assert.is_nil(receipt.queue_id)
        receipts[#receipts + 1] = receipt
      end
      assert.are.equal(3, #receipts)
      return receipts
    end, "PIPELINING")
  end)

  it("is in no receipt of messages by BDAT", function()
    local whole = { "C: MAIL FROM:<ada@example.org>", "C: RCPT TO:<bob@example.test>", "C: BDAT 11 LAST", "C: A: b", "C: ", "C: c" }
    local session, transport = play.open(script(hello("PIPELINING", "CHUNKING", "AUTH PLAIN"), IN, whole, "S: 250 1", "S: 250 2",
      FINAL), { tls = "implicit", username = "ada", password = SECRET, pipeline = "chunk" })
    local receipt = assert(session:send(LETTER))
    assert.is_nil(receipt.queue_id)
    assert_hidden(receipt)
    play.finished(transport)
  end)

  it("is not in the lists of refused recipients", function()
    local two = { from = "ada@example.org", to = "bob@example.test, eve@example.test", raw = LETTER.raw }
    on_session(script { ENVELOPE[1], "C: RCPT TO:<bob@example.test>", "C: RCPT TO:<eve@example.test>", "C: DATA", "S: 250 1", "S: 250 2",
      "S: 550 5.1.1 " .. SECRET, "S: 354 go", CONTENT, FINAL }, function(s) return s:send(two) end, "PIPELINING")
  end)

  it("is not in a greeting, a capability, a report or a reply to the login", function()
    local lines = script("S: 220-mail.example.org " .. SECRET, "S: 220 " .. BASE64, play.ehlo("AUTH PLAIN " .. SECRET, "X-" .. BASE64,
      "SIZE " .. BASE64, "XPASS " .. SECRET, "PIPELINING"), IN[1], "S: 235 2.7.0 " .. SECRET, "C: QUIT", "S: 221 " .. SECRET)
    local session = play.open(lines, LOGIN)
    assert_hidden(session.greeting, session.capabilities)
    assert.is_true(session.capabilities.PIPELINING)
    local options = play.options(lines, LOGIN)
    local report = assert(smtp.verify(options))
    assert.are.same({ "****", "PLAIN" }, report.mechanisms)
    assert_hidden(report, tostring(report))
    options.transport = memory.new(script("S: 554 go away, " .. SECRET))
    options.tls = "none"
    local got, err = smtp.verify(options)
    assert.is_nil(got)
    assert_hidden(err, err.report, tostring(err), tostring(err.report))
  end)

  it("takes nothing from what the server offers, though it be one of its words", function()
    for _, word in ipairs { "PLAIN", "PIPELINING", "LOGIN", "AUTH" } do
      local lines = script(hello("PIPELINING", "AUTH PLAIN LOGIN"), "C: AUTH PLAIN " .. core.base64("\0ada\0" .. word), "S: 235 in")
      local session = play.open(lines, { tls = "implicit", username = "ada", password = word })
      assert.are.same({ PIPELINING = true, AUTH = "PLAIN LOGIN" }, session.capabilities)
    end
  end)

  it("is a proxy's, too", function()
    local options = play.options(script("C: CONNECT mail.example.org:465 HTTP/1.1"), LOGIN)
    options.proxy = "http://ada:pro%2FxyCanary@proxy.example.org"
    options.transport = memory.new({ "C~ ^CONNECT", "C~ ^Host", "C~ ^Proxy.Auth", "C: ", "S: HTTP/1.1 200 ok", "S: ",
      "S: 220 mail.example.org pro/xyCanary", "C~ EHLO", "S: 250 hi" })
    options.tls, options.username, options.password = "none", nil, nil
    local session = assert(smtp.connect(options))
    assert.are.equal("mail.example.org ****", session.greeting.text)
  end)
end)
