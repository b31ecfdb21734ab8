--- connect: from no connection to the server's greeting, and the TLS handshake, before that or behind STARTTLS.
---
--- Called by: session.
--- RFC 5321 3.1, RFC 8314 3, RFC 3207 4.
local check = require "smtp.check"
local command = require "smtp.client.command"
local core = require "smtp.core"
local errors = require "smtp.errors"
local pump = require "smtp.client.pump"
local state = require "smtp.client.state"

local connect = {}

-- A server that waits for TLS says nothing; one that greets late (against spammers) does so after some seconds.
local PATIENCE = 3
-- What every pipe has.
local PIPE = { "read", "write", "peek", "close" }

-- A pipe to the server.
local function reach(self, limit)
  local plan = self.plan
  if plan.proxy then
    return require "smtp.transport.proxy".connect(self.transport, plan.proxy, plan.host, plan.port, plan, limit)
  end
  return self.transport.connect(plan.host, plan.port, plan, limit)
end

-- Closes a pipe that came when the session had been closed.
local function too_late(self, stage, pipe)
  if pipe then pipe:close() end
  return command.closed(self, stage)
end

-- Connects.
local function dial(self)
  local plan, began = self.plan, core.now()
  local pipe, kind, reason, temporary, hint = reach(self, state.deadline(self, "connect"))
  if self.state == "closed" then return too_late(self, "connect", pipe) end
  if pipe then
    check.object(pipe, PIPE, 'option "transport": its connect gave no pipe')
    state.connected(self, pipe, core.now() - began)
    return true
  end
  kind, reason = errors.failure(kind, reason, "connect")
  if not (plan.path or plan.proxy or reason:find(plan.host, 1, true) == 1) then reason = plan.host .. ": " .. reason end
  local stage = plan.proxy and "proxy" or kind == "resolve" and "resolve" or "connect"
  local _, err = command.fail(self, stage, kind, reason, { temporary = temporary, hint = hint })
  state.kill(self, err)
  return nil, err
end

--- Encrypts the connection.
---@return boolean? ok
---@return smtp.Error? err
function connect.encrypt(self)
  local plan, began = self.plan, core.now()
  local opts = {
    verify = plan.verify, ca_file = plan.ca_file, ca_path = plan.ca_path, tls_min = plan.tls_min,
    server_name = plan.server_name or plan.host, pins = plan.pins,
    peer = ("%s %s"):format(plan.path or plan.host, plan.port),
  }
  if plan.identity then opts.client_cert, opts.client_key = plan.identity() end
  local wrapper = self.wrapper or not self.transport.secure and require "smtp.transport.tls"
  local limit = state.deadline(self, "connect")
  local pipe, kind, reason, words
  state.into(self, "handshake")
  if wrapper then
    pipe, kind, reason, words = wrapper.wrap(self.pump.pipe, opts, limit)
  elseif plan.pins and not self.transport.pins then
    return command.fail(self, "tls", "tls", "this transport's own TLS cannot check pin")
  else
    pipe, kind, reason, words = self.transport.secure(self.pump.pipe, opts, limit)
  end
  if self.state == "closed" then return too_late(self, "tls", pipe) end
  if pipe then
    state.encrypted(self, pipe, core.now() - began)
    return true
  end
  kind, reason = errors.failure(kind, reason, "tls")
  if kind == "timeout" then reason = "the TLS handshake did not end in time" end
  return command.fail(self, "tls", kind, reason, { hint = words })
end

-- Whether the silent port speaks TLS from the first byte, found out on a second connection so as not to disturb a
-- server that only greets late. If it does not: what it says to that.
local function speaks_tls(self, limit)
  -- on port 25 a server that greets late may take a client that speaks first for a spammer, and nobody speaks TLS at
  -- once
  local probe = self.transport.probe
  if self.plan.port == 25 or not (probe or self.wrapper or pcall(require, "smtp.tls")) then return false end
  local pipe = reach(self, limit)
  if not pipe then return false end
  return (probe or require "smtp.transport.tls".probe)(pipe, limit)
end

local function greet(self)
  local now, limit = core.now(), state.deadline(self, "greeting")
  local patience = math.min(PATIENCE, (limit - now) / 2)
  local soon = now + patience
  local reply, kind, reason, start = self.pump:greeting(self.tls and limit or soon)
  if kind == "timeout" and not self.tls then
    local speaks, words = speaks_tls(self, soon + patience)
    if speaks then
      return command.fail(self, "greeting", "tls", "the server waits for TLS before it greets",
        { hint = 'this port speaks TLS from the first byte: use tls = "implicit"' })
    end
    local odd = words and pump.odd_start(words)
    if odd then return command.fail(self, "greeting", "protocol", odd) end
    reply, kind, reason, start = self.pump:greeting(limit)
  end
  -- the record of an alert (RFC 8446 5.1 and 6)
  if start and not self.tls and start:find("^\21\3.") then
    return command.fail(self, "greeting", "tls", "the server answered with a TLS alert")
  end
  if not reply then return command.fail_pump(self, "greeting", kind, reason) end
  return command.expect(self, "greeting", command.clean(self, reply), 2)
end

--- Connects, encrypts where TLS comes first, and reads the greeting.
---@return smtp.Reply? greeting
---@return smtp.Error? err
function connect.now(self)
  local ok, err = dial(self)
  if ok and self.plan.tls == "implicit" then ok, err = connect.encrypt(self) end
  if not ok then return nil, err end
  local greeting
  greeting, err = greet(self)
  if greeting then state.greeted(self, greeting) end
  return greeting, err
end

return connect
