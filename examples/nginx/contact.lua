-- The contact form of nginx.conf: its page, and what becomes of what a visitor writes.
local smtp = require "smtp"

local contact = {}

-- One for the worker: its connections are kept from one visitor to the next.
local pool = assert(smtp.pool {
  url = os.getenv "SMTP_URL", server_name = os.getenv "SMTP_NAME", timeout = 30, attempts = 2,
})

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

function contact.send()
  if ngx.req.get_method() ~= "POST" then return ngx.redirect("/", 303) end
  ngx.req.read_body()
  local given = ngx.req.get_post_args()
  local form = { name = one_line(given.name), address = one_line(given.address),
    message = type(given.message) == "string" and given.message or "" }
  if (given.website or "") ~= "" then return page(200, {}, "Thank you.") end -- no person sees that field
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
