-- The state of a connection: one module writes it, and each of its fields stands in the constructor.
local state = require "smtp.client.state"

-- The modules whose `self` is a session.
local SESSIONS = { "bdat", "burst", "command", "connect", "content", "envelope", "login", "send", "session" }

local function source(name)
  local file = assert(io.open("lua/smtp/client/" .. name .. ".lua"))
  local text = file:read("*a")
  file:close()
  return (text:gsub("%-%-[^\n]*", ""))
end

describe("a session's field", function()
  local listed = {}
  for name in source("state"):match("local function unconnected.-\nend"):gmatch("self%.([%a_][%w_]*) =") do
    listed[name] = true
  end
  for name in source("state"):match("unconnected {\n.-\n  }"):gmatch("\n    ([%a_][%w_]*) =") do listed[name] = true end

  it("is written by state alone", function()
    for _, name in ipairs(SESSIONS) do
      for line in source(name):gmatch("[^\n]+") do
        local statement = line:gsub("^.* then ", ""):gsub("^.* else ", "")
        local left = statement:match("^([%w_., ]*self%.[%w_., ]*) = ") -- several, too
        assert.is_true(left == nil or left:find("^%s*self%.notes%.") ~= nil, name .. ": " .. line)
      end
    end
  end)

  it("is written by state alone where the session goes by its name, too", function()
    for _, name in ipairs { "send_many", "shortcut", "pool", "turns", "workers", "verify" } do
      for line in source(name):gmatch("[^\n]+") do
        assert.is_nil(line:find("session%.[%w_]+[%w_., ]* = "), name .. ": " .. line)
      end
    end
  end)

  it("stands in the constructor", function()
    assert.is_true(listed.at and listed.transaction and listed.plan)
    local methods = {}
    for name in source("session"):gmatch("function Session:([%a_]+)") do methods[name] = true end
    for _, name in ipairs(SESSIONS) do
      for field in source(name):gmatch("self%.([%a_][%w_]*)") do
        assert.is_true(listed[field] or methods[field] or field == "__index", name .. ": self." .. field)
      end
    end
  end)

  it("is there from the beginning, one connection's as it was before the first", function()
    local self = state.new({ tls = "none", transport = {} })
    local names = {}
    for name, value in pairs(self) do names[name] = type(value) == "table" and "table" or value end
    self.state, self.at, self.transaction, self.mails, self.pump = "dead", "content", true, 3, {}
    state.unconnected(self)
    for name, value in pairs(self) do
      assert.are.equal(names[name], type(value) == "table" and "table" or value, name)
    end
  end)
end)

describe("what may come next", function()
  local function at(place)
    return { at = place, pump = { wire = { expected = function() return 0 end } } }
  end
  local function may(self)
    local words = {}
    for _, what in ipairs { "verb", "line", "goodbye" } do
      if state.may(self, what) then words[#words + 1] = what end
    end
    return table.concat(words, " ")
  end

  it("is anything between two commands", function()
    assert.are.equal("verb line goodbye", may(at "command"))
  end)

  it("is the next line alone behind a 3xx reply to a line, and nothing where something was broken off halfway", function()
    assert.are.equal("line", may(at "answer"))
    for _, place in ipairs { "handshake", "login", "content", "burst" } do assert.are.equal("", may(at(place))) end
  end)

  it("is a goodbye alone while a reply is owed, but where it is a login's that goes along with the envelope", function()
    local self = at "command"
    function self.pump.wire.expected() return 1 end
    assert.are.equal("goodbye", may(self))
    self.prelude = function() end
    assert.are.equal("verb line goodbye", may(self))
  end)
end)
