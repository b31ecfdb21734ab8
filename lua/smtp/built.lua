--- built: the two modules in C, smtp.core and smtp.tls.
---
--- Does: makes a loader's words into what is wrong and what to do, where one cannot be loaded.
--- Called by: smtp, before all else.
local check = require "smtp.check"

local LUA = rawget(_G, "jit") and "luajit" or _VERSION:lower():gsub(" ", "")
local MAKE = "make LUA=" .. LUA

-- What the loaders of Linux, musl, the BSDs and macOS say, in lower case; the first that applies.
local CAUSES = {
  { "module '[^']*' not found", ("is not built, or not where this Lua looks for it: %s and make install LUA=%s, or "
    .. 'eval "$(make -s env LUA=%s)"'):format(MAKE, LUA, LUA) },
  { "libssl", "needs OpenSSL 3, libssl and libcrypto, which are not here: install them, or " .. MAKE },
  { "libcrypto", "needs OpenSSL 3, libssl and libcrypto, which are not here: install them, or " .. MAKE },
  { "openssl_%d", "is built for a newer OpenSSL than the one here: " .. MAKE },
  { "elf class", "is built for another kind of machine: " .. MAKE },
  { "elf header", "is built for another kind of machine, or damaged: " .. MAKE },
  { "exec format", "is built for another kind of machine: " .. MAKE },
  { "mach%-o", "is built for another kind of machine: " .. MAKE },
  { "file too short", "is damaged: " .. MAKE },
  { "glibc_%d", "is built for a newer system: " .. MAKE },
  { "%f[%w]_?luaL?_", "is built for another Lua: " .. MAKE },
  { "version mismatch", "is built for another Lua: " .. MAKE },
  { "numeric types", "is built for another Lua: " .. MAKE },
  { "multiple lua vms", "brings a Lua of its own: " .. MAKE },
  { "", "cannot be loaded; where it is built for another Lua: " .. MAKE },
}

local function words_of(name, reason)
  for i, cause in ipairs(CAUSES) do
    if reason:lower():find(cause[1]:lower()) then
      local last = reason:match("([^\n]*)%s*$"):match("^%s*(.*)$")
      return ("%s %s%s"):format(name, cause[2], i > 1 and " (" .. last .. ")" or "")
    end
  end
end

-- Lua 5.1 and LuaJIT remember that a module is under way by what is none, and know nothing better after a failure.
local function forget()
  for name, value in pairs(package.loaded) do
    if (name == "smtp" or name:find "^smtp%.") and type(value) ~= "table" then package.loaded[name] = nil end
  end
end

-- Loads a module the usual way.
local function bring(name)
  package.preload[name], package.loaded[name] = nil, nil
  local fine, module = pcall(require, name)
  if fine then return module end
  package.preload[name] = bring
  forget()
  check.raise(words_of(name, tostring(module)))
end

for _, name in ipairs { "smtp.core", "smtp.tls" } do
  package.preload[name] = package.preload[name] or bring
end
