-- shown: what the reference shows, in order, and an example of each function. The examples of a chapter are one program,
-- which spec/readme_spec.lua runs.

local SEND = [[
local receipt, err = smtp.send {
  host = "mail.example.org", username = "ada", password = "secret", timeout = 60,
  from = "Ada <ada@example.org>", to = "grace@example.org", subject = "Hello", text = "It works.\n",
}
print(receipt and receipt.message_id or err)]]

local SESSION = [[
local s = assert(smtp.session { host = "mail.example.org", username = "ada", password = "secret" })
assert(s:connect())]]

local MANY = [[
local names, at = { "grace", "alan" }, 0
local function next_message()
  at = at + 1
  return names[at] and { from = "ada@example.org", to = names[at] .. "@example.org", subject = "News", text = "Hello.\n" }
end
for receipt, err in s:send_many(next_message) do print(receipt and receipt.message_id or err) end]]

local RESULTS = [[
local s = assert(smtp.connect { host = "mail.example.org", username = "ada", password = "secret" })
at = 0
local results = s:send_many(next_message)
local receipt, err = results()     -- as often as you like; in the end nil
results:close()                    -- begins nothing more
for receipt, err in results do print(receipt and receipt.message_id or err) end    -- what was under way or not begun
s:quit()]]

local POOL_MANY = [[
local names, at = { "grace", "alan" }, 0
local function next_message()
  at = at + 1
  return names[at] and { from = "ada@example.org", to = names[at] .. "@example.org", subject = "News", text = "Hello.\n" }
end
assert(pool:send_many(next_message, function(receipt, err, message) print(message.to, receipt and "sent" or err) end))]]

local TASK = [[
local task = smtp.task(smtp.send, { host = "mail.example.org", username = "ada", password = "secret",
  from = "ada@example.org", to = "grace@example.org", subject = "Hello", text = "It works.\n" })
local what, receipt, err
repeat what, receipt, err = task:step() until what == "done"     -- once at every tick of a loop of yours
assert(receipt, err)]]

