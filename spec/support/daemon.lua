-- daemon: starts and stops a real server by the script that spec/support has for it (see daemon.sh).
local child = require "spec.support.child"

-- a sanitizer preloaded for the specs is not meant for the servers; to a file and not a pipe, which they would keep open
local COMMAND = "env -u LD_PRELOAD bash spec/support/%s.sh %s %s %s >%s.log 2>&1 </dev/null"

---@param name string the script's
---@return { start: function, stop: function }
return function(name)
  local daemon, dir, running = {}, nil, nil

  --- Starts it under a directory of its own, once: a second call returns the one that runs.
  ---@param argument any? of the script's
  ---@return table? server what the script says, by names in small letters: `port`, `ca_file` …; and `dir`
  ---@return string? reason why there is none here (for `pending`)
  function daemon.start(argument)
    if running then return running end
    dir = os.tmpname()
    os.remove(dir)
    local status = os.execute(COMMAND:format(name, "start", dir, argument or "", dir))
    local output, server = child.read(dir .. ".log"), { dir = dir }
    for key, value in output:gmatch "([%u_]+)=([^\n]+)" do server[key:lower()] = tonumber(value) or value end
    if status == true or status == 0 then
      running = server
      return server
    end
    daemon.stop()
    return nil, ("NO %s: %s"):format(name:upper(), output)
  end

  --- Stops what start() started and removes its directory.
  function daemon.stop()
    if not dir then return end
    os.execute(COMMAND:format(name, "stop", dir, "", dir))
    os.execute(("rm -rf %s %s.log"):format(dir, dir))
    dir, running = nil, nil
  end

  return daemon
end
