--- The built-in transport: TCP and unix sockets. Bytes and absolute deadlines, no SMTP words.
---
--- It waits in one place, `wait`. By default that polls and so blocks the calling thread, except in a coroutine that
--- smtp.task has registered in `stepped`: there it yields what it waits for. A host with its own loop gives its own
--- wait, `socket.new(function(mode, fd, deadline) … end)`: it returns when fd may be ready or the deadline has
--- passed.
local core = require "smtp.core"

local socket = {}

--- Coroutines that are stepped by their host: a wait in them yields mode, fd, deadline.
---@type table<thread, boolean>
socket.stepped = setmetatable({}, { __mode = "k" })

local function poll_or_yield(mode, fd, deadline)
  local running = coroutine.running()
  if running and socket.stepped[running] then
    coroutine.yield(mode, fd, deadline)
  else
    core.wait(mode, fd, deadline)
  end
end

local Pipe = {}
Pipe.__index = Pipe

-- False once the deadline has passed.
local function wait(self, mode, fd, deadline)
  if core.now() >= deadline then return false end
  self.wait(mode, fd, deadline)
  return true
end

--- Some bytes, as soon as there are any. A deadline in the past takes what is there already.
---@param deadline number
---@return string? bytes
---@return string? kind "timeout"|"closed"
---@return string? reason
function Pipe:read(deadline)
  local open = self.sock ~= nil
  while open do
    -- waiting first saves a system call: the answer is seldom there yet
    open = wait(self, "read", self.fd, deadline)
    if not self.sock then break end
    local bytes, reason = self.sock:read()
    if bytes then return bytes end
    if reason == "closed" then return nil, "closed", "the peer closed the connection" end
    if reason ~= "again" then return nil, "closed", reason end
    if not open then return nil, "timeout", "nothing came in time" end
  end
  return nil, "closed", "the connection is closed"
end

--- All the bytes, or an error.
---@param bytes string
---@param deadline number
---@return boolean? ok
---@return string? kind "timeout"|"closed"
---@return string? reason
function Pipe:write(bytes, deadline)
  local from = 1
  while self.sock do
    local count, reason = self.sock:write(bytes, from)
    if count then
      from = from + count
      if from > #bytes then return true end
    elseif reason ~= "again" then
      return nil, "closed", reason
    elseif not wait(self, "write", self.fd, deadline) then
      return nil, "timeout", "the peer took nothing in time"
    end
  end
  return nil, "closed", "the connection is closed"
end

--- What lies on the connection, without waiting or taking it.
---@return "idle"|"data"|"closed"
function Pipe:peek()
  return self.sock and self.sock:peek() or "closed"
end

--- The connection's own address.
---@return string? host
---@return integer? port
function Pipe:name()
  if self.sock then return self.sock:name() end
end

function Pipe:close()
  if self.sock then self.sock:close() end
  self.sock = nil
end

--- A pipe over a socket that is connected already.
---@param sock userdata
---@param waiter? fun(mode: string, fd: integer, deadline: number)
function socket.pipe(sock, waiter)
  return setmetatable({ sock = sock, fd = sock:fd(), wait = waiter or poll_or_yield }, Pipe)
end

-- Addresses of a name, found off this thread.
local function resolve(waiter, host, port, deadline)
  local lookup, reason = core.resolve(host, port)
  if not lookup then return nil, "resolve", reason, true end
  while true do
    local addresses, why, temporary = lookup:result()
    if addresses or why ~= "again" then
      lookup:close()
      return addresses, "resolve", why, temporary
    end
    if core.now() >= deadline then
      lookup:close()
      return nil, "timeout", "no answer to the look-up of the name in time"
    end
    waiter("read", lookup:fd(), deadline)
  end
end

-- A connection to one address.
local function attempt(waiter, address, from, deadline)
  local sock, refused = core.connect(address, from)
  if not sock then return nil, "connect", refused end
  while true do
    local ok, reason = sock:connected()
    if ok then return socket.pipe(sock, waiter) end
    local late = core.now() >= deadline
    if reason ~= "again" or late then
      sock:close()
      if reason ~= "again" then return nil, "connect", reason end
      return nil, "timeout", "no answer in time"
    end
    waiter("write", sock:fd(), deadline)
  end
end

--- A transport over sockets.
---@param waiter? fun(mode: "read"|"write", fd: integer, deadline: number) how to wait; default: poll, in a task: yield
function socket.new(waiter)
  waiter = waiter or poll_or_yield

  --- A connected pipe: the name's addresses one after the other, each with its share of the time left.
  ---@param host string?
  ---@param port integer
  ---@param opts { path: string?, bind: string? }
  ---@param deadline number
  ---@return table? pipe
  ---@return string? kind "resolve"|"connect"|"timeout"
  ---@return string? reason
  ---@return boolean? temporary where the kind alone does not tell
  local function connect(host, port, opts, deadline)
    local addresses, kind, reason, temporary
    if opts.path then
      local address, why = core.unix(opts.path)
      addresses, kind, reason, temporary = address and { address }, "connect", why, false
    else
      addresses, kind, reason, temporary = resolve(waiter, host, port, deadline)
    end
    if not addresses then return nil, kind, reason, temporary end
    local from
    if opts.bind then
      local found, _, why = resolve(waiter, opts.bind, 0, deadline)
      if not found then return nil, "connect", "cannot bind to " .. opts.bind .. ": " .. why, false end
      from = found[1]
    end
    local tried = {}
    local pipe
    for i, address in ipairs(addresses) do
      local share = core.now() + (deadline - core.now()) / (#addresses - i + 1)
      pipe, kind, reason = attempt(waiter, address, from, share)
      if pipe then return pipe end
      local name, number = core.address(address)
      tried[i] = (opts.path and "%s: %s" or "%s port %d: %s"):format(name, opts.path and reason or number, reason)
    end
    return nil, kind, table.concat(tried, ", ")
  end

  return { connect = connect }
end

return socket
