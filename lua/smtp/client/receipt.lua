--- receipt: what a caller gets for a message that was sent, and its list of recipients that were refused.
---
--- Called by: send, content, envelope, burst, shortcut.
local core = require "smtp.core"
local limits = require "smtp.protocol.limits"
local queue = require "smtp.protocol.queue"

local receipt = {}

local queue_id = queue.id
local unpack = table.unpack or unpack

---@class smtp.Receipt
---@field message_id string? "<...@...>" as sent
---@field accepted string[] addresses the server took; with LMTP those it delivered to
---@field rejected smtp.Refused[] empty when all were taken
---@field reply smtp.Reply of the end of data; with LMTP the first good one
---@field queue_id string? the server's queue id, where its reply carries one in a known form
---@field size integer message octets before dot-stuffing
---@field round_trips integer times this send waited for the server
---@field time table seconds: {connect=, tls=, auth=, send=, total=}
---@field tls table? {version=, cipher=, peer=, resumed=}
---@field transcript string? the dialogue, secrets taken out, when `trace` was asked for

--- A recipient that the server does not want, as receipts and errors list it.
---@param taken integer? recipients that it took before, where the reply is to RCPT
function receipt.refused(self, address, reply, taken)
  return { address = address, code = reply.code, enhanced = reply.enhanced, text = self.trace.scrub(reply.text),
    temporary = reply.code < 500 or taken ~= nil and limits.reached(reply, taken) }
end

--- Whether the same call may work later: with `partial` one recipient is enough, else it takes all of them.
function receipt.may_work_later(rejected, mail)
  local later, never = false, false
  for _, one in ipairs(rejected) do
    if one.temporary then later = true else never = true end
  end
  return later and (mail.partial ~= false or not never)
end

-- A receipt's own list of all that a plan of one group names.
local function all(plan)
  local to = plan.to
  return to[2] and { unpack(to) } or { to[1] }
end
receipt.all = all

--- The receipt of a message that all its recipients were taken for, by a plan that holds it whole.
---@param self table the session
---@param plan smtp.Dispatch
---@param code integer of the reply,
---@param enhanced string?
---@param text string
---@param id string|false|nil what core.queue_id finds in it, if that has been called
---@param took number seconds
---@param rounds integer
---@return smtp.Receipt
function receipt.short(self, plan, code, enhanced, text, id, took, rounds)
  local time, shown = self.time, self.trace.scrub(text)
  if shown ~= text then id = nil end
  return {
    message_id = plan.id,
    accepted = all(plan),
    rejected = {},
    reply = { code = code, enhanced = enhanced, text = shown },
    queue_id = id or id == nil and queue_id(shown) or nil,
    size = #plan.bytes,
    round_trips = rounds,
    time = { connect = time.connect, tls = time.tls, auth = time.auth, send = took, total = took },
    tls = self.tls,
  }
end

--- The receipt of a transaction.
---@param self table the session
---@param one smtp.Transaction
---@param reply smtp.Reply
---@param octets integer
---@return smtp.Receipt
function receipt.new(self, one, reply, octets)
  local time, took = self.time, core.now() - one.began
  return {
    message_id = one.mail.id,
    accepted = one.accepted,
    rejected = one.rejected,
    reply = reply,
    queue_id = queue_id(reply.text),
    size = octets,
    round_trips = self.pump.rounds - one.rounds,
    time = { connect = time.connect, tls = time.tls, auth = time.auth, send = took, total = took },
    tls = self.tls,
    transcript = self.trace.transcript(),
  }
end

return receipt
