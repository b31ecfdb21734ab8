-- The rock and `make install` put everything where `require` finds it, for every Lua, without a network.

local function run(command)
  local pipe = assert(io.popen("(" .. command .. ") 2>&1; echo \"status $?\""))
  local output, status = pipe:read("*a"):match("^(.-)%s*status (%d+)%s*$")
  pipe:close()
  return status == "0", output
end

local function succeed(command)
  local ok, output = run(command)
  assert(ok, command .. "\n" .. output)
  return output
end

-- prints where the door came from, and the files mapped into the process for the C modules
local probe = [[
  local smtp = require "smtp"
  require "smtp.tls"
  print(debug.getinfo(smtp.send, "S").source)
  for line in io.lines("/proc/self/maps") do
    local object = line:match("%S+/smtp/%w+%.so$")
    if object then print(object) end
  end
]]

describe("packaging #real", function()
  local root, dir, clean

  setup(function()
    root = succeed("pwd")
    dir = succeed("mktemp -d")
    -- nothing of this checkout's environment, of a make above or of the user's own rocks
    clean = "env -u LUA_PATH -u LUA_CPATH -u LD_PRELOAD -u MAKEFLAGS -u MAKELEVEL HOME=" .. dir .. " "
    local file = assert(io.open(dir .. "/probe.lua", "w"))
    file:write(probe)
    file:close()
  end)

  teardown(function()
    os.execute("rm -rf '" .. dir .. "'")
  end)

  local function loads_from(lua, version, tree)
    local share, lib = tree .. "/share/lua/" .. version, tree .. "/lib/lua/" .. version
    local output = succeed(("cd / && %s LUA_PATH='%s/?.lua;%s/?/init.lua' LUA_CPATH='%s/?.so' %s %s/probe.lua"):format(
      clean, share, share, lib, lua, dir))
    assert.truthy(output:find("@" .. share .. "/smtp/", 1, true), output)
    assert.truthy(output:find(lib .. "/smtp/core.so", 1, true), output)
    assert.truthy(output:find(lib .. "/smtp/tls.so", 1, true), output)
  end

  it("has a rockspec that luarocks finds no fault with", function()
    succeed(clean .. "luarocks lint smtp-scm-1.rockspec")
  end)

  for _, lua in ipairs({ "lua5.1", "lua5.2", "lua5.3", "lua5.4", "luajit" }) do
    it("makes, packs and installs a rock for " .. lua, function()
      if not (run("command -v luarocks") and run("command -v " .. lua)) then
        return pending(lua .. " or luarocks is not installed")
      end
      local version = lua:match("%d.*") or "5.1"
      local luarocks = clean .. "luarocks --lua-version " .. version
      local made, installed = dir .. "/made-" .. lua, dir .. "/installed-" .. lua
      local headers = lua == "luajit" and " LUA_INCDIR=$(pkg-config --variable=includedir luajit)" or ""
      succeed(luarocks .. " --tree " .. made .. " make smtp-scm-1.rockspec" .. headers)
      succeed(("mkdir %s.rock && cd %s.rock && %s --tree %s pack smtp"):format(made, made, luarocks, made))
      succeed(("%s --tree %s install --only-server=file://%s %s.rock/*.rock"):format(luarocks, installed, dir, made))
      succeed("rm -rf " .. made)
      loads_from(lua, version, installed)
    end)
  end

  it("installs with make install and removes every file with make uninstall", function()
    local make = clean .. "make -s LUA=lua5.4 PREFIX=/usr DESTDIR=" .. dir .. "/root "
    succeed("cd " .. root .. " && " .. make .. "install")
    loads_from("lua5.4", "5.4", dir .. "/root/usr")
    succeed(make .. "uninstall")
    assert.equal("", succeed("find " .. dir .. "/root -name '*smtp*'"))
  end)
end)
