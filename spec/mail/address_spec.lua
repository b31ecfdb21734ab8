local address = require "smtp.mail.address"
local core = require "smtp.core"
local linear = require "spec.support.linear"

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
    { "a@_b.c_d.e_", "a@_b.c_d.e_" },
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
    { "friends: a@b, c@d;", "groups are not accepted here", 8 },
    { "one: a@b;", "groups are not accepted here", 4 },
    { "undisclosed-recipients:;", "groups are not accepted here", 23 },
    { "a@b;", "only ends a group", 4 },
    { "a@b:c@d", "unexpected character", 4 },
    { "a@192.0.2.1", "needs brackets", 3 },
    { "a@[192.0.2.010]", "address literal", 3 }, -- 8 to a reader that takes it for octal
    { "a@[IPv6:::192.0.02.1]", "address literal", 3 },
    { "\194\160a@b", "invisible", 1 },
    { "<\226\128\139a@b>", "invisible", 2 },
    { "\226\128\170a@b", "invisible", 1 },
    { "\227\128\128a@b", "invisible", 1 },
    { "\239\187\191a@b", "invisible", 1 },
    { "=?utf-8?q?x=40evil?=@good", "encoded word", 1 },
    { '"=?utf-8?q?x=40evil?="@good', "encoded word", 1 },
    { "=?utf-8?q?x=40evil?=", 'no "@"', 1 },
    { "a@=?utf-8?q?evil?=", "a domain is missing", 3 },
    { "a@x=?utf-8?q?evil?=", "no domain may hold", 4 },
    { "a@b!c", "no domain may hold", 4 },
    { "a@b_-.c", "hyphen", 3 },
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

  it("does twice the work for twice the text #linear", function()
    local cases = {
      function(n) return ("Ada \"B, C\" <ada@example.org>, "):rep(n / 16) .. "a@b" end,
      function(n) return ("Team: \"B, C\" <b@example.org>, c@d;, "):rep(n / 16) .. "a@b" end,
      function(n) return ("Team: a@b, \"c, d\"@e;, x:;, "):rep(n / 16) .. "a@b" end,
      function(n) return "Team: " .. ("a@b, "):rep(n / 4) .. "c@d;" end,
      function(n) return "Team: " .. ("a@b, "):rep(n / 4) .. "c@d" end,
      function(n) return ("x:;, "):rep(n / 4) .. "x:;" end,
      function(n) return ("a:"):rep(n / 2) end,
      function(n) return ("a "):rep(n / 2) .. ":;" end,
      function(n) return ("\"a: b;\" "):rep(n / 4) .. ": a@b;" end,
      function(n) return "a:" .. (";"):rep(n) end,
      function(n) return '"' .. ("\\a"):rep(n) end,
      function(n) return ("a."):rep(n) .. "@b" end,
      function(n) return ('"a" '):rep(n / 2) end,
      function(n) return "a@" .. ("b."):rep(n) end,
      function(n) return "a@[" .. (":"):rep(n) end,
      function(n) return ("a "):rep(n / 2) .. ":" end,
      function(n) return "a@" .. ("-"):rep(n) end,
      function(n) return ("\195\188"):rep(n / 2) .. "@b" end,
      function(n) return ("a"):rep(n) .. "\255" end,
      function(n) return "a@" .. ("\195\188"):rep(n / 2) end,
      function(n) return "a@" .. ("\195\188."):rep(n / 2) end,
      function(n) return "a:" .. (" "):rep(n) end,
    }
    for _, piece in ipairs { "a ", "\\a", " ", "<", "(", ":", ";", "," } do
      cases[#cases + 1] = function(n) return piece:rep(math.floor(n / #piece)) end
    end
    for i, case in ipairs(cases) do linear(address.list, case, 2 ^ 18, "case " .. i) end
  end)

  it("takes a megabyte", function()
    assert.are.equal(32769, #address.list(("Ada Lovelace <ada@example.org>, "):rep(32768) .. "a@b"))
    assert.are.equal(65537, #address.list(("Team: \"B, C\" <b@example.org>, c@d;, "):rep(32768) .. "a@b"))
  end)
end)

describe("a group", function()
  -- "a@b Team{C|c@d}": what the list holds, in order
  local function shape(value)
    local boxes, why = address.list(value)
    if not boxes then
      return nil, why
    end
    local function words(items)
      local out = {}
      for i, item in ipairs(items) do
        out[i] = item.members and item.group .. "{" .. words(item.members) .. "}"
          or (item.name and item.name .. "|" or "") .. item.address
      end
      return table.concat(out, " ")
    end
    return words(boxes.items), words(boxes)
  end

  local taken = {
    { 'Team: ada@example.org, "B, C" <b@x>;, c@x', "Team{ada@example.org B, C|b@x} c@x", "ada@example.org B, C|b@x c@x" },
    { "undisclosed-recipients:;", "undisclosed-recipients{}", "" },
    { "  A  b : a@b ; , c@d ", "A b{a@b} c@d", "a@b c@d" },
    { "c@d, T: ; , U:a@b;", "c@d T{} U{a@b}", "c@d a@b" },
    { '"T: x;": a@b;', "T: x;{a@b}", "a@b" },
    { "Dr. J\195\188rgen: a@b;", "Dr. J\195\188rgen{a@b}", "a@b" },
    { "=?utf-8?q?x?=: a@b;", "=?utf-8?q?x?={a@b}", "a@b" },
    { { "T: a@b;", { name = "C", address = "c@d" }, "e@f, U:;" }, "T{a@b} C|c@d e@f U{}", "a@b C|c@d e@f" },
    { { name = "T:", address = "a@b" }, "T:|a@b", "T:|a@b" },
    { {}, "", "" },
  }
  for i, case in ipairs(taken) do
    it("is read in its place, case " .. i, function()
      assert.are.same({ case[2], case[3] }, { shape(case[1]) })
    end)
  end

  local refused = {
    { "T: U: a@b;;", "a group inside a group at position 4" },
    { "T: a@b, U: c@d;;", "a group inside a group at position 9" },
    { "T: a@b", 'this group is never closed with ";" at position 1' },
    { "a@b, T:", 'this group is never closed with ";" at position 6' },
    { "T: a@b, ", "an address is missing at the end" },
    { ": a@b;", "a group without a name at position 1" },
    { '"": a@b;', "a group without a name at position 3" },
    { "T: a@b;;", "only ends a group" },
    { ";", "only ends a group" },
    { "T;", 'no "@" in this address at position 1' },
    { "T: a;", 'no "@" in this address at position 4' },
    { "T: a@b c@d;", "unexpected character at position 8" },
    { "T: a@b; c@d", "unexpected character at position 9" },
    { "T: a@b;,", "an address is missing at the end" },
    { "T: a@b,;", 'only ends a group; addresses are parted by "," at position 8' },
    { "T: ,a@b;", "unexpected character at position 4" },
    { "a@b T: c@d;", "unexpected character at position 5" },
    { "T@b: c@d;", "unexpected character at position 4" },
    { "<T>: c@d;", '"@" is missing at position 3' },
    { "T: <a@b;", '">" is missing at position 8' },
    { "T: a@b>;", "unexpected character at position 7" },
    { "T (x): a@b;", "comments are not accepted at position 3" },
    { { "T: a@b", "c@d;" }, "item 1: this group is never closed" },
    { { address = "T: a@b;" }, '"@" is missing' },
    { { { group = "T", members = {} } }, "item 1: a string is needed" },
  }
  for i, case in ipairs(refused) do
    it("is refused with the place that is wrong, case " .. i, function()
      local boxes, why = address.list(case[1])
      assert.is_nil(boxes)
      assert.is_truthy(why:find(case[2], 1, true), why)
    end)
  end

  it("never stands where mailboxes are needed", function()
    for _, of in ipairs { address.mailbox, address.mailboxes, address.reverse_path, address.parse, address.exact } do
      for _, value in ipairs { "T: a@b;", "a@b, T:;", "T:;" } do
        assert.is_nil((of(value)))
      end
    end
    assert.is_nil((address.mailboxes { "a@b", "T: a@b;" }))
    assert.are.equal(2, #address.mailboxes { "a@b", "c@d" })
  end)

  it("ten thousand deep is refused at the second", function()
    local _, why = address.list(("a:"):rep(10000))
    assert.is_truthy(why:find("^a group inside a group at position 3: "), why)
  end)
end)

-- The module as it is on a host where core.idn is `idn`.
local function address_with(idn)
  local kept = package.loaded["smtp.mail.address"]
  package.loaded["smtp.mail.address"] = nil
  package.loaded["smtp.core"] = setmetatable({ idn = idn }, { __index = core })
  local module = require "smtp.mail.address"
  package.loaded["smtp.core"], package.loaded["smtp.mail.address"] = core, kept
  return module
end

describe("an internationalised domain", function()
  local function with_library(title, run)
    it(title, function()
      if not core.idn "a.b" then
        return pending "libidn2 is not installed"
      end
      run()
    end)
  end

  with_library("goes in A-labels behind an ASCII local part", function()
    for _, value in ipairs { "x@B\195\156CHER.example", "X <x@b\195\188cher\227\128\130example>",
      { address = "x@b\195\188cher.example" } } do
      local box = address.mailbox(value)
      assert.are.equal("x@xn--bcher-kva.example", box.address)
      assert.is_nil(box.utf8)
    end
    assert.are.equal("x@xn--bcher-kva.example", address.reverse_path("x@b\195\188cher.example").address)
    assert.are.equal("x@xn--b.example", address.parse("x@xn--b.example").address)
    assert.are.equal("x@XN--BCHER-KVA.example", address.parse("x@XN--BCHER-KVA.example").address)
    assert.are.equal("T", address.list("T: x@\195\188.b;").items[1].group)
    -- longer than 255 octets only before it is converted
    local long = ("\230\151\165"):rep(50) .. "." .. ("\230\156\172"):rep(50) .. ".example"
    assert.is_true(#address.parse("x@" .. long).address < 140)
    assert.is_nil((address.parse("\195\188@" .. long)))
  end)

  with_library("stays in U-labels behind any other", function()
    local box = address.parse "\195\188@B\195\156CHER.example"
    assert.are.same({ address = "\195\188@b\195\188cher.example", utf8 = true }, box)
  end)

  with_library("is refused where IDNA refuses it or no domain comes out, and shown", function()
    for _, name in ipairs {
      "a\239\188\143b\195\188", "a\239\188\160b\195\188", "a\226\132\128b\195\188", -- fullwidth / and @, a/c
      "a\226\128\141b", "\195\188\226\128\168", "\239\188\191", "\195\188\239\188\191b", -- joiner, U+2028, fullwidth _
      "\195\188\239\188\142\239\188\142b", "\195\188.", ".\195\188", "\195\188-", "-\195\188", "\226\152\131",
      "\239\188\145.2.3.4", "xn--zzzz.\195\188", ("\195\188"):rep(60), ("\195\188."):rep(60) .. "b",
      ("\195\188"):rep(2000), "b\195\188\194\160",
    } do
      for _, name_before in ipairs { "a", "\195\188" } do
        local box, why = address.parse(name_before .. "@" .. name)
        assert.is_nil(box, name)
        local at = #name_before + 2
        assert.is_truthy(why:find(("^not an international domain %%(.*%%) at position %d: "):format(at)), why)
      end
    end
  end)

  it("is checked again, whatever libidn2 says", function()
    for _, result in ipairs { "a/b", "a@b", "a b", "a..b", "a.", "-a", "a_b", "a>b", "\195\188", "1.2.3.4", "",
      "a\r\nb", ("a"):rep(64), ("a."):rep(128) .. "a" } do
      local odd = address_with(function() return result, "\195\188" end)
      assert.is_nil((odd.parse "a@\195\188"), result)
      assert.is_nil((odd.parse "\195\188@\195\188"), result)
    end
    assert.are.equal("a@c", address_with(function() return "c", "\195\188" end).parse("a@\195\188").address)
    -- an underscore that was written is one; one that came of another character is none
    assert.are.equal("a@c_d", address_with(function() return "c_d", "\195\188" end).parse("a@c_\195\188").address)
  end)

  it("needs SMTPUTF8 where there is no libidn2", function()
    local plain = address_with(function() end)
    assert.are.same({ address = "x@b\195\188cher.example", utf8 = true }, plain.parse "x@b\195\188cher.example")
    assert.is_nil((plain.parse "x@\195\188..b"))
    assert.is_nil((plain.parse("x@" .. ("\195\188"):rep(128))))
  end)

  it("stays as a peer wrote it", function()
    local spec = "x@B\195\156CHER.example"
    assert.are.same({ address = spec, utf8 = true }, address.exact(spec))
    assert.are.same({ address = "x@y" }, address.exact "x@y")
    for _, value in ipairs { "", "x", "x@", "X <x@y>", "<x@y>", " x@y", "x@y ", "x@y, z@y", "x@y\r", "x@\195\188..b" } do
      assert.is_nil((address.exact(value)), value)
    end
    assert.is_nil((address.exact(nil)))
  end)
end)

describe("An invisible character in an address", function()
  local characters = {
    ["a soft hyphen"] = "\194\173", ["a no-break space"] = "\194\160", ["the grapheme joiner"] = "\205\143",
    ["an Arabic letter mark"] = "\216\156", ["a Hangul filler"] = "\227\133\164", ["a Hangul choseong filler"] = "\225\133\159",
    ["a halfwidth Hangul filler"] = "\239\190\160", ["a Mongolian vowel separator"] = "\225\160\142",
    ["a Mongolian variation selector"] = "\225\160\139", ["a Khmer inherent vowel"] = "\225\158\180",
    ["an em space"] = "\226\128\131", ["a zero width space"] = "\226\128\139", ["a joiner"] = "\226\128\141",
    ["a right-to-left mark"] = "\226\128\143", ["a right-to-left override"] = "\226\128\174",
    ["a word joiner"] = "\226\129\160", ["an invisible times"] = "\226\129\162", ["an isolate"] = "\226\129\166",
    ["an inhibitor of swapping"] = "\226\129\170", ["a blank Braille pattern"] = "\226\160\128",
    ["an ideographic space"] = "\227\128\128", ["a variation selector"] = "\239\184\143", ["a byte order mark"] = "\239\187\191",
    ["an annotation anchor"] = "\239\191\185", ["a musical beam"] = "\240\157\133\179", ["a tag"] = "\243\160\129\129",
    ["a supplementary variation selector"] = "\243\160\132\128", ["a shorthand format control"] = "\240\155\178\160",
  }
  for name, character in pairs(characters) do
    it("is refused wherever it stands: " .. name, function()
      for _, form in ipairs { "?ada@example.org", "a?da@example.org", "ada?@example.org", '"a ?da"@example.org', "ada@?example.org",
        "ada@exa?mple.org", "ada@example.org?", "\195\188@exa?mple.\195\188" } do
        local spec = form:gsub("?", character)
        for _, value in ipairs { spec, "Ada <" .. spec .. ">", { address = spec }, { "b@c", { name = "Ada", address = spec } } } do
          assert.is_nil((address.list(value)), spec)
          assert.is_nil((address.mailboxes(value)), spec)
        end
        assert.is_nil((address.exact(spec)), spec)
      end
      assert.are.equal("a" .. character .. "b", address.parse("a" .. character .. "b <ada@example.org>").name)
    end)
  end

  it("is shown with its place", function()
    assert.is_truthy(select(2, address.parse "ad\194\173a@example.org"):find("^an invisible character in an address at position 3: "))
  end)

  it("is none of the characters that are seen", function()
    for _, seen in ipairs { "\194\161", "\194\172", "\194\174", "\205\142", "\205\144", "\225\160\144", "\226\128\144", "\226\129\176",
      "\227\128\129", "\239\184\144", "\239\191\188", "\240\159\152\128", "\243\161\128\128" } do
      local spec = "a" .. seen .. "b@example.org"
      assert.are.equal(spec, address.parse(spec).address)
    end
  end)
end)

describe("The postmaster", function()
  it("is a recipient without a domain (RFC 5321 4.1.1.3)", function()
    for _, value in ipairs { "postmaster", "<postmaster>", " Postmaster ", "<POSTMASTER>", { "postmaster" }, { address = "postmaster" },
      { { name = "P", address = "postmaster" } } } do
      local box = assert(address.mailboxes(value))[1]
      assert.are.equal("postmaster", box.address:lower())
    end
    local boxes = assert(address.mailboxes "a@b, postmaster, <Postmaster>,c@d")
    assert.are.same({ "a@b", "postmaster", "Postmaster", "c@d" },
      { boxes[1].address, boxes[2].address, boxes[3].address, boxes[4].address })
    assert.are.equal("postmaster", address.parse("<postmaster>", true).address)
    assert.are.equal("postmaster@example.org", address.parse("postmaster@example.org", true).address)
  end)

  it("is no mailbox for a header field, and nobody else goes without a domain", function()
    for _, value in ipairs { "postmaster", "<postmaster>", { address = "postmaster" } } do
      assert.is_nil((address.list(value)))
      assert.is_nil((address.mailbox(value)))
      assert.is_nil((address.reverse_path(value)))
    end
    for _, value in ipairs { "postmasters", "root", "<root>", "post master", "postmaster x", "postmaster <", "<postmaster", "postmaster>",
      "P <postmaster>", "postmaster;", { address = "<postmaster>" }, { address = "root" } } do
      assert.is_nil((address.mailboxes(value)))
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
