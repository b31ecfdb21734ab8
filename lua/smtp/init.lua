--- smtp: the mail library for Lua. One table in, one message delivered. This file is the door: each function checks
--- what it was given, and hands it on.
---
---     local smtp = require "smtp"
---     local receipt, err = smtp.send { host = "mail.example.org", from = …, to = …, subject = …, text = … }
require "smtp.built"
local check = require "smtp.check"
local core = require "smtp.core"
local send = require "smtp.client.send"
local errors = require "smtp.errors"
local message = require "smtp.mail.message"
local options = require "smtp.options"
local plans = require "smtp.plan"
local session = require "smtp.client.session"
local task = require "smtp.task"

local smtp = { _VERSION = "0.1.0" }

local ngx = rawget(_G, "ngx")
if type(ngx) == "table" and ngx.socket then
  options.host_transport = require "smtp.transport.nginx"
  -- nginx has an OpenSSL: a second one in its process would not do
  package.loaded["smtp.tls"] = require "smtp.transport.nginx_openssl"
elseif rawget(_G, "_TARANTOOL") then
  options.host_transport = require "smtp.transport.tarantool"
end

-- A script loads what few need when it is needed. Inside a host that may be too late: it has another root or user by
-- then, or no `require` any more.
if options.host_transport or not rawget(_G, "arg") then
  require "smtp.guess"
  require "smtp.mail.dkim"
  require "smtp.mail.preview"
  require "smtp.pool"
  require "smtp.server"
  require "smtp.transport.proxy"
  require "smtp.transport.together"
  require "smtp.client.verify"
end

--- Connects, logs in, sends one message, quits. Server options and message options side by side in one table, which
--- is not changed. Where neither `timeout` nor `timeouts` says otherwise, all that comes before the content
--- (connecting, greeting, EHLO, TLS, login, envelope) has 60 seconds altogether. RFC 5321. May yield where its
--- transport does.
---@param given smtp.SendOptions
---@return smtp.Receipt? receipt
---@return smtp.Error? err `err.outcome` says what became of the message
function smtp.send(given, ...)
  check.callback((...), "smtp.send")
  local started = core.now()
  if message.is(given) then
    check.raise "smtp.send: a message by itself names no server: give it to session:send or pool:send"
  end
  local about_server, about_mail = options.split(given, "smtp.send")
  local plan, err = plans.new(about_server, "smtp.send", true)
  if not plan then return nil, err end
  local mail
  mail, err = send.compose(about_mail, "smtp.send")
  if not mail then return nil, err end

  return send.once(session.once(plan, started), mail, started)
end

--- A message composed once, to be sent many times: message options in, a message out. Never yields; files are opened
--- only to look at them.
---@param given smtp.MessageOptions
---@return smtp.Message? message
---@return smtp.Error? err kind "input"
function smtp.message(given)
  if message.is(given) then return given end
  options.check_message(given, "smtp.message")
  local mail, err = message.new(given)
  return mail, errors.apart(err)
end

--- A session before its first step: s:connect(), s:ehlo(), s:starttls(), s:auth(), s:mail(), s:rcpt(), s:data(),
--- s:quit() … Never waits.
---@param given smtp.ServerOptions
---@return smtp.Session? session
---@return smtp.Error? err kind "input"
function smtp.session(given)
  local plan, err = plans.new(given, "smtp.session")
  return plan and session.new(plan), errors.apart(err)
end

--- A session that is connected, encrypted and logged in, as the options ask. May yield.
---@param given smtp.ServerOptions
---@return smtp.Session? session
---@return smtp.Error? err kinds as of session:connect, session:ehlo, session:starttls and session:auth
function smtp.connect(given)
  local plan, err = plans.new(given, "smtp.connect")
  local one
  if plan then one, err = session.new(plan):open() end
  return one, errors.apart(err)
end

--- What is wrong with a server, or with the options for it: resolves, connects, encrypts, logs in, sends nothing.
--- tostring(report) is for a terminal. It has the 60 seconds of smtp.send. May yield.
---@param given smtp.ServerOptions
---@return smtp.Report? report
---@return smtp.Error? err `err.report` is the report as far as it got (nil for kind "input" before the first step)
function smtp.verify(given)
  local plan, err = plans.new(given, "smtp.verify")
  if not plan then return nil, errors.apart(err) end
  return require "smtp.client.verify".run(plan)
end

--- Kept connections to one server, for many messages: pool:send(…), pool:send_many(iterator, on_result), pool:close().
--- Never waits: connections are opened when there is something to send.
---@param given smtp.PoolOptions
---@return smtp.Pool? pool
---@return smtp.Error? err kind "input"
function smtp.pool(given)
  local made, err = require "smtp.pool".new(given)
  return made, errors.apart(err)
end

--- A call in steps, for a host with its own loop: local t = smtp.task(smtp.send, {…}); t:step() at every tick.
--- Never waits: nothing is done before the first step.
---@param run function
---@param ... any what it is called with
---@return smtp.Task
function smtp.task(run, ...)
  return task.new(run, ...)
end

--- The receiving side, for tests, development and small receivers. It listens from now on; it serves in its steps.
--- Waits only for the look-up of `host`, where that is a name.
---@param given smtp.ReceiverOptions?
---@return smtp.Server? server
---@return smtp.Error? err kinds "input", "resolve", "connect", "tls"
function smtp.server(given)
  local made, err = require "smtp.server".new(given == nil and {} or given)
  return made, errors.apart(err)
end

--- The clock of every deadline: monotonic, in seconds. Never waits.
---@return number
function smtp.now()
  return core.now()
end

check.functions(smtp, "smtp")

return smtp
