-- Sessions resumed: what a second connection may skip, and what it may not: who the server is gets checked all the same.
-- Of: tls/session
local child = require "spec.support.child"
local core = require "smtp.core"
local smtp = require "smtp"
local tls = require "smtp.tls"
local transport = require "smtp.transport.tls"
local postfix = require "spec.support.postfix"
local together = require "spec.support.together"

local NAMES = { "mail.example.org", "mx.example.org", "localhost", "127.0.0.1" }
local cert, key = tls.mint(NAMES)

local function server_context(more)
  local options = { server = true, cert = cert, key = key }
  for name, value in pairs(more or {}) do options[name] = value end
  return assert(tls.context(options))
end

-- A client's engine and a server's that have shaken hands as far as they can, the client's tickets taken in: both, and its
-- result.
local function shake(client, servers)
  local server = servers:engine()
  for _ = 1, 6 do
    client:handshake()
    assert(server:feed(client:take()))
    server:handshake()
    assert(client:feed(server:take()))
  end
  local ok, _, reason = client:handshake()
  if ok then assert.are.same({ nil, "again" }, { client:read() }) end
  return client, server, ok, reason
end

local function meet(client_context, servers, name, session)
  return shake(assert(client_context:engine(name, session)), servers)
end

-- The extensions of the ClientHello an engine would send: type -> length. RFC 8446 4.1.2.
local function extensions(context, name, session)
  local engine = assert(context:engine(name, session))
  engine:handshake()
  local hello = engine:take()
  local function number(at, size)
    local value = 0
    for i = at, at + size - 1 do value = value * 256 + hello:byte(i) end
    return value
  end
  local at = 5 + 4 + 2 + 32 + 1 -- record, handshake, version, random: the session id
  at = at + 1 + number(at, 1)
  at = at + 2 + number(at, 2)
  at = at + 1 + number(at, 1)
  local found, stop = {}, at + 2 + number(at, 2)
  at = at + 2
  while at < stop do
    found[number(at, 2)] = number(at + 2, 2)
    at = at + 4 + number(at + 2, 2)
  end
  return found
end

local TICKET, PSK, EARLY = 35, 41, 42 -- RFC 5077, RFC 8446 4.2

for _, version in ipairs { "1.2", "1.3" } do
  describe("a session of TLS " .. version, function()
    local servers, context

    before_each(function()
      servers = server_context { max = version }
      context = assert(tls.context { ca_file = cert })
    end)

    local function offers(context_now, name, session)
      local found = extensions(context_now, name, session)
      assert.is_nil(found[EARLY])
      return (found[PSK] or 0) + (found[TICKET] or 0) > 0
    end

    it("is resumed, time and again, with all that is known of the server", function()
      local client = meet(context, servers, "mail.example.org")
      local first = client:info()
      assert.is_false(first.resumed)
      for _ = 1, 4 do
        local session = client:session()
        client:shutdown() -- a connection that is collected without an end takes its session with it
        assert.is_true(offers(context, "mail.example.org", session))
        local server
        client, server = meet(context, servers, "mail.example.org", session)
        local info = client:info()
        assert.is_true(info.resumed)
        assert.is_true(server:info().resumed)
        assert.are.same(first.peer, info.peer)
        assert(client:write("EHLO client.example.org\r\n"))
        assert(server:feed(client:take()))
        assert.are.equal("EHLO client.example.org\r\n", server:read())
      end
      assert.is_false(offers(context, "mail.example.org"))
    end)

    it("outlives its engine and context", function()
      local client = meet(assert(tls.context { ca_file = cert }), servers, "mail.example.org")
      local session = client:session()
      client:shutdown() -- one that is cut off leaves no session behind
      client = nil -- luacheck: ignore
      collectgarbage()
      collectgarbage()
      assert.is_true((meet(context, servers, "mail.example.org", session)):info().resumed)
    end)

    it("is worth nothing to another server, which is no error", function()
      local session = meet(context, servers, "mail.example.org"):session()
      local client, _, ok = meet(context, server_context { max = version }, "mail.example.org", session)
      assert.is_true(ok)
      assert.is_false(client:info().resumed)
    end)

    it("got without verifying is not resumed where the certificate is not trusted", function()
      local lax, other = assert(tls.context { verify = false }), (tls.mint(NAMES))
      local session = meet(lax, servers, "mail.example.org"):session()
      assert.is_true(offers(lax, "mail.example.org", session))
      local strict = assert(tls.context { ca_file = other })
      assert.is_false(offers(strict, "mail.example.org", session))
      local _, _, ok, reason = meet(strict, servers, "mail.example.org", session)
      assert.is_nil(ok)
      assert.are.equal("the server's certificate is self-signed and not trusted here", reason)
    end)

    it("is not resumed for a name its certificate does not have", function()
      local session = meet(context, servers, "mail.example.org"):session()
      assert.is_true(offers(context, "mx.example.org", session))
      for _, name in ipairs { "mail.example.net", "192.0.2.1", "example.org" } do
        assert.is_false(offers(context, name, session), name)
        local _, _, ok, reason = meet(context, servers, name, session)
        assert.is_nil(ok)
        assert.are.equal("the server's certificate is not for " .. name, reason)
      end
    end)

    it("is none before there is one, after a failure, and on the server's side", function()
      assert.is_nil((context:engine("mail.example.org"):session()))
      local client, server = meet(context, servers, "mail.example.org")
      assert.is_nil((server:session()))
      client:eof()
      assert.is_nil((client:read()))
      assert.is_nil((client:session()))
    end)
  end)
