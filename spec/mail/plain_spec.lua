-- What is written in one step must come out as the complete way writes it: the two are compared over many inputs, made
-- of what is usual, what is nasty and both.
local address = require "smtp.mail.address"
local core = require "smtp.core"
local header = require "smtp.mail.header"
local linear = require "spec.support.linear"
local message = require "smtp.mail.message"
local source = require "smtp.mail.source"

local function pick(list)
  return list[math.random(#list)]
end

local function chance(one_in)
  return math.random(one_in) == 1
end

local function words(alphabet, most)
  local out = {}
  for i = 1, math.random(most) do out[i] = pick(alphabet) end
  return table.concat(out)
end

local NAMES = {
  "Ada", "Ada Lovelace", "J. Doe", '"Doe, J."', '"Ada"', "Ada  L", '" x"', '"x "', '"a  b"', "a-b c", '"q\\"r"', '""', ".", "a.",
  'Ada "L"', '"Ada" L', "x=?y", "=?x?=", "Gr\195\188n", ("n"):rep(77), ("n"):rep(78), ("n"):rep(79), "a." .. ("n"):rep(75),
  "a." .. ("n"):rep(76), "a." .. ("n"):rep(77), ("n"):rep(50) .. " " .. ("m"):rep(27), "Team:", "a\tb", "a\\b", "",
  ("a "):rep(38) .. "b",
}
local LOCALS = {
  "ada", "bob", "x.y+z", "A", "o'n", "!#$%&'*+-/=?^_`{|}~", "a..b", ".a", "a.", '"q q"', '"a"', "\195\188", "=?a?=", "a=?", "",
  ("l"):rep(64), ("l"):rep(65), "a b", "a\0", "a(b)", "\194\160a",
}
local HOSTS = {
  "example.org", "Example.ORG", "a.b", "x1.test", "a", "xn--a.b", "1.2.3.4", "1a.2", "[127.0.0.1]", "a..b", ".a", "a.", "-a.b", "a-.b",
  "a_b", "b\195\188cher.example", "", ("d"):rep(63) .. ".org", ("d"):rep(64) .. ".org", ("d."):rep(127) .. "d", ("d."):rep(127) .. "dd",
  "a-b.c", "a b", "a@b", "123",
}
local BLANKS = { "", "", "", " ", "  ", "\t" }

-- Mostly the first of a list, which are the usual ones.
local function usual(list)
  return chance(4) and pick(list) or list[math.random(5)]
end

local function spec()
  return usual(LOCALS) .. (chance(40) and "" or "@") .. usual(HOSTS)
end

local function mailbox()
  if chance(2) then return spec() end
  return usual(NAMES) .. pick(BLANKS) .. "<" .. spec() .. (chance(40) and "" or ">")
end

local function tidy()
  return NAMES[math.random(5)] .. " <" .. LOCALS[math.random(5)] .. "@" .. HOSTS[math.random(5)] .. ">"
end

local function list(most)
  local out = {}
  for i = 1, math.random(most) do out[i] = (chance(3) and pick(BLANKS) or "") .. mailbox() .. (chance(3) and pick(BLANKS) or "") end
  return table.concat(out, chance(20) and ";" or ",") .. (chance(30) and "," or "")
end

local function pair()
  local names = { "Ada", "Ada L", " x", "x ", "a  b", "J. D", 'q"', "a\\", "=?x", "Gr\195\188n", ("n"):rep(79), "", "a\nb", 5 }
  return { name = not chance(4) and usual(names) or nil, address = not chance(20) and (chance(6) and mailbox() or spec()) or pick { 5, "" } }
end

local function people()
  if chance(2) then return list(4) elseif chance(4) then return pair() end
  local out = {}
  for i = 1, math.random(0, 4) do out[i] = chance(4) and pair() or list(2) end
  if chance(30) then out[2] = pick { 5, true, {} } end
  if chance(30) then out.name = "x" end
  return out
end

-- Every step that takes what is plain, out of the way.
local function complete(run, ...)
  local own = { field = core.field, mailboxes = core.mailboxes, text = core.text, body = core.body }
  for name in pairs(own) do core[name] = function() end end
  local fine, result, reason = pcall(run, ...)
  for name, step in pairs(own) do core[name] = step end
  assert(fine, result)
  return result, reason
end

local function counted()
  local count = 0
  return function() count = count + 1 end, function() return count end
end

-- assert.are.equal, which is asked only where they differ: it is dear, and the rounds here are many.
local function equal(expected, got)
  if expected ~= got then assert.are.equal(expected, got) end
end

describe("core.field", function()
  it("writes what header.text and header.field write", function()
    math.randomseed(1)
    local took, taken = counted()
    local alphabet = { "Hello", "a", " ", " ", "=", "?", "  ", ("w"):rep(30), "=?", "?=", "-", "\t", "\195\188", "\n", "\0", "\127", "~",
      ("v"):rep(880) }
    for _ = 1, 20000 do
      local value = chance(2) and words({ "Hello", "of", " ", " a ", "subject" }, 40) or words(alphabet, 6)
      local name = usual { "Subject", "X-A", "a", "To", ("n"):rep(76), ("n"):rep(77), "", "a:", "a b", "\195\188" }
      local plain = core.field(name, value)
      if plain then
        took()
        assert.are.equal(complete(header.text, name, value), plain)
        assert.are.equal(complete(header.field, name, value), plain)
      end
    end
    assert(taken() > 3000, taken())
  end)

  it("takes what is usual and nothing that is not a string", function()
    assert.are.equal("Subject: Hello\r\n", core.field("Subject", "Hello"))
    for _, value in ipairs { "", " a", "a ", "a\r\nBcc: b", "a\nb", "a\0b", "\127", "=?a", "\195\188", 5, true, {} } do
      assert.is_nil((core.field("Subject", value)))
    end
    assert.is_nil((core.field("Subject")))
    assert.is_nil((core.field(5, "a")))
    assert.is_nil((core.field("X", ("a "):rep(20000) .. "a")))
  end)
end)

describe("core.mailboxes", function()
  it("writes and finds what the complete grammar does", function()
    math.randomseed(2)
    local took, taken = counted()
    for _ = 1, 20000 do
      local value = people()
      local field, first, several = core.mailboxes("To", value)
      if field then
        took()
        local boxes = assert(address.list(value))
        equal(header.addresses("To", boxes), field)
        equal(boxes[1].address, first)
        equal(#boxes > 1 and #boxes or nil, several and #several)
        for i, box in ipairs(boxes) do
          equal(nil, box.utf8)
          equal(box.address, several and several[i] or first)
        end
      end
    end
    assert(taken() > 3000, taken())
  end)

  it("takes each usual form", function()
    for _, case in ipairs {
      { "ada@example.org" }, { " ada@example.org " , "ada@example.org" }, { "Ada Lovelace <ada@example.org>" },
      { "<ada@example.org>", "ada@example.org" }, { '"Ada" <ada@example.org>', "Ada <ada@example.org>" },
      { "J. Doe <j@example.org>", '"J. Doe" <j@example.org>' }, { '"Doe, J." <j@example.org>' },
      { "a@example.org,Bob<b@example.org>", "a@example.org, Bob <b@example.org>" },
      { { "a@example.org", "b@example.org" }, "a@example.org, b@example.org" },
      { { name = "Ada", address = "ada@example.org" }, "Ada <ada@example.org>" },
      { { { address = "a@example.org" }, "b@example.org" }, "a@example.org, b@example.org" },
    } do
      assert.are.equal("To: " .. (case[2] or case[1]) .. "\r\n", (core.mailboxes("To", case[1])))
    end
  end)

  it("leaves everything else to the complete grammar", function()
    local named = setmetatable({ address = "a@b" }, { __index = { name = "Ada" } })
    local longer = setmetatable({ "a@b" }, { __index = { [2] = "c@d" } })
    for _, value in ipairs { "", " ", "a", "a@", "@b", "a@b,", ",a@b", "a@b c@d", "a@b;", "a@1.2.3.4", "a@b\r\n", "a@b\0", "A: a@b;",
      "A (x) <a@b>", "\195\188@b", "a@\195\188", '"a"@b', "a@[127.0.0.1]", "A B a@b", "a@" .. ("d."):rep(127) .. "dd", 5, true, {}, named,
      longer, { 5 }, { {} }, { { "a@b" } }, { named } } do
      assert.is_nil((core.mailboxes("To", value)))
    end
    assert.is_nil((core.mailboxes("To\r\nX", "a@b")))
    assert.is_nil((core.mailboxes "To"))
  end)

  it("goes through many in linear time, or leaves them #linear", function()
    local function many(n)
      local boxes = {}
      for i = 1, n do boxes[i] = ("a%d@example.org"):format(i) end
      return boxes
    end
    linear(function(value) core.mailboxes("To", value) end, many, 200000)
    linear(function(value) core.mailboxes("To", value) end, function(n) return table.concat(many(n), ",") end, 200000)
  end)
end)

describe("core.text", function()
  it("gives the text with CRLF line ends where it is ASCII in lines that fit", function()
    math.randomseed(3)
    local took, taken = counted()
    local alphabet = { "line", "\n", "\r\n", "\r", "a b", "\t", ".", "\r\r\n", "\n\r", ("y"):rep(500) }
    for _ = 1, 5000 do
      local s = words(alphabet, 12) .. (chance(8) and pick { "\0", "\127", "\195\188", "\255", ("z"):rep(999), "\11" } or "")
      local expected = source.encode("crlf", s .. "x"):sub(1, -4)
      local longest = 0
      for line in expected:gmatch("[^\r\n]+") do longest = math.max(longest, #line) end
      local plain = longest <= 998 and not s:find("[^\t\r\n\32-\126]")
      assert.are.equal(plain and expected or nil, (core.text(s)))
      if plain then took() end
    end
    assert(taken() > 2000, taken())
    assert.is_nil((core.text ""))
    local large = ("A line.\n"):rep(2 ^ 17)
    assert.are.equal((large:gsub("\n", "\r\n")), core.text(large))
  end)
end)

describe("core.distinct", function()
  local function distinct(given)
    core.distinct(given)
    return given
  end

  it("keeps the first address of each mailbox, folding the domain's case alone", function()
    assert.are.same({ "a@b", "A@b", '"A@B"@c' }, distinct { "a@b", "A@b", "a@B", '"A@B"@c', "a@b", '"A@B"@C' })
    assert.are.same({ "a@B" }, distinct { "a@B", "a@b", "a@B" })
    assert.are.same({ "a@b", "c@d" }, distinct { "a@b", "c@d" })
    assert.are.same({}, distinct {})
    assert.are.same({ "X\195\156@x\195\156" }, distinct { "X\195\156@x\195\156", "X\195\156@X\195\156" })
  end)
end)

describe("core.hex", function()
  it("writes each byte", function()
    for byte = 0, 255 do
      assert.are.equal(("%02x"):format(byte), core.hex(string.char(byte)))
    end
    assert.are.equal("", core.hex "")
    assert.has_error(function() core.hex(("x"):rep(1000)) end)
  end)
end)

describe("A letter", function()
  local random, time = core.random, os.time

  before_each(function()
    -- the same identifiers and boundaries for both ways
    rawset(core, "random", function(n) return ("\171"):rep(n) end)
    rawset(os, "time", function() return 1700000000 end)
  end)

  after_each(function()
    rawset(core, "random", random)
    rawset(os, "time", time)
  end)

  local function body()
    if chance(20) then return "" end
    return words({ "line", "\n", "\r\n", "\r", "a b", ".", "a line of text\n", "\t" }, 12)
      .. (chance(12) and pick { "\0", "\195\188", "\255", ("y"):rep(999), ("z\n"):rep(9000) } or "")
  end

  local function options()
    local one = { name = "Ada", address = "ada@example.org" }
    local given = { from = chance(4) and pick { mailbox(), one, list(2) } or tidy(), to = chance(4) and people() or { tidy(), tidy() } }
    if chance(5) then given.cc = chance(2) and people() or tidy() .. "," .. tidy() end
    if chance(5) then given.bcc = chance(2) and people() or tidy() end
    if chance(8) then given.sender = mailbox() end
    if chance(8) then given.reply_to = people() end
    if not chance(10) then
      given.subject = chance(8) and words({ "a", " ", "=?", "\195\188", "\t", ("w"):rep(40) }, 5) or words({ "Hello", " of ", "a" }, 30)
    end
    if not chance(8) then given.text = body() end
    if chance(4) then given.html = body() end
    if chance(30) then given[pick { "headers", "priority", "list" }] = pick { {}, "high" } end
    return given
  end

  it("is octet by octet what the complete way composes", function()
    math.randomseed(4)
    local took, taken = counted()
    for _ = 1, 6000 do
      local given = options()
      local letter = message.letter(given)
      if letter then
        took()
        local full = assert(complete(message.new, given))
        assert.are.same(full.envelope, letter.envelope)
        equal(full.id, letter.id)
        equal(false, full.utf8)
        equal(false, letter.utf8)
        for _, form in ipairs { "7bit", "8bit", "binary" } do
          equal(full:tostring(form), letter:tostring(form))
          equal(full:form(form).encoding, letter:form(form).encoding)
          equal(full:size(form), letter:size(form))
        end
      end
    end
    assert(taken() > 1000, taken())
  end)

  it("is no other message where only the steps of the complete way are plain", function()
    math.randomseed(5)
    local both, composed = counted()
    for _ = 1, 2000 do
      local given = options()
      given.in_reply_to, given.list = pick { "<a@b>", nil }, nil
      if type(given.priority) ~= "string" then given.priority = nil end
      if type(given.headers) ~= "table" then given.headers = nil end
      local quick, why = message.new(given)
      local full, reason = complete(message.new, given)
      equal(tostring(reason), tostring(why))
      if full then
        both()
        assert.are.same(full.envelope, quick.envelope)
        equal(full.utf8, quick.utf8)
        equal(full:tostring(), quick:tostring())
      end
    end
    assert(composed() > 500, composed())
  end)

  local function given(more)
    local fields = { from = "ada@example.org", to = "bob@example.org", subject = "Hello", text = "Hi\n" }
    for name, value in pairs(more or {}) do fields[name] = value end
    return fields
  end

  it("is what most messages are", function()
    for _, more in ipairs { {}, { to = "Bob <bob@example.org>" }, { html = "<p>Hi" }, { cc = { "c@example.org", "d@example.org" } },
      { bcc = "b@example.org" }, { sender = "s@example.org", reply_to = "r@example.org" } } do
      assert(message.letter(given(more)))
    end
    assert(message.letter { from = "a@b", to = "c@d", html = "x" })
  end)

  it("is held in one piece, which its reader gives too", function()
    local letter = message.letter(given())
    assert.are.equal(letter:tostring(), letter:form("8bit").content.bytes)
    assert.are.equal(#letter:tostring(), letter:size())
    local read = letter:source()
    assert.are.equal(letter:tostring(), read())
    assert.is_nil(read())
    assert.are.equal(letter:tostring(), letter:source()())
  end)

  it("never shows Bcc", function()
    local letter = message.letter(given { bcc = "Eve <hidden@example.org>" })
    assert.is_nil(letter:tostring():lower():find("hidden", 1, true))
    assert.is_nil(letter:tostring():lower():find("bcc", 1, true))
    assert.are.same({ "bob@example.org", "hidden@example.org" }, letter.envelope.to)
  end)

  it("holds no line that a value brought in", function()
    for _, name in ipairs { "from", "to", "cc", "bcc", "sender", "reply_to", "subject" } do
      for _, end_of_line in ipairs { "\r\n", "\n", "\r", "\0" } do
        for _, value in ipairs { "a@b" .. end_of_line .. "X: y", end_of_line .. "a@b", "a@b" .. end_of_line,
          "A" .. end_of_line .. " <a@b>", '"A' .. end_of_line .. '" <a@b>' } do
          assert.is_nil(message.letter(given { [name] = value }))
        end
      end
    end
  end)

  it("is not made of options that are wrong, rare or inherited", function()
    local inherited = setmetatable(given(), { __index = { headers = { { "X-A", "b" } } } })
    for _, fields in ipairs { inherited, {}, given { [1] = "x" }, given { ["to\0x"] = "a@b" }, given { subject = 5 }, given { text = 5 },
      given { text = {} }, given { to = 5 }, given { headers = {} }, given { date = 0 }, given { raw = "x" }, given { dkim = {} },
      given { text = "" }, given { unknown = 1 }, given { from = "a@b, c@d" }, given { sender = { "a@b", "c@d" } } } do
      assert.is_nil(message.letter(fields))
    end
    for _, fields in ipairs { "x", 5, true } do
      assert.is_nil(message.letter(fields))
    end
    assert.is_nil(message.letter(nil))
    for _, missing in ipairs { "from", "to" } do
      local fields = given()
      fields[missing] = nil
      assert.is_nil(message.letter(fields))
    end
    assert.is_nil(message.letter { from = "a@b", to = "c@d" })
  end)

  it("is not made where the system has no random bytes", function()
    rawset(core, "random", function() return nil, "none" end)
    assert.is_nil(message.letter(given()))
    local _, err = message.new(given())
    assert.are.equal("message_id: no random bytes from the system: none", err.reason)
  end)
end)
