/* saslprep: see saslprep.h. */
#include "saslprep.h"

#include "../wire/buf.h"

#include <dlfcn.h>
#include <stdbool.h>
#include <string.h>

#ifdef __APPLE__
#define LIBRARY "libidn.12.dylib"
#else
#define LIBRARY "libidn.so.12"
#endif

/* of libidn's interface, which its name holds still: what is used here */
enum { NO_UNASSIGNED = 4 };

struct idn {
	int (*profile)(const char *in, char **out, const char *profile, int flags);
	const char *(*strerror)(int failure);
	void (*free)(void *memory);
};

static bool find(struct idn *idn, void *library)
{
	/* POSIX lets an object pointer hold a function */
	*(void **)&idn->profile = dlsym(library, "stringprep_profile");
	*(void **)&idn->strerror = dlsym(library, "stringprep_strerror");
	*(void **)&idn->free = dlsym(library, "idn_free");
	return idn->profile && idn->strerror && idn->free;
}

static const char *convert(const struct idn *idn, char prepared[SMTP_SASLPREP_MAX], const char *text)
{
	char *made = NULL;
	int failure = idn->profile(text, &made, "SASLprep", NO_UNASSIGNED);
	if (failure)
		return idn->strerror(failure);
	size_t length = strlen(made);
	bool fits = length < SMTP_SASLPREP_MAX;
	if (fits)
		memcpy(prepared, made, length + 1);
	smtp_wipe(made, length);
	idn->free(made);
	return fits ? NULL : "too long";
}

const char *smtp_saslprep(char prepared[SMTP_SASLPREP_MAX], const char *text, size_t length)
{
	/* ordering what combines takes time in the square of its length */
	if (length > SMTP_SASLPREP_MAX / 4)
		return "too long";
	if (memchr(text, '\0', length))
		return "a NUL in it";
	/* it stays loaded, so that its words live on and the next login finds it at once */
	void *library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
	struct idn idn;
	const char *reason = "libidn is not installed";
	if (library && find(&idn, library))
		reason = convert(&idn, prepared, text);
	if (library)
		dlclose(library);
	return reason;
}
