--- tls: TLS around any byte pipe: a pipe goes in, a pipe with the same methods comes out.
---
--- Does: the handshake; keeps contexts and sessions for the next one. All waiting is the inner pipe's: whatever that
--- does (block, yield), this does too; nothing here would stop a yield on Lua 5.1.
--- Never: SMTP.
--- Called by: client/connect, server/init, transport/haproxy.
--- RFC 8446; RFC 8314 and RFC 3207 say when a mail client wraps
local core = require "smtp.core"
local fault = require "smtp.transport.fault"
local openssl = require "smtp.tls"

local tls = {}

local PEEKS = 16 -- reads that one peek may take: a peer could send records without data for ever
local PAST = 0   -- a deadline that is over: do what can be done without waiting
local SLICE = 65536 -- cleartext encrypted at a time, so that a large write needs little memory

---@class smtp.transport.tls.pipe: smtp.Pipe
---@field info table what `engine:info()` says: version, cipher, resumed, peer
---@field rounds integer times the handshake waited for the peer
---@field hint string? what to do about the error that has ended TLS, where that is well known
local Pipe = {}
Pipe.__index = Pipe

--- A TLS context from the options a user gives: check files and keys before a connection is opened, or share one
--- context among connections (`options.context` of `wrap`).
--- server, verify (true), ca_file, ca_path, tls_min ("1.2"); client_cert and client_key, for a server cert and key.
---@param options table
---@return userdata? context
---@return string? text what is wrong with the options
---@return string? hint
function tls.context(options)
  local server, cert, key = options.server or false, options.client_cert, options.client_key
  if server then cert, key = options.cert, options.key end
  return openssl.context {
    server = server, verify = options.verify, ca_file = options.ca_file, ca_path = options.ca_path,
    cert = cert, key = key, min = options.tls_min,
  }
end

-- OpenSSL makes itself ready for the first context, which takes some milliseconds: now, where they hold up nobody.
openssl.context { verify = false }

-- Seconds until the system's store is read again (its certificates come and go), or a session is too old.
local FRESH = 3600
local RECENT = 60 -- seconds until a file that the user names is

local Shelf = {}
Shelf.__index = Shelf

-- What is kept for a while, each by a key. Where there is more than that it is all forgotten.
local function shelf(most)
  return setmetatable({ most = most, kept = {}, count = 0 }, Shelf)
end

function Shelf:look(key)
  local one = self.kept[key]
  return one and core.now() < one.deadline and one.value or nil
end

function Shelf:drop(key)
  if not self.kept[key] then return end
  self.kept[key], self.count = nil, self.count - 1
end

function Shelf:put(key, value, seconds)
  self:drop(key)
  if self.count >= self.most then self.kept, self.count = {}, 0 end
  self.kept[key], self.count = { value = value, deadline = core.now() + seconds }, self.count + 1
end

-- Contexts by what they were made from: to make one, and to read whom it trusts, takes as long as a handshake. Those
-- with a private key are not kept.
local contexts = shelf(16)

local function context_for(options)
  if options.server or options.client_cert then return tls.context(options) end
  local key = table.concat({
    options.tls_min or "1.2", tostring(options.verify ~= false), options.ca_path or "", options.ca_file or "",
  }, "\0")
  local held = contexts:look(key)
  if held then return held end
  local context, text, hint = tls.context(options)
  if context then contexts:put(key, context, (options.ca_file or options.ca_path) and RECENT or FRESH) end
  return context, text, hint
end

-- Sessions to resume, each with the certificates that its server was verified by, by all that they were made with. A
-- connection without one costs a full handshake.
local sessions = shelf(64)

local BRIEF = 512 -- octets of a name for a session that is not hashed
local NONE = {}
local MATTERS = { "peer", "server_name", "verify", "ca_file", "ca_path", "client_cert", "client_key", "tls_min" }

