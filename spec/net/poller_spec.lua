local core = require "smtp.core"
local loopback = require "spec.support.loopback"

local function readable(poller, seconds)
  return core.wait("read", poller:fd(), core.now() + (seconds or 0))
end

describe("a poller", function()
  local poller, listener, client, server, reason

  before_each(function()
    poller, reason = core.poller()
    listener = loopback.listen()
    client, server = listener.pair()
  end)

  after_each(function()
    for _, one in ipairs { poller or listener, client, server, listener } do one:close() end
  end)

  local function on(title, run)
    it(title, function()
      if not poller then return pending("NO POLLER: " .. reason) end
      run()
    end)
  end

  on("is readable while what it watches is ready, and tells which, once", function()
    assert.is_true(poller:watch("read", client:fd()))
    assert.is_false(readable(poller))
    assert.are.same({}, poller:ready())
    server:write "x"
    assert.is_true(readable(poller, 60))
    assert.are.same({ client:fd() }, poller:ready())
    -- the byte still lies there, but the watch is over
    assert.is_false(readable(poller, 0.02))
    assert.is_true(poller:watch("read", client:fd()))
    assert.is_true(readable(poller, 60))
    assert.are.same({ client:fd() }, poller:ready())
    assert.is_true(poller:watch("write", server:fd()))
    assert.are.same({ server:fd() }, poller:ready())
  end)

  on("tells of an end", function()
    poller:watch("read", client:fd())
    server:close()
    assert.is_true(readable(poller, 60))
    assert.are.same({ client:fd() }, poller:ready())
  end)

  on("changes its mind about a descriptor, and drops it", function()
    poller:watch("read", client:fd())
    poller:watch("write", client:fd())
    assert.are.same({ client:fd() }, poller:ready())
    poller:watch("write", client:fd())
    poller:drop(client:fd())
    poller:drop(client:fd())
    assert.is_false(readable(poller))
    assert.are.same({}, poller:ready())
  end)

  on("knows a number that has come again", function()
    local fd = client:fd()
    poller:watch("read", fd)
    client:close()
    server:close()
    client, server = listener.pair()
    assert(client:fd() == fd or server:fd() == fd)
    assert.is_true(poller:watch("read", client:fd()))
    server:write "x"
    assert.is_true(readable(poller, 60))
    assert.are.same({ client:fd() }, poller:ready())
  end)

  on("tells of more than it can tell at once", function()
    local pairs_of = {}
    for i = 1, 100 do
      pairs_of[i] = { listener.pair() }
      assert.is_true(poller:watch("write", pairs_of[i][1]:fd()))
    end
    local seen, count = {}, 0
    while readable(poller) do
      for _, fd in ipairs(poller:ready()) do
        assert.is_nil(seen[fd])
        seen[fd], count = true, count + 1
      end
    end
    assert.are.equal(100, count)
    for _, pair in ipairs(pairs_of) do
      pair[1]:close()
      pair[2]:close()
    end
  end)

  on("is readable from the time on to which its alarm is set", function()
    for _, seconds in ipairs { 0.05, 0.001 } do
      local deadline = core.now() + seconds
      assert.is_true(poller:alarm(deadline))
      assert.is_true(readable(poller, 60))
      assert.is_true(core.now() >= deadline)
      assert.are.same({}, poller:ready())
      assert.is_true(readable(poller))
    end
    for _, never in ipairs { core.now() + 100, math.huge } do
      assert.is_true(poller:alarm(never))
      assert.is_false(readable(poller, 0.01))
    end
    for _, past in ipairs { 0, -1, -math.huge, core.now() } do
      poller:alarm(core.now() + 100)
      assert.is_true(poller:alarm(past))
      assert.is_true(readable(poller, 60))
    end
  end)

  on("says why it cannot watch", function()
    local fd = client:fd()
    client:close()
    local ok, why = poller:watch("read", fd)
    assert.are.same({ nil, "string" }, { ok, type(why) })
    assert.has_error(function() poller:watch("both", 1) end)
    poller:close()
    poller:close()
    assert.has_error(function() poller:fd() end)
    assert.has_error(function() poller:ready() end)
  end)

  on("is closed by the collector", function()
    local before = loopback.descriptors()
    for _ = 1, 10 do
      local one = core.poller()
      one:alarm(core.now() + 100)
    end
    assert.are.equal(before, loopback.descriptors())
  end)
end)
