-- What goes over the line in which flight, as a relay between client and server writes it down: every tier, to servers
-- nobody here wrote and to smtp.server.
-- Of: client/envelope, protocol/limits
local child = require "spec.support.child"
local commands = require "smtp.server.commands"
local dovecot = require "spec.support.dovecot"
local exim = require "spec.support.daemon" "exim"
local play = require "spec.support.play"
local postfix = require "spec.support.postfix"
local relay = require "spec.support.relay"
local smtp = require "smtp"
local smtp_server = require "spec.support.daemon" "smtp_server"
local together = require "spec.support.together"

local serial = 0

-- A message of which several lines are commands, for whoever reads them as such. All fields are there, so that no server
-- adds one.
local function letter(to)
  serial = serial + 1
  local id = ("flights.%d.%d@example.test"):format(os.time(), serial)
  return { from = "ada@example.test", to = to, id = id, raw = table.concat({
    "Date: Thu, 01 Jan 1970 00:00:00 +0000", "From: ada@example.test", "To: user@example.test", "Subject: flights",
    "Message-ID: <" .. id .. ">", "MIME-Version: 1.0", "", ".", "RSET", "MAIL FROM:<eve@example.test>",
    "RCPT TO:<user2@example.test>", "DATA", "", "this is not a message", ".", "..", "QUIT", "" }, "\r\n") }
end

local function letters(count, to)
  local list = {}
  for i = 1, count do list[i] = letter(to) end
  return list
end

local function options_of(mail)
  return { from = mail.from, to = mail.to, raw = mail.raw }
end

local function each(list)
  local i = 0
  return function()
    i = i + 1
    return list[i] and options_of(list[i])
  end
end

