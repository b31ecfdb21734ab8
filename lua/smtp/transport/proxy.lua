--- proxy: connections through a proxy, over any transport: SOCKS 5 and HTTP CONNECT.
---
--- Does: gives the server's name to the proxy as it is, and the proxy's own credentials in clear: neither kind knows
--- better.
--- Never: looks the server's name up.
--- Called by: client/connect.
--- RFC 1928, RFC 1929; RFC 9110 9.3.6, RFC 7617
local core = require "smtp.core"

local proxy = {}

local MOST = 16384 -- octets of an HTTP answer

-- RFC 1928 6: what is wrong, and whether it may pass.
local SOCKS_REPLIES = {
  { "the proxy failed", true },
  { "the proxy's rules do not allow it", false },
  { "network unreachable", true },
  { "host unreachable, or its name unknown to the proxy", true },
  { "connection refused", true },
  { "no answer in time", true },
  { "the proxy opens no connections for its clients", false },
  { "the proxy does not know this type of address", false },
}

-- What is said to the proxy, and what came from it and is not understood yet.
local Talk = {}
Talk.__index = Talk

-- Nothing comes of it: nil.
function Talk:fail(kind, reason, temporary)
  self.kind, self.reason, self.temporary = kind, reason, temporary
  return nil
end

-- What a call of the pipe gives; nil where it failed.
function Talk:told(result, kind, reason)
  if result then return result end
  return self:fail(kind, kind == "timeout" and "the proxy did not answer in time"
    or kind == "closed" and "the proxy closed the connection" or reason)
end

function Talk:say(bytes)
  return self:told(self.pipe:write(bytes, self.deadline))
end

function Talk:more()
  local bytes = self:told(self.pipe:read(self.deadline))
  if bytes then self.held = self.held .. bytes end
  return bytes
end

-- Exactly so many octets.
function Talk:take(count)
  while #self.held < count do
    if not self:more() then return nil end
  end
  local bytes = self.held:sub(1, count)
  self.held = self.held:sub(count + 1)
  return bytes
end

-- Says something, and takes the first two octets of the answer.
function Talk:ask(bytes)
  if not self:say(bytes) then return nil end
  local answer = self:take(2)
  if answer then return answer:byte(1, 2) end
end