end

describe("a session", function()
  it("of TLS 1.3 is not offered twice by its own connection", function()
    local servers, context = server_context(), assert(tls.context { ca_file = cert })
    local session = meet(context, servers, "mail.example.org"):session()
    -- the handshake alone: no tickets read
    local client, server = context:engine("mail.example.org", session), servers:engine()
    client:handshake()
    assert(server:feed(client:take()))
    server:handshake()
    assert(client:feed(server:take()))
    assert.is_true(client:handshake())
    assert.is_true(client:info().resumed)
    assert.is_nil(extensions(context, "mail.example.org", client:session())[PSK])
    assert(server:feed(client:take()))
    server:handshake()
    assert(client:feed(server:take()))
    client:read()
    assert.is_truthy(extensions(context, "mail.example.org", client:session())[PSK])
  end)

  it("of TLS 1.2 is not taken where 1.3 is the least", function()
    local session = meet(assert(tls.context { ca_file = cert }), server_context { max = "1.2" }, "mail.example.org"):session()
    local client = meet(assert(tls.context { ca_file = cert, min = "1.3" }), server_context(), "mail.example.org", session)
    assert.are.equal("TLSv1.3", client:info().version)
    assert.is_false(client:info().resumed)
  end)

  it("ends with its certificate's dates", function()
    local dir, till, servers, strangers, context, session, in_time
    -- where the machine takes so long that they are over too early, it gets more time
    for _, seconds in ipairs { 2, 15, 120 } do
      dir = os.tmpname()
      os.remove(dir)
      till = os.time() + seconds
      local ok = os.execute(([[( mkdir @ && cd @ && : >index && echo 01 >serial && cat >cnf <<'END'
[ca]
default_ca=d
[d]
database=index
serial=serial
new_certs_dir=.
default_md=sha256
policy=p
[p]
commonName=supplied
[e]
subjectAltName=DNS:mail.example.org
[req]
distinguished_name=n
[n]
END
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=ca -keyout ca.key -out ca.pem
openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=x -config cnf -keyout x.key -out x.csr
openssl ca -batch -notext -config cnf -extensions e -cert ca.pem -keyfile ca.key -in x.csr -out x.pem -enddate #
) >/dev/null 2>&1]]):gsub("@", dir):gsub("#", (os.date("!%y%m%d%H%M%SZ", till))))
      assert(ok == true or ok == 0)
      servers = server_context { cert = dir .. "/x.pem", key = dir .. "/x.key" }
      strangers = server_context { cert = dir .. "/x.pem", key = dir .. "/x.key" } -- with the same certificate
      context = assert(tls.context { ca_file = dir .. "/ca.pem" })
      os.execute("rm -r " .. dir)
      local client, _, taken = meet(context, servers, "mail.example.org")
      session = client:session()
      local offered = session and extensions(context, "mail.example.org", session)[PSK]
      local again = session and select(3, meet(context, strangers, "mail.example.org", session))
      in_time = session and context:engine("mail.example.org", session)
      if os.time() < till then
        assert.is_true(taken and offered ~= nil and again)
        break
      end
    end
    while os.time() <= till do core.poll({}, {}, core.now() + 0.1) end
    assert.is_nil(extensions(context, "mail.example.org", session)[PSK])
    for _, engine in ipairs { in_time, (context:engine("mail.example.org", session)) } do
      local _, _, good, reason = shake(engine, strangers)
      assert.is_nil(good)
      assert.is_truthy(reason:find("^the server's certificate expired on "))
    end
  end)

  it("is a session: anything else raises", function()
    local context = assert(tls.context { verify = false })
    assert.has_error(function() context:engine("mail.example.org", {}) end)
    assert.has_error(function() context:engine("mail.example.org", context) end)
    assert.has_error(function() context:engine("mail.example.org", "session") end)
  end)
end)

