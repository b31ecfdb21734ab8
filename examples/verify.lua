--- What is wrong with a mail server, or with the settings for it: connects, encrypts, logs in, sends nothing.
---     SMTP_URL=smtp://user:password@mail.example.org:587 lua5.4 examples/verify.lua
local smtp = require "smtp"

local url = os.getenv("SMTP_URL")
if not url then
  io.stderr:write("set SMTP_URL=smtp://user:password@host:587\n")
  os.exit(2)
end

local report, err = smtp.verify { url = url, timeout = 60 }
print(report or err.report or err)
os.exit(report and 0 or 1)
