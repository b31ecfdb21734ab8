-- dovecot: the specs' private Dovecot (dovecot.sh), and tokens that it takes.
local core = require "smtp.core"
local tls = require "smtp.tls"

local dovecot = require "spec.support.daemon" "dovecot"

local function base64url(bytes)
  return (core.base64(bytes):gsub("[+/=]", { ["+"] = "-", ["/"] = "_", ["="] = "" }))
end

--- A bearer token (JWT, RFC 7519) for "user".
---@param key string what signs it
---@param seconds integer how long it is good; less than 0: it ran out
---@param more integer? make it longer by about so many octets
---@return string
function dovecot.token(key, seconds, more)
  local now = os.time()
  local claims = ('{"sub":"user","iat":%d,"exp":%d,"jti":"%s"}'):format(now - 600, now + seconds, ("x"):rep(more or 1))
  local signed = base64url '{"alg":"HS256","typ":"JWT"}' .. "." .. base64url(claims)
  return signed .. "." .. base64url(tls.hmac("sha256", key, signed))
end

return dovecot
