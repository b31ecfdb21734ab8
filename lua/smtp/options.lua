--- options: every table that a user writes, field by field.
---
--- Does: says what each field may be; refuses wrong names and types in what a user gives (raises).
--- Never: looks at values: what cannot work is found by smtp.plan, smtp.mail and smtp.server.
--- Called by: smtp, plan, client/send, login and pool, server, guess. The reference and smtp.types are made of it.
local check = require "smtp.check"

local options = {}

--- What transport = "auto" stands for: a host's own, set by smtp; nil: the built-in sockets.
---@type table?
options.host_transport = nil

-- A field is the Lua types it may have, with blanks between (behind a colon: what to write), or a list of these and of
-- what looks into a table. Its words stand above it, for they cost nothing there; behind it, where the Lua types do not
-- say it all: its type, (its unit) and = its default. That is for the reader: what fills it in is plan, of a pool's own
-- options client/pool and turns, of a message's smtp.mail, of a receiver's smtp.server. A field begins a line of its
-- own.

local TLS = 'string: write "implicit", "starttls", "opportunistic" or "none"'
local strings = check.list "string"

--- smtp.Mailbox: Somebody that mail goes to or comes from.
options.MAILBOX = {
  --- As people read it, in UTF-8.
  name = "string",
  --- `local-part@domain`. Beyond ASCII the domain goes in its `xn--` form (by libidn2); the local part needs a server
  --- with SMTPUTF8.
  address = "string", -- = required
}

local mailbox = check.record(options.MAILBOX)
local people = check.either(mailbox, check.list("string table", mailbox))

--- smtp.AttachmentOptions: What goes along with the text: one of `path`, `data` and `source`, and what is known of it.
options.ATTACHMENT = {
  --- A file, opened when the message is sent and read piece by piece: memory does not grow with it.
  path = "string",
  --- The content itself.
  data = "string",
  --- Gives the content in pieces, then nil; where a message is read twice it begins anew after that nil.
  source = "function", -- fun(): string?
  --- As the reader sees it.
  filename = "string", -- = the last part of `path`
  content_type = "string", -- = guessed from `filename`; `message/rfc822` for .eml
  --- Makes it part of the html, which shows it by `cid:`.
  content_id = "string",
  disposition = "string", -- "attachment"|"inline" = "attachment", or "inline" with a `content_id`
  --- Of a `source`: with it the message's size is known ahead.
  size = "number", -- integer (octets)
}

local function pair(value, label)
  check.plain(value, label)
  local count = 0
  for _ in next, value do count = count + 1 end
  local fine = count == 2 and type(value[1]) == "string" and (type(value[2]) == "string" or type(value[2]) == "number")
  if not fine then check.raise(label .. " must be a pair of name and value") end
end

--- smtp.CalendarOptions: An invitation, shown as one and attached as `invite.ics`. RFC 5545, 6047.
options.CALENDAR = {
  --- iCalendar text with a METHOD: `REQUEST`, `CANCEL`, `REPLY`, `PUBLISH`.
  content = "string", -- = required
  --- Where it is given it must be the same.
  method = "string", -- = the content's
}

--- smtp.ListOptions: What a mailing list says of itself. Each is a `mailto:`, `https:` or `http:` URI, or several in
--- order of preference. RFC 2369, 2919, 8058.
options.LIST = {
  unsubscribe = { "string table", strings }, -- string|string[]
  --- Leaving is one click; needs an `https:` URI in `unsubscribe`. Mailbox providers want such a message signed.
  unsubscribe_post = "boolean", -- = false
  --- `"Name <list.example.org>"`
  id = "string",
  help = { "string table", strings }, -- string|string[]
  subscribe = { "string table", strings }, -- string|string[]
  --- `"NO"`: nobody may post.
  post = { "string table", strings }, -- string|string[]
  owner = { "string table", strings }, -- string|string[]
  archive = { "string table", strings }, -- string|string[]
}

