local conformance = require "spec.transport_conformance"
local host = require "spec.support.loops".copas

if host.missing then
  return describe("the copas transport", function()
    it("is used", function() pending(host.missing) end)
  end)
end

local transport = require "smtp.transport.copas"

conformance("the copas transport", transport, host)

describe("the copas transport", function()
  it("says what to do where it is called outside of a coroutine", function()
    local ok, reason = pcall(transport.wait, "read", -1, 0)
    assert.is_false(ok)
    assert.matches("call it in a coroutine", reason)
  end)
end)
