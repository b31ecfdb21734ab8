-- What a newcomer gets wrong, and the whole sentence that it is answered with.
-- Of: protocol/host
local loopback = require "spec.support.loopback"
local memory = require "smtp.transport.memory"
local play = require "spec.support.play"
local smtp = require "smtp"
local tls = require "smtp.tls"

local CALLS = { smtp.session, smtp.connect, smtp.pool, smtp.verify }

describe("A host that is more than a name", function()
  for given, words in pairs {
    ["smtp://mail.example.org"] = 'is a URL: write url = "smtp://mail.example.org"',
    ["SMTPS://mail.example.org:465"] = 'is a URL: write url = "SMTPS://mail.example.org:465"',
    ["smtp://[::1]:25"] = 'is a URL: write url = "smtp://[::1]:25"',
    ["smtp://ada:hunter2@mail.example.org"] = "is a URL: give it as url",
    ["http://mail.example.org/x"] = 'is a URL: write host = "mail.example.org"',
    ["ssl://mail.example.org:465"] = 'is a URL: write host = "mail.example.org", port = 465',
    ["mail.example.org:587"] = 'has a port in it: write host = "mail.example.org", port = 587',
    ["192.0.2.25:25"] = 'has a port in it: write host = "192.0.2.25", port = 25',
    ["[::1]:25"] = 'has a port in it: write host = "::1", port = 25',
    ["mail.example.org:"] = 'has a port in it: write host = "mail.example.org", and the port as a number in port',
    ["mail.example.org:smtp"] = 'has a port in it: write host = "mail.example.org", and the port as a number in port',
    ["ada@mail.example.org"] = 'has a user name in it: write host = "mail.example.org", and the user name in username',
    ["ada:hunter2@mail.example.org:25"] =
      'has a user name in it: write host = "mail.example.org", port = 25, and the user name in username',
    [" mail.example.org "] = 'has a blank or line break around it: write host = "mail.example.org"',
    ["mail.example.org\n"] = 'has a blank or line break around it: write host = "mail.example.org"',
    ["mail.example.org/"] = 'has a slash or the like in it: write host = "mail.example.org"',
    ["//mail.example.org"] = 'has a slash or the like in it: write host = "mail.example.org"',
    ["mail.example.org?x"] = 'has a slash or the like in it: write host = "mail.example.org"',
    ["/run/smtp.sock"] = 'is the path of a file: write path = "/run/smtp.sock"',
    ["b\195\188cher.example:25"] = 'has a port in it: write host = "b\195\188cher.example", port = 25',
    [":25"] = "has a port in it",
    ["mail example org"] = "has a blank or control character in it, or is empty",
    [""] = "has a blank or control character in it, or is empty",
  } do
    it(("%q is told what to write instead"):format(given), function()
      for _, call in ipairs(CALLS) do
        local got, err = call { host = given, tls = "none", transport = memory.new {} }
        assert.is_nil(got)
        assert.are.same({ "input", "compose", "host " .. words }, { err.kind, err.stage, err.reason })
      end
    end)
  end

  it("is one all the same where it is an address, a name with a dot behind it, or has a zone", function()
    for _, host in ipairs { "::1", "[::1]", "fe80::1%lo", "2001:db8::25", "mail.example.org.", "mail_1.example.org", "x" } do
      assert(smtp.session { host = host })
    end
  end)

  it("in other options too, and for the receiving side", function()
    for option, words in pairs { server_name = 'server_name = "mail.example.org"', bind = 'bind = "mail.example.org"' } do
      for given, what in pairs { ["smtp://mail.example.org"] = "is a URL", ["mail.example.org:25"] = "has a port in it",
        ["mail.example.org "] = "has a blank or line break around it" } do
        local _, err = smtp.session { host = "x", [option] = given }
        assert.are.equal(("%s %s: write %s"):format(option, what, words), err.reason)
      end
    end
    for given, words in pairs { ["127.0.0.1:2525"] = 'has a port in it: write host = "127.0.0.1", port = 2525',
      ["smtp://127.0.0.1"] = 'is a URL: write host = "127.0.0.1"', ["127.0.0.1\n"] =
      'has a blank or line break around it: write host = "127.0.0.1"' } do
      local server, err = smtp.server { host = given }
      assert.is_nil(server)
      assert.are.equal("host " .. words, err.reason)
    end
    local server = assert(smtp.server { host = "[127.0.0.1]" })
    server:close()
  end)
end)