--- smtp.DkimOptions: A signature; RSA or Ed25519, as the key is. A message that cannot be signed is not sent.
--- RFC 6376, 8463.
options.SIGNATURE = {
  --- The domain that takes the responsibility (d=), in ASCII: an international one in its `xn--` form.
  domain = "string", -- = required
  --- Which of the domain's keys (s=): its public half is at `selector._domainkey.domain` in the DNS.
  selector = "string", -- = required
  --- The private key, PEM without a password: RSA of 1024 bits or more, or Ed25519.
  key = "string", -- = required, or `key_file`
  --- A file that holds it.
  key_file = "string",
  --- Which header fields to sign, From among them; those the message lacks are signed as absent.
  headers = { "table", strings }, -- string[] = those of RFC 6376 5.4.1 and the MIME ones, as far as they are there
  --- Of header and body: `relaxed` or `simple` each.
  canonicalization = "string", -- = "relaxed/relaxed"
}

local signature = check.record(options.SIGNATURE)

--- smtp.DsnOptions: Which reports to send back; an error where the server does not offer DSN. RFC 3461.
options.DSN = {
  --- `"never"`, or one or a list of `"success"`, `"failure"` and `"delay"`.
  notify = { "string table", strings }, -- string|string[] = as the servers like
  --- How much of the message comes back.
  ret = "string", -- "full"|"headers" = as the servers like
  --- An identifier of yours, that comes back, too: printable ASCII, 100 octets at the most when encoded.
  envid = "string",
}

--- smtp.DeliverByOptions: How soon a message is to be delivered; an error where the server does not offer it. RFC 2852.
options.DELIVER_BY = {
  seconds = "number", -- integer (seconds) = required
  --- What happens then: it comes back, or goes on and you are told.
  mode = "string", -- "return"|"notify" = "return"
  --- Every server on the way tells.
  trace = "boolean", -- = false
}

--- smtp.EnvelopeOptions: Whom the servers are told of, where it differs from the header. RFC 5321 2.3.1.
options.ENVELOPE = {
  --- Where reports go; `""` for the null reverse-path.
  from = { "string table", people }, -- string|smtp.Mailbox = `sender`, or `from`
  --- `"postmaster"` is a recipient without a domain.
  to = { "string table", people }, -- string|smtp.Mailbox|(string|smtp.Mailbox)[] = `to`, `cc` and `bcc`
}

