-- Logins played against a scripted server, above all against one that lies: what is believed, what is sent, and that no
-- secret is ever seen where it should not be.
local core = require "smtp.core"
local play = require "spec.support.play"
local smtp = require "smtp"
local tls = require "smtp.tls"

local script, hello = play.script, play.hello

local function b64(...) return core.base64(table.concat { ... }) end

local CANARY = "c4n4ry/Pa ss+word"
local RANDOM = ("\7"):rep(18)
local NONCE = core.base64(RANDOM)

-- A secret in every form somebody could find it in.
local function forms(secret)
  local hex = secret:gsub(".", function(c) return ("%02x"):format(c:byte()) end)
  local url = secret:gsub("[^%w]", function(c) return ("%%%02X"):format(c:byte()) end)
  return { secret, b64(secret), b64("\0ada\0", secret), hex, hex:upper(), url, (url:gsub("%%%x%x", string.lower)) }
end

local function assert_hidden(text)
  for _, form in ipairs(forms(CANARY)) do assert.is_nil(text:find(form, 1, true), form) end
  assert.is_nil(text:find("c4n4ry", 1, true))
end

-- What both sides of a SCRAM login say, as lists of lines; `change` makes the server lie.
local function scram(mechanism, change)
  change = change or {}
  local hash = mechanism:find("256", 1, true) and "sha256" or "sha1"
  local header, binding = change.header or "n,,", change.binding or ""
  local salt, count = change.salt or "salty", change.count or 4096
  local bare = "n=ada,r=" .. NONCE
  local both = change.nonce or NONCE .. "server"
  local first = change.first or ("r=%s,s=%s,i=%d"):format(both, b64(salt), count)
  local without = "c=" .. b64(header, binding) .. ",r=" .. both
  local auth = bare .. "," .. first .. "," .. without
  local salted = tls.pbkdf2(hash, change.password or CANARY, salt, count):step(count)
  local key = tls.hmac(hash, salted, "Client Key")
  local proof = tls.xor(key, tls.hmac(hash, tls.hash(hash, key), auth))
  return {
    begin = { "C: AUTH " .. mechanism .. " " .. b64(header, bare) },
    first = { "S: 334 " .. b64(first) },
    proof = { "C: " .. b64(without, ",p=", core.base64(proof)) },
    last = b64("v=", core.base64(tls.hmac(hash, tls.hmac(hash, salted, "Server Key"), auth))),
  }
end

local GIVEN = { tls = "implicit", username = "ada", password = CANARY, trace = true }

-- Options for a scripted server over a TLS connection that gives `binding` (kind -> bytes).
local function options(lines, given, binding, dribble)
  local all, transport = play.options(lines, GIVEN, dribble)
  for name, value in pairs(given or {}) do all[name] = value end
  if binding then
    function transport.secure(pipe)
      pipe.info = { version = "TLSv1.3" }
      pipe.binding = function(_, kind) return binding[kind] end
      return pipe
    end
  end
  return all, transport
end

local random = core.random
before_each(function() core.random = function() return RANDOM end end)
after_each(function() core.random = random end)

