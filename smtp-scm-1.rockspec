rockspec_format = "3.0"
package = "smtp"
version = "scm-1"
source = {
  url = "git+https://example.org/smtp.git",
}
description = {
  summary = "Sends mail, safely by default",
  detailed = [[
    An SMTP submission client with verified TLS, login, MIME messages and streamed attachments, and a receiving
    side for tests and small receivers. Blocking, or in steps inside a loop of your own.
  ]],
  license = "MIT",
  labels = { "mail", "email", "smtp", "tls", "mime" },
}
dependencies = {
  "lua >= 5.1, < 5.6",
}
external_dependencies = {
  OPENSSL = { header = "openssl/ssl.h", library = "ssl" },
}
build = {
  type = "make",
  variables = {
    CC = "$(CC)",
    CFLAGS = "$(CFLAGS)",
    LIBFLAG = "$(LIBFLAG)",
    LUA_INCDIR = "$(LUA_INCDIR)",
    OPENSSL_INCDIR = "$(OPENSSL_INCDIR)",
    OPENSSL_LIBDIR = "$(OPENSSL_LIBDIR)",
    -- objects for one Lua's headers are never linked for another
    BUILD = "build/rock$(LUA_INCDIR)",
  },
  install_variables = {
    INST_LUADIR = "$(LUADIR)",
    INST_LIBDIR = "$(LIBDIR)",
  },
  copy_directories = {},
}
