--- fault: what a transport's call gives that failed, in the same words whoever waits.
---
--- Does: kind, reason and what else there is to say; the kinds are those of errors.
--- Never: looks at a pipe.
--- Called by: the transports.
local fault = {}

fault.LATE_HANDSHAKE = "the TLS handshake did not end in time"
fault.CUT_HANDSHAKE = "the peer closed the connection during the TLS handshake"

--- It was closed at this end, perhaps while a call waited.
---@param left integer? octets at the end of a write that are not on their way, at least; in the others, too
function fault.closed(left)
  return nil, "closed", "the connection is closed", left
end

--- It has ended: by the peer, where nothing else is said.
---@param reason string?
---@param left integer?
function fault.ended(reason, left)
  if not reason or reason == "closed" then reason = "the peer closed the connection" end
  return nil, "closed", reason, left
end

--- A read's deadline has passed.
function fault.nothing_came()
  return nil, "timeout", "nothing came in time"
end

--- A write's deadline has passed.
---@param left integer?
function fault.nothing_taken(left)
  return nil, "timeout", "the peer took nothing in time", left
end

--- Why a server's key will not do: it is none of those that were pinned.
---@param pins string[]? nil: any key will do
---@param peer { pin: string }? what TLS shows of the server's certificate
---@return string? reason nil: it will do
---@return string? hint
function fault.unpinned(pins, peer)
  if not pins then return nil end
  local pin = peer and peer.pin or "none"
  for _, one in ipairs(pins) do
    if one == pin then return nil end
  end
  return "the server's key is not one that was pinned; its pin is " .. pin,
    "ask who runs the server whether its key was changed: if not, this is another server"
end

return fault
