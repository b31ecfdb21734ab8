-- smtp.transport.loop over plain coroutines; the specs of the transports show it in their hosts.
local loop = require "smtp.transport.loop"

describe("functions side by side in a host's coroutines", function()
  -- Calls them all: `started` are what is still waiting, and each rest of the caller goes on with the first of them.
  local function all(...)
    local started, woken, rests = {}, 0, 0
    local function begin(run, ended)
      local thread = coroutine.create(function()
        run()
        ended()
      end)
      local function step()
        local ok, reason = coroutine.resume(thread)
        if not ok then ended(reason) end
        if coroutine.status(thread) ~= "dead" then table.insert(started, step) end
      end
      step()
    end
    local ok, reason = pcall(loop.all, { ... }, begin, function()
      rests = rests + 1
      table.remove(started, 1)()
    end, function() woken = woken + 1 end)
    return { ok, reason, #started, woken, rests }
  end

  local function waits() coroutine.yield() end

  it("are waited for until the last has ended, which is told once", function()
    assert.are.same({ true, nil, 0, 1, 3 }, all(waits, function() end, waits, waits))
    assert.are.same({ true, nil, 0, 1, 0 }, all(function() end, function() end))
    assert.are.same({ true, nil, 0, 0, 0 }, all())
  end)

  it("have the first error raised, when all have ended", function()
    local order = {}
    local function fails(word)
      return function()
        waits()
        order[#order + 1] = word
        error(word, 0)
      end
    end
    assert.are.same({ false, "first", 0, 1, 3 }, all(fails "first", fails "second", function()
      waits()
      order[#order + 1] = "whole"
    end))
    assert.are.same({ "first", "second", "whole" }, order)
  end)

  it("tell of their error where the host's coroutines may wait inside a pcall", function()
    local told = {}
    loop.guard(function() error("mine", 0) end, function(reason) told[#told + 1] = reason end)
    loop.guard(function() end, function(reason) told[#told + 1] = reason == nil end)
    assert.are.same({ "mine", true }, told)
  end)
end)
