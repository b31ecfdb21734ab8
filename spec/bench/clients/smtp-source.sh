#!/bin/sh
# smtp-source.sh WORK PORT N [RCPTS]: Postfix's smtp-source; keep, pool (CONNECTIONS).
exec smtp-source -d -s "${CONNECTIONS:-1}" -m "$3" -l 1024 -r "${4:-1}" \
	-f ada@example.org -t bob@example.net "127.0.0.1:$2"
