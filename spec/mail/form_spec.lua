local message = require "smtp.mail.message"
local read_messages = dofile "spec/support/read_message.lua"
local smtp = require "smtp"
local together = require "spec.support.together"

local UMLAUT = "Gr\195\188\195\159e\n.\n"
local BYTES = {}
for byte = 0, 255 do BYTES[#BYTES + 1] = string.char(byte) end
BYTES = table.concat(BYTES)
local INNER = "From: a@example.org\nContent-Type: text/plain\nSubject: inner\n\nText.\n.\n"

local function compose(more)
  local fields = { from = "ada@example.org", to = "bob@example.test", subject = "s", date = 0 }
  for name, value in pairs(more) do fields[name] = value end
  return assert(message.new(fields))
end

local function bytes_of(composed, form)
  local laid, out = composed:form(form), {}
  for chunk in laid.content.open() do out[#out + 1] = chunk end
  out = table.concat(out)
  assert.are.equal(#out, laid.content.size)
  return out, laid.encoding
end

-- Every Content-Transfer-Encoding, in order.
local function encodings(bytes)
  local list = {}
  for encoding in bytes:gmatch("\r\nContent%-Transfer%-Encoding: ([^\r]*)\r\n") do list[#list + 1] = encoding end
  return list
end

describe("a text beyond ASCII", function()
  it("goes as it is where the server takes 8bit", function()
    local composed = compose { text = UMLAUT }
    local plain, encoding = bytes_of(composed, "7bit")
    assert.are.equal("7bit", encoding)
    assert.is_nil(plain:find("[\128-\255]"))
    assert.are.equal(plain, composed:tostring())
    local eight
    eight, encoding = bytes_of(composed, "8bit")
    assert.are.equal("8bit", encoding)
    assert.are.equal((UMLAUT:gsub("\n", "\r\n")), eight:match("\r\n\r\n(.*)$"))
    assert.is_truthy(eight:find("\r\nContent-Transfer-Encoding: 8bit\r\n", 1, true))
  end)

  it("is encoded all the same where a line is too long, or a control byte is in it", function()
    for _, text in ipairs { ("\195\164"):rep(500), "\195\164\0", "\195\164\27" } do
      local eight, encoding = bytes_of(compose { text = text }, "8bit")
      assert.are.equal("7bit", encoding)
      assert.is_nil(eight:find("[\128-\255]"))
    end
    assert.are.equal("8bit", (select(2, bytes_of(compose { text = ("\195\164"):rep(499) }, "8bit"))))
  end)

  it("makes every multipart around it say so", function()
    local composed = compose { text = "plain", html = UMLAUT, attachments = { { data = BYTES } } }
    for form, expected in pairs {
      ["7bit"] = { "7bit", "base64", "base64" }, ["8bit"] = { "8bit", "8bit", "7bit", "8bit", "base64" },
      binary = { "binary", "8bit", "7bit", "8bit", "binary" },
    } do
      local bytes, encoding = bytes_of(composed, form)
      local read = read_messages { bytes }[1]
      assert.are.equal(form == "7bit" and "7bit" or form, encoding)
      assert.are.same(expected, encodings(bytes))
      assert.are.equal(BYTES, read.body.parts[2].body)
      assert.are.equal((UMLAUT:gsub("\n", "\r\n")), (read.body.parts[1].parts[2].body:gsub("\r?\n", "\r\n")))
    end
  end)
end)

describe("ASCII is the same in every form", function()
  it("but for attachments under binary", function()
    local composed = compose { text = "t", html = "<p>t" }
    assert.are.equal(bytes_of(composed, "7bit"), bytes_of(composed, "8bit"))
    assert.are.equal(bytes_of(composed, "7bit"), bytes_of(composed, "binary"))
    assert.are.equal("7bit", composed:form("binary").encoding)
  end)
end)

describe("a message attached", function()
  it("is not encoded, and read as a message", function()
    local composed = compose { text = "t", attachments = { { data = INNER, content_type = "message/rfc822", filename = "a.eml" } } }
    local bytes, encoding = bytes_of(composed, "7bit")
    assert.are.equal("7bit", encoding)
    local body = read_messages { bytes }[1].body
    assert.are.equal("message/rfc822", body.parts[2].type)
    assert.are.equal("text/plain", body.parts[2].parts[1].type)
    assert.are.equal("Text.\r\n.\r\n", (body.parts[2].parts[1].body:gsub("\r?\n", "\r\n")))
    assert.is_truthy(bytes:find((INNER:gsub("\n", "\r\n")), 1, true))
  end)

  it("from a file, its type told by the name .eml", function()
    local path = os.tmpname() .. ".eml"
    assert(compose({ text = ("x\n"):rep(100000) }):save(path))
    local bytes = bytes_of(compose { attachments = { { path = path } } }, "7bit")
    os.remove(path)
    assert.is_truthy(bytes:find("\r\nContent-Type: message/rfc822\r\n", 1, true))
    assert.is_truthy(bytes:find("x\r\nx\r\n", 1, true))
  end)

  it("with 8-bit text needs a server that takes it, and is never sent to another", function()
    local composed = compose { text = "t", attachments = { { data = INNER .. UMLAUT, content_type = "message/rfc822" } } }
    assert.are.equal("8bit", composed:form("7bit").encoding)
    local play = require "spec.support.play"
    local session, transport = play.open(play.hello("PIPELINING"))
    local before = #transport.pipe.written
    local receipt, err = session:send(composed)
    assert.is_nil(receipt)
    assert.are.same({ "input", "mail", "not_sent" }, { err.kind, err.stage, err.outcome })
    assert.is_truthy(err.reason:find("8BITMIME", 1, true))
    assert.are.equal(before, #transport.pipe.written)
  end)

  it("is refused where no server could take it line by line", function()
    for reason, attached in pairs {
      ["a line is longer than 998 octets"] = { data = "A: b\n\n" .. ("x"):rep(999) },
      ["a NUL is in it"] = { data = "A: b\n\n\0" },
      ["give data or path"] = { source = function() end },
    } do
      attached.content_type = "message/rfc822"
      local composed, err = message.new { from = "a@example.org", to = "b@example.org", attachments = { attached } }
      assert.is_nil(composed)
      assert.is_truthy(err.reason:find(reason, 1, true), err.reason)
    end
    assert.is_truthy(compose { attachments = { { data = "A: b\n\n" .. ("x"):rep(998), content_type = "message/rfc822" } } })
  end)

  it("at any border of the blocks it is looked at in", function()
    local block = 57 * 1024
    for shift = -1000, -996 do
      local data = "A: b\n\n" .. ("y"):rep(block + shift - 7) .. "\n" .. ("x"):rep(998) .. "\n"
      data = data:gsub(("y"):rep(500), ("y"):rep(499) .. "\n")
      assert.is_truthy(compose { attachments = { { data = data, content_type = "message/rfc822" } } })
      assert.is_nil((message.new { from = "a@example.org", to = "b@example.org",
        attachments = { { data = data:gsub("x\n", "xx\n"), content_type = "message/rfc822" } } }))
    end
  end)
end)

describe("a signed message", function()
  local key = select(2, require "smtp.tls".mint { "example.org" })
  local pem = assert(io.popen("openssl genpkey -algorithm ed25519"))
  local ed25519 = pem:read("*a")
  pem:close()

  local function signed(more)
    local dkim = { domain = "example.org", selector = "s", key = ed25519 }
    for name, value in pairs(more or {}) do dkim[name] = value end
    return dkim
  end

  it("has one form, which every server takes, its signature first", function()
    local composed = compose { text = UMLAUT, attachments = { { data = BYTES } }, dkim = { signed(), signed { selector = "t" } } }
    local bytes, encoding = bytes_of(composed, "binary")
    assert.are.equal("7bit", encoding)
    assert.are.equal(bytes, composed:tostring())
    assert.is_truthy(bytes:find("^DKIM%-Signature: .-s=s;.-\r\nDKIM%-Signature: .-s=t;.-\r\nDate: "))
    assert.are.equal(#bytes, composed:size())
  end)

  it("is none where it cannot be signed", function()
    local function refused(fields)
      local composed, err = message.new(fields)
      assert.is_nil(composed)
      assert.are.same({ "compose", "not_sent" }, { err.stage, err.outcome })
      assert.is_nil(tostring(err):find("PRIVATE", 1, true))
      return err.kind .. " " .. err.reason
    end
    local fields = { from = "ada@example.org", to = "bob@example.test", text = "t" }
    fields.dkim = signed { key = key }
    assert.are.equal("input dkim: key: a private key that is neither RSA nor Ed25519", refused(fields))
    fields.dkim = { signed(), signed { domain = "\r\n" } }
    assert.is_truthy(refused(fields):find("^input dkim: item 2: domain: "))
    fields.dkim = signed()
    fields.attachments = { { source = function() return nil, "the disk is gone" end } }
    assert.are.equal("source dkim: attachments[1].source: the disk is gone", refused(fields))
    assert.is_truthy(refused({ from = "a@example.org", to = "b@example.org", raw = "A: b\n\n", dkim = signed() })
      :find("^input dkim: cannot go with raw"))
  end)
end)

describe("on its way to a server", function()
  it("a message takes the form that suits it, the same message more than once", function()
    local composed = compose { text = UMLAUT }
    local server = assert(smtp.server {})
    local receipt = assert(together.run(function()
      return smtp.connect({ host = "127.0.0.1", port = server.port, tls = "none" }):send(composed)
    end, server))
    assert.are.equal(bytes_of(composed, "8bit"), server.inbox[1].data)
    assert.are.same({ "8BITMIME", tostring(#server.inbox[1].data) },
      { server.inbox[1].params.BODY, server.inbox[1].params.SIZE })
    assert.are.equal(#server.inbox[1].data, receipt.size)
    server:close()

    local play = require "spec.support.play"
    local session, transport = play.open(play.script(play.hello(), "C: MAIL FROM:<ada@example.org>", "S: 250 1",
      "C: RCPT TO:<bob@example.test>", "S: 250 2", "C: DATA", "S: 354 go"))
    session:send(composed)
    assert.is_truthy(play.written(transport):find("Content-Transfer-Encoding: base64", 1, true))
    assert.is_nil(play.written(transport):find("[\128-\255]"))
  end)
end)
