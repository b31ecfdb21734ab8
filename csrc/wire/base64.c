/* base64: see base64.h. Whole lines go through a kernel, everything shorter through the plain code. */
#include "base64.h"

#include "simd.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum {
	LINE_IN = 57,  /* bytes that make a full line */
	LINE_OUT = 78, /* their 76 characters and CRLF */
};

static const unsigned char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static size_t encoded_length(size_t length)
{
	return (length / 3 + (length % 3 != 0)) * 4;
}

/* Writes encoded_length(length) characters. */
static void encode(unsigned char *restrict out, const unsigned char *restrict in, size_t length)
{
	for (; length >= 3; length -= 3, in += 3, out += 4) {
		uint32_t group = (uint32_t)in[0] << 16 | (uint32_t)in[1] << 8 | in[2];
		out[0] = alphabet[group >> 18];
		out[1] = alphabet[group >> 12 & 63];
		out[2] = alphabet[group >> 6 & 63];
		out[3] = alphabet[group & 63];
	}
	if (length > 0) {
		uint32_t group = (uint32_t)in[0] << 16 | (length == 2 ? (uint32_t)in[1] << 8 : 0);
		out[0] = alphabet[group >> 18];
		out[1] = alphabet[group >> 12 & 63];
		out[2] = length == 2 ? alphabet[group >> 6 & 63] : '=';
		out[3] = '=';
	}
}

static void lines_portable(unsigned char *restrict out, const unsigned char *restrict in, size_t lines)
{
	for (; lines > 0; lines--, in += LINE_IN, out += LINE_OUT) {
		encode(out, in, LINE_IN);
		out[76] = '\r';
		out[77] = '\n';
	}
}

#if SMTP_SIMD
/* 24 bytes to 32 characters. Each half of the register takes 12 bytes. The upper half is loaded 4 bytes early, and its
 * shuffle steps over them, so that exactly the 24 bytes are read. */
SMTP_AVX2 static inline __m256i avx2_block(const unsigned char *in)
{
	const __m256i spread = _mm256_setr_epi8(1, 0, 2, 1, 4, 3, 5, 4, 7, 6, 8, 7, 10, 9, 11, 10, 5, 4, 6, 5, 8, 7, 9, 8,
	                                        11, 10, 12, 11, 14, 13, 15, 14);
	/* What to add to a six-bit value, by its class: 0 for a-z, 1 to 10 for the digits, 11 '+', 12 '/', 13 for A-Z. */
	const __m256i shift = _mm256_broadcastsi128_si256(_mm_setr_epi8('a' - 26, '0' - 52, '0' - 52, '0' - 52, '0' - 52,
	                                                                '0' - 52, '0' - 52, '0' - 52, '0' - 52, '0' - 52,
	                                                                '0' - 52, '+' - 62, '/' - 63, 'A', 0, 0));
	__m128i low = _mm_loadu_si128((const __m128i *)(const void *)in);
	__m128i high = _mm_loadu_si128((const __m128i *)(const void *)(in + 8));
	__m256i groups = _mm256_shuffle_epi8(_mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1), spread);
	/* The multiplications are shifts by a different count in each 16-bit half of a group. */
	__m256i even =
		_mm256_mulhi_epu16(_mm256_and_si256(groups, _mm256_set1_epi32(0x0fc0fc00)), _mm256_set1_epi32(0x04000040));
	__m256i odd =
		_mm256_mullo_epi16(_mm256_and_si256(groups, _mm256_set1_epi32(0x003f03f0)), _mm256_set1_epi32(0x01000010));
	__m256i values = _mm256_or_si256(even, odd);
	__m256i capital = _mm256_cmpgt_epi8(_mm256_set1_epi8(26), values);
	__m256i class = _mm256_or_si256(_mm256_subs_epu8(values, _mm256_set1_epi8(51)),
	                                _mm256_and_si256(capital, _mm256_set1_epi8(13)));
	return _mm256_add_epi8(values, _mm256_shuffle_epi8(shift, class));
}

SMTP_AVX2 static void lines_avx2(unsigned char *out, const unsigned char *in, size_t lines)
{
	for (; lines > 0; lines--, in += LINE_IN, out += LINE_OUT) {
		_mm256_storeu_si256((__m256i *)(void *)out, avx2_block(in));
		_mm256_storeu_si256((__m256i *)(void *)(out + 32), avx2_block(in + 24));
		/* 57 is not a multiple of 24: the last block overlaps the one before, so as to end with the line. */
		_mm256_storeu_si256((__m256i *)(void *)(out + 44), avx2_block(in + 33));
		out[76] = '\r';
		out[77] = '\n';
	}
}
#endif

enum smtp_base64_kernel smtp_base64_best(void)
{
	return smtp_simd_avx2() ? SMTP_BASE64_AVX2 : SMTP_BASE64_PORTABLE;
}

