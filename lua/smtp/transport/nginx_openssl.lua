--- nginx_openssl: the OpenSSL that nginx runs on, by LuaJIT's FFI. Inside nginx it stands for smtp.tls, which would
--- bring an OpenSSL of its own into a process that has one.
---
--- Does: digests and signatures, by the names and with the results they have there; looks into TLS sessions of nginx.
--- Never: TLS itself, which is nginx's: context and mint say so.
--- Called by: transport/nginx, and whoever requires smtp.tls there.
local core = require "smtp.core"
local ffi = require "ffi"

local openssl = {}

-- Under names of our own: another module of the host may have declared the same functions in its own way.
local FUNCTIONS = {
  { "void *", "EVP_get_digestbyname", "const char *" },
  { "int", "EVP_Digest", "const char *, size_t, char *, unsigned *, const void *, void *" },
  { "char *", "HMAC", "const void *, const char *, int, const char *, size_t, char *, unsigned *" },
  { "int", "CRYPTO_memcmp", "const char *, const char *, size_t" },
  { "void *", "EVP_MD_CTX_new", "void" },
  { "void", "EVP_MD_CTX_free", "void *" },
  { "int", "EVP_MD_CTX_copy_ex", "void *, const void *" },
  { "int", "EVP_DigestInit_ex", "void *, const void *, void *" },
  { "int", "EVP_DigestUpdate", "void *, const char *, size_t" },
  { "int", "EVP_DigestFinal_ex", "void *, char *, unsigned *" },
  { "int", "EVP_DigestSignInit", "void *, void **, const void *, void *, void *" },
  { "int", "EVP_DigestSign", "void *, char *, size_t *, const char *, size_t" },
  { "void *", "BIO_new_mem_buf", "const char *, int" },
  { "void *", "BIO_new", "const void *" },
  { "const void *", "BIO_s_mem", "void" },
  { "int", "BIO_read", "void *, char *, int" },
  { "int", "BIO_free", "void *" },
  { "void *", "PEM_read_bio_PrivateKey", "void *, void **, void *, const char *" },
  { "void", "EVP_PKEY_free", "void *" },
  { "int", "EVP_PKEY_is_a", "const void *, const char *" },
  { "int", "EVP_PKEY_get_bits", "const void *" },
  { "int", "EVP_PKEY_get_size", "const void *" },
  { "void", "ERR_clear_error", "void" },
  { "unsigned long", "ERR_get_error", "void" },
  { "const char *", "ERR_reason_error_string", "unsigned long" },
  { "int", "SSL_SESSION_get_protocol_version", "const void *" },
  { "const void *", "SSL_SESSION_get0_cipher", "const void *" },
  { "const char *", "SSL_CIPHER_get_name", "const void *" },
  { "void *", "SSL_SESSION_get0_peer", "void *" },
  { "int", "X509_check_host", "void *, const char *, size_t, unsigned, char **" },
  { "int", "X509_check_ip_asc", "void *, const char *, unsigned" },
  { "void *", "X509_get_subject_name", "const void *" },
  { "void *", "X509_get_issuer_name", "const void *" },
  { "int", "X509_NAME_print_ex", "void *, const void *, int, unsigned long" },
  { "const void *", "X509_get0_notAfter", "const void *" },
  { "int", "ASN1_TIME_to_tm", "const void *, struct smtp_tm *" },
  { "void *", "X509_get_X509_PUBKEY", "const void *" },
  { "int", "i2d_X509_PUBKEY", "void *, char **" },
  { "void", "CRYPTO_free", "void *, const char *, int" },
  { "void *", "X509_get_ext_d2i", "const void *, int, int *, int *" },
  { "int", "OPENSSL_sk_num", "const void *" },
  { "void *", "OPENSSL_sk_value", "const void *, int" },
  { "void *", "GENERAL_NAME_get0_value", "const void *, int *" },
  { "void", "GENERAL_NAMES_free", "void *" },
  { "const char *", "ASN1_STRING_get0_data", "const void *" },
  { "int", "ASN1_STRING_length", "const void *" },
  { "const char *", "inet_ntop", "int, const char *, char *, unsigned" },
}

