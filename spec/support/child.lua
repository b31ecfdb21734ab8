-- child: runs a piece of Lua in a process of its own, with the interpreter and the paths of this one.
local child = {}

local interpreter = "lua"
do -- it stands before busted's own script
  local at = -1
  while arg[at] do
    interpreter = arg[at]
    at = at - 1
  end
end

--- What `code` prints, and how its process ended; SIGPIPE has its usual, deadly effect there.
---@param code string
---@return string output
---@return string status as the shell tells it: "0", "141" after a SIGPIPE
function child.run(code)
  local path = os.tmpname()
  local file = assert(io.open(path, "w"))
  file:write(code)
  file:close()
  -- under a sanitizer: a process that ends in the middle of a look-up leaks what the C library holds for it
  local run = ("env --default-signal=PIPE ASAN_OPTIONS=detect_leaks=0 %s %s"):format(interpreter, path)
  local pipe = assert(io.popen(("{ %s; echo \"status $?\"; } 2>&1"):format(run)))
  local output, status = pipe:read("*a"):match("^(.-)status (%d+)%s*$")
  pipe:close()
  os.remove(path)
  return output, status
end

return child
