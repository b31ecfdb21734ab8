--- plan: server options turned into what is to be done: every default filled in, nothing left to look up later.
---
--- Does: reads urls and proxies, hides secrets in functions, finds the values that cannot work (nil, err).
--- Never: looks at a message; resolves or connects.
--- Called by: smtp, client/pool, client/login. RFC 3986 (URLs), RFC 5891 (host names).
local check = require "smtp.check"
local core = require "smtp.core"
local errors = require "smtp.errors"
local hosts = require "smtp.protocol.host"
local options = require "smtp.options"
local sasl = require "smtp.protocol.sasl"

local plans = {}

local TIMEOUTS = { connect = 30, greeting = 300, command = 300, data = 120, block = 180, final = 600 }
-- How much may go together: `chunk`: content in chunks, never (false), always where offered (true); `login`: see
-- Session:open.
local TIERS = {
  auto = {}, data = { chunk = false }, chunk = { chunk = true }, auth = { login = true },
  ["auth+chunk"] = { login = true, chunk = true },
}
local FILES = { "ca_file", "ca_path", "client_cert", "client_key" }
local TLS_MODES = { implicit = true, starttls = true, opportunistic = true, none = true }
local VERSIONS = { ["1.2"] = true, ["1.3"] = true }
local SCHEMES = {
  smtp = { tls = "starttls", port = 587 },
  smtps = { tls = "implicit", port = 465 },
  ["smtp+insecure"] = { tls = "none", port = 25 },
  lmtp = { tls = "starttls", port = 24, lmtp = true },
  ["lmtp+unix"] = { tls = "none", lmtp = true, path = true },
}
local PROXIES = {
  socks5 = { kind = "socks5", port = 1080 },
  http = { kind = "http", port = 80 },
}

local TRANSPORTS = { cqueues = true, luv = true, copas = true, haproxy = true, prosody = true, skynet = true }

