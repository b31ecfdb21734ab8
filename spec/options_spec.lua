-- Of: options, plan
local core = require "smtp.core"
local errors = require "smtp.errors"
local options = require "smtp.options"
local plans = require "smtp.plan"
local play = require "spec.support.play"
local smtp = require "smtp"

local function plan(given)
  return plans.new(given, "smtp.connect")
end

-- What a raising call says.
local function raised(run, ...)
  local fine, text = pcall(run, ...)
  assert.is_false(fine)
  assert.are.equal("string", type(text))
  return text
end

describe("misuse raises", function()
  for _, case in ipairs {
    { { hosst = "x" }, 'unknown option "hosst"', '"host"' },
    { { host = "x", Port = 25 }, 'unknown option "Port"', '"port"' },
    { { host = "x", user_name = "u" }, 'unknown option "user_name"', '"username"' },
    { { host = "x", passwort = "p" }, 'unknown option "passwort"', '"password"' },
    { { host = "x", timeouts = { conect = 1 } }, 'unknown option "conect"', '"connect"' },
    { { host = "x", timeouts = { Final = 1 } }, 'unknown option "Final"', '"final"' },
    { { host = "x", subject = "hi" }, 'unknown option "subject"', "it belongs to the message" },
    { { host = 7 }, '"host" must be a string, not a number' },
    { { host = "x", port = "25" }, '"port" must be a number, not a string' },
    { { host = "x", verify = 0 }, '"verify" must be a boolean, not a number' },
    { { host = "x", password = 1234 }, '"password" must be a string' },
    { { host = "x", token = true }, '"token" must be a string or function' },
    { { host = "x", timeouts = 5 }, '"timeouts" must be a table' },
    { { host = "x", timeouts = { final = "5" } }, '"final" must be a number' },
    { { host = "x", tls = "ssl" }, '"tls" must be', '"ssl"' },
    { { host = "x", tls = true }, '"tls" must be a string' },
    { { host = "x", tls_min = "1.1" }, '"tls_min" must be', '"1.1"' },
    { { host = "x", transport = "udp" }, '"transport" must be' },
    { { host = "x", pipeline = "yes" }, '"pipeline" must be' },
  } do
    it(case[2], function()
      local text = raised(smtp.connect, case[1])
      assert.is_truthy(text:find("smtp.connect", 1, true), text)
      assert.is_truthy(text:find(case[2], 1, true), text)
      assert.is_truthy(text:find(case[3] or case[2], 1, true), text)
    end)
  end

  for name, call in pairs { send = smtp.send, connect = smtp.connect, session = smtp.session, message = smtp.message } do
    it("smtp." .. name .. " without a table", function()
      for _, given in ipairs { "smtp://example.org", 7, false } do
        assert.is_truthy(raised(call, given):find("smtp." .. name .. ": expected a table", 1, true))
      end
      assert.is_truthy(raised(call):find("expected a table", 1, true))
    end)
  end

  it("never shows a value: it may be a password", function()
    assert.is_nil(raised(smtp.connect, { host = "x", passwrd = "hunter2-hunter2" }):find("hunter2", 1, true))
    assert.is_nil(raised(smtp.connect, { host = "x", auth = "PLAIN", password = { "hunter2" } }):find("hunter2", 1, true))
  end)

  it("cuts a monstrous name short", function()
    assert.is_true(#raised(smtp.connect, { [("x"):rep(1e5)] = 1 }) < 200)
  end)
end)

describe("defaults", function()
  for _, case in ipairs {
    -- what is given, the mode, the port
    { {}, "starttls", 587 },
    { { port = 465 }, "implicit", 465 },
    { { port = 25 }, "starttls", 25 },
    { { tls = "implicit" }, "implicit", 465 },
    { { tls = "implicit", port = 8465 }, "implicit", 8465 },
    { { tls = "starttls", port = 465 }, "starttls", 465 },
    { { tls = "none" }, "none", 587 },
    { { tls = "opportunistic" }, "opportunistic", 587 },
    { { lmtp = true }, "starttls", 24 },
    { { lmtp = true, port = 465 }, "implicit", 465 },
    { { lmtp = true, tls = "implicit" }, "implicit", 24 },
    { { path = "/run/smtp" }, "none", 587 },
    { { path = "/run/smtp", tls = "starttls" }, "starttls", 587 },
  } do
    it(("tls %s, port %s"):format(tostring(case[1].tls), tostring(case[1].port)), function()
      case[1].host = "mail.example.org"
      local got = assert(plan(case[1]))
      assert.are.equal(case[2], got.tls)
      assert.are.equal(case[3], got.port)
    end)
  end

  it("verify, allow nothing in clear, and wait as long as RFC 5321 asks", function()
    local got = assert(plan { host = "mail.example.org" })
    assert.is_true(got.verify)
    assert.is_false(got.allow_insecure_auth)
    assert.is_true(got.pipeline)
    assert.are.equal("1.2", got.tls_min)
    assert.is_nil(got.timeout)
    assert.is_nil(got.credentials)
    assert.are.same({ connect = 30, greeting = 300, command = 300, data = 120, block = 180, final = 600 }, got.timeouts)
    assert.are.same({ connect = 30, greeting = 5, command = 300, data = 120, block = 180, final = 600 },
      plan({ host = "mail.example.org", timeouts = { greeting = 5 } }).timeouts)
  end)

  it("mechanisms: one or a list, in any case; true is the default", function()
    assert.are.same({ "PLAIN" }, plan({ host = "x", auth = "plain" }).mechanisms)
    assert.are.same({ "LOGIN", "PLAIN" }, plan({ host = "x", auth = { "Login", "PLAIN" } }).mechanisms)
    assert.is_nil(plan({ host = "x", auth = true }).mechanisms)
    assert.is_false(plan({ host = "x", auth = false }).mechanisms)
  end)
end)

describe("url", function()
  for url, expected in pairs {
    ["smtp://mail.example.org"] = { "mail.example.org", 587, "starttls" },
    ["smtp://mail.example.org/"] = { "mail.example.org", 587, "starttls" },
    ["SMTPS://mail.example.org"] = { "mail.example.org", 465, "implicit" },
    ["smtps://mail.example.org:8465"] = { "mail.example.org", 8465, "implicit" },
    ["smtp+insecure://localhost"] = { "localhost", 25, "none" },
    ["smtp+insecure://localhost:2525"] = { "localhost", 2525, "none" },
    ["smtp://[2001:db8::1]:2525"] = { "2001:db8::1", 2525, "starttls" },
    ["smtp://[::1]"] = { "::1", 587, "starttls" },
    ["smtp://ada@mail.example.org"] = { "mail.example.org", 587, "starttls", "ada" },
    ["smtp://ada:secret@mail.example.org:25"] = { "mail.example.org", 25, "starttls", "ada", "secret" },
    ["smtp://ada%40example.org:p%3A%2f%25%20%c3%BC@mail.example.org"] =
      { "mail.example.org", 587, "starttls", "ada@example.org", "p:/% \195\188" },
    ["smtp://ada:a@b:c@mail.example.org"] = { "mail.example.org", 587, "starttls", "ada", "a@b:c" },
  } do
    it(url, function()
      local got = assert(plan { url = url })
      local held = got.credentials and got.credentials() or {}
      assert.are.same(expected, { got.host, got.port, got.tls, held.username, held.password })
    end)
  end

  local SECRET = "hunter2"
  for _, url in ipairs {
    "", "mail.example.org", "http://ada:hunter2@mail.example.org", "//ada:hunter2@mail.example.org",
    "ada:hunter2@mail.example.org", "smtp:ada:hunter2@mail.example.org", "smtp://ada:hunter2@", "smtp://",
    "smtp://ada:hunter2@:25", "smtp://ada:hunter2@mail.example.org:port", "smtp://ada:hunter2@mail.example.org:",
    "smtp://ada:hunter2@mail.example.org:99999", "smtp://ada:hunter2@mail.example.org:0",
    "smtp://ada:hunter2@mail.example.org/path", "smtp://ada:hunter2@mail.example.org?x=1",
    "smtp://ada:hunter2#x@mail.example.org", "smtp://ada:hunt/hunter2@mail.example.org",
    "smtp://ada:hunter2@mail.exa mple.org", "smtp://ada:hunter2@mail%0d%0a.example.org", "smtp://ada:hunter2@a%00b",
    "smtp://ada:hunter2@[::1", "smtp://ada:hunter2@::1", "smtp://ada:hunter2@[::1]25", " smtp://ada:hunter2@x",
  } do
    it(("refuses %q"):format(url), function()
      local got, err = plan { url = url }
      assert.is_nil(got)
      assert.are.equal("input", err.kind)
      assert.are.equal("compose", err.stage)
      assert.are.equal("not_sent", err.outcome)
      assert.is_nil(play.dump(err):find(SECRET, 1, true))
      assert.is_nil(tostring(err):find(SECRET, 1, true))
    end)
  end

  it("gives way to the other options", function()
    local got = plan { url = "smtp://ada:secret@mail.example.org:25", host = "other.example.org", port = 26, password = "p" }
    assert.are.equal("other.example.org", got.host)
    assert.are.equal(26, got.port)
    assert.are.equal("ada", got.credentials().username)
    assert.are.equal("p", got.credentials().password)
    assert.are.equal(465, plan({ url = "smtp://mail.example.org", tls = "implicit" }).port)
    assert.are.equal(2525, plan({ url = "smtp://ada:1@mail.example.org:2525", tls = "implicit" }).port)
  end)
end)

describe("url of LMTP", function()
  for url, expected in pairs {
    ["lmtp://mail.example.org"] = { "mail.example.org", 24, "starttls", true },
    ["lmtp://ada:secret@[::1]:2424"] = { "::1", 2424, "starttls", true, nil, "ada" },
    ["lmtp+unix:///run/dovecot/lmtp"] = { nil, 24, "none", true, "/run/dovecot/lmtp" },
    ["LMTP+unix:///run/a%20b%3F?c#d@e:%2f"] = { nil, 24, "none", true, "/run/a b??c#d@e:/" },
  } do
    it(url, function()
      local got = assert(plan { url = url })
      local user = got.credentials and got.credentials().username
      for i = 1, 6 do
        assert.are.equal(expected[i], ({ got.host, got.port, got.tls, got.lmtp, got.path, user })[i])
      end
    end)
  end

  for _, url in ipairs { "lmtp+unix://run/lmtp", "lmtp+unix://", "lmtp+unix:/run/lmtp", "lmtp://", "lmtp:///run/lmtp" } do
    it("refuses " .. url, function()
      local got, err = plan { url = url }
      assert.is_nil(got)
      assert.are.equal("input", err.kind)
    end)
  end

  it("gives way to the other options", function()
    assert.are.equal("none", plan({ url = "lmtp://mail.example.org", tls = "none" }).tls)
    assert.are.equal(24, plan({ url = "lmtp://mail.example.org", tls = "none" }).port)
    assert.is_false(plan({ url = "lmtp+unix:///run/smtp", lmtp = false }).lmtp)
    assert.are.equal("starttls", plan({ url = "lmtp+unix:///run/lmtp", tls = "starttls" }).tls)
  end)
end)

describe("proxy", function()
  for url, expected in pairs {
    ["socks5://proxy.example.org"] = { "socks5", "proxy.example.org", 1080 },
    ["SOCKS5://ada:p%40ss%3a@proxy.example.org:9050/"] = { "socks5", "proxy.example.org", 9050, "ada", "p@ss:" },
    ["socks5://ada:x@[::1]:9050"] = { "socks5", "::1", 9050, "ada", "x" },
    ["http://proxy.example.org"] = { "http", "proxy.example.org", 80 },
    ["http://ada:@proxy.example.org"] = { "http", "proxy.example.org", 80, "ada", "" },
    ["http://ada:secret@proxy.example.org:3128"] = { "http", "proxy.example.org", 3128, "ada", "secret" },
  } do
    it(url, function()
      local got = assert(plan { host = "mail.example.org", proxy = url }).proxy
      local user, password
      if got.credentials then user, password = got.credentials() end
      assert.are.same(expected, { got.kind, got.host, got.port, user, password })
    end)
  end

  for _, url in ipairs {
    "", "proxy.example.org:1080", "https://ada:hunter2@proxy.example.org", "socks5://", "socks5://ada:hunter2@",
    "socks5://ada:hunter2@proxy.example.org:0", "socks5://ada:hunter2@proxy.example.org:99999", "http://ada:hunter2@a/b",
    "socks5://ada:hunter2@proxy%0d.example.org", "http://a%3Ab:hunter2@proxy.example.org", "socks5://:hunter2@x",
    ("socks5://ada:hunter2%s@proxy.example.org"):format(("x"):rep(250)), ("socks5://%s:hunter2@x"):format(("x"):rep(256)),
  } do
    it(("refuses %q"):format(url:sub(1, 60)), function()
      local got, err = plan { host = "mail.example.org", proxy = url }
      assert.is_nil(got)
      assert.are.same({ "input", "compose" }, { err.kind, err.stage })
      assert.is_truthy(err.reason:find("proxy", 1, true), err.reason)
      assert.is_nil(play.dump(err):find("hunter2", 1, true))
    end)
  end
end)

describe("a host that is not ASCII", function()
  it("is the A-label that DNS knows, everywhere", function()
    local name, reason = core.idn "b\195\188cher.example"
    if not name then return pending("NO IDN: " .. reason) end
    local got = assert(plan { host = "mail.b\195\188cher.example", server_name = "b\195\188cher.example",
      proxy = "socks5://b\195\188cher.example" })
    assert.are.same({ "mail.xn--bcher-kva.example", "xn--bcher-kva.example", "xn--bcher-kva.example" },
      { got.host, got.server_name, got.proxy.host })
    assert.are.equal("mail.xn--bcher-kva.example", plan({ url = "smtp://mail.b%c3%bccher.example" }).host)
    for _, given in ipairs { { host = "b\252cher.example" }, { host = "x", server_name = "b\252cher.example" },
      { host = "x", proxy = "http://b\252cher.example" } } do
      local refused, err = plan(given)
      assert.is_nil(refused)
      assert.are.same({ "input", "compose" }, { err.kind, err.stage })
    end
  end)

  it("a zone is no part of the name in a certificate", function()
    local got = plan { host = "[fe80::1%lo]" }
    assert.are.same({ "fe80::1%lo", "fe80::1" }, { got.host, got.server_name })
    assert.is_nil(plan({ host = "::1" }).server_name)
    assert.are.equal("x", plan({ host = "fe80::1%lo", server_name = "x" }).server_name)
  end)
end)

describe("values that cannot work", function()
  for _, case in ipairs {
    { {}, "no server" },
    { { host = "" }, "host" },
    { { host = "a b" }, "host" },
    { { host = "a\r\nb" }, "host" },
    { { host = "a\0b" }, "host" },
    { { host = "x", port = 0 }, "port" },
    { { host = "x", port = 65536 }, "port" },
    { { host = "x", port = 25.5 }, "port" },
    { { host = "x", port = 0 / 0 }, "port" },
    { { host = "x", port = math.huge }, "port" },
    { { host = "x", helo = "a b" }, "helo" },
    { { host = "x", helo = "a\r\nRSET" }, "helo" },
    { { host = "x", helo = "" }, "helo" },
    { { host = "x", server_name = "a\0b" }, "server_name" },
    { { host = "x", timeout = 0 }, "timeout" },
    { { host = "x", timeout = -1 }, "timeout" },
    { { host = "x", timeout = 0 / 0 }, "timeout" },
    { { host = "x", timeouts = { final = 0 } }, "timeouts.final" },
    { { host = "x", timeouts = { block = 0 / 0 } }, "timeouts.block" },
    { { host = "x", client_key = "key.pem" }, "client_cert" },
    { { path = "/run/smtp", proxy = "socks5://proxy.example.org" }, "proxy and path" },
    { { host = "x", url = "lmtp+unix:///run/lmtp", proxy = "socks5://proxy.example.org" }, "proxy and path" },
    { { path = "/run/smtp", bind = "127.0.0.1" }, "bind and path" },
    { { host = ("x"):rep(256), proxy = "socks5://proxy.example.org" }, "host" },
  } do
    it(case[2] .. " is an input error", function()
      local got, err = plan(case[1])
      assert.is_nil(got)
      assert.are.same({ "input", "compose", "not_sent", false }, { err.kind, err.stage, err.outcome, err.temporary })
      assert.is_truthy(err.reason:find(case[2], 1, true), err.reason)
      assert.is_nil(tostring(err):find("[%c]"))
    end)
  end
end)

describe("the caller's tables", function()
  it("are never changed", function()
    local given = { url = "smtp://ada:secret@mail.example.org", auth = { "plain" }, timeouts = { final = 5 },
      from = "ada@example.org", to = { "bob@example.org" } }
    local server, message = options.split(given, "smtp.send")
    assert(plan(server))
    assert.are.same({ url = "smtp://ada:secret@mail.example.org", auth = { "plain" }, timeouts = { final = 5 },
      from = "ada@example.org", to = { "bob@example.org" } }, given)
    assert.are.same({ from = "ada@example.org", to = { "bob@example.org" } }, message)
    assert.is_nil(server.from)
  end)

  it("are free afterwards: a plan does not change with them", function()
    local given = { host = "mail.example.org", auth = { "plain" }, timeouts = { final = 5 }, username = "u", password = "p" }
    local got = plan(given)
    given.auth[1], given.timeouts.final, given.password = "login", 9, "q"
    assert.are.same({ "PLAIN" }, got.mechanisms)
    assert.are.equal(5, got.timeouts.final)
    assert.are.equal("p", got.credentials().password)
  end)
end)

describe("an auth that names no mechanism", function()
  it("is refused before anything is connected, and by session:auth", function()
    for _, auth in ipairs { {}, "", { "" }, { "PLAIN", "" }, "plain login", "PLAIN\r\nQUIT" } do
      local none = { host = "mail.example.org", username = "ada", password = "p", auth = auth }
      none.transport = { connect = function() error "connected" end }
      local got, err = smtp.connect(none)
      assert.is_nil(got)
      assert.are.same({ "input", "not_sent" }, { err.kind, err.outcome })
      assert.is_truthy(err.reason:find("^auth "), err.reason)
      local session = play.open(play.script(play.hello("AUTH PLAIN"), "hang"), { tls = "implicit" })
      got, err = session:auth { username = "ada", password = "p", auth = auth }
      assert.is_nil(got)
      assert.are.equal("input", err.kind)
    end
  end)
end)

describe("a number that becomes text", function()
  it("is finite in a header field", function()
    for _, number in ipairs { 0 / 0, 1 / 0, -1 / 0 } do
      for _, headers in ipairs { { ["X-A"] = number }, { { "X-A", number } } } do
        local got, err = smtp.message { from = "ada@example.org", to = "bob@example.org", headers = headers }
        assert.is_nil(got)
        assert.are.same({ "input", "headers: X-A is no finite number" }, { err.kind, err.reason })
      end
    end
  end)

  it("is finite in a parameter, and in the options that are told the server", function()
    for _, number in ipairs { 0 / 0, 1 / 0, -1 / 0 } do
      local session = play.open(play.script(play.hello("XNUM"), "hang"))
      local got, err = session:mail("ada@example.org", { XNUM = number })
      assert.is_nil(got)
      assert.are.equal("input", err.kind)
      for name, value in pairs { deliver_by = number, hold_for = number, mt_priority = number, date = number } do
        got, err = smtp.message { from = "ada@example.org", to = "bob@example.org", [name] = value }
        assert.is_nil(got, name)
        assert.are.equal("input", err.kind)
      end
    end
  end)
end)

describe("what a metatable adds", function()
  it("is no option: nobody has looked at it", function()
    local given = setmetatable({ host = "mail.example.org" }, { __index = { verify = false, tls = "none", timeout = "soon" } })
    local got = plan(given)
    assert.are.same({ true, "starttls" }, { got.verify, got.tls })
    assert.is_nil(got.timeout)
  end)

  it("is refused in what a message is made of, and in the tables inside", function()
    local function adds(own, more) return setmetatable(own, { __index = more }) end
    local letter = { from = "ada@example.org", to = "bob@example.org", text = "hi" }
    local function with(name, value)
      return function()
        local changed = { [name] = value }
        for key, one in pairs(letter) do changed[key] = changed[key] or one end
        return smtp.message(changed)
      end
    end
    for name, value in pairs {
      to = adds({ "bob@example.org" }, { [2] = "eve@example.org" }), cc = adds({}, { "eve@example.org" }),
      reply_to = adds({}, { address = "eve@example.org" }), headers = adds({}, { ["X-A"] = "1" }),
      attachments = { adds({ data = "x" }, { filname = "x" }) }, list = adds({}, { id = "<a.b>" }),
      references = setmetatable({}, { __pairs = function() return next, { "<a@b>" } end }),
      envelope = setmetatable({}, { __metatable = false, __index = letter }),
    } do
      assert.is_truthy(raised(with(name, value)):find(name .. "[%[1%]]*: must hold itself"), name)
    end
    assert.is_truthy(raised(smtp.message, adds({}, letter)):find "smtp.message: must hold itself")
    assert.is_truthy(raised(plan, { host = "x", auth = adds({}, { "PLAIN" }) }):find "auth: must hold itself")
    assert.is_truthy(raised(smtp.server, adds({}, { tls = "none" })):find "smtp.server: must hold itself")
    assert(with("cc", setmetatable({ "eve@example.org" }, {}))())
  end)

  -- As class libraries make them: one class inherits from another, and each has methods and names of its own.
  local Base = { _name = "Base", map = function() end, from = nil }
  Base.__index, Base.new, Base.__eq = Base, Base, function() error "compared" end
  local List = setmetatable({ _name = "List", _base = Base, filter = function() end, __index = nil }, Base)
  List.__index, List.__eq = List, Base.__eq
  local function list(items) return setmetatable(items, List) end

  it("is nothing where it is a class with its methods: its objects are taken for what they hold", function()
    for _, class in ipairs { list, pcall(require, "pl.List") and require "pl.List" or list } do
      local mail = assert(smtp.message(list { from = "ada@example.org", to = class { "bob@example.org", list { address = "c@d.org" } },
        cc = class { "eve@example.org" }, reply_to = list { address = "x@y.org", name = "X" }, references = class { "<a@b>" },
        headers = class { class { "X-A", "1" } }, attachments = class { list { data = "x", filename = "x.txt" } }, text = "hi" }))
      assert.are.same({ "bob@example.org", "c@d.org", "eve@example.org" }, mail.envelope.to)
      assert.is_truthy(mail:tostring():find("X-A: 1\r\n", 1, true))
      mail.envelope = list { from = "", to = class { "f@g.org" } }
      local session = play.open(play.script(play.hello "PIPELINING", "C: MAIL FROM:<>", "C: RCPT TO:<f@g.org>", "C: DATA", "S: 550 no",
        "S: 503 no", "S: 503 no"))
      assert.are.equal("rejected", select(2, session:send(mail)).kind)
    end
  end)

  it("is refused in an envelope that was changed, as an error of the input", function()
    local function trap() error "asked for" end
    local function adds(own, more) return setmetatable(own, more) end
    for name, change in pairs {
      ["envelope.to"] = function(mail) mail.envelope.to = adds({ "a@b.org" }, { __index = trap }) end,
      ["envelope.to "] = function(mail) adds(mail.envelope.to, { __len = trap, __eq = trap }) mail.envelope.from = "" end,
      ["envelope.to  "] = function(mail) mail.envelope.to = adds({}, { __index = { "a@b.org" }, __pairs = trap }) end,
      ["envelope.to[1]"] = function(mail) mail.envelope.to = { adds({}, { __index = { address = "a@b.org" } }) } end,
      ["envelope.from"] = function(mail) mail.envelope.from = adds({}, { __index = trap }) end,
      ["envelope"] = function(mail) mail.envelope = adds({}, { __index = { from = "a@b.org", to = "a@b.org" } }) end,
      ["envelope "] = function(mail) adds(mail.envelope, { __pairs = trap, __index = trap }).to = nil end,
    } do
      local mail = assert(smtp.message { from = "ada@example.org", to = "bob@example.org", text = "hi" })
      change(mail)
      local session, transport = play.open(play.hello "PIPELINING")
      local receipt, err = session:send(mail)
      assert.is_nil(receipt)
      assert.are.same({ "input", name:gsub(" ", "") .. ": must hold itself what it says, not have it from a metatable" },
        { err.kind, err.reason })
      assert.are.equal(1, #transport.pipe.written)
    end
  end)
end)

describe("the usual timeouts", function()
  it("are each plan's own", function()
    plan({ host = "mail.example.org" }).timeouts.final = 1
    assert.are.equal(600, plan({ host = "mail.example.org" }).timeouts.final)
  end)
end)

describe("secrets", function()
  local KEY = "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n"

  it("are in no dump of a plan or a session", function()
    for _, given in ipairs {
      { host = "mail.example.org", username = "ada", password = "hunter2" },
      { host = "mail.example.org", username = "ada", token = "hunter2" },
      { url = "smtp://ada:hunter2@mail.example.org" },
      { host = "mail.example.org", client_cert = "cert.pem", client_key = KEY },
      { host = "mail.example.org", proxy = "socks5://ada:hunter2@proxy.example.org" },
      { host = "mail.example.org", proxy = "http://ada:hunter2@proxy.example.org" },
    } do
      assert.is_nil(play.dump(plan(given)):find("hunter2", 1, true))
      assert.is_nil(play.dump(smtp.session(given)):find("hunter2", 1, true))
    end
  end)

  it("the dump would show them", function()
    local hidden = setmetatable({}, { __index = { ["hunter2"] = { "x" } } })
    assert.is_truthy(play.dump({ { hidden } }):find("hunter2", 1, true))
  end)

  it("an empty name of a file is no name", function()
    for _, name in ipairs { "ca_file", "ca_path", "client_cert", "client_key" } do
      local given = { host = "mail.example.org", client_cert = "cert.pem" }
      given[name] = ""
      local got, err = smtp.connect(given)
      assert.is_nil(got)
      assert.are.same({ "input", "not_sent" }, { err.kind, err.outcome })
      assert.are.equal(name .. " is empty: leave it out where there is none", err.reason)
    end
  end)

  it("a key that is no key is not quoted in the error", function()
    local given, transport = play.options(play.script(play.hello("STARTTLS"), "C: STARTTLS", "S: 220 go"),
      { tls = "starttls", client_cert = KEY, client_key = KEY, ca_file = KEY })
    transport.secure = nil
    local got, err = smtp.connect(given)
    assert.is_nil(got)
    assert.are.equal("tls", err.kind)
    assert.is_nil(play.dump(err):find("hunter2", 1, true))
  end)
end)

describe("errors", function()
  it("are one line, whatever is in them", function()
    local err = errors.new { kind = "rejected", stage = "rcpt", code = 550, enhanced = "5.1.1", text = "no\nsuch user",
      hint = "look", reason = "a\r\nb" }
    assert.are.equal("rejected at rcpt: a  b: 550 5.1.1 no such user; the message was not sent; hint: look", tostring(err))
    assert.are.equal("!" .. tostring(err) .. "!", "!" .. err .. "!")
  end)

  for _, case in ipairs {
    { { kind = "rejected", code = 450 }, true },
    { { kind = "rejected", code = 550 }, false },
    { { kind = "closed", code = 552 }, false },
    { { kind = "timeout" }, true },
    { { kind = "connect" }, true },
    { { kind = "resolve", temporary = false }, false },
    { { kind = "tls" }, false },
    { { kind = "input" }, false },
    { { kind = "protocol" }, false },
  } do
    it(("temporary: %s %s"):format(case[1].kind, tostring(case[1].code)), function()
      case[1].stage = "mail"
      assert.are.equal(case[2], errors.new(case[1]).temporary)
    end)
  end

  it("say when a message may be out", function()
    local err = errors.new { kind = "closed", stage = "final", outcome = "unknown", reason = "gone" }
    assert.is_truthy(tostring(err):find("may duplicate it", 1, true))
  end)
end)
