/* library: see library.h. */
#include "library.h"

#include <dlfcn.h>
#include <string.h>

bool smtp_library_find(const char *file, const struct smtp_library_function *functions, size_t count)
{
	void *library = dlopen(file, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
	bool found = library != NULL;
	for (size_t i = 0; found && i < count; i++) {
		void *function = dlsym(library, functions[i].name);
		found = function != NULL;
		memcpy(functions[i].pointer, &function, sizeof function); /* POSIX lets an object pointer hold a function */
	}
	if (library)
		(void)dlclose(library);
	return found;
}
