-- SCRAM against the examples of its RFCs, and the arithmetic below it; spec/client/auth_spec.lua has the hostile dialogues.
-- Of: protocol/saslprep, tls/saslprep
local core = require "smtp.core"
local saslprep = require "smtp.protocol.saslprep"
local scram = require "smtp.protocol.scram"
local tls = require "smtp.tls"

local function hex(bytes)
  return (bytes:gsub(".", function(byte) return ("%02x"):format(byte:byte()) end))
end

-- lua5.1 and LuaJIT have no utf8.char
local function utf8(code)
  if code < 0x800 then return string.char(192 + math.floor(code / 64), 128 + code % 64) end
  return string.char(224 + math.floor(code / 4096), 128 + math.floor(code / 64) % 64, 128 + code % 64)
end

-- what Python's hashlib.pbkdf2_hmac gives for sha256, ("k"):rep(length), "salt", 3
local LENGTHS = {
  [63] = "a7160a65d926af05d4097cb9f1b1352397d3e130630604e31e7665f803e95614",
  [64] = "59e38449e5b5499366e8ef715d2cb11880bafafa02ff5699caa77948092dc60c",
  [65] = "37681f3749277f6b4ddde0ffeb99b3fcf332f61ba1ee3612ed0fd921583c6cfe",
  [200] = "12600a5919a5f957ac0640c24cb5815dd283613c2ea28312867f86856872988d",
}

