--- source: content that is read block by block, from its start, as often as the message is sent.
---
--- Does: strings, files and functions, one after the other or through an encoder.
--- Never: keeps more in memory than one block. A file is open from its first block to its last, or until close().
--- Called by: compose, message, finished, mime, preview, client/send.

-- A source is { size = octets or nil, open = function() -> read, close }; read() -> bytes | nil (end) | nil, err, and
-- after an end or an error it says the same again. Errors have kind "source", stage "body".

local core = require "smtp.core"
local errors = require "smtp.errors"
local text = require "smtp.mail.text"

local source = {}

---@class smtp.source
---@field size integer? octets that it gives; nil when not known before the end
---@field bytes string? all of them, where they are one block that is in memory anyway
---@field open fun(): (fun(): string|nil, smtp.Error|nil), fun()
---@field again nil|fun(): true|nil, smtp.Error|nil where functions are in it: whether it can be read from its start. A
--- function that was read before has to give something then, which the next reading begins with

local BLOCK = 57 * 1024 -- whole lines of base64
local EMPTY = 10000 -- empty strings in a row that a function may give: it must not spin for ever

local function failure(reason)
  return errors.new {
    kind = "source", stage = "body", outcome = "not_sent", temporary = false, reason = text.escape(reason),
  }
end

local function whole(number)
  return type(number) == "number" and number >= 0 and number < 2 ^ 53 and number % 1 == 0
end

-- A reader out of a step that gives bytes | nil, err, "" meaning nothing yet: closes it once, at an end or error or
-- where it is left before. A step that is given a wire may queue its bytes there, through the encoder if that is given
-- too, and give their number.
local function reader(step, close)
  local ended, err
  local function finish(why)
    ended, err = true, why
    if close then close() end
  end
  return function(wire, encoder)
    while not ended do
      local bytes, why = step(wire, encoder)
      if not bytes then
        finish(why)
      elseif bytes ~= "" and bytes ~= 0 then
        return bytes
      end
    end
    return nil, err
  end, function()
    if not ended then finish(failure("its reading was given up")) end
  end
end

local function open_string(s)
  local from = 1
  return reader(function()
    if from > #s then return nil end
    from = from + BLOCK
    return s:sub(from - BLOCK, from - 1)
  end)
end

-- A string that is one block is mostly taken as `bytes`: its `open` is made for those who ask.
local Block = {}

function Block:__index(key)
  if key == "open" then
    local s = self.bytes
    return function() return open_string(s) end
  end
end

