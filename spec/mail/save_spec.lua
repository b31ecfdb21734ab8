local child = require "spec.support.child"
local smtp = require "smtp"

local function compose(more)
  local all = { from = "ada@example.org", to = "bob@example.test", subject = "x", text = "Hi\n" }
  for name, value in pairs(more or {}) do
    all[name] = value
  end
  return assert(smtp.message(all))
end

describe("message:save", function()
  local folder

  before_each(function()
    folder = os.tmpname()
    os.remove(folder)
    assert(os.execute("mkdir " .. folder))
  end)

  after_each(function()
    os.execute("rm -r " .. folder)
  end)

  -- The names in the folder.
  local function names()
    local pipe = io.popen("ls -A " .. folder)
    local list = pipe:read("*a")
    pipe:close()
    return list
  end

  it("writes what tostring gives, over an older file too", function()
    local path = folder .. "/a b.eml"
    local composed = compose { attachments = { { data = ("\0\r\n\255"):rep(50000) } } }
    for _ = 1, 2 do
      assert.is_true(composed:save(path))
      assert.is_true(composed:tostring() == child.read(path))
    end
    local raw = assert(smtp.message { from = "ada@example.org", to = "bob@example.test", raw = "A: b\n\nc" })
    assert.is_true(raw:save(path))
    assert.are.equal("A: b\r\n\r\nc\r\n", child.read(path))
    assert.are.equal("a b.eml\n", names())
  end)

  it("needs no more memory for a large message", function()
    local size, given = 32 * 2 ^ 20, 0
    local most = 0
    local composed = compose { attachments = { { size = size, source = function()
      if given == size then return nil end
      given = given + 2 ^ 16
      if given % 2 ^ 21 == 0 then
        collectgarbage()
        most = math.max(most, collectgarbage("count"))
      end
      return ("x"):rep(2 ^ 16)
    end } } }
    collectgarbage()
    local before = collectgarbage("count")
    assert.is_true(composed:save(folder .. "/large.eml"))
    assert.is_true(most - before < 1024, most - before .. " KB")
    local file = assert(io.open(folder .. "/large.eml", "rb"))
    assert.are.equal(composed:size(), file:seek("end"))
    file:close()
  end)

  it("leaves nothing behind, and an older file alone, when a source fails", function()
    local path, called = folder .. "/a.eml", 0
    assert.is_true(compose():save(path))
    local before = child.read(path)
    local composed = compose { attachments = { { source = function()
      called = called + 1
      if called > 9 then return nil, "disk on fire" end
      return ("x"):rep(100000)
    end } } }
    local ok, err = composed:save(path)
    assert.is_nil(ok)
    assert.are.same({ "source", "compose", "not_sent", false }, { err.kind, err.stage, err.outcome, err.temporary })
    assert.are.equal("attachments[1].source: disk on fire", err.reason)
    assert.are.equal("a.eml\n", names())
    assert.are.equal(before, child.read(path))
  end)

  it("says why it cannot write, and leaves nothing", function()
    assert(os.execute(("mkdir -p %s/full/x"):format(folder)))
    for path, words in pairs {
      [folder .. "/none/a.eml"] = "save: " .. folder .. "/none/a.eml: No such file or directory",
      [folder .. "/full"] = "save: " .. folder .. "/full: ",
      [""] = "save: not the name of a file",
      ["\0" .. folder .. "/a"] = "save: not the name of a file",
      [folder .. "/\0a"] = "save: not the name of a file",
      [folder .. "/a\0"] = "save: not the name of a file",
    } do
      local ok, err = compose():save(path)
      assert.is_nil(ok)
      assert.are.same({ "input", "compose", "not_sent" }, { err.kind, err.stage, err.outcome })
      assert.are.equal(words, err.reason:sub(1, #words))
      assert.is_nil(err.reason:find("[%c]"))
    end
    assert.are.equal("full\n", names())
    assert.is_false(pcall(compose().save, compose(), 5))
  end)

  it("takes a line end in a path for what it is, and shows it escaped", function()
    for _, name in ipairs { "\ra", "a\nb", "a\r\n" } do
      local path = folder .. "/" .. name
      assert.is_true(compose():save(path))
      assert(os.remove(path))
      local _, err = compose():save(folder .. "/none/" .. name)
      assert.is_nil(err.reason:find("[%c]"))
    end
  end)

  -- 10 bytes wait in the C library's buffer: only closing the file shows that there is no room for them
  for _, size in ipairs { 200000, 10 } do
    it(("finds out that there is no room for %d bytes"):format(size), function()
      local code = child.keep(([[
        local smtp = require "smtp"
        local mail = assert(smtp.message { from = "a@b", to = "c@d", attachments = { { data = ("x"):rep(%d) } } })
        local ok, err = mail:save("%s/a.eml")
        print(ok, err.kind, err.stage, err.reason)
      ]]):format(size, folder))
      -- a limit on a file's size, and no signal where it is reached
      local pipe = io.popen(("trap '' XFSZ; ulimit -f %d; ASAN_OPTIONS=detect_leaks=0 %s %s 2>&1")
        :format(size > 1000 and 64 or 0, child.interpreter, code))
      local output = pipe:read("*a")
      pipe:close()
      os.remove(code)
      assert.are.equal(("nil\tinput\tcompose\tsave: %s/a.eml: File too large\n"):format(folder), output)
      assert.are.equal("", names())
    end)
  end

  it("preview writes a page that shows the message, with its inline image and no other file's bytes", function()
    local path = folder .. "/page.html"
    local composed = compose {
      to = "J\195\182rg M\195\188ller <joerg@example.test>, Team: a@example.test;", subject = ("Gr\195\188\195\159e "):rep(20),
      html = '<p>Hi <img src="cid:a@b">', headers = { ["X-Note"] = "caf\195\169" },
      attachments = { { data = "\137PNG", filename = "a.png", content_id = "a@b" }, { data = ("x"):rep(2048), filename = "b.bin" } },
    }
    assert.is_true(composed:preview(path))
    assert.are.equal("page.html\n", names())
    local page = child.read(path)
    for _, shown in ipairs {
      "<title>" .. ("Gr\195\188\195\159e "):rep(20), "J\195\182rg M\195\188ller &lt;joerg@example.test&gt;, Team: a@example.test;",
      "caf\195\169", "data:image/png;base64,iVBORw==", "b.bin", "2.0 KB", "Hi",
    } do
      assert.is_truthy(page:find(shown, 1, true), shown)
    end
    assert.is_nil(page:find("eHh4", 1, true))
    assert.are.equal(1, select(2, page:gsub("<script", ""))) -- its own
  end)

  it("preview shows the source of a finished message, and its decoded header", function()
    local path = folder .. "/page.html"
    local raw = "Subject: =?utf-8?Q?Gr=C3=BC=C3=9Fe?=\r\n =?utf-8?B?IDE=?= =?x?Q?y?= z\r\n\r\n<script>\255\r\n" .. ("long\r\n"):rep(300000)
    local fields = { from = "ada@example.org", to = "bob@example.test" }
    for _, given in ipairs { raw, function()
      local all = raw
      raw = nil
      return all
    end } do
      fields.raw = given
      assert.is_true(assert(smtp.message(fields)):preview(path))
      local page = child.read(path)
      assert.is_truthy(page:find("<title>Gr\195\188\195\159e 1 =?x?Q?y?= z</title>", 1, true))
      assert.is_truthy(page:find("&lt;script&gt;\\xFF", 1, true))
      assert.is_true(#page < 1048576 and #page > 800000)
    end
  end)

  it("preview leaves nothing behind where an image cannot be read", function()
    local path = folder .. "/page.html"
    local composed = compose { html = '<img src="cid:a@b">', attachments = {
      { source = function() return nil, "the disk is gone" end, content_id = "a@b", filename = "a.png" },
    } }
    local done, err = composed:preview(path)
    assert.is_nil(done)
    assert.are.same({ "source", "compose" }, { err.kind, err.stage })
    assert.are.equal("", names())
    assert.has_error(function() composed:preview() end, "message:preview: expected a path, got nil")
  end)
end)
