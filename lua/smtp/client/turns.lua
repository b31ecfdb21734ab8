--- turns: a pool's connections, and who has which: first come, first served.
---
--- Does: opens them when wanted, keeps them and ends them. Who waits for one is woken by who gives one back. Of some
--- users nobody tells that they are gone, so who takes a turn or waits for it looks for them now and again: a coroutine
--- that an error has ended, one that the collector has taken (a task that nobody steps any more), or what the transport
--- calls so by its `gone` (inside nginx a request that has ended).
--- Called by: client/pool, client/attempts, client/workers.
local bells = require "smtp.transport.bell"
local caller = require "smtp.client.caller"
local core = require "smtp.core"
local errors = require "smtp.errors"
local limits = require "smtp.protocol.limits"
local send = require "smtp.client.send"
local session = require "smtp.client.session"
local socket = require "smtp.transport.socket"
local state = require "smtp.client.state"
local together = require "smtp.transport.together"

local turns = {}

local LOOK = 1      -- seconds between two looks for users that are gone,
local GLANCE = 0.02 -- and in a task's pause, whether the pool is still open
local GROWTH = 10   -- seconds until a server that took fewer connections is tried with one more

local catch, myself, huge = errors.catch, caller.myself, math.huge
local sockets = socket.new()

---@class smtp.Turns
local Turns = {}
Turns.__index = Turns

---@param plan smtp.Plan
---@param own { size: integer?, max_messages: number?, max_idle: number? } options of the pool
---@return smtp.Turns
function turns.new(plan, own)
  local size = own.size or 5
  return setmetatable({
    plan = plan,
    transport = plan.transport or sockets,
    max_messages = own.max_messages or huge,
    max_idle = own.max_idle or 60,
    size = size,
    limit = size, -- as many as the server takes, as far as is known,
    grows = 0,    -- and when one more may be tried
    open = 0,     -- connections, idle ones too
    idle = {},    -- the longest unused first
    used = {},    -- connection -> true
    users = setmetatable({}, { __mode = "v" }), -- used connection, or who waits for one -> the coroutine
    calls = 0,    -- for one, so far
    queue = {},   -- who waits for one, by the number of the call
    waiting = setmetatable({}, { __mode = "k" }), -- coroutine -> true, of these
    bells = setmetatable({}, { __mode = "k" }),   -- of who rests for another reason -> true
    looked = -huge, -- when users that are gone were looked for
    closed = false,
  }, Turns)
end

--- The error of who finds the pool closed.
function turns.closed()
  return errors.new { kind = "closed", stage = "connect", reason = "the pool is closed", temporary = false }
end

--- The error of who had no turn by the deadline.
function turns.late()
  return errors.new { kind = "timeout", stage = "connect",
    reason = "the time for the whole call was over before its turn came" }
end

-- Nothing will be given back while this coroutine waits.
local function stuck()
  return errors.new { kind = "connect", stage = "connect", temporary = false,
    reason = "every connection of the pool is held by who waits for this call to end",
    hint = "give the pool a larger size, or send when the call that holds them has returned" }
end

-- Resting -------------------------------------------------------------------------------------------------------------

local function wait(self, deadline)
  return (self.transport.wait or sockets.wait)("read", -1, deadline)
end

-- A bell of the pool's transport.
local function new_bell(self)
  local transport = self.transport
  if transport.bell then return transport.bell() end
  if not transport.wait then return sockets.bell() end
  return bells.new { wait = transport.wait, blocks = function() return false end }
end

--- Rests until then, or the pool becomes closed, or something rings the bell, which is in `group` meanwhile. May yield.
---@param group table<table, boolean>?
function Turns:rest(deadline, group)
  local bell = new_bell(self)
  -- nobody can ring it
  if bell:blocks() then return wait(self, deadline) end
  group = group or {}
  self.bells[bell], group[bell] = true, true
  local ran, raised = catch(bell.wait, bell, deadline)
  self.bells[bell], group[bell] = nil, nil
  bell:close()
  if not ran then error(raised, 0) end
end

--- Until then, but not much longer than the pool is open. May yield.
function Turns:pause(deadline)
  local thread = myself()
  -- who steps a task does so for descriptors, or at every tick: a pause is not worth one of these
  local glances = socket.stepped[thread] and not together.runs(thread)
  while core.now() < deadline and not self.closed do
    if glances then wait(self, math.min(deadline, core.now() + GLANCE)) else self:rest(deadline) end
  end
end

-- Connections ---------------------------------------------------------------------------------------------------------

local function use(self, one, user)
  self.used[one], self.users[one] = true, user
  caller.leave(one.session)
end

---@class smtp.Connection
---@field session smtp.Session
---@field sent integer messages begun on it
---@field most number that it may carry
---@field made boolean it has been opened
---@field number integer? its message's place, while that waits for its pace
---@field ended boolean the server ended it meanwhile
---@field since number? when it was used last, where it is idle