--- smtp.MessageOptions: For smtp.send, smtp.message, session:send, session:send_many, pool:send and pool:send_many.
options.MESSAGE = {
  --- `"Ada <ada@example.org>"`, `"ada@example.org"` or `{name=, address=}`.
  from = { "string table", people }, -- string|smtp.Mailbox = required, but beside `raw`
  --- Who hands it in, where `from` are others.
  sender = { "string table", people }, -- string|smtp.Mailbox
  --- One, several separated by commas, or a list; a string may hold groups (`"Team: a@example.org, b@example.org;"`).
  to = { "string table", people }, -- string|smtp.Mailbox|(string|smtp.Mailbox)[] = one of `to`, `cc`, `bcc` is required
  cc = { "string table", people }, -- string|smtp.Mailbox|(string|smtp.Mailbox)[]
  --- In no header: nobody sees them. `"postmaster"`, without a domain, may be one.
  bcc = { "string table", people }, -- string|smtp.Mailbox|(string|smtp.Mailbox)[]
  reply_to = { "string table", people }, -- string|smtp.Mailbox|(string|smtp.Mailbox)[] = `from`
  --- UTF-8.
  subject = "string",
  --- UTF-8; with `html` besides the reader's program chooses.
  text = "string",
  --- UTF-8.
  html = "string",
  attachments = { -- smtp.AttachmentOptions[]
    'table: write a list such as { { path = "plan.pdf" } }',
    check.list('table: an item is written { path = "plan.pdf" }', check.record(options.ATTACHMENT)),
  },
  --- Your own: a list of `{name, value}`, or a table name → value. Those that have an option are refused.
  headers = { -- (string|number)[][]|table<string, string|number>
    "table", check.either(check.map "string number",
      check.list('table: an item is written { "X-Mailer", "ours" }', pair)),
  },
  --- Unix time, as os.time() gives it.
  date = "number: write a time as os.time() gives it", -- number (seconds) = now
  --- `"<left@right>"`
  message_id = "string", -- = made for you
  --- The message that this one answers: its Message-ID, as it has it (`"<left@right> …"`). Comments are skipped,
  --- anything else is refused.
  in_reply_to = "string",
  --- All those before it, likewise, or a list.
  references = { "string table", strings }, -- string|string[]
  --- `"normal"` writes nothing.
  priority = 'string: write "high", "normal" or "low"', -- "high"|"normal"|"low" = "normal"
  list = { "table", check.record(options.LIST) }, -- smtp.ListOptions
  calendar = { "table", check.record(options.CALENDAR) }, -- smtp.CalendarOptions
  dkim = { "table", check.either(signature, check.list("table", signature)) }, -- smtp.DkimOptions|smtp.DkimOptions[]
  dsn = { "table", check.record(options.DSN) }, -- smtp.DsnOptions
  --- Only over verified TLS, all the way; an error where the server does not offer it. RFC 8689.
  require_tls = "boolean", -- = false
  deliver_by = { "number table", check.record(options.DELIVER_BY) }, -- integer|smtp.DeliverByOptions (seconds)
  --- So long the server keeps it before it sends it on; an error where it does not offer that. RFC 4865.
  hold_for = "number", -- integer (seconds)
  --- From -9 to 9; an error where the server does not offer it. RFC 6710.
  mt_priority = "number", -- integer
  --- A finished message instead: a string, or a function that returns pieces and then nil. Line ends become CRLF, and
  --- `Bcc` and `Resent-Bcc` are taken out of its header; all else goes as it is, lines over 998 octets too. A NUL is
  --- refused, and so are octets beyond ASCII where the server does not offer 8BITMIME: those of a function when they
  --- come, by ending the connection (`not_sent`).
  raw = "string function", -- string|fun(): string?
  envelope = { "table", check.record(options.ENVELOPE) }, -- smtp.EnvelopeOptions
  --- Send to the recipients that the server takes and list the others; false: to all of them or to nobody.
  partial = "boolean", -- = true
  --- Called with the octets sent while the body goes out, and when all of it has. Must not yield; what it raises ends
  --- the connection and comes through.
  on_progress = "function", -- fun(sent: integer, total: integer?)
  --- false: a `path` in attachments and a `key_file` in dkim are refused, for tables that come from outside.
  files = "boolean", -- = true
}

--- smtp.TimeoutOptions: For each wait; all but `connect` as RFC 5321 4.5.3.2 has them.
options.TIMEOUTS = {
  --- The connection, and the handshake of TLS.
  connect = "number", -- (seconds) = 30
  --- The server's first words.
  greeting = "number", -- (seconds) = 300
  --- The reply to a command.
  command = "number", -- (seconds) = 300
  --- The reply to DATA.
  data = "number", -- (seconds) = 120
  --- A piece of the content to be taken.
  block = "number", -- (seconds) = 180
  --- The reply to all of it.
  final = "number", -- (seconds) = 600
}

-- Many libraries have the whole login in a table of that name.
local function names_of_mechanisms(value, label)
  for key in next, value do
    if type(key) == "string" then
      check.raise(label .. " names mechanisms: username and password, or token, are options beside it, not in it")
    end
  end
  strings(value, label)
end

