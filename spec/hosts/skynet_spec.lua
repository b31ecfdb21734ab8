-- The transport for services of skynet, not in skynet itself, which is packaged nowhere: over a stand-in for it.
-- Of: transport/skynet
local core = require "smtp.core"
local host = require "spec.support.skynet"
local loopback = require "spec.support.loopback"
local socket = require "skynet.socket"
local transport = require "smtp.transport.skynet"

require "spec.transport_conformance"("the skynet transport, over a stand-in for skynet #real", transport, host)

describe("the skynet transport, over a stand-in for skynet #real", function()
  it("leaves little with skynet, never the end of what could not be written whole, and nothing once it is closed", function()
    local slow = loopback.listen()
    local written, kind, held
    host.run(function()
      local pipe = assert(transport.connect("127.0.0.1", slow.port, {}, core.now() + 60))
      written, kind = pipe:write(("x"):rep(2 ^ 25) .. "the end", core.now() + 0.2)
      held = socket.netstat()[1].wbuffer
      pipe:close()
    end)
    assert.are.same({ nil, "timeout" }, { written, kind })
    assert.is_true(held > 0 and held < 2 ^ 20, held .. " octets with skynet")
    local peer, octets = slow.accept(), 0
    while true do
      local bytes = loopback.finish(peer, "read", "read")
      if not bytes then break end
      assert.is_nil(bytes:find("the end", 1, true))
      octets = octets + #bytes
    end
    assert.is_true(octets < 2 ^ 25)
    peer:close()
    slow.close()
  end)

  it("says what it cannot do", function()
    local pipe, kind, reason, _, hint = transport.connect("127.0.0.1", 25, {}, core.now() + 60)
    assert.are.same({ nil, "connect" }, { pipe, kind })
    assert.matches("before it has started", reason)
    assert.matches("skynet.start", hint)
    for _, opts in ipairs { { path = "/nowhere" }, { bind = "127.0.0.1" } } do
      local none, what, why = host.run(function() return transport.connect("127.0.0.1", 25, opts, core.now() + 60) end)
      assert.are.same({ nil, "connect" }, { none, what })
      assert.matches("^skynet's sockets", why)
    end
  end)
end)
