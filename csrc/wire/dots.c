/* dots: see dots.h. Both directions copy whole runs and stop only where a byte has to be put in or taken out. */
#include "dots.h"

#include "simd.h"

#include <stdint.h>
#include <string.h>

enum {
	RUN = 16384, /* the most that is looked at before it is copied, so that the copy finds it in the cache */
};

/* Text as it should be has an LF after each CR, and nowhere else. */
static bool special(unsigned char last, unsigned char byte)
{
	return (byte == '\n') != (last == '\r') || (byte == '.' && last == '\n');
}

#if SMTP_SIMD
/* Bit by bit, special() of 64 bytes and those before them. */
SMTP_AVX2 static size_t find_avx2(const unsigned char *bytes, size_t at, size_t length)
{
	const __m256i cr = _mm256_set1_epi8('\r');
	const __m256i lf = _mm256_set1_epi8('\n');
	const __m256i dot = _mm256_set1_epi8('.');
	uint64_t after_cr = bytes[at - 1] == '\r';
	uint64_t after_lf = bytes[at - 1] == '\n';
	for (; length - at >= 64; at += 64) {
		__m256i low = _mm256_loadu_si256((const __m256i *)(const void *)(bytes + at));
		__m256i high = _mm256_loadu_si256((const __m256i *)(const void *)(bytes + at + 32));
#define WHERE(what)                                                                                                    \
	((uint64_t)(uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(low, what)) |                                          \
	 (uint64_t)(uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(high, what)) << 32)
		uint64_t crs = WHERE(cr);
		uint64_t lfs = WHERE(lf);
		uint64_t found = (lfs ^ (crs << 1 | after_cr)) | (WHERE(dot) & (lfs << 1 | after_lf));
#undef WHERE
		if (found != 0)
			return at + (size_t)__builtin_ctzll(found);
		after_cr = crs >> 63;
		after_lf = lfs >> 63;
	}
	return at;
}

static size_t find_sse2(const unsigned char *bytes, size_t at, size_t length)
{
	const __m128i cr = _mm_set1_epi8('\r');
	const __m128i lf = _mm_set1_epi8('\n');
	const __m128i dot = _mm_set1_epi8('.');
	for (; length - at >= 16; at += 16) {
		__m128i byte = _mm_loadu_si128((const __m128i *)(const void *)(bytes + at));
		__m128i last = _mm_loadu_si128((const __m128i *)(const void *)(bytes + at - 1));
		__m128i bare = _mm_xor_si128(_mm_cmpeq_epi8(byte, lf), _mm_cmpeq_epi8(last, cr));
		__m128i dots = _mm_and_si128(_mm_cmpeq_epi8(byte, dot), _mm_cmpeq_epi8(last, lf));
		int found = _mm_movemask_epi8(_mm_or_si128(bare, dots));
		if (found != 0)
			return at + (size_t)__builtin_ctz((unsigned)found);
	}
	return at;
}
#endif

/* The next place, from `at` (1 or more) on, where special() holds for a byte and the one before it; else `length`. */
static size_t find_special(const unsigned char *bytes, size_t at, size_t length)
{
#if SMTP_SIMD
	if (smtp_simd_avx2())
		at = find_avx2(bytes, at, length);
	at = find_sse2(bytes, at, length);
#endif
	while (at < length && !special(bytes[at - 1], bytes[at]))
		at++;
	return at;
}

static size_t run_end(size_t at, size_t length)
{
	return length - at > RUN ? at + RUN : length;
}

void smtp_dots_init(struct smtp_dots *dots, bool stuff)
{
	dots->stuff = stuff;
	dots->last = '\n';
}

/* What has to stand between the two bytes: the missing half of a line end, an extra dot, both, or nothing. */
static const char *missing(const struct smtp_dots *dots, unsigned char byte)
{
	if (byte == '\n')
		return dots->last == '\r' ? "" : "\r";
	bool dot = byte == '.' && dots->stuff;
	if (dots->last == '\r')
		return dot ? "\n." : "\n";
	return dot && dots->last == '\n' ? "." : "";
}

