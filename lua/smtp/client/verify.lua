--- verify: how a server is reached, what it offers, what is wrong with it.
---
--- Never: sends a message.
--- Called by: init.
local capability = require "smtp.protocol.capability"
local core = require "smtp.core"
local send = require "smtp.client.send"
local errors = require "smtp.errors"
local session = require "smtp.client.session"

local verify = {}

---@class smtp.Report
---@field ok boolean everything worked
---@field host string? as asked for
---@field port integer
---@field steps table[] in order: {name=, time=, ok=, text= the reply, or the error}; the names are "resolve",
--- "connect", "proxy", "tls", "greeting", "ehlo", "starttls", "auth"
---@field time number seconds in all
---@field greeting string? what the server said first
---@field capabilities table<string, string|true>? the last EHLO reply
---@field mechanisms string[] of AUTH, sorted
---@field size number? octets of the largest message the server takes, where it says so
---@field tls table? {version=, cipher=, resumed=, peer=}
---@field certificate table? {subject=, issuer=, names=, not_after=, days=}: `days` until it expires
---@field authenticated boolean logged in
---@field warnings string[] what works and is not as it should be
---@field error smtp.Error? why it is not ok
local Report = {}
Report.__index = Report

local SOON = 21 -- days before it expires that a certificate should have been renewed

-- Days since 1970 of a date in the Gregorian calendar.
local function day_number(year, month, day)
  if month <= 2 then year, month = year - 1, month + 12 end
  return 365 * year + math.floor(year / 4) - math.floor(year / 100) + math.floor(year / 400)
    + math.floor((153 * (month - 3) + 2) / 5) + day - 719469
end

local function certificate_of(peer)
  if not peer then return nil end
  local year, month, day = (peer.not_after or ""):match("^(%d+)%-(%d+)%-(%d+)")
  return {
    subject = peer.subject, issuer = peer.issuer, names = peer.names, not_after = peer.not_after,
    days = year and day_number(tonumber(year), tonumber(month), tonumber(day)) - math.floor(os.time() / 86400),
  }
end

local function sorted(set)
  local list = {}
  for name in pairs(set) do list[#list + 1] = name end
  table.sort(list)
  return list
end

-- What works and is not as it should be. `clear`: what was offered before TLS.
local function find_warnings(self, plan, clear)
  local warnings = {}
  local function warn(words, ...) warnings[#warnings + 1] = words:format(...) end
  if not self.tls then
    warn "the connection is not encrypted: anybody on the way can read and change what is sent"
  elseif not plan.verify then
    warn "the certificate was not checked (verify = false): anybody on the way could have answered"
  end
  if self.tls and clear and clear.AUTH then
    warn "the server offers AUTH before TLS too: a careless client will send it passwords in clear"
  end
  local days = self.certificate and self.certificate.days
  if days and days < SOON then warn("the certificate expires in %d days (%s)", days, self.certificate.not_after) end
  if self.capabilities and #self.mechanisms == 0 and not plan.path then
    warn "the server offers no login: it takes mail for its own users only, or knows this machine's address"
  elseif self.capabilities and not plan.credentials then
    warn "no login was tried: give username and password, or token"
  end
  if self.capabilities and not self.capabilities.PIPELINING then
    warn "the server does not offer PIPELINING: every command waits for the reply to the one before"
  end
  return warnings
end

--- Connects, encrypts and logs in as the options ask, and says goodbye. May yield.
---@param plan table from smtp.options
---@return smtp.Report? report
---@return smtp.Error? err `err.report` is the report as far as it got
function verify.run(plan)
  local began = core.now()
  local one = session.once(plan, began)
  local self = setmetatable({
    ok = false, host = plan.path or plan.host, port = plan.port,
    steps = {}, mechanisms = {}, warnings = {}, authenticated = false,
  }, Report)
  local clear
  local function add(name, seconds, text, err)
    self.steps[#self.steps + 1] = { name = name, time = seconds, ok = not err, text = err and tostring(err) or text }
  end
  local function note(name, seconds, reply, err)
    errors.apart(err)
    if name == "connect" then
      -- all that comes before the greeting, as far as it came
      local took, words = one.time, one.tls and one.tls.version
      local resolve = took.resolve or 0
      if took.resolve then add("resolve", resolve, "") end
      if took.connect then add("connect", took.connect - resolve, "") end
      if took.tls then add("tls", took.tls, words) end
      name, seconds = err and err.stage or "greeting", seconds - (took.connect or 0) - (took.tls or 0)
    end
    add(name, seconds, reply and reply.text, err)
    if name == "ehlo" then
      if not one.tls then clear = one.capabilities end
      self.capabilities = one.capabilities
    end
    self.authenticated = self.authenticated or name == "auth" and not err
  end
  local _, err = one:open(note)
  self.greeting = one.greeting and one.greeting.text
  self.tls = one.tls
  self.certificate = certificate_of(one.tls and one.tls.peer)
  if self.capabilities then
    self.mechanisms = sorted(capability.mechanisms(self.capabilities))
    self.size = capability.size(self.capabilities)
    self.warnings = find_warnings(self, plan, clear)
  end
  if not err then send.farewell(one, true) end
  self.ok, self.error, self.time = not err, err, core.now() - began
  if not err then return self end
  err.report = self
  return nil, errors.apart(err)
end

local function milliseconds(seconds)
  return ("%.0f ms"):format(seconds * 1000)
end

-- The keywords beside AUTH, each with what it has to say.
local function offers(capabilities)
  local words = {}
  for _, name in ipairs(sorted(capabilities)) do
    local value = capabilities[name]
    if name ~= "AUTH" then words[#words + 1] = value == true and name or name .. " " .. value end
  end
  return table.concat(words, ", ")
end

--- The report for a terminal: a line for each step, then what is known.
function Report:__tostring()
  local lines = {}
  local function add(label, words, ...)
    if select("#", ...) > 0 then words = words:format(...) end
    lines[#lines + 1] = ("%-12s %s"):format(label, (words:gsub("%c", " ")))
  end
  local unix = self.host:find("^/")
  add("server", unix and self.host or ("%s port %d"):format(self.host, self.port))
  for _, step in ipairs(self.steps) do
    add(step.name, "%-6s %8s  %s", step.ok and "ok" or "FAILED", milliseconds(step.time), step.text:match("[^\n]*"))
  end
  if self.tls then add("tls", "%s, %s", self.tls.version, self.tls.cipher or "") end
  local certificate = self.certificate
  if certificate then
    add("certificate", "for %s", table.concat(certificate.names or {}, ", "))
    add("", "by %s", certificate.issuer or "?")
    add("", "until %s (%s days)", certificate.not_after or "?", certificate.days or "?")
  end
  if self.capabilities then
    add("offers", offers(self.capabilities))
    add("logins", #self.mechanisms > 0 and table.concat(self.mechanisms, ", ") or "none")
  end
  if self.size then add("largest", "%.1f MB", self.size / 1048576) end
  for _, words in ipairs(self.warnings) do add("warning", words) end
  if self.error then
    add("problem", self.error.reason or ("the server said %s %s"):format(self.error.code or "", self.error.text or ""))
    if self.error.hint then add("try", self.error.hint) end
  end
  local verdict = not self.ok and "not usable as asked" or self.authenticated and "ready, logged in" or "ready"
  add("result", "%s, in %s", verdict, milliseconds(self.time))
  return table.concat(lines, "\n")
end

return verify
