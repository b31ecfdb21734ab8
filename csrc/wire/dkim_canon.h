/* dkim_canon: a message's body in DKIM's canonical form, "simple" or "relaxed", as a stream. RFC 6376 3.4.3 and 3.4.4.
 *
 * Empty lines are held back as a number until text follows, since at the end they are dropped. Only CRLF ends a line; a
 * lone CR or LF is text. Header fields are not its business. Called by the binding of the codecs.
 */
#ifndef SMTP_DKIM_CANON_H
#define SMTP_DKIM_CANON_H

#include "buf.h"

#include <stdbool.h>

struct smtp_canon {
	bool relaxed;
	bool text;   /* some text has been written */
	bool blank;  /* relaxed: white space that is not written unless text follows on its line */
	bool cr;     /* the last byte was a CR: an LF now makes it a line end */
	size_t ends; /* line ends that are not written unless text follows */
};

void smtp_canon_init(struct smtp_canon *canon, bool relaxed);

/* Errors: SMTP_E_MEMORY, SMTP_E_LIMIT (the empty lines that text follows after all have no room in `out`); some of it may
 * be appended then. */
SMTP_MUST_USE enum smtp_status smtp_canon_update(struct smtp_canon *canon, const void *bytes, size_t length,
                                                 struct smtp_buf *out);

/* Ends the last line, and is ready for a new run. Errors: SMTP_E_MEMORY, SMTP_E_LIMIT. */
SMTP_MUST_USE enum smtp_status smtp_canon_finish(struct smtp_canon *canon, struct smtp_buf *out);

#endif
