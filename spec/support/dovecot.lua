-- dovecot: starts and stops the specs' private Dovecot (dovecot.sh), and makes tokens that it takes.
local child = require "spec.support.child"
local core = require "smtp.core"
local tls = require "smtp.tls"

local dovecot = {}

-- a sanitizer preloaded for the specs is not meant for the servers
local command = "env -u LD_PRELOAD bash spec/support/dovecot.sh %s %s %s >%s.log 2>&1 </dev/null"
local dir

--- Starts Dovecot under a directory of its own.
---@param relay_port integer where it hands mail on
---@return table|nil server `port`, `submissions_port`, `ca_file`, `client_cert`, `client_key`, `token_key`, `log`
---@return string|nil reason why there is none here (for `pending`)
function dovecot.start(relay_port)
  dir = os.tmpname()
  os.remove(dir)
  os.execute(command:format("start", dir, relay_port, dir))
  local output = child.read(dir .. ".log")
  local server = {}
  for key, value in output:gmatch("([%u_]+)=([^\n]+)") do
    server[key:lower()] = tonumber(value) or value
  end
  if server.log then
    server.token_key = child.read(server.token_key)
    return server
  end
  dovecot.stop()
  return nil, "NO DOVECOT: " .. output
end

--- Stops what start() started and removes its directory.
function dovecot.stop()
  if dir then
    os.execute(command:format("stop", dir, "", dir))
    os.execute("rm -rf " .. dir .. " " .. dir .. ".log")
    dir = nil
  end
end

local function base64url(bytes)
  return (core.base64(bytes):gsub("[+/=]", { ["+"] = "-", ["/"] = "_", ["="] = "" }))
end

--- A bearer token (JWT, RFC 7519) for "user".
---@param key string what signs it
---@param seconds integer how long it is good; less than 0: it ran out
---@param more integer|nil make it longer by about so many octets
---@return string
function dovecot.token(key, seconds, more)
  local now = os.time()
  local claims = ('{"sub":"user","iat":%d,"exp":%d,"jti":"%s"}'):format(now - 600, now + seconds, ("x"):rep(more or 1))
  local signed = base64url '{"alg":"HS256","typ":"JWT"}' .. "." .. base64url(claims)
  return signed .. "." .. base64url(tls.hmac("sha256", key, signed))
end

return dovecot
