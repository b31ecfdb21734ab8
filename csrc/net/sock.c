/* sock: see sock.h. */
#include "sock.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

_Static_assert(sizeof(((struct smtp_address *)0)->bytes) >= sizeof(struct sockaddr_storage), "an address fits");

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

static const struct sockaddr *as_sockaddr(const struct smtp_address *address)
{
	return (const struct sockaddr *)(const void *)address->bytes;
}

bool smtp_sock_unix(struct smtp_address *address, const char *path, size_t length)
{
	struct sockaddr_un local = {.sun_family = AF_UNIX};
	/* at a NUL the system would cut the path off, or take it for a name of the abstract kind */
	if (length == 0 || length >= sizeof local.sun_path || memchr(path, '\0', length))
		return false;
	memcpy(local.sun_path, path, length);
	*address = (struct smtp_address){.length = (unsigned)(offsetof(struct sockaddr_un, sun_path) + length + 1)};
	memcpy(address->bytes, &local, address->length);
	return true;
}

void smtp_sock_name(const struct smtp_address *address, char *host, size_t size, int *port)
{
	char service[16] = "0";
	host[0] = '\0';
	if (as_sockaddr(address)->sa_family == AF_UNIX) {
		const struct sockaddr_un *local = (const void *)address->bytes;
		size_t length = strnlen(local->sun_path, sizeof local->sun_path);
		snprintf(host, size, "%.*s", (int)length, local->sun_path);
	} else if (getnameinfo(as_sockaddr(address), address->length, host, (socklen_t)size, service, sizeof service,
	                       NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
		host[0] = '\0';
	}
	*port = (int)strtol(service, NULL, 10);
}

#ifdef SOCK_CLOEXEC
/* at once: another thread of the host may fork, and it saves two calls */
enum { KIND = SOCK_CLOEXEC | SOCK_NONBLOCK };
#else
enum { KIND = 0 };
#endif

/* The options every socket of ours has; on failure closes it and returns -errno. */
static int prepare(int fd)
{
	int on = 1;
	if (KIND == 0 && (fcntl(fd, F_SETFL, O_NONBLOCK) == -1 || fcntl(fd, F_SETFD, FD_CLOEXEC) == -1)) {
		int cause = errno;
		close(fd);
		return -cause;
	}
	/* a unix socket has no Nagle to switch off */
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
#ifdef SO_NOSIGPIPE
	(void)setsockopt(fd, SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof on);
#endif
	return fd;
}

static int open_socket(const struct smtp_address *address)
{
	int fd = socket(as_sockaddr(address)->sa_family, SOCK_STREAM | KIND, 0);
	return fd == -1 ? -errno : prepare(fd);
}

static int fail(int fd)
{
	int cause = errno;
	close(fd);
	return -cause;
}

int smtp_sock_connect(const struct smtp_address *address, const struct smtp_address *local)
{
	int fd = open_socket(address);
	if (fd < 0)
		return fd;
	if (local && bind(fd, as_sockaddr(local), local->length) == -1)
		return fail(fd);
	/* EAGAIN: a unix socket whose backlog is full; there is nothing to poll for, so it is a failure */
	if (connect(fd, as_sockaddr(address), address->length) == -1 && errno != EINPROGRESS && errno != EINTR)
		return fail(fd);
	return fd;
}

int smtp_sock_connected(int fd)
{
	struct pollfd wait = {.fd = fd, .events = POLLOUT};
	int cause = 0;
	socklen_t size = sizeof cause;
	/* also when a signal came: SO_ERROR alone cannot tell under way from connected */
	if (poll(&wait, 1, 0) != 1)
		return -EAGAIN;
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &cause, &size) == -1)
		return -errno;
	return -cause;
}

int smtp_sock_listen(const struct smtp_address *address, int queue)
{
	int on = 1;
	int fd = open_socket(address);
	if (fd < 0)
		return fd;
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (bind(fd, as_sockaddr(address), address->length) == -1 || listen(fd, queue > 0 ? queue : SOMAXCONN) == -1)
		return fail(fd);
	return fd;
}

int smtp_sock_accept(int fd)
{
#ifdef SOCK_CLOEXEC
	int peer = accept4(fd, NULL, NULL, KIND);
#else
	int peer = accept(fd, NULL, NULL);
#endif
	return peer == -1 ? -errno : prepare(peer);
}

static ssize_t read_now(int fd, void *bytes, size_t size)
{
	ssize_t count = recv(fd, bytes, size, MSG_DONTWAIT);
	return count == -1 ? -errno : count;
}

ssize_t smtp_sock_await(int fd, double *patience, double seconds, void *bytes, size_t size)
{
#ifdef __linux__
	const double longest = 1000000; /* seconds: the system's own fields need not hold more */
	if (*patience == 0 || *patience > seconds) {
		/* somewhat less, since what is left of one deadline is never the same twice */
		double share = seconds > longest ? longest : seconds * 0.9;
		struct timeval limit = {.tv_sec = (time_t)share, .tv_usec = 0};
		limit.tv_usec = (suseconds_t)((share - (double)limit.tv_sec) * 1e6);
		/* a limit of zero would be none */
		if (share < 1e-3 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) == -1 ||
		    (*patience == 0 && fcntl(fd, F_SETFL, 0) == -1))
			return read_now(fd, bytes, size);
		*patience = share;
	}
	ssize_t count = recv(fd, bytes, size, 0);
	return count == -1 ? -errno : count;
#else
	/* elsewhere recv goes on after a signal, and the host's handler would not get to run */
	struct smtp_sock_wait wait = {.fd = fd};
	(void)patience;
	if (seconds > 0 && smtp_sock_poll(&wait, 1, seconds) == 0)
		return -EAGAIN;
	return read_now(fd, bytes, size);
#endif
}

ssize_t smtp_sock_write(int fd, const void *bytes, size_t size)
{
	ssize_t written = send(fd, bytes, size, MSG_NOSIGNAL | MSG_DONTWAIT);
	return written == -1 ? -errno : written;
}

enum smtp_sock_look smtp_sock_peek(int fd)
{
	char byte;
	ssize_t count = recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
	if (count > 0)
		return SMTP_SOCK_DATA;
	if (count == -1 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
		return SMTP_SOCK_IDLE;
	return SMTP_SOCK_CLOSED;
}

int smtp_sock_local(int fd, struct smtp_address *address)
{
	socklen_t length = sizeof address->bytes;
	*address = (struct smtp_address){0};
	if (getsockname(fd, (struct sockaddr *)(void *)address->bytes, &length) == -1)
		return -errno;
	address->length = (unsigned)length;
	return 0;
}

void smtp_sock_close(int fd)
{
	close(fd);
}

int smtp_sock_poll(struct smtp_sock_wait *waits, size_t count, double seconds)
{
	struct pollfd few[16];
	struct pollfd *polled = count <= 16 ? few : calloc(count, sizeof *polled);
	int limit = seconds < 0 ? -1 : seconds > 1e6 ? 1000000000 : (int)(seconds * 1000);
	/* rounded up: waking a fraction early would spin until the deadline */
	limit += limit >= 0 && limit < seconds * 1000;
	if (!polled)
		return 0;
	for (size_t i = 0; i < count; i++)
		polled[i] = (struct pollfd){.fd = waits[i].fd, .events = waits[i].write ? POLLOUT : POLLIN};
	int ready = poll(polled, (nfds_t)count, limit);
	for (size_t i = 0; i < count; i++)
		waits[i].ready = ready > 0 && polled[i].revents != 0;
	if (polled != few)
		free(polled);
	return ready > 0 ? ready : 0;
}
