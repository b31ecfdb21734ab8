-- postfix: starts and stops the specs' private Postfix (postfix.sh) and reads what it delivered.
local postfix = {}

local script = "spec/support/postfix.sh"
-- a sanitizer preloaded for the specs is not meant for the servers
local clean = "env -u LD_PRELOAD "
local running

local function quote(word)
  return "'" .. word:gsub("'", "'\\''") .. "'"
end

--- Runs a command, what it says on stderr included; true and its output, or false and it.
local function run(command)
  local pipe = assert(io.popen(clean .. command .. " 2>&1; echo \"status $?\""))
  local output, status = pipe:read("*a"):match("^(.-)status (%d+)%s*$")
  pipe:close()
  return status == "0", output
end

--- Starts Postfix under a directory of its own, once: a second call returns the one that runs.
---@return table|nil server `plain_port`, `submission_port`, `smtps_port`, `ca_file`, `maildir`, `log`
---@return string|nil reason why there is none here (for `pending`)
function postfix.start()
  if running then
    return running
  end
  local pipe = assert(io.popen(clean .. "mktemp -d /tmp/smtp-postfix.XXXXXX"))
  local server = { dir = pipe:read("*l") }
  pipe:close()
  -- to a file and not a pipe: the servers keep what they were given open
  local log = server.dir .. "/start"
  local ok = run("bash " .. script .. " start " .. quote(server.dir) .. " >" .. log .. " 2>&1 </dev/null")
  local file = assert(io.open(log))
  local output = file:read("*a")
  file:close()
  for key, value in output:gmatch("([%u_]+)=([^\n]+)") do
    server[key:lower()] = tonumber(value) or value
  end
  if ok then
    running = server
    return server
  end
  os.execute("rm -rf " .. quote(server.dir))
  return nil, "NO POSTFIX: " .. output
end

--- Stops what start() started and removes its directory.
function postfix.stop()
  if running then
    run("bash " .. script .. " stop " .. quote(running.dir))
    os.execute("rm -rf " .. quote(running.dir))
    running = nil
  end
end

local function read(path)
  local file = assert(io.open(path, "rb"))
  local bytes = file:read("*a")
  file:close()
  return bytes
end

--- Waits until a maildir holds a message.
---@param maildir string
---@param wanted string|number its Message-ID, or: the message that makes it this many
---@param timeout number|nil seconds after which something hangs, default 60
---@return string|nil message raw bytes as delivered (Postfix puts Return-Path, Delivered-To and Received on top)
---@return string|nil reason
function postfix.wait_for_message(maildir, wanted, timeout)
  local ends = os.time() + (timeout or 60)
  repeat
    local delivered, listing = run("ls -tr " .. quote(maildir .. "/new"))
    local count = 0
    for name in (delivered and listing or ""):gmatch("[^\n]+") do
      count = count + 1
      local path = maildir .. "/new/" .. name
      if type(wanted) == "string" then
        local message = read(path)
        local header = message:match("^.-\r?\n\r?\n") or message
        if header:find(wanted, 1, true) then
          return message
        end
      elseif count == wanted then
        return read(path)
      end
    end
    run("sleep 0.05")
  until os.time() > ends
  return nil, "not delivered in time: " .. tostring(wanted)
end

return postfix
