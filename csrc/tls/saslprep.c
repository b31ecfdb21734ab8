/* saslprep: see saslprep.h. */
#include "saslprep.h"

#include "../wire/buf.h"
#include "../wire/library.h"

#include <stdbool.h>
#include <string.h>

/* of libidn's interface, which its name holds still: what is used here */
enum { NO_UNASSIGNED = 4 };

struct idn {
	int (*profile)(const char *in, char **out, const char *profile, int flags);
	const char *(*strerror)(int failure);
	void (*free)(void *memory);
};

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

enum smtp_status smtp_saslprep(char prepared[SMTP_SASLPREP_MAX], const char *text, size_t length, const char **reason)
{
	struct idn idn;
	const struct smtp_library_function functions[] = {
		{"stringprep_profile", &idn.profile},
		{"stringprep_strerror", &idn.strerror},
		{"idn_free", &idn.free},
	};
	if (!smtp_library_find(SMTP_LIBRARY("idn", "12"), functions, sizeof functions / sizeof *functions))
		return SMTP_E_MISSING;
	/* ordering what combines takes time in the square of its length */
	if (length > SMTP_SASLPREP_MAX / 4)
		*reason = "too long";
	else if (memchr(text, '\0', length))
		*reason = "a NUL in it";
	else
		*reason = convert(&idn, prepared, text);
	return *reason ? SMTP_E_INPUT : SMTP_OK;
}
