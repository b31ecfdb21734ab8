-- A LÖVE game that mails a high score while it runs: each frame takes the mail a step further, and no step waits.
--   eval "$(make -s env LUA=luajit)"; SMTP_URL=smtp://… FROM=… TO=… love examples/love
local smtp = require "smtp"
require "smtp.transport.tls" -- loads OpenSSL before the first frame

local mail, angle, frames, longest, words = nil, 0, 0, 0, "sending"

function love.load()
  mail = smtp.task(smtp.send, {
    url = os.getenv "SMTP_URL", ca_file = os.getenv "CA_FILE",
    from = os.getenv "FROM", to = os.getenv "TO",
    subject = "A new high score", text = "4,711 points!", timeout = 30,
  })
end

function love.update(dt)
  angle, frames = angle + dt, frames + 1
  if not mail then return end
  local before = smtp.now()
  local state, receipt, err = mail:step()
  longest = math.max(longest, smtp.now() - before)
  if state == "done" then
    mail, words = nil, receipt and "sent " .. receipt.message_id or tostring(err)
    print(("%s after %d frames; the longest step took %.1f ms"):format(words, frames, longest * 1000))
    if not love.graphics then love.event.quit() end
  end
end

function love.draw()
  love.graphics.print(words, 20, 20)
  love.graphics.circle("fill", 200 + 80 * math.cos(angle * 3), 200 + 80 * math.sin(angle * 3), 10)
end
