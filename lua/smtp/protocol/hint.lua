--- hint: what to do about an error, where the cause is well known: words for a person, not for a program. Pure.
---
--- Called by: client/command, for each error.
local hint = {}

local APP_PASSWORD = "this account needs an app password: make one in the provider's security settings and use it "
  .. "as password"
local CODE = "this provider wants its authorization code as password: make one in the settings of the mailbox, "
  .. "where SMTP has to be switched on"
local OWN = "from must belong to the account that logged in, or the account be allowed to send for it (where the "
  .. "two differ: option envelope)"
local CHECK = "check username and password, or token"
local BY_TOKEN = { "XOAUTH2", "OAUTHBEARER" }
local TOKEN = "the token is refused: it has expired (most last an hour), was revoked, or is for another account or "
  .. "purpose; get a new one (where token is a function it is called for each login)"
local BROWSER = "the provider doubts that it is you: log in by your web browser, allow the access there, and try again"
local WEAK = "the server finds this mechanism too weak: use TLS, or let auth name a stronger one"
local TLS = 'the server wants TLS first: use tls = "starttls"'
local LOGIN = "the server wants a login: give username and password (nil, as an environment variable that is not set "
  .. "gives, is none)"
local SLOWER = "the server wants fewer connections or messages at a time: fewer connections (size), a slower pace "
  .. "(rate), and later again"
local UNPROVED = "the receiver wants proof of who sends: SPF or DKIM for the domain of from, agreeing with it "
  .. "(DMARC); option dkim signs"
local NAMELESS = "the receiver wants this machine's address to have a name (PTR) that leads back to it; or send by "
  .. "a provider's server"
local NAME = "the server does not like the name that this machine gives: set helo to its full name in DNS"
local IMPLICIT = 'this port speaks TLS from the first byte: use tls = "implicit"'
local PORTS = "is this an SMTP port? 587 and 465 are usual for mail"
local OTHER = "is this an SMTP port? %s answers there; 587 and 465 are usual for mail"

