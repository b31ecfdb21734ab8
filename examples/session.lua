--- One connection, several messages: connect once, send as often as you like, quit.
local smtp = require "smtp"

local session, err = smtp.connect {
  url = os.getenv "SMTP_URL" or "smtp://user:password@mail.example.org:587",
}
if not session then
  io.stderr:write(tostring(err), "\n")
  os.exit(1)
end

local from = os.getenv "FROM" or "ada@example.org"
for i, address in ipairs { os.getenv "TO" or "grace@example.org", "alan@example.org", "nobody@@example.org" } do
  local receipt, failure = session:send {
    from = from,
    to = address,
    subject = ("Message number %d"):format(i),
    text = "One of several on the same connection.\n",
  }
  if receipt then
    print(("%d: delivered to %s in %d round trips"):format(i, receipt.accepted[1], receipt.round_trips))
  elseif failure.outcome == "unknown" then
    -- the connection broke after the message was handed over: sending it again may duplicate it
    print(("%d: may have been delivered: %s"):format(i, tostring(failure)))
  else
    print(("%d: not sent: %s"):format(i, tostring(failure)))
  end
end

session:quit()
