/* wire: one connection's engine. It turns commands and content into bytes and bytes into replies; it does no I/O.
 *
 * Directions. Client: command, body and finish (or chunk) queue bytes that `out` holds until the caller has written
 * them; feed brings what the server sent, reply takes one reply after the other out of it. Server: feed brings what
 * the client sent, line and content (or octets) take it out, respond queues the answer.
 *
 * `command` is the single gate against injection: every line a client sends passes it. The first error is kept: a
 * wire that failed stays failed. Called by bind/wire. RFC 5321 2.3.8, 4.1.1.4, 4.2; RFC 3030 (BDAT).
 */
#ifndef SMTP_WIRE_H
#define SMTP_WIRE_H

#include "base64.h"
#include "dots.h"
#include "reply.h"

#include <stdbool.h>

struct smtp_wire {
	struct smtp_buf in;          /* from the peer, not yet understood */
	struct smtp_buf out;         /* for the peer, not yet written */
	struct smtp_buf content;     /* server: content taken out of `in` */
	size_t scanned;              /* how much of `in` is known to hold no line end */
	size_t expected;             /* client: replies the server still owes */
	struct smtp_reply reply;     /* client: the reply being read */
	struct smtp_dots dots;       /* client: normaliser and dot-stuffing of the body being sent */
	struct smtp_unlines unlines; /* server: their inverse */
	enum smtp_status failed;     /* the first error, or SMTP_OK */
};

/* `expected`: replies owed from the start (a client's greeting: 1). */
void smtp_wire_init(struct smtp_wire *wire, size_t expected);

/* Its queues then have a cap of 0: only init makes it a wire again. */
void smtp_wire_wipe(struct smtp_wire *wire);

/* Queues a line and its CRLF. Bytes 0x00-0x1f and 0x7f are refused, and those from 0x80 unless `utf8`; then nothing is
 * queued and the wire has not failed. Errors: SMTP_E_INPUT, SMTP_E_LIMIT (a line over 64 KB), SMTP_E_MEMORY. */
SMTP_MUST_USE enum smtp_status smtp_wire_command(struct smtp_wire *wire, const unsigned char *line, size_t length,
                                                 bool utf8);

/* Queues `count` lines, at least one, that stand in `block` with an LF between two; a block with another number of lines is refused, so
 * that no line can hold two. Errors and all else as for command. */
SMTP_MUST_USE enum smtp_status smtp_wire_commands(struct smtp_wire *wire, const unsigned char *block, size_t length,
                                                  size_t count, bool utf8);

/* Queues content behind a 354, normalised and dot-stuffed. Errors: SMTP_E_LIMIT, SMTP_E_MEMORY. */
SMTP_MUST_USE enum smtp_status smtp_wire_body(struct smtp_wire *wire, const unsigned char *bytes, size_t length);

/* The same through base64, straight to where it is written from: its lines need no second look. Errors: as body. */
SMTP_MUST_USE enum smtp_status smtp_wire_pour(struct smtp_wire *wire, struct smtp_base64 *base64,
                                              const unsigned char *bytes, size_t length);

/* Ends the content: completes the last line, queues "." CRLF; `replies` are then owed (LMTP: one a recipient). */
SMTP_MUST_USE enum smtp_status smtp_wire_finish(struct smtp_wire *wire, size_t replies);

/* Queues "BDAT length [LAST]" and its octets, as they are. */
SMTP_MUST_USE enum smtp_status smtp_wire_chunk(struct smtp_wire *wire, const unsigned char *bytes, size_t length,
                                               bool last);

SMTP_MUST_USE enum smtp_status smtp_wire_feed(struct smtp_wire *wire, const void *bytes, size_t length);

/* The next reply is in wire->reply. Errors: SMTP_E_PROTOCOL, also for a reply that nothing is waiting for. */
SMTP_MUST_USE enum smtp_status smtp_wire_reply(struct smtp_wire *wire);

/* Takes the next replies, unread, if they have come and are of these classes: a digit for each ("2223", where 3 is 354
 * alone). MORE: not all of them have come, and those that have are so. Errors: SMTP_E_INPUT where one is not, or is no
 * reply: nothing is taken then, and the wire has not failed. */
SMTP_MUST_USE enum smtp_status smtp_wire_agree(struct smtp_wire *wire, const char *classes);

/* Client. How many octets have come and are read by nobody, empty lines between replies left out. */
SMTP_MUST_USE size_t smtp_wire_unread(struct smtp_wire *wire);

/* Server. The next command line stands at the front of `in`, *length octets and a CRLF, until smtp_wire_line_taken.
 * Errors: SMTP_E_PROTOCOL (a bare LF, a CR or a NUL inside), SMTP_E_LIMIT (a line over 64 KB). */
SMTP_MUST_USE enum smtp_status smtp_wire_line(struct smtp_wire *wire, size_t *length);
void smtp_wire_line_taken(struct smtp_wire *wire, size_t length);

/* Server. Moves message content to wire->content until CRLF "." CRLF: OK at that end. */
SMTP_MUST_USE enum smtp_status smtp_wire_content(struct smtp_wire *wire);

/* Server. Moves up to `most` octets of a BDAT to wire->content; *moved tells how many. */
SMTP_MUST_USE enum smtp_status smtp_wire_octets(struct smtp_wire *wire, size_t most, size_t *moved);

/* Server. Queues a reply; `text` has its lines separated by LF. Errors: SMTP_E_INPUT (control bytes), as command. */
SMTP_MUST_USE enum smtp_status smtp_wire_respond(struct smtp_wire *wire, int code, const unsigned char *text,
                                                 size_t length);

#endif
