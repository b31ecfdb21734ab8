-- Of: mail/compose, mail/message, mail/content_type, mail/save, mail/mime, mail/people, mail/refusal, mail/source, mail/text
local address = require "smtp.mail.address"
local core = require "smtp.core"
local date = require "smtp.mail.date"
local linear = require "spec.support.linear"
local message = require "smtp.mail.message"
local read_messages = dofile "spec/support/read_message.lua"

local ALL_BYTES = {}
for i = 0, 255 do
  ALL_BYTES[i + 1] = string.char(i)
end
ALL_BYTES = table.concat(ALL_BYTES)

-- The least that makes a message, and more.
local function options(more)
  local all = { from = "Ada <ada@example.org>", to = "bob@example.test", subject = "Hello", text = "Hi\n", date = 0 }
  for name, value in pairs(more or {}) do
    all[name] = value
  end
  return all
end

local function compose(more)
  local composed, err = message.new(options(more))
  assert.is_nil(err and tostring(err))
  return composed
end

local function drain(composed)
  local out, read = {}, composed:source()
  while true do
    local chunk, err = read()
    if not chunk then
      return table.concat(out), err, read
    end
    assert.are_not.equal("", chunk)
    out[#out + 1] = chunk
  end
end

local function write_file(bytes, path)
  path = path or os.tmpname()
  local file = assert(io.open(path, "wb"))
  file:write(bytes)
  file:close()
  return path
end

-- Refused before anything is sent: the error's shape, and its reason's first word.
local function assert_refused(fields, words)
  local composed, err = message.new(fields)
  assert.is_nil(composed, words)
  assert.are.equal("input", err.kind)
  assert.are.equal("compose", err.stage)
  assert.are.equal("not_sent", err.outcome)
  assert.is_false(err.temporary)
  assert.is_truthy(err.reason:find(words, 1, true), err.reason)
  assert.is_nil(err.reason:find("[^\32-\126\128-\255]"))
end

local function assert_source_error(composed, words)
  local _, err, read = drain(composed)
  assert.is_table(err)
  assert.are.equal("source", err.kind)
  assert.are.equal("body", err.stage)
  assert.are.equal("not_sent", err.outcome)
  assert.is_truthy(err.reason:find(words, 1, true), err.reason)
  local again, same = read()
  assert.is_nil(again)
  assert.are.equal(err, same)
end

describe("a composed message", function()
  it("is CRLF throughout, as long as it says, in the order of RFC 5322 3.6 and the same each time", function()
    local composed = compose {
      sender = "sec@example.org", reply_to = "r@example.org", cc = "c@example.org", bcc = "hidden@example.org",
      in_reply_to = "<a@b>", references = { "<a@b>", "c@d" }, message_id = "x@y",
      headers = { { "X-B", "1" }, { "X-A", "2" } },
      html = "<p>Hi", attachments = { { data = "abc", filename = "a.txt" } },
    }
    local bytes = composed:tostring()
    assert.are.equal(#bytes, composed:size())
    assert.are.equal(bytes, (drain(composed)))
    assert.is_nil(bytes:gsub("\r\n", ""):find("[\r\n]"))
    assert.is_nil(bytes:find("hidden", 1, true))
    local names = {}
    for name in bytes:match("^.-\r\n\r\n"):gmatch("([^%s:]+):[^\n]*\n") do
      names[#names + 1] = name
    end
    assert.are.equal("Date From Sender Reply-To To Cc Message-ID In-Reply-To References Subject MIME-Version X-B X-A "
      .. "Content-Type", table.concat(names, " "))
    assert.is_truthy(bytes:find("\r\nMessage-ID: <x@y>\r\nIn-Reply-To: <a@b>\r\nReferences: <a@b> <c@d>\r\n", 1, true))
    assert.are.equal("<x@y>", composed.id)
    assert.are.same({ from = "sec@example.org",
      to = { "bob@example.test", "c@example.org", "hidden@example.org" } }, composed.envelope)
    assert.is_false(composed.utf8)
    assert.are.equal("7bit", composed:form("7bit").encoding)
  end)

  it("can be as small as text", function()
    local bytes = compose { message_id = "x@y", text = "a\nb\rc\r\n.\n..d" }:tostring()
    assert.is_truthy(bytes:find("MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
      .. "Content-Transfer-Encoding: 7bit\r\n\r\na\r\nb\r\nc\r\n.\r\n..d\r\n", 1, true))
    local empty = assert(message.new { from = "a@b", to = "c@d" })
    assert.are.equal("\r\n\r\n", empty:tostring():sub(-4))
    assert.are.equal(#empty:tostring(), empty:size())
  end)

  it("reads back field by field and byte by byte in another program", function()
    local subject = "Gr\195\188\195\159e \240\159\152\128 " .. ("and a long tail "):rep(40)
    local path = write_file(ALL_BYTES:rep(1000))
    local given = ALL_BYTES:rep(700)
    local at = 1
    local text = "Zo\195\171\n.\n..\nFrom here\n trailing \nlast"
    local html = ("<p>\230\188\162\229\173\151</p>"):rep(500)
    local composed = compose {
      from = { name = "Ada, \195\164", address = "ada@example.org" },
      to = { '"Bob \\"B\\"" <bob@example.test>, plain@example.test',
        { name = "J\195\188rgen", address = "j@example.test" } },
      subject = subject, text = text, html = html, date = 1795515072, headers = { ["X-Note"] = "na\195\175ve =?x?=" },
      attachments = {
        { data = ALL_BYTES, filename = "\195\188ml\195\164ut \"q\"; x.PDF" },
        { data = ALL_BYTES .. "x", content_id = "logo@x", filename = "logo.png" },
        { path = path, filename = "big.bin" },
        { source = function()
          local chunk = given:sub(at, at + 9999)
          at = at + 10000
          return chunk ~= "" and chunk or nil
        end, size = #given, content_type = 'text/x-a; Charset="utf 8"; name=n', disposition = "inline" },
        { data = "", filename = "empty" },
        { data = ".\r\n..\r\n", filename = "dots.txt" },
      },
    }
    local size = composed:size()
    local bytes = composed:tostring()
    assert.are.equal(#bytes, size)
    assert.is_nil(bytes:find("[^\r\n\t\32-\126]"))
    for line in bytes:gmatch("(.-)\r\n") do
      if #line > 998 or line:find("[\r\n]") then
        assert.is_true(false, line)
      end
    end
    os.remove(path)
    local read = read_messages { bytes }[1]
    assert.are.equal(subject, read.fields.subject)
    assert.are.equal("na\195\175ve =?x?=", read.fields["x-note"])
    assert.are.equal(date.format(1795515072), read.fields.date)
    assert.are.same({ { "Ada, \195\164", "ada@example.org" } }, read.addresses.from)
    assert.are.same({ { 'Bob "B"', "bob@example.test" }, { "", "plain@example.test" },
      { "J\195\188rgen", "j@example.test" } }, read.addresses.to)
    local body = read.body
    assert.are.equal("multipart/mixed", body.type)
    assert.are.equal("multipart/alternative", body.parts[1].type)
    assert.are.equal("text/plain", body.parts[1].parts[1].type)
    assert.are.equal((text:gsub("\n", "\r\n")), body.parts[1].parts[1].body)
    assert.are.equal("quoted-printable", body.parts[1].parts[1].encoding)
    local related = body.parts[1].parts[2]
    assert.are.equal("multipart/related", related.type)
    assert.are.equal("text/html", related.parameters.type)
    assert.are.equal(html, related.parts[1].body)
    assert.are.equal("base64", related.parts[1].encoding)
    assert.are.equal("<logo@x>", related.parts[2].id)
    assert.are.equal("inline", related.parts[2].disposition)
    assert.are.equal("image/png", related.parts[2].type)
    assert.are.equal(ALL_BYTES .. "x", related.parts[2].body)
    local expected = {
      { "application/pdf", "attachment", "\195\188ml\195\164ut \"q\"; x.PDF", ALL_BYTES },
      { "application/octet-stream", "attachment", "big.bin", ALL_BYTES:rep(1000) },
      { "text/x-a", "inline", nil, given },
      { "application/octet-stream", "attachment", "empty", "" },
      { "text/plain", "attachment", "dots.txt", ".\r\n..\r\n" },
    }
    assert.are.equal(#expected + 1, #body.parts)
    for i, part in ipairs(expected) do
      local got = body.parts[i + 1]
      assert.are.equal(part[1], got.type)
      assert.are.equal(part[2], got.disposition)
      assert.are.equal(part[3], got.filename or nil)
      assert.is_true(part[4] == got.body, "body " .. i)
      assert.are.same({}, got.defects)
    end
    assert.are.same({ charset = "utf 8", name = "n" }, { charset = body.parts[4].parameters.Charset
      or body.parts[4].parameters.charset, name = body.parts[4].parameters.name })
  end)

  it("chooses the structure that its parts need", function()
    local file, image = { data = "x" }, { data = "y", content_id = "i" }
    local cases = {
      { {}, "text/plain" },
      { { html = "h" }, "text/html" },
      { { text = "t", html = "h" }, "multipart/alternative" },
      { { attachments = { file } }, "multipart/mixed" },
      { { html = "h", attachments = { image } }, "multipart/related" },
      { { text = "t", html = "h", attachments = { image } }, "multipart/alternative" },
      { { text = "t", attachments = { image } }, "multipart/mixed" },
      { { text = "t", html = "h", attachments = { image, file } }, "multipart/mixed" },
    }
    local messages = {}
    for i, case in ipairs(cases) do
      case[1].from, case[1].to = "a@b", "c@d"
      messages[i] = assert(message.new(case[1])):tostring()
    end
    for i, read in ipairs(read_messages(messages)) do
      assert.are.equal(cases[i][2], read.body.type)
      assert.are.same({}, read.body.defects)
    end
  end)

  it("gives a text back exactly, in whatever encoding", function()
    local texts = {
      "", "\n", "plain", "plain\n", "two\n\n", " \n", "tab\t\n", ("x"):rep(998), ("x"):rep(999),
      ("x"):rep(998) .. "\ny", ("y"):rep(5000) .. "\n" .. ("z"):rep(999), ("\230\188\162"):rep(999),
      "nul\0", "esc\27[0m\n", "\195\164", "\195\164\n", "\195\164 \n", "=?utf-8?q?x?=\n", "a=b\127",
      "form\12feed", "cr\rlf\ncrlf\r\n",
    }
    local messages = {}
    for i, text in ipairs(texts) do
      messages[i] = compose { text = text, html = "<p>" }:tostring()
      messages[i + #texts] = compose { text = text }:tostring()
      for line in messages[i]:gmatch("(.-)\r\n") do
        assert.is_true(#line <= 998)
      end
      assert.is_nil(messages[i]:find("[^\r\n\t\32-\126]"))
    end
    local read = read_messages(messages)
    for i, text in ipairs(texts) do
      text = text:gsub("\r\n?", "\n"):gsub("\n", "\r\n")
      assert.are.equal(text, read[i].body.parts[1].body)
      -- alone, a message that is not base64 ends with its last line
      local alone = read[i + #texts].body
      local exact = alone.encoding == "base64" or text == "" or text:sub(-2) == "\r\n"
      assert.are.equal(exact and text or text .. "\r\n", alone.body)
    end
  end)

  it("keeps boundaries out of its parts and apart from each other", function()
    local seen = {}
    for _ = 1, 3 do
      local bytes = compose { html = "h", attachments = { { data = "x" } } }:tostring()
      for boundary in bytes:gmatch('boundary="([^"]*)"') do
        assert.is_truthy(boundary:find("^=_%x+$"))
        assert.are.equal(2 + 24, #boundary)
        assert.is_nil(seen[boundary])
        seen[boundary] = true
      end
    end
  end)

  it("writes dates without the locale", function()
    assert.are.equal("Tue, 24 Nov 2026", date.format(1795515072 + 0.9):sub(1, 16))
    for _, time in ipairs { 0, 951782400, 1795515072, 4102444799, 32503680000 } do
      local day, month, year, hour, min, sec, sign, hh, mm = date.format(time):match(
        "^%a%a%a, (%d%d) (%a%a%a) (%d%d%d%d) (%d%d):(%d%d):(%d%d) ([+-])(%d%d)(%d%d)$")
      local utc = os.date("!*t", time)
      local minutes = (hour * 60 + min) - (sign .. "1") * (hh * 60 + mm)
      assert.are.equal((utc.hour * 60 + utc.min) % 1440, minutes % 1440)
      assert.are.equal(utc.sec, tonumber(sec))
      assert.is_truthy(day and month and year)
    end
    for _, bad in ipairs { -1, 0 / 0, 1 / 0, -1 / 0, 1e300, 253402300800, "today" } do
      assert.is_nil((date.format(bad)))
    end
  end)

  it("makes Message-IDs on the sender's domain", function()
    assert.is_truthy(compose().id:find("^<%x+@example%.org>$"))
    assert.are_not.equal(compose().id, compose().id)
    assert.are.equal(32, #compose().id:match("<(%x+)@"))
    assert.is_truthy(compose { from = "a@[192.0.2.1]" }.id:find("@[192.0.2.1]>", 1, true))
    assert.is_truthy(compose { from = "a@b\195\188cher.example" }.id:find("^<%x+@xn%-%-bcher%-kva%.example>$"))
    assert.is_truthy(compose { from = "\195\188@b\195\188cher.example" }.id:find("^<%x+@mail%.invalid>$"))
  end)

  it("does not change or keep the caller's tables", function()
    local given = options {
      to = { "a@b", { name = "C", address = "c@d" } }, headers = { ["X-A"] = "1" }, references = { "x@y" },
      attachments = { { data = "x", filename = "d/e.txt" } }, envelope = { from = "", to = { "q@r" } },
    }
    local function copy(t)
      local c = {}
      for k, v in pairs(t) do
        c[k] = type(v) == "table" and copy(v) or v
      end
      return c
    end
    local before = copy(given)
    local composed = assert(message.new(given))
    assert.are.same(before, given)
    given.envelope.to[1] = "changed@x"
    assert.are.same({ from = "", to = { "q@r" } }, composed.envelope)
  end)
end)

describe("the envelope", function()
  it("names each recipient once, the local part byte by byte", function()
    local composed = compose { to = "a@X.org, A@x.org", cc = { "a@x.ORG", '"a"@x.org' }, bcc = "b@x.org, a@x.org" }
    assert.are.same({ "a@X.org", "A@x.org", "b@x.org" }, composed.envelope.to)
  end)

  it("may differ from the header", function()
    local composed = compose { envelope = { from = "<>", to = { "x@y", "Z <z@y>" } } }
    assert.are.same({ from = "", to = { "x@y", "z@y" } }, composed.envelope)
    assert.is_truthy(composed:tostring():find("\r\nTo: bob@example.test\r\n", 1, true))
    assert.are.same({ from = "ada@example.org", to = { "x@y" } }, compose { envelope = { to = "x@y" } }.envelope)
    assert.are.equal("bob@example.test", compose { envelope = { from = "x@y" } }.envelope.to[1])
    assert.is_nil(assert(message.new { from = "a@b", envelope = { to = "x@y" } }):tostring():find("\r\nTo:", 1, true))
  end)

  it("holds the members of groups, and the header the groups", function()
    local composed = compose { to = "Team: a@x.org, Z <b@x.org>;, c@x.org", cc = "Empty:;", reply_to = "R: d@x.org;" }
    assert.are.same({ "a@x.org", "b@x.org", "c@x.org" }, composed.envelope.to)
    assert.is_truthy(composed:tostring():find("\r\nTo: Team: a@x.org, Z <b@x.org>;, c@x.org\r\nCc: Empty:;\r\n", 1, true))
    composed = compose { to = "undisclosed-recipients:;", bcc = "a@x.org" }
    assert.are.same({ "a@x.org" }, composed.envelope.to)
    assert.is_truthy(composed:tostring():find("\r\nTo: undisclosed-recipients:;\r\n", 1, true))
    for option, value in pairs { from = "G: a@x.org;", sender = "G: a@x.org;", envelope = { to = "G: a@x.org;" } } do
      assert_refused({ from = option ~= "from" and "a@b" or value, to = "c@d", [option] = value }, "groups are not accepted here")
    end
  end)

  it("knows whether SMTPUTF8 is needed", function()
    assert.is_false(compose { from = "J\195\188rgen <j@b>", text = "\195\164" }.utf8)
    for _, more in ipairs {
      { from = "j\195\188@b" }, { to = "\195\188@\195\188.b" }, { reply_to = "\195\188@b" }, { bcc = "\195\188@b" },
      { envelope = { from = "\195\188@b" } }, { envelope = { to = "\195\188@b" } },
    } do
      assert.is_true(compose(more).utf8)
    end
    assert.is_false(compose { bcc = "\195\188@b", envelope = { to = "x@y" } }.utf8)
    assert.is_false(compose { to = "a@\195\188.b" }.utf8)
    assert.is_truthy(compose { to = "\195\188@b" }:tostring():find("\r\nTo: \195\188@b\r\n", 1, true))
  end)
end)

describe("refusals", function()
  local cases = {
    { { from = false }, "from: the author's address" }, -- false: left out
    { { to = false }, "to: no recipient" },
    { { to = {} }, "to: no recipient" },
    { { to = "" }, "to: an address is missing" },
    { { from = "a@b, c@d" }, "from: one mailbox" },
    { { from = "" }, "from: an address is missing" },
    { { cc = "x" }, "cc: no \"@\"" },
    { { bcc = { "a@b", "x" } }, "bcc: item 2:" },
    { { sender = "a@b@c" }, "sender: unexpected" },
    { { reply_to = "<>" }, "reply_to: unexpected" },
    { { envelope = { to = {} } }, "envelope.to: no recipient" },
    { { envelope = { to = "<>" } }, "envelope.to: unexpected" },
    { { envelope = { from = "x" } }, "envelope.from: no \"@\"" },
    { { subject = "\255" }, "subject: invalid UTF-8 at position 1" },
    { { text = "ab\255" }, "text: invalid UTF-8 at position 3" },
    { { html = "\237\160\128" }, "html: invalid UTF-8 at position 1" },
    { { date = -1 }, "date: a Unix time" },
    { { date = "Tue, 24 Nov 2026 10:11:12 +0000" }, "date: a Unix time" },
    { { message_id = "no-at" }, "message_id: not an identifier" },
    { { message_id = "<a@b> <c@d>" }, "message_id: not an identifier" },
    { { message_id = "a b@c" }, "message_id: not an identifier" },
    { { in_reply_to = "<a@b" }, "in_reply_to: not a message identifier" },
    { { references = { "a@b", "<c" } }, "references: not a message identifier" },
    { { references = ("x"):rep(1000) }, "references: not a message identifier" },
    { { in_reply_to = "" }, "in_reply_to: a message identifier is missing" },
    { { headers = { Subject = "x" } }, "headers: Subject is written by the option subject" },
    { { headers = { ["BCC"] = "x" } }, "the option bcc" },
    { { headers = { { "Reply-to", "x" } } }, "the option reply_to" },
    { { headers = { ["Content-Type"] = "x" } }, "text, html or attachments" },
    { { headers = { ["mime-version"] = "x" } }, "text, html or attachments" },
    { { headers = { ["a b"] = "x" } }, "headers: not a header field name" },
    { { headers = { { "X-A" } } }, "headers: X-A: a string is needed" },
    { { headers = { "X-A: 1" } }, "headers: item 1" },
    { { attachments = { "x" } }, "attachments[1]: a table is needed" },
    { { attachments = { {} } }, "attachments[1]: path, data or source is missing" },
    { { attachments = { { data = "a" }, { data = "x", path = "y" } } }, "attachments[2]: give either path or data" },
    { { attachments = { { data = 5 } } }, "data must be a string" },
    { { attachments = { { source = "x" } } }, "source must be a function" },
    { { attachments = { { source = print, size = -1 } } }, "size must be" },
    { { attachments = { { source = print, size = 1.5 } } }, "size must be" },
    { { attachments = { { source = print, size = "1" } } }, "size must be" },
    { { attachments = { { path = "/nonexistent/x" } } }, "/nonexistent/x: No such file or directory" },
    { { attachments = { { path = "spec" } } }, "spec: Is a directory" },
    { { attachments = { { path = "" } } }, "attachments[1]: not the name of a file" },
    { { attachments = { { path = "Makefile\0x" } } }, "not the name of a file" },
    { { attachments = { { data = "", filename = "a/" } } }, "filename: no file's name" },
    { { attachments = { { data = "", filename = ".." } } }, "filename: no file's name" },
    { { attachments = { { data = "", filename = "" } } }, "filename: no file's name" },
    { { attachments = { { data = "", content_type = "text" } } }, "content_type: not a media type" },
    { { attachments = { { data = "", content_type = "a/b; c" } } }, "content_type: not a parameter" },
    { { attachments = { { data = "", content_type = "a/b; c=d; C=e" } } }, "content_type: not a parameter" },
    { { attachments = { { data = "", content_type = "a/b; ;" } } }, "content_type: not a parameter" },
    { { attachments = { { data = "", content_type = 'a/b; c="d' } } }, "content_type: not a parameter" },
    { { attachments = { { data = "", content_type = 'a/b; c="d\\"' } } }, "content_type: not a parameter" },
    { { attachments = { { data = "", content_type = 'a/b; c="d"e' } } }, "content_type: not a parameter" },
    { { attachments = { { data = "", content_type = "Multipart/mixed" } } }, "content_type: cannot be attached in base64" },
    { { attachments = { { data = "", content_type = "message/partial" } } }, "content_type: cannot be attached in base64" },
    { { attachments = { { data = "", content_id = "a b" } } }, "content_id: not an identifier" },
    { { attachments = { { data = "", content_id = "" } } }, "content_id: not an identifier" },
    { { attachments = { { data = "", disposition = "x" } } }, "disposition: must be" },
  }
  for _, case in ipairs(cases) do
    it("says " .. case[2], function()
      local fields = options(case[1])
      for name, value in pairs(fields) do
        if value == false then
          fields[name] = nil
        end
      end
      assert_refused(fields, case[2])
    end)
  end

  local BAD = { "\127", "\r\n", "\r\nBcc: x@y", "\n.\r\n", "\r\n\r\n" }
  for byte = 0, 31 do BAD[#BAD + 1] = string.char(byte) end
  local TAB = { subject = true, header_value = true, in_reply_to = true, references = true }
  local pipe = assert(io.popen "openssl genpkey -algorithm ed25519")
  local KEY = pipe:read "*a"
  pipe:close()

  it("let no control byte through any option", function()
    local makers = {
      from = function(v) return { from = v } end,
      sender = function(v) return { sender = v } end,
      to = function(v) return { to = v } end,
      cc = function(v) return { cc = { v } } end,
      bcc = function(v) return { bcc = v } end,
      reply_to = function(v) return { reply_to = v } end,
      name = function(v) return { to = { name = v, address = "a@b" } } end,
      address = function(v) return { to = { name = "x", address = v } } end,
      subject = function(v) return { subject = v } end,
      message_id = function(v) return { message_id = v } end,
      in_reply_to = function(v) return { in_reply_to = v } end,
      references = function(v) return { references = { v } } end,
      header_name = function(v) return { headers = { { v, "x" } } } end,
      header_key = function(v) return { headers = { [v] = "x" } } end,
      header_value = function(v) return { headers = { { "X-A", v } } } end,
      filename = function(v) return { attachments = { { data = "", filename = v } } } end,
      path = function(v) return { attachments = { { path = v } } } end,
      content_type = function(v) return { attachments = { { data = "", content_type = v } } } end,
      content_id = function(v) return { attachments = { { data = "", content_id = v } } } end,
      disposition = function(v) return { attachments = { { data = "", disposition = v } } } end,
      priority = function(v) return { priority = v } end,
      list_id = function(v) return { list = { id = v } } end,
      list_id_name = function(v) return { list = { id = v .. " <list.example.org>" } } end,
      unsubscribe = function(v) return { list = { unsubscribe = v } } end,
      unsubscribe_list = function(v) return { list = { unsubscribe = { "mailto:a@b", v } } } end,
      list_help = function(v) return { list = { help = v } } end,
      list_subscribe = function(v) return { list = { subscribe = v } } end,
      list_post = function(v) return { list = { post = v } } end,
      list_owner = function(v) return { list = { owner = v } } end,
      list_archive = function(v) return { list = { archive = { v } } } end,
      calendar_method = function(v) return { calendar = { content = "BEGIN:VCALENDAR\nMETHOD:" .. v .. "\n", method = v } } end,
      envelope_from = function(v) return { envelope = { from = v } } end,
      envelope_to = function(v) return { envelope = { to = { v } } } end,
      dkim_domain = function(v) return { dkim = { domain = v, selector = "s", key = KEY } } end,
      dkim_selector = function(v) return { dkim = { domain = "example.org", selector = v, key = KEY } } end,
      dkim_headers = function(v)
        return { dkim = { domain = "example.org", selector = "s", key = KEY, headers = { "From", v } } }
      end,
      dkim_canonicalization = function(v)
        return { dkim = { domain = "example.org", selector = "s", key = KEY, canonicalization = v } }
      end,
    }
    local bases = { content_type = "text/plain", header_name = "X-A", header_key = "X-A", disposition = "inline",
      dkim_domain = "mail.example.org", dkim_selector = "key.one", dkim_headers = "Subject",
      dkim_canonicalization = "relaxed/simple", priority = "high", list_id = "list.example.org", calendar_method = "REQUEST", list_post = "NO" }
    for _, key in ipairs { "unsubscribe", "unsubscribe_list", "list_help", "list_subscribe", "list_owner",
      "list_archive" } do
      bases[key] = "mailto:list@example.org?subject=x"
    end
    for name, make in pairs(makers) do
      local base = bases[name] or "a.b@example.org"
      if name ~= "path" and name ~= "disposition" then
        assert.is_nil(select(2, message.new(options(make(base)))))
      end
      for _, bad in ipairs(BAD) do
        for _, value in ipairs { bad .. base, base:sub(1, 3) .. bad .. base:sub(4), base .. bad } do
          local composed, err = message.new(options(make(value)))
          if bad == "\t" and composed then -- white space, where a field may hold it
            assert.is_true(TAB[name] or false, name)
          else
            assert.is_nil(composed, name)
            assert.are.equal("input", err.kind)
            assert.is_nil(err.reason:find("[%z\1-\31\127]"), name)
          end
        end
      end
    end
  end)
end)

describe("attachments", function()
  it("have the parameters of their content_type, quoted or not, whatever ends it", function()
    for given, due in pairs {
      ["text/x-a;"] = {}, ["text/x-a ; "] = {}, ["text/x-a; a=b;"] = { a = "b" }, ["text/x-a; a=b ; c=d ;"] = { a = "b", c = "d" },
      ['text/x-a; a="b\\"c"'] = { a = 'b"c' }, ['text/x-a; a="\\"";'] = { a = '"' }, ['text/x-a; a="b\\\\c"; d=e'] = { a = "b\\c", d = "e" },
      ['text/x-a; a="\\b"'] = { a = "b" }, ['text/x-a; a=""'] = { a = "" }, ['text/x-a; a="b;c=d"; e="f"'] = { a = "b;c=d", e = "f" },
    } do
      local bytes = compose { attachments = { { data = "x", content_type = given } } }:tostring()
      assert.are.same(due, read_messages({ bytes })[1].body.parts[2].parameters, given)
    end
  end)

  for _, kind in ipairs { "message/global", "Message/Global", "message/global-headers", "message/global-delivery-status",
    "message/global-disposition-notification" } do
    it("are encoded in base64 where they are " .. kind .. " (RFC 6532 3.7)", function()
      local inner = "Subject: Gr\195\188n\r\n\r\n" .. ("\195\188"):rep(600) .. "\r\n"
      local bytes = compose { text = "t", attachments = { { data = inner, content_type = kind, filename = "a.u8msg" } } }:tostring()
      assert.is_nil(bytes:find("[\128-\255]"))
      local field = "\r\nContent-Type: " .. kind .. "\r\nContent-Transfer-Encoding: base64\r\n"
      local at = assert(bytes:find(field, 1, true))
      local encoded = bytes:sub(at):match("\r\n\r\n(.-)\r\n%-%-")
      assert.are.equal(inner, core.unbase64((encoded:gsub("%s", ""))))
    end)
  end

  it("have the filename that is given, or the last component of the path", function()
    local name = os.tmpname()
    local path = name .. "-f.pdf"
    write_file("x", path)
    local bytes = compose { attachments = { { path = path }, { data = "", filename = "C:\\dir\\b.png" },
      { data = "", filename = "../../etc/c.zip" } } }:tostring()
    os.remove(path)
    os.remove(name)
    assert.is_truthy(bytes:find("filename=" .. path:match("[^/]*$"), 1, true))
    assert.is_truthy(bytes:find("application/pdf", 1, true))
    assert.is_truthy(bytes:find([[filename="C:\\dir\\b.png"]], 1, true))
    assert.is_truthy(bytes:find("image/png", 1, true))
    assert.is_truthy(bytes:find('filename="../../etc/c.zip"', 1, true))
  end)

  it("are read anew each time, block by block, in memory that does not grow", function()
    local path = write_file(("0123456789abcdef"):rep(2 ^ 20)) -- 16 MB
    local composed = compose { attachments = { { path = path } } }
    for _ = 1, 2 do
      local read, total, count, most = composed:source(), 0, 0, 0
      collectgarbage()
      local before = collectgarbage("count")
      for chunk in read do
        assert(#chunk <= 128 * 1024)
        total, count = total + #chunk, count + 1
        if count % 50 == 0 then
          collectgarbage()
          most = math.max(most, collectgarbage("count") - before)
        end
      end
      assert.are.equal(composed:size(), total)
      assert.is_true(count > 200 and most < 512, most .. " KB")
    end
    os.remove(path)
  end)

  it("notice files that vanish, grow or shrink", function()
    local path = write_file(("x"):rep(100000))
    local composed = compose { attachments = { { path = path } } }
    write_file(("x"):rep(99999), path)
    assert_source_error(composed, path .. ": changed")
    write_file(("x"):rep(100001), path)
    assert_source_error(composed, path .. ": changed")
    write_file("", path)
    assert_source_error(composed, path .. ": changed")
    os.remove(path)
    assert_source_error(composed, path)
    local text, err = composed:tostring()
    assert.is_nil(text)
    assert.are.equal("source", err.kind)
    write_file(("y"):rep(100000), path)
    assert.are.equal(composed:size(), #composed:tostring())
    os.remove(path)
  end)

  it("keep no file open behind them", function()
    local path = write_file(("x"):rep(1000))
    local composed = compose { attachments = { { path = path } } }
    -- those of other specs' threads are none of ours
    local function handles()
      local pipe, count = io.popen("ls -l /proc/$PPID/fd"), 0
      for line in pipe:lines() do
        if line:find(path, 1, true) then count = count + 1 end
      end
      pipe:close()
      return count
    end
    collectgarbage()
    collectgarbage("stop")
    assert(composed:tostring())
    assert.are.equal(0, handles())
    write_file("", path)
    assert.is_nil((composed:tostring()))
    assert.are.equal(0, handles())
    write_file(("x"):rep(1000), path)
    local abandoned = composed:source()
    repeat
      local chunk = abandoned()
    until chunk:find("^eHh4")
    assert.are.equal(1, handles())
    abandoned = nil -- luacheck: ignore
    collectgarbage("restart")
    collectgarbage()
    collectgarbage()
    assert.are.equal(0, handles())
    os.remove(path)
  end)

  local function of(source, size)
    return compose { attachments = { { source = source, size = size, filename = "f" } } }
  end
  local function giving(...)
    local chunks, i = { ... }, 0
    return function()
      i = i + 1
      return chunks[i]
    end
  end

  it("take functions, with or without a size", function()
    assert.is_nil(of(giving("a", "b")):size())
    assert.is_truthy(of(giving("a", "", "b")):tostring():find("\r\n\r\nYWI=\r\n", 1, true))
    local sized = of(giving("a", "b"), 2)
    local size = sized:size()
    assert.are.equal(size, #sized:tostring())
  end)

  it("say what a function did wrong", function()
    assert_source_error(of(function() error("boom") end), "attachments[1].source: raised an error:")
    assert_source_error(of(function() error({}) end), "raised an error")
    assert_source_error(of(function() return nil, "disk on fire" end), "attachments[1].source: disk on fire")
    assert_source_error(of(function() return 5 end), "gave a number")
    assert_source_error(of(function() return false end), "gave a boolean")
    assert_source_error(of(giving("abc"), 2), "gave more than the announced 2 bytes")
    assert_source_error(of(giving("abc"), 4), "gave less than the announced 4 bytes")
    assert_source_error(of(function() return "x" end, 1000), "gave more")
  end)

  it("notice a function that cannot be read again", function()
    local once = of(giving("abc"))
    assert(once:tostring())
    assert_source_error(once, "gave less than the first time's 3 bytes")
    local halfway = of(giving(("x"):rep(1000), "def"))
    local read = halfway:source()
    repeat
      local chunk = read()
    until chunk:find("^eHh4")
    assert_source_error(halfway, "left halfway")
    local i = 0
    local again = of(function()
      i = (i + 1) % 3
      return i > 0 and "x" or nil
    end)
    assert.are.equal(again:tostring(), again:tostring())
  end)
end)

describe("raw", function()
  local raw = "Subject: x\nMessage-Id:\n <abc@def>\n\nBody\r\n.\rend"

  it("goes as it is but for its line ends", function()
    local composed = assert(message.new { raw = raw, from = "a@b", to = "c@d" })
    local sent = "Subject: x\r\nMessage-Id:\r\n <abc@def>\r\n\r\nBody\r\n.\r\nend\r\n"
    assert.are.equal(sent, (drain(composed)))
    assert.are.equal(sent, composed:tostring())
    assert.are.equal(#sent, composed:size())
    assert.are.equal("<abc@def>", composed.id)
    assert.are.equal("7bit", composed:form("7bit").encoding)
    assert.are.same({ from = "a@b", to = { "c@d" } }, composed.envelope)
    assert.are.equal("8bit", message.new({ raw = "A: b\n\n\195\164", from = "a@b", to = "c@d" }):form("7bit").encoding)
    local large = assert(message.new { raw = ("x\r\n"):rep(2 ^ 20), envelope = { from = "", to = "c@d" } })
    assert.are.equal(3 * 2 ^ 20, large:size())
    assert.are.equal(3 * 2 ^ 20, #large:tostring())
  end)

  it("finds a Message-ID in the header alone", function()
    local function id(text)
      return assert(message.new { raw = text, from = "a@b", to = "c@d" }).id
    end
    assert.is_nil(id "A: b\n\nMessage-ID: <x@y>\n")
    assert.is_nil(id "A: b\nX-Message-ID: <x@y>\n")
    assert.is_nil(id "")
    assert.are.equal("<x@y>", id "message-id: <x@y>\r\n\r\n")
  end)

  it("takes a function", function()
    local chunks = { "A: b\n", "\n", "c" }
    local i = 0
    local composed = assert(message.new { raw = function()
      i = i + 1
      return chunks[i]
    end, from = "a@b", to = "c@d" })
    assert.is_nil(composed:size())
    assert.is_nil(composed.id)
    assert.is_nil(composed:form("7bit").encoding)
    assert.are.equal("A: b\r\n\r\nc\r\n", (drain(composed)))
    local failing = assert(message.new { raw = function() return nil, "gone" end, from = "a@b", to = "c@d" })
    assert_source_error(failing, "raw: gone")
  end)

  it("takes no option that composes", function()
    for name, value in pairs { subject = "x", text = "x", html = "x", attachments = {}, headers = {}, date = 0,
      message_id = "a@b", in_reply_to = "a@b", references = "a@b", reply_to = "a@b", priority = "high", list = {},
      calendar = {} } do
      assert_refused({ raw = raw, from = "a@b", to = "c@d", [name] = value }, name .. ": cannot go with raw")
    end
    assert_refused({ raw = raw, to = "c@d" }, "from:")
    assert_refused({ raw = raw, from = "a@b" }, "to:")
  end)
end)

describe("large values", function()
  it("take linear time #linear", function()
    linear(function(given) assert(message.new(options(given))) end, function(n)
      return { to = ("Ada <ada@example.org>, "):rep(n / 16) .. "a@b", subject = ("\195\188 a"):rep(n / 4),
        text = ("\195\164bc\n"):rep(n / 4) }
    end, 2 ^ 18)
    assert.are.equal(40001, #assert(address.list(("Ada <ada@example.org>, "):rep(40000) .. "a@b")))
  end)
end)
