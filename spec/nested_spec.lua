-- Of: check
local message = require "smtp.mail.message"
local play = require "spec.support.play"
local smtp = require "smtp"

-- What a raising call says.
local function raised(run, ...)
  local fine, text = pcall(run, ...)
  assert.is_false(fine)
  assert.are.equal("string", type(text), tostring(text))
  return text
end

local function letter(changes)
  local given = { from = "ada@example.org", to = "bob@example.org", subject = "Hello", text = "Hi\n" }
  for name, value in pairs(changes) do given[name] = value end
  return given
end

local function session()
  return play.open(play.hello("PIPELINING"))
end

-- Every way that a message takes into the library: its name as a raise tells it, the call.
local WAYS = {
  ["smtp.message"] = smtp.message,
  ["smtp.send"] = function(given)
    local all = play.options(play.hello())
    for name, value in pairs(given) do all[name] = value end
    return smtp.send(all)
  end,
  ["session:send"] = function(given) return session():send(given) end,
  ["pool:send"] = function(given) return assert(smtp.pool(play.options(play.hello()))):send(given) end,
}

local KEY = "-----BEGIN PRIVATE KEY-----"
local DKIM = { domain = "example.org", selector = "a", key = KEY }

local function signature(changes)
  local given = {}
  for name, value in pairs(DKIM) do given[name] = value end
  for name, value in pairs(changes) do given[name] = value end
  return given
end

