-- fork PORT CERTIFICATE: what a child collects, and its end, leave the parent's session and pool as they were.
local posix = require "posix"
local smtp = require "smtp"

local server = {
  host = "localhost", port = tonumber(arg[1]), ca_file = arg[2], username = "ada", password = "pass word",
}
local letter = { from = "ada@example.org", to = "grace@example.org", subject = "s", text = "t" }

-- session and pool
local held = { assert(smtp.connect(server)), (assert(smtp.pool(server))) }
for _, one in ipairs(held) do assert(one:send(letter)) end

local pid = assert(posix.fork())
if pid == 0 then
  held[1], held[2] = nil, nil
  collectgarbage()
  collectgarbage()
  return -- the interpreter closes the state
end
assert(posix.wait(pid))
local session, pool = held[1], held[2]
assert(session:noop())
assert(session:send(letter))
assert(pool:send(letter))
assert(pool.open == 1)
pool:close()
assert(session:quit())
print "intact"
