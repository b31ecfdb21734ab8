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

  -- Connects, at the time 0 and until 30, to who answers at a time or never: what that gave, and when the task beside it ended
  -- after how many rests.
  local function connect(answered)
    local clock, ended, rests, outcome = 0, false, 0, nil
    core.now = function() return clock end -- luacheck: ignore
    sock = setmetatable({
      settimeout = function() end,
      connect = function()
        while not ended and clock < answered do coroutine.yield() end
        return not ended and 1 or nil
      end,
      close = function() error "cannot use socket on other thread" end,
    }, { __gc = function() ended = true end })
    local call = coroutine.create(function() outcome = { transport.connect("127.0.0.1", 25, {}, 30) } end)
    coroutine.resume(call)
    while coroutine.status(task) ~= "dead" do
      local _, milliseconds = assert(coroutine.resume(task))
      if coroutine.status(call) ~= "dead" then assert(coroutine.resume(call)) end
      if milliseconds then
        rests = rests + 1
        clock = clock + milliseconds / 1000
      end
    end
    return outcome, ended, clock, rests
  end

  it("ends an attempt to connect at its deadline, whatever HAProxy makes of its own", function()
    local outcome, ended, clock, rests = connect(math.huge)
    assert.are.same({ nil, "timeout" }, { outcome[1], outcome[2] })
    assert.is_true(ended)
    assert.is_true(clock >= 30 and clock < 30.01)
    assert.is_true(rests < 20)
  end)

  it("watches no attempt that has ended, and closes none that has succeeded", function()
    local outcome, ended, clock = connect(0)
    assert.is_table(outcome[1])
    assert.is_false(ended)
    assert.is_true(clock < 0.01)
    outcome, ended, clock = connect(7)
    assert.is_table(outcome[1])
    assert.is_false(ended)
    assert.is_true(clock < 30)
  end)
end)
