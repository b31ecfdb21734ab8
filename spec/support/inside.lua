-- inside: spec/transport_conformance.lua as a piece of Lua for hosts in which busted does not run. It gives a line for each
-- case, "ok" or "not ok", then what was wrong.
local child = require "spec.support.child"

local CODE = [[
rawset(_G, "arg", { [-1] = "env LUA_PATH='%s' LUA_CPATH='%s' %s" }) -- the interpreter of servers that a case starts
package.path = "%s/?.lua;" .. package.path .. ";/usr/share/lua/5.1/?.lua;/usr/share/lua/5.1/?/init.lua"
local setups, teardowns, cases, report = {}, {}, {}, {}
package.loaded.busted = {
  describe = function(_, body) body() end,
  setup = function(body) setups[#setups + 1] = body end,
  teardown = function(body) teardowns[#teardowns + 1] = body end,
  it = function(name, body) cases[#cases + 1] = { name, body } end,
}
local host = { run = function(run) return run() end, %s }
require "spec.transport_conformance"("the transport", %s, host)
for _, body in ipairs(setups) do body() end
for _, case in ipairs(cases) do
  local ok, why = pcall(case[2])
  report[#report + 1] = ok and "ok " .. case[1] or "not ok " .. case[1] .. ": " .. tostring(type(why) == "table" and why.message or why)
end
for _, body in ipairs(teardowns) do body() end
return table.concat(report, "\n")
]]

--- The piece of Lua.
---@param transport string an expression: the transport there
---@param host string fields of its host, see spec/support/loops.lua
return function(transport, host)
  local here = child.output "pwd":match "[^\n]+"
  return CODE:format(os.getenv "LUA_PATH", os.getenv "LUA_CPATH", child.interpreter, here, host, transport)
end
