local linear = require "spec.support.linear"
local message = require "smtp.mail.message"
local read_messages = dofile "spec/support/read_message.lua"
local smtp = require "smtp"

local function options(more)
  local all = { from = "ada@example.org", to = "bob@example.test", text = "Hi\n", date = 0 }
  for name, value in pairs(more) do
    all[name] = value
  end
  return all
end

local function head(more)
  local composed, err = message.new(options(more))
  assert.is_nil(err and tostring(err))
  local bytes = composed:tostring()
  assert.are.equal(#bytes, composed:size())
  return bytes:match("^.-\r\n\r\n"), bytes
end

local function reason(more)
  local composed, err = message.new(options(more))
  assert.is_nil(composed)
  assert.are.same({ "input", "compose", "not_sent" }, { err.kind, err.stage, err.outcome })
  return err.reason
end

local function raised(more)
  local fine, words = pcall(smtp.message, options(more))
  assert.is_false(fine)
  return words
end

describe("priority", function()
  it("writes the three forms that programs read, and nothing for normal", function()
    assert.truthy(head({ priority = "high" }):find(
      "\r\nX-Priority: 1 (Highest)\r\nImportance: high\r\nPriority: urgent\r\n", 1, true))
    assert.truthy(head({ priority = "low" }):find(
      "\r\nX-Priority: 5 (Lowest)\r\nImportance: low\r\nPriority: non-urgent\r\n", 1, true))
    assert.falsy(head({ priority = "normal" }):lower():find("priority", 1, true))
  end)

  it("is one of three words", function()
    for _, bad in ipairs { "High", "urgent", "", "1" } do
      assert.are.equal('priority: must be "high", "normal" or "low"', reason { priority = bad })
    end
    assert.truthy(raised({ priority = 1 }):find('"priority" must be a string', 1, true))
  end)

  it("and headers do not write a field twice", function()
    for _, name in ipairs { "X-Priority", "importance", "PRIORITY" } do
      assert.are.equal(("headers: %s is written by the option priority"):format(name),
        reason { priority = "low", headers = { [name] = "x" } })
      assert.truthy(head({ headers = { [name] = "x" } }):find("\r\n" .. name .. ": x\r\n", 1, true))
      assert.truthy(head({ priority = "normal", headers = { [name] = "x" } }):find(name .. ": x\r\n", 1, true))
    end
  end)
end)

describe("list", function()
  it("reads back in another program, long ones too", function()
    local path = ("/leave/%C3%A9?u="):rep(12)
    local long = { "https://example.org" .. path, "mailto:leave@example.org?subject=a%20b", "HTTP://[2001:db8::1]/" .. path }
    local bytes = select(2, head { list = {
      id = "The w\195\182rld, weekly <weekly.lists.example.org>", unsubscribe = long, unsubscribe_post = true,
      help = "mailto:help@example.org", subscribe = { "https://example.org/join?a=1&b=(2),3" }, post = "NO",
      owner = "mailto:owner@example.org", archive = "http://example.org/archive",
    } })
    for line in bytes:gmatch("(.-)\r\n") do
      assert.is_true(#line <= 78 or line:find("^[^ ]*:? <[^ ]*>,?$") ~= nil, line)
    end
    local read = read_messages { bytes }[1]
    assert.are.equal("The w\195\182rld, weekly <weekly.lists.example.org>", read.fields["list-id"])
    assert.are.equal(("<%s>, <%s>, <%s>"):format(long[1], long[2], long[3]), read.fields["list-unsubscribe"])
    assert.are.equal("List-Unsubscribe=One-Click", read.fields["list-unsubscribe-post"])
    assert.are.equal("<mailto:help@example.org>", read.fields["list-help"])
    assert.are.equal("<https://example.org/join?a=1&b=(2),3>", read.fields["list-subscribe"])
    assert.are.equal("NO", read.fields["list-post"])
    assert.are.equal("<mailto:owner@example.org>", read.fields["list-owner"])
    assert.are.equal("<http://example.org/archive>", read.fields["list-archive"])
    assert.are.same({}, read.defects)
  end)

  it("has an id with or without a name, always in angle brackets", function()
    for given, written in pairs {
      ["list.example.org"] = "<list.example.org>",
      ["<list.example.org>"] = "<list.example.org>",
      ["News <list.example.org>"] = "News <list.example.org>",
      ['"News, daily" <list.example.org>'] = '"News, daily" <list.example.org>',
      ["News, daily<list.example.org>"] = '"News, daily" <list.example.org>',
    } do
      assert.truthy(head({ list = { id = given } }):find("\r\nList-Id: " .. written .. "\r\n", 1, true), given)
    end
  end)

  for _, case in ipairs {
    { { id = "" }, "list.id: must be" },
    { { id = "nodot" }, "list.id: must be" },
    { { id = "a..b" }, "list.id: must be" },
    { { id = ".a.b" }, "list.id: must be" },
    { { id = "a.b." }, "list.id: must be" },
    { { id = "a b.c" }, "list.id: must be" },
    { { id = "x <a.b> y" }, "list.id: must be" },
    { { id = "x <<a.b>" }, "list.id: must be" },
    { { id = "l\195\182st.example.org" }, "list.id: must be" },
    { { id = ("a."):rep(127) .. "ab" }, "list.id: must be" },
    { { id = "\255 <a.b>" }, "list.id: invalid UTF-8" },
    { { help = "" }, "list.help: must begin with mailto:" },
    { { help = "help@example.org" }, "list.help: must begin with mailto:" },
    { { help = "javascript:alert(1)" }, "list.help: must begin with mailto:" },
    { { help = "<mailto:a@b>" }, "list.help: must begin with mailto:" },
    { { help = "mailto:" }, "list.help: must begin with mailto:" },
    { { help = "https:///path" }, "list.help: must begin with mailto:" },
    { { help = "https://a/ b" }, "percent-encoded in a URI at position 11" },
    { { help = "https://a/<b" }, "percent-encoded in a URI at position 11" },
    { { help = "https://a/b>" }, "percent-encoded in a URI at position 12" },
    { { help = "https://a/\195\182" }, "percent-encoded in a URI at position 11" },
    { { help = "https://a/%4" }, "percent-encoded in a URI at position 11" },
    { { help = "https://a/" .. ("x"):rep(1000) }, "list.help: a word too long" },
    { { help = "NO" }, "list.help: must begin with mailto:" },
    { { owner = {} }, "list.owner: a URI is missing" },
    { { archive = { "https://a", "b" } }, "list.archive: item 2: must begin" },
    { { archive = { 5 } }, "list.archive: item 1: a string is needed" },
    { { unsubscribe_post = true }, "list.unsubscribe_post: needs an https URI" },
    { { unsubscribe = "mailto:a@b", unsubscribe_post = true }, "list.unsubscribe_post: needs an https URI" },
    { { unsubscribe = "http://a/b", unsubscribe_post = true }, "list.unsubscribe_post: needs an https URI" },
  } do
    it("says " .. case[2], function()
      local words = reason { list = case[1] }
      assert.truthy(words:find(case[2], 1, true), words)
    end)
  end

  it("raises on names and types it does not know", function()
    assert.truthy(raised({ list = { unsubscribe_url = "x" } }):find(
      'smtp.message: list: unknown option "unsubscribe_url"; did you mean "unsubscribe"?', 1, true))
    assert.truthy(raised({ list = { "mailto:a@b" } }):find('unknown option "1"', 1, true))
    assert.truthy(raised({ list = { id = 5 } }):find('"id" must be a string', 1, true))
    assert.truthy(raised({ list = "mailto:a@b" }):find('"list" must be a table', 1, true))
    local fine, words = pcall(smtp.send, options { host = "h", list = { unsubscribe_post = "yes" } })
    assert.is_false(fine)
    assert.truthy(words:find('smtp.send: list: option "unsubscribe_post" must be a boolean', 1, true))
  end)

  it("takes an id with as many blanks as one likes in linear time #linear", function()
    linear(function(blanks)
      reason { list = { id = blanks .. "x" } }
      head { list = { id = blanks .. "Team" .. blanks .. "<a.b>" } }
    end, function(n) return (" "):rep(n) end, 2 ^ 18)
    local blanks = (" "):rep(20000)
    assert.truthy(reason { list = { id = blanks .. "x" } }:find("^list%.id: must be"))
    assert.truthy(head { list = { id = blanks .. "Team" .. blanks .. "<a.b>" } }:find("\r\nList-Id: Team <a.b>\r\n", 1, true))
  end)

  it("and headers do not write a field twice", function()
    assert.are.equal("headers: list-id is written by the option list",
      reason { list = { id = "a.b" }, headers = { ["list-id"] = "<c.d>" } })
    local both = head { list = { id = "a.b", unsubscribe_post = false }, headers = { ["List-Help"] = "<mailto:x@y>" } }
    assert.truthy(both:find("\r\nList-Id: <a.b>\r\n", 1, true))
    assert.truthy(both:find("\r\nList-Help: <mailto:x@y>\r\n", 1, true))
    assert.falsy(both:find("One-Click", 1, true))
  end)
end)
