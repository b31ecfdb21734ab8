local conformance = require "spec.transport_conformance"
local found, cqueues = pcall(require, "cqueues")

if not found then
  return describe("the cqueues transport", function()
    it("is used", function() pending("NO CQUEUES for " .. _VERSION .. ": " .. cqueues) end)
  end)
end

local host = {}

function host.run(run)
  local loop, results = cqueues.new(), nil
  loop:wrap(function() results = { run() } end)
  assert(loop:loop())
  return results[1], results[2], results[3]
end

function host.spawn(run)
  cqueues.running():wrap(run)
end

function host.drop(run)
  local loop = cqueues.new()
  loop:wrap(run)
  for _ = 1, 4 do loop:step(0.02) end
end

conformance("the cqueues transport", require "smtp.transport.cqueues", host)
conformance("the cqueues transport outside of a loop", require "smtp.transport.cqueues", { run = function(run) return run() end })