local SERVER = [[
local server = assert(smtp.server { tls = "none" })
local task = smtp.task(smtp.send, { host = server.host, port = server.port, tls = "none",
  from = "ada@example.org", to = "grace@example.org", subject = "Hello", text = "It works.\n" })
repeat
  local what = task:step()
  server:step(what == "done" and 0 or 0.01)
until what == "done"
print(server.inbox[1].from, #server.inbox[1].data)]]

local RUN = [[
local other = assert(smtp.server { on_message = function() return "550 5.7.1 not here" end })
local serving = smtp.task(function() other:run() end)     -- in a thread of its own: other:run()]]

local SOCKET = [[
local transport = require "smtp.transport.socket".new(function(mode, fd, deadline)
  coroutine.yield(mode, fd, deadline)     -- to your loop: it resumes when fd is ready, or the deadline has passed
end)]]

return {
  { title = "Functions", variable = "smtp", words = 'Of the module: `local smtp = require "smtp"`.', functions = {
    { "smtp.send", SEND },
    { "smtp.message", [[
local message = assert(smtp.message { from = "ada@example.org", to = "grace@example.org", subject = "News", text = "Hello.\n" })
print(message.id, message:size())]] },
    { "smtp.connect", [[
local s = assert(smtp.connect { host = "mail.example.org", username = "ada", password = "secret" })
assert(s:send(message))
s:quit()]] },
    { "smtp.session", [[
local unopened = assert(smtp.session { host = "mail.example.org" })
print(unopened.state)]] },
    { "smtp.pool", [[
local pool = assert(smtp.pool { host = "mail.example.org", username = "ada", password = "secret", size = 3 })
assert(pool:send(message))
pool:close()]] },
    { "smtp.verify", [[
print(assert(smtp.verify { host = "mail.example.org", username = "ada", password = "secret" }))]] },
    { "smtp.task", [[
local task = smtp.task(smtp.verify, { host = "mail.example.org" })
repeat until task:step() == "done"]] },
    { "smtp.server", [[
local server = assert(smtp.server { tls = "starttls", auth = function(_, password) return password == "secret" end })
print(server.host, server.port)
server:close()]] },
    { "smtp.now", "local deadline = smtp.now() + 10" },
  } },
  { title = "Options", options = true, words = "The tables that these functions are given. Names that are none here, and "
    .. "wrong types, raise; so does a table in which a metatable could add to what it says, and for a server a word that is "
    .. "none of those listed. Any other value that cannot work is an error of kind `\"input\"`." },
  { title = "Sessions", variable = "session", words = "One connection to a server. Every verb returns the server's reply, "
    .. "or nil and the error. A session that met a timeout, a broken protocol, a lost connection or an error in a "
    .. "function of yours is dead: every later call says so.", class = "smtp.Session",
    fields = "capabilities greeting tls state time", functions = {
    { "Session:connect", SESSION },
    { "Session:ehlo", "assert(s:ehlo())\nprint(s.capabilities.SIZE)" },
    { "Session:starttls", "assert(s:starttls())\nassert(s:ehlo())" },
    { "Session:auth", "assert(s:auth())" },
    { "Session:mail", 'assert(s:mail("ada@example.org", { BODY = "8BITMIME" }))' },
    { "Session:rcpt", 'assert(s:rcpt "grace@example.org")' },
    { "Session:data", [[assert(s:data "Subject: Hello\r\n\r\nIt works.\r\n")]] },
    { "Session:bdat", [[
assert(s:mail "ada@example.org")
assert(s:rcpt "grace@example.org")
assert(s:bdat "Subject: Hello\r\n\r\nIt works.\r\n")]] },
    { "Session:send", [[
local sent = assert(s:send { from = "ada@example.org", to = "grace@example.org", subject = "Hello", text = "Hello.\n" })
print(sent.reply.text)]] },
    { "Session:send_many", MANY },
    { "Session:reset", "assert(s:reset())" },
    { "Session:noop", "assert(s:noop())" },
    { "Session:verify", 'print(assert(s:verify "grace@example.org").code)' },
    { "Session:command", 'print(assert(s:command "NOOP").text)' },
    { "Session:quit", "assert(s:quit())" },
    { "Session:close", "s:close()" },
  }, classes = { "smtp.Results" }, example = RESULTS },
  { title = "Messages", variable = "message", words = "Composed once by [smtp.message](#smtpmessage), sent many times.",
    class = "smtp.Message", fields = "id envelope partial on_progress", functions = {
    { "Message:size", [[
local message = assert(smtp.message { from = "ada@example.org", to = "grace@example.org", subject = "News", text = "Hello.\n" })
print(message:size())]] },
    { "Message:tostring", "print(assert(message:tostring()))" },
    { "Message:source", [[
local octets = 0
for piece in message:source() do octets = octets + #piece end]] },
    { "Message:save", 'assert(message:save "news.eml")' },
    { "Message:preview", 'assert(message:preview "news.html")' },
  } },
  { title = "Pools", variable = "pool", words = "Kept connections to one server, made by [smtp.pool](#smtppool).",
    class = "smtp.Pool", fields = "", functions = {
    { "Pool:send", [[
local pool = assert(smtp.pool { host = "mail.example.org", username = "ada", password = "secret" })
assert(pool:send { from = "ada@example.org", to = "grace@example.org", subject = "Hello", text = "It works.\n" })]] },
    { "Pool:send_many", POOL_MANY },
    { "Pool:counts", "local counts = pool:counts()\nprint(counts.open, counts.sent, counts.failed)" },
    { "Pool:close", "pool:close()" },
  } },
  { title = "Tasks", variable = "task", words = "Calls in steps, made by [smtp.task](#smtptask).", class = "smtp.Task",
    fields = "", functions = {
    { "Task:step", TASK },
  } },
  { title = "Servers", variable = "server", words = "The receiving side, made by [smtp.server](#smtpserver).",
    class = "smtp.Server", fields = "host port certificate inbox failure", classes = { "smtp.Received" }, functions = {
    { "Server:step", SERVER },
    { "Server:run", RUN },
    { "Server:close", "server:close()\nother:close()\nrepeat until serving:step() == \"done\"" },
  } },
  { title = "Results", words = "What the calls return.", classes = {
    "smtp.Receipt", "smtp.Error", "smtp.Refused", "smtp.Reply", "smtp.Report",
  } },
  { title = "Transports", words = "What carries the bytes, given as option `transport`. Ready-made, for a loop or a host of "
    .. "that name: `smtp.transport.cqueues`, `.luv`, `.copas`, `.haproxy`, `.prosody`, `.skynet`; nginx and Tarantool have "
    .. "theirs without a word. [README](../README.md#in-a-loop-of-your-own) shows how each is used.",
    classes = { "smtp.Transport", "smtp.Pipe" }, functions = {
    { "socket.new", SOCKET, shown = "smtp.transport.socket.new" },
  } },
  options = {
    "smtp.ServerOptions", "smtp.LoginOptions", "smtp.TimeoutOptions", "smtp.PoolOptions", "smtp.MessageOptions",
    "smtp.Mailbox", "smtp.AttachmentOptions", "smtp.EnvelopeOptions", "smtp.DkimOptions", "smtp.ListOptions",
    "smtp.CalendarOptions", "smtp.DsnOptions", "smtp.DeliverByOptions", "smtp.ReceiverOptions",
  },
}
