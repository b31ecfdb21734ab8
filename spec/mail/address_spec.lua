local address = require "smtp.mail.address"

local function label(n) return ("a"):rep(n) end
local LONG_DOMAIN = label(63) .. "." .. label(63) .. "." .. label(63) .. "." .. label(63) -- 255 octets

describe("address.parse", function()
  local taken = {
    -- what is written, the address, the display name
    { "ada@example.org", "ada@example.org" },
    { "  ada@example.org  ", "ada@example.org" },
    { "<ada@example.org>", "ada@example.org" },
    { "Ada <ada@example.org>", "ada@example.org", "Ada" },
    { "Ada<ada@example.org>", "ada@example.org", "Ada" },
    { "Ada  M.  Lovelace <ada@example.org>", "ada@example.org", "Ada M. Lovelace" },
    { '"Lovelace, Ada" <ada@example.org>', "ada@example.org", "Lovelace, Ada" },
    { '"a \\"b\\" \\\\ c" <ada@example.org>', "ada@example.org", 'a "b" \\ c' },
    { '"" <ada@example.org>', "ada@example.org" },
    { "J\195\188rgen <j@example.org>", "j@example.org", "J\195\188rgen" },
    { "a.b+c!#$%&'*/=?^_`{|}~-@example.org", "a.b+c!#$%&'*/=?^_`{|}~-@example.org" },
    { '"x@a x"@b', '"x@a x"@b' },
    { '"ada"@example.org', "ada@example.org" },
    { '"a\\d\\a"@example.org', "ada@example.org" },
    { '"a..b"@example.org', '"a..b"@example.org' },
    { '"a\\"b"@example.org', '"a\\"b"@example.org' },
    { '"<x>"@example.org', '"<x>"@example.org' },
    { '""@example.org', '""@example.org' },
    { '"a,b" <"c,d"@example.org>', '"c,d"@example.org', "a,b" },
    { "root@localhost", "root@localhost" },
    { "Ada@Example.ORG", "Ada@Example.ORG" },
    { "a@[192.0.2.1]", "a@[192.0.2.1]" },
    { "a@[IPv6:2001:db8::1]", "a@[IPv6:2001:db8::1]" },
    { "a@[IPv6:::]", "a@[IPv6:::]" },
    { "a@[IPv6:1:2:3:4:5:6:7:8]", "a@[IPv6:1:2:3:4:5:6:7:8]" },
    { "a@[IPv6:::ffff:192.0.2.1]", "a@[IPv6:::ffff:192.0.2.1]" },
    { "a@[ipv6:1:2:3:4:5:6:192.0.2.1]", "a@[ipv6:1:2:3:4:5:6:192.0.2.1]" },
    { label(64) .. "@example.org", label(64) .. "@example.org" },
    { "a@" .. LONG_DOMAIN, "a@" .. LONG_DOMAIN },
    { "=?utf-8?q?Ada?= <a@example.org>", "a@example.org", "=?utf-8?q?Ada?=" }, -- text, not decoded
  }
  for _, case in ipairs(taken) do
    it("takes " .. case[1]:sub(1, 60), function()
      local box, why = address.parse(case[1])
      assert.is_nil(why)
      assert.are.same({ address = case[2], name = case[3] }, box)
    end)
  end

  it("marks what needs SMTPUTF8, and only that", function()
    assert.is_true(address.parse("j\195\188rgen@example.org").utf8)
    assert.is_true(address.parse("x@b\195\188cher.example").utf8)
    assert.is_nil(address.parse("J\195\188rgen <j@example.org>").utf8)
    -- characters whose low bytes would be "\r" and "\n" stay what they are
    local odd = "\231\152\141\226\128\168@example.org"
    assert.are.equal(odd, address.parse(odd).address)
  end)

  local refused = {
    -- what is written, words of the reason, position (nil: at the end)
    { "", "an address is missing" },
    { "   ", "an address is missing" },
    { "<>", "unexpected character", 2 },
    { "ada", 'no "@"', 1 },
    { "Ada Lovelace", 'no "@"', 1 },
    { "@example.org", "unexpected character", 1 },
    { "ada@", "a domain is missing" },
    { "u@good(x)evil", "comments", 7 },
    { "(x)u@good", "comments", 1 },
    { "u(x)@good", "comments", 2 },
    { "u@good (x)", "comments", 8 },
    { "a@b@c", "unexpected character", 4 },
    { "a..b@c", "a dot", 1 },
    { ".a@b", "a dot", 1 },
    { "a.@b", "a dot", 1 },
    { "<@a,@b:c@d>", "unexpected character", 2 },
    { "<@a:c@d>", "unexpected character", 2 },
    { "a @b", "unexpected character", 3 },
    { "a@ b", "a domain is missing", 3 },
    { "a@b .c", "unexpected character", 5 },
    { "<a@b", '">" is missing' },
    { "a@b>", "unexpected character", 4 },
    { "<a@b>>", "unexpected character", 6 },
    { "<a@b> x", "unexpected character", 7 },
    { "<<a@b>>", "unexpected character", 2 },
    { "< a@b>", "unexpected character", 2 },
    { "a@b <c@d>", "unexpected character", 5 },
    { "Ada a@b <c@d>", "needs quotes", 5 },
    { '"a" "b"@c', "needs quotes", 5 },
    { '"a"b@c', "white space is missing", 4 },
    { '"a".b@c', "white space is missing", 4 },
    { 'a."b"@c', "white space is missing", 3 },
    { 'a"b" <c@d>', "white space is missing", 2 },
    { '"a@b', "never closed", 1 },
    { '"a\\', "never closed", 1 },
    { '"a\\"@b', "never closed", 1 },
    { "friends: a@b, c@d;", "groups", 8 },
    { "undisclosed-recipients:;", "groups", 23 },
    { "a@b;", "groups", 4 },
    { "=?utf-8?q?x=40evil?=@good", "encoded word", 1 },
    { '"=?utf-8?q?x=40evil?="@good', "encoded word", 1 },
    { "=?utf-8?q?x=40evil?=", 'no "@"', 1 },
    { "a@=?utf-8?q?evil?=", "a domain is missing", 3 },
    { "a@x=?utf-8?q?evil?=", "no domain may hold", 4 },
    { "a@b_c", "no domain may hold", 4 },
    { "a@-b", "hyphen", 3 },
    { "a@b-", "hyphen", 3 },
    { "a@x.b-.c", "hyphen", 5 },
    { "a@b..c", "empty label", 5 },
    { "a@.b", "empty label", 3 },
    { "a@b.", "empty label" },
    { "a@" .. label(64), "longer than 63", 3 },
    { "a@" .. LONG_DOMAIN .. ".b", "longer than 255", 3 },
    { "a@" .. LONG_DOMAIN:sub(1, -2) .. ".b", "longer than 255", 3 },
    { label(65) .. "@b", "longer than 64", 1 },
    { '"' .. (" "):rep(63) .. '"@b', "longer than 64", 1 },
    { "a@[1.2.3]", "address literal", 3 },
    { "a@[1.2.3.256]", "address literal", 3 },
    { "a@[1.2.3.4", "address literal", 3 },
    { "a@[1.2.3.4]b", "unexpected character", 12 },
    { "a@[2001:db8::1]", "address literal", 3 },
    { "a@[IPv6:1::2::3]", "address literal", 3 },
    { "a@[IPv6:1:2:3:4:5:6:7]", "address literal", 3 },
    { "a@[IPv6:1:2:3:4:5:6:7::]", "address literal", 3 },
    { "a@[IPv6:12345::]", "address literal", 3 },
    { "a@[IPv6:::1.2.3.400]", "address literal", 3 },
    { "a@[IPv6:]", "address literal", 3 },
    { "a@[x:y]", "address literal", 3 },
    { "a,b@c", 'no "@"', 1 },
    { "a@b,c@d", "one mailbox is needed, not 2" },
    { "a\\b@c", "unexpected character", 2 },
    { "a[b]@c", "unexpected character", 2 },
    { "\195@b", "invalid UTF-8", 1 },
    { "a@b\255", "invalid UTF-8", 4 },
    { "\192\175@b", "invalid UTF-8", 1 },
    { "\237\160\128@b", "invalid UTF-8", 1 },
    { "\194\133@b", "control character", 1 },
    { "a\0@b", "NUL", 2 },
    { "a@b\0.c", "NUL", 4 },
    { "a@b\r\nRCPT TO:<c@d>", "carriage return", 4 },
    { '"a\nb"@c', "line feed", 3 },
    { '"a\\\nb"@c', "line feed", 4 },
    { "A\tB <a@b>", "TAB", 2 },
    { "a\127@b", "control byte", 2 },
  }
  for _, case in ipairs(refused) do
    it("refuses " .. case[1]:sub(1, 40):gsub("[^\32-\126]", "?"), function()
      local box, why = address.parse(case[1])
      assert.is_nil(box)
      assert.is_truthy(why:find(case[2], 1, true), why)
      assert.are.equal(case[3], tonumber(why:match("at position (%d+)")), why)
      assert.is_nil(why:find("[^\32-\126\128-\255]"))
    end)
  end

  it("shows where, with control bytes escaped", function()
    local _, why = address.parse("a@b\r\nQUIT")
    assert.are.equal('carriage return at position 4: "\\x0D\\x0AQUIT"', why)
  end)

  it("refuses what is not a string", function()
    for _, value in ipairs { 1, true, {} } do
      assert.is_nil((address.parse(value)))
    end
  end)
end)

