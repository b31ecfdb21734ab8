--- What goes together into one flight, to be written before any of its replies is read. Pure. RFC 2920 3.1: DATA only
--- last; RFC 3030 4.1: BDAT anywhere.
local flight = {}

-- Octets of commands in a flight: no more than the smallest usual socket buffers take, so that the two sides can never
-- both be stuck writing.
local WINDOW = 32768
-- Messages and octets of one flight by BDAT: what is under way when a connection breaks has an unknown fate.
local MESSAGES, OCTETS = 10, 262144

---@class smtp.Flight
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
---@param pipeline boolean whether the caller wants it at all
---@param trusted boolean whether the server is known to swallow the octets of a chunk that it refuses
---@return smtp.Tier
function flight.tier(offered, pipeline, trusted)
  if not (pipeline and offered.PIPELINING) then return "step" end
  return trusted and offered.CHUNKING and "chunk" or "pipeline"
end

--- The flights of one envelope.
---@param mail string the line of MAIL
---@param rcpts string[] the lines of RCPT
---@param tier smtp.Tier with "chunk" there is no DATA
---@param apart boolean the replies to RCPT decide whether there is a DATA
---@return smtp.Flight[]
function flight.envelope(mail, rcpts, tier, apart)
  local flights, lines, length = {}, { mail }, #mail
  local one = { mail = true, first = 1, count = 0, data = false }
  local function close()
    one.block, one.lines = table.concat(lines, "\n"), #lines
    one.classes = ("2"):rep(#lines - (one.data and 1 or 0))
    flights[#flights + 1] = one
  end
  local function add(line, alone)
    if tier == "step" or alone or length + #line > WINDOW then
      close()
      one = { mail = false, first = one.first + one.count, count = 0, data = false }
      lines, length = {}, 0
    end
    lines[#lines + 1], length = line, length + #line + 2
  end
  for _, line in ipairs(rcpts) do
    add(line)
    one.count = one.count + 1
  end
  if tier ~= "chunk" then
    add("DATA", apart)
    one.data = true
  end
  close()
  return flights
end

--- Whether one message more may go along in a flight by BDAT.
---@param messages integer that are in it
---@param octets integer of their content and the new one's
---@return boolean
function flight.has_room(messages, octets)
  return messages == 0 or messages < MESSAGES and octets <= OCTETS
end

return flight
