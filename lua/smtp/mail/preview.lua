--- preview: a message as one HTML page, for a person to look at before it is sent.
---
--- Does: the header, the html in a frame that can do nothing, the text, the calendar, the list of attachments; images
--- that the html names by their Content-ID come with the page.
--- Never: loads anything from a network, runs a script but its own, lets a value of the message be more than text in
--- its place.
--- Called by: message.
--- RFC 2392 (cid:), RFC 2397 (data:), W3C Content Security Policy, the HTML standard's sandbox.

-- Three walls stand around the html: the frame's sandbox (no scripts, forms, pop-ups, refreshes), the policy of the
-- page, which the frame inherits, and a stricter one inside it. What no policy speaks of is renamed (defang). The frame
-- has the page's origin for one purpose: the page's own script, the only one that its policy allows, measures how high
-- the html is. Nothing in the frame can make use of an origin, as no script runs there.

local encoded_word = require "smtp.mail.encoded_word"
local source = require "smtp.mail.source"
local text = require "smtp.mail.text"

local preview = {}

---@class smtp.PreviewAttachment
---@field filename string?
---@field type string "image/png"
---@field size integer?
---@field id string? its Content-ID, "<…>"
---@field content smtp.source

---@class smtp.Preview
---@field fields string[][] list of {name, value}: the header in its order, decoded to UTF-8
---@field text string?
---@field html string?
---@field calendar string?
---@field raw string? the source of a finished message, shown as it is in place of its parts
---@field attachments smtp.PreviewAttachment[]?

-- Makes the frame as high as its html, within reason. An element of the html may go by the name of what its document
-- has (<img name=querySelector>), which is then taken from where none can be.
local SCRIPT = [[
const frame = document.querySelector(".frame");
function grow() {
  if (!frame.offsetHeight) return;
  const root = Document.prototype.querySelector.call(frame.firstChild.contentDocument, ":root"), y = scrollY;
  frame.style.height = 0;
  frame.style.height = Math.min(frame.offsetHeight + root.scrollHeight - root.clientHeight, 30000) + "px";
  scrollTo(0, y);
}
for (const event of ["load", "resize", "change"]) addEventListener(event, grow);
]]
local SCRIPT_HASH = "cLD7qkMpATzctlAy9fxu4cRDgC/fsMt45u6OyaHvILc=" -- SHA-256, base64

local POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; font-src data:; base-uri 'none'; "
  .. "form-action 'none'"

local function policy(more)
  return '<meta http-equiv="Content-Security-Policy" content="' .. POLICY .. more .. '">'
    .. '<meta http-equiv="x-dns-prefetch-control" content="off">'
end

