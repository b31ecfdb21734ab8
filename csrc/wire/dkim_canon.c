/* dkim_canon: see dkim_canon.h. */
#include "dkim_canon.h"

#include <stdint.h>
#include <string.h>

void smtp_canon_init(struct smtp_canon *canon, bool relaxed)
{
	*canon = (struct smtp_canon){.relaxed = relaxed};
}

static bool is_blank(const struct smtp_canon *canon, unsigned char byte)
{
	return canon->relaxed && (byte == ' ' || byte == '\t');
}

/* Text, with what was held back before it. */
static enum smtp_status put(struct smtp_canon *canon, const unsigned char *bytes, size_t length, struct smtp_buf *out)
{
	unsigned char *spot;
	size_t held = 2 * canon->ends + canon->blank;
	if (length > SIZE_MAX - held)
		return SMTP_E_LIMIT;
	enum smtp_status status = smtp_buf_reserve(out, held + length, &spot);
	if (status != SMTP_OK)
		return status;
	for (; canon->ends > 0; canon->ends--) {
		*spot++ = '\r';
		*spot++ = '\n';
	}
	if (canon->blank)
		*spot++ = ' ';
	memcpy(spot, bytes, length);
	smtp_buf_commit(out, held + length);
	canon->blank = false;
	canon->text = true;
	return SMTP_OK;
}

static size_t text_end(const struct smtp_canon *canon, const unsigned char *in, size_t at, size_t length)
{
	if (!canon->relaxed) {
		const unsigned char *cr = memchr(in + at, '\r', length - at);
		return cr ? (size_t)(cr - in) : length;
	}
	while (at < length && in[at] != '\r' && !is_blank(canon, in[at]))
		at++;
	return at;
}

static void end_line(struct smtp_canon *canon)
{
	canon->cr = false;
	canon->blank = false;
	if (canon->ends < SIZE_MAX / 4)
		canon->ends++;
}

enum smtp_status smtp_canon_update(struct smtp_canon *canon, const void *bytes, size_t length, struct smtp_buf *out)
{
	const unsigned char *in = bytes;
	enum smtp_status status = SMTP_OK;
	for (size_t at = 0; at < length && status == SMTP_OK;) {
		if (canon->cr && in[at] == '\n') {
			end_line(canon);
			at++;
		} else if (canon->cr) {
			canon->cr = false;
			status = put(canon, (const unsigned char *)"\r", 1, out);
		} else if (in[at] == '\r') {
			canon->cr = true;
			at++;
		} else if (is_blank(canon, in[at])) {
			canon->blank = true;
			at++;
		} else {
			size_t end = text_end(canon, in, at, length);
			status = put(canon, in + at, end - at, out);
			at = end;
		}
	}
	return status;
}

enum smtp_status smtp_canon_finish(struct smtp_canon *canon, struct smtp_buf *out)
{
	enum smtp_status status = SMTP_OK;
	if (canon->cr)
		status = put(canon, (const unsigned char *)"\r", 1, out);
	/* simple: a body without text becomes one empty line; relaxed: nothing */
	if (status == SMTP_OK && (canon->text || !canon->relaxed))
		status = smtp_buf_append(out, "\r\n", 2);
	smtp_canon_init(canon, canon->relaxed);
	return status;
}
