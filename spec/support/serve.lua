-- serve DIRECTORY MODE PAUSE [OWNER]: a server in a process of its own, until DIRECTORY/go or the process OWNER is gone.
-- While there is a DIRECTORY/hold it rests.
-- MODE is a tls option of smtp.server, or "script": then it plays the lines of DIRECTORY/script to each client in turn:
-- "S: …" says a line, "C:" reads one, "close" closes. Written are DIRECTORY/port, /certificate, and /inbox: a line for
-- each message, its subject, octets and SHA-256. A message whose subject begins with "refuse" is refused. The only user is
-- "ada", "pass word". PAUSE: seconds between its steps, which makes it slow.
local child = require "spec.support.child"
local core = require "smtp.core"
local smtp = require "smtp"

local directory, mode, pause, owner = arg[1], arg[2], tonumber(arg[3]), arg[4]

local function write(name, bytes)
  -- whoever sees the file sees all of it
  local file = assert(io.open(directory .. "/." .. name, "wb"))
  file:write(bytes)
  file:close()
  assert(os.rename(directory .. "/." .. name, directory .. "/" .. name))
end

local function going()
  local goes
  repeat
    goes = child.exists(directory .. "/go") and (not owner or child.exists("/proc/" .. owner .. "/stat"))
    local holds = goes and child.exists(directory .. "/hold")
    if holds then core.wait("read", -1, core.now() + 0.005) end
  until not holds
  return goes
end

local function serve()
  local tls = require "smtp.tls"
  local inbox = assert(io.open(directory .. "/inbox", "wb"))
  local server = assert(smtp.server {
    tls = mode,
    max_connections = 4000,
    auth = mode == "starttls" and function(username, password) return username == "ada" and password == "pass word" end or nil,
    on_message = function(_, message)
      local subject = ("\n" .. message:sub(1, 2000)):match("\nSubject: ([^\r\n]*)") or "-"
      if subject:find("^refuse") then return "550 5.7.1 not wanted" end
      local digest = tls.hash("sha256", message):gsub(".", function(c) return ("%02x"):format(c:byte()) end)
      inbox:write(("%s %d %s\n"):format(subject, #message, digest))
      inbox:flush()
    end,
  })
  if server.certificate then write("certificate", server.certificate) end
  write("port", tostring(server.port))
  while going() do
    server:step(0.1)
    if pause > 0 then core.wait("read", -1, core.now() + pause) end
  end
end

local function play()
  local lines = {}
  for line in io.lines(directory .. "/script") do lines[#lines + 1] = line end
  local listener = assert(core.listen(core.resolve("127.0.0.1", 0):result()[1]))
  write("port", tostring(select(2, listener:name())))
  while going() do
    core.wait("read", listener:fd(), core.now() + 0.1)
    local client = listener:accept()
    local held = ""
    for _, line in ipairs(client and lines or {}) do
      local what, text = line:match("^(%S+) ?(.*)$")
      if what == "S:" then
        client:write(text .. "\r\n")
      elseif what == "C:" then
        local late = core.now() + 60
        while not held:find("\n", 1, true) and core.now() < late do
          core.wait("read", client:fd(), late)
          local bytes, reason = client:read()
          if not bytes and reason ~= "again" then break end
          held = held .. (bytes or "")
        end
        held = held:match("^[^\n]*\n(.*)$") or ""
      end
    end
    if client then client:close() end
  end
end

if mode == "script" then play() else serve() end
