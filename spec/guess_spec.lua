-- What a name that is none here is answered with: another library's means something, one of another table belongs there,
-- a slip of the pen is near; and where nothing is near nothing is guessed.
local play = require "spec.support.play"
local smtp = require "smtp"

local MESSAGE = "the message (smtp.send, smtp.message, session:send, pool:send)"
local SERVER = "the server that mail is sent to (smtp.send, smtp.connect, smtp.session, smtp.pool)"
local POOL = "the pool (smtp.pool)"
local RECEIVER = "the receiving side (smtp.server)"
local ATTACHMENT = "an attachment, one of the list attachments"

local CALLS = {
  ["smtp.send"] = smtp.send, ["smtp.connect"] = smtp.connect, ["smtp.session"] = smtp.session, ["smtp.verify"] = smtp.verify,
  ["smtp.pool"] = smtp.pool, ["smtp.server"] = smtp.server, ["smtp.message"] = smtp.message,
  ["session:send"] = function(given) return play.session({}):send(given) end,
  ["pool:send"] = function(given) return assert(smtp.pool { host = "x" }):send(given) end,
}

-- The whole sentence, without the place it is raised at.
local function says(words, label, given)
  local fine, text = pcall(CALLS[label], given)
  assert.is_false(fine)
  assert.are.equal(label .. ": " .. words, (text:gsub("^%S+:%d+: ", "")))
end

local function means(name, words, label)
  says(('unknown option "%s"; did you mean %s?'):format(name, words), label, { [name] = "x" })
end

