--- nginx: the transport inside nginx (OpenResty), where it is chosen by itself: cosockets, and nginx's own TLS.
---
--- Does: bytes and absolute deadlines. Whatever waits yields to nginx, and the worker serves its other requests.
--- Never: SMTP words, or what nginx decides by its directives: name look-up (resolver), trusted certificates
--- (lua_ssl_trusted_certificate) and the longest chain of them (lua_ssl_verify_depth, 1 unless set).
local core = require "smtp.core"
local fault = require "smtp.transport.fault"
local loop = require "smtp.transport.loop"
local openssl = require "smtp.transport.nginx_openssl"

local ngx = rawget(_G, "ngx") or error("smtp.transport.nginx works inside nginx with its Lua module only")

local nginx = {}

local LONGEST = 2 ^ 31 - 1 -- milliseconds of a timeout
local ROOM = 65536         -- octets of a read
local SLICE = 65536        -- octets of a write: nginx's timeout begins anew whenever some of them are taken
local NOWHERE = "unix:"    -- an address that nginx refuses to connect to
local KEY_LIMIT = 1048576  -- octets of a PEM file

local connections = 0      -- made by this worker

---@class smtp.transport.nginx.pipe: smtp.Pipe
---@field info table? of TLS: version, cipher, resumed, peer
---@field heard boolean something was read since the handshake
local Pipe = {}
Pipe.__index = Pipe

local function milliseconds(seconds)
  return math.min(math.max(math.ceil(seconds * 1000), 1), LONGEST)
end

-- Sets what is left until the deadline. nginx counts from the time it last looked at its clock.
local function arm(sock, deadline)
  local left = milliseconds(deadline - core.now())
  ngx.update_time()
  sock:settimeouts(left, left, left)
end

-- The connection that park() gave to nginx: nil where it has ended since.
local function take_back(self)
  self.parked = false
  local made, sock = pcall(ngx.socket.tcp)
  local ran, connected = pcall(made and sock.connect, sock, NOWHERE, { pool = self.key })
  self.sock = ran and connected and sock or nil
  return self.sock
end

-- What a method of the cosocket gives; it raises (3rd: true) where the connection belongs to another request.
local function call(self, method, ...)
  local sock = self.sock
  local ran, result, reason = pcall(sock[method], sock, ...)
  if ran then return result, reason end
  return nil, "nginx keeps a connection for its own request only, but for those of a pool: " .. tostring(result), true
end

-- The cosocket, ready for a call that may wait so long.
local function ready(self, deadline)
  local sock = self.parked and take_back(self) or self.sock
  if sock then arm(sock, deadline) end
  return sock
end

--- Some bytes, as soon as there are any. Yields.
function Pipe:read(deadline)
  while ready(self, deadline) do
    local bytes, reason = call(self, "receiveany", ROOM)
    if bytes then
      self.heard = true
      return bytes
    end
    if reason ~= "timeout" then
      self:close()
      return fault.ended(reason)
    end
    if core.now() >= deadline then return fault.nothing_came() end
  end
  return fault.closed()
end

--- All the bytes, or an error. Yields.
function Pipe:write(bytes, deadline)
  for from = 1, #bytes, SLICE do
    local left = #bytes - from + 1
    if not ready(self, deadline) then return fault.closed(left) end
    local slice = #bytes > SLICE and bytes:sub(from, from + SLICE - 1) or bytes
    local sent, reason = call(self, "send", slice)
    -- of the slice itself all may have gone out
    left = left - #slice
    if reason == "timeout" then return fault.nothing_taken(left) end
    if not sent then return fault.ended(reason, left) end
  end
  return true
end

--- Whether something lies on the connection or it has ended, as far as nginx knows from the last turn of its loop. A
--- cosocket cannot be looked at; but nginx looks at what it is given to keep, and closes a connection on which there is
--- something: that is not to be had afterwards. Never yields.
function Pipe:peek()
  if self.parked then return take_back(self) and "idle" or "closed" end
  if not self.sock then return "closed" end
  -- before ngx_lua 0.10.28 the session tickets behind a handshake would count; a worker that is to end keeps nothing
  if self.info and not self.heard or ngx.worker.exiting() then return "idle" end
  local kept, reason, raised = call(self, "setkeepalive", 0, 1)
  if kept and take_back(self) or raised then return "idle" end -- what is raised, the next use will tell
  if not kept then self:close() end
  return reason == "connection in dubious state" and not self.info and "data" or "closed"
end

--- Leaves the connection to nginx until its next use, which may be in another request: nginx closes it when it is
--- not used in time, or when something comes that nobody waits for.
---@param seconds number
---@return boolean? ok nil: it has ended
function Pipe:park(seconds)
  if self.parked then return true end
  local kept = self.sock and call(self, "setkeepalive", milliseconds(seconds), 1)
  self.sock, self.parked = nil, kept ~= nil
  return kept and true
end

