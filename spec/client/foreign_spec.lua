-- Transports of others, whose write may say that it failed though all it was given has gone out.
local smtp = require "smtp"
local socket = require "smtp.transport.socket"
local together = require "spec.support.together"

local builtin = socket.new()
local LONG = ("0123456789abcdefghijklmnopqrstuvwxyz\r\n"):rep(3500) -- several writes, and several chunks

-- A transport that only knows read and write. Its write number `at` takes all and fails; `mute`: nothing can be read then,
-- `told`: it says that so many octets are missing, and takes as many fewer.
local function transport(at, mute, told)
  local own, failed = { wait = builtin.wait }, false
  function own.connect(...)
    local inner, kind, reason = builtin.connect(...)
    if not inner then return nil, kind, reason end
    local count = 0
    return {
      read = function(_, deadline)
        if failed and mute then return nil, "closed", "nothing more" end
        -- whether the server's last word comes in time is of no importance here
        return inner:read(failed and math.min(deadline, smtp.now() + 0.01) or deadline)
      end,
      write = function(_, bytes, deadline)
        count = count + 1
        local fails = count == at
        if fails and told then bytes = bytes:sub(1, -told - 1) end
        local ok, why, words = inner:write(bytes, deadline)
        if not fails or failed then return ok, why, words end
        failed = true
        return nil, "closed", "it failed, they say", told
      end,
      peek = function() return failed and mute and "closed" or inner:peek() end,
      close = function() inner:close() end,
    }
  end
  return own, function() return failed end
end

local function letter(i, source)
  local raw = ("Message-ID: <%d@example.org>\r\n\r\n%s"):format(i, source and LONG or "x\r\n")
  local at = 0
  return { from = "ada@example.org", to = { "bob@example.test", "eve@example.test" }, raw = source and function()
    at = at + 1
    local piece = raw:sub((at - 1) * 30000 + 1, at * 30000)
    if piece ~= "" then return piece end
    at = 0
  end or raw }
end

-- The ways to send: each gives a result { number of the letter, receipt, err } for each message.
local WAYS = {}

function WAYS.send(options)
  for name, value in pairs(letter(1)) do options[name] = value end
  local receipt, err = smtp.send(options)
  return { { 1, receipt, err } }
end

function WAYS.session(options, source)
  local results, session = {}, smtp.connect(options)
  if not session then return {} end
  for i = 1, 2 do results[i] = { i, session:send(letter(i, source)) } end
  session:close()
  return results
end

function WAYS.in_pieces(options)
  return WAYS.session(options, true)
end

function WAYS.verbs(options)
  local session = smtp.connect(options)
  if not (session and session:mail "ada@example.org" and session:rcpt "bob@example.test") then return {} end
  local reply, err = session:data(letter(1).raw)
  session:close()
  return { { 1, reply, err } }
end

function WAYS.bdat(options)
  if options.lmtp then return WAYS.verbs(options) end
  local session = smtp.connect(options)
  if not (session and session:mail "ada@example.org" and session:rcpt "bob@example.test") then return {} end
  local reply, err = session:bdat(letter(1).raw)
  session:close()
  return { { 1, reply, err } }
end

function WAYS.send_many(options)
  local results, session = {}, smtp.connect(options)
  if not session then return {} end
  local given = 0
  local told = session:send_many(function()
    given = given + 1
    return given <= 3 and letter(given) or nil
  end)
  local receipt, err = told()
  while receipt ~= nil do
    results[#results + 1] = { #results + 1, receipt or nil, err }
    receipt, err = told()
  end
  session:close()
  return results
end

function WAYS.pool(options)
  options.attempts = 1
  local pool, results = assert(smtp.pool(options)), {}
  for i = 1, 2 do results[i] = { i, pool:send(letter(i)) } end
  pool:close()
  return results
end

describe("a write that fails though all has gone out", function()
  for _, case in ipairs {
    { "by DATA", "none", "data" }, { "by BDAT", "none", "chunk" }, { "one command at a time", "none", false },
    { "by DATA under TLS", "starttls", "data" }, { "by BDAT under TLS", "starttls", "chunk" }, { "by LMTP", "none", "data", true },
  } do
    for name, way in pairs(WAYS) do
      it(("leaves it unknown what became of the message: %s, %s"):format(name, case[1]), function()
        for _, mute in ipairs { true, false } do
          local at, unknown, went_through = 0, 0, false
          while not went_through do
            at = at + 1
            local server = assert(smtp.server { tls = case[2], lmtp = case[4] or nil })
            local own, has_failed = transport(at, mute)
            local results = together.run(function()
              return way { host = "localhost", port = server.port, tls = case[2], ca_file = server.certificate, pipeline = case[3],
                lmtp = case[4] or nil, transport = own }
            end, server)
            for _ = 1, 8 do server:step(0) end
            server:close()
            local taken = {}
            for _, got in ipairs(server.inbox) do
              local number = tonumber(got.data:match "^Message%-ID: <(%d)")
              assert.is_nil(taken[number], "sent twice")
              taken[number] = true
            end
            for _, result in ipairs(results) do
              local number, receipt, err = result[1], result[2], result[3]
              if receipt then
                assert.is_true(taken[number])
              else
                if taken[number] then assert.are.equal("unknown", err.outcome, at .. " " .. tostring(err)) end
                if err.outcome == "unknown" then unknown = unknown + 1 end
              end
            end
            went_through = not has_failed()
          end
          if mute then assert.is_true(unknown > 0) end
        end
      end)
    end
  end

  it("and one that tells what is missing, of the end: the message was not sent", function()
    for told, outcome in pairs { [1] = "not_sent", [3] = "not_sent", [0] = "unknown" } do
      local server = assert(smtp.server {})
      -- greeting and EHLO, the envelope, the content
      local err = together.run(function()
        local session = assert(smtp.connect { host = "127.0.0.1", port = server.port, tls = "none", pipeline = "data",
          transport = transport(3, true, told) })
        return select(2, session:send(letter(1)))
      end, server)
      server:close()
      assert.are.same({ "closed", "final", outcome }, { err.kind, err.stage, err.outcome })
    end
  end)
end)
