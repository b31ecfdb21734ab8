-- What is composed, read back #real by programs nobody here wrote: Python's e-mail package, GMime and mailparser. Field by
-- field and byte by byte it is what spec/support/corpus.lua says any reader is due.
local corpus = require "spec.support.corpus"
local read_messages = require "spec.support.read_message"
local smtp = require "smtp"

local HEADER = { from = "from", sender = "sender", reply_to = "reply-to", to = "to", cc = "cc" }

local function quoted(value)
  if type(value) == "table" then
    local words = {}
    for i, one in ipairs(value) do words[i] = quoted(one) end
    return "{" .. table.concat(words, ", ") .. "}"
  end
  local s = type(value) == "string" and ("%q"):format(value) or tostring(value)
  return #s > 200 and ("%s… (%d)"):format(s:sub(1, 200), #s) or s
end

-- "mixed(text/plain image/png)", and the leaves of it in their order
local function flatten(part, leaves)
  if not part.parts then
    leaves[#leaves + 1] = part
    return part.type
  end
  local inner = {}
  for i, one in ipairs(part.parts) do inner[i] = flatten(one, leaves) end
  return part.type:gsub("^multipart/", "") .. "(" .. table.concat(inner, " ") .. ")"
end

-- {key, due, got} of all that is compared
local function pairs_of(reader, expect, got, composed)
  local all = {}
  local function add(key, due, is) all[#all + 1] = { key, due, is } end
  local fields = got.fields
  for option, name in pairs(HEADER) do
    local boxes = got.addresses[name] or {}
    add(name, #expect[option], #boxes)
    for i, box in ipairs(expect[option]) do add(name .. ": " .. i, box, boxes[i]) end
  end
  local function words(s)
    local list = {}
    for word in (s or ""):gmatch("%S+") do list[#list + 1] = word end
    return list
  end
  add("subject", expect.subject, fields.subject)
  add("date", expect.date, got.date)
  add("message-id", { expect.message_id or composed.id }, words(fields["message-id"]))
  add("in-reply-to", expect.in_reply_to, words(fields["in-reply-to"]))
  add("references", expect.references, words(fields.references))
  for _, pair in ipairs(expect.headers) do
    add(pair[1], pair[2], fields[pair[1]:lower()])
  end
  add("bcc", nil, fields.bcc)
  local leaves = {}
  add("shape", expect.shape, flatten(got.body, leaves))
  for i, due in ipairs(expect.leaves) do
    local leaf, label = leaves[i] or {}, "part " .. i .. " "
    if due.attached then
      add(label .. "filename", due.filename, leaf.filename or nil)
      add(label .. "disposition", due.disposition, leaf.disposition)
      add(label .. "id", due.id, leaf.id or nil)
    else
      add(label .. "disposition", nil, leaf.disposition or nil)
    end
    for name, value in pairs(due.parameters) do
      add(label .. name, value, (leaf.parameters or {})[name])
    end
    local body, data, newline = leaf.body, due.data, "\r\n"
    if reader.lf and due.type ~= "text/calendar" and not due.attached then
      data, newline = data:gsub("\r\n", "\n"), "\n"
    end
    -- a text that is the whole body ends its last line, as each line of a message does
    if expect.single and not due.attached and body == data .. newline then body = data end
    add(label .. "body", data, body)
  end
  return all
end

local function same(a, b)
  if type(a) ~= "table" or type(b) ~= "table" then return a == b end
  if #a ~= #b then return false end
  for i = 1, #a do
    if not same(a[i], b[i]) then return false end
  end
  return true
end

-- `known`: what a reader gives in place of what is due, where it is in error or says that it does so
local READERS = {
  { name = "Python's e-mail package", command = "/usr/bin/python3 spec/support/read_message.py", known = {} },
  { name = "GMime", command = "/usr/bin/python3 spec/support/read_gmime.py", known = {} },
  {
    name = "mailparser", command = "NODE_PATH=build/npm/node_modules node spec/support/read_mailparser.js",
    lf = true, -- of its texts
    known = {
      -- unfolds to one blank, however many the next line begins with
      ["a subject with many blanks in it: subject"] = "a  b   c d",
      -- shows local parts without their quotes
      ["addresses that need care: to: 4"] = { "", "with blank@example.org" },
      ["addresses that need care: to: 5"] = { "", "a@b@example.org" },
      ["addresses that need care: to: 6"] = { "", "comma,@example.org" },
      -- decodes words in what RFC 2231 has decoded already
      ["a filename with the look of RFC 2047: part 2 filename"] = "a.txt",
      -- takes the line end that belongs to the boundary for content
      ["a text and html empty: part 1 body"] = "\n",
      ["everything at once: part 8 body, binary"] = "\r\n",
      ["attachments of each length to 60: part 2 body, binary"] = "\r\n",
    },
  },
}

local function drained(read)
  local out = {}
  repeat
    local bytes = read()
    out[#out + 1] = bytes
  until not bytes
  return table.concat(out)
end

-- A reader that is here answers no messages with an empty list.
local function need(reader)
  local pipe = assert(io.popen("env -u LD_PRELOAD " .. reader.command .. " 2>&1"))
  local output = pipe:read("*a")
  pipe:close()
  if not output:find("^%[%]") then
    pending(("NO READER %s (spec/support/install.sh test installs it): %s"):format(reader.name, output))
  end
end

describe("a message read by #real", function()
  local composed, bytes = {}, { ["7bit"] = {}, ["8bit"] = {}, binary = {} }

  setup(function()
    for i, case in ipairs(corpus) do
      local message, err = smtp.message(case.fields)
      assert.is_nil(err, case.name .. ": " .. tostring(err))
      composed[i] = message
      for form, list in pairs(bytes) do list[i] = drained(message:form(form).content.open()) end
    end
  end)

  it("any reader keeps the rules of RFC 5322 and 2046", function()
    local wrong, boundaries = {}, {}
    for i, case in ipairs(corpus) do
      for _, form in ipairs { "7bit", "8bit" } do
        local message = bytes[form][i]
        local function rule(label, broken)
          if broken then wrong[#wrong + 1] = ("%s, %s: %s"):format(case.name, form, label) end
        end
        local head, body = message:match("^(.-\r\n)\r\n(.*)$")
        rule("bare CR or LF", message:gsub("\r\n", ""):find("[\r\n]"))
        rule("NUL", message:find("[^\1-\255]"))
        rule("8-bit", (form == "7bit" and message or head):find("[\128-\255]"))
        rule("Bcc", ("\n" .. head:lower()):find("\nbcc:", 1, true))
        rule("no line end at the end", message:sub(-2) ~= "\r\n")
        for line in message:gmatch("(.-)\r\n") do rule("line over 998", #line > 998) end
        for line in head:gmatch("(.-)\r\n") do
          local words = line:gsub('"[^"]*"', "quoted"):gsub("^[^ ]*:", ""):gsub("^[ \t]+", "")
          rule("line over 78 that could be folded: " .. line, #line > 78 and words:find("[ \t]"))
          rule("line of blanks", not line:find("[^ \t]"))
        end
        for boundary in message:gmatch('boundary="?([^"\r\n;]+)') do
          local others = 0
          for _ in ("\r\n" .. body):gmatch("\r\n%-%-" .. boundary:gsub("%W", "%%%0")) do others = others + 1 end
          rule("boundary outside its place", select(2, message:gsub(boundary:gsub("%W", "%%%0"), "")) ~= others + 1)
          rule("boundary used twice", (boundaries[boundary] or i) ~= i or #boundary > 70)
          boundaries[boundary] = i
        end
      end
    end
    assert.are.equal("", table.concat(wrong, "\n"))
    assert.truthy(next(boundaries))
  end)

  for _, reader in ipairs(READERS) do
    for form, list in pairs(bytes) do
      it(reader.name .. ", " .. form, function()
        need(reader)
        local read = read_messages(list, reader.command)
        local wrong = {}
        for i, case in ipairs(corpus) do
          for _, one in ipairs(pairs_of(reader, case.expect, read[i], composed[i])) do
            local key = case.name .. ": " .. one[1]
            local due = reader.known[key .. ", " .. form] or reader.known[key] or one[2]
            if not same(due, one[3]) then
              wrong[#wrong + 1] = ("%s: due %s, got %s"):format(key, quoted(due), quoted(one[3]))
            end
          end
        end
        assert.are.equal("", table.concat(wrong, "\n"))
      end)
    end
  end
end)
