--- Who may use which of a pool's connections, and when: first come, first served. These functions take the pool as
--- `self`, and own its `idle`, `used`, `users`, `open`, `queue`, `waiting`, `resting` and `limit`.
---
--- Who waits for a turn is woken by who gives a connection back. Of some users nobody tells that they are gone, so who
--- takes a turn or waits for it looks for them now and again: a coroutine that has ended by an error, one that the
--- collector has taken (a task that nobody steps any more), or what the transport calls so by its `gone` (inside nginx
--- a request that has ended).
local bells = require "smtp.transport.bell"
local caller = require "smtp.client.caller"
local core = require "smtp.core"
local send = require "smtp.client.send"
local errors = require "smtp.errors"
local limits = require "smtp.protocol.limits"
local session = require "smtp.client.session"
local socket = require "smtp.transport.socket"

local turns = {}

local LOOK = 1    -- seconds between two looks for users that are gone,
local GLANCE = 0.02 -- and in a task's pause, whether the pool is still open
local GROWTH = 10 -- seconds until a server that took fewer connections is tried with one more

local catch, myself = errors.catch, caller.myself

---@class smtp.Turn one connection
---@field session smtp.Session
---@field sent integer messages begun on it
---@field most number that it may carry
---@field made boolean it has been opened
---@field since number? when it was used last, where it is idle
---@field ended boolean? the server ended it while it waited for its pace

--- Whether this coroutine has a connection of the pool already.
function turns.holds(self)
  local user = myself()
  for one in pairs(self.used) do
    if self.users[one] == user then return true end
  end
  return false
end

--- A bell of the pool's transport.
function turns.bell(self)
  local transport = self.transport
  if transport.bell then return transport.bell() end
  local wait = transport.wait or socket.wait
  return bells.new { wait = wait, blocks = function()
    return wait == socket.wait and not socket.stepped[myself()]
  end }
end

--- Rests until then, or the pool is closed, or something rings the bell, which is in `group` meanwhile. May yield.
---@param group table<table, boolean>?
function turns.rest(self, deadline, group)
  if self.closed then return end
  group = group or {}
  local one = turns.bell(self)
  self.resting[one], group[one] = true, true
  local ran, raised = catch(one.wait, one, deadline)
  self.resting[one], group[one] = nil, nil
  one:close()
  if not ran then error(raised, 0) end
end

--- Until then, but not much longer than the pool is open; without blocking a task or the transport's host. May yield.
function turns.pause(self, deadline)
  local wait, blocks = self.transport.wait or socket.wait, turns.bell(self):blocks()
  while core.now() < deadline and not self.closed do
    if not (blocks or socket.stepped[myself()]) then
      turns.rest(self, deadline)
    else
      -- who steps a task does so for descriptors, or at every tick: a pause is not worth one of these
      wait("read", -1, blocks and deadline or math.min(deadline, core.now() + GLANCE))
    end
  end
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

local function remove(list, item)
  for i, one in ipairs(list) do
    if one == item then return table.remove(list, i) end
  end
end

local function use(self, one, user)
  self.used[one], self.users[one] = true, user
  one.session.busy = false
end

-- A connection that is still to be opened.
local function renew(self, one)
  one.session, one.sent, one.most, one.made = session.new(self.plan), 0, self.max_messages, false
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

-- Gives whoever waits what can be had.
local function serve(self)
  while self.queue[1] and not self.closed do
    local head = self.queue[1]
    local one = claim(self, self.users[head])
    if not one then return end
    table.remove(self.queue, 1)
    head.one = one
    head.bell:ring()
  end
end

--- Ends a connection without a word. Never waits.
function turns.drop(self, one)
  one.session:close()
  if not self.used[one] then return end -- taken from a user that was gone
  self.used[one], self.users[one] = nil, nil
  self.open = self.open - 1
  serve(self)
end

