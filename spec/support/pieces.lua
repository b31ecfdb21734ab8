-- pieces: cuts bytes up in every way a network might, and makes random ones that are the same in each run.
local pieces = {}

--- The bytes in one piece, one at a time, and in two at every position (`most`: only at that many, spread evenly).
---@param bytes string
---@param most integer?
---@return string[][] ways
function pieces.ways(bytes, most)
  local single = {}
  for i = 1, #bytes do single[i] = bytes:sub(i, i) end
  local ways = { { bytes }, single }
  local stride = math.max(1, math.floor(#bytes / (most or #bytes)))
  for at = 1, #bytes - 1, stride do ways[#ways + 1] = { bytes:sub(1, at), bytes:sub(at + 1) } end
  return ways
end

--- A function that gives whole numbers from `low` to `high`; the same seed, the same numbers, under every Lua.
---@param seed integer
---@return fun(low: integer, high: integer): integer
function pieces.random(seed)
  local state = seed
  return function(low, high)
    state = (state * 16807) % 2147483647
    return low + state % (high - low + 1)
  end
end

--- The bytes in pieces of 1 to `longest`.
---@return string[]
function pieces.scatter(bytes, random, longest)
  local list, at = {}, 1
  while at <= #bytes do
    local size = random(1, longest)
    list[#list + 1] = bytes:sub(at, at + size - 1)
    at = at + size
  end
  return list
end

return pieces
