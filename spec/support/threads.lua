-- threads PORT CERTIFICATE: four threads, each with a Lua state of its own, send ten messages each at the same time.
local thread = require "cqueues.thread"

local function work(connection, port, certificate)
  local smtp = require "smtp"
  local sent = 0
  for i = 1, 10 do
    local receipt, err = smtp.send {
      host = "localhost", port = tonumber(port), ca_file = certificate, username = "ada", password = "pass word",
      from = "ada@example.org", to = "grace@example.org", subject = "s" .. i, text = ("t"):rep(100000),
    }
    if receipt then sent = sent + 1 else connection:write(tostring(err), "\n") end
  end
  connection:write(sent, "\n")
end

local threads = {}
for i = 1, 4 do
  local one, connection = assert(thread.start(work, arg[1], arg[2]))
  threads[i] = { one = one, connection = connection }
end
for _, each in ipairs(threads) do
  for line in each.connection:lines() do print(line) end
  assert(each.one:join())
end
