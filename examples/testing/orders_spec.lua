--- The shop's mails, tested without a mail server: one of this library's takes them, in the same process.
---     cd examples/testing && busted orders_spec.lua
local orders = require "orders"
local smtp = require "smtp"

describe("an order", function()
  local server, mails, answer

  before_each(function()
    mails, answer = {}, nil
    server = assert(smtp.server {
      on_message = function(envelope, message)
        mails[#mails + 1] = { to = envelope.to, data = message }
        return answer -- nil takes the message
      end,
    })
  end)

  after_each(function() server:close() end)

  -- Shop and server take turns: the shop runs as a task, a step at a time.
  local function confirm(order)
    local task = smtp.task(orders.confirm, order, { host = server.host, port = server.port, tls = "none" })
    local what, done, words
    repeat
      what, done, words = task:step()
      server:step(what == "done" and 0 or 0.01)
    until what == "done"
    return done, words
  end

  it("is confirmed to who gave it", function()
    assert.are.equal("told", (confirm { number = 4711, customer = "Grace <grace@example.org>" }))
    assert.are.same({ "grace@example.org" }, mails[1].to)
    assert.truthy(mails[1].data:find("\r\nSubject: Your order 4711\r\n", 1, true))
    assert.truthy(mails[1].data:find("\r\n\r\nIt is on its way.\r\n", 1, true))
  end)

  it("wants another address where there is no such mailbox", function()
    answer = "550 5.1.1 no such user"
    local done, words = confirm { number = 1, customer = "nobody@example.org" }
    assert.are.equal("refused", done)
    assert.truthy(words:find("no such user", 1, true))
    assert.are.equal("refused", (confirm { number = 2, customer = "not an address" }))
    assert.are.equal(1, #mails) -- that one was not even tried
  end)

  it("is confirmed later where the server is busy or away", function()
    answer = "451 4.3.0 try again later"
    assert.are.equal("later", (confirm { number = 1, customer = "grace@example.org" }))
    server:close()
    assert.are.equal("later", (orders.confirm({ number = 1, customer = "grace@example.org" },
      { host = server.host, port = server.port, tls = "none" })))
  end)
end)
