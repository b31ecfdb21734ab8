-- System calls for a message #real: strace counts those of a child that sends so many messages, and of one that sends twice
-- as many; the difference is the messages' own. Calls for memory are not counted: the collector makes them when it likes.
local child = require "spec.support.child"
local smtp = require "smtp"

local COUNT = 200

-- What the child runs: arguments port, how many, how, recipients, pipeline, ca_file.
local SCRIPT = [[
local smtp = require "smtp"
local port, count, how, recipients, pipeline, ca_file = %d, %d, %q, %d, %q, %q
local to = {}
for i = 1, recipients do to[i] = ("to%%d@example.test"):format(i) end
local mail = assert(smtp.message { from = "ada@example.test", to = to, subject = "s", text = ("x"):rep(1000) })
local session = assert(smtp.connect { host = "127.0.0.1", port = port, pipeline = pipeline,
  tls = ca_file ~= "" and "implicit" or "none", ca_file = ca_file ~= "" and ca_file or nil })
if how == "send" then
  for _ = 1, count do assert(session:send(mail)) end
else
  local i = 0
  for receipt, err in session:send_many(function()
    i = i + 1
    return i <= count and mail or nil
  end) do assert(receipt, err) end
end
assert(session:quit())
]]

local function traced()
  local status = os.execute "strace -f -c -o /dev/null true >/dev/null 2>&1"
  return status == true or status == 0
end

describe("system calls for a message #real:", function()
  local servers, ca_file = {}, nil
  setup(function()
    servers.none = assert(smtp.server { on_message = function() end })
    servers.implicit = assert(smtp.server { on_message = function() end, tls = "implicit" })
    ca_file = child.keep(servers.implicit.certificate)
  end)
  teardown(function()
    for _, server in pairs(servers) do server:close() end
    os.remove(ca_file)
  end)

  -- All system calls of a child, by name.
  local function count(mode, messages, how, recipients, pipeline)
    local server = servers[mode]
    local script = child.keep(SCRIPT:format(server.port, messages, how, recipients, pipeline, mode == "none" and "" or ca_file))
    local list = child.keep ""
    local code, output = child.beside(("strace -f -c -o %s %s %s"):format(list, child.interpreter, script), server)
    assert.are.equal(0, code, output)
    local calls = {}
    for number, name in child.read(list):gmatch "\n *[%d.]+ +[%d.]+ +%d+ +(%d+) [ %d]* ([%l%d_]+)" do
      calls[name] = tonumber(number)
    end
    os.remove(list)
    os.remove(script)
    return calls
  end

  local MEMORY = { brk = true, mmap = true, munmap = true, madvise = true, mremap = true, total = true }
  -- replies that came in two pieces, in one of the two runs
  local CHANCE = 0.05
  -- Runs of a machine with other things to do, where more is late: what a message needs is what the best one takes.
  local RUNS = 20

  -- Alone: two flights, and a look at what the server may have said before the first one. A flight of ten whole messages
  -- is one write; the answers come in as many pieces as the server makes of them, here more for many recipients.
  for _, case in ipairs {
    { "send_many", "data", 1, 2 }, { "send_many", "data", 10, 2 }, { "send", "data", 1, 5 }, { "send", "data", 10, 5 },
    { "send_many", "chunk", 1, 0.5 }, { "send_many", "chunk", 10, 1 }, { "send", "chunk", 1, 3 }, { "send", "chunk", 10, 3 },
  } do
    for _, mode in ipairs { "none", "implicit" } do
      local how, pipeline, recipients, most = case[1], case[2], case[3], case[4]
      it(("at most %s with %s, pipeline %s, tls %s, %d recipients"):format(most, how, pipeline, mode, recipients), function()
        if not traced() then pending "NO STRACE (spec/support/install.sh test installs it), or it may not trace here" end
        -- each flight is at least one write and one read
        local least = (how == "send" or pipeline == "data") and 2 or 0.2
        local total, list
        for _ = 1, RUNS do
          local once, twice = count(mode, COUNT, how, recipients, pipeline), count(mode, 2 * COUNT, how, recipients, pipeline)
          total, list = 0, {}
          for name, number in pairs(twice) do
            local more = (number - (once[name] or 0)) / COUNT
            if not MEMORY[name] and more ~= 0 then
              total, list[#list + 1] = total + more, ("%s %g"):format(name, more)
            end
          end
          if total >= least - CHANCE and total <= most + CHANCE then return end
        end
        error(("%g a message: %s"):format(total, table.concat(list, ", ")))
      end)
    end
  end
end)