describe("Another library's name", function()
  for library, all in pairs {
    LuaSocket = { source = '"raw"', rcpt = '"to"', server = '"host"', user = '"username"', domain = '"helo"',
      create = '"transport"' },
    ["lua-resty-mail"] = { starttls = 'tls = "starttls"', ssl = 'tls = "implicit"', auth_type = '"auth"', ssl_verify = '"verify"',
      ssl_host = '"server_name"', timeout_connect = '"timeouts.connect"', timeout_read = '"timeouts.command"',
      timeout_send = '"timeouts.block"' },
    Nodemailer = { secure = 'tls = "implicit"', ignoreTLS = 'tls = "none"', requireTLS = 'tls = "starttls" or "require_tls"',
      opportunisticTLS = 'tls = "opportunistic"', replyTo = '"reply_to"', inReplyTo = '"in_reply_to"', messageId = '"message_id"',
      connectionTimeout = '"timeouts.connect"', greetingTimeout = '"timeouts.greeting"', socketTimeout = '"timeouts.command"',
      localAddress = '"bind"', name = '"helo"', authMethod = '"auth"', logger = '"trace"', pool = "smtp.pool { … }",
      maxConnections = '"size", which belongs to ' .. POOL, maxMessages = '"max_messages", which belongs to ' .. POOL,
      rateLimit = '"rate", which belongs to ' .. POOL, icalEvent = '"calendar"', disableFileAccess = "files = false",
      cid = '"content_id", which belongs to ' .. ATTACHMENT },
    PHPMailer = { Host = '"host"', SMTPAuth = '"auth"', SMTPSecure = '"tls"', SMTPAutoTLS = 'tls = "opportunistic"',
      Port = '"port"', Username = '"username"', Password = '"password"', From = '"from"', FromName = '"from"',
      Subject = '"subject"', Body = '"text" or "html"', AltBody = '"text"', isHTML = '"html"', addAddress = '"to"',
      addAttachment = '"attachments"', SMTPDebug = '"trace"', SMTPKeepAlive = "smtp.pool { … }" },
    ["smtplib and its frameworks"] = { from_addr = '"from"', to_addrs = '"to"', msg = '"text" or "html"', local_hostname = '"helo"',
      source_address = '"bind"', keyfile = '"client_key"', certfile = '"client_cert"', recipients = '"to"',
      from_email = '"from"', setFrom = '"from"', recipient_list = '"to"', html_message = '"html"', use_tls = 'tls = "starttls"',
      use_ssl = 'tls = "implicit"', validate_certs = '"verify"', MAIL_SERVER = '"host"', EMAIL_HOST = '"host"',
      EMAIL_HOST_USER = '"username"', EMAIL_HOST_PASSWORD = '"password"', EMAIL_USE_TLS = 'tls = "starttls"' },
    Gomail = { SSL = 'tls = "implicit"', TLSConfig = '"verify"', LocalName = '"helo"', RetryFailure = '"attempts", which belongs to '
      .. POOL },
    ["Action Mailer"] = { address = '"host"', user_name = '"username"', authentication = '"auth"',
      enable_starttls = 'tls = "starttls"', enable_starttls_auto = 'tls = "opportunistic"', openssl_verify_mode = '"verify"',
      open_timeout = '"timeouts.connect"', read_timeout = '"timeouts.command"', return_path = '"envelope.from"',
      body = '"text" or "html"' },
    ["many others"] = { interface = '"bind"', timeout_ms = '"timeout"', deadline = '"timeout"', min_tls = '"tls_min"',
      http_proxy = '"proxy"', idle_timeout = '"max_idle", which belongs to ' .. POOL, importance = '"priority"', embed = '"attachments"',
      list_unsubscribe = '"list"', ehlo_name = '"helo"', cc_list = '"cc"', msgHTML = '"html"', headerLines = '"headers"',
      sender_address = '"from"', command_timeout = '"timeouts.command"',
      pass = '"password"', login = '"username"', hostname = '"host"', encryption = '"tls"', cacert = '"ca_file"',
      content = '"text" or "html"', message = '"text" or "html"', recipient = '"to"', filename = '"attachments"' },
  } do
    it("of " .. library .. "'s is told what it is here", function()
      for name, words in pairs(all) do means(name, words, "smtp.send") end
    end)
  end

  it("is told where that belongs, if it is elsewhere", function()
    means("server", '"host", which belongs to ' .. SERVER, "session:send")
    means("user", '"username", which belongs to ' .. SERVER, "smtp.message")
    means("secure", 'tls = "implicit", which belongs to ' .. SERVER, "pool:send")
    means("Host", '"host", which belongs to ' .. SERVER, "pool:send")
    means("body", '"text" or "html", which belongs to ' .. MESSAGE, "smtp.pool")
    means("Subject", '"subject", which belongs to ' .. MESSAGE, "smtp.connect")
    means("recipients", '"to", which belongs to ' .. MESSAGE, "smtp.verify")
  end)

  it("means what there is in that table", function()
    means("maxConnections", '"size"', "smtp.pool")
    means("maxConnections", '"max_connections"', "smtp.server")
    means("certificate", '"cert"', "smtp.server")
    means("certificate", '"client_cert"', "smtp.connect")
    means("requireTLS", '"require_tls"', "smtp.message")
    means("path", '"attachments"', "smtp.message")
    for name, words in pairs { name = "filename", cid = "content_id", content = "data", file = "path", contentType = "content_type" } do
      says(('attachments[1]: unknown option "%s"; did you mean "%s"?'):format(name, words), "smtp.message",
        { attachments = { { [name] = "x" } } })
    end
    for name, words in pairs { domainName = "domain", privateKey = "key", keySelector = "selector", keyfile = "key_file" } do
      says(('dkim: unknown option "%s"; did you mean "%s"?'):format(name, words), "smtp.message", { dkim = { [name] = "x" } })
    end
    for name, words in pairs { email = "address", Name = "name" } do
      says(('cc[1]: unknown option "%s"; did you mean "%s"?'):format(name, words), "smtp.message", { cc = { { [name] = "x" } } })
    end
    says('envelope: unknown option "sender"; did you mean "from"?', "smtp.message", { envelope = { sender = "x" } })
    says('timeouts: unknown option "connectionTimeout"; did you mean "connect"?', "smtp.pool", { timeouts = { connectionTimeout = 1 } })
  end)
end)

