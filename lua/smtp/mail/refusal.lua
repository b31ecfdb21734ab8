--- refusal: a value that cannot be sent.
---
--- Does: raises it while a message is composed, so that the checks read as straight lines; catches it where composing
--- began.
--- Never: has something that could yield between the two.
--- Called by: compose, people, message.
local errors = require "smtp.errors"

local refusal = {}

local Refusal = {}

--- Raises a refusal.
---@param reason string
---@param kind string? "input"
local function refuse(reason, kind)
  error(setmetatable({ reason = reason, kind = kind or "input" }, Refusal), 0)
end

refusal.refuse = refuse

--- Passes a result through; refuses with the option's name in front where there is none.
function refusal.need(label, value, why)
  if value == nil then refuse(label .. ": " .. why) end
  return value
end

--- The same for a header field that an option makes: the reason names the option, and not the field besides.
---@param name string the field's
function refusal.field(option, name, field, why)
  if field == nil and why:sub(1, #name + 2) == name .. ": " then why = why:sub(#name + 3) end
  return refusal.need(option, field, why)
end

--- What a function makes, or its refusal as an error.
---@param make function
---@return any? made
---@return smtp.Error? err stage "compose"
function refusal.try(make, given)
  local fine, result = pcall(make, given)
  if fine then
    return result
  elseif getmetatable(result) == Refusal then
    return nil, errors.new {
      kind = result.kind, stage = "compose", outcome = "not_sent", temporary = false, reason = result.reason,
    }
  end
  error(result, 0)
end

return refusal
