-- Of: net/sys
local child = require "spec.support.child"
local core = require "smtp.core"
local loopback = require "spec.support.loopback"
local punctual = require "spec.support.punctual"

local finish = loopback.finish

local PATIENCE = 60 -- seconds after which something hangs

-- What a call gave that has nothing to wait for.
local function at_once(run, ...)
  local began = core.now()
  local result = run(...)
  assert(core.now() - began < PATIENCE, "it waited")
  return result
end

for _, host in ipairs { "127.0.0.1", "::1", "unix" } do
  describe("a socket over " .. host, function()
    local listener, client, server

    before_each(function()
      listener = loopback.listen(host)
      if listener then client, server = listener.pair() end
    end)

    after_each(function()
      for _, one in ipairs { client, server, listener } do one:close() end
    end)

    local function on(title, run)
      it(title, function()
        if not listener then return pending("this machine has no " .. host) end
        run()
      end)
    end

    on("carries bytes both ways", function()
      assert.are.equal(5, client:write "hello")
      assert.are.equal("hello", finish(server, "read", "read"))
      assert.are.equal(3, server:write("\0\r\nabc", 4))
      assert.are.equal("abc", finish(client, "read", "read"))
      assert.are.equal(0, client:write("abc", 4))
      assert.are.same({ nil, "again" }, { server:read() })
    end)

    on("waits for bytes in a read with a deadline, and in no other call", function()
      local function again(_, why) assert.are.equal("again", why) end
      again(server:read(core.now() - 1))
      for _, seconds in ipairs { 0.05, 0.01 } do
        -- it may end a little early
        local got = punctual(seconds * 0.8, function(deadline) return server:read(deadline + seconds * 0.2) end)
        assert.are.same({ nil, "again" }, got)
      end
      again(server:read())
      assert.are.equal("idle", server:peek())
      local bytes = ("x"):rep(2 ^ 20)
      again((function()
        while true do
          local count, why = server:write(bytes)
          if not count then return nil, why end
        end
      end)())
      for _, deadline in ipairs { core.now() - 1, core.now() + PATIENCE, math.huge } do
        client:write "hello"
        core.wait("read", server:fd(), core.now() + PATIENCE)
        assert.are.equal("hello", server:read(deadline))
      end
      while client:read() do end -- unread bytes would make a reset of the close
      client:close()
      assert.are.same({ nil, "closed", "the peer closed the connection" }, { server:read(core.now() + PATIENCE) })
    end)

    on("looks without taking", function()
      assert.are.equal("idle", server:peek())
      client:write "x"
      core.wait("read", server:fd(), core.now() + PATIENCE)
      assert.are.same({ "data", "data" }, { server:peek(), server:peek() })
      assert.are.equal("x", server:read())
      client:close()
      core.wait("read", server:fd(), core.now() + PATIENCE)
      assert.are.equal("closed", server:peek())
    end)

    on("tells the end of the stream, again and again", function()
      client:write "last"
      client:close()
      assert.are.equal("last", finish(server, "read", "read"))
      assert.are.same({ nil, "closed", "the peer closed the connection" }, { finish(server, "read", "read") })
      assert.are.same({ nil, "closed", "the peer closed the connection" }, { server:read() })
    end)

    on("knows its own name", function()
      if listener.path then
        assert.are.same({ listener.path, 0 }, { server:name() })
        assert.are.same({ "", 0 }, { client:name() })
        assert.are.same({ listener.path, 0 }, { core.address(listener.address) })
      else
        assert.are.same({ host, listener.port }, { server:name() })
        local own, port = client:name()
        assert.are.equal(host, own)
        assert(port > 0 and port ~= listener.port)
        assert.are.same({ host, listener.port }, { core.address(listener.address) })
      end
    end)

    on("takes what fits, says again, and goes on later", function()
      local block, parts, blocks, stalls = ("0123456789abcdef"):rep(2 ^ 18), {}, 0, 0
      local function drain(part)
        while part do
          parts[#parts + 1] = part
          part = server:read()
        end
      end
      repeat -- how much fits is the system's, and not always the same
        local from = 1
        while from <= #block do
          local count, why = client:write(block, from)
          if count then
            from = from + count
          else
            assert.are.equal("again", why)
            stalls = stalls + 1
            drain(finish(server, "read", "read"))
          end
        end
        blocks = blocks + 1
      until stalls > 0
      client:close()
      local part
      repeat
        part = finish(server, "read", "read")
        drain(part)
      until not part
      assert(table.concat(parts) == block:rep(blocks))
    end)

    on("is refused where nobody listens", function()
      listener.close()
      local sock, why = core.connect(listener.address)
      if sock then
        assert.are.same({ nil, "Connection refused" }, { finish(sock, "write", "connected") })
        sock:close()
      else
        assert.are.equal(listener.path and "No such file or directory" or "Connection refused", why)
      end
    end)

    on("accepts only when somebody is there", function()
      assert.are.same({ nil, "again" }, { listener.sock:accept() })
    end)

    on("does not outlive an exec, nor block", function()
      local tests = {}
      for i, sock in ipairs { client, server, listener.sock } do
        local fd = sock:fd()
        tests[i] = ("! [ -e /proc/self/fd/%d ]"):format(fd)
        local info = assert(io.open("/proc/self/fdinfo/" .. fd)):read("*a")
        local flags = tonumber(info:match("flags:%s*(%d+)"), 8)
        assert(math.floor(flags / 2048) % 2 == 1, "O_NONBLOCK")
      end
      local ok = os.execute(table.concat(tests, " && "))
      assert(ok == true or ok == 0)
    end)

    on("raises once it is closed, and can be closed twice", function()
      client:close()
      client:close()
      for _, method in ipairs { "connected", "accept", "read", "write", "peek", "name", "fd" } do
        local ok, why = pcall(client[method], client, "x")
        assert(not ok and why:find("the socket is closed", 1, true), method)
      end
    end)

    on("closes its descriptor when it is collected", function()
      local before = loopback.descriptors()
      for _ = 1, 10 do listener.pair() end
      assert.are.equal(before, loopback.descriptors())
    end)
  end)
end

describe("sockets", function()
  it("write to a peer that is gone, and live", function()
    local output, status = child.run [[
      local core = require "smtp.core"
      local function talk(address)
        local listener = assert(core.listen(address))
        if not core.address(address):find("/") then
          address = core.resolve("127.0.0.1", select(2, listener:name())):result()[1]
        end
        local client = assert(core.connect(address))
        core.wait("read", listener:fd(), core.now() + 60)
        listener:accept():close()
        local why
        for _ = 1, 100 do
          why = select(3, client:write("x"))
          if why then break end
          core.wait("read", -1, core.now() + 0.01)
        end
        print(why)
      end
      talk(core.resolve("127.0.0.1", 0):result()[1])
      local path = os.tmpname()
      os.remove(path)
      talk(core.unix(path))
      os.remove(path)
    ]]
    assert.are.equal("0", status, output)
    assert.matches("^[%u][%w ]+\nBroken pipe\n$", output)
  end)

  it("come from the local address they are given", function()
    local listener = loopback.listen()
    local sock = assert(core.connect(listener.address, loopback.address("127.0.0.2", 0)))
    assert.are.equal("127.0.0.2", (sock:name()))
    sock:close()
    for _, none in ipairs { loopback.address("192.0.2.1", 0), core.unix "/nonexistent/x" } do
      local failed, why = core.connect(listener.address, none)
      assert.is_nil(failed)
      assert.are.equal("string", type(why))
    end
    listener.close()
  end)

  it("leave nothing open: a thousand connections", function()
    local listeners = { loopback.listen(), loopback.listen "unix" }
    local before = loopback.descriptors()
    for i = 1, 500 do
      for _, listener in ipairs(listeners) do
        local client, server = listener.pair()
        if i % 2 == 0 then
          client:close()
          server:close()
        end
      end
      if i % 100 == 0 then collectgarbage() end
    end
    assert.are.equal(before, loopback.descriptors())
    for _, listener in ipairs(listeners) do
      listener.close()
      for _ = 1, 50 do core.connect(listener.address) end
    end
    assert.are.equal(before - 2, loopback.descriptors())
  end)

  it("raise where they are given the wrong thing, and fail on what is no address", function()
    local listener = loopback.listen()
    local client, server = listener.pair()
    for name, call in pairs {
      ["no address"] = function() core.connect() end,
      ["an empty address"] = function() core.connect "" end,
      ["a long address"] = function() core.connect(("x"):rep(129)) end,
      ["a local address that is none"] = function() core.connect(listener.address, "") end,
      ["another object"] = function() client.read(core.wire()) end,
      ["nothing to write"] = function() client:write() end,
      ["a start before the string"] = function() client:write("x", 0) end,
      ["a start behind the string"] = function() client:write("x", 3) end,
      ["a deadline that is none"] = function() client:read "soon" end,
    } do
      assert(not pcall(call), name)
    end
    for length = 1, 128 do
      for _, byte in ipairs { "\0", "\2", "\255" } do
        local garbage = byte:rep(length)
        assert.are.equal("string", type(core.address(garbage)))
        assert.is_nil(core.listen(garbage))
      end
    end
    for _, path in ipairs { "", ("x"):rep(108), "/tmp/a\0b", "\0abstract" } do
      local address, why = core.unix(path)
      assert.is_nil(address)
      assert.matches("path", why)
    end
    assert.are.equal("string", type(core.unix(("x"):rep(107))))
    for _, one in ipairs { client, server, listener } do one:close() end
  end)
end)

describe("waiting", function()
  local listener, client, server

  before_each(function()
    listener = loopback.listen()
    client, server = listener.pair()
  end)

  after_each(function()
    for _, one in ipairs { client, server, listener } do one:close() end
  end)

  it("ends as soon as the descriptor is ready", function()
    client:write "x"
    assert.is_true(at_once(core.wait, "read", server:fd(), core.now() + PATIENCE))
    assert.is_true(core.wait("write", client:fd(), math.huge))
  end)

  it("ends at the deadline, not before and hardly after", function()
    for _, seconds in ipairs { 0.03, 0.0005, 0 } do
      for _, fd in ipairs { server:fd(), -1 } do
        assert.are.same({ false }, punctual(seconds, function(deadline) return core.wait("read", fd, deadline) end))
      end
    end
    for _, past in ipairs { 0, -5, -math.huge, 0 / 0 } do
      assert.are.same({ false }, punctual(0, function() return core.wait("read", server:fd(), past) end))
    end
  end)

  it("tells which of several are ready", function()
    local fds = { client:fd(), client:fd(), server:fd() }
    assert.are.same({ true, [3] = true }, core.poll(fds, { "write", "read", "write" }, core.now() + PATIENCE))
    client:write "x"
    core.wait("read", server:fd(), core.now() + PATIENCE)
    assert.are.same({ nil, true }, core.poll({ client:fd(), server:fd() }, { "read", "read" }, core.now() + PATIENCE))
    client:close()
    server:read()
    core.wait("read", server:fd(), core.now() + PATIENCE)
    assert.are.same({ true }, core.poll({ server:fd() }, { "read" }, core.now() + PATIENCE))
  end)

  it("takes any number of descriptors, and none", function()
    local fds, modes = {}, {}
    for i = 1, 300 do fds[i], modes[i] = server:fd(), "read" end
    assert.are.same({}, core.poll(fds, modes, 0))
    modes[17], modes[300] = "write", "write"
    assert.are.same({ [17] = true, [300] = true }, core.poll(fds, modes, core.now() + PATIENCE))
    assert.are.same({ {} }, punctual(0.02, function(deadline) return core.poll({}, {}, deadline) end))
  end)

  it("does not hang on a descriptor that is closed", function()
    local fd = server:fd()
    server:close()
    assert.are.same({ true }, at_once(core.poll, { fd }, { "read" }, core.now() + PATIENCE))
  end)

  it("raises where it is given the wrong thing", function()
    for name, call in pairs {
      ["a mode that is none"] = function() core.wait("both", 0, 0) end,
      ["no descriptor"] = function() core.wait("read", nil, 0) end,
      ["no deadline"] = function() core.wait("read", 0) end,
      ["a mode too few"] = function() core.poll({ 0, 0 }, { "read" }, 0) end,
      ["a mode that is none, in a list"] = function() core.poll({ 0 }, { "both" }, 0) end,
      ["a descriptor that is none"] = function() core.poll({ "zero" }, { "read" }, 0) end,
      ["no list"] = function() core.poll(0, "read", 0) end,
    } do
      assert(not pcall(call), name)
    end
  end)
end)

describe("a look-up", function()
  -- The call itself never waits; what comes of it, within `limit` seconds.
  local function resolve(host, limit)
    local lookup = at_once(core.resolve, host, 25)
    local deadline = core.now() + limit
    while true do
      local list, why, temporary = lookup:result()
      if why ~= "again" then return list, why, temporary, lookup end
      if core.now() >= deadline then return nil, why, nil, lookup end
      core.wait("read", lookup:fd(), deadline)
    end
  end

  it("of an address is done at once, with nothing to wait for", function()
    local literals = { ["127.0.0.1"] = "127.0.0.1", ["::1"] = "::1", ["0:0::1"] = "::1", ["192.0.2.7"] = "192.0.2.7" }
    for host, same in pairs(literals) do
      local lookup = core.resolve(host, 587)
      assert.are.equal(-1, lookup:fd())
      local list = assert(lookup:result())
      assert.are.equal(1, #list)
      assert.are.same({ same, 587 }, { core.address(list[1]) })
      lookup:close()
    end
  end)

  it("of a name says when it is done", function()
    local list, _, _, lookup = resolve("localhost", PATIENCE)
    assert(list and #list >= 1)
    assert(lookup:fd() >= 0)
    for _, address in ipairs(list) do
      local host, port = core.address(address)
      assert(host == "127.0.0.1" or host == "::1", host)
      assert.are.equal(25, port)
    end
    assert.are.same(list, lookup:result())
    assert.is_true(core.wait("read", lookup:fd(), 0))
  end)

  it("of a name that is none fails, in words", function()
    local list, why, temporary = resolve("", 5)
    assert.is_nil(list)
    assert.are.equal("string", type(why))
    assert.is_false(temporary)
    -- a name server that does not answer may take its time over this one
    list, why = resolve("no-such-host.invalid", 1)
    assert.is_nil(list)
    assert.are.equal("string", type(why))
  end)

  it("can be given up at any time, and leaves nothing open", function()
    local before = loopback.descriptors()
    for i = 1, 200 do
      local lookup = core.resolve("localhost", 25)
      if i % 3 == 0 then
        lookup:close()
        lookup:close()
      elseif i % 3 == 1 then
        core.wait("read", lookup:fd(), core.now() + PATIENCE)
      end
      lookup = nil -- luacheck: ignore
      if i % 20 == 0 then collectgarbage() end
    end
    assert.are.equal(before, loopback.settle(before))
  end)

  it("does not keep a process from ending", function()
    local output, status = child.run [[
      local core = require "smtp.core"
      for i = 1, 20 do _G[i] = core.resolve("no-such-host.invalid", 25) end
      print "done"
    ]]
    assert.are.same({ "done\n", "0" }, { output, status })
  end)

  it("does not outlive an exec", function()
    local lookup = core.resolve("localhost", 25)
    local ok = os.execute(("! [ -e /proc/self/fd/%d ]"):format(lookup:fd()))
    assert(ok == true or ok == 0)
    lookup:close()
  end)

  it("raises where it is given the wrong thing", function()
    for name, call in pairs {
      ["no host"] = function() core.resolve() end,
      ["no port"] = function() core.resolve "localhost" end,
      ["a NUL in the name"] = function() core.resolve("localhost\0.example.org", 25) end,
      ["a negative port"] = function() core.resolve("localhost", -1) end,
      ["a port too high"] = function() core.resolve("localhost", 65536) end,
      ["a closed one's descriptor"] = function()
        local lookup = core.resolve("127.0.0.1", 25)
        lookup:close()
        lookup:fd()
      end,
      ["a closed one's result"] = function()
        local lookup = core.resolve("127.0.0.1", 25)
        lookup:close()
        lookup:result()
      end,
    } do
      assert(not pcall(call), name)
    end
  end)
end)

describe("the system's", function()
  it("clock goes forward", function()
    local before = core.now()
    core.wait("read", -1, before + 0.01)
    assert(core.now() - before >= 0.01)
  end)

  it("random bytes are as many as asked for, and differ", function()
    assert.are.equal("", core.random(0))
    local seen = {}
    for _ = 1, 50 do
      local bytes = core.random(16)
      assert(#bytes == 16 and not seen[bytes])
      seen[bytes] = true
    end
    local values = {}
    for byte in core.random(1024):gmatch(".") do values[byte] = true end
    local count = 0
    for _ in pairs(values) do count = count + 1 end
    assert(count > 200, count)
    for _, odd in ipairs { -1, 1025 } do assert.has_error(function() core.random(odd) end) end
  end)

  it("host name has no blank in it", function()
    assert.matches("^%S+$", core.hostname())
  end)
end)
