/* resolve: see resolve.h. */
#include "resolve.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct smtp_resolve {
	/* the caller and the thread each hold one; the last one frees */
	atomic_int holders;
	/* set by the thread, with everything below, before it writes to the pipe */
	atomic_bool done;
	pid_t owner;     /* after a fork the child has no such thread */
	int failure;     /* an EAI_ code */
	int system;      /* errno where failure is EAI_SYSTEM */
	size_t count;
	struct smtp_address *addresses;
	char text[160];
	int ends[2];     /* read by the caller, written by the thread */
	char service[8];
	char host[];
};

static void release(struct smtp_resolve *lookup)
{
	if (atomic_fetch_sub(&lookup->holders, 1) != 1)
		return;
	for (int i = 0; i < 2; i++)
		if (lookup->ends[i] != -1)
			close(lookup->ends[i]);
	free(lookup->addresses);
	free(lookup);
}

static void look_up(struct smtp_resolve *lookup, int flags)
{
	struct addrinfo wanted = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = flags | AI_NUMERICSERV};
	struct addrinfo *found = NULL;
	size_t count = 0;

	lookup->failure = getaddrinfo(lookup->host, lookup->service, &wanted, &found);
	lookup->system = errno;
	if (lookup->failure != 0)
		return;
	for (struct addrinfo *at = found; at; at = at->ai_next)
		count++;
	lookup->addresses = count > 0 ? calloc(count, sizeof *lookup->addresses) : NULL;
	if (!lookup->addresses)
		lookup->failure = EAI_MEMORY;
	for (struct addrinfo *at = found; at && lookup->addresses; at = at->ai_next) {
		struct smtp_address *address = &lookup->addresses[lookup->count];
		if (at->ai_addrlen > sizeof address->bytes)
			continue;
		address->length = (unsigned)at->ai_addrlen;
		memcpy(address->bytes, at->ai_addr, at->ai_addrlen);
		lookup->count++;
	}
	freeaddrinfo(found);
}

static void *run(void *argument)
{
	struct smtp_resolve *lookup = argument;
	look_up(lookup, 0);
	atomic_store(&lookup->done, true);
	/* the read end may be closed only by the last holder, so this cannot raise SIGPIPE */
	ssize_t ignored = write(lookup->ends[1], "", 1);
	(void)ignored;
	release(lookup);
	return NULL;
}

/* The host may unload this library (a closed Lua state does) while a thread still runs in it: pin it. */
static void pin_library(void)
{
	Dl_info here;
	if (dladdr((const void *)&smtp_resolve_start, &here) && here.dli_fname)
		(void)dlopen(here.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE);
}

static int start_thread(struct smtp_resolve *lookup)
{
	pthread_t thread;
	pthread_attr_t attributes;
	sigset_t all, before;

	pin_library();
#ifdef __APPLE__ /* no pipe2 there */
	if (pipe(lookup->ends) == -1)
		return -errno;
	for (int i = 0; i < 2; i++)
		if (fcntl(lookup->ends[i], F_SETFD, FD_CLOEXEC) == -1)
			return -errno;
#else
	if (pipe2(lookup->ends, O_CLOEXEC) == -1)
		return -errno;
#endif
	atomic_store(&lookup->holders, 2);
	pthread_attr_init(&attributes);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	/* the host's signal handlers are not to run on a thread it does not know */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	int failure = pthread_create(&thread, &attributes, run, lookup);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attributes);
	if (failure)
		atomic_store(&lookup->holders, 1);
	return -failure;
}

int smtp_resolve_start(struct smtp_resolve **result, const char *host, int port)
{
	size_t length = strlen(host) + 1;
	struct smtp_resolve *lookup = calloc(1, sizeof *lookup + length);
	int failure = 0;

	if (!lookup)
		return -ENOMEM;
	atomic_init(&lookup->holders, 1);
	atomic_init(&lookup->done, false);
	lookup->ends[0] = lookup->ends[1] = -1;
	lookup->owner = getpid();
	memcpy(lookup->host, host, length);
	snprintf(lookup->service, sizeof lookup->service, "%d", port);
	look_up(lookup, AI_NUMERICHOST);
	if (lookup->failure == EAI_NONAME)
		failure = start_thread(lookup);
	else
		atomic_store(&lookup->done, true);
	if (failure) {
		release(lookup);
		return failure;
	}
	*result = lookup;
	return 0;
}

int smtp_resolve_fd(const struct smtp_resolve *lookup)
{
	return lookup->ends[0];
}

enum smtp_status smtp_resolve_result(struct smtp_resolve *lookup, const struct smtp_address **addresses, size_t *count,
                                     const char **text, bool *temporary)
{
	if (!atomic_load(&lookup->done)) {
		if (lookup->owner == getpid())
			return SMTP_MORE;
		*temporary = true;
		*text = "the process forked while the name was looked up";
		return SMTP_E_INPUT;
	}
	*addresses = lookup->addresses;
	*count = lookup->count;
	if (lookup->failure == 0)
		return SMTP_OK;
	*temporary = lookup->failure == EAI_AGAIN || lookup->failure == EAI_MEMORY || lookup->failure == EAI_SYSTEM;
	if (lookup->failure == EAI_SYSTEM)
		snprintf(lookup->text, sizeof lookup->text, "%s", strerror(lookup->system));
	else
		snprintf(lookup->text, sizeof lookup->text, "%s", gai_strerror(lookup->failure));
	*text = lookup->text;
	return SMTP_E_INPUT;
}

void smtp_resolve_free(struct smtp_resolve *lookup)
{
	release(lookup);
}