describe("address.list", function()
  local function flat(value)
    local boxes, why = address.list(value)
    if not boxes then
      return nil, why
    end
    local out = {}
    for i, box in ipairs(boxes) do
      out[i] = (box.name or "") .. "|" .. box.address
    end
    return out
  end

  it("takes every form", function()
    assert.are.same({ "|a@b", "C|c@d", "E, F|e@f" }, flat 'a@b, C <c@d> ,"E, F" <e@f>')
    assert.are.same({ "Ada|a@b" }, flat { name = "Ada", address = "a@b" })
    assert.are.same({ "|a@b" }, flat { name = "", address = "a@b" })
    assert.are.same({ "|a@b", "D <x@y>, E|d@e", "|f@g", "|h@i" },
      flat { "a@b", { name = "D <x@y>, E", address = "d@e" }, "f@g, h@i" })
    assert.are.same({}, flat {})
  end)

  it("refuses the rest with a reason", function()
    local cases = {
      { "a@b,", "an address is missing" },
      { ",a@b", "unexpected character at position 1" },
      { "a@b,,c@d", "unexpected character at position 5" },
      { "a@b c@d", "unexpected character at position 5" },
      { { "a@b", "c@d@e" }, "item 2: unexpected character at position 4" },
      { { "a@b", "" }, "item 2: an address is missing" },
      { { "a@b", 5 }, "item 2: a string is needed" },
      { { name = "Ada" }, "a string is needed" },
      { { address = "Ada <a@b>" }, '"@" is missing' },
      { { address = "a@b, c@d" }, "unexpected character at position 4" },
      { { address = "a@b ", name = "x" }, "unexpected character at position 4" },
      { { address = "" }, "an address is missing" },
      { { address = "a@b\n" }, "line feed" },
      { { name = "A\rB", address = "a@b" }, "name: carriage return" },
      { { name = "A\255", address = "a@b" }, "name: invalid UTF-8" },
      { { name = {}, address = "a@b" }, "name: a string is needed" },
      { 5, "a mailbox or a list" },
      { nil, "a mailbox or a list" },
    }
    for i = 1, 18 do
      local out, why = flat(cases[i][1])
      assert.is_nil(out, cases[i][2])
      assert.is_truthy(why:find(cases[i][2], 1, true), why)
    end
  end)

  it("leaves the caller's tables alone", function()
    local given = { { name = "A", address = '"a"@b' } }
    local boxes = address.list(given)
    assert.are.same({ { name = "A", address = '"a"@b' } }, given)
    assert.are.equal("a@b", boxes[1].address)
  end)

  it("handles a megabyte in linear time", function()
    local cases = {
      ("Ada Lovelace <ada@example.org>, "):rep(32768) .. "a@b",
      ("a "):rep(2 ^ 19), ("\\a"):rep(2 ^ 19), '"' .. ("\\a"):rep(2 ^ 19), (" "):rep(2 ^ 20),
      ("a."):rep(2 ^ 19) .. "@b",
      ("<"):rep(2 ^ 20), ("("):rep(2 ^ 20), ('"a" '):rep(2 ^ 18), "a@" .. ("b."):rep(2 ^ 19),
      "a@[" .. (":"):rep(2 ^ 20),
      "a@" .. ("-"):rep(2 ^ 20), ("\195\188"):rep(2 ^ 19) .. "@b", ("a"):rep(2 ^ 20) .. "\255", (","):rep(2 ^ 20),
    }
    for i, case in ipairs(cases) do
      local start = os.clock()
      local boxes = address.list(case)
      assert.are.equal(i == 1 and 32769 or nil, boxes and #boxes)
      assert.is_true(os.clock() - start < 2, "case " .. i)
    end
  end)
end)

describe("address.reverse_path", function()
  it("alone takes the null path", function()
    assert.are.same({ address = "" }, address.reverse_path "")
    assert.are.same({ address = "" }, address.reverse_path "<>")
    assert.are.equal("a@b", address.reverse_path("A <a@b>").address)
    assert.are.equal("a@b", address.reverse_path({ address = "a@b" }).address)
    assert.is_nil((address.reverse_path " "))
    assert.is_nil((address.reverse_path "a@b, c@d"))
    assert.is_nil((address.reverse_path {}))
    assert.is_nil((address.mailbox "<>"))
  end)
end)

describe("address.key", function()
  it("folds the domain's case alone", function()
    assert.are.equal('"A@B"@example.org', address.key '"A@B"@Example.ORG')
    assert.are_not.equal(address.key "a@b", address.key "A@b")
  end)
end)
