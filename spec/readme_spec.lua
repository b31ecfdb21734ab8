-- README.md and the reference, lua/README.md: their links lead somewhere, their snippets are Lua, and each runs as it
-- stands there (in the reference those of a chapter in one), in a process of its own, against a server of this library
-- that stands for every host.
local child = require "spec.support.child"
local smtp = require "smtp"
local tls = require "smtp.tls"

local PAGES = { ["README.md"] = child.read "README.md", ["lua/README.md"] = child.read "lua/README.md" }

-- What stands for the values that a snippet leaves out: `host = …`.
local GIVEN = [[
local given = { host = "mail.example.org", username = "ada", password = "secret", from = "ada@example.org",
  to = "grace@example.org", subject = "Hello", text = "Hello.\n" }
]]

local function snippets(page)
  local list = {}
  for code in page:gmatch "\n```lua\n(.-\n)```\n" do
    list[#list + 1] = (code:gsub("(%w+) = …", "%1 = given.%1"):gsub("function(%b()) … end", "function%1 end"))
  end
  return list
end

-- Before each: where every host is that server, and what nobody else is there to bring along.
local PRELUDE = GIVEN .. [[
local smtp, socket, options = require "smtp", require "smtp.transport.socket", require "smtp.options"
local here = { port = %d }
local function anywhere(transport)
  local connect = transport.connect
  function transport.connect(_, _, opts, deadline) return connect("127.0.0.1", here.port, opts, deadline) end
  return transport
end
options.host_transport = anywhere(socket.new())
for _, host in ipairs { "cqueues", "haproxy", "prosody", "skynet" } do
  package.loaded["smtp.transport." .. host] = options.host_transport
end
local count = 0
local function next_message()
  count = count + 1
  if count > 3 then return nil end
  return { from = given.from, to = given.to, subject = "Number " .. count, text = given.text }
end
]]

local CONNECT = [[local s = assert(smtp.connect { host = given.host, username = "ada", password = "secret" })]]
local MESSAGE = [[{ from = given.from, to = given.to, subject = given.subject, text = given.text }]]

-- A host's loop in a nutshell: it resumes who waits when a descriptor is ready or its time has come.
local LOOP = [[
local core, watches, alarms, woken = require "smtp.core", {}, {}, {}
local loop = {}
function loop.watch(_, fd, mode, call)
  local one = { fd = fd, mode = mode, call = call, stop = function(self) watches[self] = nil end }
  watches[one] = true
  return one
end
function loop.at(_, time, call)
  local one = { time = time, call = call, stop = function(self) alarms[self] = nil end }
  alarms[one] = true
  return one
end
function loop.wake(_, thread) woken[#woken + 1] = thread end
function loop.forget() end
local function run(call)
  local thread = coroutine.create(call)
  woken[1] = thread
  while coroutine.status(thread) ~= "dead" do
    while woken[1] do assert(coroutine.resume(table.remove(woken, 1))) end
    for one in pairs(watches) do if core.wait(one.mode, one.fd, 0) then one.call() end end
    for one in pairs(alarms) do if core.now() >= one.time then one.call() end end
  end
end
]]

-- By words of each snippet, or the chapter of the reference: what must stand before and behind it to make it a program,
-- how many messages come of it, and what it prints.
local CASES = {
  { 'subject = "Hello ✉", text = "It works', "", "", 1, "^<.+@.+>\n$" },
  { "cid:plan", "", "assert(receipt, err)", 1 },
  { "smtp.gmail.com", "", "assert(receipt, err)", 1 },
  { "#failed", "", "", 2, "^2 sent, 0 not, or not for certain\n\n$" },
  { "in s:send_many(next_message) do", CONNECT, "s:quit()", 3, "^<[^\n]+>\n<[^\n]+>\n<[^\n]+>\n$" },
  { "local results = s:send_many", CONNECT, "s:quit()", 1, "^closed at mail: [^\n]+\nclosed at mail: [^\n]+\n$" },
  { "smtp.transport.cqueues", "local loop = { wrap = function(_, call) call() end }", "", 1 },
  { "smtp.task(smtp.send", "", "while what ~= 'done' do what, receipt, err = task:step() end assert(receipt, err)", 1 },
  { "loop:watch", LOOP, "run(function() assert(smtp.send { transport = anywhere(transport), host = given.host, from = given.from, "
    .. "to = given.to, text = given.text }) end)", 1 },
  { "-- mailer.lua", "local function mailer()", "end assert(mailer():send(" .. MESSAGE .. "))", 1 },
  { "content_by_lua_block", "package.loaded.mailer = assert(smtp.pool { host = given.host, username = 'ada', password = 'secret' })",
    "assert(receipt, err)", 1 },
  { "fiber.create", "local fiber = { create = function(call) call() end }", "", 1 },
  { "core.register_action", "local core = { register_action = function(_, _, call) call() end }", "", 1 },
  { "util.async", "package.loaded['util.async'] = { runner = function(call) return { run = function(_, user) call(user) end } end } "
    .. "local module = { hook = function(_, _, call) call('grace') end }", "", 1 },
  { 'require "skynet"', "local handle package.loaded.skynet = { start = function(call) call() end, "
    .. "dispatch = function(_, call) handle = call end, retpack = function(id, err) print(id or err) end }",
    "handle(1, 1, " .. MESSAGE .. ")", 1, "^<.+>\n$" },
  { "server:run()", [[
    local serve = smtp.server
    function smtp.server(options) -- not on a port that may be taken, and not for ever
      options.port = nil
      local server = assert(serve(options))
      function server:run()
        here.port = self.port
        local task = smtp.task(smtp.send, { host = "127.0.0.1", ca_file = self.certificate, username = "ada", password = "secret",
          from = given.from, to = given.to, text = given.text })
        local what, receipt, err
        repeat
          what, receipt, err = task:step()
          self:step(what == "done" and 0 or 0.01)
        until what == "done"
        assert(receipt, err)
      end
      return server
    end]], "", 0, "^ada@example.org\t%d+\n$" },
  { "in place of this: what your program does", "options.host_transport = nil", "", 0 },
  { "## Functions", "", "", 3 },
  { "## Sessions", "", "" },
  { "## Messages", "", "", 0 },
  { "## Pools", "", "", 3 },
  { "## Tasks", "", "", 1 },
  { "## Servers", "options.host_transport = nil", "", 0, "^ada@example.org\t%d+\n$" },
  { "## Transports", "", [[
    local sending = coroutine.wrap(function()
      assert(smtp.send { transport = anywhere(transport), host = given.host, from = given.from, to = given.to, text = given.text })
      return "done"
    end)
    repeat until sending() == "done"]], 1 },
}

-- The one snippet of the README with these words, or all those of a chapter of the reference.
local function code_of(words)
  local title = words:match "^## (.*)"
  if title then
    local chapter = (PAGES["lua/README.md"] .. "\n## "):match("\n## " .. title .. "\n(.-)\n## ")
    assert.truthy(chapter, "there is no such chapter")
    return table.concat(snippets(chapter), "\n")
  end
  local code
  for _, one in ipairs(snippets(PAGES["README.md"])) do
    if one:find(words, 1, true) then
      assert.is_nil(code, "two snippets have these words")
      code = one
    end
  end
  assert.truthy(code, "no snippet has these words")
  return code
end

local function anchor_of(heading)
  return (heading:lower():gsub("[^%w_ -]", ""):gsub(" ", "-"))
end

describe("What is written for readers", function()
  local server, open, certificate, folder -- open: it wants no login

  setup(function()
    local cert, key = tls.mint { "mail.example.org", "smtp.gmail.com" }
    local passwords = { ada = "secret", ["you@gmail.com"] = "the app password" }
    server = assert(smtp.server { tls = "starttls", cert = cert, key = key, auth = function(username, password)
      return passwords[username] == password
    end })
    open = assert(smtp.server { tls = "starttls", cert = cert, key = key })
    certificate = child.keep(cert)
    folder = os.tmpname()
    os.remove(folder)
    assert(os.execute("mkdir " .. folder))
    for _, name in ipairs { "plan.png", "figures.pdf" } do child.write(folder .. "/" .. name, name) end
  end)

  teardown(function()
    server:close()
    open:close()
    os.remove(certificate)
    os.execute("rm -r " .. folder)
  end)

  for name, page in pairs(PAGES) do
    it("has snippets that are Lua: " .. name, function()
      local load = loadstring or load
      for _, code in ipairs(snippets(page)) do
        local chunk, reason = load(code)
        assert.truthy(chunk, tostring(reason) .. " in\n" .. code)
        assert.falsy(code:gsub("%-%-[^\n]*", ""):find("…", 1, true), code)
      end
    end)

    it("has links that lead somewhere: " .. name, function()
      local anchors = {}
      for of, other in pairs(PAGES) do
        anchors[of] = {}
        for heading in other:gmatch "\n##+ ([^\n]+)" do
          assert.is_nil(anchors[of][anchor_of(heading)], heading)
          anchors[of][anchor_of(heading)] = true
        end
      end
      for target in page:gmatch "%]%(([^)]+)%)" do
        local path, anchor = target:match "^([^#]*)#?(.*)$"
        path = path == "" and name or (name:match "^(.*/)" or "") .. path
        path = path:gsub("[^/]+/%.%./", "")
        if anchor == "" then assert(io.open(path)):close() else assert.truthy((anchors[path] or {})[anchor], target) end
      end
    end)

    it("has its headings in the contents: " .. name, function()
      local contents = page:match "^.-\n## "
      for heading in page:gmatch "\n## ([^\n]+)" do
        assert.truthy(contents:find("(#" .. anchor_of(heading) .. ")", 1, true), heading)
      end
    end)
  end

  for _, case in ipairs(CASES) do
    local words, before, behind, count, prints = case[1], case[2], case[3], case[4], case[5]
    it(("runs the snippets of %s"):format(words), function()
      local code = code_of(words)
      local receiver = (before .. code):find("username", 1, true) and server or open
      receiver.inbox = {}
      local path = child.keep(table.concat({ PRELUDE:format(receiver.port), before, code, behind }, "\n"))
      local status, output = child.beside(("env -C %s SSL_CERT_FILE=%s ASAN_OPTIONS=detect_leaks=0 %s %s"):format(folder,
        certificate, child.interpreter, path), receiver)
      os.remove(path)
      assert.are.equal(0, status, output)
      if count then assert.are.equal(count, #receiver.inbox, output) end
      if prints then assert.truthy(output:find(prints), output) end
    end)
  end
end)
