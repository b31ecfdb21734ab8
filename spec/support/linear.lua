-- linear: whether twice the text is twice the work.
local steps = require "spec.support.steps"

local LIMIT = 20    -- seconds of the processor
local STEPS = 10000 -- which do not count: there may be one more block of a fixed size

--- Raises where it is more. Lua's work is counted in its instructions. What C does inside one of them is not seen: so
--- the whole has to end, which it would only after a long time.
---@param run fun(given: any)
---@param make fun(count: integer): any what to run with; of about a quarter of a million octets for `count`
---@param count integer
---@param what any? to tell which it was
return function(run, make, count, what)
  local once, twice = make(math.floor(count / 16)), make(math.floor(count / 8))
  local single, double = steps(run, once), steps(run, twice)
  if double > 2.1 * single + STEPS then error(("%s: %d steps, then %d"):format(tostring(what), single, double), 2) end
  local whole = make(count)
  local began = os.clock()
  run(whole)
  if os.clock() - began > LIMIT then error(("%s: it hardly ends"):format(tostring(what)), 2) end
end
