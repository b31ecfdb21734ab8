/* sys: see sys.h. */
#include "sys.h"

#include <sys/random.h>
#include <time.h>
#include <unistd.h>

double smtp_sys_now(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

bool smtp_sys_random(void *bytes, size_t length)
{
	unsigned char *at = bytes;
	/* getentropy gives at most 256 bytes a call */
	while (length > 0) {
		size_t part = length < 256 ? length : 256;
		if (getentropy(at, part) != 0)
			return false;
		at += part;
		length -= part;
	}
	return true;
}

void smtp_sys_hostname(char *name, size_t size)
{
	if (gethostname(name, size) != 0)
		name[0] = '\0';
	name[size - 1] = '\0';
}