--- Ends the connections of coroutines that will not go on. Never waits.
---@param threads table<thread, boolean>
function turns.drop_all(self, threads)
  local theirs = {}
  for one in pairs(self.used) do
    if threads[self.users[one] or one] then theirs[#theirs + 1] = one end
  end
  for _, one in ipairs(theirs) do turns.drop(self, one) end
end

--- Says goodbye on a connection that is idle or used by this coroutine. May yield.
function turns.leave(self, one)
  use(self, one, myself())
  -- who closes a pool waits for the last of its connections
  local ran, raised = catch(send.farewell, one.session, self.closed)
  turns.drop(self, one)
  if not ran then error(raised, 0) end
end

--- Gives a connection back: the next one gets it, where it still is one. May yield.
function turns.give(self, one)
  if not self.used[one] then return turns.drop(self, one) end
  if one.session.state ~= "ready" or one.sent >= one.most or self.closed then return turns.leave(self, one) end
  -- where the host keeps it: the next one may be another request's
  local pipe = one.session.pump.pipe
  if pipe.park and not pipe:park(self.max_idle) then return turns.leave(self, one) end
  self.used[one], self.users[one] = nil, nil
  one.since = core.now()
  self.idle[#self.idle + 1] = one
  serve(self)
end

local function is_gone(self, key, pipe)
  local user = self.users[key]
  if user == nil then return true end -- collected
  if self.transport.gone then return self.transport.gone(pipe) end
  return type(user) == "thread" and coroutine.status(user) == "dead"
end

--- Takes back what is used by nobody any more. Never waits.
function turns.look(self)
  local gone = {}
  self.looked = core.now()
  for one in pairs(self.used) do
    if is_gone(self, one, one.session.pump and one.session.pump.pipe) then gone[#gone + 1] = one end
  end
  for i = #self.queue, 1, -1 do
    if is_gone(self, self.queue[i]) then table.remove(self.queue, i) end
  end
  for _, one in ipairs(gone) do turns.drop(self, one) end
end

-- Whether nothing will be given back while this coroutine waits: it holds a connection, and whoever else does, waits.
local function is_stuck(self, me)
  if me.bell:blocks() then return true end
  for one in pairs(self.used) do
    if not self.waiting[self.users[one] or one] then return false end
  end
  return turns.holds(self)
end

-- Waits for what others give back: sets me.one or me.err, or neither where others do this one's work.
local function rest(self, me, expires, others)
  while true do
    -- one look for all who wait
    if core.now() >= self.looked + LOOK or is_stuck(self, me) then turns.look(self) end
    serve(self)
    if me.one or me.err then
      return
    elseif self.closed then
      me.err = turns.closed()
    elseif core.now() >= expires then
      me.err = turns.late()
    elseif others and others() then
      return
    elseif is_stuck(self, me) then
      me.err = me.failed or errors.new { kind = "connect", stage = "connect", temporary = false,
        reason = "every connection of the pool is held by who waits for this call to end",
        hint = "give the pool a larger size, or send when the call that holds them has returned" }
    else
      me.bell:wait(math.min(expires, self.looked + LOOK))
    end
  end
end

-- A turn of this coroutine's, by the number of its call. `failed`: the error of a connection that it could not have
-- while others work, or may.
local function await(self, number, expires, others, failed)
  local queue, user = self.queue, myself()
  local me = { number = number, bell = turns.bell(self), failed = failed, one = nil, err = nil }
  local at = #queue + 1
  while at > 1 and queue[at - 1].number > number do at = at - 1 end
  table.insert(queue, at, me)
  self.users[me], self.waiting[user] = user, true
  local ran, raised = catch(rest, self, me, expires, others)
  me.bell:close()
  self.waiting[user] = nil
  if not me.one then remove(queue, me) end
  if ran then return me.one, me.err end
  if me.one then turns.drop(self, me.one) end
  error(raised, 0)
end

--- How many other connections work, and how many may yet: those that are being opened.
---@return integer working
---@return integer opening
function turns.others(self, one)
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
function turns.shrink(self, count)
  self.limit, self.grows = math.max(1, math.min(self.limit, count)), core.now() + GROWTH
end

-- Opens it. May yield.
local function open(self, one, expires)
  local this = one.session
  this.life = expires
  local ran, made, err = catch(this.open, this)
  if ran and made then
    one.made = true
    one.most = math.min(one.most, limits.get(this.capabilities, "MAILMAX") or math.huge)
    for _, other in ipairs(self.queue) do
      if other.failed then
        other.failed = nil
        other.bell:ring()
      end
    end
    return one
  end
  local working, opening = turns.others(self, one)
  if ran and self.closed then err = turns.closed() end
  if ran and working + opening > 0 and not self.closed then
    turns.shrink(self, working + opening)
    turns.drop(self, one)
    return nil, err, true
  end
  -- nobody has one: then those who found no room beside this one have failed, too, and where the login was refused all
  -- who wait
  self.limit = self.size
  local refused = ran and err.kind == "auth" and not err.temporary and err or nil
  for i = #self.queue, 1, -1 do
    local other = self.queue[i]
    other.err = other.failed or refused
    if other.err then
      table.remove(self.queue, i)
      other.bell:ring()
    end
  end
  turns.drop(self, one)
  if not ran then error(made, 0) end
  return nil, err
end

--- A connection for this coroutine: a kept one or a new one, when its turn has come. May yield.
---@param expires number the call's deadline
---@param others (fun(): boolean)? whether others do this one's work meanwhile: then it does not wait
---@return smtp.Turn? one
---@return smtp.Error? err nil: there is none now
function turns.take(self, expires, others)
  if core.now() >= self.looked + LOOK then turns.look(self) end
  while self.idle[1] and core.now() - self.idle[1].since > self.max_idle do
    turns.leave(self, table.remove(self.idle, 1))
  end
  self.calls = self.calls + 1
  local number, failed = self.calls, nil
  repeat
    if self.closed then return nil, turns.closed() end
    local one, err, beside
    if not (failed or self.queue[1]) then one = claim(self, myself()) end
    if not one then
      if others and others() then return nil end
      one, err = await(self, number, expires, others, failed)
      if not one then return nil, err end
    end
    if self.closed then
      turns.drop(self, one)
      return nil, turns.closed()
    end
    if one.made then
      if send.look(one.session) then return one end
      -- the server has ended it: this turn gets another
      one.session:close()
      renew(self, one)
    end
    one, err, beside = open(self, one, expires)
    if not beside then return one, err end
    failed = err
  until core.now() >= expires
  return nil, failed
end

--- Ends the pool: who waits is told, what is idle says goodbye, what is being opened ends at once. May yield.
function turns.close(self)
  self.closed = true
  turns.look(self)
  for _, waiting in ipairs(self.queue) do waiting.bell:ring() end
  for bell in pairs(self.resting) do bell:ring() end
  for one in pairs(self.used) do
    if not one.made then one.session:close() end
  end
  local goodbyes = {}
  while #self.idle > 0 do
    local one = table.remove(self.idle)
    goodbyes[#goodbyes + 1] = function() turns.leave(self, one) end
  end
  if self.transport.together then return self.transport.together(goodbyes) end
  for _, goodbye in ipairs(goodbyes) do goodbye() end
end

return turns
