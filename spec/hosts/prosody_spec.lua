-- The transport inside a real Prosody, which runs this file by busted, too: what is said here of its runners is said there.
if rawget(_G, "prosody") then
  local async = require "util.async"
  local transport = require "smtp.transport.prosody"

  require "spec.transport_conformance"("the Prosody transport", transport, {
    run = function(run) return run() end,
    spawn = function(run) async.runner(run):run(true) end,
    pause = async.sleep,
  })
  return
end

local prosody = require "spec.support.prosody"

describe("inside Prosody #real", function()
  it("all is as everywhere", function()
    local output, missing = prosody.busted "spec/hosts/prosody_spec.lua"
    if missing then return pending(missing) end
    print(output)
  end)
end)