---@class smtp.Transport Carries bytes. Every deadline is absolute, by smtp.now; each function but `bell` may yield.
---@field connect fun(host: string?, port: integer, opts: table, deadline: number): smtp.Pipe?, string?, string?,
--- boolean? a pipe; or nil, a kind (`"resolve"`, `"connect"`, `"timeout"`), the reason in words, and whether it may
--- pass. `opts` has `path` (a unix socket) and `bind`
---@field wait fun(mode: "read"|"write", fd: integer, deadline: number)? rests until the deadline, for pools; without it
--- the thread is blocked
---@field bell (fun(): table)? for pools: an object with `wait(deadline)`, `ring()`, `close()` and `blocks()` (false);
--- without it who waits for a turn looks for it now and again
---@field together fun(runs: function[])? calls functions in coroutines of your loop until each has returned, and raises
--- what one raises; pool:send_many then uses its connections side by side
---@field secure (fun(pipe: smtp.Pipe, opts: table, deadline: number): smtp.Pipe?, string?, string?)? your own TLS
--- (`opts`: `server_name`, `verify`, `ca_file` …): a pipe with `info`; or nil, `"tls"`, the reason. Without it smtp's
--- own TLS goes over your pipe

---@class smtp.Pipe One connection of a transport.
---@field read fun(self: smtp.Pipe, deadline: number): string?, string?, string? some bytes, as soon as there are any;
--- or nil, `"timeout"` or `"closed"`, the reason. After the deadline: what is there already
---@field write fun(self: smtp.Pipe, bytes: string, deadline: number): true?, string?, string?, integer? true when all
--- are written; else as `read`, and, where it can tell, how many octets at the end have certainly not gone out. Without
--- that a message whose end was among `bytes` is `unknown`
---@field peek fun(self: smtp.Pipe): ("data"|"idle"|"closed") without waiting or taking any
---@field close fun(self: smtp.Pipe) once or more; a read that waits ends
---@field name (fun(self: smtp.Pipe): string?, integer?)? the own address and port, for EHLO where the machine has no
--- full name

-- What else a transport has is its own business.
local function transport_of(value, label)
  if type(value.connect) == "function" then return end
  check.raise(('%s: a transport has a function "connect": %s'):format(label, type(value.new) == "function"
    and 'what its function "new" gives may be one'
    or ("write one such as require %q, or leave it out for the built-in sockets"):format("smtp.transport.cqueues")))
end

--- smtp.LoginOptions: For session:auth.
options.LOGIN = {
  username = "string",
  --- SCRAM-SHA-256 and SCRAM-SHA-1, both with channel binding (-PLUS) where the server can; then over verified TLS
  --- PLAIN, CRAM-MD5, LOGIN, else CRAM-MD5, PLAIN, LOGIN. Control characters, and the line break at a file's end, are
  --- refused before connecting.
  password = "string",
  --- An OAuth 2 access token, or a function that returns one: OAUTHBEARER, XOAUTH2.
  token = "string function", -- string|fun(): string
  --- A mechanism, or a list in order of preference; false: do not log in; `"EXTERNAL"`: by `client_cert`. Where a
  --- server does not take a mechanism that it offers (502, 504, 534 5.7.9) the next one that is no weaker has its turn:
  --- weaker than EXTERNAL and -PLUS is SCRAM, then CRAM-MD5, then PLAIN, LOGIN and tokens (over verified TLS CRAM-MD5
  --- is as these). After a refused password or token there is no other. RFC 4954.
  auth = { "string table boolean", names_of_mechanisms }, -- string|string[]|boolean = the strongest both sides have
}