describe("SCRAM", function()
  for _, mechanism in ipairs { "SCRAM-SHA-1", "SCRAM-SHA-256" } do
    play.both(it, mechanism .. ", the server's proof in a challenge", function(dribble)
      local said = scram(mechanism)
      local all, transport = options(script(hello("AUTH PLAIN CRAM-MD5 " .. mechanism), said.begin, said.first, said.proof,
        "S: 334 " .. said.last, "C: ", "S: 235 2.7.0 in"), nil, nil, dribble)
      local session = assert(smtp.connect(all))
      play.finished(transport)
      assert_hidden(play.written(transport) .. session.trace.transcript() .. play.dump(session, { [transport] = true }))
      -- passwords could be tried against either proof
      for _, proof in ipairs { said.last, said.proof[1]:sub(4) } do
        assert.is_nil(session.trace.transcript():find(proof, 1, true))
      end
    end)

    play.both(it, mechanism .. ", the server's proof in its reply", function(dribble)
      local said = scram(mechanism)
      local all, transport = options(script(hello("AUTH " .. mechanism), said.begin, said.first, said.proof,
        "S: 235 2.7.0 " .. said.last), nil, nil, dribble)
      assert(smtp.connect(all))
      play.finished(transport)
    end)
  end

  it("lets the host go on while it computes", function()
    local said = scram("SCRAM-SHA-256", { count = 20000 })
    local all, transport = options(script(hello("AUTH SCRAM-SHA-256"), said.begin, said.first, said.proof,
      "S: 235 2.7.0 " .. said.last))
    local turns = 0
    function transport.wait(mode, fd, deadline)
      assert.are.same({ "read", -1 }, { mode, fd })
      assert(deadline <= core.now())
      turns = turns + 1
    end
    assert(smtp.connect(all))
    play.finished(transport)
    assert.is_true(turns >= 9)
  end)

  local EXPORTER, END_POINT = { ["tls-exporter"] = "exported" }, { ["tls-server-end-point"] = "digest" }
  for name, case in pairs {
    ["bound to the connection"] = { "SCRAM-SHA-1 SCRAM-SHA-256 SCRAM-SHA-256-PLUS", EXPORTER, "SCRAM-SHA-256-PLUS",
      "p=tls-exporter,,", "exported" },
    ["bound, rather than with the longer hash"] = { "SCRAM-SHA-256 SCRAM-SHA-1-PLUS", EXPORTER, "SCRAM-SHA-1-PLUS",
      "p=tls-exporter,,", "exported" },
    ["bound to the certificate"] = { "SCRAM-SHA-256-PLUS", END_POINT, "SCRAM-SHA-256-PLUS", "p=tls-server-end-point,,", "digest" },
    ["where it could be bound, but the offer is missing"] = { "PLAIN SCRAM-SHA-256", EXPORTER, "SCRAM-SHA-256", "y,,", "" },
    ["where it cannot be bound"] = { "SCRAM-SHA-256 SCRAM-SHA-256-PLUS", {}, "SCRAM-SHA-256", "n,,", "" },
    ["not bound because the caller says so"] = { "SCRAM-SHA-256 SCRAM-SHA-256-PLUS", EXPORTER, "SCRAM-SHA-256", "n,,", "",
      "SCRAM-SHA-256" },
  } do
    it(name, function()
      local said = scram(case[3], { header = case[4], binding = case[5] })
      local all, transport = options(script(hello("AUTH " .. case[1]), said.begin, said.first, said.proof,
        "S: 334 " .. said.last, "C: ", "S: 235 in"), { auth = case[6] }, case[2])
      assert(smtp.connect(all))
      play.finished(transport)
    end)
  end

  it("refuses a password that has no one form, before a word of it", function()
    local all, transport = options(hello("AUTH SCRAM-SHA-256 PLAIN"), { password = "c4n4ry\226\128\174" })
    local session, err = smtp.connect(all)
    assert.is_nil(session)
    assert.are.same({ "input", "auth", "not_sent" }, { err.kind, err.stage, err.outcome })
    assert.is_nil(play.written(transport):find("AUTH", 1, true))
    assert.is_nil((tostring(err) .. err.transcript):find("c4n4ry", 1, true))
  end)
end)

