--- memory: a transport without a network, for specs: it plays a server from a script and holds the client to it.
---
--- A script is a list of lines. "S: 220 hello" is what the server says, "C: NOOP" what the client must have said by
--- then (the line without its CRLF), "C~ ^EHLO " the same as a pattern. "S: " lines are only given once every "C" line
--- before them has come, and nothing beyond: a client that speaks before its turn is found out. Further lines:
--- "S! bytes" (as they are, without CRLF), "close" (the server closes), "hang" (it falls silent: a read times out),
--- "deaf" (one write fails).
local fault = require "smtp.transport.fault"

local memory = {}

local Pipe = {}
Pipe.__index = Pipe

local function mismatch(self, what)
  error(("line %d of the script, %q: %s"):format(self.at, tostring(self.script[self.at]), what), 0)
end

-- Takes the client's lines that the script is waiting for; true when the next line of the script is the server's.
local function settle(self)
  while true do
    local kind, text = (self.script[self.at] or ""):match("^(C.) ?(.*)$")
    if not kind then return true end
    local line, rest = self.heard:match("^(.-)\r\n(.*)$")
    if not line then return false end
    local same = kind == "C:" and line == text or kind == "C~" and line:find(text) ~= nil
    if not same then mismatch(self, ("the client said %q"):format(line)) end
    self.heard = rest
    self.at = self.at + 1
  end
end

-- What the server says now, or the script's event. Nil: it is the client's turn.
local function say(self)
  if not settle(self) then return nil end
  local bytes = {}
  while true do
    local kind, text = (self.script[self.at] or ""):match("^(S.) ?(.*)$")
    if not kind then break end
    if self.heard ~= "" then mismatch(self, ("the client spoke early: %q"):format(self.heard)) end
    bytes[#bytes + 1] = kind == "S:" and text .. "\r\n" or text
    self.at = self.at + 1
  end
  if #bytes > 0 then return table.concat(bytes) end
  return nil, self.script[self.at]
end

function Pipe:read()
  if self.closed then return fault.closed() end
  if self.pending == "" then
    local bytes, event = say(self)
    if not bytes then
      if event == "close" then return fault.ended() end
      return fault.nothing_came()
    end
    self.pending = bytes
  end
  local count = self.dribble and 1 or #self.pending
  local bytes = self.pending:sub(1, count)
  self.pending = self.pending:sub(count + 1)
  return bytes
end

-- Why nothing can be written now.
local function deafness(self)
  if self.closed then return "the connection is closed" end
  settle(self)
  if self.script[self.at] ~= "deaf" then return nil end
  self.at = self.at + 1
  return "Broken pipe"
end

function Pipe:write(bytes)
  local reason = deafness(self)
  if reason then return nil, "closed", reason end
  self.written[#self.written + 1] = bytes
  self.heard = self.heard .. bytes
  return true
end

local function send(self, wire)
  local reason = deafness(self)
  if reason then return nil, "closed", reason end
  return self:write(wire:take())
end

local function receive(self, wire)
  local bytes, kind, reason = self:read()
  if not bytes then return nil, kind, reason end
  local ok, why = wire:feed(bytes)
  if not ok then return nil, "protocol", why end
  return true
end

function Pipe:peek()
  if self.pending ~= "" then return "data" end
  if self.closed then return "closed" end
  local line = settle(self) and self.script[self.at] or ""
  return line == "close" and "closed" or line:find("^S") and "data" or "idle"
end

function Pipe:name()
  return "127.0.0.1", 1
end

function Pipe:close()
  self.closed = true
end

--- A transport that plays `script` on its one connection, `transport.pipe`; `transport.pipe.written` lists what each
--- write gave.
---@param script string[]
---@param opts { dribble: boolean? }? dribble: the server's bytes come one at a time, and the pipe has neither send nor
--- receive, which no pipe must have
---@return table transport
function memory.new(script, opts)
  local transport = {}
  function transport.connect()
    local dribble = opts and opts.dribble or false
    transport.pipe = setmetatable({
      script = script, at = 1, heard = "", pending = "", written = {}, closed = false,
      dribble = dribble, send = not dribble and send or nil, receive = not dribble and receive or nil,
    }, Pipe)
    return transport.pipe
  end
  return transport
end

return memory
