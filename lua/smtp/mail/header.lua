--- header: one complete, folded header field out of a name and a value, or a reason.
---
--- Does: the gate against injection for every field, folding, encoded words, extended parameters.
--- Never: writes a line over 998 octets, a bare CR or LF, or an encoded word inside an address or a quoted string.
--- Called by: compose, people, list, mime, dkim.
--- RFC 5322 2.1.1, 2.2 and 3.2, RFC 2047, RFC 2231, RFC 6532.
local core = require "smtp.core"
local text = require "smtp.mail.text"

local header = {}

local WIDTH = 78 -- RFC 5322 2.1.1, what a line should fit
local ENCODED_WIDTH = 76 -- RFC 2047 2, a line that holds an encoded word
local LIMIT = 998 -- RFC 5322 2.1.1, what a line must fit, CRLF not counted
local FRAME = #"=?utf-8?B?" + #"?="

--- The one gate: a field name of RFC 5322 ftext, a value without CR, LF, NUL or other control bytes but TAB.
---@param name string
---@param value string
---@return true?
---@return string? reason
function header.check(name, value)
  if type(name) ~= "string" or #name > 76 or not name:find("^[\33-\57\59-\126]+$") then
    return nil, "not a header field name: " .. (type(name) == "string" and text.show(name) or type(name))
  end
  local ok, why = text.check(value, true)
  if not ok then return nil, name .. ": " .. why end
  return true
end

-- A writer lays words on lines. Each word brings the white space before it: that is where a line may end.

