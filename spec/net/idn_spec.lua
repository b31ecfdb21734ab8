-- Of: wire/library
local core = require "smtp.core"

-- With libidn2, which is looked for at run time; without it the specs are pending.
local function with_library(title, run)
  it(title, function()
    if not core.idn "a.b" then
      return pending "libidn2 is not installed"
    end
    run()
  end)
end

describe("core.idn", function()
  local taken = {
    -- as written, A-labels, U-labels
    { "m\195\188nchen.de", "xn--mnchen-3ya.de", "m\195\188nchen.de" },
    { "B\195\188cher.Example", "xn--bcher-kva.example", "b\195\188cher.example" },
    { "bu\204\136cher.example", "xn--bcher-kva.example", "b\195\188cher.example" }, -- u and a combining diaeresis
    { "stra\195\159e.de", "xn--strae-oqa.de", "stra\195\159e.de" }, -- not "strasse.de"
    { "fa\195\159.de", "xn--fa-hia.de", "fa\195\159.de" },
    { "\195\132\195\150\195\156.de", "xn--4ca0bs.de", "\195\164\195\182\195\188.de" },
    { "\230\151\165\230\156\172\232\170\158.jp", "xn--wgv71a119e.jp", "\230\151\165\230\156\172\232\170\158.jp" },
    { "\230\151\165\227\128\130jp", "xn--wgv.jp", "\230\151\165.jp" }, -- the ideographic full stop
    { "\206\178\207\140\206\187\206\191\207\130.com", "xn--nxasmm1c.com", "\206\178\207\140\206\187\206\191\207\130.com" }, -- final sigma
    { "\206\178\207\140\206\187\206\191\207\131.com", "xn--nxasmq6b.com", "\206\178\207\140\206\187\206\191\207\131.com" },
    { "\217\133\216\171\216\167\217\132.\216\165\216\174\216\170\216\168\216\167\216\177",
      "xn--mgbh0fb.xn--kgbechtv", "\217\133\216\171\216\167\217\132.\216\165\216\174\216\170\216\168\216\167\216\177" },
    { "xn--mnchen-3ya.\195\188", "xn--mnchen-3ya.xn--tda", "m\195\188nchen.\195\188" },
    { "example.org", "example.org", "example.org" },
    { "\239\188\161.de", "a.de", "a.de" }, -- fullwidth A
  }
  for _, case in ipairs(taken) do
    with_library("converts to " .. case[2], function()
      assert.are.same({ case[2], case[3] }, { core.idn(case[1]) })
    end)
  end

  with_library("drops nothing that a host name may not hold", function()
    for _, stranger in ipairs { "/", "@", "_", " ", ">", "\239\188\143", "\239\188\160", "\226\132\128", "\239\188\191" } do
      local ascii = core.idn("a" .. stranger .. "\195\188.de")
      assert.are_not.equal("xn--a-eha.de", ascii)
      assert.is_true(not ascii or ascii:find("_", 1, true) ~= nil, stranger)
    end
  end)

  with_library("refuses what IDNA refuses, in words", function()
    for _, domain in ipairs {
      "\195\188\226\128\168", "a\226\128\141b", "\226\152\131.net", "\240\159\152\128.la", -- U+2028, joiner, snowman, a face
      "-\195\188", "\195\188-", "\204\136a", "ab--c\195\188", "xn--zzzz.\195\188", "xn--\195\188",
      "\217\133a.de", "\195", "\237\160\128", ("\195\188"):rep(60), ("\195\188."):rep(200) .. "b",
    } do
      local ascii, why = core.idn(domain)
      assert.is_nil(ascii, domain)
      assert.is_truthy(why:find("%a+ %a+"), why)
    end
  end)

  with_library("takes a label of 63 octets, not of 64", function()
    local day = "\230\151\165"
    local most
    for n = 1, 63 do
      local ascii = core.idn(day:rep(n))
      if ascii then
        most = ascii
        assert.is_true(#ascii <= 63)
      end
    end
    assert.are.equal(63, #most)
  end)

  it("refuses what is too long to be worth a look, and a NUL", function()
    assert.are.same({ nil, "too long" }, { core.idn(("\195\188"):rep(512)) })
    assert.are.same({ nil, "too long" }, { core.idn(("a"):rep(2 ^ 20)) })
    assert.are.same({ nil, "a NUL in it" }, { core.idn "a\0\195\188" })
    assert.has_error(function() core.idn(nil) end)
  end)

  with_library("gives the same ten thousand times", function()
    for _ = 1, 10000 do
      assert(core.idn "b\195\188cher.example" == "xn--bcher-kva.example")
      assert(core.idn "\226\152\131" == nil)
    end
  end)

  -- The codec of Python's standard library is IDNA 2003: the same wherever nothing was mapped away since.
  with_library("agrees with another program", function()
    local domains = { "m\195\188nchen.de", "\195\132\195\150\195\156.example", "\230\151\165\230\156\172\232\170\158.jp",
      "\208\191\209\128\208\184\208\188\208\181\209\128.test", "ni\195\177o.example", "\224\164\173\224\164\190\224\164\176\224\164\164.test" }
    local pipe = assert(io.popen("env -u LD_PRELOAD /usr/bin/python3 -c 'import sys\nfor d in sys.argv[1:]: print(d.encode(\"idna\").decode())' "
      .. table.concat(domains, " ")))
    for _, domain in ipairs(domains) do
      assert.are.equal(pipe:read("*l"), (core.idn(domain)))
    end
    pipe:close()
  end)
end)
