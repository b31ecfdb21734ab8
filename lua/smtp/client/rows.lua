--- rows: what a caller's iterator gives, composed row by row as it gives it.
---
--- Does: keeps each as it was, whatever the caller does to it afterwards; makes a row that cannot be composed an error
--- of its own, with its number, and goes on.
--- Never: raises what the iterator raised: that is for whoever asked, when the rows before have their results.
--- Called by: send_many, workers.
local send = require "smtp.client.send"
local errors = require "smtp.errors"
local message = require "smtp.mail.message"

local rows = {}

local catch, letter, outgoing = errors.catch, message.letter, message.outgoing

-- The error of a row that cannot be composed, with its number.
local function name(count, fine, err)
  if not fine then -- a raise has the caller's line in front, where that is known
    local words = tostring(err)
    err = errors.input(words:match "^.-:%d+: row: (.*)" or words:match "^row: (.*)" or words)
  end
  err.reason = "row " .. count .. ": " .. err.reason
  return err
end

--- Calls an iterator, which has given nil or raised at last.
---@param iterator fun(): table? messages or message options; nil: no more
---@param owner table what the iterator raises is kept here, in `raised`: { value }. Whoever called has to raise it when
--- all that was given before has its result
---@return fun(): smtp.Message|false|nil, smtp.Error?, any next a message, or false and its error; nil: no more. And
--- what the iterator gave
function rows.new(iterator, owner)
  local count = 0

  return function()
    local ran, given = catch(iterator)
    if not ran then owner.raised, given = { value = given }, nil end
    if given == nil then return nil end
    count = count + 1
    local mail, err = outgoing(given)
    if mail then return mail, nil, given end
    local fine = true
    if not err then
      mail = letter(given)
      if not mail then fine, mail, err = pcall(send.compose_any, given, "row") end
      if fine and mail then return mail, nil, given end
    end
    return false, name(count, fine, fine and err or mail), given
  end
end

return rows
