--- pipeline: what goes together into one group, to be written before any of its replies is read. Pure.
---
--- Called by: client/envelope, habits, login, send and send_many.
--- RFC 2920 3.1 (DATA only last), RFC 3030 4.1 (BDAT anywhere).
local pipeline = {}

local concat, rep = table.concat, string.rep

--- Octets of commands in a group, with their ends: no more than the smallest usual socket buffers take, so that the
--- two sides can never both be stuck writing.
local WINDOW = 32768
pipeline.WINDOW = WINDOW
--- Whole messages of one group, by BDAT, and octets: what is under way when a connection breaks has an unknown fate.
pipeline.MESSAGES = 10
local OCTETS = 262144

---@class smtp.Group
---@field mail boolean it begins with MAIL
---@field first integer the first recipient that it names
---@field count integer how many it names
---@field data boolean it ends with DATA
---@field block string its commands with LF between them
---@field lines integer how many they are
---@field classes string a digit for each reply hoped for but DATA's

---@alias smtp.Tier "step"|"pipeline"|"chunk"

--- How much may go together with this server.
---@param offered table capabilities
---@param wanted boolean whether the caller wants it at all
---@param trusted boolean whether the server is known to swallow the octets of a chunk that it refuses
---@return smtp.Tier
function pipeline.tier(offered, wanted, trusted)
  if not (wanted and offered.PIPELINING) then return "step" end
  return trusted and offered.CHUNKING and "chunk" or "pipeline"
end

--- Whether QUIT, or another envelope, may go behind the end of a content, and an envelope behind a login.
---@param offered table capabilities
---@param plan { pipeline: boolean, lmtp: boolean } LMTP has a reply for each recipient there
---@return boolean
function pipeline.goes_on(offered, plan)
  return offered.PIPELINING and plan.pipeline and not plan.lmtp
end

--- A group.
---@param block string
---@param lines integer
---@param first integer the number among MAIL (1), RCPT … of its first line
---@param data boolean
---@return smtp.Group
function pipeline.new(block, lines, first, data)
  local count = lines - (data and 1 or 0)
  return { mail = first == 1, first = math.max(first - 1, 1), count = first == 1 and count - 1 or count, data = data,
    block = block, lines = lines, classes = rep("2", count) }
end

--- The groups of one envelope.
---@param lines string[] of MAIL and each RCPT
---@param tier smtp.Tier with "chunk" there is no DATA
---@param apart boolean the replies to RCPT decide whether there is a DATA
---@return smtp.Group[]
function pipeline.envelope(lines, tier, apart)
  local count, data = #lines, tier ~= "chunk"
  local groups, from, octets = {}, 1, 0
  for i = 1, count do
    octets = octets + #lines[i] + 2
    local more = i < count and tier ~= "step" and octets + #lines[i + 1] + #"\r\nDATA\r\n" <= WINDOW
    if not more then
      groups[#groups + 1] = pipeline.new(concat(lines, "\n", from, i), i - from + 1, from, false)
      from, octets = i + 1, 0
    end
  end
  if data and (apart or tier == "step") then
    groups[#groups + 1] = pipeline.new("DATA", 1, count + 1, true)
  elseif data then
    local last = groups[#groups]
    last.block, last.lines, last.data = last.block .. "\nDATA", last.lines + 1, true
  end
  return groups
end

--- Whether one message more may go along in a group by BDAT.
---@param messages integer that are in it
---@param octets integer of their content and the new one's
---@param commands integer octets of their commands and the new one's
---@return boolean
function pipeline.has_room(messages, octets, commands)
  return messages == 0 or messages < pipeline.MESSAGES and octets <= OCTETS and commands <= WINDOW
end

return pipeline
