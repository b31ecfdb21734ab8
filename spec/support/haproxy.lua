-- haproxy: a real HAProxy, under a directory of its own, that runs the Lua it is sent.
local child = require "spec.support.child"
local core = require "smtp.core"
local loopback = require "spec.support.loopback"

local haproxy = {}

local Haproxy = {}
Haproxy.__index = Haproxy

local CONFIGURATION = [[
global
  nbthread 2
  %s
  lua-prepend-path "%s/build/%s/?.so" cpath
  lua-prepend-path "%s/lua/?/init.lua"
  lua-prepend-path "%s/lua/?.lua"
  lua-load "%s/service.lua"
defaults
  mode http
  timeout connect 5s
  timeout client 120s
  timeout server 120s
frontend all
  bind 127.0.0.1:%d
  http-request use-service lua.run
]]

-- The body of a request is a Lua chunk whose `smtp` is the library; in a service, or in a task for the path "/task". What
-- it returns is given, a line each.
local SERVICE = [[
local now = require "smtp.core".now
smtp = require "smtp"
transport = require "smtp.transport.haproxy"
local function words(...)
  local list = { n = select("#", ...), ... }
  for i = 1, list.n do list[i] = tostring(list[i]) end
  return table.concat(list, "\n")
end
while_loading = words(smtp.send { transport = transport, host = "127.0.0.1", port = 1, from = "ada@example.org",
  to = "grace@example.org", text = "" })
core.register_service("run", "http", function(applet)
  local code, result = assert(load(applet:receive())), nil
  if applet.path == "/task" then
    core.register_task(function() result = words(code()) end)
    local late = now() + 120
    while not result and now() < late do core.msleep(5) end
  else
    result = words(code())
  end
  applet:set_status(200)
  applet:start_response()
  applet:send(result or "nothing came of it")
end)
]]

--- Starts one.
---@param directive string? for its global section; "%s" stands for its directory
---@return table|nil haproxy `port`, `dir`
---@return string|nil reason why there is none here (for `pending`)
function haproxy.start(directive)
  if child.output "command -v haproxy" == "" then return nil, "NO HAPROXY (spec/support/install.sh test installs haproxy)" end
  local version = child.output "haproxy -vv":match "Built with Lua version *: *Lua (%d%.%d)"
  if not version then return nil, "NO HAPROXY with a Lua in it" end
  local lua = "lua" .. version
  local self = setmetatable({ dir = child.output "mktemp -d /tmp/smtp-haproxy.XXXXXX":match "%S+", port = loopback.port() }, Haproxy)
  local here = child.output "pwd":match "[^\n]+"
  child.write(self.dir .. "/service.lua", SERVICE)
  child.write(self.dir .. "/haproxy.cfg", CONFIGURATION:format((directive or ""):format(self.dir), here, lua, here, here, self.dir, self.port))
  local output = child.output("env -u LD_PRELOAD -u MAKEFLAGS -u MFLAGS make -s LUA=" .. lua)
    .. child.output(("env -u LD_PRELOAD -u LUA_PATH -u LUA_CPATH haproxy -D -p %s/pid -f %s/haproxy.cfg </dev/null >%s/log 2>&1")
      :format(self.dir, self.dir, self.dir))
  self.pid = child.read(self.dir .. "/pid"):match "%d+"
  if self.pid then return self end
  output = output .. child.read(self.dir .. "/log")
  os.execute("rm -rf " .. self.dir)
  return nil, "NO HAPROXY: " .. output
end

--- A command that sends it a piece of Lua, and prints what that returns.
---@param where string "service" or "task"
---@param code string `%q` and `%d` stand for what follows
---@return string command
function Haproxy:request(where, code, ...)
  self.count = (self.count or 0) + 1
  local path = ("%s/chunk%d"):format(self.dir, self.count)
  child.write(path, code:format(...))
  return ("curl -s -m 120 -H Expect: --data-binary @%s http://127.0.0.1:%d/%s"):format(path, self.port, where)
end

--- What a piece of Lua returned there, a line each.
---@return string
function Haproxy:run(where, code, ...)
  return (child.output(self:request(where, code, ...)):gsub("\n$", ""))
end

--- Stops it and removes its directory.
function Haproxy:stop()
  os.execute("kill -KILL " .. self.pid)
  local late = core.now() + 60
  while os.execute(("kill -0 %s 2>/dev/null"):format(self.pid)) == true and core.now() < late do os.execute "sleep 0.02" end
  os.execute("rm -rf " .. self.dir)
end

return haproxy
