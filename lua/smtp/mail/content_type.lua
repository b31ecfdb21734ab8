--- content_type: media types, read strictly or guessed from a filename.
---
--- Never: looks into content.
--- Called by: mime.
--- RFC 2045 5.1, RFC 6838 4.2.
local text = require "smtp.mail.text"

local content_type = {}

local TOKEN = "[A-Za-z0-9!#$%%&'*+^_`{|}~.-]+"
local ATTRIBUTE = "[A-Za-z0-9!#$&+^_`{|}~.-]+" -- without the signs RFC 2231 reserves

local BY_EXTENSION = {
  txt = "text/plain", log = "text/plain", md = "text/markdown", csv = "text/csv", html = "text/html",
  htm = "text/html", css = "text/css", ics = "text/calendar", vcf = "text/vcard",
  xml = "application/xml", json = "application/json", js = "text/javascript",
  pdf = "application/pdf", rtf = "application/rtf", ps = "application/postscript",
  zip = "application/zip", gz = "application/gzip", tar = "application/x-tar", bz2 = "application/x-bzip2",
  xz = "application/x-xz", ["7z"] = "application/x-7z-compressed", epub = "application/epub+zip",
  doc = "application/msword", xls = "application/vnd.ms-excel", ppt = "application/vnd.ms-powerpoint",
  docx = "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
  xlsx = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
  pptx = "application/vnd.openxmlformats-officedocument.presentationml.presentation",
  odt = "application/vnd.oasis.opendocument.text", ods = "application/vnd.oasis.opendocument.spreadsheet",
  odp = "application/vnd.oasis.opendocument.presentation",
  png = "image/png", jpg = "image/jpeg", jpeg = "image/jpeg", gif = "image/gif", webp = "image/webp",
  svg = "image/svg+xml", bmp = "image/bmp", tif = "image/tiff", tiff = "image/tiff", ico = "image/vnd.microsoft.icon",
  avif = "image/avif", heic = "image/heic", mp3 = "audio/mpeg",
  ogg = "audio/ogg", oga = "audio/ogg", opus = "audio/ogg",
  wav = "audio/wav", flac = "audio/flac", m4a = "audio/mp4", mp4 = "video/mp4", webm = "video/webm", mpg = "video/mpeg",
  mpeg = "video/mpeg", mov = "video/quicktime", avi = "video/x-msvideo", p7s = "application/pkcs7-signature",
  asc = "application/pgp-signature", eml = "message/rfc822",
}

--- The type a filename's extension stands for; "application/octet-stream" where that is not known.
---@param filename string?
---@return string
function content_type.guess(filename)
  local extension = filename and filename:match("%.([A-Za-z0-9]+)$")
  return extension and BY_EXTENSION[(extension:gsub("[A-Z]", string.lower))] or "application/octet-stream"
end

-- The quoted string at `at`, without its quotes and escapes, and the position after it; nil: there is none.
local function quoted(s, at)
  local stop = at
  if s:byte(at) == 34 then
    repeat
      stop = s:match('^[^"\\]*()', stop + 1)
      if s:byte(stop) == 34 then return (s:sub(at + 1, stop - 1):gsub("\\(.)", "%1")), stop + 1 end
      stop = stop + 1
    until stop > #s
  end
end

--- Reads "type/subtype; name=value; …"; a ";" may stand at the end.
---@param value string
---@return string? type "type/subtype" as given
---@return table[]|string parameters list of {name, value}; the reason where there is no type
function content_type.parse(value)
  local ok, why = text.check(value)
  if not ok then return nil, why end
  local media, at = value:match("^(" .. TOKEN .. "/" .. TOKEN .. ")()")
  if not media or #media > 255 then return nil, "not a media type (type/subtype): " .. text.show(value) end
  local parameters, seen = {}, {}
  while not value:find("^ *;? *$", at) do
    local name, after = value:match("^ *; *(" .. ATTRIBUTE .. ")=()", at)
    local word, stop
    if name then
      word, stop = value:match("^(" .. TOKEN .. ")()", after)
      if not word then word, stop = quoted(value, after) end
    end
    local key = name and name:gsub("[A-Z]", string.lower)
    if not word or seen[key] or #name > 40 then
      return nil, ("not a parameter at position %d: %s"):format(at, text.show(value, at))
    end
    seen[key] = true
    parameters[#parameters + 1] = { name, word }
    at = stop
  end
  return media, parameters
end

return content_type