-- Counts how often a chain of certificates is verified: an octet of the file CALLS for each time.
local COUNTER = [[
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
int X509_verify_cert(void *store);
int X509_verify_cert(void *store)
{
	int (*verify)(void *) = (int (*)(void *))dlsym(dlopen("libcrypto.so.3", RTLD_LAZY), "X509_verify_cert");
	FILE *calls = fopen(getenv("CALLS"), "a");
	fputc('x', calls);
	fclose(calls);
	return verify(store);
}
]]

-- Shakes hands again and again, and prints how often the server's certificates were verified each time.
local HANDSHAKES = [[
local tls = require "smtp.tls"
local calls, chain, key, root = %q, %q, %q, %q
local context, told, seen = assert(tls.context { ca_file = root }), {}, 0
local function servers() return assert(tls.context { server = true, cert = chain, key = key }) end
local function meet(context_of_server, name, session)
  local client, server = assert(context:engine(name, session)), context_of_server:engine()
  for _ = 1, 6 do
    client:handshake()
    assert(server:feed(client:take()))
    server:handshake()
    assert(client:feed(server:take()))
  end
  assert(client:handshake())
  client:read()
  local file = io.open(calls)
  local now = #file:read "*a"
  file:close()
  told[#told + 1], seen = now - seen, now
  local known = client:session()
  client:shutdown()
  return known
end
local one = servers()
local session = meet(one, "mail.example.org", meet(one, "mail.example.org"))
meet(servers(), "mail.example.org", session)
meet(servers(), "mail.example.org", session)
meet(servers(), "mail.example.org")
meet(servers(), "mx.example.org", session)
print(table.concat(told, " "))
]]

describe("certificates that were verified before", function()
  -- Authorities whose signatures take long to verify: root, a, b, c, which signs `x`, for mail and mx.example.org.
  local dir
  setup(function()
    dir = os.tmpname()
    os.remove(dir)
    local ok = os.execute(([[( mkdir @ && cd @ && echo basicConstraints=critical,CA:TRUE >authority &&
echo subjectAltName=DNS:mail.example.org,DNS:mx.example.org >server &&
make() {
  openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:$2 -out $1.key &&
  openssl req -new -key $1.key -subj /CN=$1 -out $1.csr &&
  openssl x509 -req -in $1.csr $3 -days 30 -sha256 -extfile $4 -out $1.pem
} &&
make root P-521 '-signkey root.key' authority && make a P-521 '-CA root.pem -CAkey root.key -set_serial 1' authority &&
make b P-521 '-CA a.pem -CAkey a.key -set_serial 2' authority && make c P-521 '-CA b.pem -CAkey b.key -set_serial 3' authority &&
make x P-256 '-CA c.pem -CAkey c.key -set_serial 4' server ) >/dev/null 2>&1]]):gsub("@", dir))
    assert(ok == true or ok == 0)
  end)
  teardown(function() os.execute("rm -r " .. dir) end)

  local function read(name)
    local file = assert(io.open(dir .. "/" .. name .. ".pem"))
    local text = file:read "*a"
    file:close()
    return text
  end

  local function server_with(chain)
    local sent = {}
    for i, name in ipairs(chain) do sent[i] = read(name) end
    return server_context { cert = table.concat(sent), key = dir .. "/x.key" }
  end

  local WHOLE = { "x", "c", "b", "a" }
  local function trusting(name) return assert(tls.context { ca_file = read(name) }) end

  it("cost no signature check again", function()
    local library, calls = dir .. "/calls.so", dir .. "/calls"
    child.write(dir .. "/calls.c", COUNTER)
    assert.are.equal("", child.output(("env -u LD_PRELOAD gcc -shared -fPIC -o %s %s/calls.c -ldl"):format(library, dir)))
    child.write(calls, "")
    local sent = read "x" .. read "c" .. read "b" .. read "a"
    local output = child.run(HANDSHAKES:format(calls, sent, dir .. "/x.key", read "root"),
      ('CALLS=%s LD_PRELOAD="$LD_PRELOAD %s"'):format(calls, library))
    -- anew, resumed; a server that takes no session, twice; without a session; for another name: to resume, and again
    assert.are.equal("1 0 0 0 1 2\n", output)
  end)

  it("are remembered through connections that were resumed, and that were not", function()
    local context, session = trusting "root", nil
    local one = server_with(WHOLE)
    for i, servers in ipairs { one, one, server_with(WHOLE), server_with(WHOLE) } do
      local client, _, ok = meet(context, servers, "mail.example.org", session)
      assert.is_true(ok)
      assert.are.equal(i == 2, client:info().resumed)
      session = client:session()
      client:shutdown()
    end
  end)

  it("are those that were sent: with one of them left out, or another, all are verified", function()
    local context = trusting "root"
    local session = meet(context, server_with(WHOLE), "mail.example.org"):session()
    for _, sent in ipairs { { "x" }, { "x", "c", "b" }, { "x", "c", "b", "root" }, { "x", "b", "a" } } do
      local _, _, ok, reason = meet(context, server_with(sent), "mail.example.org", session)
      assert.is_nil(ok)
      assert.is_truthy(reason:find("authority that is not trusted here", 1, true), reason)
    end
    assert.is_true(select(3, meet(context, server_with { "x", "c", "b", "a", "root" }, "mail.example.org", session)))
  end)

  it("are verified for each name", function()
    local context = trusting "root"
    local session = meet(context, server_with(WHOLE), "mail.example.org"):session()
    assert.is_true(select(3, meet(context, server_with(WHOLE), "mx.example.org", session)))
    local _, _, ok, reason = meet(context, server_with(WHOLE), "mail.example.net", session)
    assert.is_nil(ok)
    assert.are.equal("the server's certificate is not for mail.example.net", reason)
  end)

  it("are verified by each context", function()
    local servers = server_with(WHOLE)
    for _, before in ipairs { trusting "root", trusting "b", assert(tls.context { verify = false }) } do
      local client, _, took = meet(before, servers, "mail.example.org")
      assert.is_true(took)
      local _, _, ok, reason = meet(assert(tls.context { ca_file = cert }), server_with(WHOLE), "mail.example.org", client:session())
      assert.is_nil(ok)
      assert.is_truthy(reason:find("not trusted here", 1, true), reason)
    end
  end)

  it("are none where they were not taken", function()
    local context = assert(tls.context { ca_file = cert })
    local client, _, ok = meet(context, server_with(WHOLE), "mail.example.org")
    assert.is_nil(ok)
    assert.is_nil((client:session()))
  end)
end)

describe("the client's memory", function()
  -- A pipe to a server in memory that greets once hands are shaken.
  local function pipe_to(servers)
    local server, out, pipe = servers:engine(), {}, {}
    local greeted = false
    function pipe.write(_, bytes)
      assert(server:feed(bytes))
      if server:handshake() and not greeted then
        greeted = true
        assert(server:write("220 mail.example.org\r\n"))
      end
      out[#out + 1] = server:take()
      return true
    end
    function pipe.read()
      local bytes = table.concat(out)
      out = {}
      if bytes ~= "" then return bytes end
      return nil, "timeout", "nothing came in time"
    end
    function pipe.close() end
    return pipe
  end

  local function options(more)
    local all = { ca_file = cert, server_name = "mail.example.org", peer = "here 465" }
    for name, value in pairs(more or {}) do all[name] = value end
    return all
  end

  local function open(servers, more)
    local pipe = assert(transport.wrap(pipe_to(servers), options(more), core.now() + 60))
    assert.are.equal("220 mail.example.org\r\n", pipe:read(core.now() + 60))
    return pipe
  end

  -- Opens and closes; whether it was resumed.
  local function resumes(servers, more)
    local pipe = open(servers, more)
    pipe:close()
    return pipe.info.resumed
  end

  for _, version in ipairs { "1.2", "1.3" } do
    it("saves a handshake of TLS " .. version, function()
      local servers = server_context { max = version }
      assert.are.same({ false, true, true }, { resumes(servers, { peer = version }), resumes(servers, { peer = version }),
        resumes(servers, { peer = version }) })
    end)
  end

  it("uses a session once", function()
    local servers = server_context()
    assert.is_false(resumes(servers, { peer = "once" }))
    local one, two = open(servers, { peer = "once" }), open(servers, { peer = "once" })
    assert.is_true(one.info.resumed)
    assert.is_false(two.info.resumed)
    one:close()
    two:close()
  end)

  it("is of one server, and of all that was asked of it", function()
    local servers = server_context()
    local own, own_key = tls.mint { "client.example.org" }
    local lax = { verify = false }
    local pin = open(servers).info.peer.pin
    for i, more in ipairs {
      { peer = "elsewhere 465" }, { server_name = "mx.example.org" }, { verify = true }, { tls_min = "1.3" },
      { ca_path = "spec" }, { ca_file = cert .. "\n" }, { client_cert = own, client_key = own_key }, { pins = { pin } }, lax,
    } do
      local before = { peer = "of all " .. i }
      assert.is_false(resumes(servers, before))
      more.peer = more.peer or before.peer
      assert.is_false(resumes(servers, more), i)
      -- that the other one did not push it out shows that it was another's place
      assert.is_true(resumes(servers, before), i)
      assert.is_true(resumes(servers, more), i)
    end
  end)

  it("holds the server to a pin, also when resuming", function()
    local servers = server_context()
    local pin = open(servers).info.peer.pin
    local pinned = { peer = "pinned", pins = { ("A"):rep(43) .. "=", pin } }
    assert.are.same({ false, true }, { resumes(servers, pinned), resumes(servers, pinned) })
  end)

  it("forgets after an hour", function()
    local servers, now = server_context(), core.now
    assert.is_false(resumes(servers, { peer = "late" }))
    core.now = function() return now() + 3599 end
    local in_time = resumes(servers, { peer = "late" })
    core.now = function() return now() + 3599 + 3601 end
    local too_late = resumes(servers, { peer = "late" })
    core.now = now
    assert.are.same({ true, false }, { in_time, too_late })
  end)

  it("has an end", function()
    local servers = server_context()
    assert.is_false(resumes(servers, { peer = "first" }))
    for i = 1, 64 do assert.is_false(resumes(servers, { peer = "crowd " .. i })) end
    assert.is_false(resumes(servers, { peer = "first" }))
    assert.is_true(resumes(servers, { peer = "crowd 64" }))
  end)

  it("needs to know whom it talks to, and nobody else's context", function()
    local servers = server_context()
    local function bare() return assert(transport.wrap(pipe_to(servers), { ca_file = cert, server_name = "mx.example.org" }, 0)) end
    local context = assert(transport.context { ca_file = cert })
    for _ = 1, 2 do
      local pipe = bare()
      assert.is_false(pipe.info.resumed)
      pipe:read(core.now() + 60)
      pipe:close()
      assert.is_false(resumes(servers, { context = context, peer = "context" }))
    end
  end)

  it("keeps nothing of a server that was not the pinned one", function()
    local servers = server_context()
    local wrong = { peer = "wrong", pins = { ("A"):rep(43) .. "=" } }
    for _ = 1, 2 do
      local pipe, kind, reason = transport.wrap(pipe_to(servers), options(wrong), core.now() + 60)
      assert.is_nil(pipe)
      assert.are.equal("tls", kind)
      assert.is_truthy(reason:find("not one that was pinned", 1, true))
    end
  end)
end)

describe("smtp.send", function()
  for _, mode in ipairs { "implicit", "starttls" } do
    it("resumes what the last one left: " .. mode, function()
      local server = assert(smtp.server { tls = mode })
      local function send(more)
        local all = { host = "127.0.0.1", port = server.port, tls = mode, ca_file = server.certificate, from = "ada@example.org",
          to = "grace@example.org", text = "hi" }
        for name, value in pairs(more or {}) do all[name] = value end
        local receipt, err = together.run(function() return smtp.send(all) end, server)
        return assert(receipt, err).tls.resumed
      end
      assert.are.same({ false, true, true }, { send(), send(), send() })
      assert.is_false(send { verify = false })
      assert.is_true(send { verify = false })
      assert.is_true(send())
      assert.is_false(send { server_name = "localhost" })
      local seen = {}
      for i, letter in ipairs(server.inbox) do seen[i] = letter.tls.resumed end
      assert.are.same({ false, true, true, false, true, true, false }, seen)
      server:close()
    end)
  end
end)

describe("Postfix #real", function()
  local server, reason

  setup(function() server, reason = postfix.start() end)
  teardown(function() postfix.stop() end)

  it("resumes", function()
    if not server then pending(reason) end
    local function send()
      local receipt = assert(smtp.send {
        host = "localhost", port = server.smtps_port, tls = "implicit", ca_file = server.ca_file, username = "user",
        password = "pass word", from = "ada@example.test", to = "user@example.test", text = "hi", timeout = 60,
      })
      assert.is_truthy(postfix.wait_for_message(server.maildir, receipt.message_id))
      return receipt.tls.resumed
    end
    -- it gives no new ticket to a connection that was resumed
    assert.are.same({ false, true, false, true }, { send(), send(), send(), send() })
  end)
end)
