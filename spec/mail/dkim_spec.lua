-- DKIM signatures: RFC 8463's own example, the checks of the options, and real ones verified by dkimpy and mailauth.
local child = require "spec.support.child"
local core = require "smtp.core"
local dkim = require "smtp.mail.dkim"
local pieces = require "spec.support.pieces"
local smtp = require "smtp"
local source = require "smtp.mail.source"
local tls = require "smtp.tls"

local files = {}

local function keep(bytes)
  local path = child.keep(bytes)
  files[#files + 1] = path
  return path
end

local function output_of(command, ...)
  local pipe = assert(io.popen(command:format(...) .. " 2>/dev/null"))
  local output = pipe:read("*a")
  pipe:close()
  return output
end

after_each(function()
  for _, path in ipairs(files) do os.remove(path) end
  files = {}
end)

-- RFC 8463 appendix A
local ED25519 = "-----BEGIN PRIVATE KEY-----\n"
  .. core.base64("\48\46\2\1\0\48\5\6\3\43\101\112\4\34\4\32" .. core.unbase64("nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A="))
  .. "\n-----END PRIVATE KEY-----\n"
local RSA = [[
-----BEGIN RSA PRIVATE KEY-----
MIICXQIBAAKBgQDkHlOQoBTzWRiGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQi
Y/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqM
KrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB
AoGAH0cxOhFZDgzXWhDhnAJDw5s4roOXN4OhjiXa8W7Y3rhX3FJqmJSPuC8N9vQm
6SVbaLAE4SG5mLMueHlh4KXffEpuLEiNp9Ss3O4YfLiQpbRqE7Tm5SxKjvvQoZZe
zHorimOaChRL2it47iuWxzxSiRMv4c+j70GiWdxXnxe4UoECQQDzJB/0U58W7RZy
6enGVj2kWF732CoWFZWzi1FicudrBFoy63QwcowpoCazKtvZGMNlPWnC7x/6o8Gc
uSe0ga2xAkEA8C7PipPm1/1fTRQvj1o/dDmZp243044ZNyxjg+/OPN0oWCbXIGxy
WvmZbXriOWoSALJTjExEgraHEgnXssuk7QJBALl5ICsYMu6hMxO73gnfNayNgPxd
WFV6Z7ULnKyV7HSVYF0hgYOHjeYe9gaMtiJYoo0zGN+L3AAtNP9huqkWlzECQE1a
licIeVlo1e+qJ6Mgqr0Q7Aa7falZ448ccbSFYEPD6oFxiOl9Y9se9iYHZKKfIcst
o7DUw1/hz2Ck4N5JrgUCQQCyKveNvjzkkd8HjYs0SwM0fPjK16//5qDZ2UiDGnOe
uEzxBDAr518Z8VFbR41in3W4Y3yCDgQlLlcETrS+zYcL
-----END RSA PRIVATE KEY-----
]]

local function options(more)
  local all = { domain = "example.org", selector = "s1", key = ED25519 }
  for name, value in pairs(more or {}) do all[name] = value end
  return all
end

local FIELDS = { "From: Ada <ada@example.org>\r\n", "To: grace@example.test\r\n", "Subject: Hello\r\n" }

local function sign(given, fields, body, time)
  local signatures = assert(dkim.new(given))
  local made, why = dkim.fields(signatures, fields or FIELDS, source.string(body or "Hi\r\n"), time or 1528637909)
  assert.is_nil(why)
  return made
end

-- The tags of a field, white space taken out.
local function tags_of(field)
  local tags = {}
  for name, value in field:gsub("[ \t\r\n]", ""):match("^[^:]*:(.*)$"):gmatch("(%l+)=([^;]*)") do
    assert.is_nil(tags[name])
    tags[name] = value
  end
  return tags
end

-- Signs nothing: gives back what it was to sign.
local echo = {}
function echo:sign(bytes) return bytes end

describe("dkim.sign", function()
  -- the two fields of RFC 8463 A.3 before and behind the value of b=
  local brisbane = { "DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;\r\n"
    .. " d=football.example.com; i=@football.example.com;\r\n"
    .. " q=dns/txt; s=brisbane; t=1528637909; h=from : to :\r\n"
    .. " subject : date : message-id : from : subject : date;\r\n"
    .. " bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n b=",
    "/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus\r\n"
    .. " Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==\r\n" }
  local test = { "DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;\r\n"
    .. " d=football.example.com; i=@football.example.com;\r\n"
    .. " q=dns/txt; s=test; t=1528637909; h=from : to : subject :\r\n"
    .. " date : message-id : from : subject : date;\r\n"
    .. " bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n b=",
    "F45dVWDfMbQDGHJFlXUNB2HKfbCeLRyhDXgFpEL8GwpsRe0IeIixNTe3\r\n"
    .. " DhCVlUrSjV4BwcVcOF6+FF3Zo9Rpo1tFOeS9mPYQTnGdaSGsgeefOsk2Jz\r\n"
    .. " dA+L10TeYt9BgDfQNZtKdN1WO//KgIqXP7OdEFE4LjFYNcUxZQ4FADY+8=\r\n" }
  local fields = {
    "From: Joe SixPack <joe@football.example.com>\r\n",
    "To: Suzie Q <suzie@shopping.example.net>\r\n",
    "Subject: Is dinner ready?\r\n",
    "Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)\r\n",
    "Message-ID: <20030712040037.46341.5F8J@football.example.com>\r\n",
  }
  local body = "Hi.\r\n\r\nWe lost the game.  Are you hungry yet?\r\n\r\nJoe.\r\n"
  local names = { "from", "to", "subject", "date", "message-id", "from", "subject", "date" }

  for key, field in pairs { [ED25519] = brisbane, [RSA] = test } do
    it("makes the signature of RFC 8463 A.3: " .. field[1]:match("a=([^;]*)"), function()
      local signature = assert(dkim.sign(assert(tls.signer(key)), "relaxed", names, fields, field[1] .. "\r\n"))
      assert.are.equal((field[2]:gsub("[\r\n ]", "")), core.base64(signature))
    end)
  end

  it("stands over the body hash of RFC 8463 A.3", function()
    for _, form in ipairs { "simple", "relaxed" } do
      local field = sign(options { canonicalization = "relaxed/" .. form }, fields, body)[1]
      -- two blanks in a row are one in the relaxed form
      assert.are.equal(form == "relaxed", tags_of(field).bh == "2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=")
    end
  end)

  it("reads a header as the examples of RFC 6376 3.4.5 do", function()
    local header = { "A: X\r\n", "B : Y\t\r\n\tZ  \r\n" }
    assert.are.equal("a:X\r\nb:Y Z\r\ndkim-signature:v=1; b=",
      dkim.sign(echo, "relaxed", { "A", "b" }, header, "DKIM-Signature:  v=1;\r\n\tb=\r\n"))
    assert.are.equal("A: X\r\nB : Y\t\r\n\tZ  \r\nDKIM-Signature:  v=1;\r\n\tb=",
      dkim.sign(echo, "simple", { "a", "B" }, header, "DKIM-Signature:  v=1;\r\n\tb=\r\n"))
  end)

  it("takes fields of one name from the last up, and nothing when there are no more", function()
    local header = { "X: 1\r\n", "Y: a\r\n", "x: 2\r\n", "X-Y: b\r\n", "X: \r\n", "Y:\r\n" }
    assert.are.equal("x:\r\nx:2\r\ny:\r\nx:1\r\nd:",
      dkim.sign(echo, "relaxed", { "X", "x", "Y", "X", "X", "Z" }, header, "D:\r\n"))
  end)
end)

describe("dkim.fields", function()
  it("writes the tags in one field, folded at 78", function()
    local field = sign(options())[1]
    assert.are.equal("DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed; d=example.org; s=s1;\r\n"
      .. " t=1528637909; h=From: From: Subject: Subject: To: To;\r\n bh=" .. tags_of(field).bh .. "; b=",
      field:match("^(.*b=)[A-Za-z0-9+/]+\r\n [A-Za-z0-9+/]+=*\r\n$"))
    assert.are.equal(64, #core.unbase64(tags_of(field).b))
  end)

  it("never writes a line over 78, for any key and any length of the names", function()
    for _, key in ipairs { ED25519, RSA, output_of("openssl genrsa 2048") } do
      for length = 1, 60 do
        local domain = ("a"):rep(length) .. ".example.org"
        local field = sign(options { key = key, domain = domain, headers = { "From", ("X"):rep(length) } })[1]
        assert.are.equal("\r\n", field:sub(-2))
        for line in field:gmatch("([^\n]*)\r\n") do
          assert.is_true(#line <= 78, line)
          assert.truthy(line:find("[^ ]"))
        end
        assert.are.equal("From:From:" .. ("X"):rep(length), tags_of(field).h)
      end
    end
  end)

  it("signs what there is of the fields worth it, and those that may stand only once against a second one", function()
    local header = {
      "Return-Path: <a@b>\r\n", "Received: x\r\n", "X-Mailer: m\r\n", "Bcc: secret@example.org\r\n", "CC: c\r\n", "from: a\r\n",
      "Resent-To: 1\r\n", "Resent-To: 2\r\n", "List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n",
      "List-Unsubscribe: <https://example.org>\r\n", "Content-Type: text/plain\r\n", "MIME-Version: 1.0\r\n",
      "DKIM-Signature: v=1\r\n", "Message-ID: <a@b>\r\n",
    }
    assert.are.equal("From:From:Cc:Cc:Message-ID:Message-ID:MIME-Version:MIME-Version:Content-Type:Content-Type:"
      .. "List-Unsubscribe:List-Unsubscribe:List-Unsubscribe-Post:List-Unsubscribe-Post:Resent-To:Resent-To",
      tags_of(sign(options(), header)[1]).h)
  end)

  it("signs the fields it is told, absent ones as absent", function()
    local header = { "From: a\r\n", "X-A: 1\r\n", "X-A: 2\r\n", "To: b\r\n", "Date: d\r\n" }
    local given = options { headers = { "x-a", "X-B", "to", "FROM", "Subject" } }
    assert.are.equal("x-a:x-a:X-B:to:to:FROM:FROM:Subject", tags_of(sign(given, header)[1]).h)
    assert.are.same({ "x-a", "X-B", "to", "FROM", "Subject" }, given.headers)
  end)

  it("makes a field for each signature, each as if it were alone", function()
    local one, two = options { canonicalization = "simple/simple" }, options { key = RSA, selector = "s2" }
    local both = sign({ one, two }, FIELDS, " a  b \r\n")
    assert.are.equal(2, #both)
    assert.are.equal(sign(one, FIELDS, " a  b \r\n")[1], both[1])
    assert.are.equal(sign(two, FIELDS, " a  b \r\n")[1], both[2])
    assert.are.equal("rsa-sha256", tags_of(both[2]).a)
    assert.are_not.equal(tags_of(both[1]).bh, tags_of(both[2]).bh)
  end)

  it("has the time in whole seconds", function()
    assert.are.equal("1700000000", tags_of(sign(options(), FIELDS, "", 1700000000.9)[1]).t)
  end)

  it("reads the body once, and passes on what the source fails with", function()
    local signatures = assert(dkim.new { options(), options { canonicalization = "simple/simple" }, options { key = RSA } })
    local opened, failure = 0, { kind = "source" }
    local chunks
    local content = { open = function()
      opened = opened + 1
      local at = 0
      return function()
        at = at + 1
        if not chunks[at] then return nil, chunks.failure end
        return chunks[at]
      end
    end }
    chunks = { "a ", "\r", "\nb", "\r\n", "\r\n" }
    local made = assert(dkim.fields(signatures, FIELDS, content, 0))
    assert.are.equal(1, opened)
    for i, form in ipairs { "a\r\nb\r\n", "a \r\nb\r\n", "a\r\nb\r\n" } do
      assert.are.equal(core.base64(tls.hash("sha256", form)), tags_of(made[i]).bh)
    end
    chunks = { "a", failure = failure }
    local none, err = dkim.fields(signatures, FIELDS, content, 0)
    assert.is_nil(none)
    assert.are.equal(failure, err)
  end)

  it("refuses a header that cannot be signed", function()
    local signatures = assert(dkim.new(options()))
    for _, case in ipairs {
      { {}, "no From" }, { { "To: a\r\n" }, "no From" },
      { { "From: a\r\n", "From b\r\n" }, 'field 2 of the header is not one: "From b' },
      { { "From: a" }, "field 1 of the header" }, { { ": a\r\n" }, "field 1 of the header" }, { { "" }, "field 1 of the header" },
    } do
      local none, why = dkim.fields(signatures, case[1], source.string "", 0)
      assert.is_nil(none)
      assert.truthy(why:find(case[2], 1, true), why)
    end
  end)

  it("says so when the key fails", function()
    local signatures = assert(dkim.new(options()))
    signatures[1].signer = { algorithm = function() return "x" end, sign = function() return nil, "broken" end }
    local none, why = dkim.fields(signatures, FIELDS, source.string "", 0)
    assert.is_nil(none)
    assert.are.equal("broken", why)
  end)

  -- A body of `count` times a block.
  local function many(block, count, tail)
    return { open = function()
      local at = 0
      return function()
        at = at + 1
        return at <= count and block or (at == count + 1 and tail) or nil
      end
    end }
  end

  it("keeps nothing of a long body", function()
    local signatures = assert(dkim.new { options(), options { canonicalization = "simple/simple" } })
    local content = many(("a line  of text\t\r\n"):rep(1000), 3000)
    collectgarbage() collectgarbage()
    local before, most = collectgarbage("count"), 0
    local open = content.open
    content.open = function()
      local read, count = open(), 0
      return function()
        count = count + 1
        if count % 100 == 0 then
          collectgarbage()
          most = math.max(most, collectgarbage("count"))
        end
        return read()
      end
    end
    assert(dkim.fields(signatures, FIELDS, content, 0))
    assert.is_true(most > 0 and most - before < 1024, most - before .. " KB")
  end)

  it("gives up on tens of millions of empty lines with text behind them", function()
    local signatures = assert(dkim.new(options()))
    local block = ("\r\n"):rep(1024 * 1024)
    local made = assert(dkim.fields(signatures, FIELDS, many(block, 40), 0))
    assert.are.equal(core.base64(tls.hash("sha256", "")), tags_of(made[1]).bh)
    local none, why = dkim.fields(signatures, FIELDS, many(block, 40, "a"), 0)
    assert.is_nil(none)
    assert.truthy(why:find("empty lines", 1, true), why)
  end)
end)

describe("dkim.new", function()
  local function refused(given, words)
    local none, why = dkim.new(given)
    assert.is_nil(none)
    assert.truthy(why:sub(1, #words) == words, why)
    assert.is_nil(why:find("[^\32-\126\128-\255]"))
  end

  it("takes what is right", function()
    local long = ("a"):rep(63)
    for _, domain in ipairs { "example.org", "a.b", "xn--bcher-kva.example", "1.2.example", "EXAMPLE.org",
      long .. "." .. long .. "." .. long .. ".example" } do
      assert.are.equal(domain, assert(dkim.new(options { domain = domain }))[1].domain)
    end
    for _, selector in ipairs { "a", "2026-q1", "key.2026", long } do
      assert.are.equal(selector, assert(dkim.new(options { selector = selector }))[1].selector)
    end
    assert.are.equal(3, #assert(dkim.new { options(), options(), options() }))
    assert(dkim.new(options { headers = { "Subject", "from" } }))
  end)

  it("refuses a domain or a selector that is none", function()
    local bad = { "", ".", "a..b", ".a.b", "a.b.", "-a.b", "a-.b", "a b.c", "a_b.c", "a;t=y.c", "a.b\r\n", "a.b\0", "a.\195\188",
      "[1.2.3.4]", "@a.b", ("a"):rep(64) .. ".org", false, 7, {} }
    for _, value in ipairs(bad) do
      refused(options { domain = value }, "domain: ")
      refused(options { selector = value }, "selector: ")
    end
    refused(options { domain = "localhost" }, "domain: ")
    refused({ selector = "a", key = ED25519 }, "domain: a string is needed, not nil")
    refused({ domain = "a.b", key = ED25519 }, "selector: a string is needed, not nil")
    refused(options { domain = "b\195\188cher.example" }, "domain: only ASCII")
    local domain = (("a"):rep(60) .. "."):rep(3) .. ("a"):rep(13) .. ".org"
    assert(dkim.new(options { domain = domain, selector = ("a"):rep(41) }))
    refused(options { domain = domain, selector = ("a"):rep(42) }, "selector: too long with the domain")
  end)

  it("refuses headers that cannot be signed", function()
    for _, case in ipairs {
      { "From", "headers: a list" }, { {}, "headers: From must be" }, { { "Subject" }, "headers: From must be" },
      { { "From", "DKIM-Signature" }, "headers: DKIM-Signature cannot" }, { { "From", "received" }, "headers: received cannot" },
      { { "From", "Return-Path" }, "headers: Return-Path cannot" }, { { "From", "Bcc" }, "headers: Bcc cannot" },
      { { "From", "from" }, "headers: from is named twice" }, { { "From", "" }, "headers: not a header field name" },
      { { "From", "a b" }, "headers: not a header field name" }, { { "From", "a:b" }, "headers: not a header field name" },
      { { "From", "a\r\nb" }, "headers: not a header field name" }, { { "From", "\195\188" }, "headers: not a header field name" },
      { { "From", 7 }, "headers: not a header field name" }, { { "From", "a;b" }, "headers: not a name that can be signed" },
      { { "From", x = "To" }, "headers: not a list" }, { { "From", nil, "To" }, "headers: not a list" },
    } do refused(options { headers = case[1] }, case[2]) end
  end)

  it("refuses what else is wrong, by its name", function()
    refused(nil, "a table is needed, not nil")
    refused("x", "a table is needed, not string")
    refused({}, "domain: ")
    refused(options { selektor = "a" }, '"selektor": not an option of dkim')
    refused(options { ["a\n"] = 1 }, '"a\\x0A": not an option')
    for _, value in ipairs { "relaxed", "simple/", "nowsp/simple", "Relaxed/relaxed", "relaxed/relaxed/simple", 7, false } do
      refused(options { canonicalization = value }, "canonicalization: must be")
    end
    refused({ options(), options { domain = "a" } }, "item 2: domain: ")
    refused({ options(), "x" }, "item 2: a table is needed")
    refused({ options(), domain = "a.b" }, '"domain": not an item')
    refused({ options(), nil, options() }, '"3": not an item')
  end)

  it("wants one key, and shows none of it", function()
    refused({ domain = "a.b", selector = "c" }, "key: exactly one of")
    refused(options { key_file = "x" }, "key: exactly one of")
    refused(options { key = 7 }, "key: a string is needed")
    local function lacks(given, words)
      refused(given, words)
      local _, why = dkim.new(given)
      assert.is_nil(why:find("MC4CAQ", 1, true))
    end
    lacks(options { key = ED25519:gsub("%-%-%-", "--") }, "key: no PEM private key")
    lacks({ domain = "a.b", selector = "c", key_file = ED25519 }, "key_file: ")
    lacks({ domain = "a.b", selector = "c", key_file = ED25519:match("\n(.-)\n") }, "key_file: ")
    for _, path in ipairs { "/nosuch", "./nosuch", "no/such.key", ("/nosuch"):rep(4) .. ".pem" } do
      refused({ domain = "a.b", selector = "c", key_file = path }, ('key_file: No such file or directory: "%s"'):format(path))
    end
    for _, hidden in ipairs { "nosuch", ("abc/"):rep(16), "-----BEGIN.x", "a.b\n" } do
      local _, why = dkim.new { domain = "a.b", selector = "c", key_file = hidden }
      assert.are.equal("key_file: No such file or directory", why)
    end
    refused(options { key = "/etc/mail.key" }, "key: no PEM private key; the name of a file is given as key_file")
    refused({ domain = "a.b", selector = "c", key_file = "" }, "key_file: not the name of a file")
    refused({ domain = "a.b", selector = "c", key_file = "/dev/null\0" }, "key_file: not the name of a file")
    refused({ domain = "a.b", selector = "c", key_file = "/dev/null" }, "key_file: the file is empty")
    refused({ domain = "a.b", selector = "c", key_file = "/dev/zero" }, "key_file: too large")
    refused({ domain = "a.b", selector = "c", key_file = "/" }, "key_file: ")
    refused({ domain = "a.b", selector = "c", key_file = true }, "key_file: a string is needed")
    refused({ domain = "a.b", selector = "c", key_file = keep "no key" }, "key_file: no PEM private key")
  end)

  it("reads the key from a file", function()
    local given = { domain = "example.org", selector = "s1", key_file = keep(ED25519) }
    local made = sign(given)
    assert.are.equal(sign(options())[1], made[1])
  end)

  it("says so where smtp.tls is not there", function()
    local loaded = package.loaded["smtp.tls"]
    package.loaded["smtp.tls"] = nil
    package.preload["smtp.tls"] = function() error "none" end
    local none, why = dkim.new(options())
    package.loaded["smtp.tls"], package.preload["smtp.tls"] = loaded, nil
    assert.is_nil(none)
    assert.truthy(why:find("smtp.tls", 1, true))
  end)
end)

-- Each verifier reads a list of files and DNS records, and prints a line for each file: "pass fail …", a word for each
-- signature from the top.
local PYTHON = [[
import dkim, json, sys

records = json.load(open(sys.argv[2]))

def txt(name, timeout=5):
    name = name.decode() if isinstance(name, bytes) else name
    return records[name.rstrip(".")].encode()

for line in open(sys.argv[1]):
    message = open(line.strip(), "rb").read()
    head = b"\r\n" + message.split(b"\r\n\r\n", 1)[0]
    words = []
    for i in range(head.lower().count(b"\r\ndkim-signature:")):
        try:
            words.append("pass" if dkim.DKIM(message).verify(idx=i, dnsfunc=txt) else "fail")
        except dkim.DKIMException as error:
            words.append("fail" if isinstance(error, dkim.ValidationError) else repr(error))
    print(*words)
]]
local NODE = [=[
const fs = require('fs');
const { dkimVerify } = require(process.argv[4] + '/mailauth/lib/dkim/verify');
const records = JSON.parse(fs.readFileSync(process.argv[3]));
const resolver = async name => [[records[name]]];
(async () => {
  for (const path of fs.readFileSync(process.argv[2], 'utf8').trim().split('\n')) {
    const { results } = await dkimVerify(fs.readFileSync(path), { resolver });
    const word = ({ result, comment }) => result + ' ' + comment === 'neutral body hash did not verify' ? 'fail' : result;
    console.log(results.map(result => word(result.status)).join(' '));
  }
})();
]=]

local MODULES = "build/npm/node_modules"

local function exists(path)
  local file = io.open(path)
  if file then file:close() end
  return file ~= nil
end

local verifiers = {
  dkimpy = function(list, records)
    if output_of("/usr/bin/python3 -c 'import dkim, nacl; print(1)'") == "" then pending "python3-dkim is not installed" end
    return "/usr/bin/python3", keep(PYTHON), list, records
  end,
  mailauth = function(list, records)
    if output_of("command -v node") == "" then pending "node is not installed" end
    if not exists(MODULES .. "/mailauth/package.json") then pending("mailauth is not installed in " .. MODULES) end
    return "node", keep(NODE), list, records, output_of("pwd"):gsub("\n", "") .. "/" .. MODULES
  end,
}

describe("a signature #real", function()
  -- selector -> private key; the records that publish them
  local keys, records

  setup(function()
    keys, records = {}, {}
    local function add(selector, pem)
      keys[selector] = pem
      local path = child.keep(pem)
      local der = output_of("openssl pkey -in %s -pubout -outform DER | base64 -w0", path)
      os.remove(path)
      local kind = "rsa"
      if selector:find("^ed") then
        kind, der = "ed25519", core.base64(core.unbase64(der):sub(-32))
      end
      records[#records + 1] = ('"%s._domainkey.example.org": "v=DKIM1; k=%s; p=%s"'):format(selector, kind, der)
    end
    for _, bits in ipairs { 1024, 2048, 4096 } do
      add("rsa" .. bits, output_of("openssl genpkey -algorithm rsa -pkeyopt rsa_keygen_bits:%d", bits))
    end
    add("pkcs1", output_of("openssl genrsa -traditional 2048"))
    assert.truthy(keys.pkcs1:find("BEGIN RSA PRIVATE KEY", 1, true))
    add("ed", output_of("openssl genpkey -algorithm ed25519"))
    records = "{" .. table.concat(records, ", ") .. "}"
  end)

  -- What a verifier says of each message.
  local function verify(name, messages)
    local paths = {}
    for i, message in ipairs(messages) do paths[i] = keep(message) end
    local words = table.concat({ verifiers[name](keep(table.concat(paths, "\n") .. "\n"), keep(records)) }, " ")
    local code, output = child.beside(words)
    assert.are.equal(0, code, output)
    local said = {}
    for line in output:gmatch("([^\n]*)\n") do said[#said + 1] = line end
    assert.are.equal(#messages, #said, output)
    return said
  end

  local function message(given, fields, body, cut)
    local read = { open = function()
      local list, at = cut and cut(body) or { body }, 0
      return function()
        at = at + 1
        return list[at]
      end
    end }
    local made = assert(dkim.fields(assert(dkim.new(given)), fields, read, os.time()))
    -- a last line that is open gets its end on the wire
    local ending = (body == "" or body:sub(-2) == "\r\n") and "" or "\r\n"
    return table.concat(made) .. table.concat(fields) .. "\r\n" .. body .. ending
  end

  local function all_pass(name, messages, words)
    for i, said in ipairs(verify(name, messages)) do
      assert.are.equal(words or "pass", said, messages[i])
    end
  end

  local CANONICALIZATIONS = { "relaxed/relaxed", "relaxed/simple", "simple/relaxed", "simple/simple" }
  local HEADERS = {
    FIELDS,
    { "From: Ada\r\n <ada@example.org>\r\n", "SUBJECT: \t a \t b\r\n\t c  \r\n d \t\r\n", "To:grace@example.test\r\n", "Date:  x\r\n" },
    { "Received: one\r\n", "X-Twice: 1\r\n", "From: ada@example.org\r\n", "X-Twice: 2\r\n", "Resent-To: a\r\n", "Subject:\r\n",
      "Resent-To: b\r\n", "Resent-To: c\r\n" },
    { "From: \"J\195\182rg\" <ada@example.org>\r\n", "Subject: Gr\195\188\195\159e \195\169t\195\169\r\n",
      "References: " .. ("<0123456789@example.org>\r\n "):rep(60) .. "<last@example.org>\r\n" },
  }
  local BODIES = {
    "", "\r\n", "\r\n\r\n\r\n", " ", " \r\n", "\t \r\n \r\n", "a", "a ", "a\r\n", "a \t\r\n", "a\r\n\r\n\r\n", "\r\n\r\na\r\n \r\n\t\r\n",
    " a  b\t\tc \t d\r\n", ".\r\n..\r\n.a\r\n", "\195\169t\195\169 \r\n\195\188\r\n", "DKIM-Signature: v=1\r\n\r\nFrom: x\r\n",
    ("x"):rep(5000) .. " \r\n", ("a line of text  with blanks \t\r\n"):rep(20000) .. "\r\n",
  }

  for name in pairs(verifiers) do
    it("of every key passes, in all canonical forms: " .. name, function()
      local messages = {}
      for selector, key in pairs(keys) do
        for _, canonicalization in ipairs(CANONICALIZATIONS) do
          local given = options { selector = selector, key = key, canonicalization = canonicalization }
          messages[#messages + 1] = message(given, HEADERS[2], BODIES[13])
        end
      end
      all_pass(name, messages)
    end)

    it("passes over nasty headers and bodies: " .. name, function()
      local random, messages = pieces.random(99), {}
      local function cut(body) return pieces.scatter(body, random, #body > 10000 and 9000 or 7) end
      local words = { "a", "word", " ", "  ", "\t", "\r\n", "\r\n\r\n", " \r\n", ".", "=", "\195\188", ("x"):rep(90) }
      local bodies = {}
      for i, body in ipairs(BODIES) do bodies[i] = body end
      for _ = 1, 30 do
        local body = {}
        for i = 1, random(1, 80) do body[i] = words[random(1, #words)] end
        bodies[#bodies + 1] = table.concat(body)
      end
      for _, canonicalization in ipairs(CANONICALIZATIONS) do
        local given = options { selector = "ed", key = keys.ed, canonicalization = canonicalization }
        for i, body in ipairs(bodies) do messages[#messages + 1] = message(given, HEADERS[i % #HEADERS + 1], body, cut) end
        given.headers = { "X-Twice", "From", "Comments", "Subject" }
        for _, fields in ipairs(HEADERS) do messages[#messages + 1] = message(given, fields, "Hi\r\n") end
      end
      all_pass(name, messages)
    end)

    it("passes beside others: " .. name, function()
      local given = {}
      for i, canonicalization in ipairs(CANONICALIZATIONS) do
        local selector = ({ "ed", "rsa2048", "rsa1024", "ed" })[i]
        given[i] = options { selector = selector, key = keys[selector], canonicalization = canonicalization }
      end
      all_pass(name, { message(given, HEADERS[2], "a  b \r\n\r\n") }, "pass pass pass pass")
    end)

    it("of a composed message passes: " .. name, function()
      local both = { options { selector = "ed", key = keys.ed }, options { selector = "rsa2048", key = keys.rsa2048 } }
      local signed = assert(assert(smtp.message {
        from = "J\195\182rg <joerg@example.org>", to = { "Grace <grace@example.test>", "ada@example.org" }, cc = "c@example.org",
        subject = ("Gr\195\188\195\159e "):rep(20), text = "Hello \n\n.\n \195\169t\195\169\n\n\n", html = "<p>Hi",
        list = { unsubscribe = "https://example.org/u", unsubscribe_post = true },
        attachments = { { data = ("\0\255"):rep(9999), filename = "a.bin" } }, dkim = both,
      }):tostring())
      assert.truthy(tags_of(signed:match("^(.-\r\n)[^ ]")).h:find("List-Unsubscribe-Post:List-Unsubscribe-Post", 1, true))
      all_pass(name, { signed }, "pass pass")
    end)

    it("fails when the message is changed, passes when only white space is: " .. name, function()
      local function tampered(canonicalization)
        local given = options { selector = "ed", key = keys.ed, canonicalization = canonicalization }
        local signed = message(given, FIELDS, "Hello Grace,\r\n\r\nsee you.\r\n")
        local function change(from, to)
          local at, last = signed:find(from, 1, true)
          return signed:sub(1, at - 1) .. to .. signed:sub(last + 1)
        end
        return verify(name, {
          signed, "Received: by mx\r\n" .. signed, signed .. "\r\n\r\n",
          change("Hello Grace,", "Hello  Grace,\t"), change("Subject: Hello", "subject:\r\n  Hello "),
          change("see you.", "see you!"), signed .. "P.S.\r\n", change("see you.", "\r\nsee you."), change("Subject: Hello", "Subject: Hallo"),
          change("\r\nFrom:", "\r\nFrom: Eve <eve@example.com>\r\nFrom:"),
          change("ada@example.org>\r\n", "ada@example.org>\r\nFrom: Eve <eve@example.com>\r\n"),
          change("\r\nSubject:", "\r\nSubject: Other\r\nSubject:"), change("\r\nTo:", "\r\nTo: eve@example.com\r\nTo:"),
        })
      end
      local bad = { "fail", "fail", "fail", "fail", "fail", "fail", "fail", "fail" }
      local function expected(...)
        local list = { "pass", "pass", "pass", ... }
        for _, word in ipairs(bad) do list[#list + 1] = word end
        return list
      end
      assert.are.same(expected("pass", "pass"), tampered "relaxed/relaxed")
      assert.are.same(expected("fail", "fail"), tampered "simple/simple")
    end)
  end
end)
