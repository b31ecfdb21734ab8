-- HAProxy's transport over a stand-in for its sockets; spec/hosts/haproxy_spec.lua shows it inside a real one.
local core = require "smtp.core"

if not coroutine.isyieldable then return end -- HAProxy has Lua 5.3 or later

describe("the HAProxy transport, over a stand-in for its sockets,", function()
  local now, sock, task, transport, before = core.now, nil, nil, nil, rawget(_G, "core")

  setup(function()
    rawset(_G, "core", { tcp = function() return sock end, msleep = coroutine.yield,
      register_task = function(run) task = coroutine.create(run) end })
    package.loaded["smtp.transport.haproxy"] = nil
    transport = require "smtp.transport.haproxy"
  end)

  teardown(function()
    rawset(_G, "core", before)
    package.loaded["smtp.transport.haproxy"] = nil
  end)

  after_each(function() core.now = now end) -- luacheck: ignore

  -- What a write of so many octets gives, and what was sent of them, where the time is over behind the send of a slice.
  local function write(octets, last_in_time)
    local sends, sent = 0, 0
    sock = { settimeout = function() end, connect = function() return 1 end, close = function() end }
    function sock.send(_, bytes)
      sends, sent = sends + 1, sent + #bytes
      return #bytes
    end
    core.now = function() return sends > last_in_time and 10 or 0 end -- luacheck: ignore
    local pipe = coroutine.wrap(function() return assert(transport.connect("127.0.0.1", 25, {}, 5)) end)()
    local ok, kind = pipe:write(("x"):rep(octets), 5)
    return { ok, kind, sent }
  end

  it("takes no write for failed that was whole, however late it ends", function()
    for slices = 1, 4 do
      local octets = slices * 16384 - 1000
      for last_in_time = 0, slices do
        local whole = last_in_time >= slices - 1
        assert.are.same(whole and { true, nil, octets } or { nil, "timeout", (last_in_time + 1) * 16384 },
          write(octets, last_in_time))
      end
    end
  end)

  it("gives what has come, though the deadline has passed", function()
    sock = { settimeout = function() end, connect = function() return 1 end, close = function() end,
      receive = function() return "220 mail.example.test\r\n" end }
    local pipe = coroutine.wrap(function() return assert(transport.connect("127.0.0.1", 25, {}, now() + 5)) end)()
    assert.are.equal("220 mail.example.test\r\n", pipe:read(0))
  end)

  -- Connects, at the time 0 and until 30, to who answers at a time or never, where HAProxy runs a task on its maker's thread
  -- or another, and has a timeout of its own or none that holds: what that gave, whether the socket was closed meanwhile, the
  -- time, and after how many rests the task beside it ended.
  local function connect(answered, elsewhere, own_timeout)
    local clock, closed, rests, outcome = 0, false, 0, nil
    core.now = function() return clock end -- luacheck: ignore
    local function here()
      if elsewhere and coroutine.running() == task then error "cannot use socket on other thread" end
    end
    sock = setmetatable({
      settimeout = here,
      connect = function()
        while not closed and clock < math.min(answered, own_timeout) do coroutine.yield() end
        return not closed and clock >= answered and 1 or nil
      end,
      close = function()
        here()
        closed = true
      end,
    }, { __gc = function() assert(outcome, "finalized in use") end })
    local call = coroutine.create(function() outcome = { transport.connect("127.0.0.1", 25, {}, 30) } end)
    coroutine.resume(call)
    while coroutine.status(task) ~= "dead" or coroutine.status(call) ~= "dead" do
      local milliseconds
      if coroutine.status(task) ~= "dead" then milliseconds = select(2, assert(coroutine.resume(task))) end
      if coroutine.status(call) ~= "dead" then assert(coroutine.resume(call)) end
      if milliseconds then rests = rests + 1 end
      clock = clock + (milliseconds or 1000) / 1000
    end
    return outcome, closed, clock, rests
  end

  it("ends an attempt to connect at its deadline, whatever HAProxy makes of its own", function()
    local outcome, closed, clock, rests = connect(math.huge, false, math.huge)
    assert.are.same({ nil, "timeout" }, { outcome[1], outcome[2] })
    assert.is_true(closed)
    assert.is_true(clock >= 30 and clock < 32)
    assert.is_true(rests < 20)
  end)

  it("leaves an attempt to HAProxy's own timeout where a task has another thread", function()
    local outcome, _, _, rests = connect(math.huge, true, 30)
    assert.are.same({ nil, "timeout" }, { outcome[1], outcome[2] })
    assert.are.equal(0, rests)
    assert.is_table(connect(7, true, 30)[1])
  end)

  it("watches no attempt that has ended, and closes none that has succeeded", function()
    local outcome, closed, clock = connect(0, false, math.huge)
    assert.is_table(outcome[1])
    assert.is_false(closed)
    assert.is_true(clock < 2)
    outcome, closed, clock = connect(7, false, math.huge)
    assert.is_table(outcome[1])
    assert.is_false(closed)
    assert.is_true(clock < 30)
  end)
end)
