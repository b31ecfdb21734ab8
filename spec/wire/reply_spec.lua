local core = require "smtp.core"
local pieces = require "spec.support.pieces"

local BROKEN = "the peer broke the protocol"

-- What a wire makes of pieces: every reply, then what it says when there is no more.
local function read(parts)
  local wire, got = core.wire(1000000), {}
  for _, part in ipairs(parts) do
    wire:feed(part)
    local code, text, enhanced
    repeat
      code, text, enhanced = wire:reply()
      got[#got + 1] = code and { code, text, enhanced } or nil
    until not code
    got.ends = text
  end
  return got
end

-- The same result however the bytes come.
local function check(bytes, wanted, most)
  for _, way in ipairs(pieces.ways(bytes, most)) do
    local got = read(way)
    if #way > 2 or way[1] == bytes then
      assert.are.same(wanted, got)
    else
      assert(got.ends == wanted.ends and #got == #wanted, "cut at byte " .. #way[1])
      for i, reply in ipairs(wanted) do
        for field = 1, 3 do assert.are.equal(reply[field], got[i][field], "cut at byte " .. #way[1]) end
      end
    end
  end
end

local good = {
  { "one line", "250 OK\r\n", { 250, "OK" } },
  { "no text", "250 \r\n", { 250, "" } },
  { "the code alone", "250\r\n", { 250, "" } },
  { "the code alone, bare LF", "354\n", { 354, "" } },
  { "bare LF", "250-a\n250 b\n", { 250, "a\nb" } },
  { "line ends of both kinds", "250-a\n250-b\r\n250 c\n", { 250, "a\nb\nc" } },
  { "several lines", "250-one\r\n250-two\r\n250 three\r\n", { 250, "one\ntwo\nthree" } },
  { "lines without text", "250-\r\n250-\r\n250 \r\n", { 250, "\n\n" } },
  { "several lines, ended by the code alone", "250-a\r\n250\r\n", { 250, "a\n" } },
  { "blanks kept", "220   x  \r\n", { 220, "  x  " } },
  { "hyphens in the text", "220 -a-\r\n", { 220, "-a-" } },
  { "the lowest and the highest code", "200 a\r\n599 b\r\n", { 200, "a" }, { 599, "b" } },
  { "empty lines between replies", "\r\n250 a\r\n\n\r\n354 b\r\n\r\n", { 250, "a" }, { 354, "b" } },
  { "two replies", "250 a\r\n354 b\r\n", { 250, "a" }, { 354, "b" } },
  { "each reply its own", "550-5.1.1 a\r\n550 5.1.1 b\r\n250 c\r\n", { 550, "a\nb", "5.1.1" }, { 250, "c" } },
  { "enhanced code", "250 2.1.0 Sender ok\r\n", { 250, "Sender ok", "2.1.0" } },
  { "enhanced code, three digits", "550 5.123.456 no\r\n", { 550, "no", "5.123.456" } },
  { "enhanced code without text", "550 5.1.1\r\n", { 550, "", "5.1.1" } },
  { "enhanced code and a blank", "550 5.1.1 \r\n", { 550, "", "5.1.1" } },
  { "enhanced code on each line", "421-4.3.2 a\r\n421 4.3.2 b\r\n", { 421, "a\nb", "4.3.2" } },
  { "enhanced code on the last line only", "250-a\r\n250 2.0.0 b\r\n", { 250, "a\nb", "2.0.0" } },
  { "the first of several enhanced codes", "550-5.1.1 a\r\n550 5.7.1 b\r\n", { 550, "a\nb", "5.1.1" } },
  { "enhanced code of another class", "550 4.1.1 no\r\n", { 550, "4.1.1 no" } },
  { "enhanced code too short", "550 5.1\r\n", { 550, "5.1" } },
  { "enhanced code with two parts", "550 5.1 no user\r\n", { 550, "5.1 no user" } },
  { "enhanced code with four digits", "550 5.1.1234 no\r\n", { 550, "5.1.1234 no" } },
  { "enhanced code with a part missing", "550 5..1 no\r\n", { 550, "5..1 no" } },
  { "enhanced code with more behind it", "550 5.1.1x no\r\n", { 550, "5.1.1x no" } },
  { "enhanced code not at the start", "550  5.1.1 no\r\n", { 550, " 5.1.1 no" } },
  { "a version number", "220 2.10 ready\r\n", { 220, "2.10 ready" } },
}

local bad = {
  { "two digits", "25\r\n" },
  { "no digits", "abc\r\n" },
  { "a letter in the code", "2x0 a\r\n" },
  { "1xx", "199 a\r\n" },
  { "6xx", "600 a\r\n" },
  { "0xx", "050 a\r\n" },
  { "four digits", "2500 a\r\n" },
  { "no separator", "250ok\r\n" },
  { "a tab for a separator", "250\tok\r\n" },
  { "an underscore for a separator", "250_ok\r\n" },
  { "NUL for a separator", "250\0ok\r\n" },
  { "a blank before the code", " 250 ok\r\n" },
  { "CR before the code", "\r250 ok\r\n" },
  { "two codes", "250-a\r\n251 b\r\n" },
  { "two codes of continued lines", "250-a\r\n550-b\r\n550 c\r\n" },
  { "a line without a code", "250-a\r\nb\r\n250 c\r\n" },
  { "an empty line within", "250-a\r\n\r\n250 c\r\n" },
  { "another protocol", "HTTP/1.1 400 Bad Request\r\n" },
  { "TLS", "\21\3\1\0\2\2\10" },
  { "a good reply first", "250 a\r\nnonsense\r\n", { 250, "a" } },
  { "nothing but empty lines", ("\r\n"):rep(1025) },
  { "ever more empty lines behind a good reply", "250 a\r\n" .. ("\n"):rep(2049), { 250, "a" } },
}

-- text as the server sends it, as it is shown
local shown = {
  { "a\tb", "a b" },
  { "\1\31\127", "\\x01\\x1f\\x7f" },
  { "a\0b", "a\\x00b" },
  { "\27[2Jx", "\\x1b[2Jx" },
  { "a\rb", "a\\x0db" },
  { "a\r", "a\\x0d" },
  { "\\x41", "\\x41" },
  { "gr\195\188n \226\130\172 \240\159\152\128", "gr\195\188n \226\130\172 \240\159\152\128" },
  { "\194\160\239\191\191\244\143\191\191", "\194\160\239\191\191\244\143\191\191" },
  { "\194\128\194\133\194\159", "\\xc2\\x80\\xc2\\x85\\xc2\\x9f" },                  -- C1
  { "\192\128\193\191", "\\xc0\\x80\\xc1\\xbf" },                                    -- overlong, two bytes
  { "\224\159\191\240\143\191\191", "\\xe0\\x9f\\xbf\\xf0\\x8f\\xbf\\xbf" },         -- overlong, three and four
  { "\237\160\128\237\191\191", "\\xed\\xa0\\x80\\xed\\xbf\\xbf" },                  -- surrogates
  { "\244\144\128\128", "\\xf4\\x90\\x80\\x80" },                                    -- past U+10FFFF
  { "\245\128\128\128\248\136\128\128\128", "\\xf5\\x80\\x80\\x80\\xf8\\x88\\x80\\x80\\x80" },
  { "\128x\191", "\\x80x\\xbf" },                                                    -- continuations alone
  { "\195", "\\xc3" },
  { "\226\130 \240\159\152", "\\xe2\\x82 \\xf0\\x9f\\x98" },                         -- cut short
  { "\195\195\188", "\\xc3\195\188" },
  { "\254\255", "\\xfe\\xff" },
}

local x = ("x"):rep(65536)
-- `text` joined from lines of 2048 and one of `last`
local function long_text(count, last)
  return ("250-" .. x:sub(1, 2048) .. "\r\n"):rep(count) .. "250 " .. x:sub(1, last) .. "\r\n",
    (x:sub(1, 2048) .. "\n"):rep(count) .. x:sub(1, last)
end
local full, full_text = long_text(31, 65536 - 31 * 2049)
local over = long_text(31, 65537 - 31 * 2049)

local caps = {
  { "of a line 2 KB are kept", "250 " .. x:sub(1, 2049) .. "\r\n", { 250, x:sub(1, 2048) } },
  { "of an escaped line too", "250 " .. ("\1"):rep(2049) .. "\r\n", { 250, ("\\x01"):rep(2048) } },
  { "what comes behind a long line", "250-" .. x:sub(1, 5000) .. "\r\n250 b\r\n", { 250, x:sub(1, 2048) .. "\nb" } },
  { "the longest line", "250 " .. x:sub(1, 65536 - 5) .. "\r\n", { 250, x:sub(1, 2048) } },
  { "the longest line, bare LF", "250 " .. x:sub(1, 65536 - 4) .. "\n", { 250, x:sub(1, 2048) } },
  { "a line too long", "250 " .. x:sub(1, 65536 - 4) .. "\r\n", ends = BROKEN },
  { "a line too long, bare LF", "250 " .. x:sub(1, 65536 - 3) .. "\n", ends = BROKEN },
  { "a line without end", x .. "x", ends = BROKEN },
  { "1000 lines", ("250-\r\n"):rep(999) .. "250 \r\n", { 250, ("\n"):rep(999) } },
  { "1001 lines", ("250-\r\n"):rep(1000) .. "250 \r\n", ends = BROKEN },
  { "64 KB of text", full, { 250, full_text } },
  { "one byte more", over, ends = BROKEN },
  { "64 KB once escaped", ("250-" .. ("\0"):rep(2048) .. "\r\n"):rep(9), ends = BROKEN },
}

describe("a reply", function()
  for _, case in ipairs(good) do
    it("is read: " .. case[1], function()
      local wanted = { ends = "again" }
      for i = 3, #case do wanted[i - 2] = case[i] end
      check(case[2], wanted)
    end)
  end

  for _, case in ipairs(bad) do
    it("is refused: " .. case[1], function()
      check(case[2], { case[3], ends = BROKEN })
    end)
  end

  it("shows control bytes and invalid UTF-8 as \\xNN", function()
    for _, case in ipairs(shown) do
      check("250-" .. case[1] .. "\r\n250 " .. case[1] .. ".\r\n",
        { { 250, case[2] .. "\n" .. case[2] .. "." }, ends = "again" })
    end
  end)

  for _, case in ipairs(caps) do
    it("has limits: " .. case[1], function()
      check(case[2], { case[3], ends = case.ends or "again" }, 40)
    end)
  end

  it("is the same however random bytes are cut, and never shows a raw one", function()
    local random = pieces.random(20240229)
    local alphabet = { "250", "-", " ", "\r\n", "\n", "\r", "5.1.1 ", "550 5.7.1 no\r\n",
      "250-a\r\n", "250 b\r\n", "\195\188" }
    local replies = 0
    for _ = 1, 1500 do
      local words = {}
      for i = 1, random(1, 30) do
        words[i] = random(1, 4) == 1 and string.char(random(0, 255)) or alphabet[random(1, #alphabet)]
      end
      local bytes = "250 " .. table.concat(words)
      local whole, cut = read { bytes }, read(pieces.scatter(bytes, random, 7))
      assert.are.equal(whole.ends, cut.ends)
      assert.are.equal(#whole, #cut)
      for i, reply in ipairs(whole) do
        for field = 1, 3 do assert.are.equal(reply[field], cut[i][field]) end
        assert(reply[1] >= 200 and reply[1] <= 599, reply[1])
        assert(not reply[2]:find("[\1-\9\11-\31\127]") and not reply[2]:find("\0", 1, true), reply[2])
        assert(not reply[3] or reply[3]:find("^[2-5]%.%d+%.%d+$"), reply[3])
        -- fed again, what was shown is shown unchanged: there is nothing left to escape
        local again = read { "250 x" .. reply[2]:gsub("\n", "") .. "\r\n" }
        assert.are.equal("x" .. reply[2]:gsub("\n", ""), again[1][2])
        replies = replies + 1
      end
    end
    assert(replies > 500, replies)
  end)
end)
