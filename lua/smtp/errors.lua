--- errors: the one error value: what every call returns behind its nil when something could not be done at run time.
---
--- Does: makes it, and its one line of words; catches what a caller's function raises, where the Lua can.
--- Never: raises; shows a secret.
--- Called by: every room.
local errors = {}

---@class smtp.Refused A recipient that the server refused.
---@field address string
---@field code integer the server's reply code (RFC 5321 4.2)
---@field enhanced string? its enhanced status code (RFC 3463)
---@field text string its words, lines joined by "\n", control bytes escaped
---@field temporary boolean true: the same may work later

--- Behind nil, what could not be done. `tostring(err)`, and joining it to a string, give one line. `kind` is "input"
--- (it cannot be sent as it is), "resolve", "connect", "timeout", "closed", "tls", "insecure" (it would have had to go
--- on unencrypted, or to send a credential in clear), "auth", "rejected" (the server said no), "protocol" (it broke the
--- protocol) or "source" (what the caller gives the content by failed).
---@class smtp.Error
---@field kind "input"|"resolve"|"connect"|"timeout"|"closed"|"tls"|"insecure"|"auth"|"rejected"|"protocol"|"source"
---@field stage string where: "compose", "resolve", "connect", "proxy", "tls", "greeting", "ehlo", "starttls", "auth",
--- "mail", "rcpt", "data", "body", "final", "reset", "noop", "verify", "command", "quit"
---@field outcome "not_sent"|"unknown" what became of the message. "not_sent": it is safe to send it again; "unknown":
--- all of it was handed to the network and no answer came, so sending it again may duplicate it
---@field temporary boolean true: the same call may work later
---@field reason string? what happened, in the library's words
---@field code integer? the server's reply code (RFC 5321 4.2)
---@field enhanced string? its enhanced status code (RFC 3463)
---@field text string? its words, lines joined by "\n", control bytes escaped
---@field rejected smtp.Refused[]? where recipients were refused
---@field accepted string[]? LMTP, where the replies broke off: who has the message all the same
---@field apart boolean? no message was on its way: `outcome` says nothing then
---@field hint string? what to do about it, where the cause is well known
---@field transcript string? the dialogue, secrets taken out, when `trace` was asked for
---@field report smtp.Report? of smtp.verify, as far as it got
---@operator concat(any): string
local Error = {}

-- The same call may work later, unless the server's reply says otherwise.
local PASSING = { resolve = true, connect = true, timeout = true, closed = true }

local KINDS = {}
for kind in ("input resolve connect timeout closed tls insecure auth rejected protocol source"):gmatch("%a+") do
  KINDS[kind] = true
end

--- What a transport fails with: a kind that there is, and words, though it gives neither.
---@param kind any
---@param reason any
---@param default string the kind where it gives none
---@return string kind
---@return string reason
function errors.failure(kind, reason, default)
  if not KINDS[kind] then
    if reason == nil then reason = kind end
    kind = default
  end
  return kind, reason == nil and "the transport gives no reason" or tostring(reason)
end

--- The server's reply on one line: "550 5.1.1 No such user".
---@param reply { code: integer, enhanced: string?, text: string? }
---@return string
function errors.reply_line(reply)
  local words = { tostring(reply.code) }
  if reply.enhanced then words[#words + 1] = reply.enhanced end
  if reply.text and reply.text ~= "" then words[#words + 1] = (reply.text:gsub("\n", " ")) end
  return table.concat(words, " ")
end

function Error:__tostring()
  local parts = { self.kind .. (self.stage ~= self.kind and " at " .. self.stage or "") .. ": " }
  local function add(text) parts[#parts + 1] = text end
  if self.reason then add((self.reason:gsub("%c", " "))) end
  if self.code then add((self.reason and ": " or "") .. errors.reply_line(self)) end
  if not self.code and self.rejected and self.rejected[1] then
    local first = self.rejected[1]
    add((self.reason and ": " or "") .. ("<%s> %s"):format(first.address, errors.reply_line(first)))
  end
  if self.apart then
    if self.temporary then add "; trying later may work" end
  elseif self.outcome == "unknown" then
    add("; the message may have been sent: sending it again may duplicate it")
  else
    add("; the message was not sent" .. (self.temporary and ", trying later may work" or ""))
  end
  if self.hint then add("; hint: " .. self.hint) end
  return table.concat(parts)
end

function Error.__concat(left, right)
  return tostring(left) .. tostring(right)
end

--- Makes an error value from its fields; `outcome` defaults to "not_sent", `temporary` to what kind and code say.
---@param fields table
---@return smtp.Error
function errors.new(fields)
  fields.outcome = fields.outcome or "not_sent"
  if fields.temporary == nil then
    if fields.code then
      fields.temporary = fields.code >= 400 and fields.code < 500
    else
      fields.temporary = PASSING[fields.kind] or false
    end
  end
  return setmetatable(fields, Error)
end

--- Marks the error of a call that sends no message: its words speak of none.
---@param err smtp.Error?
---@return smtp.Error? err
function errors.apart(err)
  if err then err.apart = true end
  return err
end

--- A value that cannot be sent, found while composing: nothing was put on the network.
---@param reason string
---@param hint string?
---@return smtp.Error
function errors.input(reason, hint)
  return errors.new { kind = "input", stage = "compose", reason = reason, hint = hint }
end

-- Lua 5.1 cannot yield out of a pcall, LuaJIT can. It is not tried out: a coroutine of nginx's waits for its host.
local yields = _VERSION ~= "Lua 5.1" or jit ~= nil

--- Calls code of the caller's, which may raise and may yield. On Lua 5.1 it can only do one of the two in a coroutine:
--- there it may yield, and what it raises goes through.
---@type fun(call: function, ...): boolean, any ran, and what it returned or raised
errors.catch = yields and pcall or function(call, ...)
  if not coroutine.running() then return pcall(call, ...) end
  return true, call(...)
end

return errors
