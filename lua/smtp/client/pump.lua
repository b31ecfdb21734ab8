--- pump: the only loop in which a wire meets a pipe: commands go down, one reply after the other comes up.
---
--- Does: knows bytes, deadlines and replies. Whatever waits here may yield.
--- Never: knows what a reply means.
--- Called by: state (made), connect, session, command, envelope, content, bdat, burst, send, send_many, shortcut.
local core = require "smtp.core"
local errors = require "smtp.errors"

local pump = {}

--- Why a connection ends whose replies no longer belong to its commands.
pump.SURPLUS = "the server sent a reply that no command was waiting for"

---@class smtp.Reply
---@field code integer RFC 5321 4.2
---@field enhanced string? RFC 3463
---@field text string lines joined by "\n", control bytes escaped

---@class smtp.Pump
---@field pipe table the transport's pipe
---@field wire userdata the engine
---@field rounds integer how many times the peer was waited for
local Pump = {}
Pump.__index = Pump

-- What is written at once while a body goes out: large enough that system calls do not count, small enough to stay in
-- cache.
local BLOCK = 262144
-- A server that sends more of them unasked is not listened to any longer.
local MOST_STRAYS = 64

--- A client's pump over a connected pipe: the server owes a greeting.
---@param pipe table
---@param trace table
---@return smtp.Pump
function pump.new(pipe, trace)
  return setmetatable({ pipe = pipe, wire = core.wire(1), trace = trace, rounds = 0, fresh = true }, Pump)
end

--- Goes on over another pipe (the same connection under TLS). What the old one said is forgotten (RFC 3207 4.2).
function Pump:switch(pipe)
  self.pipe = pipe
  self.wire = core.wire()
end

--- Queues a command. `shown` stands for it in the trace where it carries a secret.
---@return boolean? ok
---@return string? reason nothing was queued
function Pump:command(line, utf8, shown)
  local ok, reason = self.wire:command(line, utf8)
  if ok then self.trace.sent(shown or line) end
  return ok, reason
end

--- Queues several commands, with LF between two.
---@param block string
---@param count integer how many they are
---@return boolean? ok
---@return string? reason nothing was queued
function Pump:commands(block, count, utf8)
  local ok, reason = self.wire:commands(block, count, utf8)
  if ok and self.trace.wanted then
    for line in block:gmatch("[^\n]+") do self.trace.sent(line) end
  end
  return ok, reason
end

-- A wire for what the server says while no reply is due: the connection's own would take that for a broken protocol.
-- Part of it may have come with the last reply.
local function stray(self)
  local wire = core.wire(1000)
  wire:feed(self.wire:octets(self.wire:residue()) or "")
  return wire
end

-- After a failed write the reason often lies in what the server said before it closed or fell silent: 421, 5xx. Nil if
-- it said nothing. `any`: the next reply, even a good one.
local function last_words(self, deadline, any)
  deadline = math.min(deadline, core.now() + 1)
  local wire = self.wire:expected() > 0 and self.wire or stray(self)
  while true do
    local code, text, enhanced = wire:reply()
    if code then
      local reply = { code = code, text = text, enhanced = enhanced }
      self.trace.received(reply)
      if any or code >= 400 then return reply end
    else
      local bytes = text == "again" and self.pipe:read(deadline)
      if not (bytes and wire:feed(bytes)) then return nil end
    end
  end
end

--- Looks, without waiting, for what a server says unasked: an idle connection's 421, its end, or a reply too many.
---@return string? kind nil: all is quiet; else "closed"|"protocol"|"tls"
---@return string? reason
---@return smtp.Reply? reply what it said, if that was a refusal
function Pump:unasked()
  local look = self.wire:unread() > 0 and "data" or self.pipe:peek()
  if look == "idle" then return nil end
  if look == "closed" then
    local _, kind, reason = self.pipe:read(0)
    if kind == "tls" then return kind, reason end -- the alert by which it did so
    return "closed", "the server closed the connection"
  end
  local wire = stray(self)
  local code, text, enhanced = wire:reply()
  while text == "again" do
    local bytes = self.pipe:read(0)
    if not (bytes and wire:feed(bytes)) then break end
    code, text, enhanced = wire:reply()
  end
  local reply = code and { code = code, text = text, enhanced = enhanced }
  if reply then self.trace.received(reply) end
  if text == "again" and wire:unread() == 0 then return nil end -- nothing but empty lines
  -- whatever words a server takes its leave with
  if code == 221 or code and code >= 400 then
    return "closed", "the server closed the connection", code >= 400 and reply or nil
  end
  return "protocol", pump.SURPLUS
end

