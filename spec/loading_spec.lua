-- What `require "smtp"` loads: in a script what nearly everybody needs, inside a host everything.
local child = require "spec.support.child"

-- What is loaded behind a chunk, with spaces around each.
local function loaded(chunk)
  local path = child.keep(chunk .. [[

    local names = {}
    for name in pairs(package.loaded) do names[#names + 1] = name end
    print(" " .. table.concat(names, " ") .. " ")]])
  local names = child.output(child.interpreter .. " " .. path)
  os.remove(path)
  assert.truthy(names:find(" smtp.session ", 1, true), names)
  return names
end

describe("require \"smtp\"", function()
  it("loads neither OpenSSL nor the tools until they are used", function()
    local names = loaded [[
      for name, value in pairs(require "smtp") do assert(name == "_VERSION" or type(value) == "function") end]]
    for _, name in ipairs { "tls", "transport.tls", "server", "dialogue", "verify", "pool", "batch", "mail.dkim", "mail.preview",
      "transport.proxy" } do
      assert.is_nil(names:find(" smtp." .. name .. " ", 1, true), name)
    end
    names = loaded [[assert(require "smtp".pool { host = "127.0.0.1", tls = "none" })]]
    assert.is_nil(names:find(" smtp.tls ", 1, true))
    assert.truthy(names:find(" smtp.pool ", 1, true))
  end)

  it("loads all but OpenSSL and the transports to choose from where a host may hide the files later", function()
    local names = loaded "arg = nil require 'smtp'"
    for file in child.output "find lua -name '*.lua'":gmatch "lua/([%w_/]+)%.lua" do
      local name = file:gsub("/init$", ""):gsub("/", ".")
      if not name:find "^smtp%.transport%." or name == "smtp.transport.proxy" then
        assert.truthy(names:find(" " .. name .. " ", 1, true), name)
      end
    end
    assert.is_nil(names:find(" smtp.tls ", 1, true))
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
