local conformance = require "spec.transport_conformance"
local found, uv = pcall(require, "luv")

if not found then
  return describe("the luv transport", function()
    it("is used", function() pending("NO LUV for " .. _VERSION .. ": " .. uv) end)
  end)
end

local transport = require "smtp.transport.luv"
local host = {}

function host.run(run)
  local results
  coroutine.wrap(function() results = { run() } end)()
  uv.run()
  return results[1], results[2], results[3]
end

function host.spawn(run)
  coroutine.wrap(run)()
end

conformance("the luv transport", transport, host)

describe("the luv transport", function()
  it("says what to do where it is called outside of a coroutine", function()
    local ok, reason = pcall(transport.wait, "read", -1, 0)
    assert.is_false(ok)
    assert.matches("call it in a coroutine", reason)
  end)
end)
