-- play: a session against the scripted memory transport, so that a spec reads like a transcript of an RFC.
local memory = require "smtp.transport.memory"
local smtp = require "smtp"

local play = {}

--- One flat script out of strings and lists of them, however deep.
---@return string[]
function play.script(...)
  local lines = {}
  local function add(parts)
    for _, part in ipairs(parts) do
      if type(part) == "table" then add(part) else lines[#lines + 1] = part end
    end
  end
  add { ... }
  return lines
end

--- EHLO and a reply that offers these keywords.
---@return string[]
function play.ehlo(...)
  local lines, offers = { "C: EHLO client.example.org" }, { "mail.example.org", ... }
  for i, offer in ipairs(offers) do lines[#lines + 1] = ("S: 250%s%s"):format(i < #offers and "-" or " ", offer) end
  return lines
end

--- The greeting, then EHLO.
---@return string[]
function play.hello(...)
  return play.script("S: 220 mail.example.org ESMTP", play.ehlo(...))
end

--- Options that reach a scripted server, and its transport. `given` goes on top; `tls` other than "none" plays without a
--- handshake: what is said after it is taken as encrypted.
---@param script string[]
---@param given table?
---@param dribble boolean?
---@return table options, table transport
function play.options(script, given, dribble)
  local transport = memory.new(script, { dribble = dribble })
  function transport.secure(pipe)
    pipe.info = { version = "TLSv1.3" }
    return pipe
  end
  local options = { host = "mail.example.org", tls = "none", helo = "client.example.org", transport = transport }
  for name, value in pairs(given or {}) do options[name] = value end
  return options, transport
end

--- The same, to a server whose connections go by one script each; `transport.pipes` lists them.
---@param scripts string[][]
---@param given table?
---@param dribble boolean?
---@return table options, table transport
function play.several(scripts, given, dribble)
  local options, transport = play.options({}, given, dribble)
  transport.pipes = {}
  function transport.connect()
    local number = #transport.pipes + 1
    transport.pipe = memory.new(assert(scripts[number], "a connection too many"), { dribble = dribble }).connect()
    transport.pipes[number] = transport.pipe
    return transport.pipe
  end
  return options, transport
end

--- A session that has not taken its first step, and its transport.
function play.session(script, given, dribble)
  local options, transport = play.options(script, given, dribble)
  return assert(smtp.session(options)), transport
end

--- The same, connected and logged in.
function play.open(script, given, dribble)
  local session, transport = play.session(script, given, dribble)
  assert(session:open())
  return session, transport
end

--- Everything the client wrote, without the goodbye it owes a server that refused it (RFC 5321 4.1.1.10).
---@return string written
---@return boolean goodbye
function play.written(transport)
  local all = table.concat(transport.pipe.written)
  local before = all:match("^(.*)QUIT\r\n$")
  return before or all, before ~= nil
end

--- Raises where a line of the script was not played, or the client said more than is in it and a goodbye.
function play.finished(transport)
  local pipe = transport.pipe
  pipe.closed = false
  pipe:peek()
  if pipe.pending ~= "" or pipe.script[pipe.at] or not (pipe.heard == "" or pipe.heard == "QUIT\r\n") then
    error(("the script is at %q, %q was not read, the client said %q more"):format(
      tostring(pipe.script[pipe.at]), pipe.pending, pipe.heard), 2)
  end
end

--- Every string in a value: keys, values and metatables, however deep; `skip` names tables not to look into.
---@param skip table<table, boolean>?
---@return string
function play.dump(value, skip)
  local seen, found = skip or {}, {}
  local function visit(one)
    if type(one) == "string" then
      found[#found + 1] = one
    elseif type(one) == "table" and not seen[one] then
      seen[one] = true
      for key, inner in pairs(one) do
        visit(key)
        visit(inner)
      end
      visit(getmetatable(one))
    end
  end
  visit(value)
  return table.concat(found, "\n")
end

--- Letter number `i`, to a recipient of its own, with further options.
function play.letter(i, more)
  local fields = { from = "ada@example.org", to = ("to%d@example.test"):format(i),
    raw = ("Message-ID: <%d@example.org>\r\n\r\n%d\r\n"):format(i, i) }
  for name, value in pairs(more or {}) do fields[name] = value end
  return fields
end

--- What the client says of it: its envelope,
function play.envelope(i)
  return { "C: MAIL FROM:<ada@example.org>", ("C: RCPT TO:<to%d@example.test>"):format(i), "C: DATA" }
end

--- and its content.
function play.content(i)
  return { ("C: Message-ID: <%d@example.org>"):format(i), "C: ", "C: " .. i, "C: ." }
end

--- Runs a body twice: with the server's bytes as they come, and one at a time.
---@param it function busted's
---@param body fun(dribble: boolean)
function play.both(it, name, body)
  it(name, function() body(false) end)
  it(name .. ", a byte at a time", function() body(true) end)
end

return play
