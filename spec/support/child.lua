-- child: processes of their own: a piece of Lua with the interpreter and the paths of this one, or another program.
local core = require "smtp.core"

local child = { interpreter = "lua" }

local PATIENCE = 120 -- seconds after which something hangs

do -- it stands before busted's own script
  local at = -1
  while arg[at] do
    child.interpreter = arg[at]
    at = at - 1
  end
end

--- A file's bytes; "" where there is none.
---@param path string
---@return string
function child.read(path)
  local file = io.open(path, "rb")
  local bytes = file and file:read("*a") or ""
  if file then file:close() end
  return bytes
end

---@param path string
---@param bytes string what the file is to hold
function child.write(path, bytes)
  local file = assert(io.open(path, "wb"))
  file:write(bytes)
  file:close()
end

--- A temporary file that holds `bytes`; the caller removes it.
---@param bytes string
---@return string path
function child.keep(bytes)
  local path = os.tmpname()
  child.write(path, bytes)
  return path
end

--- What a command prints, its complaints too.
---@param command string
---@return string
function child.output(command)
  local pipe = assert(io.popen(command .. " 2>&1"))
  local output = pipe:read "*a"
  pipe:close()
  return output
end

-- Waits until something is so; it raises where it never is.
local function wait_for(what, holds)
  local late = core.now() + PATIENCE
  while not holds() do
    if core.now() > late then error(what, 3) end
    core.wait("read", -1, core.now() + 0.005)
  end
end

--- Whether there is such a file.
---@param path string
---@return boolean
function child.exists(path)
  local file = io.open(path)
  if file then file:close() end
  return file ~= nil
end

--- Waits until another process has made a file.
---@param path string
function child.there(path)
  wait_for(path .. " does not come", function() return child.exists(path) end)
end

--- Waits until another process has removed a file.
---@param path string
function child.gone(path)
  wait_for(path .. " stays", function() return not child.exists(path) end)
end

--- Waits until another process has written something into a file.
---@param path string
---@param pattern string
function child.says(path, pattern)
  wait_for(path .. " never says " .. pattern, function() return child.read(path):find(pattern) ~= nil end)
end

--- The number of this process; "" where the system does not tell.
---@return string
function child.number()
  return child.read("/proc/self/stat"):match "^%d+" or ""
end

--- Begins a command in the background.
---@param command string a simple one
---@return string pid
function child.start(command)
  local pipe = assert(io.popen(("%s >/dev/null 2>&1 </dev/null & echo $!"):format(command)))
  local pid = pipe:read "*l"
  pipe:close()
  return pid
end

--- Runs a command in the background while stepping a server.
---@param command string
---@param server table? nil: only waits
---@return integer? status its exit status; nil: it did not end in time
---@return string output
function child.beside(command, server)
  local out, status = child.keep "", child.keep ""
  os.execute(("(timeout %d %s; echo $? >%s) >%s 2>&1 </dev/null &"):format(PATIENCE, command, status, out))
  local stop = core.now() + PATIENCE + 10
  local code
  repeat
    if server then server:step(0.02) else os.execute("sleep 0.05") end
    code = child.read(status):match("^(%d+)\n")
  until code or core.now() > stop
  if server then server:step(0) end
  local output = child.read(out)
  os.remove(out)
  os.remove(status)
  return tonumber(code), output
end

--- What `code` prints, and how its process ended; SIGPIPE has its usual, deadly effect there.
---@param code string
---@param environment string? for the shell to set
---@return string output
---@return string status as the shell tells it: "0", "141" after a SIGPIPE
function child.run(code, environment)
  local path = child.keep(code)
  -- under a sanitizer: a process that ends in the middle of a look-up leaks what the C library holds for it
  local run = ("env --default-signal=PIPE ASAN_OPTIONS=detect_leaks=0 %s %s %s"):format(environment or "", child.interpreter, path)
  local pipe = assert(io.popen(("{ %s; echo \"status $?\"; } 2>&1"):format(run)))
  local output, status = pipe:read("*a"):match("^(.-)status (%d+)%s*$")
  pipe:close()
  os.remove(path)
  return output, status
end

return child
