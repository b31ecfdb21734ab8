--- dkim: signatures that prove a message's domain (DKIM-Signature fields).
---
--- Does: checks what a signature is made with, before anything is sent; hashes the body in one pass, whatever the
--- number of signatures; signs each field from the last up, From and what may stand only once against additions too.
--- Never: keeps the body in memory, looks anything up in the DNS, shows any of a key in a reason.
--- Called by: compose.
--- RFC 6376; RFC 8301 (key sizes, SHA-256 alone), RFC 8463 (Ed25519), RFC 8058 4 (what of a list).
local core = require "smtp.core"
local header = require "smtp.mail.header"
local text = require "smtp.mail.text"

local dkim = {}

---@class smtp.dkim.signature
---@field domain string
---@field selector string
---@field signer userdata of smtp.tls
---@field names string[]?
---@field header "relaxed"|"simple"
---@field body "relaxed"|"simple"

local OPTIONS = {
  domain = true, selector = true, key = true, key_file = true, headers = true, canonicalization = true,
}

local FIELDS = {
  "From", "Subject", "Date", "To", "Cc", "Reply-To", "Sender", "Message-ID", "In-Reply-To", "References",
  "MIME-Version", "Content-Type", "Content-Transfer-Encoding", "List-Id", "List-Help", "List-Unsubscribe",
  "List-Unsubscribe-Post", "List-Subscribe", "List-Post", "List-Owner", "List-Archive",
}

-- Fields that may stand only once (RFC 5322 3.6, RFC 2045 3, RFC 2369 3.4): where there is one, none may be added.
local ONCE = {}
for _, name in ipairs(FIELDS) do
  ONCE[name:lower()] = true
end

