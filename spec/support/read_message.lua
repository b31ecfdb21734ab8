-- Reads messages back with a reader that is not ours: read_message.py, on Python's e-mail package.
local core = require "smtp.core"
local json = require "dkjson"

local function decode_bodies(part)
  if part.body then
    part.body = assert(core.unbase64(part.body))
  end
  for _, inner in ipairs(part.parts or {}) do
    decode_bodies(inner)
  end
end

--- One table for each message: names, fields, addresses, defects, body (a part, or parts in it).
return function(messages)
  local paths = {}
  for i, bytes in ipairs(messages) do
    paths[i] = os.tmpname()
    local file = assert(io.open(paths[i], "wb"))
    assert(file:write(bytes))
    file:close()
  end
  local pipe = assert(io.popen("/usr/bin/python3 spec/support/read_message.py " .. table.concat(paths, " ")))
  local out = pipe:read("*a")
  pipe:close()
  for _, path in ipairs(paths) do
    os.remove(path)
  end
  local list = assert(json.decode(out, 1, false), "read_message.py gave no JSON")
  for _, read in ipairs(list) do
    decode_bodies(read.body)
  end
  return list
end
