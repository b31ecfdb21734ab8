-- What the C core makes of finalizers that close or use the object it works on just then, and of the want of memory: in
-- every place of a call where either can happen.
-- Of: bind/codec, bind/core, bind/draft, bind/net, bind/sign, bind/tls, bind/wire
local child = require "spec.support.child"
local finalizers = require "spec.support.finalizers"

local names = {}
for name in pairs(finalizers) do names[#names + 1] = name end
table.sort(names) -- those last that have the whole library in memory

local list = '"' .. table.concat(names, '", "') .. '"'

-- Runs every scene in a process of its own: `run(make)` returns in how many places.
local function play(run)
  local path = child.keep(([[
    -- machine code runs no finalizer in the place where it allocates, and LuaJIT's own does not survive the want of memory
    if jit then jit.off() end
    local collect = require "spec.support.collect"
    %s
    local finalizers = require "spec.support.finalizers"
    for _, name in ipairs { %s } do
      io.write("<", name, "> ")
      io.flush()
      print(pcall(run, finalizers[name]))
    end
    print "<end>"]]):format(run, list))
  local told = child.output(child.interpreter .. " " .. path)
  os.remove(path)
  return told
end

-- One spec a scene, all told by one process. `least`: in how many places it has to happen.
local function scenes(least, run)
  local told
  for _, name in ipairs(names) do
    it(name, function()
      told = told or play(run())
      local _, from = told:find("<" .. name .. "> true\t", 1, true)
      assert.truthy(from, told)
      assert(tonumber(told:match("^%d+", from + 1)) >= least, name)
    end)
  end

  it("leave nothing behind", function()
    assert.truthy(told:find "<end>\n$", told)
  end)
end

describe("finalizers in the midst of a call:", function()
  scenes(1, function() return "local run = collect.everywhere" end)
end)

if (tonumber(_VERSION:match "%d%.%d")) >= 5.4 then
  describe("finalizers of what is young, in the midst of a call:", function()
    scenes(0, function() return "local run = collect.young" end)
  end)
end

describe("calls that find no memory in Lua:", function()
  local starve

  setup(function()
    local build = assert(package.cpath:match "(build/[^;]-)/%?%.so")
    local made = child.output(("env -u LD_PRELOAD -u MAKEFLAGS -u MAKELEVEL make -s LUA=%s BUILD=%s %s/spec/starve.so"):format(
      child.interpreter, build, build))
    assert.are.equal("", made)
    starve = ("package.cpath = '%s/spec/?.so;' .. package.cpath\nlocal starve = require 'starve'\n"):format(build)
  end)

  scenes(0, function()
    return starve .. [[
      local function run(make)
        for count = 0, 10000 do
          local call, _, look = make()
          collectgarbage()
          local refused = starve(count, call)
          if look then look() end
          collectgarbage()
          if not refused then return count end
        end
      end]]
  end)

  it("lose nothing of what a queue holds", function()
    local told, status = child.run(starve .. [[
      local core = require "smtp.core"
      -- what it holds is no string of Lua's yet: one that is would cost no memory
      local function keeps(fill, method, piece, times, last, whole)
        local one = core.wire()
        for _ = 1, times do one[fill](one, piece) end
        one[fill](one, last)
        local refused, ran = starve(0, one[method], one, 100000)
        assert(refused and not ran, method)
        assert(one[method](one, 100000) == piece:rep(times) .. whole, method)
      end
      for _, times in ipairs { 3, 10000 } do
        keeps("body", "take", "a line", times, "\r\n", "\r\n")
        keeps("feed", "octets", "octets", times, "\r\n", "\r\n")
        keeps("feed", "content", "content", times, "\r\n.\r\n", "\r\n")
        keeps("feed", "line", "EHLO", times, " x\r\n", " x")
      end
      local cut = core.wire()
      for _ = 1, 3 do cut:feed "to the end\r\n" end
      cut:feed ".\r\nNOOP\r\n"
      assert(not select(2, starve(0, cut.content, cut)))
      assert(select(2, cut:content()))
      assert(cut:line() == "NOOP")]])
    assert.are.same({ "", "0" }, { told, status })
  end)
end)

-- What is dropped together is collected together, and the oldest finalizer runs last.
describe("a finalizer that is older than the session that it closes", function()
  local smtp = require "smtp"
  local core = require "smtp.core"
  local loopback = require "spec.support.loopback"

  -- Something with a finalizer, and the list of what that has to say.
  local function holder()
    local told, held = {}, {}
    local function finalize() told[1] = { pcall(function() held.pipe:close() end) } end
    if newproxy then
      held.proxy = newproxy(true)
      getmetatable(held.proxy).__gc = finalize
    else
      held.proxy = setmetatable({}, { __gc = finalize })
    end
    return held, told
  end

  local function dropped(connect)
    local held, told = holder()
    local listener = loopback.listen()
    held.pipe = connect(listener)
    held.self = held
    held = nil -- luacheck: ignore
    for _ = 1, 3 do collectgarbage() end
    listener:close()
    assert.are.same({ { true } }, told)
  end

  it("raises nothing over a socket that a loop watches", function()
    local socket = require "smtp.transport.socket"
    dropped(function(listener)
      local transport = socket.new(function(...) return core.wait(...) end, function() end)
      return assert(transport.connect(listener.host, listener.port, {}, core.now() + 60))
    end)
  end)

  it("raises nothing over TLS", function()
    local tls = require "smtp.tls"
    local cert, key = tls.mint { "localhost" }
    dropped(function()
      local server = assert(smtp.server { port = 0, tls = "implicit", cert = cert, key = key })
      local pipe
      local task = smtp.task(function()
        pipe = require "smtp.transport.tls".wrap(
          assert(require "smtp.transport.socket".new().connect("127.0.0.1", server.port, {}, core.now() + 60)),
          { ca_file = cert, server_name = "localhost", peer = "finalizers" }, core.now() + 60)
      end)
      repeat
        local state = task:step()
        server:step(0)
      until state == "done"
      server:close()
      return assert(pipe)
    end)
  end)
end)
