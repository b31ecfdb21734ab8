-- ours.lua WORK PORT N [RCPTS]: this library; keep (HOW=batch|alone, FORM=ready|compose), cold, big, pool
-- (CONNECTIONS). PIPELINE: the option of that name.
local smtp = require "smtp"

local work, port, count, rcpts = arg[1], tonumber(arg[2]), tonumber(arg[3]), tonumber(arg[4] or 1)
local env, bench = os.getenv, os.getenv "BENCH"

local to = {}
for i = 1, rcpts do to[i] = ("b%d@example.net"):format(i) end

local function read(name)
  local file = assert(io.open(bench .. "/" .. name, "rb"))
  local bytes = file:read "*a"
  file:close()
  return bytes
end

local text = read "small.txt"

local function fields()
  if work == "big" then
    return { from = "ada@example.org", to = to, subject = "Big", text = "See attached.\n",
      attachments = { { path = bench .. "/att.bin" } } }
  end
  return { from = "Ada <ada@example.org>", to = to, subject = "A small message", text = text }
end

local function server()
  local options = { host = "127.0.0.1", port = port, helo = "localhost", tls = env "TLS" and "implicit" or "none",
    ca_file = env "TLS" and bench .. "/pki/ca.pem", pipeline = env "PIPELINE", size = tonumber(env "CONNECTIONS") }
  if work == "cold" then
    options.username, options.password, options.auth = "user", "secret", "PLAIN"
  end
  return options
end

local ready = env "FORM" ~= "compose" and assert(smtp.message(fields()))

-- As often as asked for.
local function messages()
  local left = count
  return function()
    left = left - 1
    return left >= 0 and (ready or fields()) or nil
  end
end

if work == "cold" then
  for _ = 1, count do
    local options = server()
    for name, value in pairs(fields()) do options[name] = value end
    assert(smtp.send(options))
  end
elseif work == "pool" then
  local pool = assert(smtp.pool(server()))
  pool:send_many(messages(), function(receipt, err) assert(receipt, err) end)
  pool:close()
else
  local session = assert(smtp.connect(server()))
  if env "HOW" == "alone" then
    for message in messages() do assert(session:send(message)) end
  else
    for receipt, err in session:send_many(messages()) do assert(receipt, err) end
  end
  session:quit()
end
