/* poller: many descriptors, and a time, as one descriptor that is readable when one of them is ready or the time has
 * come. So a host that can wait for one thing waits for many. Of Linux only: epoll and timerfd.
 *
 * Each watch is for one event; then it has to be made anew. One system call at a time, none waits. Called by bind/net.
 * Results are >= 0, or -errno.
 */
#ifndef SMTP_POLLER_H
#define SMTP_POLLER_H

#include "../wire/status.h"

#include <stdbool.h>

/* A new poller; -ENOSYS where the system has none. */
SMTP_MUST_USE int smtp_poller_open(void);

/* A new alarm of the poller, which makes it readable; not set. */
SMTP_MUST_USE int smtp_poller_add_alarm(int poller);

/* The alarm goes off in `seconds`; 0 or less: at once. */
SMTP_MUST_USE int smtp_poller_set_alarm(int alarm, double seconds);

/* Watches until the descriptor can be read, or written, or has failed. */
SMTP_MUST_USE int smtp_poller_watch(int poller, int fd, bool write);

/* Ends a watch, if there is one. */
void smtp_poller_drop(int poller, int fd);

/* Those of the watched that are ready, at most `size`. Returns how many. */
SMTP_MUST_USE int smtp_poller_ready(int poller, int *fds, int size);

#endif