describe("A transport that is none", function()
  local function says(words, transport)
    for _, name in ipairs { "send", "connect", "session", "pool", "verify" } do
      local fine, text = pcall(smtp[name], { host = "x", transport = transport })
      assert.is_false(fine)
      assert.are.equal(("smtp.%s: %s"):format(name, words), (text:gsub("^%S+:%d+: ", "")))
    end
  end

  it("is told what one is", function()
    local words = 'transport: a transport has a function "connect": write one such as require "smtp.transport.cqueues", '
      .. "or leave it out for the built-in sockets"
    says(words, {})
    says(words, setmetatable({}, { __index = { send = print } }))
    says(words, { connect = "127.0.0.1" })
    words = 'transport: a transport has a function "connect": what its function "new" gives may be one'
    says(words, memory)
    says(words, require "smtp.transport.socket")
  end)

  it("and by its name in quotes, what to require", function()
    says('option "transport" must be "auto" or a transport, not "luv": write transport = require "smtp.transport.luv"', "luv")
    says('option "transport" must be "auto" or a transport, not "smtp.transport.copas": write transport = require '
      .. '"smtp.transport.copas"', "smtp.transport.copas")
    says('option "transport" must be "auto" or a transport, not "tcp"', "tcp")
  end)
end)

describe("A value of a wrong type is told what to write where the type does not tell:", function()
  local function says(words, name, given)
    local fine, text = pcall(smtp[name], given)
    assert.is_false(fine)
    assert.are.equal(("smtp.%s: %s"):format(name, words), (text:gsub("^%S+:%d+: ", "")))
  end

  it("the kind of TLS", function()
    for value, kind in pairs { [true] = "boolean", [false] = "boolean", [1] = "number", [memory] = "table" } do
      for _, name in ipairs { "send", "pool", "connect", "verify", "server" } do
        says(('option "tls" must be a string, not a %s: write "implicit", "starttls", "opportunistic" or "none"'):format(kind), name,
          { tls = value })
      end
    end
    says('option "tls_min" must be a string, not a number: write "1.2" or "1.3"', "send", { tls_min = 1.2 })
  end)

  it("what a message has", function()
    says('option "priority" must be a string, not a number: write "high", "normal" or "low"', "message", { priority = 1 })
    says('option "date" must be a number, not a string: write a time as os.time() gives it', "message", { date = "today" })
    says('option "date" must be a number, not a table: write a time as os.time() gives it', "send", { date = os.date "*t" })
    says('headers: item 1 must be a table, not a string: an item is written { "X-Mailer", "ours" }', "message", { headers = { "X-A: b" } })
  end)

  it("attachments", function()
    says('option "attachments" must be a table, not a string: write a list such as { { path = "plan.pdf" } }', "message",
      { attachments = "a.pdf" })
    says('attachments: item 1 must be a table, not a string: an item is written { path = "plan.pdf" }', "send", { attachments = { "a.pdf" } })
    says('attachments: a list has the keys 1 to n and nothing else, not "path": an item is written { path = "plan.pdf" }',
      "message", { attachments = { path = "a.pdf" } })
    says('to: a list has the keys 1 to n and nothing else, not "name"', "message", { to = { "a@b.c", name = "x" } })
  end)

  it("a message in place of options, a call's result in place of a function", function()
    says("a message by itself names no server: give it to session:send or pool:send", "send",
      assert(smtp.message { from = "ada@example.org", to = "bob@example.org", text = "x" }))
    local fine, text = pcall(smtp.task, nil, "no server")
    assert.is_false(fine)
    assert.is_truthy(text:find("smtp.task: expected a function, got nil: write smtp.task(smtp.send, { … })", 1, true), text)
    fine, text = pcall(function() return smtp.pool({ host = "x" }):send_many(print) end)
    assert.are.same({ false, "pool:send_many: on_result must be a function, not nil" }, { fine, (text:gsub("^%S+:%d+: ", "")) })
  end)
end)

