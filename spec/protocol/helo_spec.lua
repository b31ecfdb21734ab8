local helo = require "smtp.protocol.helo"

describe("the name given in EHLO", function()
  for hostname, name in pairs {
    ["mail.example.org"] = "mail.example.org", ["a-b.example.xn--p1ai"] = "a-b.example.xn--p1ai", ["10.example"] = "10.example",
    -- an address is no name, whoever called the host so
    ["10.1.2.3"] = "[10.1.2.3]", ["255.255.255.255"] = "[255.255.255.255]",
    ["256.1.2.3"] = "[192.0.2.7]", ["10.1.2"] = "[192.0.2.7]", ["1.2.3.4.5"] = "[192.0.2.7]", ["host.1"] = "[192.0.2.7]",
    -- names that all machines have
    ["localhost"] = "[192.0.2.7]", ["localhost.localdomain"] = "[192.0.2.7]", ["LOCALHOST.LocalDomain"] = "[192.0.2.7]",
    ["localhost6.localdomain6"] = "[192.0.2.7]", ["web1.localdomain"] = "[192.0.2.7]", ["web1.localhost"] = "[192.0.2.7]",
    ["web1"] = "[192.0.2.7]", [""] = "[192.0.2.7]",
    -- no names at all
    ["my_host.example.org"] = "[192.0.2.7]", ["a..example.org"] = "[192.0.2.7]", [".example.org"] = "[192.0.2.7]",
    ["a-.example.org"] = "[192.0.2.7]", ["-a.example.org"] = "[192.0.2.7]", ["a b.example.org"] = "[192.0.2.7]",
    ["a\1b.example.org"] = "[192.0.2.7]", ["example.org."] = "[192.0.2.7]", ["b\195\188cher.example"] = "[192.0.2.7]",
  } do
    it(("of a host called %q is %s"):format(hostname, name), function()
      assert.are.equal(name, helo.name(hostname, "192.0.2.7"))
    end)
  end

  it("is an address literal of the connection's own end, of whichever kind", function()
    assert.are.equal("[IPv6:2001:db8::7]", helo.name("web1", "2001:db8::7"))
    assert.are.equal("[IPv6:fe80::1]", helo.name("web1", "fe80::1%eth0"))
    assert.are.equal("[127.0.0.1]", helo.name("web1", nil))
    assert.are.equal("[127.0.0.1]", helo.name("web1", "/run/mail.sock"))
  end)
end)
