/* resolve_faults: look-ups while memory, descriptors or threads are short: each call that asks the system for some fails
 * in turn; or, with a number, threads that look up side by side while the process forks so often, the first time while
 * one of them has the lock. */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static _Atomic int left = -1; /* calls until one fails; less than 0: none does */

static bool fails(void)
{
	return left >= 0 && left-- == 0;
}

static void *some(size_t count, size_t size)
{
	return fails() ? NULL : calloc(count, size);
}

static int some_pipe(int ends[2], int flags)
{
	if (!fails())
		return pipe2(ends, flags);
	errno = EMFILE;
	return -1;
}

static int some_fcntl(int fd, int what, int value)
{
	if (!fails())
		return fcntl(fd, what, value);
	errno = EMFILE;
	return -1;
}

static int some_thread(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument)
{
	return fails() ? EAGAIN : pthread_create(thread, attributes, run, argument);
}

/* Every name is 127.0.0.1, after a moment. */
static int answer(const char *host, const char *service, const struct addrinfo *wanted, struct addrinfo **found)
{
	if (wanted->ai_flags & AI_NUMERICHOST)
		return getaddrinfo(host, service, wanted, found);
	usleep(300);
	return getaddrinfo("127.0.0.1", service, wanted, found);
}

#define getaddrinfo answer
#define calloc some
#define pipe2 some_pipe
#define fcntl some_fcntl
#define pthread_create some_thread
#include "../../csrc/net/resolve.c"
#undef pthread_create

static int look(const char *host)
{
	struct smtp_resolve *lookup = NULL;
	const struct smtp_address *addresses;
	size_t count;
	const char *text;
	bool temporary = false;
	int failure = smtp_resolve_start(&lookup, host, 25);
	if (failure)
		return failure;
	enum smtp_status status;
	while ((status = smtp_resolve_result(lookup, &addresses, &count, &text, &temporary)) == SMTP_MORE)
		usleep(100);
	smtp_resolve_free(lookup);
	return status == SMTP_OK ? 0 : temporary ? 1 : 2;
}

static void *many(void *seed)
{
	static const char *const names[] = {"a.example.org", "127.0.0.1", "b.example.org", "c.example.org"};
	for (size_t i = 0; i < 200; i++) {
		struct smtp_resolve *lookup;
		if (i % 3 == 0 && smtp_resolve_start(&lookup, names[(i + (size_t)seed) % 4], 25) == 0)
			smtp_resolve_free(lookup);
		else
			(void)look(names[i % 4]);
	}
	return NULL;
}

/* Each in turn fails: that is told, may pass, and leaves nothing behind. */
static int faults(void)
{
	int calls = 0;
	while (true) {
		left = calls++;
		int result = look("a.example.org");
		bool whole = left >= 0; /* none has failed */
		left = -1;
		if (whole)
			return result == 0 && calls > 6 ? 0 : 1;
		if (result == 2 || look("a.example.org") != 0)
			return 2;
	}
}

static void *hold(void *held)
{
	pthread_mutex_lock(&lock);
	*(_Atomic bool *)held = true;
	usleep(100000); /* time for a fork that does not wait */
	pthread_mutex_unlock(&lock);
	return NULL;
}

/* No look-up has needed a thread before. */
static int fork_while_held(void)
{
	_Atomic bool held = false;
	pthread_t thread;
	int status;
	if (look("127.0.0.1") != 0 || pthread_create(&thread, NULL, hold, &held))
		return 5;
	while (!held)
		usleep(100);
	pid_t child = fork();
	if (child == 0) {
		alarm(20);
		_exit(look("127.0.0.1"));
	}
	pthread_join(thread, NULL);
	return waitpid(child, &status, 0) == child && status == 0 ? 0 : 6;
}

static int side_by_side(int forks)
{
	pthread_t threads[4];
	int first = fork_while_held();
	if (first)
		return first;
	for (size_t i = 0; i < 4; i++) {
		if (pthread_create(&threads[i], NULL, many, (void *)i))
			return 3;
	}
	for (int i = 0; i < forks; i++) {
		int status;
		pid_t child = fork();
		if (child == 0)
			_exit(look("a.example.org"));
		if (waitpid(child, &status, 0) != child || status != 0)
			return 4;
	}
	for (size_t i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	return 0;
}

int main(int count, char **words)
{
	int status = count == 1 ? faults() : side_by_side((int)strtol(words[1], NULL, 10));
	bool over = false;
	while (!over) {
		usleep(1000);
		pthread_mutex_lock(&lock);
		over = !under_way;
		pthread_mutex_unlock(&lock);
	}
	printf("%d\n", status);
	return status;
}
