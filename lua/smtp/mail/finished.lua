--- finished: a message that somebody else composed, on its way out.
---
--- Does: takes out its Bcc and Resent-Bcc fields, which name those whom nobody is to know of, in whatever pieces they
--- come; makes its line ends CRLF; refuses NUL.
--- Never: touches the body or another field; cuts a line, however long it is.
--- Called by: compose.
--- RFC 5322 2.1.1, 3.6.3, 3.6.6 and 4.5 (blanks before the colon).
local core = require "smtp.core"
local source = require "smtp.mail.source"
local text = require "smtp.mail.text"

local finished = {}

local NUL = "[^\1-\255]"
local NUL_FOUND = "a NUL is in it, which no message may hold"
local NAMES = { bcc = true, ["resent-bcc"] = true }
local LONGEST = #"resent-bcc"
local BLOCK = 4096

local function may_become_one(name)
  for whole in pairs(NAMES) do
    if whole:sub(1, #name) == name then return true end
  end
  return false
end

-- Where the line ends, from a place on, behind which one has to be looked at: an empty one, or the beginning of a name.
local function next_look(piece, at)
  while true do
    local stop = piece:find("\n[\r\nBbRr]", at)
    if not stop then return math.huge end
    at = stop + 1
    -- of a line that is not there yet the first letters do not tell
    if at + LONGEST > #piece or piece:find("^[\r\n]", at) or piece:find("^[Bb][Cc][Cc]", at)
      or piece:find("^[Rr][Ee][Ss][Ee]", at) then
      return stop
    end
  end
end

-- Takes the fields out of a message that comes in pieces: a function that gives what is left of the next one (nil: of
-- what was held back, at the end), and whether the header goes on.
local function filter_of()
  local place = "line" -- its beginning; then "field": the rest of it; at last "body"
  local dropping = false -- the field that the line belongs to
  local held, name, gap = {}, "", false -- of a line: the octets, the name in them, whether blanks followed it
  local cr = false -- the line before ended with CR, to which an LF belongs
  local bare = false -- what is left ends with a CR that has none: one that comes later must not become its own

  return function(piece)
    if not piece then
      return table.concat(held), false
    elseif place == "body" then
      return piece, false
    elseif place == "field" and not piece:find("[\r\n]") then
      return dropping and "" or piece, true
    end
    local out, at = {}, 1
    local look, lone = 0, 0 -- the next line end of note, and the next CR that is one by itself
    while at <= #piece do
      if place == "field" and not dropping then
        look = look < at and next_look(piece, at) or look
        lone = lone < at and (piece:find("\r[^\n]", at) or math.huge) or lone
        local stop = math.min(look, lone, #piece)
        local last = piece:byte(stop)
        out[#out + 1] = piece:sub(at, stop)
        at = stop + 1
        if last == 13 or last == 10 then place, held, name, gap, cr, bare = "line", {}, "", false, last == 13, false end
      elseif place == "field" then
        local stop = piece:find("[\r\n]", at)
        at = (stop or #piece) + 1
        if stop then place, held, name, gap, cr = "line", {}, "", false, piece:byte(stop) == 13 end
      elseif cr then
        cr = false
        if piece:byte(at) == 10 then
          out[#out + 1] = not dropping and "\n" or nil
          at = at + 1
        else
          bare = bare or not dropping
        end
      elseif not held[1] and piece:find("^[\r\n]", at) then
        place, out[#out + 1] = "body", piece:sub(at)
        break
      elseif not held[1] and piece:find("^[ \t]", at) then
        place = "field"
      elseif not held[1] and piece:find("^[^BbRr]", at) then -- what most lines are
        place, dropping = "field", false
      else
        local from, word = at, ""
        if not gap then word, at = piece:match("^([^ \t\r\n:]*)()", at) end
        local blanks
        blanks, at = piece:match("^([ \t]*)()", at)
        name, gap = name .. text.lower(word:sub(1, LONGEST + 1)), gap or blanks ~= ""
        held[#held + 1] = piece:sub(from, at - 1)
        local mark, known = piece:sub(at, at), NAMES[name] or false
        if mark ~= "" or not (known or not gap and may_become_one(name)) then
          place, dropping = "field", known and mark == ":"
          out[#out + 1] = dropping and (bare and "\n" or "") or table.concat(held)
          held, bare = {}, bare and not dropping
        end
      end
    end
    return table.concat(out), place ~= "body"
  end
end

-- The same of a message in one piece: itself where there is nothing to take out.
local function without_bcc(raw)
  local filter, out, at, size, goes_on = filter_of(), {}, 1, 0, true
  while goes_on and at <= #raw do
    local left
    left, goes_on = filter(raw:sub(at, at + BLOCK - 1))
    out[#out + 1], size, at = left, size + #left, at + BLOCK
  end
  local held = filter(nil)
  at = math.min(at, #raw + 1)
  if size + #held == at - 1 then return raw end
  return table.concat(out) .. held .. raw:sub(at)
end

-- The same of one that comes from a source.
local function source_without_bcc(inner)
  return {
    again = inner.again,
    open = function()
      local read, close = inner.open()
      local filter, ended = filter_of(), false
      return function()
        while not ended do
          local piece, err = read()
          if err then return nil, err end
          ended = piece == nil
          local left = filter(piece)
          if left ~= "" then return left end
        end
      end, close
    end,
  }
end

-- The Message-ID, looked for in the header alone.
local function find_id(raw)
  local stop = math.min(raw:find("\n\r\n", 1, true) or #raw, raw:find("\n\n", 1, true) or #raw)
  local head = "\n" .. raw:sub(1, stop)
  return head:match("\n[Mm][Ee][Ss][Ss][Aa][Gg][Ee]%-[Ii][Dd]:[ \t\r\n]*(<[\33-\59\61\63-\126]+>)")
end

--- The option `raw` as it goes out. What a function gives is looked at when it is read.
---@param raw string|function
---@return smtp.source? content
---@return string? encoding "7bit" or "8bit"; nil where that is not known before; a reason where there is no content
---@return string? id "<…@…>", where one was found
function finished.read(raw)
  if type(raw) == "string" then
    local control = core.scan(raw)
    if control and raw:find(NUL, control) then return nil, NUL_FOUND end
    raw = without_bcc(raw)
    return source.text(raw), select(6, core.scan(raw)) and "8bit" or "7bit", find_id(raw)
  end
  local given = source.without(source.call(raw, nil, "raw"), NUL, "raw: " .. NUL_FOUND)
  return source.crlf(source_without_bcc(given))
end

return finished
