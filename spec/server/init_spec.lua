-- Of: server/init, server/connection, server/commands, server/extension, server/path
local clock = require "spec.support.clock"
local core = require "smtp.core"
local loopback = require "spec.support.loopback"
local raw = require "spec.support.raw"
local smtp = require "smtp"

local PATIENCE = 60 -- seconds after which something hangs

local server, clients

-- Each spec's server and clients are gone when it ends, however it ends.
local function serve(options)
  server = assert(smtp.server(options or {}))
  return server
end

local function keep(client)
  clients[#clients + 1] = client
  return client
end

-- A transaction up to its content.
local ENVELOPE = "MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.org>\r\n"

local function connect() return keep(raw.connect(server)) end
local function greeted() return keep(raw.greeted(server)) end
local function addressed() return keep(raw.addressed(server)) end

-- Steps the server until something is so; a busy machine may take its time.
local function run_until(holds)
  local stop = core.now() + PATIENCE
  while not holds() and core.now() < stop do server:step(0.01) end
  assert.truthy(holds())
end

-- ... and until it has that many connections.
local function run_until_connected(count)
  run_until(function() return #server.connections == count end)
end

local function descriptors() return loopback.descriptors(true) end

before_each(function()
  clients = {}
end)

after_each(function()
  for _, client in ipairs(clients) do client:close() end
  if server then server:close() end
  server = nil
end)

describe("smtp.server's options", function()
  local function refused(options, words)
    local ok, message = pcall(smtp.server, options)
    assert.is_false(ok)
    assert.truthy(tostring(message):find(words, 1, true), message)
  end

  it("raise where a name or a type is wrong", function()
    refused({ on_mesage = print }, 'unknown option "on_mesage"; did you mean "on_message"?')
    refused({ max_connection = 1 }, 'did you mean "max_connections"?')
    refused({ port = "25" }, 'option "port" must be a number')
    refused({ tls = "yes" }, '"none", "starttls" or "implicit"')
    refused({ transport = { connect = print } }, "this transport cannot listen")
    refused("localhost", "expected a table")
  end)

  it("give an error where a value cannot work", function()
    local function input(options)
      local made, err = smtp.server(options)
      assert.is_nil(made)
      assert.are.equal("input", err.kind)
      assert.are.equal("not_sent", err.outcome)
    end
    input { port = 65536 }
    input { port = 1.5 }
    input { size = 0 }
    input { size = math.huge }
    input { timeout = 0 / 0 }
    input { timeout = 0 }
    input { max_connections = 0 }
    input { key = "key.pem", tls = "implicit" }
    local made, err = smtp.server { tls = "implicit", cert = "/nonexistent/cert.pem" }
    assert.is_nil(made)
    assert.are.equal("tls", err.kind)
  end)

  it("name a port that is taken", function()
    serve()
    local made, err = smtp.server { port = server.port }
    assert.is_nil(made)
    assert.are.equal("connect", err.kind)
    assert.truthy(err.reason:find("port " .. server.port, 1, true))
  end)

  it("name a host that is none, with TLS or without", function()
    for _, tls in ipairs { "none", "implicit" } do
      local made, err = smtp.server { tls = tls, host = "bad host" }
      assert.is_nil(made)
      assert.are.equal("resolve", err.kind)
    end
  end)

  it("take a host by its name", function()
    serve { host = "localhost" }
    assert.truthy(greeted())
  end)

  it("put the host into the certificate made for the run", function()
    serve { host = "127.0.0.2", tls = "implicit" }
    local client = connect()
    local wrap = require "smtp.transport.tls".wrap
    local pipe, _, text = wrap(client.pipe, { ca_file = server.certificate, server_name = "127.0.0.2" }, core.now() + 60)
    assert.truthy(pipe, text)
    client.pipe = pipe
  end)
end)

describe("the server's dialogue", function()
  it("takes a message", function()
    serve()
    local client = connect()
    assert.truthy(client:reply():find("^220 %S+ ESMTP$"))
    local offer = client:say("EHLO client.example.org")
    for keyword in ("PIPELINING,SIZE 67108864,8BITMIME,SMTPUTF8,ENHANCEDSTATUSCODES,CHUNKING"):gmatch("[^,]+") do
      assert.truthy((offer .. "\n"):find("250[ -]" .. keyword .. "\n"), keyword)
    end
    assert.falsy(offer:find("AUTH", 1, true))
    assert.falsy(offer:find("STARTTLS", 1, true))
    assert.truthy(client:say("MAIL FROM:<ada@example.org> SIZE=20 BODY=8BITMIME"):find("^250 2%.1%.0 "))
    assert.truthy(client:say("RCPT TO:<grace@example.org>"):find("^250 2%.1%.5 "))
    assert.truthy(client:say("RCPT TO:<jo@example.test>"):find("^250 "))
    assert.truthy(client:say("DATA"):find("^354 "))
    client:send("Subject: hello\r\n\r\n..\r\n.. two\r\n\1\255\r\n")
    assert.truthy(client:say("."):find("^250 2%.0%.0 Ok: queued as %x+$"))
    assert.truthy(client:say("QUIT"):find("^221 2%.0%.0 "))
    assert.is_true(client:ended())
    assert.are.same({
      {
        from = "ada@example.org", to = { "grace@example.org", "jo@example.test" },
        data = "Subject: hello\r\n\r\n.\r\n. two\r\n\1\255\r\n", params = { SIZE = "20", BODY = "8BITMIME" },
      },
    }, server.inbox)
    assert.is_nil(server.failure)
  end)

  it("takes several messages on one connection, an empty one too", function()
    serve()
    local client = greeted()
    for _ = 1, 3 do
      client:send("MAIL FROM:<>\r\nRCPT TO:<Postmaster>\r\nDATA\r\n")
      assert.are.equal("250 250 354", client:codes(3))
      assert.truthy(client:say("."):find("^250 "))
    end
    assert.are.equal(3, #server.inbox)
    assert.are.equal("", server.inbox[3].data)
    assert.are.equal("", server.inbox[3].from)
    assert.are.same({ "Postmaster" }, server.inbox[3].to)
  end)

  -- each: what is said on a new connection, and the codes that answer it
  local ORDER = {
    { { "MAIL FROM:<a@example.org>" }, "503" },
    { { "RCPT TO:<a@example.org>" }, "503" },
    { { "DATA" }, "503" },
    { { "HELO" }, "501" },
    { { "EHLO" }, "501" },
    { { "EHLO  " }, "501" },
    { { "LHLO x" }, "500" },
    { { "HELO x", "MAIL FROM:<a@example.org>" }, "250 250" },
    { { "EHLO x", "RCPT TO:<a@example.org>" }, "250 503" },
    { { "EHLO x", "DATA" }, "250 503" },
    { { "EHLO x", "MAIL FROM:<a@example.org>", "DATA" }, "250 250 503" },
    { { "EHLO x", "MAIL FROM:<a@example.org>", "MAIL FROM:<b@example.org>" }, "250 250 503" },
    { { "EHLO x", "MAIL FROM:<a@example.org>", "RSET", "RCPT TO:<a@example.org>" }, "250 250 250 503" },
    { { "EHLO x", "MAIL FROM:<a@example.org>", "EHLO x", "RCPT TO:<a@example.org>" }, "250 250 250 503" },
    { { "EHLO x", "MAIL FROM:<a@example.org>", "RCPT TO:<b>", "DATA" }, "250 250 501 503" },
    { { "EHLO x", "MAIL FROM:<a@example.org>", "RCPT TO:<b@example.org>", "DATA now" }, "250 250 250 501" },
    { { "EHLO x", "MAIL FROM:<a@example.org>", "RCPT TO:<b@example.org>", "BDAT 0", "RCPT TO:<c@example.org>", "DATA" },
      "250 250 250 250 503 503" },
    { { "STARTTLS" }, "502" },
    { { "EHLO x", "AUTH PLAIN" }, "250 503" },
    { { "NOOP", "NOOP with words", "VRFY ada", "HELP", "RSET", "RSET now", "QUIT now", "TURN" },
      "250 250 252 214 250 501 501 500" },
    { { "", " NOOP", "NOOP;", "NO OP", "\255", "noop", "NoOp  " }, "500 500 500 500 500 250 250" },
  }
  for _, case in ipairs(ORDER) do
    it("answers " .. case[2] .. " to " .. table.concat(case[1], " | "):gsub("%c", "?"), function()
      serve()
      local client = connect()
      client:reply()
      local codes = {}
      for i, line in ipairs(case[1]) do codes[i] = client:say(line):sub(1, 3) end
      assert.are.equal(case[2], table.concat(codes, " "))
    end)
  end

  local PATHS = {
    { "MAIL FROM: <a@example.org>", "250" },
    { "mail from:<a@example.org>", "250" },
    { "MAIL FROM:<>", "250" },
    { "MAIL FROM:<a@example.org> AUTH=<>", "250" },
    { "MAIL FROM:<a@example.org> SIZE=1  BODY=7bit", "250" },
    { 'MAIL FROM:<"a> b\\"\\\\"@example.org> SIZE=1', "250" },
    { "MAIL FROM:<@relay.example.org,@b.example.org:a@example.org>", "250" },
    { "MAIL FROM:<a@[IPv6:2001:db8::1]>", "250" },
    { "MAIL FROM:<a@b\195\188cher.example.org> SMTPUTF8", "250" },
    { "MAIL FROM:<a@b\195\188cher.example.org>", "553" },
    { "MAIL", "501" },
    { "MAIL FROM", "501" },
    { "MAIL FROM:a@example.org", "501" },
    { "MAIL FROM:<a@example.org", "501" },
    { "MAIL FROM: < a@example.org>", "501" },
    { "MAIL FROM:<Ada <a@example.org>>", "501" },
    { "MAIL FROM:<a@example.org, b@example.org>", "501" },
    { "MAIL FROM:<a@example.org>SIZE=1", "501" },
    { "MAIL FROM:<postmaster>", "501" },
    { "MAIL TO:<a@example.org>", "501" },
    { "MAIL FROM:<a@example.org> =", "501" },
    { "MAIL FROM:<a@example.org> SIZE=", "501" },
    { "MAIL FROM:<a@example.org> SIZE=1=2", "501" },
    { "MAIL FROM:<a@example.org> SIZE=1 size=1", "501" },
    { "MAIL FROM:<a@example.org> SIZE=x", "501" },
    { "MAIL FROM:<a@example.org> SIZE", "501" },
    { "MAIL FROM:<a@example.org> BODY=BINARYMIME", "501" },
    { "MAIL FROM:<a@example.org> SMTPUTF8=1", "501" },
    { "MAIL FROM:<a@example.org> FOO=1", "555" },
    { "MAIL FROM:<a@example.org> SIZE=1001", "552" },
    { "MAIL FROM:<a@example.org> SIZE=18446744073709551616", "552" },
    { "MAIL FROM:<a@example.org> SIZE=1000", "250" },
  }
  for _, case in ipairs(PATHS) do
    it("answers " .. case[2] .. " to " .. case[1], function()
      serve { size = 1000 }
      assert.are.equal(case[2], greeted():say(case[1]):sub(1, 3))
    end)
  end

  it("refuses recipients it cannot read, and more than it wants", function()
    serve()
    local client = greeted()
    client:say("MAIL FROM:<a@example.org>")
    assert.truthy(client:say("RCPT TO:<>"):find("^501 5%.1%.3 "))
    assert.truthy(client:say("RCPT TO:<b@example.org> NOTIFY=NEVER"):find("^555 5%.5%.4 "))
    assert.truthy(client:say("RCPT TO:<b@b\195\188cher.example.org>"):find("^553 5%.6%.7 "))
    client:send(("RCPT TO:<b@example.org>\r\n"):rep(1001))
    local codes = client:codes(1001)
    assert.are.equal(("250 "):rep(1000) .. "452", codes)
  end)

  it("answers a pipelined group in one write", function()
    serve()
    local client = greeted()
    client:send(ENVELOPE .. "RCPT TO:<c>\r\nRCPT TO:<d@example.org>\r\nDATA\r\n")
    local writes = 0
    local connection = server.connections[1]
    local write = connection.pipe.write
    connection.pipe.write = function(...)
      writes = writes + 1
      return write(...)
    end
    assert.are.equal("250 250 501 250 354", client:codes(5))
    client:send("hello\r\n.\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n")
    assert.are.equal("250 250 250 354", client:codes(4))
    client:send("again\r\n.\r\nQUIT\r\n")
    assert.are.equal("250 221 closed", client:codes(3))
    assert.are.equal(3, writes)
    assert.are.equal("hello\r\n", server.inbox[1].data)
    assert.are.equal("again\r\n", server.inbox[2].data)
  end)

  it("takes everything one byte at a time", function()
    serve { auth = function(username, password) return username == "ada" and password == "secret" end }
    local client = connect()
    client:dribble("EHLO client.example.org\r\nAUTH LOGIN\r\n" .. core.base64("ada") .. "\r\n" .. core.base64("secret")
      .. "\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n..dot\r\n\r\n.\r\n"
      .. ENVELOPE .. "BDAT 4\r\na\r\n.BDAT 5 LAST\r\n\r\nQUI\r\nQUIT\r\n")
    assert.are.equal("220 250 334 334 235 250 250 354 250 250 250 250 250 500 221 closed", client:codes(16))
    assert.are.equal(".dot\r\n\r\n", server.inbox[1].data)
  end)

  it("ends a connection that makes nothing but mistakes, of a stranger soon", function()
    serve()
    local client = greeted()
    client:send(("FOO\r\n"):rep(30))
    assert.are.equal(("500 "):rep(20) .. "421 closed", client:codes(22))
    client = connect()
    client:send(("FOO\r\n"):rep(30))
    assert.are.equal("220 " .. ("500 "):rep(6) .. "421 closed", client:codes(9))
  end)

  it("forgives the mistakes made before a message that it took", function()
    serve()
    local client = greeted()
    for _ = 1, 25 do
      client:send("NOPE\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n.\r\n")
      assert.are.equal("500 250 250 354 250", client:codes(5))
    end
  end)

  it("takes no refused recipient for a mistake", function()
    serve()
    local client = greeted()
    client:say("MAIL FROM:<a@example.org>")
    for _ = 1, 10 do
      client:send("RCPT TO:<typo>\r\nRCPT TO:<j\195\182rg@example.org>\r\nRCPT TO:<a@example.org> X=1\r\n")
      assert.are.equal("501 553 555", client:codes(3))
    end
    assert.truthy(client:say("RCPT TO:<b@example.org>"):find("^250 "))
  end)

  it("ends at the first line of a web browser's request, whatever its method", function()
    serve()
    for _, line in ipairs {
      "GET / HTTP/1.1", "POST /mail HTTP/1.1", "PUT / HTTP/1.0", "OPTIONS * HTTP/1.1", "PRI * HTTP/2.0", "GET /",
      "EHLO / HTTP/1.1", "MAIL / HTTP/1.1", "M-SEARCH * HTTP/1.1", "noop / HTTP/1.1",
    } do
      for _, open in ipairs { connect, greeted } do
        local client = open()
        if open == connect then client:reply() end
        client:send(line .. "\r\nHost: localhost\r\n\r\nEHLO x\r\n" .. ENVELOPE .. "DATA\r\nspam\r\n.\r\n")
        assert.are.equal("421 closed", client:codes(2), line)
      end
    end
    assert.are.same({}, server.inbox)
    assert.is_nil(server.failure)
  end)

  it("refuses a name with a control byte in EHLO", function()
    serve()
    local client = connect()
    client:reply()
    for _, line in ipairs { "EHLO a\1b", "EHLO a\tb", "HELO \127", "EHLO \27[2J" } do
      assert.truthy(client:say(line):find("^501 5%.5%.4 "), line)
    end
    assert.truthy(client:say("MAIL FROM:<a@example.org>"):find("^503 "))
  end)

  it("is not slowed down by long lines", function()
    serve()
    local long = (" "):rep(60000)
    for _, line in ipairs {
      "NOOP x" .. long .. "y", "NOOP" .. long, "NOOP x" .. long, "AUTH " .. ("a"):rep(60000) .. " b c",
      "MAIL FROM:<a@example.org> " .. ("a"):rep(60000) .. "==", "MAIL FROM:<" .. ("\\"):rep(60000),
      "MAIL FROM:<" .. ('"'):rep(60001) .. ">", "MAIL FROM:<" .. ("@a,"):rep(20000) .. ">", "BDAT 1" .. long .. "x",
    } do
      -- where a line were gone through again and again this would hardly end
      local began = os.clock()
      for _ = 1, 10 do assert.truthy(greeted():say(line), line:sub(1, 20)) end
      assert.truthy(os.clock() - began < 10, line:sub(1, 20))
    end
  end)
end)

describe("the server's line ends", function()
  local BAD = {
    ["a bare LF"] = "NOOP\nNOOP\r\n", ["a bare CR"] = "NOOP\rNOOP\r\n", ["CR CR LF"] = "NOOP\r\r\n",
    ["a NUL"] = "NO\0OP\r\n", ["LF CR"] = "NOOP\n\r",
  }
  for name, bytes in pairs(BAD) do
    it("refuse " .. name .. " in a command", function()
      serve()
      local client = greeted()
      client:send(bytes)
      assert.are.equal("500 closed", client:codes(2))
      run_until_connected(0)
    end)
  end

  it("refuse a sender or recipient with more than has to be kept", function()
    serve { extensions = { "DSN" } }
    local client = greeted()
    local long = " ORCPT=rfc822;" .. ("x"):rep(3000)
    client:say("MAIL FROM:<ada@example.org>")
    assert.truthy(client:say("RCPT TO:<bob@example.test>" .. long):find("^500 5%.5%.2 the line is too long"))
    assert.truthy(client:say("RCPT TO:<bob@example.test>" .. long:sub(1, 1500)):find("^250"))
  end)

  it("refuse a line that never ends", function()
    serve()
    local client = greeted()
    client:send(("x"):rep(70000))
    assert.truthy(client:reply():find("^500 5%.5%.2 the line is too long"))
    assert.is_true(client:ended())
  end)

  -- what would end the data for a server that is not strict
  local SMUGGLED = {
    "\n.\n", "\n.\r\n", "\r.\r\n", "\r.\r", "\r\n.\n", "\r\n.\r", "\r\n.\rx\r\n", "\r\n\0.\r\n", "\n\n.\r\n",
    "\r\r\n.\n\r\n", "\r\n.\r\r\n",
  }
  for _, ending in ipairs(SMUGGLED) do
    local shown = ending:gsub("\r", "CR "):gsub("\n", "LF "):gsub("%z", "NUL ")
    it("do not end the data at " .. shown, function()
      serve()
      for _, dribble in ipairs { false, true } do
        local client = addressed()
        client:say("DATA")
        client[dribble and "dribble" or "send"](client, "Subject: x\r\n\r\nhello" .. ending
          .. "MAIL FROM:<mallory@example.org>\r\nRCPT TO:<b@example.org>\r\nDATA\r\nsmuggled\r\n.\r\n")
        local reply = client:reply()
        local bare = not ending:find("%z")
        assert.truthy(reply:find(bare and "^554 5%.6%.0 " or "^250 "), reply)
        assert.are.equal("250", client:say("NOOP"):sub(1, 3))
        client:close()
      end
      for _, letter in ipairs(server.inbox) do assert.are.equal("ada@example.org", letter.from) end
    end)
  end

  it("are checked in BDAT too, across chunks", function()
    serve()
    local client = greeted()
    local function bdat(...)
      client:send(ENVELOPE)
      local chunks = { ... }
      for i, chunk in ipairs(chunks) do
        client:send(("BDAT %d%s\r\n%s"):format(#chunk, i == #chunks and " LAST" or "", chunk))
      end
      return client:codes(2 + #chunks)
    end
    assert.are.equal("250 250 554", bdat("a\nb\r\n"))
    assert.are.equal("250 250 554", bdat("a\r\n.\rb\r\n"))
    assert.are.equal("250 250 250 554", bdat("a", "\n.\r\n"))
    assert.are.equal("250 250 250 554", bdat("a\r", "b\r\n"))
    assert.are.equal("250 250 554", bdat("a\r"))
    assert.are.equal("250 250 554", bdat("\nb\r\n"))
    assert.are.equal("250 250 250 250", bdat("a\r", "\nb"))
    assert.are.equal("250 250 250", bdat("a\r\n.\r\nb\r\n"))
    assert.are.equal("a\r\nb", server.inbox[1].data)
    assert.are.equal("a\r\n.\r\nb\r\n", server.inbox[2].data)
    assert.are.equal(2, #server.inbox)
  end)
end)

describe("the server's size", function()
  it("drains what is over it, and keeps none of it", function()
    serve { size = 100000 }
    local client = addressed()
    client:say("DATA")
    local line = ("x"):rep(998) .. "\r\n"
    for _ = 1, 20 do client:send(line:rep(100)) end
    local connection = server.connections[1]
    run_until(function() return connection.octets > 1000000 end)
    assert.are.equal(0, #connection.parts + #connection.recent)
    assert.truthy(client:say("."):find("^552 5%.3%.4 "))
    -- exactly the size is taken
    client:send(ENVELOPE .. "DATA\r\n" .. line:rep(100) .. ".\r\n")
    assert.are.equal("250 250 354 250", client:codes(4))
    client:send(ENVELOPE .. "DATA\r\n" .. line:rep(100) .. "\r\n.\r\n")
    assert.are.equal("250 250 354 552", client:codes(4))
    assert.are.equal(1, #server.inbox)
  end)

  it("joins the pieces of a message that comes in many", function()
    serve()
    local client = addressed()
    client:say("DATA")
    client:dribble(("0123456789"):rep(60))
    local connection = server.connections[1]
    assert.truthy(connection.octets >= 590)
    assert.truthy(#connection.recent < 256)
    assert.truthy(client:say("\r\n."):find("^250 "))
    assert.are.equal(("0123456789"):rep(60) .. "\r\n", server.inbox[1].data)
  end)

  it("holds for BDAT", function()
    serve { size = 1000 }
    local client = addressed()
    client:send("BDAT 600\r\n" .. ("x"):rep(600) .. "BDAT 401\r\n" .. ("y"):rep(401) .. "BDAT 4 LAST\r\nNOOPNOOP\r\n")
    assert.are.equal("250 552 503 250", client:codes(4))
    client:send(ENVELOPE .. "BDAT 100000 LAST\r\n" .. ("NOOP\r\n"):rep(16666) .. "abcd")
    assert.are.equal("250 250 552", client:codes(3))
    client:send(ENVELOPE .. "BDAT 1000 LAST\r\n" .. ("x"):rep(1000) .. "NOOP\r\n")
    assert.are.equal("250 250 250 250", client:codes(4))
    assert.are.equal(1, #server.inbox)
  end)
end)

describe("the server's BDAT", function()
  it("takes one chunk and several, with commands behind them", function()
    serve()
    local client = greeted()
    client:send(ENVELOPE .. "BDAT 7 LAST\r\nhello\r\nMAIL FROM:<c@example.org>\r\n"
      .. "RCPT TO:<d@example.org>\r\nBDAT 3\r\n.\r\nBDAT 0\r\nbdat 6\r\nQUIT\r\nBDAT 0 LAST\r\nNOOP\r\n")
    assert.are.equal("250 250 250 250 250 250 250 250 250 250", client:codes(10))
    assert.are.equal("hello\r\n", server.inbox[1].data)
    assert.are.equal(".\r\nQUIT\r\n", server.inbox[2].data)
    assert.are.equal("c@example.org", server.inbox[2].from)
  end)

  it("swallows the octets of a chunk it refuses", function()
    serve()
    local client = greeted()
    client:send("BDAT 6 LAST\r\nQUIT\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b>\r\nBDAT 6 LAST\r\nQUIT\r\nNOOP\r\n")
    assert.are.equal("503 250 501 503 250", client:codes(5))
    assert.are.equal(0, #server.inbox)
  end)

  it("is forgotten by RSET", function()
    serve()
    local client = addressed()
    client:send("BDAT 3\r\nabcRSET\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.org>\r\nBDAT 3 LAST\r\ndef")
    assert.are.equal("250 250 250 250 250", client:codes(5))
    assert.are.equal("def", server.inbox[1].data)
  end)

  for _, argument in ipairs { "", " x", " -1", " 3 FIRST", " 3LAST", " 1000000000000000", " 3 LAST LAST" } do
    it("ends the connection at BDAT" .. argument .. ": its octets cannot be told from commands", function()
      serve()
      local client = addressed()
      client:send("BDAT" .. argument .. "\r\nMAIL FROM:<mallory@example.org>\r\n")
      assert.are.equal("501 closed", client:codes(2))
    end)
  end
end)

describe("the server's AUTH", function()
  local asked

  local function serve_logins(options)
    asked = {}
    options.auth = function(username, password)
      asked[#asked + 1] = username .. ":" .. password
      return username == "ada" and password == "pass word"
    end
    return serve(options)
  end

  local function plain(authority, username, password)
    return core.base64(authority .. "\0" .. username .. "\0" .. password)
  end

  local GOOD = plain("", "ada", "pass word")

  it("is offered until the login, which MAIL needs", function()
    serve_logins {}
    local client = greeted()
    assert.truthy(client:say("EHLO x"):find("\n250 AUTH PLAIN LOGIN$"))
    assert.truthy(client:say("MAIL FROM:<a@example.org>"):find("^530 5%.7%.0 "))
    assert.truthy(client:say("AUTH PLAIN " .. GOOD):find("^235 2%.7%.0 "))
    assert.falsy(client:say("EHLO x"):find("AUTH", 1, true))
    assert.truthy(client:say("AUTH PLAIN " .. GOOD):find("^503 "))
    client:send(ENVELOPE .. "DATA\r\n.\r\n")
    assert.are.equal("250 250 354 250", client:codes(4))
    assert.are.equal("ada", server.inbox[1].auth)
    assert.are.same({ "ada:pass word" }, asked)
  end)

  it("takes PLAIN with and without an initial response, and LOGIN", function()
    serve_logins {}
    for _, lines in ipairs {
      { "AUTH PLAIN " .. GOOD }, { "auth plain " .. plain("ada", "ada", "pass word") }, { "AUTH PLAIN", GOOD },
      { "AUTH LOGIN", core.base64("ada"), core.base64("pass word") },
      { "AUTH LOGIN " .. core.base64("ada"), core.base64("pass word") },
    } do
      local client = greeted()
      for i = 1, #lines - 1 do assert.truthy(client:say(lines[i]):find("^334 ")) end
      assert.truthy(client:say(lines[#lines]):find("^235 "))
    end
    assert.are.equal("334 " .. core.base64("Username:"), greeted():say("AUTH LOGIN"))
    assert.are.equal("334 ", greeted():say("AUTH PLAIN"))
  end)

  it("refuses a wrong password, and ends after the third", function()
    serve_logins {}
    local client = greeted()
    assert.truthy(client:say("AUTH PLAIN " .. plain("", "ada", "wrong")):find("^535 5%.7%.8 "))
    assert.truthy(client:say("MAIL FROM:<a@example.org>"):find("^530 "))
    client:say("AUTH LOGIN " .. core.base64("eve"))
    assert.truthy(client:say(core.base64("pass word")):find("^535 "))
    client:send("AUTH PLAIN " .. plain("", "ada", "again") .. "\r\nAUTH PLAIN " .. GOOD .. "\r\n")
    assert.are.equal("535 421 closed", client:codes(3))
    assert.are.same({ "ada:wrong", "eve:pass word", "ada:again" }, asked)
  end)

  it("can be broken off, and refuses what is malformed, without asking", function()
    serve_logins {}
    local client = greeted()
    for _, lines in ipairs {
      { "AUTH PLAIN", "*" }, { "AUTH LOGIN", "*" }, { "AUTH LOGIN", core.base64("ada"), "*" }, { "AUTH PLAIN ==" },
      { "AUTH PLAIN =" }, { "AUTH PLAIN", "not base64!" }, { "AUTH PLAIN " .. core.base64("ada\0pass word") },
      { "AUTH PLAIN " .. plain("eve", "ada", "pass word") }, { "AUTH PLAIN " .. plain("", "", "pass word") },
      { "AUTH PLAIN " .. plain("", "ada", "") }, { "AUTH PLAIN " .. GOOD .. " " .. GOOD },
      { "AUTH PLAIN " .. plain("", "a\1da", "pass word") }, { "AUTH LOGIN", core.base64("ada\n"), GOOD },
      { "AUTH LOGIN " .. core.base64("a\0da"), GOOD }, { "AUTH LOGIN", "", GOOD }, { "AUTH LOGIN", GOOD, "" },
      { "AUTH LOGIN", core.base64("ada"), core.base64("pass\0word") },
    } do
      for i = 1, #lines - 1 do assert.truthy(client:say(lines[i]):find("^334 ")) end
      assert.truthy(client:say(lines[#lines]):find("^501 5%.5%.2 "), lines[#lines])
    end
    assert.are.same({}, asked)
    assert.truthy(client:say("AUTH"):find("^504 "))
    assert.truthy(client:say("AUTH CRAM-MD5"):find("^504 5%.5%.4 "))
    assert.truthy(client:say("AUTH PLAIN " .. GOOD):find("^235 "))
  end)

  it("comes after EHLO", function()
    serve_logins {}
    local client = connect()
    client:reply()
    assert.truthy(client:say("AUTH PLAIN " .. GOOD):find("^503 "))
  end)

  it("ends with the connection in the middle of it", function()
    serve_logins {}
    local client = greeted()
    client:say("AUTH LOGIN")
    client:close()
    run_until_connected(0)
    client = greeted()
    client:say("AUTH LOGIN")
    client:send("YWRh\n")
    assert.are.equal("500 closed", client:codes(2))
    assert.is_nil(server.failure)
  end)

  it("is not taken in clear where there is TLS", function()
    serve_logins { tls = "starttls" }
    local client = greeted()
    local offer = client:say("EHLO x")
    assert.truthy(offer:find("STARTTLS", 1, true))
    assert.falsy(offer:find("AUTH", 1, true))
    assert.truthy(client:say("AUTH PLAIN " .. GOOD):find("^538 5%.7%.11 "))
    assert.truthy(client:say("MAIL FROM:<a@example.org>"):find("^530 5%.7%.0 STARTTLS first"))
    assert.are.same({}, asked)
  end)

  it("survives a function that raises, yields, or steps the server", function()
    local how
    serve { auth = function() return how() end }
    local client = greeted()
    for _, one in ipairs {
      function() error("no directory") end, function() coroutine.yield("read", 1, 0) end, function() error({}) end,
      function() server:step(0) end, function() server:run() end,
    } do
      how = one
      server.failure = nil
      assert.truthy(client:say("AUTH PLAIN " .. GOOD):find("^454 4%.7%.0 "))
      assert.truthy(server.failure)
    end
    assert.truthy(client:say("NOOP"):find("^250 "))
  end)
end)

describe("the server's TLS", function()
  it("begins with STARTTLS, and forgets what was before", function()
    serve { tls = "opportunistic" }
    local client = addressed()
    assert.truthy(client:say("STARTTLS now"):find("^501 "))
    assert.truthy(client:say("STARTTLS"):find("^220 "))
    assert.truthy(client:encrypt())
    assert.truthy(client:say("RCPT TO:<c@example.org>"):find("^503 "))
    assert.truthy(client:say("MAIL FROM:<a@example.org>"):find("^503 "))
    assert.falsy(client:say("EHLO x"):find("STARTTLS", 1, true))
    assert.truthy(client:say("STARTTLS"):find("^503 "))
    client:send(ENVELOPE .. "DATA\r\nhello\r\n.\r\nQUIT\r\n")
    assert.are.equal("250 250 354 250 221 closed", client:codes(6))
    assert.are.equal("TLSv1.3", server.inbox[1].tls.version)
    assert.are.same({ "b@example.org" }, server.inbox[1].to)
  end)

  it("is required before a message, unless it is opportunistic", function()
    for mode, codes in pairs { starttls = "530 503 503", opportunistic = "250 250 354", none = "250 250 354" } do
      serve { tls = mode }
      local client = greeted()
      client:send(ENVELOPE .. "DATA\r\n")
      assert.are.equal(codes, client:codes(3))
      server:close()
    end
    serve { tls = "starttls" }
    local client = greeted()
    assert.truthy(client:say("MAIL FROM:<a@example.org>"):find("^530 5%.7%.0 STARTTLS first$"))
    client:send(ENVELOPE .. "BDAT 6 LAST\r\nNOOP\r\n")
    assert.are.equal("530 503 503", client:codes(3))
    assert.are.equal(0, #server.inbox)
    assert.truthy(client:say("STARTTLS"):find("^220 "))
    assert.truthy(client:encrypt())
    client:say("EHLO x")
    client:send(ENVELOPE .. "DATA\r\n.\r\n")
    assert.are.equal("250 250 354 250", client:codes(4))
  end)

  it("ends the connection where plaintext stands behind STARTTLS", function()
    serve { tls = "starttls" }
    local client = greeted()
    client:send("STARTTLS\r\nEHLO mallory\r\nMAIL FROM:<mallory@example.org>\r\n")
    assert.are.equal("501 closed", client:codes(2))
    -- where it comes a moment later it is no handshake
    client = greeted()
    assert.truthy(client:say("STARTTLS"):find("^220 "))
    client:send("EHLO mallory\r\n")
    local _, kind = client:reply(5)
    assert.are.equal("closed", kind)
    assert.are.equal(0, #server.connections)
    assert.is_nil(server.failure)
  end)

  it("may be there from the first byte", function()
    serve { tls = "implicit", auth = function(_, password) return password == "secret" end }
    local client = connect()
    assert.truthy(client:encrypt())
    assert.truthy(client:reply():find("^220 "))
    assert.truthy(client:say("EHLO x"):find("AUTH PLAIN LOGIN", 1, true))
    assert.truthy(client:say("STARTTLS"):find("^502 "))
    assert.truthy(client:say("AUTH PLAIN " .. core.base64("\0ada\0secret")):find("^235 "))
    client:send(ENVELOPE .. "DATA\r\n" .. ("x"):rep(300000) .. "\r\n.\r\n")
    assert.are.equal("250 250 354 250", client:codes(4))
    assert.are.equal(300002, #server.inbox[1].data)
  end)

  it("does not mind clients that speak something else, or nothing", function()
    serve { tls = "implicit", timeout = 0.2 }
    local wrong, silent, gone = connect(), connect(), connect()
    run_until_connected(3)
    wrong:send("EHLO x\r\n")
    gone:close()
    wrong:fill()
    local _, kind = wrong:fill()
    assert.are.equal("closed", kind)
    assert.is_true(silent:ended())
    run_until_connected(0)
    assert.is_nil(server.failure)
  end)

  it("takes the handshake one byte at a time", function()
    serve { tls = "starttls" }
    local client = greeted()
    client:say("STARTTLS")
    local inner = client.pipe
    local slow = setmetatable({
      write = function(_, bytes, deadline)
        for i = 1, #bytes do
          assert(inner:write(bytes:sub(i, i), deadline))
          server:step(0.01)
        end
        return true
      end,
    }, { __index = function(_, name) return function(_, ...) return inner[name](inner, ...) end end })
    client.pipe = slow
    assert.truthy(client:encrypt())
    assert.truthy(client:say("EHLO x"):find("^250%-"))
  end)
end)

describe("the server's on_message", function()
  local verdict, got

  local function send(client)
    client:send(ENVELOPE .. "DATA\r\nhello\r\n.\r\n")
    assert.are.equal("250 250 354", client:codes(3))
    return client:reply()
  end

  before_each(function()
    got = {}
    serve {
      on_message = function(envelope, message)
        got[#got + 1] = { envelope, message }
        return verdict(envelope, message)
      end,
    }
  end)

  it("takes and refuses", function()
    local client = greeted()
    local reply
    verdict = function() return reply end
    assert.truthy(send(client):find("^250 2%.0%.0 "))
    assert.are.same({ from = "a@example.org", to = { "b@example.org" }, params = {} }, got[1][1])
    assert.are.equal("hello\r\n", got[1][2])
    for given, said in pairs {
      ["550 5.7.1 not wanted"] = "550 5.7.1 not wanted", ["452 later"] = "452 later", ["550"] = "550 ",
      ["550 5.7.1 two\r\n250 lines"] = "550 5.7.1 two  250 lines",
      ["554 " .. ("x"):rep(600)] = "554 " .. ("x"):rep(480), ["250 2.0.0 thanks, Ada"] = "250 2.0.0 thanks, Ada",
      ["250"] = "250 ",
    } do
      reply = given
      assert.are.equal(said, send(client))
    end
    reply = { code = 550, enhanced = "5.7.1", text = "not\nwanted" }
    assert.are.equal("550 5.7.1 not wanted", send(client))
    assert.are.equal(0, #server.inbox)
    assert.is_nil(server.failure)
  end)

  it("tells the client to try again where it fails", function()
    local client = greeted()
    for _, one in ipairs {
      function() error("disk full") end, function() error(setmetatable({}, {})) end, function() coroutine.yield() end,
      function() return false end, function() return "251 fine" end, function() return {} end, function() return 7 end,
      function() server:step(1) end, function() return "354 go on" end, function() return "42 5.7.1" end,
      function() return { code = 550, text = 123 } end, function() return { code = 550, text = {} } end,
      function() return { code = 550, enhanced = {} } end, function() return { code = {} } end,
      function() return { code = 550.5 } end, function() return print end,
      function() return setmetatable({}, { __index = function() error "no such field" end }) end,
      function() return setmetatable({}, { __tostring = function() error "no words" end }) end,
      function() return setmetatable({}, { __tostring = function() return 7 end }) end,
    } do
      verdict, server.failure = one, nil
      assert.truthy(send(client):find("^451 4%.3%.0 "))
      assert.truthy(server.failure)
    end
    verdict = function() error("disk full", 0) end
    send(client)
    assert.are.equal("disk full", server.failure)
  end)

  it("ends that connection alone where even its error fails", function()
    local client, other = greeted(), greeted()
    verdict = function() error(setmetatable({}, { __tostring = function() error "again" end })) end
    client:send(ENVELOPE .. "DATA\r\n.\r\n")
    local _, kind
    repeat _, kind = client:reply() until kind
    assert.are.equal("closed", kind)
    assert.truthy(server.failure)
    verdict = function() end
    assert.truthy(send(other):find("^250 "))
  end)

  it("may close the server", function()
    local client, other = greeted(), greeted()
    local before = descriptors()
    verdict = function() server:close() end
    client:send(ENVELOPE .. "DATA\r\n.\r\n")
    other:send("NOOP\r\n")
    local _, kind
    repeat _, kind = client:reply() until kind
    assert.are.equal("closed", kind)
    assert.are.equal(before - 3, descriptors())
  end)

  it("cannot change the connection through the envelope", function()
    local client = greeted()
    verdict = function(envelope)
      envelope.to[1], envelope.params.X, envelope.from = nil, true, nil
    end
    assert.truthy(send(client):find("^250 "))
    assert.truthy(send(client):find("^250 "))
    assert.are.equal(2, #got)
  end)
end)

describe("the server's LMTP", function()
  it("answers once for each recipient", function()
    local verdict
    serve { lmtp = true, size = 100, on_message = function() return verdict end }
    local client = connect()
    assert.truthy(client:reply():find("^220 %S+ LMTP$"))
    assert.truthy(client:say("EHLO x"):find("^500 "))
    assert.truthy(client:say("HELO x"):find("^500 "))
    assert.truthy(client:say("MAIL FROM:<a@example.org>"):find("^503 "))
    assert.truthy(client:say("LHLO x"):find("PIPELINING", 1, true))
    local envelope = ENVELOPE .. "RCPT TO:<c>\r\nRCPT TO:<d@example.org>\r\n"
    local function send(given, content)
      verdict = given
      client:send(envelope .. "DATA\r\n" .. content .. "\r\n.\r\nNOOP\r\n")
      return client:codes(8)
    end
    assert.are.equal("250 250 501 250 354 250 250 250", send(nil, "hello"))
    assert.are.equal("250 250 501 250 354 550 550 250", send("550 no", "hello"))
    assert.are.equal("250 250 501 250 354 250 452 250", send({ ["d@example.org"] = "452 full" }, "hello"))
    assert.are.equal("250 250 501 250 354 451 451 250", send({ ["x@example.org"] = "452 full" }, "hello"))
    assert.are.equal("250 250 501 250 354 552 552 250", send(nil, ("x"):rep(100)))
    assert.are.equal("250 250 501 250 354 554 554 250", send(nil, "a\nb"))
    client:send(envelope .. "BDAT 3\r\nabcBDAT 3 LAST\r\ndefNOOP\r\n")
    assert.are.equal("250 250 501 250 250 250 250 250", client:codes(8))
    client:send("MAIL FROM:<a@example.org>\r\nDATA\r\n")
    assert.are.equal("250 503", client:codes(2))
  end)
end)

describe("the server's steps", function()
  it("serve many connections at once", function()
    serve()
    loopback.descriptors() -- earlier specs' are closed for good
    local before = descriptors()
    local crowd = {}
    for i = 1, 200 do
      crowd[i] = connect()
      server:step(0)
    end
    for i, client in ipairs(crowd) do
      client:send(("EHLO x\r\nMAIL FROM:<a%d@example.org>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n"):format(i))
    end
    for i, client in ipairs(crowd) do
      assert.are.equal("220 250 250 250 354", client:codes(5))
      client:send(("number %d\r\n.\r\n"):format(i))
    end
    assert.are.equal(200, #server.connections)
    for _, client in ipairs(crowd) do assert.are.equal("250", client:codes(1)) end
    local seen = {}
    for _, letter in ipairs(server.inbox) do seen[letter.from .. letter.data] = true end
    for i in ipairs(crowd) do assert.is_true(seen[("a%d@example.orgnumber %d\r\n"):format(i, i)]) end
    for i, client in ipairs(crowd) do
      if i % 2 == 0 then client:send("QUIT\r\n") else client:close() end
    end
    run_until_connected(0)
    for _, client in ipairs(crowd) do client:close() end
    assert.are.equal(before, descriptors())
  end)

  it("never block when told not to wait", function()
    serve()
    greeted()
    local poll, polls = core.poll, 0
    finally(function() core.poll = poll end) -- luacheck: ignore
    core.poll = function(fds, modes, deadline) -- luacheck: ignore
      assert(deadline <= core.now(), "it waits")
      polls = polls + 1
      return poll(fds, modes, deadline)
    end
    for _ = 1, 100 do server:step(0) end
    for _ = 1, 100 do server:step() end
    assert.are.equal(200, polls)
  end)

  it("wait as long as they may, and no longer than needed", function()
    serve()
    local started = core.now()
    server:step(0.1)
    assert.truthy(core.now() - started >= 0.09)
    connect()
    started = core.now()
    server:step(3600)
    assert.truthy(core.now() - started < 1800)
    assert.are.equal(1, #server.connections)
  end)

  it("give each connection its turn", function()
    serve()
    local busy, other = addressed(), greeted()
    busy:say("DATA")
    local block = ("x"):rep(998) .. "\r\n"
    busy.pipe.wait = function() end
    while busy.pipe.sock:write(block:rep(64)) do end -- until the kernel takes no more
    other:send("NOOP\r\n")
    local steps = 0
    repeat
      server:step(0)
      steps = steps + 1
    until other.pipe:peek() == "data"
    assert.truthy(steps <= 3, steps)
  end)

  it("take no more connections than they may; others wait", function()
    serve { max_connections = 2 }
    local first, second, third = greeted(), greeted(), connect()
    assert.are.same({ nil, "timeout" }, { third:reply(0.05) })
    assert.are.equal(2, #server.connections)
    assert.truthy(second:say("NOOP"):find("^250 "))
    local started = core.now()
    server:step(0.05) -- the one that waits must not make it spin
    assert.truthy(core.now() - started > 0.04)
    first:close()
    assert.truthy(third:reply():find("^220 "))
  end)

  it("have room for hundreds that come while their owner is busy", function()
    serve()
    local address, late = loopback.address(server.host, server.port), core.now() + PATIENCE
    for _ = 1, 300 do
      local sock = keep(core.connect(address))
      core.wait("write", sock:fd(), late)
      assert.is_true(sock:connected())
    end
  end)

  it("go on after the descriptors ran out", function()
    serve()
    local sock = server.listener
    local calls = 0
    server.listener = setmetatable({
      accept = function()
        calls = calls + 1
        if calls == 1 then return nil, "Too many open files" end
        return sock:accept()
      end,
    }, { __index = function(_, name) return function(_, ...) return sock[name](sock, ...) end end })
    local client = connect()
    server:step(0.05)
    assert.are.equal("accept: Too many open files", server.failure)
    server:step(0.05)
    assert.are.equal(1, calls)
    assert.truthy(client:reply():find("^220 "))
  end)

  it("go on after a wait that raised, and after a wrong argument", function()
    local broken
    serve {
      transport = require "smtp.transport.socket".new(function(mode, fd, deadline)
        if broken then error("the fiber is cancelled", 0) end
        core.wait(mode, fd, math.min(deadline, core.now() + 0.01))
      end),
    }
    local client = greeted()
    broken = true
    local ran, reason = pcall(server.step, server, 1)
    assert.are.same({ false, "the fiber is cancelled" }, { ran, reason })
    broken = false
    assert.truthy(client:say("NOOP"):find("^250 "))
    for _, wrong in ipairs { "soon", {}, 0 / 0 } do
      ran, reason = pcall(function() server:step(wrong) end)
      assert.is_false(ran)
      assert.truthy(reason:find("init_spec.lua:%d+: server:step: timeout must be a number"), reason)
    end
    assert.truthy(client:say("NOOP"):find("^250 "))
  end)

  it("go on after an error in their midst, as Ctrl-C makes one", function()
    serve()
    local now, countdown = core.now, nil
    finally(function() core.now = now end)
    core.now = function() -- luacheck: ignore 122
      countdown = countdown - 1
      if countdown == 0 then error("interrupted!", 0) end
      return now()
    end
    local calls = 0
    repeat
      calls, countdown = calls + 1, calls + 1
      local ran, reason = pcall(server.step, server, 0)
      assert.is_true(ran or reason == "interrupted!", reason)
    until ran
    assert.truthy(calls > 2)
    core.now = now
    assert.truthy(greeted():say("NOOP"):find("^250 "))
  end)

  it("survive a fault in a connection's dialogue", function()
    serve()
    local client, other = greeted(), greeted()
    server.connections[1].obey = function() error("a fault") end
    client:send("NOOP\r\n")
    assert.is_true(client:ended())
    assert.truthy(server.failure:find("a fault", 1, true))
    assert.truthy(other:say("NOOP"):find("^250 "))
  end)

  it("stop with close, which leaves no descriptors", function()
    local before = descriptors()
    for _, mode in ipairs { "none", "starttls", "implicit" } do
      serve { tls = mode, host = "localhost" }
      local all = { connect(), connect(), connect() }
      run_until_connected(3)
      if mode == "implicit" then assert.truthy(all[1]:encrypt()) end
      assert.are.equal(3, #server.connections)
      server:close()
      server:close()
      server:step(0)
      server:run()
      for _, client in ipairs(all) do client:close() end
    end
    -- a look-up's thread may still be closing its own
    local stop = core.now() + PATIENCE
    while descriptors() > before and core.now() < stop do core.poll({}, {}, core.now() + 0.01) end
    assert.are.equal(before, descriptors())
  end)
end)

describe("the server's time limits", function()
  before_each(clock.stop)
  after_each(clock.go)

  it("end a client that is silent", function()
    serve { timeout = 300 }
    local client, dripping, busy = greeted(), greeted(), greeted()
    for seconds = 10, 300, 10 do
      clock.pass(10)
      dripping:send("N") -- a line that never ends
      assert.truthy(busy:say("NOOP"):find("^250 "))
      server:step(0)
      assert.are.equal(seconds < 300 and 3 or 1, #server.connections)
    end
    assert.are.equal("421 closed", client:codes(2))
    assert.are.equal("421 closed", dripping:codes(2))
    assert.truthy(busy:say("NOOP"):find("^250 "))
  end)

  it("end a client that drips its message", function()
    serve { timeout = 300 }
    for _, command in ipairs { "DATA", "BDAT 1000 LAST" } do
      local client = addressed()
      client:send(command .. "\r\n")
      if command == "DATA" then assert.truthy(client:reply():find("^354 ")) end
      local drops = 0
      while #server.connections > 0 and drops < 100 do
        client:send("x")
        drops = drops + 1
        server:step(PATIENCE) -- it comes
        clock.pass(10)
        server:step(0)
      end
      -- an octet is a thousandth of a second
      assert.are.equal(31, drops)
      assert.are.equal("421 closed", client:codes(2))
    end
    assert.are.equal(0, #server.inbox)
  end)

  it("end a client that takes no replies", function()
    serve { timeout = 300 }
    local client = greeted()
    local sock = client.pipe.sock
    local block, from = ("HELP\r\n"):rep(3000), 1
    run_until(function()
      local count = sock:write(block, from)
      if count then from = (from + count - 1) % #block + 1 end
      return server.connections[1].mode == "write"
    end)
    clock.pass(299)
    server:step(0)
    assert.are.equal(1, #server.connections)
    clock.pass(1)
    server:step(0)
    assert.are.equal(0, #server.connections)
    assert.is_nil(server.failure)
  end)

  it("end a client that drips its message in chunks, each in time", function()
    serve { timeout = 30 }
    local client, chunks = addressed(), 0
    local said
    repeat
      client:send("BDAT 1\r\nx")
      said, chunks = client:reply():sub(1, 3), chunks + 1
      clock.pass(20)
    until said ~= "250" or chunks == 10
    assert.are.equal("3 421", chunks .. " " .. said)
    assert.are.equal(0, #server.inbox)
  end)

  it("do not end a message that comes at a fair pace", function()
    serve { timeout = 3 }
    local client = addressed()
    client:say("DATA")
    for _ = 1, 30 do
      client:send(("x"):rep(500) .. "\r\n")
      server:step(PATIENCE) -- it comes
      clock.pass(0.4)
      server:step(0)
    end
    assert.truthy(client:say("."):find("^250 "))
  end)
end)