--- The replies that have come and that no command waits for; they stay unread. Never waits.
---@param closely boolean? look at the connection itself, too: a read of our own pipes has taken all that was there then
---@return smtp.Reply[] replies one of which only a part has come has the code 0
function Pump:strays(closely)
  local found, own, pipe = {}, self.wire, self.pipe
  if own:unread() == 0 and (pipe.receive and not closely or pipe:peek() ~= "data") then return found end
  local wire, held = core.wire(MOST_STRAYS), own:octets(own:residue())
  local more = held
  while more and wire:feed(more) do
    local code, text, enhanced = wire:reply()
    while code do
      found[#found + 1] = { code = code, text = text, enhanced = enhanced }
      code, text, enhanced = wire:reply()
    end
    more = text == "again" and pipe:peek() == "data" and pipe:read(0)
    held = held .. (more or "")
  end
  if wire:unread() > 0 then found[#found + 1] = { code = 0, text = "" } end
  own:feed(held)
  return found
end

--- Writes all that is queued. What cannot be written is no longer queued then.
---@param deadline number absolute, monotonic
---@return boolean? ok
---@return string? kind "timeout"|"closed"
---@return string? reason
---@return integer? left octets at the end that the transport has not taken, as far as it can tell
function Pump:write(deadline)
  local wire, pipe = self.wire, self.pipe
  self.fresh = true
  local ok, kind, reason, told
  if pipe.send then
    ok, kind, reason, told = pipe:send(wire, deadline)
  else
    ok, kind, reason, told = pipe:write(wire:take(), deadline)
  end
  if ok then return true end
  kind, reason = errors.failure(kind, reason, "closed")
  return nil, kind, reason, self:untaken(told)
end

--- How much of what a write that failed was given is certainly not on its way. It is no longer queued then.
---@param told any what the pipe has told of that
---@return integer octets at its end; 0: it may have gone out whole
function Pump:untaken(told)
  local queued = #self.wire:take()
  if type(told) == "number" then return math.max(queued, told) end
  -- our own pipes have send, and take no write for failed that was whole; of others nobody knows that
  return self.pipe.send and math.max(queued, 1) or 0
end

--- Writes all that is queued.
---@param deadline number absolute, monotonic
---@param any boolean? where the write fails, the server's next reply is of interest even if it is a good one
---@return boolean? ok
---@return string? kind "timeout"|"closed"
---@return string? reason
---@return smtp.Reply? reply what the server said before it closed the connection
---@return integer? left octets at the end that the transport has not taken, as far as it can tell
function Pump:flush(deadline, any)
  if self.wire:queued() == 0 then return true end
  local ok, kind, reason, left = self:write(deadline)
  if ok then return true end
  return self:fail(deadline, any, kind, reason, left)
end

--- The result of flush for a write that failed.
---@param deadline number
---@param any boolean?
---@param kind string
---@param reason string
---@param left integer
function Pump:fail(deadline, any, kind, reason, left)
  return nil, kind, reason, last_words(self, deadline, any), left
end

-- Waits for more from the peer. True, or nil, kind, reason.
local function fill(self, deadline)
  if self.fresh then
    self.rounds = self.rounds + 1
    self.fresh = false
  end
  local wire, pipe = self.wire, self.pipe
  if pipe.receive then return pipe:receive(wire, deadline) end
  local bytes, kind, reason = pipe:read(deadline)
  if type(bytes) ~= "string" then return nil, errors.failure(kind, reason, "closed") end
  local ok, why = wire:feed(bytes)
  if not ok then return nil, "protocol", why end
  return true
end

--- What a line is that is no reply's.
---@param line string? as far as it is known
---@return "protocol"
---@return string reason
function pump.odd(line)
  return "protocol", "the server's reply is not SMTP" .. (line and line ~= "" and (': "%s"'):format(line) or "")
end

-- How a reply begins, by as many octets as have come.
local BEGINNINGS = { "^[2-5]", "^[2-5]%d", "^[2-5]%d%d", "^[2-5]%d%d[- \r\n]" }
local SHOWN = 80 -- octets of what is no reply that are worth having

--- What is wrong with the first octets of a peer, which may speak another protocol; nil: a reply may begin so.
---@param start string
---@return string? reason
function pump.odd_start(start)
  local line = start:match("^[\r\n]*(.*)$")
  if line == "" or line:find(BEGINNINGS[math.min(#line, 4)]) then return nil end
  local wire = core.wire(1)
  wire:feed(line:sub(1, SHOWN) .. "\n")
  local _, _, shown = wire:reply()
  local _, reason = pump.odd(shown)
  return reason
end

--- The first reply. What cannot begin one is not waited for to end.
---@param deadline number
---@return smtp.Reply? reply
---@return string? kind "timeout"|"closed"|"protocol"
---@return string? reason
---@return string? start what has come in its place, where that is none
function Pump:greeting(deadline)
  local wire, pipe, start = self.wire, self.pipe, ""
  while wire:residue() == #start and #start < 4 do
    if self.fresh then self.rounds, self.fresh = self.rounds + 1, false end
    local bytes, kind, reason = pipe:read(deadline)
    if type(bytes) ~= "string" then return nil, errors.failure(kind, reason, "closed") end
    wire:feed(bytes)
    start = start .. bytes
    if pump.odd_start(start) then
      -- what is there already, for a person to see
      while #start < SHOWN and not start:find("[^\r\n]\r?\n") and pipe:peek() == "data" do
        bytes = pipe:read(0)
        if type(bytes) ~= "string" then break end
        start = start .. bytes
      end
      return nil, "protocol", pump.odd_start(start), start
    end
  end
  return self:reply(deadline)
end

--- Takes the next replies, unread, if they are of these classes ("2223", where 3 is 354 alone); what is queued has been
--- written. The trace does not hear of them.
---@param classes string
---@param deadline number
---@return boolean? ok false: one is not; nil: they did not all come in time. reply() then gives them one by one
function Pump:agree(classes, deadline)
  while true do
    local agreed, why = self.wire:agree(classes)
    if agreed ~= nil then return agreed end
    if why ~= "again" or not fill(self, deadline) then return nil end
  end
end

--- Writes all that is queued, then the next reply.
---@param deadline number
---@return smtp.Reply? reply
---@return string? kind "timeout"|"closed"|"protocol"
---@return string? reason
---@return smtp.Reply? reply what the server said before it closed the connection
function Pump:reply(deadline)
  local ok, failed, failure, words = self:flush(deadline)
  if not ok then return nil, failed, failure, words end
  while true do
    local code, text, enhanced = self.wire:reply()
    if code then
      local reply = { code = code, enhanced = enhanced, text = text }
      self.trace.received(reply)
      return reply
    end
    if text ~= "again" then return nil, pump.odd(enhanced) end
    local more, kind, reason = fill(self, deadline)
    if not more then return nil, kind, reason end
  end
end

--- A source function from what a caller of a session's may give.
---@param value string|function|table text, a function, or a message
---@return (fun(): string?, any)? source nil: it is none of these
---@return fun()? close puts the files of a message away where it is not read to its end
function pump.source(value)
  if type(value) == "function" then return value end
  if type(value) == "table" and value.source then return value:source() end
  if type(value) ~= "string" then return nil end
  return function()
    local text = value
    value = nil
    return text
  end
end

--- What a source gives next.
---@param source fun(): string?, any chunks, then nil; or nil, reason
---@param expires number the whole call's deadline
---@param wire userdata? where a source of this library's may queue what it has, and give a number of octets
---@return string|integer? piece nil: the end, or an error
---@return string? kind "source"|"timeout"
---@return any reason
function pump.pull(source, expires, wire)
  local ran, piece, why = pcall(source, wire)
  if not ran then return nil, "source", piece end
  if piece == nil and why ~= nil then return nil, "source", why end
  -- a write that need not wait never looks at the clock
  if core.now() >= expires then return nil, "timeout", "the time for the whole call was over" end
  if piece ~= nil and type(piece) ~= "string" and not (wire and type(piece) == "number") then
    return nil, "source", "the source gave a " .. type(piece) .. ", not a string"
  end
  return piece
end

--- Queues content behind a 354 and writes it as it comes, but for the last block, which the caller's next flush takes
--- along. The terminator is not queued.
---@param source string|fun(): string?, any chunks, then nil; or nil, reason. A string is only queued
---@param block number seconds each write may take
---@param expires number the whole call's deadline
---@param report (fun(octets: integer): boolean?)? called with what the transport has taken so far, after each block;
--- false: that is enough
---@param own boolean? the source is one of this library's: see pull
---@return integer? octets that the source gave
---@return string? kind "source"|"timeout"|"closed"|"input"
---@return any reason
---@return smtp.Reply? reply what the server said before it closed the connection
function Pump:content(source, block, expires, report, own)
  local wire, octets = self.wire, 0
  if type(source) == "string" then
    local ok, reason = wire:body(source)
    if not ok then return nil, "input", reason end
    return #source
  end
  while true do
    local chunk, failed, failure = pump.pull(source, expires, own and wire or nil)
    if failed then return nil, failed, failure end
    if not chunk then return octets end
    local poured = type(chunk) == "number"
    local length = poured and chunk or #chunk
    for from = 1, length, poured and length or BLOCK do
      local last = poured and length or math.min(from + BLOCK - 1, length)
      local ok, reason = true, nil
      if not poured then ok, reason = wire:body(chunk, from, last) end
      if not ok then return nil, "input", reason end
      octets = octets + last - from + 1
      if wire:queued() >= BLOCK then
        local written, kind, why, words = self:flush(math.min(expires, core.now() + block))
        if not written then return nil, kind, why, words end
        if report and report(octets) == false then return nil, "source", "on_progress raised an error" end
      end
    end
  end
end

--- Queues a chunk of content, as it is (RFC 3030).
---@param bytes string
---@param last boolean
---@return boolean? ok
---@return string? reason
function Pump:chunk(bytes, last)
  if self.trace.wanted then self.trace.sent(("BDAT %d%s"):format(#bytes, last and " LAST" or "")) end
  return self.wire:chunk(bytes, last)
end

--- Ends the content: queues the terminator.
---@param octets integer what content gave, for the trace
---@param replies integer? owed for it, 1 by default
---@return boolean? ok
---@return string? reason
function Pump:finish(octets, replies)
  self.trace.sent(("[%d octets of content]"):format(octets))
  self.trace.sent(".")
  return self.wire:finish(replies)
end

return pump