describe("tls.pbkdf2", function()
  for _, case in ipairs {
    -- RFC 6070
    { "sha1", "password", "salt", 1, "0c60c80f961f0e71f3a9b524af6012062fe037a6" },
    { "sha1", "password", "salt", 2, "ea6c014dc72d6f8ccd1ed92ace1d41f0d8de8957" },
    { "sha1", "password", "salt", 4096, "4b007901b765489abead49d926f721d065a429c1" },
    -- the first 20 of its 25 octets, and all of its 16
    { "sha1", "passwordPASSWORDpassword", "saltSALTsaltSALTsaltSALTsaltSALTsalt", 4096, "3d2eec4fe41c849b80c8d83662c0e44a8b291a96" },
    { "sha1", "pass\0word", "sa\0lt", 4096, "56fa6aa75548099dcc37d7f03425e0c3" },
    -- RFC 7914 11
    { "sha256", "passwd", "salt", 1, "55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc" },
    { "sha256", "Password", "NaCl", 80000, "4ddcd8f60b98be21830cee5ef22701f9641a4418d04c0414aeff08876b34ab56" },
  } do
    it(("%s, %d times"):format(case[1], case[4]), function()
      local function key(slice)
        local derivation = tls.pbkdf2(case[1], case[2], case[3], case[4])
        while true do
          local salted = derivation:step(slice)
          if salted then return hex(salted):sub(1, #case[5]) end
        end
      end
      assert.are.equal(case[5], key(case[4]))
      assert.are.equal(case[5], key(2 ^ 31 - 1))
      assert.are.equal(case[5], key(1))
      assert.are.equal(case[5], key(1000))
    end)
  end

  it("gives its key at the last iteration, and again after it", function()
    local derivation = tls.pbkdf2("sha1", "password", "salt", 4)
    assert.is_false(derivation:step(1))
    assert.is_false(derivation:step(1))
    local key = derivation:step(1)
    assert.are.equal(20, #key)
    assert.are.equal(key, derivation:step(1))
    for _, count in ipairs { 0, -1, 2 ^ 31 } do
      assert.has_error(function() derivation:step(count) end)
    end
  end)

  it("takes passwords of a block, one less and one more", function()
    for length, want in pairs(LENGTHS) do
      assert.are.equal(want, hex(tls.pbkdf2("sha256", ("k"):rep(length), "salt", 3):step(3)))
    end
  end)

  it("takes empty strings, and no count below one", function()
    assert.are.equal(20, #tls.pbkdf2("sha1", "", "", 1):step(1))
    for _, count in ipairs { 0, -1, 2 ^ 31 } do
      assert.has_error(function() tls.pbkdf2("sha1", "p", "s", count) end)
    end
  end)
end)

describe("tls.same and tls.xor", function()
  it("compare, and mix", function()
    assert.is_true(tls.same("", ""))
    assert.is_true(tls.same("a\0b", "a\0b"))
    assert.is_false(tls.same("a\0b", "a\0c"))
    assert.is_false(tls.same("a", "ab"))
    assert.are.equal("\0\255\3", tls.xor("\1\240\1", "\1\15\2"))
    assert.has_error(function() tls.xor("a", "ab") end)
    assert.has_error(function() tls.xor(("a"):rep(65), ("a"):rep(65)) end)
  end)
end)

describe("SCRAM", function()
  local EXAMPLES = {
    -- RFC 5802 5
    sha1 = {
      nonce = "fyko+d2lbbFgONRv9qkxdawL",
      first = "r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
      last = "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
      signature = "v=rmF9pqV8S7suAoZWja4dJRkFsKQ=",
    },
    -- RFC 7677 3
    sha256 = {
      nonce = "rOprNGfwEbeRWgbNEkqO",
      first = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
      last = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
      signature = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
    },
  }
  local PENCIL = { username = "user", password = "pencil" }

  local function begin(hash)
    local example = EXAMPLES[hash]
    local initial, step, check = scram.start(hash, false, PENCIL, {}, example.nonce)
    assert.are.equal("n,,n=user,r=" .. example.nonce, initial)
    return example, step, check
  end

  for hash in pairs(EXAMPLES) do
    it(hash .. ": the RFC's example, the last message in a challenge", function()
      local example, step, check = begin(hash)
      assert.are.equal(example.last, step(example.first))
      assert.are.equal("", step(example.signature))
      assert.is_nil(check())
      assert.is_nil((step("")))
    end)

    it(hash .. ": the last message along with success", function()
      local example, step, check = begin(hash)
      step(example.first)
      assert.is_nil(check(example.signature))
    end)

    it(hash .. ": success is not believed without the server's proof", function()
      local example, step, check = begin(hash)
      assert.is_string(check())
      assert.is_string(check(example.signature))
      step(example.first)
      assert.is_string(check())
      assert.is_string(check("v=" .. core.base64(("x"):rep(20))))
      assert.is_string(check(example.signature)) -- one chance
    end)

    it(hash .. ": a server that refuses, and then says yes", function()
      local example, step, check = begin(hash)
      step(example.first)
      local response, words = step("e=invalid-proof")
      assert.are.same({ "", "invalid-proof" }, { response, words })
      assert.is_string(check(example.signature))
    end)
  end

  local N = "fyko+d2lbbFgONRv9qkxdawL"
  local GOOD = "r=" .. N .. "3rfc,s=QSXCR+Q6sek8bf92,i=4096"
  for name, message in pairs {
    ["nothing"] = "", ["no attributes"] = "hello", ["another nonce"] = GOOD:gsub("fyko", "Fyko"),
    ["our nonce alone"] = GOOD:gsub("3rfc", ""), ["half our nonce"] = "r=fyko,s=QSXCR+Q6sek8bf92,i=4096",
    ["a nonce before ours"] = GOOD:gsub("r=", "r=x"), ["a blank in the nonce"] = GOOD:gsub("3rfc", "3 rfc"),
    ["a control in the nonce"] = GOOD:gsub("3rfc", "3\0rfc"), ["a letter beyond ASCII in the nonce"] = GOOD:gsub("3rfc", "\195\164"),
    ["no nonce"] = GOOD:gsub("^[^,]*,", ""), ["no salt"] = GOOD:gsub(",s=[^,]*", ""), ["an empty salt"] = GOOD:gsub("s=[^,]*", "s="),
    ["a salt that is not base64"] = GOOD:gsub("s=[^,]*", "s=Q"), ["no count"] = GOOD:gsub(",i=.*", ""),
    ["a count of 1"] = GOOD:gsub("4096", "1"), ["a count just too small"] = GOOD:gsub("4096", "4095"),
    ["a count just too large"] = GOOD:gsub("4096", "600001"), ["a count without end"] = GOOD:gsub("4096", ("9"):rep(999)),
    ["a count in hex"] = GOOD:gsub("4096", "0x2000"), ["a count with an exponent"] = GOOD:gsub("4096", "1e4"),
    ["a negative count"] = GOOD:gsub("4096", "-4096"), ["a count with blanks"] = GOOD:gsub("4096", " 4096"),
    ["a count with zeros before"] = GOOD:gsub("4096", "04096"), ["a fraction"] = GOOD:gsub("4096", "4096.5"),
    ["an order of its own"] = "s=QSXCR+Q6sek8bf92,r=" .. N .. "3rfc,i=4096", ["the same thing twice"] = "r=" .. N .. "x," .. GOOD,
    ["an extension that must be known"] = "m=x," .. GOOD, ["one behind"] = GOOD .. ",m=x",
    ["a comma at its end"] = GOOD .. ",", ["two commas"] = GOOD:gsub(",", ",,", 1),
    ["a proof for a challenge"] = "v=rmF9pqV8S7suAoZWja4dJRkFsKQ=", ["a refusal"] = "e=unknown-user", ["base64 of it"] = core.base64(GOOD),
  } do
    it("takes no first message with " .. name, function()
      local _, step = scram.start("sha1", false, PENCIL, {}, N)
      local response, reason = step(message)
      assert.is_nil(response)
      assert.is_string(reason)
      assert.is_nil(reason:find("pencil", 1, true))
    end)
  end

  it("takes extensions behind the first message's three, and the most and the least count", function()
    for _, message in ipairs { GOOD .. ",x=y,t=0", GOOD, (GOOD:gsub("4096", "600000")) } do
      local _, step = scram.start("sha1", false, PENCIL, {}, N)
      assert.is_string((step(message)))
    end
  end)

  for name, message in pairs {
    ["another signature"] = "v=rmF9pqV8S7suAoZWja4dJRkFsKA=", ["half of it"] = "v=rmF9pqV8S7suAg==", ["none"] = "v=", ["nothing"] = "",
    ["something else"] = "x=rmF9pqV8S7suAoZWja4dJRkFsKQ=", ["no base64"] = "v=rmF9pqV8S7suAoZWja4dJRkFsKQ",
    ["an extension that must be known"] = "v=rmF9pqV8S7suAoZWja4dJRkFsKQ=,m=x",
    ["the first message again"] = EXAMPLES.sha1.first,
  } do
    it("takes no last message with " .. name, function()
      local example, step, check = begin "sha1"
      step(example.first)
      assert.is_nil((step(message)))
      assert.is_string(check())
      assert.is_string(check(example.signature))
    end)
  end

  it("draws a new nonce for each login", function()
    local one, other = scram.start("sha1", false, PENCIL, {}), scram.start("sha1", false, PENCIL, {})
    assert.is_true(#one:match("r=(.*)$") >= 24)
    assert.are_not.equal(one, other)
  end)

  it("escapes what has a meaning in the name", function()
    local initial = scram.start("sha1", false, { username = "a=b,c", password = "p" }, {}, "N")
    assert.are.equal("n,,n=a=3Db=2Cc,r=N", initial)
  end)

  describe("and the TLS connection:", function()
    local function binding(...)
      local kinds = { ... }
      return function(kind)
        for _, one in ipairs(kinds) do
          if one == kind then return "<" .. kind .. ">" end
        end
      end
    end
    local BOTH, END_POINT = binding("tls-server-end-point", "tls-exporter"), binding "tls-server-end-point"
    local WITH, WITHOUT = { ["SCRAM-SHA-1-PLUS"] = true, ["SCRAM-SHA-256"] = true }, { ["SCRAM-SHA-256"] = true }

    for name, case in pairs {
      ["bound to what TLS exports"] = { true, BOTH, WITH, "p=tls-exporter,,", "<tls-exporter>" },
      ["bound to the certificate where there is no more"] = { true, END_POINT, WITH, "p=tls-server-end-point,,",
        "<tls-server-end-point>" },
      ["nobody offers to bind"] = { false, BOTH, WITHOUT, "y,,", "" },
      ["we cannot bind"] = { false, nil, WITH, "n,,", "" },
      ["nobody can bind"] = { false, binding(), WITHOUT, "n,,", "" },
      ["we do not want to"] = { false, BOTH, WITH, "n,,", "" },
    } do
      it(name, function()
        local initial, step = scram.start("sha256", case[1], PENCIL, { offered = case[3], binding = case[2] }, N)
        assert.are.equal(case[4] .. "n=user,r=" .. N, initial)
        local last = step(GOOD)
        assert.are.equal("c=" .. core.base64(case[4] .. case[5]) .. ",r=" .. N .. "3rfc,p=", last:match("^.*,p="))
      end)
    end
  end)
end)

describe("saslprep", function()
  local libidn = select(2, tls.saslprep("\194\170")) ~= "libidn is not installed"

  it("leaves ASCII and the letters it knows as they are", function()
    for _, text in ipairs { "", "user", "pass word~!", "p\195\164ssw\195\182rd", "\208\159\208\176\209\128\208\190\208\187\209\140",
      "\227\131\145\227\130\185\227\131\175\227\131\188\227\131\137", "\229\175\134\231\160\129", "\235\185\132\235\176\128" } do
      assert.are.equal(text, saslprep.prepare(text))
    end
  end)

  it("refuses control characters and what is not UTF-8", function()
    for _, text in ipairs { "a\0", "\7", "\127", "\9", "\255", "p\228ss", "\192\128", "\224\131\128", "\237\160\128" } do
      local prepared, reason = saslprep.prepare(text)
      assert.is_nil(prepared)
      assert.is_string(reason)
    end
  end)

  it("knows what libidn makes of each letter that it leaves as it is", function()
    if not libidn then pending "NO LIBIDN: libidn12 is not installed" end
    local wrong, count = {}, 0
    local shared = tls.saslprep
    local asked
    tls.saslprep = function(text)
      asked = true
      return shared(text)
    end
    for code = 0x80, 0xFFFF do
      if code < 0xD800 or code > 0xDFFF then
        local letter = utf8(code)
        asked = false
        local prepared = saslprep.prepare(letter)
        if not asked then
          count = count + 1
          -- among others too: what follows must not be drawn to it
          if prepared ~= letter or shared(letter .. letter .. "e" .. letter) ~= letter .. letter .. "e" .. letter then
            wrong[#wrong + 1] = ("%04X"):format(code)
          end
        end
      end
    end
    tls.saslprep = shared
    assert.are.same({}, wrong)
    assert.is_true(count > 30000)
  end)

  for _, case in ipairs {
    -- RFC 4013 3
    { "I\194\173X", "IX" }, { "user", "user" }, { "USER", "USER" }, { "\194\170", "a" }, { "\226\133\168", "IX" }, { "\7", nil },
    { "\216\1671", nil },
    { "a\194\160b", "a b" }, { "a\204\136", "\195\164" }, { "\240\159\148\145", nil }, { "\239\183\186", nil, "long", 1000 },
    { "e\204\129", "\195\169\195\169", nil, 2 },
  } do
    it(("brings %q into its form, or refuses it"):format(case[1]), function()
      if not libidn then pending "NO LIBIDN: libidn12 is not installed" end
      local prepared, reason = saslprep.prepare(case[1]:rep(case[4] or 1))
      assert.are.equal(case[2], prepared)
      assert.is_truthy(not case[3] or reason:find(case[3], 1, true))
    end)
  end

  it("refuses, without libidn, what it does not know", function()
    local shared = tls.saslprep
    tls.saslprep = function() return nil, "libidn is not installed" end
    local prepared, reason = saslprep.prepare("\194\170")
    tls.saslprep = shared
    assert.is_nil(prepared)
    assert.is_truthy(reason:find("libidn", 1, true))
  end)
end)