describe("a wrong table in a message raises", function()
  local cases = {
    -- what is wrong, the message options, words of the error
    { "attachments that are one attachment", { attachments = { path = "README.md" } },
      'attachments: a list has the keys 1 to n and nothing else, not "path"' },
    { "attachments with a hole", { attachments = { { data = "a" }, nil, { data = "b" } } }, "attachments: a list has" },
    { "attachments that begin at 2", { attachments = { [2] = { data = "a" } } }, "attachments: a list has" },
    { "attachments with a name among them", { attachments = { { data = "a" }, filename = "x" } }, '"filename"' },
    { "an attachment that is a path", { attachments = { "README.md" } }, "attachments: item 1 must be a table, not a string" },
    { "an attachment's cid", { attachments = { { data = "a", cid = "x" } } }, 'attachments[1]: unknown option "cid"; did you mean "content_id"?' },
    { "an attachment's name", { attachments = { { data = "a" }, { data = "a", name = "x" } } },
      'attachments[2]: unknown option "name"; did you mean "filename"?' },
    { "an attachment's contentType", { attachments = { { data = "a", contentType = "a/b" } } }, 'did you mean "content_type"?' },
    { "an attachment's key that is a number", { attachments = { { "README.md" } } }, 'attachments[1]: unknown option "1"' },
    { "an attachment's data that are a number", { attachments = { { data = 5 } } }, 'attachments[1]: option "data" must be a string, not a number' },
    { "an attachment's size that is a string", { attachments = { { source = print, size = "5" } } }, '"size" must be a number' },
    { "an attachment's source that is a string", { attachments = { { source = "x" } } }, '"source" must be a function' },
    { "to with a hole", { to = { "a@b", nil, "c@d" } }, 'to: a list has the keys 1 to n and nothing else, not "3"' },
    { "to that begins at 0", { to = { [0] = "a@b", "c@d" } }, 'to: a list has the keys 1 to n and nothing else, not "0"' },
    { "to with a fraction for a key", { to = { "a@b", [1.5] = "c@d" } }, "to: a list has" },
    { "to with a name among them", { to = { "a@b", name = "Ada" } }, '"name"' },
    { "to with a number among them", { to = { "a@b", 5 } }, "to: item 2 must be a string or table, not a number" },
    { "a list in a list", { to = { { "a@b" } } }, 'to[1]: unknown option "1"' },
    { "cc of an email", { cc = { email = "c@d" } }, 'cc: unknown option "email"; did you mean' },
    { "cc of an adress", { cc = { name = "C", adress = "c@d" } }, 'cc: unknown option "adress"; did you mean "address"?' },
    { "cc of one with an email", { cc = { "a@b", { email = "c@d" } } }, 'cc[2]: unknown option "email"' },
    { "bcc as a set", { bcc = { ["x@y"] = true } }, 'bcc: unknown option "x@y"' },
    { "bcc as a set among others", { bcc = { "a@b", ["x@y"] = true } }, 'bcc: a list has the keys 1 to n and nothing else, not "x@y"' },
    { "reply_to of true", { reply_to = { true } }, "reply_to: item 1 must be a string or table, not a boolean" },
    { "from with a mail", { from = { name = "Ada", mail = "a@b" } }, 'from: unknown option "mail"' },
    { "from with a name that is a number", { from = { name = 5, address = "a@b" } }, 'from: option "name" must be a string, not a number' },
    { "sender with an address that is a table", { sender = { address = {} } }, 'sender: option "address" must be a string, not a table' },
    { "an envelope's sender", { envelope = { sender = "a@b", to = "c@d" } }, 'envelope: unknown option "sender"; did you mean' },
    { "an envelope's form", { envelope = { form = "a@b" } }, 'envelope: unknown option "form"; did you mean "from"?' },
    { "an envelope that is a list", { envelope = { "a@b" } }, 'envelope: unknown option "1"' },
    { "an envelope's to with a hole", { envelope = { to = { "a@b", nil, "c@d" } } }, "envelope: to: a list has" },
    { "an envelope's from with an email", { envelope = { from = { email = "a@b" } } }, 'envelope: from: unknown option "email"' },
    { "an envelope's to that is a number", { envelope = { to = 5 } }, 'envelope: option "to" must be a string or table, not a number' },
    { "dkim's selektor", { dkim = signature { selektor = "x" } }, 'dkim: unknown option "selektor"; did you mean "selector"?' },
    { "dkim's selektor in a list", { dkim = { DKIM, signature { selektor = "x" } } }, 'dkim[2]: unknown option "selektor"' },
    { "dkim with a hole", { dkim = { DKIM, nil, DKIM } }, "dkim: a list has" },
    { "dkim of strings", { dkim = { "example.org" } }, "dkim: item 1 must be a table, not a string" },
    { "dkim's headers with a name among them", { dkim = signature { headers = { "From", x = "To" } } }, "dkim: headers: a list has" },
    { "dkim's headers that are a string", { dkim = signature { headers = "From" } }, 'dkim: option "headers" must be a table' },
    { "dkim's domain that is a number", { dkim = signature { domain = 5 } }, 'dkim: option "domain" must be a string' },
    { "dkim's key that is a boolean", { dkim = signature { key = true } }, 'dkim: option "key" must be a string' },
    { "a list's unsubscribed", { list = { unsubscribed = "mailto:a@b" } }, 'list: unknown option "unsubscribed"; did you mean "unsubscribe"?' },
    { "a list's unsubscribe with a hole", { list = { unsubscribe = { "mailto:a@b", nil, "mailto:c@d" } } }, "list: unsubscribe: a list has" },
    { "a list's help with a number in it", { list = { help = { 5 } } }, "list: help: item 1 must be a string, not a number" },
    { "a calendar's text", { calendar = { text = "x" } }, 'calendar: unknown option "text"' },
    { "a calendar's method that is a table", { calendar = { content = "x", method = {} } }, 'calendar: option "method" must be a string' },
    { "a dsn's notfy", { dsn = { notfy = "never" } }, 'dsn: unknown option "notfy"; did you mean "notify"?' },
    { "a dsn's notify by name", { dsn = { notify = { success = true } } },
      'dsn: notify: a list has the keys 1 to n and nothing else, not "success"' },
    { "a deliver_by's second", { deliver_by = { second = 5 } }, 'deliver_by: unknown option "second"; did you mean "seconds"?' },
    { "references with a hole", { references = { "<a@b>", nil, "<c@d>" } }, "references: a list has" },
    { "references with a table among them", { references = { {} } }, "references: item 1 must be a string, not a table" },
    { "headers with a boolean", { headers = { ["X-A"] = true } }, 'headers: "X-A" must be a string or number, not a boolean' },
    { "headers by name and in a list", { headers = { { "X-A", "b" }, ["X-C"] = "d" } },
      'headers: a list has the keys 1 to n and nothing else, not "X-C"' },
    { "headers with a hole", { headers = { { "X-A", "b" }, nil, { "X-C", "d" } } }, "headers: a list has" },
    { "headers of strings", { headers = { "X-A: b" } }, "headers: item 1 must be a table, not a string" },
    { "headers of a triple", { headers = { { "X-A", "b", "c" } } }, "headers[1] must be a pair of name and value" },
    { "headers of a name alone", { headers = { { "X-A" } } }, "headers[1] must be a pair of name and value" },
    { "headers of a pair by name", { headers = { { name = "X-A", value = "b" } } }, "headers[1] must be a pair of name and value" },
    { "headers of a value that is a table", { headers = { { "X-A", {} } } }, "headers[1] must be a pair of name and value" },
  }
  for _, case in ipairs(cases) do
    it(case[1], function()
      for label, way in pairs(WAYS) do
        local text = raised(way, letter(case[2]))
        local words = text:match "^%S+_spec%.lua:%d+: (.*)$" or text
        assert.are.equal(1, (words:find(label .. ": ", 1, true)), text)
        assert.is_truthy(text:find(case[3], 1, true), text)
        assert.is_nil(text:find(KEY, 1, true))
      end
      -- and is not taken by the short way either
      assert.is_nil(message.letter(letter(case[2])))
    end)
  end

  it("from many messages on a session", function()
    for _, case in ipairs(cases) do
      local row = letter(case[2])
      local s = session()
      local fine, receipt, err = pcall(s:send_many(function()
        local this = row
        row = nil
        return this
      end))
      -- that row's own, or a raise
      assert.is_true(not fine or receipt == false and err.kind == "input", tostring(receipt))
    end
  end)
end)

