/* draft: pieces of a message that need no art: header fields of printable ASCII, folded, and bodies of ASCII text, with
 * CRLF line ends.
 *
 * It never says why something is not plain: that is for the complete grammar in lua/smtp/mail, which it must agree with
 * octet by octet in everything that it takes. It never allocates. Called by its binding. RFC
 * 5322 2.1.1, 2.2, 3.2.3, 3.4, 3.6.4, RFC 5321 4.1.2 and 4.5.3.1, RFC 2046 5.1.4.
 */
#ifndef SMTP_DRAFT_H
#define SMTP_DRAFT_H

#include <stdbool.h>
#include <stddef.h>

/* What is being written, into memory of the caller's. */
struct smtp_draft {
	char *bytes;
	size_t size;   /* of the memory */
	size_t length; /* octets written */
	size_t column; /* octets in the line of the field being written */
	bool empty;    /* that field has no word yet: the first one stays beside the name */
};

struct smtp_span {
	const char *bytes;
	size_t length;
};

void smtp_draft_init(struct smtp_draft *out, char *bytes, size_t size);

/* Whether it may name a field: RFC 5322 2.2. */
bool smtp_draft_is_name(struct smtp_span name);

/* All of these return false where something is not plain, or where there is no room: what is written is of no use then.
 * A field is its beginning, with a name that is one, its words and its end. */
bool smtp_draft_begin(struct smtp_draft *out, struct smtp_span name);
bool smtp_draft_end(struct smtp_draft *out);

/* An unstructured value: words with blanks between them, none that looks like an encoded word. */
bool smtp_draft_words(struct smtp_draft *out, struct smtp_span value);

/* The next mailbox of a comma-separated list, `Name <local@domain>` or `local@domain`. It is taken off the front of
 * `list`, with its comma; *address is where its address stands. `more`: others come behind this list. */
bool smtp_draft_mailbox(struct smtp_draft *out, struct smtp_span *list, bool more, struct smtp_span *address);

/* A mailbox that is given in two pieces; no name: of length 0. */
bool smtp_draft_named(struct smtp_draft *out, struct smtp_span name, struct smtp_span address, bool more);

/* Octets as they are, and as hexadecimal digits. */
bool smtp_draft_add(struct smtp_draft *out, struct smtp_span bytes);
bool smtp_draft_hex(struct smtp_draft *out, struct smtp_span bytes);

/* A message identifier: random octets at the domain of an address, which is the mailbox's above. */
bool smtp_draft_id(struct smtp_draft *out, struct smtp_span random, struct smtp_span address);

/* A text, with CR, LF and CRLF as CRLF. */
bool smtp_draft_text(struct smtp_draft *out, struct smtp_span text);

/* How many octets such a text has; 0: it is not plain, it has control bytes, bytes beyond ASCII or lines of more than
 * 998 octets, or is empty. */
size_t smtp_draft_text_size(struct smtp_span text);

/* A body with its fields in front: a text, html, or both as alternatives between boundaries of these octets. What is
 * not given has no bytes. */
bool smtp_draft_body(struct smtp_draft *out, struct smtp_span text, struct smtp_span html, struct smtp_span boundary);

#endif
