/* idn: a domain with characters beyond ASCII in the form DNS and SMTP know, A-labels. libidn2 does the work where the
 * host has it: it is looked for at run time, nothing links it. Never says that what comes out is a host name (a "_" may
 * be in it): that is for the caller. Called by bind/net. RFC 5890, RFC 5891; UTS 46, non-transitional. */
#ifndef SMTP_IDN_H
#define SMTP_IDN_H

#include "../wire/status.h"

#include <stddef.h>

struct smtp_idn {
	char ascii[256];    /* A-labels */
	char unicode[1024]; /* the same domain as U-labels */
	const char *reason; /* why there is neither, in words that live on; or NULL */
};

/* Errors: SMTP_E_MISSING; SMTP_E_INPUT, and the reason. */
SMTP_MUST_USE enum smtp_status smtp_idn_convert(struct smtp_idn *out, const char *domain, size_t length);

#endif