enum smtp_status smtp_dots_update(struct smtp_dots *dots, const void *bytes, size_t length, struct smtp_buf *out)
{
	const unsigned char *in = bytes;
	unsigned char *spot;
	enum smtp_status status = SMTP_OK;
	if (length == 0)
		return SMTP_OK;
	/* What comes out is never shorter than what goes in. */
	status = smtp_buf_reserve(out, length, &spot);
	for (size_t at = 0; at < length && status == SMTP_OK;) {
		const char *insert = missing(dots, in[at]);
		size_t end = find_special(in, at + 1, run_end(at, length));
		status = smtp_buf_append(out, insert, strlen(insert));
		if (status == SMTP_OK)
			status = smtp_buf_append(out, in + at, end - at);
		dots->last = in[end - 1];
		at = end;
	}
	return status;
}

enum smtp_status smtp_dots_finish(struct smtp_dots *dots, struct smtp_buf *out)
{
	static const char ending[] = "\r\n.\r\n";
	size_t from = dots->last == '\n' ? 2 : dots->last == '\r' ? 1 : 0;
	size_t to = dots->stuff ? 5 : 2;
	enum smtp_status status = smtp_buf_append(out, ending + from, to - from);
	if (status == SMTP_OK)
		smtp_dots_init(dots, dots->stuff);
	return status;
}

void smtp_unlines_init(struct smtp_unlines *unlines)
{
	unlines->state = SMTP_UNLINES_START;
	unlines->bare = false;
}

/* One byte inside the content: the dots at the start of a line have been dealt with. */
static void step(struct smtp_unlines *unlines, unsigned char byte)
{
	bool after_cr = unlines->state == SMTP_UNLINES_CR;
	if ((byte == '\n') != after_cr)
		unlines->bare = true;
	if (byte == '\r')
		unlines->state = SMTP_UNLINES_CR;
	else
		unlines->state = byte == '\n' && after_cr ? SMTP_UNLINES_START : SMTP_UNLINES_TEXT;
}

enum smtp_status smtp_unlines_update(struct smtp_unlines *unlines, const unsigned char *bytes, size_t length,
                                     size_t *used, struct smtp_buf *out)
{
	enum smtp_status status = SMTP_OK;
	size_t at = 0;
	while (at < length && status == SMTP_OK && unlines->state != SMTP_UNLINES_END) {
		enum smtp_unlines_state state = unlines->state;
		if (state == SMTP_UNLINES_START && bytes[at] == '.') {
			unlines->state = SMTP_UNLINES_DOT;
			at++;
		} else if (state == SMTP_UNLINES_DOT && bytes[at] == '\r') {
			unlines->state = SMTP_UNLINES_DOT_CR;
			at++;
		} else if (state == SMTP_UNLINES_DOT_CR && bytes[at] == '\n') {
			unlines->state = SMTP_UNLINES_END;
			at++;
		} else if (state == SMTP_UNLINES_DOT_CR) {
			status = smtp_buf_append(out, "\r", 1);
			unlines->state = SMTP_UNLINES_CR;
		} else {
			size_t end = find_special(bytes, at + 1, run_end(at, length));
			status = smtp_buf_append(out, bytes + at, end - at);
			step(unlines, bytes[at]);
			/* In the rest of the run every LF belongs to a CRLF. */
			if (end - at > 1) {
				unsigned char last = bytes[end - 1];
				unlines->state = last == '\r' ? SMTP_UNLINES_CR : last == '\n' ? SMTP_UNLINES_START : SMTP_UNLINES_TEXT;
			}
			at = end;
		}
	}
	*used = at;
	if (unlines->state == SMTP_UNLINES_END)
		return SMTP_OK;
	return status == SMTP_OK ? SMTP_MORE : status;
}
