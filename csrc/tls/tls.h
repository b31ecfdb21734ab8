/* tls: one TLS connection, client or server, as an engine: bytes in, bytes out.
 *
 *   cleartext --write--> [ engine ] --take--> ciphertext for the peer
 *   cleartext <--read--- [        ] <--feed-- ciphertext from the peer
 *
 * It does no I/O and never waits: SMTP_MORE asks for bytes from the peer. After any call but feed there may be bytes to
 * take, also after one that failed (the alert). OpenSSL's error queue is left empty. Called by the bindings.
 * RFC 8446, 5246; names: RFC 6125 with subjectAltName only (RFC 8314 4, RFC 9525); SNI: RFC 6066 3; channel bindings:
 * RFC 9266, RFC 5929 4 (tls-unique is not offered: unsafe before TLS 1.3, and not defined for it).
 */
#ifndef SMTP_TLS_H
#define SMTP_TLS_H

#include "context.h"
#include "fault.h"
#include "peer.h"

struct ssl_st;
struct ssl_session_st;
struct bio_st;

enum {
	SMTP_TLS_FEED_CAP = 1 << 20, /* most bytes fed and not yet processed */
	SMTP_TLS_RECORD = 16384,     /* most bytes one read gives */
	SMTP_TLS_BINDING_MAX = 64,   /* most bytes of a channel binding */
};

/* What a client keeps of a connection, so that another to the same server costs less. */
struct smtp_session {
	struct ssl_session_st *session; /* to be resumed; NULL: none */
	unsigned char id[16];           /* of the context that has verified the server, */
	struct stack_st_X509 *chain;    /* by these certificates; NULL: nothing has */
	struct stack_st_X509 *sent;     /* from those that the server had sent */
	char name[256];                 /* for this name */
};

void smtp_session_wipe(struct smtp_session *session);

struct smtp_tls {
	struct ssl_st *ssl; /* NULL: not made */
	struct bio_st *in;  /* both belong to ssl */
	struct bio_st *out;
	struct ssl_session_st *offered; /* the session that was to be resumed, or NULL */
	unsigned char id[16];           /* of the context */
	struct stack_st_X509 *chain;    /* what its server was verified by, or NULL */
	struct stack_st_X509 *sent;     /* what that was made of, where it was this context, for this name; else NULL */
	int client;
	int shaken; /* the handshake is over */
	int failed; /* nothing works any more; fault says why */
	int ended;  /* the peer sends no more */
	int asked;  /* the server asked for a certificate, and there was none to give */
	int heard;
	unsigned char first;   /* the peer's first byte, once heard */
	char name[256];        /* the server's name without brackets and trailing dot, or "" */
	struct smtp_peer peer; /* whose certificate was refused */
	struct smtp_fault fault;
};

/* All calls: a negative status leaves words in tls->fault. An engine that failed stays failed. */

/* `name`: host name or address literal (with or without brackets); may be NULL for a server, and for a client that does
 * not verify. `session`, or NULL: one to resume, left out where the certificate in it does not pass what this context
 * and name ask for now; where the server then sends the certificates again that this context has found good for this
 * name, only their dates are looked at. Errors: SMTP_E_MEMORY; SMTP_E_INPUT (no name to verify, or not a possible one). */
SMTP_MUST_USE enum smtp_status smtp_tls_init(struct smtp_tls *tls, const struct smtp_context *context, const char *name,
                                             size_t length, const struct smtp_session *session);
void smtp_tls_wipe(struct smtp_tls *tls);

/* Errors: SMTP_E_PROTOCOL for all that can go wrong between two peers. */
SMTP_MUST_USE enum smtp_status smtp_tls_handshake(struct smtp_tls *tls);

/* Errors: SMTP_E_LIMIT, SMTP_E_MEMORY. */
SMTP_MUST_USE enum smtp_status smtp_tls_feed(struct smtp_tls *tls, const void *bytes, size_t length);

/* The peer will send no more. */
void smtp_tls_eof(struct smtp_tls *tls);

/* Encrypts all of it. Errors: SMTP_E_PROTOCOL. */
SMTP_MUST_USE enum smtp_status smtp_tls_write(struct smtp_tls *tls, const void *bytes, size_t length);

/* At most `room` bytes. SMTP_OK with *length 0: the peer has sent close_notify. Errors: SMTP_E_PROTOCOL. */
SMTP_MUST_USE enum smtp_status smtp_tls_read(struct smtp_tls *tls, void *bytes, size_t room, size_t *length);

/* The same, moved to the end of a queue. Errors: SMTP_E_MEMORY, SMTP_E_LIMIT; then nothing is lost. */
SMTP_MUST_USE enum smtp_status smtp_tls_drain(struct smtp_tls *tls, struct smtp_buf *out);

/* How much there is for the peer; a copy of the first `room` bytes of it, and how many they are; takes that many off. */
size_t smtp_tls_waiting(const struct smtp_tls *tls);
size_t smtp_tls_show(const struct smtp_tls *tls, void *bytes, size_t room);
void smtp_tls_drop(struct smtp_tls *tls, size_t length);

/* Queues close_notify, where the connection stands. */
void smtp_tls_shutdown(struct smtp_tls *tls);

const char *smtp_tls_version(const struct smtp_tls *tls); /* "TLSv1.3" */
const char *smtp_tls_cipher(const struct smtp_tls *tls);
int smtp_tls_resumed(const struct smtp_tls *tls);

/* The last session the server gave, but not (TLS 1.3) the one already used here: a ticket used twice would show an
 * onlooker that both connections are of one client (RFC 8446 C.4); and what the server was verified by. */
void smtp_tls_session(const struct smtp_tls *tls, struct smtp_session *session);

/* `kind`: "tls-exporter" or "tls-server-end-point". Errors, which leave the connection as it was: SMTP_E_INPUT (not
 * offered, or not defined for this connection), SMTP_E_MEMORY. */
SMTP_MUST_USE enum smtp_status smtp_tls_binding(struct smtp_tls *tls, const char *kind,
                                                unsigned char binding[SMTP_TLS_BINDING_MAX], size_t *length);

/* Reads the peer's certificate; 0 where the handshake is not over or there is none. */
int smtp_tls_peer(const struct smtp_tls *tls, struct smtp_peer *peer);

#endif
