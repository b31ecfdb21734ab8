local core = require "smtp.core"
local loopback = require "spec.support.loopback"
local pieces = require "spec.support.pieces"
local play = require "spec.support.play"
local proxy = require "smtp.transport.proxy"
local smtp = require "smtp"
local socket = require "smtp.transport.socket"
local together = require "spec.support.together"

local GREETING = "220 mail.example.org ESMTP\r\n"
local BOUND = "\5\0\0\1\127\0\0\1\4\210" -- SOCKS: connected, from 127.0.0.1 port 1234
local FINE = "HTTP/1.1 200 Connection established\r\n\r\n"

local function held(user, password)
  return user and function() return user, password end
end

-- A transport whose one connection gives `parts`, one a read, and then ends with `last`.
local function scripted(parts, last)
  local pipe = { written = "" }
  local at = 0
  local methods = {}
  function methods.read()
    at = at + 1
    if parts[at] then return parts[at] end
    return nil, last or "closed", "the peer is gone"
  end
  function methods.write(self, bytes)
    self.written = self.written .. bytes
    return true
  end
  function methods.peek() return parts[at + 1] and "data" or "idle" end
  function methods.close(self) self.closed = true end
  setmetatable(pipe, { __index = methods })
  return { connect = function(host, port)
    pipe.host, pipe.port = host, port
    return pipe
  end, pipe = pipe }
end

-- What a proxy of a kind makes of a script.
local function through(kind, parts, given)
  given = given or {}
  local transport = scripted(parts, given.last)
  local via = { kind = kind, host = "proxy.example.org", port = 1080, credentials = held(given.user, given.password) }
  local pipe, why, reason, temporary, hint =
    proxy.connect(transport, via, given.host or "mail.example.org", given.port or 587, {}, core.now() + 60)
  assert(pipe or transport.pipe.closed, "the connection was left open")
  return pipe, why, reason, temporary, hint, transport.pipe.written
end

