--- dial: from a name to the first of its addresses that answers.
---
--- Does: looks the name up off this thread; tries the addresses in turn, or as a race of sockets; tells what became of
--- each.
--- Never: reads or writes what it has connected.
--- Called by: transport/socket, and the transports whose hosts have sockets of their own.
--- RFC 8305
local core = require "smtp.core"
local loop = require "smtp.transport.loop"

local dial = {}

-- Seconds between the starts of two attempts of a race (RFC 8305 5).
local DELAY = 0.25
-- Seconds between looks at those attempts that are not waited for: a wait watches one descriptor.
local GLANCE = 0.05

--- Addresses of a name.
---@param wait fun(mode: string, fd: integer, deadline: number) the host's
---@param forget? fun(fd: integer) the host's
---@param host string?
---@param port integer
---@param deadline number
---@return string[]? addresses
---@return string kind "resolve"|"timeout"
---@return string? reason
---@return boolean? temporary
function dial.resolve(wait, forget, host, port, deadline)
  local lookup, reason = core.resolve(host, port)
  if not lookup then return nil, "resolve", reason, true end
  while true do
    local addresses, why, temporary = lookup:result()
    local late = why == "again" and core.now() >= deadline
    if late or why ~= "again" then
      loop.shut(lookup, forget)
      if late then return nil, "timeout", "no answer to the look-up of the name in time" end
      return addresses, "resolve", why, temporary
    end
    wait("read", lookup:fd(), deadline)
  end
end

-- What became of the addresses that were tried.
local function told(addresses, tried, reasons)
  local words = {}
  for i = 1, tried do
    local name, port = core.address(addresses[i])
    local where = port == 0 and name or ("%s port %d"):format(name, port)
    words[i] = where .. ": " .. (reasons[i] or "no answer in time")
  end
  if tried < #addresses then words[tried + 1] = ("%d more not tried"):format(#addresses - tried) end
  return table.concat(words, ", ")
end

--- Tries one after the other, each with its share of the time: where one is silent the others still have theirs.
---@param addresses string[]
---@param attempt fun(name: string, port: integer, deadline: number): table?, string? gives a pipe; or nil and why not,
--- nothing where no answer came; the name is a path where the port is 0
---@param deadline number
---@return table? pipe
---@return string? kind "connect"|"timeout"
---@return string? reason
function dial.in_turn(addresses, attempt, deadline)
  local reasons = {}
  for i, address in ipairs(addresses) do
    local now = core.now()
    local name, port = core.address(address)
    local pipe, reason = attempt(name, port, now + (deadline - now) / (#addresses - i + 1))
    if pipe then return pipe end
    reasons[i] = reason
  end
  return nil, core.now() >= deadline and "timeout" or "connect", told(addresses, #addresses, reasons)
end

local function is_ipv6(address)
  return (core.address(address)):find(":", 1, true) ~= nil
end

-- The resolver's order, but each address followed by one of the other family as long as there are any (RFC 8305 4).
local function interleave(addresses)
  if #addresses == 1 then return addresses end
  local lists, mixed = { [true] = {}, [false] = {} }, {}
  for _, address in ipairs(addresses) do table.insert(lists[is_ipv6(address)], address) end
  local family = addresses[1] ~= nil and is_ipv6(addresses[1])
  for i = 1, #addresses do
    mixed[#mixed + 1] = lists[family][i]
    mixed[#mixed + 1] = lists[not family][i]
  end
  return mixed
end

-- The first of each family.
local function firsts(addresses)
  local found = {}
  for i = #addresses, 1, -1 do found[is_ipv6(addresses[i])] = addresses[i] end
  return found
end

-- Whether it is the next address's turn: there is nobody else in the race, or they have been silent for a while.
local function is_due(race)
  return race.started < #race.addresses and (#race.running == 0 or core.now() >= race.due)
    and (race.started == 0 or not race.late)
end

-- An attempt has failed: the next may begin at once.
local function fail(race, number, reason)
  race.reasons[number], race.due = reason, 0
end

-- Begins to connect to the next address, from the one of `locals` (IPv6 or not -> address) that fits.
local function start(race)
  race.started = race.started + 1
  local number, now = race.started, core.now()
  local address = race.addresses[number]
  local from = race.locals and race.locals[is_ipv6(address)]
  -- where there is little time every address still has its share of it
  race.due = now + math.min(DELAY, (race.deadline - now) / (#race.addresses - number + 1))
  if race.locals and not from then return fail(race, number, "the address to bind to is of another family") end
  local sock, reason = core.connect(address, from)
  if not sock then return fail(race, number, reason) end
  table.insert(race.running, { sock = sock, number = number })
end

-- Takes out who has failed; the first that is connected.
local function winner(race, forget)
  for i = #race.running, 1, -1 do
    local one = race.running[i]
    local ok, reason = one.sock:connected()
    if ok then return one end
    if reason ~= "again" then
      loop.shut(one.sock, forget)
      table.remove(race.running, i)
      fail(race, one.number, reason)
    end
  end
end

-- Waits until something may have come of the newest attempt, or another is due.
local function rest(race, wait)
  local newest = race.running[#race.running]
  if not newest or race.late or is_due(race) then return end
  local limit = race.started < #race.addresses and math.min(race.deadline, race.due) or race.deadline
  if #race.running > 1 then limit = math.min(limit, core.now() + GLANCE) end
  wait("write", newest.sock:fd(), limit)
end

--- A socket connected to the first that answers. Each is tried a while after the one before it, or as soon as one
--- failed; those that are slow stay in the race (RFC 8305 5).
---@param wait fun(mode: string, fd: integer, deadline: number) the host's
---@param forget? fun(fd: integer) the host's
---@param addresses string[]
---@param from string[]? addresses of ours, of which the first of the family is connected from
---@param deadline number
---@return userdata? sock
---@return string? kind "connect"|"timeout"
---@return string? reason
function dial.race(wait, forget, addresses, from, deadline)
  local race = {
    addresses = interleave(addresses), locals = from and firsts(from), deadline = deadline,
    running = {}, reasons = {}, started = 0, due = 0, late = false,
  }
  local won
  repeat
    race.late = core.now() >= deadline
    if is_due(race) then start(race) end
    won = winner(race, forget)
    if not won then rest(race, wait) end
  until won or race.late or race.started == #addresses and #race.running == 0

  for _, one in ipairs(race.running) do
    if one ~= won then loop.shut(one.sock, forget) end
  end
  if won then return won.sock end
  local timeout = race.late and (#race.running > 0 or race.started < #addresses)
  return nil, timeout and "timeout" or "connect", told(race.addresses, race.started, race.reasons)
end

return dial