ffi.cdef "struct smtp_tm { int sec, min, hour, mday, mon, year, wday, yday, isdst; long offset; const char *zone; };"
for _, one in ipairs(FUNCTIONS) do
  ffi.cdef(('%s smtp_%s(%s) __asm__("%s");'):format(one[1], one[2], one[3], one[2]))
end

-- False where nginx holds an older OpenSSL, or one that nobody else can see.
local found = pcall(function()
  for _, one in ipairs(FUNCTIONS) do
    local _ = ffi.C["smtp_" .. one[2]]
  end
end)
local C = setmetatable({}, { __index = function(_, name) return ffi.C["smtp_" .. name] end })

local MISSING = "nginx's OpenSSL is not version 3 or later, or cannot be reached from LuaJIT"

local SIZES = { md5 = 16, sha1 = 20, sha256 = 32, sha512 = 64 }

-- The digest's description, how many octets it gives and room for them; or nil, reason.
local function algorithm(name)
  local size = SIZES[name] or error("no such digest: " .. tostring(name), 3)
  if not found then return nil, MISSING end
  local kind = C.EVP_get_digestbyname(name)
  if kind == nil then return nil, "this OpenSSL does not offer the algorithm" end
  return kind, size, ffi.new("char[?]", size)
end

local function result(ok, room, size)
  if ok then return ffi.string(room, size) end
  local code, memory = C.ERR_get_error(), false
  while code ~= 0 do
    local words = C.ERR_reason_error_string(code)
    memory = memory or words ~= nil and ffi.string(words) == "malloc failure"
    code = C.ERR_get_error()
  end
  return nil, memory and "out of memory" or "this OpenSSL does not offer the algorithm"
end

