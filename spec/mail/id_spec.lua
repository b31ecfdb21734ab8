local id = require "smtp.mail.id"
local smtp = require "smtp"
local steps = require "spec.support.steps"

local OUTLOOK = "!&!AAAAAAAAAAAuAAAAAAAAAKTyXRN5/+lGvU59a+P7CFMBAN6gY+ZG84BMpVQcAbDh1IQAAAATbSgAABAAAACBv0Sc2eRBTLpyXRN5AQAAAAA=@example.com"
local EXCHANGE = ("AM0PR0402MB3905"):rep(12) .. "@AM0PR0402MB3905.eurprd04.prod.outlook.example"

describe("in_reply_to and references", function()
  local taken = {
    { "<a@b>", "<a@b>" },
    { "a@b", "<a@b>" },
    { "<a@b> <c@d>\t<e@f>", "<a@b> <c@d> <e@f>" },
    { "<a@b><c@d>", "<a@b> <c@d>" },
    { "a@b <c@d> e@f", "<a@b> <c@d> <e@f>" },
    { "<a@b> (Ada's message of Tue, 24 Nov)", "<a@b>" },
    { "(one (in another) \\) \\( here)<a@b>(x)c@d(y)", "<a@b> <c@d>" },
    { "<" .. OUTLOOK .. ">", "<" .. OUTLOOK .. ">" },
    { OUTLOOK, "<" .. OUTLOOK .. ">" },
    { "<" .. EXCHANGE .. ">", "<" .. EXCHANGE .. ">" },
    { "<20261124.101112>", "<20261124.101112>" },
    { "<a(b),c;d:e@[192.0.2.1]>", "<a(b),c;d:e@[192.0.2.1]>" },
    { '<"a.b"@c>', '<"a.b"@c>' },
    { "<a@b@c>", "<a@b@c>" },
    { "<0.1=2?3+4/5@x_y>", "<0.1=2?3+4/5@x_y>" },
    { { "<a@b>", " c@d <e@f> " }, "<a@b> <c@d> <e@f>" },
  }
  for i, case in ipairs(taken) do
    it("take message ids as they are found in the wild, skip comments, case " .. i, function()
      local ids = assert(id.list(case[1]))
      assert.are.equal(case[2], table.concat(ids, " "))
      local mail = assert(smtp.message { from = "ada@example.org", to = "bob@example.org", references = case[1] })
      local field = mail:tostring():match("\r\nReferences:(.-)\r\n%S"):gsub("\r\n", "")
      assert.are.equal(" " .. case[2], field)
    end)
  end

  local refused = {
    "word", "two words", "a@b c=d", "c=d <a@b>", "Your message of Tuesday <a@b>", '"Ada" <a@b>', "Re: <a@b>", "=?utf-8?Q?a=40b?=",
    "=?utf-8?Q?a@b?=", "<=?utf-8?Q?a?=@b>", "<a@b> =?utf-8?B?QUE=?=", "<a@b>,<c@d>", "<a@b>, <c@d>", "a@b,", "a@b;", "a@b@c", "@b", "a@",
    "<a b@c>", "<a@b", "a@b>", "<<a@b>>", "<>", "<a@b>c@d", "a@b<c@d>", "Ada<a@b>", "(never closed <a@b>", "(a\\)", "<a@b> )", "\\", '"a"@b',
    "<a@\195\188>", "\195\188@b", "<a@b>\r\n <c@d>", "a@b\0", "(\r\nBcc: x)", "", " ", "(alone)", "<" .. ("x"):rep(899) .. "@b>",
    ("x"):rep(899) .. "@b",
  }
  for _, value in ipairs(refused) do
    it(("refuse %q"):format(value:sub(1, 50)), function()
      for _, name in ipairs { "in_reply_to", "references" } do
        local mail, err = smtp.message { from = "ada@example.org", to = "bob@example.org", [name] = value }
        assert.is_nil(mail)
        assert.are.equal("input", err.kind)
        assert.is_truthy(err.reason:find("^" .. name .. ": "), err.reason)
      end
    end)
  end

  it("do twice the work for twice the length #linear", function()
    for _, value in ipairs { "<a@b>", "a@b ", "(a)", "(", "()\\", " ", "<a@b> (", "((a)) <" } do
      local single, double = steps(id.list, value:rep(2000)), steps(id.list, value:rep(4000))
      assert.is_true(double <= 2.2 * single + 100, ("%s: %d, then %d"):format(value, single, double))
    end
  end)
end)