local function unescape(text)
  return (text:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

-- Never shows the url itself: a password may stand in it.
local function parse_url(url, schemes, label)
  local scheme, rest = url:match("^([%a][%w+.-]*)://(.*)$")
  local known = scheme and schemes[scheme:lower()]
  if not known then
    local names = {}
    for name in pairs(schemes) do names[#names + 1] = name .. "://" end
    table.sort(names)
    return nil, ("%s must begin with %s"):format(label, table.concat(names, ", "):gsub(", ([^,]*)$", " or %1"))
  end
  local parts = {}
  for name, value in pairs(known) do parts[name] = value end
  if known.path then
    parts.path = unescape(rest)
    if rest:sub(1, 1) ~= "/" then return nil, label .. " has no path: write three slashes, lmtp+unix:///path" end
    return parts
  end
  local authority = rest:match("^[^/?#]*")
  if #authority < #rest and rest:sub(#authority + 1) ~= "/" then
    return nil, label .. " has something behind the host; write / ? and # in a user name or password as %2F %3F %23"
  end
  local user, server = authority:match("^(.*)@([^@]*)$")
  server = server or authority
  local host, port = server:match("^%[([^%]]*)%](.*)$")
  if not host then host, port = server:match("^([^:]*)(.*)$") end
  if host == "" then return nil, label .. " names no host" end
  if port ~= "" and not port:match("^:%d+$") then return nil, label .. "'s port is not a number" end
  parts.host, parts.port = unescape(host), tonumber(port:sub(2)) or known.port
  if user then
    local name, password = user:match("^([^:]*):(.*)$")
    parts.username = unescape(name or user)
    parts.password = password and unescape(password)
  end
  return parts
end

local function is_clean(value)
  return not value:find("[%c%s]") and value ~= ""
end

local function timeouts_of(given)
  local timeouts, named = {}, {}
  for name, default in pairs(TIMEOUTS) do
    named[name] = given ~= nil and given[name] ~= nil
    timeouts[name] = named[name] and given[name] or default
  end
  return timeouts, named
end

-- Each once: one that was offered in vain must not have another turn.
local function list_of_mechanisms(auth)
  if auth == true then return nil end
  if type(auth) == "string" then auth = { auth } end
  if type(auth) ~= "table" then return auth end
  local names, seen = {}, {}
  for _, name in ipairs(auth) do
    name = name:upper()
    if not seen[name] then names[#names + 1] = name end
    seen[name] = true
  end
  return names
end

-- NaN is not.
local function is_positive(number)
  return number > 0
end

local function is_port(number)
  return number % 1 == 0 and number >= 1 and number <= 65535
end

-- A host name as DNS knows it: A-labels (RFC 5890 2.3.2.1).
local function to_ascii(host, label)
  if not host or not host:find("[\128-\255]") then return host end
  local name, reason = core.idn(host)
  if not name then return nil, ("%s: %s"):format(label, reason) end
  return name
end

-- Its user name and password are hidden in a function, as the server's are.
local function parse_proxy(url)
  local parts, reason = parse_url(url, PROXIES, "proxy")
  if not parts then return nil, reason end
  local user, password = parts.username, parts.password
  -- HTTP has empty passwords, for those who log in by a name alone
  local shown = (password ~= "" or parts.kind ~= "http") and password or nil
  reason = user and (sasl.flaw { username = user, password = shown }
    or sasl.lack({ username = user, password = password }, nil, false))
  if reason then return nil, "the proxy's " .. reason end
  parts.host, reason = to_ascii(parts.host, "the proxy's host")
  if not parts.host then return nil, reason end
  if not is_clean(parts.host) then return nil, "the proxy's host has a blank or control character in it" end
  if not is_port(parts.port) then return nil, "the proxy's port must be from 1 to 65535" end
  if user and parts.kind == "socks5" and (#user < 1 or #user > 255 or #password > 255) then
    return nil, "a user name and a password for a SOCKS proxy have at most 255 octets each"
  elseif user and parts.kind == "http" and user:find(":", 1, true) then
    return nil, "a user name for an HTTP proxy has no colon in it"
  end
  return { kind = parts.kind, host = parts.host, port = parts.port,
    credentials = user and function() return user, password end or nil }
end

-- The pins of `pin`, in one form; nil and why where one cannot be a pin. A list of none would let nobody in, or all.
local function list_of_pins(given)
  if type(given) ~= "table" then given = { given } end
  local pins = {}
  for i, pin in ipairs(given) do
    local digest = type(pin) == "string" and core.unbase64(pin)
    if not digest or #digest ~= 32 then break end
    pins[i] = core.base64(digest)
  end
  if #pins == 0 or #pins ~= #given then
    return nil, "pin must be the SHA-256 of a server's public key in base64 (44 characters), or a list of them"
  end
  return pins
end

-- The values that can be wrong at run time: they may come from a configuration file or a form.
local function problem(plan)
  if not plan.path and not plan.host then return "no server: give host (or url, or path)" end
  if plan.host and not is_clean(plan.host) then return "host has a blank or control character in it, or is empty" end
  if not is_port(plan.port) then return "port must be from 1 to 65535" end
  if plan.path and (plan.proxy or plan.bind) then
    return (plan.proxy and "proxy" or "bind") .. " and path exclude each other: a unix socket leads nowhere else"
  end
  if plan.proxy and #plan.host > 255 then return "host is longer than a proxy can be told" end
  if plan.helo and not plan.helo:find("^[%w%.%-_:%[%]]+$") then
    return "helo must be a domain name or an address literal"
  end
  if plan.server_name and not is_clean(plan.server_name) then return "server_name is not a name" end
  if plan.bind and not is_clean(plan.bind) then return "bind has a blank or control character in it, or is empty" end
  if plan.path and (plan.path == "" or plan.path:find("\0", 1, true)) then return "path is empty or has a NUL in it" end
  if plan.timeout and not is_positive(plan.timeout) then return "timeout must be more than 0" end
  for name, value in pairs(plan.timeouts) do
    if not is_positive(value) then return "timeouts." .. name .. " must be more than 0" end
  end
end

---@class smtp.Credentials
---@field username string?
---@field password string?
---@field token (string|function)?

--- Checks login options (username, password, token, auth) and hides the secrets in a function, so that printing a table
--- that holds them shows nothing. Returns nil where there is nothing to log in with; a mechanism asked for by name may
--- need nothing (EXTERNAL).
---@param given table
---@return (fun(): smtp.Credentials)?
function plans.credentials(given)
  if not (given.username or given.password or given.token or list_of_mechanisms(given.auth)) then return nil end
  local held = { username = given.username, password = given.password, token = given.token }
  return function() return held end
end

-- The client's certificate and key, hidden likewise: the key may be given as PEM text.
local function identity(given)
  local cert, key = given.client_cert, given.client_key
  return cert and function() return cert, key end
end

plans.mechanisms = list_of_mechanisms

-- The options with those in the url filled in where they are not given; nil and a reason.
local function with_url(given)
  if not given.url then return given end
  local all, reason = parse_url(given.url, SCHEMES, "the url")
  if not all then return nil, reason end
  -- the port of a url without one goes with its scheme, unless the mode is overridden
  if given.tls and not given.port and not given.url:find(":%d+/?$") then all.port = nil end
  for name, value in pairs(given) do all[name] = value end
  return all
end

-- Words that an option does not have are a mistake in the program.
local function choose(label, name, value, known, words)
  if not known[value] then check.raise(("%s: option %q must be %s, not %q"):format(label, name, words, value)) end
end

local function tls_of(all, label)
  -- what goes to a unix socket does not leave the machine
  local tls = all.tls or (all.path and "none") or (all.port == 465 and "implicit") or "starttls"
  choose(label, "tls", tls, TLS_MODES, '"implicit", "starttls", "opportunistic" or "none"')
  if all.tls_min then choose(label, "tls_min", all.tls_min, VERSIONS, '"1.2" or "1.3"') end
  return tls
end

-- The transport; nil: the built-in sockets.
local function transport_of(transport, label)
  if type(transport) == "table" then return transport end
  if transport and transport ~= "auto" then
    local name = transport:lower():match("%a+$")
    check.raise(("%s: option \"transport\" must be \"auto\" or a transport, not %q%s"):format(label, transport,
      TRANSPORTS[name] and (': write transport = require "smtp.transport.%s"'):format(name) or ""))
  end
  return options.host_transport
end

-- How much may go together; false: nothing.
local function tier_of(pipeline, label)
  if pipeline == false then return false end
  if pipeline == nil or pipeline == true then pipeline = "auto" end
  choose(label, "pipeline", pipeline, TIERS, '"auto", false, "data", "chunk", "auth" or "auth+chunk"')
  return TIERS[pipeline]
end

-- Files that are named and have no name, a key to no certificate, and hosts that are more than a host.
local function flaw(given, all)
  for _, name in ipairs(FILES) do
    if all[name] == "" then return name .. " is empty: leave it out where there is none" end
  end
  if all.client_key and not all.client_cert then return "client_key needs client_cert" end
  return given.host and hosts.flaw(given.host, "host", " url port path ")
    or all.server_name and hosts.flaw(all.server_name, "server_name", "")
    or all.bind and hosts.flaw(all.bind, "bind", "")
end

--- Turns server options into a plan. Raises on unknown names and wrong types.
---@param given table
---@param label string the call's name, for the message
---@param checked boolean? options.split or check_server has looked for such
---@return table? plan
---@return smtp.Error? err kind "input"
function plans.new(given, label, checked)
  if not checked then
    options.check_server(given, label)
    -- what has been looked at, and nothing that a metatable would add to it
    local seen = {}
    for name, value in next, given do seen[name] = value end
    given = seen
  end
  local all, reason = with_url(given)
  if not all then return nil, errors.input(reason) end
  local tls, transport, tier = tls_of(all, label), transport_of(all.transport, label), tier_of(all.pipeline, label)

  local host, server_name, proxy, pins
  local mechanisms = list_of_mechanisms(all.auth)
  reason = flaw(given, all)
  if not reason and all.proxy then proxy, reason = parse_proxy(all.proxy) end
  if not reason then host, reason = to_ascii(all.host, "host") end
  if not reason then server_name, reason = to_ascii(all.server_name, "server_name") end
  if not reason and all.pin then pins, reason = list_of_pins(all.pin) end
  reason = reason or sasl.flaw(all, mechanisms)
  if reason then return nil, errors.input(reason) end

  host = host and host:gsub("^%[(.*)%]$", "%1")
  local timeouts, named = timeouts_of(all.timeouts)
  local plan = {
    host = host,
    port = all.port or (all.lmtp and 24) or (tls == "implicit" and 465) or 587,
    path = all.path,
    bind = all.bind,
    proxy = proxy,                           -- nil: none
    lmtp = all.lmtp or false,
    tls = tls,
    -- a zone is this machine's business: no certificate names it
    server_name = server_name or host and host:match("^(.*:.*)%%"),
    verify = all.verify ~= false,
    ca_file = all.ca_file,
    ca_path = all.ca_path,
    identity = identity(all),                -- nil: no client certificate
    tls_min = all.tls_min or "1.2",
    pins = pins,                             -- nil: any key will do
    credentials = plans.credentials(all),    -- nil: nothing to log in with
    mechanisms = mechanisms,                 -- nil: the strongest both sides have; false: do not log in
    allow_insecure_auth = all.allow_insecure_auth or false,
    helo = all.helo,                         -- nil: found when connected
    timeout = all.timeout,                   -- nil: none for the whole call
    timeouts = timeouts,
    named = named,                           -- which of them the caller gave
    transport = transport,                   -- nil: the built-in sockets
    trace = all.trace or false,
    pipeline = tier and true,
    chunk = tier and tier.chunk,             -- content in chunks: nil where the server has shown that it may
    login_along = tier and tier.login or false, -- a login in one group with what follows
  }
  reason = problem(plan)
  if reason then return nil, errors.input(reason) end
  return plan
end

return plans
