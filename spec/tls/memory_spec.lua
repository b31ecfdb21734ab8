-- The TLS room while memory is short: tls_faults.c lets each allocation of OpenSSL's fail. No Lua takes part: it runs once.
local child = require "spec.support.child"
local tls = require "smtp.tls"

describe("while memory is short #real", function()
  it("digests, keys, certificates and handshakes say so, and nothing else", function()
    local cert, key = tls.mint { "mail.example.org" }
    local cert_file, key_file, program = child.keep(cert), child.keep(key), os.tmpname()
    local sources = {}
    for name in ("anchors context digest engine fault peer session sign"):gmatch "%S+" do sources[#sources + 1] = "csrc/tls/" .. name .. ".c" end
    local output = child.output(("env -u LD_PRELOAD sh -c 'cc -std=c11 -D_GNU_SOURCE -g -O1 -fsanitize=address,undefined -o %s"
      .. " spec/support/tls_faults.c %s csrc/wire/buf.c csrc/wire/status.c -lssl -lcrypto && %s %s %s; echo status $?'")
      :format(program, table.concat(sources, " "), program, cert_file, key_file))
    for _, path in ipairs { cert_file, key_file, program } do os.remove(path) end
    assert.are.equal("status 0\n", output)
  end)
end)
