/* buf: a byte queue with a cap. Bytes are appended at the end and dropped from the front.
 *
 * It never does I/O and never grows past its cap. Memory it gives up is wiped (credentials pass through). Called by
 * every room of the C core.
 */
#ifndef SMTP_BUF_H
#define SMTP_BUF_H

#include "status.h"

#include <stddef.h>

struct smtp_buf {
	unsigned char *data;
	size_t start; /* first byte not yet dropped */
	size_t end;   /* one past the last byte */
	size_t size;  /* bytes allocated */
	size_t cap;   /* most bytes it may hold at once */
};

void smtp_buf_init(struct smtp_buf *buf, size_t cap);

/* Frees the memory, wiped first; the queue is empty and usable again. */
void smtp_buf_wipe(struct smtp_buf *buf);

/* Room for `room` more bytes: *spot is where they go. Nothing is appended until smtp_buf_commit.
 * Errors: SMTP_E_MEMORY, SMTP_E_LIMIT. */
SMTP_MUST_USE enum smtp_status smtp_buf_reserve(struct smtp_buf *buf, size_t room, unsigned char **spot);
void smtp_buf_commit(struct smtp_buf *buf, size_t length);

/* Errors: SMTP_E_MEMORY, SMTP_E_LIMIT; then nothing was appended. */
SMTP_MUST_USE enum smtp_status smtp_buf_append(struct smtp_buf *buf, const void *bytes, size_t length);

/* Drops `length` bytes (at most all) from the front. */
void smtp_buf_drop(struct smtp_buf *buf, size_t length);

static inline size_t smtp_buf_length(const struct smtp_buf *buf)
{
	return buf->end - buf->start;
}

/* The bytes held; valid until the next call that changes the queue, and never NULL. */
static inline const unsigned char *smtp_buf_view(const struct smtp_buf *buf)
{
	return buf->data ? buf->data + buf->start : (const unsigned char *)"";
}

/* Overwrites memory in a way the compiler may not leave out. */
void smtp_wipe(void *bytes, size_t length);

#endif
