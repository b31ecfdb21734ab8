-- The example mod in a real Luanti (Minetest) server: its mails go out while its ticks go on.
local child = require "spec.support.child"
local loopback = require "spec.support.loopback"
local smtp = require "smtp"

-- Debian's command of that name is a script that gives it another configuration
local PROGRAM = child.output([[command -v /usr/libexec/luanti/luantiserver || command -v /usr/lib/minetest/minetestserver ||
  command -v luantiserver || command -v minetestserver]]):match "[^\n]+"

local CONFIGURATION = [[
secure.enable_security = true
secure.trusted_mods = %s
dedicated_server_step = 0.03
server_announce = false
mg_name = singlenode
bind_address = 127.0.0.1
port = %d
]]

-- A mod that loads behind the mailer: counts the ticks, and ends the server when `wanted` mails are done.
local WITNESS = [[
local wanted = %d
local log = minetest.log
local ticks, done = 0, 0

minetest.register_globalstep(function() ticks = ticks + 1 end)

function minetest.log(level, text)
  log(level, text)
  if not text or not text:find "^%%[mailer%%]" then return end
  print(level, text)
  done = done + 1
  if done < wanted then return end
  print(("after %%d ticks"):format(ticks))
  minetest.request_shutdown()
end
]]

describe("a Luanti server #real", function()
  local missing = not PROGRAM and "NO LUANTI (spec/support/install.sh test installs minetest-server)"
  local dir

  setup(function()
    if not missing then child.output "env -u LD_PRELOAD -u MAKEFLAGS -u MFLAGS make -s LUA=luajit" end
  end)

  before_each(function() dir = child.output "mktemp -d /tmp/smtp-luanti.XXXXXX":match "%S+" end)
  after_each(function() os.execute("rm -rf " .. dir) end)

  -- Runs a world with the mod until `wanted` mails are done, beside `server`. `how`: `witness`, what else that mod does;
  -- `trusted`, the mods that are; `environment`.
  local function play(options, wanted, server, how)
    how = how or {}
    local mods, game = dir .. "/world/worldmods", dir .. "/home/.minetest/games/bare"
    os.execute(("mkdir -p %s/witness %s/mods && cp -rT examples/luanti %s/mailer"):format(mods, game, mods))
    child.write(game .. "/game.conf", "title = bare\n")
    child.write(dir .. "/world/world.mt", "gameid = bare\nbackend = dummy\n")
    child.write(mods .. "/witness/mod.conf", "name = witness\ndepends = mailer\n")
    child.write(mods .. "/witness/init.lua", WITNESS:format(wanted) .. (how.witness or ""))
    child.write(dir .. "/mailer.lua", options)
    child.write(dir .. "/conf", CONFIGURATION:format(how.trusted or "mailer", loopback.port()))
    return child.beside(([[env -u LD_PRELOAD HOME=%s/home MAILER_OPTIONS=%s/mailer.lua %s sh -c 'eval "$(make -s env LUA=luajit)"; ]]
      .. [[exec %s --config %s/conf --world %s/world --gameid bare --logfile %s/log --color never']])
      :format(dir, dir, how.environment or "", PROGRAM, dir, dir, dir), server)
  end

  local function ticks(output)
    return tonumber(output:match "after (%d+) ticks") or error(output)
  end

  it("mails over verified TLS, and no step holds a tick", function()
    if missing then return pending(missing) end
    local server = assert(smtp.server {
      tls = "starttls",
      auth = function(username, password) return username == "ada" and password == "pass word" end,
    })
    -- a system's whole store, with the server's certificate among it
    child.write(dir .. "/trusted.pem", child.output "cat /etc/ssl/certs/ca-certificates.crt" .. server.certificate)
    local code, output = play(([[return { server = { url = "smtp://ada:pass%%20word@localhost:%d", max_messages = 1 },
      from = "game@example.org", to = "grace@example.org" }]]):format(server.port), 4, server, {
      environment = "SSL_CERT_FILE=" .. dir .. "/trusted.pem",
      witness = [[
        minetest.register_on_mods_loaded(function()
          for i = 1, 3 do minetest.registered_chatcommands.report.func("ada", "cow number " .. i) end
        end)]],
    })
    server:close()
    assert.are.equal(0, code, output)
    assert.are.equal(4, #server.inbox, output)
    assert.truthy(server.inbox[1].tls and server.inbox[1].auth, output)
    assert.truthy(server.inbox[4].data:find("Subject: A report by ada\r\n", 1, true))
    assert.truthy(server.inbox[4].data:find("cow number 3", 1, true))
    -- each mail waits for more than four answers, each at a tick of its own: one that held a tick would wait for all in one
    assert.is_true(ticks(output) > 16, output)
  end)

  it("ticks on while a server is silent, and tells what is wrong", function()
    if missing then return pending(missing) end
    local silent = loopback.listen()
    local code, output = play(([[return { server = { url = "smtp://127.0.0.1:%d", timeout = 1, attempts = 1 },
      from = "game@example.org", to = "grace@example.org" }]]):format(silent.port), 1)
    assert.are.equal(0, code, output)
    assert.truthy(output:find("%[mailer%] timeout at greeting: .*the message was not sent"), output)
    assert.is_true(ticks(output) > 1, output)
    silent.close()
    code, output = play(([[return { server = { url = "smtp://localhost:%d", attempts = 1 },
      from = "game@example.org", to = "grace@example.org" }]]):format(silent.port), 1)
    assert.are.equal(0, code, output)
    assert.truthy(output:find("%[mailer%] connect: .*refused.*the message was not sent"), output)
  end)

  it("keeps what it may do from other mods", function()
    if missing then return pending(missing) end
    local closed = loopback.listen()
    closed.close()
    -- looks for a way out of the sandbox wherever it is called, and makes sure that it is called often
    local code, output = play(([[return { server = { url = "smtp://127.0.0.1:%d", attempts = 1 },
      from = "game@example.org", to = "grace@example.org" }]]):format(closed.port), 1, nil, { witness = [[
      local looks, mine, getfenv, pcall, rawget, getinfo = 0, {}, getfenv, pcall, rawget, debug.getinfo
      local function look()
        looks = looks + 1
        for level = 0, 30 do
          local ok, environment = pcall(getfenv, level)
          if ok and rawget(rawget(environment, "os") or {}, "execute") then print "GOT OUT" end
        end
      end
      for name, method in pairs(string) do
        string[name] = function(...)
          look()
          return method(...)
        end
      end
      debug.sethook(function()
        local info = getinfo(2, "fS")
        local what = info.func or info.source -- a newer Luanti gives nobody the function
        if info.source:match "mailer/" and not mine[what] then
          mine[what] = true
          if info.func then pcall(info.func, look) end
        end
        look()
      end, "c")
      minetest.after(0, function() print(looks > 0 and next(mine) and "LOOKED") end)
      ]] })
    assert.are.equal(0, code, output)
    assert.truthy(output:find("LOOKED", 1, true), output)
    assert.falsy(output:find("GOT OUT", 1, true), output)
  end)

  it("says what to set where it is not trusted", function()
    if missing then return pending(missing) end
    local code, output = play("", 1, nil, { trusted = "another" })
    assert.are_not.equal(0, code)
    assert.truthy(output:find("add it to secure.trusted_mods", 1, true), output)
  end)
end)
