-- Of: tls/engine, tls/binding
local core = require "smtp.core"
local tls = require "smtp.tls"
local child = require "spec.support.child"
local lifetime = require "spec.support.lifetime"
local tls_peer = require "spec.support.tls_peer"

local function hex(bytes)
  return (bytes:gsub(".", function(c) return ("%02x"):format(c:byte()) end))
end

-- Files and certificates made with the openssl command, in one directory that goes away at the end.
local dir

-- "@" stands for the directory, "$1" and so on for what follows.
local function sh(command, ...)
  local words = { ... }
  command = command:gsub("%$(%d)", function(n) return words[tonumber(n)] end):gsub("@", dir .. "/")
  local ok = os.execute("(" .. command .. ") >>" .. dir .. "/log 2>&1")
  assert(ok == true or ok == 0, command)
end

local NEW_KEY = "openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -utf8 -subj '$2' "
  .. "-keyout @$1.key -out @$1.csr"

local function slurp(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read("*a")
  file:close()
  return text
end

local function save(name, text)
  local file = assert(io.open(dir .. "/" .. name, "wb"))
  file:write(text)
  file:close()
  return dir .. "/" .. name
end

-- A self-signed certificate by the openssl command: subject, SANs, days of life, more extension lines.
local function forge(name, subject, san, days, extra)
  local extensions = san and "subjectAltName=" .. san or "basicConstraints=critical,CA:TRUE"
  save(name .. ".ext", extensions .. "\n" .. (extra or ""))
  sh(NEW_KEY, name, subject)
  sh("openssl x509 -req -in @$1.csr -signkey @$1.key $2 -extfile @$1.ext -out @$1.pem", name, lifetime(days or 30))
  return slurp(dir .. "/" .. name .. ".pem"), slurp(dir .. "/" .. name .. ".key")
end

-- A certificate issued by the authority `ca` that forge made.
local function issue(name, ca, subject, extensions)
  save(name .. ".ext", extensions)
  sh(NEW_KEY, name, subject)
  sh("openssl x509 -req -in @$1.csr -CA @$2.pem -CAkey @$2.key -set_serial 7 -extfile @$1.ext -out @$1.pem", name, ca)
  return slurp(dir .. "/" .. name .. ".pem"), slurp(dir .. "/" .. name .. ".key")
end

-- Carries the ciphertext one side has to the other, `step` bytes at a time with a try at the handshake after each.
local function carry(from, to, step)
  local bytes = from:take()
  if not step then
    assert(to:feed(bytes))
  else
    for at = 1, #bytes, step do
      assert(to:feed(bytes:sub(at, at + step - 1)))
      to:handshake()
    end
  end
  return #bytes
end

-- What a call to an engine gives, without the kind: ok, text, hint.
local function told(ok, kind, text, hint)
  if ok then return ok end
  return nil, text or kind, hint
end

-- Runs both handshakes to their end: the results of each, as { ok, text, hint }.
local function shake(client, server, step)
  repeat
    client:handshake()
    local moved = carry(client, server, step)
    server:handshake()
    moved = moved + carry(server, client, step)
  until moved == 0
  return { told(client:handshake()) }, { told(server:handshake()) }
end

local function read_all(engine)
  local parts = {}
  while true do
    local bytes, why = engine:read()
    if not bytes then
      return table.concat(parts), why
    end
    parts[#parts + 1] = bytes
  end
end

local function pair(options)
  local cert, key = options.cert, options.key
  if not cert then
    cert, key = tls.mint(options.names or { "mail.example.org" })
  end
  local server_context = assert(tls.context { server = true, cert = cert, key = key, min = options.server_min,
    max = options.server_max, ca_file = options.client_ca })
  local ca = options.ca_file
  if ca == nil then
    ca = cert
  end
  local client_context = assert(tls.context { verify = options.verify, ca_file = ca or nil, ca_path = options.ca_path,
    min = options.min, max = options.max, cert = options.client_cert, key = options.client_key })
  local name = options.name
  if name == nil then
    name = "mail.example.org"
  end
  return assert(client_context:engine(name or nil)), assert(server_context:engine())
end

-- Client result of a handshake with these options: true, or text and hint.
local function try(options)
  local client, server = pair(options)
  local c, s = shake(client, server)
  return c[1], c[2], c[3], s
end

describe("smtp.tls", function()
  setup(function()
    dir = os.tmpname()
    os.remove(dir)
    assert(os.execute("mkdir " .. dir))
  end)

  teardown(function()
    os.execute("rm -r " .. dir)
  end)

  for _, version in ipairs { "1.2", "1.3" } do
    describe("TLS " .. version, function()
      it("shakes hands and says what came of it", function()
        local client, server = pair { names = { "mail.example.org", "10.0.0.9", "::1" }, max = version }
        assert.are.equal(nil, (client:info().peer))
        local c, s = shake(client, server)
        assert.are.same({ true }, c)
        assert.are.same({ true }, s)
        local info = client:info()
        assert.are.equal("TLSv" .. version, info.version)
        assert.are.equal("string", type(info.cipher))
        assert.is_false(info.resumed)
        assert.are.equal("CN=mail.example.org", info.peer.subject)
        assert.are.equal("CN=mail.example.org", info.peer.issuer)
        assert.are.same({ "mail.example.org", "10.0.0.9", "::1" }, info.peer.names)
        assert.is_truthy(info.peer.not_after:find("^%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%dZ$"))
        assert.are.equal(nil, server:info().peer)
      end)

      it("takes the handshake a byte at a time", function()
        local client, server = pair { max = version }
        local c, s = shake(client, server, 1)
        assert.are.same({ true }, c)
        assert.are.same({ true }, s)
        assert(client:write("EHLO client.example.org\r\n"))
        carry(client, server, 1)
        assert.are.equal("EHLO client.example.org\r\n", (read_all(server)))
      end)

      it("carries a megabyte each way", function()
        local client, server = pair { max = version }
        shake(client, server)
        local block = {}
        for i = 1, 4096 do
          block[i] = ("%08d"):format(i) .. ("x"):rep(247) .. "\n"
        end
        local mega = table.concat(block)
        assert.are.equal(1048576, #mega)
        for _, way in ipairs { { client, server }, { server, client } } do
          assert(way[1]:write(mega))
          local wire = way[1]:take()
          assert.are.equal("", way[1]:take())
          assert.is_true(#wire > #mega)
          local got = {}
          for from = 1, #wire, 60000 do
            assert(way[2]:feed(wire:sub(from, from + 59999)))
            got[#got + 1] = read_all(way[2])
          end
          assert.is_true(table.concat(got) == mega)
        end
      end)

      it("tells close_notify from a cut", function()
        local client, server = pair { max = version }
        shake(client, server)
        assert(server:write("250 ok\r\n"))
        server:shutdown()
        server:shutdown()
        assert(client:feed(server:take()))
        client:eof()
        local text, why = read_all(client)
        assert.are.equal("250 ok\r\n", text)
        assert.are.equal("closed", why)
        assert.are.same({ nil, "closed", "the peer closed the connection" }, { client:read() })

        client, server = pair { max = version }
        shake(client, server)
        assert(server:write("250 ok\r\n"))
        assert(client:feed(server:take()))
        client:eof()
        text, why = read_all(client)
        assert.are.equal("250 ok\r\n", text)
        assert.are.equal("closed", why)
        assert.are.same({ nil, "closed", "connection cut without TLS close_notify" }, { client:read() })
        assert.are.same({ nil, "closed", "connection cut without TLS close_notify" }, { client:write("QUIT\r\n") })
      end)

      it("notices a record that was tampered with", function()
        local client, server = pair { max = version }
        shake(client, server)
        assert(client:write("MAIL FROM:<a@example.org>\r\n"))
        local wire = client:take()
        local last = (wire:byte(-1) + 1) % 256
        assert(server:feed(wire:sub(1, -2) .. string.char(last)))
        local bytes, kind, text = server:read()
        assert.are.equal(nil, bytes)
        assert.are.equal("tls", kind)
        assert.is_truthy(text:find("^TLS failed: "))
        assert(client:feed(server:take()))
        assert.is_truthy(select(3, client:read()):find("the server ended TLS: bad record mac", 1, true))
      end)
    end)
  end

  it("says again until there are bytes", function()
    local client, server = pair {}
    assert.are.same({ nil, "again" }, { server:handshake() })
    assert.are.same({ nil, "again" }, { client:handshake() })
    assert.are.same({ nil, "tls", "the TLS handshake is not over" }, { client:read() })
    assert.are.same({ nil, "tls", "the TLS handshake is not over" }, { client:write("x") })
    shake(client, server)
    assert.are.same({ nil, "again" }, { client:read() })
    assert.is_true(client:write(""))
    assert.are.equal("", client:take())
    assert.is_true(client:handshake())
  end)

  it("sends the name as SNI, but never an address", function()
    local cert = tls.mint { "mail.example.org", "192.0.2.1" }
    local context = assert(tls.context { ca_file = cert })
    local engine = context:engine("Mail.Example.ORG.")
    engine:handshake()
    local hello = engine:take()
    assert.is_truthy(hello:find("Mail.Example.ORG", 1, true))
    assert.is_nil(hello:find("Mail.Example.ORG.", 1, true))
    for _, name in ipairs { "192.0.2.1", "::1", "[2001:db8::1]" } do
      engine = context:engine(name)
      engine:handshake()
      hello = engine:take()
      assert.is_nil(hello:find((name:gsub("[%[%]]", "")), 1, true))
    end
  end)

  it("has no more than a cap of bytes waiting", function()
    local client, server = pair {}
    shake(client, server)
    local piece = ("x"):rep(65536)
    local fed, why
    for _ = 1, 17 do
      fed, _, why = client:feed(piece)
    end
    assert.are.equal(nil, fed)
    assert.is_truthy(why:find("more bytes"))
  end)

  it("survives the collection of its context", function()
    local client, server = pair {}
    collectgarbage()
    collectgarbage()
    assert.are.same({ true }, (shake(client, server)))
    assert.are.equal("locked", getmetatable(client))
  end)

  describe("the server's name", function()
    local function accepts(names, name)
      return (try { names = names, name = name })
    end

    it("may be any of the certificate's", function()
      local names = { "mail.example.org", "mx.example.org", "192.0.2.1", "2001:db8::1" }
      for _, name in ipairs { "mail.example.org", "MX.example.ORG", "mx.example.org.", "192.0.2.1", "2001:db8::1",
        "[2001:db8::1]", "[192.0.2.1]", "2001:DB8:0:0:0:0:0:1" } do
        assert.are.equal(true, accepts(names, name), name)
      end
    end)

    it("is refused when the certificate has others, which the hint names", function()
      local ok, text, hint = try { names = { "mx1.example.net", "mx2.example.net", "192.0.2.7" } }
      assert.are.equal(nil, ok)
      assert.are.equal("the server's certificate is not for mail.example.org", text)
      assert.is_truthy(hint:find("mx1.example.net, mx2.example.net, 192.0.2.7", 1, true))
      assert.is_truthy(hint:find("server_name", 1, true))
    end)

    it("counts the names that do not fit in the hint", function()
      local names = {}
      for i = 1, 100 do
        names[i] = ("host%03d.of.some.length.example.net"):format(i)
      end
      local ok, text, hint = try { names = names }
      assert.are.equal(nil, ok)
      assert.is_truthy(text:find("is not for mail.example.org", 1, true))
      assert.is_truthy(hint:find("host001.of.some.length.example.net, ", 1, true))
      assert.is_truthy(hint:find(" and %d+ more"))
    end)

    it("matches a wildcard for one whole label", function()
      assert.are.equal(true, accepts({ "*.example.org" }, "mail.example.org"))
      for _, name in ipairs { "example.org", "a.b.example.org", "mail.example.net" } do
        assert.are.equal(nil, accepts({ "*.example.org" }, name), name)
      end
      for _, pattern in ipairs { "m*.example.org", "*l.example.org", "m*l.example.org", "mail.*.org", "*" } do
        assert.are.equal(nil, accepts({ pattern }, "mail.example.org"), pattern)
      end
    end)

    it("as an address needs an address in the certificate, and the other way round", function()
      assert.are.equal(nil, accepts({ "example.org" }, "192.0.2.1"))
      assert.are.equal(nil, accepts({ "192.0.2.2" }, "192.0.2.1"))
      local cert, key = forge("dnsip", "/CN=x", "DNS:192.0.2.1")
      local ok, text = try { cert = cert, key = key, name = "192.0.2.1" }
      assert.are.equal(nil, ok)
      assert.are.equal("the server's certificate is not for 192.0.2.1", text)
    end)

    it("does not count in a common name", function()
      local cert, key = forge("cn", "/CN=mail.example.org", nil)
      local ok, text, hint = try { cert = cert, key = key }
      assert.are.equal(nil, ok)
      assert.are.equal("the server's certificate is not for mail.example.org", text)
      assert.is_truthy(hint:find("names no host at all", 1, true))
    end)

    it("is not one that ends early in the certificate", function()
      local san = "mail.example.org\0.example.net"
      local der = string.char(48, #san + 2, 130, #san) .. san
      save("nul.ext", "subjectAltName=DER:" .. hex(der) .. "\n")
      sh(NEW_KEY, "nul", "/CN=nul")
      sh "openssl x509 -req -in @nul.csr -signkey @nul.key -extfile @nul.ext -out @nul.pem"
      local ok, text, hint = try { cert = dir .. "/nul.pem", key = dir .. "/nul.key" }
      assert.are.equal(nil, ok)
      assert.are.equal("the server's certificate is not for mail.example.org", text)
      assert.is_truthy(hint:find("mail.example.org\\x00.example.net", 1, true))
    end)

    it("with a byte no name has is refused", function()
      local cert = tls.mint { "mail.example.org" }
      local context = assert(tls.context { ca_file = cert })
      for _, name in ipairs { "mail.example.org\0.example.net", "mail.example.org\0", "\0", "", "a b", "x\r\ny",
        "m\195\164il.example.org", ".example.org", ("a"):rep(300), "." } do
        local engine, text = context:engine(name)
        assert.are.equal(nil, engine, name)
        assert.is_truthy(text:find("the server name", 1, true))
      end
    end)

    it("is needed to verify, and only then", function()
      local engine, text = assert(tls.context {}):engine()
      assert.are.equal(nil, engine)
      assert.is_truthy(text:find("a server name is needed", 1, true))
      assert.is_truthy(assert(tls.context { verify = false }):engine())
    end)
  end)

  describe("trust", function()
    it("is not given to a self-signed certificate", function()
      local other = tls.mint { "mail.example.org" }
      local ok, text, hint, server = try { ca_file = other }
      assert.are.equal(nil, ok)
      assert.are.equal("the server's certificate is self-signed and not trusted here", text)
      assert.is_truthy(hint:find("ca_file", 1, true))
      -- the alert reached the server
      assert.is_truthy(server[2]:find("the client refused the TLS handshake: ", 1, true))
      assert.is_truthy(server[3]:find("does not trust", 1, true))
    end)

    it("is the system's by default, which knows no minted certificate", function()
      local ok, text = try { ca_file = false }
      assert.are.equal(nil, ok)
      assert.is_truthy(text:find("not trusted here", 1, true))
    end)

    it("is switched off by verify = false, and by nothing else", function()
      assert.are.equal(true, (try { ca_file = false, verify = false }))
      assert.are.equal(true, (try { ca_file = false, verify = false, name = false }))
      assert.are.equal(true, (try { ca_file = false, verify = false, name = "wrong.example.net" }))
      assert.has_error(function() tls.context { verify = 0 } end)
      assert.has_error(function() tls.context { verify = "false" } end)
    end)

    it("finds an authority among others of its name, however that is written", function()
      sh(NEW_KEY, "name", "/CN=x")
      local function root(key, strings, organization, name)
        save("root.cnf", ("[req]\ndistinguished_name=dn\nx509_extensions=ca\nstring_mask=%s\nprompt=no\nutf8=yes\n"
          .. "[dn]\nO=%s\nCN=%s\n[ca]\nbasicConstraints=critical,CA:TRUE\n"):format(strings, organization, name))
        sh("openssl req -x509 -new -key @$1.key -config @root.cnf -days 30 -out @root.pem", key)
        return slurp(dir .. "/root.pem")
      end
      forge("namesake", "/CN=x")
      local namesake = root("namesake", "utf8only", "Bücher & Söhne", "Example Root 1")
      save("name.pem", root("name", "utf8only", "Bücher & Söhne", "Example Root 1"))
      local cert, key = issue("named", "name", "/CN=x", "subjectAltName=DNS:mail.example.org")
      for _, same in ipairs {
        root("name", "utf8only", "Bücher & Söhne", "Example Root 1"),
        root("name", "default", "Bücher & Söhne", "example root 1"),
        root("name", "MASK:0x800", "BüCHER  & SöHNE", "EXAMPLE   root 1"), -- BMPString: two octets a letter
        root("name", "MASK:0x100", "Bücher & Söhne ", "Example Root 1"), -- UniversalString: four
      } do
        local bundle = "Some words.\n" .. namesake .. key .. same .. namesake
        assert.is_true((try { cert = cert, key = key, ca_file = bundle }))
      end
      local ok, text = try { cert = cert, key = key, ca_file = namesake .. root("name", "utf8only", "Bücher & Söhne", "Example Root") }
      assert.is_nil(ok)
      assert.is_string(text)
    end)

    it("goes through an authority: path, PEM text, directory, intermediate", function()
      local ca = forge("ca", "/CN=Example Authority", nil)
      local cert, key = issue("leaf", "ca", "/CN=leaf", "subjectAltName=DNS:mail.example.org\n")
      assert.are.equal(true, (try { cert = cert, key = key, ca_file = ca }))
      assert.are.equal(true, (try { cert = dir .. "/leaf.pem", key = dir .. "/leaf.key", ca_file = dir .. "/ca.pem" }))
      assert.are.equal(true, (try { cert = cert, key = key, ca_file = tls.mint { "x.example" } .. ca }))
      sh "mkdir @hashed && cp @ca.pem @hashed && openssl rehash @hashed"
      assert.are.equal(true, (try { cert = cert, key = key, ca_file = false, ca_path = dir .. "/hashed" }))
      local ok, text, hint = try { cert = cert, key = key, ca_file = (tls.mint { "mail.example.org" }) }
      assert.are.equal(nil, ok)
      assert.are.equal("the server's certificate comes from an authority that is not trusted here: "
        .. "CN=Example Authority", text)
      assert.is_truthy(hint:find("ca_file", 1, true))

      issue("middle", "ca", "/CN=Example Intermediate", "basicConstraints=critical,CA:TRUE\n")
      local middle = slurp(dir .. "/middle.pem")
      cert, key = issue("low", "middle", "/CN=low", "subjectAltName=DNS:mail.example.org\n")
      assert.are.equal(true, (try { cert = cert .. middle, key = key, ca_file = ca }))
      assert.are.equal(true, (try { cert = cert, key = key, ca_file = middle }))
      assert.are.equal(nil, (try { cert = cert, key = key, ca_file = ca }))
    end)

    it("ends with the certificate's dates", function()
      local cert, key = forge("old", "/CN=old", "DNS:mail.example.org", -1)
      local ok, text, hint = try { cert = cert, key = key }
      assert.are.equal(nil, ok)
      assert.is_truthy(text:find("^the server's certificate expired on %d%d%d%d%-%d%d%-%d%dT[%d:]+Z$"), text)
      assert.is_truthy(hint:find("renewed", 1, true))
      forge("oldca", "/CN=Old Authority", nil, -1)
      cert, key = issue("young", "oldca", "/CN=young", "subjectAltName=DNS:mail.example.org\n")
      ok, text = try { cert = cert, key = key, ca_file = slurp(dir .. "/oldca.pem") }
      assert.are.equal(nil, ok)
      assert.is_truthy(text:find('^the certificate "CN=Old Authority" in the server\'s chain expired on %d'), text)
    end)

    it("starts with the certificate's dates", function()
      forge("dates", "/CN=Dates", nil)
      save("index.txt", "")
      save("serial", "01\n")
      save("ca.cnf", ("[ca]\ndefault_ca=d\n[d]\ndatabase=@index.txt\nserial=@serial\nnew_certs_dir=@\n"
        .. "default_md=sha256\npolicy=p\nx509_extensions=e\n[p]\ncommonName=supplied\n"
        .. "[e]\nsubjectAltName=DNS:mail.example.org\n"):gsub("@", dir .. "/"))
      sh(NEW_KEY, "soon", "/CN=soon")
      sh("openssl ca -batch -notext -config @ca.cnf -cert @dates.pem -keyfile @dates.key -in @soon.csr -out @soon.pem "
        .. "-startdate 20990101000000Z -enddate 21000101000000Z")
      local ok, text, hint = try { cert = dir .. "/soon.pem", key = dir .. "/soon.key", ca_file = dir .. "/dates.pem" }
      assert.are.equal(nil, ok)
      assert.are.equal("the server's certificate is not valid before 2099-01-01T00:00:00Z", text)
      assert.is_truthy(hint:find("clock", 1, true))
    end)

    it("cannot make an error speak to a terminal", function()
      -- U+009B is CSI to some terminals, and UTF-8 like any other
      forge("evil", "/CN=evil\194\155 31m\194\133 next", nil, 30)
      local cert, key = issue("victim", "evil", "/CN=victim", "subjectAltName=DNS:mail.example.org\n")
      local ok, text = try { cert = cert, key = key, ca_file = (tls.mint { "mail.example.org" }) }
      assert.are.equal(nil, ok)
      assert.is_truthy(text:find("CN=evil\\C2\\9B 31m\\C2\\85 next", 1, true), text)
    end)

    it("is for TLS servers only", function()
      local cert, key = forge("purpose", "/CN=p", "DNS:mail.example.org", 30, "extendedKeyUsage=codeSigning\n")
      local ok, text = try { cert = cert, key = key }
      assert.are.equal(nil, ok)
      assert.are.equal("the server's certificate is not meant for a TLS server", text)
    end)

    it("is not given to a weak key", function()
      sh "openssl req -x509 -newkey rsa:1024 -nodes -subj /CN=weak -keyout @weak.key -out @weak.pem"
      local cert, key = issue("strong", "weak", "/CN=strong", "subjectAltName=DNS:mail.example.org\n")
      local ok, text = try { cert = cert, key = key, ca_file = dir .. "/weak.pem" }
      assert.are.equal(nil, ok)
      assert.are.equal("the server's certificate is not acceptable: CA certificate key too weak", text)
    end)

    it("does not let a certificate forge lines", function()
      local cert, key = forge("nasty", "/CN=a\\nb: c\\x01", "DNS:x.example")
      local client, server = pair { cert = cert, key = key, verify = false }
      shake(client, server)
      local peer = client:info().peer
      assert.is_nil(peer.subject:find("%c"))
      for _, name in ipairs(peer.names) do
        assert.is_nil(name:find("[%c ]"))
      end
    end)

    it("shows what is not seen but changes how others look, in a certificate's text", function()
      for shown, bytes in pairs {
        ["\\E2\\80\\AE"] = "\226\128\174", ["\\C2\\AD"] = "\194\173", ["\\E2\\80\\8B"] = "\226\128\139", ["\\E2\\80\\A8"] = "\226\128\168",
        ["\\E2\\81\\A6"] = "\226\129\166", ["\\F3\\A0\\81\\81"] = "\243\160\129\129", ["\\EF\\BB\\BF"] = "\239\187\191",
        ["\\D8\\9C"] = "\216\156",
      } do
        local cert, key = forge("hidden", "/CN=a" .. bytes .. "b", "DNS:x.example.org")
        local client, server = pair { cert = cert, key = key, verify = false }
        shake(client, server)
        local peer = client:info().peer
        assert.are.same({ "CN=a" .. shown .. "b", "CN=a" .. shown .. "b" }, { peer.subject, peer.issuer })
      end
    end)

    it("cuts a long text at a character", function()
      for _, offset in ipairs { "", "x", "xx" } do
        local words = {}
        for i = 1, 7 do words[i] = "OU=" .. ("\226\130\172"):rep(60) end
        forge("long", "/CN=" .. offset .. "/" .. table.concat(words, "/"), nil, 30)
        local cert, key = issue("leaf", "long", "/CN=x", "subjectAltName=DNS:mail.example.org\n")
        local _, text = try { cert = cert, key = key, ca_file = (tls.mint { "mail.example.org" }) }
        local issuer = text:match("not trusted here: (.*)$")
        assert.is_true(#issuer > 290 and #issuer <= 300, text)
        assert.are.equal("", (issuer:gsub("\226\130\172", ""):gsub("[%w=,]", "")))
      end
    end)

    it("keeps UTF-8 in subjects readable", function()
      local cert, key = forge("utf8", "/CN=\195\132rger", "DNS:mail.example.org")
      local client, server = pair { cert = cert, key = key }
      shake(client, server)
      assert.are.equal("CN=\195\132rger", client:info().peer.subject)
    end)
  end)

  it("knows a key by its pin, as RFC 7469 makes one", function()
    for name, algorithm in pairs { ec = "EC -pkeyopt ec_paramgen_curve:P-256", ed = "ED25519", rsa = "RSA" } do
      sh("openssl genpkey -algorithm $2 -out @pin$1.key", name, algorithm)
      sh("openssl req -x509 -key @pin$1.key -subj /CN=x -addext subjectAltName=DNS:mail.example.org -out @pin$1.pem", name)
      sh("openssl pkey -in @pin$1.key -pubout -outform der | openssl dgst -sha256 -binary | openssl base64 >@pin$1", name)
      local client, server = pair { cert = dir .. "/pin" .. name .. ".pem", key = dir .. "/pin" .. name .. ".key",
        ca_file = dir .. "/pin" .. name .. ".pem" }
      shake(client, server)
      assert.are.equal(slurp(dir .. "/pin" .. name), client:info().peer.pin .. "\n")
    end
  end)

  describe("a channel binding", function()
    it("of the connection is the same at both ends, and another in another connection", function()
      for _, version in ipairs { "1.2", "1.3" } do
        local seen = {}
        for i = 1, 2 do
          local client, server = pair { max = version }
          shake(client, server)
          seen[i] = client:binding("tls-exporter")
          assert.are.equal(32, #seen[i])
          assert.are.equal(seen[i], server:binding("tls-exporter"))
        end
        assert.are_not.equal(seen[1], seen[2])
      end
    end)

    it("is what another program exports, on TLS 1.2 with the extended master secret only", function()
      local cert, key = tls.mint { "mail.example.org" }
      local context = assert(tls.context { ca_file = cert })
      save("exporter.pem", cert)
      save("exporter.key", key)
      for version, words in pairs { ["1.3"] = "export", ["1.2"] = "export", ["1.2-plain"] = "needs TLS 1.3" } do
        local server = tls_peer.start(dir .. "/exporter.pem", dir .. "/exporter.key", version, { "export" })
        local pipe = server:connect()
        local engine = assert(context:engine("mail.example.org"))
        while not engine:handshake() do
          pipe:write(engine:take(), core.now() + 60)
          assert(engine:feed(assert(pipe:read(core.now() + 60))))
        end
        pipe:write(engine:take(), core.now() + 60)
        local binding, reason = engine:binding("tls-exporter")
        pipe:close()
        local printed = server:finish()
        if words == "export" then
          assert.are.equal("export " .. hex(binding) .. "\n", printed)
        else
          assert.is_nil(binding)
          assert.is_truthy(reason:find(words, 1, true))
        end
      end
    end)

    it("of the certificate is its hash, by the algorithm of its signature", function()
      for algorithm, hash in pairs { sha256 = "sha256", sha512 = "sha512", sha1 = "sha256" } do
        local name = "bound" .. algorithm
        sh("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -$2 -subj /CN=x -keyout @$1.key -out @$1.pem "
          .. "-addext subjectAltName=DNS:mail.example.org", name, algorithm)
        sh("openssl x509 -in @$1.pem -outform der -out @$1.der", name)
        local path = dir .. "/" .. name
        local client, server = pair { cert = path .. ".pem", key = path .. ".key", ca_file = path .. ".pem" }
        shake(client, server)
        local expected = tls.hash(hash, slurp(path .. ".der"))
        assert.are.equal(hex(expected), hex(client:binding("tls-server-end-point")))
        assert.are.equal(hex(expected), hex(server:binding("tls-server-end-point")))
      end
    end)

    it("of the certificate is not defined for a signature without a hash", function()
      sh("openssl req -x509 -newkey ed25519 -nodes -subj /CN=x -keyout @boundless.key -out @boundless.pem "
        .. "-addext subjectAltName=DNS:mail.example.org")
      local path = dir .. "/boundless"
      local client, server = pair { cert = path .. ".pem", key = path .. ".key", ca_file = path .. ".pem" }
      shake(client, server)
      local binding, reason = client:binding("tls-server-end-point")
      assert.is_nil(binding)
      assert.is_truthy(reason:find("is not defined for this certificate", 1, true))
    end)

    it("is there after the handshake, of two kinds, and its absence breaks nothing", function()
      local client, server = pair {}
      assert.are.same({ nil, "the TLS handshake is not over" }, { client:binding("tls-exporter") })
      shake(client, server)
      for _, kind in ipairs { "tls-unique", "TLS-EXPORTER", "" } do
        assert.are.same({ nil, "not a channel binding that is offered here" }, { client:binding(kind) })
      end
      assert.has_error(function() client:binding() end)
      assert(client:write("NOOP\r\n"))
      carry(client, server)
      assert.are.equal("NOOP\r\n", server:read())
    end)
  end)

  describe("the system's trust store", function()
    -- What a process of its own has to say about a server, under a shell command's environment.
    local function elsewhere(prefix, before)
      local cert, key = tls.mint { "mail.example.org" }
      save("store.pem", cert)
      save("store.key", key)
      local script = save("store.lua", ([[
        local tls = require "smtp.tls"
        local context, text, hint = tls.context {}
        if not context then print(text, hint) return end
        local servers = tls.context { server = true, cert = "@store.pem", key = "@store.key" }
        local function shake()
          local client, server = context:engine("mail.example.org"), servers:engine()
          for _ = 1, 4 do
            client:handshake()
            server:feed(client:take())
            server:handshake()
            client:feed(server:take())
          end
          return client:handshake()
        end
        if os.getenv "CROWDED" then
          local held, file = {}, nil
          repeat
            file = io.open "/dev/null"
            held[#held + 1] = file
          until not file
          print((shake()))
          for _, one in ipairs(held) do one:close() end
        end
        print(shake())
      ]]):gsub("@", dir .. "/"))
      sh "mkdir -p @none @some && cp @store.pem @some && openssl rehash @some"
      local command = (prefix .. " %s %s"):format(child.interpreter, script):gsub("@", dir .. "/")
      local pipe = io.popen("(" .. (before or "") .. command .. ") 2>&1")
      local output = pipe:read("*a")
      pipe:close()
      return output
    end

    it("is the one the environment names: a file, a directory, several", function()
      assert.are.equal("true\n", elsewhere "SSL_CERT_FILE=@store.pem SSL_CERT_DIR=@none")
      assert.are.equal("true\n", elsewhere "SSL_CERT_FILE=@none/x SSL_CERT_DIR=@some")
      assert.are.equal("true\n", elsewhere "SSL_CERT_FILE=@none/x SSL_CERT_DIR=@none:@nothing:@some")
      assert.is_truthy(elsewhere("env -u SSL_CERT_FILE -u SSL_CERT_DIR"):find("is self-signed and not trusted here", 1, true))
    end)

    it("is no other than that one, be it empty", function()
      for _, environment in ipairs {
        "SSL_CERT_FILE=@none/x SSL_CERT_DIR=@none", "SSL_CERT_FILE=@store.key SSL_CERT_DIR=", "SSL_CERT_FILE= SSL_CERT_DIR=@nothing",
      } do
        local said = elsewhere(environment)
        assert.is_truthy(said:find("no trusted certificates: none where SSL_CERT_FILE or SSL_CERT_DIR point\t", 1, true), said)
        assert.is_truthy(said:find("or give ca_file", 1, true), said)
      end
    end)

    -- Where OpenSSL was built to look for one there is nothing; in a namespace of its own, so that nobody else sees it.
    it("is found elsewhere if OpenSSL knows of none, else missed in so many words #real", function()
      local hide = [[openssl_dir=$(openssl version -d | cut -d '"' -f 2); mount -t tmpfs none "$openssl_dir"; ]]
      local prefix = "env -u SSL_CERT_FILE -u SSL_CERT_DIR"
      local function hidden(more)
        save("hide.sh", "set -e; " .. hide:gsub("@", dir .. "/") .. (more or ""):gsub("@", dir .. "/") .. '"$@"\n')
        return elsewhere(prefix .. " unshare -m bash " .. dir .. "/hide.sh")
      end
      local empty = "mount -t tmpfs none /etc/ssl; [ ! -d /etc/pki ] || mount -t tmpfs none /etc/pki; "
      local said = hidden(empty)
      assert.is_truthy(said:find("no trusted certificates: this system has no store", 1, true), said)
      assert.is_truthy(said:find("ca-certificates), or give ca_file", 1, true), said)
      said = hidden(empty .. "cp @store.pem /etc/ssl/ca-bundle.pem; ")
      assert.are.equal("true\n", said)
      said = hidden(empty .. "mkdir /etc/ssl/certs; cp @store.pem /etc/ssl/certs/ca-certificates.crt; ")
      assert.are.equal("true\n", said)
    end)

    it("has a file beside its folder, which is read once it can be opened #real", function()
      save("other.pem", (tls.mint { "other.example.org" }))
      sh "mkdir -p @others && cp @other.pem @others && openssl rehash @others"
      save("beside.sh", ([[
        set -e
        openssl_dir=$(openssl version -d | cut -d '"' -f 2)
        mount -t tmpfs none "$openssl_dir"
        cp @store.pem "$openssl_dir/cert.pem"
        ulimit -n 64
      ]]):gsub("@", dir .. "/") .. '"$@"\n')
      assert.are.equal("nil\ntrue\n", elsewhere("env -u SSL_CERT_FILE SSL_CERT_DIR=@others CROWDED=1 unshare -m bash @beside.sh"))
    end)
  end)

  describe("a client certificate", function()
    it("is given when asked for, and can be refused", function()
      forge("cca", "/CN=Client Authority", nil)
      local cert, key = issue("client", "cca", "/CN=a client", "extendedKeyUsage=clientAuth\n")
      local client, server = pair { client_ca = dir .. "/cca.pem", client_cert = cert, client_key = key }
      local c, s = shake(client, server)
      assert.are.same({ true }, c)
      assert.are.same({ true }, s)
      assert.are.equal("CN=a client", server:info().peer.subject)

      client, server = pair { client_ca = dir .. "/cca.pem" }
      c, s = shake(client, server)
      assert.are.same({ true }, c) -- in TLS 1.3 the client is done before the server has judged
      assert.are.same({ nil, "the client gave no certificate" }, s)
      local _, text, hint = told(client:read())
      assert.are.equal("the server wants a client certificate", text)
      assert.is_truthy(hint:find("client_cert and client_key", 1, true))

      -- of TLS 1.2 the alert is "handshake failure"
      client, server = pair { client_ca = dir .. "/cca.pem", max = "1.2" }
      c = shake(client, server)
      assert.are.same({ nil, "the server wants a client certificate", "set client_cert and client_key" }, c)
    end)
  end)

  describe("a peer that speaks something else", function()
    local function client()
      return assert(assert(tls.context {}):engine("mail.example.org"))
    end

    local function answer(bytes)
      local engine = client()
      engine:handshake()
      assert(#engine:take() > 100)
      assert(engine:feed(bytes))
      local ok, text, hint = told(engine:handshake())
      assert.are.equal(nil, ok)
      return text, hint, engine
    end

    it("is named when it greets in plain SMTP", function()
      for _, greeting in ipairs { "220 mail.example.org ESMTP\r\n", "220-m", "554 no\r\n", "421 4.3.2 x\r\n" } do
        local text, hint = answer(greeting)
        assert.are.equal("the server did not answer in TLS", text)
        assert.are.equal('this port speaks plain SMTP first: use tls = "starttls"', hint)
      end
    end)

    it("is not taken for SMTP when it is not", function()
      local text, hint = answer("HTTP/1.1 400 Bad Request\r\n")
      assert.are.equal("the server did not answer in TLS", text)
      assert.are.equal(nil, hint)
    end)

    it("only speaks an older TLS", function()
      local text, hint = answer("\21\3\1\0\2\2\70")
      assert.are.equal("the server refused the TLS handshake: protocol version", text)
      assert.is_truthy(hint:find("only speaks an older TLS than 1.2", 1, true))
      local ok
      ok, text, hint = try { min = "1.3", server_max = "1.2" }
      assert.are.equal(nil, ok)
      assert.are.equal("the server refused the TLS handshake: protocol version", text)
      assert.is_truthy(hint:find("tls_min", 1, true))
      local _, _, _, s = try { max = "1.2", server_min = "1.3" }
      assert.are.equal(nil, s[1])
      assert.is_truthy(s[3]:find("the client only speaks an older TLS", 1, true))
    end)

    it("may only speak an older TLS, or suites that we do not: which one, its alert does not tell", function()
      local refusal = "\21\3\3\0\2\2\40"
      for min, words in pairs { ["1.2"] = "cipher suite with forward secrecy", ["1.3"] = 'an older TLS: tls_min = "1.2" may do' } do
        local engine = assert(tls.context { min = min }):engine("mail.example.org")
        engine:handshake()
        assert(engine:feed(refusal))
        local _, text, hint = told(engine:handshake())
        assert.are.equal("the server refused the TLS handshake: handshake failure", text)
        assert.is_truthy(hint:find(words, 1, true), hint)
      end
    end)

    it("ends with an alert that has no name", function()
      assert.are.equal("the server refused the TLS handshake: an alert without a name", (answer "\21\3\3\0\2\2\200"))
    end)

    it("closes or says nothing, with close_notify or without", function()
      local words = { nil, "tls", "the server closed the connection during the TLS handshake" }
      for _, last in ipairs { "", "\21\3\3\0\2\1\0" } do
        local engine = client()
        engine:handshake()
        engine:take()
        assert(engine:feed(last))
        if last == "" then engine:eof() end
        assert.are.same(words, { engine:handshake() })
        assert.are.same(words, { engine:handshake() })
      end
    end)

    it("is a client that sends garbage or plain SMTP", function()
      local cert, key = tls.mint { "mail.example.org" }
      local context = assert(tls.context { server = true, cert = cert, key = key })
      for _, case in ipairs {
        { "EHLO client.example.org\r\n", "the client did not start with TLS", "plain SMTP" },
        { "GET / HTTP/1.1\r\n", "the client did not start with TLS" },
        { ("\0"):rep(100), "the client did not start with TLS" },
        { ("\255"):rep(100), "the client did not start with TLS" },
        { "\22\3\1\0\50" .. ("\200"):rep(50), "the TLS handshake failed: " },
        { "\22\3\1\255\255" .. ("\200"):rep(50), "the TLS handshake failed: " },
      } do
        local engine = context:engine()
        assert(engine:feed(case[1]))
        local ok, text, hint = told(engine:handshake())
        assert.are.equal(nil, ok)
        assert.are.equal(1, (text:find(case[2], 1, true)), text)
        if case[3] then
          assert.is_truthy(hint:find(case[3], 1, true))
        end
        assert.are.equal(nil, (engine:write("x")))
        engine:shutdown()
      end
    end)
  end)

  describe("context", function()
    it("names what it cannot use", function()
      local function refuses(options, words)
        local context, text = tls.context(options)
        assert.are.equal(nil, context)
        assert.is_truthy(text:find(words, 1, true), text)
        assert.is_nil(text:find("\n"))
        assert.is_nil(text:find("BEGIN"))
      end
      local cert, key = tls.mint { "mail.example.org" }
      local _, other = tls.mint { "mail.example.org" }
      local missing = dir .. "/missing.pem"
      refuses({ ca_file = missing }, 'cannot read ca_file "' .. missing .. '": No such file or directory')
      refuses({ ca_file = save("empty", "") }, "holds no PEM certificate")
      refuses({ ca_file = key }, "ca_file holds no PEM certificate")
      refuses({ ca_file = cert:gsub("\nM", "\n!", 1) }, "ca_file holds no PEM certificate")
      refuses({ ca_file = cert:gsub("\n.*\n", "\nMAUwAwIBAA==\n", 1) }, "ca_file holds no PEM certificate")
      refuses({ ca_file = cert .. cert:gsub("\nM", "\n!", 1) }, "ca_file is not usable")
      refuses({ ca_file = "a\0b" }, "cannot read ca_file")
      refuses({ ca_path = missing }, "is not a directory that can be read")
      refuses({ server = true }, "a TLS server needs cert")
      refuses({ key = key }, "client_key is given without client_cert")
      refuses({ cert = cert, key = other }, "the private key in client_key cannot be used with the certificate: ")
      refuses({ cert = cert, key = cert }, "client_key holds no PEM private key")
      -- a key in disguise: never shown
      refuses({ cert = cert, key = "MIGHAgEAMBMGByqGSM49" }, "cannot read client_key: No such file or directory")
      refuses({ cert = ("MIGHAgEAMBMGByqGSM49"):rep(9) }, "cannot read client_cert: ")
      refuses({ cert = cert }, "client_cert holds no PEM private key")
      assert.is_truthy(tls.context { cert = cert .. key })
    end)

    it("names the file that is damaged, or holds nothing of use", function()
      local cert, key = tls.mint { "mail.example.org" }
      local _, first, rest = cert:match("^((.-\n.-\n).-\n)(.*)$")
      local damaged = {
        first .. rest,                                          -- a line less
        (cert:gsub("(.*)\n(.-)\n(%-%-%-%-%-END)", "%1\n%3")),     -- the last
        (cert:gsub("\n%-%-%-%-%-END.*", "\n")),                   -- the end
        (cert:gsub("\nMI", "\nMB", 1)),                         -- another letter
        (cert:gsub("\n.*\n", "\nMAUwAwIBAA==\n", 1)), "nothing\n", key, "",
      }
      sh("mkdir @folder @unnamed")
      local function refuses(options, path)
        local context, text = tls.context(options)
        assert.are.same({}, { context })
        assert.is_truthy(text:find('"' .. path .. '"', 1, true), text)
      end
      local whole = save("whole.pem", cert)
      assert.is_truthy(tls.context { ca_file = whole })
      for i, text in ipairs(damaged) do
        local alone, behind = save("alone.pem", text), save("behind.pem", cert .. text)
        refuses({ ca_file = alone }, alone)
        if text:find "BEGIN CERT" then refuses({ ca_file = behind }, behind) end
        refuses({ cert = alone, key = key }, alone)
        save("folder/00000000.0", cert)
        save("folder/00000001.0", text)
        refuses({ ca_path = dir .. "/folder" }, dir .. "/folder/00000001.0")
        if text ~= key then refuses({ cert = cert, key = alone }, alone) end
        assert.is_truthy(i)
      end
      save("folder/00000001.0", cert)
      assert.is_truthy(tls.context { ca_path = dir .. "/folder" })
      save("unnamed/ca.pem", cert)
      refuses({ ca_path = dir .. "/unnamed" }, dir .. "/unnamed")
      assert.is_truthy(tls.context { ca_path = dir .. "/unnamed", ca_file = whole })
    end)

    it("never asks for a password", function()
      local cert, key = tls.mint { "mail.example.org" }
      save("plain.key", key)
      sh "openssl pkcs8 -topk8 -in @plain.key -passout pass:secret -out @locked.key"
      sh "openssl ec -in @plain.key -aes128 -passout pass:secret -out @old.key"
      for _, name in ipairs { "/locked.key", "/old.key" } do
        local context, text = tls.context { cert = cert, key = dir .. name }
        assert.are.equal(nil, context)
        assert.is_truthy(text:find("is locked with a password: give it without one", 1, true), text)
      end
    end)

    it("raises for what is not an option's type", function()
      assert.has_error(function() tls.context() end)
      assert.has_error(function() tls.context { ca_file = 5 } end)
      assert.has_error(function() tls.context { min = "1.1" } end)
      assert.has_error(function() tls.context({}):engine({}) end)
    end)
  end)

  describe("mint", function()
    it("makes what stands on its own, also for strict verifiers", function()
      local cert, key = tls.mint { "mail.example.org", "127.0.0.1" }
      save("mint.pem", cert)
      save("mint.key", key)
      sh "openssl verify -x509_strict -purpose sslserver -verify_hostname mail.example.org -CAfile @mint.pem @mint.pem"
      sh "openssl verify -check_ss_sig -verify_ip 127.0.0.1 -CAfile @mint.pem @mint.pem"
      local again = tls.mint { "mail.example.org", "127.0.0.1" }
      assert.are_not.equal(cert, again)
    end)

    it("refuses what is no name", function()
      for _, names in ipairs { {}, { "" }, { "a\0b" }, { "a b" }, { 5 }, { ("x"):rep(300) } } do
        assert.has_error(function() tls.mint(names) end)
      end
      assert.has_error(function() tls.mint("mail.example.org") end)
    end)
  end)

  describe("digests", function()
    it("hash as in RFC 1321 and RFC 6234", function()
      for _, case in ipairs {
        { "md5", "", "d41d8cd98f00b204e9800998ecf8427e" },
        { "md5", "abc", "900150983cd24fb0d6963f7d28e17f72" },
        { "sha1", "abc", "a9993e364706816aba3e25717850c26c9cd0d89d" },
        { "sha1", "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
          "84983e441c3bd26ebaae4aa1f95129e5e54670f1" },
        { "sha256", "abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" },
        { "sha256", "", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" },
        { "sha512", "abc", "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
          .. "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f" },
      } do
        assert.are.equal(case[3], hex(tls.hash(case[1], case[2])))
      end
    end)

    it("key as in RFC 2202 and RFC 4231", function()
      local aa = ("\170"):rep(80)
      for _, case in ipairs {
        { "md5", ("\11"):rep(16), "Hi There",
          "9294727a3638bb1c13f48ef8158bfc9d" },
        { "md5", "Jefe", "what do ya want for nothing?",
          "750c783e6ab0b503eaa86e310a5db738" },
        { "md5", aa, "Test Using Larger Than Block-Size Key - Hash Key First",
          "6b1ab7fe4bd7bf8f0b62e6ce61b9d0cd" },
        { "md5", "tanstaaftanstaaf", "<1896.697170952@postoffice.reston.mci.net>",
          "b913a602c7eda7a495b4e6e7334d3890" },
        { "sha1", ("\11"):rep(20), "Hi There",
          "b617318655057264e28bc0b6fb378c8ef146be00" },
        { "sha1", "Jefe", "what do ya want for nothing?",
          "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79" },
        { "sha1", aa, "Test Using Larger Than Block-Size Key - Hash Key First",
          "aa4ae5e15272d00e95705637ce8a3b55ed402112" },
        { "sha256", ("\11"):rep(20), "Hi There",
          "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7" },
        { "sha256", "Jefe", "what do ya want for nothing?",
          "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843" },
        { "sha256", "", "", "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad" },
        { "sha512", "Jefe", "what do ya want for nothing?",
          "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554"
          .. "9758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737" },
      } do
        assert.are.equal(case[4], hex(tls.hmac(case[1], case[2], case[3])))
      end
    end)

    it("raise for an unknown algorithm", function()
      assert.has_error(function() tls.hash("md4", "x") end)
      assert.has_error(function() tls.hmac("MD5", "x", "x") end)
    end)
  end)
end)
