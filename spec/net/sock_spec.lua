-- Of: bind/sock
local core = require "smtp.core"
local loopback = require "spec.support.loopback"

local finish = loopback.finish
local huge = math.huge

local function called(...) return { n = select("#", ...), ... } end

describe("a wire over a socket", function()
  local listener, client, server, wire

  before_each(function()
    listener = loopback.listen()
    client, server = listener.pair()
    wire = core.wire(2)
  end)

  after_each(function()
    for _, one in ipairs { client, server, listener } do one:close() end
  end)

  -- What a turn gives while the time has not run out.
  local function turn(...) return called(client:turn(wire, huge, ...)) end

  -- Lets the client have these bytes.
  local function say(bytes)
    server:write(bytes)
    core.wait("read", client:fd(), core.now() + 60)
  end

  it("sends what is queued, and receives what has come", function()
    wire:command "NOOP"
    assert.is_true(client:send(wire))
    assert.are.equal("NOOP\r\n", finish(server, "read", "read"))
    assert.is_true(client:send(wire))
    assert.are.same({ n = 2, nil, "again" }, called(client:receive(wire)))
    say "250 ok\r\n"
    assert.is_true(client:receive(wire))
    assert.are.equal(250, (wire:reply()))
    server:close()
    assert.are.same({ n = 3, nil, "closed", "the peer closed the connection" }, called(client:receive(wire, core.now() + 60)))
  end)

  it("says where the wire takes no more", function()
    assert.is_nil(wire:feed(("x"):rep(2 ^ 24 + 1)))
    say "250 ok\r\n"
    assert.are.same({ n = 3, nil, "protocol", "larger than allowed" }, called(client:receive(wire)))
  end)

  it("sends the turn that the wire has queued, and tells the time", function()
    wire:feed "250 ok\r\n354 go\r\n"
    local before = core.now()
    local got = turn("23", ".a", "MAIL\nDATA", 2)
    assert.are.same({ 4, true, true, true }, { got.n, got[1], got[2], got[4] })
    assert(got[3] >= before and got[3] <= core.now())
    assert.are.equal("..a\r\n.\r\nMAIL\r\nDATA\r\n", finish(server, "read", "read"))
    assert.are.equal(0, wire:queued())
    assert.are.equal(3, wire:expected())
  end)

  it("sends nothing where the wire has no turn, or the time is over", function()
    wire:feed "250 ok\r\n"
    assert.are.same({ n = 2 }, turn("23", "a"))
    wire:feed "550 no\r\n"
    assert.are.same({ n = 2, false }, turn("23", "a"))
    wire = core.wire(1)
    wire:feed "354 go\r\n2"
    assert.are.same({ n = 2, false, "more" }, turn("3", "a"))
    wire = core.wire(1)
    wire:feed "354 go\r\n"
    assert.are.same({ n = 1, false }, called(client:turn(wire, core.now() - 0.001, "3", "a")))
    assert.are.equal(0, wire:queued())
    assert.are.equal(8, wire:residue())
    assert.are.same({ nil, "again" }, { server:read() })
  end)

  it("leaves to send what the socket has not taken", function()
    wire = core.wire(1)
    wire:feed "354 go\r\n"
    -- more than all buffers of the system hold, however far they have moved it by now
    local got = turn("3", ("x"):rep(2 ^ 23))
    assert.are.same({ true, false, false }, { got[1], got[2], got[4] })
    assert(wire:queued() > 0)
    assert.are.same({ n = 2, nil, "again" }, called(client:send(wire)))
    while server:read() or wire:queued() > 0 do client:send(wire) end
    assert.is_true(client:send(wire))
  end)

  it("says of a connection that is gone that not all is out", function()
    server:close()
    wire:feed "250 ok\r\n354 go\r\n"
    local got = turn("23", ("x"):rep(2 ^ 20))
    if got[4] then got = turn("", "") end -- the first one found room, and was answered with a reset
    assert.is_false(got[4])
    assert.is_nil((client:send(wire)))
  end)

  it("waits for a reply, and tells its queue id and the time", function()
    say "250 2.0.0 Ok: queued as 4Zr0sX1mY2z3\r\n250"
    local before = core.now()
    local got = called(client:reply(wire, core.now() + 60))
    assert.are.same({ 5, 250, "Ok: queued as 4Zr0sX1mY2z3", "2.0.0", "4Zr0sX1mY2z3" }, { got.n, got[1], got[2], got[3], got[4] })
    assert(got[5] >= before and got[5] <= core.now())
    assert.are.same({ n = 2, nil, "again" }, called(client:reply(wire, core.now() + 0.01)))
    say " no number\r\n"
    got = called(client:reply(wire, core.now() + 60))
    assert.are.same({ 5, 250, "no number", false }, { got.n, got[1], got[2], got[4] })
  end)

  it("says once what is no reply", function()
    say "HTTP/1.1\r\n"
    assert.are.same({ n = 3, nil, "the peer broke the protocol", "HTTP/1.1" }, called(client:reply(wire, core.now() + 60)))
    assert.are.same({ n = 2, nil, "the peer broke the protocol" }, called(wire:reply()))
  end)

  it("leaves to receive what is the matter with the connection", function()
    server:close()
    assert.are.same({ n = 2, nil, "again" }, called(client:reply(wire, core.now() + 60)))
    assert.are.same({ n = 3, nil, "closed", "the peer closed the connection" }, called(client:receive(wire)))
  end)

  it("raises where it is given the wrong thing, or is closed", function()
    for name, call in pairs {
      ["no wire"] = function() client:send() end,
      ["a socket for a wire"] = function() client:receive(client) end,
      ["a wire for a socket"] = function() client.turn(wire, wire, huge, "3", "") end,
      ["no content"] = function() client:turn(wire, huge, "23") end,
      ["no time"] = function() client:turn(wire, nil, "23", "") end,
      ["no deadline"] = function() client:reply(wire) end,
    } do
      assert(not pcall(call), name)
    end
    client:close()
    for _, method in ipairs { "send", "receive", "turn", "reply" } do
      local ran, why = pcall(client[method], client, wire, huge, "3", "")
      assert(not ran and why:find("closed", 1, true), method)
    end
  end)
end)
