/* idn: see idn.h. */
#include "idn.h"

#include <dlfcn.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#ifdef __APPLE__
#define LIBRARY "libidn2.0.dylib"
#else
#define LIBRARY "libidn2.so.0"
#endif

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

static bool find(struct idn2 *idn2, void *library)
{
	/* POSIX lets an object pointer hold a function */
	*(void **)&idn2->lookup_u8 = dlsym(library, "idn2_lookup_u8");
	*(void **)&idn2->to_unicode_8z8z = dlsym(library, "idn2_to_unicode_8z8z");
	*(void **)&idn2->strerror = dlsym(library, "idn2_strerror");
	*(void **)&idn2->free = dlsym(library, "idn2_free");
	return idn2->lookup_u8 && idn2->to_unicode_8z8z && idn2->strerror && idn2->free;
}

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

const char *smtp_idn_convert(struct smtp_idn *out, const char *domain, size_t length)
{
	/* libidn2 takes time in the square of what it is given */
	if (length >= sizeof out->unicode)
		return "too long";
	if (memchr(domain, '\0', length))
		return "a NUL in it";
	/* it stays loaded, so that its words live on and the next domain finds it at once */
	void *library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
	struct idn2 idn2;
	const char *reason = "libidn2 is not installed";
	if (library && find(&idn2, library))
		reason = convert(&idn2, out, domain);
	if (library)
		dlclose(library);
	return reason;
}
