-- Several Lua states in one process, and a process that forks.
local child = require "spec.support.child"
local smtp = require "smtp"

-- Each runs in a process of its own; an interpreter that ends with threads or as a fork is no case for a leak checker.
local COMMAND = "env ASAN_OPTIONS=detect_leaks=0 %s spec/support/%s.lua %d %s"

describe("a process", function()
  local server, certificate

  before_each(function()
    server = assert(smtp.server {
      tls = "starttls",
      auth = function(username, password) return username == "ada" and password == "pass word" end,
    })
    certificate = child.keep(server.certificate)
  end)

  after_each(function()
    server:close()
    os.remove(certificate)
  end)

  local function run(name)
    return child.beside(COMMAND:format(child.interpreter, name, server.port, certificate), server)
  end

  it("may have a Lua state in each of its threads", function()
    if not pcall(require, "cqueues") then return pending "NO CQUEUES (spec/support/install.sh test installs lua-cqueues)" end
    local code, output = run "threads"
    assert.are.same({ 0, ("10\n"):rep(4) }, { code, output })
    assert.are.equal(40, #server.inbox)
  end)

  -- there is no luaposix for 5.4 here
  if _VERSION ~= "Lua 5.4" then
    it("keeps its connections when a child it forked ends", function()
      if not pcall(require, "posix") then return pending "NO LUAPOSIX (spec/support/install.sh test installs lua-posix)" end
      local code, output = run "fork"
      assert.are.same({ 0, "intact\n" }, { code, output })
      assert.are.equal(4, #server.inbox)
      assert.is_nil(server.failure)
    end)
  end
end)
