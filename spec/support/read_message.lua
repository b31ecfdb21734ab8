-- Reads messages back with readers that are not ours: read_message.py on Python's e-mail package, unless another is named.
local child = require "spec.support.child"
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

--- One table for each message: names, fields, addresses, date, body (a part, or parts in it); from Python also defects.
return function(messages, reader)
  local paths = {}
  for i, bytes in ipairs(messages) do
    paths[i] = child.keep(bytes)
  end
  -- a sanitizer preloaded for the specs is not meant for the readers
  local pipe = assert(io.popen(("env -u LD_PRELOAD %s %s"):format(reader or "/usr/bin/python3 spec/support/read_message.py",
    table.concat(paths, " "))))
  local out = pipe:read("*a")
  pipe:close()
  for _, path in ipairs(paths) do
    os.remove(path)
  end
  local list = assert(json.decode(out, 1, false), "the reader gave no JSON")
  for _, read in ipairs(list) do
    decode_bodies(read.body)
  end
  return list
end
