-- Pieces of mail at random, of what is usual, what is nasty and both: to compare two ways to one message.
local core = require "smtp.core"

local function pick(list)
  return list[math.random(#list)]
end

local function chance(one_in)
  return math.random(one_in) == 1
end

local function words(alphabet, most)
  local out = {}
  for i = 1, math.random(most) do out[i] = pick(alphabet) end
  return table.concat(out)
end

local NAMES = {
  "Ada", "Ada Lovelace", "J. Doe", '"Doe, J."', '"Ada"', "Ada  L", '" x"', '"x "', '"a  b"', "a-b c", '"q\\"r"', '""', ".", "a.",
  'Ada "L"', '"Ada" L', "x=?y", "=?x?=", "Gr\195\188n", ("n"):rep(77), ("n"):rep(78), ("n"):rep(79), "a." .. ("n"):rep(75),
  "a." .. ("n"):rep(76), "a." .. ("n"):rep(77), ("n"):rep(50) .. " " .. ("m"):rep(27), "Team:", "a\tb", "a\\b", "",
  ("a "):rep(38) .. "b",
}
local LOCALS = {
  "ada", "bob", "x.y+z", "A", "o'n", "!#$%&'*+-/=?^_`{|}~", "a..b", ".a", "a.", '"q q"', '"a"', "\195\188", "=?a?=", "a=?", "",
  ("l"):rep(64), ("l"):rep(65), "a b", "a\0", "a(b)", "\194\160a",
}
local HOSTS = {
  "example.org", "Example.ORG", "a.b", "x1.test", "a", "xn--a.b", "1.2.3.4", "1a.2", "[127.0.0.1]", "a..b", ".a", "a.", "-a.b", "a-.b",
  "a_b", "b\195\188cher.example", "", ("d"):rep(63) .. ".org", ("d"):rep(64) .. ".org", ("d."):rep(127) .. "d", ("d."):rep(127) .. "dd",
  "a-b.c", "a b", "a@b", "123",
}
local BLANKS = { "", "", "", " ", "  ", "\t" }

-- Mostly the first of a list, which are the usual ones.
local function usual(list)
  return chance(4) and pick(list) or list[math.random(5)]
end

local function spec()
  return usual(LOCALS) .. (chance(40) and "" or "@") .. usual(HOSTS)
end

local function mailbox()
  if chance(2) then return spec() end
  return usual(NAMES) .. pick(BLANKS) .. "<" .. spec() .. (chance(40) and "" or ">")
end

local function tidy()
  return NAMES[math.random(5)] .. " <" .. LOCALS[math.random(5)] .. "@" .. HOSTS[math.random(5)] .. ">"
end

local function list(most)
  local out = {}
  for i = 1, math.random(most) do out[i] = (chance(3) and pick(BLANKS) or "") .. mailbox() .. (chance(3) and pick(BLANKS) or "") end
  return table.concat(out, chance(20) and ";" or ",") .. (chance(30) and "," or "")
end

local function pair()
  local names = { "Ada", "Ada L", " x", "x ", "a  b", "J. D", 'q"', "a\\", "=?x", "Gr\195\188n", ("n"):rep(79), "", "a\nb", 5 }
  return { name = not chance(4) and usual(names) or nil, address = not chance(20) and (chance(6) and mailbox() or spec()) or pick { 5, "" } }
end

local function people()
  if chance(2) then return list(4) elseif chance(4) then return pair() end
  local out = {}
  for i = 1, math.random(0, 4) do out[i] = chance(4) and pair() or list(2) end
  if chance(30) then out[2] = pick { 5, true, {} } end
  if chance(30) then out.name = "x" end
  return out
end

local function body()
  if chance(20) then return "" end
  return words({ "line", "\n", "\r\n", "\r", "a b", ".", "a line of text\n", "\t" }, 12)
    .. (chance(12) and pick { "\0", "\195\188", "\255", ("y"):rep(999), ("z\n"):rep(9000) } or "")
end

-- Message options: most of them of a letter.
local function options()
  local one = { name = "Ada", address = "ada@example.org" }
  local given = { from = chance(4) and pick { mailbox(), one, list(2) } or tidy(), to = chance(4) and people() or { tidy(), tidy() } }
  if chance(5) then given.cc = chance(2) and people() or tidy() .. "," .. tidy() end
  if chance(5) then given.bcc = chance(2) and people() or tidy() end
  if chance(8) then given.sender = mailbox() end
  if chance(8) then given.reply_to = people() end
  if not chance(10) then
    given.subject = chance(8) and words({ "a", " ", "=?", "\195\188", "\t", ("w"):rep(40) }, 5) or words({ "Hello", " of ", "a" }, 30)
  end
  if not chance(8) then given.text = body() end
  if chance(4) then given.html = body() end
  if chance(30) then given[pick { "headers", "priority", "list" }] = pick { {}, "high" } end
  return given
end

-- Every step that takes what is plain, out of the way.
local function complete(run, ...)
  local own = { field = core.field, mailboxes = core.mailboxes, text = core.text, message_id = core.message_id, body = core.body }
  for name in pairs(own) do core[name] = function() end end
  local fine, result, reason = pcall(run, ...)
  for name, step in pairs(own) do core[name] = step end
  assert(fine, result)
  return result, reason
end

local function counted()
  local count = 0
  return function() count = count + 1 end, function() return count end
end

-- assert.are.equal, which is asked only where they differ: it is dear, and the rounds here are many.
local function equal(expected, got)
  if expected ~= got then assert.are.equal(expected, got) end
end

local random, time = core.random, os.time

-- The same identifiers, boundaries and dates whichever way a message is made, until moving().
local function still()
  rawset(core, "random", function(n) return ("\171"):rep(n) end)
  rawset(os, "time", function() return 1700000000 end)
end

local function moving()
  rawset(core, "random", random)
  rawset(os, "time", time)
end

return {
  pick = pick, chance = chance, words = words, usual = usual, mailbox = mailbox, people = people, options = options,
  complete = complete, counted = counted, equal = equal, still = still, moving = moving,
}
