/* buf: see buf.h. Bytes move at most once per doubling, so appending and dropping are linear over a connection's
 * life. */
#include "buf.h"

#include <stdlib.h>
#include <string.h>

void smtp_wipe(void *bytes, size_t length)
{
#if defined(__GNUC__)
	memset(bytes, 0, length);
	__asm__ volatile("" : : "r"(bytes) : "memory"); /* somebody may read it: the memset has to stay */
#else
	volatile unsigned char *at = bytes;
	while (length--)
		*at++ = 0;
#endif
}

void smtp_buf_init(struct smtp_buf *buf, size_t cap)
{
	*buf = (struct smtp_buf){.cap = cap};
}

void smtp_buf_wipe(struct smtp_buf *buf)
{
	if (buf->data)
		smtp_wipe(buf->data, buf->size);
	free(buf->data);
	smtp_buf_init(buf, buf->cap);
}

enum smtp_status smtp_buf_reserve(struct smtp_buf *buf, size_t room, unsigned char **spot)
{
	size_t length = smtp_buf_length(buf);
	if (room > buf->cap || length > buf->cap - room)
		return SMTP_E_LIMIT;
	if (room > buf->size - buf->end) {
		if (room > buf->size - length || buf->start < length) {
			size_t size = buf->size ? buf->size : 512;
			/* Twice what it holds at least: else a queue that stays nearly full would be moved for every few bytes. */
			while (size < length + room || size / 2 < length)
				size *= 2;
			unsigned char *data = malloc(size);
			if (!data)
				return SMTP_E_MEMORY;
			if (buf->data) {
				memcpy(data, buf->data + buf->start, length);
				smtp_wipe(buf->data, buf->size);
			}
			free(buf->data);
			buf->data = data;
			buf->size = size;
		} else {
			memcpy(buf->data, buf->data + buf->start, length);
		}
		buf->start = 0;
		buf->end = length;
	}
	*spot = buf->data + buf->end;
	return SMTP_OK;
}

void smtp_buf_commit(struct smtp_buf *buf, size_t length)
{
	buf->end += length;
}

enum smtp_status smtp_buf_append(struct smtp_buf *buf, const void *bytes, size_t length)
{
	unsigned char *spot;
	enum smtp_status status;
	if (length == 0)
		return SMTP_OK;
	status = smtp_buf_reserve(buf, length, &spot);
	if (status != SMTP_OK)
		return status;
	memcpy(spot, bytes, length);
	smtp_buf_commit(buf, length);
	return SMTP_OK;
}

void smtp_buf_drop(struct smtp_buf *buf, size_t length)
{
	if (length < smtp_buf_length(buf)) {
		buf->start += length;
	} else {
		buf->start = 0;
		buf->end = 0;
	}
}
