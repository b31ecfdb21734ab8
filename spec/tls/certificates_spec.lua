-- Which certificates a client takes and which it refuses: each minted for its one flaw by the openssl command, shown by a
-- server, judged by the client for "mail.example.test" unless a case says otherwise. RFC 5280, 6125, 9525.
-- Of: tls/anchors, tls/context, tls/fault, tls/peer
local core = require "smtp.core"
local tls = require "smtp.tls"
local transport = require "smtp.transport.tls"
local child = require "spec.support.child"
local lifetime = require "spec.support.lifetime"
local tls_peer = require "spec.support.tls_peer"

local NAME = "mail.example.test"
local MINE = "subjectAltName=DNS:" .. NAME

-- Authorities in the order they are made: its issuer (its own name: a root), extensions, and `days` (of life), `hash`.
local AUTHORITIES = {
  { "root", "root" },
  { "other", "other" },
  { "oldroot", "oldroot", days = -1 },
  { "middle", "root" },
  { "lapsed", "root", days = -1 },
  { "leaflike", "root", "basicConstraints=critical,CA:FALSE" },
  { "unsigning", "root", "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,cRLSign" },
  { "short", "root", "basicConstraints=critical,CA:TRUE,pathlen:0" },
  { "below", "short" },
  { "fenced", "root", "basicConstraints=critical,CA:TRUE\nnameConstraints=critical,permitted;DNS:example.org" },
  { "fitting", "root", "basicConstraints=critical,CA:TRUE\nnameConstraints=critical,permitted;DNS:example.test" },
  { "hashed", "root", hash = "sha1" },
}

