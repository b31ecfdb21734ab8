-- Of: transport/fault
local clock = require "spec.support.clock"
local conformance = require "spec.transport_conformance"
local core = require "smtp.core"
local loopback = require "spec.support.loopback"
local punctual = require "spec.support.punctual"
local smtp = require "smtp"
local socket = require "smtp.transport.socket"

local connect = socket.new().connect

local function soon()
  return core.now() + 60
end

-- Runs with other addresses for every name.
local function with_addresses(list, run)
  local resolve = core.resolve
  core.resolve = function() -- luacheck: ignore
    return { result = function() return list end, close = function() end }
  end
  local ok, why = pcall(run)
  core.resolve = resolve -- luacheck: ignore
  if not ok then error(why, 0) end
end

describe("connecting", function()
  it("gives a pipe that carries bytes both ways", function()
    for _, host in ipairs { "127.0.0.1", "::1", "localhost" } do
      local listener = loopback.listen(host ~= "localhost" and host or nil)
      if listener then
        local pipe = assert(connect(host, listener.port, {}, soon()))
        local peer = listener.accept()
        assert.is_true(pipe:write("hello", soon()))
        assert.are.equal("hello", loopback.finish(peer, "read", "read"))
        peer:write "you too"
        assert.are.equal("you too", pipe:read(soon()))
        local own, port = pipe:name()
        assert.are.equal(listener.host, own)
        assert(port > 0)
        pipe:close()
        peer:close()
        listener.close()
      end
    end
  end)

  it("goes to the path of a unix socket", function()
    local listener = loopback.listen "unix"
    local pipe = assert(connect(nil, nil, { path = listener.path }, soon()))
    local peer = listener.accept()
    peer:write "hello"
    assert.are.equal("hello", pipe:read(soon()))
    pipe:close()
    peer:close()
    listener.close()
  end)

  it("comes from the address it is bound to", function()
    local listener = loopback.listen()
    local pipe = assert(connect("127.0.0.1", listener.port, { bind = "127.0.0.2" }, soon()))
    assert.are.equal("127.0.0.2", (pipe:name()))
    pipe:close()
    listener.close()
  end)

  it("tells why it failed", function()
    local listener = loopback.listen()
    local port = listener.port
    listener.close()
    for _, case in ipairs {
      { "127.0.0.1", port, {}, "connect", ("^127%%.0%%.0%%.1 port %d: Connection refused$"):format(port) },
      { "", 25, {}, "resolve", ".", false },
      { nil, nil, { path = "/nonexistent/socket" }, "connect", "^/nonexistent/socket: No such file or directory$" },
      { nil, nil, { path = ("x"):rep(200) }, "connect", "path", false },
      { nil, nil, { path = "/tmp/a\0b" }, "connect", "path", false },
      { "127.0.0.1", port, { bind = "192.0.2.1" }, "connect", "^127%.0%.0%.1 port %d+: Cannot assign" },
      { "127.0.0.1", port, { bind = "" }, "connect", "^cannot bind to : ", false },
    } do
      local pipe, kind, reason, temporary = connect(case[1], case[2], case[3], soon())
      assert.is_nil(pipe)
      assert.are.equal(case[4], kind)
      assert.matches(case[5], reason)
      assert.are.equal(case[6], temporary)
    end
  end)

  it("tries a name's addresses in turn, and names those that failed", function()
    local gone, listener = loopback.listen(), loopback.listen()
    gone.close()
    with_addresses({ gone.address, listener.address }, function()
      local pipe = assert(connect("mail.example.org", 25, {}, soon()))
      loopback.finish(listener.sock, "read", "accept"):close()
      pipe:close()
    end)
    listener.close()
    with_addresses({ gone.address, listener.address }, function()
      local pipe, kind, reason = connect("mail.example.org", 25, {}, soon())
      assert.are.same({ nil, "connect" }, { pipe, kind })
      local refused = "127.0.0.1 port %d: Connection refused"
      assert.are.equal((refused .. ", " .. refused):format(gone.port, listener.port), reason)
    end)
  end)

  it("ends at its deadline where nobody answers, each address with its share of the time", function()
    local silent, listener = loopback.listen(), loopback.listen()
    local crowd = loopback.crowd(silent)
    local got = punctual(0.1, function(deadline) return connect("127.0.0.1", silent.port, {}, deadline) end)
    assert.are.same({ "timeout", ("127.0.0.1 port %d: no answer in time"):format(silent.port) }, { got[2], got[3] })
    with_addresses({ silent.address, silent.address }, function()
      got = punctual(0.1, function(deadline) return connect("mail.example.org", 25, {}, deadline) end)
      assert.are.equal("timeout", got[2])
    end)
    with_addresses({ silent.address, silent.address, listener.address }, function()
      punctual(0.2, function(deadline) connect("mail.example.org", 25, {}, deadline + 0.1):close() end)
    end)
    for _, sock in ipairs(crowd) do sock:close() end
    silent.close()
    listener.close()
  end)

  it("waits for a name no longer than until the deadline", function()
    local resolve, closed = core.resolve, false
    core.resolve = function() -- luacheck: ignore
      return {
        result = function() return nil, "again" end,
        fd = function() return -1 end,
        close = function() closed = true end,
      }
    end
    local got = punctual(0.05, function(deadline) return connect("mail.example.org", 25, {}, deadline) end)
    core.resolve = resolve -- luacheck: ignore
    assert.are.same({ "timeout", true }, { got[2], closed })
  end)

  it("leaves nothing open where it fails", function()
    local gone = loopback.listen()
    gone.close()
    local before = loopback.descriptors()
    collectgarbage "stop"
    for _ = 1, 20 do
      connect("127.0.0.1", gone.port, {}, soon())
      connect("127.0.0.1", gone.port, {}, 0)
    end
    -- closed by connect itself, not by the collector
    local after = loopback.descriptors(true)
    collectgarbage "restart"
    assert.are.equal(before, after)
  end)
end)

