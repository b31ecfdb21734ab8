-- ours.lua WORKLOAD PORT N [RCPTS]: sends N messages. WORKLOAD: ready, composing (a batch on one connection), alone (one
-- call a message), cold (a connection a message, logged in), attachment, or pool (CONNS connections). TLS=1: implicit
-- TLS, verified; PIPELINE: the option of that name; FULL=1: no TLS
-- session is resumed.
local smtp = require "smtp"

local workload, port, count, recipients = arg[1], tonumber(arg[2]), tonumber(arg[3]), tonumber(arg[4] or 1)

local to = {}
for i = 1, recipients do to[i] = ("b%d@example.net"):format(i) end

local file = assert(io.open("data/small.txt"))
local text = file:read "*a"
file:close()

local function fields()
  return { from = "Alice Example <a@example.com>", to = to, subject = "Quarterly report, small test message", text = text }
end

local function server(more)
  local options = {
    host = "127.0.0.1", port = port, helo = "localhost", pipeline = os.getenv "PIPELINE" or "data",
    tls = os.getenv "TLS" and "implicit" or "none", ca_file = os.getenv "TLS" and "cert.pem" or nil,
  }
  for name, value in pairs(more or {}) do options[name] = value end
  return options
end

-- N times what `make` gives.
local function times(make)
  local i = 0
  return function()
    i = i + 1
    return i <= count and make() or nil
  end
end

local ready = assert(smtp.message(fields()))
local function the_same() return ready end

if workload == "cold" then
  local options = server { username = "user", password = "secret", auth = "PLAIN" }
  for name, value in pairs(fields()) do options[name] = value end
  for i = 1, count do
    local receipt = assert(smtp.send(options))
    -- another second pin each time keeps the session from being resumed
    if os.getenv "FULL" then options.pin = { receipt.tls.peer.pin, ("%042dA="):format(i) } end
  end
elseif workload == "pool" then
  local pool = assert(smtp.pool(server { size = tonumber(os.getenv "CONNS") }))
  assert(pool:send_many(times(the_same), assert))
  pool:close()
else
  local session = assert(smtp.connect(server()))
  if workload == "alone" then
    for _ = 1, count do assert(session:send(ready)) end
  else
    local make = the_same
    if workload == "composing" then make = fields end
    if workload == "attachment" then
      make = function()
        return { from = "a@example.com", to = to, subject = "Big", text = "See attached.", attachments = { { path = "data/att.bin" } } }
      end
    end
    for receipt, err in session:send_many(times(make)) do assert(receipt, err) end
  end
  assert(session:quit())
end
