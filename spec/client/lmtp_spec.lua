-- LMTP, the client's side (RFC 2033): LHLO, and after the content a reply for each recipient.
local child = require "spec.support.child"
local loopback = require "spec.support.loopback"
local play = require "spec.support.play"
local smtp = require "smtp"
local together = require "spec.support.together"

local script = play.script
local both = function(name, body) play.both(it, name, body) end

local RAW = "Subject: Hello\r\n\r\nHello.\r\n.\r\n"
local CONTENT = { "C: Subject: Hello", "C: ", "C: Hello.", "C: ..", "C: ." }
local TO = { "a@example.org", "b@example.org", "c@example.org" }

local function hello(...)
  local lines = play.hello(...)
  lines[2] = "C: LHLO client.example.org"
  return lines
end

-- The commands for TO with the replies to each RCPT and to DATA, the content, then what the server says to it.
local function dialogue(replies, data, finals, goodbye)
  local lines = { "C: MAIL FROM:<ada@example.org>" }
  for _, to in ipairs(TO) do lines[#lines + 1] = ("C: RCPT TO:<%s>"):format(to) end
  lines[#lines + 1] = "C: DATA"
  lines[#lines + 1] = "S: 250 2.1.0 Ok"
  for _, reply in ipairs(replies) do lines[#lines + 1] = "S: " .. reply end
  lines[#lines + 1] = "S: " .. data
  if finals then lines[#lines + 1] = CONTENT end
  for _, final in ipairs(finals or {}) do lines[#lines + 1] = final:find "^%l" and final or "S: " .. final end
  if goodbye ~= false then lines[#lines + 1] = { "C: QUIT", "S: 221 bye" } end
  return script(hello "PIPELINING", lines)
end

local TAKEN = { "250 2.1.5 Ok", "250 2.1.5 Ok", "250 2.1.5 Ok" }

local function send(lines, changes, dribble)
  local given = { lmtp = true, from = "ada@example.org", to = TO, raw = RAW }
  for name, value in pairs(changes or {}) do given[name] = value end
  local options, transport = play.options(lines, given, dribble)
  local receipt, err = smtp.send(options)
  local last = lines[#lines]
  if last ~= "close" and last ~= "hang" then play.finished(transport) end
  return receipt, err, transport
end

local function fate(err)
  return { err.kind, err.stage, err.outcome, err.code }
end

-- "a@example.org 550 5.1.1 no such user; …"
local function shown(rejected)
  local lines = {}
  for i, one in ipairs(rejected or {}) do
    lines[i] = ("%s %d %s %s %s"):format(one.address, one.code, tostring(one.enhanced), one.text, tostring(one.temporary))
  end
  return table.concat(lines, "; ")
end

describe("LMTP", function()
  both("a message that all recipients get", function(dribble)
    local receipt, err = send(dialogue(TAKEN, "354 go",
      { "250 2.0.0 <a> saved as 1", "250 2.0.0 <b> saved", "250 2.0.0 <c> saved" }), nil, dribble)
    assert(receipt, err)
    assert.are.same(TO, receipt.accepted)
    assert.are.same({}, receipt.rejected)
    assert.are.same({ code = 250, enhanced = "2.0.0", text = "<a> saved as 1" }, receipt.reply)
  end)

  both("one that some of them get, for each reason there is", function(dribble)
    local receipt, err = send(dialogue({ "550 5.1.1 no such user", "250 2.1.5 Ok", "250 2.1.5 Ok" }, "354 go",
      { "452 4.2.2 mailbox full", "250 2.0.0 saved" }), nil, dribble)
    assert(receipt, err)
    assert.are.same({ TO[3] }, receipt.accepted)
    assert.are.equal("a@example.org 550 5.1.1 no such user false; b@example.org 452 4.2.2 mailbox full true",
      shown(receipt.rejected))
    assert.are.equal(250, receipt.reply.code)
  end)

  it("says so in a receipt even with partial = false: it was sent", function()
    local lines = dialogue(TAKEN, "354 go", { "250 saved", "554 5.7.1 not wanted", "250 saved" })
    -- DATA only goes out when all are known to be taken
    local data = table.remove(lines, 9)
    assert.are.equal("C: DATA", data)
    table.insert(lines, 13, data)
    local receipt, err = send(lines, { partial = false })
    assert(receipt, err)
    assert.are.same({ TO[1], TO[3] }, receipt.accepted)
    assert.are.equal("b@example.org 554 5.7.1 not wanted false", shown(receipt.rejected))
  end)

  both("one that nobody gets", function(dribble)
    local receipt, err = send(dialogue({ "250 Ok", "450 4.2.1 later", "250 Ok" }, "354 go",
      { "554 5.7.1 not wanted", "452 4.2.2 full" }), nil, dribble)
    assert.is_nil(receipt)
    assert.are.same({ "rejected", "final", "not_sent", 554 }, fate(err))
    assert.are.equal("b@example.org 450 4.2.1 later true; a@example.org 554 5.7.1 not wanted false; "
      .. "c@example.org 452 4.2.2 full true", shown(err.rejected))
    assert.is_true(err.temporary)
    receipt, err = send(dialogue(TAKEN, "354 go", { "554 no", "554 no", "554 no" }), nil, dribble)
    assert.is_nil(receipt)
    assert.is_false(err.temporary)
    receipt, err = send(dialogue({ "550 no", "550 no", "550 no" }, "503 5.5.1 no recipients"), nil, dribble)
    assert.is_nil(receipt)
    assert.are.same({ "rejected", "rcpt", "not_sent", 550 }, fate(err))
  end)

  both("a connection lost between the replies: what is known of each", function(dribble)
    for _, last in ipairs { "close", "hang" } do
      local receipt, err = send(dialogue(TAKEN, "354 go", { "250 saved", "550 5.1.1 gone", last }, false), nil, dribble)
      assert.is_nil(receipt)
      assert.are.same({ last == "close" and "closed" or "timeout", "final", "unknown" }, fate(err))
      assert.are.same({ TO[1] }, err.accepted)
      assert.are.equal("b@example.org 550 5.1.1 gone false", shown(err.rejected))
    end
    local _, err = send(dialogue(TAKEN, "354 go", { "close" }, false), nil, dribble)
    assert.are.same({ "closed", "final", "unknown" }, fate(err))
    assert.are.same({ {}, "" }, { err.accepted, shown(err.rejected) })
  end)

  it("a reply too many is not taken for the next message's", function()
    local session, transport = play.open(dialogue(TAKEN, "354 go", { "250 1", "250 2", "250 3", "250 4" }, false), { lmtp = true })
    assert(session:send { from = "ada@example.org", to = TO, raw = RAW })
    local receipt, err = session:send { from = "ada@example.org", to = TO, raw = RAW }
    assert.is_nil(receipt)
    assert.are.same({ "protocol", "not_sent", "dead" }, { err.kind, err.outcome, session.state })
    play.finished(transport)
  end)

  it("nothing goes to a server that wants content for nobody", function()
    local _, err, transport = send(dialogue({ "550 no", "550 no", "550 no" }, "354 go", nil, false))
    assert.are.same({ "rejected", "rcpt", "not_sent", 550 }, fate(err))
    assert.matches("DATA\r\n$", table.concat(transport.pipe.written))
  end)

  it("falls back to no HELO or EHLO", function()
    local session, transport = play.session(script("S: 220 hi", "C: LHLO client.example.org", "S: 500 what", "C: QUIT",
      "S: 221 bye"), { lmtp = true })
    local ok, err = session:open()
    assert.is_nil(ok)
    assert.are.same({ "rejected", "ehlo", "not_sent", 500 }, fate(err))
    play.finished(transport)
  end)

  it("uses no chunks", function()
    local receipt, err = send(script(hello("PIPELINING", "CHUNKING", "BINARYMIME"),
      "C: MAIL FROM:<ada@example.org>", "C: RCPT TO:<a@example.org>", "C: DATA", "S: 250 Ok", "S: 250 Ok", "S: 354 go",
      CONTENT, "S: 250 saved", "C: QUIT", "S: 221 bye"), { to = TO[1] })
    assert(receipt, err)
    local session = play.open(hello("PIPELINING", "CHUNKING"), { lmtp = true })
    local ok
    ok, err = session:bdat "hello"
    assert.is_nil(ok)
    assert.are.equal("input", err.kind)
    assert.are.equal("ready", session.state)
  end)

  it("step by step tells the recipients apart too", function()
    local step = { "C: MAIL FROM:<ada@example.org>", "S: 250 Ok", "C: RCPT TO:<a@example.org>", "S: 250 Ok",
      "C: RCPT TO:<x@example.org>", "S: 550 no", "C: RCPT TO:<b@example.org>", "S: 250 Ok", "C: DATA", "S: 354 go", CONTENT }
    local session, transport = play.open(script(hello(), step, "S: 550 5.1.1 gone", "S: 250 saved",
      step, "S: 550 no", "S: 451 later", "C: QUIT", "S: 221 bye"), { lmtp = true })
    for round = 1, 2 do
      assert(session:mail "ada@example.org")
      assert(session:rcpt "a@example.org")
      assert.is_nil((session:rcpt "x@example.org"))
      assert(session:rcpt "b@example.org")
      local reply, err = session:data(RAW)
      if round == 1 then
        assert.are.same({ 250, { "b@example.org" } }, { reply.code, reply.accepted })
        assert.are.equal("a@example.org 550 5.1.1 gone false", shown(reply.rejected))
      else
        assert.are.same({ "rejected", "final", "not_sent", 550 }, fate(err))
        assert.are.same({}, err.accepted)
        assert.are.equal("a@example.org 550 nil no false; b@example.org 451 nil later true", shown(err.rejected))
      end
    end
    assert(session:quit())
    play.finished(transport)
  end)
end)

describe("LMTP with smtp.server", function()
  local function served(given, changes, run)
    given.lmtp = true
    local server = assert(smtp.server(given))
    local all = { url = ("lmtp://127.0.0.1:%d"):format(server.port), from = "ada@example.org", to = TO, text = "Hello",
      tls = given.tls or "none", ca_file = server.certificate }
    for name, value in pairs(changes or {}) do all[name] = value end
    local receipt, err = together.run(function() return (run or smtp.send)(all) end, server)
    server:close()
    return receipt, err, server
  end

  it("in clear and under STARTTLS", function()
    for _, tls in ipairs { "none", "starttls" } do
      local receipt, err, server = served { tls = tls }
      assert(receipt, err)
      assert.are.same(TO, server.inbox[1].to)
      assert.are.equal(tls == "starttls", receipt.tls ~= nil)
    end
  end)

  it("asks for TLS by default", function()
    local server = assert(smtp.server { lmtp = true })
    local session, err = together.run(function()
      return smtp.connect { url = ("lmtp://127.0.0.1:%d"):format(server.port) }
    end, server)
    assert.is_nil(session)
    assert.are.same({ "insecure", "starttls" }, { err.kind, err.stage })
    server:close()
  end)

  it("with a verdict for each recipient", function()
    local receipt, err = served { on_message = function()
      return { ["b@example.org"] = "452 4.2.2 full", ["c@example.org"] = "550 5.1.1 gone" }
    end }
    assert(receipt, err)
    assert.are.same({ TO[1] }, receipt.accepted)
    assert.are.equal("b@example.org 452 4.2.2 full true; c@example.org 550 5.1.1 gone false", shown(receipt.rejected))
  end)

  it("a client of the other kind is refused at the greeting", function()
    local receipt, err = served({}, { lmtp = false })
    assert.is_nil(receipt)
    assert.are.same({ "rejected", "ehlo" }, { err.kind, err.stage })
  end)
end)

-- A private Dovecot that delivers by LMTP. Users a and full, whose quota is none, at example.test.
local DOVECOT = [=[
set -e
[ "$(id -u)" -eq 0 ] || { echo "Dovecot must be started as root"; exit 1; }
[ -x /usr/lib/dovecot/lmtp ] || { echo "dovecot-lmtpd is not installed"; exit 1; }
chmod 755 $1
bash spec/support/pki.sh $1/pki >$1/openssl.log 2>&1
mkdir $1/mail
chown nobody:nogroup $1/mail
case $(dovecot --version) in
2.[0-3].*)
  quota=quota_rule=*:bytes=1
  cat >$1/dovecot.conf <<END
ssl_cert = <$1/pki/localhost.pem
ssl_key = <$1/pki/localhost.key
mail_location = maildir:$1/mail/%u
mail_plugins = quota
plugin {
  quota = count:all
  quota_vsizes = yes
  quota_grace = 0
}
# nobody logs in, but it must have one
passdb {
  driver = passwd-file
  args = $1/users
}
userdb {
  driver = passwd-file
  args = username_format=%u $1/users
  default_fields = home=$1/mail/%u
}
END
  ;;
*)
  quota=quota_storage_size=1B
  cat >$1/dovecot.conf <<END
dovecot_config_version = 2.4.0
dovecot_storage_version = 2.4.0
ssl_server_cert_file = $1/pki/localhost.pem
ssl_server_key_file = $1/pki/localhost.key
mail_driver = maildir
mail_path = $1/mail/%{user}
mail_plugins = quota
quota all {
}
quota_storage_grace = 0
passdb passwd-file {
  passwd_file_path = $1/users
}
userdb passwd-file {
  passwd_file_path = $1/users
  fields {
    home:default = $1/mail/%{user}
  }
}
END
  ;;
esac
cat >$1/users <<END
a@example.test:::::::
full@example.test:::::::userdb_$quota
END
cat >>$1/dovecot.conf <<END
base_dir = $1/run
state_dir = $1/state
log_path = $1/log
protocols = lmtp
listen = 127.0.0.1
default_login_user = dovenull
default_internal_user = dovecot
ssl = yes
mail_uid = nobody
mail_gid = nogroup
first_valid_uid = 1
service lmtp {
  inet_listener lmtp {
    port = $2
  }
  unix_listener $1/lmtp.sock {
    mode = 0666
  }
}
service anvil {
  chroot =
}
service stats {
  chroot =
}
END
exec dovecot -c $1/dovecot.conf
]=]

describe("LMTP with Dovecot #real", function()
  local dir, port, reason

  setup(function()
    dir = os.tmpname()
    os.remove(dir)
    os.execute("mkdir " .. dir)
    port = loopback.port()
    local code = child.keep(DOVECOT)
    local status, output = child.beside(("env -u LD_PRELOAD bash %s %s %d"):format(code, dir, port))
    os.remove(code)
    if status ~= 0 then reason = "NO DOVECOT LMTP: " .. output .. child.read(dir .. "/log") end
  end)

  teardown(function()
    local pid = child.read(dir .. "/run/master.pid"):match("%d+")
    if pid then os.execute(("kill %s; while kill -0 %s 2>/dev/null; do sleep 0.05; done"):format(pid, pid)) end
    os.execute("rm -rf " .. dir)
  end)

  it("the mailbox gets what was sent, the full one and the unknown one are named", function()
    if reason then return pending(reason) end
    local raw = "Subject: Hello\r\n\r\n.\r\n..\r\nHello.\r\n"
    for i, way in ipairs {
      { url = "lmtp+unix://" .. dir .. "/lmtp.sock" },
      { path = dir .. "/lmtp.sock", lmtp = true },
      { url = ("lmtp://localhost:%d"):format(port), ca_file = dir .. "/pki/ca.pem" },
    } do
      way.from, way.raw, way.timeout, way.trace = "ada@example.org", raw, 60, true
      way.to = { "full@example.test", "a@example.test", "none@example.test" }
      local receipt, err = smtp.send(way)
      assert(receipt, err and tostring(err) .. "\n" .. tostring(err.transcript))
      assert.are.same({ "a@example.test" }, receipt.accepted)
      assert.are.equal(2, #receipt.rejected)
      assert.are.equal("none@example.test", receipt.rejected[1].address)
      assert.are.equal("full@example.test", receipt.rejected[2].address)
      assert.are.equal(i == 3, receipt.tls ~= nil)
      local files = io.popen(("cd %s/mail/a@example.test && find new cur -type f -exec cat {} +"):format(dir)) -- Dovecot's choice
      local stored = files:read("*a"):gsub("\r?\n", "\r\n")
      files:close()
      assert.are.equal(i, select(2, stored:gsub("Subject: Hello\r\n\r\n%.\r\n%.%.\r\nHello%.\r\n", "")))
      way.to = { "full@example.test" }
      receipt, err = smtp.send(way)
      assert.is_nil(receipt)
      assert.are.same({ "rejected", "final", "not_sent" }, { err.kind, err.stage, err.outcome })
      assert.are.equal(1, #err.rejected)
    end
  end)
end)
