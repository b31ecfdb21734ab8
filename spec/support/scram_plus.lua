-- scram_plus: starts and stops a server whose logins are bound to the TLS connection (scram_plus.py).
local child = require "spec.support.child"

local scram_plus = {}

local PROBE = [[env -u LD_PRELOAD /usr/bin/python3 -c 'import OpenSSL, ctypes; ctypes.CDLL("libgsasl.so.18")' 2>&1]]
local directory

--- Starts one that speaks TLS 1.3, 1.2 or, "1.2-old", 1.2 without the extended master secret.
---@param version "1.3"|"1.2"|"1.2-old"
---@return table|nil server `port`, `ca_file`, `dir`
---@return string|nil reason why there is none here (for `pending`)
function scram_plus.start(version)
  local probe = io.popen(PROBE)
  local trouble = probe:read("*a")
  probe:close()
  if trouble ~= "" then
    return nil, "NO SCRAM-PLUS SERVER: " .. trouble
  end
  directory = os.tmpname()
  os.remove(directory)
  os.execute(("env -u LD_PRELOAD bash -c 'mkdir %s && bash spec/support/pki.sh %s/pki' >/dev/null 2>&1"):format(directory,
    directory))
  os.execute(("env -u LD_PRELOAD timeout 600 /usr/bin/python3 spec/support/scram_plus.py %s %s/pki/localhost.pem "
    .. "%s/pki/localhost.key %s >%s/out 2>&1 </dev/null &"):format(directory, directory, directory, version, directory))
  for _ = 1, 1200 do
    local port = tonumber(child.read(directory .. "/port"))
    if port then
      return { port = port, ca_file = directory .. "/pki/ca.pem", dir = directory }
    end
    os.execute("sleep 0.05")
  end
  local output = child.read(directory .. "/out")
  scram_plus.stop()
  return nil, "NO SCRAM-PLUS SERVER: " .. output
end

--- It ends when its directory is gone.
function scram_plus.stop()
  if directory then
    os.execute("rm -rf " .. directory)
    directory = nil
  end
end

return scram_plus
