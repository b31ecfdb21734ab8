local conformance = require "spec.transport_conformance"
local host = require "spec.support.loops".cqueues

if host.missing then
  return describe("the cqueues transport", function()
    it("is used", function() pending(host.missing) end)
  end)
end

local transport = require "smtp.transport.cqueues"

conformance("the cqueues transport", transport, host)
conformance("the cqueues transport outside of a loop", transport, { run = function(run) return run() end })
