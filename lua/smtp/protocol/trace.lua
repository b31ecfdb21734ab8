--- trace: the dialogue as it may be shown, with every secret taken out, also where the server echoes one. Pure.
---
--- Does: keeps the lines for a transcript, or hands them to a function of the caller's.
--- Called by: client/state, which makes one; client/pump and client/burst tell it what goes by, client/login what is
--- secret; and whatever in client/ shows a server's words.
local core = require "smtp.core"

local trace = {}

---@class smtp.Trace
---@field wanted boolean somebody will see it
---@field sent fun(line: string) a command, as it may be shown
---@field received fun(reply: smtp.Reply)
---@field hide fun(secret: string) never to be shown, in any usual form
---@field scrub fun(text: string): string the text without the secrets
---@field transcript fun(): string? the dialogue so far, where it is kept

-- A shorter secret would stand in ordinary words too, and replacing it there would tell what it is.
local SHORTEST = 4
-- So much of a longer one gives it away: servers cut what they echo.
local TELLING = 12

-- How far `text` agrees with the secret from `first` on.
local function agreement(text, first, secret)
  local count = 0
  while count < #secret and text:byte(first + count) == secret:byte(count + 1) do count = count + 1 end
  return count
end

-- Takes every stretch out of `text` that agrees with one of `secrets` from its start, as far as any of them agrees.
local function replace(text, telling, secrets)
  local parts, from = {}, 1
  while true do
    local first = text:find(telling, from, true)
    if not first then break end
    local longest = #telling
    for _, secret in ipairs(secrets) do longest = math.max(longest, agreement(text, first, secret)) end
    parts[#parts + 1] = text:sub(from, first - 1)
    from = first + longest
  end
  parts[#parts + 1] = text:sub(from)
  return table.concat(parts, "****")
end

local function hex(bytes)
  return (bytes:gsub(".", function(byte) return ("%02x"):format(byte:byte()) end))
end

local function url_encoded(bytes)
  return (bytes:gsub("[^%w%-%._~]", function(byte) return ("%%%02X"):format(byte:byte()) end))
end

-- As it stands in base64 behind `count` (0 to 2) other bytes and before others: the characters that are its own.
local function inner_base64(bytes, count)
  local encoded = core.base64(("\0"):rep(count) .. bytes):sub(count == 0 and 1 or count + 2)
  return (encoded:gsub(".=+$", ""))
end

-- As a quoted string.
local function quoted(bytes)
  return (bytes:gsub('["\\]', "\\%0"))
end

-- As it reads in a reply: the parser shows bytes that are not text as \xNN, and keeps no more of a line than this.
local function shown(bytes)
  local wire = core.wire(1)
  wire:feed("250 -" .. bytes:sub(1, 2000):gsub("[\r\n]", "") .. "\r\n")
  local code, text = wire:reply()
  return code and text:sub(2) or ""
end

-- A secret in every usual form.
local function forms_of(secret)
  local url = url_encoded(secret)
  local lower = url:gsub("%%%x%x", string.lower)
  return { secret, core.base64(secret), hex(secret), hex(secret):upper(), url, lower, shown(secret), quoted(secret),
    inner_base64(secret, 0), inner_base64(secret, 1), inner_base64(secret, 2) }
end

--- A keeper of the dialogue. The secrets live in upvalues: no dump of a session shows them.
---@param wanted boolean|function true: keep a transcript; a function (direction, line): called for each line
---@return smtp.Trace
function trace.new(wanted)
  local hidden, known, lines = {}, {}, {}
  local secrets, sieve = {}, nil -- every form of what is hidden, the longest first; no sieve: there is more by now

  local function hide(secret)
    if known[secret] or #secret < SHORTEST then return end
    known[secret], sieve = true, nil
    hidden[#hidden + 1] = secret
  end

  local function prepare()
    local seen = {}
    secrets = {}
    for _, secret in ipairs(hidden) do
      for _, form in ipairs(forms_of(secret)) do
        if #form >= SHORTEST and not seen[form] then secrets[#secrets + 1] = form end
        seen[form] = true
      end
    end
    table.sort(secrets, function(a, b) return #a > #b or #a == #b and a < b end)
    sieve = core.sieve(secrets)
  end

  -- All that a server says comes through here, and hardly ever has a secret in it.
  local function scrub(text)
    if not hidden[1] then return text end
    if not sieve then prepare() end
    if not core.holds(sieve, text) then return text end
    for _, secret in ipairs(secrets) do text = replace(text, secret:sub(1, TELLING), secrets) end
    return text
  end

  local function add(direction, line)
    line = scrub(line)
    if type(wanted) == "function" then
      wanted(direction, line)
    else
      lines[#lines + 1] = direction .. ": " .. line
    end
  end

  local function sent(line)
    if wanted then add("C", line) end
  end

  local function received(reply)
    if not wanted then return end
    local enhanced = reply.enhanced and reply.enhanced .. " " or ""
    local all = {}
    for line in (reply.text .. "\n"):gmatch("([^\n]*)\n") do all[#all + 1] = line end
    for i, line in ipairs(all) do
      add("S", ("%03d%s%s%s"):format(reply.code, i < #all and "-" or " ", enhanced, line))
    end
  end

  local function transcript()
    return wanted == true and table.concat(lines, "\n") or nil
  end

  return {
    wanted = wanted and true or false, sent = sent, received = received, hide = hide, scrub = scrub,
    transcript = transcript,
  }
end

return trace