describe("A callback", function()
  it("is refused by what returns its result, before anything is sent", function()
    local letter = { from = "ada@example.org", to = "bob@example.org", text = "x" }
    local pool = assert(smtp.pool { host = "x", transport = memory.new {} })
    local session = play.open(play.hello())
    for label, call in pairs {
      ["smtp.send"] = function() return smtp.send(letter, print) end, ["pool:send"] = function() return pool:send(letter, print) end,
      ["session:send"] = function() return session:send(letter, print) end,
    } do
      local fine, text = pcall(call)
      assert.is_false(fine)
      assert.is_truthy(text:find("^spec/sentences_spec%.lua:%d+: "), text)
      assert.are.equal(label .. ": takes no callback: it returns the receipt, or nil and the error", (text:gsub("^%S+:%d+: ", "")))
    end
    assert.are.equal("ready", session.state)
  end)
end)

describe("A login of a kind that the server does not take", function()
  local OTHER = "the server takes another kind of login: PLAIN, LOGIN and SCRAM take username and password, XOAUTH2 and OAUTHBEARER "
    .. "a token; auth, where it is given, names one that the server offers"
  local PASSWORD, TOKEN = { username = "ada", password = "pencil" }, { username = "ada", token = "abc" }

  local function says(words, offers, given)
    local options = play.options(play.hello(offers), given)
    options.allow_insecure_auth = true
    local session, err = smtp.connect(options)
    assert.is_nil(session)
    assert.are.same({ "auth", words }, { err.kind, err.hint })
  end

  it("is told of the kinds, and to leave it out only where the server takes none", function()
    says(OTHER, "AUTH LOGIN PLAIN", TOKEN)
    says(OTHER, "AUTH XOAUTH2", PASSWORD)
    says(OTHER, "AUTH GSSAPI NTLM", PASSWORD)
    says(OTHER, "AUTH PLAIN", { username = "ada", password = "pencil", auth = "CRAM-MD5" })
    for _, given in ipairs { PASSWORD, TOKEN } do
      says("leave out username and password (or auth) if this server wants no login; many offer AUTH only after TLS", "PIPELINING",
        given)
    end
  end)

  it("by a function that gives no token says what it gave", function()
    for words, token in pairs { ["it returned nil"] = function() end, ["it returned a table"] = function() return { access = "abc" } end,
      ["no network"] = function() return nil, "no network" end } do
      local options = play.options(play.hello("AUTH XOAUTH2"), { username = "ada", token = token, allow_insecure_auth = true })
      local session, err = smtp.connect(options)
      assert.is_nil(session)
      assert.are.equal("the token function gave no token: " .. words, err.reason)
    end
  end)
end)

describe("Who does not answer is looked for in the right place:", function()
  local function says(words, given)
    local session, err = smtp.connect(given)
    assert.is_nil(session)
    assert.are.equal(words, err.hint)
  end

  local function refused(reason)
    return { connect = function() return nil, "connect", reason end }
  end

  it("a unix socket has no port", function()
    says("nothing listens there: check path, and whether the server runs",
      { path = "/run/lmtp", lmtp = true, transport = refused "/run/lmtp: Connection refused" })
    says("nothing listens there: check host and port (587 for submission, 465 for implicit TLS)",
      { host = "x", transport = refused "192.0.2.1 port 587: Connection refused" })
  end)

  it("an address to connect from is this machine's", function()
    says("bind must be an address of this machine",
      { host = "x", bind = "192.0.2.7", transport = refused "192.0.2.1 port 587: Cannot assign requested address" })
  end)

  it("a proxy is named once", function()
    for reason in pairs { ["192.0.2.8 port 1080: Connection refused"] = 1, ["Connection refused"] = 2 } do
      local _, err = smtp.connect { host = "x", proxy = "socks5://192.0.2.8", transport = refused(reason) }
      assert.is_truthy(err.reason:find("^proxy 192%.0%.2%.8[ :]"), err.reason)
      assert.is_nil(err.reason:find("192.0.2.8", 16, true), err.reason)
    end
  end)
end)