local STYLE = [[
:root { color-scheme: light dark; --page: #f2f3f5; --card: #fff; --ink: #1c2127; --soft: #667079; --line: #e2e5e9;
  --accent: #2f62c9; --wash: #f6f7f9; }
@media (prefers-color-scheme: dark) {
  :root { --page: #14171a; --card: #1d2125; --ink: #e4e7ea; --soft: #98a2ac; --line: #30363c; --accent: #8ab0ff;
    --wash: #24292e; }
}
* { box-sizing: border-box; }
body { margin: 0; padding: clamp(1rem, 3vw, 2.5rem); background: var(--page); color: var(--ink);
  font: 0.9375rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif;
  overflow-wrap: anywhere; }
main { max-width: 58rem; margin: 0 auto; background: var(--card); border: 1px solid var(--line); border-radius: 14px;
  box-shadow: 0 1px 2px #0000000a, 0 8px 28px #0000000f; overflow: hidden; }
header, section { padding: 1.6rem clamp(1rem, 4vw, 2rem); }
section { border-top: 1px solid var(--line); }
h1 { margin: 0 0 1rem; font-size: clamp(1.3rem, 4vw, 1.7rem); line-height: 1.25; font-weight: 650;
  letter-spacing: -0.015em; }
h2 { margin: 0 0 0.8rem; font-size: 0.78rem; font-weight: 650; letter-spacing: 0.06em; text-transform: uppercase;
  color: var(--soft); }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 0.3rem 1.1rem; margin: 0; }
dt { color: var(--soft); }
dd { margin: 0; }
details { margin-top: 1rem; font-size: 0.86rem; }
summary { width: max-content; color: var(--accent); cursor: pointer; }
details dl { margin-top: 0.7rem; padding: 0.8rem 1rem; border-radius: 9px; background: var(--wash); }
pre { margin: 0; white-space: pre-wrap; font: 0.85rem/1.6 ui-monospace, "SF Mono", Consolas, "Liberation Mono",
  monospace; tab-size: 8; }
.body { padding-top: 1.1rem; }
.body > input { position: absolute; opacity: 0; }
.body > label { display: inline-block; margin: 0 0.35rem 1rem 0; padding: 0.25rem 0.95rem; border-radius: 99px;
  font-size: 0.86rem; font-weight: 550; color: var(--soft); background: var(--wash); cursor: pointer; }
.body > input:checked + label { color: var(--card); background: var(--accent); }
.body > input:focus-visible + label { outline: 2px solid var(--accent); outline-offset: 2px; }
.body > input ~ div { display: none; }
#see-html:checked ~ .html, #see-text:checked ~ .text { display: block; }
.frame { height: 70vh; min-height: 4rem; padding-bottom: 14px; overflow: hidden; resize: vertical; }
iframe { display: block; width: 100%; height: 100%; border: 1px solid var(--line); border-radius: 9px;
  background: #fff; color-scheme: light; }
.notice { margin: 0 0 1rem; padding: 0.5rem 0.9rem; border-radius: 9px; font-size: 0.86rem; color: var(--soft);
  background: var(--wash); }
ul { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 19rem), 1fr)); gap: 0.7rem; margin: 0;
  padding: 0; list-style: none; }
li { display: flex; align-items: center; gap: 0.8rem; min-width: 0; padding: 0.65rem 0.8rem; border-radius: 11px;
  border: 1px solid var(--line); }
li > b { flex: none; display: grid; place-items: center; width: 2.75rem; height: 2.75rem; border-radius: 9px;
  font-size: 0.68rem; font-weight: 700; letter-spacing: 0.03em; color: #fff; background: #64717d; }
li > .image { background: #1d8a5f; }
li > .text { background: #2f62c9; }
li > .audio, li > .video { background: #7d4cc2; }
li > .pdf { background: #c23b3b; }
li span { min-width: 0; }
li bdi { display: block; font-weight: 550; }
li small { display: block; color: var(--soft); font-size: 0.8rem; }
@media (max-width: 34rem) {
  body { padding: 0; background: var(--card); }
  main { border: 0; border-radius: 0; box-shadow: none; }
  header dl { grid-template-columns: minmax(0, 1fr); gap: 0; }
  header dd + dt { margin-top: 0.45rem; }
  header dt { font-size: 0.78rem; }
}
@media print { .frame:not([style]) { height: 90vh; } }
]]

-- A mail's links would leave a browser's error page in the frame: a new window is what the sandbox forbids in silence.
local FRAME_HEAD = "<!DOCTYPE html>" .. policy "" .. [[<base target="_blank"><style>body{font-family:system-ui,]]
  .. [["Segoe UI",Roboto,"Liberation Sans",sans-serif;overflow-wrap:break-word}</style>]]

local FIRST = { from = 1, to = 2, cc = 3, ["reply-to"] = 4, date = 5 }

local REPLACEMENT = "\239\191\189" -- U+FFFD

local ENTITIES = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;", ["'"] = "&#39;" }
local NAMED = { amp = "&", lt = "<", gt = ">", quot = '"', apos = "'" }

local function escape(s)
  return (s:gsub("[&<>\"']", ENTITIES))
end

-- A character of two or three bytes, by its number.
local function numbered(c)
  local first, second, third = c:byte(1, 3)
  local code = third and (first % 16 * 64 + second % 64) * 64 + third % 64 or first % 32 * 64 + second % 64
  return ("\\u%04X"):format(code)
end

-- Text of several lines: what is no text is shown by its number.
local function block(s)
  s = s:gsub("\r\n?", "\n"):gsub("[^\t\n\32-\126]+", text.escape):gsub("\194[\128-\159]", numbered)
  return escape(s)
end

-- Text of one line: a line's end or what turns the text's direction (U+2028 to 202E, U+2066 to 2069) is shown too.
local function line(s)
  s = s:gsub("[^\32-\126]+", text.escape):gsub("\194[\128-\159]", numbered)
  return escape((s:gsub("\226\128[\168-\174]", numbered):gsub("\226\129[\166-\169]", numbered)))
end

-- Every piece of UTF-8 that a browser's parser takes; the rest becomes U+FFFD, as it would there.
local function clean(run)
  run = run:gsub("[^\128-\255]", REPLACEMENT)
  if text.invalid(run) then run = run:gsub("[\128-\255]", REPLACEMENT) end
  return (run:gsub("\194[\128-\159]", REPLACEMENT))
end

-- A <link> may connect, which no policy forbids; a <meta> with its attributes does nothing. A frame in the frame could
-- hold a document (srcdoc) whose links are out of sight here.
local function defang(html)
  return (html:gsub("^\239\187\191", ""):gsub("[^\t\n\f\r\32-\126]+", clean):gsub("<[Ll][Ii][Nn][Kk]", "<meta")
    :gsub("(</?)[Ii][Ff][Rr][Aa][Mm][Ee]", "%1x-iframe"))
end

local BLANKS = "[ \t\r\n\f]*"
local URL = "[Uu][Rr][Ll]%(" .. BLANKS
local ATTRIBUTE = "[ \t\r\n\f\"'/]([A-Za-z:]+)" .. BLANKS .. "=" .. BLANKS .. "([\"']?)" .. BLANKS .. "$"
local LOADED = { src = true, background = true, poster = true, href = true, ["xlink:href"] = true, url = true }
local BEFORE = 64 -- so far back is looked for what an address belongs to: a limit keeps hostile html linear
local LONGEST = 4096 -- of a Content-ID (at most 998 bytes) with every byte escaped

-- What an address that starts at `at` stands in: "url" or the attribute's name, and the quote in front of it.
local function place_of(html, at)
  if not html:find("^[\"'=(; \t\r\n\f]", at - 1) then return nil end
  local before = html:sub(math.max(1, at - BEFORE), at - 1)
  local quote = before:match(URL .. "([\"']?)" .. BLANKS .. "$")
    or before:match(URL .. "(&[A-Za-z0-9#]+;)" .. BLANKS .. "$")
  if quote then return "url", quote end
  local name
  name, quote = before:match(ATTRIBUTE)
  name = name and name:lower()
  if LOADED[name] then return name, quote end
end

local function unescape(s)
  return (s:gsub("&(#?)([A-Za-z0-9]+);", function(number, name)
    local code = number == "#" and (tonumber(name, 10) or tonumber(name:match("^[Xx](%x+)$") or "", 16))
    if code and code > 31 and code < 127 then return string.char(code) end
    return number == "" and NAMED[name] or nil
  end))
end

local function percent_decoded(s)
  return (s:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

-- The image that the "cid:" at `at` names, and the last byte of that address.
local function image_at(html, at, images)
  local place, quote = place_of(html, at)
  if not place then return nil end
  local rest = html:sub(at + 4, at + 4 + LONGEST)
  local stop
  if quote ~= "" then
    stop = rest:find(quote, 1, true)
  else
    stop = rest:find(place == "url" and "[ \t\r\n\f()\"']" or "[ \t\r\n\f>]")
  end
  local id = stop and rest:sub(1, stop - 1):match("^([^ \t\r\n\f]+)" .. BLANKS .. "$")
  if not id then return nil end
  local plain = unescape(id)
  return images["<" .. percent_decoded(plain) .. ">"] or images["<" .. plain .. ">"], at + 3 + #id
end

-- The attachments that an image's address may stand for, by their Content-ID.
local function images_of(attachments)
  local images = {}
  for _, attached in ipairs(attachments) do
    local media = attached.type:lower():match("^(image/[a-z0-9.+-]+)")
    if attached.id and media then
      images[attached.id] = { attachment = attached, prefix = "data:" .. media .. ";base64," }
    end
  end
  return images
end

local function base64(content)
  return {
    open = function()
      local read, close = source.base64(content).open()
      return function()
        local bytes, err = read()
        return bytes and bytes:gsub("[\r\n]+", ""), err
      end, close
    end,
  }
end

-- Adds the frame's document to the pieces, and says which attachments are now part of it.
local function add_document(pieces, html, attachments)
  local images, shown = images_of(attachments), {}
  local from, at = 1, 0
  pieces[#pieces + 1] = escape(FRAME_HEAD)
  while true do
    at = html:find("[Cc][Ii][Dd]:", at + 1)
    if not at then break end
    local image, last = image_at(html, at, images)
    if image then
      pieces[#pieces + 1] = escape(html:sub(from, at - 1)) .. image.prefix
      pieces[#pieces + 1] = base64(image.attachment.content)
      shown[image.attachment] = true
      from, at = last + 1, last
    end
  end
  pieces[#pieces + 1] = escape(html:sub(from))
  return shown
end

-- How many addresses on a network the html wants something from, links aside.
local function count_remote(html)
  local count, at = 0, 0
  while true do
    at = html:find("//", at + 1, true)
    if not at then return count end
    local scheme = html:sub(math.max(1, at - 6), at - 1):match("[Hh][Tt][Tt][Pp][Ss]?:$") or ""
    local place = place_of(html, at - #scheme)
    if place and place ~= "href" then count = count + 1 end
  end
end

local function add_list(pieces, fields)
  pieces[#pieces + 1] = "<dl>\n"
  for _, field in ipairs(fields) do
    pieces[#pieces + 1] = ("<dt>%s</dt><dd><bdi>%s</bdi></dd>\n"):format(line(field[1]), line(field[2]))
  end
  pieces[#pieces + 1] = "</dl>\n"
end

local function add_header(pieces, fields, script)
  local subject, first, others = nil, {}, {}
  for _, field in ipairs(fields) do
    local name = field[1]:lower()
    if name == "subject" and not subject then
      subject = field[2]
    elseif FIRST[name] then
      first[#first + 1] = { field[1], field[2], rank = FIRST[name] * 1e6 + #first }
    else
      others[#others + 1] = field
    end
  end
  table.sort(first, function(a, b) return a.rank < b.rank end)
  local title = subject and subject:find("[^ ]") and line(subject) or "(no subject)"
  pieces[#pieces + 1] = '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    .. policy(script and "; script-src 'sha256-" .. SCRIPT_HASH .. "'" or "")
    .. '\n<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    .. '<title>' .. title .. "</title>\n<style>\n" .. STYLE .. "</style>\n</head>\n<body>\n"
    .. "<main>\n<header>\n<h1><bdi>" .. title .. "</bdi></h1>\n"
  if #first > 0 then add_list(pieces, first) end
  if #others > 0 then
    pieces[#pieces + 1] = ("<details>\n<summary>%d more header field%s</summary>\n")
      :format(#others, #others == 1 and "" or "s")
    add_list(pieces, others)
    pieces[#pieces + 1] = "</details>\n"
  end
  pieces[#pieces + 1] = "</header>\n"
end

local function add_body(pieces, view, attachments)
  local shown = {}
  pieces[#pieces + 1] = '<section class="body">\n'
  if view.html and view.text then
    pieces[#pieces + 1] = '<input type="radio" name="see" id="see-html" checked><label for="see-html">HTML</label>\n'
      .. '<input type="radio" name="see" id="see-text"><label for="see-text">Text</label>\n'
  end
  if view.html then
    local html = defang(view.html)
    local remote = count_remote(html)
    pieces[#pieces + 1] = '<div class="html">\n'
    if remote > 0 then
      pieces[#pieces + 1] = ('<p class="notice">Remote content is not loaded: %d address%s.</p>\n')
        :format(remote, remote == 1 and "" or "es")
    end
    pieces[#pieces + 1] = '<div class="frame"><iframe sandbox="allow-same-origin" title="The message" srcdoc="'
    shown = add_document(pieces, html, attachments)
    pieces[#pieces + 1] = '"></iframe></div>\n</div>\n'
  end
  if view.text then
    pieces[#pieces + 1] = '<div class="text"><pre dir="auto">\n' .. block(view.text) .. "</pre></div>\n"
  end
  pieces[#pieces + 1] = "</section>\n"
  return shown
end

local function add_section(pieces, title, s)
  pieces[#pieces + 1] = ("<section>\n<h2>%s</h2>\n<pre>\n"):format(title) .. block(s) .. "</pre>\n</section>\n"
end

-- "24.3 KB"
local function human(size)
  if size < 1000 then return size == 1 and "1 byte" or ("%d bytes"):format(size) end
  local units, i = { "KB", "MB", "GB", "TB" }, 1
  size = size / 1024
  while size >= 999.95 and units[i + 1] do
    size, i = size / 1024, i + 1
  end
  return ("%.1f %s"):format(size, units[i])
end

local KINDS = { image = "image", text = "text", audio = "audio", video = "video" } -- as the style names them

local function add_attachments(pieces, attachments, shown)
  pieces[#pieces + 1] = ("<section>\n<h2>%d attachment%s</h2>\n<ul>\n")
    :format(#attachments, #attachments == 1 and "" or "s")
  for _, attached in ipairs(attachments) do
    local filename, media = attached.filename or "", attached.type:lower()
    local label = filename:match("%.([A-Za-z0-9]+)$") or media:match("/([a-z0-9]+)$") or ""
    if #label < 1 or #label > 4 then label = "file" end
    local kind = media == "application/pdf" and "pdf" or KINDS[media:match("^[a-z]+")] or "file"
    local about = { line(attached.type), attached.size and human(attached.size), shown[attached] and "inline" }
    if not about[2] then table.remove(about, 2) end
    pieces[#pieces + 1] = ('<li><b class="%s">%s</b><span><bdi>%s</bdi><small>'):format(kind, label:upper(),
      filename == "" and "(no name)" or line(filename)) .. table.concat(about, " · ") .. "</small></span></li>\n"
  end
  pieces[#pieces + 1] = "</ul>\n</section>\n"
end

local SHOWN = 1048576 -- octets of a finished message that are shown

local function view_raw(content)
  local read, out, size = content.open(), {}, 0
  while true do
    local chunk, err = read()
    if err then
      return nil, err
    elseif not chunk then
      local raw = table.concat(out):sub(1, SHOWN)
      return { fields = encoded_word.fields(raw), raw = raw }
    elseif size < SHOWN then
      out[#out + 1], size = chunk, size + #chunk
    end
  end
end

--- What is to be seen of a message. One that came finished is read for it.
---@param composed smtp.Composed
---@return smtp.Preview?
---@return smtp.Error? err kind "source"
function preview.view(composed)
  if composed.raw then return view_raw(composed.content) end
  local head = composed.head or composed.content.bytes:match("^.-\r\nMIME%-Version: [^\r]*\r\n")
  local view = { fields = encoded_word.fields(head), attachments = {},
    text = composed.text, html = composed.html, calendar = composed.calendar }
  for i, part in ipairs(composed.files or {}) do
    view.attachments[i] = { filename = part.filename, type = part.type, id = part.id, size = part.file.size,
      content = part.file }
  end
  return view
end

--- The page, piece by piece: memory does not grow with the attachments. Those that the html shows are read, each time
--- it does; no other. Never yields by itself.
---@param view smtp.Preview
---@return fun(): string|nil, smtp.Error|nil read a piece, never ""; nil at the end; nil and an error of kind "source"
function preview.page(view)
  local pieces, attachments, shown = {}, view.attachments or {}, {}
  add_header(pieces, view.fields, view.html)
  if view.html or view.text then shown = add_body(pieces, view, attachments) end
  if view.calendar then add_section(pieces, "Calendar", view.calendar) end
  if view.raw then add_section(pieces, "Source", view.raw) end
  if #attachments > 0 then add_attachments(pieces, attachments, shown) end
  pieces[#pieces + 1] = "</main>\n"
  if view.html then pieces[#pieces + 1] = "<script>" .. SCRIPT .. "</script>\n" end
  pieces[#pieces + 1] = "</body>\n</html>\n"
  for i, piece in ipairs(pieces) do
    pieces[i] = type(piece) == "string" and source.string(piece) or piece
  end
  return source.chain(pieces).open()
end

return preview
