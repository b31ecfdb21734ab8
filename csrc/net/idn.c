/* idn: see idn.h. */
#include "idn.h"

#include "../wire/library.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* of libidn2's interface, which its name holds still: what is used here */
enum {
	NFC_INPUT = 1,
	NONTRANSITIONAL = 8,
};

struct idn2 {
	int (*lookup_u8)(const uint8_t *domain, uint8_t **ascii, int flags);
	int (*to_unicode_8z8z)(const char *domain, char **unicode, int flags);
	const char *(*strerror)(int failure);
	void (*free)(void *memory);
};

/* Copies one result, with its NUL, and gives its memory back. */
static bool keep(const struct idn2 *idn2, char *to, size_t size, char *result)
{
	size_t length = strlen(result);
	bool fits = length < size;
	if (fits)
		memcpy(to, result, length + 1);
	idn2->free(result);
	return fits;
}

static const char *convert(const struct idn2 *idn2, struct smtp_idn *out, const char *domain)
{
	uint8_t *ascii = NULL;
	char *unicode = NULL;
	/* not with its flag for STD3: it drops what STD3 forbids, and another domain comes out */
	int failure = idn2->lookup_u8((const uint8_t *)domain, &ascii, NFC_INPUT | NONTRANSITIONAL);
	if (failure)
		return idn2->strerror(failure);
	if (!keep(idn2, out->ascii, sizeof out->ascii, (char *)ascii))
		return "too long";
	failure = idn2->to_unicode_8z8z(out->ascii, &unicode, 0);
	if (failure)
		return idn2->strerror(failure);
	return keep(idn2, out->unicode, sizeof out->unicode, unicode) ? NULL : "too long";
}

enum smtp_status smtp_idn_convert(struct smtp_idn *out, const char *domain, size_t length)
{
	struct idn2 idn2;
	const struct smtp_library_function functions[] = {
		{"idn2_lookup_u8", &idn2.lookup_u8},
		{"idn2_to_unicode_8z8z", &idn2.to_unicode_8z8z},
		{"idn2_strerror", &idn2.strerror},
		{"idn2_free", &idn2.free},
	};
	if (!smtp_library_find(SMTP_LIBRARY("idn2", "0"), functions, sizeof functions / sizeof *functions))
		return SMTP_E_MISSING;
	/* libidn2 takes time in the square of what it is given */
	if (length >= sizeof out->unicode)
		out->reason = "too long";
	else if (memchr(domain, '\0', length))
		out->reason = "a NUL in it";
	else
		out->reason = convert(&idn2, out, domain);
	return out->reason ? SMTP_E_INPUT : SMTP_OK;
}
