-- send_many's short way by DATA, held to the long one: the same batches to the same server, by both, are the same
-- dialogue in the same groups, and have the same results.
local away = require "spec.support.away"
local clock = require "spec.support.clock"
local shortcut = require "smtp.client.shortcut"
local smtp = require "smtp"

-- Numbers by lot, the same for the same seed.
local function lot(seed)
  seed = seed % 2147483646 + 1
  return function(count)
    seed = (seed * 16807) % 2147483647
    return math.floor(seed / 64) % count + 1
  end
end

-- A value in words, but for its times.
local function show(value)
  if type(value) ~= "table" then return tostring(value) end
  local parts = {}
  for key, inner in pairs(value) do
    if key ~= "time" then parts[#parts + 1] = ("%s=%s"):format(key, show(inner)) end
  end
  table.sort(parts)
  return "{" .. table.concat(parts, " ") .. "}"
end

-- Runs a function with the short way, and with the long way alone. Returns what it gave by each, and how many messages
-- went the short way.
local function each_way(run)
  local send, fits, count = shortcut.send, shortcut.fits, 0
  function shortcut.send(series)
    local receipt, err = send(series)
    if receipt ~= nil then count = count + 1 end
    return receipt, err
  end
  local fine, short = pcall(run)
  function shortcut.fits() return false end
  local also, long
  if fine then also, long = pcall(run) end
  shortcut.send, shortcut.fits = send, fits
  assert(fine, short)
  assert(also, long)
  return short, long, count
end

-- What a server says to each command, by lot: the more of the first, the better it goes.
local ANSWERS = {
  MAIL = { "250 2.1.0 fine", "250-2.1.0 fine\r\n250 2.1.0 as I said", "450 4.1.0 later", "550 5.1.0 no", "421 4.3.2 bye" },
  RCPT = { "250 2.1.5 fine", "250 fine", "550 5.1.1 nobody", "452 4.5.3 too many", "354 go on", "421 bye" },
  DATA = { "354 go", "354-go\r\n354 go", "354 go\r\n554 early", "354 go\r\n250 early", "451 4.3.0 not now", "250 fine", "554 no", "421 bye" },
  [""] = { "250 2.0.0 Ok: queued as 4XYZ1234", "250-fine\r\n250 id=1abcde-000001-Ab", "250 <ada@example.org> in",
    "554 5.7.1 spam", "452 4.3.1 full", "250 in\r\n250 in again", "221 bye", "354 go on", "it is in", "421 bye", "close",
    "hang", "250 in\r\nclose" },
}

-- A transport to a server that answers by lot, and what was said to it, write by write. What comes is cut at the same
-- octets, and the line at the same one, whoever reads and writes.
local function server(seed, log)
  local one = lot(seed)
  local temper = ({ 60, 40, 20, 8 })[one(4)] -- one in so many answers is not the first
  local offer = one(2) == 1 and "250-SIZE 5000\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 PIPELINING\r\n" or "250 PIPELINING\r\n"
  local piece = ({ 1, 7, 50, 1e6, 1e6 })[one(5)]
  local torn = one(8) == 1 and one(900) or 1e9 -- what goes out behind so many octets does not
  local says, given, heard, took, inside, ended = "220 mail.example.org\r\n", 0, "", 0, false, nil

  local function answer(verb)
    local list = ANSWERS[verb] or { "250 fine" }
    local text = one(temper) > 1 and list[1] or list[one(#list)]
    if text:find "354" and verb == "DATA" then inside = true end
    local event = text:match "%a+$"
    if event == "close" or event == "hang" or text:find "421" then ended = event == "hang" and "hang" or "close" end
    text = text:gsub("\r?\n?close$", ""):gsub("^hang$", "")
    says = says .. (text == "" and "" or text .. "\r\n")
  end

  local function listen(bytes)
    heard = heard .. bytes
    local line, rest = heard:match "^(.-)\r\n(.*)$"
    while line and not ended do
      heard = rest
      if not inside then
        if line:find "^EHLO" then says = says .. "250-mail.example.org\r\n" .. offer else answer(line:match "^%a*") end
      elseif line == "." then
        inside = false
        answer ""
      end
      line, rest = heard:match "^(.-)\r\n(.*)$"
    end
  end

  local pipe = { closed = false }
  function pipe:write(bytes)
    if self.closed then return nil, "closed", "the connection is closed" end
    log[#log + 1] = "> " .. bytes
    local room = torn - took
    took = took + #bytes
    if not ended then listen(bytes:sub(1, math.max(0, room))) end
    if #bytes <= room then return true end
    return nil, "closed", "Broken pipe", #bytes - math.max(0, room)
  end
  function pipe:read()
    if self.closed then return nil, "closed", "the connection is closed" end
    if given == #says then
      if ended == "close" then return nil, "closed", "the peer closed the connection" end
      return nil, "timeout", "nothing came in time"
    end
    local to = math.min(#says, given + piece - given % piece)
    local bytes = says:sub(given + 1, to)
    given = to
    return bytes
  end
  function pipe:send(wire) return self:write(wire:take()) end
  function pipe:receive(wire)
    local bytes, kind, reason = self:read()
    if not bytes then return nil, kind, reason end
    local ok, why = wire:feed(bytes)
    if not ok then return nil, "protocol", why end
    return true
  end
  function pipe:peek()
    if self.closed then return "closed" end
    return given < #says and "data" or ended == "close" and "closed" or "idle"
  end
  function pipe:close() self.closed = true end
  return { connect = function() return pipe end }
end

-- Rows by lot: mostly messages that are composed already, the same again and again among them.
local function batch(seed)
  local one, rows, ready = lot(seed), {}, nil
  for i = 1, one(12) do
    local to = {}
    for k = 1, one(6) == 1 and 3 or 1 do to[k] = ("to%d%d@example.test"):format(i, k) end
    local fields = { from = "ada@example.org", to = to,
      raw = ("Message-ID: <%d@example.org>\r\n\r\n.\r\nQUIT\r\n%s"):format(i, (".x\r\n"):rep(one(40))) }
    local kind = one(14)
    if kind == 1 then fields.to = "nobody" end
    if kind == 2 then fields.partial = false end
    if kind == 3 then fields.raw = fields.raw .. ("y"):rep(70) .. "\195\164\r\n" end
    if kind == 4 then fields.raw = ("z"):rep(60) .. "\r\n" .. ("x\r\n"):rep(2000) end
    if kind == 5 then
      rows[i] = function()
        local list = { fields.raw, "and more\r\n" }
        local copy = { from = fields.from, to = to, raw = function() return table.remove(list, 1) end }
        return copy
      end
    elseif kind < 9 and ready then
      rows[i] = function() return ready end
    else
      local mail = kind > 2 and assert(smtp.message(fields)) or fields
      ready = kind > 2 and mail or ready
      rows[i] = function() return mail end
    end
  end
  return rows
end

local hosts = 0

-- One batch against a server by lot: all that was asked, said and told, in order.
local function play(seed, rows)
  local log, one = {}, lot(seed + 7)
  hosts = hosts + 1
  -- what is learnt of a server is another's
  local host = ("h%06d.example.org"):format(hosts)
  local session = assert(smtp.session { host = host, tls = "none", helo = "c.example.org", pipeline = "data",
    transport = server(seed, log) })
  if not session:open() then return log end
  local leaves, closes, asked = one(6) == 1 and one(4), one(20) == 1 and one(#rows), 0
  local results = session:send_many(function()
    asked = asked + 1
    log[#log + 1] = "ask"
    if asked == closes then session:close() end
    return rows[asked] and rows[asked]()
  end)
  local told = 0
  local receipt, err = results()
  while receipt ~= nil do
    told = told + 1
    log[#log + 1] = "result " .. show(receipt or err)
    if told == leaves then results:close() end
    receipt, err = results()
  end
  log[#log + 1] = ("%s, %s, %d waits, %d told"):format(session.state, tostring(session.cause), session.pump.rounds, told)
  return log
end

describe("the shortcut of send_many", function()
  it("is the long way's dialogue, in the same groups, and its results, whatever the server says", function()
    clock.stop()
    finally(clock.go)
    local went, kinds = 0, {}
    for seed = 1, 250 do
      local rows = batch(seed * 31)
      local short, long, count = each_way(function() return play(seed * 17, rows) end)
      assert.are.same(long, short, "seed " .. seed)
      went = went + count
      for _, line in ipairs(short) do
        local kind = line:match "^result .*kind=(%a+)" or line:match "^result {(accepted)"
        if kind then kinds[kind] = (kinds[kind] or 0) + 1 end
      end
    end
    -- that is worth something only where all of it has been seen
    assert.is_true(went > 300, went)
    for _, kind in ipairs { "accepted", "rejected", "closed", "protocol", "timeout", "input" } do
      assert.is_truthy(kinds[kind], kind)
    end
  end)

  it("likewise over a socket whose own calls wait", function()
    local peer = away.start "none"
    finally(function() peer:stop() end)
    local seen, went = 0, 0
    for seed = 1, 8 do
      local one, rows = lot(seed), {}
      for i = 1, 12 do
        local subject = one(5) == 1 and "refused" or ("s%d-%d"):format(seed, i)
        rows[i] = assert(smtp.message { from = "ada@example.org", to = { "bob@example.test", "eve@example.test" },
          subject = subject, text = (".line\n"):rep(one(300)) })
      end
      local short, long, count = each_way(function()
        local session = assert(smtp.connect { host = "127.0.0.1", port = peer.port, tls = "none", pipeline = "data" })
        local i, list = 0, {}
        for receipt, err in session:send_many(function()
          i = i + 1
          return rows[i]
        end) do list[#list + 1] = show(receipt or err):gsub("queued as %x+", ""):gsub("queue_id=%x+", "") end
        list[#list + 1] = session.pump.rounds
        session:quit()
        for k, line in ipairs(peer:messages()) do
          if k > seen then
            seen, list[#list + 1] = k, line
          end
        end
        return list
      end)
      assert.are.same(long, short)
      went = went + count
    end
    assert.is_true(went > 50, went)
  end)
end)
