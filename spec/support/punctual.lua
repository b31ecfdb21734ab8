-- punctual: what ends by its deadline, on the machine's clock.
local core = require "smtp.core"

local LATE = 0.05   -- seconds it may run past its deadline
local PATIENCE = 60 -- seconds for a machine that has other things to do

--- The results of `run`, called again until it ends on time for once. Raises where it ever ends too early, or never on time.
---@param seconds number
---@param run fun(deadline: number): ... that many seconds from now
---@return table results
return function(seconds, run)
  local stop = core.now() + PATIENCE
  while true do
    local began = core.now()
    local results = { run(began + seconds) }
    local took = core.now() - began
    if took < seconds - 0.001 then error(("ended after %.4f s instead of %.4f"):format(took, seconds), 2) end
    if took < seconds + LATE then return results end
    if core.now() > stop then error(("took %.3f s instead of %.3f, again and again"):format(took, seconds), 2) end
  end
end