-- All that can still be read.
local function rest(pipe)
  local parts = {}
  while pipe:peek() == "data" do parts[#parts + 1] = pipe:read(0) end
  return table.concat(parts)
end

describe("SOCKS 5", function()
  it("asks for the server by the address it was given, and leaves names to the proxy", function()
    local resolve = core.resolve
    core.resolve = function() error "a look-up" end -- luacheck: ignore
    local fine, why = pcall(function()
      for host, expected in pairs {
        ["mail.example.org"] = "\3\16mail.example.org",
        ["localhost"] = "\3\9localhost",
        ["192.0.2.25"] = "\1\192\0\2\25",
        ["192.0.2.256"] = "\3\11" .. "192.0.2.256",
        ["1.2.3"] = "\3\5" .. "1.2.3",
        ["::1"] = "\4" .. ("\0"):rep(15) .. "\1",
        ["2001:db8::25:1"] = "\4\32\1\13\184" .. ("\0"):rep(8) .. "\0\37\0\1",
        ["1:2:3:4:5:6:7:8"] = "\4\0\1\0\2\0\3\0\4\0\5\0\6\0\7\0\8",
        ["2001:DB8::"] = "\4\32\1\13\184" .. ("\0"):rep(12),
        ["::ffff:192.0.2.1"] = "\4" .. ("\0"):rep(10) .. "\255\255\192\0\2\1",
        -- no addresses: the proxy may say so
        ["1:2:3:4:5:6:7"] = "\3\13" .. "1:2:3:4:5:6:7",
        ["1:2:3:4:5:6:7:8:9"] = "\3\17" .. "1:2:3:4:5:6:7:8:9",
        ["12345::"] = "\3\7" .. "12345::",
        [":::1"] = "\3\4:::1",
        ["1::2::3"] = "\3\7" .. "1::2::3",
        ["fe80::1%lo"] = "\3\10fe80::1%lo",
        [("x"):rep(255)] = "\3\255" .. ("x"):rep(255),
      } do
        local pipe, _, _, _, _, written = through("socks5", { "\5\0", BOUND }, { host = host, port = 587 })
        assert(pipe, host)
        assert.are.equal("\5\1\0" .. "\5\1\0" .. expected .. "\2\75", written, host)
      end
    end)
    core.resolve = resolve -- luacheck: ignore
    assert(fine, why)
  end)

  it("logs in with user name and password where the proxy wants it", function()
    local asked = "\5\1\0\3\16mail.example.org\2\75"
    local pipe, _, _, _, _, written = through("socks5", { "\5\2", "\1\0", BOUND }, { user = "ada", password = "secret" })
    assert(pipe)
    assert.are.equal("\5\2\0\2" .. "\1\3ada\6secret" .. asked, written)
    pipe, _, _, _, _, written = through("socks5", { "\5\0", BOUND }, { user = "ada", password = "secret" })
    assert(pipe)
    assert.are.equal("\5\2\0\2" .. asked, written)
  end)

  for _, case in ipairs {
    -- what the proxy says, kind, words, temporary; the login given
    { { "\5\255" }, "auth", "wants a login", nil },
    { { "\5\255" }, "auth", "neither", nil, "ada" },
    { { "\5\2", "\1\1" }, "auth", "refused the user name or password", nil, "ada" },
    { { "\5\2", "\1\255" }, "auth", "refused the user name or password", nil, "ada" },
    { { "\5\2" }, "protocol", "not offered", nil },
    { { "\5\1" }, "protocol", "not offered", nil, "ada" },
    { { "\4\0" }, "protocol", "does not speak SOCKS 5" },
    { { "HTTP/1.1 400 Bad Request\r\n\r\n" }, "protocol", "does not speak SOCKS 5" },
    { { "220 mail.example.org ESMTP\r\n" }, "protocol", "does not speak SOCKS 5" },
    { { "\5\2", "\5\0" }, "protocol", "not SOCKS 5", nil, "ada" },
    { { "\5\0", "\0\90" }, "protocol", "not SOCKS 5" },
    { { "\5\0", "\5\0\0\2xxxxxx" }, "protocol", "unknown type of address" },
    { { "\5\0", "\5\1\0\1" }, "connect", "the proxy failed", true },
    { { "\5\0", "\5\2\0\1" }, "connect", "do not allow it", false },
    { { "\5\0", "\5\3\0\1" }, "connect", "network unreachable", true },
    { { "\5\0", "\5\4\0\1" }, "connect", "host unreachable", true },
    { { "\5\0", "\5\5\0\1" }, "connect", "connection refused", true },
    { { "\5\0", "\5\6\0\1" }, "connect", "no answer in time", true },
    { { "\5\0", "\5\7\0\1" }, "connect", "opens no connections", false },
    { { "\5\0", "\5\8\0\1" }, "connect", "type of address", false },
    { { "\5\0", "\5\9\0\1" }, "connect", "code 9", false },
    { { "\5\0", "\5\255" }, "connect", "code 255", false },
  } do
    local title = table.concat(case[1]):gsub("[^%w ]", function(byte) return ("<%d>"):format(byte:byte()) end)
    it(("%s is %q"):format(title, case[3]), function()
      local pipe, kind, reason, temporary, hint, written = through("socks5", case[1], { user = case[5], password = "hunter2" })
      assert.is_nil(pipe)
      assert.are.same({ case[2], case[4] }, { kind, temporary })
      assert.is_truthy(reason:find(case[3], 1, true), reason)
      assert.are.equal(1, (reason:find("proxy proxy.example.org port 1080: ", 1, true)))
      assert.are.equal(kind == "connect" and 1 or 0, select(2, reason:gsub("mail%.example%.org port 587", "")))
      assert.are.equal(kind == "auth", hint ~= nil)
      -- a login goes to a proxy that asked for one, and no other
      assert.are.equal(case[5] ~= nil and case[1][1] == "\5\2", written:find("hunter2", 1, true) ~= nil)
    end)
  end

  it("loses nothing of what the server says, however it comes", function()
    for _, bound in ipairs { BOUND, "\5\0\0\3\3abc\0\25", "\5\0\0\3\0\0\25", "\5\0\0\4" .. ("x"):rep(18) } do
      local all = "\5\2" .. "\1\0" .. bound .. GREETING
      for _, way in ipairs(pieces.ways(all)) do
        local pipe = assert(through("socks5", way, { user = "ada", password = "secret" }))
        assert.are.equal(GREETING, rest(pipe))
      end
    end
  end)

  it("cut short anywhere is an error", function()
    local all = "\5\2" .. "\1\0" .. "\5\0\0\3\3abc\0\25"
    for length = 0, #all - 1 do
      for _, last in ipairs { "closed", "timeout" } do
        local way = length > 0 and { all:sub(1, length) } or {}
        local pipe, kind, reason = through("socks5", way, { user = "ada", password = "secret", last = last })
        assert.are.same({ nil, last }, { pipe, kind })
        assert.is_truthy(reason:find(last == "closed" and "the proxy closed" or "did not answer in time", 1, true), reason)
      end
    end
  end)
end)

describe("HTTP CONNECT", function()
  it("asks for the server by the name it was given", function()
    for host, target in pairs {
      ["mail.example.org"] = "mail.example.org:587", ["192.0.2.25"] = "192.0.2.25:587", ["::1"] = "[::1]:587",
    } do
      local pipe, _, _, _, _, written = through("http", { FINE }, { host = host })
      assert(pipe)
      assert.are.equal(("CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n"):format(target, target), written)
    end
    local _, _, _, _, _, written = through("http", { FINE }, { user = "Aladdin", password = "open sesame" })
    assert.is_truthy(written:find("\r\nProxy%-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n\r\n$"))
    _, _, _, _, _, written = through("http", { FINE }, { user = ("x"):rep(300), password = "" })
    assert.is_truthy(written:find(" " .. core.base64(("x"):rep(300) .. ":") .. "\r\n", 1, true))
  end)

  it("takes the header and nothing behind it", function()
    for _, header in ipairs {
      FINE, "HTTP/1.0 200 OK\r\n\r\n", "HTTP/1.1 200\r\n\r\n", "HTTP/1.1 200 \r\n\r\n", "HTTP/1.1 200 OK\n\n",
      "HTTP/1.1 200 OK\r\nVia: 1.1 proxy\r\nX: a\r\n folded\r\n\tagain\r\n\r\n",
      -- these mean nothing in such an answer (RFC 9110 9.3.6)
      "HTTP/1.1 200 OK\r\nContent-Length: 10\r\nTransfer-Encoding: chunked\r\n\r\n",
      "HTTP/1.1 100 Continue\r\n\r\n" .. FINE, "HTTP/1.1 100 Continue\r\nX: y\r\n\r\nHTTP/1.1 103 Early\r\n\r\n" .. FINE,
      "HTTP/1.1 204 No Content\r\n\r\n",
    } do
      for _, greeting in ipairs { GREETING, "\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", "\0", "" } do
        for _, way in ipairs(pieces.ways(header .. greeting)) do
          local pipe, kind, reason = through("http", way)
          assert(pipe, kind and kind .. reason)
          assert.are.equal(greeting, rest(pipe))
        end
      end
    end
  end)

  for _, case in ipairs {
    { "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n\r\n<html>", "auth", "wants a login" },
    { "HTTP/1.1 407 No\r\n\r\n", "auth", "refused the user name or password", nil, "ada" },
    { "HTTP/1.1 401 Unauthorized\r\n\r\n", "auth", "refused the user name or password", nil, "ada" },
    { "HTTP/1.1 403 Forbidden\r\n\r\n", "connect", "status 403", false },
    { "HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n", "connect", "status 302", false },
    { "HTTP/1.1 500 hunter2 again\r\n\r\n", "connect", "status 500", true, "ada" },
    { "HTTP/1.1 502 Bad Gateway\r\n\r\n", "connect", "status 502", true },
    { "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 No\r\n\r\n", "connect", "status 503", true },
    { "220 mail.example.org ESMTP\r\n", "protocol", "does not speak HTTP" },
    { "\5\255", "protocol", "does not speak HTTP" },
    { "HTTP/2 200 OK\r\n\r\n", "protocol", "does not speak HTTP" },
    { "HTTP/1.1 2000 OK\r\n\r\n", "protocol", "not HTTP" },
    { "HTTP/1.1 20 OK\r\n\r\n", "protocol", "not HTTP" },
    { "HTTP/1.1  200 OK\r\n\r\n", "protocol", "not HTTP" },
    { "HTTP/1.1\r\n\r\n", "protocol", "not HTTP" },
    { "HTTP/1.1 200 OK\r\nX: " .. ("x"):rep(16384), "protocol", "larger than 16 KB" },
    { "HTTP/1.1 200 OK\r\nX: " .. ("x"):rep(16384) .. "\r\n\r\n", "protocol", "larger than 16 KB" },
    { ("HTTP/1.1 100 Continue\r\n\r\n"):rep(1000) .. FINE, "protocol", "larger than 16 KB" },
  } do
    play.both(it, ("%s is %q"):format(case[1]:sub(1, 40):gsub("[%c]", "."), case[3]), function(dribble)
      local parts = pieces.ways(case[1], 1)[dribble and 2 or 1]
      local pipe, kind, reason, temporary, hint = through("http", parts, { user = case[5], password = "hunter2" })
      assert.is_nil(pipe)
      assert.are.same({ case[2], case[4] }, { kind, temporary })
      assert.is_truthy(reason:find(case[3], 1, true), reason)
      assert.is_nil(reason:find("hunter2", 1, true))
      assert.are.equal(kind == "auth", hint ~= nil)
    end)
  end

  it("cut short anywhere is an error", function()
    for length = 0, #FINE - 1 do
      for _, last in ipairs { "closed", "timeout" } do
        local pipe, kind = through("http", length > 0 and { FINE:sub(1, length) } or {}, { last = last })
        assert.are.same({ nil, last }, { pipe, kind })
      end
    end
  end)
end)

-- A proxy in this process: it takes any connection, asks for it, and leads to `port` here whatever was asked.
local function living(kind, port, seen)
  local listener = loopback.listen()
  seen.asked, seen.port = {}, listener.port

  local function serve(pipe)
    local asked = ""
    local function more() asked = asked .. assert(pipe:read(math.huge)) end
    if kind == "socks5" then
      while #asked < 3 do more() end
      pipe:write("\5\0", math.huge)
      asked = ""
      repeat more() until #asked >= 5 and #asked >= 7 + asked:byte(5)
      pipe:write(BOUND, math.huge)
      asked = asked:sub(6, 5 + asked:byte(5))
    else
      repeat more() until asked:find("\r\n\r\n", 1, true)
      pipe:write(FINE, math.huge)
      asked = asked:match("^CONNECT (%S+):%d+ ")
    end
    seen.asked[#seen.asked + 1] = asked
    local server = assert(socket.new().connect("127.0.0.1", port, {}, core.now() + 60))
    local ways = { { pipe, server }, { server, pipe } }
    while true do
      for _, way in ipairs(ways) do
        local bytes, why = way[1]:read(0)
        if bytes then way[2]:write(bytes, math.huge) end
        if why == "closed" then
          pipe:close()
          server:close()
          return
        end
      end
      coroutine.yield()
    end
  end

  return function()
    local clients = {}
    while not seen.over do
      local sock = listener.sock:accept()
      if sock then
        local pipe = socket.pipe(sock)
        clients[#clients + 1] = smtp.task(serve, pipe)
      end
      for _, client in ipairs(clients) do client:step() end
      coroutine.yield()
    end
    listener.close()
  end
end

-- Runs `call` with options that lead to `server` through a living proxy.
local function led(kind, server, given, call)
  local seen = {}
  local proxied = living(kind, server.port, seen)
  local all = { host = "mail.example.org", port = 2525, proxy = ("%s://127.0.0.1:%d"):format(kind, seen.port),
    helo = "client.example.org", from = "ada@example.org", to = "grace@example.org", text = "Hello" }
  for name, value in pairs(given) do all[name] = value end
  local resolve = core.resolve
  core.resolve = function(host, ...) -- luacheck: ignore
    assert(host == "127.0.0.1", "looked up here: " .. host)
    return resolve(host, ...)
  end
  local fine, results = pcall(together.all, { function()
    local receipt, err = call(all)
    seen.over = true
    return receipt, err
  end, proxied }, server)
  core.resolve = resolve -- luacheck: ignore
  if not fine then error(results, 0) end
  return results[1][1], results[1][2], seen
end

for _, kind in ipairs { "socks5", "http" } do
  describe("through a proxy, " .. kind, function()
    it("a message is sent, and the server's name is not looked up here", function()
      local server = assert(smtp.server {})
      local receipt, err, seen = led(kind, server, { tls = "none" }, smtp.send)
      assert(receipt, err)
      assert.are.same({ "mail.example.org" }, seen.asked)
      assert.are.equal(1, #server.inbox)
      server:close()
    end)

    it("TLS is the server's, and so is the name in its certificate", function()
      for _, tls in ipairs { "implicit", "starttls" } do
        local server = assert(smtp.server { tls = tls, host = "127.0.0.1" })
        local given = { tls = tls, ca_file = server.certificate, host = "localhost" }
        local receipt, err = led(kind, server, given, smtp.send)
        assert(receipt, err)
        assert.are.equal("TLSv1.3", receipt.tls.version)
        given.host = "mail.example.org"
        receipt, err = led(kind, server, given, smtp.send)
        assert.is_nil(receipt)
        assert.are.same({ "tls", "tls" }, { err.kind, err.stage })
        server.failure = nil
        server:close()
      end
    end)

    it("a port that waits for TLS is found out through it too", function()
      local server = assert(smtp.server { tls = "implicit" })
      local session, err, seen = led(kind, server, { timeout = 60 }, function(all)
        all.from, all.to, all.text = nil, nil, nil
        return smtp.connect(all)
      end)
      assert.is_nil(session)
      assert.are.same({ "tls", "greeting" }, { err.kind, err.stage })
      assert.are.same({ "mail.example.org", "mail.example.org" }, seen.asked)
      server:close()
    end)
  end)
end

describe("a proxy that fails", function()
  local function fails(given)
    local session = assert(smtp.session(given))
    local ok, err = session:connect()
    assert.is_nil(ok)
    assert.are.equal("proxy", err.stage)
    assert.are.equal("dead", session.state)
    return err, session
  end

  it("is told from a server that does", function()
    local gone = loopback.listen()
    gone.close()
    local err = fails { host = "mail.example.org", proxy = "socks5://127.0.0.1:" .. gone.port }
    assert.are.same({ "connect", true, "check the host and port in proxy" }, { err.kind, err.temporary, err.hint })
    assert.are.equal(("proxy 127.0.0.1 port %d: Connection refused"):format(gone.port), err.reason)
    local silent = loopback.listen()
    for _, kind in ipairs { "socks5", "http" } do
      err = fails { host = "mail.example.org", proxy = ("%s://127.0.0.1:%d"):format(kind, silent.port), timeout = 0.05 }
      assert.are.same({ "timeout", true }, { err.kind, err.temporary })
    end
    silent.close()
  end)

  it("shows its user name and password nowhere", function()
    local memory = require "smtp.transport.memory"
    local login = core.base64 "ada:hunter2"
    for _, status in ipairs { 407, 500 } do
      local transport = memory.new { "C: CONNECT mail.example.org:587 HTTP/1.1", "C: Host: mail.example.org:587",
        "C: Proxy-Authorization: Basic " .. login, "C: ",
        ("S: HTTP/1.1 %d ada hunter2 %s"):format(status, login), "S: X: hunter2", "S: " }
      local err, session = fails { host = "mail.example.org", proxy = "http://ada:hunter2@proxy.example.org:3128",
        transport = transport, trace = true }
      assert.are.equal(status == 407 and "auth" or "connect", err.kind)
      for _, secret in ipairs { "hunter2", login } do
        assert.is_nil(play.dump(err):find(secret, 1, true))
        assert.is_nil(play.dump(session, { [transport] = true }):find(secret, 1, true))
        assert.is_nil(tostring(err):find(secret, 1, true))
      end
    end
  end)
end)

-- A program in the background; a function that ends it. Nil where it is not installed.
local function start(port, command, ...)
  local pipe = io.popen(("command -v %s >/dev/null && { env -u LD_PRELOAD %s >/dev/null 2>&1 </dev/null & echo $!; }")
    :format(command:match("^%S+"), command:format(...)))
  local pid = pipe:read("*l")
  pipe:close()
  if not pid then return nil end
  local address, deadline = loopback.address("127.0.0.1", port), core.now() + 60
  repeat
    local sock = assert(core.connect(address))
    core.wait("write", sock:fd(), deadline)
    local up = sock:connected()
    sock:close()
    if not up then core.wait("read", -1, core.now() + 0.05) end
  until up or core.now() > deadline
  return function() os.execute("kill " .. pid) end
end

describe("a real proxy #real", function()
  local config = os.tmpname()

  for _, case in ipairs {
    { "socks5", "microsocks", function(port)
      return start(port, "microsocks -i 127.0.0.1 -p %d -u ada -P secret", port)
    end },
    { "http", "tinyproxy", function(port)
      local file = assert(io.open(config, "w"))
      file:write(("Port %d\nListen 127.0.0.1\nBasicAuth ada secret\nLogLevel Critical\n"):format(port))
      file:close()
      return start(port, "tinyproxy -d -c %s", config)
    end },
  } do
    it(case[2] .. " leads to the server, or says why not", function()
      local port = loopback.port()
      local stop = case[3](port)
      if not stop then return pending(("NO %s: install it with spec/support/install.sh test"):format(case[2]:upper())) end
      local ran, why = pcall(function()
        local function url(login) return ("%s://%s127.0.0.1:%d"):format(case[1], login, port) end
        local server = assert(smtp.server { host = "localhost", tls = "starttls" })
        local raw = "Subject: Hello\r\n\r\n" .. ("Hello.\r\n"):rep(100000)
        local given = { host = "localhost", port = server.port, ca_file = server.certificate, proxy = url "ada:secret@",
          from = "ada@example.org", to = "grace@example.org", timeout = 60, raw = raw }
        local function send(name, value)
          local all = {}
          for k, v in pairs(given) do all[k] = v end
          if name then all[name] = value end
          return together.run(function() return smtp.send(all) end, server)
        end
        for _, host in ipairs { "localhost", server.host } do
          assert(send("host", host))
        end
        assert.are.equal(2, #server.inbox)
        for _, letter in ipairs(server.inbox) do assert(letter.data == raw) end
        for _, login in ipairs { "", "ada:wrong@" } do
          local _, err = send("proxy", url(login))
          assert.are.same({ "auth", "proxy", false }, { err.kind, err.stage, err.temporary }, tostring(err))
        end
        for _, other in ipairs { { "port", loopback.port() }, { "host", "no-such-host.invalid" } } do
          local _, err = send(other[1], other[2])
          assert.are.same({ "connect", "proxy", true }, { err.kind, err.stage, err.temporary }, tostring(err))
        end
        server:close()
      end)
      stop()
      os.remove(config)
      assert(ran, why)
    end)
  end
end)

describe("over a real socket", function()
  for _, kind in ipairs { "http", "socks5" } do
    it("a greeting that comes in one packet with the proxy's answer is read: " .. kind, function()
      local listener = loopback.listen()
      local peer
      -- Calls a method of a socket until it has something.
      local function wait_for(sock, method)
        while true do
          local got, why = sock[method](sock)
          if got then return got end
          assert.are.equal("again", why)
          coroutine.yield()
        end
      end
      local server = coroutine.create(function()
        peer = wait_for(listener.sock, "accept")
        wait_for(peer, "read")
        if kind == "socks5" then
          peer:write "\5\0"
          wait_for(peer, "read")
        end
        peer:write((kind == "socks5" and BOUND or FINE) .. GREETING)
      end)
      local session = assert(smtp.session { host = "mail.example.org", tls = "none", timeout = 60,
        proxy = ("%s://127.0.0.1:%d"):format(kind, listener.port) })
      local task = smtp.task(function() return session:connect() end)
      local stop = core.now() + 60
      local step, reply, err
      repeat
        step, reply, err = task:step()
        if coroutine.status(server) ~= "dead" then assert(coroutine.resume(server)) end
        core.poll({}, {}, core.now() + 0.002)
      until step == "done" or core.now() > stop
      assert.are.equal("done", step)
      assert.are.equal(220, assert(reply, err).code)
      session:close()
      peer:close()
      listener.close()
    end)
  end
end)
