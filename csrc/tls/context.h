/* context: the policy of one side, made once and shared by its connections: versions, trust, own certificate.
 *
 * TLS 1.2 at least, forward secrecy always, security level 2 at least for a client, no renegotiation, no compression, no
 * early data. A client verifies unless told not to, by smtp_session_judge. It never asks for a password on the terminal
 * and never touches process-wide OpenSSL state. Called by the bindings and by engine. RFC 8446, 5246, 5280, 8314, 9325.
 */
#ifndef SMTP_CONTEXT_H
#define SMTP_CONTEXT_H

#include "../wire/status.h"
#include "fault.h"

#include <stdbool.h>
#include <stddef.h>

struct ssl_ctx_st;

struct smtp_context {
	struct ssl_ctx_st *ctx; /* NULL: not made */
	bool server;
	bool verify;          /* client: chain and name; server: a client certificate is demanded */
	unsigned char id[16]; /* random: of this context and no other */
};

/* A Lua-style string: `bytes` has a NUL after its `length` bytes. NULL: not given. */
struct smtp_context_text {
	const char *bytes;
	size_t length;
};

struct smtp_context_options {
	bool server;
	bool verify;                      /* client only */
	int min, max;                     /* 12 or 13; max 0: the newest */
	struct smtp_context_text ca_file; /* this, cert and key: a path, or the PEM text itself */
	struct smtp_context_text ca_path;
	struct smtp_context_text cert; /* the certificate, then its chain */
	struct smtp_context_text key;  /* not given: it is looked for in cert */
};

/* Errors: SMTP_E_MEMORY, SMTP_E_INPUT; *fault says which. The context then needs smtp_context_wipe all the same. */
SMTP_MUST_USE enum smtp_status smtp_context_init(struct smtp_context *context,
                                                 const struct smtp_context_options *options, struct smtp_fault *fault);
void smtp_context_wipe(struct smtp_context *context);

/* What OpenSSL calls for a key's password, so that it never asks on the terminal; it sets *(bool *)asked. */
int smtp_no_password(char *into, int size, int writing, void *asked);

#endif