static void encode_lines(enum smtp_base64_kernel kernel, unsigned char *out, const unsigned char *in, size_t lines)
{
#if SMTP_SIMD
	if (kernel == SMTP_BASE64_AVX2) {
		lines_avx2(out, in, lines);
		return;
	}
#endif
	(void)kernel;
	lines_portable(out, in, lines);
}

void smtp_base64_init(struct smtp_base64 *base64)
{
	base64->kernel = smtp_base64_best();
	base64->carried = 0;
}

enum smtp_status smtp_base64_update(struct smtp_base64 *base64, const void *bytes, size_t length, struct smtp_buf *out)
{
	const unsigned char *in = bytes;
	if (length < LINE_IN - base64->carried) {
		if (length > 0)
			memcpy(base64->carry + base64->carried, in, length);
		base64->carried += length;
		return SMTP_OK;
	}

	size_t room = (base64->carried + length) / LINE_IN * LINE_OUT;
	unsigned char *spot;
	enum smtp_status status = smtp_buf_reserve(out, room, &spot);
	if (status != SMTP_OK)
		return status;
	if (base64->carried > 0) {
		size_t missing = LINE_IN - base64->carried;
		memcpy(base64->carry + base64->carried, in, missing);
		encode_lines(base64->kernel, spot, base64->carry, 1);
		spot += LINE_OUT;
		in += missing;
		length -= missing;
	}
	size_t lines = length / LINE_IN;
	encode_lines(base64->kernel, spot, in, lines);
	base64->carried = length % LINE_IN;
	memcpy(base64->carry, in + lines * LINE_IN, base64->carried);
	smtp_buf_commit(out, room);
	return SMTP_OK;
}

enum smtp_status smtp_base64_finish(struct smtp_base64 *base64, struct smtp_buf *out)
{
	if (base64->carried == 0)
		return SMTP_OK;
	size_t characters = encoded_length(base64->carried);
	unsigned char *spot;
	enum smtp_status status = smtp_buf_reserve(out, characters + 2, &spot);
	if (status != SMTP_OK)
		return status;
	encode(spot, base64->carry, base64->carried);
	spot[characters] = '\r';
	spot[characters + 1] = '\n';
	smtp_buf_commit(out, characters + 2);
	base64->carried = 0;
	return SMTP_OK;
}

enum smtp_status smtp_base64_encode(const void *bytes, size_t length, struct smtp_buf *out)
{
	if (length == 0)
		return SMTP_OK;
	unsigned char *spot;
	enum smtp_status status = smtp_buf_reserve(out, encoded_length(length), &spot);
	if (status != SMTP_OK)
		return status;
	encode(spot, bytes, length);
	smtp_buf_commit(out, encoded_length(length));
	return SMTP_OK;
}

/* The six bits of a character; 64 for one outside the alphabet. */
static uint32_t value(unsigned char character)
{
	if (character >= 'A' && character <= 'Z')
		return character - (uint32_t)'A';
	if (character >= 'a' && character <= 'z')
		return character - (uint32_t)'a' + 26;
	if (character >= '0' && character <= '9')
		return character - (uint32_t)'0' + 52;
	if (character == '+')
		return 62;
	return character == '/' ? 63 : 64;
}

/* `characters` (2 to 4) of one group to one byte less. False if they are not base64 as the encoder writes it. */
static bool decode_group(unsigned char *out, const unsigned char *in, size_t characters)
{
	uint32_t group = 0;
	for (size_t i = 0; i < 4; i++) {
		uint32_t six = i < characters ? value(in[i]) : 0;
		if (six > 63)
			return false;
		group = group << 6 | six;
	}
	if (characters < 4 && (group & (characters == 3 ? 0xffu : 0xffffu)) != 0)
		return false;
	for (size_t i = 0; i + 1 < characters; i++)
		out[i] = (unsigned char)(group >> (16 - 8 * i) & 0xff);
	return true;
}

enum smtp_status smtp_base64_decode(const void *text, size_t length, struct smtp_buf *out)
{
	const unsigned char *in = text;
	if (length % 4 != 0)
		return SMTP_E_INPUT;
	if (length == 0)
		return SMTP_OK;

	size_t padding = in[length - 1] != '=' ? 0 : in[length - 2] != '=' ? 1 : 2;
	size_t room = length / 4 * 3 - padding;
	unsigned char *spot;
	enum smtp_status status = smtp_buf_reserve(out, room, &spot);
	if (status != SMTP_OK)
		return status;
	for (size_t i = 0; i < length; i += 4) {
		size_t characters = i + 4 < length ? 4 : 4 - padding;
		if (!decode_group(spot + i / 4 * 3, in + i, characters))
			return SMTP_E_INPUT;
	}
	smtp_buf_commit(out, room);
	return SMTP_OK;
}
