--- loops
-- loops: the event loops of others, each as
--   run(f): runs f in the loop until it returns; gives its results
--   spawn(f): from inside of the loop, runs f beside what runs
--   pause(seconds): from inside of the loop, rests in the loop's own way (where it has one)
--   drop(f): begins f and gives it up with its loop, while it waits (where that can be done)
--   missing: why it cannot be used here
-- Inside Tarantool there is its own only.
if rawget(_G, "_TARANTOOL") then
  local fiber = require "fiber"
  return { tarantool = {
    run = function(run) return run() end,
    spawn = fiber.create,
    pause = fiber.sleep,
    drop = function(run)
      local one = fiber.create(run)
      fiber.sleep(0.05)
      one:cancel()
      fiber.sleep(0.02)
    end,
  } }
end

local loops = { cqueues = {}, luv = {}, copas = {} }

local found, cqueues = pcall(require, "cqueues")
if not found then loops.cqueues.missing = "NO CQUEUES for " .. _VERSION .. ": " .. cqueues end

function loops.cqueues.run(run)
  local loop, results = cqueues.new(), nil
  loop:wrap(function() results = { run() } end)
  assert(loop:loop())
  return results[1], results[2], results[3]
end

function loops.cqueues.spawn(run)
  cqueues.running():wrap(run)
end

function loops.cqueues.pause(seconds)
  cqueues.sleep(seconds)
end

function loops.cqueues.drop(run)
  local loop = cqueues.new()
  loop:wrap(run)
  for _ = 1, 4 do loop:step(0.02) end
end

-- luv bears only one opening in a process, and busted forgets between two spec files what was loaded: so it is required
-- here before anywhere else.
local registry = debug.getregistry()
package.loaded.luv = package.loaded.luv or registry["spec.luv"]
local uv
found, uv = pcall(require, "luv")
registry["spec.luv"] = found and uv or nil
if not found then loops.luv.missing = "NO LUV for " .. _VERSION .. ": " .. uv end

function loops.luv.run(run)
  local results
  coroutine.wrap(function() results = { run() } end)()
  uv.run()
  return results[1], results[2], results[3]
end

function loops.luv.pause(seconds)
  local thread, timer = coroutine.running(), uv.new_timer()
  timer:start(seconds * 1000, 0, function()
    timer:close()
    assert(coroutine.resume(thread))
  end)
  coroutine.yield()
end

function loops.luv.spawn(run)
  coroutine.wrap(run)()
end

-- Debian has it in the folder of Lua 5.1 only, and no version of Lua is too new for it.
local path = package.path
package.path = path .. ";/usr/share/lua/5.1/?.lua"
local copas
found, copas = pcall(require, "copas")
package.path = path
if not found then loops.copas.missing = "NO COPAS for " .. _VERSION .. ": " .. copas end

function loops.copas.run(run)
  local results
  copas.addthread(function() results = { run() } end)
  while not results do copas.step() end
  return results[1], results[2], results[3]
end

function loops.copas.spawn(run)
  copas.addthread(run)
end

return loops
