-- What a program does wrong is told by the argument's name, with its own line; what is wrong with a value is an error of
-- the input; and nothing that a transport fails with comes out as a fault in here.
local memory = require "smtp.transport.memory"
local play = require "spec.support.play"
local smtp = require "smtp"
local socket = require "smtp.transport.socket"

local hello, script = play.hello, play.script

local function open()
  return play.open(script(hello("PIPELINING", "CHUNKING", "AUTH PLAIN"), "hang"))
end

-- The line that this is called from, as a raise tells it.
local function here()
  local info = debug.getinfo(2, "Sl")
  return ("%s:%d: "):format(info.short_src, info.currentline)
end

describe("Misuse says whose line it is", function()
  local where
  -- Calls; the line of each is noted right before it.
  local function says(words, call)
    local fine, text = pcall(call)
    assert.is_false(fine)
    assert.are.equal(where .. words, text:sub(1, #where + #words))
  end

  it("of the functions", function()
    for _, name in ipairs { "send", "message", "session", "connect", "verify", "pool" } do
      for _, odd in ipairs { "", 7, false } do
        says("smtp." .. name .. ": expected a table of options, got " .. type(odd), function()
          where = here() local got = smtp[name](odd)
          return got
        end)
      end
    end
    says("smtp.server: expected a table of options", function()
      where = here() local got = smtp.server(false)
      return got
    end)
    says("smtp.send: unknown option \"form\"; did you mean \"from\"?", function()
      where = here() local got = smtp.send { form = "x" }
      return got
    end)
    says("smtp.connect: option \"tls\" must be", function()
      where = here() local got = smtp.connect { host = "x", tls = "ssl" }
      return got
    end)
    says("smtp.connect: option \"timeouts\" must be a table", function()
      where = here() local got = smtp.connect { host = "x", timeouts = 5 }
      return got
    end)
    says("smtp.message: attachments", function()
      where = here() local got = smtp.message { from = "ada@example.org", attachments = { { cid = "x" } } }
      return got
    end)
    says("smtp.task: ", function()
      where = here() local got = smtp.task(nil)
      return got
    end)
  end)

  for name, argument in pairs {
    mail = "from", rcpt = "to", data = "source", bdat = "source", verify = "mailbox", command = "line", ehlo = "name", auth = "options",
  } do
    it("of session:" .. name, function()
      local s = open()
      for _, odd in ipairs { 7, true, 0 / 0, false } do
        says(("session:%s: %s must be a "):format(name, argument), function()
          where = here() local got = s[name](s, odd)
          return got
        end)
      end
      if name == "ehlo" or name == "auth" then return end
      says(("session:%s: %s must be a "):format(name, argument), function()
        where = here() local got = s[name](s)
        return got
      end)
    end)
  end

  it("of pool:send_many", function()
    local pool = assert(smtp.pool { host = "x", transport = memory.new {} })
    for words, given in pairs { ["iterator must be a function"] = { {}, print }, ["on_result must be a function"] = { print } } do
      says("pool:send_many: " .. words, function()
        where = here() local got = pool:send_many(given[1], given[2])
        return got
      end)
    end
    says("pool:send: expected a table of options", function()
      where = here() local got = pool:send(nil)
      return got
    end)
  end)

  it("of smtp.server", function()
    says("smtp.server: option \"tls\" must be", function()
      where = here() local got = smtp.server { tls = "ssl" }
      return got
    end)
    says("smtp.server: option \"transport\": this transport cannot listen", function()
      where = here() local got = smtp.server { transport = {} }
      return got
    end)
  end)

  it("of the parameters of MAIL and RCPT", function()
    local s = open()
    for name, address in pairs { mail = "ada@example.org", rcpt = "bob@example.test" } do
      says(("session:%s: params must be a table"):format(name), function()
        where = here() local got = s[name](s, address, "text")
        return got
      end)
    end
  end)

  it("of a transport whose connect gives no pipe", function()
    for _, pipe in ipairs { true, 7, "x", {}, { read = print, write = print, peek = print } } do
      local transport = { connect = function() return pipe end }
      says("option \"transport\": its connect gave no pipe with a function ", function()
        where = here() local got = smtp.connect { host = "x", tls = "none", transport = transport }
        return got
      end)
    end
  end)
end)

describe("A method called by a dot, and a function by a colon,", function()
  -- What a call raises begins with this line of its caller's.
  local function told(words, call, ...)
    local where = here():gsub(":%d+: $", ":")
    local fine, text = pcall(call, ...)
    assert.is_false(fine)
    assert.are.equal("string", type(text))
    assert.are.equal(where, text:sub(1, #where))
    assert.are.equal(words, text:match("^:?%d+: (.*)$", #where + 1))
  end

  local GIVEN = { from = "ada@example.org", to = "bob@example.test", text = "x" }

  local function objects()
    local server = assert(smtp.server {})
    server:close()
    return {
      session = open(), pool = assert(smtp.pool { host = "x", transport = memory.new {} }), message = assert(smtp.message(GIVEN)),
      task = smtp.task(print), server = server,
    }
  end

  for name, methods in pairs {
    session = "connect ehlo starttls auth open mail rcpt data bdat send send_many reset noop verify command quit close",
    pool = "send send_many counts close", message = "size tostring source save preview", task = "step", server = "step run close",
  } do
    for method in methods:gmatch "%S+" do
      it(("say so: %s.%s"):format(name, method), function()
        local one = objects()[name]
        local words = ("%s:%s: is a method: write %s:%s(…), with a colon"):format(name, method, name, method)
        for _, odd in ipairs { GIVEN, "x", 7, false, smtp } do
          told(words, function() one[method](odd) end)
        end
        told(words, function() one[method]() end)
        told(words, one[method])
        told(words, function() return one[method](GIVEN) end)
      end)
    end
  end

  for _, name in ipairs { "send", "message", "session", "connect", "verify", "pool", "task", "server", "now" } do
    it("say so: smtp:" .. name, function()
      local words = ("smtp.%s: is a function: write smtp.%s(…), with a dot"):format(name, name)
      told(words, function() smtp[name](smtp, GIVEN) end)
      told(words, function() return smtp[name](smtp) end)
      told(words, smtp[name], smtp)
    end)
  end
end)

describe("Whatever a public function raises of its own", function()
  it("is a string that begins with the caller's line, by a tail call, a pcall and a message object, too", function()
    local server = assert(smtp.server {})
    local pool = assert(smtp.pool { host = "x", transport = memory.new {} })
    local message = assert(smtp.message { from = "ada@example.org", to = "bob@example.test", text = "x" })
    local nested = { from = "ada@example.org", attachments = { { cid = "x" } } }
    for _, case in ipairs {
      { smtp.send }, { smtp.send, { form = "x" } }, { smtp.send, { host = 7 } }, { smtp.send, { host = "x", tls = "ssl" } },
      { smtp.send, { host = "x", transport = {} } }, { smtp.send, { host = "x", to = { 1 } } }, { smtp.send, nested },
      { smtp.send, { host = "x", auth = { user = "ada" } } }, { smtp.message }, { smtp.message, nested },
      { smtp.message, { dkim = { sel = "x" } } }, { smtp.session, { host = "x", pipeline = "y" } }, { smtp.connect, { timeouts = { x = 1 } } },
      { smtp.verify, 7 }, { smtp.verify, { host = "x", tls_min = "1.1" } }, { smtp.pool, { sise = 1 } }, { smtp.pool, { size = "1" } },
      { smtp.task }, { smtp.task, {} }, { smtp.server, 7 }, { smtp.server, { prot = 1 } }, { smtp.server, { tls = "x" } },
      { smtp.server, { transport = {} } }, { server.step, server, "x" }, { server.step, server, 0 / 0 },
      { pool.send, pool }, { pool.send, pool, { form = 1 } }, { pool.send, pool, nested }, { pool.send_many, pool },
      { pool.send_many, pool, print }, { message.save, message }, { message.save, message, 7 }, { message.preview, message },
      { open().send, open() }, { open().send, open(), { form = 1 } }, { open().send, open(), nested }, { open().send_many, open() },
      { open().send_many, open(), print, print }, { open().mail, open() }, { open().mail, open(), "a@b.c", 7 }, { open().rcpt, open() },
      { open().data, open(), 7 }, { open().bdat, open() }, { open().ehlo, open(), 7 }, { open().auth, open(), 7 },
      { socket.new, "x" }, { socket.new, print, {} }, { socket.new, print, print, 7 },
      { open().auth, open(), { user = "x" } }, { open().verify, open() }, { open().command, open() },
    } do
      local call = case[1]
      local where = here():gsub("%d+: $", "")
      for _, way in ipairs {
        function() local got = call(case[2], case[3], case[4]) return got end,
        function() return call(case[2], case[3], case[4]) end,
      } do
        local fine, text = pcall(way)
        assert.are.same({ false, "string" }, { fine, type(text) })
        assert.are.equal(where, text:sub(1, #where), text)
        assert.is_truthy(text:find("^%d+: [%w_.:]+: ", #where + 1), text)
      end
      local fine, text = pcall(call, case[2], case[3], case[4])
      assert.are.same({ false, where }, { fine, text:sub(1, #where) })
    end
    server:close()
  end)
end)

describe("A transport of a host that this is not", function()
  for name, host in pairs { haproxy = "HAProxy", prosody = "Prosody" } do
    it("says so, with the line that requires it: " .. host, function()
      local where
      local fine, text = pcall(function()
        where = here() local got = require("smtp.transport." .. name)
        return got
      end)
      assert.is_false(fine)
      local words = ("%ssmtp.transport.%s works inside %s only"):format(where, name, host)
      assert.is_truthy(text:find(words, 1, true), text)
    end)
  end
end)

describe("A value that cannot be used is an error of the input:", function()
  for name, given in pairs {
    ["bind with NUL"] = { bind = "127.0.0.1\0" }, ["bind with a blank"] = { bind = "127.0.0.1 " }, ["an empty bind"] = { bind = "" },
    ["bind with a line break"] = { bind = "127.0.0.1\n" }, ["host with NUL"] = { host = "mail\0.example.org" },
    ["an empty host"] = { host = "" }, ["server_name with NUL"] = { server_name = "a\0b" }, ["helo with NUL"] = { helo = "a\0b" },
    ["path with NUL"] = { path = "/tmp/a\0b" }, ["an empty path"] = { path = "" }, ["a port that is none"] = { port = 0 / 0 },
    ["a port too large"] = { port = 1e300 }, ["a timeout that is none"] = { timeout = 0 / 0 }, ["no time"] = { timeout = -1 },
    ["a wait that is none"] = { timeouts = { greeting = 0 / 0 } }, ["a pin that is none"] = { pin = "a\0b" },
    ["a url with NUL"] = { url = "smtp://a%00b" }, ["a proxy with NUL"] = { proxy = "socks5://a%00b" },
  } do
    it(name, function()
      for _, call in ipairs { smtp.connect, smtp.session, smtp.verify, smtp.pool } do
        local options = { host = "mail.example.org", tls = "none", transport = memory.new {} }
        for option, value in pairs(given) do options[option] = value end
        if options.url then options.host = nil end
        local got, err = call(options)
        assert.is_nil(got)
        assert.are.same({ "input", "compose", "not_sent" }, { err.kind, err.stage, err.outcome })
      end
    end)
  end

  it("the server's host", function()
    for _, host in ipairs { "", "a\0b", "a\n" } do
      local got, err = smtp.server { host = host }
      assert.is_nil(got)
      assert.are.same({ "input", "compose" }, { err.kind, err.stage })
    end
  end)

  it("in a verb", function()
    for _, value in ipairs { "a\0b", "a\r\nb", ("x"):rep(1e5) } do
      for _, name in ipairs { "ehlo", "mail", "rcpt", "verify", "command" } do
        local s = open()
        local reply, err = s[name](s, value)
        assert.is_nil(reply)
        assert.are.equal("input", err.kind, name)
        assert.are.equal("ready", s.state)
      end
    end
    for _, value in ipairs { 0 / 0, 1 / 0, -1 / 0, 1.5, 1e300, "a\0b", "a b", "a\nb" } do
      assert.are.equal("input", select(2, open():mail("ada@example.org", { SIZE = value })).kind)
    end
  end)
end)

describe("A transport that fails without a word of why, or with words of its own,", function()
  -- A kind and a reason that it gives -> what the error says.
  local GIVEN = {
    { nil, nil, nil, "the transport gives no reason" }, { "timeout", nil, "timeout" }, { "closed", nil, "closed", "gives no reason" },
    { "EPIPE", nil, nil, "EPIPE" }, { 32, nil, nil, "32" }, { nil, "gone", nil, "gone" }, { "weird", "gone", nil, "gone" },
    { "closed", 7, "closed", "7" }, { "closed", setmetatable({}, { __tostring = function() return "mine" end }), "closed", "mine" },
    { true, false, nil, "false" },
  }

  -- A memory transport whose pipes have the plain functions only; `change` makes them fail.
  local function faulty(change, secure)
    local transport = memory.new(script(hello(), "hang"), { dribble = true })
    transport.secure = secure
    local connect = transport.connect
    function transport.connect()
      local pipe = connect()
      change(pipe)
      return pipe
    end
    return transport
  end

  for name, case in pairs {
    connect = { function(fail) return { connect = fail } end, "connect" },
    read = { function(fail) return faulty(function(pipe) pipe.read = fail end) end, "closed" },
    write = { function(fail) return faulty(function(pipe) pipe.write = fail end) end, "closed" },
    secure = { function(fail) return faulty(function() end, fail) end, "tls", "implicit" },
  } do
    it("in " .. name .. ", is told as an error like any other", function()
      for _, one in ipairs(GIVEN) do
        local receipt, err = smtp.send { host = "x", transport = case[1](function() return nil, one[1], one[2] end),
          tls = case[3] or "none", from = "ada@example.org", to = "bob@example.test", text = "x" }
        assert.is_nil(receipt)
        local kind = one[3] or case[2]
        assert.are.same({ kind, "not_sent" }, { err.kind, err.outcome }, tostring(err))
        assert.is_truthy(tostring(err):find(kind ~= "timeout" and one[4] or "", 1, true), tostring(err))
      end
    end)
  end

  it("or reads what is no string, too", function()
    for _, odd in ipairs { 7, true, {} } do
      local _, err = smtp.connect { host = "x", transport = faulty(function(pipe) pipe.read = function() return odd end end), tls = "none" }
      assert.are.equal("closed", err.kind)
    end
  end)
end)