describe("An option of another table", function()
  for place, case in pairs {
    [MESSAGE] = { { "from", "to", "subject", "text", "html", "attachments", "headers" },
      { "smtp.pool", "smtp.connect", "smtp.session", "smtp.verify", "smtp.server" } },
    [SERVER] = { { "host", "port", "username", "password", "timeout", "tls", "ca_file", "helo" },
      { "session:send", "pool:send", "smtp.message" } },
    [POOL] = { { "size", "rate", "max_idle", "attempts" }, { "smtp.send", "smtp.connect", "session:send", "pool:send" } },
    [RECEIVER] = { { "on_message", "extensions" }, { "smtp.send", "smtp.pool", "smtp.message" } },
  } do
    it("belongs to " .. place, function()
      for _, label in ipairs(case[2]) do
        for _, name in ipairs(case[1]) do
          says(('unknown option "%s": it belongs to %s'):format(name, place), label, { [name] = "x" })
        end
      end
    end)
  end

  it("of the receiving side is another library's first, where that has it too", function()
    says('unknown option "max_connections"; did you mean "size", which belongs to ' .. POOL .. "?", "smtp.send", { max_connections = 1 })
    says('unknown option "key"; did you mean "client_key", which belongs to ' .. SERVER .. "?", "pool:send", { key = "x" })
    says('unknown option "key_file": it belongs to the table dkim', "smtp.message", { key_file = "x" })
    says('unknown option "content_id": it belongs to ' .. ATTACHMENT, "smtp.send", { content_id = "x" })
  end)

  it("belongs there however deep it stands", function()
    says('unknown option "notify": it belongs to the table dsn', "smtp.message", { notify = "never" })
    says('unknown option "greeting": it belongs to the table timeouts', "smtp.connect", { greeting = 5 })
    says('unknown option "unsubscribe": it belongs to the table list', "session:send", { unsubscribe = "x" })
    says('attachments[1]: unknown option "subject": it belongs to ' .. MESSAGE, "smtp.message", { attachments = { { subject = "x" } } })
    says('timeouts: unknown option "timeout": it belongs to ' .. SERVER, "smtp.connect", { timeouts = { timeout = 5 } })
  end)

  it("belongs there, too, where it comes from an iterator", function()
    local session = play.open(play.hello())
    local given = { { host = "x", from = "ada@example.org" } }
    local receipt, err = session:send_many(function() return table.remove(given) end)()
    assert.is_false(receipt)
    assert.are.equal('row 1: unknown option "host": it belongs to ' .. SERVER, err.reason)
  end)
end)

describe("What another library switches off", function()
  it("is not told how it is switched on", function()
    for _, name in ipairs { "secure", "ssl", "starttls", "use_tls", "ignoreTLS", "SMTPAutoTLS", "enable_starttls_auto" } do
      says(('unknown option "%s"; did you mean "tls"?'):format(name), "smtp.send", { [name] = false })
      says(('unknown option "%s"; did you mean "tls", which belongs to %s?'):format(name, SERVER), "pool:send", { [name] = false })
    end
    says('unknown option "requireTLS"; did you mean "tls" or "require_tls"?', "smtp.send", { requireTLS = false })
    says('unknown option "SMTPAuth"; did you mean "auth"?', "smtp.send", { SMTPAuth = false })
  end)
end)

describe("An address as a name", function()
  it("is told how a mailbox is written", function()
    local words = 'unknown option "grace@example.org": an address is a value: { name = "Grace", address = "grace@example.org" }'
    local given = { ["grace@example.org"] = "Grace" }
    for _, name in ipairs { "from", "to", "cc", "bcc", "reply_to" } do
      says(name .. ": " .. words, "smtp.message", { [name] = given })
    end
    says("to[1]: " .. words, "pool:send", { to = { given } })
    says("envelope: to: " .. words, "session:send", { envelope = { to = given } })
  end)
end)

describe("A slip of the pen", function()
  it("is near what was meant", function()
    for name, words in pairs { hosst = "host", form = "from", prot = "port", tsl = "tls", Port = "port", passwort = "password",
      subjcet = "subject", attachements = "attachments", reply = "reply_to", attach = "attachments", cert = "client_cert" } do
      means(name, ('"%s"'):format(words), "smtp.send")
    end
  end)

  it("is not guessed at where nothing is near", function()
    for _, name in ipairs { "xyz", "x", "", "charset", "step", "mesgt", "wurst", "textEncoding",
      "portNumber", "42", "\0", "__index", ("x"):rep(39) } do
      says(("unknown option %q"):format(name), "smtp.send", { [name] = "x" })
    end
    says('unknown option "1"', "smtp.send", { "smtp://mail.example.org" })
    says('unknown option "2"', "smtp.connect", { [2] = "x" })
    says('unknown option "true"', "smtp.pool", { [true] = "x" })
    says(("unknown option %q"):format(("h"):rep(40)), "smtp.send", { [("h"):rep(1e5)] = "x" })
  end)
end)
