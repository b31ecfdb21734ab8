--- bdat: a message's content in chunks (BDAT), to its final reply, and which servers may be trusted with them.
---
--- A server that refuses a chunk and does not swallow its octets reads the message as commands: whoever wrote the
--- message then commands the server. So chunks go by themselves only to a server that has shown that it swallows: it
--- refused one that holds nothing but an unknown command, with one reply.
---
--- Called by: send, burst, send_many, session.
--- RFC 3030.
local command = require "smtp.client.command"
local habits = require "smtp.client.habits"
local pump = require "smtp.client.pump"
local state = require "smtp.client.state"

local bdat = {}

local SIZE = 262144 -- octets of a chunk
local OWED = 64     -- replies to chunks that may be outstanding: more could fill the buffers on their way

local function able(plan, offered)
  -- LMTP would owe a reply for each recipient
  return offered and offered.CHUNKING and offered.PIPELINING and plan.pipeline and plan.chunk ~= false and not plan.lmtp
end

--- Whether content may go in chunks to a server that offers this, without asking the caller.
---@param plan table
---@param offered table<string, string|true>?
---@return boolean
function bdat.trusted(plan, offered)
  return able(plan, offered) and (plan.chunk or habits.of(plan).swallows) or false
end

--- Whether it is worth finding out.
function bdat.is_unknown(self)
  return able(self.plan, self.capabilities) and not self.trusted and habits.of(self.plan).swallows == nil
end

--- The server said more than it was asked: it may have read content as commands.
function bdat.distrust(self)
  habits.of(self.plan).swallows = false
  state.trust(self, false)
end

-- Queues the question whether the server swallows, and behind it a command that every server knows.
local function queue_question(self, stage, last)
  local ok, why = self.pump:chunk("XNOP\r\n", true)
  if not ok then return command.fail_input(self, stage, why) end
  -- a connection that is lost over it must not be followed by others
  habits.of(self.plan).swallows = false
  return command.queue(self, stage, last)
end

-- The two replies to that: a chunk refused, and then `code`, is one that was swallowed. What was read as a command has
-- a reply of its own, another one. Returns the second, and whether the first was a refusal.
local function answer(self, code, receive)
  local reply, err = receive()
  if not reply then return nil, err end
  local refused = command.class(reply) == 5
  reply, err = receive()
  if not reply then return nil, err end
  habits.of(self.plan).swallows = refused and reply.code == code
  return reply, refused
end

--- Queues the question behind the end of a content: between two RSET, the first as there are servers that bear nothing
--- else there, the second as one is due after a refused chunk (RFC 3030 2).
function bdat.queue_question(self)
  local ok, err = command.queue(self, "data", "RSET")
  if not ok then return nil, err end
  return queue_question(self, "data", "RSET")
end

--- The answer, after the final reply.
---@return smtp.Reply? reply nil: the connection is lost
function bdat.answer(self)
  local function receive() return command.receive(self, "data", "command") end
  if not receive() then return nil end
  local reply, refused = answer(self, 250, receive)
  if reply and refused and reply.code ~= 250 then
    self.pump.wire:owe(1)
    reply = receive()
  end
  state.trust(self, bdat.trusted(self.plan, self.capabilities))
  return reply
end

--- Queues QUIT, and before it the question, where that is worth knowing and not known. Never inside a transaction: the
--- recipients it has would get the chunk.
---@param alone boolean? nothing goes before it
---@return (fun(receive: fun(): smtp.Reply?, any): smtp.Reply?)? read the reply to QUIT, and the one to the
--- question before it
---@return smtp.Error? err
function bdat.queue_quit(self, alone)
  local ok, err = command.look(self, "quit")
  if not ok then return nil, err end
  local asks = not alone and bdat.is_unknown(self) and not self.transaction and self.capabilities.BINARYMIME
  if asks then
    ok, err = queue_question(self, "quit", "QUIT")
  else
    ok, err = command.queue(self, "quit", "QUIT")
  end
  if not ok then return nil, err end
  return function(receive)
    if asks then return answer(self, 221, receive) end
    return receive()
  end
end