--- smtp.ServerOptions (and smtp.LoginOptions): For smtp.send, smtp.connect, smtp.session, smtp.pool and smtp.verify.
options.SERVER = {
  --- A name or an address.
  host = "string", -- = required, or `url`, or `path`
  port = "number", -- integer = 465 with `tls = "implicit"`, 24 with `lmtp`, else 587
  --- A unix socket instead; without TLS unless `tls` says otherwise.
  path = "string",
  --- All in one: `smtps://user:pass@host:465`, `smtp://user:pass@host:587`, `smtp+insecure://host:25`,
  --- `lmtp://host:24`, `lmtp+unix:///path`; percent-encoding is decoded; other options override it.
  url = "string",
  --- `"starttls"`: encrypted before anything else is said, or nothing is sent; `"implicit"`: TLS from the first byte;
  --- `"opportunistic"`: STARTTLS where it is offered, and then still verified. RFC 3207, 8314.
  tls = TLS, -- "starttls"|"implicit"|"opportunistic"|"none" = "starttls"; "implicit" on port 465
  --- false switches the checks of certificate and name off.
  verify = "boolean", -- = true
  --- Trusted certificates instead of the system's: a PEM file, or its text; a damaged certificate there is an error.
  ca_file = "string", -- = the system's
  --- The same, a directory as `openssl rehash` makes it.
  ca_path = "string", -- = the system's
  --- Your own certificate: a PEM file, or its text.
  client_cert = "string",
  client_key = "string", -- = in `client_cert`
  --- The oldest version of TLS.
  tls_min = 'string: write "1.2" or "1.3"', -- "1.2"|"1.3" = "1.2"
  --- The name for SNI and to verify, where `host` is not it.
  server_name = "string", -- = `host`
  --- The SHA-256 of the server's public key in base64 (`report.tls.peer.pin` shows it), or a list: only such a server
  --- will do, beside the other checks.
  pin = { "string table", strings }, -- string|string[]
  username = options.LOGIN.username,
  password = options.LOGIN.password,
  token = options.LOGIN.token,
  auth = options.LOGIN.auth,
  --- Credentials are sent unencrypted, too, on loopback or anywhere.
  allow_insecure_auth = "boolean", -- = false
  --- The name given in EHLO.
  helo = "string", -- = the host's full name, else an address literal
  --- For the whole call. Without it smtp.send and smtp.verify give all that comes before the content (connecting,
  --- greeting, EHLO, TLS, login, envelope) 60 seconds altogether. Of a pool: for each message's whole way.
  timeout = "number", -- (seconds) = none
  --- Where one is given its wait may take that long, and is not counted among those 60 seconds.
  timeouts = { "table", check.record(options.TIMEOUTS) }, -- smtp.TimeoutOptions
  --- The local address to connect from, or a name with one of each family.
  bind = "string",
  --- `socks5://user:pass@host:1080` (it looks the server's name up) or `http://user:pass@host:80` (CONNECT).
  --- RFC 1928, 1929, 9110.
  proxy = "string",
  --- Speak LMTP: the server answers for each recipient, and `rejected` lists those it did not deliver to. RFC 2033.
  lmtp = "boolean", -- = false
  --- `"auto"`: the built-in sockets, inside nginx its own, inside Tarantool those of its fibers; or a transport, such
  --- as `require "smtp.transport.cqueues"`.
  transport = { "string table", transport_of }, -- "auto"|smtp.Transport = "auto"
  --- true: keep the transcript; a function: called for each line, direction `"C"` or `"S"`; what it raises ends the
  --- connection and comes through. Secrets are out of both.
  trace = "boolean function", -- boolean|fun(direction: "C"|"S", line: string) = false
  --- How much goes to the server before its answer is waited for. `"auto"`: what is safe; `"data"`: the same without
  --- BDAT; `"chunk"`: envelope and content together where the server offers CHUNKING, without finding out first what
  --- it does with a chunk that it refuses; `"auth"`: with smtp.send a PLAIN or EXTERNAL login goes along with the
  --- envelope; `"auth+chunk"`: all three at once; false: one command at a time. RFC 2920, 3030.
  pipeline = "string boolean", -- "auto"|"data"|"chunk"|"auth"|"auth+chunk"|boolean = "auto"
}

--- smtp.PoolOptions (and smtp.ServerOptions): For smtp.pool.
options.POOL = {
  --- Connections at the most.
  size = "number", -- integer = 5
  --- On one connection, then another is opened.
  max_messages = "number", -- integer = no limit
  --- After so long without use a connection is ended.
  max_idle = "number", -- (seconds) = 60
  --- Messages a second: each waits for its time before its envelope goes out, and goes by itself.
  rate = "number", -- number (a second) = no limit
  --- Of each message: what was not sent and may work later is tried again, after 1, 2, 4 … seconds.
  attempts = "number", -- integer = 3
}

---@class smtp.Received What a server was told of a message; with `data` the one in `server.inbox`.
---@field from string the reverse-path; `""` for the null one
---@field to string[] the recipients
---@field data string? the message, where there is no `on_message`
---@field auth string? who is logged in
---@field tls table? `{version=, cipher=}`, where TLS is spoken
---@field params table<string, string|true> the parameters of MAIL
---@field rcpt_params table<string, string|true>[]? those of each recipient in `to`, with the extension DSN

--- smtp.ReceiverOptions: For smtp.server.
options.RECEIVER = {
  --- Where to listen.
  host = "string", -- = "127.0.0.1"
  --- 0: any free one, then in `server.port`.
  port = "number", -- integer = 0
  --- `"starttls"`: no message before it; `"opportunistic"`: STARTTLS for who wants it; `"implicit"`: at once.
  tls = TLS, -- "none"|"starttls"|"opportunistic"|"implicit" = "none"
  --- A PEM file, or its text.
  cert = "string", -- = made for the run
  key = "string", -- = in `cert`
  --- Given: a login is required, under TLS where there is TLS.
  auth = "function", -- fun(username: string, password: string): boolean
  --- Of the largest message.
  size = "number", -- integer (octets) = 67108864
  --- Speak LMTP: one reply a recipient. RFC 2033.
  lmtp = "boolean", -- = false
  --- What else to offer, for an `on_message` that heeds it: `"DSN"`, `"REQUIRETLS"`, `"DELIVERBY 60"`,
  --- `"FUTURERELEASE 3600"`, `"MT-PRIORITY"`, `"BINARYMIME"`; the recipients' parameters are then in `rcpt_params`.
  extensions = { "table", strings }, -- string[]
  --- Told of each message. Returns nil, or a reply: `"550 5.7.1 not wanted"`, `"250 2.0.0 thanks"`, or a table
  --- `{code=, enhanced=, text=}`; with `lmtp` also a table address → reply. When it raises or yields the client is
  --- told to try again later.
  on_message = "function", -- fun(envelope: smtp.Received, message: string): (string|table|nil)
  --- So long a client has for a command or a reply; for a message one second more per 1000 octets.
  timeout = "number", -- (seconds) = 300
  --- Others wait until one ends.
  max_connections = "number", -- integer = 512
  --- One that smtp.transport.socket made, such as smtp.transport.cqueues: step and run wait as it does.
  transport = "table", -- table = the built-in sockets
}

local LOGIN, MESSAGE, SERVER = { options.LOGIN }, { options.MESSAGE }, { options.SERVER }
local BOTH = { options.SERVER, options.MESSAGE }

--- Refuses what is wrong among message options and in the tables there; raises.
---@param given table
---@param label string the call's name, for the message
function options.check_message(given, label)
  check.plain(given, label, options.MESSAGE)
  check.options(given, MESSAGE, label)
end

--- Refuses what is wrong among server options and in the tables there; raises.
---@param given table
---@param label string the call's name, for the message
---@param own table<string, string|table>? further options that the call has
function options.check_server(given, label, own)
  check.options(given, own and { options.SERVER, own } or SERVER, label)
end

--- Refuses what is wrong among the options of session:auth; raises.
---@param given table
function options.check_login(given)
  check.plain(given, "session:auth", options.LOGIN)
  check.options(given, LOGIN, "session:auth")
end

--- Splits the one table of smtp.send in two; raises like the others.
---@param given table
---@param label string
---@return table server
---@return table message
function options.split(given, label)
  check.options(given, BOTH, label)
  local server, message = {}, {}
  for name, value in next, given do
    if options.SERVER[name] then server[name] = value else message[name] = value end
  end
  return server, message
end

return options
