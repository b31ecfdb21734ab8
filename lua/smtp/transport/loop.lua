--- loop: what the transports do alike with the loop of their host.
---
--- Does: calls functions in the host's coroutines until all have returned; closes what the host may watch.
--- Called by: the transports.
local loop = {}

--- Closes a socket, look-up or poller.
---@param one userdata
---@param forget? fun(fd: integer) the host's
function loop.shut(one, forget)
  if forget then
    -- it raises where this is called by a finalizer, and the object's own was before it
    local open, fd = pcall(one.fd, one)
    if open and fd >= 0 then forget(fd) end
  end
  one:close()
end

--- Calls functions side by side until each has returned, then raises what the first that failed had raised. May yield.
---@param runs function[]
---@param begin fun(run: function, ended: fun(reason: any)) calls one in a coroutine of the host; `ended` at its end
---@param rest fun() waits until the last has ended, or comes back sooner
---@param wake? fun() the last has ended, perhaps before anybody waits for it
function loop.all(runs, begin, rest, wake)
  local left, failure = #runs, nil
  local function ended(reason)
    left, failure = left - 1, failure or reason
    if left == 0 and wake then wake() end
  end
  for _, run in ipairs(runs) do begin(run, ended) end
  while left > 0 do rest() end
  if failure then error(failure, 0) end
end

--- Calls one of them, where the host's coroutines may wait inside a pcall.
---@param run function
---@param ended fun(reason: any)
function loop.guard(run, ended)
  local ok, reason = pcall(run)
  ended(not ok and reason or nil)
end

return loop
