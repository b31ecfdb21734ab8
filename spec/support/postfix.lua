-- postfix: the specs' private Postfix (postfix.sh), and what it delivered.
local child = require "spec.support.child"

local postfix = require "spec.support.daemon" "postfix"

--- Waits until a maildir holds a message.
---@param maildir string
---@param wanted string|number its Message-ID, or: the message that makes it this many
---@param timeout number? seconds after which something hangs, default 60
---@return string? message raw bytes as delivered (Postfix puts Return-Path, Delivered-To and Received on top)
---@return string? reason
function postfix.wait_for_message(maildir, wanted, timeout)
  local ends = os.time() + (timeout or 60)
  repeat
    local count = 0
    for name in child.output(("(ls -tr %s/new 2>/dev/null)"):format(maildir)):gmatch "[^\n]+" do
      count = count + 1
      local path = maildir .. "/new/" .. name
      if type(wanted) == "string" then
        local message = child.read(path)
        local header = message:match("^.-\r?\n\r?\n") or message
        if header:find(wanted, 1, true) then return message end
      elseif count == wanted then
        return child.read(path)
      end
    end
    os.execute "sleep 0.05"
  until os.time() > ends
  return nil, "not delivered in time: " .. tostring(wanted)
end

return postfix