-- A connection that is still to be opened, in the place of `one`.
local function renew(self, one)
  one.session, one.sent, one.most = session.new(self.plan), 0, self.max_messages
  one.made, one.number, one.ended, one.since = false, nil, false, nil
  return one
end

-- One that may be used by `user` from now on, a kept one or one to be opened; nil: there is none.
local function claim(self, user)
  local one = table.remove(self.idle)
  if not one then
    local now = core.now()
    if self.limit < self.size and now >= self.grows then self.limit, self.grows = self.limit + 1, now + GROWTH end
    if self.open >= self.limit then return nil end
    one = renew(self, {})
    self.open = self.open + 1
  end
  use(self, one, user)
  return one
end

-- Tells somebody who waits.
local function answer(self, place, one, err)
  local waiter = table.remove(self.queue, place)
  waiter.one, waiter.err = one, err
  waiter.bell:ring()
end

-- Gives whoever waits what can be had.
local function serve(self)
  while self.queue[1] and not self.closed do
    local one = claim(self, self.users[self.queue[1]])
    if not one then return end
    answer(self, 1, one)
  end
end

--- Ends a connection without a word. Never waits.
function Turns:drop(one)
  one.session:close()
  if not self.used[one] then return end -- taken from a user that was gone
  self.used[one], self.users[one] = nil, nil
  self.open = self.open - 1
  serve(self)
end

