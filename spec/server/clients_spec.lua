-- Other people's clients deliver to the receiving server; what arrives is compared byte for byte with what they sent.
local child = require "spec.support.child"
local smtp = require "smtp"

local server, files

-- A file that is gone when the spec ends.
local function keep(bytes)
  local path = child.keep(bytes)
  files[#files + 1] = path
  return path
end

local function need(command)
  local probe = assert(io.popen("command -v " .. command))
  local path = probe:read("*l")
  probe:close()
  if not path then pending(command .. " is not installed") end
end

local function run(command, ...)
  return child.beside(command:format(...), server)
end

local function serve(options)
  server = assert(smtp.server(options))
  return server.certificate and keep(server.certificate)
end

local function login(username, password)
  return username == "ada@example.org" and password == "pass word"
end

-- The one message that came, and nothing that went wrong.
local function arrived()
  assert.is_nil(server.failure)
  assert.are.equal(1, #server.inbox)
  return server.inbox[1]
end

-- Lines that begin with dots, 8-bit text, a long line.
local MESSAGE = table.concat({
  "From: Ada <ada@example.org>", "To: Grace <grace@example.org>", "Subject: Gr\195\188\195\159e", "",
  ".", "..", ". dot", "", ("0123456789"):rep(90), "From here", "\195\169t\195\169 \255 %!", "the end", "",
}, "\r\n")

before_each(function()
  files = {}
end)

after_each(function()
  if server then server:close() end
  server = nil
  for _, path in ipairs(files) do os.remove(path) end
end)

describe("the server #real, with swaks", function()
  -- swaks sends the data as they are
  local stuffed = MESSAGE:gsub("\n%.", "\n..")

  local function swaks(arguments, ...)
    need "swaks"
    return run("swaks --server localhost:%d --ehlo client.example.org --from ada@example.org --to grace@example.org "
      .. "--no-data-fixup --data @%s " .. arguments, server.port, keep(stuffed .. ".\r\n"), ...)
  end

  local function delivers(auth, tls, arguments, ...)
    local code, output = swaks(arguments, ...)
    assert.are.equal(0, code, output)
    local letter = arrived()
    assert.are.equal(MESSAGE, letter.data)
    assert.are.equal("ada@example.org", letter.from)
    assert.are.same({ "grace@example.org" }, letter.to)
    assert.are.equal(auth, letter.auth)
    assert.are.equal(tls, letter.tls ~= nil)
  end

  it("in clear", function()
    serve {}
    delivers(nil, false, "")
  end)

  it("in one pipelined flight", function()
    serve {}
    delivers(nil, false, "--pipeline")
  end)

  for _, mechanism in ipairs { "PLAIN", "LOGIN" } do
    it("over STARTTLS with AUTH " .. mechanism, function()
        local certificate = serve { tls = "starttls", auth = login }
      delivers("ada@example.org", true, "--tls --tls-verify --tls-ca-path %s --auth %s --auth-user ada@example.org "
        .. "--auth-password 'pass word'", certificate, mechanism)
    end)
  end

  it("over implicit TLS", function()
    local certificate = serve { tls = "implicit" }
    delivers(nil, true, "--tls-on-connect --tls-verify --tls-ca-path %s", certificate)
  end)

  it("which does not trust the certificate", function()
    serve { tls = "starttls" }
    local other = assert(smtp.server { tls = "starttls" })
    local code, output = swaks("--tls --tls-verify --tls-ca-path %s", keep(other.certificate))
    other:close()
    assert.truthy(code and code ~= 0, output)
    assert.are.equal(0, #server.inbox)
    assert.is_nil(server.failure)
  end)

  it("and a wrong password", function()
    local certificate = serve { tls = "starttls", auth = login }
    local code, output = swaks("--tls --tls-ca-path %s --auth PLAIN --auth-user ada@example.org --auth-password no",
      certificate)
    assert.are.equal(28, code, output)
    assert.truthy(output:find("535 5.7.8", 1, true))
    assert.are.equal(0, #server.inbox)
  end)

  it("by LMTP", function()
    serve { lmtp = true }
    local code, output = swaks("--protocol LMTP --to grace@example.org,jo@example.test")
    assert.are.equal(0, code, output)
    assert.are.same({ "grace@example.org", "jo@example.test" }, arrived().to)
    assert.are.equal(MESSAGE, arrived().data)
  end)
end)

describe("the server #real, with curl", function()
  local function delivers(certificate, url, arguments)
    need "curl"
    local code, output = run("curl -sS --max-time 15 %s --mail-from ada@example.org --mail-rcpt grace@example.org "
      .. "--mail-rcpt jo@example.test -T %s %s", certificate and "--cacert " .. certificate or "", keep(MESSAGE),
      arguments .. " " .. url:format(server.port))
    assert.are.equal(0, code, output)
    local letter = arrived()
    assert.are.equal(MESSAGE, letter.data)
    assert.are.same({ "grace@example.org", "jo@example.test" }, letter.to)
    assert.are.equal(tostring(#MESSAGE), letter.params.SIZE)
    assert.are.equal(certificate ~= nil, letter.tls ~= nil)
    assert.are.equal(arguments:find("--user", 1, true) and "ada@example.org", letter.auth)
  end

  it("in clear", function()
    serve {}
    delivers(nil, "smtp://localhost:%d/client.example.org", "")
  end)

  it("over STARTTLS, logged in", function()
    local certificate = serve { tls = "starttls", auth = login }
    delivers(certificate, "smtp://localhost:%d", "--ssl-reqd --user 'ada@example.org:pass word'")
  end)

  it("over implicit TLS, by the address, logged in by LOGIN", function()
    local certificate = serve { tls = "implicit", auth = login }
    delivers(certificate, "smtps://127.0.0.1:%d", "--user 'ada@example.org:pass word' --login-options AUTH=LOGIN")
  end)
end)

local PYTHON = [[
import smtplib, ssl, sys

what, port, ca, message = sys.argv[1], int(sys.argv[2]), sys.argv[3], open(sys.argv[4], "rb").read()
context = ssl.create_default_context(cafile=ca) if ca != "-" else None
sender, to = "ada@example.org", ["grace@example.org", "jo@example.test"]

def expect(code, wanted):
    if code != wanted:
        sys.exit("%r where %r was wanted" % (code, wanted))

if what == "plain":
    with smtplib.SMTP("localhost", port, "client.example.org", timeout=60) as client:
        expect(client.sendmail(sender, to, message, ["BODY=8BITMIME"]), {})
elif what == "starttls":
    with smtplib.SMTP("localhost", port, timeout=60) as client:
        client.starttls(context=context)
        client.login("ada@example.org", "pass word")
        expect(client.sendmail(sender, to, message, ["BODY=8BITMIME"]), {})
elif what == "implicit":
    with smtplib.SMTP_SSL("localhost", port, timeout=60, context=context) as client:
        expect(client.sendmail(sender, to, message), {})
elif what == "utf8":
    with smtplib.SMTP("localhost", port, timeout=60) as client:
        sender = "ada@b\u00fccher.example.org"
        expect(client.sendmail(sender, to[0], message, ["SMTPUTF8", "BODY=8BITMIME"]), {})
elif what == "refused":
    with smtplib.SMTP("localhost", port, timeout=60) as client:
        client.starttls(context=context)
        # each time PLAIN is tried, then LOGIN: the third failure ends the connection
        for password, code in ("one", 535), ("two", 421):
            try:
                client.login("ada@example.org", password)
                sys.exit("logged in")
            except smtplib.SMTPAuthenticationError as error:
                expect(error.smtp_code, code)
elif what == "bdat":
    with smtplib.SMTP("localhost", port, timeout=60) as client:
        client.ehlo()
        expect("chunking" in client.esmtp_features, True)
        half = len(message) // 2
        lines = [b"MAIL FROM:<%s> SIZE=%d" % (sender.encode(), len(message))]
        lines += [b"RCPT TO:<%s>" % one.encode() for one in to]
        flight = b"".join(line + b"\r\n" for line in lines)
        flight += b"BDAT %d\r\n" % half + message[:half]
        flight += b"BDAT %d LAST\r\n" % (len(message) - half) + message[half:]
        client.send(flight + b"NOOP\r\n")
        expect([client.getreply()[0] for _ in range(6)], [250] * 6)
]]

describe("the server #real, with Python's smtplib", function()
  local python = "/usr/bin/python3"

  local function send(what, certificate, message)
    need(python)
    return run("%s %s %s %d %s %s", python, keep(PYTHON), what, server.port, certificate or "-", keep(message))
  end

  local function delivers(what, certificate, message)
    local code, output = send(what, certificate, message)
    assert.are.equal(0, code, output)
    local letter = arrived()
    assert.is_true(message == letter.data, "the message has changed on its way")
    return letter
  end

  it("in clear, 8-bit text and lines of dots", function()
    serve {}
    local letter = delivers("plain", nil, MESSAGE)
    assert.are.same({ "grace@example.org", "jo@example.test" }, letter.to)
    assert.are.equal("8BITMIME", letter.params.BODY)
  end)

  it("over STARTTLS, verified and logged in", function()
    local letter = delivers("starttls", serve { tls = "starttls", auth = login }, MESSAGE)
    assert.are.equal("ada@example.org", letter.auth)
    assert.are.equal("TLSv1.3", letter.tls.version)
  end)

  it("over implicit TLS, 5 MB", function()
    local line = ("0123456789abcdef"):rep(4) .. "\r\n.\255\r\n"
    local message = "Subject: large\r\n\r\n" .. line:rep(math.ceil(5 * 1024 * 1024 / #line))
    delivers("implicit", serve { tls = "implicit" }, message)
  end)

  it("with an address that needs SMTPUTF8", function()
    serve {}
    local letter = delivers("utf8", nil, MESSAGE)
    assert.are.equal("ada@b\195\188cher.example.org", letter.from)
  end)

  it("and wrong passwords", function()
    local code, output = send("refused", serve { tls = "starttls", auth = login }, MESSAGE)
    assert.are.equal(0, code, output)
    assert.are.equal(0, #server.inbox)
  end)

  it("saying BDAT by hand, all in one flight", function()
    serve {}
    delivers("bdat", nil, MESSAGE)
  end)
end)

describe("the server #real, with a web page in Chromium", function()
  local PAGE = [[<form method=post enctype="text/plain" target=frame action="URL"><textarea name=a></textarea></form>
<iframe name=frame></iframe><script>
const commands = ["", "EHLO x", "MAIL FROM:<mallory@example.org>", "RCPT TO:<ada@example.org>", "DATA", "spam", ".", ""].join("\r\n")
document.forms[0].a.value = commands
document.forms[0].submit()
const tries = ["POST", "GET", "HEAD", "PUT", "EHLO"].map(method => fetch("URL", { method, body: method == "POST" ? commands : null,
  mode: method == "PUT" || method == "EHLO" ? "cors" : "no-cors" }))
Promise.allSettled(tries).then(all => document.title = all.length + " tried")
</script>]]

  it("that posts commands to it: sent away at its first line", function()
    need "chromium"
    serve {}
    local dialogue, lines = require "smtp.server.connection", {}
    local new = dialogue.new
    finally(function() dialogue.new = new end)
    dialogue.new = function(...)
      local connection = new(...)
      local obey = connection.obey
      function connection:obey(line)
        lines[#lines + 1] = line
        return obey(self, line)
      end
      return connection
    end
    local path = keep((PAGE:gsub("URL", ("http://127.0.0.1:%d/"):format(server.port))))
    os.rename(path, path .. ".html")
    files[#files + 1] = path .. ".html"
    local code, output = run("chromium --headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
      .. "--disable-background-networking --disable-component-update --disable-sync --user-data-dir=%s.profile "
      .. "--virtual-time-budget=10000 --dump-dom file://%s.html 2>&1", path, path)
    os.execute("rm -rf " .. path .. ".profile")
    assert.are.equal(0, code, output)
    assert.truthy(output:find("tried</title>", 1, true), output)
    assert.are.same({}, server.inbox)
    assert.truthy(#lines > 0)
    for _, line in ipairs(lines) do assert.matches("^%u+ / HTTP/1%.1$", line) end
  end)
end)
