-- The hardest messages of the corpus through servers nobody here wrote #real, all in one session: what they store is
-- compared byte for byte with what was composed.
local child = require "spec.support.child"
local corpus = require "spec.support.corpus"
local exim = require "spec.support.daemon" "exim"
local postfix = require "spec.support.postfix"
local smtp = require "smtp"
local smtp_server = require "spec.support.daemon" "smtp_server"

-- names in the corpus, or where they begin
local HARD = {
  "everything at once", "no body at all", "one attachment and nothing else", "a big text in Greek", "a big attachment",
  "everywhere: ", "long: CJK", "a subject of one word without end", "a subject of blanks", "names that need care",
  "200 recipients", "50 references", "long references", "a filename with 300 characters", "a text empty",
  "a text with all line ends", "a text with a line of 998", "a text with a line of 100000 beyond ASCII",
  "a text with trailing blanks", "a text of dots", "a text that ends in a dot", "a text of From lines", "a text of line ends",
  "a text that looks like the end", "a text with control bytes", "a text of 8-bit lines", "own fields",
}

local function messages()
  local list = {}
  for _, case in ipairs(corpus) do
    for _, name in ipairs(HARD) do
      if case.name:sub(1, #name) == name then
        local fields = { envelope = { from = "ada@example.test", to = "user@example.test" } }
        for option, value in pairs(case.fields) do fields[option] = value end
        list[#list + 1] = { name = case.name, message = assert(smtp.message(fields)) }
        break
      end
    end
  end
  return list
end

-- Sends them all over one session; stored(i, message) -> the bytes the server keeps.
local function deliver(options, stored)
  local session = assert(smtp.connect(options))
  assert.truthy(session.tls)
  local capabilities, list = session.capabilities, messages()
  assert.truthy(#list >= 20)
  for _, one in ipairs(list) do
    local receipt, err = session:send(one.message)
    assert.is_nil(err, one.name .. ": " .. tostring(err))
    assert.are.same({ "user@example.test" }, receipt.accepted)
  end
  assert(session:quit())
  local wrong = {}
  for i, one in ipairs(list) do
    if stored(i, one.message) ~= one.message:tostring(capabilities["8BITMIME"] and "8bit" or "7bit") then wrong[#wrong + 1] = one.name end
  end
  assert.are.same({}, wrong)
end

describe("Postfix, over one session #real,", function()
  local server, reason
  setup(function() server, reason = postfix.start() end)
  teardown(postfix.stop)

  it("keeps the hardest messages byte for byte", function()
    if not server then pending(reason) end
    deliver({
      host = "localhost", port = server.submission_port, ca_file = server.ca_file, username = "user", password = "pass word",
    }, function(_, message)
      local found = assert(postfix.wait_for_message(server.maildir, message.id)):gsub("\n", "\r\n")
      -- Return-Path, X-Original-To, Delivered-To and Received are its own
      return found:match("\r\n(Date: .*)$")
    end)
  end)
end)

describe("Exim, over one session #real,", function()
  local server, reason
  setup(function() server, reason = exim.start() end)
  teardown(exim.stop)

  it("keeps the hardest messages byte for byte", function()
    if not server then pending(reason) end
    deliver({ host = "localhost", port = server.port, ca_file = server.ca_file }, function(_, message)
      return assert(postfix.wait_for_message(server.maildir, message.id))
    end)
  end)

  it("is never spoken to before its greeting, which it would refuse", function()
    if not server then pending(reason) end
    local options = { host = "127.0.0.1", port = server.port, ca_file = server.ca_file, bind = "127.0.0.2" }
    local session = assert(smtp.connect(options))
    assert(session:quit())
    -- that it does look: somebody who talks at once
    local code, heard = child.beside(('python3 -c \'import socket; s = socket.create_connection(("127.0.0.1", %d), 9, '
      .. '("127.0.0.2", 0)); s.sendall(b"EHLO early.example.org\\r\\n"); print(s.recv(99))\''):format(server.port))
    assert.are.equal(0, code, heard)
    assert.truthy(heard:find("554 SMTP synchronization error", 1, true), heard)
  end)
end)

describe("npm's smtp-server, over one session #real,", function()
  local server, reason
  setup(function() server, reason = smtp_server.start() end)
  teardown(smtp_server.stop)

  it("keeps the hardest messages byte for byte", function()
    if not server then pending(reason) end
    deliver({ host = "localhost", port = server.port, ca_file = server.ca_file }, function(i)
      return child.read(server.dir .. "/" .. i)
    end)
  end)
end)
