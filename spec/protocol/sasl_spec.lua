local core = require "smtp.core"
local sasl = require "smtp.protocol.sasl"

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
    assert.are.equal("tim", initial)
    assert.are.equal("secret", step("Password:"))
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
end)

describe("sasl.choose", function()
  local PASSWORD, TOKEN = { username = "u", password = "p" }, { username = "u", token = "t" }

  for _, case in ipairs {
    { PASSWORD, "LOGIN PLAIN CRAM-MD5", nil, "CRAM-MD5" },
    { PASSWORD, "LOGIN PLAIN", nil, "PLAIN" },
    { PASSWORD, "LOGIN PLAIN", { "LOGIN", "PLAIN" }, "LOGIN" },
    { PASSWORD, "LOGIN PLAIN", { "CRAM-MD5", "PLAIN" }, "PLAIN" },
    { TOKEN, "PLAIN XOAUTH2 OAUTHBEARER", nil, "OAUTHBEARER" },
    { TOKEN, "PLAIN XOAUTH2", nil, "XOAUTH2" },
    { TOKEN, "PLAIN LOGIN", nil, nil },
    { PASSWORD, "XOAUTH2", nil, nil },
    { PASSWORD, "PLAIN", { "LOGIN" }, nil },
    { PASSWORD, "", nil, nil },
  } do
    it(("takes %s of %q"):format(tostring(case[4]), case[2]), function()
      local offered = {}
      for name in case[2]:gmatch("%S+") do offered[name] = true end
      local name, reason = sasl.choose(case[1], offered, case[3])
      assert.are.equal(case[4], name)
      assert.are.equal(case[4] == nil, reason ~= nil)
    end)
  end
end)

describe("sasl.problem", function()
  for _, case in ipairs {
    { "PLAIN", { username = "u", password = "p" }, nil },
    { "PLAIN", { username = "u\0", password = "p" }, "username" },
    { "PLAIN", { username = "u", password = "p\0q" }, "password" },
    { "LOGIN", { username = "u", password = "\0" }, "password" },
    { "CRAM-MD5", { username = "\0u", password = "p" }, "username" },
    { "PLAIN", { password = "p" }, "username" },
    { "LOGIN", { username = "u" }, "password" },
    { "OAUTHBEARER", { token = "t" }, nil },
    { "XOAUTH2", { token = "t" }, "username" },
    { "XOAUTH2", { username = "u\1auth=x", token = "t" }, "username" },
    { "OAUTHBEARER", { username = "u", token = "t\1" }, "token" },
  } do
    it(("%s: %s"):format(case[1], case[3] and "a bad " .. case[3] or "fine"), function()
      local reason = sasl.problem(case[1], case[2])
      if case[3] then
        assert.is_truthy(reason:find(case[3], 1, true))
      else
        assert.is_nil(reason)
      end
    end)
  end
end)
