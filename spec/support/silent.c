/* silent: a name server that keeps everybody waiting, to be preloaded. It writes each name it is asked for, a line each,
 * to the file that LOOKUPS names; once there is another called as that and ".go" every name is 127.0.0.1. */
#include <dlfcn.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef int look_up(const char *, const char *, const struct addrinfo *, struct addrinfo **);

int getaddrinfo(const char *host, const char *service, const struct addrinfo *wanted, struct addrinfo **found)
{
	look_up *real;
	const char *path = getenv("LOOKUPS");
	char go[256];
	*(void **)&real = dlsym(RTLD_NEXT, "getaddrinfo"); /* POSIX lets an object pointer hold a function */
	if (!path || (wanted->ai_flags & AI_NUMERICHOST))
		return real(host, service, wanted, found);
	FILE *file = fopen(path, "ae");
	fprintf(file, "%s %s\n", host, service);
	fclose(file);
	snprintf(go, sizeof go, "%s.go", path);
	while (access(go, F_OK) != 0)
		usleep(1000);
	return real("127.0.0.1", service, wanted, found);
}
