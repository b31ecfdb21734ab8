/* resolve: see resolve.h.
 *
 * Threads are of the process, not of a Lua state; so is the list of those that are looking something up.
 */
#include "resolve.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* One getaddrinfo, for all who ask for the same name and port before it is done. Lives as long as its thread or one of
 * them needs it. */
struct query {
	struct query *next;          /* in the list of those under way */
	struct smtp_resolve *askers; /* who has not given it up */
	bool running;                /* its thread is at it; only that may touch the results then */
	const char *broken;          /* why getaddrinfo will say nothing, or NULL */
	int failure;                 /* an EAI_ code */
	int system;                  /* errno where failure is EAI_SYSTEM */
	size_t count;
	struct smtp_address *addresses;
	int ends[2]; /* of a pipe that has something to read when it is done; -1: none */
	char service[8];
	char host[];
};

struct smtp_resolve {
	struct smtp_resolve *next; /* among those who ask the same */
	struct query *query;
	int fd; /* the end to read of the query's pipe; each has its own number for it, as loops watch one once */
	char text[160];
};

/* Guards the list, and in all queries what their threads do not have for their own. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct query *under_way;

static void close_ends(struct query *query)
{
	for (int i = 0; i < 2; i++) {
		if (query->ends[i] != -1)
			close(query->ends[i]);
		query->ends[i] = -1;
	}
}

static void drop(struct query *query)
{
	close_ends(query);
	free(query->addresses);
	free(query);
}

static void look_up(struct query *query, int flags)
{
	struct addrinfo wanted = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = flags | AI_NUMERICSERV};
	struct addrinfo *found = NULL;
	size_t count = 0;

	query->failure = getaddrinfo(query->host, query->service, &wanted, &found);
	query->system = errno;
	if (query->failure != 0)
		return;
	for (struct addrinfo *at = found; at; at = at->ai_next)
		count++;
	query->addresses = count > 0 ? calloc(count, sizeof *query->addresses) : NULL;
	if (!query->addresses)
		query->failure = EAI_MEMORY;
	for (struct addrinfo *at = found; at && query->addresses; at = at->ai_next) {
		struct smtp_address *address = &query->addresses[query->count];
		if (at->ai_addrlen > sizeof address->bytes)
			continue;
		address->length = (unsigned)at->ai_addrlen;
		memcpy(address->bytes, at->ai_addr, at->ai_addrlen);
		query->count++;
	}
	freeaddrinfo(found);
}

static void *run(void *argument)
{
	struct query *query = argument;
	struct query **at = &under_way;
	look_up(query, 0);
	pthread_mutex_lock(&lock);
	while (*at != query)
		at = &(*at)->next;
	*at = query->next;
	query->running = false;
	/* the query itself has the end to read open, so this cannot raise SIGPIPE */
	ssize_t ignored = write(query->ends[1], "", 1);
	(void)ignored;
	if (!query->askers)
		drop(query);
	pthread_mutex_unlock(&lock);
	return NULL;
}

static int open_ends(struct query *query)
{
#ifdef __APPLE__ /* no pipe2 there */
	if (pipe(query->ends) == -1)
		return -errno;
	for (int i = 0; i < 2; i++)
		if (fcntl(query->ends[i], F_SETFD, FD_CLOEXEC) == -1)
			return -errno;
#else
	if (pipe2(query->ends, O_CLOEXEC) == -1)
		return -errno;
#endif
	return 0;
}

static void before_fork(void)
{
	pthread_mutex_lock(&lock);
}

static void in_parent(void)
{
	pthread_mutex_unlock(&lock);
}

/* A child has none of these threads. Who waits there is woken: the pipe would tell of what the parent's thread does. */
static void in_child(void)
{
	while (under_way) {
		struct query *query = under_way;
		under_way = query->next;
		query->running = false;
		query->broken = "the process forked while the name was looked up";
		close_ends(query);
		if (query->askers && open_ends(query) == 0) {
			close(query->ends[1]); /* so the other one can be read: it is at its end */
			query->ends[1] = -1;
			for (struct smtp_resolve *asker = query->askers; asker; asker = asker->next) {
				close(asker->fd);
				asker->fd = fcntl(query->ends[0], F_DUPFD_CLOEXEC, asker->fd);
			}
		}
		if (!query->askers)
			drop(query);
	}
	pthread_mutex_unlock(&lock);
}

static int unprepared; /* -errno: a child of fork might find the lock held for ever */

static void prepare(void)
{
	Dl_info here;
	/* the host may unload this library (a closed Lua state does) while a thread still runs in it: pin it */
	if (dladdr(&lock, &here) && here.dli_fname)
		(void)dlopen(here.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE);
	unprepared = -pthread_atfork(before_fork, in_parent, in_child);
}

