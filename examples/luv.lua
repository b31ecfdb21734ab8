--- Sending from a program that runs on luv: each message in a coroutine, which the loop resumes, while it
--- does its other work.
local smtp = require "smtp"
local uv = require "luv"

local url = os.getenv "SMTP_URL" or "smtp://user:password@mail.example.org:587"
local from = os.getenv "FROM" or "ada@example.org"
local to = os.getenv "TO" or "grace@example.org"

-- stands for what else the program does
local left, ticks, failed = 3, 0, false
local timer = uv.new_timer()
timer:start(5, 5, function() ticks = ticks + 1 end)

for i = 1, left do
  coroutine.wrap(function()
    local receipt, err = smtp.send {
      transport = require "smtp.transport.luv",
      url = url,
      from = from,
      to = to,
      subject = "Message " .. i,
      text = "Sent from a loop.\n",
    }
    print(i, receipt and "delivered as " .. receipt.message_id or err)
    left, failed = left - 1, failed or not receipt
    if left == 0 then timer:close() end
  end)()
end

uv.run()
print(ticks .. " ticks meanwhile")
os.exit(failed and 1 or 0)
