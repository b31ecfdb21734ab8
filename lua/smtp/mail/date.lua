--- date: a point in time as a Date field writes it: "Tue, 24 Nov 2026 10:11:12 +0000".
---
--- Never: asks the locale for a name or strftime for an offset (its "%z" is a zone name on some systems).
--- Called by: compose, letter.
--- RFC 5322 3.3.
local date = {}

local DAYS = { "Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat" }
local MONTHS = { "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec" }
local LAST = 253402214400 -- the last day of 9999: a year has four digits

local function seconds_of_day(t)
  return t.hour * 3600 + t.min * 60 + t.sec
end

--- Unix time to a date in the local time zone, with its offset.
---@param time number seconds since 1970, fractions dropped; not before 1970 or after 9999
---@return string?
---@return string? reason
function date.format(time)
  if type(time) ~= "number" or not (time >= 0 and time < LAST) then return nil, "a Unix time in seconds is needed" end
  time = math.floor(time)
  local here, utc = os.date("*t", time), os.date("!*t", time)
  -- The two are less than a day apart, so a different day of the year is the next or the one before.
  local days = here.year ~= utc.year and here.year - utc.year or here.yday - utc.yday
  local offset = days * 86400 + seconds_of_day(here) - seconds_of_day(utc)
  if offset % 60 ~= 0 then -- "+hhmm" cannot say it
    here, offset = utc, 0
  end
  local minutes = math.abs(offset) / 60
  return ("%s, %02d %s %04d %02d:%02d:%02d %s%02d%02d"):format(DAYS[here.wday], here.day, MONTHS[here.month], here.year,
    here.hour, here.min, here.sec, offset < 0 and "-" or "+", math.floor(minutes / 60), minutes % 60)
end

local last_time, last_field

--- The Date field; nil and a reason where it is no time. Many messages in a row have the same.
---@param time number
---@return string?
---@return string? reason
function date.field(time)
  if time ~= last_time then
    local written, why = date.format(time)
    if not written then return nil, why end
    last_time, last_field = time, "Date: " .. written .. "\r\n"
  end
  return last_field
end

return date
