local hint = require "smtp.protocol.hint"

describe("hint.find", function()
  for _, case in ipairs {
    { { kind = "insecure", stage = "starttls" }, "implicit" },
    { { kind = "insecure", stage = "starttls", code = 454 } },
    { { kind = "insecure", stage = "auth" }, "allow_insecure_auth" },
    { { kind = "auth", stage = "auth", code = 535, text = "Application-specific password required" }, "app password" },
    { { kind = "auth", stage = "auth", code = 534, text = "no" }, "app password" },
    { { kind = "auth", stage = "auth", code = 535, enhanced = "5.7.139", text = "no" }, "OAuth" },
    { { kind = "auth", stage = "auth", code = 535, text = "Username and Password not accepted." }, "Google" },
    { { kind = "auth", stage = "auth", code = 535, text = "no" }, "check username" },
    { { kind = "auth", stage = "auth", reason = "no mechanism in common: …" }, "leave out" },
    { { kind = "rejected", stage = "mail", code = 530, text = "Must issue a STARTTLS command first" }, "starttls" },
    { { kind = "rejected", stage = "mail", code = 530, text = "Authentication required" }, "login" },
    { { kind = "rejected", stage = "rcpt", code = 554, text = "Relay access denied" }, "login" },
    { { kind = "rejected", stage = "rcpt", code = 550, text = "No such user" } },
    { { kind = "connect", stage = "connect", reason = "127.0.0.1 port 1: Connection refused" }, "587" },
    { { kind = "timeout", stage = "connect", port = 25 }, "block port 25" },
    { { kind = "timeout", stage = "connect", port = 587 }, "firewall" },
    { { kind = "timeout", stage = "rcpt", port = 25 } },
    { { kind = "resolve", stage = "resolve", temporary = false }, "spelling" },
    { { kind = "resolve", stage = "resolve", temporary = true } },
    { { kind = "protocol", stage = "greeting" }, "SMTP port" },
    { { kind = "protocol", stage = "greeting", reason = 'the server\'s reply is not SMTP: "* OK ready"' }, "IMAP" },
    { { kind = "protocol", stage = "greeting", reason = 'the server\'s reply is not SMTP: "+OK ready"' }, "POP3" },
    { { kind = "protocol", stage = "greeting", reason = 'the server\'s reply is not SMTP: "HTTP/1.1 400 Bad"' }, "captive" },
    { { kind = "protocol", stage = "mail", reason = 'the server\'s reply is not SMTP: "* OK ready"' } },
    { { kind = "protocol", stage = "mail" } },
    { { kind = "input", stage = "compose" } },
  } do
    local err, words = case[1], case[2]
    it(("%s at %s%s: %s"):format(err.kind, err.stage, err.code and " " .. err.code or "", words or "nothing"), function()
      local found = hint.find(err)
      if words then
        assert.is_truthy(found and found:find(words, 1, true), found)
        assert.is_nil(found:find("[%c]"))
      else
        assert.is_nil(found)
      end
    end)
  end
end)
