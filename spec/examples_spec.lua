-- Every script in examples/ is run as its reader would run it, in a process of its own, against the receiving server
-- here.
local child = require "spec.support.child"
local loops = require "spec.support.loops"
local loopback = require "spec.support.loopback"
local smtp = require "smtp"

-- A script that ends in os.exit leaves its Lua state open, which a leak checker that is on in this process would report.
local PREFIX = "env ASAN_OPTIONS=detect_leaks=0 %s " .. child.interpreter .. " examples/%s"

local function run(script, environment, server)
  return child.beside(PREFIX:format(environment, script), server)
end

describe("the example", function()
  local server, certificate, url

  setup(function()
    server = assert(smtp.server {
      tls = "starttls",
      auth = function(username, password) return username == "ada@example.org" and password == "pass word" end,
    })
    certificate = child.keep(server.certificate)
    url = ("smtp://ada%%40example.org:pass%%20word@localhost:%d"):format(server.port)
  end)

  teardown(function()
    server:close()
    os.remove(certificate)
  end)

  before_each(function()
    for i = #server.inbox, 1, -1 do server.inbox[i] = nil end
  end)

  local function example(name, environment)
    return run(name, ("SSL_CERT_FILE=%s SMTP_URL='%s' %s"):format(certificate, url,
      environment or ""), server)
  end

  it("demo sends to its own server and compares", function()
    local code, output = run("demo.lua", "")
    assert.are.equal(0, code, output)
    assert.truthy(output:find("Both sides agree.", 1, true))
    assert.truthy(output:find("Grüße von smtp ✉", 1, true))
    assert.falsy(output:find("correct horse", 1, true))
  end)

  it("demo needs no name that the machine may lack", function()
    local output, status = child.run([[
      local core = require "smtp.core"
      local resolve = core.resolve
      core.resolve = function(host, port)
        if host:find "%a" then error("a name: " .. host) end
        return resolve(host, port)
      end
      arg[0] = "examples/demo.lua"
      dofile(arg[0])]])
    assert.are.equal("0", status, output)
    assert.truthy(output:find("Both sides agree.", 1, true))
  end)

  it("demo sends through the server of SMTP_URL", function()
    local code, output = example("demo.lua", "FROM=ada@example.org TO=grace@example.org")
    assert.are.equal(0, code, output)
    assert.are.equal(1, #server.inbox)
    assert.truthy(output:find("certificate verified", 1, true))
    assert.falsy(output:find("pass word", 1, true))
    assert.falsy(output:find("pass%20word", 1, true))
  end)

  it("demo says what is missing beside SMTP_URL", function()
    local code, output = example("demo.lua")
    assert.are.equal(2, code)
    assert.truthy(output:find("set FROM and TO too", 1, true))
  end)

  it("verify reports, and sends nothing", function()
    local code, output = example("verify.lua")
    assert.are.equal(0, code, output)
    assert.truthy(output:find("ready, logged in", 1, true), output)
    assert.are.equal(0, #server.inbox)
    code, output = run("verify.lua", "SMTP_URL='" .. url .. "'", server)
    assert.are.equal(1, code, output)
    assert.truthy(output:find("self-signed", 1, true), output)
    assert.falsy(output:find("pass word", 1, true))
  end)

  it("quickstart delivers", function()
    local code, output = example("quickstart.lua")
    assert.are.equal(0, code, output)
    assert.are.same({ "grace@example.org" }, server.inbox[1].to)
    assert.truthy(output:find("delivered as <", 1, true))
  end)

  it("quickstart fails with one line that says why", function()
    local code, output = run("quickstart.lua",
      ("SMTP_URL=smtp://ada:mistaken@localhost:%d SSL_CERT_FILE=%s"):format(server.port, certificate), server)
    assert.are.equal(1, code)
    assert.are.equal("auth: 535 5.7.8 user name or password is wrong; the message was not sent; "
      .. "hint: check username and password, or token\n", output)
  end)

  it("attachments arrive whole", function()
    local code, output = example("attachments.lua")
    assert.are.equal(0, code, output)
    local data = server.inbox[1].data
    assert.truthy(data:find("multipart/related", 1, true))
    assert.truthy(data:find("Content-ID: <envelope>", 1, true))
    local size = tonumber(output:match("delivered (%d+) octets"))
    assert.are.equal(#data, size)
  end)

  it("gmail goes through every step, by password", function()
    local code, output = example("gmail.lua",
      ("SMTP_HOST=localhost SMTP_PORT=%d GMAIL_USER=ada@example.org GMAIL_APP_PASSWORD='pass word'"):format(server.port))
    assert.are.equal(0, code, output)
    assert.are.equal("ada@example.org", server.inbox[1].auth)
    for _, step in ipairs { "connect   220", "starttls  220", "auth      235", "data      250", "quit      221" } do
      assert.truthy(output:find(step, 1, true), step)
    end
  end)

  it("session sends several and reports the bad address", function()
    local code, output = example("session.lua")
    assert.are.equal(0, code, output)
    assert.are.equal(2, #server.inbox)
    assert.truthy(output:find("1: delivered to grace@example.org in 2 round trips", 1, true), output)
    assert.truthy(output:find("3: not sent: input at compose", 1, true), output)
  end)

  it("bulk sends to each reader, and sums up what became of them", function()
    local readers = child.keep("Grace <grace@example.org>\nalan@example.org\nno@@example.org\nJoan <joan@example.org>\n")
    local code, output = example("bulk.lua " .. readers)
    os.remove(readers)
    assert.are.equal(1, code, output)
    assert.are.equal(3, #server.inbox)
    assert.truthy(server.inbox[1].data:find("\r\nList-Unsubscribe: <mailto:leave@example.org>\r\n", 1, true))
    assert.truthy(output:find("^3 sent\n0 not sent; [^\n]*\n1 not sent, [^\n]*\n  no@@example.org: input at compose: [^\n]*\n0 perhaps"), output)
    code, output = example "bulk.lua"
    assert.are.equal(0, code, output)
    assert.are.equal(5, #server.inbox)
  end)

  it("bulk stops where every message would fail, and says why", function()
    local readers = child.keep(("grace@example.org\n"):rep(50))
    local code, output = run("bulk.lua " .. readers, ("SSL_CERT_FILE=%s SMTP_URL=smtp://ada:mistaken@localhost:%d"):format(certificate,
      server.port), server)
    os.remove(readers)
    assert.are.equal(1, code, output)
    assert.truthy(output:find("^0 sent\n"), output)
    assert.truthy(output:find("Nobody else was tried: auth: 535", 1, true), output)
    assert.is_true(select(2, output:gsub("grace@example.org", "")) < 50, output)
  end)

  it("dkim signs", function()
    local key = os.tmpname()
    os.execute("env -u LD_PRELOAD openssl genrsa -out " .. key .. " 2048 2>/dev/null")
    local code, output = example("dkim.lua", "DKIM_KEY=" .. key)
    os.remove(key)
    assert.are.equal(0, code, output)
    assert.truthy(server.inbox[1].data:find "DKIM%-Signature: v=1;[^=]*a=rsa%-sha256;.-d=example.org;.-s=mail;", server.inbox[1].data)
    code, output = example("dkim.lua", "DKIM_KEY=/nowhere/mail.key")
    assert.are.equal(1, code, output)
    assert.truthy(output:find("^input at compose: dkim: key_file: No such file[^\n]*\n$"), output)
    assert.are.equal(1, #server.inbox)
  end)

  it("orders_spec tests the program beside it", function()
    local code, output = child.beside(("sh -c 'cd examples/testing && env ASAN_OPTIONS=detect_leaks=0 %s %s orders_spec.lua'")
      :format(child.interpreter, child.output "command -v busted":match "%S+"))
    assert.are.equal(0, code, output)
    assert.truthy(output:find("3 successes / 0 failures / 0 errors", 1, true), output)
  end)

  it("progress fills its bar", function()
    local code, output = example("progress.lua")
    assert.are.equal(0, code, output)
    local last = 0
    for percent in output:gmatch("(%d+) %%") do
      assert.is_true(tonumber(percent) >= last)
      last = tonumber(percent)
    end
    assert.are.equal(100, last)
    assert.are.equal(#server.inbox[1].data, tonumber(output:match("delivered (%d+) octets")))
    assert.is_true(#server.inbox[1].data > 4e6)
  end)

  it("game_loop keeps ticking", function()
    local code, output = example("game_loop.lua")
    assert.are.equal(0, code, output)
    assert.are.equal(1, #server.inbox)
  end)

  for _, name in ipairs { "cqueues", "luv" } do
    it(name .. " sends three at once, and its loop goes on", function()
      if loops[name].missing then return pending(loops[name].missing) end
      local code, output = example(name .. ".lua")
      assert.are.equal(0, code, output)
      assert.are.equal(3, #server.inbox)
      assert.is_true(tonumber(output:match("(%d+) ticks")) >= 1, output)
      code, output = run(name .. ".lua", "SMTP_URL='" .. url .. "'", server)
      assert.are.equal(1, code, output)
      assert.truthy(output:find("self-signed", 1, true), output)
    end)
  end

  it("transport sends its own way", function()
    local found, reason = pcall(require, "socket")
    if not found then return pending("NO LUASOCKET for " .. _VERSION .. ": " .. reason) end
    local code, output = example("transport.lua")
    assert.are.equal(0, code, output)
    assert.are.equal(1, #server.inbox)
    code, output = run("transport.lua", ("SMTP_URL='%s'"):format(url:gsub("%d+$", "1")), server)
    assert.are.equal(1, code, output)
    assert.truthy(output:find("connect", 1, true), output)
  end)

  it("receive prints what arrives", function()
    local port = loopback.port()
    local out = os.tmpname()
    os.execute(("timeout 120 " .. PREFIX .. " %d >%s 2>&1 </dev/null &"):format("COUNT=1", "receive.lua", port, out))
    local receipt, err
    local limit = smtp.now() + 60
    repeat
      receipt, err = smtp.send { host = "127.0.0.1", port = port, tls = "none", from = "ada@example.org",
        to = "grace@example.org", subject = "over there", text = "Hello.\n" }
    until receipt or err.kind ~= "connect" or smtp.now() > limit
    assert.truthy(receipt, tostring(err))
    local output = ""
    while not output:find("Hello.", 1, true) and smtp.now() < limit do output = child.read(out) end
    os.remove(out)
    assert.truthy(output:find("Subject: over there", 1, true), output)
  end)
end)

-- Those that send, and with what they are called.
local SENDERS = { "attachments", "bulk", "demo", "dkim", "game_loop", "gmail", "progress", "quickstart", "session", "verify" }
if not loops.cqueues.missing then SENDERS[#SENDERS + 1] = "cqueues" end
if not loops.luv.missing then SENDERS[#SENDERS + 1] = "luv" end
if pcall(require, "socket") then SENDERS[#SENDERS + 1] = "transport" end

describe("an example tells its reader in words, on every Lua,", function()
  local key

  setup(function()
    key = os.tmpname()
    os.execute("env -u LD_PRELOAD openssl genpkey -algorithm ed25519 -out " .. key)
  end)

  teardown(function() os.remove(key) end)

  -- Runs it; what it prints holds no error as a table, none of Lua's own, and no kind that is said twice.
  local function tell(name, server, url, more)
    local code, output = run(name .. ".lua", ("DKIM_KEY=%s SMTP_URL='%s' FROM=ada@example.org TO=grace@example.org %s"):format(key, url,
      more or ""), server)
    assert.is_nil(output:find "stack traceback" or output:find "table: 0x" or output:find "error object"
      or output:find "userdata: 0x", name .. "\n" .. output)
    for word in ("auth connect closed timeout tls resolve rejected"):gmatch "%a+" do
      assert.is_nil(output:find(word .. ": " .. word .. ":", 1, true), name .. "\n" .. output)
    end
    return output, code
  end

  it("that nobody listens", function()
    local port = loopback.port()
    for _, name in ipairs(SENDERS) do
      if name ~= "gmail" then -- its port is below
        local output, code = tell(name, nil, "smtp+insecure://127.0.0.1:" .. port)
        assert.truthy(output:find("connection refused", 1, true) or output:find("Connection refused", 1, true), name .. "\n" .. output)
        assert.are.equal(1, code, name)
      end
    end
    assert.truthy(tell("gmail", nil, "", "SMTP_HOST=127.0.0.1 SMTP_PORT=" .. port):find "^connect: [^\n]*refused[^\n]*\n$")
  end)

  it("that its options are wrong", function()
    for _, name in ipairs(SENDERS) do
      local output = tell(name, nil, "nonsense", "SMTP_HOST=")
      assert.truthy(output:find("input at compose: ", 1, true), name .. "\n" .. output)
    end
  end)

  it("that the login is refused", function()
    local server = assert(smtp.server { tls = "starttls", auth = function() return false end })
    local certificate = child.keep(server.certificate)
    for _, name in ipairs(SENDERS) do
      local output, code = tell(name, server, "smtp://ada:wrong@localhost:" .. server.port, ("SSL_CERT_FILE=%s SMTP_HOST=localhost SMTP_PORT=%d "
        .. "GMAIL_USER=ada GMAIL_APP_PASSWORD=wrong"):format(certificate, server.port))
      assert.truthy(output:find("auth: 535 5.7.8", 1, true), name .. "\n" .. output)
      assert.are.equal(1, code, name)
    end
    server:close()
    os.remove(certificate)
  end)

  it("that its message may have been sent", function()
    local server
    server = assert(smtp.server { on_message = function()
      for _, connection in ipairs(server.connections) do connection:close() end
    end })
    for _, name in ipairs(SENDERS) do
      if name ~= "verify" and name ~= "gmail" then -- the one sends nothing, the other only over TLS
        local output = tell(name, server, "smtp+insecure://127.0.0.1:" .. server.port)
        assert.truthy(output:find("may have been", 1, true), name .. "\n" .. output)
      end
    end
    server:close()
  end)
end)

describe("the examples for hosts and games", function()
  for _, name in ipairs { "nginx/contact.lua", "prosody/mod_mail_registrations.lua", "game_loop.lua", "love/main.lua", "luanti/init.lua" } do
    it(name .. " gives up after 30 seconds", function()
      local file = assert(io.open("examples/" .. name))
      local text = file:read("*a")
      file:close()
      assert.truthy(text:find("timeout = 30", 1, true))
    end)
  end
end)
