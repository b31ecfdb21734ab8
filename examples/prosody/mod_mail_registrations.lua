-- A module for Prosody that mails when a new user has registered. In prosody.cfg.lua:
--
--   plugin_paths = { "/path/to/examples/prosody" }
--   VirtualHost "example.org"
--     modules_enabled = { "register", "mail_registrations" }
--     mail_registrations = { host = "mail.example.org", username = "xmpp", password = "secret",
--       from = "xmpp@example.org", to = "admin@example.org" }
local async = require "util.async"
local smtp = require "smtp"
local transport = require "smtp.transport.prosody"

-- A runner of its own: who registers does not wait for the mail. It takes one user after the other.
local mailer = async.runner(function(user)
  local mail = {
    transport = transport, timeout = 30,
    subject = ("%s@%s has registered"):format(user.username, user.host),
    text = ("%s@%s has registered at %s.\n"):format(user.username, user.host, os.date()),
  }
  for name, value in pairs(module:get_option("mail_registrations")) do mail[name] = value end
  local receipt, err = smtp.send(mail)
  if receipt then
    module:log("info", "mailed as %s", receipt.message_id)
  else
    module:log("error", "%s", tostring(err))
  end
end, { error = function(_, reason) module:log("error", "%s", tostring(reason)) end })

module:hook("user-registered", function(user) mailer:run(user) end)
