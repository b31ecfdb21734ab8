-- The loops of others under load #real: many sends at once, what is left after thousands, a real mail server.
local away = require "spec.support.away"
local child = require "spec.support.child"
local flat = require "spec.support.flat"
local loops = require "spec.support.loops"
local postfix = require "spec.support.postfix"
local smtp = require "smtp"

local mailer, reason
setup(function() mailer, reason = postfix.start() end)
teardown(postfix.stop)

for _, name in ipairs(rawget(_G, "_TARANTOOL") and { "tarantool" } or { "cqueues", "luv", "copas" }) do
  local host = loops[name]
  describe("in a loop of " .. name .. " #real", function()
    local server

    setup(function() server = away.start "none" end)

    teardown(function() server:stop() end)

    local function on(title, run)
      it(title, function()
        if host.missing then return pending(host.missing) end
        run(require("smtp.transport." .. name))
      end)
    end

    -- select, by which copas waits, has room for no more
    local count = name == "copas" and 200 or 1000
    for _, way in ipairs { "each", "pool" } do
      on(("%d sends at once arrive (%s), and the loop goes on"):format(count, way), function()
        local before = #server:messages()
        local code, output = child.beside(("sh -c 'ulimit -n $(ulimit -Hn); exec env ASAN_OPTIONS=detect_leaks=0 %s"
          .. " spec/support/many_sends.lua %s %d %d %s'"):format(child.interpreter, name, server.port, count, way))
        assert.are.equal(0, code, output)
        assert.matches(("^%d sent"):format(count), output)
        assert.is_true(tonumber(output:match("(%d+) ticks")) >= 1, output) -- few where all went fast
        assert.are.equal(before + count, #server:messages())
      end)
    end

    on("thousands of sends, every other one a failure, leave no descriptor and no memory", function(transport)
      flat(transport, host, server.port, name == "cqueues" and 10 or 2)
    end)

    on("delivers to Postfix over STARTTLS with a login", function(transport)
      if not mailer then return pending(reason) end
      local receipt, err = host.run(function()
        return smtp.send { transport = transport, host = "localhost", port = mailer.submission_port, ca_file = mailer.ca_file,
          username = "user", password = "pass word", from = "ada@example.test", to = "user@example.test",
          subject = "from a loop of " .. name, text = "Hello.\n", timeout = 60 }
      end)
      assert.truthy(receipt, tostring(err))
      assert.are.equal("TLSv1.3", receipt.tls.version)
      assert.truthy(postfix.wait_for_message(mailer.maildir, receipt.message_id))
    end)
  end)
end
