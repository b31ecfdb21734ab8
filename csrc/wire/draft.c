/* draft: see draft.h. What is rare is refused rather than understood: an IP address for a domain, an encoded word, a
 * name with escapes in it. */
#include "draft.h"

#include "scan.h"
#include "text.h"

#include <stdint.h>
#include <string.h>

enum {
	WIDTH = 78,   /* RFC 5322 2.1.1, what a line should fit */
	LIMIT = 998,  /* what it must */
	WORD = 900,   /* the longest word of a text: it fits on a line whatever stands beside it */
	NAME = 76,    /* of a field */
	LOCAL = 64,   /* RFC 5321 4.5.3.1.1 */
	DOMAIN = 255, /* RFC 5321 4.5.3.1.2 */
	LABEL = 63,   /* RFC 1035 2.3.4 */
};

static struct smtp_span span(const char *bytes, size_t length)
{
	return (struct smtp_span){bytes, length};
}

static bool is_alphanumeric(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

/* RFC 5322 3.2.3 */
static bool is_atext(char c)
{
	/* a bit for each character of ASCII */
	static const uint32_t bits[4] = {0, 0xA3FFACFA, 0xC7FFFFFE, 0x7FFFFFFF};
	unsigned char octet = (unsigned char)c;
	return octet < 128 && bits[octet / 32] >> octet % 32 & 1;
}

static bool is_printable(char c)
{
	return c >= ' ' && c <= '~';
}

static bool looks_encoded(struct smtp_span s)
{
	const char *at = s.bytes;
	const char *end = s.bytes + s.length;
	while (at < end && (at = memchr(at, '=', (size_t)(end - at)))) {
		at++;
		if (at < end && *at == '?')
			return true;
	}
	return false;
}

static bool add(struct smtp_draft *out, const char *bytes, size_t length)
{
	if (length > out->size - out->length)
		return false;
	memcpy(out->bytes + out->length, bytes, length);
	out->length += length;
	out->column += length;
	return true;
}

/* Makes place for a word and the blanks before it: that is where a line may end. */
static bool place(struct smtp_draft *out, size_t length)
{
	if (!out->empty && out->column + length > WIDTH) {
		if (!add(out, "\r\n", 2))
			return false;
		out->column = 0;
	}
	out->empty = false;
	return true;
}

void smtp_draft_init(struct smtp_draft *out, char *bytes, size_t size)
{
	*out = (struct smtp_draft){.bytes = bytes, .size = size};
}

bool smtp_draft_is_name(struct smtp_span name)
{
	for (size_t i = 0; i < name.length; i++) {
		if (!is_printable(name.bytes[i]) || name.bytes[i] == ' ' || name.bytes[i] == ':')
			return false;
	}
	return name.length > 0 && name.length <= NAME;
}

bool smtp_draft_begin(struct smtp_draft *out, struct smtp_span name)
{
	out->column = 0;
	out->empty = true;
	return add(out, name.bytes, name.length) && add(out, ":", 1);
}

bool smtp_draft_end(struct smtp_draft *out)
{
	return add(out, "\r\n", 2);
}

bool smtp_draft_words(struct smtp_draft *out, struct smtp_span value)
{
	const char *s = value.bytes;
	if (value.length == 0 || s[0] == ' ' || s[value.length - 1] == ' ' || looks_encoded(value))
		return false;
	for (size_t at = 0; at < value.length;) {
		size_t start = at;
		while (s[at] == ' ')
			at++;
		size_t word = at;
		while (at < value.length && is_printable(s[at]) && s[at] != ' ')
			at++;
		if (at == word || at - start > WORD)
			return false;
		size_t blank = start == 0; /* between name and value */
		if (!place(out, blank + at - start) || !add(out, " ", blank) || !add(out, s + start, at - start))
			return false;
	}
	return true;
}

/* The length of the dot-atom at the start, 0: there is none, or it is no plain local part. */
static size_t local_part(struct smtp_span s)
{
	size_t at = 0;
	for (; at < s.length; at++) {
		bool dot = s.bytes[at] == '.';
		if (!dot && !is_atext(s.bytes[at]))
			break;
		if (dot && (at == 0 || s.bytes[at - 1] == '.'))
			return 0;
	}
	if (at > LOCAL || (at > 0 && s.bytes[at - 1] == '.') || looks_encoded(span(s.bytes, at)))
		return 0;
	return at;
}

/* The same of the domain there. */
static size_t domain(struct smtp_span s)
{
	bool named = false; /* a letter: digits and dots may be an IP address */
	size_t at = 0;
	for (;; at++) {
		size_t label = at;
		for (; at < s.length && (is_alphanumeric(s.bytes[at]) || s.bytes[at] == '-'); at++)
			named = named || s.bytes[at] > '9';
		if (at == label || at - label > LABEL || s.bytes[label] == '-' || s.bytes[at - 1] == '-')
			return 0;
		if (at == s.length || s.bytes[at] != '.')
			break;
	}
	return named && at <= DOMAIN ? at : 0;
}

static size_t address_length(struct smtp_span s)
{
	size_t at = local_part(s);
	if (at == 0 || at == s.length || s.bytes[at] != '@')
		return 0;
	at++;
	size_t host = domain(span(s.bytes + at, s.length - at));
	return host ? at + host : 0;
}

static bool put_quoted(struct smtp_draft *out, struct smtp_span name)
{
	return place(out, name.length + 3) && add(out, " \"", 2) && add(out, name.bytes, name.length) && add(out, "\"", 1);
}

static bool put_atoms(struct smtp_draft *out, struct smtp_span name)
{
	const char *end = name.bytes + name.length;
	for (const char *at = name.bytes; at < end;) {
		const char *blank = memchr(at, ' ', (size_t)(end - at));
		size_t length = (size_t)((blank ? blank : end) - at);
		if (!place(out, length + 1) || !add(out, " ", 1) || !add(out, at, length))
			return false;
		at += length + 1;
	}
	return true;
}

/* A display name: atoms where they say the same, else a quoted string. */
static bool put_name(struct smtp_draft *out, struct smtp_span name)
{
	bool quotes = false;
	if (name.length > WIDTH || looks_encoded(name))
		return false;
	for (size_t i = 0; i < name.length; i++) {
		char c = name.bytes[i];
		if (!is_printable(c) || c == '"' || c == '\\')
			return false;
		if (c == ' ')
			quotes = quotes || i == 0 || i + 1 == name.length || name.bytes[i - 1] == ' ';
		else
			quotes = quotes || !is_atext(c);
	}
	return quotes ? put_quoted(out, name) : put_atoms(out, name);
}

static bool put(struct smtp_draft *out, struct smtp_span name, struct smtp_span address, bool comma)
{
	size_t angle = name.length > 0;
	return (!angle || put_name(out, name)) && place(out, 1 + address.length + 2 * angle + comma) &&
	       add(out, " <", 1 + angle) && add(out, address.bytes, address.length) && add(out, ">", angle) &&
	       add(out, ",", comma);
}

bool smtp_draft_named(struct smtp_draft *out, struct smtp_span name, struct smtp_span address, bool more)
{
	return address.length > 0 && address_length(address) == address.length && put(out, name, address, more);
}

static size_t skip(struct smtp_span s, size_t at)
{
	while (at < s.length && s.bytes[at] == ' ')
		at++;
	return at;
}

/* Where the display name at `at` ends, at a blank or "<"; a failure is the caller's to see, there is no "<" then. */
static size_t name_end(struct smtp_span s, size_t at)
{
	size_t last = at;
	while (at < s.length && (s.bytes[at] == '.' || is_atext(s.bytes[at]))) {
		while (at < s.length && (s.bytes[at] == '.' || is_atext(s.bytes[at])))
			at++;
		last = at;
		if (at < s.length && s.bytes[at] == ' ')
			at++;
	}
	return last;
}

bool smtp_draft_mailbox(struct smtp_draft *out, struct smtp_span *list, bool more, struct smtp_span *address)
{
	struct smtp_span name = {"", 0};
	size_t at = skip(*list, 0);
	size_t length = address_length(span(list->bytes + at, list->length - at));
	bool angle = length == 0;
	if (angle) {
		if (at < list->length && list->bytes[at] == '"') {
			const char *quote = memchr(list->bytes + at + 1, '"', list->length - at - 1);
			if (!quote || quote == list->bytes + at + 1)
				return false;
			name = span(list->bytes + at + 1, (size_t)(quote - list->bytes) - at - 1);
			at += name.length + 2;
		} else {
			name = span(list->bytes + at, name_end(*list, at) - at);
			at += name.length;
		}
		at = skip(*list, at);
		if (at == list->length || list->bytes[at] != '<')
			return false;
		at++;
		length = address_length(span(list->bytes + at, list->length - at));
	}
	if (length == 0)
		return false;
	*address = span(list->bytes + at, length);
	at += length;
	if (angle && (at == list->length || list->bytes[at++] != '>'))
		return false;
	at = skip(*list, at);
	bool comma = at < list->length;
	if (comma && (list->bytes[at++] != ',' || skip(*list, at) == list->length))
		return false;
	*list = span(list->bytes + at, list->length - at);
	return put(out, name, *address, comma || more);
}

bool smtp_draft_add(struct smtp_draft *out, struct smtp_span bytes)
{
	return add(out, bytes.bytes, bytes.length);
}

bool smtp_draft_id(struct smtp_draft *out, struct smtp_span random, struct smtp_span address)
{
	const char *at = memchr(address.bytes, '@', address.length);
	size_t host = at ? address.length - (size_t)(at + 1 - address.bytes) : 0;
	if (host == 0 || domain(span(at + 1, host)) != host)
		return false;
	return add(out, "<", 1) && smtp_draft_hex(out, random) && add(out, at, host + 1) && add(out, ">", 1);
}

bool smtp_draft_hex(struct smtp_draft *out, struct smtp_span bytes)
{
	if (out->size - out->length < 2 * bytes.length)
		return false;
	for (size_t i = 0; i < bytes.length; i++) {
		(void)smtp_text_hex((unsigned char *)out->bytes + out->length, (unsigned char)bytes.bytes[i], false);
		out->length += 2;
	}
	return true;
}

size_t smtp_draft_text_size(struct smtp_span text)
{
	struct smtp_scan scan;
	smtp_scan(&scan, (const unsigned char *)text.bytes, text.length);
	if (scan.control != SMTP_SCAN_NONE || scan.eightbit || scan.longest > LIMIT)
		return 0;
	return text.length + scan.lone;
}

bool smtp_draft_text(struct smtp_draft *out, struct smtp_span text)
{
	const char *end = text.bytes + text.length;
	const char *line = text.bytes;
	for (const char *at = line; at < end;) {
		size_t left = (size_t)(end - at);
		if (left > out->size - out->length)
			return false;
		size_t run = smtp_scan_copy((unsigned char *)out->bytes + out->length, (const unsigned char *)at, left);
		out->length += run;
		at += run;
		if (at == end)
			break;
		if (*at == '\t') {
			out->bytes[out->length++] = *at++;
			continue;
		}
		if ((*at != '\r' && *at != '\n') || at - line > LIMIT || !add(out, "\r\n", 2))
			return false;
		at += 1 + (*at == '\r' && at + 1 < end && at[1] == '\n');
		line = at;
	}
	return text.length > 0 && end - line <= LIMIT;
}

static bool put_part(struct smtp_draft *out, struct smtp_span type, struct smtp_span text)
{
	static const char rest[] = "; charset=utf-8\r\nContent-Transfer-Encoding: 7bit\r\n\r\n";
	return add(out, type.bytes, type.length) && add(out, rest, sizeof rest - 1) && smtp_draft_text(out, text);
}

static bool put_delimiter(struct smtp_draft *out, struct smtp_span boundary, struct smtp_span end)
{
	return add(out, "\r\n--=_", 6) && smtp_draft_hex(out, boundary) && add(out, end.bytes, end.length);
}

bool smtp_draft_body(struct smtp_draft *out, struct smtp_span text, struct smtp_span html, struct smtp_span boundary)
{
	static const char several[] = "Content-Type: multipart/alternative; boundary=\"=_";
	const struct smtp_span plain = {"Content-Type: text/plain", 24}, markup = {"Content-Type: text/html", 23};
	const struct smtp_span next = {"\r\n", 2}, last = {"--\r\n", 4};
	if (text.bytes && html.bytes)
		return add(out, several, sizeof several - 1) && smtp_draft_hex(out, boundary) && add(out, "\"\r\n", 3) &&
		       put_delimiter(out, boundary, next) && put_part(out, plain, text) && put_delimiter(out, boundary, next) &&
		       put_part(out, markup, html) && put_delimiter(out, boundary, last);
	if (!(text.bytes ? put_part(out, plain, text) : html.bytes && put_part(out, markup, html)))
		return false;
	return out->bytes[out->length - 1] == '\n' || add(out, "\r\n", 2);
}