-- Each is a server's part; none may be believed, and none gets more than a lie deserves. All that the client wrote is
-- then looked through for the password.
describe("A server that lies in SCRAM:", function()
  local M = "SCRAM-SHA-256"
  local honest = scram(M)
  local ABORT = { "C: *", "S: 501 5.7.0 stopped" }

  local function first(change)
    return { honest.begin, scram(M, change).first, ABORT }
  end
  local function raw(line)
    return { honest.begin, "S: 334 " .. line, ABORT }
  end
  local function last(...)
    return { honest.begin, honest.first, honest.proof, ... }
  end
  local wrong = scram(M, { password = "something else" }).last

  for name, case in pairs {
    ["a nonce of its own"] = { first { nonce = "server" .. NONCE } },
    ["our nonce and nothing more"] = { first { nonce = NONCE } },
    ["half of our nonce"] = { first { nonce = NONCE:sub(1, 12) } },
    ["i=1"] = { first { count = 1 } },
    ["i=4095"] = { first { count = 4095 } },
    ["i=999999999"] = { raw(b64("r=", NONCE, "server,s=c2FsdHk=,i=999999999")) },
    ["no count"] = { raw(b64("r=", NONCE, "server,s=c2FsdHk=")) },
    ["no salt"] = { raw(b64("r=", NONCE, "server,i=4096")) },
    ["a salt that is not base64"] = { raw(b64("r=", NONCE, "server,s=!,i=4096")) },
    ["an extension that must be known"] = { raw(b64("m=x,r=", NONCE, "server,s=c2FsdHk=,i=4096")) },
    ["no base64"] = { raw("r=" .. NONCE .. "server,s=c2FsdHk=,i=4096") },
    ["an empty challenge"] = { raw "" },
    ["bytes"] = { raw(b64("\0\255\r\n")) },
    ["its proof before ours"] = { { honest.begin, "S: 334 " .. honest.last, ABORT } },
    ["success at once"] = { { honest.begin, "S: 235 2.7.0 in" } },
    ["success at once, with a proof"] = { { honest.begin, "S: 235 2.7.0 " .. honest.last } },
    ["success without a proof"] = { last "S: 235 2.7.0 in" },
    ["success with a wrong proof"] = { last("S: 235 2.7.0 " .. wrong) },
    ["success with half a proof"] = { last("S: 235 2.7.0 " .. b64 "v=") },
    ["a wrong proof"] = { last("S: 334 " .. wrong, "C: *", "S: 501 x") },
    ["a wrong proof, and success all the same"] = { last("S: 334 " .. wrong, "C: *", "S: 235 2.7.0 in") },
    ["a wrong proof, then the right one"] = { last("S: 334 " .. wrong, "C: *", "S: 235 2.7.0 " .. honest.last) },
    ["a proof that is not base64"] = { last("S: 334 " .. b64 "v=!", "C: *", "S: 501 x") },
    ["an empty challenge for a proof"] = { last("S: 334 ", "C: *", "S: 501 x") },
    ["the first challenge again"] = { last(honest.first, "C: *", "S: 501 x") },
    ["a challenge after the end"] = { last("S: 334 " .. honest.last, "C: ", "S: 334 ", "C: *", "S: 501 x") },
    ["no, and then success"] = { last("S: 334 " .. b64 "e=invalid-proof", "C: ", "S: 235 in") },
    ["no, and then success with the proof"] = { last("S: 334 " .. b64 "e=other-error", "C: ", "S: 235 " .. honest.last) },
    ["a challenge for its own \"*\""] = { { honest.begin, scram(M, { count = 1 }).first, "C: *", "S: 334 " } },
    ["a wrong password, said at once"] = { { honest.begin, "S: 535 5.7.8 no" }, "auth", 535 },
    ["a wrong password"] = { last "S: 535 5.7.8 no", "auth", 535 },
    ["a wrong password, with words"] = { last("S: 334 " .. b64 "e=invalid-proof", "C: ", "S: 535 5.7.8 no"), "auth", 535,
      "invalid-proof" },
    ["words with the password in them"] = { last("S: 334 " .. b64("e=", CANARY), "C: ", "S: 535 5.7.8 " .. CANARY), "auth", 535 },
    ["later"] = { last "S: 454 4.7.0 later", "auth", 454 },
    ["words that are no error"] = { last "S: 250 ok", "auth", 250 },
  } do
    play.both(it, name, function(dribble)
      -- weaker ones are offered too, and must never be tried
      local all, transport = options(script(hello("AUTH SCRAM-SHA-256 CRAM-MD5 PLAIN LOGIN"), case[1]), nil, nil, dribble)
      local session = assert(smtp.session(all))
      local opened, err = session:open()
      assert.is_nil(opened)
      assert.are.same({ case[2] or "protocol", "auth", "not_sent", case[3] }, { err.kind, err.stage, err.outcome, err.code })
      assert.is_truthy(not case[4] or err.text:find(case[4], 1, true), err.text)
      if err.kind == "protocol" then
        assert.are.equal("dead", session.state)
        assert.are.equal("closed", select(2, session:noop()).kind)
      end
      play.finished(transport)
      local skip = { [session.transport] = true, [session.pump.pipe] = true }
      assert_hidden(play.written(transport) .. tostring(err) .. err.transcript .. play.dump({ err, session }, skip))
    end)
  end

  it("takes no part of another login's proof", function()
    core.random = random
    local all, transport = options(script(hello("AUTH " .. M), "C~ ^AUTH SCRAM", honest.first, "C: *", "S: 501 x"))
    local session, err = smtp.connect(all)
    assert.is_nil(session)
    assert.are.equal("protocol", err.kind)
    play.finished(transport)
  end)
end)

