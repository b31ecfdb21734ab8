-- Which mechanism a login goes by, what is said then, and what is found out before anything is.
local core = require "smtp.core"
local play = require "spec.support.play"
local smtp = require "smtp"

local script, hello = play.script, play.hello

local function b64(...) return core.base64(table.concat { ... }) end

local PLAIN = "C: AUTH PLAIN " .. b64 "\0ada\0pencil-case"
local CRAM = { "C: AUTH CRAM-MD5", "S: 334 " .. b64 "<1@example.org>", "C~ ^%w+=*$" }
local LOGIN = { "C: AUTH LOGIN", "S: 334 " .. b64 "Username:", "C: " .. b64 "ada", "S: 334 " .. b64 "Password:",
  "C: " .. b64 "pencil-case" }
local YES = "S: 235 2.7.0 in"

-- A login at a server that offers these: the session, or nil and the error; the script was played to its end.
local function log_in(offer, dialogue, given)
  local options, transport = play.options(script(hello("AUTH " .. offer), dialogue),
    { tls = "implicit", username = "ada", password = "pencil-case" })
  for name, value in pairs(given or {}) do options[name] = value end
  local session, err = smtp.connect(options)
  play.finished(transport)
  return session, err
end

describe("AUTH LOGIN", function()
  for name, questions in pairs {
    ["Username:, Password:"] = { b64 "Username:", b64 "Password:" },
    ["User Name, Password"] = { b64 "User Name\0", b64 "Password\0" },
    ["the password first"] = { b64 "Password:", b64 "Username:" },
    ["nothing"] = { "", "" },
    ["in clear"] = { "Username:", "Password:" },
    ["what is no base64"] = { "go on, please!", "=" },
  } do
    play.both(it, "says the name, then the password, to a server that asks: " .. name, function(dribble)
      local options, transport = play.options(script(hello("AUTH LOGIN"), "C: AUTH LOGIN", "S: 334 " .. questions[1], "C: " .. b64 "ada",
        "S: 334 " .. questions[2], "C: " .. b64 "pencil-case", YES), { tls = "implicit", username = "ada", password = "pencil-case" },
        dribble)
      assert(smtp.connect(options))
      play.finished(transport)
    end)
  end

  it("has no more to say than the two", function()
    local _, err = log_in("LOGIN", { LOGIN, "S: 334 " .. b64 "Again:", "C: *", "S: 501 5.7.0 stopped" })
    assert.are.equal("protocol", err.kind)
  end)
end)

describe("The order of mechanisms", function()
  it("has PLAIN before CRAM-MD5 over verified TLS, and after it where others may listen", function()
    assert(log_in("LOGIN CRAM-MD5 PLAIN", { PLAIN, YES }))
    assert(log_in("LOGIN CRAM-MD5 PLAIN", { CRAM, YES }, { verify = false }))
    assert(log_in("LOGIN CRAM-MD5 PLAIN", { CRAM, YES }, { tls = "none", allow_insecure_auth = true }))
  end)

  it("goes on to the next that is no weaker where one was offered in vain", function()
    for _, no in ipairs { "502 5.5.1 not here", "504 5.5.4 Unrecognized authentication type", "534 5.7.9 too weak" } do
      assert(log_in("PLAIN CRAM-MD5 LOGIN", { PLAIN, "S: " .. no, CRAM, "S: " .. no, LOGIN, YES }))
      assert(log_in("PLAIN LOGIN", { PLAIN, "S: " .. no, LOGIN, YES }, { verify = false }))
      assert(log_in("PLAIN LOGIN", { LOGIN, "S: " .. no, PLAIN, YES }, { auth = { "LOGIN", "PLAIN" } }))
      assert(log_in("PLAIN CRAM-MD5", { PLAIN, "S: " .. no, CRAM, YES }, { auth = { "PLAIN", "CRAM-MD5" }, verify = false }))
    end
    assert(log_in("XOAUTH2 OAUTHBEARER", { "C~ ^AUTH OAUTHBEARER ", "S: 504 5.7.4 no", "C~ ^AUTH XOAUTH2 ", YES }, { token = "a-token" }))
    assert(log_in("SCRAM-SHA-1 SCRAM-SHA-256", { "C~ ^AUTH SCRAM.SHA.256 ", "S: 504 no", "C~ ^AUTH SCRAM.SHA.1 ", "S: 454 later" }) == nil)
  end)

  it("gives none that was offered in vain another turn, though it be named twice", function()
    local no = "S: 504 5.5.4 no"
    assert(log_in("PLAIN LOGIN", { LOGIN, no, PLAIN, YES }, { auth = { "LOGIN", "login", "PLAIN" } }))
    local _, err = log_in("PLAIN LOGIN", { LOGIN, no, PLAIN, no }, { auth = { "LOGIN", "PLAIN", "LOGIN" } })
    assert.are.equal(504, err.code)
  end)

  it("never goes on to a weaker one", function()
    for _, no in ipairs { "504 5.5.4 no", "502 no", "534 5.7.9 too weak", "535 5.7.8 wrong", "454 4.7.0 later", "500 what?" } do
      local _, err = log_in("PLAIN CRAM-MD5", { CRAM, "S: " .. no }, { verify = false })
      assert.are.equal(tonumber(no:match "^%d+"), err.code)
      _, err = log_in("PLAIN CRAM-MD5 SCRAM-SHA-256", { "C~ ^AUTH SCRAM", "S: " .. no })
      assert.are.equal(tonumber(no:match "^%d+"), err.code)
    end
  end)

  it("ends with a refused password, or an app password asked for", function()
    for _, no in ipairs { "535 5.7.8 wrong", "534 5.7.14 log in by your browser", "534-5.7.9 Application-specific password required",
      "454 4.7.0 later", "530 5.7.0 no" } do
      local _, err = log_in("PLAIN CRAM-MD5 LOGIN", { PLAIN, "S: " .. no:gsub("%-", " ", 1) })
      assert.are.equal(tonumber(no:match "^%d+"), err.code)
      assert.are.equal("auth", err.kind)
    end
  end)
end)

