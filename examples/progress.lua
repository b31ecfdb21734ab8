--- A large attachment with a progress bar in the terminal.
local smtp = require "smtp"

-- The file: a few megabytes of numbers. An attachment is read while it is sent, never as a whole into memory.
local path = os.tmpname()
local file = assert(io.open(path, "wb"))
for n = 1, 500000 do file:write(("%07d\n"):format(n)) end
file:close()

local WIDTH = 40

-- Called while the body goes out. `total` is nil where the size is not known before the end (a source without size).
local function show(sent, total)
  local part = total and sent / total or 0
  local full = math.floor(part * WIDTH)
  io.stdout:write(("\r[%s%s] %3d %%  %.1f MB"):format(("#"):rep(full), (" "):rep(WIDTH - full), math.floor(part * 100),
    sent / 1e6))
  io.stdout:flush()
end

local receipt, err = smtp.send {
  url = os.getenv "SMTP_URL" or "smtp://user:password@mail.example.org:587",
  from = os.getenv "FROM" or "Ada <ada@example.org>",
  to = os.getenv "TO" or "grace@example.org",
  subject = "Half a million numbers",
  text = "They are attached.\n",
  attachments = { { path = path, filename = "numbers.txt" } },
  on_progress = show,
}
os.remove(path)
print()

if not receipt then
  io.stderr:write(tostring(err), "\n")
  os.exit(1)
end
print(("delivered %d octets as %s"):format(receipt.size, receipt.message_id))
