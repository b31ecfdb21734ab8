/* fault: what went wrong in TLS, in words for a person, and what to do where that is well known.
 *
 * Texts are one line and hold no key material: they come from OpenSSL's constant reason phrases, from the caller's own
 * paths and names, and from certificate fields with control bytes escaped. OpenSSL's error queue is always left empty.
 * Called by the other files of this room; the bindings read the texts.
 */
#ifndef SMTP_FAULT_H
#define SMTP_FAULT_H

struct ssl_st;
struct smtp_peer;

/* The peer went away without saying so: the bytes before may be short of what it meant to send. */
#define SMTP_FAULT_CUT "connection cut without TLS close_notify"
#define SMTP_FAULT_MEMORY "out of memory"

struct smtp_fault {
	char text[512];
	char hint[768]; /* "" where no advice is well known */
};

/* What the engine knows beyond OpenSSL's own state. */
struct smtp_fault_scene {
	struct ssl_st *ssl;
	struct smtp_peer *peer; /* room for the facts of a refused certificate */
	const char *name;       /* whom the client wanted to reach, "" when it did not say */
	int client;
	int shaken;           /* the handshake was over */
	int asked;            /* the server asked for a certificate, and there was none to give */
	int ended;            /* the peer sends no more */
	int heard;            /* at least one byte came */
	unsigned char first;  /* that byte */
};

void smtp_fault_set(struct smtp_fault *fault, const char *text, const char *hint);

/* Empties OpenSSL's queue. Returns whether memory was short. */
int smtp_fault_memory(void);

/* `what`, a colon, and the reason at the head of OpenSSL's queue (without one: `what` alone); where memory was short that
 * alone. */
void smtp_fault_drain(struct smtp_fault *fault, const char *what);

/* The words for an operation on an engine that just failed. */
void smtp_fault_explain(struct smtp_fault *fault, const struct smtp_fault_scene *scene);

#endif
