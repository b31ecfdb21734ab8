--- Google's submission host, step by step. Set GMAIL_USER and either GMAIL_APP_PASSWORD (an app password: Google
--- account, Security, 2-Step Verification, App passwords) or GMAIL_TOKEN (an OAuth 2 access token for the scope
--- https://mail.google.com/), and TO. The account's own password does not work.
---
--- smtp.send does all of this in one call; here each step of the dialogue stands on its own, so that you can watch it.
local smtp = require "smtp"

local user = os.getenv "GMAIL_USER" or "you@gmail.com"
local to = os.getenv "TO" or user

-- An error says by itself at which step it is.
local function check(value, err)
  if value then return value end
  io.stderr:write(tostring(err), "\n")
  os.exit(1)
end

local function show(step, ...)
  local reply = check(...)
  print(("%-9s %d %s"):format(step, reply.code, (reply.text:gsub("\n", "\n              "))))
end

-- 1. The options. tls = "starttls" is the default on port 587; the certificate is always verified.
local s = check(smtp.session {
  host = os.getenv "SMTP_HOST" or "smtp.gmail.com",
  port = tonumber(os.getenv "SMTP_PORT" or 587),
  username = user,
  password = os.getenv "GMAIL_APP_PASSWORD",
  token = os.getenv "GMAIL_TOKEN",
})

-- 2. Connect. The server greets with a 220.
show("connect", s:connect())

-- 3. EHLO: we give our name, the server lists what it can do. Before TLS that is little.
show("ehlo", s:ehlo())
print("          STARTTLS offered: " .. tostring(s.capabilities.STARTTLS ~= nil))

-- 4. STARTTLS. From here on everything is encrypted, and what the server said before is forgotten.
show("starttls", s:starttls())
print(("          %s, certificate of %s"):format(s.tls.version, s.tls.peer.subject))
show("ehlo", s:ehlo())

-- 5. Log in. With a token it is OAUTHBEARER or XOAUTH2, with an app password PLAIN; never before step 4.
show("auth", s:auth())

-- 6. The message: who it is from, who it is for, and the content, which ends with a line that is a lone dot: the
--    library writes that line, and takes care of dots of yours.
local message = check(smtp.message {
  from = user,
  to = to,
  subject = "Hello from Lua",
  text = "Sent step by step.\n",
})
show("mail", s:mail(message.envelope.from, { SIZE = message:size() }))
for _, address in ipairs(message.envelope.to) do show("rcpt", s:rcpt(address)) end
show("data", s:data(message))

-- 7. Say goodbye.
show("quit", s:quit())
