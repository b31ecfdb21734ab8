--- A signed message: receivers can tell that the domain of its From really sent it, and that nobody changed it since
--- (DKIM, RFC 6376). Where your server signs already, as most providers' do, you need none of this.
---
---   openssl genrsa -out mail.key 2048                               # keep it where only this program can read it
---   echo "v=DKIM1; k=rsa; p=$(openssl rsa -in mail.key -pubout -outform DER | openssl base64 -A)"
---
--- The second line prints what goes into the DNS, as a TXT record of SELECTOR._domainkey.DOMAIN, here of
--- mail._domainkey.example.org. Then:
---
---   DKIM_KEY=mail.key DKIM_SELECTOR=mail DKIM_DOMAIN=example.org SMTP_URL=… FROM=ada@example.org TO=… lua dkim.lua
local smtp = require "smtp"

local receipt, err = smtp.send {
  url = os.getenv "SMTP_URL" or "smtp://user:password@mail.example.org:587",
  from = os.getenv "FROM" or "Ada <ada@example.org>", -- in the domain that signs, else it does not count for DMARC
  to = os.getenv "TO" or "grace@example.org",
  subject = "Signed",
  text = "Whoever changes this text breaks the signature.\n",
  dkim = {
    domain = os.getenv "DKIM_DOMAIN" or "example.org",
    selector = os.getenv "DKIM_SELECTOR" or "mail",
    key_file = os.getenv "DKIM_KEY" or "mail.key",
  },
}

-- What cannot be signed is not sent: a key that cannot be read is an error before anybody is called.
if not receipt then
  io.stderr:write(tostring(err), "\n")
  os.exit(1)
end
print("delivered as " .. receipt.message_id)
