/* peer: the facts of one certificate, copied out as text that is safe to print.
 *
 * Control and format characters, and in names all beyond ASCII, are escaped, so neither a log line nor a list can be
 * forged by a certificate. It never judges: see smtp_session_judge. Called by bind/tls and fault. RFC 5280.
 */
#ifndef SMTP_PEER_H
#define SMTP_PEER_H

#include "../wire/buf.h"

#include <stdbool.h>

struct x509_st;

struct smtp_peer {
	struct smtp_buf subject; /* NUL-ended once read */
	struct smtp_buf issuer;
	struct smtp_buf names; /* SAN host names and addresses, each NUL-ended */
	char not_before[32];   /* 2027-01-01T00:00:00Z */
	char not_after[32];
	char pin[48]; /* base64 of the SHA-256 of its SubjectPublicKeyInfo (RFC 7469 2.4), or "" */
};

void smtp_peer_init(struct smtp_peer *peer);
void smtp_peer_wipe(struct smtp_peer *peer);

/* What does not fit (very many names) or no memory is left for is left out. */
void smtp_peer_read(struct smtp_peer *peer, struct x509_st *cert);

/* A field as a C string, "" while nothing was read. */
const char *smtp_peer_text(const struct smtp_buf *field);

/* How many octets of the text, up to `most`, are whole characters: as a precision for "%.*s". */
int smtp_peer_cut(const char *text, size_t most);

/* Whether a certificate is within its dates. */
bool smtp_peer_is_current(const struct x509_st *cert);

/* The name after `name`, the first for NULL; NULL at the end. */
const char *smtp_peer_names(const struct smtp_peer *peer, const char *name);

#endif
