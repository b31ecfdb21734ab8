/* wire: see wire.h. */
#include "wire.h"

#include "scan.h"

#include <stdio.h>
#include <string.h>

enum { LINE_MAX = 65536, QUEUE_MAX = 16 << 20, AGREED_MAX = 2048 };

void smtp_wire_init(struct smtp_wire *wire, size_t expected)
{
	*wire = (struct smtp_wire){.expected = expected};
	smtp_buf_init(&wire->in, QUEUE_MAX);
	smtp_buf_init(&wire->out, QUEUE_MAX);
	smtp_buf_init(&wire->content, QUEUE_MAX);
	smtp_reply_init(&wire->reply);
	smtp_dots_init(&wire->dots, true);
	smtp_unlines_init(&wire->unlines);
}

void smtp_wire_wipe(struct smtp_wire *wire)
{
	smtp_buf_wipe(&wire->in);
	smtp_buf_wipe(&wire->out);
	smtp_buf_wipe(&wire->content);
	smtp_reply_wipe(&wire->reply);
	*wire = (struct smtp_wire){0};
}

/* Keeps the first error. */
static enum smtp_status keep(struct smtp_wire *wire, enum smtp_status status)
{
	if (status < 0 && wire->failed == SMTP_OK)
		wire->failed = status;
	return status;
}

static bool is_clean(const unsigned char *text, size_t length, bool utf8)
{
	size_t at = smtp_scan_printable(text, length);
	while (utf8 && at < length && text[at] >= 0x80) {
		at++;
		at += smtp_scan_printable(text + at, length - at);
	}
	return at == length;
}

enum smtp_status smtp_wire_command(struct smtp_wire *wire, const unsigned char *line, size_t length, bool utf8)
{
	unsigned char *spot;
	if (wire->failed)
		return wire->failed;
	if (!is_clean(line, length, utf8))
		return SMTP_E_INPUT;
	if (length > LINE_MAX)
		return SMTP_E_LIMIT;
	enum smtp_status status = smtp_buf_reserve(&wire->out, length + 2, &spot);
	if (status != SMTP_OK)
		return keep(wire, status);
	memcpy(spot, line, length);
	memcpy(spot + length, "\r\n", 2);
	smtp_buf_commit(&wire->out, length + 2);
	wire->expected++;
	return SMTP_OK;
}

enum smtp_status smtp_wire_commands(struct smtp_wire *wire, const unsigned char *block, size_t length, size_t count,
                                    bool utf8)
{
	unsigned char *spot;
	const unsigned char *end = block + length;
	if (wire->failed)
		return wire->failed;
	if (count == 0)
		return SMTP_E_INPUT;
	if (length > LINE_MAX || count > length + 1)
		return SMTP_E_LIMIT;
	enum smtp_status status = smtp_buf_reserve(&wire->out, length + count + 1, &spot);
	if (status != SMTP_OK)
		return keep(wire, status);
	for (size_t left = count; left > 0; left--) {
		const unsigned char *stop = memchr(block, '\n', (size_t)(end - block));
		/* the last line, and no other, has no LF */
		if ((stop == NULL) != (left == 1))
			return SMTP_E_INPUT;
		size_t size = (size_t)((stop ? stop : end) - block);
		if (!is_clean(block, size, utf8))
			return SMTP_E_INPUT;
		memcpy(spot, block, size);
		memcpy(spot + size, "\r\n", 2);
		spot += size + 2;
		block = stop ? stop + 1 : end;
	}
	smtp_buf_commit(&wire->out, length + count + 1);
	wire->expected += count;
	return SMTP_OK;
}

enum smtp_status smtp_wire_body(struct smtp_wire *wire, const unsigned char *bytes, size_t length)
{
	if (wire->failed)
		return wire->failed;
	return keep(wire, smtp_dots_update(&wire->dots, bytes, length, &wire->out));
}

enum smtp_status smtp_wire_pour(struct smtp_wire *wire, struct smtp_base64 *base64, const unsigned char *bytes,
                                size_t length)
{
	if (wire->failed)
		return wire->failed;
	/* a CR that waits for its LF */
	if (wire->dots.last == '\r' && keep(wire, smtp_dots_update(&wire->dots, "\n", 1, &wire->out)) != SMTP_OK)
		return wire->failed;
	size_t before = smtp_buf_length(&wire->out);
	enum smtp_status status = keep(wire, smtp_base64_update(base64, bytes, length, &wire->out));
	if (smtp_buf_length(&wire->out) > before)
		wire->dots.last = '\n';
	return status;
}

enum smtp_status smtp_wire_finish(struct smtp_wire *wire, size_t replies)
{
	if (wire->failed)
		return wire->failed;
	enum smtp_status status = keep(wire, smtp_dots_finish(&wire->dots, &wire->out));
	if (status == SMTP_OK)
		wire->expected += replies;
	return status;
}

enum smtp_status smtp_wire_chunk(struct smtp_wire *wire, const unsigned char *bytes, size_t length, bool last)
{
	char line[64];
	unsigned char *spot;
	if (wire->failed)
		return wire->failed;
	size_t size = (size_t)snprintf(line, sizeof line, "BDAT %zu%s\r\n", length, last ? " LAST" : "");
	/* all or nothing: a length must never go out without its octets */
	enum smtp_status status = smtp_buf_reserve(&wire->out, size + length, &spot);
	if (status != SMTP_OK)
		return keep(wire, status);
	memcpy(spot, line, size);
	memcpy(spot + size, bytes, length);
	smtp_buf_commit(&wire->out, size + length);
	wire->expected++;
	return SMTP_OK;
}

