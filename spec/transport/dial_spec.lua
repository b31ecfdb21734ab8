-- Reaching a server: names with several addresses (RFC 8305), literals, unix sockets, and the time all of it may take.
local clock = require "spec.support.clock"
local core = require "smtp.core"
local loopback = require "spec.support.loopback"
local smtp = require "smtp"
local socket = require "smtp.transport.socket"
local together = require "spec.support.together"

local connect = socket.new().connect
local resolve, begin = core.resolve, core.connect

local function soon()
  return core.now() + 60
end

-- Every name has these addresses from here on.
local function name_has(addresses)
  core.resolve = function() -- luacheck: ignore
    return { result = function() return addresses end, close = function() end }
  end
end

-- Addresses that only differ in their last number.
local function addresses(pattern, count)
  local list = {}
  for i = 1, count do list[i] = assert(loopback.address(pattern:format(i), 25)) end
  return list
end

-- Connections by a plan: address -> seconds until it is made, or why it fails at once. Gives what happened.
local function network(fate)
  local seen = { order = {}, at = {}, closed = {} }
  core.connect = function(address) -- luacheck: ignore
    local name = core.address(address)
    local now = core.now()
    seen.order[#seen.order + 1], seen.at[#seen.at + 1] = name, now
    if type(fate[name]) == "string" then return nil, fate[name] end
    local sock = {}
    function sock.fd() return -1 end
    function sock.close() seen.closed[name] = (seen.closed[name] or 0) + 1 end
    function sock.connected()
      if core.now() >= now + (fate[name] or math.huge) then return true end
      return nil, "again"
    end
    seen[name] = sock
    return sock
  end
  return seen
end

-- Connects where only the plan knows of time; the seconds it took, and what came of it.
local function connected(seconds)
  local took, got = clock.run("write", connect, "mail.example.org", 25, {}, core.now() + (seconds or 5))
  return took, got[1], got[2], got[3]
end

local function near(expected, got)
  assert(math.abs(expected - got) < 1e-6, ("%.6f s instead of %.6f"):format(got, expected))
end

describe("a name with several addresses", function()
  before_each(clock.stop)

  after_each(function()
    clock.go()
    core.resolve, core.connect = resolve, begin -- luacheck: ignore
  end)

  it("is tried family by family in turn, the resolver's first one first", function()
    local six, four = addresses("2001:db8::%d", 3), addresses("192.0.2.%d", 2)
    local fate = setmetatable({}, { __index = function() return "no" end })
    name_has { six[1], six[2], six[3], four[1], four[2] }
    local seen = network(fate)
    local _, kind, reason = connect("mail.example.org", 25, {}, soon())
    assert.are.same({ "2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2", "2001:db8::3" }, seen.order)
    assert.are.equal("connect", kind)
    assert.are.equal("2001:db8::1 port 25: no, 192.0.2.1 port 25: no, 2001:db8::2 port 25: no, "
      .. "192.0.2.2 port 25: no, 2001:db8::3 port 25: no", reason)
    name_has { four[1], four[2], six[1] }
    seen = network(fate)
    connect("mail.example.org", 25, {}, soon())
    assert.are.same({ "192.0.2.1", "2001:db8::1", "192.0.2.2" }, seen.order)
  end)

  it("has its next address tried after 250 ms of silence, and at once after a failure", function()
    name_has(addresses("192.0.2.%d", 4))
    local seen = network { ["192.0.2.2"] = "no", ["192.0.2.4"] = 0 }
    local took, pipe = connected()
    assert.are.equal(seen["192.0.2.4"], pipe.sock)
    for i, gap in ipairs { 0.25, 0, 0.25 } do near(gap, seen.at[i + 1] - seen.at[i]) end
    near(0.5, took)
    assert.are.same({ ["192.0.2.1"] = 1, ["192.0.2.3"] = 1 }, seen.closed)
  end)

  it("gets the first that answers, though a later one is waited for", function()
    name_has(addresses("192.0.2.%d", 2))
    local seen = network { ["192.0.2.1"] = 0.6 }
    local took, pipe = connected()
    assert.are.equal(seen["192.0.2.1"], pipe.sock)
    assert(took >= 0.6 and took <= 0.65 + 1e-6, took) -- the next look at it
    assert.are.same({ ["192.0.2.2"] = 1 }, seen.closed)
  end)

  it("gets one connection, though two are made at the same time", function()
    name_has(addresses("192.0.2.%d", 2))
    local seen = network { ["192.0.2.1"] = 0.25, ["192.0.2.2"] = 0 }
    local _, pipe = connected()
    local closed = 0
    for i = 1, 2 do
      local name = "192.0.2." .. i
      if seen[name] then
        local winner = seen[name] == pipe.sock
        assert.are.equal(winner and 0 or 1, seen.closed[name] or 0)
        closed = closed + (winner and 0 or 1)
      end
    end
    assert.are.equal(#seen.order - 1, closed)
  end)

  it("ends at the deadline and names all that was tried, fifty dead ones too", function()
    local silent = loopback.listen()
    local crowd = loopback.crowd(silent)
    local dead = {}
    for i = 1, 50 do dead[i] = silent.address end
    name_has(dead)
    local before = loopback.descriptors()
    collectgarbage "stop"
    local took, got = clock.run("write", smtp.connect, { host = "mail.example.org", tls = "none", timeout = 0.8 })
    assert.are.equal(before, loopback.descriptors(true))
    collectgarbage "restart"
    near(0.8, took)
    local err = got[2]
    assert.are.same({ "timeout", "connect", true, "not_sent" }, { err.kind, err.stage, err.temporary, err.outcome })
    local _, named = err.reason:gsub("127%.0%.0%.1 port %d+: no answer in time", "")
    assert.are.equal(50, named)
    for _, sock in ipairs(crowd) do sock:close() end
    silent.close()
  end)

  it("tells how many it did not get to", function()
    name_has(addresses("192.0.2.%d", 3))
    network {}
    local _, _, kind, reason = connected(0)
    assert.are.same({ "timeout", "192.0.2.1 port 25: no answer in time, 2 more not tried" }, { kind, reason })
  end)

  it("leaves no descriptor where one wins, and none where all fail", function()
    local silent, gone, listener = loopback.listen(), loopback.listen(), loopback.listen()
    gone.close()
    local crowd = loopback.crowd(silent)
    local before = loopback.descriptors()
    collectgarbage "stop"
    -- time enough for the one that can be made
    name_has { silent.address, gone.address, silent.address, listener.address }
    local _, pipe = connected(3600)
    pipe:close()
    listener.accept():close()
    name_has { silent.address, gone.address, silent.address }
    _, pipe = connected(0.3)
    assert.is_nil(pipe)
    assert.are.equal(before, loopback.descriptors(true))
    collectgarbage "restart"
    for _, sock in ipairs(crowd) do sock:close() end
    silent.close()
    listener.close()
  end)

  it("is tried in a task without a step that blocks", function()
    local silent = loopback.listen()
    local crowd = loopback.crowd(silent)
    local server = assert(smtp.server {})
    name_has { silent.address, silent.address, loopback.address("127.0.0.1", server.port) }
    local began = 0
    core.connect = function(...) -- luacheck: ignore
      began = began + 1
      return begin(...)
    end
    local _, got = clock.run(function(mode)
      server:step(0)
      return mode == "write" and began < 3 -- those that stay silent
    end, smtp.send, { host = "mail.example.org", tls = "none", from = "ada@example.org", to = "grace@example.org", text = "Hello" })
    assert(got[1], got[2])
    assert.are.equal(1, #server.inbox)
    near(0.5, got[1].time.connect)
    server:close()
    for _, sock in ipairs(crowd) do sock:close() end
    silent.close()
  end)

  it("is reached from the bound address's family only", function()
    local listener = loopback.listen()
    local six = loopback.address("::1", 25)
    local real = resolve
    core.resolve = function(host, port) -- luacheck: ignore
      if host ~= "mail.example.org" then return real(host, port) end
      return { result = function() return { six, listener.address } end, close = function() end }
    end
    local pipe = assert(connect("mail.example.org", 25, { bind = "127.0.0.2" }, soon()))
    assert.are.equal("127.0.0.2", (pipe:name()))
    pipe:close()
    listener.close()
    local _, kind, reason = connect("mail.example.org", 25, { bind = "127.0.0.2" }, soon())
    assert.are.equal("connect", kind)
    assert.are.equal(("::1 port 25: the address to bind to is of another family, 127.0.0.1 port %d: Connection refused")
      :format(listener.port), reason)
  end)
end)

describe("an address literal", function()
  it("may be IPv6, in brackets or not, with a zone or not", function()
    local server = smtp.server { host = "::1" }
    if not server then return pending "NO IPV6 on this machine" end
    for _, host in ipairs { "::1", "[::1]", "0:0:0:0:0:0:0:1", "::1%1", "[::1%1]" } do
      local session, err = together.run(function()
        return smtp.connect { host = host, port = server.port, tls = "none" }
      end, server)
      assert(session, err)
      session:close()
    end
    local session, err = together.run(function()
      return smtp.connect { url = ("smtp+insecure://[::1]:%d"):format(server.port) }
    end, server)
    assert(session, err)
    session:close()
    server:close()
    -- it is an address and not a name, though nobody is there
    session, err = smtp.connect { host = "fe80::1%lo", port = 1, tls = "none", timeout = 1 }
    assert.is_nil(session)
    assert(err.kind == "connect" or err.kind == "timeout", tostring(err))
  end)
end)

describe("a unix socket", function()
  it("is reached by path, in clear unless TLS is asked for", function()
    local listener = loopback.listen "unix"
    local function peer(lines)
      return function()
        local sock = listener.sock:accept()
        while not sock do
          coroutine.yield()
          sock = listener.sock:accept()
        end
        local pipe = socket.pipe(sock)
        for _, line in ipairs(lines) do
          pipe:write(line .. "\r\n", math.huge)
          pipe:read(math.huge)
        end
        pipe:write("221 bye\r\n", math.huge)
        pipe:close()
      end
    end
    for _, tls in ipairs { "", "none", "starttls" } do
      local results = together.all {
        function()
          local session, err = smtp.connect { path = listener.path, tls = tls ~= "" and tls or nil, helo = "client.example.org" }
          if session then session:close() end
          return session, err
        end,
        peer { "220 hi", "250 mail.example.org" },
      }
      local session, err = results[1][1], results[1][2]
      if tls == "starttls" then
        assert.are.equal("insecure", err.kind)
      else
        assert(session, err)
      end
    end
    listener.close()
    local _, err = smtp.connect { path = listener.path }
    assert.are.same({ "connect", "connect", true }, { err.kind, err.stage, err.temporary })
    assert.are.equal(listener.path .. ": No such file or directory", err.reason)
  end)
end)

describe("the timeout of the whole call", function()
  local TIMEOUT = 0.4

  -- Connects, which ends in that kind of wait: the stage of the error, which must come in time.
  local function hangs(passes, given)
    given.timeout = TIMEOUT
    given.host = given.host or "127.0.0.1"
    local before = loopback.descriptors()
    local took, got = clock.run(passes, smtp.connect, given)
    assert.is_nil(got[1])
    near(TIMEOUT, took)
    assert.are.equal("timeout", got[2].kind)
    assert.is_true(got[2].temporary)
    assert.are.equal(before, loopback.descriptors())
    return got[2].stage
  end

  local silent

  before_each(function()
    silent = loopback.listen()
    clock.stop()
  end)

  after_each(function()
    clock.go()
    silent.close()
    core.resolve = resolve -- luacheck: ignore
  end)

  it("ends the look-up of a name", function()
    core.resolve = function() -- luacheck: ignore
      return { result = function() return nil, "again" end, fd = function() return -1 end, close = function() end }
    end
    assert.are.equal("connect", hangs("read", { host = "mail.example.org" }))
  end)

  it("ends the connecting", function()
    local crowd = loopback.crowd(silent)
    assert.are.equal("connect", hangs("write", { port = silent.port }))
    assert.are.equal("proxy", hangs("write", { proxy = "socks5://127.0.0.1:" .. silent.port }))
    for _, sock in ipairs(crowd) do sock:close() end
  end)

  it("ends the talk with a proxy", function()
    assert.are.equal("proxy", hangs("read", { proxy = "socks5://127.0.0.1:" .. silent.port }))
    assert.are.equal("proxy", hangs("read", { proxy = "http://127.0.0.1:" .. silent.port }))
  end)

  it("ends a TLS handshake", function()
    assert.are.equal("tls", hangs("read", { port = silent.port, tls = "implicit" }))
  end)

  it("ends the wait for a greeting", function()
    for _, tls in ipairs { "none", "starttls" } do
      assert.are.equal("greeting", hangs("read", { port = silent.port, tls = tls }))
    end
  end)

  it("ends a server that says a byte now and then", function()
    for _, given in ipairs { { tls = "none" }, { proxy = "socks5" }, { proxy = "http" } } do
      local script = given.proxy and (given.proxy:find "^http" and "HTTP/1.1 200 " .. ("x"):rep(1000)
        or "\5\0\5\0\0\3" .. ("\255"):rep(1000)) or "220-" .. ("x"):rep(1000)
      silent.close()
      silent = loopback.listen()
      given.host, given.port, given.timeout = "127.0.0.1", silent.port, TIMEOUT
      given.proxy = given.proxy and ("%s://127.0.0.1:%d"):format(given.proxy, silent.port)
      local sock, first, said = nil, nil, 0
      local took, got = clock.run(function(mode, fd)
        if mode ~= "read" then return end
        sock, first = sock or silent.accept(), first or fd
        clock.pass(0.03)
        if fd ~= first then return end -- a second connection, to look whether the port speaks TLS
        said = said + 1
        sock:write(script:sub(said, said))
        clock.arrive(fd)
      end, smtp.connect, given)
      sock:close()
      assert.are.equal("timeout", got[2].kind)
      assert.are.equal(given.proxy and "proxy" or "greeting", got[2].stage)
      assert(took >= TIMEOUT and took < TIMEOUT + 0.03, took)
      assert(said >= 5, said)
    end
  end)
end)
