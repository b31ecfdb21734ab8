-- The contact form of nginx.conf: its page, and what becomes of what a visitor writes.
local smtp = require "smtp"

local contact = {}

-- One for the worker: its connections are kept from one visitor to the next.
local pool, wrong = smtp.pool {
  url = os.getenv "SMTP_URL", server_name = os.getenv "SMTP_NAME", timeout = 30, attempts = 2,
}
if not pool then error(tostring(wrong), 0) end -- nginx logs a string

local ENTITIES = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;" }

local function page(status, values, words)
  local file = assert(io.open(ngx.config.prefix() .. "/contact.html"))
  local html = file:read "*a"
  file:close()
  ngx.status = status
  values.words = words
  values.state = status == 200 and "good" or "bad"
  ngx.print((html:gsub("{{(%w+)}}", function(name)
    return (tostring(values[name] or ""):gsub('[&<>"]', ENTITIES))
  end)))
end

function contact.show()
  page(200, {})
end

local function one_line(value)
  return type(value) == "string" and value:gsub("%s+", " ") or ""
end

-- What has been written; and whether into a field that no person sees.
local function written()
  ngx.req.read_body()
  local given = ngx.req.get_post_args()
  return { name = one_line(given.name), address = one_line(given.address),
    message = type(given.message) == "string" and given.message or "" }, (given.website or "") ~= ""
end

function contact.often()
  ngx.header["Retry-After"] = 10
  page(429, written(), "You have sent several messages just now. Please wait some seconds, then send this one.")
end

function contact.large()
  page(413, {}, "Your message is too long. Please send a shorter one.")
end

function contact.send()
  if ngx.req.get_method() ~= "POST" then return ngx.redirect("/", 303) end
  local form, by_a_program = written()
  if by_a_program then return page(200, {}, "Thank you.") end
  if form.name == "" or form.address == "" or not form.message:find "%S" then
    return page(400, form, "Please fill in all three fields.")
  end

  local receipt, err = pool:send {
    from = os.getenv "FROM", to = os.getenv "TO",
    reply_to = { name = form.name, address = form.address },
    subject = "Message from " .. form.name, text = form.message .. "\n",
  }
  if receipt then return page(200, {}, "Thank you, your message is on its way.") end
  ngx.log(ngx.ERR, "contact form: ", tostring(err))
  if err.kind == "input" then return page(400, form, "Please check your address.") end
  page(503, form, err.outcome == "unknown" and "Your message may have been sent; we could not make sure."
    or "Your message was not sent. Please try again later.")
end

return contact
