-- exim: starts and stops the specs' private Exim (exim.sh).
local child = require "spec.support.child"

local exim = {}

-- a sanitizer preloaded for the specs is not meant for the servers
local command = "env -u LD_PRELOAD bash spec/support/exim.sh %s %s >%s.log 2>&1 </dev/null"
local dir

--- Starts Exim under a directory of its own.
---@return table|nil server `port`, `ca_file`, `maildir`
---@return string|nil reason why there is none here (for `pending`)
function exim.start()
  dir = os.tmpname()
  os.remove(dir)
  os.execute(command:format("start", dir, dir))
  local output = child.read(dir .. ".log")
  local server = {}
  for key, value in output:gmatch("([%u_]+)=([^\n]+)") do
    server[key:lower()] = tonumber(value) or value
  end
  if server.maildir then
    return server
  end
  exim.stop()
  return nil, "NO EXIM: " .. output
end

--- Stops what start() started and removes its directory.
function exim.stop()
  if dir then
    os.execute(command:format("stop", dir, dir))
    os.execute("rm -rf " .. dir .. " " .. dir .. ".log")
    dir = nil
  end
end

return exim
