-- pool_script PORT: thirty messages over three connections, from a script that has no loop of its own.
local smtp = require "smtp"

local pool = assert(smtp.pool { host = "127.0.0.1", port = tonumber(arg[1]), tls = "none", size = 3 })
local count, sent = 0, 0
assert(pool:send_many(function()
  count = count + 1
  if count > 30 then return nil end
  return { from = "ada@example.org", to = "bob@example.test", subject = "s" .. count, text = "t" }
end, function(receipt, err)
  assert(receipt, err)
  sent = sent + 1
end))
pool:close()
print(sent .. " sent")
