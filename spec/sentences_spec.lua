-- What a newcomer gets wrong, and the whole sentence that it is answered with.
local memory = require "smtp.transport.memory"
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
