/* reply: see reply.h. */
#include "reply.h"

#include "scan.h"
#include "text.h"

#include <string.h>

enum {
	LINE_MAX_READ = 65536,
	LINE_MAX_KEPT = 2048,
	LINES_MAX = 1000,
	TEXT_MAX = 65536,
	EXCERPT_MAX = 80,
	BLANK_MAX = 2048
};

void smtp_reply_init(struct smtp_reply *reply)
{
	*reply = (struct smtp_reply){0};
	smtp_buf_init(&reply->text, TEXT_MAX);
}

void smtp_reply_wipe(struct smtp_reply *reply)
{
	smtp_buf_wipe(&reply->text);
	smtp_reply_init(reply);
}

static bool is_digit(unsigned char byte)
{
	return byte >= '0' && byte <= '9';
}

bool smtp_reply_has_code(const unsigned char *line, size_t length)
{
	return length >= 3 && line[0] >= '2' && line[0] <= '5' && is_digit(line[1]) && is_digit(line[2]);
}

/* The length of the enhanced status code a text begins with, or 0: class "." subject "." detail (RFC 3463 2). */
static size_t enhanced_length(const unsigned char *text, size_t length, unsigned char class)
{
	size_t at = 1;
	if (length < 5 || text[0] != class)
		return 0;
	for (int part = 0; part < 2; part++) {
		size_t digits = 0;
		if (at >= length || text[at++] != '.')
			return 0;
		while (at < length && is_digit(text[at]) && digits < 3) {
			at++;
			digits++;
		}
		if (digits == 0)
			return 0;
	}
	return at == length || text[at] == ' ' ? at : 0;
}

/* The octets of the character a text begins with, or 0: it is none that may be shown, or a control (C1 among them). */
static size_t shown_length(const unsigned char *text, size_t length)
{
	if (text[0] < 0x80)
		return text[0] >= 0x20 && text[0] < 0x7f;
	return text[0] == 0xc2 && length > 1 && text[1] < 0xa0 ? 0 : smtp_text_character(text, length);
}

static enum smtp_status append_shown(struct smtp_buf *out, const unsigned char *text, size_t length)
{
	enum smtp_status status = SMTP_OK;
	size_t at = 0;
	while (at < length && status == SMTP_OK) {
		size_t run = smtp_scan_printable(text + at, length - at), size;
		while (at + run < length && (size = shown_length(text + at + run, length - at - run)) != 0)
			run += size;
		status = smtp_buf_append(out, text + at, run);
		at += run;
		if (at < length && status == SMTP_OK) {
			unsigned char escaped[4] = {'\\', 'x'};
			(void)smtp_text_hex(escaped + 2, text[at], false);
			status = text[at] == '\t' ? smtp_buf_append(out, " ", 1) : smtp_buf_append(out, escaped, sizeof escaped);
			at++;
		}
	}
	return status;
}

/* One line, its end taken off. OK when it was the reply's last. */
static enum smtp_status read_line(struct smtp_reply *reply, const unsigned char *line, size_t length)
{
	enum smtp_status status = SMTP_OK;
	if (!smtp_reply_has_code(line, length))
		return SMTP_E_PROTOCOL;
	if (length > 3 && line[3] != ' ' && line[3] != '-')
		return SMTP_E_PROTOCOL;
	int code = (line[0] - '0') * 100 + (line[1] - '0') * 10 + (line[2] - '0');
	if ((reply->lines > 0 && code != reply->code) || reply->lines == LINES_MAX)
		return SMTP_E_PROTOCOL;
	bool last = length == 3 || line[3] == ' ';
	const unsigned char *text = line + (length > 3 ? 4 : 3);
	length -= length > 3 ? 4 : 3;
	size_t enhanced = enhanced_length(text, length, line[0]);
	if (enhanced > 0) {
		if (reply->enhanced[0] == '\0' && enhanced < sizeof reply->enhanced) {
			memcpy(reply->enhanced, text, enhanced);
			reply->enhanced[enhanced] = '\0';
		}
		if (enhanced < length)
			enhanced++;
		text += enhanced;
		length -= enhanced;
	}
	if (reply->lines > 0)
		status = smtp_buf_append(&reply->text, "\n", 1);
	if (status == SMTP_OK)
		status = append_shown(&reply->text, text, length < LINE_MAX_KEPT ? length : LINE_MAX_KEPT);
	if (status != SMTP_OK)
		return status == SMTP_E_LIMIT ? SMTP_E_PROTOCOL : status;
	reply->code = code;
	reply->lines++;
	return last ? SMTP_OK : SMTP_MORE;
}

