--- The demonstration behind `make demo`: a real message over verified STARTTLS with login.
--- Without SMTP_URL it goes to the receiving server of this library, started here, and what arrived is shown. With
--- SMTP_URL=smtp://user:password@host:587 FROM=you@example.org TO=somebody@example.org it goes through that server.
local smtp = require "smtp"
local tls = require "smtp.tls"
local core = require "smtp.core"

local here = arg[0]:match("^(.*)/[^/]*$") or "."
local picture = here .. "/envelope.png"

local function say(...) print((...):format(select(2, ...))) end

local function sha256(bytes)
  return (tls.hash("sha256", bytes):gsub(".", function(byte) return ("%02x"):format(byte:byte()) end))
end

local function read_file(path)
  local file = assert(io.open(path, "rb"))
  local bytes = file:read("*a")
  file:close()
  return bytes
end

-- What goes out, whoever receives it.
local function letter(options)
  options.subject = "Grüße von smtp ✉"
  options.text = "Hello,\n\nthis came over SMTP, and the line below begins with a dot:\n.like this one\n\n"
    .. "Die Umlaute: äöüß. 你好!\n"
  options.html = "<p>Hello,</p><p>this came over <b>SMTP</b>. Die Umlaute: äöüß. 你好!</p>"
  options.attachments = { { path = picture, filename = "Umschlag – ✉.png" } }
  options.trace = function(direction, line) say("  %s: %s", direction, line) end
  return options
end

local function show(receipt, err)
  if not receipt then
    say("\nIt failed: %s", tostring(err))
    os.exit(1)
  end
  say("\nDelivered: %s, %d octets, queue id %s", receipt.message_id, receipt.size, receipt.queue_id or "unknown")
  for _, address in ipairs(receipt.accepted) do say("  taken:   %s", address) end
  for _, one in ipairs(receipt.rejected) do say("  refused: %s (%d %s)", one.address, one.code, one.text) end
  if receipt.tls then
    say("  encrypted with %s, %s, the certificate verified", receipt.tls.version, receipt.tls.cipher)
  end
  say("  %d round trips, %.1f ms", receipt.round_trips, receipt.time.total * 1000)
end

-- A small MIME reader, enough to show what this demonstration sends -------------------------------------------------

local function unfold(head)
  local fields = {}
  for name, value in (head:gsub("\r\n([ \t])", "%1") .. "\r\n"):gmatch("([^:\r\n]+):[ \t]*([^\r\n]*)\r\n") do
    fields[name:lower()] = value
  end
  return fields
end

local function unquote_printable(text)
  return (text:gsub("=\r\n", ""):gsub("=(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

local function decode_words(text)
  return (text:gsub("%?=%s+=%?", "?==?"):gsub("=%?[^?]*%?([BbQq])%?([^?]*)%?=", function(encoding, words)
    if encoding:upper() == "B" then return core.unbase64(words) end
    return unquote_printable((words:gsub("_", " ")))
  end))
end

local function decode_body(fields, body)
  local encoding = (fields["content-transfer-encoding"] or ""):lower()
  if encoding == "base64" then return assert(core.unbase64((body:gsub("%s", "")))) end
  if encoding == "quoted-printable" then return unquote_printable(body) end
  return body
end

local function each_part(message, visit)
  local head, body = message:match("^(.-\r\n)\r\n(.*)$")
  local fields = unfold(head)
  local boundary = (fields["content-type"] or ""):match('boundary="?([^";]+)')
  if not boundary then return visit(fields, decode_body(fields, body)) end
  local marker = "--" .. boundary
  local from = select(2, ("\r\n" .. body):find("\r\n" .. marker, 1, true))
  while from do
    local first, last = body:find("\r\n" .. marker, from, true)
    if not first then break end
    each_part(body:sub(from + 1, first - 1), visit)
    from = last + 2
  end
end

local function show_received(mail)
  local head = mail.data:match("^(.-\r\n)\r\n")
  local fields = unfold(head)
  say("\nReceived from <%s> for <%s>, logged in as %s, %s:", mail.from, table.concat(mail.to, ">, <"), mail.auth,
    mail.tls.version)
  for _, name in ipairs { "Date", "From", "To", "Message-ID", "Subject" } do
    say("  %s: %s", name, decode_words(fields[name:lower()]))
  end
  local arrived
  each_part(mail.data, function(part, body)
    local kind = part["content-type"]:match("^[^;]*")
    say("\n  [%s]", kind)
    if kind:find("^text/") then
      say("  %s", (body:gsub("\r\n", "\n  ")))
    else
      arrived = sha256(body)
      say("  %d bytes, SHA-256 %s", #body, arrived)
    end
  end)
  return arrived
end

-- Both ways ----------------------------------------------------------------------------------------------------------

local url = os.getenv "SMTP_URL"
if url then
  local from, to = os.getenv "FROM", os.getenv "TO"
  if not (from and to) then
    say("With SMTP_URL set, set FROM and TO too:\n"
      .. "  SMTP_URL=smtp://user:password@host:587 FROM=you@example.org TO=them@example.org make demo")
    os.exit(2)
  end
  say("Sending from %s to %s through the server of SMTP_URL. The dialogue (C: client, S: server):\n", from, to)
  show(smtp.send(letter { url = url, from = from, to = to }))
  os.exit(0)
end

local server, problem = smtp.server {
  tls = "starttls",
  auth = function(username, password) return username == "ada" and password == "correct horse" end,
}
if not server then show(nil, problem) end
say("A receiving server listens on %s port %d, its certificate made for this run.", server.host, server.port)
say("Sending to it. The dialogue (C: client, S: server):\n")

-- Client and server share this one thread: the send is a task, stepped in turn with the server.
local task = smtp.task(smtp.send, letter {
  host = server.host, port = server.port, ca_file = server.certificate,
  username = "ada", password = "correct horse",
  from = "Ada <ada@example.org>", to = { "Grace Hopper <grace@example.org>", "alan@example.org" },
})
local what, receipt, err
repeat
  what, receipt, err = task:step()
  server:step(what == "done" and 0 or 0.01)
until what == "done"
show(receipt, err)

local arrived = show_received(server.inbox[1])
local sent = sha256(read_file(picture))
say("\nThe picture's SHA-256 before it was sent: %s", sent)
say(sent == arrived and "Both sides agree." or "The two sides DIFFER.")
server:close()
os.exit(sent == arrived and 0 or 1)
