--- extension: the parameters of MAIL and RCPT that a server knows, its own and those of the extensions it is told to
--- offer. Pure.
---
--- Called by: server.
--- RFC 1870, 6152, 4954 and 6531 always; on request RFC 3030 (BINARYMIME), 3461 (DSN), 8689 (REQUIRETLS), 2852
--- (DELIVERBY), 4865 (FUTURERELEASE), 6710 (MT-PRIORITY).
local extension = {}

---@class smtp.Extensions
---@field lines string[] what EHLO offers
---@field mail table<string, fun(value: string|true): any> parameters of MAIL: whether one may have that value
---@field rcpt table<string, fun(value: string|true): any>

local function matches(...)
  local patterns = { ... }
  return function(value)
    for _, pattern in ipairs(patterns) do
      if value ~= true and value:upper():find(pattern) then return true end
    end
    return false
  end
end

local function bare(value) return value == true end

local NOTIFY = { SUCCESS = true, FAILURE = true, DELAY = true }

local function notify(value)
  if value == true then return false end
  value = value:upper()
  for word in (value .. ","):gmatch("([^,]*),") do
    if not NOTIFY[word] then return value == "NEVER" end
  end
  return true
end

local XTEXT = "^[!-*,-<>-~+]+$"
local BODY = matches("^7BIT$", "^8BITMIME$")

local MAIL = { SIZE = matches "^%d+$", BODY = BODY, AUTH = matches ".", SMTPUTF8 = bare }
local EXTENSIONS = {
  BINARYMIME = { mail = { BODY = matches("^7BIT$", "^8BITMIME$", "^BINARYMIME$") } },
  DSN = { mail = { RET = matches("^FULL$", "^HDRS$"), ENVID = matches(XTEXT) },
    rcpt = { NOTIFY = notify, ORCPT = matches "^[A-Z0-9-]+;[!-*,-<>-~+]+$" } },
  REQUIRETLS = { mail = { REQUIRETLS = bare } },
  DELIVERBY = { mail = { BY = matches("^%-?%d+;[NR]T?$") } },
  FUTURERELEASE = { mail = { HOLDFOR = matches "^%d+$", HOLDUNTIL = matches "^%d%d%d%d%-%d%d%-%d%dT[%d:]+Z$" } },
  ["MT-PRIORITY"] = { mail = { ["MT-PRIORITY"] = matches "^%-?%d$" } },
}

local function add(into, more)
  for name, check in pairs(more or {}) do into[name] = check end
end

--- What a server that offers these knows.
---@param offered string[] EHLO lines: "DSN", "DELIVERBY 60"
---@return smtp.Extensions? extensions
---@return string? reason
function extension.new(offered)
  local self = { lines = {}, mail = {}, rcpt = {} }
  add(self.mail, MAIL)
  for i, line in ipairs(offered) do
    local name = type(line) == "string" and line:match("^([A-Z0-9-]+)[!-~ ]*$")
    local known = EXTENSIONS[name]
    if not known then
      return nil, "extensions: may be BINARYMIME, DELIVERBY, DSN, FUTURERELEASE, MT-PRIORITY and REQUIRETLS"
    end
    self.lines[i] = line
    add(self.mail, known.mail)
    add(self.rcpt, known.rcpt)
  end
  return self
end

return extension