describe("The password", function()
  -- The dialogue goes on in clear: nothing of a login may be said.
  for name, case in pairs {
    ["AUTH offered in clear, TLS off"] = { hello("AUTH PLAIN LOGIN SCRAM-SHA-256"), "none", "insecure", "auth" },
    ["STARTTLS missing, where it is wanted if offered"] = { hello("AUTH PLAIN LOGIN"), "opportunistic", "insecure", "auth" },
    ["STARTTLS missing"] = { hello("AUTH PLAIN LOGIN", "AUTH=PLAIN"), "starttls", "insecure", "starttls" },
    ["STARTTLS garbled"] = { hello("XXXXXXXA", "AUTH PLAIN LOGIN"), "starttls", "insecure", "starttls" },
    ["STARTTLS refused"] = { script(hello("STARTTLS", "AUTH PLAIN"), "C: STARTTLS", "S: 454 4.7.0 no"), "starttls", "insecure",
      "starttls" },
    ["STARTTLS refused, where it is wanted if offered"] = { script(hello("STARTTLS", "AUTH PLAIN"), "C: STARTTLS",
      "S: 454 4.7.0 no"), "opportunistic", "insecure", "starttls" },
    ["AUTH offered in clear only"] = { script(hello("STARTTLS", "AUTH PLAIN LOGIN"), "C: STARTTLS", "S: 220 go",
      play.ehlo("PIPELINING")), "starttls", "auth", "auth" },
    ["success unasked, before TLS"] = { script("S: 220 mail.example.org", play.ehlo("STARTTLS", "AUTH PLAIN"), "S: 235 in"),
      "starttls", "protocol", "starttls" },
  } do
    it("stays here: " .. name, function()
      local all, transport = options(case[1], { tls = case[2] })
      local session = assert(smtp.session(all))
      local opened, err = session:open()
      assert.is_nil(opened)
      assert.are.same({ case[3], case[4], "not_sent" }, { err.kind, err.stage, err.outcome })
      local written = play.written(transport)
      assert.is_nil(written:upper():find("AUTH", 1, true))
      assert_hidden(written .. tostring(err) .. err.transcript)
    end)
  end

  it("goes to whoever offers AUTH under TLS, in any spelling, and only in that login's line", function()
    for _, offer in ipairs { "AUTH PLAIN", "auth plain", "AUTH=PLAIN", "Auth=Plain", "AUTH  PLAIN  XYZZY ", "AUTH XYZZY\nAUTH=PLAIN" } do
      local offers = {}
      for line in offer:gmatch("[^\n]+") do offers[#offers + 1] = line end
      local all, transport = options(script(hello((table.unpack or unpack)(offers)), "C: AUTH PLAIN " .. b64("\0ada\0", CANARY),
        "S: 235 in"))
      local session = assert(smtp.connect(all))
      play.finished(transport)
      assert_hidden(session.trace.transcript() .. play.dump(session, { [transport] = true, [session.pump.pipe] = true }))
    end
  end)

  -- What a server has at its hands by then, it may say back.
  local M = "SCRAM-SHA-1"
  local said = scram(M)
  for mechanism, dialogue in pairs {
    PLAIN = { "C: AUTH PLAIN " .. b64("\0ada\0", CANARY) },
    LOGIN = { "C: AUTH LOGIN", "S: 334 ", "C: " .. b64 "ada", "S: 334 ", "C: " .. b64(CANARY) },
    ["CRAM-MD5"] = { "C: AUTH CRAM-MD5", "S: 334 " .. b64 "<1@x>", "C~ ^%w+=*$" },
    [M] = { said.begin, said.first, said.proof },
  } do
    it("is quoted nowhere: " .. mechanism, function()
      for i, echo in ipairs(forms(CANARY)) do
        local seen = {}
        for _, trace in ipairs { true, function(direction, line) seen[#seen + 1] = direction .. line end } do
          local all, transport = options(script(hello("AUTH " .. mechanism), dialogue, "S: 535-5.7.8 no: " .. echo,
            "S: 535 5.7.8 " .. echo .. "!", "C: NOOP", "S: 550 " .. echo), { trace = trace })
          local session = assert(smtp.session(all))
          assert(session:connect())
          assert(session:ehlo())
          local _, err = session:auth()
          assert.are.equal(535, err.code)
          local _, later = session:noop()
          local dump = play.dump({ err, later, session, seen }, { [transport] = true, [session.pump.pipe] = true })
          assert_hidden(i .. dump .. tostring(err) .. tostring(later) .. err .. (session.trace.transcript() or ""))
        end
        assert.is_true(#seen > 4)
      end
    end)
  end
end)

describe("EXTERNAL", function()
  local CERT = { client_cert = "cert.pem", client_key = "key.pem" }

  local function play_external(given, offer, dialogue)
    local all, transport = play.options(script(hello("AUTH " .. offer), dialogue), { tls = "implicit" })
    for name, value in pairs(given) do all[name] = value end
    local session, err = smtp.connect(all)
    if session then play.finished(transport) end
    return session, err, transport
  end

  it("says who to act as, or nobody", function()
    assert(play_external({ auth = "external" }, "PLAIN EXTERNAL", { "C: AUTH EXTERNAL =", "S: 235 in" }))
    assert(play_external({ auth = "EXTERNAL", username = "ada" }, "PLAIN EXTERNAL", { "C: AUTH EXTERNAL " .. b64 "ada", "S: 235 in" }))
  end)

  it("is used unasked where a certificate is all there is to log in with", function()
    local given = { client_cert = CERT.client_cert, client_key = CERT.client_key, username = "ada" }
    assert(play_external(given, "PLAIN EXTERNAL", { "C: AUTH EXTERNAL " .. b64 "ada", "S: 235 in" }))
    given.password = "secret"
    assert(play_external(given, "PLAIN EXTERNAL", { "C: AUTH PLAIN " .. b64 "\0ada\0secret", "S: 235 in" }))
    assert(play_external(given, "EXTERNAL", { "C: AUTH EXTERNAL " .. b64 "ada", "S: 235 in" }))
    -- a certificate without a word of a login is for TLS alone
    assert(play_external(CERT, "EXTERNAL", {}))
  end)

  it("has nothing to say to a challenge", function()
    local session, err, transport = play_external({ auth = "EXTERNAL" }, "EXTERNAL", { "C: AUTH EXTERNAL =", "S: 334 ", "C: *",
      "S: 501 x" })
    assert.is_nil(session)
    assert.are.equal("protocol", err.kind)
    play.finished(transport)
  end)

  it("asked for, and not offered", function()
    local session, err, transport = play_external({ auth = "EXTERNAL" }, "PLAIN", {})
    assert.is_nil(session)
    assert.are.equal("auth", err.kind)
    assert.is_nil(play.written(transport):find("AUTH", 1, true))
  end)
end)

describe("A command line", function()
  -- "AUTH PLAIN " and base64 of two NUL, "ada" and the password
  it("is never longer than a server must take: the initial response then waits for a challenge", function()
    for length, fits in pairs { [367] = true, [368] = false, [9000] = false } do
      local password = ("p"):rep(length)
      local response = b64("\0ada\0", password)
      local lines = fits and { "C: AUTH PLAIN " .. response } or { "C: AUTH PLAIN", "S: 334 ", "C: " .. response }
      local all, transport = options(script(hello("AUTH PLAIN"), lines, "S: 235 in"), { password = password })
      local session = assert(smtp.connect(all))
      play.finished(transport)
      assert.is_nil(session.trace.transcript():find("pppp", 1, true))
      assert.is_nil(session.trace.transcript():find(response:sub(-12), 1, true))
    end
  end)

  it("and so with a token of some length", function()
    local token = ("t"):rep(3000)
    local response = b64("user=ada\1auth=Bearer ", token, "\1\1")
    local all, transport = play.options(script(hello("AUTH XOAUTH2"), "C: AUTH XOAUTH2", "S: 334 ", "C: " .. response, "S: 334 e30=",
      "C: ", "S: 535 no"), { tls = "implicit", username = "ada", token = token, trace = true })
    local session, err = smtp.connect(all)
    assert.is_nil(session)
    assert.are.equal(535, err.code)
    assert.is_nil((tostring(err) .. err.transcript):find("tttt", 1, true))
    play.finished(transport)
  end)
end)

describe("A mechanism asked for with nothing to log in with", function()
  it("is an error, not a message without a login", function()
    local all, transport = play.options(hello("AUTH PLAIN"), { tls = "implicit", auth = "PLAIN" })
    local session, err = smtp.connect(all)
    assert.is_nil(session)
    assert.are.same({ "input", "compose" }, { err.kind, err.stage })
    assert.is_nil(transport.pipe)
  end)
end)
