-- HEADLESS=1: no window and no sound, as on a server.
function love.conf(t)
  t.identity, t.window.title = "smtp-example", "A game that mails"
  if not os.getenv "HEADLESS" then return end
  for _, name in ipairs { "audio", "font", "graphics", "image", "sound", "video", "window" } do
    t.modules[name] = false
  end
end
