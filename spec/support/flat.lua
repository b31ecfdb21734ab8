-- flat: thousands of sends in a loop, every other one a failure, leave no descriptor and no memory.
local assert = require "luassert"
local child = require "spec.support.child"
local loopback = require "spec.support.loopback"
local smtp = require "smtp"

-- Octets of this process in memory.
local function resident()
  return tonumber(child.read("/proc/self/statm"):match("^%d+ (%d+)")) * 4096
end

--- Checks it.
---@param transport table
---@param host table see spec/support/loops.lua
---@param port integer of a server in a process of its own
---@param thousands integer how many of them are measured
return function(transport, host, port, thousands)
  local closed = loopback.listen()
  closed.close()
  local function round()
    host.run(function()
      local left = 100
      for i = 1, 100 do
        host.spawn(function()
          local receipt, err = smtp.send { transport = transport, host = i % 5 == 0 and "localhost" or "127.0.0.1",
            port = i % 4 == 1 and closed.port or port, tls = i % 4 == 3 and "starttls" or "none", from = "ada@example.org",
            to = "grace@example.test", subject = "flat", text = ("x"):rep(20000) }
          assert((receipt ~= nil) == (i % 2 == 0), tostring(err))
          left = left - 1
        end)
      end
      -- once more when all is done: a loop lets go of the last ones at its next turn
      repeat
        local done = left == 0
        transport.wait("read", -1, smtp.now() + 0.01)
      until done
    end)
    collectgarbage()
    collectgarbage()
  end
  for _ = 1, 5 do round() end
  -- what was left behind would be left behind each time; a table that takes its final size is not
  local files, kilobytes, octets, more, longer
  for _ = 1, 3 do
    files, kilobytes, octets = loopback.descriptors(), collectgarbage "count", resident()
    for _ = 1, thousands * 10 do round() end
    more, longer = collectgarbage "count" - kilobytes, resident() - octets
    if more < 50 and longer < 4e6 then break end
  end
  assert.is_true(loopback.settle(files) <= files, ("%d files before, %d now"):format(files, loopback.descriptors()))
  assert.is_true(more < 50, ("Lua's memory has grown by %.1f kilobytes"):format(more))
  assert.is_true(longer < 4e6, ("the process has grown by %d octets"):format(longer))
end
