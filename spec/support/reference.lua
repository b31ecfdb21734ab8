-- reference FOLDER: writes the reference, FOLDER/README.md, and the types for lua-language-server, FOLDER/smtp/types.lua,
-- both made of what the sources say (docs.lua) in the order of shown.lua. `make reference` writes them into lua/,
-- `make lint` elsewhere, to compare. Fails where something that is shown has no words.
package.path = "./lua/?.lua;./?.lua;" .. package.path
local docs = require "spec.support.docs"
local shown = require "spec.support.shown"

local folder = assert(arg[1], "usage: reference.lua FOLDER")
local functions, classes, tables = docs.read()

local function anchor(name)
  return (name:lower():gsub("[^%w_ -]", ""):gsub(" ", "-"))
end

local options, anchors = {}, {} -- in the order shown; class -> where it stands in the reference
for i, class in ipairs(shown.options) do
  for _, one in ipairs(tables) do
    if one.class == class then options[i] = one end
  end
  anchors[class] = anchor(class)
end
if #options ~= #tables then error("not every table of options is shown", 0) end
anchors["smtp.SendOptions"] = anchor "smtp.SendOptions"
for _, chapter in ipairs(shown) do
  for _, class in ipairs(chapter.classes or {}) do anchors[class] = anchor(class) end
  if chapter.class then anchors[chapter.class] = anchor(chapter.title) end
end

local function said(name)
  local doc = functions[name] or error(name .. " is shown and has no docstring", 0)
  -- where a module has the name of what it is given
  for _, param in ipairs(doc.params) do param.name = param.name == "given" and "options" or param.name end
  local words = table.concat(doc.words, " ")
  if not (words:find "[Yy]ield" or words:find " waits" or words:find "[Bb]locks" or words:find "Waits") then
    error(name .. " is shown and does not say whether it may yield", 0)
  end
  return doc
end