local function writer(name)
  return { name .. ":", column = #name + 1, empty = true, encoded = false }
end

local function break_line(line)
  line[#line + 1] = "\r\n"
  line.column, line.encoded = 0, false
end

local function put(line, blank, word)
  local width = line.encoded and ENCODED_WIDTH or WIDTH
  if not line.empty and line.column + #blank + #word > width then break_line(line) end
  line[#line + 1] = blank
  line[#line + 1] = word
  line.column, line.empty = line.column + #blank + #word, false
end

local function finish(line)
  line[#line + 1] = "\r\n"
  return table.concat(line)
end

local Q_ESCAPE, PERCENT_ESCAPE = { [" "] = "_" }, {}
for byte = 0, 255 do
  local c = string.char(byte)
  Q_ESCAPE[c] = Q_ESCAPE[c] or ("=%02X"):format(byte)
  PERCENT_ESCAPE[c] = ("%%%02X"):format(byte)
end

-- What RFC 2047 5 (3) lets stand for itself in a phrase, the strictest of its three places.
local Q_SPECIAL = "[^A-Za-z0-9!*+/-]"

-- The greatest end of a piece of at most `room` bytes that splits neither an escape (`mark` and two digits)
-- nor the escapes of one UTF-8 character.
local function escaped_end(s, from, room, mark)
  local last = from + room - 1
  if last >= #s then return #s end
  for back = 0, 1 do
    if s:sub(last - back, last - back) == mark then
      last = last - back - 1
      break
    end
  end
  while s:find("^%" .. mark .. "[89AB]", last + 1) do
    last = last - 3
  end
  return last
end

-- The greatest end <= `last` of a piece in whole characters and whole triples, `from` - 1 where there is none: GMime
-- drops what follows an encoded word with base64 padding, so only the last of them has any.
local function triples_end(s, from, last)
  if last >= #s then return #s end
  repeat
    last = text.boundary(s, last)
    local odd = (last - from + 1) % 3
    last = last - odd
  until odd == 0
  return math.max(last, from - 1)
end

local function q(s)
  return (s:gsub(Q_SPECIAL, Q_ESCAPE))
end

local function put_word(line, blank, letter, word)
  if line.column + #blank + FRAME + #word > ENCODED_WIDTH then break_line(line) end
  line[#line + 1] = ("%s=?utf-8?%s?%s?="):format(blank, letter, word)
  line.column = line.column + #blank + FRAME + #word
  line.empty, line.encoded = false, true
end

-- Lays `s` out as encoded words, in the shorter of the two encodings. Some readers put a blank between two words: a
-- name is in one piece where a line of its own allows that, else it is cut at blanks, where it has some.
local function put_encoded(line, blank, s, is_name)
  local _, escapes = s:gsub("[^A-Za-z0-9!*+/ -]", "")
  local kind, source, length = "B", s, math.ceil(#s / 3) * 4
  if #s + 2 * escapes <= length then
    kind, source = "Q", q(s)
    length = #source
  end
  local fits = #blank + FRAME + length
  if not line.empty and (is_name or fits <= ENCODED_WIDTH) and line.column + fits > ENCODED_WIDTH then
    break_line(line)
  end
  local from = 1
  while from <= #source do
    local room = ENCODED_WIDTH - line.column - #blank - FRAME
    if room < 12 then -- the longest character, four bytes as =XX
      break_line(line)
      room = ENCODED_WIDTH - #blank - FRAME
    end
    local last
    local letter = kind
    if kind == "B" then
      last = triples_end(source, from, from + math.floor(room / 4) * 3 - 1)
      if last < from then letter, last = "Q", text.boundary(source, from + math.floor(room / 3) - 1) end
    else
      last = escaped_end(source, from, room, "=")
    end
    local piece = is_name and last < #source and source:sub(from, last)
    local before = piece and piece:match(kind == "B" and "^(.*) " or "^(.*)_")
    if before then
      last = from + #before -- the blank
      if kind == "B" and #before % 3 ~= 2 then
        if before ~= "" then
          put_word(line, blank, "B", core.base64(before))
          from, blank = last, " "
        end
        letter = "Q" -- a word of another encoding lets GMime read on behind padding
      end
    end
    local word = source:sub(from, last)
    if kind == "B" then word = letter == "B" and core.base64(word) or q(word) end
    put_word(line, blank, letter, word)
    from, blank = last + 1, " "
    if before then -- the next word may need a whole line
      break_line(line)
    end
  end
end

local WORD = "([ \t]*)([^ \t]+)()"

-- Where a value ends without its trailing white space. WORD is linear only on a value cut there.
local function trimmed(value)
  return #value - #value:reverse():match("^[ \t]*")
end

-- Unstructured words: plain where they can be, encoded words where they must. White space between two encoded words
-- is lost to a reader, so neighbours are encoded as one.
local function put_text(line, value)
  local stop = trimmed(value)
  local first = true
  local run, run_blank
  for blank, word, after in value:sub(1, stop):gmatch(WORD) do
    local tail = after > stop and value:sub(after) or ""
    if word:find("[\128-\255]") or word:find("=?", 1, true) or tail ~= "" or (first and blank ~= "")
      or (first and line.column or 0) + 1 + #blank + #word > LIMIT then
      if run then
        run[#run + 1] = blank .. word .. tail
      else
        -- One blank parts it from its neighbour; the rest of them is text.
        run_blank = first and " " or blank:sub(1, 1)
        run = { (first and blank or blank:sub(2)) .. word .. tail }
      end
    else
      if run then
        put_encoded(line, run_blank, table.concat(run))
        run = nil
      end
      put(line, first and " " or blank, word)
    end
    first = false
  end
  if stop == 0 and value ~= "" then run, run_blank = { value }, " " end
  if run then put_encoded(line, run_blank, table.concat(run)) end
end

--- An unstructured field (Subject, or a user's own): words beyond ASCII, words that look encoded, words too long for a
--- line and white space at either end go as encoded words, so that a reader gets back exactly `value`.
---@param name string field name
---@param value string UTF-8
---@return string? field "Name: value\r\n", folded at 78
---@return string? reason
function header.text(name, value)
  local plain = core.field(name, value)
  if plain then return plain end
  local ok, why = header.check(name, value)
  if not ok then return nil, why end
  local line = writer(name)
  put_text(line, value)
  return finish(line)
end

--- A structured field whose value is already in its wire form: folded at white space, nothing encoded.
---@param name string field name
---@param value string ASCII
---@return string? field
---@return string? reason
function header.field(name, value)
  local plain = core.field(name, value)
  if plain then return plain end
  local ok, why = header.check(name, value)
  if not ok then
    return nil, why
  elseif value:find("[\128-\255]") then
    return nil, name .. ": only ASCII may stand here"
  end
  local line = writer(name)
  for blank, word in value:sub(1, trimmed(value)):gmatch(WORD) do
    local before = line.empty and " " or blank
    if (line.empty and line.column or 0) + #before + #word > LIMIT then
      return nil, name .. ": a word too long for a line"
    end
    put(line, before, word)
  end
  return finish(line)
end

local PHRASE = "^[A-Za-z0-9!#$%%&'*+/=?^_`{|}~ -]+$"

-- A display name in front of an address, or a group's with its mark: atoms, else a quoted string, else encoded words.
local function put_phrase(line, name, mark)
  local ascii = not name:find("[\128-\255]") and not name:find("=?", 1, true)
  local spaced = name:find("^ ") or name:sub(-1) == " " or name:find("  ", 1, true)
  if ascii and not spaced and #name <= 900 and name:find(PHRASE) then
    for word, after in name:gmatch("([^ ]+)()") do
      put(line, " ", after > #name and word .. mark or word)
    end
  elseif ascii and #name <= WIDTH then
    put(line, " ", text.quote(name) .. mark)
  else
    put_encoded(line, " ", name, true)
    if mark ~= "" then -- RFC 2047 5 (3): white space parts an encoded word from it
      put(line, " ", mark)
    end
  end
end

local function put_mailbox(line, box, mark)
  if box.name then
    put_phrase(line, box.name, "")
    put(line, " ", "<" .. box.address .. ">" .. mark)
  else
    put(line, " ", box.address .. mark)
  end
end

local function put_group(line, group, mark)
  local count = #group.members
  put_phrase(line, group.group, count == 0 and ":;" .. mark or ":")
  for i, box in ipairs(group.members) do
    put_mailbox(line, box, i < count and "," or ";" .. mark)
  end
end

local function check_boxes(boxes)
  for _, box in ipairs(boxes) do
    local ok, why = text.check(box.address or box.group)
    if ok and box.name then ok, why = text.check(box.name) end
    if ok and box.members then ok, why = check_boxes(box.members) end
    if not ok then return nil, why end
  end
  return true
end

--- An address field (From, To, Cc, Reply-To …).
---@param name string field name
---@param boxes smtp.mailboxes|smtp.mailbox[] as address.list gives them: with its groups where it has `items`
---@return string? field
---@return string? reason
function header.addresses(name, boxes)
  local ok, why = header.check(name, "")
  if not ok then return nil, why end
  local items = boxes.items or boxes
  if #items == 0 then return nil, name .. ": an address is missing" end
  ok, why = check_boxes(items)
  if not ok then return nil, name .. ": " .. why end
  local line = writer(name)
  for i, item in ipairs(items) do
    local put_item = item.members and put_group or put_mailbox
    put_item(line, item, i < #items and "," or "")
  end
  return finish(line)
end

-- What a program that cannot read extended parameters is shown: ASCII, short, the extension kept. Of a name in another
-- script than Latin nothing but "_" would be left.
local function fallback(value)
  local stem, rest = value:match("^([^.]*)(.*)$")
  if stem:find("[\204-\244]") and not stem:find("[A-Za-z0-9]") then stem = "attachment" end
  local plain = (stem .. rest):gsub("[\194-\203][\128-\191]", "_"):gsub("[\128-\255]+", "_"):gsub("[\"\\\t]", "_")
  if #plain > 60 then
    local extension = plain:match("%.[A-Za-z0-9]+$") or ""
    extension = #extension <= 10 and extension or ""
    plain = plain:sub(1, 60 - #extension) .. extension
  end
  return plain
end

local function put_parameter(put_item, key, value)
  -- readers decode what looks like an encoded word, and drop blanks at the ends
  local plain = not value:find("[\128-\255\t]") and not value:find("=?", 1, true) and not value:find("^ ")
    and value:sub(-1) ~= " "
  if plain and #key + #value < 900 then
    if not value:find("^[A-Za-z0-9!#$&+^_`{|}~.-]+$") then -- some readers take "'", "*" and "%" for RFC 2231's
      value = text.quote(value)
    end
    return put_item(key .. "=" .. value)
  end
  local encoded = "UTF-8''" .. value:gsub("[^A-Za-z0-9!#$&+^_`{|}~.-]", PERCENT_ESCAPE)
  local width = WIDTH - #" =;"
  local from, section = 1, 0
  if #key + 1 + #encoded <= width then
    put_item(key .. "*=" .. encoded)
    from = #encoded + 1
  end
  while from <= #encoded do
    local start = ("%s*%d*"):format(key, section)
    local last = escaped_end(encoded, from, width - #start, "%")
    put_item(start .. "=" .. encoded:sub(from, last))
    from, section = last + 1, section + 1
  end
  -- Last, because some readers that know extended parameters take the first of two.
  put_item(key .. "=" .. text.quote(fallback(value)))
end

--- A field with parameters (Content-Type, Content-Disposition): values beyond ASCII go as RFC 2231 extended parameters,
--- in sections where they are long, beside a plain ASCII fallback for programs that do not know them.
---@param name string field name
---@param value string the field's own value, ASCII without blanks: "text/plain", "attachment"
---@param parameters? table[] list of {key, value} in order
---@return string? field
---@return string? reason
function header.parameter(name, value, parameters)
  local ok, why = header.check(name, value)
  if not ok then
    return nil, why
  elseif not value:find("^[\33-\126]+$") or #value > 300 then
    return nil, ("%s: not a value: %s"):format(name, text.show(value))
  end
  local line = writer(name)
  local item = value
  -- One item behind, because each but the last ends in ";".
  local function put_item(following)
    put(line, " ", item .. ";")
    item = following
  end
  for _, pair in ipairs(parameters or {}) do
    if type(pair[1]) ~= "string" or #pair[1] > 40 or not pair[1]:find("^[A-Za-z0-9!#$&+^_`{|}~.-]+$") then
      return nil, name .. ": not a parameter name: " .. text.show(tostring(pair[1]))
    end
    ok, why = text.check(pair[2])
    if not ok then return nil, ("%s: %s: %s"):format(name, pair[1], why) end
    put_parameter(put_item, pair[1], pair[2])
  end
  put(line, " ", item)
  return finish(line)
end

return header
