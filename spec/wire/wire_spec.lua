-- Of: wire/wire, wire/buf, wire/status
local core = require "smtp.core"
local pieces = require "spec.support.pieces"

local BROKEN, TOO_LARGE = "the peer broke the protocol", "larger than allowed"

local function called(...)
  return { n = select("#", ...), ... }
end

-- Every call that a wire which has failed must refuse.
local function verbs(wire)
  return {
    called(wire:command("NOOP")), called(wire:body("x")), called(wire:finish()), called(wire:chunk("x", true)),
    called(wire:feed("250 ok\r\n")), called(wire:reply()), called(wire:line()), called(wire:content()),
    called(wire:octets(1)), called(wire:respond(250, "ok")),
  }
end

local function assert_failed(wire, why)
  local queued = wire:queued()
  for _, got in ipairs(verbs(wire)) do assert.are.same({ n = 2, nil, why }, got) end
  assert.are.equal(queued, wire:queued())
end

describe("the gate", function()
  local function forms(byte)
    return { byte .. "NOOP x", "NOOP" .. byte .. "x", "NOOP x" .. byte, byte }
  end

  it("lets no control byte into a command, and non-ASCII only with SMTPUTF8", function()
    for code = 0, 255 do
      local byte = string.char(code)
      for _, utf8 in ipairs { false, true } do
        local clean = code >= 32 and code ~= 127 and (code < 128 or utf8)
        for _, line in ipairs(forms(byte)) do
          local wire = core.wire()
          local ok, why = wire:command(line, utf8)
          local label = ("byte %d, utf8 %s"):format(code, tostring(utf8))
          if clean then
            assert.are.equal(true, ok, label)
            assert.are.equal(line .. "\r\n", wire:take())
          else
            assert.is_nil(ok, label)
            assert.matches("cannot be sent in a command", why)
            assert.are.equal(0, wire:queued())
            assert.are.equal(0, wire:expected())
            -- a refusal is no failure
            assert.is_true(wire:command "QUIT")
            assert.are.equal("QUIT\r\n", wire:take())
          end
        end
      end
    end
  end)

  it("sees a byte wherever it stands in a longer line, alone or beside its likes", function()
    local wrong = {}
    for _, code in ipairs { 0, 10, 13, 31, 127, 128, 255 } do
      local byte = string.char(code)
      for length = 1, 40 do
        for place = 1, length do
          local before, after = ("\126"):rep(place - 1), ("\32"):rep(length - place)
          for _, line in ipairs { before .. byte .. after, before:gsub("\126", "\32") .. byte .. after:gsub("\32", "\126") } do
            if (core.wire():command(line, true) or false) ~= (code >= 128) or core.wire():command(line) ~= nil
              or core.wire():commands("NOOP\n" .. line .. "\nNOOP", 3) ~= nil then
              wrong[#wrong + 1] = line
            end
          end
        end
      end
    end
    assert.are.same({}, wrong)
    assert.is_true(core.wire():commands(("\126\32"):rep(20) .. "\n" .. ("x"):rep(7), 2))
  end)

  it("refuses a second command smuggled into a first", function()
    local wire = core.wire()
    assert.is_true(wire:command "MAIL FROM:<a@example.org>")
    for _, line in ipairs { "X\r\nRCPT TO:<b@example.org>", "X\nDATA", "X\rDATA", "X\0Y", "DATA\r\n" } do
      assert.is_nil(wire:command(line))
    end
    assert.are.equal("MAIL FROM:<a@example.org>\r\n", wire:take())
    assert.are.equal(1, wire:expected())
  end)

  it("takes a line of 64 KB and no longer one", function()
    local wire = core.wire()
    assert.is_true(wire:command(("x"):rep(65536)))
    assert.are.same({ n = 2, nil, TOO_LARGE }, called(wire:command(("x"):rep(65537))))
    assert.is_true(wire:command "NOOP")
    assert.are.equal(65538 + 6, #wire:take())
  end)
end)

describe("turn", function()
  -- A wire that has got the replies it is owed.
  local function after(replies, owed)
    local wire = core.wire(owed or 2)
    wire:feed(replies)
    return wire
  end

  it("takes the replies hoped for, and queues a content, its end, and the commands behind them", function()
    local wire = after "250 ok\r\n354 go\r\n"
    assert.are.same({ n = 2, true, true }, called(wire:turn("23", "a\n.b\n", "MAIL\nDATA", 2)))
    assert.are.equal("a\r\n..b\r\n.\r\nMAIL\r\nDATA\r\n", wire:take())
    assert.are.equal(3, wire:expected())
    assert.are.equal(0, wire:residue())
    assert.are.same({ n = 2, true, false }, called(after("354 go\r\n", 1):turn("3", "")))
  end)

  it("waits for the last of them", function()
    local replies = "250-ok\r\n250 ok\r\n354 go\r\n"
    for count = 0, #replies - 1 do
      local wire = after(replies:sub(1, count))
      assert.are.same({ n = 2 }, called(wire:turn("23", "x")))
      assert.are.equal(0, wire:queued())
      wire:feed(replies:sub(count + 1))
      assert.are.same({ n = 2, true, false }, called(wire:turn("23", "x")))
      assert.are.equal("x\r\n.\r\n", wire:take())
    end
  end)

  it("takes nothing and queues nothing where one is of another class, or none is owed", function()
    for _, replies in ipairs { "550 no\r\n354 go\r\n", "250 ok\r\n250 ok\r\n", "250 ok\r\n353 go\r\n", "HTTP\r\n354 go\r\n" } do
      local wire = after(replies)
      assert.are.same({ n = 2, false }, called(wire:turn("23", "x", "MAIL\nDATA", 2)), replies)
      assert.are.same({ 0, #replies }, { wire:queued(), wire:residue() })
    end
    assert.are.same({ n = 2, false }, called(after("250 ok\r\n354 go\r\n", 1):turn("23", "x")))
  end)

  it("queues nothing where a reply too many has come", function()
    local wire = after "250 ok\r\n354 go\r\n2"
    assert.are.same({ n = 2, false, "more" }, called(wire:turn("23", "x", "MAIL\nDATA", 2)))
    assert.are.same({ 0, 1 }, { wire:queued(), wire:residue() })
  end)

  it("lets no other line pass: the content goes without them", function()
    for _, block in ipairs { "MAIL\r\nDATA", "MAIL", "MAIL\n\n", "M\0\nDATA", "M\195\188\nDATA" } do
      local wire = after("354 go\r\n", 1)
      assert.are.same({ n = 2, true, false }, called(wire:turn("3", "a", block, 2)))
      assert.are.equal("a\r\n.\r\n", wire:take())
      assert.are.equal(1, wire:expected())
    end
    local wire = after("354 go\r\n", 1)
    assert.are.same({ n = 2, true, true }, called(wire:turn("3", "a", "M\195\188\nDATA", 2, true)))
    assert.are.equal(3, wire:expected())
  end)

  it("says why a content is not queued", function()
    local wire = after("354 go\r\n", 1)
    assert.are.same({ n = 2, false, TOO_LARGE }, called(wire:turn("3", ("x"):rep(2 ^ 24 + 1))))
  end)
end)

describe("owe", function()
  it("lets replies come that no command asked for", function()
    local wire = core.wire()
    wire:owe(1)
    wire:feed("250 a\r\n250 b\r\n")
    assert.are.equal(250, (wire:reply()))
    assert.are.same({ n = 2, nil, BROKEN }, called(wire:reply()))
  end)
end)

describe("a client's wire", function()
  it("counts the replies it is owed", function()
    local wire = core.wire(1)
    local function owed(count) assert.are.equal(count, wire:expected()) end
    owed(1)
    wire:command "EHLO x"
    wire:command "MAIL FROM:<>"
    owed(3)
    wire:body "text"
    owed(3)
    wire:finish()
    owed(4)
    wire:finish(3)
    owed(7)
    wire:chunk("x", false)
    owed(8)
    wire:feed "220 hello\r\n250-a\r\n"
    assert.are.same({ 220, "hello", nil, false }, { wire:reply() })
    owed(7)
    assert.are.same({ nil, "again" }, { wire:reply() })
    owed(7)
    wire:feed "250 b\r\n"
    assert.are.same({ 250, "a\nb", nil, false }, { wire:reply() })
    owed(6)
    assert.are.equal(0, core.wire():expected())
  end)

  it("takes a reply that nothing is waiting for as a broken protocol", function()
    local wire = core.wire(1)
    wire:feed "220 hello\r\n250 what?\r\n"
    assert.are.equal(220, (wire:reply()))
    assert.are.equal(11, wire:residue())
    assert.are.same({ nil, BROKEN }, { wire:reply() })
    assert_failed(wire, BROKEN)
  end)

  it("stays failed after the first error, and keeps to it", function()
    local wire = core.wire(2)
    wire:feed("nonsense \27" .. ("x"):rep(500) .. "\r\n250 ok\r\n")
    -- what it was, as far as a person needs to see it
    assert.are.same({ nil, BROKEN, "nonsense \\x1b" .. ("x"):rep(70) }, { wire:reply() })
    assert_failed(wire, BROKEN)
    local large = core.wire(1)
    assert.are.same({ nil, TOO_LARGE }, { large:feed(("x"):rep(2 ^ 24 + 1)) })
    assert_failed(large, TOO_LARGE)
  end)

  it("gives what is queued once", function()
    local wire = core.wire()
    assert.are.same({ "", 0 }, { wire:take(), wire:queued() })
    wire:command "A"
    wire:command "B"
    assert.are.equal(6, wire:queued())
    assert.are.same({ "A\r\nB\r\n", 0, "" }, { wire:take(), wire:queued(), wire:take() })
  end)

  it("normalises line ends and doubles dots in a body, and ends it", function()
    for body, sent in pairs {
      [""] = ".\r\n",
      ["a"] = "a\r\n.\r\n",
      ["a\r\n"] = "a\r\n.\r\n",
      ["a\r"] = "a\r\n.\r\n",
      ["a\nb\rc\r\n"] = "a\r\nb\r\nc\r\n.\r\n",
      [".\r\n..\n.x"] = "..\r\n...\r\n..x\r\n.\r\n",
      ["a\r\n.\r\nQUIT\r\n"] = "a\r\n..\r\nQUIT\r\n.\r\n",
      ["a\n.\nb"] = "a\r\n..\r\nb\r\n.\r\n",
      ["a\r.\rb"] = "a\r\n..\r\nb\r\n.\r\n",
    } do
      for _, way in ipairs(pieces.ways(body)) do
        local wire = core.wire()
        for _, part in ipairs(way) do assert.is_true(wire:body(part)) end
        assert.is_true(wire:finish())
        assert.are.equal(sent, wire:take())
      end
    end
  end)

  it("begins each body anew", function()
    local wire = core.wire()
    for _ = 1, 2 do
      wire:body "a"
      wire:finish()
      wire:body ".b"
      wire:finish()
      assert.are.equal("a\r\n.\r\n..b\r\n.\r\n", wire:take())
    end
  end)

  it("takes a part of a string for a body", function()
    local wire = core.wire()
    wire:body("hello", 2, 4)
    wire:body("hello", 5)
    wire:body("hello", 6)
    wire:body("", 1, 0)
    assert.are.equal("ello", wire:take())
    for _, range in ipairs { { 0, 1 }, { 1, 6 }, { 7, 7 }, { 4, 2 }, { -1, 3 }, { 2, -1 } } do
      assert.has_error(function() wire:body("hello", range[1], range[2]) end)
    end
  end)

  it("frames a chunk with its length, its octets as they are", function()
    local wire = core.wire()
    wire:chunk("a\n.\r\n\0\255", false)
    wire:chunk("", true)
    wire:chunk("x", true)
    assert.are.equal("BDAT 7\r\na\n.\r\n\0\255BDAT 0 LAST\r\nBDAT 1 LAST\r\nx", wire:take())
    assert.are.equal(3, wire:expected())
  end)

  it("never sends the length of a chunk without its octets", function()
    local wire = core.wire()
    assert.are.same({ nil, TOO_LARGE }, { wire:chunk(("x"):rep(2 ^ 24), true) })
    assert.are.equal("", wire:take())
    assert_failed(wire, TOO_LARGE)
  end)
end)

describe("a server's wire", function()
  local function lines(parts)
    local wire, got = core.wire(), {}
    for _, part in ipairs(parts) do
      wire:feed(part)
      local line, why
      repeat
        line, why = wire:line()
        got[#got + 1] = line
      until not line
      got.ends = why
    end
    return got
  end

  it("reads lines that end in CRLF, and stops for good at any other", function()
    for bytes, wanted in pairs {
      ["NOOP\r\n"] = { "NOOP", ends = "again" },
      ["\r\n"] = { "", ends = "again" },
      ["A\r\n\r\nB\r\nC"] = { "A", "", "B", ends = "again" },
      ["\1\9\127\255\r\n"] = { "\1\9\127\255", ends = "again" },
      ["A\nB\r\n"] = { ends = BROKEN },
      ["\n"] = { ends = BROKEN },
      ["A\rB\r\n"] = { ends = BROKEN },
      ["A\r\r\n"] = { ends = BROKEN },
      ["\rA\r\n"] = { ends = BROKEN },
      ["A\0\r\n"] = { ends = BROKEN },
      ["\0\r\n"] = { ends = BROKEN },
      ["A\r\nB\nC\r\n"] = { "A", ends = BROKEN },
    } do
      for _, way in ipairs(pieces.ways(bytes)) do assert.are.same(wanted, lines(way)) end
    end
  end)

  it("takes a line of 64 KB and no longer one", function()
    local x = ("x"):rep(65537)
    for _, case in ipairs {
      { x:sub(1, 65535) .. "\r\n", { x:sub(1, 65535), ends = "again" } },
      { x:sub(1, 65536) .. "\r\n", { ends = TOO_LARGE } },
      { x, { ends = TOO_LARGE } },
    } do
      for _, way in ipairs(pieces.ways(case[1], 20)) do assert.are.same(case[2], lines(way)) end
    end
  end)

  local function content(parts)
    local wire, got = core.wire(), {}
    local done, bare = false, nil
    for _, part in ipairs(parts) do
      wire:feed(part)
      while not done and wire:residue() > 0 do
        got[#got + 1], done, bare = wire:content()
      end
    end
    return { text = table.concat(got), done = done, bare = bare, line = done and wire:line() or nil }
  end

  it("finds the end of content at CRLF . CRLF only", function()
    for _, case in ipairs {
      { ".\r\nNEXT\r\n", { text = "", done = true, bare = false, line = "NEXT" } },
      { "a\r\n.\r\nNEXT\r\n", { text = "a\r\n", done = true, bare = false, line = "NEXT" } },
      { "..\r\n..a\r\n.b\r\n.\r\n", { text = ".\r\n.a\r\nb\r\n", done = true, bare = false } },
      { "a.\r\n.\r\n", { text = "a.\r\n", done = true, bare = false } },
      { "a\n.\nb\r\n.\r\n", { text = "a\n.\nb\r\n", done = true, bare = true } },
      { "a\n.\r\nb\r\n.\r\n", { text = "a\n.\r\nb\r\n", done = true, bare = true } },
      { "a\r.\rb\r\n.\r\n", { text = "a\r.\rb\r\n", done = true, bare = true } },
      { "a\r\n.\n", { text = "a\r\n\n", done = false, bare = true } },
      { "a\r.\r\n", { text = "a\r.\r\n", done = false, bare = true } },
      { "a\r\n.\r", { text = "a\r\n", done = false, bare = false } },
      { "a\r\n.\rb\r\n.\r\n", { text = "a\r\n\rb\r\n", done = true, bare = true } },
      { "\0\255\r\n.\r\n", { text = "\0\255\r\n", done = true, bare = false } },
    } do
      for _, way in ipairs(pieces.ways(case[1])) do assert.are.same(case[2], content(way)) end
    end
  end)

  it("judges each message by itself", function()
    local wire = core.wire()
    wire:feed "a\nb\r\n.\r\nNOOP\r\nc\r\n.\r\n"
    assert.are.same({ "a\nb\r\n", true, true }, { wire:content() })
    assert.are.equal("NOOP", wire:line())
    assert.are.same({ "c\r\n", true, false }, { wire:content() })
    assert.are.same({ "", false, false }, { wire:content() })
  end)

  it("takes octets as they are, and the command behind them", function()
    local wire = core.wire()
    assert.are.equal("", wire:octets(5))
    wire:feed "BDAT 7\r\na\n.\0"
    assert.are.equal("BDAT 7", wire:line())
    assert.are.equal("a\n.\0", wire:octets(7))
    assert.are.equal("", wire:octets(3))
    wire:feed "\r\nzNOOP\r\n"
    assert.are.equal("", wire:octets(0))
    assert.are.equal("\r\nz", wire:octets(3))
    assert.are.same({ "NOOP", 0 }, { wire:line(), wire:residue() })
  end)

  it("finds the next line where octets or content took away the start of one", function()
    for _, method in ipairs { "octets", "content" } do
      local wire = core.wire()
      wire:feed "an unfinished line"
      assert.are.same({ nil, "again" }, { wire:line() })
      assert.are.equal("an unfinished line", (wire[method](wire, 100)))
      assert.are.same({ nil, "again" }, { wire:line() })
      wire:feed "A\r\n"
      assert.are.equal("A", wire:line())
    end
  end)

  it("answers in one line or several", function()
    local wire = core.wire()
    for text, sent in pairs {
      ["ok"] = "250 ok\r\n",
      [""] = "250 \r\n",
      ["a\nb\nc"] = "250-a\r\n250-b\r\n250 c\r\n",
      ["a\n"] = "250-a\r\n250 \r\n",
      ["\n"] = "250-\r\n250 \r\n",
      ["gr\195\188n"] = "250 gr\195\188n\r\n",
    } do
      assert.is_true(wire:respond(250, text))
      assert.are.equal(sent, wire:take())
    end
    -- what it says its own client understands
    wire:respond(550, "5.1.1 a\n5.1.1 b")
    local client = core.wire(1)
    client:feed(wire:take())
    assert.are.same({ 550, "a\nb", "5.1.1", false }, { client:reply() })
  end)

  it("answers with no control byte and no odd code", function()
    local wire = core.wire()
    for code = 0, 127 do
      local byte = string.char(code)
      if (code < 32 or code == 127) and byte ~= "\n" then
        for _, text in ipairs { byte .. "a", "a" .. byte .. "b", "a\nb" .. byte } do
          assert.is_nil(wire:respond(250, text))
        end
      end
    end
    for _, code in ipairs { -250, 0, 199, 600, 1250 } do assert.is_nil(wire:respond(code, "a")) end
    assert.are.equal(0, wire:queued())
    assert.is_true(wire:respond(200, "a"))
    assert.is_true(wire:respond(599, "a"))
  end)
end)

describe("a wire", function()
  it("takes no number that is another one for C", function()
    local beyond = 2 ^ 32
    for name, call in pairs {
      commands = function(wire) wire:commands("NOOP", beyond + 1) end,
      ["no commands"] = function(wire) wire:commands("NOOP", beyond) end,
      finish = function(wire) wire:finish(beyond + 1) end,
      owe = function(wire) wire:owe(beyond + 1) end,
      respond = function(wire) wire:respond(beyond + 250, "ok") end,
      turn = function(wire) wire:turn("", "x", "NOOP", beyond + 1) end,
      ["another wire"] = function() core.wire(beyond + 1) end,
    } do
      local wire = core.wire(1)
      local ran, why = pcall(call, wire)
      assert(not ran and why:find("out of range", 1, true), name)
      assert.are.same({ 1, 0 }, { wire:expected(), wire:queued() }, name)
    end
    local wire = core.wire()
    wire:feed "abc"
    assert.are.equal("abc", wire:octets(2 ^ 60))
  end)

  if tonumber(_VERSION:match "%d%.%d") >= 5.4 then
    it("that is closed says so", function()
      local wire = core.wire(1)
      wire:feed "220 hi\r\nNOOP\r\n"
      load "local wire <close> = ..."(wire)
      for _, method in ipairs { "command", "take", "line", "reply", "residue", "unread" } do
        local ran, why = pcall(wire[method], wire, "x")
        assert(not ran and why:find("the wire is closed", 1, true), method)
      end
    end)
  end

  it("raises where it is given the wrong thing", function()
    local wire = core.wire()
    for name, call in pairs {
      ["no line"] = function() wire:command() end,
      ["a table for a line"] = function() wire:command {} end,
      ["another object"] = function() wire.command(io.stdout, "NOOP") end,
      ["no object"] = function() wire.command("NOOP") end,
      ["a negative debt"] = function() core.wire(-1) end,
      ["no replies to a body"] = function() wire:finish(0) end,
      ["a negative count"] = function() wire:octets(-1) end,
      ["a count that is none"] = function() wire:octets(0 / 0) end,
      ["no text"] = function() wire:respond(250) end,
    } do
      assert(not pcall(call), name)
    end
    assert.is_true(wire:command "NOOP")
  end)

  it("keeps its metatable to itself", function()
    assert.are.equal("locked", getmetatable(core.wire()))
    assert.has_error(function() setmetatable(core.wire(), {}) end)
  end)

  it("can hold 16 MB and drop them bit by bit", function()
    local wire, block = core.wire(), ("x"):rep(2 ^ 20)
    for _ = 1, 16 do assert.is_true(wire:feed(block)) end
    assert.are.equal(2 ^ 24, wire:residue())
    local count = 0
    while wire:residue() > 0 do count = count + #wire:octets(300000) end
    assert.are.equal(2 ^ 24, count)
    assert.is_true(wire:feed(block))
  end)
end)

describe("several commands at once", function()
  it("are written as if one by one, and each reply is owed", function()
    local one, all = core.wire(), core.wire()
    for _, line in ipairs { "MAIL FROM:<a@b>", "RCPT TO:<c@d>", "DATA" } do assert(one:command(line)) end
    assert(all:commands("MAIL FROM:<a@b>\nRCPT TO:<c@d>\nDATA", 3))
    assert.are.equal(one:take(), all:take())
    assert.are.equal(3, all:expected())
    assert(all:commands("DATA", 1))
    assert.are.equal("DATA\r\n", all:take())
  end)

  it("are refused with a byte that no command may have, or a line too many or too few; nothing is queued", function()
    local wire = core.wire()
    for byte = 0, 255 do
      if byte < 32 and byte ~= 10 or byte >= 127 then
        assert.is_nil((wire:commands("MAIL\nRC" .. string.char(byte) .. "PT", 2)))
      end
    end
    assert.is_nil((wire:commands("MAIL\nRCPT\nDATA", 2)))
    assert.is_nil((wire:commands("MAIL\nRCPT", 3)))
    assert.is_nil((wire:commands("MAIL\r\nRCPT", 2)))
    assert.are.same({ 0, 0 }, { wire:queued(), wire:expected() })
    assert(wire:commands("MAIL FROM:<\195\164@b>", 1, true))
  end)
end)

describe("agree", function()
  local function wire(bytes, owed)
    local made = core.wire(owed or 4)
    made:feed(bytes)
    return made
  end

  it("takes replies of the classes hoped for, and no more", function()
    local one = wire("250 in\r\n250-2.1.0 a\r\n250 b\n250\r\n354 go\r\n250 next\r\n", 5)
    assert.is_true(one:agree "2223")
    assert.are.equal(1, one:expected())
    assert.are.equal("next", select(2, one:reply()))
  end)

  it("takes none where one is otherwise, or is no reply", function()
    local one = wire "250 a\r\n550 b\r\n250 c\r\n"
    assert.is_false(one:agree "222")
    assert.are.equal("a", select(2, one:reply()))
    one = wire("250 a\r\n2x0 b\r\n")
    assert.is_false(one:agree "22")
    assert.are.equal(250, (one:reply()))
    assert.are.same({ nil, "the peer broke the protocol", "2x0 b" }, { one:reply() })
    one = wire "250 a\r\n250-b\r\n251 c\r\n"
    assert.is_false(one:agree "22")
    assert.are.equal("a", select(2, one:reply()))
  end)

  it("says at each byte that more is needed, or that one is otherwise", function()
    local bytes = "250 a\r\n250-b\r\n250 c\r\n354 d\r\n"
    for length = 0, #bytes - 1 do
      local agreed, why = wire(bytes:sub(1, length)):agree "223"
      assert.are.same({ nil, "again" }, { agreed, why })
    end
    for _, other in ipairs { "550 a\r\n", "250 a\r\n450 b\r\n", "250 a\r\n250 b\r\n355 c\r\n", "x\r\n", "250 a\r\n250-b\r\n550 c\r\n",
      "250\rx\r\n" } do
      assert.is_false(wire(other):agree "223", other)
    end
    assert.is_false(wire("250 a\r\n", 1):agree "22")
  end)

  it("leaves a reply that was begun to reply()", function()
    local one = wire "250-a\r\n"
    assert.are.same({ nil, "again" }, { one:reply() })
    one:feed "250 b\r\n"
    assert.is_false(one:agree "2")
    assert.are.equal("a\nb", select(2, one:reply()))
  end)
end)