/* What is no reply is kept in its place, as far as a person needs to see what it is. */
static void keep_excerpt(struct smtp_reply *reply, const unsigned char *line, size_t length)
{
	smtp_buf_drop(&reply->text, smtp_buf_length(&reply->text));
	if (append_shown(&reply->text, line, length < EXCERPT_MAX ? length : EXCERPT_MAX) != SMTP_OK)
		smtp_buf_drop(&reply->text, smtp_buf_length(&reply->text));
}

size_t smtp_reply_blank(const struct smtp_buf *in)
{
	const unsigned char *bytes = smtp_buf_view(in);
	size_t length = smtp_buf_length(in), at = 0;
	for (;;) {
		if (at < length && bytes[at] == '\n')
			at++;
		else if (length - at >= 2 && bytes[at] == '\r' && bytes[at + 1] == '\n')
			at += 2;
		else
			return at;
	}
}

enum smtp_status smtp_reply_parse(struct smtp_reply *reply, struct smtp_buf *in, size_t *scanned)
{
	enum smtp_status status = SMTP_MORE;
	if (*scanned == 0 && reply->lines == 0) {
		reply->enhanced[0] = '\0';
		smtp_buf_drop(&reply->text, smtp_buf_length(&reply->text));
	}
	size_t blank = reply->lines == 0 ? smtp_reply_blank(in) : 0;
	if (blank > 0) {
		smtp_buf_drop(in, blank);
		*scanned = 0;
		reply->blank += blank;
		if (reply->blank > BLANK_MAX)
			return SMTP_E_PROTOCOL;
	}
	while (status == SMTP_MORE) {
		const unsigned char *line = smtp_buf_view(in);
		size_t length = smtp_buf_length(in);
		const unsigned char *end = memchr(line + *scanned, '\n', length - *scanned);
		*scanned = end ? 0 : length;
		if (!end)
			return length > LINE_MAX_READ ? SMTP_E_PROTOCOL : SMTP_MORE;
		size_t size = (size_t)(end - line);
		if (size > LINE_MAX_READ)
			return SMTP_E_PROTOCOL;
		size_t shown = size > 0 && line[size - 1] == '\r' ? size - 1 : size;
		status = read_line(reply, line, shown);
		if (status == SMTP_E_PROTOCOL)
			keep_excerpt(reply, line, shown);
		smtp_buf_drop(in, size + 1);
	}
	if (status == SMTP_OK) { /* the next call begins a new reply */
		reply->lines = 0;
		reply->blank = 0;
	}
	return status;
}

static bool is_of_id(char c)
{
	return is_digit((unsigned char)c) || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
	       (c != '\0' && strchr("-_.+/=@,:", c));
}

/* The octets of the id at `id`; 0: what stands there is none, or not the whole of one. */
static size_t id_size(const char *id, size_t length)
{
	size_t size = 0;
	while (size < length && is_of_id(id[size]))
		size++;
	if (size < length && (id[size] == '\0' || !strchr(" \n;)]", id[size])))
		return 0;
	while (size > 0 && strchr(".,:", id[size - 1]))
		size--; /* a sentence's end */
	return size;
}

const char *smtp_reply_queue_id(const char *text, size_t length, size_t *size, bool *numbers)
{
	static const char words[] = "queued as ";
	*numbers = false;
	for (const char *at = text; at < text + length; at++) {
		size_t left = (size_t)(text + length - at);
		*numbers = *numbers || is_digit((unsigned char)*at);
		if (*at == words[0] && left >= sizeof words && memcmp(at, words, sizeof words - 1) == 0) {
			at += sizeof words - 1;
			*size = id_size(at, left - (sizeof words - 1));
			return *size > 0 ? at : NULL;
		}
	}
	return NULL;
}
