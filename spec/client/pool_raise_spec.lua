-- What code of the caller's raises, a pool of connections comes through: no result and no connection is lost, and the error
-- goes on in its own words.
-- Of: client/workers
local clock = require "spec.support.clock"
local core = require "smtp.core"
local crowd = require "spec.support.crowd"
local play = require "spec.support.play"
local smtp = require "smtp"

local hello, message, letter, script = play.hello, crowd.message, crowd.letter, play.script

-- Lua 5.1 cannot catch in a coroutine what may wait there: the call ends at once, and with it what it began.
local catches = _VERSION ~= "Lua 5.1" or rawget(_G, "jit") ~= nil

local function counts(pool)
  local now = pool:counts()
  return { now.open, now.idle, now.sent, now.failed }
end

describe("a pool", function()
  before_each(clock.stop)
  after_each(clock.go)

  -- Calls send_many in a plain thread: what was told, and what was raised.
  local function send_many(pool, iterator, on_result)
    local told = {}
    local ok, reason = pcall(pool.send_many, pool, iterator, function(receipt, err, given)
      told[#told + 1] = receipt and receipt.message_id:match "%w+" or err.kind .. " " .. err.outcome
      if on_result then on_result(receipt, err, given) end
    end)
    return told, ok, reason
  end

  -- Gives so many letters, then does something.
  local function letters(count, last)
    local i = 0
    return function()
      i = i + 1
      if i > count then return last and last() or nil end
      return letter(i)
    end
  end

  local BATCH = { 1, 2, 3 }

  local function three()
    local lines = { hello("X") }
    for _, i in ipairs(BATCH) do lines[#lines + 1] = message(i) end
    return script(lines)
  end

  it("tells all that its iterator gave before that raised, in its own words", function()
    for _, value in ipairs { "no more of this", { of = "mine" } } do
      local pool = crowd.pool({ three() }, { size = 1 })
      local told, ok, reason = send_many(pool, letters(3, function() error(value, 0) end))
      assert.are.same({ false, value }, { ok, reason })
      if catches then
        assert.are.same({ "1", "2", "3" }, told)
        assert.are.same({ 1, 1, 3, 0 }, counts(pool))
      end
      assert.are.equal(pool:counts().open, pool:counts().idle)
    end
  end)

  it("tells what is under way when on_result raises, begins nothing more, and works afterwards", function()
    local lines = three()
    local pool, transport = crowd.pool({ lines, script(hello("X"), message(9)) }, { size = 1 })
    local asked = 0
    local told, ok, reason = send_many(pool, function()
      asked = asked + 1
      return letter(asked)
    end, function() error("not I", 0) end)
    assert.are.same({ false, "not I" }, { ok, reason })
    assert.is_true(asked <= 2)
    if catches then
      assert.are.equal(asked, #told)
      assert.are.same({ 1, 1, asked, 0 }, counts(pool))
    end
    assert.are.equal(pool:counts().open, pool:counts().idle)
    assert.are.equal(1, transport.opened)
  end)

  it("loses no delivered message, and no connection, with several at work when on_result raises", function()
    local server = assert(smtp.server {})
    clock.go()
    for _, at in ipairs { 1, 7 } do
      local pool = assert(smtp.pool { host = "127.0.0.1", port = server.port, tls = "none", size = 3 })
      server.inbox = {}
      local told, given = 0, 0
      local task = smtp.task(function()
        return pool:send_many(function()
          given = given + 1
          return given <= 40 and letter(given) or nil
        end, function()
          told = told + 1
          if told == at then error("enough", 0) end
        end)
      end)
      local ok, what
      repeat
        ok, what = pcall(task.step, task)
        server:step(0.001)
      until not ok or what == "done"
      assert.are.same({ false, "enough" }, { ok, what })
      if catches then
        assert.are.equal(#server.inbox, told)
        assert.are.equal(pool:counts().open, pool:counts().idle)
        assert.are.equal(told, pool:counts().sent)
      end
    end
    server:close()
  end)

  it("tells of a row that cannot be composed, by value or type, and the others go on", function()
    for _, bad in ipairs { { text = 42 }, "no table", { to = "nobody at all", from = "ada@example.org", text = "x" },
      { unknown = 1 } } do
      local lines = { hello("X"), message(1), message(3) }
      local pool = crowd.pool({ script(lines) }, { size = 1 })
      local i = 0
      local told, ok = send_many(pool, function()
        i = i + 1
        if i == 2 then return bad end
        return i <= 3 and letter(i) or nil
      end)
      table.sort(told)
      assert.is_true(ok)
      assert.are.same({ "1", "3", "input not_sent" }, told)
      assert.are.same({ 1, 1, 2, 1 }, counts(pool))
    end
  end)

  it("gives a connection back at once when a token function raises, and costs others no time", function()
    local calls, began = 0, core.now()
    local pool = crowd.pool({ script(hello("AUTH XOAUTH2")), script(hello("AUTH XOAUTH2"), "C~ ^AUTH", "S: 235 ok",
      message(2)) }, { size = 1, auth = "XOAUTH2", username = "ada", allow_insecure_auth = true, token = function()
      calls = calls + 1
      if calls == 1 then error("no token today", 0) end
      return "abc"
    end })
    local ok, reason = pcall(pool.send, pool, letter(1))
    assert.are.same({ false, "no token today" }, { ok, reason })
    assert.are.same({ 0, 0, 0, 0 }, counts(pool))
    assert(pool:send(letter(2)))
    assert.are.equal(began, core.now())
  end)

  it("gives a connection back at once when on_progress or a source raises", function()
    for _, more in ipairs {
      { on_progress = function() error("mine", 0) end },
      { raw = function() error("mine", 0) end, envelope = { from = "ada@example.org", to = { "bob@example.test" } } },
    } do
      local lines = message(1)
      local pool = crowd.pool({ script(hello("X"), lines), script(hello("X"), message(2)) }, { size = 1, attempts = 1 })
      local ok, receipt, err = pcall(pool.send, pool, letter(1, more))
      assert.is_true(not ok and receipt == "mine" or err.kind == "source")
      assert.are.equal(0, pool:counts().open)
      assert(pool:send(letter(2)))
    end
  end)
end)
