/* saslprep: a user name or password with characters beyond ASCII in the one form both sides of a login compute with.
 * libidn does the work where the host has it: it is looked for at run time, nothing links it. Called by bind/sign.
 * RFC 4013 as for stored strings: what Unicode 3.2 did not know is refused. */
#ifndef SMTP_SASLPREP_H
#define SMTP_SASLPREP_H

#include "../wire/status.h"

#include <stddef.h>

enum { SMTP_SASLPREP_MAX = 4096 };

/* `prepared` ends in a NUL. Errors: SMTP_E_MISSING; SMTP_E_INPUT, and the reason in words that live on. */
SMTP_MUST_USE enum smtp_status smtp_saslprep(char prepared[SMTP_SASLPREP_MAX], const char *text, size_t length,
                                             const char **reason);

#endif
