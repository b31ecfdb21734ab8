-- floors BUILD: checks by machine what holds this house up: who may include or require whom, what C must never call,
-- how long a file may be, that each has a spec, and what the two shared objects of BUILD (build/lua5.4) export and link.
-- Prints each violation as `file:line: reason`; exits 1 if there is one.

local build = arg[1]
local violations = 0

local function violation(file, line, reason)
  violations = violations + 1
  print(("%s:%d: %s"):format(file, line, reason))
end

local function output_lines(command)
  local lines, pipe = {}, assert(io.popen(command))
  for line in pipe:lines() do
    lines[#lines + 1] = line
  end
  pipe:close()
  return lines
end

-- C: headers that belong to one room
local owned = {
  { "^openssl/", "csrc/tls" },
  { "^lua%.h$", "csrc/bind" },
  { "^lauxlib%.h$", "csrc/bind" },
  { "^lualib%.h$", "csrc/bind" },
  { "^sys/socket%.h$", "csrc/net" },
  { "^sys/un%.h$", "csrc/net" },
  { "^netdb%.h$", "csrc/net" },
  { "^netinet/", "csrc/net" },
}
local shared = {
  ["csrc/wire/status.h"] = true, ["csrc/wire/buf.h"] = true, ["csrc/wire/text.h"] = true, ["csrc/wire/library.h"] = true,
}
local calls = {}
for name in ("lua_call lua_callk lua_pcall lua_pcallk lua_yield lua_yieldk lua_resume"):gmatch("%S+") do
  calls[name] = true
end

local function check_c(file, number, line)
  local room = file:match("^csrc/[^/]+")
  local header = line:match("^%s*#%s*include%s*[<\"]([^>\"]+)")
  if header then
    for _, rule in ipairs(owned) do
      if header:find(rule[1]) and room ~= rule[2] then
        violation(file, number, ("<%s> belongs to %s only"):format(header, rule[2]))
      end
    end
  end
  local own = line:match("^%s*#%s*include%s*\"([^\"]+)\"")
  if own and room ~= "csrc/bind" then
    local path = file:match("^(.*/)") .. own
    path = path:gsub("[^/]+/%.%./", "")
    if path:match("^csrc/[^/]+") ~= room and not shared[path] then
      violation(file, number, ("%s knows only status, buf, text and library of other rooms (csrc/wire), not %s"):format(room, own))
    end
  end
  if file:find("%.h$") and line:find("^enum smtp_status [%w_]+%(") then
    violation(file, number, "a status that may be dropped: SMTP_MUST_USE")
  end
  for word in line:gmatch("[%w_]+") do
    if calls[word] then
      violation(file, number, word .. ": C never calls Lua")
    end
  end
end

-- Lua: the floor a module stands on
local floors = {
  { "^smtp%.core$", 1 },
  { "^smtp%.tls$", 1 },
  { "^smtp%.errors$", 2 },
  { "^smtp%.guess$", 2 },
  { "^smtp%.check$", 2 },
  { "^smtp%.built$", 2 },
  { "^smtp%.options$", 2 },
  { "^smtp%.plan$", 2 },
  { "^smtp%.types$", 2 }, -- for editors
  { "^smtp%.mail%.", 2 },
  { "^smtp%.protocol%.", 2 },
  { "^smtp%.client%.pump$", 3 },
  { "^smtp%.transport%.", 3 },
  { "^smtp%.client%.pool$", 5 },
  { "^smtp%.client%.verify$", 5 },
  { "^smtp%.client%.", 4 },
  { "^smtp%.server%.", 4 },
  { "^smtp$", 5 },
  { "^smtp%.pool$", 5 },
  { "^smtp%.task$", 5 },
  { "^smtp%.server$", 5 },
}
-- on floor 2 only these need digests and signatures
local digests = {
  ["smtp.protocol.sasl"] = true, ["smtp.protocol.scram"] = true, ["smtp.protocol.saslprep"] = true, ["smtp.mail.dkim"] = true,
}

local function floor_of(module)
  for _, rule in ipairs(floors) do
    if module:find(rule[1]) then
      return rule[2]
    end
  end
end

--- Why `from` may not require `to`; nil where it may.
local function refusal(from, to)
  local above, below = floor_of(from), floor_of(to)
  if not below then
    return ("%s has no floor: give it one in spec/support/floors.lua"):format(to)
  elseif below > above then
    return ("floor %d (%s) requires floor %d (%s)"):format(above, from, below, to)
  elseif from:find "^smtp%.client%." and to:find "^smtp%.server" or from:find "^smtp%.server" and to:find "^smtp%.client%." then
    return ("%s requires %s: client and server know nothing of each other"):format(from, to)
  elseif above == 2 and to == "smtp.tls" and not digests[from] then
    return ("%s requires smtp.tls: mail and protocol do no TLS"):format(from)
  elseif above == 3 and to ~= "smtp.errors" and to ~= "smtp.check" and below == 2 then
    return ("floor 3 (%s) requires %s: it knows bytes and deadlines, no mail"):format(from, to)
  end
end

local function check_lua(file, number, line, module)
  local code = line:gsub("%-%-.*", "")
  for required in code:gmatch("require[%s(,]*[\"'](smtp[%w_.]*)[\"']") do
    local reason = refusal(module, required)
    if reason then
      violation(file, number, reason)
    end
  end
end

-- Which spec a module or C file has: one of its name in the room of its own, or one that names it in its head:
-- `-- Of: client/send, client/command`
local shown = {}
for _, file in ipairs(output_lines("find spec -name '*_spec.lua'")) do
  shown[file:match("^spec/(.*)_spec%.lua$")] = true
  local inside = false
  for line in io.lines(file) do
    if not line:find("^%-%-") then
      break
    end
    inside = inside or line:find("^%-%- Of: ") ~= nil
    for name in (inside and line or ""):gmatch("[%w_/]+") do
      shown[name] = true
    end
  end
end

for _, file in ipairs(output_lines("find csrc lua -name '*.[ch]' -o -name '*.lua' | sort")) do
  local source = file:match("^lua/smtp/(.*)%.lua$") or file:match("^csrc/(.*)%.c$")
  if source and not shown[source] then
    violation(file, 1, ("no spec is of it: spec/%s_spec.lua, or one whose head says `-- Of: %s`"):format(source, source))
  end
  local module = file:match("^lua/(.*)%.lua$")
  module = module and module:gsub("/init$", ""):gsub("/", ".")
  if module and not floor_of(module) then
    violation(file, 1, module .. " has no floor: give it one in spec/support/floors.lua")
    module = nil
  end
  local number = 0
  for line in io.lines(file) do
    number = number + 1
    if module then
      check_lua(file, number, line, module)
    elseif file:find("^csrc/") then
      check_c(file, number, line)
    end
  end
  if number > 600 then
    violation(file, number, "over 600 lines: two ideas in one room")
  end
end

-- C: a function that other files see has a caller in one of them
local homes, called = {}, {}
for _, file in ipairs(output_lines("find csrc -name '*.c' | sort")) do
  for _, line in ipairs(output_lines(("nm %s/obj/%s.o 2>/dev/null"):format(build, file:match("^csrc/(.*)%.c$")))) do
    local kind, symbol = line:match("(%u) (smtp_[%w_]+)$")
    if kind == "T" then
      homes[symbol] = file
    elseif kind == "U" then
      called[symbol] = true
    end
  end
end
for symbol, file in pairs(homes) do
  if not called[symbol] then
    violation(file, 1, symbol .. " has no caller in another file: it is static, or gone")
  end
end

for _, name in ipairs({ "core", "tls" }) do
  local object = ("%s/smtp/%s.so"):format(build, name)
  local exported = output_lines("nm -D --defined-only " .. object)
  if #exported == 0 then
    violation(object, 1, "exports nothing: is it built?")
  end
  for _, symbol in ipairs(exported) do
    if not symbol:find(" luaopen_smtp_" .. name .. "$") then
      violation(object, 1, "exports " .. symbol:match("%S+$"))
    end
  end
  for _, line in ipairs(output_lines("readelf -d " .. object)) do
    local library = line:match("NEEDED.*%[(.*)%]")
    if library and name == "core" and (library:find("^libssl") or library:find("^libcrypto")) then
      violation(object, 1, "links " .. library)
    end
  end
end

os.exit(violations == 0)
