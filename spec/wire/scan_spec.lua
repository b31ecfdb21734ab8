local core = require "smtp.core"
local pieces = require "spec.support.pieces"

-- The same, byte by byte and by the grammar of RFC 3629 4.
local FORMS = {
  "^[\194-\223][\128-\191]", "^\224[\160-\191][\128-\191]", "^[\225-\236\238\239][\128-\191][\128-\191]",
  "^\237[\128-\159][\128-\191]", "^\240[\144-\191][\128-\191][\128-\191]",
  "^[\241-\243][\128-\191][\128-\191][\128-\191]", "^\244[\128-\143][\128-\191][\128-\191]",
}

local function naive(s)
  local first, longest, start, at = {}, 0, 1, 1
  local eightbit = false
  local function note(name) first[name] = first[name] or at end
  while at <= #s do
    local c, size = s:sub(at, at), 1
    local byte = c:byte()
    if byte >= 128 then
      eightbit = true
      local valid = false
      for _, form in ipairs(FORMS) do
        local found = s:match(form, at)
        if found then valid, size = true, #found end
      end
      if not valid then note "invalid" end
    elseif c == "\r" or c == "\n" then
      note "ending"
      longest, start = math.max(longest, at - start), at + 1
    elseif c == "\t" then
      note "blank"
    elseif byte < 32 or byte == 127 then
      note "control"
    end
    at = at + size
  end
  return { first.control, first.blank, first.ending, first.invalid, math.max(longest, #s + 1 - start), eightbit, n = 6 }
end

local function scan(s)
  local got = { core.scan(s) }
  got.n = 6
  return got
end

describe("core.scan", function()
  it("knows the edges of UTF-8", function()
    for _, case in ipairs {
      { "\127", nil }, { "\128", 1 }, { "\191", 1 }, { "\192\128", 1 }, { "\193\191", 1 }, { "\194\128", nil }, { "\194", 1 },
      { "\223\191", nil }, { "\224\159\191", 1 }, { "\224\160\128", nil }, { "\237\159\191", nil }, { "\237\160\128", 1 },
      { "\238\128\128", nil }, { "\239\191\191", nil }, { "\240\143\191\191", 1 }, { "\240\144\128\128", nil },
      { "\244\143\191\191", nil }, { "\244\144\128\128", 1 }, { "\245\128\128\128", 1 }, { "\255", 1 }, { "a\195", 2 },
      { "\226\130", 1 }, { "\240\159\152", 1 }, { "\195\169\169", 3 }, { "", nil },
    } do
      assert.are.equal(case[2], (select(4, core.scan(case[1]))), case[1])
    end
  end)

  it("finds each byte at each place of a long run", function()
    for _, byte in ipairs { 0, 9, 10, 13, 31, 127, 128, 195, 255 } do
      for at = 1, 70 do
        local s = ("x"):rep(at - 1) .. string.char(byte) .. ("y"):rep(40)
        assert.are.same(naive(s), scan(s), byte .. " at " .. at)
      end
    end
  end)

  it("says what a plain reading says", function()
    local random = pieces.random(7)
    local parts = { "a", (" "):rep(17), ("text"):rep(9), "\r\n", "\n", "\t", "\0", "\127", "\195\169", "\226\130\172", "\240\159\152\128",
      "\195", "\128", "\237\160\128", "~", "\31" }
    for _ = 1, 2000 do
      local words = {}
      for i = 1, random(0, 12) do words[i] = parts[random(1, #parts)] end
      local s = table.concat(words)
      assert.are.same(naive(s), scan(s), s)
    end
  end)
end)

describe("a sieve", function()
  it("lets through what has none of its words in it, and holds back what has", function()
    local words = { "pencil-case", "cGVu", "\0\255\1\2" }
    local sieve = core.sieve(words)
    assert.is_false(core.holds(core.sieve {}, ("pencil-case "):rep(100)))
    for _, text in ipairs { "", "pen", "2.0.0 Ok: queued as 4Zr0sX1mY2z3", "PENCIL-CASE" } do assert.is_false(core.holds(sieve, text)) end
    for _, word in ipairs(words) do
      for _, before in ipairs { "", "x", "no: " } do
        assert.is_true(core.holds(sieve, before .. word))
        assert.is_true(core.holds(sieve, before .. word:sub(1, 4) .. " and more"))
      end
      assert.is_false(core.holds(sieve, word:sub(1, 3)))
    end
    assert.has_error(function() core.sieve { "pen" } end)
    assert.has_error(function() core.holds("", "pencil") end)
  end)
end)
