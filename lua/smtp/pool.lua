--- The pool by the name it is documented under: see smtp.client.pool.
return require "smtp.client.pool"
