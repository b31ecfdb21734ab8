/* fault: what went wrong in TLS, in words for a person, and what to do where that is well known.
 *
 * Texts are one line and hold no key material: they come from OpenSSL's constant reason phrases, from the caller's own
 * paths and names, and from certificate fields with control bytes escaped. OpenSSL's error queue is always left empty.
 * Called by the other files of this room; the bindings read the texts.
 */
#ifndef SMTP_FAULT_H
#define SMTP_FAULT_H

#include "../wire/status.h"

#include <stdbool.h>

struct smtp_engine;

#define SMTP_FAULT_MEMORY "out of memory"

struct smtp_fault {
	char text[512];
	char hint[768]; /* "" where no advice is well known */
};

void smtp_fault_set(struct smtp_fault *fault, const char *text, const char *hint);

/* Empties OpenSSL's queue. Returns whether memory was short. */
bool smtp_fault_memory(void);

/* `what`, a colon, and the reason at the head of OpenSSL's queue (without one: `what` alone); where memory was short that
 * alone. */
void smtp_fault_drain(struct smtp_fault *fault, const char *what);

/* Leaves in engine->fault the words for an operation on it that just failed, and tells what that came to:
 * SMTP_E_CLOSED where the peer is gone once the handshake is over, else SMTP_E_PROTOCOL. */
SMTP_MUST_USE enum smtp_status smtp_fault_explain(struct smtp_engine *engine);

#endif
