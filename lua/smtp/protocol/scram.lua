--- scram: SCRAM as pure steps: the password never travels, and the server proves that it knows it too.
---
--- Called by: protocol/sasl.
--- RFC 5802, 7677; bound to the TLS connection (-PLUS): RFC 5929, 9266.
local core = require "smtp.core"
local saslprep = require "smtp.protocol.saslprep"

local scram = {}

-- The RFCs' least, so that a false server learns no hash that is quickly guessed; and the most, which is what OWASP
-- advises for PBKDF2 with SHA-256: some 0.2 s of work. Servers as they come ask for 4,096 to 15,000.
local LEAST, MOST = 4096, 600000
-- What is done without a pause, so that a game's tick is not late: a millisecond or less.
local SLICE = 2048
local KINDS = { "tls-exporter", "tls-server-end-point" }

--- What binds a login to its TLS connection.
---@param server smtp.SaslServer
---@return string? kind nil: nothing does
---@return string? bytes
function scram.binding(server)
  for _, kind in ipairs(server.binding and KINDS or {}) do
    local bytes = server.binding(kind)
    if bytes then return kind, bytes end
  end
end

-- The beginning of the first message, and what "c=" says in the last. "y": we could bind, but nobody offered it; a
-- server that did offer it then knows that the offer was taken away on its way.
local function gs2(server, plus)
  local kind, bytes = scram.binding(server)
  if plus then return "p=" .. kind .. ",,", bytes end
  local taken_away = kind ~= nil
  for name in pairs(server.offered or {}) do
    if name:find("^SCRAM%-.*%-PLUS$") then taken_away = false end
  end
  return taken_away and "y,," or "n,,", ""
end

local function escape(name)
  return (name:gsub("[=,]", { ["="] = "=3D", [","] = "=2C" }))
end

-- "a=1,b=2" as a list of { "a", "1" }; nil where it is not of that form, or asks for an extension that must be known
-- ("m="): none is.
local function attributes(message)
  local list = {}
  for part in (message .. ","):gmatch("([^,]*),") do
    local name, value = part:match("^(%a)=(.+)$")
    if not name or name == "m" then return nil end
    list[#list + 1] = { name, value }
  end
  return list
end

-- nonce, salt, iterations of the server's first message; or nil, reason.
local function read_first(message, nonce)
  local list = attributes(message)
  if not (list and #list >= 3 and list[1][1] == "r" and list[2][1] == "s" and list[3][1] == "i") then
    return nil, "it is malformed"
  end
  local both, salt, count = list[1][2], core.unbase64(list[2][2]), list[3][2]
  if both:sub(1, #nonce) ~= nonce or #both == #nonce or both:find("[^!-~]") then
    return nil, "its nonce does not go on from ours: it may be replayed"
  end
  if not salt then return nil, "its salt is not base64" end
  local iterations = count:find("^[1-9]%d*$") and #count < 16 and tonumber(count)
  if not iterations or iterations < LEAST or iterations > MOST then
    return nil, ("it asks for an iteration count outside %d to %d"):format(LEAST, MOST)
  end
  return both, salt, iterations
end

-- The proof to send and the signature to expect; or nil, reason.
local function compute(hash, password, salt, iterations, auth, pause)
  local tls = require "smtp.tls"
  local derivation, reason = tls.pbkdf2(hash, password, salt, iterations)
  if not derivation then return nil, reason end
  local salted = derivation:step(SLICE)
  while not salted do
    if pause then pause() end
    salted = derivation:step(SLICE)
  end
  local key = tls.hmac(hash, salted, "Client Key")
  local proof = tls.xor(key, tls.hmac(hash, tls.hash(hash, key), auth))
  return proof, tls.hmac(hash, tls.hmac(hash, salted, "Server Key"), auth)
end

--- Begins a login.
---@param hash "sha1"|"sha256"
---@param plus boolean bind it to the TLS connection; then scram.binding must give something
---@param credentials smtp.Credentials
---@param server smtp.SaslServer
---@param nonce string? default: a random one
---@return string? initial nil: it cannot begin
---@return smtp.SaslStep? step
---@return fun(data: string?): string? check on success: what is wrong with it; or, where it cannot begin, the reason
function scram.start(hash, plus, credentials, server, nonce)
  local name, why = saslprep.prepare(credentials.username)
  if not name or name == "" then return nil, nil, "the username " .. (why or "is empty") end
  local password
  password, why = saslprep.prepare(credentials.password)
  if not password then return nil, nil, "the password " .. why .. '; auth = "PLAIN" sends it as it is' end
  if not nonce then
    local random
    random, why = core.random(18)
    if not random then return nil, nil, why end
    nonce = core.base64(random)
  end
  local header, binding = gs2(server, plus)
  local bare = "n=" .. escape(name) .. ",r=" .. nonce
  local state, signature, refusal = "first", nil, nil

  local function answer(message)
    local both, salt, iterations = read_first(message, nonce)
    if not both then return nil, salt end
    local without_proof = "c=" .. core.base64(header .. binding) .. ",r=" .. both
    local proof
    proof, signature = compute(hash, password, salt, iterations, bare .. "," .. message .. "," .. without_proof,
      server.pause)
    if not proof then return nil, signature end
    -- who has it can try passwords against it
    if server.hide then server.hide("v=" .. core.base64(signature)) end
    state = "last"
    return without_proof .. ",p=" .. core.base64(proof)
  end

  -- The server's last message; nil where all is well.
  local function verify(message)
    local list = attributes(message)
    local verdict = list and list[1][1] == "v" and core.unbase64(list[1][2])
    state = "over"
    if not verdict then return "its last message is malformed" end
    if not require "smtp.tls".same(verdict, signature) then
      return "its signature is wrong: it does not know the password and is not the server it should be"
    end
    state = "verified"
  end

  local function step(message)
    if state == "first" then return answer(message) end
    if state ~= "last" then return nil, "it goes on after its end" end
    refusal = message:match("^e=(.*)$")
    if refusal then
      state = "over"
      return "", refusal
    end
    local wrong = verify(message)
    if wrong then return nil, wrong end
    return ""
  end

  -- Some servers send their last message along with their success.
  local function check(data)
    if state == "last" and data then
      local wrong = verify(data)
      if wrong then return wrong end
    end
    if state ~= "verified" then return "it says yes without a proof that it knows the password" end
  end

  return header .. bare, step, check
end

return scram
