/* resolve: names to addresses off the caller's thread, so that no caller ever blocks on DNS.
 *
 * getaddrinfo runs on a thread of its own, and a descriptor becomes readable when it is done. It cannot be stopped: a
 * look-up that is given up ends by itself. So that a silent name server does not cost a thread for each try, those who
 * ask for the same name and port meanwhile share one, and there is a cap over all in the process. Any thread may call.
 * A child of fork has no look-up under way: those of its parent have failed there, and their descriptors are gone but
 * for the ones that its own copies of the look-ups have. Called by bind/net.
 */
#ifndef SMTP_RESOLVE_H
#define SMTP_RESOLVE_H

#include "sock.h"

struct smtp_resolve;

enum { SMTP_RESOLVE_MOST = 64 }; /* names being looked up in a process at once; one more fails, as what may pass */

/* Starts a look-up of stream-socket addresses; an address literal is done at once, with no thread.
 * Returns 0 and *lookup, or -errno. */
SMTP_MUST_USE int smtp_resolve_start(struct smtp_resolve **lookup, const char *host, int port);

/* Becomes readable when done; -1 for a look-up that needed no waiting. */
int smtp_resolve_fd(const struct smtp_resolve *lookup);

/* MORE while under way; OK with the addresses; else an error with its words. The result lives as long as the
 * look-up. */
SMTP_MUST_USE enum smtp_status smtp_resolve_result(struct smtp_resolve *lookup, const struct smtp_address **addresses,
                                                   size_t *count, const char **text, bool *temporary);

/* Gives it up, done or not. */
void smtp_resolve_free(struct smtp_resolve *lookup);

#endif
