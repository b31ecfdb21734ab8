--- What to do about an error, where the cause is well known. Words for a person, not for a program.
local hint = {}

local function says(err, pattern)
  return err.text and err.text:lower():find(pattern) ~= nil
end

-- Whether the line in place of a greeting begins so.
local function greets(err, words)
  return err.stage == "greeting" and err.reason ~= nil and err.reason:find('not SMTP: "' .. words, 1, true) ~= nil
end

-- First match wins: {kind, test, words}.
local KNOWN = {
  { "insecure", function(err) return err.stage == "starttls" and not err.code end,
    'if the port speaks TLS from the first byte (465 does), use tls = "implicit"; '
    .. 'for a server you reach without a network, tls = "none"' },
  { "insecure", function(err) return err.stage == "auth" end,
    "use TLS; allow_insecure_auth = true sends credentials in clear all the same" },
  { "auth", function(err) return err.code == 534 or says(err, "application%-specific") or says(err, "app password") end,
    "this account needs an app password: make one in the provider's security settings and use it as password" },
  { "auth", function(err) return err.enhanced == "5.7.139" or says(err, "basic authentication is disabled") end,
    "this server takes no passwords any more: log in with an OAuth 2 access token (option token)" },
  { "auth", function(err) return says(err, "username and password not accepted") end,
    "check the user name; Google accounts need an app password or an OAuth 2 token, not the account's password" },
  { "auth", function(err) return err.code == 535 end, "check username and password, or token" },
  { "auth", function(err) return err.reason and err.reason:find("no mechanism in common", 1, true) end,
    "leave out username and password (or auth) if this server wants no login; many offer AUTH only after TLS" },
  { "rejected", function(err) return err.code == 530 and says(err, "starttls") end,
    'the server wants TLS first: use tls = "starttls"' },
  { "rejected", function(err)
      return err.code == 530 or says(err, "authentication required") or says(err, "relay")
    end, "the server wants a login: give username and password" },
  { "connect", function(err) return err.reason and err.reason:find("refused") end,
    "nothing listens there: check host and port (587 for submission, 465 for implicit TLS)" },
  { "timeout", function(err) return err.stage == "connect" and err.port == 25 end,
    "many networks block port 25: use the submission port, 587 or 465" },
  { "timeout", function(err) return err.stage == "connect" end,
    "check host and port, and whether a firewall is between" },
  { "resolve", function(err) return not err.temporary end, "check the spelling of host" },
  { "protocol", function(err) return greets(err, "* ") end, "this is an IMAP server: mail is sent to port 587 or 465" },
  { "protocol", function(err) return greets(err, "+OK") end, "this is a POP3 server: mail is sent to port 587 or 465" },
  { "protocol", function(err) return greets(err, "HTTP/") or greets(err, "<") end,
    "a web server answers here: a captive portal perhaps, or the wrong port (587 and 465 are usual)" },
  { "protocol", function(err) return greets(err, "SSH-") end, "this is an SSH server: 587 and 465 are usual for mail" },
  { "protocol", function(err) return err.stage == "greeting" end, "is this an SMTP port? 587 and 465 are usual" },
}

--- The hint for an error, or nil.
---@param err table the fields of an error value, and `port`
---@return string?
function hint.find(err)
  for _, known in ipairs(KNOWN) do
    if known[1] == err.kind and known[2](err) then return known[3] end
  end
end

return hint
