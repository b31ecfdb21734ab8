-- finalizers: what a finalizer may do to the object that a function of the C core works on just then. By name: a
-- function for collect.everywhere.
local core = require "smtp.core"
local collect = require "spec.support.collect"
local loopback = require "spec.support.loopback"

local finalizers = {}

local LONG = 100000

-- A number where a string is due: making one of it is an allocation.
local NUMBER = 1234567

--- A wire that is used in the midst of one of its methods, or closed.
local function wire(name, prepare, call)
  local function scene(act)
    return function()
      local one = core.wire(3)
      prepare(one)
      return function() call(one) end, function() act(one) end
    end
  end
  finalizers["a wire that grows in " .. name] = scene(function(one)
    one:body(("y"):rep(2 * LONG))
    one:feed(("250 y\r\n"):rep(LONG / 10))
  end)
  finalizers["a wire that is used in " .. name] = scene(function(one)
    one:take()
    one:line()
    one:octets(LONG)
    one:reply()
    one:command "NOOP"
    one:feed(("250 a long text\r\n"):rep(LONG / 10))
    for _ = 1, 10 do one:reply() end
  end)
  if collect.close then finalizers["a wire that is closed in " .. name] = scene(collect.close) end
end

for size, times in pairs { ["a short queue"] = 10, ["a long queue"] = LONG } do
  wire("take, with " .. size, function(one) one:body(("x\r\n"):rep(times)) end, function(one) one:take() end)
  wire("octets, with " .. size, function(one) one:feed(("x\r\n"):rep(times)) end, function(one) one:octets(LONG) end)
  wire("content, with " .. size, function(one) one:feed(("x\r\n"):rep(times) .. ".\r\n") end,
    function(one) one:content() end)
end
for size, times in pairs { ["a short line"] = 10, ["a long line"] = 60000 } do
  wire("line, with " .. size, function(one) one:feed(("x"):rep(times) .. "\r\nNOOP\r\n") end,
    function(one) one:line() one:line() end)
end
for size, times in pairs { ["a short reply"] = 1, ["a long reply"] = 40 } do
  local line = "2.0.0 Ok: queued as 4Zr0sX1mY2z3" .. (" "):rep(times == 1 and 0 or 1000)
  wire("reply, with " .. size, function(one) one:feed(("250-" .. line .. "\r\n"):rep(times) .. "250 " .. line .. "\r\n") end,
    function(one) one:reply() end)
end
wire("reply, with what is no reply", function(one) one:feed "HTTP/1.1 400 Bad Request\r\n" end,
  function(one) one:reply() end)
wire("agree", function(one) one:feed "250 a\r\n" end, function(one) one:agree(2) end)
wire("turn", function(one) one:feed "354 a\r\n" end, function(one) one:turn(3, NUMBER, NUMBER, 1) end)
wire("what queues", function() end, function(one)
  one:command(NUMBER)
  one:commands(NUMBER, 1)
  one:body(NUMBER)
  one:respond(250, NUMBER)
  one:chunk(NUMBER, true)
  one:feed(NUMBER)
end)

local function codec(name, make, call, act)
  finalizers[name] = function()
    local one = make()
    return function() call(one) end, function() act(one) end
  end
end

local function encode(one) one:update(("x\n"):rep(50)) one:update(NUMBER) one:finish() end
local function decode(one) one:update "x\r\n.\r\n" one:update(NUMBER) end
for _, kind in ipairs { "base64", "quoted-printable", "crlf", "dkim-relaxed" } do
  local function make() return core.encoder(kind) end
  codec("an encoder of " .. kind .. " that is used", make, encode, function(one) one:update(("y\n"):rep(LONG)) end)
  if collect.close then codec("an encoder of " .. kind .. " that is closed", make, encode, collect.close) end
end
do
  local function make() return core.decoder "dots" end
  codec("a decoder that is used", make, decode, function(one) one:update(("y\r\n"):rep(LONG)) end)
  if collect.close then codec("a decoder that is closed", make, decode, collect.close) end
end