describe("An error of the composing names the option once:", function()
  for option, case in pairs {
    subject = { "a\nb", 'line feed at position 2: "\\x0Ab"' },
    in_reply_to = { "<a@b>\0", 'NUL at position 6: "\\x00"' },
    ["from: name"] = { { name = "a\rb", address = "a@b" }, 'carriage return at position 2: "\\x0Db"' },
    ["list.help"] = { "https://a/" .. ("x"):rep(1000), "a word too long for a line" },
    ["headers: X-A"] = { { ["X-A"] = "a\nb" }, 'line feed at position 2: "\\x0Ab"' },
  } do
    it(option, function()
      local fields = { from = "ada@example.org", to = "bob@example.org", text = "x" }
      local name, inner = option:match("^(%w[%w_]*)%.?(.*)$")
      fields[name] = option:find(".", 1, true) and { [inner] = case[1] } or case[1]
      local mail, err = smtp.message(fields)
      assert.is_nil(mail)
      assert.are.equal(option .. ": " .. case[2], err.reason)
    end)
  end
end)

describe("What is wrong with a certificate names the option that was given:", function()
  local cert, key = tls.mint { "localhost" }
  local _, another = tls.mint { "localhost" }

  it("a client's", function()
    for _, case in ipairs {
      { { client_cert = "/none.pem" }, 'cannot read client_cert "/none.pem": No such file or directory' },
      { { client_cert = cert }, "client_cert holds no PEM private key" },
      { { client_cert = key }, "client_cert holds no PEM certificate" },
      { { client_cert = cert, client_key = "/none.pem" }, "cannot read client_key: No such file or directory" },
      { { client_cert = cert, client_key = cert }, "client_key holds no PEM private key" },
      { { client_cert = cert, client_key = another },
        "the private key in client_key cannot be used with the certificate: key values mismatch" },
      { { ca_file = "/none.pem" }, 'cannot read ca_file "/none.pem": No such file or directory' },
      { { ca_path = "/none" }, 'ca_path "/none" is not a directory that can be read' },
    } do
      local given = case[1]
      given.host, given.tls, given.transport = "localhost", "implicit", memory.new {}
      local session, err = smtp.connect(given)
      assert.is_nil(session)
      assert.are.same({ "tls", case[2] }, { err.kind, err.reason })
    end
  end)

  it("a server's", function()
    for _, case in ipairs {
      { { cert = "/none.pem" }, 'cannot read cert "/none.pem": No such file or directory' },
      { { cert = cert }, "cert holds no PEM private key" },
      { { cert = cert, key = "/none.pem" }, "cannot read key: No such file or directory" },
      { { cert = cert, key = another }, "the private key in key cannot be used with the certificate: key values mismatch" },
    } do
      case[1].tls = "implicit"
      local server, err = smtp.server(case[1])
      assert.is_nil(server)
      assert.are.same({ "tls", case[2] }, { err.kind, err.reason })
    end
  end)
end)

