-- What `require "smtp"` loads: in a script what nearly everybody needs, inside a host everything.
-- Of: init, built, pool
local child = require "spec.support.child"

-- What is loaded behind a chunk, with spaces around each.
local function loaded(chunk)
  local path = child.keep(chunk .. [[

    local names = {}
    for name in pairs(package.loaded) do names[#names + 1] = name end
    print(" " .. table.concat(names, " ") .. " ")]])
  local names = child.output(child.interpreter .. " " .. path)
  os.remove(path)
  assert.truthy(names:find(" smtp.client.session ", 1, true), names)
  return names
end

describe("require \"smtp\"", function()
  it("loads neither OpenSSL nor the tools until they are used", function()
    local names = loaded [[
      for name, value in pairs(require "smtp") do assert(name == "_VERSION" or type(value) == "function") end]]
    for _, name in ipairs { "tls", "transport.tls", "server", "server.connection", "client.verify", "client.pool", "client.send_many",
      "mail.dkim", "mail.preview", "transport.bell", "transport.proxy", "transport.together" } do
      assert.is_nil(names:find(" smtp." .. name .. " ", 1, true), name)
    end
    names = loaded [[assert(require "smtp".pool { host = "127.0.0.1", tls = "none" })]]
    assert.is_nil(names:find(" smtp.tls ", 1, true))
    assert.truthy(names:find(" smtp.client.pool ", 1, true))
  end)

  it("loads all but OpenSSL and the transports to choose from where a host may hide the files later", function()
    local names = loaded "arg = nil require 'smtp'"
    local shared = { bell = true, dial = true, fault = true, loop = true, proxy = true, socket = true, together = true }
    for file in child.output "find lua -name '*.lua'":gmatch "lua/([%w_/]+)%.lua" do
      local name = file:gsub("/init$", ""):gsub("/", ".")
      local transport = name:match "^smtp%.transport%.(.*)"
      if name ~= "smtp.types" and (not transport or shared[transport]) then
        assert.truthy(names:find(" " .. name .. " ", 1, true), name)
      end
    end
    assert.is_nil(names:find(" smtp.tls ", 1, true))
  end)
end)

describe("a module in C that cannot be loaded", function()
  local MAKE = "make LUA=" .. (jit and "luajit" or _VERSION:lower():gsub(" ", ""))

  -- What is printed where the loader says `reason` of smtp.core, or of smtp.tls once smtp is there; the second time, too.
  local function told(module, reason, call)
    local path = child.keep(([[
      local name = %q
      table.insert(package.loaders or package.searchers, 2, function(wanted)
        if wanted == name then error(%q, 0) end
      end)
      local function try() %s end
      for _ = 1, 2 do
        local fine, text = pcall(try)
        print(fine, (tostring(text):gsub("^" .. arg[0] .. ":%%d+: ", "here: ")))
      end]]):format(module, reason, call))
    local output = child.output(child.interpreter .. " " .. path)
    os.remove(path)
    return output
  end

  for reason, words in pairs {
    ["error loading module from file '/x.so':\n\t/x.so: undefined symbol: lua_newuserdatauv"] =
      "is built for another Lua: " .. MAKE .. " (/x.so: undefined symbol: lua_newuserdatauv)",
    ["/x.so: undefined symbol: luaL_setfuncs"] = "is built for another Lua: " .. MAKE .. " (/x.so: undefined symbol: luaL_setfuncs)",
    ["Error relocating /x.so: lua_rotate: symbol not found"] =
      "is built for another Lua: " .. MAKE .. " (Error relocating /x.so: lua_rotate: symbol not found)",
    ["version mismatch: app. needs 503, Lua core provides 502"] =
      "is built for another Lua: " .. MAKE .. " (version mismatch: app. needs 503, Lua core provides 502)",
    ["core and library have incompatible numeric types"] =
      "is built for another Lua: " .. MAKE .. " (core and library have incompatible numeric types)",
    ["/x.so: wrong ELF class: ELFCLASS32"] = "is built for another kind of machine: " .. MAKE .. " (/x.so: wrong ELF class: ELFCLASS32)",
    ["/x.so: file too short"] = "is damaged: " .. MAKE .. " (/x.so: file too short)",
    ["/lib/libc.so.6: version `GLIBC_2.38' not found (required by /x.so)"] =
      "is built for a newer system: " .. MAKE .. " (/lib/libc.so.6: version `GLIBC_2.38' not found (required by /x.so))",
    ["libssl.so.3: cannot open shared object file: No such file or directory"] = "needs OpenSSL 3, libssl and libcrypto, which "
      .. "are not here: install them, or " .. MAKE .. " (libssl.so.3: cannot open shared object file: No such file or directory)",
    ["whatever"] = "cannot be loaded; where it is built for another Lua: " .. MAKE .. " (whatever)",
  } do
    it("says what is wrong and what to do: " .. reason:match("[^\n]*$"), function()
      local line = "false\there: smtp.%s " .. words:gsub("%%", "%%%%") .. "\n"
      assert.are.equal(line:format("core"):rep(2), told("smtp.core", reason, 'require "smtp"'))
      assert.are.equal(line:format("tls"):rep(2), told("smtp.tls", reason, 'require "smtp".send { host = "x", from = "a@b.c", to = "a@b.c" }'))
    end)
  end

  it("says so where it is not built", function()
    local path = child.keep [[package.cpath = "/nowhere/?.so" print(pcall(require, "smtp"))]]
    local output = child.output(child.interpreter .. " " .. path)
    os.remove(path)
    local name = MAKE:match "=(.*)"
    assert.are.equal("false\t" .. path .. ":1: smtp.core is not built, or not where this Lua looks for it: " .. MAKE
      .. " and make install LUA=" .. name .. ', or eval "$(make -s env LUA=' .. name .. ')"\n', output)
  end)
end)

describe("the C core", function()
  it("asks for nothing of the library of mathematics, which not every host has loaded", function()
    local function symbols(what, file)
      local names = {}
      for line in child.output("env -u LD_PRELOAD nm -D " .. what .. " " .. file):gmatch "[^\n]+" do
        names[line:match "([%w_]+)[@%w_.]*$" or ""] = true
      end
      return names
    end
    local library = child.output "env -u LD_PRELOAD cc -print-file-name=libm.so.6":match "[^\n]+"
    local known = symbols("--defined-only", library)
    assert.is_true(known.fmod)
    for _, name in ipairs { "smtp/core", "smtp/tls" } do
      local wanted = symbols("--undefined-only", package.cpath:match "(build/[^?;]+)%?%.so" .. name .. ".so")
      assert.is_true(wanted.memcpy)
      for symbol in pairs(wanted) do assert.is_nil(known[symbol], symbol) end
    end
  end)
end)
