/* reply: the incremental parser of SMTP replies: bytes in, one reply out (RFC 5321 4.2, RFC 2034).
 *
 * It takes CRLF or bare LF as a line end, one code throughout a reply, and caps everything: a line over 64 KB, a
 * reply over 1000 lines or 64 KB of text, or one behind 2 KB of empty lines is a broken protocol; of each line 2 KB are
 * kept. Control bytes and invalid UTF-8 reach nobody: they are shown as \xNN. Called by wire only.
 */
#ifndef SMTP_REPLY_H
#define SMTP_REPLY_H

#include "buf.h"

#include <stdbool.h>

struct smtp_reply {
	int code;             /* 0 until the first line has been read */
	unsigned lines;       /* lines read so far */
	size_t blank;         /* octets of empty lines before it */
	char enhanced[12];    /* "5.1.1", or "" */
	struct smtp_buf text; /* lines joined by LF, without codes */
};

void smtp_reply_init(struct smtp_reply *reply);
void smtp_reply_wipe(struct smtp_reply *reply);

/* Whether a line, its end taken off or not, begins with the code of a reply. */
SMTP_MUST_USE bool smtp_reply_has_code(const unsigned char *line, size_t length);

/* How many octets of empty lines there are before anything else: some servers send one behind a reply. */
SMTP_MUST_USE size_t smtp_reply_blank(const struct smtp_buf *in);

/* Reads lines from `in`, dropping them, and empty ones before a reply; *scanned is how much of it is known to hold no line
 * end (kept by the caller, 0 at first). OK: `reply` is complete, and the next call begins a new one. MORE: feed `in`.
 * Errors: SMTP_E_PROTOCOL, `text` then holds the beginning of the line that is none of a reply; SMTP_E_MEMORY. */
SMTP_MUST_USE enum smtp_status smtp_reply_parse(struct smtp_reply *reply, struct smtp_buf *in, size_t *scanned);

/* Where a reply's text names the message's queue id as Postfix does, "queued as 4Zr0sX1mY2z3"; NULL: nowhere. *numbers:
 * there is a digit at all, as in every other form too. */
const char *smtp_reply_queue_id(const char *text, size_t length, size_t *size, bool *numbers);

#endif
