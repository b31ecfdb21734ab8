-- Busted keeps each test's function, and with it all that a file made, until the whole run ends: 100 MB that every collection
-- walks through. What has run is let go of here (busted loads this first: .busted).
local busted = require "busted"

local function forget(element)
  for key, value in pairs(element) do
    if type(value) == "function" or type(value) == "table" and key ~= "attributes" and key ~= "trace" then element[key] = nil end
  end
  return nil, true -- the other subscribers' turn
end

busted.subscribe({ "test", "end" }, forget)
busted.subscribe({ "describe", "end" }, forget)
