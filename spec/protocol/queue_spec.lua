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
    -- ids of more than letters and digits, to their end
    ["Mail OK queued as smtp8,DMCowAD3hz8pS6FWxB5cAg--.51185S2 1453411114"] = "smtp8,DMCowAD3hz8pS6FWxB5cAg--.51185S2",
    ["Mail OK queued as AQAAfwB3+w/ZnFJkAAoAAA==.3812S2 1683135705"] = "AQAAfwB3+w/ZnFJkAAoAAA==.3812S2",
    ["Ok: queued as 4CgXfYwKxC8zRz2W-EUJHo_8UPBWlmtuGZc=@mailhog.example"] = "4CgXfYwKxC8zRz2W-EUJHo_8UPBWlmtuGZc=@mailhog.example",
    ["Ok: queued as rF7R2WnNTS2_g-0X"] = "rF7R2WnNTS2_g-0X",
    ["Ok: queued as 4Zr0sX1mY2z3."] = "4Zr0sX1mY2z3",
    ["Accepted (queued as 4Zr0sX1mY2z3)"] = "4Zr0sX1mY2z3",
    ["Ok: queued as 4Zr0sX1mY2z3\nand thanks"] = "4Zr0sX1mY2z3",
    ["3kq8w2x1y9-1 Message accepted for delivery"] = "3kq8w2x1y9-1",
    ["Requested mail action okay, completed: id=1MxV7U-1mYz2R0abc-00xNJE"] = "1MxV7U-1mYz2R0abc-00xNJE",
    ["<x@example.org> [InternalId=22991854379017] 8765 bytes in 0.1, 80 KB/sec Queued mail for delivery"] = "22991854379017",
    ["Message queued with id 1f0a2b3c4d5e."] = "1f0a2b3c4d5e",
    ["1834 bytes received in 00:00:01; Message id 5A6C8B0E accepted for delivery"] = "5A6C8B0E",
    ["ok:  Message 48213377 accepted"] = "48213377",
    ["Ok: queued on mail-nwsmtp-17.example.net 1695129812-UcXpM2ABca60"] = "1695129812-UcXpM2ABca60",
    ["Ok, envelope id 0PXX00L2OXXX1Z00@st43p00.example.org"] = "0PXX00L2OXXX1Z00@st43p00.example.org",
    ["SmtpThread-587428-1543436425217@mta-94.example.org Received OK [b3.us94]"] = "SmtpThread-587428-1543436425217@mta-94.example.org",
    ["OK 98/5D-01234-0AB2C3D4"] = "98/5D-01234-0AB2C3D4",
    -- what cannot be one, or was cut
    ["Ok: queued as 4Zr0****"] = false,
    ["Ok: queued as 4Zr0\\xff1"] = false,
    ["Ok: queued as <4Zr0sX1mY2z3>"] = false,
    ["OK: queued as."] = false,
    ["OK: queued as "] = false,
    ["Ok: queued as ..."] = false,
    ["OK id=1q2W****"] = false,
    ["**** Message accepted for delivery 7"] = false,
    ["Thanks"] = false,
    [""] = false,
    ["not queued"] = false,
  } do
    it(("%q"):format(text), function()
      assert.are.equal(id or nil, (queue.id(text)))
    end)
  end
end)