--- Never waits.
function Pipe:close()
  if self.parked then take_back(self) end
  if self.sock then pcall(self.sock.close, self.sock) end
  self.sock = nil
end

local function disabled()
  return nil, "connect", ("nginx has no sockets in its phase %q"):format(ngx.get_phase()), false,
    "send from a timer: ngx.timer.at(0, function() smtp.send { … } end)"
end

-- kind, reason, temporary, hint of a failed connect.
local function explain(reason, deadline)
  if reason:find("no resolver defined", 1, true) then
    return "resolve", "nginx has no name server to ask", false,
      'write "resolver 127.0.0.1;" with your name server\'s address into nginx.conf, or give host as an address and '
      .. "its name as server_name"
  end
  local code = reason:match("could not be resolved %((%d+)")
  if code then return "resolve", reason, code ~= "3" end -- NXDOMAIN is for good
  if reason:find("failed to parse host name", 1, true) then return "resolve", reason, false end
  if reason == "timeout" or core.now() >= deadline then return "timeout", "no answer in time" end
  return "connect", reason
end

--- A connected pipe. Yields. nginx asks its own resolver (not /etc/hosts) and tries one of a name's addresses.
function nginx.connect(host, port, opts, deadline)
  local made, sock = pcall(ngx.socket.tcp)
  if not made then return disabled() end
  if opts.bind then
    local bound, reason = sock:bind(opts.bind)
    if not bound then return nil, "connect", ("cannot bind to %s: %s"):format(opts.bind, reason), false end
  end
  connections = connections + 1
  -- a pool for each connection: what another user, or other settings of TLS, left is never taken for this one
  local key = "smtp " .. connections
  arm(sock, deadline)
  local ran, ok, reason
  if opts.path then
    ran, ok, reason = pcall(sock.connect, sock, "unix:" .. opts.path, { pool = key })
  else
    local where = host:find(":", 1, true) and "[" .. host .. "]" or host
    ran, ok, reason = pcall(sock.connect, sock, where, port, { pool = key })
  end
  if not ran then return disabled() end
  if not ok then return nil, explain(reason, deadline) end
  return setmetatable({ sock = sock, key = key, parked = false, heard = false }, Pipe)
end

-- TLS ----------------------------------------------------------------------------------------------------------------

local MISMATCH = "the server's certificate is not for "

-- What verification says (X509_verify_cert_error_string) -> hint.
local TRUST = "the certificates that nginx trusts are named by a directive in nginx.conf: "
  .. "lua_ssl_trusted_certificate /etc/ssl/certs/ca-certificates.crt; (or a file with the server's own authority)"
local ADVICE = {
  { "unable to get", TRUST }, { "unable to verify", TRUST }, { "self.signed", TRUST },
  { "chain too long", "allow longer chains in nginx.conf: lua_ssl_verify_depth 5;" },
  { "handshake failed", 'nginx\'s error log says why; a port that begins in clear (587, 25) needs tls = "starttls"' },
}

local function advice(reason)
  for _, known in ipairs(ADVICE) do
    if reason:find(known[1]) then return known[2] end
  end
end