function openssl.hash(name, bytes)
  local kind, size, room = algorithm(name)
  if not kind then return nil, size end
  return result(C.EVP_Digest(bytes, #bytes, room, nil, kind, nil) == 1, room, size)
end

function openssl.hmac(name, key, bytes)
  local kind, size, room = algorithm(name)
  if not kind then return nil, size end
  return result(C.HMAC(kind, key, #key, bytes, #bytes, room, nil) ~= nil, room, size)
end

function openssl.same(a, b)
  return #a == #b and C.CRYPTO_memcmp(a, b, #a) == 0
end

function openssl.xor(a, b)
  local bit = require "bit"
  local bytes = {}
  for i = 1, #a do bytes[i] = string.char(bit.bxor(a:byte(i), b:byte(i))) end
  return table.concat(bytes)
end

function openssl.saslprep()
  return nil, "inside nginx there is no libidn"
end

local Hasher = {}
Hasher.__index = Hasher

function openssl.hasher(name)
  local kind, size, room = algorithm(name)
  if not kind then return nil, size end
  local ctx = ffi.gc(C.EVP_MD_CTX_new(), C.EVP_MD_CTX_free)
  if C.EVP_DigestInit_ex(ctx, kind, nil) ~= 1 then return result(false) end
  return setmetatable({ ctx = ctx, kind = kind, size = size, room = room }, Hasher)
end

function Hasher:update(bytes)
  C.EVP_DigestUpdate(self.ctx, bytes, #bytes)
end

function Hasher:finish()
  C.EVP_DigestFinal_ex(self.ctx, self.room, nil)
  C.EVP_DigestInit_ex(self.ctx, self.kind, nil)
  return ffi.string(self.room, self.size)
end

-- A hash that has taken in the password as HMAC wants it: padded to a block, each octet with `pad` (RFC 2104 2).
local function half(kind, block, size, pad)
  local bytes = openssl.xor(block .. ("\0"):rep(size - #block), string.char(pad):rep(size))
  local ctx = ffi.gc(C.EVP_MD_CTX_new(), C.EVP_MD_CTX_free)
  C.EVP_DigestInit_ex(ctx, kind, nil)
  C.EVP_DigestUpdate(ctx, bytes, size)
  return ctx
end

local Derivation = {}
Derivation.__index = Derivation

-- What HMAC makes of the bytes that the work hash has taken in after the inner half.
local function finish_hmac(self)
  C.EVP_DigestFinal_ex(self.work, self.last, nil)
  C.EVP_MD_CTX_copy_ex(self.work, self.outer)
  C.EVP_DigestUpdate(self.work, self.last, self.size)
  C.EVP_DigestFinal_ex(self.work, self.last, nil)
end

function openssl.pbkdf2(name, password, salt, iterations)
  local kind, size, room = algorithm(name)
  if not kind then return nil, size end
  local block = name == "sha512" and 128 or 64
  if #password > block then password = openssl.hash(name, password) end
  local self = setmetatable({
    inner = half(kind, password, block, 0x36), outer = half(kind, password, block, 0x5c), size = size, last = room,
    work = ffi.gc(C.EVP_MD_CTX_new(), C.EVP_MD_CTX_free), key = ffi.new("char[?]", size), left = iterations - 1,
  }, Derivation)
  C.EVP_MD_CTX_copy_ex(self.work, self.inner)
  C.EVP_DigestUpdate(self.work, salt, #salt)
  C.EVP_DigestUpdate(self.work, "\0\0\0\1", 4)
  finish_hmac(self)
  ffi.copy(self.key, self.last, size)
  return self
end

function Derivation:step(count)
  local bxor, last, key = require "bit".bxor, ffi.cast("int *", self.last), ffi.cast("int *", self.key)
  for _ = 1, math.min(count, self.left) do
    C.EVP_MD_CTX_copy_ex(self.work, self.inner)
    C.EVP_DigestUpdate(self.work, self.last, self.size)
    finish_hmac(self)
    for i = 0, self.size / 4 - 1 do key[i] = bxor(key[i], last[i]) end
  end
  self.left = self.left - math.min(count, self.left)
  return self.left == 0 and ffi.string(self.key, self.size)
end

local Signer = {}
Signer.__index = Signer

function openssl.signer(pem)
  if not found then return nil, MISSING end
  local bio = C.BIO_new_mem_buf(pem, #pem)
  -- an empty password: without one OpenSSL would ask on the terminal
  local key = C.PEM_read_bio_PrivateKey(bio, nil, nil, "")
  C.BIO_free(bio)
  C.ERR_clear_error()
  if key == nil then
    return nil, pem:find("ENCRYPTED", 1, true) and "the private key is locked with a password: give it without one"
      or "no PEM private key"
  end
  key = ffi.gc(key, C.EVP_PKEY_free)
  local rsa = C.EVP_PKEY_is_a(key, "RSA") == 1
  if not rsa and C.EVP_PKEY_is_a(key, "ED25519") ~= 1 then
    return nil, "a private key that is neither RSA nor Ed25519"
  elseif rsa and C.EVP_PKEY_get_bits(key) < 1024 then
    return nil, "an RSA key of fewer than 1024 bits, which receivers must not accept (RFC 8301)"
  elseif rsa and C.EVP_PKEY_get_bits(key) > 16384 then
    return nil, "an RSA key of more than 16384 bits"
  end
  return setmetatable({ key = key, rsa = rsa }, Signer)
end

function Signer:algorithm()
  return self.rsa and "rsa-sha256" or "ed25519-sha256"
end

function Signer:size()
  return C.EVP_PKEY_get_size(self.key)
end

function Signer:sign(bytes)
  local ctx = ffi.gc(C.EVP_MD_CTX_new(), C.EVP_MD_CTX_free)
  -- RFC 8463 3: what PureEdDSA signs is the digest
  local data = self.rsa and bytes or openssl.hash("sha256", bytes)
  local length = ffi.new("size_t[1]", self:size())
  local room = ffi.new("char[?]", self:size())
  local kind = self.rsa and C.EVP_get_digestbyname("sha256") or nil
  local ok = C.EVP_DigestSignInit(ctx, nil, kind, nil, self.key) == 1
    and C.EVP_DigestSign(ctx, room, length, data, #data) == 1
  C.ERR_clear_error()
  if not ok then return nil, "OpenSSL could not sign with the key" end
  return ffi.string(room, length[0])
end

local ELSEWHERE = "inside nginx TLS is nginx's own: only its sockets can be encrypted"

function openssl.context()
  return nil, ELSEWHERE
end

function openssl.mint()
  return nil, ELSEWHERE
end

-- What a TLS session shows ------------------------------------------------------------------------------------------

local VERSIONS = { [0x0301] = "TLSv1", [0x0302] = "TLSv1.1", [0x0303] = "TLSv1.2", [0x0304] = "TLSv1.3" }
local SUBJECT_ALT_NAME = 85
local DNS, ADDRESS = 2, 7
local SAN_ONLY = 0x24       -- X509_CHECK_FLAG_NEVER_CHECK_SUBJECT, _NO_PARTIAL_WILDCARDS
local RFC2253 = 0x1110317   -- XN_FLAG_RFC2253: what is beyond ASCII is escaped, some of it changes how the rest looks
local FIELD = 4096

local function escape(text)
  return (text:gsub("[^\33-\91%]\94-\126]", function(byte) return ("\\x%02X"):format(byte:byte()) end))
end

local function name_text(name)
  local bio, room = C.BIO_new(C.BIO_s_mem()), ffi.new("char[?]", FIELD)
  C.X509_NAME_print_ex(bio, name, 0, RFC2253)
  local length = C.BIO_read(bio, room, FIELD)
  C.BIO_free(bio)
  return length > 0 and ffi.string(room, length) or ""
end

local function time_text(time)
  local tm = ffi.new "struct smtp_tm"
  C.ASN1_TIME_to_tm(time, tm)
  return ("%04d-%02d-%02dT%02d:%02d:%02dZ"):format(tm.year + 1900, tm.mon + 1, tm.mday, tm.hour, tm.min, tm.sec)
end

local function address_text(bytes)
  local family = #bytes == 4 and 2 or ({ Linux = 10, OSX = 30 })[ffi.os] or 28
  local room = ffi.new "char[46]"
  return C.inet_ntop(family, bytes, room, 46) ~= nil and ffi.string(room) or "?"
end

local function host_names(certificate)
  local list, names = {}, C.X509_get_ext_d2i(certificate, SUBJECT_ALT_NAME, nil, nil)
  local kind = ffi.new "int[1]"
  for i = 0, C.OPENSSL_sk_num(names) - 1 do
    local value = C.GENERAL_NAME_get0_value(C.OPENSSL_sk_value(names, i), kind)
    if kind[0] == DNS or kind[0] == ADDRESS then
      local bytes = ffi.string(C.ASN1_STRING_get0_data(value), C.ASN1_STRING_length(value))
      list[#list + 1] = kind[0] == DNS and escape(bytes) or address_text(bytes)
    end
  end
  C.GENERAL_NAMES_free(names)
  return list
end

local function key_pin(certificate)
  local bytes = ffi.new "char *[1]"
  local length = C.i2d_X509_PUBKEY(C.X509_get_X509_PUBKEY(certificate), bytes)
  local pin = core.base64(openssl.hash("sha256", ffi.string(bytes[0], length)))
  C.CRYPTO_free(bytes[0], "", 0)
  return pin
end

--- What nginx's TLS session shows of the connection, and whether its certificate is for a name or address: by its
--- subjectAltName alone, without partial wildcards (RFC 6125 6.4).
---@param session ffi.cdata* of sslhandshake
---@param name string? host name or address literal; nil: not asked
---@return { version: string, cipher: string, resumed: boolean, peer: table? }? info
---@return boolean|string fits or, where there is no info, the reason
function openssl.inspect(session, name)
  if not found then return nil, MISSING end
  local certificate = C.SSL_SESSION_get0_peer(session)
  local info = {
    version = VERSIONS[C.SSL_SESSION_get_protocol_version(session)] or "SSLv3",
    cipher = ffi.string(C.SSL_CIPHER_get_name(C.SSL_SESSION_get0_cipher(session))),
    resumed = false,
  }
  local fits = false
  if certificate ~= nil then
    info.peer = {
      subject = name_text(C.X509_get_subject_name(certificate)),
      issuer = name_text(C.X509_get_issuer_name(certificate)),
      not_after = time_text(C.X509_get0_notAfter(certificate)),
      names = host_names(certificate),
      pin = key_pin(certificate),
    }
    fits = name ~= nil and (C.X509_check_ip_asc(certificate, name, 0) == 1
      or C.X509_check_host(certificate, name, #name, SAN_ONLY, nil) == 1)
  end
  C.ERR_clear_error()
  return info, fits
end

return openssl