describe("A port of another protocol", function()
  local ASKS = "; hint: is this an SMTP port? %s587 and 465 are usual for mail"
  local function asks(who) return ASKS:format(who and who .. " answers there; " or "") end

  for start, words in pairs {
    ["SSH-2.0-OpenSSH_9.2\r\n"] = { "SSH-2.0-OpenSSH_9.2", "an SSH server" },
    ["SSH-2.0-OpenSSH_9.2"] = { "SSH-2.0-OpenSSH_9.2", "an SSH server" },
    ["* OK IMAP4rev1 ready\r\n"] = { "* OK IMAP4rev1 ready", "an IMAP server" },
    ["+OK ready\r\n"] = { "+OK ready", "a POP3 server" },
    ["HTTP/1.1 400 Bad Request\r\nServer: x\r\n\r\n"] = { "HTTP/1.1 400 Bad Request", "a web server (a captive portal's?)" },
    ["<html>"] = { "<html>", "a web server (a captive portal's?)" },
    ["hello, world"] = { "hello, world" },
    ["\255\253\24"] = { "\\xff\\xfd\\x18" },
    ["J\0\0\0\n8.0.33\0"] = { "J\\x00\\x00\\x00" },
    ["1"] = { "1" },
    ["22O mail.example.org"] = { "22O mail.example.org" },
    ["220ready\r\n"] = { "220ready" },
    ["\r\n-ERR what\r\n"] = { "-ERR what" },
  } do
    play.both(it, ("is known at once by %q"):format(start), function(dribble)
      -- behind it all is silent: whoever waited for more would run into a timeout
      local given = play.options({ "S! " .. start, "hang" }, nil, dribble)
      local session, err = smtp.connect(given)
      assert.is_nil(session)
      assert.are.equal(('protocol at greeting: the server\'s reply is not SMTP: "%s"'):format(words[1]) .. asks(words[2]),
        tostring(err))
    end)
  end

  play.both(it, "is named where its greeting could be a mail server's", function(dribble)
    local given = play.options({ "S: 220 (vsFTPd 3.0.3)", "C: EHLO client.example.org",
      "S: 530 Please login with USER and PASS." }, { tls = "starttls" }, dribble)
    assert.are.equal("rejected at ehlo: 530 Please login with USER and PASS." .. asks "an FTP server",
      tostring(select(2, smtp.connect(given))))
    given = play.options({ "S: 220 sftp.example.org ESMTP", "C: EHLO client.example.org", "S: 530 no" }, { tls = "starttls" }, dribble)
    assert.is_nil(select(2, smtp.connect(given)).hint:find("FTP", 1, true))
  end)

  it("that wakes only when it is spoken to is known by what it says to TLS", function()
    for answer, words in pairs { ["HTTP/1.1 400 Bad Request\r\n\r\n"] = { "HTTP/1.1 400 Bad Request", "a web server (a captive portal's?)" },
      ["-ERR unknown command"] = { "-ERR unknown command" } } do
      local given, transport = play.options { "hang", "hang" }
      local connect, count = transport.connect, 0
      transport.secure = nil
      function transport.connect()
        count = count + 1
        if count == 1 then return connect() end
        return { write = function() return true end, read = function() return answer end, close = function() end }
      end
      given.port = 8080
      assert.are.equal(('protocol at greeting: the server\'s reply is not SMTP: "%s"'):format(words[1]) .. asks(words[2]),
        tostring(select(2, smtp.connect(given))))
    end
  end)

  it("that says nothing, or hangs up, is asked about too", function()
    local words = "timeout at greeting: the server did not answer in time; trying later may work"
    assert.are.equal(words .. asks(), tostring(select(2, smtp.connect(play.options { "hang", "hang" }))))
    assert.are.equal("closed at greeting: the peer closed the connection; trying later may work" .. asks(),
      tostring(select(2, smtp.connect(play.options { "close" }))))
  end)

  play.both(it, "is none where a mail server greets in pieces, behind empty lines, or in several lines", function(dribble)
    for _, greeting in ipairs { { "S! 2", "S! 20 hi\r\n" }, { "S! \r\n\r\n220 hi\r\n" }, { "S! 220\r\n" }, { "S! 220-a\r\n220 b\r\n" } } do
      assert(smtp.connect(play.options(play.script(greeting, play.ehlo()), nil, dribble)))
    end
  end)

  it("that answers with a TLS alert speaks TLS from the first byte", function()
    for _, more in ipairs { "hang", "close" } do
      assert.are.equal("tls at greeting: the server answered with a TLS alert; hint: this port speaks TLS from the first byte: "
        .. 'use tls = "implicit"', tostring(select(2, smtp.connect(play.options { "S! \21\3\1\0\2\2\70", more }))))
    end
  end)
end)

