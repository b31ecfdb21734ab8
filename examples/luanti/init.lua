-- A mod for a Luanti (Minetest) server: mails the admin that it has started, who is new, and what players /report.
-- Each tick takes a mail a step further, and no step waits.
--
--   sudo make LUA=luajit install       # the library, to /usr/local, where LuaJIT looks for it
--   cp -r examples/luanti MODS/mailer  # and in the world's world.mt: load_mod_mailer = true
--
-- In minetest.conf the mod is named as one that may leave the sandbox:
--
--   secure.trusted_mods = mailer
--
-- /etc/minetest/mailer.lua (or what MAILER_OPTIONS names) holds the password; only the server's user may read it:
--
--   return {
--     server = { url = "smtp://user:password@mail.example.org", timeout = 30 },
--     from = "Game <game@example.org>", to = "admin@example.org",
--   }
local insecure = minetest.request_insecure_environment()
if not insecure then error("mailer: add it to secure.trusted_mods in minetest.conf", 0) end

-- The library's environment may do anything, and it sees the password. So what is in here runs apart: no hook and no
-- string method of another mod is called meanwhile, which could ask for its caller's environment (getfenv), only plain
-- values come out, and nothing hangs on what other mods can change, such as minetest.settings.
local inside = {}

local function apart(name, ...)
  local debug = insecure.debug
  local strings, globals, hook, mask, count = debug.getmetatable "", insecure.getfenv(0), debug.gethook()
  local methods = insecure.rawget(strings, "__index")
  debug.sethook()
  insecure.rawset(strings, "__index", insecure.string)
  insecure.setfenv(0, insecure)
  local ok, first, second = insecure.pcall(inside[name], ...)
  if not ok then first = insecure.tostring(first) end
  insecure.setfenv(0, globals)
  insecure.rawset(strings, "__index", methods)
  debug.sethook(hook, mask, count)
  if not ok then error(first, 0) end
  return first, second
end

function inside.load()
  local here = insecure.debug.getinfo(1, "S").source:match "^@(.*)init%.lua$"
  local options = insecure.dofile(insecure.os.getenv "MAILER_OPTIONS" or "/etc/minetest/mailer.lua")
  inside.post, inside.step = insecure.dofile(here .. "queue.lua")(options)
end

apart "load"
inside.load = nil

minetest.register_globalstep(function()
  local level, words = apart "step"
  if level then minetest.log(level, "[mailer] " .. words) end
end)

minetest.register_on_mods_loaded(function()
  apart("post", "The server has started", "All its mods are loaded.\n")
end)

minetest.register_on_newplayer(function(player)
  apart("post", player:get_player_name() .. " is new", "Their first visit.\n")
end)

minetest.register_chatcommand("report", {
  params = "<what>", description = "Tell the admin by mail", privs = { shout = true },
  func = function(name, what)
    if what == "" then return false, "Tell what has happened: /report <what>" end
    if not apart("post", "A report by " .. name, what .. "\n") then return false, "Too many wait; try again later." end
    return true, "The admin will get a mail."
  end,
})
