-- nginx: a real nginx with its Lua module, under a directory of its own, that runs the Lua it is sent.
local child = require "spec.support.child"
local loopback = require "spec.support.loopback"

local nginx = {}

local Nginx = {}
Nginx.__index = Nginx

local MODULES = { "/usr/lib/nginx/modules/ndk_http_module.so", "/usr/lib/nginx/modules/ngx_http_lua_module.so" }

-- Each location runs the body of its request, a Lua chunk whose `smtp` is the library, in a phase, and gives what the
-- chunk returns, a line each. "kept" is what the log phase left behind.
local CONFIGURATION = [[
%smaster_process on;
daemon on;
worker_processes 1;
pid %s/pid;
error_log %s/error.log warn;
events { worker_connections 1024; }
http {
  lua_package_path "%s/lua/?.lua;%s/lua/?/init.lua;;";
  lua_package_cpath "%s/build/luajit/?.so;;";
  lua_shared_dict kept 1m;
  access_log off;
  keepalive_requests 100000;
  client_body_temp_path %s/body; proxy_temp_path %s/proxy; fastcgi_temp_path %s/fastcgi;
  uwsgi_temp_path %s/uwsgi; scgi_temp_path %s/scgi;
  init_by_lua_block {
    smtp = require "smtp"
    function run()
      ngx.req.read_body()
      local file = ngx.req.get_body_file()
      local code = file and assert(io.open(file)):read "*a" or ngx.req.get_body_data()
      return assert(loadstring(code))
    end
    function words(...)
      local list = { n = select("#", ...), ... }
      for i = 1, list.n do list[i] = tostring(list[i]) end
      return table.concat(list, "\n")
    end
  }
  server {
    listen 127.0.0.1:%d;
    client_max_body_size 16m;
    %s
    location /content { content_by_lua_block { ngx.say(words(run()())) } }
    location /access {
      access_by_lua_block { ngx.ctx.result = words(run()()) }
      content_by_lua_block { ngx.say(ngx.ctx.result) }
    }
    location /timer {
      content_by_lua_block {
        local code, result = run(), nil
        assert(ngx.timer.at(0, function() result = words(code()) end))
        while not result do ngx.sleep(0.01) end
        ngx.say(result)
      }
    }
    location /log {
      content_by_lua_block { ngx.ctx.code = run(); ngx.say "logged" }
      log_by_lua_block { ngx.shared.kept:set("log", words(ngx.ctx.code())) }
    }
    location /abort {
      lua_check_client_abort on;
      content_by_lua_block {
        assert(ngx.on_abort(function() ngx.exit(499) end))
        ngx.say(words(run()()))
      }
    }
  }
}
]]

-- Starts one with this configuration; `environment` and `prefix` go to its command line.
local function launch(self, configuration, environment, prefix)
  child.write(self.dir .. "/nginx.conf", configuration)
  local built = child.output "env -u LD_PRELOAD -u MAKEFLAGS -u MFLAGS make -s LUA=luajit"
  self.command = ("env -u LD_PRELOAD -u LUA_PATH -u LUA_CPATH %s nginx -p %s -c %s/nginx.conf"):format(environment, prefix, self.dir)
  local output = child.output(self.command .. " -e " .. self.dir .. "/error.log </dev/null")
  for _ = 1, 1200 do
    if child.read(self.dir .. "/pid") ~= "" then return self end
    os.execute "sleep 0.05"
  end
  output = built .. output .. self:log()
  os.execute("rm -rf " .. self.dir)
  return nil, "NO NGINX: " .. output
end

-- The worker may read a checkout that is root's own.
local function user()
  return child.output "id -u":match "%d+" == "0" and "user root;\n" or ""
end

local function new()
  return setmetatable({ dir = child.output "mktemp -d /tmp/smtp-nginx.XXXXXX":match "%S+", port = loopback.port() }, Nginx)
end

--- Starts one with one worker.
---@param directives string for its server block
---@return table|nil nginx `port`, `dir`
---@return string|nil reason why there is none here (for `pending`)
function nginx.start(directives)
  if child.output "command -v nginx" == "" then return nil, "NO NGINX: not installed" end
  local self = new()
  local here, dir, top = child.output "pwd":match "[^\n]+", self.dir, user()
  for _, module in ipairs(MODULES) do
    local file = io.open(module)
    if file then
      file:close()
      top = top .. "load_module " .. module .. ";\n"
    end
  end
  return launch(self, CONFIGURATION:format(top, dir, dir, here, here, here, dir, dir, dir, dir, dir, self.port, directives), "", dir)
end

--- Starts the example.
---@param trusted string a file of certificates
---@param environment string what is set for it
---@return table|nil nginx
---@return string|nil reason
function nginx.example(trusted, environment)
  local self = new()
  local configuration = child.read "examples/nginx/nginx.conf"
  for _, change in ipairs {
    { "daemon off", "daemon on" }, { "error_log stderr", "error_log " .. self.dir .. "/error.log" },
    { "/tmp/contact-form.pid", self.dir .. "/pid" }, { "/tmp/contact-form", self.dir .. "/temporary" },
    { "listen 127.0.0.1:8080", "listen 127.0.0.1:" .. self.port }, { "/etc/ssl/certs/ca-certificates.crt", trusted },
  } do
    local changed, count = configuration:gsub(change[1]:gsub("%p", "%%%0"), change[2])
    assert(count > 0, change[1])
    configuration = changed
  end
  return launch(self, user() .. configuration, environment, child.output "pwd":match "[^\n]+" .. "/examples/nginx")
end

--- Its error log so far.
function Nginx:log()
  return child.read(self.dir .. "/error.log")
end

--- The process that serves: the newest, where an older one has still to end.
function Nginx:worker()
  return child.output("pgrep -n -P " .. child.read(self.dir .. "/pid"):match "%d+"):match "%d+"
end

--- Has it read its configuration again: another worker takes over.
function Nginx:reload()
  child.output(self.command .. " -s reload")
end

--- A command that sends it a piece of Lua, and prints what that returns.
---@param phase string "content", "access", "timer", "log"
---@param code string `%q` and `%d` stand for what follows
---@return string command
function Nginx:request(phase, code, ...)
  self.count = (self.count or 0) + 1
  local path = ("%s/chunk%d"):format(self.dir, self.count)
  child.write(path, code:format(...))
  return ("curl -s -m 120 -H Expect: --data-binary @%s http://127.0.0.1:%d/%s"):format(path, self.port, phase)
end

--- What a piece of Lua returned there, a line each; a server of this process is stepped meanwhile.
---@param server table?
---@return string
function Nginx:run(server, phase, code, ...)
  local _, output = child.beside(self:request(phase, code, ...), server)
  return (output:gsub("\n$", ""))
end

--- Stops it and removes its directory.
function Nginx:stop()
  child.output(self.command .. " -s stop")
  for _ = 1, 1200 do
    if child.read(self.dir .. "/pid") == "" then break end
    os.execute "sleep 0.05"
  end
  os.execute("rm -rf " .. self.dir)
end

return nginx