describe("A refused token", function()
  local WORDS = "the token is refused: it has expired (most last an hour), was revoked, or is for another account or "
    .. "purpose; get a new one (where token is a function it is called for each login)"
  local WHY = core.base64 '{"status":"401","schemes":"Bearer","scope":"https://mail.google.com/"}'

  for _, mechanism in ipairs { "XOAUTH2", "OAUTHBEARER" } do
    for _, no in ipairs {
      "535 5.7.8 Username and Password not accepted. For more information, go to https://support.google.com/mail/?p=BadCredentials",
      "535 5.7.3 Authentication unsuccessful", "535 5.7.139 Authentication unsuccessful, the user credentials were incorrect.",
      "535 5.7.0 (#AUTH005) app password", "550 5.7.1 no", "535 Authentication credentials invalid",
    } do
      it("is told as that, not as a password: " .. mechanism .. ", " .. no, function()
        for _, told in ipairs { {}, { "S: 334 " .. WHY, mechanism == "XOAUTH2" and "C: " or "C: AQ==" } } do
          local _, err = log_in(mechanism, { "C~ ^AUTH " .. mechanism .. " ", told, "S: " .. no }, { token = "a-token" })
          assert.are.same({ "auth", WORDS }, { err.kind, err.hint })
        end
      end)
    end

    it("is told of a switch, a policy or a browser where that is what stands in the way: " .. mechanism, function()
      for no, words in pairs {
        ["535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant."] = "an administrator has to allow",
        ["535 5.7.139 Authentication unsuccessful, user is locked by your organization's security defaults policy."] = "a policy",
        ["534 5.7.14 Please log in via your web browser and then try again."] = "log in by your web browser",
      } do
        local _, err = log_in(mechanism, { "C~ ^AUTH " .. mechanism .. " ", "S: " .. no }, { token = "a-token" })
        assert.is_truthy(err.hint:find(words, 1, true), err.hint)
      end
      local scope = core.base64 '{"status":"insufficient_scope","schemes":"bearer","scope":"mail.send"}'
      local _, err = log_in(mechanism, { "C~ ^AUTH " .. mechanism .. " ", "S: 334 " .. scope,
        mechanism == "XOAUTH2" and "C: " or "C: AQ==", "S: 535 5.7.8 no" }, { token = "a-token" })
      assert.are.equal("the token is not for sending mail: get one with the provider's scope for SMTP", err.hint)
    end)
  end
end)