describe("a right table in a message", function()
  for name, changes in pairs {
    ["of one mailbox"] = { to = { name = "B", address = "b@c" } },
    ["of an address alone"] = { to = { address = "b@c" } },
    ["of a list of all forms"] = { to = { "a@b, c@d", { name = "E", address = "e@f" }, "Team: g@h;" } },
    ["of a list of one author"] = { from = { "ada@example.org" } },
    ["of no copies"] = { cc = {}, bcc = {}, reply_to = {} },
    ["of no attachments"] = { attachments = {} },
    ["of all that an attachment may have"] = { attachments = { { data = "a", filename = "a.png", content_type = "image/png",
      content_id = "a", disposition = "inline" }, { source = function() end, size = 0 } } },
    ["of headers by name"] = { headers = { ["X-A"] = "b", ["X-C"] = 5 } },
    ["of headers in a list"] = { headers = { { "X-A", "b" }, { "X-A", 5 } } },
    ["of no headers"] = { headers = {} },
    ["of an envelope"] = { envelope = { from = { address = "a@b" }, to = { "c@d", { address = "e@f" } } } },
    ["of a list's fields"] = { list = { unsubscribe = { "mailto:a@b", "https://a.b/" }, unsubscribe_post = true } },
    ["of wishes"] = { dsn = { notify = { "success", "failure" } }, deliver_by = { seconds = 5, trace = true } },
    ["of references"] = { references = { "<a@b>", "<c@d>" } },
  } do
    it(name .. " is taken", function()
      assert(smtp.message(letter(changes)))
    end)
  end
end)

