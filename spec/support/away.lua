--- away
-- away: a server in a process of its own (serve.lua), for clients that must not have it in theirs.
local child = require "spec.support.child"
local core = require "smtp.core"

local away = {}

local Away = {}
Away.__index = Away

--- Starts one. `mode`: "none", "starttls", "implicit", or a list of lines: a script that it plays to each client.
---@param mode string|string[]
---@param pause number? seconds between its steps, which makes it slow
---@return table server `host`, `port`, `certificate`; messages(), hold(), release(), stop()
function away.start(mode, pause)
  local path = os.tmpname()
  os.remove(path)
  os.execute("mkdir " .. path)
  io.open(path .. "/go", "w"):close()
  if type(mode) == "table" then
    local file = assert(io.open(path .. "/script", "w"))
    file:write(table.concat(mode, "\n"), "\n")
    file:close()
    mode = "script"
  end
  os.execute(("(ulimit -n $(ulimit -Hn); exec env ASAN_OPTIONS=detect_leaks=0 %s spec/support/serve.lua %s %s %g %s)"
    .. " >%s/log 2>&1 </dev/null &"):format(child.interpreter, path, mode, pause or 0, child.number(), path))
  local self = setmetatable({ path = path, host = "127.0.0.1" }, Away)
  local late = core.now() + 120
  repeat
    core.wait("read", -1, core.now() + 0.01)
    self.port = tonumber(child.read(path .. "/port"))
    if core.now() > late then error("the server does not start: " .. child.read(path .. "/log"), 2) end
  until self.port
  self.certificate = child.read(path .. "/certificate")
  return self
end

--- What arrived: lines of subject, octets and SHA-256.
function Away:messages()
  local lines = {}
  for line in child.read(self.path .. "/inbox"):gmatch("[^\n]+") do lines[#lines + 1] = line end
  return lines
end

--- Makes it rest: from its next step on it reads nothing and says nothing.
function Away:hold()
  child.write(self.path .. "/hold", "")
end

--- Lets it go on.
function Away:release()
  os.remove(self.path .. "/hold")
end

function Away:stop()
  os.execute("rm -rf " .. self.path)
end

return away
