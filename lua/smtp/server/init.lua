--- server: the receiving side: an SMTP or LMTP server for tests, development and small receivers.
---
--- Does: listens, accepts, and resumes each connection that can go on: a coroutine each, whose dialogue is
--- straight-line code; `step` polls them all, so one thread serves many.
--- Never: lets what a client does, or a function of the owner's, end more than that connection.
--- Called by: the user, through smtp.server.
local check = require "smtp.check"
local core = require "smtp.core"
local connection = require "smtp.server.connection"
local errors = require "smtp.errors"
local extension = require "smtp.server.extension"
local hosts = require "smtp.protocol.host"
local options = require "smtp.options"
local socket = require "smtp.transport.socket"

local server = {}

---@class smtp.Server
---@field host string the address it listens on
---@field port integer
---@field certificate string? the `cert` given, or the PEM text of the one made for the run: a client's ca_file
---@field inbox smtp.Received[] where no on_message is given
---@field failure string? the last fault inside a connection, on_message or auth
local Server = {}
Server.__index = Server

local check_options = check.record(options.RECEIVER)
local MODES = { none = true, starttls = true, opportunistic = true, implicit = true }
local BACKLOG = 64 -- connections taken in one step, so that those being served get their turn
local PAUSE = 0.1  -- seconds without accepting after it failed (no descriptors left): the poll would not wait

local function fail(stage, kind, reason, hint)
  return nil, errors.new { kind = kind, stage = stage, reason = reason, hint = hint, temporary = false }
end

-- The values that can be wrong at run time. Each comparison is one that NaN does not pass.
local function problem(self)
  local flaw = hosts.flaw(self.host, "host", " port ")
  if flaw then return flaw end
  local function whole(value, least, most) return value >= least and value <= most and value % 1 == 0 end
  if self.host == "" or self.host:find("%c") then return "host has a control character in it, or is empty" end
  if not whole(self.port, 0, 65535) then return "port must be from 0 to 65535" end
  if not whole(self.size, 1, 2 ^ 53) then return "size must be a whole number of octets, 1 or more" end
  if not whole(self.max_connections, 1, 2 ^ 31) then return "max_connections must be a whole number, 1 or more" end
  local positive = self.timeout > 0
  if not positive then return "timeout must be more than 0" end
end

-- Sets up TLS: the context of all connections, and the certificate it shows.
local function secure(self, given)
  local cert, key, host = given.cert, given.key, given.host
  if key and not cert then return fail("compose", "input", "key needs cert") end
  local transport = require "smtp.transport.tls"
  if not cert then
    local names = { "localhost", "127.0.0.1", "::1" }
    local usual = host and (" localhost 127.0.0.1 ::1 0.0.0.0 :: "):find(" " .. host .. " ", 1, true)
    if host and not usual and host:find("^[%w.:-]+$") then names[4] = host end
    cert, key = require "smtp.tls".mint(names)
    if not cert then return fail("tls", "tls", key) end
  end
  local context, reason, hint = transport.context { server = true, cert = cert, key = key }
  if not context then return fail("tls", "tls", reason, hint) end
  self.certificate, self.context, self.secure = cert, context, transport.wrap
  return true
end

-- Listens on the first of the host's addresses that can be had.
local function listen(self)
  local lookup, reason = core.resolve(self.host, self.port)
  if not lookup then return fail("resolve", "resolve", self.host .. ": " .. reason) end
  local deadline = core.now() + 30
  local addresses
  while true do
    addresses, reason = lookup:result()
    if addresses or reason ~= "again" or core.now() >= deadline then break end
    core.wait("read", lookup:fd(), deadline)
  end
  lookup:close()
  if not addresses then return fail("resolve", "resolve", self.host .. ": " .. reason) end
  for _, address in ipairs(addresses) do
    self.listener, reason = core.listen(address)
    if self.listener then
      self.host, self.port = self.listener:name()
      return true
    end
  end
  return fail("connect", "connect", ("cannot listen on %s port %d: %s"):format(self.host, self.port, reason))
end

