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

describe("the cqueues transport", function()
  it("has a pool's connections side by side on a system without pollers, too", function()
    local core, smtp = require "smtp.core", require "smtp"
    local server = require "spec.support.away".start "none"
    local poller = core.poller
    core.poller = function() return nil, "none here" end -- luacheck: ignore
    local left, sent, most = 40, 0, 0
    local ok, reason = pcall(host.run, function()
      local pool = assert(smtp.pool { host = "127.0.0.1", port = server.port, tls = "none", size = 4, transport = transport })
      pool:send_many(function()
        left = left - 1
        if left >= 0 then return { from = "ada@example.org", to = "grace@example.test", subject = "x", text = "x" } end
      end, function(receipt)
        sent, most = sent + (receipt and 1 or 0), math.max(most, pool:counts().open)
      end)
      pool:close()
    end)
    core.poller = poller -- luacheck: ignore
    server:stop()
    assert.is_true(ok, reason)
    assert.are.same({ 40, 4 }, { sent, most })
  end)
end)
