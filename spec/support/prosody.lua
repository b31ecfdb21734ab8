-- prosody: a real Prosody, under a directory of its own, that runs the Lua it is sent, or a spec file.
local child = require "spec.support.child"
local core = require "smtp.core"
local loopback = require "spec.support.loopback"
local tls = require "smtp.tls"

local prosody = {}

local Prosody = {}
Prosody.__index = Prosody

local CONFIGURATION = [[
run_as_root = true
pidfile = "DIR/pid"
data_path = "DIR"
plugin_paths = { "DIR", "HERE/examples/prosody" }
log = { info = "DIR/log" }
interfaces = { "127.0.0.1" }
c2s_ports = { CLIENTS }; http_ports = { HTTP }; https_ports = { HTTPS }
http_default_host = "localhost"
ssl = { certificate = "DIR/certificate", key = "DIR/key" }
c2s_require_encryption = false
allow_registration = true
modules_disabled = { "s2s" }
VirtualHost "localhost"
  modules_enabled = { "register_ibr", "mail_registrations", "run" }
]]

-- The body of a request is a Lua chunk whose `smtp` is the library; what it returns is given, a line each. Where a file of
-- specs is named in SPEC, busted runs it here.
local MODULE = [[
local async, smtp, transport = require "util.async", require "smtp", require "smtp.transport.prosody"

local function words(...)
  local list = { n = select("#", ...), ... }
  for i = 1, list.n do list[i] = tostring(list[i]) end
  return table.concat(list, "\n")
end

module:depends "http"
module:provides("http", { default_path = "/", route = { POST = function(event)
  local environment = setmetatable({ smtp = smtp, transport = transport, module = module }, { __index = _G })
  return words(assert(load(event.request.body, "=request", "t", environment))())
end } })

local spec = os.getenv "SPEC"
if spec then
  module:hook_global("server-started", function()
    prosody.unlock_globals()
    require "lfs".chdir(os.getenv "HERE")
    arg[1], arg[2] = "--output=plainTerminal", spec
    async.runner(function()
      require "busted.runner" { standalone = false }
      prosody.shutdown()
    end):run(true)
  end)
end
]]

-- Prepares a directory for one; gives it, and the command that runs it.
local function prepare(settings)
  if child.output "command -v prosody" == "" then return nil, "NO PROSODY (spec/support/install.sh test installs prosody)" end
  local dir, here = child.output "mktemp -d /tmp/smtp-prosody.XXXXXX":match "%S+", child.output "pwd":match "[^\n]+"
  local self = setmetatable({ dir = dir }, Prosody)
  for _, name in ipairs { "c2s", "http", "https" } do self[name] = loopback.port() end
  local certificate, key = tls.mint { "localhost" }
  child.write(dir .. "/certificate", certificate)
  child.write(dir .. "/key", key)
  child.write(dir .. "/mod_run.lua", MODULE)
  child.write(dir .. "/prosody.cfg.lua", ((settings or "") .. "\n" .. CONFIGURATION):gsub("%u%u%u+",
    { DIR = dir, HERE = here, CLIENTS = self.c2s, HTTP = self.http, HTTPS = self.https }))
  -- the Lua it runs on is the system's
  local built = child.output "env -u LD_PRELOAD -u MAKEFLAGS -u MFLAGS make -s LUA=lua5.4"
  return self, ([[cd %s; unset LD_PRELOAD; eval "$(make -s env LUA=lua5.4)"; ulimit -n $(ulimit -Hn); export HERE=%s
    exec timeout 900 lua5.4 "$(command -v prosody)" -F --config %s/prosody.cfg.lua </dev/null]]):format(here, here, dir), built
end

--- What busted prints that runs a file of specs inside Prosody.
---@param spec string
---@param settings string? more of its configuration, global
---@return string? output
---@return string? reason why there is none here (for `pending`)
function prosody.busted(spec, settings)
  local self, command = prepare(settings)
  if not self then return nil, command end
  local output = child.output(("(export SPEC=%s; %s)"):format(spec, command))
  output = output .. child.read(self.dir .. "/log")
  os.execute("rm -rf " .. self.dir)
  return output
end

--- Starts one.
---@param settings string? more of its configuration, global
---@return table? prosody `dir`, `pid` and the ports `c2s`, `http`, `https`
---@return string? reason why there is none here (for `pending`)
function prosody.start(settings)
  local self, command, built = prepare(settings)
  if not self then return nil, command end
  os.execute(("(%s) >%s/output 2>&1 &"):format(command, self.dir))
  local late = core.now() + 120
  repeat
    core.wait("read", -1, core.now() + 0.02)
    self.pid = child.read(self.dir .. "/pid"):match "%d+"
    if self.pid and self:run "return 'here'" == "here" then return self end
  until core.now() > late
  local output = built .. child.read(self.dir .. "/output") .. self:log()
  if self.pid then self:stop() end
  return nil, "NO PROSODY: " .. output
end

--- A command that sends it a piece of Lua by https, and prints what that returns.
---@param code string `%q` and `%d` stand for what follows
---@return string command
function Prosody:request(code, ...)
  self.count = (self.count or 0) + 1
  local path = ("%s/chunk%d"):format(self.dir, self.count)
  child.write(path, code:format(...))
  return ("curl -sS -m 120 --cacert %s/certificate -H Expect: --data-binary @%s https://localhost:%d/")
    :format(self.dir, path, self.https)
end

--- What a piece of Lua returned there, a line each.
---@return string
function Prosody:run(code, ...)
  return (child.output(self:request(code, ...)):gsub("\n$", ""))
end

function Prosody:log()
  return child.read(self.dir .. "/log")
end

--- Asks it to end.
---@return boolean ended in time
function Prosody:finish()
  os.execute(("kill %s 2>/dev/null"):format(self.pid))
  self:run "prosody.main_thread:run(function() end)" -- by select, Prosody 13 hears of a signal when that thread runs next
  local late = core.now() + 60
  local runs
  repeat
    core.wait("read", -1, core.now() + 0.02)
    runs = child.read(("/proc/%s/stat"):format(self.pid)):match "%) [^Z]"
  until not runs or core.now() > late
  return not runs
end

--- Stops it and removes its directory.
function Prosody:stop()
  if not self:finish() then os.execute("kill -KILL " .. self.pid) end
  os.execute("rm -rf " .. self.dir)
end

return prosody