-- The flights of a plain connection in words, from EHLO on: "MAIL RCPT*2 DATA | content QUIT". Raises where a content is
-- not the one of its turn, byte for byte.
local function in_words(link, list)
  local result, turn, content = {}, 0, false
  local function next_content(found, wanted)
    turn = turn + 1
    if not list[turn] or found ~= wanted(list[turn].raw) then error(("content %d is %q"):format(turn, found), 0) end
  end
  for _, flight in ipairs(relay.flights(link)) do
    local words, last, times, at = {}, nil, 0, 1
    local function add(word)
      if word == last then
        times = times + 1
        words[#words] = word .. "*" .. times
      else
        words[#words + 1], last, times = word, word, 1
      end
    end
    if content then
      local stop = select(2, flight:find("\r\n.\r\n", 1, true))
      next_content(flight:sub(1, stop), function(raw) return raw:gsub("\r\n%.", "\r\n..") .. ".\r\n" end)
      add "content"
      at, content = stop + 1, false
    end
    while at <= #flight do
      local line, after = flight:match("^(%C*)\r\n()", at)
      if not line then error(("not a command: %q"):format(flight:sub(at)), 0) end
      at = after
      local octets = line:match("^BDAT (%d+) LAST$")
      if octets then
        local bytes = flight:sub(at, at + octets - 1)
        at = at + octets
        if bytes == "XNOP\r\n" then
          line = "ask"
        else
          next_content(bytes, function(raw) return raw end)
        end
      end
      content = line == "DATA"
      add(line:match("^%a+"))
    end
    result[#result + 1] = table.concat(words, " ")
  end
  return table.concat(result, " | ")
end

-- How many flights a connection over TLS had; the goodbye of TLS itself, a record of 24 octets, is none.
local function count_flights(link)
  local list = relay.flights(link)
  return #list - (#list[#list] == 24 and 1 or 0)
end

-- What a tier is like: how messages are sent, and the flights of three of them to `count` recipients after EHLO. `rounds`
-- is what the receipts tell.
local function session_send(count, list, options)
  local session = assert(smtp.connect(options))
  local rounds = {}
  for i, mail in ipairs(list) do
    local receipt = assert(session:send(options_of(mail)))
    assert.are.equal(count, #receipt.accepted)
    rounds[i] = receipt.round_trips
  end
  assert(session:quit())
  return rounds
end

local function send_many(count, list, options)
  local session = assert(smtp.connect(options))
  local before = session.pump.rounds
  local results = session:send_many(each(list))
  for _ = 1, #list do
    local receipt, err = results()
    assert(receipt, err)
    assert.are.equal(count, #receipt.accepted)
  end
  assert.is_nil((results()))
  local waits = session.pump.rounds - before
  assert(session:quit())
  return { waits }
end

local function send(count, list, options)
  local all = options_of(list[1])
  for name, value in pairs(options) do all[name] = value end
  local receipt = assert(smtp.send(all))
  assert.are.equal(count, #receipt.accepted)
  return { receipt.round_trips }
end

local function times(count, word)
  return count == 1 and word or word .. "*" .. count
end

-- name, the option, how, how many messages, their flights with $R for the recipients, waits; those of smtp.send count TCP,
-- greeting and EHLO too. Without a count of messages: three.
local TIERS = {
  { "session:send command by command", false, session_send, flights = function(count)
    local one = "MAIL" .. (" | RCPT"):rep(count) .. " | DATA | content"
    return one .. " | " .. one .. " | " .. one .. " | QUIT"
  end, waits = function(count) return { count + 3, count + 3, count + 3 } end },
  { "session:send by DATA", "data", session_send,
    flights = "MAIL $R DATA | content | MAIL $R DATA | content | MAIL $R DATA | content | QUIT", waits = { 2, 2, 2 } },
  { "session:send by BDAT", "chunk", session_send, flights = "MAIL $R BDAT | MAIL $R BDAT | MAIL $R BDAT | QUIT",
    waits = { 1, 1, 1 } },
  { "send_many by DATA", "data", send_many,
    flights = "MAIL $R DATA | content MAIL $R DATA | content MAIL $R DATA | content | QUIT", waits = { 4 } },
  { "send_many by BDAT", "chunk", send_many, flights = "MAIL $R BDAT RSET MAIL $R BDAT RSET MAIL $R BDAT | QUIT",
    waits = { 1 } },
  { "send_many of twelve by BDAT", "chunk", send_many, messages = 12,
    flights = "MAIL $R BDAT" .. (" RSET MAIL $R BDAT"):rep(9) .. " | MAIL $R BDAT RSET MAIL $R BDAT | QUIT", waits = { 2 } },
  { "smtp.send by DATA", "data", send, messages = 1, flights = "MAIL $R DATA | content QUIT", waits = { 5 } },
  { "smtp.send by BDAT", "chunk", send, messages = 1, flights = "MAIL $R BDAT QUIT", waits = { 4 } },
}

-- A server's specs. start() gives it or nil and a reason: `port`, `to` (ten recipients) and stored(mail), the contents
-- that are there. `beside`: it lives in this process. With TLS `options` too, `flights` and `waits`, how many come before
-- the first MAIL (of the waits: beside those of a plain connection). `chunks` is false: it does not offer CHUNKING;
-- `unasked`: or is not asked about it.
local function exercise(start)
  local server, reason, between
  setup(function() server, reason = start() end)
  before_each(function()
    if server then between = relay.new(server.port, nil, server.beside) end
  end)
  after_each(function()
    if between then between:close() end
  end)

  local function need()
    if not server then pending(reason) end
  end

  local function run(how, list, pipeline)
    local count = #list[1].to
    return together.run(function()
      local options = { host = "127.0.0.1", port = between.port, tls = "none", helo = "client.example.org",
        pipeline = pipeline }
      for name, value in pairs(server.options or {}) do options[name] = value end
      return how(count, list, options)
    end, between, 30)
  end

  -- Were these the connection's flights, from the first MAIL on?
  local function check_flights(link, list, count, expected)
    expected = expected:gsub("%$R", (times(count, "RCPT")))
    if server.flights then
      local _, bars = expected:gsub("|", "")
      assert.are.equal(server.flights + bars + 1, count_flights(link))
    else
      assert.are.equal("EHLO | " .. expected, in_words(link, list))
    end
  end

  -- Each message is there once for each recipient, or once for all, byte for byte.
  local function check_stored(list)
    for _, mail in ipairs(list) do
      local found = server.stored(mail)
      assert.is_true(#found == 1 or #found == #mail.to, #found .. " copies")
      for _, one in ipairs(found) do assert.are.equal(mail.raw, one) end
    end
  end

  for _, count in ipairs { 1, 10 } do
    local function recipients()
      local to = {}
      for i = 1, count do to[i] = server.to[i] end
      return to
    end

    for _, tier in ipairs(TIERS) do
      local name, pipeline, how = tier[1], tier[2], tier[3]
      it(("%s, %d recipients"):format(name, count), function()
        need()
        if pipeline == "chunk" and server.chunks == false then return end
        local flights, expected = tier.flights, tier.waits
        local list = letters(tier.messages or 3, recipients())
        local waits = run(how, list, pipeline)
        if how == send then waits[1] = waits[1] - (server.waits or 0) end
        check_flights(between.links[1], list, count, type(flights) == "function" and flights(count) or flights)
        assert.are.same(type(expected) == "function" and expected(count) or expected, waits)
        check_stored(list)
      end)
    end

    it(("send_many asks once, and goes on in whole messages, %d recipients"):format(count), function()
      need()
      local first, second = letters(4, recipients()), letters(2, recipients())
      if server.chunks == false or server.unasked then
        assert.are.same({ 5, 3 }, { run(send_many, first)[1], run(send_many, second)[1] })
      else
        assert.are.same({ 3, 1 }, { run(send_many, first)[1], run(send_many, second)[1] })
        check_flights(between.links[1], first, count,
          "MAIL $R DATA | content RSET ask RSET | MAIL $R BDAT RSET MAIL $R BDAT RSET MAIL $R BDAT | QUIT")
        check_flights(between.links[2], second, count, "MAIL $R BDAT RSET MAIL $R BDAT | QUIT")
      end
      check_stored(first)
      check_stored(second)
    end)
  end
end

-- The contents in a maildir of the message with this Message-ID, once they are `wanted`.
local function in_maildir(maildir, mail, wanted)
  local found
  local stop = smtp.now() + 60
  repeat
    found = {}
    local pipe = io.popen(("grep -lF '%s' %s/new/* 2>/dev/null"):format(mail.id, maildir))
    for path in pipe:lines() do found[#found + 1] = child.read(path) end
    pipe:close()
    if #found < wanted then os.execute "sleep 0.05" end
  until #found >= wanted or smtp.now() > stop
  return found
end

describe("the groups to smtp.server:", function()
  exercise(function()
    local server = assert(smtp.server {})
    local to = {}
    for i = 1, 10 do to[i] = ("to%d@example.test"):format(i) end
    return { port = server.port, beside = server, to = to, stored = function(mail)
      local found = {}
      for _, one in ipairs(server.inbox) do
        assert.are.equal(mail.from, one.from)
        if one.data:find(mail.id, 1, true) then
          found[#found + 1] = one.data
          assert.are.same(mail.to, one.to)
        end
      end
      return found
    end }
  end)
end)

describe("the groups to Postfix #real:", function()
  teardown(postfix.stop)
  exercise(function()
    local server, reason = postfix.start()
    if not server then return nil, reason end
    -- one mailbox, whose names differ in case
    local to = { "user@example.test", "User@example.test", "uSer@example.test", "usEr@example.test", "useR@example.test",
      "USer@example.test", "uSEr@example.test", "usER@example.test", "UsEr@example.test", "uSeR@example.test" }
    return { port = server.plain_port, to = to, stored = function(mail)
      local found = in_maildir(server.maildir, mail, 1)
      -- Return-Path, X-Original-To, Delivered-To and Received are its own
      for i, one in ipairs(found) do found[i] = one:gsub("\n", "\r\n"):match("\r\n(Date: .*)$") end
      return found
    end }
  end)
end)

describe("the groups to Exim #real:", function()
  local server, reason
  setup(function() server, reason = exim.start() end)
  teardown(exim.stop)

  exercise(function()
    if not server then return nil, reason end
    local to = {}
    for i = 1, 10 do to[i] = ("to%d@example.test"):format(i) end
    return { port = server.port, to = to, stored = function(mail)
      return in_maildir(server.maildir, mail, #mail.to)
    end }
  end)

  -- after the others: its log is of all of them
  it("it has refused nobody for speaking out of turn, not even where its greeting is late", function()
    if not server then pending(reason) end
    for _, pipeline in ipairs { false, "data", "chunk" } do
      assert(smtp.send { host = "127.0.0.1", port = server.port, tls = "none", bind = "127.0.0.2", pipeline = pipeline,
        from = "ada@example.test", to = "user@example.test", subject = "s", text = "t" })
    end
    local log = server.maildir:gsub("mail$", "log")
    local lines = child.read(log .. "/main")
    assert.is_truthy(lines:find("<= ada@example.test", 1, true))
    for _, one in ipairs { lines, child.read(log .. "/reject"), child.read(log .. "/panic") } do
      assert.is_nil(one:find("synchronization", 1, true), one)
      assert.is_nil(one:find("protocol", 1, true), one)
    end
  end)
end)


local LOGIN = { tls = "implicit", username = "user", password = "pass word", auth = "PLAIN" }

local function with(base, more)
  local all = {}
  for name, value in pairs(base) do all[name] = value end
  for name, value in pairs(more) do all[name] = value end
  return all
end

describe("the groups to Dovecot #real:", function()
  local behind
  setup(function() behind = assert(smtp.server {}) end)
  teardown(function()
    dovecot.stop()
    behind:close()
  end)

  exercise(function()
    local server, reason = dovecot.start(behind.port)
    if not server then return nil, reason end
    local to = {}
    for i = 1, 10 do to[i] = ("to%d@example.test"):format(i) end
    return { port = server.submissions_port, beside = behind, options = with(LOGIN, { ca_file = server.ca_file }), to = to,
      unasked = true, flights = 4, waits = 2, stored = function(mail)
        local found = {}
        for _, one in ipairs(behind.inbox) do
          -- Received is its own
          if one.data:find(mail.id, 1, true) then found[#found + 1] = one.data:match("\r\n(Date: .*)$") end
        end
        return found
      end }
  end)
end)

describe("the groups to npm's smtp-server #real:", function()
  teardown(smtp_server.stop)
  exercise(function()
    local server, reason = smtp_server.start()
    if not server then return nil, reason end
    local to = {}
    for i = 1, 10 do to[i] = ("to%d@example.test"):format(i) end
    return { port = server.port, options = { tls = "starttls", ca_file = server.ca_file }, to = to, chunks = false, flights = 4,
      waits = 3, stored = function(mail)
        local found = {}
        local pipe = io.popen(("grep -lF '%s' %s/[0-9]*"):format(mail.id, server.dir))
        for path in pipe:lines() do found[#found + 1] = child.read(path) end
        pipe:close()
        return found
      end }
  end)
end)

describe("a server that falls over what stands behind the end of a content", function()
  local function envelope(i)
    return { "C: MAIL FROM:<ada@example.test>", ("C: RCPT TO:<to%d@example.test>"):format(i), "C: DATA" }
  end
  local GO, CONTENT = { "S: 250 1", "S: 250 2", "S: 354 go" }, { "C: A: b", "C: ", "C: ." }
  local OFFER = play.ehlo("PIPELINING", "CHUNKING")

  -- The fates of three messages over a session to `host` that goes like that.
  local function fates(host, greeting, pipeline, ...)
    local session, transport = play.open(play.script("S: 220 " .. greeting, OFFER, ...), { host = host, pipeline = pipeline })
    local i, list = 0, {}
    for receipt, err in session:send_many(function()
      i = i + 1
      return i <= 3 and { from = "ada@example.test", to = ("to%d@example.test"):format(i), raw = "A: b\r\n\r\n" } or nil
    end) do list[#list + 1] = receipt and "sent" or err.outcome end
    local pipe = transport.pipe
    if pipe.script[pipe.at] ~= "close" then play.finished(transport) end
    return list
  end

  local ALONE = {}
  for i = 1, 3 do ALONE[i] = { envelope(i), GO, CONTENT, "S: 250 in" } end

  it("gets RSET first there where it is Dovecot, and is not asked about chunks", function()
    for _, pipeline in ipairs { "auto", "data" } do
      assert.are.same({ "sent", "sent", "sent" }, fates("dovecot.example.org", "mail.example.org Dovecot ready.", pipeline,
        envelope(1), GO, CONTENT, "C: RSET", envelope(2), "S: 250 in", "S: 250 reset", GO, CONTENT, "C: RSET", envelope(3),
        "S: 250 in", "S: 250 reset", GO, CONTENT, "S: 250 in"))
    end
  end)

  it("gets nothing there, where not even RSET helps", function()
    assert.are.same({ "unknown", "not_sent", "not_sent" }, fates("new.example.org", "Dovecot ready.", "auto", envelope(1), GO,
      CONTENT, "C: RSET", envelope(2), "close"))
    assert.are.same({ "sent", "sent", "sent" }, fates("new.example.org", "Dovecot ready.", "auto", ALONE))
  end)

  it("gets nothing there a second time", function()
    local host = "brittle.example.org"
    assert.are.same({ "unknown", "not_sent", "not_sent" },
      fates(host, "hello", "data", envelope(1), GO, CONTENT, envelope(2), "close"))
    assert.are.same({ "sent", "sent", "sent" }, fates(host, "hello", "data", ALONE))
  end)

  it("is not taken for one that has borne it before, nor one that lost the connection otherwise", function()
    for name, case in pairs {
      borne = { { envelope(1), GO, CONTENT, envelope(2), "S: 250 in", GO, CONTENT, envelope(3), "close" },
        { "sent", "unknown", "not_sent" } },
      otherwise = { { envelope(1), "close" }, { "not_sent", "not_sent", "not_sent" } },
      refused = { { envelope(1), GO, CONTENT, envelope(2), "S: 421 going", "close" }, { "not_sent", "not_sent", "not_sent" } },
    } do
      local host = name .. ".firm.example.org"
      assert.are.same(case[2], fates(host, "hello", "data", case[1]), name)
      assert.are.same({ "sent", "sent", "sent" }, fates(host, "hello", "data", envelope(1), GO, CONTENT, envelope(2), "S: 250 in",
        GO, CONTENT, envelope(3), "S: 250 in", GO, CONTENT, "S: 250 in"), name)
    end
  end)
end)

-- Waits of a cold smtp.send, with TCP's and those of TLS, QUIT not counted.
describe("a cold smtp.send with a login", function()
  local WAITS = { auto = 7, data = 7, auth = 6, chunk = 6, ["auth+chunk"] = 5 }

  local function check(port, beside, options, fewer)
    for pipeline, waits in pairs(WAITS) do
      local between = relay.new(port, nil, beside)
      local mail = letter { "user@example.test" }
      local receipt = together.run(function()
        return assert(smtp.send(with(with(options_of(mail), options), { host = "127.0.0.1", port = between.port,
          pipeline = pipeline })))
      end, between, 30)
      between:close()
      assert.are.equal(waits - fewer, receipt.round_trips, pipeline)
      -- the greeting and TCP are waited for without a word
      local flights = fewer == 0 and count_flights(between.links[1]) or #relay.flights(between.links[1])
      assert.are.equal(waits - 1 - (fewer == 0 and 0 or 2), flights, pipeline)
    end
  end

  it("waits 5, 4 or 3 times after TCP and TLS: smtp.server", function()
    local server = assert(smtp.server { auth = function(_, password) return password == "pass word" end })
    check(server.port, server, with(LOGIN, { tls = "none", allow_insecure_auth = true }), 1)
    assert.are.equal(5, #server.inbox)
    server:close()
  end)

  it("waits 5, 4 or 3 times after TCP and TLS: Postfix #real", function()
    local server, reason = postfix.start()
    if not server then pending(reason) end
    check(server.smtps_port, nil, with(LOGIN, { ca_file = server.ca_file }), 0)
    postfix.stop()
  end)

  it("waits 5, 4 or 3 times after TCP and TLS: Dovecot #real", function()
    local behind = assert(smtp.server {})
    local server, reason = dovecot.start(behind.port)
    if not server then pending(reason) end
    check(server.submissions_port, behind, with(LOGIN, { ca_file = server.ca_file }), 0)
    assert.are.equal(5, #behind.inbox)
    dovecot.stop()
    behind:close()
  end)
end)

-- It offers CHUNKING, refuses BDAT and reads the chunk as commands: whoever wrote the content commands the server.
describe("a server that does not swallow what it refuses", function()
  local bdat = commands.BDAT
  local server
  before_each(function() server = assert(smtp.server {}) end)
  after_each(function()
    commands.BDAT = bdat
    server:close()
  end)

  for name, refusal in pairs {
    ["says no"] = function(connection) connection:respond(502, "5.5.1", "no") end,
    ["says yes"] = function(connection) connection:respond(250, "2.0.0", "taken") end,
    ["says later"] = function(connection) connection:respond(452, "4.3.1", "full") end,
    ["says two things"] = function(connection)
      connection:respond(502, "5.5.1", "no")
      connection:respond(503, "5.5.1", "not here")
    end,
    ["leaves"] = function(connection) connection:leave(421, "4.7.0", "bye") end,
    ["hangs up"] = function(connection)
      connection:flush()
      connection:close()
    end,
  } do
    it(("and %s: gets no content by BDAT, ever"):format(name), function()
      local chunks = {}
      function commands.BDAT(connection, argument)
        chunks[#chunks + 1] = argument
        refusal(connection)
      end
      local transport = relay.memory(server)
      local options = { host = name:gsub(" ", "-") .. ".example.org", tls = "none", transport = transport, timeout = 60 }
      -- what is not sent goes over the next connection
      local list = letters(6, { "user@example.test" })
      local left, connections = list, 0
      while #left > 0 do
        connections = connections + 1
        assert.is_true(connections <= 2)
        local session, again = assert(smtp.connect(options)), {}
        local number = 0
        for receipt, err in session:send_many(each(left)) do
          number = number + 1
          if not receipt then
            assert.are.equal("not_sent", err.outcome)
            again[#again + 1] = left[number]
          end
        end
        session:close()
        left = again
      end
      assert.are.same({ "6 LAST" }, chunks)
      assert.are.equal(#list, #server.inbox)
      for i, mail in ipairs(list) do
        assert.are.same({ mail.from, mail.raw, mail.to }, { server.inbox[i].from, server.inbox[i].data, server.inbox[i].to })
      end
    end)
  end
end)
