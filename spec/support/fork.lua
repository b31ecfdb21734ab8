-- fork PORT CERTIFICATE: what a child collects, and its end, leave the parent's session and pool as they were.
local posix = require "posix"
local smtp = require "smtp"

local server = {
  host = "localhost", port = tonumber(arg[1]), ca_file = arg[2], username = "ada", password = "pass word",
}
local letter = { from = "ada@example.org", to = "grace@example.org", subject = "s", text = "t" }

local held = { session = assert(smtp.connect(server)), pool = assert(smtp.pool(server)) }
assert(held.session:send(letter))
assert(held.pool:send(letter))

local pid = assert(posix.fork())
if pid == 0 then
  held.session, held.pool = nil, nil
  collectgarbage()
  collectgarbage()
  return -- the interpreter closes the state
end
assert(posix.wait(pid))
assert(held.session:noop())
assert(held.session:send(letter))
assert(held.pool:send(letter))
assert(held.pool:counts().open == 1)
held.pool:close()
assert(held.session:quit())
print "intact"