-- Hashed where a private key may be among it (client_cert can hold one), or much else. Nil: sessions of this connection
-- are not kept.
local function identity(options)
  if not options.peer or options.context or options.server then return nil end
  local fields = {}
  for i, name in ipairs(MATTERS) do
    local value = options[name]
    value = value ~= nil and tostring(value)
    fields[i] = value and #value .. ":" .. value or "-"
  end
  local text = table.concat(fields) .. table.concat(options.pins or NONE, " ")
  return (options.client_cert or #text > BRIEF) and openssl.hash("sha256", text) or text
end

-- Taking one removes it: a ticket used twice would show an onlooker that both connections are of one client (RFC 8446
-- C.4); the connection that uses it brings the next.
local function recall(key)
  local session = sessions:look(key)
  sessions:drop(key)
  return session
end

-- Why nothing can be written: it was closed, perhaps meanwhile, or a write has failed before.
local function severed(self)
  if not self.engine then return fault.closed() end
  return fault.ended(self.broken)
end

-- What the engine has to say, to the peer. After a failure the outgoing stream has a hole and takes no more.
local function flush(self, deadline)
  local engine, sealed = self.engine, self.sealed
  if not engine then return severed(self) end -- meanwhile, by a finalizer
  local out = not sealed and engine:take()
  if (sealed and sealed:queued() or #out) == 0 then return true end
  if self.broken then return severed(self) end
  local sent, kind, text, left
  if sealed then
    sent, kind, text, left = self.inner:send(sealed, deadline)
  else
    sent, kind, text, left = self.inner:write(out, deadline)
    left = left or 0
  end
  if not sent then self.broken = text or kind end
  return sent, kind, text, left
end

-- What the peer says, or that it says no more, to the engine or the wire of the ciphertext.
local function fill(self, deadline)
  local inner, sealed = self.inner, self.sealed
  local came, kind, text
  if sealed and inner.receive then
    came, kind, text = inner:receive(sealed, deadline)
    if came and self.engine then return true end
  else
    came, kind, text = inner:read(deadline)
  end
  if not self.engine then return fault.closed() end -- meanwhile
  if came then
    came, kind, text = self.engine:feed(came)
  elseif kind == "closed" then
    self.engine:eof()
    came = true
  end
  return came, kind, text
end

local function abandon(pipe, kind, text, hint)
  pipe:close()
  return nil, kind, text, hint
end

--- Does the TLS handshake over `pipe` and gives a pipe for what goes through it. On failure `pipe` is closed, after one
--- attempt to tell the peer why. May yield where `pipe` does. Options are those of `context`, or a ready `context`; and
--- `server_name`, a host name or address literal: what a client verifies and (a name) sends as SNI; `pins`, a list: the
--- server's key must be one of them (base64 of the SHA-256 of its SubjectPublicKeyInfo), whatever `verify` says;
--- `peer`, a text that tells this server from others: with it (and no `context`) a later connection to the same server,
--- with the same options, resumes this one's session (RFC 8446 2.2), or where the server does not, checks of
--- certificates that it has seen before only the dates; certificate, name and pin are checked all the same.
---@param pipe table read, write, peek, close, name
---@param options table
---@param deadline number absolute, monotonic seconds
---@return smtp.transport.tls.pipe? pipe
---@return string? kind "tls" (also where the peer closes before the handshake is over), or the pipe's own "timeout"
---@return string? text
---@return string? hint what to do, where the cause is well known
function tls.wrap(pipe, options, deadline)
  local context = options.context
  if not context then
    local made, text, hint = context_for(options)
    if not made then return abandon(pipe, "tls", text, hint) end
    context = made
  end
  local key = identity(options)
  local engine, problem = context:engine(options.server_name, key and recall(key))
  if not engine then return abandon(pipe, "tls", problem) end
  local self = setmetatable({
    inner = pipe, engine = engine, info = nil, rounds = 0, identity = key,
    sealed = pipe.send and core.wire() or nil, -- ciphertext on its way; no string is made of it then
  }, Pipe)
  local late = false
  while true do
    local done, why, reason, advice = engine:handshake(self.sealed)
    local going = done or why == "again"
    local sent, kind, words = flush(self, going and deadline or PAST)
    if done and not self.broken then
      break
    elseif not sent and going and kind ~= "closed" then
      return abandon(pipe, kind, words)
    end
    if done then
      self.ahead, why, reason, advice = engine:read(self.sealed)
      if self.ahead then break end
      going = why == "again"
    end
    if not going then
      return abandon(pipe, "tls", why == "closed" and fault.CUT_HANDSHAKE or reason, advice)
    elseif late then
      return abandon(pipe, "timeout", fault.LATE_HANDSHAKE)
    end
    self.rounds = self.rounds + 1
    late = core.now() >= deadline -- as in await
    -- a peer that takes nothing more may have left an alert to read; but nothing else is to be waited for
    local fed, trouble, text = fill(self, self.broken and PAST or deadline)
    if not fed and self.broken then
      return abandon(pipe, "tls", fault.CUT_HANDSHAKE)
    elseif not fed then
      return abandon(pipe, trouble, text)
    end
  end
  self.info = engine:info()
  local stranger, hint = fault.unpinned(options.pins, self.info.peer)
  if stranger then return abandon(pipe, "tls", stranger, hint) end
  return self
end

--- Whether the peer at the other end speaks TLS from the first byte. Uses the pipe up: it is closed. May yield where
--- `pipe` does.
---@param pipe table
---@param deadline number absolute, monotonic seconds
---@return boolean
---@return string? answer what it says to a ClientHello
function tls.probe(pipe, deadline)
  local context = openssl.context { verify = false }
  local engine = context and context:engine()
  local answer
  if engine then
    engine:handshake()
    if pipe:write(engine:take(), deadline) then
      answer = pipe:read(deadline)
    end
  end
  pipe:close()
  local record = answer and answer:byte(1)
  return record == 22 or record == 21, answer -- a handshake record or an alert
end

-- As read, or with a wire as receive: what has come, as soon as there is something.
local function await(self, deadline, wire)
  local engine = self.engine
  if not engine then return fault.closed() end
  local sealed, read, late = self.sealed, wire and engine.decrypt or engine.read, false
  while true do
    local bytes, kind, text, hint = read(engine, sealed, wire)
    if bytes then return bytes end
    if text or kind ~= "again" then
      -- an answer that cannot be sent makes the next write fail; what came is not lost for it
      flush(self, deadline)
    end
    if kind ~= "again" then
      self.hint = hint
      return nil, kind, text, hint
    elseif late then
      return fault.nothing_came()
    end
    -- records that carry no data must not keep this going: what has come by the deadline is looked at once more
    late = core.now() >= deadline
    local more
    more, kind, text = fill(self, deadline)
    if not more then return nil, kind, text end
    if not self.engine then return fault.closed() end -- meanwhile
  end
end

-- The error of a write that failed: the alert by which the peer ended TLS, where it left one. Other words are kept.
local function explain(self, kind, text, left)
  if kind == "closed" and self.engine and not self.ahead then
    local bytes, how, why = await(self, PAST)
    self.ahead = bytes
    if how == "tls" then return nil, how, why, left end
  end
  return nil, kind, text, left
end

--- At least one byte, as much as is there. May yield.
---@return string? bytes
---@return string? kind "timeout"; "closed" (its text tells a cut from a proper end); "tls" (alert, bad record)
---@return string? text
---@return string? hint TLS 1.3 servers judge a client certificate (or its absence) only after the handshake
function Pipe:read(deadline)
  local ahead = self.ahead
  if not ahead then return await(self, deadline) end
  self.ahead = nil
  return ahead
end

--- All of `bytes`, or an error, "tls", too; after one nothing more can be written. May yield.
function Pipe:write(bytes, deadline)
  for from = 1, #bytes, SLICE do
    local slice = #bytes > SLICE and bytes:sub(from, from + SLICE - 1) or bytes
    if not self.engine or self.broken then return severed(self) end
    local taken, kind, text = self.engine:write(slice, self.sealed)
    if not taken then
      self.broken = text
      return nil, kind, text
    end
    local sent
    sent, kind, text = flush(self, deadline)
    if not sent then return explain(self, kind, text) end
  end
  return true
end

--- All that a wire has queued; else as write(), and 0 where all that is no longer queued may be on its way. May yield.
---@param wire userdata
---@param deadline number absolute, monotonic seconds
function Pipe:send(wire, deadline)
  local taken, kind, text
  repeat
    if not self.engine or self.broken then return severed(self) end
    taken, kind, text = self.engine:encrypt(self.sealed, wire, SLICE)
    if not taken then
      self.broken = text
      return nil, kind, text
    end
    local sent, left
    sent, kind, text, left = flush(self, deadline)
    if not sent then
      -- a record that is not whole says nothing
      return explain(self, kind, text, left and math.min(left, 1))
    end
  until taken < SLICE
  return true
end

--- At least one byte, into a wire; else as read(). "protocol": the wire has no room for it. May yield.
---@param wire userdata
---@param deadline number absolute, monotonic seconds
function Pipe:receive(wire, deadline)
  local ahead = self.ahead
  if not ahead then return await(self, deadline, wire) end
  self.ahead = nil
  local fed, problem = wire:feed(ahead)
  if not fed then return nil, "protocol", problem end
  return true
end

--- What a read would find, without waiting. Records that carry no data (session tickets) are taken in silently.
function Pipe:peek()
  if self.ahead then return "data" end
  for _ = 1, PEEKS do
    local engine = self.engine
    if not engine then return "closed" end -- perhaps meanwhile
    local bytes, why = engine:read(self.sealed)
    if bytes then
      self.ahead = bytes
      return "data"
    elseif why ~= "again" then
      return "closed"
    end
    local state = self.inner:peek()
    if state ~= "data" then return state end
    local more, kind = fill(self, PAST)
    if not more then return kind == "timeout" and "idle" or "closed" end
  end
  return "idle"
end

--- Bytes that only the two ends of this connection know (tls-exporter), or that name the server's certificate
--- (tls-server-end-point): a login mixed with them cannot be passed on by somebody in between. RFC 9266, RFC 5929 4.
---@param kind string "tls-exporter" or "tls-server-end-point"; tls-unique is not offered: unsafe, undefined in TLS 1.3
---@return string? bytes
---@return string? reason
function Pipe:binding(kind)
  if not self.engine then return nil, "the connection is closed" end
  return self.engine:binding(kind)
end

--- Ends TLS and closes the inner pipe: one attempt to send close_notify, no waiting. Idempotent.
function Pipe:close()
  local engine = self.engine
  if engine then
    -- only now: TLS 1.3 servers give what is needed to resume when they like
    local session = self.identity and engine:session()
    if session then sessions:put(self.identity, session, FRESH) end
    -- false: this is called by a finalizer, and the engine's own was before it
    if engine:shutdown(self.sealed) then flush(self, PAST) end
    engine:close() -- now, not when the collector comes by: the next connection finds this memory still warm
    self.engine, self.ahead = nil, nil
  end
  self.inner:close()
end

--- Our own end of the connection.
function Pipe:name()
  if self.inner.name then return self.inner:name() end
end

return tls
