/* scan: see scan.h. Runs of printable ASCII are skipped 16 bytes at a time; the rest is looked at one by one. */
#include "scan.h"

#include "simd.h"
#include "text.h"

#include <stdint.h>

static bool is_printable(unsigned char byte)
{
	return byte >= 0x20 && byte < 0x7F;
}

#if SMTP_SIMD
/* A bit for each of 16 octets that is not printable: as signed bytes, those beyond ASCII are below the blank too. */
static unsigned others(__m128i chunk)
{
	__m128i delete = _mm_cmpeq_epi8(chunk, _mm_set1_epi8(0x7F));
	__m128i plain = _mm_andnot_si128(delete, _mm_cmpgt_epi8(chunk, _mm_set1_epi8(0x1F)));
	return ~(unsigned)_mm_movemask_epi8(plain) & 0xFFFFu;
}
#endif

size_t smtp_scan_printable(const unsigned char *bytes, size_t length)
{
	size_t at = 0;
#if SMTP_SIMD
	for (; length - at >= 16; at += 16) {
		unsigned found = others(_mm_loadu_si128((const __m128i *)(const void *)(bytes + at)));
		if (found)
			return at + (size_t)__builtin_ctz(found);
	}
#endif
	while (at < length && is_printable(bytes[at]))
		at++;
	return at;
}

size_t smtp_scan_copy(unsigned char *to, const unsigned char *bytes, size_t length)
{
	size_t at = 0;
#if SMTP_SIMD
	for (; length - at >= 16; at += 16) {
		__m128i chunk = _mm_loadu_si128((const __m128i *)(const void *)(bytes + at));
		_mm_storeu_si128((__m128i *)(void *)(to + at), chunk); /* what is not printable is written over */
		unsigned found = others(chunk);
		if (found)
			return at + (size_t)__builtin_ctz(found);
	}
#endif
	for (; at < length && is_printable(bytes[at]); at++)
		to[at] = bytes[at];
	return at;
}

static void note(size_t *first, size_t at)
{
	if (*first == SMTP_SCAN_NONE)
		*first = at;
}

static void end_line(struct smtp_scan *scan, size_t length)
{
	if (length > scan->longest)
		scan->longest = length;
}

void smtp_scan(struct smtp_scan *scan, const unsigned char *bytes, size_t length)
{
	*scan = (struct smtp_scan){SMTP_SCAN_NONE, SMTP_SCAN_NONE, SMTP_SCAN_NONE, SMTP_SCAN_NONE, 0, 0, false};
	size_t start = 0;
	for (size_t at = 0; (at += smtp_scan_printable(bytes + at, length - at)) < length;) {
		unsigned char byte = bytes[at];
		size_t size = 1;
		if (byte >= 0x80) {
			scan->eightbit = true;
			size = smtp_text_character(bytes + at, length - at);
			if (size == 0) {
				note(&scan->invalid, at);
				size = 1;
			}
		} else if (byte == '\r' || byte == '\n') {
			bool pair = byte == '\r' && at + 1 < length && bytes[at + 1] == '\n';
			end_line(scan, at - start);
			note(&scan->end, at);
			scan->lone += !pair;
			size += pair;
			start = at + size;
		} else {
			note(byte == '\t' ? &scan->blank : &scan->control, at);
		}
		at += size;
	}
	end_line(scan, length - start);
}

static unsigned hash(const unsigned char *word)
{
	uint32_t octets = (uint32_t)word[0] << 24 | (uint32_t)word[1] << 16 | (uint32_t)word[2] << 8 | word[3];
	return (octets * UINT32_C(2654435761)) >> 20; /* 12 bits, for 512 octets */
}

void smtp_sieve_add(unsigned char *sieve, const unsigned char *word)
{
	unsigned bit = hash(word);
	sieve[bit / 8] |= (unsigned char)(1U << bit % 8);
}

bool smtp_sieve_holds(const unsigned char *sieve, const unsigned char *text, size_t length)
{
	for (size_t at = 0; at + SMTP_SIEVE_WORD <= length; at++) {
		unsigned bit = hash(text + at);
		if (sieve[bit / 8] >> bit % 8 & 1)
			return true;
	}
	return false;
}