describe("a pipe", function()
  local listener, pipe, peer

  before_each(function()
    listener = loopback.listen()
    pipe = assert(connect("127.0.0.1", listener.port, {}, soon()))
    peer = listener.accept()
  end)

  after_each(function()
    for _, one in ipairs { pipe, peer, listener } do one:close() end
  end)

  it("reads until its deadline from a silent peer", function()
    for _, seconds in ipairs { 0.1, 0.01 } do
      assert.are.same({ nil, "timeout", "nothing came in time" },
        punctual(seconds, function(deadline) return pipe:read(deadline) end))
    end
    -- nothing is broken by that
    peer:write "x"
    assert.are.equal("x", pipe:read(soon()))
  end)

  it("reads what is there already when the deadline has passed", function()
    for _, past in ipairs { 0, -math.huge, core.now() } do
      assert.are.same({ nil, "timeout", "nothing came in time" }, { pipe:read(past) })
      peer:write "x"
      core.wait("read", pipe.fd, soon())
      assert.are.equal("x", pipe:read(past))
    end
  end)

  it("writes until its deadline to a peer that reads nothing", function()
    local bytes = ("x"):rep(2 ^ 24)
    assert.are.same({ nil, "timeout", "the peer took nothing in time" },
      punctual(0.1, function(deadline) return pipe:write(bytes, deadline) end))
  end)

  it("writes all, however slowly the peer reads", function()
    local bytes, parts = ("0123456789abcdef"):rep(2 ^ 17), {}
    -- the peer reads whenever the pipe has to wait
    local slow = socket.pipe(pipe.sock, function()
      parts[#parts + 1] = peer:read()
    end)
    assert.is_true(slow:write(bytes, soon()))
    assert.is_true(slow:write("", soon()))
    slow:close()
    local part
    repeat
      part = loopback.finish(peer, "read", "read")
      parts[#parts + 1] = part
    until not part
    assert(table.concat(parts) == bytes)
  end)

  it("tells the peer's end", function()
    peer:write "last"
    peer:close()
    assert.are.equal("last", pipe:read(soon()))
    assert.are.same({ nil, "closed", "the peer closed the connection" }, { pipe:read(soon()) })
    local ok, kind
    local deadline = soon()
    repeat
      ok, kind = pipe:write("x", deadline)
    until not ok or core.now() > deadline
    assert.are.same({ nil, "closed" }, { ok, kind })
  end)

  it("shows what lies on it", function()
    assert.are.equal("idle", pipe:peek())
    peer:write "x"
    core.wait("read", pipe.fd, soon())
    assert.are.equal("data", pipe:peek())
    assert.are.equal("x", pipe:read(soon()))
    peer:close()
    core.wait("read", pipe.fd, soon())
    assert.are.equal("closed", pipe:peek())
  end)

  it("is dead once closed", function()
    pipe:close()
    pipe:close()
    local closed = { nil, "closed", "the connection is closed" }
    assert.are.same(closed, { pipe:read(soon()) })
    assert.are.same(closed, { pipe:write("x", soon()) })
    assert.are.equal("closed", pipe:peek())
    assert.is_nil((pipe:name()))
  end)
end)

describe("a host's own wait", function()
  it("is called with mode, descriptor and deadline wherever there is something to wait for", function()
    local listener, calls, late = loopback.listen(), {}, nil
    clock.stop()
    finally(clock.go)
    local transport = socket.new(function(mode, fd, deadline)
      calls[#calls + 1] = { mode, fd, deadline }
      if deadline ~= late then
        core.wait(mode, fd, deadline)
      elseif not core.wait(mode, fd, 0) then
        clock.pass(late - core.now())
      end
    end)
    local deadline = soon()
    local pipe = assert(transport.connect("localhost", listener.port, {}, deadline))
    local peer = listener.accept()
    -- for the name, if its look-up takes any time, then for the connection
    for i, call in ipairs(calls) do
      assert(call[1] == "write" or i == 1)
      assert.are.equal("number", type(call[2]))
      assert(call[3] <= deadline)
    end
    peer:write "x"
    calls = {}
    assert.are.equal("x", pipe:read(deadline - 1))
    assert.are.same({ { "read", pipe.fd, deadline - 1 } }, calls)
    calls = {}
    local bytes = ("x"):rep(2 ^ 24)
    late = core.now() + 0.05
    assert.are.same({ nil, "timeout", "the peer took nothing in time" }, { pipe:write(bytes, late) })
    assert(#calls >= 1)
    for _, call in ipairs(calls) do assert.are.same({ "write", pipe.fd, late }, call) end
    pipe:close()
    peer:close()
    listener.close()
  end)

  it("may return early, and may close the pipe", function()
    local listener = loopback.listen()
    local peer, pipe
    local calls = 0
    local transport = socket.new(function(_, _, deadline)
      calls = calls + 1
      core.wait("read", -1, math.min(deadline, core.now() + 0.002))
      if calls == 5 and peer then peer:write "x" end
      if calls == 8 then pipe:close() end
    end)
    pipe = assert(transport.connect("127.0.0.1", listener.port, {}, soon()))
    peer = listener.accept()
    calls = 0
    assert.are.equal("x", pipe:read(soon()))
    assert(calls >= 5)
    if calls < 8 then
      assert.are.same({ nil, "closed", "the connection is closed" }, { pipe:read(soon()) })
      assert.are.equal(8, calls)
    end
    peer:close()
    listener.close()
  end)

  it("is not used while a deadline has passed", function()
    local listener = loopback.listen()
    local pipe = assert(connect("127.0.0.1", listener.port, {}, soon()))
    pipe.wait = function() error "waited" end
    assert.are.equal("timeout", (select(2, pipe:read(0))))
    assert.are.equal("timeout", (select(2, pipe:write(("x"):rep(2 ^ 24), 0))))
    pipe:close()
    listener.close()
  end)

  it("is a yield in a coroutine that is stepped, and only there", function()
    local listener = loopback.listen()
    local pipe = assert(connect("127.0.0.1", listener.port, {}, soon()))
    local function read(deadline) return pipe:read(deadline) end
    local stepped = coroutine.create(read)
    socket.register(stepped)
    clock.stop()
    finally(clock.go)
    local deadline = core.now() + 0.02
    assert.are.same({ true, "read", pipe.fd, deadline }, { coroutine.resume(stepped, deadline) })
    assert.are.same({ true, "read", pipe.fd, deadline }, { coroutine.resume(stepped) })
    clock.pass(0.02)
    assert.are.same({ true, nil, "timeout", "nothing came in time" }, { coroutine.resume(stepped) })
    clock.go()
    local plain = coroutine.create(read)
    assert.are.same({ true, nil, "timeout", "nothing came in time" }, { coroutine.resume(plain, core.now() + 0.02) })
    assert.are.equal("dead", coroutine.status(plain))
    -- it keeps no coroutine alive
    stepped = nil -- luacheck: ignore
    collectgarbage()
    collectgarbage()
    assert.is_nil(next(socket.stepped))
    pipe:close()
    listener.close()
  end)
end)

conformance("the socket transport", socket.new(), { run = function(run) return run() end })

conformance("the socket transport in a task", socket.new(), {
  run = function(run)
    local task = smtp.task(run)
    while true do
      local what, first, second, third = task:step()
      if what == "done" then return first, second, third end
      core.wait(what, first, second)
    end
  end,
  drop = function(run)
    local task = smtp.task(run)
    for _ = 1, 4 do
      local _, fd = task:step()
      core.wait("read", fd, core.now() + 0.02)
    end
  end,
})
