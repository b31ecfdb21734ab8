local core = require "smtp.core"
local play = require "spec.support.play"
local sasl = require "smtp.protocol.sasl"
local smtp = require "smtp"

local SERVER = { host = "server.example.com", port = 143 }

local function start(name, credentials)
  local initial, step = sasl.start(name, credentials, SERVER)
  return initial and core.base64(initial), step
end

describe("sasl", function()
  it("PLAIN: the example of RFC 4616", function()
    local initial, step = start("PLAIN", { username = "tim", password = "tanstaaftanstaaf" })
    assert.are.equal("AHRpbQB0YW5zdGFhZnRhbnN0YWFm", initial)
    assert.is_nil((step("")))
  end)

  it("LOGIN: the name, then the password, then nothing", function()
    local initial, step = sasl.start("LOGIN", { username = "tim", password = "secret" }, SERVER)
    assert.is_nil(initial)
    assert.are.equal("tim", step("Password:"))
    assert.are.equal("secret", step("Username:"))
    assert.is_nil((step("Again:")))
  end)

  it("CRAM-MD5: the example of RFC 2195", function()
    local initial, step = start("CRAM-MD5", { username = "tim", password = "tanstaaftanstaaf" })
    assert.is_nil(initial)
    local challenge = core.unbase64("PDE4OTYuNjk3MTcwOTUyQHBvc3RvZmZpY2UucmVzdG9uLm1jaS5uZXQ+")
    assert.are.equal("dGltIGI5MTNhNjAyYzdlZGE3YTQ5NWI0ZTZlNzMzNGQzODkw", core.base64(step(challenge)))
    assert.is_nil((step(challenge)))
  end)

  it("OAUTHBEARER: the example of RFC 7628, and an answer to its error", function()
    local initial, step = start("OAUTHBEARER",
      { username = "user@example.com", token = "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==" })
    assert.are.equal("bixhPXVzZXJAZXhhbXBsZS5jb20sAWhvc3Q9c2VydmVyLmV4YW1wbGUuY29tAXBvcnQ9MTQzAWF1dGg9QmVhcmVyIHZGOWRm"
      .. "dDRxbVRjMk52YjNSbGNrQmhiSFJoZG1semRHRXVZMjl0Q2c9PQEB", initial)
    assert.are.equal("\1", step('{"status":"invalid_token"}'))
    assert.is_nil((step("more")))
  end)

  it("OAUTHBEARER: without a name, and with one that needs escaping", function()
    local initial = sasl.start("OAUTHBEARER", { token = "t" }, SERVER)
    assert.are.equal("n,a=,\1host=server.example.com\1port=143\1auth=Bearer t\1\1", initial)
    initial = sasl.start("OAUTHBEARER", { username = "a=b,c", token = "t" }, SERVER)
    assert.are.equal("n,a=a=3Db=2Cc,", initial:match("^[^\1]*"))
  end)

  it("XOAUTH2: the published example, and an empty answer to its error", function()
    local initial, step = start("XOAUTH2",
      { username = "someuser@example.com", token = "ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg" })
    assert.are.equal("dXNlcj1zb21ldXNlckBleGFtcGxlLmNvbQFhdXRoPUJlYXJlciB5YTI5LnZGOWRmdDRxbVRjMk52YjNSbGNrQmhkSFJoZG1s"
      .. "emRHRXVZMjl0Q2cBAQ==", initial)
    assert.are.equal("", step("{}"))
    assert.is_nil((step("{}")))
  end)

  it("EXTERNAL: nobody to act as, or a name", function()
    local initial, step = sasl.start("EXTERNAL", {}, SERVER)
    assert.are.equal("", initial)
    assert.is_nil((step("")))
    assert.are.equal("ada@example.org", (sasl.start("EXTERNAL", { username = "ada@example.org" }, SERVER)))
  end)

  it("a mechanism of one's own, where auth names it", function()
    sasl.mechanisms["X-PIN"] = {
      needs = { "username", "password" },
      start = function(credentials)
        return credentials.username, function(challenge) return challenge .. credentials.password end
      end,
    }
    local script = play.script(play.hello("AUTH PLAIN X-PIN"), "C: AUTH X-PIN " .. core.base64("ada"),
      "S: 334 " .. core.base64("<7>"), "C: " .. core.base64("<7>1815"), "S: 235 in")
    local _, transport = play.open(script, { tls = "implicit", username = "ada", password = "1815", auth = "x-pin" })
    sasl.mechanisms["X-PIN"] = nil
    play.finished(transport)
  end)

  it("a mechanism of one's own that never comes to an end", function()
    sasl.mechanisms["X-LOOP"] = { needs = {}, start = function() return nil, function() return "go on" end end }
    local script = play.hello("AUTH X-LOOP")
    local function add(line) script[#script + 1] = line end
    add "C: AUTH X-LOOP"
    for _ = 1, 16 do
      add "S: 334 "
      add("C: " .. core.base64("go on"))
    end
    for _, line in ipairs { "S: 334 ", "C: *", "S: 501 x" } do add(line) end
    local options, transport = play.options(script, { tls = "implicit", auth = "X-LOOP" })
    local session, err = smtp.connect(options)
    sasl.mechanisms["X-LOOP"] = nil
    assert.is_nil(session)
    assert.are.equal("protocol", err.kind)
    play.finished(transport)
  end)
end)

describe("sasl.choose", function()
  local PASSWORD, TOKEN, NAME = { username = "u", password = "p" }, { username = "u", token = "t" }, { username = "u" }
  local SCRAM = "SCRAM-SHA-1 SCRAM-SHA-256 SCRAM-SHA-1-PLUS SCRAM-SHA-256-PLUS"
  local function binding(kind) return kind == "tls-server-end-point" and "bytes" or nil end

  for _, case in ipairs {
    { PASSWORD, "LOGIN PLAIN CRAM-MD5", nil, "CRAM-MD5" },
    { PASSWORD, "LOGIN PLAIN CRAM-MD5", nil, "PLAIN", { verified = true } },
    { PASSWORD, "LOGIN CRAM-MD5", nil, "CRAM-MD5", { verified = true } },
    { PASSWORD, "LOGIN PLAIN CRAM-MD5 SCRAM-SHA-1", nil, "SCRAM-SHA-1", { verified = true } },
    { PASSWORD, "LOGIN PLAIN", nil, "PLAIN" },
    { PASSWORD, "LOGIN PLAIN", { "LOGIN", "PLAIN" }, "LOGIN" },
    { PASSWORD, "LOGIN PLAIN", { "CRAM-MD5", "PLAIN" }, "PLAIN" },
    { PASSWORD, "PLAIN CRAM-MD5 " .. SCRAM, nil, "SCRAM-SHA-256" },
    { PASSWORD, "PLAIN CRAM-MD5 " .. SCRAM, nil, "SCRAM-SHA-256-PLUS", { binding = binding } },
    { PASSWORD, "SCRAM-SHA-256 SCRAM-SHA-1-PLUS", nil, "SCRAM-SHA-1-PLUS", { binding = binding } },
    { PASSWORD, "SCRAM-SHA-256 SCRAM-SHA-1-PLUS", nil, "SCRAM-SHA-256" },
    { PASSWORD, "PLAIN CRAM-MD5 SCRAM-SHA-1", nil, "SCRAM-SHA-1", { binding = binding } },
    { PASSWORD, SCRAM, { "SCRAM-SHA-1" }, "SCRAM-SHA-1", { binding = binding } },
    { PASSWORD, SCRAM, { "SCRAM-SHA-256-PLUS" }, nil },
    { PASSWORD, SCRAM, { "SCRAM-SHA-256-PLUS" }, nil, { binding = function() return nil, "no" end } },
    { TOKEN, "PLAIN XOAUTH2 OAUTHBEARER", nil, "OAUTHBEARER" },
    { TOKEN, "PLAIN XOAUTH2", nil, "XOAUTH2" },
    { TOKEN, "PLAIN LOGIN " .. SCRAM, nil, nil },
    { PASSWORD, "XOAUTH2", nil, nil },
    { PASSWORD, "PLAIN", { "LOGIN" }, nil },
    { PASSWORD, "", nil, nil },
    { NAME, "PLAIN EXTERNAL", nil, "EXTERNAL", { certificate = true } },
    { NAME, "PLAIN EXTERNAL", nil, nil },
    { {}, "PLAIN EXTERNAL", { "EXTERNAL" }, "EXTERNAL" },
    { PASSWORD, "PLAIN EXTERNAL", nil, "PLAIN", { certificate = true } },
    { PASSWORD, "EXTERNAL", nil, "EXTERNAL", { certificate = true } },
    { PASSWORD, "EXTERNAL", nil, nil },
    { TOKEN, "XOAUTH2 EXTERNAL", nil, "XOAUTH2", { certificate = true } },
  } do
    it(("takes %s of %q"):format(tostring(case[4]), case[2]), function()
      local server = { offered = {}, binding = case[5] and case[5].binding, certificate = case[5] and case[5].certificate,
        verified = case[5] and case[5].verified }
      for name in case[2]:gmatch("%S+") do server.offered[name] = true end
      local name, reason = sasl.choose(case[1], server, case[3])
      assert.are.equal(case[4], name)
      assert.are.equal(case[4] == nil, reason ~= nil)
    end)
  end
end)

describe("sasl.start refuses what cannot be sent:", function()
  for _, case in ipairs {
    { "PLAIN", { username = "u", password = "p" }, nil },
    { "PLAIN", { username = "u\0", password = "p" }, "username" },
    { "PLAIN", { username = "u", password = "p\0q" }, "password" },
    { "LOGIN", { username = "u", password = "\0" }, "password" },
    { "CRAM-MD5", { username = "\0u", password = "p" }, "username" },
    { "PLAIN", { password = "p" }, "username" },
    { "LOGIN", { username = "u" }, "password" },
    { "SCRAM-SHA-1", { username = "u" }, "password" },
    { "SCRAM-SHA-1", { username = "", password = "p" }, "username" },
    { "SCRAM-SHA-1", { username = "u", password = "p\1" }, "password" },
    { "SCRAM-SHA-1", { username = "u\255", password = "p" }, "username" },
    { "EXTERNAL", { username = "u\0" }, "username" },
    { "OAUTHBEARER", { token = "t" }, nil },
    { "XOAUTH2", { token = "t" }, "username" },
    { "XOAUTH2", { username = "u\1auth=x", token = "t" }, "username" },
    { "OAUTHBEARER", { username = "u", token = "t\1" }, "token" },
    { "OAUTHBEARER", { username = "u", password = "t" }, "token" },
  } do
    it(("%s: %s"):format(case[1], case[3] and "a bad " .. case[3] or "fine"), function()
      local _, step, reason = sasl.start(case[1], case[2], SERVER)
      assert.are.equal(case[3] == nil, step ~= nil)
      assert.is_truthy(not case[3] or reason:find(case[3], 1, true), reason)
    end)
  end
end)
