--- save: a file that is there whole or not at all.
---
--- Does: writes piece by piece under a name beside the wanted one, and renames when complete: a failure leaves nothing,
--- and an older file as it was.
--- Never: reads one: attachments are read by source, keys by dkim.
--- Called by: message (save, preview).
local errors = require "smtp.errors"
local id = require "smtp.mail.id"
local text = require "smtp.mail.text"

local save = {}

-- What the system said of a file, under the name the caller knows.
local function unwritable(label, path, temporary, why)
  why = tostring(why)
  if why:sub(1, #temporary) == temporary then why = why:sub(#temporary + 1):gsub("^: ", "") end
  return errors.input(text.escape(("%s: %s: %s"):format(label, path, why)))
end

--- Writes what a reader gives.
---@param path string
---@param label string the call, for a reason
---@param read fun(): string?, smtp.Error?
---@param close fun() ends the reading where that is not at its end
---@return true?
---@return smtp.Error? err stage "compose"; kind "source": the content cannot be read; "input": cannot write there
function save.write(path, label, read, close)
  if path == "" or path:find("[^\1-\255]") then -- the C library would stop reading the name at a NUL
    return nil, errors.input(label .. ": not the name of a file")
  end
  local suffix, why = id.random(8)
  if not suffix then return nil, errors.input(label .. ": " .. why) end
  local temporary = path .. "." .. suffix .. ".tmp"
  local handle
  handle, why = io.open(temporary, "wb")
  if not handle then return nil, unwritable(label, path, temporary, why) end
  local ok, err = true, nil
  while ok do
    local chunk
    chunk, err = read()
    if not chunk then break end
    ok, why = handle:write(chunk)
  end
  close()
  local closed, reason = handle:close()
  if ok and not err then
    ok, why = closed, reason
    if ok then ok, why = os.rename(temporary, path) end
    if ok then return true end
  end
  os.remove(temporary)
  if err then return nil, errors.new { kind = "source", stage = "compose", reason = err.reason, temporary = false } end
  return nil, unwritable(label, path, temporary, why)
end

return save
