---@meta smtp
-- The types of smtp, for lua-language-server; no program loads this. Made by `make reference` of the docstrings and
-- smtp/options.lua: change those.
-- luacheck: ignore

--- For smtp.send, smtp.connect, smtp.session, smtp.pool and smtp.verify.
---@class smtp.ServerOptions: smtp.LoginOptions
---@field host? string A name or an address. (required, or `url`, or `path`)
---@field port? integer (default: 465 with `tls = "implicit"`, 24 with `lmtp`, else 587)
---@field path? string A unix socket instead; without TLS unless `tls` says otherwise.
---@field url? string All in one: `smtps://user:pass@host:465`, `smtp://user:pass@host:587`, `smtp+insecure://host:25`, `lmtp://host:24`, `lmtp+unix:///path`; percent-encoding is decoded; other options override it.
---@field tls? "starttls"|"implicit"|"opportunistic"|"none" `"starttls"`: encrypted before anything else is said, or nothing is sent; `"implicit"`: TLS from the first byte; `"opportunistic"`: STARTTLS where it is offered, and then still verified. RFC 3207, 8314. (default: "starttls"; "implicit" on port 465)
---@field verify? boolean false switches the checks of certificate and name off. (default: true)
---@field ca_file? string Trusted certificates instead of the system's: a PEM file, or its text; a damaged certificate there is an error. (default: the system's)
---@field ca_path? string The same, a directory as `openssl rehash` makes it. (default: the system's)
---@field client_cert? string Your own certificate: a PEM file, or its text.
---@field client_key? string (default: in `client_cert`)
---@field tls_min? "1.2"|"1.3" The oldest version of TLS. (default: "1.2")
---@field server_name? string The name for SNI and to verify, where `host` is not it. (default: `host`)
---@field pin? string|string[] The SHA-256 of the server's public key in base64 (`report.tls.peer.pin` shows it), or a list: only such a server will do, beside the other checks.
---@field allow_insecure_auth? boolean Credentials are sent unencrypted, too, on loopback or anywhere. (default: false)
---@field helo? string The name given in EHLO. (default: the host's full name, else an address literal)
---@field timeout? number For the whole call. Without it smtp.send and smtp.verify give all that comes before the content (connecting, greeting, EHLO, TLS, login, envelope) 60 seconds altogether. Of a pool: for each message's whole way. (seconds; default: none)
---@field timeouts? smtp.TimeoutOptions Where one is given its wait may take that long, and is not counted among those 60 seconds.
---@field bind? string The local address to connect from, or a name with one of each family.
---@field proxy? string `socks5://user:pass@host:1080` (it looks the server's name up) or `http://user:pass@host:80` (CONNECT). RFC 1928, 1929, 9110.
---@field lmtp? boolean Speak LMTP: the server answers for each recipient, and `rejected` lists those it did not deliver to. RFC 2033. (default: false)
---@field transport? "auto"|smtp.Transport `"auto"`: the built-in sockets, inside nginx its own, inside Tarantool those of its fibers; or a transport, such as `require "smtp.transport.cqueues"`. (default: "auto")
---@field trace? boolean|fun(direction: "C"|"S", line: string) true: keep the transcript; a function: called for each line, direction `"C"` or `"S"`; what it raises ends the connection and comes through. Secrets are out of both. (default: false)
---@field pipeline? "auto"|"data"|"chunk"|"auth"|"auth+chunk"|boolean How much goes to the server before its answer is waited for. `"auto"`: what is safe; `"data"`: the same without BDAT; `"chunk"`: envelope and content together where the server offers CHUNKING, without finding out first what it does with a chunk that it refuses; `"auth"`: with smtp.send a PLAIN or EXTERNAL login goes along with the envelope; `"auth+chunk"`: all three at once; false: one command at a time. RFC 2920, 3030. (default: "auto")

--- For session:auth.
---@class smtp.LoginOptions
---@field username? string
---@field password? string SCRAM-SHA-256 and SCRAM-SHA-1, both with channel binding (-PLUS) where the server can; then over verified TLS PLAIN, CRAM-MD5, LOGIN, else CRAM-MD5, PLAIN, LOGIN. Control characters, and the line break at a file's end, are refused before connecting.
---@field token? string|fun(): string An OAuth 2 access token, or a function that returns one: OAUTHBEARER, XOAUTH2.
---@field auth? string|string[]|boolean A mechanism, or a list in order of preference; false: do not log in; `"EXTERNAL"`: by `client_cert`. Where a server does not take a mechanism that it offers (502, 504, 534 5.7.9) the next one that is no weaker has its turn: weaker than EXTERNAL and -PLUS is SCRAM, then CRAM-MD5, then PLAIN, LOGIN and tokens (over verified TLS CRAM-MD5 is as these). After a refused password or token there is no other. RFC 4954. (default: the strongest both sides have)

--- For each wait; all but `connect` as RFC 5321 4.5.3.2 has them.
---@class smtp.TimeoutOptions
---@field connect? number The connection, and the handshake of TLS. (seconds; default: 30)
---@field greeting? number The server's first words. (seconds; default: 300)
---@field command? number The reply to a command. (seconds; default: 300)
---@field data? number The reply to DATA. (seconds; default: 120)
---@field block? number A piece of the content to be taken. (seconds; default: 180)
---@field final? number The reply to all of it. (seconds; default: 600)

--- For smtp.pool.
---@class smtp.PoolOptions: smtp.ServerOptions
---@field size? integer Connections at the most. (default: 5)
---@field max_messages? integer On one connection, then another is opened. (default: no limit)
---@field max_idle? number After so long without use a connection is ended. (seconds; default: 60)
---@field rate? number Messages a second: each waits for its time before its envelope goes out, and goes by itself. (a second; default: no limit)
---@field attempts? integer Of each message: what was not sent and may work later is tried again, after 1, 2, 4 … seconds. (default: 3)

--- For smtp.send, smtp.message, session:send, session:send_many, pool:send and pool:send_many.
---@class smtp.MessageOptions
---@field from? string|smtp.Mailbox `"Ada <ada@example.org>"`, `"ada@example.org"` or `{name=, address=}`. (required, but beside `raw`)
---@field sender? string|smtp.Mailbox Who hands it in, where `from` are others.
---@field to? string|smtp.Mailbox|(string|smtp.Mailbox)[] One, several separated by commas, or a list; a string may hold groups (`"Team: a@example.org, b@example.org;"`). (one of `to`, `cc`, `bcc` is required)
---@field cc? string|smtp.Mailbox|(string|smtp.Mailbox)[]
---@field bcc? string|smtp.Mailbox|(string|smtp.Mailbox)[] In no header: nobody sees them. `"postmaster"`, without a domain, may be one.
---@field reply_to? string|smtp.Mailbox|(string|smtp.Mailbox)[] (default: `from`)
---@field subject? string UTF-8.
---@field text? string UTF-8; with `html` besides the reader's program chooses.
---@field html? string UTF-8.
---@field attachments? smtp.AttachmentOptions[] What goes along with the text: one of `path`, `data` and `source`, and what is known of it.
---@field headers? (string|number)[][]|table<string, string|number> Your own: a list of `{name, value}`, or a table name → value. Those that have an option are refused.
---@field date? number Unix time, as os.time() gives it. (seconds; default: now)
---@field message_id? string `"<left@right>"` (default: made for you)
---@field in_reply_to? string The message that this one answers: its Message-ID, as it has it (`"<left@right> …"`). Comments are skipped, anything else is refused.
---@field references? string|string[] All those before it, likewise, or a list.
---@field priority? "high"|"normal"|"low" `"normal"` writes nothing. (default: "normal")
---@field list? smtp.ListOptions What a mailing list says of itself.
---@field calendar? smtp.CalendarOptions An invitation, shown as one and attached as `invite.ics`.
---@field dkim? smtp.DkimOptions|smtp.DkimOptions[] A signature; RSA or Ed25519, as the key is.
---@field dsn? smtp.DsnOptions Which reports to send back; an error where the server does not offer DSN.
---@field require_tls? boolean Only over verified TLS, all the way; an error where the server does not offer it. RFC 8689. (default: false)
---@field deliver_by? integer|smtp.DeliverByOptions How soon a message is to be delivered; an error where the server does not offer it. (seconds)
---@field hold_for? integer So long the server keeps it before it sends it on; an error where it does not offer that. RFC 4865. (seconds)
---@field mt_priority? integer From -9 to 9; an error where the server does not offer it. RFC 6710.
---@field raw? string|fun(): string? A finished message instead: a string, or a function that returns pieces and then nil. Line ends become CRLF, and `Bcc` and `Resent-Bcc` are taken out of its header; all else goes as it is, lines over 998 octets too. A NUL is refused, and so are octets beyond ASCII where the server does not offer 8BITMIME: those of a function when they come, by ending the connection (`not_sent`).
---@field envelope? smtp.EnvelopeOptions Whom the servers are told of, where it differs from the header.
---@field partial? boolean Send to the recipients that the server takes and list the others; false: to all of them or to nobody. (default: true)
---@field on_progress? fun(sent: integer, total: integer?) Called with the octets sent while the body goes out, and when all of it has. Must not yield; what it raises ends the connection and comes through.
---@field files? boolean false: a `path` in attachments and a `key_file` in dkim are refused, for tables that come from outside. (default: true)

--- Somebody that mail goes to or comes from.
---@class smtp.Mailbox
---@field name? string As people read it, in UTF-8.
---@field address string `local-part@domain`. Beyond ASCII the domain goes in its `xn--` form (by libidn2); the local part needs a server with SMTPUTF8.

--- What goes along with the text: one of `path`, `data` and `source`, and what is known of it.
---@class smtp.AttachmentOptions
---@field path? string A file, opened when the message is sent and read piece by piece: memory does not grow with it.
---@field data? string The content itself.
---@field source? fun(): string? Gives the content in pieces, then nil; where a message is read twice it begins anew after that nil.
---@field filename? string As the reader sees it. (default: the last part of `path`)
---@field content_type? string (default: guessed from `filename`; `message/rfc822` for .eml)
---@field content_id? string Makes it part of the html, which shows it by `cid:`.
---@field disposition? "attachment"|"inline" (default: "attachment", or "inline" with a `content_id`)
---@field size? integer Of a `source`: with it the message's size is known ahead. (octets)

--- Whom the servers are told of, where it differs from the header. RFC 5321 2.3.1.
---@class smtp.EnvelopeOptions
---@field from? string|smtp.Mailbox Where reports go; `""` for the null reverse-path. (default: `sender`, or `from`)
---@field to? string|smtp.Mailbox|(string|smtp.Mailbox)[] `"postmaster"` is a recipient without a domain. (default: `to`, `cc` and `bcc`)

--- A signature; RSA or Ed25519, as the key is. A message that cannot be signed is not sent. RFC 6376, 8463.
---@class smtp.DkimOptions
---@field domain string The domain that takes the responsibility (d=), in ASCII: an international one in its `xn--` form.
---@field selector string Which of the domain's keys (s=): its public half is at `selector._domainkey.domain` in the DNS.
---@field key? string The private key, PEM without a password: RSA of 1024 bits or more, or Ed25519. (required, or `key_file`)
---@field key_file? string A file that holds it.
---@field headers? string[] Which header fields to sign, From among them; those the message lacks are signed as absent. (default: those of RFC 6376 5.4.1 and the MIME ones, as far as they are there)
---@field canonicalization? string Of header and body: `relaxed` or `simple` each. (default: "relaxed/relaxed")

--- What a mailing list says of itself. Each is a `mailto:`, `https:` or `http:` URI, or several in order of preference.
--- RFC 2369, 2919, 8058.
---@class smtp.ListOptions
---@field unsubscribe? string|string[]
---@field unsubscribe_post? boolean Leaving is one click; needs an `https:` URI in `unsubscribe`. Mailbox providers want such a message signed. (default: false)
---@field id? string `"Name <list.example.org>"`
---@field help? string|string[]
---@field subscribe? string|string[]
---@field post? string|string[] `"NO"`: nobody may post.
---@field owner? string|string[]
---@field archive? string|string[]

--- An invitation, shown as one and attached as `invite.ics`. RFC 5545, 6047.
---@class smtp.CalendarOptions
---@field content string iCalendar text with a METHOD: `REQUEST`, `CANCEL`, `REPLY`, `PUBLISH`.
---@field method? string Where it is given it must be the same. (default: the content's)

--- Which reports to send back; an error where the server does not offer DSN. RFC 3461.
---@class smtp.DsnOptions
---@field notify? string|string[] `"never"`, or one or a list of `"success"`, `"failure"` and `"delay"`. (default: as the servers like)
---@field ret? "full"|"headers" How much of the message comes back. (default: as the servers like)
---@field envid? string An identifier of yours, that comes back, too: printable ASCII, 100 octets at the most when encoded.

--- How soon a message is to be delivered; an error where the server does not offer it. RFC 2852.
---@class smtp.DeliverByOptions
---@field seconds integer (seconds)
---@field mode? "return"|"notify" What happens then: it comes back, or goes on and you are told. (default: "return")
---@field trace? boolean Every server on the way tells. (default: false)

--- For smtp.server.
---@class smtp.ReceiverOptions
---@field host? string Where to listen. (default: "127.0.0.1")
---@field port? integer 0: any free one, then in `server.port`. (default: 0)
---@field tls? "none"|"starttls"|"opportunistic"|"implicit" `"starttls"`: no message before it; `"opportunistic"`: STARTTLS for who wants it; `"implicit"`: at once. (default: "none")
---@field cert? string A PEM file, or its text. (default: made for the run)
---@field key? string (default: in `cert`)
---@field auth? fun(username: string, password: string): boolean Given: a login is required, under TLS where there is TLS.
---@field size? integer Of the largest message. (octets; default: 67108864)
---@field lmtp? boolean Speak LMTP: one reply a recipient. RFC 2033. (default: false)
---@field extensions? string[] What else to offer, for an `on_message` that heeds it: `"DSN"`, `"REQUIRETLS"`, `"DELIVERBY 60"`, `"FUTURERELEASE 3600"`, `"MT-PRIORITY"`, `"BINARYMIME"`; the recipients' parameters are then in `rcpt_params`.
---@field on_message? fun(envelope: smtp.Received, message: string): (string|table|nil) Told of each message. Returns nil, or a reply: `"550 5.7.1 not wanted"`, `"250 2.0.0 thanks"`, or a table `{code=, enhanced=, text=}`; with `lmtp` also a table address → reply. When it raises or yields the client is told to try again later.
---@field timeout? number So long a client has for a command or a reply; for a message one second more per 1000 octets. (seconds; default: 300)
---@field max_connections? integer Others wait until one ends. (default: 512)
---@field transport? table One that smtp.transport.socket made, such as smtp.transport.cqueues: step and run wait as it does. (default: the built-in sockets)

--- For smtp.send: both side by side.
---@class smtp.SendOptions: smtp.ServerOptions, smtp.MessageOptions

--- Called, it gives the next result: a receipt, or false and the error; in the end nil. May yield.
---@class smtp.Results
---@field close fun(self: smtp.Results) nothing more is begun, and what is on its way is ended: by the coroutine that waits for a result, if another calls this meanwhile. May wait and yield
---@overload fun(): (smtp.Receipt|false)?, smtp.Error?

---@class smtp.Session
---@field capabilities? table<string, string|true> the EHLO reply, keyword -> parameters
---@field greeting? smtp.Reply
---@field tls? table {version=, cipher=, peer=, resumed=}
---@field state "new"|"connected"|"ready"|"dead"|"closed"
---@field time table seconds: {connect=, tls=, auth=}
local Session = {}

--- Connects and reads the greeting; with tls = "implicit" encrypts first. RFC 5321 3.1, RFC 8314 3. May yield.
---@return smtp.Reply? greeting
---@return smtp.Error? err kinds "resolve", "connect", "timeout", "closed", "tls", "protocol", "rejected", "auth" (at a proxy)
function Session:connect() end

--- EHLO, and HELO where the server knows no EHLO and nothing needs one; with LMTP LHLO (RFC 2033 4.1). Fills
--- s.capabilities. RFC 5321 3.2. May yield.
---@param name? string default: option helo, else the host's full name, else an address literal
---@return smtp.Reply? reply
---@return smtp.Error? err kinds "input", "timeout", "closed", "protocol", "rejected"
function Session:ehlo(name) end

--- STARTTLS and the handshake; EHLO is owed again afterwards. RFC 3207. May yield.
---@return smtp.Reply? reply
---@return smtp.Error? err kinds "insecure" (not offered or refused), "tls", "protocol", "timeout", "closed"
function Session:starttls() end

--- Logs in with the strongest mechanism both sides have. RFC 4954. May yield, but not while SCRAM computes (some
--- milliseconds; 0.15 s at the most that a server may ask for).
---@param options? smtp.LoginOptions default: the session's own
---@return smtp.Reply? reply
---@return smtp.Error? err kinds "insecure", "auth", "input", "protocol", "timeout", "closed"
function Session:auth(options) end

--- MAIL FROM. RFC 5321 4.1.1.2. May yield.
---@param from string a mailbox's address; "" for the null reverse-path
---@param params? table<string, string|number|true> e.g. { SIZE = 1000, BODY = "8BITMIME" }
---@return smtp.Reply? reply
---@return smtp.Error? err
function Session:mail(from, params) end

--- RCPT TO. RFC 5321 4.1.1.3. May yield.
---@param to string a mailbox's address
---@param params? table<string, string|number|true>
---@return smtp.Reply? reply
---@return smtp.Error? err
function Session:rcpt(to, params) end

--- DATA, the content and its final reply. Line ends become CRLF, dots are stuffed. RFC 5321 4.1.1.4. May yield. With
--- LMTP there is a reply for each recipient: the one returned is the first good one, and it (or the error) has the
--- lists `accepted` and `rejected` of a receipt. RFC 2033 4.2.
---@param source string|function|table text, a function that returns chunks and then nil, or a message
---@return smtp.Reply? reply
---@return smtp.Error? err
function Session:data(source) end

--- The content in chunks, as it is: no line end is changed, no dot stuffed; its final reply. What the server refuses it
--- might read as commands: where it has not shown otherwise, a refused chunk ends the session. RFC 3030. May yield.
---@param source string|function|table bytes, a function that returns chunks and then nil, or a message
---@return smtp.Reply? reply
---@return smtp.Error? err kind "input" where the server does not offer CHUNKING
function Session:bdat(source) end

--- Sends one message and returns its receipt; the session can send the next one. May yield.
---@param mail smtp.MessageOptions|smtp.Message
---@return smtp.Receipt? receipt
---@return smtp.Error? err
function Session:send(mail) end

--- Sends messages one after the other, N of them with N + 1 waits where the server pipelines: the next envelope goes
--- along with the end of the content before it. For each message in order the function that is returned gives its
--- receipt, or false (so that a `for` goes on) and its error; at the end nil. May yield.
--- (A task cannot wait inside a `for` on Lua 5.1: call the function yourself there.)
--- Whoever needs no more results than these calls close() on what is returned; where the Lua has closing values (5.4) a
--- `for` that is left does that. Nothing more is begun then, and what is on its way is ended; calling on gives what
--- became of all that the iterator gave.
---@param iterator fun(): (smtp.MessageOptions|smtp.Message)? the next one; nil: no more. It is called ahead of the results, while the server works. What it raises is raised when all that it gave before has its result, and the session is dead then
---@return smtp.Results results
---@return nil
---@return nil
---@return smtp.Results results for a `for` to close
function Session:send_many(iterator) end

--- RSET: gives up the transaction. RFC 5321 4.1.1.5. May yield.
---@return smtp.Reply? reply
---@return smtp.Error? err
function Session:reset() end

--- NOOP. RFC 5321 4.1.1.9. May yield.
---@return smtp.Reply? reply
---@return smtp.Error? err
function Session:noop() end

--- VRFY: asks about a mailbox; most servers answer 252. RFC 5321 4.1.1.6. May yield.
---@param mailbox string
---@return smtp.Reply? reply
---@return smtp.Error? err
function Session:verify(mailbox) end

--- Any command line and its reply, whatever it says; for what has no verb here. After a 3xx reply only this may go on.
--- An AUTH and the lines of its dialogue are kept out of the transcript. May yield.
---@param line string
---@return smtp.Reply? reply
---@return smtp.Error? err kind "insecure" for an AUTH in clear, without allow_insecure_auth
function Session:command(line) end

--- QUIT; the session is closed afterwards, whatever came of it. RFC 5321 4.1.1.10. May yield.
---@return smtp.Reply? reply
---@return smtp.Error? err
function Session:quit() end

--- Closes the connection without a word. Never waits; calling it again does nothing.
function Session:close() end

---@class smtp.Message
---@field id? string "<…@…>"; nil for `raw` where none was found
---@field envelope { from: string, to: string[] } what MAIL and RCPT name; from is "" for the null reverse path. The caller's, who may change it between two sends
---@field partial? boolean the option, for the delivery; it and the next may be changed like the envelope
---@field on_progress? false|fun(sent: integer, total: integer?) the option, for the delivery: octets that the transport has taken, before dot-stuffing; called after each block and when all is out. What it raises ends the connection and is raised by send. It must not yield (a task would take that for a wait of its own)
local Message = {}

--- Exact octets with CRLF line ends, before dot-stuffing; nil when not known before the end (a function without size).
--- Never yields.
---@param form? "7bit"|"8bit"|"binary" default the one that every server takes
---@return integer?
function Message:size(form) end

--- The whole message in memory, with CRLF line ends, before dot-stuffing. May yield where a function that gives content
--- does.
---@param form? "7bit"|"8bit"|"binary" default the one that every server takes
---@return string?
---@return smtp.Error? err kind "source"
function Message:tostring(form) end

--- The message from its start, with CRLF line ends: files are opened anew. Reading may yield where a function that
--- gives content does.
---@param form? "7bit"|"8bit"|"binary" default the one that every server takes
---@return (fun(): string?, smtp.Error?) read a chunk, never ""; nil at the end; nil and an error of kind "source"
---@return fun() close for who does not read to the end: closes the file that is open then
function Message:source(form) end

--- Writes the whole message to a file (.eml), with CRLF line ends, piece by piece: memory does not grow with it. It is
--- written under a name beside `path` and renamed when complete: a failure leaves nothing and an older file as it was.
--- May yield where a function that gives content does.
---@param path string
---@return true?
---@return smtp.Error? err stage "compose"; kind "source": the message cannot be read; "input": cannot write there
function Message:save(path) end

--- Writes one HTML page that shows the message as a person would see it: header, html with its inline images, text,
--- attachments with type and size; of a `raw` message its source. Nothing in it runs or is loaded from elsewhere.
--- Written as save() writes. A `source` function of an image shown, or of `raw`, is read for it. May yield where that
--- does.
---@param path string
---@return true?
---@return smtp.Error? err stage "compose"; kind "source": an attachment cannot be read; "input": cannot write there
function Message:preview(path) end

---@class smtp.Pool
local Pool = {}

--- Sends one message over a kept connection, or a new one. Callers get their turns in the order of their calls. May
--- yield.
---@param options smtp.MessageOptions|smtp.Message
---@return smtp.Receipt? receipt
---@return smtp.Error? err of the last attempt
function Pool:send(options) end

--- Sends many messages over `size` connections side by side, each pipelining; over a transport without `together`, or
--- inside of a call that holds a connection of this pool, one after the other. Returns when every message has its
--- result. May yield.
---@param iterator fun(): (smtp.MessageOptions|smtp.Message)? the next one; nil: no more. What it or `on_result` raises is raised when all that is under way has its result; on Lua 5.1, which cannot catch it in a coroutine, at once
---@param on_result fun(receipt: smtp.Receipt?, err: smtp.Error?, given: table) called once for each, as results come
---@return true|nil
---@return smtp.Error? err kind "closed": the pool is closed, and the iterator is not asked any more
function Pool:send_many(iterator, on_result) end

--- How the pool stands: connections `open`, of them `idle`, at most `limit` for now; who is `waiting` for one; results
--- so far, `sent` and `failed`. Never waits.
---@return { open: integer, idle: integer, limit: integer, waiting: integer, sent: integer, failed: integer }
function Pool:counts() end

--- Says goodbye on every idle connection; those in use end when their message has its result. No connection is opened
--- from now on: who waits for one, or will try again, is told that the pool is closed, and later calls fail. May yield.
function Pool:close() end

---@class smtp.Task
local Task = {}

--- Goes on as far as it can without waiting, but hardly for longer than some milliseconds. Never blocks, name look-up
--- included. Raises what `run` raised, at every later call too.
---@return "read"|"write"|"done" what the event that is waited for; "done": the call is over
---@return any ... fd and deadline (absolute, by smtp.now): call again when fd is ready or the deadline has passed, or simply at the next tick; fd -1: only the deadline is waited for; after "done" the results of `run`, again at every later call
function Task:step() end

--- What a server was told of a message; with `data` the one in `server.inbox`.
---@class smtp.Received
---@field from string the reverse-path; `""` for the null one
---@field to string[] the recipients
---@field data? string the message, where there is no `on_message`
---@field auth? string who is logged in
---@field tls? table `{version=, cipher=}`, where TLS is spoken
---@field params table<string, string|true> the parameters of MAIL
---@field rcpt_params? table<string, string|true>[] those of each recipient in `to`, with the extension DSN

---@class smtp.Server
---@field host string the address it listens on
---@field port integer
---@field certificate? string the `cert` given, or the PEM text of the one made for the run: a client's ca_file
---@field inbox smtp.Received[] where no on_message is given
---@field failure? string the last fault inside a connection, on_message or auth
local Server = {}

--- Serves what can be served now, waiting at most `timeout` seconds for something to do (0: not at all). May yield
--- where its transport does, and in a task. Raises what that wait does, as in a thread that is cancelled; the next call
--- goes on.
---@param timeout? number default 0
function Server:step(timeout) end

--- Serves until the server is closed. Blocks; in a task, or with the transport of a host, only those who called it.
function Server:run() end

--- Stops listening and drops every connection. Never waits; calling it again does nothing.
function Server:close() end

---@class smtp.Receipt
---@field message_id? string "<...@...>" as sent
---@field accepted string[] addresses the server took; with LMTP those it delivered to
---@field rejected smtp.Refused[] empty when all were taken
---@field reply smtp.Reply of the end of data; with LMTP the first good one
---@field queue_id? string the server's queue id, where its reply carries one in a known form
---@field size integer message octets before dot-stuffing
---@field round_trips integer times this send waited for the server
---@field time table seconds: {connect=, tls=, auth=, send=, total=}
---@field tls? table {version=, cipher=, peer=, resumed=}
---@field transcript? string the dialogue, secrets taken out, when `trace` was asked for

--- Behind nil, what could not be done. `tostring(err)`, and joining it to a string, give one line. `kind` is "input"
--- (it cannot be sent as it is), "resolve", "connect", "timeout", "closed", "tls", "insecure" (it would have had to go
--- on unencrypted, or to send a credential in clear), "auth", "rejected" (the server said no), "protocol" (it broke the
--- protocol) or "source" (what the caller gives the content by failed).
---@class smtp.Error
---@field kind "input"|"resolve"|"connect"|"timeout"|"closed"|"tls"|"insecure"|"auth"|"rejected"|"protocol"|"source"
---@field stage string where: "compose", "resolve", "connect", "proxy", "tls", "greeting", "ehlo", "starttls", "auth", "mail", "rcpt", "data", "body", "final", "reset", "noop", "verify", "command", "quit"
---@field outcome "not_sent"|"unknown" what became of the message. "not_sent": it is safe to send it again; "unknown": all of it was handed to the network and no answer came, so sending it again may duplicate it
---@field temporary boolean true: the same call may work later
---@field reason? string what happened, in the library's words
---@field code? integer the server's reply code (RFC 5321 4.2)
---@field enhanced? string its enhanced status code (RFC 3463)
---@field text? string its words, lines joined by "\n", control bytes escaped
---@field rejected? smtp.Refused[] where recipients were refused
---@field accepted? string[] LMTP, where the replies broke off: who has the message all the same
---@field apart? boolean no message was on its way: `outcome` says nothing then
---@field hint? string what to do about it, where the cause is well known
---@field transcript? string the dialogue, secrets taken out, when `trace` was asked for
---@field report? smtp.Report of smtp.verify, as far as it got
---@operator concat(any): string

--- A recipient that the server refused.
---@class smtp.Refused
---@field address string
---@field code integer the server's reply code (RFC 5321 4.2)
---@field enhanced? string its enhanced status code (RFC 3463)
---@field text string its words, lines joined by "\n", control bytes escaped
---@field temporary boolean true: the same may work later

---@class smtp.Reply
---@field code integer RFC 5321 4.2
---@field enhanced? string RFC 3463
---@field text string lines joined by "\n", control bytes escaped

---@class smtp.Report
---@field ok boolean everything worked
---@field host? string as asked for
---@field port integer
---@field steps table[] in order: {name=, time=, ok=, text= the reply, or the error}; the names are "resolve", "connect", "proxy", "tls", "greeting", "ehlo", "starttls", "auth"
---@field time number seconds in all
---@field greeting? string what the server said first
---@field capabilities? table<string, string|true> the last EHLO reply
---@field mechanisms string[] of AUTH, sorted
---@field size? number octets of the largest message the server takes, where it says so
---@field tls? table {version=, cipher=, resumed=, peer=}
---@field certificate? table {subject=, issuer=, names=, not_after=, days=}: `days` until it expires
---@field authenticated boolean logged in
---@field warnings string[] what works and is not as it should be
---@field error? smtp.Error why it is not ok

--- Carries bytes. Every deadline is absolute, by smtp.now; each function but `bell` may yield.
---@class smtp.Transport
---@field connect fun(host: string?, port: integer, opts: table, deadline: number): smtp.Pipe?, string?, string?, boolean? a pipe; or nil, a kind (`"resolve"`, `"connect"`, `"timeout"`), the reason in words, and whether it may pass. `opts` has `path` (a unix socket) and `bind`
---@field wait? fun(mode: "read"|"write", fd: integer, deadline: number) rests until the deadline, for pools; without it the thread is blocked
---@field bell? fun(): table for pools: an object with `wait(deadline)`, `ring()`, `close()` and `blocks()` (false); without it who waits for a turn looks for it now and again
---@field together? fun(runs: function[]) calls functions in coroutines of your loop until each has returned, and raises what one raises; pool:send_many then uses its connections side by side
---@field secure? fun(pipe: smtp.Pipe, opts: table, deadline: number): smtp.Pipe?, string?, string? your own TLS (`opts`: `server_name`, `verify`, `ca_file` …): a pipe with `info`; or nil, `"tls"`, the reason. Without it smtp's own TLS goes over your pipe

--- One connection of a transport.
---@class smtp.Pipe
---@field read fun(self: smtp.Pipe, deadline: number): string?, string?, string? some bytes, as soon as there are any; or nil, `"timeout"` or `"closed"`, the reason. After the deadline: what is there already
---@field write fun(self: smtp.Pipe, bytes: string, deadline: number): true?, string?, string?, integer? true when all are written; else as `read`, and, where it can tell, how many octets at the end have certainly not gone out. Without that a message whose end was among `bytes` is `unknown`
---@field peek fun(self: smtp.Pipe): ("data"|"idle"|"closed") without waiting or taking any
---@field close fun(self: smtp.Pipe) once or more; a read that waits ends
---@field name? fun(self: smtp.Pipe): string?, integer? the own address and port, for EHLO where the machine has no full name

---@class smtp
---@field _VERSION string
local smtp = {}

--- Connects, logs in, sends one message, quits. Server options and message options side by side in one table, which is
--- not changed. Where neither `timeout` nor `timeouts` says otherwise, all that comes before the content (connecting,
--- greeting, EHLO, TLS, login, envelope) has 60 seconds altogether. RFC 5321. May yield where its transport does.
---@param options smtp.SendOptions
---@return smtp.Receipt? receipt
---@return smtp.Error? err `err.outcome` says what became of the message
function smtp.send(options) end

--- A message composed once, to be sent many times: message options in, a message out. Never yields; files are opened
--- only to look at them.
---@param options smtp.MessageOptions
---@return smtp.Message? message
---@return smtp.Error? err kind "input"
function smtp.message(options) end

--- A session that is connected, encrypted and logged in, as the options ask. May yield.
---@param options smtp.ServerOptions
---@return smtp.Session? session
---@return smtp.Error? err kinds as of session:connect, session:ehlo, session:starttls and session:auth
function smtp.connect(options) end

--- A session before its first step: s:connect(), s:ehlo(), s:starttls(), s:auth(), s:mail(), s:rcpt(), s:data(),
--- s:quit() … Never waits.
---@param options smtp.ServerOptions
---@return smtp.Session? session
---@return smtp.Error? err kind "input"
function smtp.session(options) end

--- Kept connections to one server, for many messages: pool:send(…), pool:send_many(iterator, on_result),
--- pool:close(). Never waits: connections are opened when there is something to send.
---@param options smtp.PoolOptions
---@return smtp.Pool? pool
---@return smtp.Error? err kind "input"
function smtp.pool(options) end

--- What is wrong with a server, or with the options for it: resolves, connects, encrypts, logs in, sends nothing.
--- tostring(report) is for a terminal. It has the 60 seconds of smtp.send. May yield.
---@param options smtp.ServerOptions
---@return smtp.Report? report
---@return smtp.Error? err `err.report` is the report as far as it got (nil for kind "input" before the first step)
function smtp.verify(options) end

--- A call in steps, for a host with its own loop: local t = smtp.task(smtp.send, {…}); t:step() at every tick. Never
--- waits: nothing is done before the first step.
---@param run function
---@param ... any what it is called with
---@return smtp.Task
function smtp.task(run, ...) end

--- The receiving side, for tests, development and small receivers. It listens from now on; it serves in its steps.
--- Waits only for the look-up of `host`, where that is a name.
---@param options? smtp.ReceiverOptions
---@return smtp.Server? server
---@return smtp.Error? err kinds "input", "resolve", "connect", "tls"
function smtp.server(options) end

--- The clock of every deadline: monotonic, in seconds. Never waits.
---@return number
function smtp.now() end

return smtp
