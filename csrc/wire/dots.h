/* dots: text lines as SMTP wants them, and back.
 *
 * Going out, every line end becomes CRLF, so that no lone CR or LF ever leaves (RFC 5321 2.3.8), and, for DATA, lines
 * that start with a dot get a second one (4.5.2). Coming in, the dots are taken off and the end of the data is found.
 * Each is one state machine that a chunk may interrupt anywhere. It never looks at what the lines mean, and never
 * limits their length. Called by the wire and by the binding of the codecs.
 */
#ifndef SMTP_DOTS_H
#define SMTP_DOTS_H

#include "buf.h"

#include <stdbool.h>

struct smtp_dots {
	bool stuff;         /* double the dots, and end with a lone one */
	unsigned char last; /* the byte before the next one; LF at the start */
};

void smtp_dots_init(struct smtp_dots *dots, bool stuff);

/* Appends the text with CR, LF and CRLF as CRLF.
 * Errors: SMTP_E_MEMORY, SMTP_E_LIMIT; some of it may be appended then. */
SMTP_MUST_USE enum smtp_status smtp_dots_update(struct smtp_dots *dots, const void *bytes, size_t length,
                                                struct smtp_buf *out);

/* Ends the last line if it is open, adds the lone dot when stuffing, and is ready for a new run.
 * Errors: SMTP_E_MEMORY, SMTP_E_LIMIT; then nothing is appended. */
SMTP_MUST_USE enum smtp_status smtp_dots_finish(struct smtp_dots *dots, struct smtp_buf *out);

enum smtp_unlines_state {
	SMTP_UNLINES_START,  /* at the start, or after CRLF */
	SMTP_UNLINES_TEXT,   /* inside a line */
	SMTP_UNLINES_CR,     /* after a CR inside a line */
	SMTP_UNLINES_DOT,    /* after a dot at the start of a line; it is not passed on */
	SMTP_UNLINES_DOT_CR, /* after that dot and CR; the CR is held back */
	SMTP_UNLINES_END,    /* after all of it */
};

struct smtp_unlines {
	enum smtp_unlines_state state;
	bool bare; /* a CR without LF, or LF without CR, has been seen: the message deserves to be refused */
};

void smtp_unlines_init(struct smtp_unlines *unlines);

/* Appends the content without its extra dots, up to and with the CRLF before the lone dot. Only CRLF "." CRLF ends it
 * ("." CRLF at the very start). A bare CR or LF is passed on as it is. *used is the number of bytes taken in.
 * SMTP_OK: the data has ended, the rest of the bytes is not content, and nothing more is taken in; init before the next
 * message. SMTP_MORE: it goes on.
 * Errors: SMTP_E_MEMORY, SMTP_E_LIMIT; some of it may be appended then. */
SMTP_MUST_USE enum smtp_status smtp_unlines_update(struct smtp_unlines *unlines, const unsigned char *bytes,
                                                   size_t length, size_t *used, struct smtp_buf *out);

#endif
