local conformance = require "spec.transport_conformance"
local host = require "spec.support.loops".luv

if host.missing then
  return describe("the luv transport", function()
    it("is used", function() pending(host.missing) end)
  end)
end

local transport = require "smtp.transport.luv"

conformance("the luv transport", transport, host)

describe("the luv transport", function()
  it("says what to do where it is called outside of a coroutine", function()
    local ok, reason = pcall(transport.wait, "read", -1, 0)
    assert.is_false(ok)
    assert.matches("call it in a coroutine", reason)
  end)
end)
