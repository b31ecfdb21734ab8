--- address: from what a user wrote to mailboxes, or a reason that shows where it went wrong.
---
--- Does: parses mailboxes and comma-separated lists of them and of groups, strictly and in linear time; domains beyond
--- ASCII become A-labels.
--- Never: guesses. Comments, routes and white space around "@" or "." are refused: two readers of such an address may
--- see two different recipients. One leniency, unambiguous: a dot in an unquoted display name ("J. Doe").
--- Called by: people, client/session, server/path.
--- RFC 5322 3.4, RFC 5321 4.1.2 and 4.5.3.1, RFC 5891 4, RFC 6531 3.3, RFC 6532 3.2.
local core = require "smtp.core"
local text = require "smtp.mail.text"

local address = {}

---@class smtp.mailbox
---@field name string? display name, UTF-8
---@field address string "local@domain" as it goes to the envelope, quoted only where it must be
---@field utf8 boolean? true when the address holds non-ASCII bytes and so needs SMTPUTF8

---@class smtp.group RFC 5322 3.4
---@field group string its name, UTF-8
---@field members smtp.mailbox[] may be empty

---@class smtp.mailboxes: smtp.mailbox[] every mailbox in order, those of groups too
---@field items (smtp.mailbox|smtp.group)[] the same as it was written, with the groups

local ATOM = "^[A-Za-z0-9!#$%%&'*+/=?^_`{|}~.\128-\255-]+"

-- RFC 5321 4.1.1.3: the one recipient that needs no domain.
local POSTMASTER = "([Pp][Oo][Ss][Tt][Mm][Aa][Ss][Tt][Ee][Rr])"

-- What lists of addresses may hold beside mailboxes.
local MAILBOXES, GROUPS, RECIPIENTS = {}, { groups = true }, { postmaster = true }
local HIDDEN = { groups = true, postmaster = true }

local function fail(s, at, why)
  if at > #s then return nil, ("%s at the end of %s"):format(why, text.show(s, math.max(1, #s - 31))) end
  return nil, ("%s at position %d: %s"):format(why, at, text.show(s, at))
end

local function skip(s, at)
  return s:match("^ *()", at)
end

local function unexpected(s, at)
  local c = s:sub(at, at)
  if c == "(" then
    return fail(s, at, "comments are not accepted")
  elseif c == ";" then
    return fail(s, at, '";" only ends a group; addresses are parted by ","')
  end
  return fail(s, at, c == "" and "an address is missing" or "unexpected character")
end

