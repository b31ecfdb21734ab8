local parameter = require "smtp.protocol.parameter"
local play = require "spec.support.play"
local smtp = require "smtp"
local together = require "spec.support.together"

local function refused(wishes)
  local given = { from = "ada@example.org", to = "bob@example.test", text = "t" }
  for name, value in pairs(wishes) do given[name] = value end
  local mail, err = smtp.message(given)
  assert.is_nil(mail)
  assert.are.same({ "input", "compose", "not_sent" }, { err.kind, err.stage, err.outcome })
  return err.reason
end

describe("xtext", function()
  it("leaves printable ASCII but + and =, and writes the rest in hexadecimal", function()
    local plain = {}
    for byte = 33, 126 do plain[#plain + 1] = string.char(byte) end
    plain = table.concat(plain)
    assert.are.equal((plain:gsub("[+=]", { ["+"] = "+2B", ["="] = "+3D" })), parameter.xtext(plain))
    assert.are.equal("a+20b+09+7F+FF", parameter.xtext("a b\t\127\255"))
  end)

  it("of an internationalised address is ASCII, one \\x{} for each character", function()
    assert.are.equal("\\x{E4}b\\x{2B}\\x{3D}\\x{5C}\\x{20}[]^@\\x{6F22}\\x{1F600}.example",
      parameter.utf8_xtext("\195\164b+=\\ []^@\230\188\162\240\159\152\128.example"))
  end)
end)

describe("what a message asks for is checked when it is composed:", function()
  local cases = {
    { { dsn = { notify = "always" } }, 'dsn.notify: must be "never"' },
    { { dsn = { notify = {} } }, "dsn.notify: is empty" },
    { { dsn = { notify = { "success", "never" } } }, "dsn.notify: must be" },
    { { dsn = { ret = "body" } }, "dsn.ret: must be" },
    { { dsn = { envid = "" } }, "dsn.envid: must be printable" },
    { { dsn = { envid = "a\r\nRCPT TO:<x@y>" } }, "dsn.envid: must be printable" },
    { { dsn = { envid = ("x"):rep(101) } }, "dsn.envid: is longer than 100 octets" },
    { { dsn = { envid = (" "):rep(34) } }, "dsn.envid: is longer than 100 octets" },
    { { deliver_by = 0 }, "deliver_by: must be a whole number of seconds, at least 1" },
    { { deliver_by = 1.5 }, "deliver_by: must be a whole number" },
    { { deliver_by = 0 / 0 }, "deliver_by: must be a whole number" },
    { { deliver_by = 1e9 }, "deliver_by: must be a whole number" },
    { { deliver_by = { mode = "notify" } }, "deliver_by: must be a whole number" },
    { { deliver_by = { seconds = 60, mode = "N" } }, "deliver_by.mode: must be" },
    { { hold_for = 0 }, "hold_for: must be a whole number" },
    { { hold_for = 1 / 0 }, "hold_for: must be a whole number" },
    { { mt_priority = 10 }, "mt_priority: must be a whole number from -9 to 9" },
    { { mt_priority = 0.5 }, "mt_priority: must be a whole number from -9 to 9" },
  }
  for _, case in ipairs(cases) do
    it(case[2], function() assert.are.equal(case[2], refused(case[1]):sub(1, #case[2])) end)
  end

  it("no control byte goes into an envelope identifier", function()
    for byte = 0, 31 do
      for _, envid in ipairs { string.char(byte) .. "abc", "a" .. string.char(byte) .. "bc", "abc" .. string.char(byte) } do
        assert.are.equal("dsn.envid: must be printable ASCII, and not empty", refused { dsn = { envid = envid } })
      end
    end
  end)

  it("unknown names and wrong types are mistakes of the program", function()
    for _, wish in ipairs {
      { dsn = { notifi = "never" } }, { dsn = "never" }, { dsn = { envid = 1 } }, { deliver_by = { second = 1 } },
      { deliver_by = "60" }, { hold_for = "1" }, { require_tls = 1 }, { mt_priority = "1" },
    } do
      assert.has_error(function() refused(wish) end)
    end
  end)
end)

-- What goes out for these wishes to a server that offers these, or the error.
local function commands(offered, wishes, more)
  local given = { from = "ada@example.org", to = "bob@example.test", raw = "A: b\r\n\r\n" }
  for name, value in pairs(wishes) do given[name] = value end
  local options, transport = play.options(play.script(play.hello((table.unpack or unpack)(offered))), given)
  for name, value in pairs(more or {}) do options[name] = value end
  local _, err = smtp.send(options)
  local written = play.written(transport):gsub("^EHLO [^\n]*\n", "")
  return written, err
end

describe("a server that lacks what a message asks for", function()
  local cases = {
    { { dsn = { notify = "never" } }, "DSN", "input" },
    { { deliver_by = 60 }, "DELIVERBY", "input" },
    { { hold_for = 60 }, "FUTURERELEASE", "input" },
    { { mt_priority = 1 }, "MT-PRIORITY", "input" },
  }
  for _, case in ipairs(cases) do
    it("gets nothing: " .. case[2], function()
      local written, err = commands({ "PIPELINING" }, case[1])
      assert.are.equal("", written)
      assert.are.same({ case[3], "mail", "not_sent" }, { err.kind, err.stage, err.outcome })
      assert.is_truthy(err.reason:find("does not offer " .. case[2], 1, true), err.reason)
      assert.is_truthy(commands({ case[2] }, case[1]):find("^MAIL FROM:<ada@example.org>"))
    end)
  end

  it("or cannot do so much: DELIVERBY, FUTURERELEASE", function()
    local _, err = commands({ "DELIVERBY 120" }, { deliver_by = 60 })
    assert.are.equal("deliver_by is 60 seconds, the server needs at least 120", err.reason)
    _, err = commands({ "FUTURERELEASE 3600 2030-01-01T00:00:00Z" }, { hold_for = 3601 })
    assert.are.equal("hold_for is 3601 seconds, the server takes at most 3600", err.reason)
  end)

  it("REQUIRETLS: never in clear, never where it is not offered", function()
    local written, err = commands({ "REQUIRETLS" }, { require_tls = true })
    assert.are.same({ "", "insecure", "mail" }, { written, err.kind, err.stage })
  end)
end)

describe("the receiving server", function()
  local server
  after_each(function() server:close() end)

  local function send(options)
    return together.run(function() return smtp.send(options) end, server)
  end

  local function serve(given)
    server = assert(smtp.server(given))
    return { host = "127.0.0.1", port = server.port, from = "ada@example.org", to = { "bob@example.test", "c+d=e@example.test" },
      text = "t", tls = "none", helo = "client.example.org" }
  end

  it("reads every parameter that was asked for", function()
    local options = serve { extensions = { "DSN", "DELIVERBY 60", "FUTURERELEASE 3600", "MT-PRIORITY" } }
    options.dsn = { notify = { "success", "delay", "success" }, ret = "headers", envid = "order 1+1=2" }
    options.deliver_by, options.hold_for, options.mt_priority = { seconds = 60, mode = "notify", trace = true }, 3600, -9
    local receipt = assert(send(options))
    local letter = server.inbox[1]
    assert.are.same({ SIZE = tostring(receipt.size), RET = "HDRS", ENVID = "order+201+2B1+3D2", BY = "60;NT",
      HOLDFOR = "3600", ["MT-PRIORITY"] = "-9" }, letter.params)
    assert.are.same({
      { NOTIFY = "SUCCESS,DELAY", ORCPT = "rfc822;bob@example.test" },
      { NOTIFY = "SUCCESS,DELAY", ORCPT = "rfc822;c+2Bd+3De@example.test" },
    }, letter.rcpt_params)
  end)

  it("reads them of a finished message and an internationalised recipient", function()
    local options = serve { extensions = { "DSN" } }
    options.text, options.raw, options.to, options.dsn = nil, "A: b\r\n\r\n", "\195\164@example.test", { notify = "never" }
    assert(send(options))
    assert.are.same({ { NOTIFY = "NEVER", ORCPT = "utf-8;\\x{E4}@example.test" } }, server.inbox[1].rcpt_params)
    assert.is_true(server.inbox[1].params.SMTPUTF8)
  end)

  it("offers REQUIRETLS under TLS alone", function()
    local options = serve { tls = "starttls", extensions = { "REQUIRETLS" } }
    options.tls, options.ca_file, options.require_tls = "starttls", server.certificate, true
    assert(send(options))
    assert.is_true(server.inbox[1].params.REQUIRETLS)
    options.verify = false
    local _, err = send(options)
    assert.are.same({ "insecure", "mail" }, { err.kind, err.stage })
    options.verify, options.tls = nil, "none"
    _, err = send(options)
    assert.are.same({ "insecure", "mail" }, { err.kind, err.stage })
  end)

  it("knows no parameter that it did not offer, nor values that are none", function()
    for _, case in ipairs {
      { {}, "RET=FULL", 555 }, { { "DSN" }, "RET=ALL", 501 }, { { "DSN" }, "ENVID=a+", 250 }, { { "DSN" }, "ENVID", 501 },
      { { "DSN" }, "RET=HDRS", 250 }, { {}, "BODY=BINARYMIME", 501 }, { { "BINARYMIME" }, "BODY=BINARYMIME", 250 },
      { { "DELIVERBY" }, "BY=1;X", 501 }, { { "DELIVERBY" }, "BY=-1;NT", 250 }, { { "MT-PRIORITY" }, "MT-PRIORITY=10", 501 },
      { { "FUTURERELEASE" }, "HOLDUNTIL=2030-01-01T00:00:00Z", 250 }, { { "FUTURERELEASE" }, "HOLDFOR=-1", 501 },
    } do
      local options = serve { extensions = case[1] }
      local name, value = case[2]:match("^([^=]*)=?(.*)$")
      local code = together.run(function()
        local session = assert(smtp.connect { host = options.host, port = options.port, tls = "none" })
        local reply, err = session:mail("a@example.org", { [name] = value ~= "" and value or true })
        session:close()
        return (reply or err).code
      end, server)
      assert.are.equal(case[3], code, case[2])
      server:close()
    end
    for _, case in ipairs {
      { "NOTIFY=SUCCESS,FAILURE", 250 }, { "NOTIFY=NEVER", 250 }, { "NOTIFY=NEVER,DELAY", 501 }, { "NOTIFY=FAIL", 501 },
      { "NOTIFY=,DELAY", 501 }, { "NOTIFY", 501 }, { "ORCPT=a@b", 501 }, { "ORCPT=rfc822;a@b", 250 },
    } do
      local options = serve { extensions = { "DSN" } }
      local name, value = case[1]:match("^([^=]*)=?(.*)$")
      local code = together.run(function()
        local session = assert(smtp.connect { host = options.host, port = options.port, tls = "none" })
        assert(session:mail("a@example.org"))
        local reply, err = session:rcpt("b@example.org", { [name] = value ~= "" and value or true })
        session:close()
        return (reply or err).code
      end, server)
      assert.are.equal(case[2], code, case[1])
      server:close()
    end
  end)

  it("says what it can be told to offer", function()
    local one, err = smtp.server { extensions = { "X-PLAIN" } }
    assert.is_nil(one)
    assert.is_truthy(err.reason:find("DELIVERBY", 1, true))
    server = assert(smtp.server {})
  end)
end)
