--- Text, HTML with a picture inside it, and attachments from a file, from memory and from a function. Attachments
--- are read while they are sent: a large one needs no more memory than a small one.
local smtp = require "smtp"

local here = arg[0]:match("^(.*)/[^/]*$") or "."

-- A source is a function that returns the next piece and, at the end, nil. This one makes a table of squares.
local function squares()
  local n = 0
  return function()
    n = n + 1
    if n == 1 then return "n,square\r\n" end
    if n <= 101 then return ("%d,%d\r\n"):format(n - 1, (n - 1) ^ 2) end
    return nil
  end
end

local receipt, err = smtp.send {
  url = os.getenv "SMTP_URL" or "smtp://user:password@mail.example.org:587",
  from = os.getenv "FROM" or "Ada <ada@example.org>",
  to = os.getenv "TO" or "Grace Hopper <grace@example.org>",
  subject = "Three attachments ✉",
  text = "The picture and two tables are attached.\n",
  html = '<p>The picture <img src="cid:envelope" alt="an envelope"> and two tables are attached.</p>',
  attachments = {
    { path = here .. "/envelope.png", content_id = "envelope" },          -- shown where the HTML says cid:envelope
    { data = "name,value\r\nä,1\r\n", filename = "Tabelle für Grace.csv" },
    { source = squares(), filename = "squares.csv", content_type = "text/csv" },
  },
}

if not receipt then
  io.stderr:write(tostring(err), "\n")
  os.exit(1)
end
print(("delivered %d octets as %s"):format(receipt.size, receipt.message_id))
