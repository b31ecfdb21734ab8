-- tls_peer: a TLS server for one connection in a process of its own (tls_peer.py), and a client's pipe to it.
local core = require "smtp.core"
local socket = require "smtp.transport.socket"

local peer = {}

local Peer = {}
Peer.__index = Peer

local function quote(word)
  return "'" .. word:gsub("'", "'\\''") .. "'"
end

--- A server that waits for its connection.
---@param cert string path of the certificate and its chain
---@param key string path
---@param version string "1.2", "1.3", or "1.2-plain": without the extended master secret
---@param moves string[] what it does once hands are shaken (tls_peer.py)
function peer.start(cert, key, version, moves)
  local words = { quote(cert), quote(key), version }
  for _, move in ipairs(moves) do words[#words + 1] = quote(move) end
  -- a sanitizer preloaded for the specs is not meant for Python
  local pipe = assert(io.popen("env -u LD_PRELOAD python3 -I -S spec/support/tls_peer.py " .. table.concat(words, " ") .. " 2>&1"))
  local first = pipe:read("*l") or ""
  local port = first:match("^port (%d+)$")
  assert(port, first .. (port and "" or pipe:read("*a")))
  return setmetatable({ output = pipe, port = tonumber(port) }, Peer)
end

--- A pipe to it, not yet encrypted.
function Peer:connect()
  return assert(socket.new().connect("127.0.0.1", self.port, {}, core.now() + 60))
end

--- Waits for its end, which comes once the client has closed; what it printed.
function Peer:finish()
  local printed = self.output:read("*a")
  self.output:close()
  return printed
end

return peer
