--- The receiving side: an SMTP server for tests, development and small receivers. Each connection is a coroutine whose
--- dialogue is straight-line code; `step` polls them all and resumes those that can go on, so one thread serves many.
--- RFC 5321, 3207, 4954, 1870, 6152, 3030, 2920.
local core = require "smtp.core"
local dialogue = require "smtp.dialogue"
local errors = require "smtp.errors"
local socket = require "smtp.transport.socket"

local server = {}

---@class smtp.Server
---@field host string
---@field port integer the port it listens on
---@field certificate string? PEM text of its certificate: what a client gives as ca_file when it was made for the run
---@field inbox table[] {from=, to={...}, data=, auth=, tls=, params=}, where no on_message is given
---@field failure string? the last fault inside a connection, should there ever be one
local Server = {}
Server.__index = Server

local KNOWN = {
  host = "string", port = "number", tls = "string", cert = "string", key = "string", auth = "function", size = "number",
  on_message = "function",
}
local BACKLOG = 64 -- connections taken in one step, so that those being served get their turn

local function check(given)
  if type(given) ~= "table" then error("smtp.server: expected a table of options, got " .. type(given), 0) end
  for name, value in pairs(given) do
    if not KNOWN[name] then error(("smtp.server: unknown option %q"):format(tostring(name)), 0) end
    if type(value) ~= KNOWN[name] then
      error(("smtp.server: option %q must be a %s, not a %s"):format(name, KNOWN[name], type(value)), 0)
    end
  end
  local tls = given.tls or "none"
  if tls ~= "none" and tls ~= "starttls" and tls ~= "implicit" then
    error(("smtp.server: option \"tls\" must be \"none\", \"starttls\" or \"implicit\", not %q"):format(tls), 0)
  end
end

local function fail(stage, kind, reason, hint)
  return nil, errors.new { kind = kind, stage = stage, reason = reason, hint = hint, temporary = false }
end

-- The TLS context, and the certificate it shows.
local function context(given)
  local tls = require "smtp.tls"
  local cert, key = given.cert, given.key
  if not cert then cert, key = tls.mint { "localhost", "127.0.0.1", "::1" } end
  if not cert then return nil, key end
  local made, reason, hint = tls.context { server = true, cert = cert, key = key or cert }
  return made, made and cert or reason, hint
end

--- Starts to listen. Options: host ("127.0.0.1"), port (0: any free one), tls ("none"|"starttls"|"implicit"), cert and key (PEM
--- paths or texts; none: made for the run), auth (function(username, password) -> boolean; given: a login is required), size
--- (largest message, 64 MiB), on_message (function(envelope, message) returning nil, or a reply to refuse with, such as
--- "550 5.7.1 not wanted"). Never waits.
---@param given table
---@return smtp.Server? server
---@return smtp.Error? err kinds "input", "resolve", "connect", "tls"
function server.new(given)
  check(given)
  local self = setmetatable({
    host = given.host or "127.0.0.1",
    port = given.port or 0,
    mode = given.tls or "none",
    certificate = nil,
    context = nil,
    secure = nil,
    auth = given.auth,
    size = given.size or 64 * 1024 * 1024,
    on_message = given.on_message,
    inbox = {},
    failure = nil,
    connections = {},
    listener = nil,
  }, Server)
  if self.mode ~= "none" then
    local made, certificate, hint = context(given)
    if not made then return fail("tls", "tls", certificate, hint) end
    self.context, self.certificate = made, certificate
    self.secure = require "smtp.transport.tls".wrap
  end
  if self.port % 1 ~= 0 or self.port < 0 or self.port > 65535 then return fail("compose", "input", "port must be from 0 to 65535") end
  local lookup, reason = core.resolve(self.host, self.port)
  local addresses
  while lookup do
    addresses, reason = lookup:result()
    if addresses or reason ~= "again" then break end
    core.wait("read", lookup:fd(), core.now() + 30)
  end
  if not addresses then return fail("resolve", "resolve", self.host .. ": " .. reason) end
  self.listener, reason = core.listen(addresses[1])
  if not self.listener then return fail("connect", "connect", ("cannot listen on %s port %d: %s"):format(self.host, self.port, reason)) end
  self.host, self.port = self.listener:name()
  return self
end

-- A connection waits by yielding to `step`.
local function yield(mode, fd, deadline)
  coroutine.yield(mode, fd, deadline)
end

local function resume(self, connection)
  local ok, mode, fd, deadline = coroutine.resume(connection.thread, self, connection.pipe)
  if ok and coroutine.status(connection.thread) ~= "dead" then
    connection.mode, connection.fd, connection.deadline = mode, fd, deadline
    return
  end
  connection.pipe:close()
  connection.over = true
  if not ok then self.failure = tostring(mode) end
end

local function accept(self)
  for _ = 1, BACKLOG do
    local sock = self.listener:accept()
    if not sock then return end
    local connection = { pipe = socket.pipe(sock, yield), thread = coroutine.create(dialogue.serve) }
    self.connections[#self.connections + 1] = connection
    resume(self, connection)
  end
end

--- Serves what can be served now, waiting at most `timeout` seconds for something to do (0: not at all).
---@param timeout number? default 0
function Server:step(timeout)
  if not self.listener then return end
  local fds, modes = { self.listener:fd() }, { "read" }
  local deadline = core.now() + (timeout or 0)
  for i, connection in ipairs(self.connections) do
    fds[i + 1], modes[i + 1] = connection.fd, connection.mode
    deadline = math.min(deadline, connection.deadline)
  end
  local ready = core.poll(fds, modes, deadline)
  local now, kept = core.now(), {}
  for i, connection in ipairs(self.connections) do
    if ready[i + 1] or now >= connection.deadline then resume(self, connection) end
    if not connection.over then kept[#kept + 1] = connection end
  end
  self.connections = kept
  if ready[1] then accept(self) end
end

--- Serves until the server is closed. Blocks.
function Server:run()
  while self.listener do self:step(60) end
end

--- Stops listening and drops every connection. Calling it again does nothing.
function Server:close()
  if self.listener then self.listener:close() end
  self.listener = nil
  for _, connection in ipairs(self.connections) do connection.pipe:close() end
  self.connections = {}
end

Server.__close = Server.close

return server
