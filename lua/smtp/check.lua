--- check: what a user writes in a table: its names, the types of its values, and the tables in it, however deep.
---
--- Does: raises what is wrong with a program, at the line of its call, and says what is right.
--- Never: judges a value; loads smtp.guess before somebody is wrong.
--- Called by: options, and whoever takes an argument or makes a class.
local check = {}

-- "string table" -> which types those are. Behind a colon there may be words: what is to be written. A field that may
-- be a table is a list of these types and of what looks into it.
local TYPES = setmetatable({}, { __index = function(sets, field)
  local set = {}
  for word in (field[1] or field):match("^[^:]*"):gmatch("%a+") do set[word] = true end
  sets[field] = set
  return set
end })

-- "@…/smtp/", how the sources of this library begin.
local getinfo = debug and debug.getinfo
local HOME = getinfo and getinfo(1, "S").source:match("^(@.*)check%.lua$")

--- Raises what is wrong with a program, with the place in it: where it calls this library.
---@param text string
function check.raise(text)
  local level = HOME and 2 or 0
  local one = HOME and getinfo(level, "S")
  -- a tail call leaves no frame, and a frame in C, as of a pcall, has no line
  while one and (one.source:sub(1, #HOME) == HOME or one.what == "tail" or one.what == "C") do
    level = level + 1
    one = getinfo(level, "S")
  end
  error(text, one and level or 0)
end

local raise = check.raise

--- Makes a class's methods say so where they are called without an object of it: by a dot.
---@param class table
---@param name string what such an object is called
function check.methods(class, name)
  for method, call in pairs(class) do
    if type(call) == "function" and not method:find("^__") then
      class[method] = function(self, ...)
        if getmetatable(self) ~= class then
          raise(("%s:%s: is a method: write %s:%s(…), with a colon"):format(name, method, name, method))
        end
        return call(self, ...)
      end
    end
  end
end

--- Makes a module's functions say so where they are called by a colon.
---@param module table
---@param name string
function check.functions(module, name)
  for field, call in pairs(module) do
    if type(call) == "function" then
      module[field] = function(given, ...)
        if rawequal(given, module) then
          raise(("%s.%s: is a function: write %s.%s(…), with a dot"):format(name, field, name, field))
        end
        return call(given, ...)
      end
    end
  end
end

local function shown(key)
  return tostring(key):sub(1, 40)
end

local function check_type(value, field, label, what)
  if not TYPES[field][type(value)] then
    local names, right = (field[1] or field):match("^([^:]*)(.*)$")
    raise(("%s: %s must be a %s, not %s%s"):format(label, what, names:gsub(" ", " or "),
      value == nil and "nil" or "a " .. type(value), right))
  end
end

--- Refuses an argument of a wrong type.
---@param types string
---@param label string the call's name
---@param name string its own
function check.argument(value, types, label, name)
  check_type(value, types, label, name)
end

--- Refuses a function where other libraries take one that is told the result: it would never be called.
---@param extra any what stands behind the arguments
---@param label string the call's name
function check.callback(extra, label)
  if type(extra) == "function" then
    raise(label .. ": takes no callback: it returns the receipt, or nil and the error")
  end
end

local CLASSES = 16 -- that one inherits from another

-- Whether a class's table has what could be taken for a value: an item, a text, a number, or one of the names looked
-- for. Its methods, and what else belongs to it, are none.
local function has_values(class, known)
  for key, value in next, class do
    local kind, private = type(value), type(key) == "string" and key:find("^_")
    local data = not private and (kind == "string" or kind == "number" or kind == "boolean")
    if data or type(key) == "number" or known and known[key] then return true end
  end
  return false
end

--- What is wrong with a table to which a metatable may add what nobody has looked at; an object of a class holds itself
--- what it says.
---@param value any
---@param known table? the names looked for
---@return string? reason
function check.flaw(value, known)
  local meta = nil
  if type(value) == "table" then meta = getmetatable(value) end
  local plain = type(meta) ~= "table" or rawget(meta, "__pairs") == nil and rawget(meta, "__len") == nil
  for _ = 1, CLASSES do
    if meta == nil and plain then return nil end
    local class = type(meta) == "table" and rawget(meta, "__index")
    if class == nil and plain then return nil end
    plain = plain and type(class) == "table" and not has_values(class, known)
    if not plain then break end
    meta = getmetatable(class)
  end
  return "must hold itself what it says, not have it from a metatable"
end

--- Refuses such a table.
---@param value any
---@param label string
---@param known table?
function check.plain(value, label, known)
  local reason = check.flaw(value, known)
  if reason then raise(label .. ": " .. reason) end
end

--- Refuses what lacks a function.
---@param value any an object that a caller made
---@param names string[] of the functions
---@param what string words in front
function check.object(value, names, what)
  local able = type(value) == "table" or type(value) == "userdata"
  for _, name in ipairs(names) do
    if not able or type(value[name]) ~= "function" then raise(("%s with a function %q"):format(what, name)) end
  end
end

-- What may be meant. Who has given up the root directory, and has not loaded that before, gets no guess.
local function advice(name, known, value)
  local fine, guess = pcall(require, "smtp.guess")
  return fine and guess.advice(name, known, value) or ""
end

--- Refuses unknown names, telling what may be meant, wrong types, and what is wrong in the tables in it. Of the table
--- itself: not of its metatable.
---@param given table
---@param known table[] one or two tables of fields, as in smtp.options
---@param label string the call's name, for the message
function check.options(given, known, label)
  if type(given) ~= "table" then raise(("%s: expected a table of options, got %s"):format(label, type(given))) end
  local one, other = known[1], known[2] or known[1]
  for name, value in next, given do
    local field, kind = one[name] or other[name], type(value)
    if not field then raise(("%s: unknown option %q%s"):format(label, shown(name), advice(name, known, value))) end
    if not TYPES[field][kind] then check_type(value, field, label, ("option %q"):format(name)) end
    if kind == "table" and type(field) == "table" then field[2](value, label .. ": " .. name) end
  end
end

-- Each of these gives a function(value, label) for a value that is a table already.

--- A table with names of its own.
---@param fields table<string, string|table> as in smtp.options
function check.record(fields)
  local known = { fields }
  return function(value, label)
    check.plain(value, label, fields)
    check.options(value, known, label)
  end
end

--- A list: the keys from 1 to n, and nothing else.
---@param types string of its items
---@param each fun(value: table, label: string)? looks into those that are tables
function check.list(types, each)
  return function(value, label)
    check.plain(value, label)
    local count = 0
    for _ in next, value do count = count + 1 end
    for key in next, value do
      if not (type(key) == "number" and key >= 1 and key <= count and key % 1 == 0) then
        raise(("%s: a list has the keys 1 to n and nothing else, not %q%s"):format(label, shown(key),
          types:match(":.*$") or ""))
      end
    end
    for i = 1, count do
      check_type(value[i], types, label, "item " .. i)
      if each and type(value[i]) == "table" then each(value[i], ("%s[%d]"):format(label, i)) end
    end
  end
end

--- Any names, and values of these types.
---@param types string
function check.map(types)
  return function(value, label)
    check.plain(value, label)
    for key, item in next, value do
      if type(key) ~= "string" then raise(("%s: %q is not a name"):format(label, shown(key))) end
      check_type(item, types, label, ("%q"):format(shown(key)))
    end
  end
end

--- A table with names, or a list.
---@param named fun(value: table, label: string)
---@param listed fun(value: table, label: string)
function check.either(named, listed)
  return function(value, label)
    local is_named = type(next(value)) == "string" and value[1] == nil
    return (is_named and named or listed)(value, label)
  end
end

return check
