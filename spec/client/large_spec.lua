-- An attachment of 1 GB, sent by a process whose memory the system counts.
local child = require "spec.support.child"

-- Takes messages as fast as they come, one at a time and without looking at them.
local SINK = [==[
import socket
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
while True:
    peer = listener.accept()[0]
    peer.sendall(b"220 sink\r\n")
    content, last, block = False, b"", bytearray(1 << 20)
    while count := peer.recv_into(block):
        last = (last + bytes(block[max(0, count - 5):count]))[-5:]
        if content and last == b"\r\n.\r\n":
            content = False
            peer.sendall(b"250 Ok\r\n")
        elif not content:
            content = bytes(block[:count]).upper().startswith(b"DATA")
            peer.sendall(b"354 go\r\n" if content else b"250 Ok\r\n")
]==]

local PROGRAM = [==[
local smtp = require "smtp"
local port, path, small, wanted = %d, %q, %q, %q
local function peak()
  for line in io.lines "/proc/self/status" do
    local kilobytes = line:match "^VmHWM:%%s*(%%d+)"
    if kilobytes then return tonumber(kilobytes) end
  end
end
local function message(attachment)
  local fields = { from = "ada@example.org", to = "bob@example.test", text = "t", attachments = { { path = attachment } } }
  if wanted == "signed" then
    local key = assert(io.popen "openssl genpkey -algorithm ed25519")
    fields.dkim = { domain = "example.org", selector = "s", key = key:read "*a" }
    key:close()
  end
  return assert(smtp.message(fields))
end
local session = assert(smtp.connect { host = "127.0.0.1", port = port, tls = "none" })
assert(session:send(message(small)))
local before = peak()
local mail = message(path)
local receipt = assert(session:send(mail))
assert(receipt.size == mail:size())
print(("grew %%d size %%.0f"):format(peak() - before, receipt.size))
]==]

describe("an attachment of 1 GB #real", function()
  local path, small, port, script, pid

  setup(function()
    path, small, script = os.tmpname(), os.tmpname(), child.keep(SINK)
    os.execute(("truncate -s 1G %s; truncate -s 4M %s"):format(path, small))
    os.execute(("env -u LD_PRELOAD /usr/bin/python3 %s >%s.port 2>&1 </dev/null & echo $! >%s.pid"):format(script, script, script))
    pid = child.read(script .. ".pid")
    for _ = 1, 1200 do
      port = tonumber(child.read(script .. ".port"))
      if port then break end
      os.execute "sleep 0.05"
    end
    assert(port, child.read(script .. ".port"))
  end)

  teardown(function()
    os.execute(("kill %s; rm -f %s %s %s %s.port %s.pid"):format(pid:gsub("%s", ""), path, small, script, script, script))
  end)

  for _, kind in ipairs { "plain", "signed" } do
    it("takes no more memory than one of 4 MB: " .. kind, function()
      local output = child.run(PROGRAM:format(port, path, small, kind))
      local grown, size = output:match("^grew (%d+) size (%d+)\n$")
      assert.is_truthy(grown, output)
      assert.is_true(tonumber(size) > 1.36 * 2 ^ 30, size)
      assert.is_true(tonumber(grown) < 1024, output)
    end)
  end
end)
