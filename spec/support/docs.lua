-- docs: what the sources say of themselves: the words and types of functions and classes (their docstrings), and the
-- options (the table in smtp/options.lua, and the comments in it). reference.lua makes the reference and the types of it.
local docs = {}

local function fail(file, number, reason)
  error(("%s:%d: %s"):format(file, number, reason), 0)
end

local function lines_of(file)
  local lines = {}
  for line in io.lines(file) do lines[#lines + 1] = line end
  return lines
end

-- The type that a text begins with, and the rest: "fun(a: b): c? words" has the blanks that belong to it.
local function take_type(text)
  local depth, at, is_function = 0, 1, text:find "^%(?fun%("
  while at <= #text do
    local c = text:sub(at, at)
    if c:find "[%(%[{<]" then depth = depth + 1 end
    if c:find "[%)%]}>]" then depth = depth - 1 end
    if c == '"' then at = text:find('"', at + 1, true) or at end
    local goes_on = is_function and text:sub(at - 1, at - 1):find "[:,]"
    if c == " " and depth == 0 and not goes_on then break end
    at = at + 1
  end
  return text:sub(1, at - 1), (text:sub(at + 1))
end
docs.take_type = take_type

local function joined(words)
  return (table.concat(words, " "):gsub("^ +", ""))
end

-- A docstring: { words =, params = { {name=, optional=, type=, words=} }, returns = { {type=, name=, words=} }, class=,
-- fields= }.
local function docstring(lines)
  local doc, tags = { words = {}, params = {}, returns = {}, fields = {} }, {}
  local open = doc.words
  for _, line in ipairs(lines) do
    local tag, rest = line:match "^%-%-%-@(%a+)%s*(.*)$"
    if tag then
      open = { tag = tag, rest }
      tags[#tags + 1] = open
    else
      open[#open + 1] = line:match "^%-%-%- ?(.*)$"
    end
  end
  for _, one in ipairs(tags) do
    local rest = joined(one)
    if one.tag == "param" or one.tag == "field" then
      local name, optional, after = rest:match "^([%w_.]+)(%??)%s+(.*)$"
      local kind, words = take_type(after)
      -- "?" and "|nil" behind the type say what one behind the name says, but behind that of a function's result
      local bare = kind:match "^(.*)|nil$" or kind:match "^nil|(.*)$" or kind:match "^%((.*)%)%?$"
        or not kind:find "^fun" and kind:match "^(.*)%?$" or kind:match "^(fun%b())%?$"
      table.insert(doc[one.tag .. "s"], { name = name, optional = bare ~= nil or optional == "?", type = bare or kind,
        words = words })
    elseif one.tag == "return" then
      local kind, words = take_type(rest)
      local name, after = words:match "^([%a_]+)%s*(.*)$"
      if not name then name, after = words:match "^(%.%.%.)%s*(.*)$" end
      table.insert(doc.returns, { type = kind, name = name, words = after or words })
    elseif one.tag == "class" then
      local words
      doc.class, words = rest:match "^([%w_.]+)%s*(.*)$"
      doc.words[#doc.words + 1] = words:gsub("^: [%w_.%[%]]+%s*", "")
    elseif one.tag == "overload" or one.tag == "operator" then
      doc.more = ("---@%s %s"):format(one.tag, rest)
    end
  end
  local text, paragraphs = table.concat(doc.words, "\n"), {}
  for paragraph in (text .. "\n\n"):gmatch "(.-)\n\n+" do
    local is_code = paragraph:find "^    "
    if not is_code and paragraph ~= "" then paragraphs[#paragraphs + 1] = joined { (paragraph:gsub("\n", " ")) } end
  end
  doc.words = paragraphs
  return doc
end

-- All that one file says: functions by "smtp.send" and "Session:connect", classes by "smtp.Session".
local function read_source(file, functions, classes)
  local block = {}
  for _, line in ipairs(lines_of(file)) do
    if line:find "^%-%-%-" then
      block[#block + 1] = line
    else
      local owner, sign, name = line:match "^function (%a[%w_]*)([.:])([%w_]+)%("
      if not owner then owner, name = line:match "^(%u%w*)%.([%w_]+) = " end
      if block[1] then
        local doc = docstring(block)
        doc.file = file
        if doc.class then classes[doc.class] = doc end
        if owner and not doc.class then functions[owner .. (sign or ":") .. name] = doc end
      end
      block = {}
    end
  end
end

-- A comment behind a field: `type (unit) = default since version`, each of them where there is something to say.
local function read_tag(tag)
  local field = {}
  local rest, since = tag:match "^(.-)%s*since ([%d.]+)$"
  if since then tag, field.since = rest, since end
  local before, default = tag:match "^(.-)%s*= (.*)$"
  if default then tag, field.default = before, default end
  local kind, unit = tag:match "^(.-) ?%((%a[%a ]*)%)$"
  if unit then tag, field.unit = kind, unit end
  if tag ~= "" then field.type = tag end
  return field
end

-- The parts of a union.
function docs.parts(kind)
  local parts, depth, part = {}, 0, ""
  for c in kind:gmatch "." do
    if c:find "[%(%[{<]" then depth = depth + 1 elseif c:find "[%)%]}>]" then depth = depth - 1 end
    if c == "|" and depth == 0 then parts[#parts + 1], part = part, "" else part = part .. c end
  end
  parts[#parts + 1] = part
  return parts
end

-- Which Lua types a type in words has, with blanks between.
local function lua_types(kind)
  local set, list = {}, {}
  for _, part in ipairs(docs.parts(kind)) do
    local name = part:find '^"' and "string" or part:find "^fun" and "function" or part:find "%[%]$" and "table"
      or part:find "^table" and "table" or part == "integer" and "number" or part:find "^smtp%." and "table" or part
    set[name] = true
  end
  for name in pairs(set) do list[#list + 1] = name end
  table.sort(list)
  return table.concat(list, " ")
end

local function sorted_words(words)
  local list = {}
  for word in words:match("^[^:]*"):gmatch "%a+" do list[#list + 1] = word end
  table.sort(list)
  return table.concat(list, " ")
end

-- The tables of options, in order: { class=, parent=, words=, fields = { {name=, type=, unit=, default=, words=} } }.
local function read_options(file)
  local truth, tables = require "smtp.options", {}
  local block, open = {}, nil
  for number, line in ipairs(lines_of(file)) do
    local opens, name, value, tag = line:match "^options%.(%u[%u_]*) = {$", line:match "^  ([%a_]+) = (.-)%s*%-%- (.*)$"
    if not name then name, value = line:match "^  ([%a_]+) = (.*)$" end
    if line:find "^%s*%-%-%- " then
      block[#block + 1] = line:match "^%s*%-%-%- (.*)$"
    elseif opens then
      local class, parent, words = joined(block):match "^(smtp%.%a+) ?%(?a?n?d? ?([%a.]*)%)?: (.*)$"
      if not class then fail(file, number, "a table of options has no words") end
      open = { class = class, parent = parent ~= "" and parent or nil, words = words, fields = {}, truth = truth[opens] }
      tables[#tables + 1], block = open, {}
    elseif line:find "^}" then
      open, block = nil, {}
    elseif open and name and not value:find "^options%.LOGIN%." then
      local field = read_tag(tag or "")
      local fact = open.truth[name]
      local types = sorted_words(type(fact) == "table" and fact[1] or fact)
      field.name, field.words = name, joined(block)
      field.type = field.type or types
      if lua_types(field.type) ~= types then
        fail(file, number, ("%s is said to be a %s, and may be a %s"):format(name, field.type, types))
      end
      open.fields[#open.fields + 1], block = field, {}
    elseif not open then
      block = {}
    end
  end
  for _, one in ipairs(tables) do
    local count = 0
    for name in pairs(one.truth) do
      if not (one.parent and require "smtp.options".LOGIN[name]) then count = count + 1 end
    end
    if count ~= #one.fields then error(one.class .. ": not every field begins a line of its own", 0) end
  end
  return tables
end

-- A field without words is what its table is.
local function fill_in(tables)
  local first = {}
  for _, one in ipairs(tables) do first[one.class] = (one.words .. " "):match "^(.-%.) " end
  for _, one in ipairs(tables) do
    for _, field in ipairs(one.fields) do
      local class = field.type:match "smtp%.%a+"
      if field.words == "" and class ~= "smtp.Mailbox" then field.words = first[class] or "" end
    end
  end
  return tables
end

--- All that the sources say.
---@return table<string, table> functions
---@return table<string, table> classes
---@return table[] options
function docs.read()
  local functions, classes, files = {}, {}, {}
  local pipe = assert(io.popen "find lua/smtp -name '*.lua' | LC_ALL=C sort")
  for file in pipe:lines() do files[#files + 1] = file end
  pipe:close()
  for _, file in ipairs(files) do
    if file ~= "lua/smtp/types.lua" then read_source(file, functions, classes) end
  end
  return functions, classes, fill_in(read_options "lua/smtp/options.lua")
end

return docs