-- What is known, the first that applies. All that one names must be so: `kind`, `stage`, `port`; `code`, `class` (its
-- first digit) and `enhanced` of the reply, or one of several; `says`, one of these in its words, in lower case;
-- `replied`, whether there is a reply; `reason`, a pattern; `greets`, the beginning of what came in place of a
-- greeting, or one of several; `greeted`, words of a greeting that does not speak of SMTP; `later`, whether it may work
-- later; `known`, whether a login succeeded; `mechanism` of the last login, or one of several, and what is `offered`
-- beside it; `late`, whether the way to the content took all its time.
local KNOWN = {
  -- encryption
  { kind = "insecure", stage = "starttls", replied = false,
    hint = 'if the port speaks TLS from the first byte (465 does), use tls = "implicit"; '
      .. 'for a server you reach without a network, tls = "none"' },
  { kind = "insecure", stage = "auth",
    hint = "use TLS; allow_insecure_auth = true sends credentials in clear all the same" },
  { says = { "must issue a starttls", "starttls first", "encryption required", "ssl/tls required" }, hint = TLS },
  { kind = "rejected", code = 530, says = { "starttls" }, hint = TLS },

  -- logins, by whatever: Google, Microsoft, SendGrid
  { kind = "auth", enhanced = "5.7.14", hint = BROWSER },
  { kind = "auth", says = { "log in via your web browser", "web login required" }, hint = BROWSER },
  { kind = "auth", says = { "smtpclientauthentication is disabled", "smtp_auth_disabled" },
    hint = "an administrator has to allow authenticated SMTP for this tenant or mailbox; no password or token "
      .. "helps before" },
  { kind = "auth", says = { "security defaults", "criteria to be authenticated", "conditional access" },
    hint = "a policy of the organization forbids this login: an administrator has to allow it" },
  { kind = "auth", says = { "not yet activated", "unauthorized ip" },
    hint = "the provider has to switch this on: see your account there" },
  { kind = "auth", says = { "too many login attempts", "too many bad auth attempts", "too many failed",
    "too many auth" },
    hint = "too many logins lately: wait some hours, and keep connections (smtp.pool) where there are many messages" },
  { kind = "auth", code = 504, hint = "the server does not take the mechanism that it offers: let auth name another" },
  -- by a token
  { kind = "auth", class = 5, mechanism = BY_TOKEN, says = { "insufficient_scope" },
    hint = "the token is not for sending mail: get one with the provider's scope for SMTP" },
  { kind = "auth", code = 534, mechanism = BY_TOKEN, hint = WEAK },
  { kind = "auth", class = 5, mechanism = BY_TOKEN, hint = TOKEN },

  -- by a password: Google
  { kind = "auth", says = { "application-specific password" }, hint = APP_PASSWORD },
  { kind = "auth", says = { "username and password not accepted" },
    hint = "check the user name; Google accounts need an app password or an OAuth 2 token, not the account's "
      .. "password" },
  -- Microsoft
  { kind = "auth", says = { "basic authentication is disabled", "basic auth is disabled" },
    hint = "this server takes no passwords any more: log in with an OAuth 2 access token (option token)" },
  { kind = "auth", enhanced = "5.7.139", says = { "credentials were incorrect" }, hint = CHECK },
  { kind = "auth", enhanced = "5.7.139",
    hint = "this server takes no passwords any more, or not yours: log in with an OAuth 2 access token (option "
      .. "token), or ask an administrator" },
  -- Yahoo, AOL, Mail.ru, Fastmail, iCloud, Zoho
  { kind = "auth", says = { "app password", "app-password", "application password", "app-specific password", "#mbr1212",
    "application-specific" }, hint = APP_PASSWORD },
  -- QQ, 163, 126
  { kind = "auth", says = { "authorization code", "user has no permission", "\230\142\136\230\157\131\231\160\129" },
    hint = CODE },
  -- Yandex
  { kind = "auth", says = { "does not have access rights to this service" },
    hint = "switch on access by mail programs in the settings of the mailbox, and use an app password" },
  -- Amazon SES
  { kind = "auth", says = { "authentication credentials invalid" },
    hint = "check username and password: some providers have SMTP credentials of their own, beside the account's "
      .. "(Amazon SES)" },
  -- SendGrid
  { kind = "auth", says = { "bad username / password" },
    hint = 'check username and password (at SendGrid "apikey" and the key itself)' },
  -- whoever it is
  { kind = "auth", enhanced = "5.7.9", hint = WEAK },
  { kind = "auth", code = 534, hint = WEAK },
  { kind = "auth", class = 5, mechanism = "CRAM-MD5", offered = "PLAIN",
    hint = 'check username and password; a server that keeps hashes offers CRAM-MD5 in vain: auth = "PLAIN"' },
  { kind = "auth", code = { 535, 526 }, hint = CHECK },
  { kind = "auth", reason = "no mechanism in common: the server offers %u",
    hint = "the server takes another kind of login: PLAIN, LOGIN and SCRAM take username and password, XOAUTH2 and "
      .. "OAUTHBEARER a token; auth, where it is given, names one that the server offers" },
  { kind = "auth", reason = "no mechanism in common",
    hint = "leave out username and password (or auth) if this server wants no login; many offer AUTH only after TLS" },

  -- whose mail it is: Postfix, Exchange, Amazon SES, SendGrid, Postmark, GMX, iCloud, 163, QQ, Yandex, Zoho, Fastmail
  { kind = "rejected", says = { "not verified", "not a verified", "verified sender identity",
    "not a sender signature" },
    hint = "the provider sends only for addresses and domains that were verified there: verify from, and in its "
      .. "sandbox each recipient" },
  { kind = "rejected", enhanced = { "5.7.60", "5.2.252" }, hint = OWN },
  { kind = "rejected", says = { "not owned by", "sendasdenied", "permissions to send as", "not allowed to send as",
    "unauthorized sender", "not one of your addresses", "must equal authorized user",
    "must be same as authorization user", "not authorised to send from", "not authorized to send from",
    "not allowed to send from", "from address not verified", "sender is not allowed" }, hint = OWN },
  { kind = "rejected", known = true, says = { "relay" }, hint = OWN },
  { kind = "rejected", known = true, code = 553, stage = "mail", hint = OWN },
  { kind = "rejected", says = { "is not authorized to perform" },
    hint = "the account may not send there: its policy has to allow it (at Amazon ses:SendRawEmail, for this "
      .. "address)" },

  -- proof of who sends: Google, Exchange, Yahoo
  { enhanced = { "4.7.26", "5.7.26", "4.7.27", "5.7.27", "4.7.30", "5.7.30", "4.7.32", "4.7.40", "5.7.40" },
    hint = UNPROVED },
  { says = { "pass dmarc", "dmarc policy", "sender is unauthenticated", "unauthenticated email", "spf or dkim",
    "required authentication level", "not accepted for policy reasons" }, hint = UNPROVED },
  { enhanced = { "4.7.23", "5.7.25", "4.7.25" }, hint = NAMELESS },
  { says = { "ptr record", "reverse dns", "reverse hostname", "reverse lookup" }, hint = NAMELESS },
  { kind = "rejected", says = { "potential security issue" },
    hint = "the receiver takes no attachments of this kind, and none within archives" },

  -- how much, and how fast: Exchange, Google, Amazon SES, Mailtrap
  { says = { "daily user sending limit", "daily message quota", "sending quota", "sending limit exceeded",
    "maximum credits exceeded" }, hint = "the day's limit is reached: go on tomorrow, or with another account" },
  { code = 432, hint = SLOWER },
  { enhanced = { "4.7.28", "4.7.500" }, hint = SLOWER },
  { says = { "throttling failure", "maximum sending rate", "too many emails per second", "connections limit",
    "sender thread limit", "too many connections", "too many concurrent", "unusual rate", "rate that prevents",
    "rate limit" }, hint = SLOWER },
  { code = 421, enhanced = "4.7.0", says = { "try again later", "suspicious", "gsmtp" }, hint = SLOWER },
  { class = 4, says = { "greylist", "graylist" },
    hint = "the server takes mail from strangers at the second attempt: try again in some minutes" },

  -- the name in EHLO: Postfix, Exim
  { kind = "rejected", says = { "helo command rejected", "helo argument", "ehlo argument", "helo name", "bad helo",
    "invalid helo" }, hint = NAME },
  { kind = "rejected", stage = "ehlo", greeted = "ftp", hint = OTHER:format "an FTP server" },
  { kind = "rejected", stage = "ehlo", code = { 501, 550, 553, 554 }, hint = NAME },

  -- a login that is missing: Exim, Postfix, Exchange, cPanel
  { kind = "rejected", known = false, code = 530, hint = LOGIN },
  { kind = "rejected", known = false, enhanced = "5.7.57", hint = LOGIN },
  { kind = "rejected", known = false, says = { "relay", "authentication required", "authentication is required",
    "not logged in", "turn on smtp authentication", "client was not authenticated", "client not authenticated",
    "unauthenticated senders", "authenticate first", "need to authenticate", "log in first" }, hint = LOGIN },

  -- the way there
  { kind = "connect", reason = "^/.*refused",
    hint = "nothing listens there: check path, and whether the server runs" },
  { kind = "connect", reason = "assign requested address", hint = "bind must be an address of this machine" },
  { kind = "connect", reason = "refused",
    hint = "nothing listens there: check host and port (587 for submission, 465 for implicit TLS)" },
  { kind = "timeout", stage = "connect", port = 25,
    hint = "many networks block port 25: use the submission port, 587 or 465" },
  { kind = "timeout", stage = "connect", hint = "check host and port, and whether a firewall is between" },
  { kind = "resolve", later = false, hint = "check the spelling of host" },
  { kind = "protocol", greets = "* ", hint = OTHER:format "an IMAP server" },
  { kind = "protocol", greets = "+OK", hint = OTHER:format "a POP3 server" },
  { kind = "protocol", greets = { "HTTP/", "<" }, hint = OTHER:format "a web server (a captive portal's?)" },
  { kind = "protocol", greets = "SSH-", hint = OTHER:format "an SSH server" },
  { kind = "protocol", greets = "\\x15\\x03", hint = IMPLICIT },
  { kind = "tls", stage = "greeting", reason = "TLS alert", hint = IMPLICIT },
  { kind = "tls", stage = "tls", reason = "did not answer in TLS", hint = PORTS },
  { kind = "protocol", stage = "greeting", hint = PORTS },
  { kind = { "timeout", "closed" }, stage = "greeting", replied = false, hint = PORTS },
  { kind = "timeout", late = true,
    hint = "before the content a server has 60 seconds altogether: a slow one gets more by timeout or timeouts" },
}

