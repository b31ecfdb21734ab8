-- The codecs of smtp.core, each against a reference written in Lua the slow and plain way.
-- Of: wire/base64, wire/dots, wire/qp
local core = require "smtp.core"

local CR, LF = "\r", "\n"

-- Runs `text` through an encoder in pieces that end at the given positions.
local function pieces(encoder, text, ...)
  local out, from = {}, 1
  for _, to in ipairs({ ... }) do
    out[#out + 1] = encoder:update(text:sub(from, to))
    from = to + 1
  end
  out[#out + 1] = encoder:update(text:sub(from))
  out[#out + 1] = encoder:finish()
  return table.concat(out)
end

local function bytewise(encoder, text)
  local out = {}
  for i = 1, #text do
    out[i] = encoder:update(text:sub(i, i))
  end
  out[#out + 1] = encoder:finish()
  return table.concat(out)
end

-- A small generator of its own, so that the same bytes come under every Lua.
local seed = 12345
local function random(limit)
  seed = (seed * 16807) % 2147483647
  return seed % limit
end

local function random_bytes(length)
  local out = {}
  for i = 1, length do
    out[i] = string.char(random(256))
  end
  return table.concat(out)
end

local function random_of(length, parts)
  local out = {}
  for i = 1, length do
    out[i] = parts[random(#parts) + 1]
  end
  return table.concat(out)
end

-- Calls visit with every string of at most `length` of the characters.
local function every_string(length, characters, visit)
  local function extend(text)
    visit(text)
    if #text < length then
      for _, character in ipairs(characters) do
        extend(text .. character)
      end
    end
  end
  extend("")
end

-- Every way to cut `text` into two and three pieces gives `expected`.
local function cut_everywhere(encoder, text, expected)
  for i = 0, #text do
    for j = i, #text do
      local got = pieces(encoder, text, i, j)
      if got ~= expected then
        assert.are.equal(expected, got, ("%q cut at %d and %d"):format(text, i, j))
      end
    end
  end
end

local alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

local function base64_reference(bytes)
  local out = {}
  for i = 1, #bytes, 3 do
    local a, b, c = bytes:byte(i, i + 2)
    local group = a * 65536 + (b or 0) * 256 + (c or 0)
    local text = ""
    for _ = 1, 4 do
      local six = group % 64
      text = alphabet:sub(six + 1, six + 1) .. text
      group = (group - six) / 64
    end
    out[#out + 1] = text:sub(1, c and 4 or b and 3 or 2) .. (c and "" or b and "=" or "==")
  end
  return table.concat(out)
end

local function lines_of_76(text)
  return (text:gsub(("."):rep(76), "%0\r\n"):gsub("[^\n]$", "%0\r\n"))
end

describe("base64 in one piece", function()
  local vectors = {
    { "", "" },
    { "f", "Zg==" },
    { "fo", "Zm8=" },
    { "foo", "Zm9v" },
    { "foob", "Zm9vYg==" },
    { "fooba", "Zm9vYmE=" },
    { "foobar", "Zm9vYmFy" },
    { "\0\16\131\16\81\135\32\146\139\48\211\143\65\20\147\81\85\151\97\150\155\113\215\159\130\24\163\146\89\167"
      .. "\162\154\171\178\219\175\195\28\179\211\93\183\227\158\187\243\223\191", alphabet },
  }

  it("gives the vectors of RFC 4648 and the whole alphabet, both ways", function()
    for _, vector in ipairs(vectors) do
      assert.are.equal(vector[2], core.base64(vector[1]))
      assert.are.equal(vector[1], core.unbase64(vector[2]))
    end
  end)

  it("round-trips every length up to 300 with no line ends", function()
    for length = 0, 300 do
      local bytes = random_bytes(length)
      local text = core.base64(bytes)
      assert.are.equal(base64_reference(bytes), text)
      assert.are.equal(bytes, core.unbase64(text))
    end
  end)

  it("decodes nothing but canonical base64", function()
    local wrong = {
      "Z", "Zg", "Zg=", "Zm9vY", "Zm9vYg", -- length
      "=", "==", "===", "====", "Z===", "=g==", "Z=g=", "Zg=v", "Zg==Zg==", "Zm8=Zm9v", "Zm9v====", -- padding
      "Zh==", "Zn==", "Zm9=", "Zm9vYmF=", "Z/==", -- bits that are thrown away
      "Zm9-", "Zm9_", "Zm9 ", "Zm\r\n", "Zm9v\r\n", "Zm9v\n", "Zm9\0", "Zm9\255", "Zm.v", " Zm9v", "Zm9@", "Zm9[",
      "Zm9`", "Zm9{", "Zm9:", "Zm9,",
    }
    for _, text in ipairs(wrong) do
      local bytes, message = core.unbase64(text)
      assert.is_nil(bytes, text)
      assert.are.equal("not valid base64", message)
    end
  end)

  it("refuses every byte outside the alphabet at every place", function()
    for byte = 0, 255 do
      local character = string.char(byte)
      local known = alphabet:find(character, 1, true) ~= nil
      assert.are.equal(known, core.unbase64(character .. "AAA") ~= nil)
      assert.are.equal(known, core.unbase64("A" .. character .. "AA") ~= nil)
      assert.are.equal(known, core.unbase64("AA" .. character .. "A") ~= nil)
      assert.are.equal(known or character == "=", core.unbase64("AAA" .. character) ~= nil)
    end
  end)

  it("takes strings only", function()
    assert.has_error(function() core.base64(nil) end)
    assert.has_error(function() core.unbase64({}) end)
  end)
end)

local kernels = { "portable" }
if pcall(core.encoder, "base64", "avx2") then
  kernels[2] = "avx2"
end

for _, kernel in ipairs(kernels) do
  describe("base64 lines, " .. kernel .. " kernel", function()
    it("are the reference's at every length, whole, bytewise and cut", function()
      local encoder = core.encoder("base64", kernel)
      for length = 0, 300 do
        local bytes = random_bytes(length)
        local expected = lines_of_76(base64_reference(bytes))
        assert.are.equal(expected, pieces(encoder, bytes))
        assert.are.equal(expected, bytewise(encoder, bytes))
        for cut = 0, length do
          if pieces(encoder, bytes, cut) ~= expected then
            assert.are.equal(expected, pieces(encoder, bytes, cut), length .. " bytes cut at " .. cut)
          end
        end
      end
    end)

    it("survive any two cuts", function()
      local encoder = core.encoder("base64", kernel)
      for _, length in ipairs({ 1, 5, 56, 57, 58, 114, 120 }) do
        local bytes = random_bytes(length)
        cut_everywhere(encoder, bytes, lines_of_76(base64_reference(bytes)))
      end
    end)

    it("hold every byte value at every place of a line", function()
      local encoder = core.encoder("base64", kernel)
      for byte = 0, 255 do
        local bytes = string.char(byte):rep(171)
        assert.are.equal(lines_of_76(base64_reference(bytes)), pieces(encoder, bytes))
      end
    end)

    it("are right for long random input", function()
      local encoder = core.encoder("base64", kernel)
      for _ = 1, 5 do
        local bytes = random_bytes(20000 + random(5000))
        local expected = lines_of_76(base64_reference(bytes))
        assert.is_true(expected == pieces(encoder, bytes))
        assert.is_true(expected == pieces(encoder, bytes, random(10000), 10000 + random(10000)))
      end
    end)
  end)
end

describe("the base64 encoder", function()
  it("writes nothing for nothing", function()
    assert.are.equal("", pieces(core.encoder("base64"), ""))
  end)

  it("gives out each line as soon as it is complete", function()
    local encoder = core.encoder("base64")
    assert.are.equal("", encoder:update(("\0"):rep(56)))
    assert.are.equal(("A"):rep(76) .. "\r\n", encoder:update("\0"))
    assert.are.equal("", encoder:finish())
  end)
end)

-- RFC 2045 6.7 read strictly: nil if the text is not what an encoder may write.
local function qp_decode(text)
  local out = {}
  for matched, stop in (text .. "\1"):gmatch("([^\r\n\1]*)([\r\n\1]*)") do
    local line, ending = matched, stop
    if line == "" and ending == "" then
      break
    end
    if #line > 76 or line:find("[ \t]$") or line:find("[^\t -~]") then
      return nil
    end
    local soft = line:sub(-1) == "=" and ending:sub(1, 2) == "\r\n"
    if soft then
      line = line:sub(1, -2)
      ending = ending:sub(3)
    end
    if line:gsub("=[0-9A-F][0-9A-F]", ""):find("=", 1, true) then
      return nil
    end
    local bytes = line:gsub("=(%x%x)", function(digits) return string.char(tonumber(digits, 16)) end)
    out[#out + 1] = bytes .. ending:gsub("\1", "")
  end
  return table.concat(out)
end

local function crlf(text)
  return (text:gsub("\r\n", "\n"):gsub("\r", "\n"):gsub("\n", "\r\n"))
end

-- What the encoder promises of any text; returns what it wrote.
local function check_qp(encoder, text)
  local encoded = pieces(encoder, text)
  local decoded = qp_decode(encoded)
  if decoded ~= crlf(text) then
    assert.are.equal(crlf(text), decoded, ("%q became %q"):format(text, encoded))
  end
  return encoded
end

describe("quoted-printable", function()
  local cases = {
    { "", "" },
    { "plain", "plain" },
    { "a=b", "a=3Db" },
    { "!<>~", "!<>~" },
    { "caf\195\169", "caf=C3=A9" },
    { "\0\1\127\128\255", "=00=01=7F=80=FF" },
    { "a\nb\rc\r\nd", "a\r\nb\r\nc\r\nd" },
    { "\r\r\n\n", "\r\n\r\n\r\n" },
    { "\n\r", "\r\n\r\n" },
    { "a b\tc", "a b\tc" },
    { "a \nb\t\r\nc  \rd \t", "a=20\r\nb=09\r\nc =20\r\nd =09" },
    { " ", "=20" },
    { " \n \n", "=20\r\n=20\r\n" },
    { ".\n..\nFrom here", ".\r\n..\r\nFrom here" },
    { ("a"):rep(75), ("a"):rep(75) },
    { ("a"):rep(80), ("a"):rep(75) .. "=\r\naaaaa" },
    { ("a"):rep(73) .. "=b", ("a"):rep(73) .. "=\r\n=3Db" },
    { ("a"):rep(72) .. "=b", ("a"):rep(72) .. "=3D=\r\nb" },
    { ("a"):rep(74) .. " \n", ("a"):rep(74) .. "=\r\n=20\r\n" },
    { ("a"):rep(74) .. " b", ("a"):rep(74) .. " =\r\nb" },
  }

  it("writes what RFC 2045 asks", function()
    local encoder = core.encoder("quoted-printable")
    for _, case in ipairs(cases) do
      assert.are.equal(case[2], pieces(encoder, case[1]))
      assert.are.equal(case[2], bytewise(encoder, case[1]))
      cut_everywhere(encoder, case[1], case[2])
    end
  end)

  it("decodes to the RFC's own example", function()
    local text = "Now's the time for all folk to come to the aid of their country."
    assert.are.equal(text, qp_decode("Now's the time =\r\nfor all folk to come=\r\n to the aid of their country."))
    assert.are.equal(text, qp_decode(pieces(core.encoder("quoted-printable"), text)))
  end)

  it("keeps every promise for all short texts", function()
    local encoder = core.encoder("quoted-printable")
    every_string(5, { CR, LF, " ", "=", "a" }, function(text)
      local encoded = check_qp(encoder, text)
      if encoded ~= bytewise(encoder, text) then
        assert.are.equal(encoded, bytewise(encoder, text), ("%q"):format(text))
      end
    end)
  end)

  it("keeps every promise around the end of a line", function()
    local encoder = core.encoder("quoted-printable")
    for length = 70, 80 do
      every_string(4, { LF, " ", "=", "a" }, function(text)
        check_qp(encoder, ("x"):rep(length) .. text)
      end)
    end
  end)

  it("keeps every promise for random text, however it is cut", function()
    local encoder = core.encoder("quoted-printable")
    local parts = { "a", "bc ", " ", "\t", "=", "\195\169", "\r\n", "\n", "\r", ".", "From ", "\0", "word and word" }
    for _ = 1, 60 do
      local text = random_of(400, parts)
      local encoded = check_qp(encoder, text)
      assert.are.equal(encoded, bytewise(encoder, text))
      assert.are.equal(encoded, pieces(encoder, text, random(200), 200 + random(200)))
    end
  end)
end)

-- The same rules for whole strings, by way of LF.
local function lines_reference(text, stuff)
  text = text:gsub("\r\n", "\n"):gsub("\r", "\n")
  if text ~= "" and text:sub(-1) ~= "\n" then
    text = text .. "\n"
  end
  if stuff then
    text = ("\n" .. text):gsub("\n%.", "\n.."):sub(2) .. ".\n"
  end
  return (text:gsub("\n", "\r\n"))
end

describe("line ends and dots", function()
  local cases = {
    -- text, crlf, dots
    { "", "", ".\r\n" },
    { "a", "a\r\n", "a\r\n.\r\n" },
    { "a\r\n", "a\r\n", "a\r\n.\r\n" },
    { "a\nb", "a\r\nb\r\n", "a\r\nb\r\n.\r\n" },
    { "a\rb", "a\r\nb\r\n", "a\r\nb\r\n.\r\n" },
    { "\r", "\r\n", "\r\n.\r\n" },
    { "\n", "\r\n", "\r\n.\r\n" },
    { "\r\n", "\r\n", "\r\n.\r\n" },
    { "\n\r", "\r\n\r\n", "\r\n\r\n.\r\n" },
    { "\r\r\n", "\r\n\r\n", "\r\n\r\n.\r\n" },
    { "\r\r\r", "\r\n\r\n\r\n", "\r\n\r\n\r\n.\r\n" },
    { ".", ".\r\n", "..\r\n.\r\n" },
    { "..", "..\r\n", "...\r\n.\r\n" },
    { ".\r\n", ".\r\n", "..\r\n.\r\n" },
    { "\n.\n", "\r\n.\r\n", "\r\n..\r\n.\r\n" },
    { "\r.\r", "\r\n.\r\n", "\r\n..\r\n.\r\n" },
    { "\r\n.\r\n", "\r\n.\r\n", "\r\n..\r\n.\r\n" },
    { "\r\n.\rx", "\r\n.\r\nx\r\n", "\r\n..\r\nx\r\n.\r\n" },
    { "a.b.\n", "a.b.\r\n", "a.b.\r\n.\r\n" },
    { "\0\255\n", "\0\255\r\n", "\0\255\r\n.\r\n" },
  }

  it("come out as CRLF, with and without stuffing", function()
    local plain, dots = core.encoder("crlf"), core.encoder("dots")
    for _, case in ipairs(cases) do
      assert.are.equal(case[2], pieces(plain, case[1]))
      assert.are.equal(case[3], pieces(dots, case[1]))
      cut_everywhere(plain, case[1], case[2])
      cut_everywhere(dots, case[1], case[3])
    end
  end)

  it("agree with the reference for all short texts", function()
    local plain, dots = core.encoder("crlf"), core.encoder("dots")
    every_string(6, { CR, LF, ".", "a" }, function(text)
      local expected, stuffed = lines_reference(text, false), lines_reference(text, true)
      if pieces(plain, text) ~= expected or bytewise(plain, text) ~= expected then
        assert.are.equal(expected, pieces(plain, text), ("%q"):format(text))
        assert.are.equal(expected, bytewise(plain, text), ("%q"):format(text))
      end
      if pieces(dots, text) ~= stuffed or bytewise(dots, text) ~= stuffed then
        assert.are.equal(stuffed, pieces(dots, text), ("%q"):format(text))
        assert.are.equal(stuffed, bytewise(dots, text), ("%q"):format(text))
      end
    end)
  end)

  it("are found at every place of a long text", function()
    local dots = core.encoder("dots")
    for _, mark in ipairs({ "\n", "\r", "\r\n", "\n.", "\r.", "\r\n.", "\r\r\n.\n", "." }) do
      for at = 0, 70 do
        local text = ("x"):rep(at) .. mark .. ("y"):rep(70 - at)
        local expected = lines_reference(text, true)
        if pieces(dots, text) ~= expected then
          assert.are.equal(expected, pieces(dots, text), ("%q"):format(text))
        end
      end
    end
  end)

  it("agree with the reference for long random text", function()
    local dots = core.encoder("dots")
    for _ = 1, 20 do
      local text = random_of(20000, { "a", "bcdefghijklmnopqrstuvwxyz", "\r\n", "\n", "\r", ".", "\r\n." })
      local expected = lines_reference(text, true)
      assert.is_true(expected == pieces(dots, text))
      assert.is_true(expected == pieces(dots, text, random(20000), 20000 + random(20000)))
    end
  end)

  it("leave clean text as it is", function()
    local text = (("x"):rep(76) .. "\r\n"):rep(1000)
    assert.is_true(text == pieces(core.encoder("crlf"), text))
    assert.is_true(text .. ".\r\n" == pieces(core.encoder("dots"), text))
  end)
end)

-- Feeds all of `bytes`, whole or one by one: content, bytes used, done, bare.
local function receive(bytes, step)
  local decoder = core.decoder("dots")
  local content, total = {}, 0
  for i = 1, #bytes, step or math.max(#bytes, 1) do
    local got, used, done = decoder:update(bytes:sub(i, i + (step or #bytes) - 1))
    content[#content + 1] = got
    total = total + used
    if done then
      return table.concat(content), total, true, decoder:bare()
    end
  end
  return table.concat(content), total, false, decoder:bare()
end

-- The end, by RFC 5321 4.1.1.4, of a text that starts a line: position after the terminator, or nil.
local function find_end(bytes)
  if bytes:sub(1, 3) == ".\r\n" then
    return 3
  end
  local _, last = bytes:find("\r\n.\r\n", 1, true)
  return last
end

describe("the dots decoder", function()
  it("gives back what the encoder took", function()
    local dots = core.encoder("dots")
    every_string(6, { CR, LF, ".", "a" }, function(text)
      local expected = lines_reference(text, false)
      local sent = pieces(dots, text)
      for step = 1, 3 do
        local content, used, done, bare = receive(sent .. "QUIT\r\n", step < 3 and step or nil)
        if content ~= expected or not done or bare or used ~= #sent then
          assert.are.same({ expected, #sent, true, false }, { content, used, done, bare }, ("%q"):format(text))
        end
      end
    end)
  end)

  it("stops exactly after the end, with pipelined bytes behind", function()
    for _, data in ipairs({ ".\r\n", "a\r\n.\r\n", "\r\n.\r\n", "..\r\n.\r\n" }) do
      for _, behind in ipairs({ "", "\r\n", ".\r\n", "QUIT\r\n", "\r\n.\r\n" }) do
        for _, step in ipairs({ 1, 100 }) do
          local _, used, done = receive(data .. behind, step)
          assert.is_true(done)
          assert.are.equal(#data, used)
        end
      end
    end
  end)

  it("ends only where the RFC says, for all short texts", function()
    every_string(6, { CR, LF, ".", "a" }, function(text)
      local last = find_end(text)
      local content, used, done, bare = receive(text)
      local taken = text:sub(1, last or #text)
      local _, _, kept = taken:find("^(.-)\r?$")
      local clean = not kept:gsub("\r\n", ""):find("[\r\n]")
      if done ~= (last ~= nil) or used ~= #taken or bare == clean then
        assert.are.same({ last ~= nil, #taken, not clean }, { done, used, bare }, ("%q"):format(text))
      end
      local content1, used1, done1, bare1 = receive(text, 1)
      if content1 ~= content or used1 ~= used or done1 ~= done or bare1 ~= bare then
        assert.are.same({ content, used, done, bare }, { content1, used1, done1, bare1 }, ("%q"):format(text))
      end
    end)
  end)

  it("is not fooled by smuggling", function()
    local sequences = {
      "\n.\n", "\r\n.\n", "\n.\r\n", "\r.\r", "\r.\r\n", "\r\n.\r", "\n\n.\r\n", "\r\n\n.\r\n", "\r\n.\r\r\n",
      "\r\r.\r\r", "\n\r.\r\n", "\r\0\n.\r\n", "\r\n\0.\r\n",
    }
    for _, sequence in ipairs(sequences) do
      for _, step in ipairs({ 1, 1000 }) do
        local attack = "hello" .. sequence .. "MAIL FROM:<a@example.org>\r\n"
        local _, used, done, bare = receive(attack, step)
        assert.is_false(done, ("%q"):format(sequence))
        assert.are.equal(#attack, used)
        if sequence ~= "\r\n\0.\r\n" then
          assert.is_true(bare, ("%q"):format(sequence))
        end
        local _, all, over = receive(attack .. ".\r\nQUIT", step)
        assert.is_true(over)
        assert.are.equal(#attack + 3, all)
      end
    end
  end)

  it("passes bare CR and LF on as they are", function()
    assert.are.equal("a\nb\rc\r\n", (receive("a\nb\rc\r\n.\r\n")))
    assert.are.equal("\r\rx\n\n\r\n", (receive("\r\rx\n\n\r\n.\r\n")))
    assert.are.equal("a\r\n\rb\r\n", (receive("a\r\n.\rb\r\n.\r\n")))
  end)

  it("takes one dot off a line that starts with one", function()
    assert.are.equal(".\r\na\r\n..\r\nb.\r\n", (receive("..\r\n.a\r\n...\r\nb.\r\n.\r\n")))
  end)

  it("starts anew after the end", function()
    local decoder = core.decoder("dots")
    assert.are.same({ "a\n\r\n", 7, true }, { decoder:update("a\n\r\n.\r\nb") })
    assert.is_true(decoder:bare())
    assert.are.same({ "b\r\n", 6, true }, { decoder:update("b\r\n.\r\n") })
    assert.is_false(decoder:bare())
  end)

  it("is right for long random text", function()
    local dots = core.encoder("dots")
    for _ = 1, 20 do
      local text = random_of(20000, { "a", "bcdefghijklmnopqrstuvwxyz", "\r\n", "\n", "\r", ".", "\r\n." })
      local sent = pieces(dots, text)
      local content, used, done, bare = receive(sent .. "\r\n.\r\n", 1 + random(5000))
      assert.is_true(content == lines_reference(text, false) and done and not bare)
      assert.is_true(used == #sent)
    end
  end)
end)

describe("an encoder", function()
  it("is ready for a new run after finish", function()
    for _, kind in ipairs({ "base64", "quoted-printable", "crlf", "dots" }) do
      local encoder = core.encoder(kind)
      for _, text in ipairs({ "a \r", "\n.b", "", ("."):rep(100) }) do
        assert.are.equal(pieces(core.encoder(kind), text), pieces(encoder, text))
      end
    end
  end)

  it("refuses kinds, kernels and values it does not know", function()
    assert.has_error(function() core.encoder("rot13") end)
    assert.has_error(function() core.encoder() end)
    assert.has_error(function() core.encoder("base64", "abacus") end)
    assert.has_error(function() core.encoder("crlf", "portable") end)
    assert.has_error(function() core.decoder("base64") end)
    assert.has_error(function() core.encoder("crlf"):update(nil) end)
    assert.has_error(function() core.encoder("crlf").update(core.decoder("dots"), "") end)
  end)

  it("hides its metatable", function()
    assert.are.equal("locked", getmetatable(core.encoder("crlf")))
  end)
end)

describe("base64 poured into a wire", function()
  local function content(wire)
    wire:finish()
    return wire:take()
  end

  -- What the same bytes come to by way of strings.
  local function expected(before, bytes)
    local wire, encoder = core.wire(), core.encoder "base64"
    wire:body(before)
    wire:body(encoder:update(bytes))
    wire:body(encoder:finish())
    wire:body "\r\n.after\r\n"
    return content(wire)
  end

  local BYTES = {}
  for i = 1, 1000 do BYTES[i] = string.char((i * 7919) % 256) end
  BYTES = table.concat(BYTES)

  it("is the content that its strings would be, however it comes", function()
    for _, before in ipairs { "", "a\r\n", ".", "open", "cr\r", "lf\n" } do
      for _, step in ipairs { 1, 56, 57, 58, 400, 1000 } do
        local wire, encoder = core.wire(), core.encoder "base64"
        wire:body(before)
        local start, queued = wire:queued(), 0
        for from = 1, #BYTES, step do queued = queued + encoder:pour(BYTES:sub(from, from + step - 1), wire) end
        assert.are.equal(wire:queued() - start - (before == "cr\r" and 1 or 0), queued - (before == "cr\r" and 0 or 0) -
          (before == "cr\r" and 1 or 0))
        wire:body(encoder:finish())
        wire:body "\r\n.after\r\n"
        assert.are.equal(expected(before, BYTES), content(wire))
      end
    end
  end)

  it("comes from a file too, and tells its end", function()
    local name = os.tmpname()
    local file = assert(io.open(name, "w+b"))
    file:write(BYTES)
    for _, step in ipairs { 1, 57, 100, 5000 } do
      file:seek "set"
      local wire, encoder, octets = core.wire(), core.encoder "base64", 0
      while true do
        local read, queued = encoder:pour_file(file, step, wire)
        assert.are.equal("number", type(queued))
        if read == 0 then break end
        octets = octets + read
      end
      assert.are.equal(#BYTES, octets)
      wire:body(encoder:finish())
      wire:body "\r\n.after\r\n"
      assert.are.equal(expected("", BYTES), content(wire))
    end
    file:close()
    assert.is_false((pcall(core.encoder("base64").pour_file, core.encoder "base64", file, 10, core.wire())))
    os.remove(name)
  end)

  it("tells why a file cannot be read", function()
    local folder = io.open("/", "rb")
    if not folder then return end
    local read, why = core.encoder("base64"):pour_file(folder, 10, core.wire())
    folder:close()
    assert.is_nil(read)
    assert.is_truthy(why:find "directory")
  end)

  it("is all that can be poured", function()
    for _, kind in ipairs { "crlf", "dots", "quoted-printable", "dkim-simple" } do
      assert.is_false((pcall(core.encoder(kind).pour, core.encoder(kind), "x", core.wire())))
    end
    assert.is_false((pcall(core.encoder("base64").pour, core.encoder "base64", "x", io.stdout)))
    assert.is_false((pcall(core.encoder("base64").pour_file, core.encoder "base64", core.wire(), 1, core.wire())))
  end)
end)