-- The fields of a class; of an object those that are shown, for the others are its own.
local function fields_of(class, names)
  local doc, list = classes[class] or error(class .. " is shown and is no class", 0), {}
  if not names then return doc.fields, doc end
  for name in names:gmatch "%S+" do
    for _, field in ipairs(doc.fields) do
      if field.name == name then list[#list + 1] = field end
    end
    if not list[1] or list[#list].name ~= name then error(("%s.%s is shown and has no words"):format(class, name), 0) end
  end
  return list, doc
end

local out
local function write(text, ...) out[#out + 1] = select("#", ...) > 0 and text:format(...) or text end

local function save(path)
  local file = assert(io.open(path, "wb"))
  file:write(table.concat(out, "\n"), "\n")
  file:close()
end

-- The reference -------------------------------------------------------------------------------------------------------

-- Words as Markdown has them: what stands between backticks as it is.
local function markdown(words, in_table)
  local text = (words .. "``"):gsub("([^`]*)(`[^`]*`)", function(plain, code)
    return plain:gsub("<", "&lt;"):gsub("%*", "\\*") .. code
  end):gsub("``$", "")
  return in_table and text:gsub("|", "\\|") or text
end

-- A type, each part of a union by itself, with links to the tables there are here.
local function type_of(kind, optional)
  local list = {}
  for _, part in ipairs(docs.parts(kind)) do
    local class, many = part:match "^(smtp%.%a+)(.*)$"
    local text = "`" .. part:gsub("|", "\\|") .. "`"
    if class and anchors[class] then
      text = ("%s[%s](#%s)"):format(many == "[]" and "a list of " or "", class, anchors[class])
    end
    list[#list + 1] = text
  end
  if optional then list[#list + 1] = "nil" end
  local last = table.remove(list)
  return list[1] and table.concat(list, ", ") .. " or " .. last or last
end

local function sentence(words)
  if words == "" then return "" end
  return ": " .. markdown(words)
end

local function signature(name, doc)
  local params, returns = "", {}
  for i, param in ipairs(doc.params) do
    local text = (i > 1 and ", " or "") .. param.name
    params = params .. (param.optional and (" [%s]"):format(text) or text)
  end
  for i, one in ipairs(doc.returns) do
    if one.type ~= "nil" and not (i > 1 and one.name == doc.returns[1].name) then
      returns[#returns + 1] = one.name or one.type == "true|nil" and "true" or one.type:gsub("|nil$", ""):gsub("%?$", "")
    end
  end
  if returns[2] == "err" then returns = { returns[1] .. " | nil, err" } end
  return ("%s(%s)%s"):format(name, params:gsub("^ ", ""), returns[1] and " -> " .. table.concat(returns, ", ") or "")
end

local function write_function(entry, variable)
  local doc = said(entry[1])
  local name = entry.shown or entry[1]:gsub("^%u%a*:", variable .. ":")
  write("### %s\n", name)
  write("    %s\n", signature(name, doc))
  for _, paragraph in ipairs(doc.words) do write("%s\n", markdown(paragraph)) end
  local list = {}
  for _, param in ipairs(doc.params) do
    list[#list + 1] = ("- `%s`, %s%s"):format(param.name, type_of(param.type, param.optional), sentence(param.words))
  end
  for i, one in ipairs(doc.returns) do
    if one.type ~= "nil" and not (i > 1 and one.name == doc.returns[1].name) then
      local bare = one.type:match "^([^|]*)%?$" or one.type:match "^([^|]*)|nil$" or one.type
      list[#list + 1] = ("- returns %s%s%s"):format(one.name and "`" .. one.name .. "`, " or "",
        type_of(bare, bare ~= one.type), sentence(one.words))
    end
  end
  if list[1] then write("%s\n", table.concat(list, "\n")) end
  write("```lua\n%s\n```\n", entry[2])
end

local function write_options(one)
  write("### %s\n\n%s%s\n", one.class, one.parent and ("And those of [%s](#%s). "):format(one.parent, anchor(one.parent)) or "",
    markdown(one.words))
  if not one.fields then return end
  write "| option | type | default | |\n|---|---|---|---|"
  for _, field in ipairs(one.fields) do
    write("| `%s` | %s%s | %s | %s%s |", field.name, type_of(field.type), field.unit and ", " .. field.unit or "",
      markdown(field.default or "", true), markdown(field.words, true),
      field.since and (" Since %s."):format(field.since) or "")
  end
  write ""
end

local function write_class(class, names, heading, example)
  local fields, doc = fields_of(class, names)
  if heading then write("### %s\n", class) end
  for _, paragraph in ipairs(doc.words) do write("%s\n", markdown(paragraph)) end
  if fields[1] then
    write "| field | type | |\n|---|---|---|"
    for _, field in ipairs(fields) do
      write("| `%s` | %s | %s |", field.name, type_of(field.type, field.optional), markdown(field.words, true))
    end
    write ""
  end
  if example then write("```lua\n%s\n```\n", example) end
end

local function write_reference()
  out = {}
  write [[
# Reference

<!-- Made by `make reference` of the docstrings, smtp/options.lua and spec/support/shown.lua: change those. -->

Every public function, method and table of smtp; [README](../README.md) tells the story. Times are in seconds, sizes in
octets, texts in UTF-8. A mistake in the program raises, with the line of the call; what can go wrong at run time returns
nil and an [error](#smtperror). What may yield does so where its transport does. All since 0.1.0, where nothing else is said.
For an editor with lua-language-server the same stands in [smtp/types.lua](smtp/types.lua).
]]
  for _, chapter in ipairs(shown) do
    local names = {}
    for _, entry in ipairs(chapter.functions or {}) do
      local name = entry.shown or entry[1]:gsub("^%u%a*:", chapter.variable and chapter.variable .. ":" or "")
      names[#names + 1] = ("[%s](#%s)"):format(name:gsub("^smtp%.(%l)", "%1"):gsub("^%a+:", ""), anchor(name))
    end
    for _, class in ipairs(chapter.classes or {}) do
      names[#names + 1] = ("[%s](#%s)"):format(class:gsub("^smtp%.", ""), anchor(class))
    end
    if chapter.options then
      for _, one in ipairs(options) do
        names[#names + 1] = ("[%s](#%s)"):format(one.class:gsub("^smtp%.", ""):gsub("Options$", ""), anchor(one.class))
      end
    end
    write("- [%s](#%s): %s", chapter.title, anchor(chapter.title), table.concat(names, " · "))
  end
  write ""
  for _, chapter in ipairs(shown) do
    write("## %s\n", chapter.title)
    if chapter.words then write("%s\n", chapter.words) end
    if chapter.class then write_class(chapter.class, chapter.fields) end
    for _, entry in ipairs(chapter.functions or {}) do write_function(entry, chapter.variable) end
    for _, class in ipairs(chapter.classes or {}) do write_class(class, nil, true, chapter.example) end
    if chapter.options then
      write_options { class = "smtp.SendOptions", words = "For smtp.send: all of "
        .. "[smtp.ServerOptions](#smtpserveroptions) and of [smtp.MessageOptions](#smtpmessageoptions), side by side." }
      for _, one in ipairs(options) do write_options(one) end
    end
  end
  out[#out] = out[#out]:gsub("\n$", "")
  save(folder .. "/README.md")
end

-- The types -----------------------------------------------------------------------------------------------------------

local function write_wrapped(words)
  local line = "---"
  for word in words:gmatch "%S+" do
    if #line + #word > 119 then
      write(line)
      line = "---"
    end
    line = line .. " " .. word
  end
  if line ~= "---" then write(line) end
end

local function write_field(field)
  local needed = field.default and field.default == "required"
  local words = field.words or ""
  local more = { field.unit }
  if field.default and not needed then
    more[#more + 1] = (field.default:find "required" and "%s" or "default: %s"):format(field.default)
  end
  if more[1] then words = ("%s (%s)"):format(words, table.concat(more, "; ")) end
  local optional = field.optional
  if optional == nil then optional = not needed end
  write("---@field %s%s %s %s", field.name, optional and "?" or "", field.type, words)
  out[#out] = out[#out]:gsub("  +", " "):gsub(" +$", "")
end

local function write_class_type(class, names)
  local fields, doc = fields_of(class, names)
  for _, paragraph in ipairs(doc.words) do write_wrapped(paragraph) end
  write("---@class %s", class)
  for _, field in ipairs(fields) do write_field(field) end
  if doc.more then write(doc.more) end
end

local function write_stub(name, doc)
  for _, paragraph in ipairs(doc.words) do write_wrapped(paragraph) end
  local params = {}
  for i, param in ipairs(doc.params) do
    params[i] = param.name
    write("---@param %s%s %s %s", param.name, param.optional and "?" or "", param.type, param.words)
    out[#out] = out[#out]:gsub(" +$", "")
  end
  for _, one in ipairs(doc.returns) do
    write("---@return %s %s %s", one.type, one.name or "", one.words)
    out[#out] = out[#out]:gsub("  +", " "):gsub(" +$", "")
  end
  write("function %s(%s) end\n", name, table.concat(params, ", "))
end

local function write_types()
  out = {}
  write [[
---@meta smtp
-- The types of smtp, for lua-language-server; no program loads this. Made by `make reference` of the docstrings and
-- smtp/options.lua: change those.
-- luacheck: ignore
]]
  for _, one in ipairs(options) do
    write_wrapped(one.words)
    write("---@class %s%s", one.class, one.parent and ": " .. one.parent or "")
    for _, field in ipairs(one.fields) do write_field(field) end
    write ""
  end
  write "--- For smtp.send: both side by side.\n---@class smtp.SendOptions: smtp.ServerOptions, smtp.MessageOptions\n"
  for _, chapter in ipairs(shown) do
    for _, class in ipairs(chapter.classes or {}) do
      write_class_type(class)
      write ""
    end
    if chapter.class then
      write_class_type(chapter.class, chapter.fields)
      write("local %s = {}\n", chapter.class:match "%a+$")
      for _, entry in ipairs(chapter.functions) do write_stub(entry[1], said(entry[1])) end
    end
  end
  write "---@class smtp\n---@field _VERSION string\nlocal smtp = {}\n"
  for _, entry in ipairs(shown[1].functions) do write_stub(entry[1], said(entry[1])) end
  write "return smtp"
  save(folder .. "/smtp/types.lua")
end

write_reference()
write_types()
