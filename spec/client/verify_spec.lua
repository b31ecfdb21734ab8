local play = require "spec.support.play"
local smtp = require "smtp"
local tls = require "smtp.tls"
local together = require "spec.support.together"

local hello, script = play.hello, play.script
local both = function(name, body) play.both(it, name, body) end

local function verify(lines, given, dribble)
  local options, transport = play.options(lines, given, dribble)
  local report, err = smtp.verify(options)
  return report, err, transport
end

local function names(report)
  local list = {}
  for i, step in ipairs(report.steps) do list[i] = step.name end
  return table.concat(list, " ")
end

local function has(list, words)
  for _, one in ipairs(list) do
    if one:find(words, 1, true) then return true end
  end
  return false
end

local QUIT = { "C: QUIT", "S: 221 bye" }
local LOGIN = { username = "ada", password = "kumquat", tls = "starttls", auth = "PLAIN" }

describe("smtp.verify", function()
  both("tells each step, what is offered, and what is not as it should be", function(dribble)
    local report, err, transport = verify(script(hello("STARTTLS", "AUTH PLAIN", "PIPELINING"), "C: STARTTLS", "S: 220 go",
      play.ehlo("SIZE 1048576", "AUTH PLAIN LOGIN", "8BITMIME"), "C~ ^AUTH PLAIN ", "S: 235 2.7.0 welcome", QUIT), LOGIN, dribble)
    assert.is_nil(err)
    play.finished(transport)
    assert.are.equal("connect greeting ehlo starttls ehlo auth", names(report))
    assert.are.same({ true, true, 1048576 }, { report.ok, report.authenticated, report.size })
    assert.are.same({ "LOGIN", "PLAIN" }, report.mechanisms)
    assert.is_true(has(report.warnings, "AUTH before TLS"))
    assert.is_true(has(report.warnings, "PIPELINING"))
    assert.are.equal(2, #report.warnings)
    local text = tostring(report)
    for _, words in ipairs { "mail.example.org port 587", "starttls     ok", "8BITMIME, SIZE 1048576", "LOGIN, PLAIN", "1.0 MB",
      "TLSv1.3", "ready, logged in" } do
      assert.is_truthy(text:find(words, 1, true), text)
    end
  end)

  both("sends nothing, and says what goes without encryption and login", function(dribble)
    local report, _, transport = verify(script(hello("PIPELINING", "AUTH PLAIN"), QUIT), nil, dribble)
    play.finished(transport)
    assert.is_true(has(report.warnings, "not encrypted"))
    assert.is_true(has(report.warnings, "no login was tried"))
    assert.is_nil(report.tls)
    assert.is_true(has(verify(script(hello("PIPELINING"), QUIT)).warnings, "offers no login"))
  end)

  -- what stands in the way -> where it shows, and what to do about it
  for name, case in pairs {
    ["a refused password"] = { { hello("STARTTLS"), "C: STARTTLS", "S: 220 go", play.ehlo("AUTH PLAIN"), "C~ ^AUTH",
      "S: 535 5.7.8 no", QUIT }, "auth", "check username and password" },
    ["passwords switched off"] = { { hello("STARTTLS"), "C: STARTTLS", "S: 220 go", play.ehlo("AUTH PLAIN"), "C~ ^AUTH",
      "S: 535 5.7.139 Authentication unsuccessful, basic authentication is disabled", QUIT }, "auth", "OAuth 2" },
    ["an app password missing"] = { { hello("STARTTLS"), "C: STARTTLS", "S: 220 go", play.ehlo("AUTH PLAIN"), "C~ ^AUTH",
      "S: 534 5.7.9 Application-specific password required", QUIT }, "auth", "app password" },
    ["no STARTTLS"] = { { hello("AUTH PLAIN"), QUIT }, "starttls", "implicit" },
    ["no such mechanism"] = { { hello("STARTTLS"), "C: STARTTLS", "S: 220 go", play.ehlo("AUTH GSSAPI"), QUIT }, "auth",
      "another kind of login" },
    ["a server that wants nobody"] = { { "S: 554 5.7.1 go away", QUIT }, "greeting" },
    ["SSH"] = { { "S: SSH-2.0-OpenSSH_9" }, "greeting", "SSH server" },
    ["a mailbox server"] = { { "S: * OK IMAP4rev1 ready" }, "greeting", "IMAP server" },
    ["no SMTP"] = { { "S: hello?" }, "greeting", "SMTP port" },
  } do
    both("names " .. name, function(dribble)
      local report, err = verify(script(case[1]), LOGIN, dribble)
      assert.is_nil(report)
      report = err.report
      local last = report.steps[#report.steps]
      assert.are.same({ case[2], false, false }, { last.name, last.ok, report.ok })
      assert.are.equal(err, report.error)
      local text = tostring(report)
      assert.is_truthy(text:find("FAILED", 1, true))
      assert.is_truthy(text:find("not usable as asked", 1, true))
      assert.is_truthy(text:find("\ntry  [^\n]*" .. (case[3] or "")) ~= nil == (case[3] ~= nil), text)
      assert.is_nil(play.dump(report):find("kumquat", 1, true))
      assert.is_nil(text:find("kumquat", 1, true))
    end)
  end

  it("refuses options that cannot work as the other calls do", function()
    local report, err = smtp.verify { tls = "none" }
    assert.is_nil(report)
    assert.are.same({ "input" }, { err.kind, err.report })
    assert.has_error(function() smtp.verify { hots = "x" } end)
  end)

  describe("of a real server", function()
    local server
    after_each(function() server:close() end)

    local function certify(script_of_dates)
      local path = os.tmpname()
      assert(os.execute(("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout %s.key -out %s "
        .. "-subj /CN=x -addext subjectAltName=DNS:localhost %s 2>/dev/null"):format(path, path, script_of_dates)))
      local function read(name)
        local file = assert(io.open(name))
        local pem = file:read "*a"
        file:close()
        os.remove(name)
        return pem
      end
      return read(path), read(path .. ".key")
    end

    local function run(cert, key, more)
      server = assert(smtp.server { tls = "implicit", cert = cert, key = key, auth = function() return true end })
      local options = { host = "localhost", port = server.port, tls = "implicit", ca_file = cert, timeout = 60 }
      for name, value in pairs(more or {}) do options[name] = value end
      return together.run(function() return smtp.verify(options) end, server)
    end

    it("knows the certificate and how long it lasts", function()
      local cert, key = tls.mint { "localhost" }
      local report = assert(run(cert, key, { username = "ada", password = "x" }))
      assert.are.same({ "localhost" }, report.certificate.names)
      assert.is_true(report.certificate.days >= 29 and report.certificate.days <= 30, report.certificate.days)
      assert.are.same({}, report.warnings)
      assert.are.equal("resolve connect tls greeting ehlo auth", names(report))
      assert.is_truthy(tostring(report):find("for localhost", 1, true))
    end)

    it("warns of one that expires soon, and one that is not checked", function()
      local cert, key = certify "-days 5"
      local report = assert(run(cert, key, { username = "ada", password = "x" }))
      assert.is_true(has(report.warnings, "expires in 5 days") or has(report.warnings, "expires in 4 days"))
      server:close()
      report = assert(run(cert, key, { verify = false, username = "ada", password = "x" }))
      assert.is_true(has(report.warnings, "not checked"))
    end)

    it("says what is wrong with one that is not trusted, or foreign", function()
      local cert, key = tls.mint { "other.example.org" }
      local _, err = run(cert, key)
      assert.is_truthy(tostring(err.report):find("other.example.org", 1, true))
      server:close()
      _, err = run(cert, key, { ca_file = (tls.mint { "localhost" }) })
      assert.are.same({ "tls" }, { err.kind })
      assert.is_truthy(tostring(err.report):find("\ntry ", 1, true))
    end)

    it("and a port in the other mode", function()
      server = assert(smtp.server { tls = "starttls" })
      local _, err = together.run(function()
        return smtp.verify { host = "localhost", port = server.port, tls = "implicit", timeout = 60 }
      end, server)
      assert.is_truthy(err.hint:find("starttls", 1, true))
      server:close()
      server = assert(smtp.server { tls = "implicit" })
      _, err = together.run(function()
        return smtp.verify { host = "localhost", port = server.port, timeout = 60 }
      end, server)
      assert.is_truthy(err.hint:find("implicit", 1, true))
    end)
  end)
end)
