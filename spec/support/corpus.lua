-- corpus: messages that are hard to write right, each with what any reader of it is due.
--
-- What is due is derived here from the options, by rules written down a second time and shorter than in smtp.mail. A list
-- of { name =, fields = options of smtp.message, expect = }; expect holds
--   subject, date (Unix time), message_id (nil: not given), in_reply_to, references (lists), headers (list of {name, value}),
--   from, sender, reply_to, to, cc (lists of {name, address}; name "" where there is none),
--   shape ("mixed(text/plain image/png)"), single (the body is one part), and leaves: the parts in their order, each
--   { type, data, parameters; for what is attached also attached = true, disposition, filename, id }.

local corpus = {}

local DATE = 1795515072 -- Tue, 24 Nov 2026 10:11:12 UTC
local TYPES = {
  txt = "text/plain", csv = "text/csv", html = "text/html", json = "application/json", pdf = "application/pdf",
  zip = "application/zip", png = "image/png", jpg = "image/jpeg", gif = "image/gif",
}
local ADDRESS_FIELDS = { "from", "sender", "reply_to", "to", "cc" }

local ALL_BYTES = {}
for i = 0, 255 do
  ALL_BYTES[i + 1] = string.char(i)
end
ALL_BYTES = table.concat(ALL_BYTES)

-- what a source function gives
local given_by = {}

-- A function that gives `data` in pieces that end anywhere, and starts again by itself.
local function pieces(data)
  local at = 1
  local function read()
    if at > #data then
      at = 1
      return nil
    end
    at = at + 1009
    return data:sub(at - 1009, at - 1)
  end
  given_by[read] = data
  return read
end

local function crlf(s)
  return (s:gsub("\r\n", "\n"):gsub("\r", "\n"):gsub("\n", "\r\n"))
end

