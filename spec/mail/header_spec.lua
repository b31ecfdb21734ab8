-- Of: mail/date
local address = require "smtp.mail.address"
local header = require "smtp.mail.header"
local core = require "smtp.core"
local linear = require "spec.support.linear"
local text = require "smtp.mail.text"
local steps = require "spec.support.steps"
local read_messages = dofile "spec/support/read_message.lua"

local CRLF = "\r\n"

-- What holds for every field: CRLF at line ends only, printable, no line too long, none of white space alone.
local function assert_well_formed(field, width)
  assert.are.equal(CRLF, field:sub(-2))
  for line in field:gmatch("(.-)\r\n") do
    assert.is_nil(line:find("[\r\n]"))
    assert.is_truthy(line:find("[^ \t]"))
    assert.is_true(#line <= (width or 998), line)
    for word, kind, letters in line:gmatch("(=%?utf%-8%?([BQ])%?([^?]*)%?=)") do
      assert.is_true(#word <= 75, word)
      assert.is_true(#line <= 76, line)
      local bytes = kind == "B" and assert(core.unbase64(letters))
        or letters:gsub("=(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end)
      assert.is_nil(text.invalid(bytes), word) -- no character is split
    end
  end
  for continued in field:gmatch("\r\n([^\r])") do
    assert.is_truthy(continued:find("[ \t]"))
  end
end

describe("header.text", function()
  local exact = {
    { "Subject", "Hello", "Subject: Hello\r\n" },
    { "Subject", "", "Subject:\r\n" },
    { "Subject", "two  blanks\tand a tab", "Subject: two  blanks\tand a tab\r\n" },
    { "Subject", "Gr\195\188\195\159e", "Subject: =?utf-8?B?R3LDvMOfZQ==?=\r\n" },
    { "Subject", "Bergfu\195\159pfad at noon", "Subject: =?utf-8?Q?Bergfu=C3=9Fpfad?= at noon\r\n" },
    { "Subject", "the =?utf-8?q?x?= word", "Subject: the =?utf-8?B?PT91dGYtOD9xP3g/PQ==?= word\r\n" },
    { "Subject", " led", "Subject: =?utf-8?Q?_led?=\r\n" },
    { "Subject", "trailed ", "Subject: =?utf-8?Q?trailed_?=\r\n" },
    { "Subject", "\195\164\195\164 " .. ("b"):rep(46), "Subject: =?utf-8?B?w6TDpA==?= " .. ("b"):rep(46) .. CRLF },
    { "Subject", "\195\164\195\164 " .. ("b"):rep(47), "Subject: =?utf-8?B?w6TDpA==?=\r\n " .. ("b"):rep(47) .. CRLF },
    { "X-A", ("a"):rep(40) .. " " .. ("b"):rep(40), "X-A: " .. ("a"):rep(40) .. "\r\n " .. ("b"):rep(40) .. CRLF },
  }
  for _, case in ipairs(exact) do
    it("writes " .. case[3]:sub(1, 60):gsub("%c", "?"), function()
      assert.are.equal(case[3], header.text(case[1], case[2]))
    end)
  end

  local subjects = {
    "plain", "Gr\195\188\195\159e \240\159\152\128 \240\159\145\169\226\128\141\240\159\146\187",
    ("\240\159\152\128"):rep(200), ("\230\188\162\229\173\151"):rep(100), ("na\195\175ve "):rep(60) .. "end",
    ("word "):rep(300) .. "end", ("x"):rep(997), ("x"):rep(5000), "a " .. ("y"):rep(989) .. " b", ("x"):rep(989),
    "=?utf-8?B?aGFja2Vk?=", "a=?b?=c", "=?=?=?= =?utf-8?q?=41?=", "=? utf-8 ?q? x ?=", "a\195\164 \195\164  \195\164b",
    "\195\164 b \195\164", "tab\tin \195\164\ttext", "a" .. (" "):rep(30) .. "b", "\195\164" .. (" "):rep(2000) .. "b",
    "\"quotes\", (parens) <angles> ; : \\", "e\204\129 combining", "\226\128\168 line separator \231\152\141", "?=",
    "_ under_score",
    "b  \195\164", "b\t \195\164", ("\195\164"):rep(20) .. " abcdefghij", ("\195\164"):rep(19) .. " 12345678 9",
    ("a"):rep(69) .. " \195\164", ("a"):rep(66) .. " \195\164\195\164\195\164 tail",
  }
  it("reads back unchanged in another program", function()
    local messages = {}
    for i, subject in ipairs(subjects) do
      local field, why = header.text("Subject", subject)
      assert.is_nil(why)
      assert_well_formed(field)
      messages[i] = "Content-Type: text/plain\r\n" .. field .. CRLF
    end
    for i, read in ipairs(read_messages(messages)) do
      assert.are.equal(subjects[i], read.fields.subject)
      assert.are.same({}, read.defects)
    end
  end)

  it("folds at 78 wherever a blank lets it", function()
    assert_well_formed(header.text("Subject", ("word "):rep(300) .. "end"), 78)
    assert_well_formed(header.text(("N"):rep(76), "\195\164 plain words after it"), 78)
  end)

  it("cuts a long display name at blanks, where it has some", function()
    for _, name in ipairs {
      "Gr\195\182\195\159ere \195\156bersetzungen und \195\132nderungen f\195\188r \195\132hnliches, K\195\182ln", ("l\195\182ng "):rep(40) .. "name",
      ("\230\152\160 \230\152\160\231\148\187 "):rep(12) .. "x",
    ("\208\158\208\177\209\137\208\181\209\129\209\130\208\178\208\190 \209\129  "):rep(9) .. "\209\143",
      ("\230\152\160\231\148\187\230\152\160\231\148\187\230\152\160\231\148\187\230\152\160\231\148\187 "):rep(4) .. "\230\152\160",
      ("\208\158\208\158\208\158\208\158\208\158\208\158\208\158\208\158\208\158\208\158\208\158\208\158\208\158 "):rep(5) .. "\208\158",
      ("\240\159\152\128\240\159\152\128\240\159\152\128 "):rep(9) .. "\240\159\152\128",
    } do
      for _, before in ipairs { "", "a@b.example, ", ("a"):rep(50) .. "@b.example, " } do
        local list = assert(address.list(before .. "x <c@d>"))
        list[#list].name = name
        local field = header.addresses("To", list)
        assert_well_formed(field)
        local whole = {}
        for kind, letters in field:gmatch("=%?utf%-8%?([BQ])%?([^?]*)%?=") do
          local bytes = kind == "B" and assert(core.unbase64(letters))
            or letters:gsub("_", " "):gsub("=(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end)
          whole[#whole + 1] = bytes
        end
        assert.are.equal(name, table.concat(whole))
        assert.is_true(#whole > 1)
        for i = 1, #whole - 1 do
          assert.is_truthy(whole[i]:sub(-1) == " " or whole[i + 1]:sub(1, 1) == " ", field)
        end
      end
    end
  end)

  it("takes linear time #linear", function()
    for _, piece in ipairs { "a", "\195\188", " ", "a ", "=?", "\195\188 a ", "a\t \t" } do
      for _, before in ipairs { "", "a" } do
        linear(function(value) assert.is_string(header.text("Subject", value)) end,
          function(n) return before .. piece:rep(math.floor(n / #piece)) end, 2 ^ 18, before .. piece)
      end
    end
  end)
end)

describe("the gate", function()
  local makers = {
    text = function(value) return header.text("X-Test", value) end,
    field = function(value) return header.field("X-Test", value) end,
    parameter = function(value) return header.parameter("X-Test", "a/b", { { "name", value } }) end,
    ["parameter's value"] = function(value) return header.parameter("X-Test", value) end,
    ["display name"] = function(value) return header.addresses("X-Test", { { name = value, address = "a@b" } }) end,
    address = function(value) return header.addresses("X-Test", { { address = value } }) end,
  }
  for name, make in pairs(makers) do
    it("refuses control bytes and broken UTF-8 in a " .. name, function()
      for byte = 0, 31 do
        if byte ~= 9 then
          for _, value in ipairs { "%sab", "a%sb", "ab%s" } do
            local field, why = make((value:gsub("%%s", { ["%s"] = string.char(byte) })))
            assert.is_nil(field)
            assert.is_truthy(why:find("X-Test", 1, true))
            assert.is_nil(why:find("[^\32-\126\128-\255]"))
          end
        end
      end
      for _, value in ipairs { "a\127", "a\r\nBcc: x@y", "a\r\n b", "\255", "a\195", "\192\128", "\237\160\128",
        "\244\144\128\128" } do
        assert.is_nil((make(value)))
      end
      assert.is_nil((make(5)))
    end)
  end

  it("takes only field names", function()
    for _, name in ipairs { "", "a b", "a:", "a\r\n", "\195\164", "a\0", ("n"):rep(77), "a\127", " a", 5, false } do
      assert.is_nil((header.text(name, "v")))
      assert.is_nil((header.field(name, "v")))
      assert.is_nil((header.addresses(name, { { address = "a@b" } })))
      assert.is_nil((header.parameter(name, "v")))
    end
    assert.is_truthy(header.text(("n"):rep(76), "v"))
    assert.is_truthy(header.text("!#$%&'*+-.^_`|~;", "v"))
  end)
end)

describe("header.field", function()
  it("folds at blanks and encodes nothing", function()
    assert.are.equal("References: <" .. ("a"):rep(60) .. "@b>\r\n <c@d>\r\n",
      header.field("References", "<" .. ("a"):rep(60) .. "@b> <c@d>"))
    assert.is_nil((header.field("X-A", "\195\164")))
    assert.is_nil((header.field("X-A", ("a"):rep(999))))
    assert.is_nil((header.field("X-A", "a" .. (" "):rep(999) .. "b")))
    assert_well_formed(header.field("X-A", " a  b "))
  end)
end)

describe("header.addresses", function()
  it("uses the plainest form of a display name", function()
    local function written(name)
      return header.addresses("To", { { name = name, address = "a@b" } }):match("^To: (.*) <a@b>\r\n$")
    end
    assert.are.equal("Ada Lovelace", written "Ada Lovelace")
    assert.are.equal('"Lovelace, Ada"', written "Lovelace, Ada")
    assert.are.equal('"J. Doe"', written "J. Doe")
    assert.are.equal('" a"', written " a")
    assert.are.equal('"a  b"', written "a  b")
    assert.are.equal('"say \\"\\\\\\""', written 'say "\\"')
    assert.are.equal("=?utf-8?Q?J=C3=BCrgen?=", written "J\195\188rgen")
    assert.are.equal("=?utf-8?B?PT94Pz0=?=", written "=?x?=")
  end)

  local boxes = {
    { name = "Ada Lovelace", address = "ada@example.org" }, { address = "bare@example.org" },
    { name = 'Quote " and \\ and , <x@y>', address = "q@example.org" },
    { name = "J\195\188rgen, Dr. \240\159\152\128", address = "j@example.org" },
    { name = ("long "):rep(40) .. "name", address = "long@example.org" },
    { name = ("l\195\182ng "):rep(40) .. "name", address = "loeng@example.org" },
    { name = ("quoted, "):rep(40) .. "name", address = "quoted@example.org" },
    { name = ("x"):rep(3000), address = "x@example.org" },
    { name = "=?utf-8?q?evil?= <e@e>", address = "e@example.org" },
    { name = "undisclosed: x;", address = '"x@a x"@example.org' },
  }
  local ascii = {
    { name = "(comment)", address = "a@[192.0.2.1]" }, { name = "Ada", address = '"a,b"@example.org' },
    { name = "a@b", address = "c@d" }, { name = '"', address = "e@f" }, { name = "\\", address = "g@h" },
  }
  it("reads back unchanged in another program", function()
    local lists, messages = { boxes, ascii }, {}
    for i, list in ipairs(lists) do
      local field = header.addresses("To", list)
      assert_well_formed(field)
      messages[i] = "Content-Type: text/plain\r\n" .. field .. CRLF
    end
    for i, read in ipairs(read_messages(messages)) do
      assert.are.equal(#lists[i], #read.addresses.to)
      for j, box in ipairs(lists[i]) do
        assert.are.same({ box.name or "", box.address }, read.addresses.to[j])
      end
      assert.are.same({}, read.defects)
    end
  end)

  it("takes linear time #linear", function()
    for i, make in ipairs {
      function(n) return assert(address.list(("J\195\188rgen <ada@example.org>, \"a, b\" <c@d>, "):rep(n / 32) .. "a@b")) end,
      function(n) return { { name = ("\195\188"):rep(n / 2), address = "a@b" } } end,
      function(n) return { { name = ('"'):rep(n), address = "a@b" } } end,
    } do
      linear(function(list) assert.is_string(header.addresses("To", list)) end, make, 2 ^ 18, "case " .. i)
    end
  end)

  it("writes groups in their places", function()
    local function written(value)
      return header.addresses("To", assert(address.list(value)))
    end
    assert.are.equal("To: Team: a@x.org, b@x.org;\r\n", written "Team:a@x.org ,b@x.org ;")
    assert.are.equal("To: undisclosed-recipients:;\r\n", written "undisclosed-recipients:;")
    assert.are.equal('To: c@d, A B: "B, C" <b@x.org>;, U:;, e@f\r\n', written 'c@d, A B: "B, C" <b@x.org>;, U:;, e@f')
    assert.are.equal('To: "T: x": a@b;\r\n', written '"T: x": a@b;')
    -- RFC 2047 5 (3): white space stands between an encoded word and what follows it
    assert.are.equal("To: =?utf-8?Q?J=C3=BCrgen?= : a@b;\r\n", written "J\195\188rgen: a@b;")
    assert.are.equal("To: =?utf-8?B?PT94Pz0=?= :;, a@b\r\n", written "=?x?=:;, a@b")
    local name = ("T"):rep(60)
    assert.are.equal("To: " .. name .. ": aaa@example,\r\n b@c;\r\n", written(name .. ": aaa@example, b@c;")) -- 78
    assert.are.equal("To: " .. name .. ":\r\n aaaa@example, b@c;\r\n", written(name .. ": aaaa@example, b@c;"))
  end)

  it("folds groups at 78", function()
    local list = assert(address.list(('T: ada@example.org, "B, C" <b@example.org>;, \195\188 x: c@d;, u:;, '):rep(50) .. "a@b"))
    assert_well_formed(header.addresses("To", list), 78)
  end)

  it("refuses an unfit name or address inside a group", function()
    for _, group in ipairs { { group = "a\rb", members = {} }, { group = "a", members = { { address = "a@b\nc" } } },
      { group = "a", members = { { name = "\0", address = "a@b" } } } } do
      assert.is_nil((header.addresses("To", { { address = "x@y" }, group })))
    end
  end)

  it("does twice the work for twice the list #linear", function()
    for i, value in ipairs { "Team: a@b, \"c, d\" <e@f>;, x:;, ", "\195\188 \195\188: \195\188 <a@b>;, ", "x:;, " } do
      local once, twice = assert(address.list(value:rep(2000) .. "a@b")), assert(address.list(value:rep(4000) .. "a@b"))
      local single, double = steps(header.addresses, "To", once), steps(header.addresses, "To", twice)
      assert.is_true(double <= 2.1 * single, ("case %d: %d, then %d"):format(i, single, double))
    end
  end)

  -- Whatever address.list takes, another program reads as the same mailboxes in the same groups.
  local function corpus()
    local list = {
      '""@example.org', '"a..b"@example.org', '".a"@example.org', '"a."@example.org', '"  "@example.org', '"a \\" b"@x',
      "a@[192.0.2.1]", "a@[IPv6:2001:db8::1]", "a@[IPv6:::]", "a@[ipv6:1:2:3:4:5:6:192.0.2.1]", "root@localhost",
      "J. Doe <a@b>", "\240\159\152\128 <a@b>", '"\240\159\152\128, x" <a@b>', "=?utf-8?q?Ada?= <a@b>",
      '" a" <a@b>', '"a " <a@b>', '"a  b" <a@b>', '"  " <a@b>', 'Ada "B. C" D <a@b>', "'a'@b", "\"'a'\"@b", "'x' <a@b>",
      "O'Neil <o'neil@b>", "a.b@c.d", '"x@a x"@b', '"<x>"@b', '"\\a\\b" "c" <a@b>', '"' .. ("x "):rep(200) .. '" <a@b>',
      'Team: a@b, "B, C" <b@example.org>;, c@example.org', "undisclosed-recipients:;", "a:;, b:;, c: d@e;, f@g",
      "\240\159\152\128 team: a@b;", '"a:b;": x@y;', 'J. D. team: "x;y"@b;', '"=?utf-8?q?evil?= <e@e>": a@b;',
      '"' .. ("x"):rep(70) .. ',": a@b;', ("x"):rep(900) .. ": a@b;", '"a" b: "c:d;" <"e:;"@f>, g@h;, "i, j" <k@l>',
    }
    for byte = 32, 126 do
      local c = string.char(byte)
      local q = c:find('["\\]') and "\\" .. c or c
      for _, form in ipairs { '"a?b"@example.org', '"?"@example.org', '"x?y" <a@example.org>', '"?" <a@b>', '"?z": a@b;' } do
        list[#list + 1] = form:gsub("%?", (q:gsub("%%", "%%%%")))
      end
      list[#list + 1] = '"\\' .. c .. '"@example.org'
      if c:find("[A-Za-z0-9!#$%%&'*+/=?^_`{|}~-]") then
        list[#list + 1] = ("%s %sx <a%sb@example.org>"):format(c, c, c)
      end
    end
    return list
  end

  -- The reader shows a local part without the quotes in some cases; nothing else is in them.
  local function unquoted(spec)
    local inside, host = spec:match('^"(.*)"(@[^@]*)$')
    return inside and inside:gsub("\\(.)", "%1") .. host or spec
  end

  it("is read by another program as the same mailboxes", function()
    local forms, lists, messages = corpus(), {}, {}
    assert.is_true(#forms > 600)
    for i, form in ipairs(forms) do
      local list, why = address.list(form)
      assert.is_truthy(list, form .. ": " .. tostring(why))
      local field = header.addresses("To", list)
      assert_well_formed(field)
      lists[i], messages[i] = list, "Content-Type: text/plain\r\n" .. field .. CRLF
    end
    for i, read in ipairs(read_messages(messages)) do
      assert.are.same({}, read.defects, forms[i])
      assert.are.equal(#lists[i], #read.addresses.to, forms[i])
      for j, box in ipairs(lists[i]) do
        local name, spec = read.addresses.to[j][1], read.addresses.to[j][2]
        assert.are.same({ box.name or "", unquoted(box.address) }, { name, unquoted(spec) }, forms[i])
      end
    end
  end)

  it("is read by another program as the same groups", function()
    local lists = {
      "Team: a@x.org, b@x.org;", 'c@d, A B: "B, C" <b@x.org>;, U:;, e@f', "undisclosed-recipients:;", '"T: x;": a@b;',
      "J\195\188rgen: a@b, C <d@e>;", '"\195\188, x": a@b;, c@d', ("T%d: a@b, \"c, d\" <e@f>;, "):rep(20):gsub("%%d", "x") .. "y@z",
    }
    local messages = {}
    for i, list in ipairs(lists) do
      messages[i] = "Content-Type: text/plain\r\n" .. header.addresses("To", assert(address.list(list))) .. CRLF
    end
    for i, read in ipairs(read_messages(messages)) do
      assert.are.same({}, read.defects)
      assert.are.equal(lists[i], read.fields.to)
    end
  end)

  it("pads only the last of several encoded words, which is where some readers stop", function()
    for _, unit in ipairs { "\195\169", "\230\188\162", "\240\159\152\128", "e\204\129", "a\195\169\230\188\162\240\159\152\128" } do
      for length = 1, 200, 3 do
        local words = {}
        for word in assert(header.text("Subject", unit:rep(length))):gmatch("=%?utf%-8%?B%?([^?]*)%?=") do words[#words + 1] = word end
        local last = table.remove(words)
        for _, word in ipairs(words) do assert.is_nil(word:find("=", 1, true)) end
        assert.is_truthy(last)
      end
    end
  end)

  it("keeps a display name in one encoded word where a line can hold it", function()
    assert.are.equal("To: " .. ("a"):rep(40) .. "@b,\r\n =?utf-8?B?w6TDpMOkw6TDpMOkw6Q=?= <c@d>\r\n",
      header.addresses("To", { { address = ("a"):rep(40) .. "@b" },
        { name = ("\195\164"):rep(7), address = "c@d" } }))
  end)

  it("refuses an empty list", function()
    assert.is_nil((header.addresses("To", {})))
  end)
end)

describe("header.parameter", function()
  it("writes tokens, quoted strings and extended values", function()
    local function written(value)
      return header.parameter("X-A", "a", { { "filename", value } })
    end
    assert.are.equal("X-A: a\r\n", header.parameter("X-A", "a"))
    assert.are.equal("X-A: a; filename=b.txt\r\n", written "b.txt")
    assert.are.equal('X-A: a; filename="b c.txt"\r\n', written "b c.txt")
    assert.are.equal('X-A: a; filename="\\"\\\\;"\r\n', written '"\\;')
    assert.are.equal('X-A: a; filename=""\r\n', written "")
    assert.are.equal("X-A: a; filename*=UTF-8''%C3%BC.txt; filename=\"_.txt\"\r\n", written "\195\188.txt")
    assert.is_nil((header.parameter("X-A", "a b")))
    assert.is_nil((header.parameter("X-A", "a", { { "b c", "d" } })))
    assert.is_nil((header.parameter("X-A", "a", { { "b*", "d" } })))
  end)

  local filenames = {
    "a.txt", "two words.txt", 'quo"te.txt', "semi;colon.txt", "back\\slash", "\195\188ml\195\164ut.pdf",
    "\195\188; filename=\"evil\".txt", "100%25.txt", "it's*.txt", ("\195\188"):rep(60) .. ".txt",
    ("a"):rep(250) .. ".txt",
    ("a b"):rep(500), ("\240\159\152\128"):rep(80) .. ".png", "=?utf-8?q?x?=.txt\195\164", "%\195\188'", "a=b,c",
    ("x"):rep(20) .. ("\195\188"):rep(100),
  }
  it("reads back unchanged in another program", function()
    local messages = {}
    for i, filename in ipairs(filenames) do
      local field = assert(header.parameter("Content-Disposition", "attachment", { { "filename", filename } }))
      assert_well_formed(field)
      messages[i] = "Content-Type: text/plain\r\n" .. field .. CRLF
    end
    for i, read in ipairs(read_messages(messages)) do
      assert.are.equal(filenames[i], read.body.filename)
    end
  end)

  it("shows a program that knows no extended values a name to work with", function()
    for name, shown in pairs {
      ["\229\160\177\229\145\138.pdf"] = "attachment.pdf", ["\229\160\177\229\145\138.tar.gz"] = "attachment.tar.gz",
      ["\229\160\1772026\229\145\138 v2.xlsx"] = "_2026_ v2.xlsx", ["\208\158 \208\177.doc"] = "attachment.doc", ["\229\160\177"] = "attachment",
      ["Gr\195\188n.pdf"] = "Gr_n.pdf", ["\195\188.txt"] = "_.txt", ["\240\159\152\128.png"] = "attachment.png",
      ["a\\\195\188\".txt"] = "a___.txt", [("\229\160\177"):rep(90) .. ".pdf"] = "attachment.pdf",
      [("a\229\160\177"):rep(90) .. ".pdf"] = ("a_"):rep(28) .. ".pdf",
    } do
      local field = assert(header.parameter("Content-Disposition", "attachment", { { "filename", name } }))
      assert.are.equal(shown, field:match('filename="([^"]*)"\r\n$'))
    end
  end)

  it("cuts long values at 78 between characters", function()
    local field = header.parameter("X-A", "a", { { ("k"):rep(40), ("\240\159\152\128"):rep(300) } })
    assert_well_formed(field, 200)
    for piece in field:gmatch("%*%d+%*=([^;\r]+)") do
      local _, escapes = piece:gsub("%%", "")
      assert.are.equal(0, escapes % 4)
    end
  end)

  it("takes linear time #linear", function()
    linear(function(given) assert.is_string(header.parameter("X-A", "a", given)) end,
      function(n) return { { "k", ("\195\188"):rep(n / 2) }, { "l", ("%"):rep(n) } } end, 2 ^ 18)
  end)
end)
