local queue = require "smtp.protocol.queue"

describe("queue.id", function()
  for text, id in pairs {
    ["Ok: queued as 4Zr0sX1mY2z3"] = "4Zr0sX1mY2z3",
    ["OK id=1q2W3e-0004Ab-Cd"] = "1q2W3e-0004Ab-Cd",
    ["45N1Bc9d012345 Message accepted for delivery"] = "45N1Bc9d012345",
    ["1a2b3c4d Message accepted for delivery"] = "1a2b3c4d",
    ["Message Queued (9F1C2D3E-1111-2222-3333-444455556666.1)"] = "9F1C2D3E-1111-2222-3333-444455556666.1",
    ["<x@example.org> [InternalId=123456789, Hostname=mx.example.org] Queued mail for delivery"] = "123456789",
    ["OK  1700000000 a1-20020a05600c.5 - gsmtp"] = "a1-20020a05600c.5",
    ["ok 1700000000 qp 4242"] = "4242",
    ["<bob@example.org> 8BitQx+a/12 Saved"] = "8BitQx+a/12",
    ["Ok 0100018c2b3c4d5e-1a2b3c4d-1111-2222-3333-0123456789ab-000000"] = "0100018c2b3c4d5e-1a2b3c4d-1111-2222-3333-0123456789ab-000000",
    ["Thanks"] = false,
    [""] = false,
    ["not queued"] = false,
  } do
    it(("%q"):format(text), function()
      assert.are.equal(id or nil, (queue.id(text)))
    end)
  end
end)
