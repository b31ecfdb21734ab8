-- Streaming hashes and signatures of smtp.tls; the signatures are checked by the openssl command.
-- Of: tls/sign, tls/digest
local child = require "spec.support.child"
local pieces = require "spec.support.pieces"
local tls = require "smtp.tls"

local files

local function keep(bytes)
  local path = child.keep(bytes)
  files[#files + 1] = path
  return path
end

local function openssl(arguments, ...)
  local pipe = assert(io.popen("openssl " .. arguments:format(...) .. " 2>/dev/null"))
  local output = pipe:read("*a")
  pipe:close()
  return output
end

-- Garbage collected by hand: what __gc leaves must be safe to meet.
local function collect(object)
  local gc = debug.getmetatable(object).__gc
  gc(object)
  gc(object)
end

before_each(function() files = {} end)

after_each(function()
  for _, path in ipairs(files) do os.remove(path) end
end)

describe("tls.hasher", function()
  it("hashes what comes in pieces, and is ready for a new run then", function()
    local random, bytes = pieces.random(7), ("some bytes\r\n"):rep(1000)
    for _, algorithm in ipairs { "sha256", "sha512" } do
      local hasher = assert(tls.hasher(algorithm))
      assert.are.equal(tls.hash(algorithm, ""), hasher:finish())
      for _ = 1, 3 do
        for _, piece in ipairs(pieces.scatter(bytes, random, 500)) do hasher:update(piece) end
        assert.are.equal(tls.hash(algorithm, bytes), hasher:finish())
      end
    end
  end)

  it("knows its algorithms", function()
    assert.has_error(function() tls.hasher("sha3") end)
  end)

  it("says so when it is used after its end", function()
    local hasher = tls.hasher("sha256")
    collect(hasher)
    assert.has_error(function() hasher:update("a") end)
    assert.has_error(function() hasher:finish() end)
  end)
end)

describe("tls.signer", function()
  local BYTES = "what is signed\r\n\0\255"

  local function public(pem)
    return keep(openssl("pkey -in %s -pubout", keep(pem)))
  end

  for _, bits in ipairs { 1024, 1032, 2048 } do
    it("signs with RSA of " .. bits .. " bits", function()
      local pkcs8 = openssl("genpkey -algorithm rsa -pkeyopt rsa_keygen_bits:%d", bits)
      local pkcs1 = openssl("rsa -traditional -in %s", keep(pkcs8))
      assert.truthy(pkcs1:find("BEGIN RSA PRIVATE KEY", 1, true))
      local signer = assert(tls.signer(pkcs8))
      assert.are.equal("rsa-sha256", signer:algorithm())
      assert.are.equal(bits / 8, signer:size())
      local signature = signer:sign(BYTES)
      assert.are.equal(signer:size(), #signature)
      assert.are.equal("Verified OK\n", openssl("dgst -sha256 -verify %s -signature %s %s", public(pkcs8),
        keep(signature), keep(BYTES)))
      assert.are.equal(signature, assert(tls.signer(pkcs1)):sign(BYTES))
    end)
  end

  it("signs the SHA-256 digest with Ed25519", function()
    local pem = openssl("genpkey -algorithm ed25519")
    local signer = assert(tls.signer(pem))
    assert.are.equal("ed25519-sha256", signer:algorithm())
    assert.are.equal(64, signer:size())
    local signature = signer:sign(BYTES)
    assert.are.equal("Signature Verified Successfully\n", openssl("pkeyutl -verify -pubin -inkey %s -rawin -in %s "
      .. "-sigfile %s", public(pem), keep(tls.hash("sha256", BYTES)), keep(signature)))
    assert.are.equal(signature, signer:sign(BYTES))
    assert.are_not.equal(signature, signer:sign(""))
  end)

  it("finds the key among other things", function()
    local pem = openssl("genpkey -algorithm ed25519")
    local _, other = tls.mint { "localhost" }
    local certificate = tls.mint { "localhost" }
    assert.are.equal("ed25519-sha256", assert(tls.signer("a word before\n" .. certificate .. pem .. other)):algorithm())
    assert(tls.signer(pem:gsub("\n", "\r\n")))
  end)

  local NOT_A_KEY = "no PEM private key"
  local LOCKED = "the private key is locked with a password: give it without one"
  local OTHER = "a private key that is neither RSA nor Ed25519"
  local refused = {
    ["nothing"] = { function() return "" end, NOT_A_KEY },
    ["a path"] = { function() return "/etc/ssl/key.pem" end, NOT_A_KEY },
    ["a certificate"] = { function() return (tls.mint { "localhost" }) end, NOT_A_KEY },
    ["a public key"] = { function() return openssl("pkey -pubout -in %s", keep(openssl "genpkey -algorithm ed25519")) end, NOT_A_KEY },
    ["a key cut short"] = { function() return openssl("genpkey -algorithm ed25519"):sub(1, -40) end, NOT_A_KEY },
    ["a changed key"] = { function() return (openssl("genpkey -algorithm ed25519"):gsub("\nMC4", "\nMC5")) end, NOT_A_KEY },
    ["a locked PKCS #8 key"] = { function() return openssl "genpkey -algorithm ed25519 -aes256 -pass pass:secret" end, LOCKED },
    ["a locked PKCS #1 key"] = { function() return openssl "genrsa -traditional -aes128 -passout pass:secret 1024" end, LOCKED },
    ["a key locked with nothing"] = { function() return openssl "genpkey -algorithm ed25519 -aes256 -pass pass:" end, LOCKED },
    ["RSA of 1023 bits"] = { function() return openssl "genrsa 1023" end, "fewer than 1024 bits" },
    ["RSA of 512 bits"] = { function() return openssl "genrsa 512" end, "fewer than 1024 bits" },
    ["an RSA-PSS key"] = { function() return openssl "genpkey -algorithm rsa-pss -pkeyopt rsa_keygen_bits:1024" end, OTHER },
    ["an EC key"] = { function() return select(2, tls.mint { "localhost" }) end, OTHER },
    ["an Ed448 key"] = { function() return openssl "genpkey -algorithm ed448" end, OTHER },
    ["an X25519 key"] = { function() return openssl "genpkey -algorithm x25519" end, OTHER },
  }
  for name, case in pairs(refused) do
    it("refuses " .. name .. ", and shows none of it", function()
      local pem = case[1]()
      assert.is_true(pem ~= "" or name == "nothing")
      local signer, why = tls.signer(pem)
      assert.is_nil(signer)
      assert.truthy(why:find(case[2], 1, true), why)
      for at = 1, #pem - 11 do
        local part = pem:sub(at, at + 11)
        assert.is_nil(not part:find("PRIVATE", 1, true) and why:find(part, 1, true) or nil)
      end
    end)
  end

  it("never asks for a password on the terminal", function()
    local probe = assert(io.popen("command -v script"))
    local path = probe:read("*l")
    probe:close()
    if not path then pending("script is not installed") end
    local key = keep(openssl "genpkey -algorithm ed25519 -aes256 -pass pass:secret")
    local code = keep(("print(require 'smtp.tls'.signer(io.open(%q):read('*a')))"):format(key))
    -- a terminal of its own, and nobody who types; script itself leaks
    local _, output = child.beside(("env ASAN_OPTIONS=detect_leaks=0 script -qec '%s %s' /dev/null"):format(
      child.interpreter, code))
    assert.are.equal("nil\tthe private key is locked with a password: give it without one\r\n", output)
  end)

  it("says so when it is used after its end", function()
    local signer = assert(tls.signer(openssl "genpkey -algorithm ed25519"))
    collect(signer)
    for _, method in ipairs { "sign", "size", "algorithm" } do
      assert.has_error(function() signer[method](signer, "a") end)
    end
  end)
end)
