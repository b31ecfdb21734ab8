-- The example game in a real LÖVE, without a window.
local child = require "spec.support.child"
local smtp = require "smtp"

describe("a LÖVE game #real", function()
  local missing = child.output "command -v love" == "" and "NO LÖVE (spec/support/install.sh test installs love)"
  if not missing then child.output "env -u LD_PRELOAD -u MAKEFLAGS -u MFLAGS make -s LUA=luajit" end

  local function play(environment, server)
    return child.beside(([[env -u LD_PRELOAD SDL_AUDIODRIVER=dummy HEADLESS=1 %s sh -c 'eval "$(make -s env LUA=luajit)"; exec love examples/love']])
      :format(environment), server)
  end

  it("mails while its frames go on", function()
    if missing then return pending(missing) end
    local server = assert(smtp.server {
      tls = "starttls",
      auth = function(username, password) return username == "ada" and password == "pass word" end,
    })
    local certificate = child.keep(server.certificate)
    local code, output = play(("CA_FILE=%s SMTP_URL=smtp://ada:pass%%20word@localhost:%d FROM=ada@example.org TO=grace@example.org")
      :format(certificate, server.port), server)
    server:close()
    os.remove(certificate)
    assert.are.equal(0, code, output)
    assert.are.equal(1, #server.inbox, output)
    -- a wait within a step would be seen as one frame for several replies
    assert.is_true(tonumber(output:match "after (%d+) frames") > 4, output)
  end)

  it("is told what is wrong", function()
    if missing then return pending(missing) end
    local code, output = play "SMTP_URL=smtp+insecure://localhost:1 FROM=ada@example.org TO=grace@example.org"
    assert.are.equal(0, code, output)
    assert.truthy(output:find("the message was not sent", 1, true), output)
  end)
end)
