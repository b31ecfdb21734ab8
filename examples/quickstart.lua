--- The shortest way: one table in, one message delivered.
--- Set SMTP_URL, FROM and TO, or write your own values into the table. A % in the password is written %25, an @ %40.
local smtp = require "smtp"

local receipt, err = smtp.send {
  url = os.getenv "SMTP_URL" or "smtp://user:password@mail.example.org:587",
  from = os.getenv "FROM" or "Ada <ada@example.org>",
  to = os.getenv "TO" or "grace@example.org",
  subject = "Hello from Lua",
  text = "It works.\n",
}

if not receipt then
  -- one line: what failed, where, what became of the message, and often what to do
  io.stderr:write(tostring(err), "\n")
  os.exit(1)
end
print("delivered as " .. receipt.message_id)
