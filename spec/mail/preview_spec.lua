-- The page that shows a message, read back by Python's HTML parser and shown by a real browser (#real).
local child = require "spec.support.child"
local core = require "smtp.core"
local errors = require "smtp.errors"
local json = require "dkjson"
local linear = require "spec.support.linear"
local loopback = require "spec.support.loopback"
local preview = require "smtp.mail.preview"
local source = require "smtp.mail.source"
local tls = require "smtp.tls"

-- Start tags with their attributes, end tags and text of each file. Reading is strict: a page must be UTF-8.
local PARSER = [[
import html.parser, json, sys

class Reader(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.events = []
    def handle_starttag(self, tag, attrs):
        self.events.append(["start", tag, {name: value or "" for name, value in attrs}, len(attrs)])
    def handle_endtag(self, tag):
        self.events.append(["end", tag])
    def handle_data(self, data):
        self.events.append(["text", data])
    def handle_comment(self, data):
        self.events.append(["comment", data])

pages = []
for path in sys.argv[1:]:
    reader = Reader()
    reader.feed(open(path, encoding="utf-8", newline="").read())
    reader.close()
    pages.append(reader.events)
print(json.dumps(pages))
]]

-- The colours of a PNG as a browser writes it, at the points given: "rrggbb".
local PIXELS = [[
import struct, sys, zlib
data = open(sys.argv[1], "rb").read()
at, packed = 8, b""
while at < len(data):
    size, kind = struct.unpack(">I4s", data[at:at + 8])
    body = data[at + 8:at + 8 + size]
    if kind == b"IHDR":
        width, height, depth, colour = struct.unpack(">IIBB", body[:10])
    if kind == b"IDAT":
        packed += body
    at += size + 12
step = {2: 3, 6: 4}[colour]
raw, stride, above, rows = zlib.decompress(packed), width * step, bytes(width * step), []
for y in range(height):
    kind, row = raw[y * (stride + 1)], bytearray(raw[y * (stride + 1) + 1:(y + 1) * (stride + 1)])
    for x in range(stride if kind else 0):
        a, b = row[x - step] if x >= step else 0, above[x]
        c = above[x - step] if x >= step else 0
        near = min((abs(b - c), 0, a), (abs(a - c), 1, b), (abs(a + b - 2 * c), 2, c))[2]
        row[x] = (row[x] + (0, a, b, (a + b) // 2, near)[kind]) & 255
    above = row
    rows.append(row)
for point in sys.argv[2:]:
    x, y = map(int, point.split(","))
    print(rows[y][x * step:x * step + 3].hex())
]]

local function python(script, arguments)
  local path = child.keep(script)
  local pipe = assert(io.popen(("env -u LD_PRELOAD /usr/bin/python3 %s %s"):format(path, table.concat(arguments, " "))))
  local out = pipe:read("*a")
  pipe:close()
  os.remove(path)
  return out
end

local function page(view)
  local read, out = preview.page(view), {}
  for chunk, err in read do
    assert(not err, tostring(err))
    out[#out + 1] = chunk
  end
  return table.concat(out)
end

local VOID = { meta = true, input = true, img = true, base = true }

-- What a page holds: `elements` in order, and by name the list of their attributes and of the text in each.
local function digest(events)
  local all = { elements = {}, attributes = {}, text = {}, comments = 0 }
  local open = {}
  for _, event in ipairs(events) do
    local kind, name = event[1], event[2]
    if kind == "start" then
      local names = 0
      for _ in pairs(event[3]) do names = names + 1 end
      assert.are.equal(event[4], names, "an attribute stands twice in " .. name)
      all.elements[#all.elements + 1] = name
      all.attributes[name] = all.attributes[name] or {}
      table.insert(all.attributes[name], event[3])
      all.text[name] = all.text[name] or {}
      if not VOID[name] then
        table.insert(all.text[name], "")
        open[#open + 1] = { name, #all.text[name] }
      end
    elseif kind == "end" then
      assert.are.equal(open[#open] and open[#open][1], name)
      open[#open] = nil
    elseif kind == "text" then
      for _, element in ipairs(open) do
        all.text[element[1]][element[2]] = all.text[element[1]][element[2]] .. name
      end
    else
      all.comments = all.comments + 1
    end
  end
  assert.are.equal(0, #open)
  return all
end

local function parse(pages)
  local paths = {}
  for i, bytes in ipairs(pages) do paths[i] = child.keep(bytes) end
  local list = assert(json.decode(python(PARSER, paths)))
  for i, path in ipairs(paths) do
    os.remove(path)
    list[i] = digest(list[i])
  end
  return list
end

local function show(view) return parse({ page(view) })[1] end

local function attachment(more)
  local all = { type = "image/png", size = 3, id = "<logo@example.org>", content = source.string("ABC") }
  for name, value in pairs(more or {}) do all[name] = value end
  return all
end

-- The html as it comes to stand in the frame, behind what the page puts there; that a parser sees it so is shown below.
local function framed(html, attachments)
  local document = page({ fields = {}, html = html, attachments = attachments }):match(' srcdoc="([^"<>]*)"></iframe>')
  return (document:match("^.-&lt;/style&gt;(.*)$"):gsub("&lt;", "<"):gsub("&gt;", ">"):gsub("&quot;", '"'):gsub("&#39;", "'")
    :gsub("&amp;", "&"))
end

local function letter()
  return {
    fields = {
      { "Date", "Mon, 23 Nov 2026 10:00:00 +0000" }, { "From", "Ada <ada@example.org>" }, { "Subject", "Grüße" },
      { "Cc", "Büro <b@example.org>" }, { "X-Own", "1" }, { "To", "grace@example.org" }, { "Reply-To", "r@example.org" },
    },
    html = "<p>Hello</p>", text = "Hello\r\n  there", calendar = "BEGIN:VCALENDAR\r\n",
    attachments = { attachment { filename = "a.png" } },
  }
end

describe("preview", function()
  it("shows a message in a page of known elements alone", function()
    local all = show(letter())
    assert.are.equal("html head meta meta meta meta title style body main header h1 bdi dl"
      .. (" dt dd bdi"):rep(5) .. " details summary dl dt dd bdi section input label input label div div iframe div pre"
      .. " section h2 pre section h2 ul li b span bdi small script", table.concat(all.elements, " "))
    assert.are.equal(0, all.comments)
    assert.are.same({ "Grüße" }, all.text.title)
    assert.are.same({ "Grüße" }, all.text.h1)
    assert.are.same({ "From", "To", "Cc", "Reply-To", "Date", "X-Own" }, all.text.dt)
    assert.are.same({ "Ada <ada@example.org>", "grace@example.org", "Büro <b@example.org>", "r@example.org",
      "Mon, 23 Nov 2026 10:00:00 +0000", "1" }, all.text.dd)
    assert.are.same({ "1 more header field" }, all.text.summary)
    assert.are.same({ "\nHello\n  there", "\nBEGIN:VCALENDAR\n" }, all.text.pre)
    assert.are.same({ "Calendar", "1 attachment" }, all.text.h2)
  end)

  it("gives the page and its frame a policy that loads nothing and runs only the page's own script, and the frame no rights", function()
    local function policy_of(all)
      for _, meta in ipairs(all.attributes.meta) do
        if meta["http-equiv"] == "Content-Security-Policy" then return meta.content end
      end
    end
    local all = show(letter())
    local policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; font-src data:; base-uri 'none'; form-action 'none'"
    assert.are.equal(1, #all.text.script)
    local hash = core.base64(tls.hash("sha256", all.text.script[1]))
    assert.are.equal(policy .. "; script-src 'sha256-" .. hash .. "'", policy_of(all))
    local plain = show { fields = {}, text = "Hello" }
    assert.are.equal(policy, policy_of(plain))
    assert.is_nil(plain.attributes.script)
    local frame = all.attributes.iframe[1]
    assert.are.equal("allow-same-origin", frame.sandbox) -- so that the page can measure it; nothing else
    assert.is_nil(frame.src)
    local inner = parse({ frame.srcdoc })[1]
    assert.are.equal("meta", inner.elements[1])
    assert.are.equal(policy, inner.attributes.meta[1].content)
    assert.are.same({ target = "_blank" }, inner.attributes.base[1])
    assert.are.equal("<p>Hello</p>", frame.srcdoc:match("</style>(.*)$"))
  end)

  it("leaves out what the message does not have", function()
    assert.are.equal("(no subject)", show({ fields = {} }).text.title[1])
    assert.are.equal("(no subject)", show({ fields = { { "Subject", " " } } }).text.h1[1])
    local all = show({ fields = {}, text = "only" })
    assert.is_nil(all.elements[18])
    assert.is_nil(all.attributes.iframe or all.attributes.input or all.attributes.details or all.attributes.ul)
    assert.is_nil(show({ fields = {}, html = "only" }).attributes.pre)
  end)

  it("shows a raw message as its source", function()
    local all = show({ fields = { { "Subject", "s" } }, raw = "Subject: s\r\n\r\ncaf\233 <b>\r\0\r\n" })
    assert.are.same({ "\nSubject: s\n\ncaf\\xE9 <b>\n\\x00\n" }, all.text.pre)
    assert.are.same({ "Source" }, all.text.h2)
  end)

  -- what is given; what a line shows; what a block of text shows; what stands in the frame
  local HOSTILE = {
    { "</title><script>alert(1)</script>" },
    { "\"'><img src=x onerror=alert(1)>" },
    { "</textarea></pre></frame></style></bdi></small></body><script>" },
    { "&lt;b&gt; &amp;amp; &#60; &quot &notit;" },
    { "<!-- --!> <![CDATA[ ]]> <?php" },
    { "a\0b\27[31m\127", "a\\x00b\\x1B[31m\\x7F", nil, "a\239\191\189b\239\191\189[31m\239\191\189" },
    { "caf\233 \255", "caf\\xE9 \\xFF", nil, "caf\239\191\189 \239\191\189" },
    { "\237\160\128\192\188script>", "\\xED\\xA0\\x80\\xC0\\xBCscript>", nil, ("\239\191\189"):rep(5) .. "script>" },
    { "a\226\128\174gpj.exe\226\129\166", "a\\u202Egpj.exe\\u2066", "a\226\128\174gpj.exe\226\129\166" },
    { "a\226\128\168b", "a\\u2028b", "a\226\128\168b" },
    { "a\194\133b", "a\\u0085b", nil, "a\239\191\189b" },
    { "a\r\nb\tc", "a\\x0D\\x0Ab\\x09c", "a\nb\tc", "a\r\nb\tc" },
    { "${x} {{x}} %s %d %1 %%", },
    { "Grüße, 你好 👩\226\128\141💻 שלום" },
  }

  it("keeps hostile values in their places", function()
    local pages = {}
    local function everywhere(s)
      return page {
        fields = { { "Subject", s }, { "From", s }, { "Date", s }, { s, s } }, text = s, html = "<p>" .. s,
        calendar = s, raw = s, attachments = { attachment { filename = s, type = s, id = s } },
      }
    end
    for i, case in ipairs(HOSTILE) do pages[i] = everywhere(case[1]) end
    pages[#pages + 1] = everywhere("harmless")
    local all = parse(pages)
    local harmless = table.remove(all)
    for i, case in ipairs(HOSTILE) do
      local found, line = all[i], case[2] or case[1]
      local block, html = case[3] or line, case[4] or case[1]
      assert.are.same(harmless.elements, found.elements)
      assert.are.equal(0, found.comments)
      assert.are.same({ line }, found.text.title)
      assert.are.same({ "From", "Date", line }, found.text.dt)
      assert.are.same({ line, line, line }, found.text.dd)
      assert.are.same({ "\n" .. block, "\n" .. block, "\n" .. block }, found.text.pre)
      assert.are.equal(line, found.text.bdi[#found.text.bdi])
      assert.are.equal(line .. " · 3 bytes", found.text.small[1])
      assert.are.equal("<p>" .. html, found.attributes.iframe[1].srcdoc:match("</style>(.*)$"))
      assert.truthy(found.text.b[1]:find("^[A-Z0-9]+$"))
      assert.are.equal("file", found.attributes.b[1].class)
    end
  end)

  it("renames what could connect past the policy", function()
    assert.are.equal("<meta rel=preconnect href=//example.org><p><x-iframe srcdoc='&lt;link>'></x-iframe>",
      framed("\239\187\191<LiNK rel=preconnect href=//example.org><p><IFRAME srcdoc='&lt;link>'></iFrame>"))
    assert.are.equal("<l\239\191\189ink>", framed("<l\0ink>"))
  end)

  describe("an image of the message", function()
    local DATA = "data:image/png;base64,QUJD"
    local ODD = attachment { id = "<a&b+c%d'e@example.org>" }

    for _, html in ipairs {
      '<img src="@">', "<img SRC = '@'>", "<img src=@>", "<img src=@ alt>", '<img alt="x"src="@">', '<td background="@">',
      '<video poster="@">', '<image xlink:href="@"/>', '<image href="@"/>', '<img src=" \n@ ">',
      "<style>p{background:url(@)}</style>", "<p style='background:URL( \"@\" )'>", '<p style="background:url(\'@\')">',
      '<p style="background:url(&quot;@&quot;)">', '<p style="background:url(&#39;@&#39;) no-repeat">', '<p style="background:url(@ )">',
    } do
      it("is put into " .. html, function()
        for _, id in ipairs { "cid:logo@example.org", "CiD:logo%40example.org", "cid:l%6Fgo&#64;example&#x2E;org" } do
          assert.are.equal((html:gsub("@", DATA)), framed((html:gsub("@", (id:gsub("%%", "%%%%")))), { attachment() }))
        end
      end)
    end

    it("may have an id that an address must escape", function()
      for _, id in ipairs { "a&amp;b+c%25d'e@example.org", "a&b+c%25d&apos;e@example.org", "a%26b%2Bc%25d%27e%40example.org" } do
        assert.are.equal('<img src="' .. DATA .. '">', framed('<img src="cid:' .. id .. '">', { ODD }))
      end
      assert.are.equal('<img src="' .. DATA .. '">', framed('<img src="cid:100%25@x">', { attachment { id = "<100%25@x>" } }))
    end)

    it("is put in as often as it is named, between what else there is", function()
      assert.are.equal(("a<img src='%s'>&amp;<img src='%s'>b"):format(DATA, DATA),
        framed("a<img src='cid:logo@example.org'>&amp;<img src='cid:logo@example.org'>b", { attachment() }))
    end)

    for _, html in ipairs {
      "cid:logo@example.org", "<p>see cid:logo@example.org", '<img alt="cid:logo@example.org">', '<img data-src="cid:logo@example.org">',
      '<img src="cid:other@example.org">', '<img src="xcid:logo@example.org">', '<img src="cid:logo@example.org', '<img src="cid:">',
      '<img src="cid:logo@example.org x">', '<img src="cid:LOGO@example.org">', "<p>url(cid:logo@example.org",
    } do
      it("is not put into " .. html, function() assert.are.equal(html, framed(html, { attachment() })) end)
    end

    it("is nothing but an image", function()
      local html = '<img src="cid:logo@example.org">'
      for _, media in ipairs { "text/html", "application/xhtml+xml", "x", "image/", 'image/"onerror="x', "image" } do
        assert.are.equal(html, framed(html, { attachment { type = media } }))
      end
      assert.are.equal('<img src="data:image/svg+xml;base64,QUJD">', framed(html, { attachment { type = 'Image/SVG+xml; name="x"' } }))
    end)
  end)

  it("tells how much of the html is not loaded", function()
    local function notice(html) return (show({ fields = {}, html = html }).text.p or {})[1] end
    assert.are.equal("Remote content is not loaded: 1 address.", notice '<img src="https://example.org/a.png?//">')
    assert.are.equal("Remote content is not loaded: 4 addresses.",
      notice '<img src=//example.org/a><td background="HTTP://x/"><p style="background:url(http://x/)"><style>p{src:url("//x")}</style>')
    assert.is_nil(notice '<a href="https://example.org/">https://example.org</a> // <img src="data:image/png,//">')
  end)

  it("lists the attachments", function()
    local sizes = { { 0, "0 bytes" }, { 1, "1 byte" }, { 999, "999 bytes" }, { 1000, "1.0 KB" }, { 24890, "24.3 KB" },
      { 1024 * 1023, "1.0 MB" }, { 5 * 1024 ^ 3, "5.0 GB" }, { 5000 * 1024 ^ 4, "5000.0 TB" } }
    local list, expected = {}, {}
    for i, size in ipairs(sizes) do
      list[i] = attachment { size = size[1], filename = "report.pdf", type = "application/pdf" }
      expected[i] = "application/pdf · " .. size[2]
    end
    list[#list + 1] = { type = "image/svg+xml", content = source.string "" }
    expected[#expected + 1] = "image/svg+xml"
    list[#list + 1] = attachment { filename = "x.tarball" }
    expected[#expected + 1] = "image/png · 3 bytes · inline"
    list[#list + 1] = { filename = "README", type = "text/plain", content = source.string "" }
    expected[#expected + 1] = "text/plain"
    local all = show({ fields = {}, html = "<img src=cid:logo@example.org>", attachments = list })
    assert.are.same(expected, all.text.small)
    assert.are.equal("11 attachments", all.text.h2[1])
    assert.are.same({ "PDF", "FILE", "FILE", "FILE" }, { all.text.b[8], all.text.b[9], all.text.b[10], all.text.b[11] })
    assert.are.same({ "pdf", "image", "text" }, { all.attributes.b[1].class, all.attributes.b[9].class, all.attributes.b[11].class })
    assert.are.equal("(no name)", all.text.bdi[10])
  end)

  it("reads only what it shows, and says when that cannot be read", function()
    local failure = errors.new { kind = "source", stage = "body", reason = "gone" }
    local broken = { open = function() return function() return nil, failure end end }
    local never = { open = function() error "not to be opened" end }
    local read = preview.page { fields = {}, html = "<img src=cid:logo@example.org>", attachments = {
      attachment { content = broken }, attachment { id = "<b@x>", content = never }, { type = "image/png", content = never },
    } }
    local chunk, err
    repeat chunk, err = read() until not chunk
    assert.are.equal(failure, err)
    chunk, err = read()
    assert.is_nil(chunk)
    assert.are.equal(failure, err)
  end)

  it("holds no attachment in memory", function()
    local BLOCK, COUNT = ("\0\1\2\3\4\5\6\7"):rep(8192), 320
    local content = { size = #BLOCK * COUNT, open = function()
      local i = 0
      return function()
        i = i + 1
        return i <= COUNT and BLOCK or nil
      end
    end }
    collectgarbage()
    collectgarbage()
    local before, most, size = collectgarbage("count"), 0, 0
    local read = preview.page { fields = {}, html = "<img src='cid:logo@example.org'>", attachments = { attachment { content = content } } }
    for i = 1, 1e6 do
      local chunk = read()
      if not chunk then break end
      size = size + #chunk
      if i % 30 == 0 then
        collectgarbage()
        most = math.max(most, collectgarbage("count") - before)
      end
    end
    assert.truthy(size > #BLOCK * COUNT * 4 / 3 and size < #BLOCK * COUNT * 4 / 3 + 20000, size)
    assert.truthy(most < 2048, most .. " KB more")
  end)

  it("takes its time in proportion to the html #linear", function()
    for _, piece in ipairs { "url(cid:", "src='cid:", "src=cid:", "url(", " src=\"", "//", "src=//", "<link", "&#", "\255", "\226\128" } do
      linear(function(html)
        page { fields = { { "Subject", html } }, html = html, text = html, raw = html, attachments = { attachment() } }
      end, function(n) return piece:rep(math.floor(n / #piece)) end, 2 ^ 18, piece)
    end
  end)
end)

describe("preview in a browser #real", function()
  local CHROMIUM = "/usr/bin/chromium"
  local directory, listener, connections

  setup(function()
    directory = os.tmpname()
    os.remove(directory)
    os.execute("mkdir " .. directory)
    listener = loopback.listen()
  end)

  teardown(function()
    listener.close()
    os.execute("rm -rf " .. directory)
  end)

  before_each(function() connections = 0 end)

  -- Stands for a server: counts who comes, and hangs up.
  local visitors = {}
  function visitors.step(_, seconds)
    core.wait("read", listener.sock:fd(), core.now() + seconds)
    local sock = listener.sock:accept()
    while sock do
      connections = connections + 1
      sock:close()
      sock = listener.sock:accept()
    end
  end

  local function browse(html, options)
    local found = io.open(CHROMIUM)
    if found then found:close() else pending(CHROMIUM .. " is not installed") end
    local path = directory .. "/page.html"
    local file = assert(io.open(path, "wb"))
    file:write(html)
    file:close()
    local status, output = child.beside(("%s --headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
      .. "--disable-background-networking --disable-component-update --disable-sync --hide-scrollbars "
      .. "--virtual-time-budget=10000 " -- the page's own time, which stands still while something is loaded
      .. "--user-data-dir=%s/profile --window-size=800,600 %s file://%s"):format(CHROMIUM, directory, options, path), visitors)
    assert.are.equal(0, status, output)
    return output
  end

  local function hostile()
    local html = [[<!DOCTYPE html><html><head><base href="URL/base/"><meta http-equiv="refresh" content="0;url=URL/refresh">
<link rel="stylesheet" href="URL/style.css"><link rel=preconnect href="URL"><link rel=prefetch href="URL/p"><link rel=icon href="URL/i">
<link rel=modulepreload href="URL/m.js"><script src="URL/a.js"></script><style>@import "URL/b.css"; @import url(URL/c.css);
@font-face { font-family: f; src: url(URL/f.woff) } p { font-family: f; background: url(URL/bg.png) }</style></head>
<body onload="go()" background="URL/body.png"><script>
function go() { document.documentElement.style.cssText = "background:#f00"; document.body.innerHTML = "ran"; new Image().src = "URL/go"; }
go(); try { top.document.title = "ran"; } catch (e) {} try { top.location = "URL/top"; } catch (e) {} fetch("URL/fetch");
document.forms[0].submit(); open("URL/open");</script>
<form id=f action="URL/form" method=post><input name=a autofocus onfocus="go();f.submit()"><input type=image src="URL/button.png"></form>
<script>document.forms[0].submit()</script><p>Text</p><img src="x" onerror="go()"><img src="URL/a.png" srcset="URL/b.png 2x">
<img src=relative.png><iframe src="URL/frame"></iframe>
<iframe srcdoc="<link rel=preconnect href='URL'><img src='URL/x'><script>parent.go()</script>"></iframe>
<iframe src="javascript:parent.go()"></iframe><object data="URL/o"></object><embed src="URL/e"><video src="URL/v" poster="URL/p" autoplay></video>
<audio src="URL/a"></audio><svg onload="go()"><image href="URL/svg.png"/><use href="URL/u.svg#a"/><script>go()</script>
<animate onbegin="go()" attributeName=x dur=1s /></svg><a href="javascript:go()" ping="URL/ping">a</a><a href="URL/link">b</a>
<math><mtext><style><img src=x onerror=go()></style></mtext></math><details open ontoggle="go()"></details>
<template shadowrootmode=open></template></iframe></textarea></style>"><script>go()</script></body></html>]]
    return (html:gsub("URL", "http://127.0.0.1:" .. listener.port))
  end

  it("is told of visits by the same html on its own", function()
    browse(hostile(), "--dump-dom")
    assert.truthy(connections > 0)
  end)

  it("runs nothing and fetches nothing", function()
    local html = hostile()
    local text = "</textarea></pre><script>document.title = 'ran'</script><img src=x onerror=\"document.title='ran'\">"
    local shot = directory .. "/hostile.png"
    local view = { fields = { { "Subject", "</title>" .. text }, { "From", text } }, html = html, text = text, attachments = {
      attachment { filename = text, type = text, id = "<x>" },
    } }
    local dom = browse(page(view), "--dump-dom")
    assert.are.equal(0, connections)
    local at = dom:find("<!DOCTYPE html>", 1, true)
    assert.truthy(at, dom)
    local all = parse({ (dom:sub(at):gsub("</html>.*$", "</html>")) })[1]
    assert.are.same({ "</title>" .. text }, all.text.title)
    assert.are.equal(1, #all.attributes.script)
    assert.is_nil(all.attributes.img)
    local _, count = page(view):gsub("<iframe ", "")
    assert.are.equal(1, count)
    browse(page { fields = {}, html = html }, "--screenshot=" .. shot)
    assert.are.equal(0, connections)
    assert.are.equal("ffffff", python(PIXELS, { shot, "700,225" }):match("%x+")) -- the frame, not red
  end)

  it("makes the frame as high as its html, so that what follows stands under it", function()
    local function height(html)
      local dom = browse(page { fields = {}, html = "<style>body{margin:0}</style>" .. html, text = "t" }, "--dump-dom")
      return tonumber(dom:match '<div class="frame" style="height: (%d+)px;">')
    end
    local short = height '<div style="height:200px"></div>'
    assert.is_true(short >= 200 and short < 240, short)
    local long = height '<div style="height:5000px"></div>'
    assert.are.equal(short + 4800, long)
    -- html that would be as high as its frame, and more, each time
    assert.is_true(height '<div style="height:100vh"></div><div style="height:50px"></div>' < 600)
    assert.are.equal(30000, height '<div style="height:10000000px"></div>')
    -- elements that are called as what the script asks a document for
    assert.are.equal(long, height '<img name=documentElement hidden><img name=querySelector hidden><div style="height:5000px">')
  end)

  it("shows an image of the message, in a frame that is as wide as the page", function()
    local svg = '<svg xmlns="http://www.w3.org/2000/svg" width="400" height="300"><rect width="400" height="300" fill="#12ab34"/></svg>'
    local shot = directory .. "/image.png"
    browse(page { fields = {}, html = '<style>body{margin:0}</style><img src="cid:green%40example.org">', text = "t", attachments = {
      attachment { id = "<green@example.org>", type = "image/svg+xml", content = source.string(svg) },
    } }, "--screenshot=" .. shot)
    local colours = {}
    for colour in python(PIXELS, { shot, "200,350", "700,350" }):gmatch("%x+") do colours[#colours + 1] = colour end
    assert.are.same({ "12ab34", "ffffff" }, colours)
  end)
end)