--- Starts to listen. Waits only for the look-up of `host`, where that is a name.
---@param given smtp.ReceiverOptions
---@return smtp.Server? server
---@return smtp.Error? err kinds "input", "resolve", "connect", "tls"
function server.new(given)
  check_options(given, "smtp.server")
  local transport = given.transport or options.host_transport or socket.new()
  if not transport.watch then
    -- where the host's own cannot listen, the built-in sockets do
    if given.transport then
      check.raise('smtp.server: option "transport": this transport cannot listen: '
        .. "it needs one made by smtp.transport.socket")
    end
    transport = socket.new()
  end
  local self = setmetatable({
    host = (given.host or "127.0.0.1"):gsub("^%[(.*)%]$", "%1"),
    port = given.port or 0,
    mode = given.tls or "none",
    auth = given.auth,
    size = given.size or 64 * 1024 * 1024,
    lmtp = given.lmtp or false,
    extensions = nil,  -- those offered, and the parameters known
    on_message = given.on_message,
    timeout = given.timeout or 300,
    max_connections = given.max_connections or 512,
    inbox = {},
    failure = nil,
    certificate = nil,
    context = nil,     -- of TLS
    secure = nil,      -- wraps a pipe in TLS
    listener = nil,    -- nil: closed
    connections = {},
    rested = 0,        -- when accepting may go on
    watch = transport.watch(),
    serving = false,
  }, Server)
  if not MODES[self.mode] then
    check.raise(
      ("smtp.server: option \"tls\" must be \"opportunistic\", \"none\", \"starttls\" or \"implicit\", not %q")
        :format(self.mode))
  end
  local reason = problem(self)
  if not reason then self.extensions, reason = extension.new(given.extensions or {}) end
  if reason then return fail("compose", "input", reason) end
  local ok, err = listen(self)
  if ok and self.mode ~= "none" then ok, err = secure(self, given) end
  if not ok then
    self:close()
    return nil, err
  end
  return self
end

-- A connection waits by yielding to `step`.
local function yield(mode, fd, deadline)
  coroutine.yield(mode, fd, deadline)
end

local function resume(self, one)
  local ok, mode, fd, deadline = coroutine.resume(one.thread, one)
  if not ok then self.failure = type(mode) == "string" and mode or "a connection failed with a " .. type(mode) end
  if ok and coroutine.status(one.thread) ~= "dead" then
    one.mode, one.fd, one.deadline = mode, fd, deadline
  else
    one:close()
    one.thread = nil
  end
end

local function accept(self)
  for _ = 1, math.min(BACKLOG, self.max_connections - #self.connections) do
    local sock, reason = self.listener:accept()
    if not sock then
      if reason == "again" then return end
      self.failure, self.rested = "accept: " .. reason, core.now() + PAUSE
      return
    end
    local one = connection.new(self, socket.pipe(sock, yield))
    one.thread = coroutine.create(one.serve)
    resume(self, one)
    if one.thread then self.connections[#self.connections + 1] = one end
  end
end

-- Lets those go on that can; `ready`, by number, has the listener behind them.
local function serve(self, connections, ready)
  local now = core.now()
  for i, one in ipairs(connections) do
    -- on_message may have closed the server
    local due = self.listener and one.thread and (ready[i] or now >= one.deadline)
    if due then resume(self, one) end
  end
  if not self.listener then return end
  local kept = {}
  for _, one in ipairs(self.connections) do
    if one.thread then kept[#kept + 1] = one end
  end
  self.connections = kept
  if ready[#connections + 1] then accept(self) end
end

--- Serves what can be served now, waiting at most `timeout` seconds for something to do (0: not at all). May yield
--- where its transport does, and in a task. Raises what that wait does, as in a thread that is cancelled; the next call
--- goes on.
---@param timeout number? default 0
function Server:step(timeout)
  if timeout ~= nil and (type(timeout) ~= "number" or timeout ~= timeout) then
    check.raise "server:step: timeout must be a number of seconds"
  end
  if not self.listener then return end
  if self.serving then check.raise "server:step: on_message and auth must not call it" end
  local connections, fds, modes = self.connections, {}, {}
  local now = core.now()
  local deadline = now + (timeout or 0)
  for i, one in ipairs(connections) do
    fds[i], modes[i] = one.fd, one.mode
    deadline = math.min(deadline, one.deadline)
  end
  local count = #connections
  if now < self.rested then
    deadline = math.min(deadline, self.rested)
  elseif count < self.max_connections then
    fds[count + 1], modes[count + 1] = self.listener:fd(), "read"
  end

  -- what is raised in this wait must not be caught: Lua 5.1 could not yield through that
  local ready = self.watch:wait(fds, modes, deadline)
  self.serving = true
  local ran, reason = pcall(serve, self, connections, ready)
  self.serving = false
  if not ran then error(reason, 0) end
end

--- Serves until the server is closed. Blocks; in a task, or with the transport of a host, only those who called it.
function Server:run()
  while self.listener do self:step(60) end
end

--- Stops listening and drops every connection. Never waits; calling it again does nothing.
function Server:close()
  if self.listener then self.listener:close() end
  self.listener = nil
  self.watch:close()
  for _, one in ipairs(self.connections) do one:close() end
  self.connections = {}
end

Server.__close = Server.close
check.methods(Server, "server")

return server
