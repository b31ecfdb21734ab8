/* session: what a client keeps of a connection, so that another to the same server costs less, and what is done with it:
 * recalled and offered before the handshake, judged in it, taken after it.
 *
 * It trusts nothing for being kept: a certificate in a session has to be what this context and name ask for now (a resumed
 * handshake shows none, and OpenSSL then checks none again), and of what this context has found good for this name only the
 * dates are looked at once more, where the server sends the same certificates, octet by octet. RFC 8446 2.2, C.4; RFC 5280.
 * Called by the bindings, engine and context.
 */
#ifndef SMTP_SESSION_H
#define SMTP_SESSION_H

struct smtp_engine;
struct x509_store_ctx_st;

struct smtp_session {
	struct ssl_session_st *session; /* to be resumed; NULL: none */
	unsigned char id[16];           /* of the context that has verified the server, */
	struct stack_st_X509 *chain;    /* by these certificates; NULL: nothing has */
	struct stack_st_X509 *sent;     /* from those that the server had sent */
	char name[256];                 /* for this name: without brackets and trailing dot, "": for none */
};

void smtp_session_wipe(struct smtp_session *session);

/* Has the client's engine, whose handshake has not begun, use what there is in `session`. What cannot be resumed, or would
 * not be verified now, is no error: the handshake is then a full one. */
void smtp_session_offer(struct smtp_engine *engine, const struct smtp_session *session);

/* What OpenSSL calls with the certificates a server has sent, instead of verifying them itself; set once on a context. */
int smtp_session_judge(struct x509_store_ctx_st *store, void *unused);

/* The last session the server gave, but not (TLS 1.3) the one already used here: a ticket used twice would show an
 * onlooker that both connections are of one client (RFC 8446 C.4); and what the server was verified by. */
void smtp_session_take(const struct smtp_engine *engine, struct smtp_session *session);

#endif
