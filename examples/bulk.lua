--- A newsletter: each reader gets a message of their own, over several connections side by side; at the end a summary.
--- Who reads it is in a file, a mailbox a line ("Grace Hopper <grace@example.org>"): lua bulk.lua readers.txt
local smtp = require "smtp"

local from = os.getenv "FROM" or "Ada <ada@example.org>"

local pool, wrong = smtp.pool {
  url = os.getenv "SMTP_URL" or "smtp://user:password@mail.example.org:587",
  size = 4, -- connections; many servers take no more from one client
  rate = tonumber(os.getenv "RATE"), -- messages a second, where the server has a limit
  timeout = 600, -- seconds for each message: waiting for its turn and further attempts included
}
if not pool then
  io.stderr:write(tostring(wrong), "\n")
  os.exit(1)
end

local next_reader = arg[1] and io.lines(arg[1]) or ("Grace <grace@example.org>\nalan@example.org"):gmatch "[^\n]+"
local hopeless -- the error that every other message would meet, too

local function next_message()
  local reader = next_reader()
  if hopeless or not reader then return nil end
  return {
    from = from, to = reader, subject = "News ✉", text = "Hello,\n\nthis is what is new.\n",
    list = { unsubscribe = "mailto:leave@example.org" },
  }
end

-- What became of each: sent, or why not.
local sent, later, refused, unknown = 0, {}, {}, {}

pool:send_many(next_message, function(receipt, err, message)
  if receipt then
    sent = sent + 1
    return
  end
  local list = err.outcome == "unknown" and unknown or err.temporary and later or refused
  list[#list + 1] = message.to .. ": " .. err
  if err.kind == "auth" or err.kind == "tls" or err.kind == "insecure" then hopeless = err end
end)
pool:close()

local function tell(words, list)
  print(("%d %s"):format(#list, words))
  for _, line in ipairs(list) do print("  " .. line) end
end

print(sent .. " sent")
tell("not sent; a later run may send them", later)
tell("not sent, and not to be sent again as they are", refused)
tell("perhaps sent: sending them again may duplicate them", unknown)
if hopeless then print("Nobody else was tried: " .. hopeless) end
os.exit(#later + #refused + #unknown == 0 and 0 or 1)