-- The quoted string at `at`: its content without quotes and escapes, and the position after it.
local function quoted(s, at)
  local from = at + 1
  while true do
    local mark = s:find('["\\]', from)
    if not mark or (s:byte(mark) == 92 and mark == #s) then
      return fail(s, at, "this quote is never closed")
    elseif s:byte(mark) == 34 then
      return (s:sub(at + 1, mark - 1):gsub("\\(.)", "%1")), mark + 1
    end
    from = mark + 2
  end
end

-- Whether an atom with dots is a dot-atom: no empty piece.
local function is_dot_atom(s)
  return s:match(ATOM) == s and not s:find("..", 1, true) and s:sub(1, 1) ~= "." and s:sub(-1) ~= "."
end

local function is_ipv4(s)
  local parts = { s:match("^(%d+)%.(%d+)%.(%d+)%.(%d+)$") }
  for _, part in ipairs(parts) do
    if #part > 3 or tonumber(part) > 255 or part:find("^0%d") then -- octal to some readers
      return false
    end
  end
  return #parts == 4
end

-- RFC 5321 4.1.3: eight groups, or at most six beside one "::"; the last two may be written as an IPv4 address.
local function is_ipv6(s)
  local head, tail = s:match("^(.*[:])([%d.]+)$")
  local extra = 0
  if head and tail:find(".", 1, true) then
    if not is_ipv4(tail) then return false end
    s, extra = head:sub(-2) == "::" and head or head:sub(1, -2), 2
  end
  local left, right = s:match("^(.-)::(.*)$")
  local count = extra
  for _, side in ipairs { left or s, right } do
    if side ~= "" then
      for group in (side .. ":"):gmatch("([^:]*):") do
        if not group:find("^%x%x?%x?%x?$") then return false end
        count = count + 1
      end
    end
  end
  if left then return count <= 6 end
  return count == 8
end

local function literal(s, at)
  local inside, after = s:match("^%[([^%[%]]*)%]()", at)
  if inside and #inside <= 64 then
    local six = inside:match("^[Ii][Pp][Vv]6:(.+)$")
    if is_ipv4(inside) or (six and is_ipv6(six)) then return "[" .. inside .. "]", after end
  end
  return fail(s, at, "not an address literal ([192.0.2.1] or [IPv6:2001:db8::1])")
end

-- Why a name is no domain, and the octet of it where that shows; nil when it is one.
local function flaw(name)
  if #name > 255 then
    return "the domain is longer than 255 octets", 1
  elseif name:find("^%d+%.%d+%.%d+%.%d+$") then
    return "an IP address needs brackets", 1
  end
  local start = 1
  for label in (name .. "."):gmatch("([^.]*)%.") do
    if label == "" then
      return "an empty label in the domain", start
    elseif #label > 63 and not label:find("[\128-\255]") then
      return "a domain label is longer than 63 octets", start
    elseif label:sub(1, 1) == "-" or label:sub(-1) == "-" then
      return "a domain label starts or ends with a hyphen", start
    end
    start = start + #label + 1
  end
end

-- A domain beyond ASCII as it goes out: in A-labels where they spare SMTPUTF8, else in U-labels; as it was written
-- where there is no libidn2 to ask. The second result is why it is none: libidn2's word is not enough, some characters
-- map to "_" or to a dot.
local function international(name, local_ascii)
  local ascii, unicode = core.idn(name)
  if ascii then
    local host = local_ascii and ascii or unicode
    local _, written = name:gsub("_", "")
    local _, underscores = ascii:gsub("_", "")
    local stray = (ascii:find("[^A-Za-z0-9._-]") or underscores > written) and "a character that no domain may hold"
    return host, stray or flaw(ascii) or (flaw(host))
  elseif not unicode then
    return name, (flaw(name))
  end
  return nil, text.escape(unicode)
end

-- The domain at `at` and the position after it.
local function domain(s, at, local_ascii, as_written)
  if s:byte(at) == 91 then return literal(s, at) end
  local name, after = s:match("^([A-Za-z0-9._\128-\255-]+)()", at) -- "_": DNS has such names, mail goes to them
  if not name then
    return fail(s, at, "a domain is missing")
  elseif s:find(ATOM, after) then
    return fail(s, after, "a character that no domain may hold")
  elseif name:find("[\128-\255]") and not as_written then
    local host, why = international(name, local_ascii)
    if why then return fail(s, at, ("not an international domain (%s)"):format(why)) end
    return host, after
  end
  local why, where = flaw(name)
  if why then return fail(s, at + where - 1, why) end
  return name, after
end

local function local_part(s, at)
  local name, after
  if s:byte(at) == 34 then
    name, after = quoted(s, at)
    if not name then
      return nil, after
    elseif not is_dot_atom(name) then
      name = text.quote(name)
    end
  else
    name = s:match(ATOM, at)
    if not name then return unexpected(s, at) end
    after = at + #name
    if s:byte(after) == 64 and not is_dot_atom(name) then
      return fail(s, at, "a dot at the start, at the end or twice in a row in the local part")
    end
  end
  if s:byte(after) ~= 64 then
    return fail(s, after, '"@" is missing')
  elseif #name > 64 then
    return fail(s, at, "the local part is longer than 64 octets")
  elseif name:find("=?", 1, true) and name:find("?=", 1, true) then
    return fail(s, at, "an encoded word cannot be an address")
  end
  return name, after
end

-- addr-spec at `at`: the mailbox and the position after it.
local function addr_spec(s, at, as_written)
  local name, after = local_part(s, at)
  if not name then return nil, after end
  local host
  host, after = domain(s, after + 1, not name:find("[\128-\255]"), as_written)
  if not host then return nil, after end
  local spec = name .. "@" .. host
  if spec:find("\194[\128-\159]") then return fail(s, at, "a control character in an address") end
  local hidden = text.invisible(s:sub(at, after - 1))
  if hidden then -- who reads it, or a program that drops such characters, sees another mailbox
    return fail(s, at + hidden - 1, "an invisible character in an address")
  end
  return { address = spec, utf8 = spec:find("[\128-\255]") and true or nil }, after
end

-- One mailbox at `at`, in either form, or the name of a group, and the position after it.
local function mailbox(s, at, takes)
  local words = {}
  local start = at
  if takes.postmaster then
    local open, name, close, after = s:match("^(<?)" .. POSTMASTER .. "(>?)()", at)
    if name and #open == #close and (open == "<" or s:find("^ *$", after) or s:find("^ *,", after)) then
      return { address = name }, after
    end
  end
  while true do
    local c = s:sub(at, at)
    if c == "<" then
      local box, after = addr_spec(s, at + 1)
      if not box then
        return nil, after
      elseif s:sub(after, after) ~= ">" then
        return fail(s, after, '">" is missing')
      end
      local name = table.concat(words, " ")
      box.name = name ~= "" and name or nil
      return box, after + 1
    elseif c == ":" then
      local name = table.concat(words, " ")
      if name == "" then return fail(s, at, "a group without a name") end
      return { group = name, members = {} }, at + 1
    end
    local word, after
    if c == '"' then
      word, after = quoted(s, at)
      if not word then return nil, after end
    else
      word = s:match(ATOM, at)
      if not word and #words > 0 and (c == "" or c == "," or c == ";") then
        return fail(s, start, 'no "@" in this address')
      elseif not word then
        return unexpected(s, at)
      end
      after = at + #word
    end
    local following = s:sub(after, after)
    if following == "@" then
      if #words == 0 then return addr_spec(s, start) end
      return fail(s, at, 'a display name needs quotes to hold "@", an address "<" and ">"')
    elseif following == '"' or (c == '"' and s:find(ATOM, after)) then
      return fail(s, after, "white space is missing beside a quoted string")
    end
    words[#words + 1] = word
    at = skip(s, after)
  end
end

local function append(boxes, s, takes)
  local ok, why = text.check(s)
  if not ok then return nil, why end
  local at = skip(s, 1)
  local open, opened -- the group being read, and where it began
  while true do
    local item, after = mailbox(s, at, takes)
    if not item then
      return nil, after
    elseif not item.members then
      boxes[#boxes + 1] = item
      local list = open and open.members or boxes.items
      list[#list + 1] = item
    elseif not takes.groups then
      return fail(s, after - 1, "groups are not accepted here")
    elseif open then
      return fail(s, at, "a group inside a group")
    else
      boxes.items[#boxes.items + 1] = item
      open, opened = item, at
    end
    at = skip(s, after)
    local closed = open and s:sub(at, at) == ";"
    if closed then open, at = nil, skip(s, at + 1) end
    if at > #s then
      if open then return fail(s, opened, "this group is never closed with \";\"") end
      return boxes
    elseif closed or not item.members then
      if s:sub(at, at) ~= "," then return unexpected(s, at) end
      at = skip(s, at + 1)
    end
  end
end

-- A string that is one addr-spec and nothing else.
local function bare(s, as_written)
  local ok, why = text.check(s)
  if not ok then return nil, "address: " .. why end
  local box, after = addr_spec(s, 1, as_written)
  if not box then
    return nil, after
  elseif after <= #s then
    return unexpected(s, after)
  end
  return box
end

local function from_table(value, takes)
  local spec = value.address
  local domainless = takes.postmaster and type(spec) == "string" and spec:find("^" .. POSTMASTER .. "$")
  local box, why = domainless and { address = spec }, nil
  if not box then box, why = bare(spec) end
  if not box then return nil, why end
  if value.name ~= nil and value.name ~= "" then
    local ok, reason = text.check(value.name)
    if not ok then return nil, "name: " .. reason end
    box.name = value.name
  end
  return box
end

local function is_mailbox(value)
  return type(value) == "table" and (value.address ~= nil or value.name ~= nil)
end

local function collect(value, takes)
  local boxes = { items = {} }
  if type(value) == "string" then
    return append(boxes, value, takes)
  elseif type(value) ~= "table" then
    return nil, "a mailbox or a list of mailboxes is needed, not " .. type(value)
  end
  local single = is_mailbox(value)
  for i, item in ipairs(single and { value } or value) do
    local ok, why
    if is_mailbox(item) then
      ok, why = from_table(item, takes)
      boxes[#boxes + 1] = ok
      boxes.items[#boxes.items + 1] = ok
    else
      ok, why = append(boxes, item, takes)
    end
    if not ok then return nil, single and why or ("item %d: %s"):format(i, why) end
  end
  return boxes
end

--- Mailboxes and groups out of anything an address option takes. Linear time; never yields.
---@param value string|table a comma-separated string, a mailbox table {name=, address=}, or a list of either; strings
--- may hold groups: "Team: a@example.org, b@example.org;"
---@return smtp.mailboxes? boxes in order, duplicates kept
---@return string? reason
function address.list(value)
  return collect(value, GROUPS)
end

--- The same of people that no header field names: "postmaster" needs no domain.
---@param value string|table
---@return smtp.mailboxes?
---@return string? reason
function address.hidden(value)
  return collect(value, HIDDEN)
end

--- The recipients of an envelope: no groups, and "postmaster" needs no domain.
---@param value string|table
---@return smtp.mailboxes?
---@return string? reason
function address.mailboxes(value)
  return collect(value, RECIPIENTS)
end

local function only(boxes, why)
  if boxes and #boxes ~= 1 then return nil, ("one mailbox is needed, not %d"):format(#boxes) end
  return boxes and boxes[1], why
end

--- Exactly one mailbox, in any form an address option takes.
---@param value string|table
---@return smtp.mailbox?
---@return string? reason
function address.mailbox(value)
  return only(collect(value, MAILBOXES))
end

--- What stands in a path of SMTP, `local@domain`, with the domain as the peer wrote it.
---@param s string
---@return smtp.mailbox?
---@return string? reason
function address.exact(s)
  return bare(s, true)
end

--- One mailbox out of a string: `Name <local@domain>` or `local@domain`.
---@param s string
---@param recipient? boolean of an envelope: "postmaster" needs no domain
---@return smtp.mailbox?
---@return string? reason names the position and shows the text there
function address.parse(s, recipient)
  if type(s) ~= "string" then return nil, "a string is needed, not " .. type(s) end
  return only(collect(s, recipient and RECIPIENTS or MAILBOXES))
end

--- The envelope's sender: a mailbox, or "" (also "<>") for the null reverse path of RFC 5321 4.5.5.
---@param value string|table
---@return smtp.mailbox?
---@return string? reason
function address.reverse_path(value)
  if value == "" or value == "<>" then return { address = "" } end
  return address.mailbox(value)
end

return address
