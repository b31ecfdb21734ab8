local play = require "spec.support.play"
local smtp = require "smtp"

local KEY = [[
-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g
-----END PRIVATE KEY-----
]]

local path

setup(function()
  path = os.tmpname()
  local file = assert(io.open(path, "wb"))
  file:write(KEY)
  file:close()
end)

teardown(function() os.remove(path) end)

local function letter(changes)
  local given = { from = "ada@example.org", to = "bob@example.org", text = "Hi\n" }
  for name, value in pairs(changes) do given[name] = value end
  return given
end

local function signature(more)
  local given = { domain = "example.org", selector = "a" }
  for name, value in pairs(more) do given[name] = value end
  return given
end

describe("files = false", function()
  local function cases()
    return {
      ["attachments[1]: path: "] = { attachments = { { path = path } } },
      ["attachments[2]: path: "] = { attachments = { { data = "a" }, { path = path, filename = "x" } } },
      ["attachments[1]: path:"] = { attachments = { { path = "/does/not/exist" } } },
      ["dkim: key_file: "] = { dkim = signature { key_file = path } },
      ["dkim: key_file:"] = { dkim = { signature { key = KEY }, signature { key_file = path } } },
    }
  end

  it("refuses what would be read from a file, however a message is given", function()
    for words, changes in pairs(cases()) do
      changes.files = false
      local s = play.open(play.hello())
      local pool = assert(smtp.pool(play.options(play.hello())))
      for _, way in ipairs { smtp.message, function(given) return s:send(given) end, function(given) return pool:send(given) end } do
        local result, err = way(letter(changes))
        assert.is_nil(result)
        assert.are.same({ "input", "compose", "not_sent", false }, { err.kind, err.stage, err.outcome, err.temporary })
        assert.are.equal(1, (err.reason:find(words, 1, true)), err.reason)
      end
    end
  end)

  it("refuses nothing else", function()
    local given = { files = false, attachments = { { data = "a", filename = "a.txt" }, { source = function() end } },
      dkim = signature { key = KEY } }
    assert(smtp.message(letter(given)))
    assert(smtp.message { files = false, raw = "A: b\r\n\r\n", from = "a@b", to = "c@d" })
    assert(smtp.message(letter { files = false }))
  end)

  it("is said: files are read where it is true or not given", function()
    for _, changes in pairs { { attachments = { { path = path } } }, { dkim = signature { key_file = path } } } do
      for _, files in ipairs { "given", "not given" } do
        if files == "given" then changes.files = true else changes.files = nil end
        assert(smtp.message(letter(changes)))
      end
    end
  end)
end)