-- Whether a list, or one value, has it.
local function has(wanted, value)
  if type(wanted) ~= "table" then return wanted == value end
  for _, one in ipairs(wanted) do
    if one == value then return true end
  end
  return false
end

local function says(text, all)
  for _, words in ipairs(all) do
    if text:find(words, 1, true) then return true end
  end
  return false
end

-- How each that is named is compared; `scene` is what there is besides the error.
local TESTS = {
  kind = function(wanted, err) return has(wanted, err.kind) end,
  stage = function(wanted, err) return err.stage == wanted end,
  port = function(wanted, err) return err.port == wanted end,
  code = function(wanted, err) return has(wanted, err.code) end,
  class = function(wanted, err) return err.code ~= nil and math.floor(err.code / 100) == wanted end,
  enhanced = function(wanted, err) return has(wanted, err.enhanced) end,
  replied = function(wanted, err) return (err.code ~= nil) == wanted end,
  later = function(wanted, err) return (err.temporary or false) == wanted end,
  says = function(wanted, err) return err.text ~= nil and says(err.text:lower():gsub("\n", " "), wanted) end,
  reason = function(wanted, err) return err.reason ~= nil and err.reason:find(wanted) ~= nil end,
  greets = function(wanted, err)
    local start = err.stage == "greeting" and err.reason and err.reason:match('not SMTP: "(.*)')
    if not start then return false end
    for _, one in ipairs(type(wanted) == "table" and wanted or { wanted }) do
      if start:sub(1, #one) == one then return true end
    end
    return false
  end,
  greeted = function(wanted, _, scene)
    local words = (scene.greeting or ""):lower()
    return words:find(wanted, 1, true) ~= nil and not words:find("smtp", 1, true)
  end,
  known = function(wanted, _, scene) return (scene.known or false) == wanted end,
  mechanism = function(wanted, _, scene) return has(wanted, scene.mechanism) end,
  offered = function(wanted, _, scene) return scene.offered ~= nil and scene.offered[wanted] ~= nil end,
  late = function(wanted, _, scene) return (scene.late or false) == wanted end,
  hint = function() return true end,
}

local function applies(known, err, scene)
  for name, wanted in pairs(known) do
    if not TESTS[name](wanted, err, scene) then return false end
  end
  return true
end

--- The hint for an error, or nil.
---@param err table the fields of an error value, and `port`
---@param scene { greeting: string?, known: boolean?, mechanism: string?, offered: table<string, boolean>?,
--- late: boolean? }? the words of the greeting; whether a login succeeded; the mechanism of the last one, and those
--- that the server offers; whether the way to the content took all its time
---@return string?
function hint.find(err, scene)
  for _, known in ipairs(KNOWN) do
    if applies(known, err, scene or {}) then return known.hint end
  end
end

return hint
