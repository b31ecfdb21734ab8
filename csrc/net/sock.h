/* sock: stream sockets, one non-blocking system call at a time.
 *
 * Every socket is close-on-exec and never raises SIGPIPE; TCP ones have Nagle's algorithm off (it costs 44 ms a message
 * against delayed acknowledgements). Nothing here waits except smtp_sock_poll and smtp_sock_await, and these until a
 * deadline. Called by bind/net. Results that count are >= 0, or -errno.
 */
#ifndef SMTP_SOCK_H
#define SMTP_SOCK_H

#include "../wire/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* A socket address as the system knows it. */
struct smtp_address {
	unsigned length;
	_Alignas(16) unsigned char bytes[128];
};

enum smtp_sock_look { SMTP_SOCK_IDLE, SMTP_SOCK_DATA, SMTP_SOCK_CLOSED };

/* A unix socket's address; false if the path is too long, empty or has a NUL in it. */
SMTP_MUST_USE bool smtp_sock_unix(struct smtp_address *address, const char *path, size_t length);

/* The host (or path) and port in an address as text; port 0 where there is none. */
void smtp_sock_name(const struct smtp_address *address, char *host, size_t size, int *port);

/* Begins to connect, from `local` unless NULL. Returns the descriptor. */
SMTP_MUST_USE int smtp_sock_connect(const struct smtp_address *address, const struct smtp_address *local);

/* 0 once connected, -EAGAIN while under way, -errno when it failed. */
SMTP_MUST_USE int smtp_sock_connected(int fd);

/* With room for `queue` connections that nobody has accepted yet, 0: as many as the system allows. Where there is none
 * left a client may be connected that the server knows nothing of. */
SMTP_MUST_USE int smtp_sock_listen(const struct smtp_address *address, int queue);
SMTP_MUST_USE int smtp_sock_accept(int fd);

/* Reads, and waits for the bytes in the same call, up to `seconds`: 0 at the end of the stream, -EAGAIN when none came,
 * perhaps somewhat early. *patience is the socket's, 0 at first: what the system was told of its waits. */
SMTP_MUST_USE ssize_t smtp_sock_await(int fd, double *patience, double seconds, void *bytes, size_t size);

SMTP_MUST_USE ssize_t smtp_sock_write(int fd, const void *bytes, size_t size);

/* What lies on the socket, without taking it. */
SMTP_MUST_USE enum smtp_sock_look smtp_sock_peek(int fd);

/* The socket's own address. */
SMTP_MUST_USE int smtp_sock_local(int fd, struct smtp_address *address);

void smtp_sock_close(int fd);

struct smtp_sock_wait {
	int fd;
	bool write; /* wait until it can be written, else read */
	bool ready; /* out */
};

/* Waits until one is ready or `seconds` have passed (less than 0: no limit). Returns how many are ready; 0 also when a
 * signal came, so that the host's handler gets to run. */
SMTP_MUST_USE int smtp_sock_poll(struct smtp_sock_wait *waits, size_t count, double seconds);

#endif