-- What an option holds, as PEM text. What may be a key whose first line is lost is not shown.
local function read_pem(option, value)
  if value:find("-----BEGIN", 1, true) then return value end
  local file, reason = io.open(value, "rb")
  local shown = option == "client_cert" and #value < 256 and not value:find("%c") and value .. ": " or ""
  if not file then return nil, option .. ": " .. shown .. reason:sub(#value + 3) end
  local pem = file:read(KEY_LIMIT)
  file:close()
  return pem, option .. ": it is empty"
end

-- Gives the handshake our certificate. Reasons name the option that was given: the key may be in the certificate's.
local function identify(self, cert, key)
  local ssl = require "ngx.ssl"
  if not (self.sock.setclientcert and ssl.parse_pem_cert) then
    return nil, "client_cert needs a later lua-resty-core: this one has no setclientcert"
  end
  local keeper = key and "client_key" or "client_cert"
  local cert_pem, key_pem, parsed_cert, parsed_key, reason
  cert_pem, reason = read_pem("client_cert", cert)
  if not cert_pem then return nil, reason end
  key_pem, reason = read_pem(keeper, key or cert)
  if not key_pem then return nil, reason end
  parsed_cert, reason = ssl.parse_pem_cert(cert_pem)
  if not parsed_cert then return nil, "client_cert: " .. reason end
  parsed_key, reason = ssl.parse_pem_priv_key(key_pem)
  if not parsed_key then return nil, keeper .. ": " .. reason end
  return self.sock:setclientcert(parsed_cert, parsed_key)
end

-- What is wrong with the session that nginx made: reason, hint.
local function objection(info, fits, opts)
  if info.version < "TLSv1." .. opts.tls_min:sub(3) then
    return ("the connection would speak %s, which is older than tls_min"):format(info.version),
      "unless the server knows no newer one, nginx.conf lacks it: lua_ssl_protocols TLSv1.2 TLSv1.3;"
  end
  if info.version == "TLSv1.2" and not info.cipher:find("^E?C?DHE%-") then
    return "the connection would have no forward secrecy: " .. info.cipher,
      "unless the server knows no better, nginx.conf lacks it: lua_ssl_ciphers ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM;"
  end
  local peer = info.peer
  if opts.verify and not (peer and fits) then
    local names = peer and table.concat(peer.names, ", ") or ""
    return MISMATCH .. opts.server_name, names == ""
      and "the certificate names no host at all (a common name alone does not count)"
      or ("the certificate is for %s: set server_name if that is who is meant"):format(names)
  end
  return fault.unpinned(opts.pins, peer)
end

--- The same pipe, encrypted by nginx. On failure it is closed. Yields.
---@param pipe smtp.transport.nginx.pipe
---@param opts { verify: boolean, server_name: string?, tls_min: string, pins: string[]?, client_cert: string?,
--- client_key: string?, ca_file: string?, ca_path: string? }
---@param deadline number
---@return smtp.transport.nginx.pipe? pipe
---@return string? kind "tls"|"timeout"|"closed"
---@return string? reason
---@return string? hint
function nginx.secure(pipe, opts, deadline)
  local function fail(reason, hint)
    pipe:close()
    return nil, "tls", reason, hint
  end
  local name = opts.server_name
  if opts.ca_file or opts.ca_path then
    return fail("inside nginx the trusted certificates are nginx's, not those of ca_file or ca_path", TRUST)
  elseif opts.verify and not name then
    return fail("no name to verify: give server_name")
  elseif not ready(pipe, deadline) then
    return fault.closed()
  end
  if opts.client_cert then
    local ok, reason = identify(pipe, opts.client_cert, opts.client_key)
    if not ok then return fail(reason) end
  end
  -- an address is no name to ask for (RFC 6066 3), and nginx cannot verify it: inspect() does
  local literal = name and (name:find(":", 1, true) or name:find("^%d+%.%d+%.%d+%.%d+$"))
  local session, reason = call(pipe, "sslhandshake", nil, not literal and name or nil, opts.verify)
  if reason then
    pipe:close()
    if reason == "timeout" then return nil, "timeout", fault.LATE_HANDSHAKE end
    if reason == "closed" then reason = fault.CUT_HANDSHAKE end
    if reason:find("host mismatch", 1, true) then reason = MISMATCH .. name end
    -- what lua-resty-core (0.1.25) says of a refused certificate where the handshake did not have to wait
    if reason:find("assertion failed", 1, true) then reason = "unable to verify the server's certificate" end
    return fail(reason, advice(reason))
  end
  if type(session) ~= "cdata" or session == nil then
    return fail "nginx does not show its TLS session: is lua-resty-core there?"
  end
  local info, fits = openssl.inspect(session, name)
  if not info then return fail(fits) end
  local wrong, hint = objection(info, fits, opts)
  if wrong then return fail(wrong, hint) end
  pipe.info, pipe.heard = info, false
  return pipe
end

--- secure() heeds its `pins`.
nginx.pins = true

--- Whether the peer at the other end speaks TLS from the first byte. Uses the pipe up: it is closed. Yields.
---@param pipe smtp.transport.nginx.pipe
---@param deadline number
---@return boolean
function nginx.probe(pipe, deadline)
  local speaks = ready(pipe, deadline) and call(pipe, "sslhandshake", false, nil, false)
  pipe:close()
  return speaks == true
end

--- Waits until a time by smtp.now. Yields.
---@param deadline number
function nginx.wait(_, _, deadline)
  ngx.sleep(milliseconds(deadline - core.now()) / 1000)
end

--- What a light thread waits for and another rings, of whichever request.
---@return table bell
function nginx.bell()
  local sema = require "ngx.semaphore".new(0)
  return {
    wait = function(_, deadline)
      ngx.update_time()
      sema:wait(math.max(0, math.min(deadline - core.now(), LONGEST / 1000)))
    end,
    ring = function() sema:post(1) end,
    close = function() end,
    blocks = function() return false end,
  }
end

--- Whether the request that a pipe was of has ended, and so whoever used it is gone. (What coroutine.status says of
--- another request's is no answer.)
---@param pipe smtp.transport.nginx.pipe? nil: nothing is known
---@return boolean
function nginx.gone(pipe)
  return pipe ~= nil and pipe.sock ~= nil and pipe.sock:getreusedtimes() == nil
end

--- Calls several functions side by side, in light threads, until each has returned; raises what one of them raises. One
--- after the other in phases without such threads. Yields.
---@param runs function[]
function nginx.together(runs)
  local threads = {}
  loop.all(runs, function(run, ended)
    local spawned, thread = pcall(ngx.thread.spawn, loop.guard, run, ended)
    if spawned then table.insert(threads, thread) else loop.guard(run, ended) end
  end, function()
    for _, thread in ipairs(threads) do ngx.thread.wait(thread) end
  end)
end

return nginx