-- Drops those of which that is true.
local function drop_those(self, is_one)
  local list = {}
  for one in pairs(self.used) do
    if is_one(one) then list[#list + 1] = one end
  end
  for _, one in ipairs(list) do self:drop(one) end
end

--- Ends the connections of coroutines that will not go on. Never waits.
---@param threads table<thread|"main", boolean>
function Turns:drop_all(threads)
  drop_those(self, function(one) return threads[self.users[one] or one] end)
end

-- Says goodbye on a connection that is idle or used by this coroutine. May yield.
local function leave(self, one)
  use(self, one, myself())
  -- who closes a pool waits for the last of its connections
  local ran, raised = catch(send.farewell, one.session, self.closed)
  self:drop(one)
  if not ran then error(raised, 0) end
end

--- Gives a connection back: the next one gets it, where it still is one. May yield.
function Turns:give(one)
  if not self.used[one] then return self:drop(one) end
  if one.session.state ~= "ready" or one.sent >= one.most or self.closed then return leave(self, one) end
  -- where the host keeps it: the next one may be another request's
  local pipe = one.session.pump.pipe
  if pipe.park and not pipe:park(self.max_idle) then return leave(self, one) end
  self.used[one], self.users[one] = nil, nil
  one.since = core.now()
  self.idle[#self.idle + 1] = one
  serve(self)
end

--- How many other connections work, and how many may yet: those that are being opened.
---@return integer working
---@return integer opening
function Turns:others(one)
  local working, opening = #self.idle, 0
  for other in pairs(self.used) do
    if other ~= one and other.made then
      working = working + 1
    elseif other ~= one then
      opening = opening + 1
    end
  end
  return working, opening
end

--- A server that does not want so many connections gets fewer from now on, and one more now and again.
function Turns:shrink(count)
  self.limit, self.grows = math.max(1, math.min(self.limit, count)), core.now() + GROWTH
end

-- Nobody has a connection: then those who found no room beside the one that failed have failed, too, and where the
-- login was refused all who wait.
local function tell_all(self, refused)
  self.limit = self.size
  for place = #self.queue, 1, -1 do
    local err = self.queue[place].failed or refused
    if err then answer(self, place, nil, err) end
  end
end

-- Opens it. May yield. Returns it; or nil, the error, and whether that was one too many.
local function open(self, one, expires)
  local this = one.session
  state.set_life(this, expires)
  local ran, made, err = catch(this.open, this)
  if ran and made then
    one.made = true
    one.most = math.min(one.most, limits.get(this.capabilities, "MAILMAX") or huge)
    for _, waiter in ipairs(self.queue) do
      if waiter.failed then
        waiter.failed = nil
        waiter.bell:ring()
      end
    end
    return one
  end
  if ran and self.closed then err = turns.closed() end
  local working, opening = self:others(one)
  local too_many = ran and not self.closed and working + opening > 0
  if too_many then
    self:shrink(working + opening)
  else
    tell_all(self, ran and err.kind == "auth" and not err.temporary and err)
  end
  self:drop(one)
  if not ran then error(made, 0) end
  return nil, err, too_many
end

-- Makes a connection fit for a message. May yield. Returns as open().
local function prepare(self, one, expires)
  if self.closed then
    self:drop(one)
    return nil, turns.closed()
  end
  if one.made then
    if send.look(one.session) then return one end
    -- the server has ended it: this turn gets another
    one.session:close()
    renew(self, one)
  end
  return open(self, one, expires)
end

-- Users ---------------------------------------------------------------------------------------------------------------

--- Whether this coroutine has a connection of the pool already.
---@return boolean
function Turns:holds()
  local user = myself()
  for one in pairs(self.used) do
    if self.users[one] == user then return true end
  end
  return false
end

--- Whether anybody but these coroutines waits for a connection.
---@param threads table<thread|"main", boolean>
---@return boolean
function Turns:is_wanted_beside(threads)
  for _, waiter in ipairs(self.queue) do
    if not threads[self.users[waiter] or waiter] then return true end
  end
  return false
end

local function is_gone(self, key, pipe)
  local user = self.users[key]
  if user == nil then return true end -- collected
  if self.transport.gone then return self.transport.gone(pipe) end
  return type(user) == "thread" and coroutine.status(user) == "dead"
end

--- Takes back what is used by nobody any more. Never waits.
function Turns:look()
  self.looked = core.now()
  for place = #self.queue, 1, -1 do
    if is_gone(self, self.queue[place]) then table.remove(self.queue, place) end
  end
  drop_those(self, function(one) return is_gone(self, one, one.session.pump and one.session.pump.pipe) end)
end

-- Whether nothing will be given back while this coroutine waits: it holds a connection, and whoever else does, waits.
local function is_stuck(self, me)
  if me.bell:blocks() then return true end
  for one in pairs(self.used) do
    if not self.waiting[self.users[one] or one] then return false end
  end
  return self:holds()
end

local function place_of(self, me)
  for place, waiter in ipairs(self.queue) do
    if waiter == me then return place end
  end
end

-- Waits until there is me.one or me.err, or others do this one's work. May yield.
local function queue_up(self, me, expires, others)
  while true do
    -- one look for all who wait
    if core.now() >= self.looked + LOOK or is_stuck(self, me) then self:look() end
    serve(self)
    if me.one or me.err then return end
    if self.closed then
      me.err = turns.closed()
    elseif core.now() >= expires then
      me.err = turns.late()
    elseif others and others() then
      return
    elseif is_stuck(self, me) then
      me.err = me.failed or stuck()
    else
      me.bell:wait(math.min(expires, self.looked + LOOK), place_of(self, me))
    end
  end
end

-- A turn of this coroutine's, by the number of its call. `failed`: the error of a connection that it could not have
-- while others work, or may. May yield.
local function await(self, number, failed, expires, others)
  local queue, user = self.queue, myself()
  local me = { number = number, bell = new_bell(self), failed = failed, one = nil, err = nil }
  local at = #queue + 1
  while at > 1 and queue[at - 1].number > number do at = at - 1 end
  table.insert(queue, at, me)
  self.users[me], self.waiting[user] = user, true
  local ran, raised = catch(queue_up, self, me, expires, others)
  me.bell:close()
  self.waiting[user] = nil
  local place = place_of(self, me)
  if place then table.remove(queue, place) end
  if ran then return me.one, me.err end
  if me.one then self:drop(me.one) end
  error(raised, 0)
end

--- A connection for this coroutine: a kept one or a new one, when its turn has come. May yield.
---@param expires number the call's deadline
---@param others (fun(): boolean)? whether others do this one's work meanwhile: then it does not wait
---@return smtp.Connection? one
---@return smtp.Error? err nil: there is none now
function Turns:take(expires, others)
  if core.now() >= self.looked + LOOK then self:look() end
  while self.idle[1] and core.now() - self.idle[1].since > self.max_idle do leave(self, table.remove(self.idle, 1)) end
  self.calls = self.calls + 1
  local number, failed = self.calls, nil
  repeat
    if self.closed then return nil, turns.closed() end
    local one, err, too_many
    if not (failed or self.queue[1]) then one = claim(self, myself()) end
    if not one then
      if others and others() then return nil end
      one, err = await(self, number, failed, expires, others)
      if not one then return nil, err end
    end
    one, err, too_many = prepare(self, one, expires)
    if not too_many then return one, err end
    failed = err
  until core.now() >= expires
  return nil, failed
end

--- Rings all of these, though who is rung may go on at once and change the list.
---@param group table<smtp.Bell, boolean>
function turns.ring(group)
  local all = {}
  for bell in pairs(group) do all[#all + 1] = bell end
  for _, bell in ipairs(all) do bell:ring() end
end

--- Ends the pool: who waits is told, what is idle says goodbye, what is being opened ends at once. May yield.
function Turns:close()
  self.closed = true
  self:look()
  for _, waiter in ipairs(self.queue) do self.bells[waiter.bell] = true end
  turns.ring(self.bells)
  for one in pairs(self.used) do
    if not one.made then one.session:close() end
  end
  local goodbyes = {}
  while #self.idle > 0 do
    local one = table.remove(self.idle)
    goodbyes[#goodbyes + 1] = function() leave(self, one) end
  end
  if self.transport.together then return self.transport.together(goodbyes) end
  for _, goodbye in ipairs(goodbyes) do goodbye() end
end

return turns
