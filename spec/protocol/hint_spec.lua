local hint = require "smtp.protocol.hint"

describe("hint.find", function()
  for _, case in ipairs {
    { { kind = "insecure", stage = "starttls" }, "implicit" },
    { { kind = "insecure", stage = "starttls", code = 454 } },
    { { kind = "insecure", stage = "auth" }, "allow_insecure_auth" },
    { { kind = "auth", stage = "auth", code = 535, text = "Application-specific password required" }, "app password" },
    { { kind = "auth", stage = "auth", code = 534, text = "no" }, "too weak" },
    { { kind = "auth", stage = "auth", code = 535, enhanced = "5.7.139", text = "no" }, "OAuth" },
    { { kind = "auth", stage = "auth", code = 535, text = "Username and Password not accepted." }, "Google" },
    { { kind = "auth", stage = "auth", code = 535, text = "no" }, "check username" },
    { { kind = "auth", stage = "auth", reason = "no mechanism in common: …" }, "leave out" },
    { { kind = "tls", stage = "tls", reason = "the server did not answer in TLS" }, "SMTP port" },
    { { kind = "rejected", stage = "mail", code = 530, text = "Must issue a STARTTLS command first" }, "starttls" },
    { { kind = "rejected", stage = "mail", code = 530, text = "Authentication required" }, "login" },
    { { kind = "rejected", stage = "rcpt", code = 554, text = "Relay access denied" }, "login" },
    { { kind = "rejected", stage = "rcpt", code = 550, text = "No such user" } },
    { { kind = "connect", stage = "connect", reason = "127.0.0.1 port 1: Connection refused" }, "587" },
    { { kind = "timeout", stage = "connect", port = 25 }, "block port 25" },
    { { kind = "timeout", stage = "connect", port = 587 }, "firewall" },
    { { kind = "timeout", stage = "rcpt", port = 25 } },
    { { kind = "resolve", stage = "resolve", temporary = false }, "spelling" },
    { { kind = "resolve", stage = "resolve", temporary = true } },
    { { kind = "protocol", stage = "greeting" }, "SMTP port" },
    { { kind = "protocol", stage = "greeting", reason = 'the server\'s reply is not SMTP: "* OK ready"' }, "IMAP" },
    { { kind = "protocol", stage = "greeting", reason = 'the server\'s reply is not SMTP: "+OK ready"' }, "POP3" },
    { { kind = "protocol", stage = "greeting", reason = 'the server\'s reply is not SMTP: "HTTP/1.1 400 Bad"' }, "captive" },
    { { kind = "protocol", stage = "mail", reason = 'the server\'s reply is not SMTP: "* OK ready"' } },
    { { kind = "protocol", stage = "mail" } },
    { { kind = "input", stage = "compose" } },
  } do
    local err, words = case[1], case[2]
    it(("%s at %s%s: %s"):format(err.kind, err.stage, err.code and " " .. err.code or "", words or "nothing"), function()
      local found = hint.find(err)
      if words then
        assert.is_truthy(found and found:find(words, 1, true), found)
        assert.is_nil(found:find("[%c]"))
      else
        assert.is_nil(found)
      end
    end)
  end
end)

