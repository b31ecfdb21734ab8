-- many_sends TRANSPORT PORT COUNT WAY: COUNT sends at once in a loop, WAY "each" by a connection of its own, "pool" through a
-- pool. Prints how many worked, the ticks of the loop meanwhile, and the longest time between two.
local core = require "smtp.core"
local loops = require "spec.support.loops"
local smtp = require "smtp"

local name, port, count, way = arg[1], tonumber(arg[2]), tonumber(arg[3]), arg[4]
local transport = require("smtp.transport." .. name)
local host = loops[name]
local sent, left, ticks, longest = 0, count, 0, 0

host.run(function()
  local pool = assert(smtp.pool { host = "127.0.0.1", port = port, tls = "none", transport = transport, size = 50 })
  for i = 1, count do
    host.spawn(function()
      local mail = { from = "ada@example.org", to = "grace@example.test", subject = "at once " .. i, text = "Hello.\n" }
      local receipt, err
      if way == "pool" then
        receipt, err = pool:send(mail)
      else
        mail.host, mail.port, mail.tls, mail.transport = "127.0.0.1", port, "none", transport
        receipt, err = smtp.send(mail)
      end
      if receipt then sent = sent + 1 else print(err) end
      left = left - 1
    end)
  end
  while left > 0 do
    local began = core.now()
    while core.now() < began + 0.01 do transport.wait("read", -1, began + 0.01) end
    ticks, longest = ticks + 1, math.max(longest, core.now() - began)
  end
  pool:close()
end)
print(("%d sent, %d ticks, longest %.3f s"):format(sent, ticks, longest))
