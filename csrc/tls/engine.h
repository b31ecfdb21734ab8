/* engine: one TLS connection, client or server, as an engine: bytes in, bytes out.
 *
 *   cleartext --write--> [ engine ] --take--> ciphertext for the peer
 *   cleartext <--read--- [        ] <--feed-- ciphertext from the peer
 *
 * It does no I/O and never waits: SMTP_MORE asks for bytes from the peer. After any call but feed there may be bytes to
 * take, also after one that failed (the alert). OpenSSL's error queue is left empty. Called by the bindings; session and
 * binding are about an engine, too.
 * RFC 8446, 5246; names: RFC 6125 with subjectAltName only (RFC 8314 4, RFC 9525); SNI: RFC 6066 3.
 */
#ifndef SMTP_ENGINE_H
#define SMTP_ENGINE_H

#include "context.h"
#include "fault.h"
#include "peer.h"
#include "session.h"

#include <stdbool.h>

struct ssl_st;
struct bio_st;
struct x509_st;
struct evp_pkey_st;

enum {
	SMTP_ENGINE_FEED_CAP = 1 << 20, /* most bytes fed and not yet processed */
	SMTP_ENGINE_RECORD = 16384,     /* most bytes one read gives */
};

struct smtp_engine {
	struct ssl_st *ssl; /* NULL: not made */
	struct bio_st *in;  /* both belong to ssl */
	struct bio_st *out;
	struct smtp_session known; /* the session to be resumed, what is known of the server, and its name */
	enum smtp_status failed;   /* the first error, or SMTP_OK: nothing works any more; fault says why */
	bool client;
	bool shaken; /* the handshake is over */
	bool ended;  /* the peer sends no more */
	bool asked;  /* the server asked for a certificate, and there was none to give */
	bool heard;
	unsigned char first;   /* the peer's first byte, once heard */
	struct smtp_peer peer; /* whose certificate was refused */
	struct smtp_fault fault;
};

/* All calls: a negative status leaves words in engine->fault. An engine that failed stays failed. Of two peers all that can
 * go wrong is SMTP_E_PROTOCOL, but SMTP_E_CLOSED where the peer is gone once the handshake is over: fault tells a
 * close_notify from a cut. */

/* `name`: host name or address literal (with or without brackets); may be NULL for a server, and for a client that does
 * not verify. Errors: SMTP_E_MEMORY; SMTP_E_INPUT (no name to verify, or not a possible one). */
SMTP_MUST_USE enum smtp_status smtp_engine_init(struct smtp_engine *engine, const struct smtp_context *context,
                                                const char *name, size_t length);
void smtp_engine_wipe(struct smtp_engine *engine);

SMTP_MUST_USE enum smtp_status smtp_engine_handshake(struct smtp_engine *engine);

/* Errors: SMTP_E_LIMIT, SMTP_E_MEMORY. */
SMTP_MUST_USE enum smtp_status smtp_engine_feed(struct smtp_engine *engine, const void *bytes, size_t length);

/* The peer will send no more. */
void smtp_engine_eof(struct smtp_engine *engine);

/* Encrypts all of it. */
SMTP_MUST_USE enum smtp_status smtp_engine_write(struct smtp_engine *engine, const void *bytes, size_t length);

/* At most `room` bytes, at least one. */
SMTP_MUST_USE enum smtp_status smtp_engine_read(struct smtp_engine *engine, void *bytes, size_t room, size_t *length);

/* Moves what there is for the peer to the end of a queue. Errors: SMTP_E_MEMORY, SMTP_E_LIMIT; then nothing is lost. */
SMTP_MUST_USE enum smtp_status smtp_engine_drain(struct smtp_engine *engine, struct smtp_buf *out);

/* How much there is for the peer; a copy of the first `room` bytes of it, and how many they are; takes that many off. */
size_t smtp_engine_waiting(const struct smtp_engine *engine);
size_t smtp_engine_show(const struct smtp_engine *engine, void *bytes, size_t room);
void smtp_engine_drop(struct smtp_engine *engine, size_t length);

/* Queues close_notify, where the connection stands. */
void smtp_engine_shutdown(struct smtp_engine *engine);

const char *smtp_engine_version(const struct smtp_engine *engine); /* "TLSv1.3" */
const char *smtp_engine_cipher(const struct smtp_engine *engine);
bool smtp_engine_resumed(const struct smtp_engine *engine);

/* Reads the peer's certificate; false where the handshake is not over or there is none. */
bool smtp_engine_peer(const struct smtp_engine *engine, struct smtp_peer *peer);

/* What OpenSSL calls when the server asks for a certificate and the context has none; set once on a context. */
int smtp_engine_lacks(struct ssl_st *ssl, struct x509_st **cert, struct evp_pkey_st **key);

#endif
