-- What the process has learnt of servers: kept for the next connection, and no more of them than a bound.
local habits = require "smtp.client.habits"

local function server(number)
  return { host = ("mx%d.example.org"):format(number), port = 25 }
end

-- Asks about so many other servers.
local function crowd(count)
  for i = 1, count do habits.of(server(i)) end
end

describe("habits", function()
  it("are a server's, whichever plan names it, and whatever the case of its name", function()
    habits.of({ host = "Mail.example.org", port = 25 }).swallows = true
    assert.is_true(habits.of({ host = "mail.EXAMPLE.org", port = 25 }).swallows)
    assert.is_nil(habits.of({ host = "mail.example.org", port = 587 }).swallows)
    habits.of({ path = "/run/lmtp", host = "localhost", port = 24 }).bears = false
    assert.is_false(habits.of({ path = "/run/lmtp", port = 24 }).bears)
    assert.is_nil(habits.of({ host = "localhost", port = 24 }).bears)
  end)

  it("do not grow with the number of servers: those not asked about for the longest time are forgotten", function()
    habits.of({ host = "old.example.org", port = 25 }).swallows = true
    crowd(2 * habits.MOST)
    assert.is_nil(habits.of({ host = "old.example.org", port = 25 }).swallows)
  end)

  it("of a server that is asked about again and again stay, however many others there are", function()
    habits.of({ host = "kept.example.org", port = 25 }).swallows = false
    for i = 1, 4 * habits.MOST do
      habits.of(server(i))
      if i % habits.MOST == 0 then assert.is_false(habits.of({ host = "kept.example.org", port = 25 }).swallows) end
    end
  end)
end)
