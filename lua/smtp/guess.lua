--- guess: what somebody means who writes a name that is none here: another library's, one that belongs to another
--- table, or one with a slip of the pen.
---
--- Never: guesses where nothing is near; is loaded in a script before somebody is wrong.
--- Called by: check.
local options = require "smtp.options"

local guess = {}

local LONGEST = 40 -- octets of a name that is looked at

-- Where a name belongs, in the order in which they are looked through; `shy`: what another library calls so is meant
-- rather: "max_connections" of who sends.
local PLACES = {
  { known = options.SERVER,
    words = "the server that mail is sent to (smtp.send, smtp.connect, smtp.session, smtp.pool)" },
  { known = options.MESSAGE, words = "the message (smtp.send, smtp.message, session:send, pool:send)" },
  { known = options.POOL, words = "the pool (smtp.pool)" },
  { known = options.RECEIVER, words = "the receiving side (smtp.server)", shy = true },
  { known = options.MAILBOX, words = "a mailbox, {name=, address=}" },
  { known = options.ATTACHMENT, words = "an attachment, one of the list attachments" },
  { known = options.SIGNATURE, words = "the table dkim" },
  { known = options.TIMEOUTS, words = "the table timeouts" },
  { known = options.LIST, words = "the table list" },
  { known = options.CALENDAR, words = "the table calendar" },
  { known = options.DSN, words = "the table dsn" },
  { known = options.DELIVER_BY, words = "the table deliver_by" },
}

-- What other libraries call it: LuaSocket, lua-resty-mail, Nodemailer, PHPMailer, Python's smtplib, email and their
-- frameworks, Gomail, Action Mailer, curl; in small letters without blanks, and without "mail" or "smtp" in front. Of
-- several lines the first holds whose name is known where it is asked.
local ELSEWHERE = {
  { "bind", "interface" },
  { "host", "server hostname address addr relay smarthost endpoint bind listen interface" },
  { "username", "user login account userid hostuser authuser sasluser saslusername" },
  { "password", "pass passwd hostpassword authpassword authpass saslpassword" },
  { "token", "accesstoken oauth oauth2 oauthtoken xoauth2 bearer" },
  { "auth", "authtype authmethod authentication mechanism mechanisms onauth" },
  { 'tls = "implicit"', "secure ssl usessl enablessl" },
  { 'tls = "starttls"', "starttls usetls usestarttls enablestarttls forcetls" },
  { 'tls = "opportunistic"', "enablestarttlsauto opportunistictls autotls starttlsauto" },
  { 'tls = "none"', "ignoretls disabletls" },
  { "tls", "smtpsecure encryption security" },
  { "verify", "opensslverifymode sslverify sslverifymode verifyssl tlsverify verifypeer rejectunauthorized "
    .. "validatecerts insecure insecureskipverify tlsconfig" },
  { "server_name", "sslhost serverhostname sni" },
  { "tls_min", "tlsversion sslversion minversion mintls mintlsversion tlsminversion" },
  { "proxy", "httpproxy httpsproxy socks socksproxy socks5" },
  { "ca_file", "ca cacert cacerts cabundle certbundle trustfile tlstrustfile" },
  { "cert", "certificate certfile sslcert" },
  { "client_cert", "cert certificate certfile sslcert" },
  { "key", "privatekey sslkey" },
  { "client_key", "key keyfile privatekey sslkey" },
  { "domain", "domainname" },
  { "selector", "keyselector" },
  { "helo", "ehlo hello ehloname heloname domain localhostname localname localdomain clientname" },
  { "bind", "localaddress localaddr sourceaddress sourceip" },
  { "timeout", "timeoutms timeoutsec timeoutseconds totaltimeout deadline" },
  { "timeouts.connect", "connectiontimeout connecttimeout opentimeout timeoutconnect dnstimeout" },
  { "timeouts.greeting", "greetingtimeout" },
  { "timeouts.command", "sockettimeout readtimeout timeoutread commandtimeout" },
  { "timeouts.block", "writetimeout sendtimeout timeoutsend" },
  { "connect", "connectiontimeout connecttimeout connection open" },
  { "greeting", "greetingtimeout" },
  { "command", "sockettimeout readtimeout socket read" },
  { "block", "writetimeout sendtimeout write" },
  { "trace", "debug debuglevel debugoutput logger log verbose" },
  { "transport", "create socket" },
  { "smtp.pool { … }", "pool keepalive smtpkeepalive" },
  { "size", "maxconnections poolsize connections concurrency maxsize sizelimit" },
  { "rate", "ratelimit ratedelta throttle" },
  { "max_idle", "idletimeout keepalivetimeout" },
  { "attempts", "retry retries maxattempts maxretries retryfailure" },
  { "envelope.from", "returnpath envelopefrom envelopesender bounceaddress" },
  { "from", "fromaddr fromaddress fromemail fromname setfrom author sender senderaddress senderemail returnpath" },
  { "address", "email mail addr emailaddress" },
  { "to", "rcpt rcptto recipient recipients recipientlist receiver receivers toaddr toaddrs toaddress address "
    .. "addaddress" },
  { "cc", "addcc cclist" },
  { "bcc", "addbcc bcclist" },
  { "reply_to", "addreplyto replytolist replytoaddress" },
  { "subject", "title" },
  { "text or html", "body content message msg messagebody" },
  { "text", "plain plaintext textbody altbody plainbody" },
  { "html", "htmlbody bodyhtml ishtml isbodyhtml htmlmessage msghtml" },
  { "data", "content body bytes contents" },
  { "filename", "name" },
  { "attachments", "attach attachment addattachment file path filename addstringattachment addembeddedimage embed "
    .. "embedded inline images" },
  { "path", "file" },
  { "content_id", "cid" },
  { "helo", "name" },
  { "content_type", "type mimetype" },
  { "disposition", "contentdisposition" },
  { "priority", "importance" },
  { "list", "listunsubscribe" },
  { "calendar", "ical ics icalevent invite" },
  { "raw", "source rfc822 eml" },
  { "dkim", "dkimdomain dkimselector dkimprivate dkimkey" },
  { "headers", "header customheaders extraheaders addcustomheader headerlines" },
  { "message_id", "msgid" },
  { "date", "messagedate" },
  { "files = false", "disablefileaccess" },
  { "on_message", "ondata onmail handler" },
}

