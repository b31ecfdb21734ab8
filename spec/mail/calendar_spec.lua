local message = require "smtp.mail.message"
local read_messages = dofile "spec/support/read_message.lua"
local smtp = require "smtp"

local EVENT = "BEGIN:VCALENDAR\nVERSION:2.0\nPRODID:-//example.org//EN\nMETHOD:REQUEST\nBEGIN:VEVENT\nUID:1@example.org\n"
  .. "SUMMARY:Gr\195\188n\nEND:VEVENT\nEND:VCALENDAR"
local WIRE = EVENT:gsub("\n", "\r\n") .. "\r\n"

local function options(more)
  local all = { from = "ada@example.org", to = "bob@example.test", date = 0 }
  for name, value in pairs(more) do
    all[name] = value
  end
  return all
end

local function compose(more)
  local composed, err = message.new(options(more))
  assert.is_nil(err and tostring(err))
  local bytes = composed:tostring()
  assert.are.equal(#bytes, composed:size())
  return bytes
end

local function refused(calendar)
  local composed, err = message.new(options { text = "t", calendar = calendar })
  assert.is_nil(composed)
  assert.are.same({ "input", "compose" }, { err.kind, err.stage })
  return err.reason
end

-- "mixed(alternative(text/plain text/calendar) application/ics)"
local function shape(part)
  local inner = {}
  for i, one in ipairs(part.parts or {}) do
    inner[i] = shape(one)
  end
  return part.type:gsub("^multipart/", "") .. (part.parts and "(" .. table.concat(inner, " ") .. ")" or "")
end

-- The text/calendar part and the attached file, and every part checked for defects.
local function find(part, found)
  found = found or {}
  assert.are.same({}, part.defects)
  found[part.type] = part
  for _, one in ipairs(part.parts or {}) do
    find(one, found)
  end
  return found
end

describe("calendar", function()
  it("is the last alternative and an attached file of the same bytes", function()
    local calendar = { content = EVENT, method = "REQUEST" }
    local file, image = { data = "x" }, { data = "y", content_id = "i", filename = "i.png" }
    local cases = {
      { {}, "mixed(text/calendar application/ics)" },
      { { text = "t" }, "mixed(alternative(text/plain text/calendar) application/ics)" },
      { { html = "h" }, "mixed(alternative(text/html text/calendar) application/ics)" },
      { { text = "t", html = "h" }, "mixed(alternative(text/plain text/html text/calendar) application/ics)" },
      { { text = "t", html = "h", attachments = { image, file } }, "mixed(alternative(text/plain "
        .. "related(text/html image/png) text/calendar) application/octet-stream application/ics)" },
    }
    local messages = {}
    for i, case in ipairs(cases) do
      case[1].calendar = calendar
      messages[i] = compose(case[1])
    end
    for i, read in ipairs(read_messages(messages)) do
      assert.are.equal(cases[i][2], shape(read.body))
      local found = find(read.body)
      local part, ics = found["text/calendar"], found["application/ics"]
      assert.are.same({ method = "REQUEST", charset = "utf-8" }, part.parameters)
      assert.is_nil(part.disposition or nil)
      assert.are.equal(WIRE, part.body)
      assert.are.equal(WIRE, ics.body)
      assert.are.same({ "attachment", "invite.ics" }, { ics.disposition, ics.filename })
    end
    assert.truthy(messages[1]:find("\r\nContent-Type: text/calendar; method=REQUEST; charset=utf-8\r\n", 1, true))
    assert.are.same({ content = EVENT, method = "REQUEST" }, calendar)
  end)

  it("takes its method from the content, and may say it once more", function()
    local function method(calendar)
      return compose({ calendar = calendar }):match("text/calendar; method=([^;]*);")
    end
    assert.are.equal("REQUEST", method { content = EVENT })
    assert.are.equal("REQUEST", method { content = EVENT, method = "request" })
    assert.are.equal("CANCEL", method { content = "BEGIN:VCALENDAR\r\nmethod:cancel\r\n" })
    assert.are.equal("CANCEL", method { content = "begin:vcalendar\nMETHOD;X-A=b:CANCEL\nend:vcalendar\n" })
    assert.are.equal("CANCEL", method { content = "\r\nBEGIN:VCALENDAR\rX-A:b\rMETH\r OD:CAN\r\tCEL\rEND:VCALENDAR\r" })
    assert.are.equal("X-OWN", method { content = "BEGIN:VCALENDAR\r\nMETHOD:X-Own\r\n", method = "x-own" })
  end)

  it("refuses what is no calendar to send", function()
    assert.are.equal("calendar: method: is CANCEL, but the content says METHOD:REQUEST",
      refused { content = EVENT, method = "CANCEL" })
    assert.truthy(refused({ content = "BEGIN:VCALENDAR" }):find("calendar: method: must be a word", 1, true))
    for _, bad in ipairs { "", "A B", "A;B", "A\"", "\195\182", ("A"):rep(41) } do
      assert.truthy(refused({ content = "x", method = bad }):find("calendar: method: must be a word", 1, true))
    end
    assert.are.equal("calendar: content: a string is needed, not nil", refused { method = "REPLY" })
    for _, content in ipairs { "", "Hello.", "METHOD:REPLY\n", "BEGIN:VEVENT\nMETHOD:REPLY\nEND:VEVENT\n", "BEGIN:VCARD\nMETHOD:REPLY\nEND:VCARD\n",
      "Hello.\n" .. EVENT, "<html>", "BEGIN:VCALENDARS\nMETHOD:REPLY\n", " BEGIN:VCALENDAR\nMETHOD:REPLY\n", "{}" } do
      local given = { content = content, method = "REPLY" }
      if content:find("METHOD:REQUEST", 1, true) then given.method = "REQUEST" end
      assert.are.equal("calendar: content: must begin with BEGIN:VCALENDAR", refused(given))
    end
    for _, content in ipairs { "BEGIN:VCALENDAR\nEND:VCALENDAR\n", "BEGIN:VCALENDAR\nX-METHOD:REPLY\nEND:VCALENDAR\n",
      "BEGIN:VCALENDAR\nDESCRIPTION:a\n METHOD:REPLY\nEND:VCALENDAR\n", "BEGIN:VCALENDAR\nMETHODS:REPLY\nEND:VCALENDAR\n",
      "BEGIN:VCALENDAR\nBEGIN:VEVENT\nMETHOD:REPLY\nEND:VEVENT\nEND:VCALENDAR\n" } do
      assert.truthy(refused({ content = content, method = "REPLY" }):find("calendar: content: has no METHOD property", 1, true))
    end
    assert.truthy(refused({ content = "ab\255", method = "REPLY" }):find("content: invalid UTF-8 at position 3", 1, true))
    for _, bad in ipairs { "\0", "\27", "\127" } do
      for _, content in ipairs { bad .. EVENT, EVENT:sub(1, 9) .. bad .. EVENT:sub(10), EVENT .. bad } do
        assert.truthy(refused({ content = content }):find("calendar: content: control byte at position"))
      end
    end
  end)

  it("cannot break out of its part with line ends of any kind", function()
    for _, mark in ipairs { "\r", "\n", "\r\n" } do
      local hostile = mark .. mark .. "--x" .. mark .. "Bcc: x@y" .. mark .. "." .. mark
      for _, content in ipairs { mark .. EVENT, EVENT:sub(1, 20) .. hostile .. EVENT:sub(21), EVENT .. hostile } do
        local bytes = compose { text = "t", calendar = { content = content } }
        assert.falsy(bytes:gsub("\r\n", ""):find("[\r\n]"))
        local read = read_messages({ bytes })[1]
        assert.is_nil(read.fields.bcc)
        local found = find(read.body)
        assert.are.equal("mixed(alternative(text/plain text/calendar) application/ics)", shape(read.body))
        assert.are.equal(found["application/ics"].body, found["text/calendar"].body)
      end
    end
  end)

  it("raises on names it does not know", function()
    local fine, words = pcall(smtp.message, options { calendar = { data = EVENT } })
    assert.is_false(fine)
    assert.truthy(words:find('smtp.message: calendar: unknown option "data"', 1, true))
  end)
end)