local function many(count, last)
  local names = {}
  for i = 1, count do names[i] = ("DNS:host%d.example.net"):format(i) end
  names[#names + 1] = last
  return "subjectAltName=" .. table.concat(names, ",")
end

-- An extension of RFC 5280 4.2.1.6 with one dNSName of these bytes, some of which no tool would write.
local function dns_bytes(name)
  local der = string.char(48, #name + 2, 130, #name) .. name
  return "subjectAltName=DER:" .. der:gsub(".", function(byte) return ("%02x"):format(byte:byte()) end)
end

local NOT_MINE = "^the server's certificate is not for "
local NO_HOST = "names no host at all"

local function damage(der)
  return der:sub(1, -2) .. string.char((der:byte(-1) + 1) % 256)
end

-- Turns the extension 2.5.29.99 into a second subjectAltName: no tool makes two.
local function double(der)
  return (der:gsub("\6\3\85\29\99", "\6\3\85\29\17"))
end

-- `san` and `ext`: extension lines; `by`: the issuer (root); `chain`: what the server sends beside the leaf; `name`: whom
-- the client asks for; `trust`: its ca_file (root); `key`: the leaf's kind of key; `weak`: no OpenSSL at its usual level
-- loads it, so a server of another process shows it; `patch`: a change to its bytes once signed. Without `refused` the
-- client has to take it; else patterns of the reason and the hint.
local CASES = {
  { "good", san = MINE },
  { "good, through an intermediate", san = MINE, by = "middle", chain = "middle" },
  { "good, its root sent too", san = MINE, by = "middle", chain = "middle root" },
  { "good, with certificates that do not belong", san = MINE, chain = "other middle" },
  { "good, trusting the intermediate alone", san = MINE, by = "middle", trust = "middle" },
  { "good, trusting itself alone", san = MINE, trust = "leaf" },
  { "good, for both purposes", san = MINE, ext = "extendedKeyUsage=clientAuth,serverAuth" },
  { "good, a critical alternative name", san = "subjectAltName=critical,DNS:" .. NAME },
  { "good, an unknown extension that may be ignored", san = MINE, ext = "1.2.3.4=DER:0500" },
  { "good, Ed25519", san = MINE, key = "ed25519" },
  { "good, RSA-PSS", san = MINE, key = "pss" },
  { "good, RSA", san = MINE, key = "rsa" },
  { "good, P-384", san = MINE, key = "p384" },

  { "expired", san = MINE, days = -1, refused = { "^the server's certificate expired on 20%d%d%-", "renewed" } },
  { "not yet valid", san = MINE, from = "20990101000000Z",
    refused = { "^the server's certificate is not valid before 2099%-01%-01T00:00:00Z$", "clock" } },
  { "an intermediate expired", san = MINE, by = "lapsed", chain = "lapsed",
    refused = { '^the certificate "CN=lapsed" in the server\'s chain expired on 20', "renewed" } },
  { "the root expired", san = MINE, by = "oldroot", trust = "oldroot",
    refused = { '^the certificate "CN=oldroot" in the server\'s chain expired on 20', "renewed" } },

  { "self-signed", san = MINE, by = "self", refused = { "^the server's certificate is self%-signed and not trusted here$", "ca_file" } },
  { "of an authority that is not trusted", san = MINE, by = "other",
    refused = { "from an authority that is not trusted here: CN=other$", "ca_file" } },
  { "of an authority that is not trusted, root sent", san = MINE, by = "other", chain = "other",
    refused = { "from an authority that is not trusted here: CN=other$", "as ca_file$" } },
  { "the intermediate is missing", san = MINE, by = "middle",
    refused = { "from an authority that is not trusted here: CN=middle$", "intermediate authority, the server should send" } },
  { "the intermediate is no authority", san = MINE, by = "leaflike", chain = "leaflike", refused = { "not acceptable: invalid CA" } },
  { "the intermediate must not sign certificates", san = MINE, by = "unsigning", chain = "unsigning",
    refused = { "not acceptable: invalid CA" } },
  { "the path is longer than allowed", san = MINE, by = "below", chain = "below short",
    refused = { "not acceptable: path length constraint exceeded" } },
  { "name constraints violated", san = MINE, by = "fenced", chain = "fenced", refused = { "not acceptable: permitted subtree violation" } },
  { "name constraints kept", san = MINE, by = "fitting", chain = "fitting" },
  { "the signature is damaged", san = MINE, patch = damage, refused = { "not acceptable: certificate signature failure" } },

  { "for another name", san = "subjectAltName=DNS:mx.example.test", refused = { NOT_MINE .. NAME, "is for mx%.example%.test" } },
  { "a common name alone", ext = "", subject = "/CN=" .. NAME, refused = { NOT_MINE .. NAME, NO_HOST } },
  { "the common name right, the alternative name wrong", san = "subjectAltName=DNS:mx.example.test", subject = "/CN=" .. NAME,
    refused = { NOT_MINE .. NAME } },
  { "an e-mail address for a name", san = "subjectAltName=email:ada@" .. NAME, refused = { NOT_MINE .. NAME, NO_HOST } },
  { "the name as a URI", san = "subjectAltName=URI:smtp://" .. NAME .. "/", refused = { NOT_MINE .. NAME, NO_HOST } },
  { "a NUL behind the name", san = dns_bytes(NAME .. "\0.example.net"),
    refused = { NOT_MINE .. NAME, "mail%.example%.test\\x00%.example%.net" } },
  { "a NUL at the name's end", san = dns_bytes(NAME .. "\0"), refused = { NOT_MINE .. NAME } },
  { "a trailing dot in the certificate", san = MINE .. ".", refused = { NOT_MINE .. NAME } },
  { "a trailing dot in what is asked for", san = MINE, name = NAME .. "." },
  { "upper case in the certificate", san = "subjectAltName=DNS:MAIL.Example.TEST" },
  { "upper case in what is asked for", san = MINE, name = "MAIL.example.Test" },
  { "twice the same name", san = MINE .. ",DNS:" .. NAME },
  { "the extension twice", san = MINE, ext = "2.5.29.99=DER:300f820d782e6578616d706c652e6f7267", patch = double, trust = "leaf",
    refused = { NOT_MINE .. NAME, NO_HOST } },
  { "the last of very many names", san = many(1000, "DNS:" .. NAME) },
  { "none of very many names", san = many(1000), refused = { NOT_MINE .. NAME, " and %d+ more" } },

  { "a wildcard", san = "subjectAltName=DNS:*.example.test" },
  { "a wildcard for what is too deep", san = "subjectAltName=DNS:*.example.test", name = "a.mail.example.test", refused = { NOT_MINE } },
  { "a wildcard for its own domain", san = "subjectAltName=DNS:*.example.test", name = "example.test", refused = { NOT_MINE } },
  { "a wildcard with letters before", san = "subjectAltName=DNS:f*.example.test", name = "foo.example.test", refused = { NOT_MINE } },
  { "a wildcard with letters behind", san = "subjectAltName=DNS:*o.example.test", name = "foo.example.test", refused = { NOT_MINE } },
  { "a wildcard in the middle", san = "subjectAltName=DNS:mail.*.test", refused = { NOT_MINE } },
  { "two wildcards", san = "subjectAltName=DNS:*.*.test", refused = { NOT_MINE } },
  { "a wildcard for a whole top-level domain", san = "subjectAltName=DNS:*.test", name = "example.test", refused = { NOT_MINE } },
  { "a wildcard for everything", san = "subjectAltName=DNS:*", refused = { NOT_MINE } },
  { "an A-label", san = "subjectAltName=DNS:xn--bcher-kva.example.test", name = "xn--bcher-kva.example.test" },
  { "a wildcard under an A-label", san = "subjectAltName=DNS:*.xn--bcher-kva.test", name = "mail.xn--bcher-kva.test" },
  { "a wildcard within an A-label", san = "subjectAltName=DNS:xn--*.example.test", name = "xn--bcher-kva.example.test",
    refused = { NOT_MINE } },

  { "an address", san = "subjectAltName=IP:192.0.2.1", name = "192.0.2.1" },
  { "an IPv6 address", san = "subjectAltName=IP:2001:db8::1", name = "[2001:DB8:0::1]" },
  { "another address", san = "subjectAltName=IP:192.0.2.2", name = "192.0.2.1", refused = { NOT_MINE .. "192%.0%.2%.1$", "192%.0%.2%.2" } },
  { "an address as a host name", san = "subjectAltName=DNS:192.0.2.1", name = "192.0.2.1", refused = { NOT_MINE, "dNSName" } },
  { "an address as a wildcard", san = "subjectAltName=DNS:*.0.2.1", name = "192.0.2.1", refused = { NOT_MINE } },
  { "an address as a common name", subject = "/CN=192.0.2.1", name = "192.0.2.1", refused = { NOT_MINE } },

  { "for TLS clients", san = MINE, ext = "extendedKeyUsage=clientAuth", refused = { "is not meant for a TLS server" } },
  { "for signing certificates only", san = MINE, ext = "keyUsage=critical,keyCertSign", refused = { "is not meant for a TLS server" } },
  { "an authority's own", san = MINE, ext = "basicConstraints=critical,CA:TRUE" },
  { "an unknown critical extension", san = MINE, ext = "1.2.3.4=critical,DER:0500", refused = { "not acceptable: unhandled critical extension" } },
  { "RSA of 1024 bits", san = MINE, key = "weak", weak = true, refused = { "not acceptable: EE certificate key too weak" } },
  { "signed with SHA-1", san = MINE, hash = "sha1", weak = true, refused = { "signature digest algorithm too weak" } },
  { "an intermediate signed with SHA-1", san = MINE, by = "hashed", chain = "hashed", weak = true,
    refused = { "not acceptable: CA signature digest algorithm too weak" } },
}

local dir, aside -- where they are; where they are made

local function slurp(name)
  local text = child.read(dir .. "/" .. name)
  assert(text ~= "", name)
  return text
end

local KEYS = {
  ec = "EC -pkeyopt ec_paramgen_curve:P-256", p384 = "EC -pkeyopt ec_paramgen_curve:P-384", ed25519 = "ED25519",
  rsa = "RSA", pss = "RSA-PSS", weak = "RSA -pkeyopt rsa_keygen_bits:1024",
}

-- One script makes them all, from one file of extensions with a section each: once for every Lua, in a folder named after
-- both, which stands under its name only when it is whole.
local function mint_all()
  local script, extensions = { "set -e", 'cd "$1"' }, {}
  local function add(text, ...) script[#script + 1] = text:format(...) end
  local function sign(name, issuer, request, extension, options)
    extensions[#extensions + 1] = ("[%s]\n%s\n"):format(name, extension)
    local by = issuer == name and "-signkey " .. (options.signer or name .. ".key")
      or ("-CA %s.pem -CAkey %s.key -set_serial %d"):format(issuer, issuer, #extensions)
    add("openssl x509 -req -in %s.csr %s -subj '%s' %s -%s -extfile extensions -extensions %s -out %s.pem", request, by,
      options.subject or "/CN=" .. name, lifetime(options.days or 30), options.hash or "sha256", name, name)
  end
  for _, kind in ipairs { "ec", "p384", "ed25519", "rsa", "pss", "weak" } do -- in one order: the folder's name hangs on it
    add("openssl genpkey -algorithm %s -out %s.key", KEYS[kind], kind)
    add("openssl req -new -key %s.key -subj /CN=x -out %s.csr", kind, kind)
  end
  for _, one in ipairs(AUTHORITIES) do
    local name, issuer = one[1], one[2]
    add("openssl genpkey -algorithm %s -out %s.key", KEYS.ec, name)
    add("openssl req -new -key %s.key -subj /CN=%s -out %s.csr", name, name, name)
    sign(name, issuer, name, one[3] or "basicConstraints=critical,CA:TRUE", one)
  end
  for i, case in ipairs(CASES) do
    local key, issuer, name = case.key or "ec", case.by or "root", "leaf" .. i
    local extension = (case.san or "") .. "\n" .. (case.ext or "")
    if case.from then
      add("%s", "printf '[ca]\\ndefault_ca=d\\n[d]\\ndatabase=index\\nserial=serial\\nnew_certs_dir=.\\ndefault_md=sha256\\n"
        .. "policy=p\\n[p]\\ncommonName=supplied\\n' >ca.cnf; : >index; echo 7F >serial")
      extensions[#extensions + 1] = ("[%s]\n%s\n"):format(name, extension)
      add("openssl ca -batch -notext -config ca.cnf -cert %s.pem -keyfile %s.key -in %s.csr -startdate %s -enddate 21000101000000Z "
        .. "-extfile extensions -extensions %s -out %s.pem", issuer, issuer, key, case.from, name, name)
    else
      sign(name, issuer == "self" and name or issuer, key, extension,
        { subject = case.subject, days = case.days, hash = case.hash, signer = key .. ".key" })
    end
  end
  local text, made = table.concat(extensions), dir
  script = table.concat(script, "\n") .. "\n"
  dir = "build/certificates-" .. tls.hash("sha256", script .. text):gsub(".", function(c) return ("%02x"):format(c:byte()) end)
  local good = os.execute(("openssl x509 -in %s/root.pem -noout -checkend 86400 >/dev/null 2>&1"):format(dir))
  if good == true or good == 0 then return end
  child.write(made .. "/extensions", text)
  child.write(made .. "/mint.sh", script)
  local ok = os.execute(("sh %s/mint.sh %s >%s/log 2>&1"):format(made, made, made))
  assert(ok == true or ok == 0, child.read(made .. "/log"))
  -- another job's, made meanwhile, is as good
  os.execute(("(openssl x509 -in %s/root.pem -noout -checkend 86400 || mv -T %s %s.old; mv -T %s %s; rm -rf %s.old) >/dev/null 2>&1"):format(
    dir, dir, made, made, dir, made))
end

local function patched(pem, patch)
  local der = patch(core.unbase64((pem:match("%-%-\n(.-)\n%-%-"):gsub("\n", ""))))
  return "-----BEGIN CERTIFICATE-----\n" .. core.base64(der):gsub(("."):rep(64), "%0\n") .. "\n-----END CERTIFICATE-----\n"
end

-- true, or nil, reason and hint: judged over two engines in memory; and what the client keeps of it.
local function judge(context, name, cert, key, session)
  local client = assert(context:engine(name, session))
  local server = assert(assert(tls.context { server = true, cert = cert, key = key })):engine()
  for _ = 1, 6 do
    client:handshake()
    assert(server:feed(client:take()))
    server:handshake()
    assert(client:feed(server:take()))
  end
  local ok, _, reason, hint = client:handshake()
  return ok, reason, hint, ok and client:session()
end

-- The same over a connection to another process.
local function judge_far(context, name, cert, key)
  local path = child.keep(cert)
  local server = tls_peer.start(path, key, "1.2", {})
  local pipe, _, reason, hint = transport.wrap(server:connect(), { context = context, server_name = name }, core.now() + 60)
  if pipe then pipe:close() end
  server:finish()
  os.remove(path)
  return pipe and true, reason, hint
end

describe("a server's certificate", function()
  setup(function()
    dir = child.output "mkdir -p build && mktemp -d build/mint.XXXXXX":match "^[^\n]+"
    aside = dir
    mint_all()
  end)

  teardown(function() os.execute("rm -rf " .. aside) end)

  for i, case in ipairs(CASES) do
    it((case.refused and "is refused: " or "is taken: ") .. case[1], function()
      local leaf = slurp("leaf" .. i .. ".pem")
      if case.patch then leaf = patched(leaf, case.patch) end
      local cert = leaf
      for name in (case.chain or ""):gmatch("%S+") do cert = cert .. slurp(name .. ".pem") end
      local trust = case.trust == "leaf" and leaf or slurp((case.trust or "root") .. ".pem")
      local context = assert(tls.context { ca_file = trust })
      local ok, reason, hint, kept = (case.weak and judge_far or judge)(context, case.name or NAME, cert,
        dir .. "/" .. (case.key or "ec") .. ".key")
      if not case.weak then
        -- whatever the client remembers of this server, or of a good one
        local held = kept or case.trust ~= "leaf" and select(4, judge(context, NAME, slurp "leaf1.pem", dir .. "/ec.key")) or nil
        local again, why, advice = judge(context, case.name or NAME, cert, dir .. "/" .. (case.key or "ec") .. ".key", held)
        assert.are.same({ ok, reason, hint }, { again, why, advice })
      end
      if not case.refused then return assert.are.same({ true }, { ok, reason, hint }) end
      assert.is_nil(ok)
      assert.is_truthy(reason:find(case.refused[1]), reason)
      if case.refused[2] then assert.is_truthy(hint and hint:find(case.refused[2]), hint) end
    end)
  end
end)