-- Spelled alike, it means another thing there.
local FALSE_FRIENDS = { requiretls = 'tls = "starttls" or require_tls' }

local MEANT = {} -- another library's name -> what it may be here
for _, line in ipairs(ELSEWHERE) do
  for word in line[2]:gmatch("%S+") do
    MEANT[word] = MEANT[word] or {}
    table.insert(MEANT[word], line[1])
  end
end

-- However it is written: "replyTo", "reply-to" and "reply_to" are one.
local function plain(name)
  return (name:lower():gsub("[^%w]", ""))
end

-- As few letters as are to be changed, left out, put in or exchanged with their neighbour.
local function distance(a, b)
  local before, above = nil, {}
  for j = 0, #b do above[j] = j end
  for i = 1, #a do
    local row = { [0] = i }
    for j = 1, #b do
      local change = a:byte(i) == b:byte(j) and 0 or 1
      row[j] = math.min(above[j] + 1, row[j - 1] + 1, above[j - 1] + change)
      local swapped = i > 1 and j > 1 and a:byte(i) == b:byte(j - 1) and a:byte(i - 1) == b:byte(j)
      if swapped then row[j] = math.min(row[j], before[j - 2] + 1) end
    end
    before, above = above, row
  end
  return above[#b]
end

-- Whether a name is another one with letters left out: "cid" of "content_id".
local function abbreviates(short, long)
  if #short < 3 or short:byte() ~= long:byte() then return false end
  local at = 1
  for letter in short:gmatch(".") do
    at = long:find(letter, at, true)
    if not at then return false end
    at = at + 1
  end
  return true
end

-- How far a name is from a known one; nil: too far for a guess.
local function far(name, known)
  local d = distance(name, plain(known))
  if d <= (#name < 2 and 0 or #name < 7 and 1 or #name < 12 and 2 or 3) then return d end
  if #name > 2 and known:sub(1, #name) == name then return 1 end -- "attach"
  local is_word = ("_" .. known .. "_"):find("_" .. name .. "_", 1, true) -- "cert" of "client_cert"
  local begins = #known > 3 and #name <= 2 * #known and name:sub(1, #known) == known -- "hostname"
  return (is_word or begins or abbreviates(name, plain(known))) and 2 or nil
end

local function nearest(name, tables)
  local best, best_distance
  for _, known in ipairs(tables) do
    for candidate in pairs(known) do
      local d = far(name, candidate)
      if d and (not best or d < best_distance or d == best_distance and candidate < best) then
        best, best_distance = candidate, d
      end
    end
  end
  return best
end

-- The name in a table that is the same one however it is written.
local function same(name, tables)
  for _, known in ipairs(tables) do
    for candidate in pairs(known) do
      if plain(candidate) == name then return candidate end
    end
  end
end

-- `words`: a name, and what may stand behind it.
local function is_known(words, tables)
  local name = words:match("^[%w_]+")
  for _, known in ipairs(tables) do
    if known[name] ~= nil then return true end
  end
  return false
end

-- Where a name belongs, in words, and whether it may well be another library's.
local function place_of(words)
  for _, place in ipairs(PLACES) do
    if is_known(words, { place.known }) then return place.words, place.shy end
  end
end

-- The same name, wherever it belongs.
local function same_elsewhere(name)
  for _, place in ipairs(PLACES) do
    local found = same(name, { place.known })
    if found then return found end
  end
end

-- A name in quotes, each of two; what is to be written as it stands without.
local function quoted(words)
  local one, other = words:match("^(.+) or (.+)$")
  if one then return quoted(one) .. " or " .. quoted(other) end
  return words:find(" ", 1, true) and words or ('"%s"'):format(words)
end

-- What to write instead of a name with this value. What is switched off has another way of TLS, or none.
local function written(words, value)
  if value == false then words = words:gsub('tls = "%a+"', "tls") end
  return quoted(words)
end

-- What it is called here, or else elsewhere.
local function meant(name, tables)
  local friend = FALSE_FRIENDS[name]
  if friend and is_known(friend, tables) then return friend end
  local here, all = same(name, tables), MEANT[name] or {}
  for _, words in ipairs(all) do
    here = here or is_known(words, tables) and words or nil
  end
  return here, all[1]
end

--- What to say behind `unknown option "…"`.
---@param name any
---@param tables table[] the names that are known there
---@param value any what it was given
---@return string words "" where there is nothing to say
function guess.advice(name, tables, value)
  if type(name) ~= "string" or #name > LONGEST then return "" end
  if name:find("@", 1, true) then
    return ': an address is a value: { name = "Grace", address = "grace@example.org" }'
  end
  local word = plain(name)
  local bare = word:match("^e?mail(.+)$") or word:match("^smtp(.+)$") or word
  local here, other = meant(word, tables)
  if not here and bare ~= word then
    local more
    here, more = meant(bare, tables)
    other = other or more
  end
  if here then return ("; did you mean %s?"):format(written(here, value)) end
  local place, shy = place_of(name:match("^[%w_]+$") or "")
  if place and not (shy and other) then return ": it belongs to " .. place end
  other = other or same_elsewhere(word)
  if other then
    place = place_of(other)
    return ("; did you mean %s%s?"):format(written(other, value), place and ", which belongs to " .. place or "")
  end
  here = nearest(word, tables)
  return here and ("; did you mean %s?"):format(quoted(here)) or ""
end

return guess