-- Sockets. Closing one leaves its descriptor to what is opened next: here to somebody else's connection.
local function take_over(closing, open)
  local fd, opened = closing:fd(), {}
  closing:close()
  repeat opened[#opened + 1] = assert(open()) until opened[#opened]:fd() == fd
  return opened
end

local function sock(name, prepare, call)
  finalizers["a socket that is closed in " .. name] = function()
    local listener, others = loopback.listen(), loopback.listen()
    local client, server = listener.pair()
    local queue = core.wire(2)
    local opened = {}
    prepare(listener, server, queue)
    local function act()
      opened = take_over(client, function() return core.connect(others.address) end)
    end
    return function() call(client, queue) end, act, function()
      for _, one in ipairs(opened) do
        local peer = others.accept()
        assert(select(2, peer:read()) == "again", "it went to another's connection")
        one:close()
        peer:close()
      end
      for _, one in ipairs { client, server, listener, others } do one:close() end
    end
  end
end

local function nothing() end
sock("write", nothing, function(client) client:write(NUMBER) end)
sock("turn", function(_, _, queue) queue:feed "354 go\r\n" end,
  function(client, queue) client:turn(queue, math.huge, 3, NUMBER, NUMBER, 1) end)
sock("receive", function(_, server) server:write "250 ok\r\n" end, function(client, queue)
  client:receive(queue, core.now() + 60)
  client:receive(queue)
end)
sock("reply", function(_, server) server:write "250 ok queued as 4Zr0sX1mY2z3\r\n" end,
  function(client, queue) client:reply(queue, core.now() + 60) end)
sock("the rest", function(_, server) server:write "x" end, function(client)
  core.wait("read", client:fd(), core.now() + 60)
  client:peek()
  client:name()
  client:connected()
  client:read()
  client:read()
end)

finalizers["a listening socket that is closed in accept"] = function()
  local listener = loopback.listen()
  local path = os.tmpname()
  os.remove(path)
  local opened = {}
  local function act()
    opened = take_over(listener.sock, function()
      os.remove(path)
      return core.listen(core.unix(path))
    end)
    opened.peer = assert(core.connect(core.unix(path)))
  end
  return function() listener.sock:accept() end, act, function()
    if opened.peer then
      assert(opened[#opened]:accept(), "another's connection was taken"):close()
      opened.peer:close()
    end
    for _, one in ipairs(opened) do one:close() end
    os.remove(path)
    listener:close()
  end
end

finalizers["a look-up that is closed in result"] = function()
  local lookup = core.resolve("127.0.0.1", 25)
  return function() lookup:result() end, function() lookup:close() end, function() lookup:close() end
end

finalizers["a poller that is closed"] = function()
  local poller = core.poller()
  if not poller then return nothing, nothing end
  local listener = loopback.listen()
  return function()
    poller:watch("read", listener.sock:fd())
    poller:alarm(0)
    core.wait("read", poller:fd(), core.now() + 60)
    poller:ready()
    core.poll({ poller:fd() }, { "read" }, 0)
  end, function() poller:close() end, function()
    poller:close()
    listener:close()
  end
end

-- TLS: both ends in here.
local contexts

local function carry(from, to)
  local bytes = from:take()
  if bytes ~= "" then assert(to:feed(bytes)) end
end

local function both()
  local tls = require "smtp.tls"
  if not contexts then
    local cert, key = tls.mint { "localhost" }
    contexts = { tls.context { ca_file = cert }, tls.context { server = true, cert = cert, key = key } }
  end
  return contexts[1], assert(contexts[2]:engine())
end

local function pair()
  local context, server = both()
  local client = assert(context:engine "localhost")
  repeat
    local done, why = client:handshake()
    assert(done or why == "again", why)
    carry(client, server)
    local ready = server:handshake()
    carry(server, client)
  until done and ready
  return client, server
end

local function engine(name, prepare, call)
  finalizers["an engine that is closed in " .. name] = function()
    local client, server = pair()
    prepare(client, server)
    return function() call(client) end, function() client:close() end, function()
      client:close()
      server:close()
    end
  end
end

engine("info", nothing, function(client) client:info() end)
engine("session", nothing, function(client) client:session() end)
engine("binding", nothing, function(client)
  client:binding "tls-exporter"
  client:binding(NUMBER)
end)
for size, times in pairs { ["a short record"] = 1, ["long records"] = LONG } do
  engine("take, with " .. size, function(client) client:write(("x"):rep(times)) end, function(client) client:take() end)
end
engine("write", nothing, function(client) client:write(NUMBER) end)
engine("feed", nothing, function(client) client:feed(NUMBER) end)
engine("read", function(client, server)
  server:write "x"
  carry(server, client)
end, function(client)
  client:read()
  client:read()
end)
engine("what takes wires", function(client, server)
  server:write "x"
  carry(server, client)
end, function(client)
  local sealed, plain = core.wire(), core.wire()
  plain:command "NOOP"
  client:decrypt(sealed, plain)
  client:decrypt(sealed, plain)
  client:encrypt(sealed, plain, 100)
  client:encrypt(nil, plain, 100)
  client:shutdown(sealed)
end)

-- the Ed25519 key of RFC 8463 A.2
local KEY = [[
-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g
-----END PRIVATE KEY-----
]]

if collect.close then
  local function closed(name, make, call)
    finalizers[name] = function()
      local one = make(require "smtp.tls")
      return function() call(one) end, function() collect.close(one) end
    end
  end
  closed("a hasher that is closed", function(tls) return tls.hasher "sha256" end, function(one)
    one:update(NUMBER)
    one:finish()
  end)
  closed("a signer that is closed", function(tls) return tls.signer(KEY) end, function(one)
    one:sign(NUMBER)
    one:algorithm()
  end)
  closed("a derivation that is closed", function(tls) return tls.pbkdf2("sha256", "x", "y", 2) end, function(one)
    one:step(1)
    one:step(1)
  end)
  closed("a context that is closed", function(tls) return tls.context {} end, function(one) one:engine "localhost" end)
end

-- The tables that the composer is given, and the strings that only they hold.
local function person(i) return { name = "Ada " .. i, address = "ada" .. i .. "@" .. ("x"):rep(60) .. ".org" } end

local function forget(people)
  for i, one in ipairs(people) do
    one.name, one.address = nil, nil
    people[i] = nil
  end
end

finalizers["mailboxes that are taken away"] = function()
  local people = { person(1), person(2), person(3) }
  return function() core.mailboxes("To", people) end, function() forget(people) end
end

finalizers["a letter's options that are taken away"] = function()
  local people = { person(1), person(2), person(3) }
  local options = { from = person(4), to = people, cc = { "x" .. 1 .. "@EXAMPLE.org", "y" .. 2 .. "@example.org" },
    subject = ("s"):rep(900), text = ("t\n"):rep(400) }
  return function() core.letter(options, "Date: x\r\n", ("r"):rep(28)) end, function()
    forget(people)
    forget { options.from }
    for key in pairs(options) do options[key] = nil end
  end
end

finalizers["a list of recipients that is taken away"] = function()
  local list = {}
  for i = 1, 3 do list[i] = "ada" .. i .. "@" .. ("X"):rep(200) .. ".org" end
  return function() core.distinct(list) end, function() for i in ipairs(list) do list[i] = nil end end
end

-- The same above the C core, where it is an error like any other.
local function told(name, prepare)
  finalizers[name] = function()
    local closed, ran, why
    local call, close = prepare()
    return function()
      ran, why = pcall(call)
      if not ran then error(why, 0) end
    end, function()
      closed = true
      close()
    end, function()
      if closed then assert(ran, why) end
      close()
    end
  end
end

told("sending, over a session that is closed", function()
  local smtp = require "smtp"
  local transport = require "smtp.transport.memory".new {
    "S: 220 hi", "C~ ^EHLO", "S: 250 hi", "C~ ^MAIL", "S: 250 ok", "C~ ^RCPT", "S: 250 ok", "C: DATA", "S: 354 go",
    "C: Subject: x", "C: ", "C: x", "C: .", "S: 250 ok queued as 4Zr0sX1mY2z3",
  }
  local session = assert(smtp.connect { host = "mail.example.org", helo = "client.example.org", tls = "none", transport = transport })
  return function()
    session:send { raw = "Subject: x\r\n\r\nx\r\n", envelope = { from = "ada@example.org", to = { "user@example.org" } } }
  end, function() session:close() end
end)

told("using a pipe that is closed", function()
  local listener = loopback.listen()
  local pipe = assert(require "smtp.transport.socket".new().connect(listener.host, listener.port, {}, core.now() + 60))
  local server = listener.accept()
  server:write "x"
  local one = core.wire(1)
  one:command "NOOP"
  return function()
    pipe:write(("x"):rep(10), core.now() + 60)
    pipe:send(one, core.now() + 60)
    pipe:read(core.now() + 60)
    pipe:receive(one, 0)
    pipe:name()
    pipe:peek()
  end, function()
    pipe:close()
    server:close()
    listener:close()
  end
end)

-- A pipe of TLS whose peer is in here: `Inner` is what it goes over.
local function over_tls(Inner)
  local context, server = both()
  local inner = setmetatable({ server = server, peek = function() return "data" end, close = function() end }, { __index = Inner })
  local pipe = assert(require "smtp.transport.tls".wrap(inner, { context = context, server_name = "localhost" }, core.now() + 60))
  assert(server:handshake())
  server:write "250 ok\r\n"
  local one = core.wire(1)
  one:command "NOOP"
  return function()
    local deadline = core.now() + 60
    pipe:peek()
    pipe:write(("x"):rep(LONG), deadline)
    pipe:send(one, deadline)
    pipe:read(deadline)
    pipe:receive(one, 0)
    pipe:peek()
    pipe:binding "tls-exporter"
    pipe:name()
  end, function() pipe:close() end
end

local Strings = {}

function Strings:write(bytes)
  if self.server:feed(bytes) then self.server:handshake() end
  return true
end

function Strings:read()
  local bytes = self.server:take()
  if bytes == "" then return nil, "timeout", "nothing came" end
  return bytes
end

told("using a pipe of TLS that is closed", function() return over_tls(Strings) end)

local Wires = { read = Strings.read, write = Strings.write }

function Wires:send(sealed) return self:write(sealed:take()) end

function Wires:receive(sealed)
  local bytes, kind, reason = self:read()
  if not bytes then return nil, kind, reason end
  return sealed:feed(bytes)
end

told("using a pipe of TLS that is closed, with wires", function() return over_tls(Wires) end)

return finalizers
