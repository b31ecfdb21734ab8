-- The mails that wait, and the one under way. This part knows the library; init.lua runs it apart from other mods.
local smtp = require "smtp"
require "smtp.transport.tls" -- loads OpenSSL while nobody plays

local MOST = 50 -- mails that may wait

return function(options)
  local pool = assert(smtp.pool(options.server))
  local waiting, task = {}, nil

  -- Whether there was room.
  local function post(subject, text)
    if #waiting >= MOST then return false end
    waiting[#waiting + 1] = { from = options.from, to = options.to, subject = subject, text = text }
    return true
  end

  -- A log level and words, when a mail has been sent or has failed.
  local function step()
    if not task and waiting[1] then task = smtp.task(pool.send, pool, table.remove(waiting, 1)) end
    if not task then return end
    local state, receipt, err = task:step()
    if state ~= "done" then return end
    task = nil
    if receipt then return "action", "sent " .. receipt.message_id end
    return "error", tostring(err)
  end

  return post, step
end
