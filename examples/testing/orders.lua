--- A part of a shop, to show how a program that mails is tested: see orders_spec.lua.
local smtp = require "smtp"

local orders = {}

--- Tells a customer that the order is on its way.
---@param order { number: integer, customer: string }
---@param server table how to reach the mail server: the options of smtp.send
---@return string done "told"; "refused": ask for another address; "later": try again; "unknown": somebody has to look
---@return string words for the log
function orders.confirm(order, server)
  local mail = {
    from = "Shop <shop@example.org>", to = order.customer,
    subject = ("Your order %d"):format(order.number), text = "It is on its way.\n",
  }
  for name, value in pairs(server) do mail[name] = value end

  local receipt, err = smtp.send(mail)
  if receipt then return "told", receipt.message_id end
  if err.outcome == "unknown" then return "unknown", tostring(err) end
  if (err.kind == "rejected" or err.kind == "input") and not err.temporary then return "refused", tostring(err) end
  return "later", tostring(err) -- also where the password is wrong: that is no fault of the customer's
end

return orders
