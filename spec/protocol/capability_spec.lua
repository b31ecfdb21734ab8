local capability = require "smtp.protocol.capability"
local linear = require "spec.support.linear"

describe("capability.parse", function()
  it("takes keywords in any case, with their parameters, and skips the greeting", function()
    assert.are.same({ PIPELINING = true, SIZE = "1000", ["8BITMIME"] = true, ["X-EXTRA"] = "a  b", AUTH = "PLAIN LOGIN" },
      capability.parse("STARTTLS greets you\nPIPELINING\nsize 1000\n8bitmime\nx-Extra a  b\nAuth PLAIN LOGIN"))
  end)

  for _, case in ipairs {
    { "AUTH=LOGIN PLAIN", { LOGIN = true, PLAIN = true } },
    { "AUTH LOGIN\nAUTH=PLAIN", { LOGIN = true, PLAIN = true } },
    { "auth plain cram-md5", { PLAIN = true, ["CRAM-MD5"] = true } },
    { "AUTH", {} },
    { "PIPELINING", {} },
  } do
    it("reads the mechanisms of " .. case[1]:gsub("\n", ", "), function()
      assert.are.same(case[2], capability.mechanisms(capability.parse("hello\n" .. case[1])))
    end)
  end

  for line, expected in pairs {
    ["SIZE 35882577"] = 35882577, ["SIZE=10"] = 10, ["SIZE"] = false, ["SIZE 0"] = false, ["SIZE -1"] = false,
    ["SIZE 1e3"] = false, ["SIZE 99999999999999999999999999"] = 1e26, ["SIZE 0x10"] = false, ["NOSIZE 7"] = false,
  } do
    it("reads the limit of " .. line, function()
      assert.are.equal(expected or nil, capability.size(capability.parse("hello\n" .. line)))
    end)
  end

  it("takes no longer for a line of blanks than for others #linear", function()
    linear(capability.parse, function(n) return "hello\nX x" .. (" "):rep(n) .. "x\nY" .. (" "):rep(n) end, 500000)
    local blanks = (" "):rep(60000)
    assert.are.same({ X = "x" .. blanks .. "x", Y = true }, capability.parse("hello\nX x" .. blanks .. "x\nY" .. blanks))
  end)

  it("gives a table of its own each time", function()
    local first = capability.parse "hello\nPIPELINING\nSIZE 7"
    first.PIPELINING, first.X = nil, true
    assert.are.same({ PIPELINING = true, SIZE = "7" }, capability.parse "hello\nPIPELINING\nSIZE 7")
    assert.are.same({ STARTTLS = true }, capability.parse "hello\nSTARTTLS")
  end)

  it("shows no part of a secret that reads like a keyword, or begins in one", function()
    for secret, expected in pairs {
      ["c4n4ry/Pass word"] = {}, ["c4n4ry=Pass"] = {}, ["c4n4ry word"] = {}, ["PLAIN/c4n4ry"] = { PLAIN = true }, ["X-c4n4ry"] = {},
      ["AUTH=c4n4ry"] = { AUTH = true }, ["SIZE c4n4ry"] = { SIZE = true }, ["IZE c4n4ry"] = { SIZE = true },
      ["AUTH"] = { AUTH = "PLAIN X-MORE" }, ["PLAIN"] = { AUTH = "**** X-MORE" },
    } do
      local trace = require("smtp.protocol.trace").new()
      trace.hide(secret)
      local line = secret:find "IZE" and "SIZE c4n4ry" or #secret <= 5 and "AUTH PLAIN X-MORE" or secret
      assert.are.same(expected, capability.parse("hello\n" .. line, trace.scrub))
      expected.STARTTLS, expected["X-TRA"] = true, "1"
      assert.are.same(expected, capability.parse("hello\nSTARTTLS\n" .. line .. "\nX-tra 1", trace.scrub))
    end
  end)

  it("survives lines that are no capabilities", function()
    assert.are.same({}, capability.parse("hello\n\n \n=\n-x\n\195\188"))
    assert.are.same({}, capability.parse(""))
  end)
end)
