-- smtp_server: starts and stops npm's smtp-server (smtp_server.js).
local child = require "spec.support.child"

local smtp_server = {}

local start = "bash spec/support/pki.sh %s/pki >%s/log 2>&1 && "
  .. "{ env -u LD_PRELOAD NODE_PATH=build/npm/node_modules node spec/support/smtp_server.js %s >%s/port 2>%s/log </dev/null & "
  .. "echo $! >%s/pid; }"
local dir

--- Starts it with a directory of its own.
---@return table|nil server `port`, `ca_file`, `dir`: where the messages lie, as 1, 2 …
---@return string|nil reason why there is none here (for `pending`)
function smtp_server.start()
  dir = os.tmpname()
  os.remove(dir)
  os.execute("mkdir " .. dir)
  os.execute((start:gsub("%%s", dir)))
  for _ = 1, 600 do
    local port = child.read(dir .. "/port"):match("^(%d+)\n")
    if port then
      return { port = tonumber(port), ca_file = dir .. "/pki/ca.pem", dir = dir }
    elseif child.read(dir .. "/log"):find("Error", 1, true) then
      break
    end
    os.execute("sleep 0.1")
  end
  local output = child.read(dir .. "/log")
  smtp_server.stop()
  return nil, "NO SMTP-SERVER (spec/support/install.sh test installs it): " .. output
end

--- Stops what start() started and removes its directory.
function smtp_server.stop()
  if dir then
    local pid = child.read(dir .. "/pid"):match("%d+")
    if pid then os.execute("kill " .. pid .. " 2>/dev/null") end
    os.execute("rm -rf " .. dir)
    dir = nil
  end
end

return smtp_server
