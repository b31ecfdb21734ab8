/* text: what every room has to know of characters: where one of UTF-8 ends (RFC 3629), and a byte's hexadecimal digits.
 *
 * It knows nothing of what the text is for. Inline, since it stands in the loops of its callers. Called by all rooms.
 */
#ifndef SMTP_TEXT_H
#define SMTP_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline bool smtp_text_within(unsigned char byte, unsigned char low, unsigned char high)
{
	return byte >= low && byte <= high;
}

/* The octets of the character beyond ASCII at `bytes`, of which `left` (at least one) are there; 0: it is none, or cut. */
static inline size_t smtp_text_character(const unsigned char *bytes, size_t left)
{
	unsigned char lead = bytes[0];
	size_t size = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
	if (!smtp_text_within(lead, 0xC2, 0xF4) || left < size)
		return 0;
	/* the second byte tells overlong forms, surrogates and numbers too high */
	unsigned char low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
	unsigned char high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
	if (!smtp_text_within(bytes[1], low, high))
		return 0;
	for (size_t i = 2; i < size; i++) {
		if (!smtp_text_within(bytes[i], 0x80, 0xBF))
			return 0;
	}
	return size;
}

/* The number of such a character, which has `size` octets. */
static inline uint32_t smtp_text_code(const unsigned char *bytes, size_t size)
{
	uint32_t code = bytes[0] & (0xFFu >> (size + 1));
	for (size_t i = 1; i < size; i++)
		code = code << 6 | (bytes[i] & 0x3F);
	return code;
}

/* Writes a byte's two digits; returns where the next ones go. */
static inline unsigned char *smtp_text_hex(unsigned char *spot, unsigned char byte, bool capitals)
{
	const char *digits = capitals ? "0123456789ABCDEF" : "0123456789abcdef";
	*spot++ = (unsigned char)digits[byte >> 4];
	*spot++ = (unsigned char)digits[byte & 15];
	return spot;
}

#endif