describe("a wrong table in other options raises", function()
  local WHOLE_LOGIN = "auth names mechanisms: username and password, or token, are options beside it, not in it"
  local cases = {
    { "pin with a hole", { pin = { "a", nil, "b" } }, "pin: a list has the keys 1 to n" },
    { "pin of a number", { pin = { 5 } }, "pin: item 1 must be a string, not a number" },
    { "pin by name", { pin = { sha256 = "x" } }, "pin: a list has" },
    { "auth by name", { auth = { PLAIN = true } }, WHOLE_LOGIN },
    { "a login in auth", { auth = { user = "ada", pass = "pencil" } }, WHOLE_LOGIN },
    { "another login in auth", { auth = { username = "ada", password = "pencil" } }, WHOLE_LOGIN },
    { "a token in auth", { auth = { type = "OAuth2", user = "ada", accessToken = "pencil" } }, WHOLE_LOGIN },
    { "a mechanism and a login in auth", { auth = { "PLAIN", user = "ada", pass = "pencil" } }, WHOLE_LOGIN },
    { "auth with a hole", { auth = { "PLAIN", nil, "LOGIN" } }, "auth: a list has" },
    { "auth of a function", { auth = { print } }, "auth: item 1 must be a string, not a function" },
    { "a transport without connect", { transport = { conect = print } }, 'transport: a transport has a function "connect"' },
    { "timeouts in a list", { timeouts = { 5 } }, 'timeouts: unknown option "1"' },
    { "timeouts' conect", { timeouts = { conect = 5 } }, 'timeouts: unknown option "conect"; did you mean "connect"?' },
    { "timeouts of a string", { timeouts = { final = "5" } }, 'timeouts: option "final" must be a number, not a string' },
  }
  for _, case in ipairs(cases) do
    it(case[1], function()
      for _, name in ipairs { "connect", "session", "pool", "verify", "send" } do
        local given = { host = "mail.example.org" }
        for option, value in pairs(case[2]) do given[option] = value end
        local text = raised(smtp[name], name == "send" and letter(given) or given)
        assert.is_truthy(text:find("smtp." .. name .. ": " .. case[3], 1, true), text)
      end
    end)
  end

  it("of a pool, which has names of its own", function()
    assert.is_truthy(raised(smtp.pool, { host = "x", siz = 5 }):find('smtp.pool: unknown option "siz"; did you mean "size"?', 1, true))
    assert.is_truthy(raised(smtp.pool, { host = "x", size = "5" }):find('smtp.pool: option "size" must be a number', 1, true))
    assert.is_truthy(raised(smtp.pool, "x"):find("smtp.pool: expected a table", 1, true))
  end)

  it("of a login", function()
    local s = session()
    assert.is_truthy(raised(s.auth, s, { auth = { "PLAIN", nil, "LOGIN" } }):find("session:auth: auth: a list has", 1, true))
    assert.is_truthy(raised(s.auth, s, { user = "x" }):find('did you mean "username"?', 1, true))
  end)

  it("of a server", function()
    for _, case in ipairs {
      { { extensions = { DSN = true } }, 'smtp.server: extensions: a list has the keys 1 to n and nothing else, not "DSN"' },
      { { extensions = { "DSN", nil, "BINARYMIME" } }, "smtp.server: extensions: a list has" },
      { { extensions = { 5 } }, "smtp.server: extensions: item 1 must be a string, not a number" },
    } do
      assert.is_truthy(raised(smtp.server, case[1]):find(case[2], 1, true))
    end
  end)

  it("of a step's parameters", function()
    for _, step in ipairs { "mail", "rcpt" } do
      for _, case in ipairs {
        { { SIZE = {} }, '"SIZE" must be a string or number or boolean, not a table' }, { { "SIZE=5" }, '"1" is not a name' },
        { { SIZE = 5, [true] = "x" }, '"true" is not a name' },
      } do
        local s = session()
        assert.is_truthy(raised(s[step], s, "a@b", case[1]):find("session:" .. step .. ": " .. case[2], 1, true))
      end
    end
    local s, transport = play.open(play.script(play.hello(), "C: MAIL FROM:<a@b> BODY=8BITMIME SIZE=5 X", "S: 250 ok"))
    assert(s:mail("a@b", { SIZE = 5, BODY = "8BITMIME", X = true, SMTPUTF8 = false }))
    play.finished(transport)
  end)
end)
