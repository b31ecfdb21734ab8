/* library: functions of a library that the host may have: it is looked for at run time, nothing links it. It stays loaded,
 * so that what its functions give lives on, and the next look-up finds it at once. Called by net and tls.
 */
#ifndef SMTP_LIBRARY_H
#define SMTP_LIBRARY_H

#include "status.h"

#include <stdbool.h>
#include <stddef.h>

/* The file of a library by its name and its interface's number, which holds still what is declared of it here. */
#ifdef __APPLE__
#define SMTP_LIBRARY(name, number) "lib" name "." number ".dylib"
#else
#define SMTP_LIBRARY(name, number) "lib" name ".so." number
#endif

struct smtp_library_function {
	const char *name;
	void *pointer; /* to the pointer that is to point to it */
};

/* Finds them all; false: the library, or one of them, is not there. */
SMTP_MUST_USE bool smtp_library_find(const char *file, const struct smtp_library_function *functions, size_t count);

#endif
