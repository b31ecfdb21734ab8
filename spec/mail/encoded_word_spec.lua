local encoded_word = require "smtp.mail.encoded_word"
local header = require "smtp.mail.header"
local linear = require "spec.support.linear"

describe("encoded_word.decode", function()
  -- RFC 2047 8, and RFC 2231 5 for the last
  for given, expected in pairs {
    ["=?ISO-8859-1?Q?a?="] = "a", ["=?ISO-8859-1?Q?a?= b"] = "a b", ["=?ISO-8859-1?Q?a?= =?ISO-8859-1?Q?b?="] = "ab",
    ["=?ISO-8859-1?Q?a?=  =?ISO-8859-1?Q?b?="] = "ab", ["=?ISO-8859-1?Q?a_b?="] = "a b",
    ["=?ISO-8859-1?Q?a?= =?ISO-8859-1?Q?_b?="] = "a b",
    ["=?US-ASCII?Q?Keith_Moore?= <moore@cs.utk.edu>"] = "Keith Moore <moore@cs.utk.edu>",
    ["=?ISO-8859-1?Q?Keld_J=F8rn_Simonsen?="] = "Keld J\195\184rn Simonsen",
    ["=?ISO-8859-1?Q?Patrik_F=E4ltstr=F6m?="] = "Patrik F\195\164ltstr\195\182m",
    ["=?ISO-8859-1?B?SWYgeW91IGNhbiByZWFkIHRoaXMgeW8=?= =?ISO-8859-2?B?dSB1bmRlcnN0YW5kIHRoZSBleGFtcGxlLg==?="]
      = "If you can read this yo =?ISO-8859-2?B?dSB1bmRlcnN0YW5kIHRoZSBleGFtcGxlLg==?=",
    ["=?US-ASCII*EN?Q?Keith_Moore?="] = "Keith Moore",
    ["=?utf-8?B?not base64!?= =?utf-8?Q?=C3?= =?utf-8?q?=A9?= =?x"] = "=?utf-8?B?not base64!?= \195\169 =?x",
    ["=?utf-8?B?not-base64?="] = "=?utf-8?B?not-base64?=",
  } do
    it(given, function() assert.are.equal(expected, encoded_word.decode(given)) end)
  end

  it("gives back what header.text wrote", function()
    for _, value in ipairs { "plain", " a  b ", ("Gr\195\188\195\159e "):rep(40), "=?utf-8?Q?a?=", ("\240\159\152\128"):rep(99), "a\tb" } do
      local fields = encoded_word.fields(assert(header.text("Subject", value)))
      assert.are.same({ { "Subject", value } }, fields)
    end
  end)
end)

describe("encoded_word.fields", function()
  it("unfolds, stops at the empty line, leaves out what is no field", function()
    assert.are.same({ { "A", "b c" }, { "D", "" }, { "E", "f" } },
      encoded_word.fields(" stray\r\nA: b\r\n c\r\nnot a field\r\nD:\r\nE:f\n\r\nG: h\r\n"))
  end)

  it("takes its time in proportion to the header #linear", function()
    for _, piece in ipairs { "=?", "=?utf-8?Q?", "=?utf-8?B?QQ==?= ", " ", "?=", "A: b\r\n" } do
      linear(encoded_word.fields, function(n) return "S: " .. piece:rep(math.floor(n / #piece)) end, 2 ^ 18, piece)
    end
  end)
end)
