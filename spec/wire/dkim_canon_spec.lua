-- DKIM's canonical bodies, by smtp.core's encoders, against the RFC's examples and a reference that is slow and plain.
local core = require "smtp.core"
local pieces = require "spec.support.pieces"

local function run(kind, list)
  local encoder, out = core.encoder("dkim-" .. kind), {}
  for i, piece in ipairs(list) do out[i] = encoder:update(piece) end
  return table.concat(out) .. encoder:finish()
end

-- RFC 6376 3.4.3 and 3.4.4, one line after the other.
local plain = {}

local function lines_of(body)
  local lines, from = {}, 1
  while from <= #body do
    local at = body:find("\r\n", from, true) or #body + 1
    lines[#lines + 1] = body:sub(from, at - 1)
    from = at + 2
  end
  return lines
end

local function joined(lines)
  while lines[#lines] == "" do lines[#lines] = nil end
  return table.concat(lines, "\r\n") .. (#lines > 0 and "\r\n" or "")
end

function plain.simple(body)
  local text = joined(lines_of(body))
  return text == "" and "\r\n" or text
end

function plain.relaxed(body)
  local lines = lines_of(body)
  for i, line in ipairs(lines) do lines[i] = line:gsub("[ \t]+", " "):gsub(" $", "") end
  return joined(lines)
end

describe("a DKIM body encoder", function()
  it("gives the examples of RFC 6376 3.4.5", function()
    local body = " C \r\nD \t E\r\n\r\n\r\n"
    assert.are.equal(" C\r\nD E\r\n", run("relaxed", { body }))
    assert.are.equal(" C \r\nD \t E\r\n", run("simple", { body }))
  end)

  it("knows bodies without text", function()
    for _, body in ipairs { "", "\r\n", "\r\n\r\n\r\n" } do
      assert.are.equal("\r\n", run("simple", { body }))
      assert.are.equal("", run("relaxed", { body }))
    end
    assert.are.equal(" \r\n", run("simple", { " \r\n\r\n" }))
    assert.are.equal("", run("relaxed", { " \t\r\n\t\r\n" }))
  end)

  it("ends a last line that is open", function()
    for _, kind in ipairs { "simple", "relaxed" } do assert.are.equal("a\r\n", run(kind, { "a" })) end
  end)

  for _, kind in ipairs { "simple", "relaxed" } do
    it("agrees with the reference on every short body, whole and in single bytes: " .. kind, function()
      local function visit(body, length)
        local expected = plain[kind](body)
        local single = {}
        for i = 1, #body do single[i] = body:sub(i, i) end
        local whole, cut = run(kind, { body }), run(kind, single)
        if whole ~= expected or cut ~= expected then -- an assertion each would take most of the time
          assert.are.equal(("%q"):format(expected), ("%q %q"):format(whole, cut))
        end
        if length > 0 then
          for _, piece in ipairs { "a", " ", "\t", "\r", "\n", "\r\n" } do visit(body .. piece, length - 1) end
        end
      end
      visit("", 5)
    end)

    it("does not care where the body is cut: " .. kind, function()
      local body = "\r\n\r\n a \t b\t\r\n \t\r\n\r\n\r\n\rc\r\r\nd\n\255\0 .\r\n..\r\n \r\n\t\r\n\r\n"
      local expected = plain[kind](body)
      for _, way in ipairs(pieces.ways(body)) do assert.are.equal(expected, run(kind, way)) end
    end)

    it("agrees with the reference on long random bodies in random pieces: " .. kind, function()
      local random = pieces.random(4711)
      local words = { "a", "word", " ", "  ", "\t", "\r\n", "\r\n\r\n", " \r\n", "\r", "\n", ".", "\195\188", "\0", ("x"):rep(200) }
      for _ = 1, 100 do
        local body = {}
        for i = 1, random(0, 400) do body[i] = words[random(1, #words)] end
        body = table.concat(body)
        assert.is_true(plain[kind](body) == run(kind, pieces.scatter(body, random, 60)))
      end
    end)

    it("is ready for a new run when it has finished: " .. kind, function()
      local encoder = core.encoder("dkim-" .. kind)
      for _ = 1, 2 do
        assert.are.equal("a", encoder:update("a \r\n\r\n \r"):sub(1, 1))
        encoder:finish()
        assert.are.equal("", encoder:update("\r\n"))
        assert.are.equal(kind == "simple" and "\r\n" or "", encoder:finish())
      end
    end)

    it("counts empty lines without keeping them; text after more than fits in memory is an error: " .. kind, function()
      local encoder, block = core.encoder("dkim-" .. kind), ("\r\n"):rep(1024 * 1024)
      encoder:update("a")
      for _ = 1, 40 do assert.are.equal("", encoder:update(block)) end
      assert.are.equal("\r\n", encoder:finish())
      for _ = 1, 40 do encoder:update(block) end
      assert.has_error(function() encoder:update("a") end, "larger than allowed")
      assert.has_error(function() encoder:finish() end, "larger than allowed")
    end)
  end
end)
