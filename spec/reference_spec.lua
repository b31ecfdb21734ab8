-- The reference and the types say all there is, and what they say of defaults is so.
-- Of: types
local child = require "spec.support.child"
local docs = require "spec.support.docs"
local memory = require "smtp.transport.memory"
local play = require "spec.support.play"
local plans = require "smtp.plan"
local shown = require "spec.support.shown"
local smtp = require "smtp"

-- Methods that are public for other rooms of the house alone.
local INSIDE = { ["Session:open"] = true, ["Session:reopen"] = true, ["Message:form"] = true, ["Message:again"] = true }

local by_name, by_class = {}, {}
for _, chapter in ipairs(shown) do
  for _, entry in ipairs(chapter.functions or {}) do by_name[entry[1]] = true end
end

local _, _, tables = docs.read()
for _, one in ipairs(tables) do by_class[one.class] = one end

describe("The reference", function()
  it("shows every function", function()
    for name, value in pairs(smtp) do
      if type(value) == "function" then assert.truthy(by_name["smtp." .. name], name) end
    end
  end)

  it("shows every method", function()
    local server = assert(smtp.server {})
    server:close()
    for class, object in pairs {
      Session = play.session {}, Pool = assert(smtp.pool { host = "x", transport = memory.new {} }), Task = smtp.task(print),
      Message = assert(smtp.message { from = "ada@example.org", to = "bob@example.test", text = "x" }), Server = server,
    } do
      for name, value in pairs(getmetatable(object)) do
        local method = class .. ":" .. name
        if type(value) == "function" and not name:find "^__" and not INSIDE[method] then assert.truthy(by_name[method], method) end
      end
    end
  end)

  -- What a field's comment says is its default, where that is a value.
  local function defaults(class)
    local values = {}
    for _, field in ipairs(by_class[class].fields) do
      local text = field.default or ""
      local value = tonumber(text) or text:match '^"([^"]*)"$'
      if value == nil and (text == "true" or text == "false") then value = text == "true" end
      if value ~= nil then values[field.name] = value end
    end
    assert.truthy(next(values))
    return values
  end

  local function hold(values, object)
    for name, value in pairs(values) do assert.are.equal(value, object[name], name) end
  end

  it("tells the defaults of a server's options", function()
    local plan = assert(plans.new({ host = "mail.example.org" }, "smtp.connect"))
    local values = defaults "smtp.ServerOptions"
    assert.are.same({ "auto", "auto" }, { values.transport, values.pipeline })
    values.transport, values.pipeline = nil, true
    hold(values, plan)
    hold(defaults "smtp.TimeoutOptions", plan.timeouts)
  end)

  it("tells how many connections a pool has by default", function()
    assert.are.equal(defaults "smtp.PoolOptions".size, assert(smtp.pool { host = "x", transport = memory.new {} }):counts().limit)
  end)

  it("tells the defaults of the receiving side", function()
    local values = defaults "smtp.ReceiverOptions"
    local server = assert(smtp.server {})
    assert.are.same({ 0, "none" }, { values.port, values.tls })
    values.port, values.tls = nil, nil
    hold(values, server)
    server:close()
  end)
end)

describe("The types for editors", function()
  local types = child.read "lua/smtp/types.lua"

  it("are Lua", function()
    assert((loadstring or load)(types))
  end)

  it("are all said there", function()
    local known = {}
    for name in types:gmatch "%-%-%-@class (smtp[%w_.]*)" do known[name] = true end
    for line in types:gmatch "%-%-%-@(%a+ [^\n]+)" do
      local kind = line:gsub("^%a+ [%w_.]+%?? ", "")
      for name in docs.take_type(line:find "^return" and line:sub(8) or kind):gmatch "smtp%.%u%w*" do
        assert.truthy(known[name], name)
      end
    end
  end)
end)
