-- Look-ups to a name server that is silent: what they cost, who shares them, and what a child of fork has of them. Each
-- spec runs in a process of its own, where silent.c stands before the C library's getaddrinfo.
-- Of: net/resolve
local child = require "spec.support.child"

local PROLOGUE = [[
  local core, smtp = require "smtp.core", require "smtp"

  local descriptors = require "spec.support.loopback".descriptors

  local function threads()
    local file = io.open "/proc/self/status"
    local number = file:read "*a":match "Threads:%s*(%d+)"
    file:close()
    return tonumber(number)
  end

  -- The names that the name server was asked for, in the order of the alphabet.
  local function asked()
    local names = {}
    for line in io.lines(os.getenv "LOOKUPS") do names[#names + 1] = line end
    table.sort(names)
    return names
  end
  local function answer() io.open(os.getenv "LOOKUPS" .. ".go", "w"):close() end

  -- Until it holds, or for so long that it never will.
  local function settle(holds)
    local late = core.now() + 60
    while not holds() and core.now() < late do core.wait("read", -1, core.now() + 0.01) end
    return holds()
  end

  local function result(lookup)
    local late = core.now() + 60
    while true do
      local addresses, why, temporary = lookup:result()
      if why ~= "again" then return addresses and core.address(addresses[1]) or why, temporary end
      if not core.wait("read", lookup:fd(), late) then return "never" end
    end
  end

  local function send(host)
    return smtp.send { host = host, port = 2525, tls = "none", timeout = 0.001, from = "ada@example.org",
      to = "grace@example.org", subject = "s", text = "t" }
  end
]]

describe("a look-up that nobody answers", function()
  local directory, library

  setup(function()
    directory = child.output "mktemp -d":match "%S+"
    library = directory .. "/silent.so"
    local said = child.output(("env -u LD_PRELOAD cc -D_GNU_SOURCE -shared -fPIC -o %s spec/support/silent.c -ldl"):format(library))
    assert(said == "", said)
  end)

  teardown(function() os.execute("rm -rf " .. directory) end)

  -- What the code prints, in a process whose name server is silent.
  local function run(code)
    os.execute(("rm -f %s/names*; touch %s/names"):format(directory, directory))
    local path = child.keep(PROLOGUE .. code)
    local preload = (os.getenv "LD_PRELOAD" or "") .. " " .. library
    local output = child.output(("env ASAN_OPTIONS=detect_leaks=0 LOOKUPS=%s/names LD_PRELOAD='%s' timeout 300 %s %s")
      :format(directory, preload, child.interpreter, path))
    os.remove(path)
    return output
  end

  it("costs one thread and its descriptors, however often the same name is asked for and given up", function()
    assert.are.equal("timeout 300\n1 2\nslow.example.org 2525\n", run [[
      local _, before = threads(), descriptors()
      local kinds = {}
      for _ = 1, 300 do
        local _, err = send "slow.example.org"
        kinds[err.kind] = (kinds[err.kind] or 0) + 1
      end
      for kind, number in pairs(kinds) do print(kind, number) end
      print(threads() - 1, descriptors() - before)
      print(table.concat(asked(), "\n"))
    ]]:gsub("\t", " "))
  end)

  it("is one of so many: the next fails as what may pass, until an answer has come", function()
    assert.are.equal([[
timeout 64
resolve resolve not_sent true host300.example.org: too many names are being looked up already: is the name server silent?
64
127.0.0.1
true true
]], (run [[
      local before, alone = descriptors(), threads()
      local given_up, last = 0, nil
      for i = 1, 300 do
        local _, err = send("host" .. i .. ".example.org")
        if err.kind == "timeout" then given_up = given_up + 1 else last = err end
      end
      print("timeout", given_up)
      print(last.kind, last.stage, last.outcome, last.temporary, last.reason)
      print(threads() - alone)
      answer()
      settle(function() return threads() == alone end)
      print((result(core.resolve("another.example.org", 25))))
      print(settle(function() return threads() == alone end), settle(function() return descriptors() == before end))
    ]]:gsub("\t", " ")))
  end)

  it("is shared by all who ask for the same name and port, each with a descriptor of its own", function()
    assert.are.equal([[
true true
a.example.org 25
a.example.org 587
b.example.org 25
127.0.0.1 25 127.0.0.1 587 127.0.0.1 25
127.0.0.1 25
]], (run [[
      local one, other = core.resolve("a.example.org", 25), core.resolve("a.example.org", 25)
      local submission, second = core.resolve("a.example.org", 587), core.resolve("b.example.org", 25)
      print(one:fd() ~= other:fd(), settle(function() return #asked() == 3 end))
      one:close()
      print(table.concat(asked(), "\n"))
      answer()
      local told = {}
      for _, lookup in ipairs { other, submission, second } do
        result(lookup)
        told[#told + 1] = table.concat({ core.address(lookup:result()[1]) }, " ")
      end
      print(table.concat(told, " "))
      -- one that had joined outlives the rest
      submission:close()
      second:close()
      collectgarbage()
      print(core.address(other:result()[1]))
    ]]:gsub("\t", " ")))
  end)

  if pcall(require, "posix") then
    it("is none of a child's: it goes on there at once, looks up anew, and has nothing of it left", function()
      assert.are.equal([[
child: true the process forked while the name was looked up true
child: nothing left
child: 127.0.0.1
parent: 127.0.0.1 127.0.0.1
]], (run [[
        io.stdout:setvbuf "no"
        local posix = require "posix"
        local before = descriptors()
        local held = { core.resolve("a.example.org", 25), core.resolve("b.example.org", 25) }
        core.resolve("a.example.org", 25):close()
        core.resolve("given-up.example.org", 25):close()
        settle(function() return #asked() == 3 end)
        local pid = posix.fork()
        if pid == 0 then
          print("child:", core.wait("read", held[1]:fd(), core.now() + 60), result(held[1]))
          held = nil
          print("child:", descriptors() == before and "nothing left" or descriptors() - before)
          local lookup = core.resolve("a.example.org", 25)
          settle(function() return #asked() == 4 end)
          answer()
          print("child:", (result(lookup)))
          os.exit(0)
        end
        posix.wait(pid)
        print("parent:", result(held[1]), (result(held[2])))
      ]]:gsub("\t", " ")))
    end)
  end
end)

-- no Lua takes part: it runs once
describe("a look-up in C #real", function()
  local function run(flags, words)
    local program = os.tmpname()
    local output = child.output(("env -u LD_PRELOAD sh -c 'cc -std=c11 -D_GNU_SOURCE -g -O1 %s -pthread -o %s"
      .. " spec/support/resolve_faults.c -ldl && %s %s'"):format(flags, program, program, words))
    os.remove(program)
    return output
  end

  it("tells when memory, descriptors or threads are short, and leaves nothing of it", function()
    assert.are.equal("0\n", run("-fsanitize=address,undefined", ""))
  end)

  it("is begun, joined and given up by many threads at once, while the process forks in the midst, and children do too", function()
    assert.are.equal("0\n", run("-fsanitize=address,undefined", "0"))
    assert.are.equal("0\n", run("", "100"))
  end)
end)