/* Begins the query, which is under way then. The lock is held. */
static int begin(struct query *query)
{
	pthread_t thread;
	pthread_attr_t attributes;
	sigset_t all, before;

	int failure = open_ends(query);
	if (failure)
		return failure;
	pthread_attr_init(&attributes);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	/* the host's signal handlers are not to run on a thread it does not know */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	failure = pthread_create(&thread, &attributes, run, query);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attributes);
	if (failure)
		return -failure;
	query->running = true;
	query->next = under_way;
	under_way = query;
	return 0;
}

/* The one under way for the same name and port. NULL: none; *count is how many are. The lock is held. */
static struct query *find_same(const struct query *query, size_t *count)
{
	struct query *at = under_way;
	for (*count = 0; at; at = at->next, ++*count) {
		if (strcmp(at->host, query->host) == 0 && strcmp(at->service, query->service) == 0)
			break;
	}
	return at;
}

/* The lock is held. */
static void attach(struct smtp_resolve *lookup, struct query *query)
{
	lookup->query = query;
	lookup->next = query->askers;
	query->askers = lookup;
}

/* Has a thread answer the query, or joins those whom one answers it already; then `query` is freed. */
static int ask(struct smtp_resolve *lookup, struct query *query)
{
	size_t count;
	int failure = 0;

	pthread_mutex_lock(&lock);
	struct query *same = find_same(query, &count);
	if (same) {
		drop(query);
		query = same;
	} else if (count >= SMTP_RESOLVE_MOST) {
		query->broken = "too many names are being looked up already: is the name server silent?";
	} else {
		failure = begin(query);
	}
	if (query->running) {
		lookup->fd = fcntl(query->ends[0], F_DUPFD_CLOEXEC, 0);
		if (lookup->fd == -1)
			failure = -errno; /* one begun for this alone goes on, and is at hand should it be asked for again */
	}
	if (failure == 0)
		attach(lookup, query);
	else if (!query->running)
		drop(query);
	pthread_mutex_unlock(&lock);
	return failure;
}

int smtp_resolve_start(struct smtp_resolve **result, const char *host, int port)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	(void)pthread_once(&once, prepare); /* before anybody has the lock */
	if (unprepared)
		return unprepared;

	size_t length = strlen(host) + 1;
	struct smtp_resolve *lookup = calloc(1, sizeof *lookup);
	struct query *query = calloc(1, sizeof *query + length);
	int failure = 0;

	if (!lookup || !query) {
		free(lookup);
		free(query);
		return -ENOMEM;
	}
	lookup->fd = query->ends[0] = query->ends[1] = -1;
	memcpy(query->host, host, length);
	snprintf(query->service, sizeof query->service, "%d", port);
	look_up(query, AI_NUMERICHOST);
	if (query->failure == EAI_NONAME)
		failure = ask(lookup, query);
	else
		attach(lookup, query);
	if (failure) {
		free(lookup);
		return failure;
	}
	*result = lookup;
	return 0;
}

int smtp_resolve_fd(const struct smtp_resolve *lookup)
{
	return lookup->fd;
}

enum smtp_status smtp_resolve_result(struct smtp_resolve *lookup, const struct smtp_address **addresses, size_t *count,
                                     const char **text, bool *temporary)
{
	const struct query *query = lookup->query;
	pthread_mutex_lock(&lock);
	bool running = query->running;
	pthread_mutex_unlock(&lock);
	if (running)
		return SMTP_MORE;
	*addresses = query->addresses;
	*count = query->count;
	if (query->failure == 0 && !query->broken)
		return SMTP_OK;
	*temporary =
		query->broken || query->failure == EAI_AGAIN || query->failure == EAI_MEMORY || query->failure == EAI_SYSTEM;
	snprintf(lookup->text, sizeof lookup->text, "%s",
	         query->broken                  ? query->broken
	         : query->failure == EAI_SYSTEM ? strerror(query->system)
	                                        : gai_strerror(query->failure));
	*text = lookup->text;
	return SMTP_E_INPUT;
}

void smtp_resolve_free(struct smtp_resolve *lookup)
{
	struct query *query = lookup->query;
	struct smtp_resolve **at = &query->askers;
	pthread_mutex_lock(&lock);
	while (*at != lookup)
		at = &(*at)->next;
	*at = lookup->next;
	if (!query->running && !query->askers)
		drop(query);
	pthread_mutex_unlock(&lock);
	if (lookup->fd != -1)
		close(lookup->fd);
	free(lookup);
}
