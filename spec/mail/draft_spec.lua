-- What C writes in one step must come out as the complete grammar in Lua writes it: the two are compared over many inputs,
-- made of what is usual, what is nasty and both.
-- Of: wire/draft
local address = require "smtp.mail.address"
local core = require "smtp.core"
local header = require "smtp.mail.header"
local id = require "smtp.mail.id"
local linear = require "spec.support.linear"
local message = require "smtp.mail.message"
local any = require "spec.support.any_mail"
local source = require "smtp.mail.source"

local chance, complete, counted, equal, options, people, pick, usual, words = any.chance, any.complete, any.counted,
  any.equal, any.options, any.people, any.pick, any.usual, any.words

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

describe("core.message_id", function()
  it("writes the identifier that the complete way writes", function()
    math.randomseed(6)
    local took, taken = counted()
    local random = core.random
    rawset(core, "random", function(n) return ("\171"):rep(n) end)
    for _ = 1, 5000 do
      local boxes = address.list(any.mailbox())
      if boxes and boxes[1] then
        local plain = core.message_id(core.random(16), boxes[1].address)
        if plain then
          took()
          equal(complete(id.message, boxes[1].address), plain)
        end
      end
    end
    rawset(core, "random", random)
    assert(taken() > 1000, taken())
  end)

  it("leaves what is no plain address alone", function()
    for _, value in ipairs { "", "a", "a@", "a@[127.0.0.1]", "a@b\195\188", "a@b c", "a@b\r\n", '"a@b"@c', 5, true, {} } do
      assert.is_nil((core.message_id("random", value)))
    end
    assert.is_nil((core.message_id(5, "a@b")))
    assert.is_nil((core.message_id(("r"):rep(1000), "a@b")))
  end)
end)

describe("core.body", function()
  it("completes a head", function()
    assert.are.equal("A: b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 7bit\r\n\r\nx\r\n",
      core.body("A: b\r\n", "x"))
    local both = core.body("", "x", "y", ("\171"):rep(12))
    assert.are.equal(3, select(2, both:gsub("\r\n%-%-=_" .. ("ab"):rep(12), "")))
  end)

  it("takes what is plain, short and complete alone", function()
    for _, given in ipairs { { "" }, { "", "" }, { "", "\195\188" }, { "", 5 }, { "", "x", {} }, { 5, "x" }, { "", "x", "y" },
      { "", "x", "y", ("r"):rep(11) }, { "", "x", "y", 5 }, { ("h"):rep(20000), "x" }, { "", ("x\n"):rep(10000) } } do
      assert.is_nil((core.body(given[1], given[2], given[3], given[4])))
    end
  end)
end)

describe("Messages composed with these and without", function()
  before_each(any.still)
  after_each(any.moving)

  it("are the same message, or the same refusal", function()
    math.randomseed(5)
    local both, composed = counted()
    for _ = 1, 2000 do
      local given = options()
      given.in_reply_to, given.list = any.pick { "<a@b>", nil }, nil
      if type(given.priority) ~= "string" then given.priority = nil end
      if type(given.headers) ~= "table" then given.headers = nil end
      local quick, why = message.compose(given)
      local full, reason = complete(message.compose, given)
      equal(tostring(reason), tostring(why))
      if full then
        both()
        assert.are.same({ full.from, full.to }, { quick.from, quick.to })
        equal(full.utf8, quick.utf8)
        equal(full:tostring(), quick:tostring())
      end
    end
    assert(composed() > 500, composed())
  end)
end)
