local conformance = require "spec.transport_conformance"

-- Debian has it in the folder of Lua 5.1 only, and no version of Lua is too new for it.
local path = package.path
package.path = path .. ";/usr/share/lua/5.1/?.lua"
local found, copas = pcall(require, "copas")
package.path = path

if not found then
  return describe("the copas transport", function()
    it("is used", function() pending("NO COPAS for " .. _VERSION .. ": " .. copas) end)
  end)
end

local transport = require "smtp.transport.copas"
local host = {}

function host.run(run)
  local results
  copas.addthread(function() results = { run() } end)
  while not results do copas.step() end
  return results[1], results[2], results[3]
end

function host.spawn(run)
  copas.addthread(run)
end

conformance("the copas transport", transport, host)

describe("the copas transport", function()
  it("says what to do where it is called outside of a coroutine", function()
    local ok, reason = pcall(transport.wait, "read", -1, 0)
    assert.is_false(ok)
    assert.matches("call it in a coroutine", reason)
  end)
end)