local function ipv4(text)
  local octets = {}
  for digits in text:gmatch("%d+") do octets[#octets + 1] = tonumber(digits) end
  if not text:find("^%d+%.%d+%.%d+%.%d+$") or math.max(octets[1], octets[2], octets[3], octets[4]) > 255 then
    return nil
  end
  return string.char(octets[1], octets[2], octets[3], octets[4])
end

-- The octets of the groups of an IPv6 literal or a part of it.
local function groups(text)
  local octets = {}
  for group in text:gmatch("[^:]+") do
    local number = group:find("^%x%x?%x?%x?$") and tonumber(group, 16)
    octets[#octets + 1] = number and string.char(math.floor(number / 256), number % 256) or ipv4(group)
      or ("?"):rep(17) -- more than an address has
  end
  return table.concat(octets)
end

local function ipv6(text)
  if not text:find("^[%x:.]+$") or text:find(":::", 1, true) or text:find("::.*::") then return nil end
  local head, tail = text:match("^(.-)::(.*)$")
  head, tail = groups(head or text), tail and groups(tail)
  local octets = tail and #head + #tail < 16 and head .. ("\0"):rep(16 - #head - #tail) .. tail or head
  return #octets == 16 and octets or nil
end

-- RFC 1928 5.
local function socks_address(host)
  local four = ipv4(host)
  if four then return "\1" .. four end
  local sixteen = host:find(":", 1, true) and ipv6(host)
  if sixteen then return "\4" .. sixteen end
  return "\3" .. string.char(#host) .. host
end

local function socks_login(talk, user, password)
  local version, status = talk:ask("\1" .. string.char(#user) .. user .. string.char(#password) .. password)
  if not version then return nil end
  if version ~= 1 then return talk:fail("protocol", "the proxy's answer to the login is not SOCKS 5") end
  if status ~= 0 then return talk:fail("auth", "the proxy refused the user name or password") end
  return true
end

local function socks5(talk, host, port, user, password)
  local version, method = talk:ask(user and "\5\2\0\2" or "\5\1\0")
  if not version then return nil end
  if version ~= 5 then return talk:fail("protocol", "the proxy does not speak SOCKS 5") end
  if method == 255 then
    return talk:fail("auth", user and "the proxy takes neither a user name and password nor a client without"
      or "the proxy wants a login")
  elseif method == 2 and user then
    if not socks_login(talk, user, password) then return nil end
  elseif method ~= 0 then
    return talk:fail("protocol", "the proxy chose a login that was not offered")
  end

  local code
  version, code = talk:ask("\5\1\0" .. socks_address(host) .. string.char(math.floor(port / 256), port % 256))
  if not version then return nil end
  if version ~= 5 then return talk:fail("protocol", "the proxy's answer is not SOCKS 5") end
  if code ~= 0 then
    local known = SOCKS_REPLIES[code] or { ("the proxy failed with code %d"):format(code), false }
    return talk:fail("connect", ("no way to %s port %d: %s"):format(host, port, known[1]), known[2])
  end
  -- the address that the proxy connects from: of no interest, but where the server's words begin depends on it
  local answer = talk:take(2)
  if not answer then return nil end
  local length = ({ [1] = 4, [4] = 16 })[answer:byte(2)]
  if answer:byte(2) == 3 then
    answer = talk:take(1)
    if not answer then return nil end
    length = answer:byte()
  end
  if not length then return talk:fail("protocol", "the proxy's answer has an unknown type of address") end
  return talk:take(length + 2)
end

-- The status of the proxy's next answer; its header is taken, and nothing behind that.
local function http_status(talk)
  local from = 1
  while true do
    local held = talk.held
    -- a server that is no proxy may never send the end of a header
    local like_http = held:sub(1, 7) == ("HTTP/1."):sub(1, #held)
    if not like_http then return talk:fail("protocol", "the proxy does not speak HTTP") end
    local _, stop = held:find("\n\r?\n", from)
    if (stop or #held) > talk.room then return talk:fail("protocol", "the proxy's answer is larger than 16 KB") end
    if stop then
      local status = held:match("^HTTP/1%.%d (%d%d%d)[ \r\n]")
      talk.held, talk.room = held:sub(stop + 1), talk.room - stop
      return tonumber(status) or talk:fail("protocol", "the proxy's answer is not HTTP")
    end
    from = math.max(1, #held - 1)
    if not talk:more() then return nil end
  end
end

local function http(talk, host, port, user, password)
  local target = (host:find(":", 1, true) and "[%s]:%d" or "%s:%d"):format(host, port)
  local login = user and "Proxy-Authorization: Basic " .. core.base64(user .. ":" .. password) .. "\r\n" or ""
  if not talk:say(("CONNECT %s HTTP/1.1\r\nHost: %s\r\n"):format(target, target) .. login .. "\r\n") then return nil end
  local status
  repeat
    status = http_status(talk)
    if not status then return nil end
  until status >= 200 -- what comes before is interim (RFC 9110 15.2)
  if status < 300 then return true end
  if status == 407 or status == 401 then -- some proxies say the latter to a wrong password
    return talk:fail("auth", user and "the proxy refused the user name or password" or "the proxy wants a login")
  end
  return talk:fail("connect",
    ("no way to %s port %d: the proxy answered with HTTP status %d"):format(host, port, status), status >= 500)
end

local KINDS = { socks5 = socks5, http = http }

-- What came behind the proxy's answer is the server's: the next read gives it.
local function put_back(pipe, bytes)
  local read, peek = rawget(pipe, "read"), rawget(pipe, "peek")
  local receive = rawget(pipe, "receive")
  function pipe.peek() return "data" end
  pipe.receive = false -- it would pass by
  function pipe.read(self)
    self.read, self.peek, self.receive = read, peek, receive
    return bytes
  end
end

---@class smtp.Proxy
---@field kind "socks5"|"http"
---@field host string
---@field port integer
---@field credentials (fun(): string, string)? user name and password, hidden from a dump

--- A pipe to the server through a proxy, from a transport that reaches the proxy. May yield where that does.
---@param transport table
---@param via smtp.Proxy
---@param host string the server, at most 255 octets; the proxy looks the name up
---@param port integer
---@param opts table for the transport
---@param deadline number absolute, monotonic, for all of it
---@return table? pipe
---@return string? kind "resolve" (the proxy's own name), "connect", "auth", "timeout", "closed", "protocol"
---@return string? reason
---@return boolean? temporary where the kind alone does not tell
---@return string? hint
function proxy.connect(transport, via, host, port, opts, deadline)
  local pipe, kind, reason, temporary = transport.connect(via.host, via.port, opts, deadline)
  if not pipe then
    reason = tostring(reason)
    if reason:find(via.host, 1, true) ~= 1 then reason = via.host .. ": " .. reason end
    return nil, kind, "proxy " .. reason, temporary, "check the host and port in proxy"
  end
  local talk = setmetatable({ pipe = pipe, deadline = deadline, held = "", room = MOST }, Talk)
  local user, password
  if via.credentials then user, password = via.credentials() end
  if not KINDS[via.kind](talk, host, port, user, password) then
    pipe:close()
    return nil, talk.kind, ("proxy %s port %d: %s"):format(via.host, via.port, talk.reason), talk.temporary,
      talk.kind == "auth" and "check the user name and password in proxy" or nil
  end
  if talk.held ~= "" then put_back(pipe, talk.held) end
  return pipe
end

return proxy
