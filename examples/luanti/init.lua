-- A mod for a Luanti (Minetest) server: mails the admin that it has started, who is new, and what players /report.
-- Each tick takes a mail a step further, and no step waits.
--
--   sudo make LUA=luajit install       # the library, to /usr/local, where LuaJIT looks for it
--   cp -r examples/luanti MODS/mailer  # and in the world's world.mt: load_mod_mailer = true
--
-- minetest.conf names the mod as one that may leave the sandbox, and a file:
--
--   secure.trusted_mods = mailer
--   mailer.options = /etc/minetest/mailer.lua
--
-- The file holds the password, so it lies where no other mod can read it (not in the world, not among the mods), and
-- only the server's user may:
--
--   return {
--     server = { url = "smtp://user:password@mail.example.org", timeout = 60 },
--     from = "Game <game@example.org>", to = "admin@example.org",
--   }
local insecure = minetest.request_insecure_environment()
if not insecure then error("mailer: add it to secure.trusted_mods in minetest.conf", 0) end

-- Whoever is called by the library can ask for its environment (getfenv), which may do anything, and sees the password.
-- So it runs in here, where other mods' hooks and string methods are out of reach, and only plain values come out.
local function apart(run, ...)
  local debug = insecure.debug
  local strings, globals, hook, mask, count = debug.getmetatable "", insecure.getfenv(0), debug.gethook()
  local methods = insecure.rawget(strings, "__index")
  debug.sethook()
  insecure.rawset(strings, "__index", insecure.string)
  insecure.setfenv(0, insecure)
  local ok, first, second = insecure.pcall(run, ...)
  if not ok then first = insecure.tostring(first) end
  insecure.setfenv(0, globals)
  insecure.rawset(strings, "__index", methods)
  debug.sethook(hook, mask, count)
  if not ok then error(first, 0) end
  return first, second
end

local path = minetest.settings:get "mailer.options" or error("mailer: set mailer.options in minetest.conf", 0)
local post, step = apart(function(queue)
  return insecure.assert(insecure.loadfile(queue))(path)
end, minetest.get_modpath "mailer" .. "/queue.lua")

minetest.register_globalstep(function()
  local level, words = apart(step)
  if level then minetest.log(level, "[mailer] " .. words) end
end)

minetest.register_on_mods_loaded(function()
  apart(post, "The server has started", "All its mods are loaded.\n")
end)

minetest.register_on_newplayer(function(player)
  local name = player:get_player_name()
  apart(post, name .. " is new", "Their first visit.\n")
end)

minetest.register_chatcommand("report", {
  params = "<what>", description = "Tell the admin by mail", privs = { shout = true },
  func = function(name, what)
    if what == "" then return false, "Tell what has happened: /report <what>" end
    if not apart(post, "A report by " .. name, what .. "\n") then return false, "Too many wait; try again later." end
    return true, "The admin will get a mail."
  end,
})