-- What servers say, in their own words, and what is to be heard of it. `known`: a login had succeeded.
describe("The hint for what a server says:", function()
  local AUTH, MAIL, RCPT, FINAL, EHLO = "auth", "mail", "rcpt", "final", "ehlo"
  for _, case in ipairs {
    -- Google
    { AUTH, "534 5.7.9 Application-specific password required. For more information, go to https://support.google.com/mail/", "app password" },
    { AUTH, "534 5.7.14 Please log in via your web browser and then try again.", "browser" },
    { AUTH, "534 5.7.9 Authentication mechanism is too weak", "too weak" },
    { AUTH, "535 5.7.8 Username and Password not accepted.", "app password" },
    { AUTH, "454 4.7.0 Too many login attempts, please try again later.", "some hours" },
    { FINAL, "421 4.7.0 Try again later, closing connection.", "fewer", true },
    { FINAL, "421 4.7.28 Our system has detected an unusual rate of unsolicited mail", "fewer" },
    { FINAL, "421 4.7.26 This mail has been rate limited because the sender is unauthenticated.", "DKIM" },
    { FINAL, "550 5.7.26 This mail has been blocked because the sender is unauthenticated.", "DKIM" },
    { FINAL, "550 5.7.25 The IP address sending this message does not have a PTR record setup", "PTR" },
    { FINAL, "550 5.4.5 Daily user sending limit exceeded.", "tomorrow", true },
    { FINAL, "552 5.7.0 This message was blocked because its content presents a potential security issue.", "attachments" },
    -- Microsoft
    { AUTH, "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant.", "administrator" },
    { AUTH, "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Mailbox.", "administrator" },
    { AUTH, "535 5.7.139 Authentication unsuccessful, basic authentication is disabled.", "OAuth 2" },
    { AUTH, "535 5.7.139 Authentication unsuccessful, the user credentials were incorrect.", "check username" },
    { AUTH, "535 5.7.139 Authentication unsuccessful, user is locked by your organization's security defaults policy.", "administrator" },
    { AUTH, "504 5.7.4 Unrecognized authentication type", "another" },
    { MAIL, "530 5.7.57 Client not authenticated to send mail.", "username and password" },
    { MAIL, "432 4.3.2 Concurrent connections limit exceeded.", "fewer" },
    { FINAL, "432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded", "fewer", true },
    { FINAL, "550 5.7.60 SMTP; Client does not have permissions to send as this sender", "from must belong", true },
    { FINAL, "554 5.2.252 SendAsDenied; ada@example.org not allowed to send as grace@example.org", "from must belong", true },
    { FINAL, "550 5.7.509 Access denied, sending domain example.org does not pass DMARC verification", "DKIM" },
    -- Amazon SES, SendGrid, Postmark, Mailtrap
    { FINAL, "554 Message rejected: Email address is not verified. The following identities failed the check", "verified there", true },
    { AUTH, "535 Authentication Credentials Invalid", "SMTP credentials of their own" },
    { FINAL, "454 Throttling failure: Maximum sending rate exceeded.", "rate", true },
    { FINAL, "454 Throttling failure: Daily message quota exceeded.", "tomorrow", true },
    { FINAL, "550 The from address does not match a verified Sender Identity.", "verified there", true },
    { AUTH, "535 Authentication failed: Bad username / password", "apikey" },
    { MAIL, "550 The 'From' address you supplied is not a Sender Signature on your account.", "verified there", true },
    { FINAL, "550 5.7.0 Requested action not taken: too many emails per second", "rate", true },
    -- Postfix, Exim
    { RCPT, "554 5.7.1 <bob@example.test>: Relay access denied", "give username" },
    { RCPT, "554 5.7.1 <bob@example.test>: Relay access denied", "from must belong", true },
    { MAIL, "553 5.7.1 <ada@example.org>: Sender address rejected: not owned by user grace", "from must belong", true },
    { MAIL, "553 5.7.1 <ada@example.org>: Sender address rejected: not logged in", "give username" },
    { RCPT, "504 5.5.2 <localhost>: Helo command rejected: need fully-qualified hostname", "helo" },
    { RCPT, "550 relay not permitted, authentication required", "give username" },
    { RCPT, "550 relay not permitted", "from must belong", true },
    { RCPT, "450 4.7.1 Client host rejected: cannot find your reverse hostname, [192.0.2.1]", "PTR" },
    { RCPT, "450 4.2.0 <bob@example.test>: Recipient address rejected: Greylisted", "some minutes" },
    { EHLO, "501 Syntactically invalid EHLO argument(s)", "helo" },
    { EHLO, "501 5.5.4 Invalid domain name", "helo" },
    { EHLO, "550 5.7.1 bad name", "helo" },
    { EHLO, "500 what?" },
    { MAIL, "530 5.7.0 Must issue a STARTTLS command first.", "starttls" },
    { MAIL, "530 5.7.0 Must issue a STARTTLS command first.", "starttls", true },
    { MAIL, "530 5.5.1 Authentication Required.", "give username" },
    { MAIL, "530 5.5.1 Authentication Required.", nil, true },
    { RCPT, "550 5.1.1 <bob@example.test>: Recipient address rejected: User unknown", nil, true },
    -- QQ, 163, GMX, iCloud, Yandex, Zoho, Yahoo, Mail.ru
    { AUTH, "535 Login Fail. Please enter your authorization code to login.", "authorization code" },
    { AUTH, "550 User has no permission", "switched on" },
    { MAIL, "553 Mail from must equal authorized user", "from must belong", true },
    { MAIL, "501 mail from address must be same as authorization user", "from must belong", true },
    { FINAL, "554 Transaction failed Unauthorized sender address.", "from must belong", true },
    { MAIL, "550 5.7.0 From address is not one of your addresses.", "from must belong", true },
    { MAIL, "553 5.7.1 Sender address rejected: not owned by auth user.", "from must belong", true },
    { FINAL, "553 Relaying disallowed as ada@example.org", "from must belong", true },
    { AUTH, "535 5.7.8 Error: authentication failed: This user does not have access rights to this service", "switch on" },
    { AUTH, "535 5.7.0 Application password is REQUIRED", "app password" },
  } do
    local stage, reply, words, known = case[1], case[2], case[3], case[4]
    it(reply .. (known and ", after a login" or ""), function()
      local code, enhanced, text = reply:match("^(%d+) (%d%.%d+%.%d+) (.*)$")
      if not code then code, text = reply:match("^(%d+) (.*)$") end
      local found = hint.find({ kind = stage == AUTH and "auth" or "rejected", stage = stage, code = tonumber(code), enhanced = enhanced,
        text = text }, { known = known })
      if words then
        assert.is_truthy(found and found:find(words, 1, true), found)
      else
        assert.is_nil(found)
      end
      if known then assert.is_nil(found and found:find("give username", 1, true)) end
    end)
  end
end)