describe("What became of the message is told where one was to be sent, and nowhere else:", function()
  local letter = { from = "ada@example.org", to = "bob@example.test", text = "x" }
  local no_file = { from = "ada@example.org", to = "bob@example.test", attachments = { { path = "spec/sentences_spec.lua" } } }
  local NONE = { "port must be from 1 to 65535", "input at compose: port must be from 1 to 65535" }

  local function says(words, got, err)
    assert.is_falsy(got)
    assert.are.equal(words, tostring(err))
  end

  it("not by what makes a message, a session, a pool or a server", function()
    says('input at compose: from: no "@" in this address at position 1: "x"', smtp.message { from = "x" })
    for _, name in ipairs { "session", "connect", "pool", "verify" } do says(NONE[2], smtp[name] { host = "x", port = 0 }) end
    says("input at compose: size must be a whole number, 1 or more", smtp.pool { host = "x", size = 0 })
    says("input at compose: port must be from 0 to 65535", smtp.server { port = -1 })
    says('tls: cannot read cert "/none.pem": No such file or directory', smtp.server { tls = "starttls", cert = "/none.pem" })
    local server = assert(smtp.server())
    says(("connect: cannot listen on 127.0.0.1 port %d: Address already in use"):format(server.port),
      smtp.server { port = server.port })
    server:close()
    local closed = loopback.listen()
    closed.close()
    local words = ("connect: 127.0.0.1 port %d: Connection refused; trying later may work; hint: nothing listens there: check "
      .. "host and port (587 for submission, 465 for implicit TLS)"):format(closed.port)
    local given = { host = "127.0.0.1", port = closed.port }
    says(words, smtp.connect(given))
    local report, err = smtp.verify(given)
    says(words, report, err)
    assert.are.equal(words, err.report.steps[#err.report.steps].text)
  end)

  it("nor by what writes a message down or reads it", function()
    local mail = assert(smtp.message(letter))
    says("input at compose: save: /none/x.eml: No such file or directory", mail:save "/none/x.eml")
    says("input at compose: save: not the name of a file", mail:save "")
    says("input at compose: preview: /none/x.html: No such file or directory", mail:preview "/none/x.html")
    local function raw()
      local words = "lost" -- Lua 5.2 and 5.3 have one function for all calls where nothing in it differs
      return assert(smtp.message { from = "ada@example.org", to = "bob@example.test", raw = function() error(words, 0) end })
    end
    says("source at body: raw: raised an error: lost", raw():tostring())
    says("source at body: raw: raised an error: lost", raw():source()())
    says("source at compose: raw: raised an error: lost", raw():save(os.tmpname()))
    says("source at compose: raw: raised an error: lost", raw():preview(os.tmpname()))
  end)

  it("nor by a step that sends none", function()
    local function closed()
      local s = play.open(play.hello())
      s:close()
      return s
    end
    for _, name in ipairs { "ehlo", "starttls", "auth", "reset", "noop", "quit" } do
      says(("closed at %s: the session is closed"):format(name), closed()[name](closed()))
    end
    says("closed at verify: the session is closed", closed():verify "bob")
    says("closed at command: the session is closed", closed():command "HELP")
    local s = play.open(play.script(play.hello(), "C: RSET", "S: 451 4.3.0 later"))
    says("rejected at reset: 451 4.3.0 later; trying later may work", s:reset())
    local pool = assert(smtp.pool { host = "x" })
    pool:close()
    says("closed at connect: the pool is closed", pool:send_many(print, print))
  end)

  it("but by all that sends one, from the composing on", function()
    local function also(words, got, err) return says(words .. "; the message was not sent", got, err) end
    local given = { host = "x", port = 0 }
    for name, value in pairs(letter) do given[name] = value end
    also(NONE[2], smtp.send(given))
    also('input at compose: from: no "@" in this address at position 1: "x"', play.open(play.hello()):send { from = "x" })
    local s = play.open(play.hello())
    s:close()
    also("closed at mail: the session is closed", s:send(letter))
    also("closed at mail: the session is closed", s:mail "ada@example.org")
    also("closed at rcpt: the session is closed", s:rcpt "bob@example.test")
    also("closed at data: the session is closed", s:data "x")
    also("closed at data: the session is closed", s:bdat "x")
    also("closed at mail: the session is closed", s:send_many(function() return no_file end)())
    local pool = assert(smtp.pool { host = "x" })
    pool:close()
    also("closed at connect: the pool is closed", pool:send(letter))
    local options = play.options(play.script("S: 554 5.3.2 no mail here"))
    for name, value in pairs(letter) do options[name] = value end
    also("rejected at greeting: 554 5.3.2 no mail here", smtp.send(options))
    pool = assert(smtp.pool(play.options(play.script("S: 554 5.3.2 no mail here"))))
    also("rejected at greeting: 554 5.3.2 no mail here", pool:send(letter))
  end)
end)
