-- What is composed in one step must be what compose makes of it: the two are compared over many messages, made of what is
-- usual, what is nasty and both.
local core = require "smtp.core"
local message = require "smtp.mail.message"
local any = require "spec.support.any_mail"

local complete, counted, equal, options = any.complete, any.counted, any.equal, any.options

describe("A letter", function()
  before_each(any.still)
  after_each(any.moving)

  it("is octet by octet what compose makes, with its steps in C and without", function()
    math.randomseed(4)
    local took, taken = counted()
    for _ = 1, 6000 do
      local given = options()
      local letter = message.letter(given)
      if letter then
        took()
        local full = assert(complete(message.compose, given))
        local first = assert(message.compose(given))
        equal(first:tostring(), letter:tostring())
        equal(first.bytes, letter.bytes)
        equal(full.from, letter.from)
        equal(table.concat(full.to, " "), table.concat(letter.to, " "))
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
    assert.are.same({ "bob@example.org", "hidden@example.org" }, letter.to)
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
    local _, err = message.compose(given())
    assert.are.equal("message_id: no random bytes from the system: none", err.reason)
  end)
end)