--- A string, in blocks.
---@param s string
---@return smtp.source
function source.string(s)
  if #s <= BLOCK then return setmetatable({ size = #s, bytes = s }, Block) end
  return { size = #s, open = function() return open_string(s) end }
end

--- A file. That it can be read, and its size, are checked here and now.
---@param path string
---@return smtp.source?
---@return string? reason in the system's words
function source.file(path)
  if path == "" or path:find("[^\1-\255]") then -- the C library would stop reading the name at a NUL
    return nil, "not the name of a file"
  end
  local file, why = io.open(path, "rb")
  if not file then return nil, text.escape(why) end
  local bytes, size
  bytes, why = file:read(1) -- a directory opens, but cannot be read
  if bytes or not why then size, why = file:seek("end") end
  file:close()
  if not size then return nil, text.escape(path .. ": " .. tostring(why)) end
  return {
    size = size,
    open = function()
      local handle
      local count = 0
      return reader(function(wire, encoder)
        local reason
        if not handle then
          handle, reason = io.open(path, "rb")
          if not handle then return nil, failure(reason) end
        end
        local block, length
        if encoder then
          length, block = encoder:pour_file(handle, BLOCK, wire)
          if not length then
            reason, length = block, 0
          elseif length == 0 then
            block = nil
          end
        else
          block, reason = handle:read(BLOCK)
          length = #(block or "")
        end
        count = count + length
        if reason then
          return nil, failure(path .. ": " .. reason)
        elseif count > size or (not block and count < size) then
          return nil, failure(("%s: changed while it was sent: it had %d bytes"):format(path, size))
        end
        return block
      end, function()
        if handle then handle:close() end
      end)
    end,
  }
end

-- What is known of a function, in whichever messages it is: that it `gave` something once, so that one that gives
-- nothing now is at its end; that it was left `halfway`; what it gave (`held`) when asked whether it can be read.
local states = setmetatable({}, { __mode = "k" })

-- What a function gives next, which is never "": bytes | nil | nil, err.
local function pull(call, label)
  for _ = 1, EMPTY do
    local fine, bytes, why = pcall(call)
    if not fine then
      return nil, failure(label .. ": raised an error: " .. tostring(bytes))
    elseif bytes == nil and why ~= nil then
      return nil, failure(label .. ": " .. tostring(why))
    elseif bytes ~= nil and type(bytes) ~= "string" then
      return nil, failure(label .. ": gave a " .. type(bytes) .. " where a string or nil is due")
    elseif bytes ~= "" then
      return bytes
    end
  end
  return nil, failure(label .. ": gave nothing but empty strings")
end

--- A function that returns bytes, then nil; or nil and what went wrong. It may be read again only if it starts again by
--- itself: a second run that gives another number of bytes, or a run after one left halfway, is an error.
---@param call fun(): string|nil, any
---@param size integer? how much it gives, where that is known
---@param label string what a reason calls it: "attachments[1].source"
---@return smtp.source?
---@return string? reason
function source.call(call, size, label)
  if size ~= nil and not whole(size) then return nil, "size must be a whole number of bytes" end
  size = size and math.floor(size)
  local state = states[call] or { gave = false, halfway = false, held = nil }
  states[call] = state
  local expected = size

  local function gave_other(how)
    return failure(("%s: gave %s than %s %d bytes"):format(label, how, size and "the announced" or "the first time's",
      expected))
  end

  local function again()
    if state.halfway then
      return nil, failure(label .. ": was left halfway before, and a function cannot be read from its start")
    elseif state.gave and expected ~= 0 and not state.held then
      local bytes, why = pull(call, label)
      if not bytes then
        return nil, why or expected and gave_other "less"
          or failure(label .. ": is at its end, and a function that is sent again has to begin anew")
      end
      state.held = bytes
    end
    return true
  end

  return {
    size = size,
    again = again,
    open = function()
      local count, started = 0, false
      return reader(function()
        local bytes, why
        if not started then
          local fine
          fine, why = again()
          if not fine then return nil, why end
          bytes, started = state.held, true
          state.held, state.halfway = nil, true
        end
        if not bytes then bytes, why = pull(call, label) end
        if why then
          return nil, why
        elseif bytes then
          count, state.gave = count + #bytes, true
        else
          state.halfway = false
        end
        if expected and count > expected then
          return nil, gave_other "more"
        elseif expected and not bytes and count < expected then
          return nil, gave_other "less"
        elseif not bytes then
          expected = count
        end
        return bytes
      end)
    end,
  }
end

--- Another source, that fails where octets come which must not.
---@param inner smtp.source
---@param class string a pattern of them
---@param reason string
---@return smtp.source
function source.without(inner, class, reason)
  return {
    size = inner.size,
    again = inner.again,
    open = function()
      local read, close = inner.open()
      return reader(function()
        local bytes, err = read()
        if bytes and bytes:find(class) then return nil, failure(reason) end
        return bytes, err
      end, close)
    end,
  }
end

-- Exact, for the encoder's lines of 76 with CRLF after each, the last one too.
local function base64_size(size)
  if not size then return nil end
  local letters = math.floor((size + 2) / 3) * 4
  return letters + 2 * math.floor((letters + 75) / 76)
end

-- Another source through one of the core's encoders.
local function through(kind, inner, size)
  return {
    size = size,
    again = inner.again,
    open = function()
      local read, close = inner.open()
      local encoder = core.encoder(kind)
      local chunk, from, done = "", 1, false
      return reader(function(wire, outer)
        local pours = wire and not outer and kind == "base64"
        if done then
          return nil
        elseif from > #chunk then
          local why
          if pours then chunk, why = read(wire, encoder) else chunk, why = read() end
          if why then
            return nil, why
          elseif type(chunk) == "number" then
            local queued = chunk
            chunk = ""
            return queued
          elseif not chunk then
            done = true
            return encoder:finish()
          end
          from = 1
        end
        local block = chunk
        if #chunk > BLOCK then block = chunk:sub(from, from + BLOCK - 1) end
        from = from + BLOCK
        if pours then return encoder:pour(block, wire) end
        return encoder:update(block)
      end, close)
    end,
  }
end

--- Another source, base64-encoded.
---@param inner smtp.source
---@return smtp.source
function source.base64(inner)
  return through("base64", inner, base64_size(inner.size))
end

--- Another source with CRLF line ends.
---@param inner smtp.source
---@param size integer? what that comes to, where it is known
---@return smtp.source
function source.crlf(inner, size)
  return through("crlf", inner, size)
end

--- A string with CRLF line ends.
---@param s string
---@return smtp.source
function source.text(s)
  if #s <= BLOCK then return source.string(source.encode("crlf", s)) end
  return source.crlf(source.string(s), source.encoded_size("crlf", s))
end

--- Sources one after the other.
---@param list smtp.source[]
---@return smtp.source
function source.chain(list)
  local size, strings, again = 0, {}, nil
  for _, part in ipairs(list) do
    size = size and part.size and size + part.size
    strings[#strings + 1] = part.bytes
    again = again or part.again
  end
  if #strings == #list and size and size <= BLOCK then return source.string(table.concat(strings)) end
  return {
    size = size,
    again = again and function()
      for _, part in ipairs(list) do
        local fine, err = true, nil
        if part.again then fine, err = part.again() end
        if not fine then return nil, err end
      end
      return true
    end,
    open = function()
      local i, read, close = 0, nil, nil
      return reader(function(wire, outer)
        if not read then
          i = i + 1
          if not list[i] then return nil end
          read, close = list[i].open()
        end
        local bytes, err = read(not outer and wire or nil)
        if bytes or err then return bytes, err end
        read = nil
        return ""
      end, function()
        if close then close() end
      end)
    end,
  }
end

-- Hands a string to one of the core's encoders in blocks, and what comes out to `take`.
local function encode(kind, s, take)
  local encoder = core.encoder(kind)
  for from = 1, #s, BLOCK do
    take(encoder:update(s:sub(from, from + BLOCK - 1)))
  end
  take(encoder:finish())
end

--- A string as one of the core's encoders writes it.
---@param kind "base64"|"quoted-printable"|"crlf"
---@param s string
---@return string
function source.encode(kind, s)
  local out = {}
  encode(kind, s, function(bytes) out[#out + 1] = bytes end)
  return table.concat(out)
end

--- How long it would be, without building it.
---@param kind "base64"|"quoted-printable"|"crlf"
---@param s string
---@return integer
function source.encoded_size(kind, s)
  local size = 0
  encode(kind, s, function(bytes) size = size + #bytes end)
  return size
end

return source
