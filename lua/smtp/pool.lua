--- pool: the door to client/pool by the name that is documented.
return require "smtp.client.pool"