-- A content that cannot go on: half a chunk must not look like a whole one.
local function break_off(self, kind, reason, words)
  local _, err = command.fail_pump(self, "body", kind, reason, words)
  state.kill(self, err)
  return nil, err
end

-- Reads replies until no more than `most` are owed.
local function settle(self, chunks, most, stage)
  while chunks.owed > most do
    local reply, err = command.receive(self, stage, "final")
    if reply then reply, err = command.verdict(self, stage, reply) end
    if not reply then return nil, err end
    chunks.owed, chunks.last = chunks.owed - 1, reply
    if command.class(reply) ~= 2 then
      chunks.refused = chunks.refused or reply
    else
      chunks.stays = chunks.stays or chunks.refused and chunks.refused.code == 421
    end
  end
  return true
end

-- Writes what has come as a chunk, and reads the replies that are due then.
local function put(self, chunks, final)
  local ok, why = true, nil
  if chunks.owed == 0 and self.pump:strays(true)[1] then ok, why = command.listen(self) end
  if not ok then return nil, why end
  ok, why = self.pump:chunk(table.concat(chunks.pieces), final)
  if not ok then return break_off(self, "input", why) end
  local written, kind, reason, words, left = self.pump:flush(state.deadline(self, "block"))
  if not written then
    if final and left == 0 and not words then chunks.one.outcome = "unknown" end
    return break_off(self, kind, reason, words)
  end
  chunks.octets, chunks.owed, chunks.pieces, chunks.length = chunks.octets + chunks.length, chunks.owed + 1, {}, 0
  local enough = chunks.report and chunks.report(chunks.octets) == false
  if final then
    chunks.one.outcome = "unknown"
    return settle(self, chunks, 0, "final")
  end
  if enough then return break_off(self, "source", "on_progress raised an error") end
  return settle(self, chunks, chunks.trusted and OWED - 1 or 0, "body")
end

-- The whole content, chunk by chunk, until it is refused.
local function put_all(self, chunks, source)
  local ok, err = true, nil
  repeat
    local piece, kind, reason = pump.pull(source, self.expires)
    if kind then return break_off(self, kind, reason) end
    if not piece then return put(self, chunks, true) end
    chunks.pieces[#chunks.pieces + 1], chunks.length = piece, chunks.length + #piece
    if chunks.length >= SIZE then ok, err = put(self, chunks, false) end
  until chunks.refused or not ok
  if ok then ok, err = settle(self, chunks, 0, "body") end
  return ok, err
end

--- The content of a message whose envelope was taken, and the final reply. Where the server is not trusted, each chunk
--- waits for the reply to the one before it, and a refused one ends the session.
---@param source fun(): string?, any
---@param one table the message
---@param report (fun(octets: integer))?
---@return smtp.Reply? reply
---@return smtp.Error? err
---@return integer? octets
function bdat.content(self, source, one, report)
  local chunks = {
    one = one, report = report, trusted = self.trusted,
    pieces = {}, length = 0, -- of the next chunk
    octets = 0,              -- that have gone out
    owed = 0, last = nil,    -- replies, and the last of them
    refused = nil,           -- the first no,
    stays = false,           -- which was a 421, and the server took another chunk behind it
  }
  state.content_begins(self, one)
  local ok, err = put_all(self, chunks, source)
  local ended, refused = one.outcome == "unknown", chunks.refused
  -- a reply too many may have come before the last one: then that is another chunk's, and the message's is behind it
  for _, reply in ipairs(ok and ended and self.pump:strays(true) or {}) do
    if (command.class(reply) == 2) == (refused ~= nil) then
      bdat.distrust(self)
      return command.fail(self, "final", "protocol", pump.SURPLUS)
    end
  end
  if not (ended and chunks.stays) then one.outcome = nil end
  -- a server that refused a chunk and went has said what becomes of the message
  if ok or refused and not chunks.stays and err.kind == "closed" then
    state.content_over(self, refused ~= nil) -- RFC 3030 2: RSET is due
    if refused then
      ok, err = command.expect(self, ended and "final" or "body", refused, 2)
      if not chunks.trusted then state.kill(self, err) end
    end
  end
  one.outcome = nil
  if not ok then return nil, err end
  return chunks.last, nil, chunks.octets
end

return bdat