-- These may repeat.
for _, name in ipairs { "Resent-Date", "Resent-From", "Resent-To", "Resent-Cc" } do
  FIELDS[#FIELDS + 1] = name
end

-- What is changed or taken out on the way, and what signs.
local UNSIGNED = {
  ["dkim-signature"] = true, ["return-path"] = true, received = true, bcc = true, ["resent-bcc"] = true,
}

local TAGS = "v=1; a=%s; c=%s/%s; d=%s; s=%s; t=%.0f; h=%s; bh=%s; b="
local KEY_LIMIT = 65536 -- octets of a key_file that are read
local BLOCK = 65536 -- octets of the body per step
local WIDTH = 78 -- RFC 5322 2.1.1

-- By bytes, whatever the locale.
local function lower(name)
  return (name:gsub("[A-Z]", string.lower))
end

-- RFC 6376 3.1 and 3.5: sub-domains of letters, digits and inner hyphens.
local function check_name(name, what)
  if type(name) ~= "string" then
    return nil, "a string is needed, not " .. type(name)
  elseif name:find("[\128-\255]") then
    return nil, "only ASCII may stand here, an international name in its xn-- form: " .. text.show(name)
  end
  for label in (name .. "."):gmatch("([^.]*)%.") do
    if #label > 63 or not label:find("^[A-Za-z0-9-]+$") or label:sub(1, 1) == "-" or label:sub(-1) == "-" then
      return nil, ("not a %s: %s"):format(what, text.show(name))
    end
  end
  return true
end

local SHORT = 40 -- octets; no key has so few, in whatever form

-- Whether it is a file's name for sure: in key_file there may be the key itself.
local function is_path(given)
  return given:find("[./]") ~= nil and (#given < SHORT or given:find(".", 1, true) ~= nil)
    and not given:find("[%c\128-\255]") and not given:find("-----", 1, true)
end

local function read_key(path)
  if type(path) ~= "string" then
    return nil, "a string is needed, not " .. type(path)
  elseif path == "" or path:find("[^\1-\255]") then -- the C library would stop reading the name at a NUL
    return nil, "not the name of a file"
  end
  local file, why = io.open(path, "rb")
  if not file then return nil, why:sub(1, #path + 2) == path .. ": " and why:sub(#path + 3) or "cannot be opened" end
  local pem
  pem, why = file:read(KEY_LIMIT + 1)
  file:close()
  if not pem then
    return nil, why or "the file is empty"
  elseif #pem > KEY_LIMIT then
    return nil, "too large for a private key"
  end
  return pem
end

local function open_signer(given)
  local option, pem, why, more = "key", given.key, nil, ""
  if (given.key == nil) == (given.key_file == nil) then
    return nil, "key: exactly one of key and key_file is needed"
  elseif given.key_file ~= nil then
    option = "key_file"
    pem, why = read_key(given.key_file)
    if type(given.key_file) == "string" and is_path(given.key_file) then more = ": " .. text.show(given.key_file) end
  elseif type(pem) ~= "string" then
    pem, why = nil, "a string is needed, not " .. type(pem)
  elseif is_path(pem) then
    more = "; the name of a file is given as key_file"
  end
  if not pem then return nil, option .. ": " .. why .. more end
  local found, tls = pcall(require, "smtp.tls") -- not there inside nginx
  if not found then return nil, option .. ": signing needs the module smtp.tls, which cannot be loaded here" end
  local signer
  signer, why = tls.signer(pem)
  if not signer then return nil, option .. ": " .. why .. more end
  return signer
end

local function check_headers(names)
  if type(names) ~= "table" then return nil, "a list of field names is needed, not " .. type(names) end
  local seen, list = {}, {}
  for i, name in ipairs(names) do
    local ok, why = header.check(name, "")
    if not ok then return nil, why end
    local key = lower(name)
    if name:find(";", 1, true) then -- the end of the tag
      return nil, "not a name that can be signed: " .. text.show(name)
    elseif UNSIGNED[key] then
      return nil, name .. " cannot be signed"
    elseif seen[key] then
      return nil, name .. " is named twice"
    end
    seen[key], list[i] = true, name
  end
  for key in pairs(names) do
    if not list[key] then return nil, "not a list of field names" end
  end
  if not seen.from then return nil, "From must be among them" end
  return list
end

local function check_one(given)
  if type(given) ~= "table" then return nil, "a table is needed, not " .. type(given) end
  for name in pairs(given) do
    if not OPTIONS[name] then return nil, ("%s: not an option of dkim"):format(text.show(tostring(name))) end
  end
  local ok, why = check_name(given.domain, "domain")
  if ok and not given.domain:find(".", 1, true) then ok, why = nil, "not a domain: " .. text.show(given.domain) end
  if not ok then return nil, "domain: " .. why end
  ok, why = check_name(given.selector, "selector")
  if ok and #given.selector + #"._domainkey." + #given.domain > 253 then
    ok, why = nil, "too long with the domain for a name in the DNS"
  end
  if not ok then return nil, "selector: " .. why end
  local names
  if given.headers ~= nil then
    names, why = check_headers(given.headers)
    if not names then return nil, "headers: " .. why end
  end
  local of_header, of_body = "relaxed", "relaxed"
  if given.canonicalization ~= nil then
    of_header, of_body = tostring(given.canonicalization):match("^(%l+)/(%l+)$")
    if not ((of_header == "relaxed" or of_header == "simple") and (of_body == "relaxed" or of_body == "simple")) then
      return nil, 'canonicalization: must be "relaxed/relaxed", "relaxed/simple", "simple/relaxed" or "simple/simple"'
    end
  end
  local signer
  signer, why = open_signer(given)
  if not signer then return nil, why end
  return {
    domain = given.domain, selector = given.selector, signer = signer, names = names,
    header = of_header, body = of_body,
  }
end

--- Checks what messages are to be signed with; reads `key_file`. Never yields.
---@param given smtp.DkimOptions|smtp.DkimOptions[] one, or a list: a message then gets a signature of each
---@return smtp.dkim.signature[]?
---@return string? reason it begins with the option's name ("domain: …"), in a list with "item 2: "
function dkim.new(given)
  if type(given) ~= "table" or given[1] == nil then
    local one, why = check_one(given)
    return one and { one }, why
  end
  local list = {}
  for i, item in ipairs(given) do
    local one, why = check_one(item)
    if not one then return nil, ("item %d: %s"):format(i, why) end
    list[i] = one
  end
  for key in pairs(given) do
    if not list[key] then return nil, ("%s: not an item of the list"):format(text.show(tostring(key))) end
  end
  return list
end

-- RFC 6376 3.4.1 and 3.4.2.
local function canonical(field, how)
  if how == "simple" then return field end
  local name, value = field:match("^([^:]*):(.*)$")
  value = value:gsub("\r\n", ""):gsub("[ \t]+", " "):gsub("^ ", ""):gsub(" $", "")
  return lower((name:gsub("[ \t]+$", ""))) .. ":" .. value .. "\r\n"
end

-- The fields' keys, and how many there are of each.
local function index(fields)
  local keys, count = {}, {}
  for i, field in ipairs(fields) do
    local key = field:match("^([\33-\57\59-\126]+)[ \t]*:")
    if not key or field:sub(-2) ~= "\r\n" then
      return nil, ("field %d of the header is not one: %s"):format(i, text.show(field))
    end
    key = lower(key)
    keys[i], count[key] = key, (count[key] or 0) + 1
  end
  return keys, count
end

--- Signs fields and an unsigned DKIM-Signature field (RFC 6376 3.7, the second hash).
---@param signer userdata of smtp.tls
---@param how "relaxed"|"simple" canonicalization of the header
---@param names string[] as in h=: each takes the last field of its name that is not taken yet, or nothing
---@param fields string[] "Name: value\r\n", folded or not
---@param unsigned string the DKIM-Signature field, with an empty b=
---@return string? signature
---@return string? reason
function dkim.sign(signer, how, names, fields, unsigned)
  local keys, why = index(fields)
  if not keys then return nil, why end
  local places = {} -- where the fields of a name are, in order
  for i, key in ipairs(keys) do
    places[key] = places[key] or {}
    table.insert(places[key], i)
  end
  local data = {}
  for _, name in ipairs(names) do
    local place = table.remove(places[lower(name)] or {})
    if place then data[#data + 1] = canonical(fields[place], how) end
  end
  data[#data + 1] = canonical(unsigned, how):sub(1, -3)
  return signer:sign(table.concat(data))
end

-- What h= lists: each field that is there, and once more where another must not be added.
local function signed_names(signature, count)
  local names = {}
  for _, name in ipairs(signature.names or FIELDS) do
    local key = lower(name)
    local times = count[key] or 0
    if (times > 0 and ONCE[key]) or (times == 0 and signature.names) then times = times + 1 end
    for _ = 1, times do
      names[#names + 1] = name
    end
  end
  return names
end

-- The hash of the body in each canonical form that a signature wants, base64.
local function body_hashes(signatures, content)
  local tls = require "smtp.tls"
  local runs = {}
  for _, signature in ipairs(signatures) do
    local form = signature.body
    if not runs[form] then
      local hasher, why = tls.hasher("sha256")
      if not hasher then return nil, why end
      runs[form] = { encoder = core.encoder("dkim-" .. form), hasher = hasher }
    end
  end
  local read = content.open()
  while true do
    local chunk, err = read()
    if err then
      return nil, err
    elseif not chunk then
      break
    end
    for from = 1, #chunk, BLOCK do
      local piece = chunk:sub(from, from + BLOCK - 1)
      for _, run in pairs(runs) do
        -- a run of empty lines grows without bound and must be known whole once text follows
        local fine, bytes = pcall(run.encoder.update, run.encoder, piece)
        if not fine then return nil, "the empty lines in a row are more than can be hashed: " .. tostring(bytes) end
        run.hasher:update(bytes)
      end
    end
  end
  local hashes = {}
  for form, run in pairs(runs) do
    run.hasher:update(run.encoder:finish())
    hashes[form] = core.base64(run.hasher:finish())
  end
  return hashes
end

-- The signature behind the "b=" that ends the field.
local function append(unsigned, signature)
  local line = unsigned:match("([^\r\n]*)\r\n$")
  local room = WIDTH - #line
  local out = { unsigned:sub(1, -3) .. signature:sub(1, room) }
  for from = room + 1, #signature, WIDTH - 1 do
    out[#out + 1] = signature:sub(from, from + WIDTH - 2)
  end
  return table.concat(out, "\r\n ") .. "\r\n"
end

--- The DKIM-Signature fields of a message, to stand before its header; none signs another. The body is read once.
--- Yields only if `content` does.
---@param signatures smtp.dkim.signature[] as dkim.new gives them
---@param fields string[] the header, "Name: value\r\n" each, folded or not
---@param content smtp.source the body behind the empty line, with CRLF line ends
---@param time number seconds since 1970
---@return string[]? "DKIM-Signature: …\r\n" each, folded
---@return string|smtp.Error|nil reason, or what `content` failed with
function dkim.fields(signatures, fields, content, time)
  local keys, count = index(fields)
  if not keys then
    return nil, count
  elseif not count.from then
    return nil, "the message has no From field, which must be signed"
  end
  local hashes, err = body_hashes(signatures, content)
  if not hashes then return nil, err end
  local out = {}
  for i, signature in ipairs(signatures) do
    local names = signed_names(signature, count)
    local unsigned, why = header.field("DKIM-Signature", TAGS:format(signature.signer:algorithm(), signature.header,
      signature.body, signature.domain, signature.selector, math.floor(time), table.concat(names, ": "),
      hashes[signature.body]))
    local bytes
    if unsigned then bytes, why = dkim.sign(signature.signer, signature.header, names, fields, unsigned) end
    if not bytes then return nil, why end
    out[i] = append(unsigned, core.base64(bytes))
  end
  return out
end

return dkim