describe("What no login can carry", function()
  -- Refused before a connection is made; none of it in the error.
  local function refused(given, words)
    local options, transport = play.options({}, { tls = "implicit" })
    for name, value in pairs(given) do options[name] = value end
    for _, call in ipairs { smtp.connect, smtp.verify } do
      local got, err = call(options)
      assert.is_nil(got)
      assert.are.same({ "input", "compose", "not_sent" }, { err.kind, err.stage, err.outcome })
      assert.is_truthy(err.reason:find(words, 1, true), err.reason)
      assert.is_nil(tostring(err):find("pencil", 1, true))
    end
    assert.is_nil(transport.pipe)
  end

  it("is a control byte in username, password or token", function()
    for _, byte in ipairs { "\0", "\1", "\t", "\n", "\r", "\27", "\127" } do
      refused({ username = "a" .. byte .. "da", password = "pencil" }, "username has a control character")
      refused({ username = "ada", password = "pencil" .. byte .. "case" }, "password has a control character")
      refused({ username = "ada", token = byte .. "pencil" }, "token has a control character")
      refused({ proxy = "http://ada:pencil" .. byte .. "s@proxy.example.org" }, "the proxy's password has a control character")
    end
    refused({ url = "smtps://ada:pencil%00case@mail.example.org" }, "password has a control character")
  end)

  it("is the line break at the end of a file, named as such", function()
    for _, ending in ipairs { "\n", "\r\n", "\r", "\n\n" } do
      refused({ username = "ada" .. ending, password = "pencil" }, "username ends in a line break")
      refused({ username = "ada", password = "pencil" .. ending }, "password ends in a line break")
      refused({ username = "ada", token = "pencil" .. ending }, "token ends in a line break")
    end
  end)

  it("is found in what a token function gives and in session:auth, too, before a word of it", function()
    local session, err = log_in("XOAUTH2", {}, { token = function() return "pencil\n" end })
    assert.is_nil(session)
    assert.are.same({ "input", "auth" }, { err.kind, err.stage })
    assert.is_truthy(err.reason:find("token ends in a line break", 1, true))
    session = play.open(hello("AUTH PLAIN"), { tls = "implicit" })
    for _, given in ipairs { { username = "ada", password = "pencil\n" }, { username = "ada" }, { username = "ada", auth = "PLAIN" } } do
      local reply
      reply, err = session:auth(given)
      assert.is_nil(reply)
      assert.are.same({ "input", "auth" }, { err.kind, err.stage })
    end
  end)

  it("is a name and a password where auth names mechanisms; they are not shown", function()
    local beside = "; a login is given by username and password, or token"
    for _, auth in ipairs { "ada:pencil", "ada@example.org", { "ada@example.org", "pencil" } } do
      refused({ auth = auth }, "auth has a name that no mechanism can have (RFC 4422 3.1)" .. beside)
    end
    for _, auth in ipairs { "pencil", { "ada", "pencil" }, "X-OWN" } do
      refused({ auth = auth }, "auth names no mechanism that is known here, such as PLAIN, LOGIN or XOAUTH2" .. beside)
    end
  end)

  it("is half of a login, of a session step by step, of a pool and of smtp.verify, too", function()
    local words = "password is missing: a username is given without one, and without a token (is an environment "
      .. "variable not set?)"
    local function given(lines)
      local options = play.options(lines, { tls = "implicit" })
      options.username = "ada"
      return options
    end
    local function told(result, err)
      assert.is_nil(result)
      assert.are.same({ "input", words }, { err.kind, err.reason })
    end
    told(smtp.verify(given {}))
    told(assert(smtp.pool(given {})):send { from = "ada@example.org", to = "bob@example.test", text = "x" })
    local session = assert(smtp.session(given(hello("AUTH PLAIN"))))
    assert(session:connect())
    assert(session:ehlo())
    told(session:auth())
  end)

  it("is half of what a login needs", function()
    local UNSET = " (is an environment variable not set?)"
    local alone = "password is missing: a username is given without one, and without a token" .. UNSET
    refused({ username = "ada" }, alone)
    refused({ username = "ada", password = os.getenv "NO_SUCH_VARIABLE" }, alone)
    refused({ url = "smtps://ada@mail.example.org" }, alone)
    refused({ password = "pencil" }, "username is missing: a password is given without one" .. UNSET)
    refused({ username = "ada", auth = "PLAIN" }, "password is missing: PLAIN needs one" .. UNSET)
    refused({ username = "ada", password = "pencil", auth = "xoauth2" }, "token is missing: XOAUTH2 needs one" .. UNSET)
    refused({ token = "pencil", auth = { "XOAUTH2" } }, "username is missing: XOAUTH2 needs one" .. UNSET)
    refused({ username = "ada", password = "" }, "password is missing: it is empty" .. UNSET)
    refused({ username = "", password = "pencil" }, "username is missing: it is empty" .. UNSET)
    refused({ username = "ada", token = "" }, "token is missing: it is empty" .. UNSET)
    refused({ url = "smtps://ada:@mail.example.org" }, "password is missing: it is empty" .. UNSET)
    refused({ proxy = "socks5://ada@127.0.0.1" }, "the proxy's " .. alone)
    refused({ proxy = "http://ada@127.0.0.1" }, "the proxy's " .. alone)
    refused({ proxy = "socks5://ada:@127.0.0.1" }, "the proxy's password is missing: it is empty" .. UNSET)
    refused({ proxy = "socks5://:pencil@127.0.0.1" }, "the proxy's username is missing: it is empty" .. UNSET)
    for _, whole in ipairs { { username = "ada", auth = "EXTERNAL" }, { token = "pencil" }, { username = "ada", auth = false },
      { username = "ada", client_cert = "cert.pem", client_key = "key.pem" } } do
      local options, transport = play.options({ "close" }, { tls = "implicit" })
      for name, value in pairs(whole) do options[name] = value end
      assert.are.equal("closed", select(2, smtp.connect(options)).kind)
      assert.is_truthy(transport.pipe)
    end
  end)
end)