enum smtp_status smtp_wire_feed(struct smtp_wire *wire, const void *bytes, size_t length)
{
	if (wire->failed)
		return wire->failed;
	return keep(wire, smtp_buf_append(&wire->in, bytes, length));
}

enum smtp_status smtp_wire_reply(struct smtp_wire *wire)
{
	if (wire->failed)
		return wire->failed;
	if (wire->expected == 0)
		return keep(wire, SMTP_E_PROTOCOL);
	enum smtp_status status = keep(wire, smtp_reply_parse(&wire->reply, &wire->in, &wire->scanned));
	if (status == SMTP_OK)
		wire->expected--;
	return status;
}

enum smtp_status smtp_wire_agree(struct smtp_wire *wire, const char *classes)
{
	const unsigned char *line = smtp_buf_view(&wire->in);
	const unsigned char *end = line + smtp_buf_length(&wire->in);
	const unsigned char *first = line; /* of the reply's lines */
	size_t count = strlen(classes);
	/* a reply that is half read is reply's business */
	if (wire->failed || wire->reply.lines > 0 || wire->expected < count)
		return SMTP_E_INPUT;
	while (*classes) {
		const unsigned char *next = memchr(line, '\n', (size_t)(end - line));
		if (!next)
			return SMTP_MORE;
		/* one whose length is out of the ordinary is reply's business too: it knows the limits */
		if (next - line < 4 || next - first > AGREED_MAX || line[0] != (unsigned char)*classes ||
		    !smtp_reply_has_code(line, (size_t)(next - line)) || (*classes == '3' && memcmp(line, "354", 3) != 0) ||
		    memcmp(line, first, 3) != 0 || (line[3] != ' ' && line[3] != '-' && !(line[3] == '\r' && next - line == 4)))
			return SMTP_E_INPUT;
		if (line[3] != '-') {
			classes++;
			first = next + 1;
		}
		line = next + 1;
	}
	smtp_buf_drop(&wire->in, (size_t)(line - smtp_buf_view(&wire->in)));
	wire->scanned = 0;
	wire->expected -= count;
	return SMTP_OK;
}

size_t smtp_wire_unread(struct smtp_wire *wire)
{
	size_t blank = wire->reply.lines == 0 ? smtp_reply_blank(&wire->in) : 0;
	if (blank > 0) {
		smtp_buf_drop(&wire->in, blank);
		wire->scanned = 0;
	}
	return smtp_buf_length(&wire->in);
}

enum smtp_status smtp_wire_line(struct smtp_wire *wire, size_t *length)
{
	if (wire->failed)
		return wire->failed;
	const unsigned char *bytes = smtp_buf_view(&wire->in);
	size_t held = smtp_buf_length(&wire->in);
	const unsigned char *end = memchr(bytes + wire->scanned, '\n', held - wire->scanned);
	if (!end) {
		wire->scanned = held;
		return held > LINE_MAX ? keep(wire, SMTP_E_LIMIT) : SMTP_MORE;
	}
	wire->scanned = 0;
	size_t size = (size_t)(end - bytes);
	if (size > LINE_MAX)
		return keep(wire, SMTP_E_LIMIT);
	if (size == 0 || bytes[size - 1] != '\r' || memchr(bytes, '\r', size - 1) || memchr(bytes, '\0', size))
		return keep(wire, SMTP_E_PROTOCOL);
	*length = size - 1;
	return SMTP_OK;
}

void smtp_wire_line_taken(struct smtp_wire *wire, size_t length)
{
	smtp_buf_drop(&wire->in, length + 2);
	wire->scanned = 0;
}

enum smtp_status smtp_wire_content(struct smtp_wire *wire)
{
	size_t used = 0;
	if (wire->failed)
		return wire->failed;
	enum smtp_status status = smtp_unlines_update(&wire->unlines, smtp_buf_view(&wire->in), smtp_buf_length(&wire->in),
	                                              &used, &wire->content);
	smtp_buf_drop(&wire->in, used);
	wire->scanned = 0;
	return keep(wire, status);
}

enum smtp_status smtp_wire_octets(struct smtp_wire *wire, size_t most, size_t *moved)
{
	if (wire->failed)
		return wire->failed;
	*moved = smtp_buf_length(&wire->in) < most ? smtp_buf_length(&wire->in) : most;
	enum smtp_status status = smtp_buf_append(&wire->content, smtp_buf_view(&wire->in), *moved);
	smtp_buf_drop(&wire->in, *moved);
	wire->scanned = 0;
	return keep(wire, status);
}

enum smtp_status smtp_wire_respond(struct smtp_wire *wire, int code, const unsigned char *text, size_t length)
{
	if (wire->failed)
		return wire->failed;
	if (code < 200 || code > 599)
		return SMTP_E_INPUT;
	for (size_t i = 0; i < length; i++)
		if (text[i] != '\n' && !is_clean(text + i, 1, true))
			return SMTP_E_INPUT;
	for (;;) {
		const unsigned char *end = memchr(text, '\n', length);
		size_t size = end ? (size_t)(end - text) : length;
		char prefix[8];
		snprintf(prefix, sizeof prefix, "%03d%c", code % 1000, end ? '-' : ' ');
		enum smtp_status status = smtp_buf_append(&wire->out, prefix, 4);
		if (status == SMTP_OK)
			status = smtp_buf_append(&wire->out, text, size);
		if (status == SMTP_OK)
			status = smtp_buf_append(&wire->out, "\r\n", 2);
		if (status != SMTP_OK || !end)
			return keep(wire, status);
		text += size + 1;
		length -= size + 1;
	}
}
