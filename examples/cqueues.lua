--- Sending from a program that runs on cqueues: each message in a coroutine of its own, while the loop does
--- its other work.
local cqueues = require "cqueues"
local smtp = require "smtp"

local url = os.getenv "SMTP_URL" or "smtp://user:password@mail.example.org:587"
local from = os.getenv "FROM" or "ada@example.org"
local to = os.getenv "TO" or "grace@example.org"

local loop = cqueues.new()
local left, ticks, failed = 3, 0, false

for i = 1, left do
  loop:wrap(function()
    local receipt, err = smtp.send {
      transport = require "smtp.transport.cqueues",
      url = url,
      from = from,
      to = to,
      subject = "Message " .. i,
      text = "Sent from a loop.\n",
    }
    print(i, receipt and "delivered as " .. receipt.message_id or err)
    left, failed = left - 1, failed or not receipt
  end)
end

-- stands for what else the program does
loop:wrap(function()
  while left > 0 do
    cqueues.sleep(0.005)
    ticks = ticks + 1
  end
end)

assert(loop:loop())
print(ticks .. " ticks meanwhile")
os.exit(failed and 1 or 0)
