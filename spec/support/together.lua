-- together: one or more tasks and a server in one thread, each stepped in turn until every task is done.
local core = require "smtp.core"
local smtp = require "smtp"

local together = {}

local function pack(...)
  return { n = select("#", ...), ... }
end

--- The results of each task as a table with `n`, in order. Raises what a task raised, and where a connection of the server
--- had a fault; raises too once `limit` seconds are over.
---@param runs function[] what each task runs
---@param server table? smtp.server, or nothing
---@param limit number? after which something hangs, default 60
---@return table ...
function together.all(runs, server, limit)
  local tasks, results, stop, left = {}, {}, core.now() + (limit or 60), #runs
  for i, run in ipairs(runs) do tasks[i] = smtp.task(run) end
  while left > 0 do
    for i, task in ipairs(tasks) do
      if not results[i] then
        local got = pack(task:step())
        if got[1] == "done" then
          results[i] = { n = got.n - 1 }
          for k = 2, got.n do results[i][k - 1] = got[k] end
          left = left - 1
        end
      end
    end
    if left > 0 and core.now() > stop then error("the tasks took longer than they may", 2) end
    if server then server:step(0.002) else core.poll({}, {}, core.now() + 0.002) end
  end
  if server and server.failure then error(server.failure, 2) end
  return results
end

--- One task's results.
---@param run function
---@param server table?
---@param limit number?
function together.run(run, server, limit)
  local got = together.all({ run }, server, limit)[1]
  return got[1], got[2], got[3]
end

return together