local function people(value)
  if value == nil then
    return {}
  elseif type(value) == "string" then
    return { { "", value } }
  elseif value.address then
    return { { value.name or "", value.address } }
  end
  local all = {}
  for _, one in ipairs(value) do
    all[#all + 1] = people(one)[1]
  end
  return all
end

local function ids(value)
  return type(value) == "string" and { value } or value or {}
end

local function contents(path)
  local file = assert(io.open(path, "rb"))
  local bytes = file:read("*a")
  file:close()
  return bytes
end

local function attachment(given)
  local filename = given.filename or (given.path and given.path:match("[^/]*$"))
  local extension = filename and filename:match("%.(%w+)$")
  return {
    type = given.content_type or (extension and TYPES[extension:lower()]) or "application/octet-stream", parameters = {},
    attached = true, filename = filename, id = given.content_id and "<" .. given.content_id .. ">",
    disposition = given.disposition or (given.content_id and "inline" or "attachment"),
    data = given.data or given_by[given.source] or contents(given.path),
  }
end

local function text(kind, data, method)
  return { type = "text/" .. kind, data = crlf(data), parameters = { charset = "utf-8", method = method } }
end

-- A multipart of parts, each { shape, leaf, leaf, ... }; one part stands for itself.
local function join(kind, parts)
  if #parts == 1 and kind ~= "mixed" then
    return parts[1]
  end
  local shapes, whole = {}, {}
  for i, part in ipairs(parts) do
    shapes[i] = part[1]
    for leaf = 2, #part do
      whole[#whole + 1] = part[leaf]
    end
  end
  table.insert(whole, 1, kind .. "(" .. table.concat(shapes, " ") .. ")")
  return whole
end

-- mixed( alternative( text, related( html, images ), calendar ), files, calendar's file ), of these what there is
local function body(fields)
  local function part(leaf)
    return { leaf.type, leaf }
  end
  local related, files, alternatives = {}, {}, {}
  for _, given in ipairs(fields.attachments or {}) do
    local list = given.content_id and fields.html and related or files
    list[#list + 1] = part(attachment(given))
  end
  local calendar = fields.calendar and crlf(fields.calendar.content)
  if fields.text or not (fields.html or calendar or #files > 0) then
    alternatives[1] = part(text("plain", fields.text or ""))
  end
  if fields.html then
    table.insert(related, 1, part(text("html", fields.html)))
    alternatives[#alternatives + 1] = join("related", related)
  end
  if calendar then
    alternatives[#alternatives + 1] = part(text("calendar", calendar, fields.calendar.method))
    files[#files + 1] = part(attachment { data = calendar, filename = "invite.ics", content_type = "application/ics" })
  end
  if #files == 0 then
    return join("alternative", alternatives)
  elseif #alternatives > 0 then
    table.insert(files, 1, join("alternative", alternatives))
  end
  return join("mixed", files)
end

local function due(fields)
  local whole = body(fields)
  local expect = {
    subject = fields.subject, date = fields.date, message_id = fields.message_id, headers = fields.headers or {},
    in_reply_to = ids(fields.in_reply_to), references = ids(fields.references),
    shape = whole[1], single = not whole[1]:find("(", 1, true), leaves = {},
  }
  for i = 2, #whole do
    expect.leaves[i - 1] = whole[i]
  end
  for _, field in ipairs(ADDRESS_FIELDS) do
    expect[field] = people(fields[field])
  end
  return expect
end

-- `more`: what is due where the options say it in a form that due() does not read
local function add(name, fields, more)
  fields.from = fields.from or "ada@example.org"
  fields.to = fields.to or "grace@example.org"
  fields.date = fields.date or DATE
  if fields.subject == nil then
    fields.subject = name
  end
  local expect = due(fields)
  for key, value in pairs(more or {}) do
    expect[key] = value
  end
  corpus[#corpus + 1] = { name = name, fields = fields, expect = expect }
end

local EMOJI = "😀👩‍👩‍👧‍👦🇳🇿"
local CJK = "漢字かな交じり文、한국어 텍스트，中文"
local RTL = "\226\128\143שלום עולם\226\128\142 مرحبا بالعالم"
local COMBINING = "e\204\129 n\204\131 Z\204\161\205\157\204\142a\204\182l\205\128g\204\181o\204\184"
local FOUR_BYTES = "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𐍈 𠜎𠜱𠝹"
local LATIN = "Größe – Àéîõü ß"
local SCRIPTS = {
  { "Latin", LATIN }, { "emoji", EMOJI }, { "CJK", CJK }, { "right to left", RTL }, { "combining marks", COMBINING },
  { "four-byte characters", FOUR_BYTES },
}
local EVENT = "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nMETHOD:REQUEST\r\nBEGIN:VEVENT\r\nUID:1@example.org\r\n"
  .. "DTSTAMP:20261124T101112Z\r\nDTSTART:20261201T090000Z\r\nSUMMARY:Gr\195\182\195\159e\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n"
local PNG = "\137PNG\r\n\26\n" .. ALL_BYTES
local HTML = "<!doctype html>\n<p>Größe</p>\n<img src=\"cid:one@example.org\">\n"
local LETTERS = ("The quick brown fox jumps over the lazy dog. "):rep(4) .. "\n"

-- Structures

local ONE = { data = PNG, filename = "one.png", content_id = "one@example.org" }
local TWO = { data = "GIF89a" .. ALL_BYTES, filename = "two.gif", content_id = "two@example.org" }
local THREE = { data = "\255\216\255" .. ALL_BYTES, filename = "three.jpg", content_id = "three@example.org" }
local PDF = { data = "%PDF-1.7\r\n" .. ALL_BYTES .. "\r\n%%EOF\r\n", filename = "paper.pdf" }

add("text alone", { text = "Hello.\n" })
add("html alone", { html = HTML })
add("text and html", { text = "Hello.\n", html = HTML })
add("html with one image", { html = HTML, attachments = { ONE } })
add("html with three images", { html = HTML, attachments = { ONE, TWO, THREE } })
add("text, html and three images", { text = "Hello.\n", html = HTML, attachments = { ONE, TWO, THREE } })
add("text and a file", { text = "Hello.\n", attachments = { PDF } })
add("html and a file", { html = HTML, attachments = { PDF } })
add("images inside and files beside, in turns", { html = HTML, attachments = { PDF, ONE, { data = "a,b\r\n",
  filename = "t.csv" }, TWO } })
add("text with an image that nothing shows", { text = "Hello.\n", attachments = { ONE, PDF } })
add("a calendar alone", { calendar = { content = EVENT, method = "REQUEST" } })
add("text and a calendar", { text = "Come.\n", calendar = { content = EVENT, method = "REQUEST" } })
add("a calendar with line feeds", { text = "Come.\n", html = "<p>Come.\n",
  calendar = { content = (EVENT:gsub("\r\n", "\n")), method = "REQUEST" } })
add("everything at once", { text = "Größe\n", html = HTML, attachments = { PDF, ONE, TWO, THREE, { data = "" } },
  calendar = { content = EVENT, method = "REQUEST" }, cc = "cc@example.org", reply_to = "r@example.org" })
add("no body at all", {})
add("attachments without a text", { attachments = { PDF, { data = "x", filename = "x.zip" } } })
add("one attachment and nothing else", { attachments = { { data = ALL_BYTES } } })
add("an empty attachment", { text = "t", attachments = { { data = "", filename = "empty.txt" } } })
add("a big text", { text = LETTERS:rep(4000) })
add("a big text in Greek", { text = ("Ξεσκεπάζω την ψυχοφθόρα βδελυγμία\n"):rep(4000) })
add("a big attachment", { text = "t", attachments = { { data = ALL_BYTES:rep(4096), filename = "big.pdf" } } })

-- Scripts, wherever text goes

for _, script in ipairs(SCRIPTS) do
  local s = script[2]
  add("everywhere: " .. script[1], {
    subject = s .. " / " .. s, from = { name = s, address = "ada@example.org" }, sender = { name = "x " .. s, address = "s@example.org" },
    to = { { name = s .. ", " .. s, address = "a@example.org" }, { name = "plain", address = "b@example.org" } },
    cc = { { name = "(" .. s .. ")", address = "c@example.org" } }, reply_to = { { name = s, address = "d@example.org" } },
    text = s .. "\n", html = "<p>" .. s .. "\n", headers = { { "X-Note", s }, { "Comments", "a " .. s .. " b" } },
    attachments = { { data = s, filename = s .. ".txt" }, { data = PNG, filename = s .. ".png", content_id = "i@x" } },
  })
  add("long: " .. script[1], {
    subject = s:rep(60), from = { name = s:rep(12), address = "ada@example.org" },
    to = { { name = (s .. " "):rep(10) .. s, address = "a@example.org" }, { name = "b " .. s:rep(5) .. " b", address = "b@example.org" } },
    text = s:rep(800), attachments = { { data = "", filename = s:rep(20) .. ".json" } },
  })
end

-- Subjects

for _, case in ipairs {
  { "of one word without end", ("x"):rep(3000) },
  { "of one word, 900", ("x"):rep(900) },
  { "of many words", ("word "):rep(600) .. "end" },
  { "of emoji without a blank", ("😀"):rep(300) },
  { "that looks encoded", "=?utf-8?Q?not_so?=" },
  { "that looks encoded, among words", "Re: =?utf-8?B?QQ==?= and =? alone ?= too" },
  { "that looks encoded, beyond ASCII", "é =?iso-8859-1?Q?=E9?= é" },
  { "with blanks around it", "  two before, three after   " },
  { "of blanks", "   " },
  { "with a tab in it", "a\tb\t\tc" },
  { "with tabs around it", "\ta\t" },
  { "with many blanks in it", "a  b   c" .. (" "):rep(100) .. "d" },
  { "with many blanks between words beyond ASCII", "é  é   é" .. (" "):rep(100) .. "é" },
  { "with blanks between plain words and others", "a  é  b\té \t c é" },
  { "empty", "" },
  { "with underscores, equal signs and question marks", "a_b=C3=A9 ?=?_= ü_=?" },
  { "with specials of addresses", "a, \"b\" <c@d> (e); f: g\\h" },
  { "that holds a header line", "Bcc: eve@example.org, X: y" },
  { "with separators of lines that are none", "a\226\128\168b\226\128\169c" },
  { "with soft hyphens and blanks without width", "a\194\173b\226\128\139c\239\187\191d\194\160e" },
} do
  add("a subject " .. case[1], { subject = case[2], text = "t\n" })
end

-- People

add("names that need care", { text = "t\n", to = {
  { name = 'Ada "the first" Lovelace', address = "a@example.org" }, { name = "Lovelace, Ada", address = "b@example.org" },
  { name = "Ada (King)", address = "c@example.org" }, { name = "back\\slash\\", address = "d@example.org" },
  { name = "J. R. Ada", address = "e@example.org" }, { name = "ada@example.org", address = "f@example.org" },
  { name = "Ada <x@example.org>", address = "g@example.org" }, { name = "a;b:c", address = "h@example.org" },
  { name = "'quoted'", address = "i@example.org" }, { name = '"', address = "j@example.org" },
  { name = "=?utf-8?Q?x?=", address = "k@example.org" }, { name = "[Ada]", address = "l@example.org" },
  { name = "Ada, 😀 (\"é\")", address = "m@example.org" }, { name = "O'Brien & Söhne; GmbH", address = "n@example.org" },
} })
add("long names with blanks", { text = "t\n", from = { name = "Größere Übersetzungen und Änderungen für Ähnliches, Köln & Söhne",
  address = "ada@example.org" }, to = {
  { name = "株式会社 日本語 長い名前 の会社 東京都 千代田区 丸の内 一丁目 二番地 三号", address = "a@example.org" },
  { name = "Общество с  ограниченной   ответственностью Рога и копыта, отдел продаж и снабжения", address = "b@example.org" },
  { name = "Jörg Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft Müller", address = "c@example.org" },
  { name = "😀 😀😀 😀😀😀 😀😀😀😀 😀😀😀😀😀 😀😀😀😀😀😀 😀😀😀😀😀😀😀", address = "d@example.org" },
} })
add("names with blanks", { text = "t\n", to = {
  { name = "two  blanks", address = "a@example.org" }, { name = "é  è   ê", address = "b@example.org" },
} })
add("a name without end", { text = "t\n", from = { name = ("Ada"):rep(300), address = "ada@example.org" },
  to = { { name = ("Ada, "):rep(100) .. "x", address = "a@example.org" }, { name = ("Añ"):rep(300), address = "b@example.org" } } })
add("addresses as strings", { text = "t\n", from = "Ada Lovelace <ada@example.org>",
  to = '"Hopper, Grace" <grace@example.org>, plain@example.org, Jürgen <j@example.org>',
  cc = { "Kay <k@example.org>, l@example.org", { name = "M", address = "m@example.org" } },
}, {
  from = { { "Ada Lovelace", "ada@example.org" } },
  to = { { "Hopper, Grace", "grace@example.org" }, { "", "plain@example.org" }, { "Jürgen", "j@example.org" } },
  cc = { { "Kay", "k@example.org" }, { "", "l@example.org" }, { "M", "m@example.org" } },
})
add("addresses that need care", { text = "t\n", to = {
  "user+tag=x@example.org", "o'brien@example.org", "#!$%&*/?^_`{|}~@example.org", '"with blank"@example.org',
  '"a@b"@example.org', '"comma,"@example.org', "long." .. ("x"):rep(55) .. "@" .. ("y"):rep(60) .. ".example.org",
  "x@[192.0.2.1]", "A.B@Example.ORG",
} })
do
  local many, plain = {}, {}
  for i = 1, 200 do
    many[i] = { name = i % 3 == 0 and "Empfänger " .. i or i % 3 == 1 and "No. " .. i or nil, address = "r" .. i .. "@example.org" }
    plain[i] = "c" .. i .. "@example.org"
  end
  add("200 recipients", { text = "t\n", to = many })
  add("200 recipients without names", { text = "t\n", cc = plain })
end
add("sender, several to reply to, and one in secret", { text = "t\n", from = { name = "Ada", address = "ada@example.org" },
  sender = { name = "The Office", address = "office@example.org" }, bcc = "secret@example.org",
  reply_to = { "r1@example.org", { name = "Antwort, zurück", address = "r2@example.org" }, "r3@example.org" } })

-- Identifiers and dates

do
  local fifty, long = {}, {}
  for i = 1, 50 do
    fifty[i] = ("<%032d.%d@mail.example.org>"):format(i, i)
    long[i] = "<" .. ("x"):rep(i * 10) .. "@example.org>"
  end
  add("50 references", { text = "t\n", references = fifty, in_reply_to = fifty[50], message_id = "<answer.1@example.org>" })
  add("long references", { text = "t\n", references = long, in_reply_to = long[49] .. " " .. long[50] },
    { in_reply_to = { long[49], long[50] } })
end
add("identifiers with signs", { text = "t\n", message_id = "<a+b=c/d$e{f}%@x.example.org>", in_reply_to = "<!#&'*-^_`|~@[192.0.2.1]>" })
add("the first second", { text = "t\n", date = 0 })
add("a leap day", { text = "t\n", date = 1709164800 })
add("a date far ahead", { text = "t\n", date = 32503679999 })

-- Filenames

for _, case in ipairs {
  { "quotes", 'a "b" c.txt' }, { "apostrophes", "it's 'me'.txt" }, { "percent signs", "100%25 %C3%A9.txt" },
  { "semicolons", "a;b; filename=c.txt" }, { "a leading dot", ".htaccess" }, { "blanks", "  a  b .txt" },
  { "300 characters", ("x"):rep(296) .. ".pdf" }, { "300 characters beyond ASCII", ("é"):rep(296) .. ".pdf" },
  { "300 characters with blanks", ("ab "):rep(98) .. ".pdf" },
  { "the look of RFC 2231", "utf-8''a%20b.txt" }, { "the look of RFC 2231, beyond ASCII", "UTF-8'en'é%20.txt" },
  { "the look of RFC 2047", "=?utf-8?Q?a?=.txt" }, { "parentheses and commas", "a (1), b [2] <3>.txt" },
  { "an equal sign and an asterisk", "a*0=b*.txt" }, { "backslashes", "C:\\dir\\b.png" }, { "a backslash at its end", "a\\" },
  { "backslashes and quotes", "\\\"a\\\\b\\\".txt" }, { "backslashes beyond ASCII", "\\é\\\\ü.txt" }, { "a path's look", "../a/b.txt" },
  { "CJK characters", "第三四半期の報告書.pdf" }, { "CJK characters and others", "2026年 Q3 報告.tar.json" }, { "emoji", "😀😀.png" }, { "no extension", "README" },
  { "two extensions", "a.tar.json" }, { "an upper-case extension", "PAPER.PDF" },
  { "a decomposed letter", "u\204\136ber.txt" }, { "right to left", "\226\128\174gpj.txt" },
} do
  add("a filename with " .. case[1], { text = "t\n", attachments = { { data = "data\n", filename = case[2] } } })
end

-- Texts

for _, case in ipairs {
  { "empty", "" }, { "of one letter", "x" }, { "without a final line end", "a\nb" }, { "with CR alone", "a\rb\rc\r" },
  { "with CRLF", "a\r\nb\r\n" }, { "with all line ends", "a\rb\nc\r\nd\r\re\n\nf\n\rg" }, { "of line ends", "\n\n\n\n" },
  { "of one CRLF", "\r\n" }, { "with a line of 998", ("x"):rep(998) .. "\n" .. ("y"):rep(998) },
  { "with a line of 999", ("x"):rep(999) .. "\n" }, { "with a line of 100000", ("x"):rep(100000) },
  { "with a line of 100000 beyond ASCII", ("ü"):rep(50000) .. "\n" },
  { "with trailing blanks", "a \nb\t\nc \t \n \n\t\nd " }, { "with leading blanks", " a\n\tb\n\n  c\n" },
  { "of dots", ".\n..\n...\n.a\n..b\na.\n.\n" }, { "that ends in a dot", "a\n." },
  { "of From lines", "From here\n>From there\nFrom \n" },
  { "that looks like the end of a transaction", "a\n.\nQUIT\nMAIL FROM:<eve@example.org>\n" },
  { "that looks like boundaries", "--=_\n--=_x--\n--\n-- \nsignature\n" },
  { "that looks quoted-printable", "=3D =\n=E9=\nü =20\n" }, { "that looks like a header", "Subject: x\n\nBcc: eve@example.org\n" },
  { "with separators of lines that are none", "a\226\128\168b\226\128\169c\194\133d\11e\12f\28g\29h\30i\n" },
  { "with soft hyphens", ("Do\194\173nau\194\173dampf\194\173schiff"):rep(20) .. "\n" },
  { "with control bytes", "a\0b\1c\8d\27e\127f\n" }, { "with a byte-order mark", "\239\187\191text\n" },
  { "in many scripts", LATIN .. "\n" .. EMOJI .. "\n" .. CJK .. "\n" .. RTL .. "\n" .. COMBINING .. "\n" .. FOUR_BYTES },
  { "of 8-bit lines just too long", ("é"):rep(499) .. "\n" .. ("é"):rep(500) .. "\n" .. "x" .. ("é"):rep(499) .. "\n" },
} do
  add("a text " .. case[1], { text = case[2] })
  add("a text and html " .. case[1], { text = case[2], html = case[2], attachments = { PDF } })
end

-- Attachments

do
  local lengths = {}
  for length = 0, 60 do
    lengths[#lengths + 1] = { data = ALL_BYTES:sub(200 - length, 199), filename = length .. ".bin" }
  end
  add("attachments of each length to 60", { text = "t\n", attachments = lengths })
end
add("attachments from everywhere", { text = "t\n", attachments = {
  { path = "examples/envelope.png" }, { data = ALL_BYTES:rep(3), filename = "all.bin" },
  { source = pieces(ALL_BYTES:rep(40)), size = 256 * 40, filename = "source.zip" }, { source = pieces "x\r\n", filename = "short.txt" },
  { path = "examples/envelope.png", filename = "renamed.bin", disposition = "inline" },
} })
add("attachments with lone line ends", { text = "t\n", attachments = {
  { data = "a\rb\nc\r\nd\r", filename = "ends.txt" }, { data = "\n", filename = "lf.txt" }, { data = "\r", filename = "cr.txt" },
  { data = "\r\n.\r\n", filename = "dot.txt" }, { data = "From x\n.\n", filename = "from.csv" }, { data = "\0", filename = "nul.json" },
} })
add("attachments without a name", { text = "t\n", attachments = { { data = "a" }, { data = "b", content_type = "text/html" } } })
add("an html page and a text as attachments", { text = "t\n", html = "<p>t\n", attachments = {
  { data = "<p>other", filename = "page.html" }, { data = "other", filename = "other.txt" } } })
add("an attachment with identifier and disposition", { html = HTML, attachments = {
  { data = PNG, filename = "a.png", content_id = "a.b-c_d@example.org", disposition = "attachment" },
  { data = PNG, filename = "b.png", disposition = "inline" } } })

-- Fields of other options

add("a mailing list", { text = "t\n", list = {
  id = "Liste für Ada <ada.lists.example.org>", unsubscribe = { "mailto:leave@example.org?subject=leave", "https://example.org/u?x=1" },
  unsubscribe_post = true, help = "https://example.org/help", subscribe = "mailto:join@example.org", post = "NO",
  owner = { "mailto:owner@example.org" }, archive = "https://example.org/" .. ("a"):rep(300) } },
{ headers = {
  { "List-Id", "Liste für Ada <ada.lists.example.org>" }, { "List-Help", "<https://example.org/help>" },
  { "List-Unsubscribe", "<mailto:leave@example.org?subject=leave>, <https://example.org/u?x=1>" },
  { "List-Unsubscribe-Post", "List-Unsubscribe=One-Click" }, { "List-Subscribe", "<mailto:join@example.org>" },
  { "List-Post", "NO" }, { "List-Owner", "<mailto:owner@example.org>" },
  { "List-Archive", "<https://example.org/" .. ("a"):rep(300) .. ">" },
} })
add("of high priority", { text = "t\n", priority = "high" },
  { headers = { { "X-Priority", "1 (Highest)" }, { "Importance", "high" }, { "Priority", "urgent" } } })
add("of low priority", { text = "t\n", priority = "low" },
  { headers = { { "X-Priority", "5 (Lowest)" }, { "Importance", "low" }, { "Priority", "non-urgent" } } })
add("own fields", { text = "t\n", headers = {
  { "X-Long", ("value "):rep(300) .. "end" }, { "X-Long-Word", ("y"):rep(990) }, { "X-Very-Long-Word", ("z"):rep(5000) },
  { "X-Note", "naïve =?x?= 😀" }, { "X-Empty", "" }, { "X-Blanks", " a  b " }, { "Auto-Submitted", "auto-generated" },
  { "X-" .. ("n"):rep(74), "the longest name" }, { "X-Colon", ": :" },
} })

return corpus