describe("The hint of an error", function()
  local play = require "spec.support.play"
  local smtp = require "smtp"
  local core = require "smtp.core"

  local function try(lines, given)
    local options = play.options(play.script(lines), { tls = "implicit", username = "ada", password = "pencil-case" })
    for name, value in pairs(given or {}) do options[name] = value end
    options.from, options.to, options.text = "ada@example.org", "bob@example.test", "x"
    local receipt, err = smtp.send(options)
    assert.is_nil(receipt)
    return err
  end

  it("tells nobody to log in who is", function()
    local login = { play.hello("AUTH PLAIN"), "C: AUTH PLAIN " .. core.base64("\0ada\0pencil-case"), "S: 235 2.7.0 in" }
    local err = try({ login, "C: MAIL FROM:<ada@example.org>", "S: 250 ok", "C: RCPT TO:<bob@example.test>",
      "S: 554 5.7.1 Relay access denied" })
    assert.is_truthy(err.hint:find("from must belong", 1, true), err.hint)
    err = try({ play.hello("AUTH PLAIN"), "C: MAIL FROM:<ada@example.org>", "S: 250 ok", "C: RCPT TO:<bob@example.test>",
      "S: 554 5.7.1 Relay access denied" }, { auth = false })
    assert.is_truthy(err.hint:find("give username", 1, true), err.hint)
  end)

  it("looks at the mechanism that was refused, and what is beside it", function()
    local dialogue = { "C: AUTH CRAM-MD5", "S: 334 PDFAeD4=", "C~ ^%w+=*$", "S: 535 5.7.8 no" }
    local err = try({ play.hello("AUTH PLAIN CRAM-MD5"), dialogue }, { verify = false })
    assert.is_truthy(err.hint:find('auth = "PLAIN"', 1, true), err.hint)
    err = try { play.hello("AUTH CRAM-MD5"), dialogue }
    assert.are.equal("check username and password, or token", err.hint)
    for reply, words in pairs { ["504 5.5.4 no"] = "another", ["534 5.7.9 no"] = "too weak", ["535 5.7.9 no"] = "too weak" } do
      dialogue[4] = "S: " .. reply
      err = try({ play.hello("AUTH CRAM-MD5 PLAIN"), dialogue }, { verify = false, auth = "CRAM-MD5" })
      assert.is_truthy(err.hint:find(words, 1, true), err.hint)
      assert.is_nil(err.hint:find("password", 1, true), err.hint)
    end
  end)

  it("knows a TLS alert that comes in clear", function()
    for _, alert in ipairs { "\21\3\3\0\2\2\70", "\21\3\1\0\2\2\10", "\21\3\1\0\2\1\0" } do
      local err = try({ "S! " .. alert, "close" }, { tls = "starttls" })
      assert.is_truthy(err.hint:find('tls = "implicit"', 1, true), err.hint)
    end
  end)
end)
