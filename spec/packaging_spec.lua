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

  local luas = { "lua5.1", "lua5.2", "lua5.3", "lua5.4", "luajit" }
  if run("command -v lua5.5") then luas[#luas + 1] = "lua5.5" end -- it is not everywhere yet
  for _, lua in ipairs(luas) do
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

  -- A folder with an OpenSSL of its own: this system's headers, and its libraries in lib64.
  local function openssl()
    local prefix = dir .. "/openssl"
    local libraries = succeed "ls -d /usr/lib/*/libssl.so /usr/lib*/libssl.so 2>/dev/null | head -1":match "^(.*)/"
    succeed(("mkdir -p %s/include %s/lib64 && ln -sfn /usr/include/openssl %s/include/openssl && ln -sf %s/libssl.so* %s/libcrypto.so* %s/lib64")
      :format(prefix, prefix, prefix, libraries, libraries, prefix))
    return prefix, libraries
  end

  local function runpath(library)
    return succeed("readelf -d " .. library):match "RU?N?PATH[^\n]*%[(.-)%]"
  end

  it("finds an OpenSSL elsewhere at run time, and says nothing of the system's", function()
    local prefix, system = openssl()
    local build = dir .. "/elsewhere"
    local make = ("cd %s && %s make -s CFLAGS=-O0 BUILD=%s "):format(root, clean, build)
    for _, case in ipairs {
      { "" }, { prefix .. "/lib64", prefix .. "/lib64" }, { system }, { prefix .. "/lib64/", prefix .. "/lib64" }, { "/usr/lib" }, { "" },
    } do
      succeed(make .. "OPENSSL_LIBDIR=" .. case[1])
      assert.are.equal(case[2], runpath(build .. "/smtp/tls.so"), case[1])
    end
    local luarocks, tree = clean .. "luarocks --lua-version 5.4 --tree ", dir .. "/elsewhere-rock"
    succeed(luarocks .. tree .. " make smtp-scm-1.rockspec OPENSSL_DIR=" .. prefix)
    assert.are.equal(prefix .. "/lib64", runpath(tree .. "/lib/lua/5.4/smtp/tls.so"))
    succeed(luarocks .. tree .. " make smtp-scm-1.rockspec")
    assert.is_nil(runpath(tree .. "/lib/lua/5.4/smtp/tls.so"))
  end)

  it("makes the rockspec of a version, which LuaRocks packs and installs from the repository", function()
    local repository, tag = dir .. "/smtp.git", dir .. "/smtp"
    local git = "git -c user.name=spec -c user.email=spec@example.org -C " .. tag
    succeed(("mkdir %s && cp -r Makefile smtp-scm-1.rockspec lua csrc %s && git init -q %s"):format(tag, tag, tag))
    succeed(("%s add . && %s commit -q -m v && %s tag v1.2.3 && git clone -q --bare %s %s"):format(git, git, git, tag, repository))
    succeed(("%s remote add origin %s && %s make -C %s rockspec VERSION=1.2.3"):format(git, repository, clean, tag))
    local rockspec = tag .. "/build/smtp-1.2.3-1.rockspec"
    local luarocks = clean .. "luarocks --lua-version 5.4 --only-server=file://" .. dir
    succeed(luarocks .. " lint " .. rockspec)
    succeed(("mkdir %s/pack && cd %s/pack && %s pack %s"):format(dir, dir, luarocks, rockspec))
    succeed(("%s --tree %s/packed install %s/pack/smtp-1.2.3-1.src.rock CFLAGS=-O0"):format(luarocks, dir, dir))
    succeed(("%s --tree %s/fetched install %s CFLAGS=-O0"):format(luarocks, dir, rockspec))
    loads_from("lua5.4", "5.4", dir .. "/packed")
    loads_from("lua5.4", "5.4", dir .. "/fetched")
  end)

  it("names in a rockspec only a place that everybody can fetch from, without secrets", function()
    local make = ("cp -r Makefile smtp-scm-1.rockspec %s && %s make -s -C %s rockspec "):format(dir, clean, dir)
    for given, url in pairs {
      ["git@example.org:lua/smtp.git"] = "git+https://example.org/lua/smtp.git",
      ["https://me:secret@example.org/smtp"] = "git+https://example.org/smtp",
      ["ssh://git@example.org:2222/smtp.git"] = "git+https://example.org/smtp.git", ["git+https://example.org/smtp.git"] = false,
      ["/srv/smtp.git"] = "git+file:///srv/smtp.git",
    } do
      succeed(make .. "VERSION=10.0.3 SOURCE_URL=" .. given)
      local text = succeed("cat " .. dir .. "/build/smtp-10.0.3-1.rockspec")
      assert.truthy(text:find(('url = "%s", tag = "v10.0.3",'):format(url or given), 1, true), text)
      assert.truthy(text:find('version = "10.0.3-1"', 1, true), text)
    end
    for _, wrong in ipairs { "", "VERSION=1.2", "VERSION=v1.2.3", "VERSION=01.2.3", "VERSION=1.2.3-1", "VERSION=1.2.3 SOURCE_URL=../smtp.git" } do
      local ok, words = run(make .. wrong)
      assert.is_false(ok, wrong)
      assert.truthy(words:find("make rockspec ", 1, true), words)
    end
  end)

  it("says that a Lua is not here, or its headers, before it does anything", function()
    local make = ("cd %s && %s make DESTDIR=%s/none "):format(root, clean, dir)
    for _, goal in ipairs { "", "all", "install", "uninstall", "check", "env", "demo", "bench", "-s -j2 install" } do
      local ok, words = run(make .. goal .. " LUA=lua5.9")
      assert.is_false(ok, goal)
      assert.truthy(words:find "^[^\n]*lua5.9 is no Lua that is installed here; LUA=... may be [^\n]*lua5.4[^\n]*$", words)
    end
    local ok, words = run(("cd %s && %s PKG_CONFIG_LIBDIR=%s make DESTDIR=%s/none install LUA=lua5.4"):format(root, clean, dir, dir))
    assert.is_false(ok)
    assert.truthy(words:find "^[^\n]*the headers of lua5.4 are not found: install liblua5.4%-dev [^\n]*LUA_INCDIR[^\n]*$", words)
    assert.is_false(run("ls " .. dir .. "/none"))
    succeed(make .. "-n help clean LUA=lua5.9")
  end)

  it("needs no Lua that runs where all is said, as by LuaRocks", function()
    succeed(("cd %s && %s make -n install LUA=lua5.9 LUA_INCDIR=/usr/include/lua5.4 INST_LUADIR=/x INST_LIBDIR=/y"):format(root, clean))
  end)

  it("installs with make install and removes every file with make uninstall", function()
    local make = clean .. "make -s LUA=lua5.4 PREFIX=/usr DESTDIR=" .. dir .. "/root "
    succeed("cd " .. root .. " && " .. make .. "install")
    loads_from("lua5.4", "5.4", dir .. "/root/usr")
    succeed(make .. "uninstall")
    assert.equal("", succeed("find " .. dir .. "/root -name '*smtp*'"))
  end)
end)
