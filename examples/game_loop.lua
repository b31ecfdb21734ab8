--- Sending from a loop that must not stop, such as a game's: the send is a task, and each tick takes it one step
--- further. No step ever waits, the look-up of the host's name included.
local smtp = require "smtp"
require "smtp.transport.tls" -- loads OpenSSL now, not in a tick

local task = smtp.task(smtp.send, {
  url = os.getenv "SMTP_URL" or "smtp://user:password@mail.example.org:587",
  from = os.getenv "FROM" or "game@example.org",
  to = os.getenv "TO" or "player@example.org",
  subject = "You won",
  text = "Congratulations!\n",
  timeout = 30,
})

local TICK = 1 / 60
local ticks, longest = 0, 0
local result, receipt, err

while result ~= "done" do
  local began = smtp.now()

  -- here the game would move things and draw them

  result, receipt, err = task:step()

  longest = math.max(longest, smtp.now() - began)
  ticks = ticks + 1
  while smtp.now() - began < TICK do end -- stands for the frame's other work
end

if not receipt then
  io.stderr:write(tostring(err), "\n")
  os.exit(1)
end
print(("delivered %s during %d ticks; the longest step took %.1f ms"):format(receipt.message_id, ticks, longest * 1000))
