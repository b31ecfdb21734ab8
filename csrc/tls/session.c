/* session: see session.h. The engine's own `known` has what it was offered, and what its server is verified by without
 * another look: there `chain` and `sent` are of this context, for this name, or NULL. */
#include "session.h"

#include "engine.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509_vfy.h>
#include <string.h>

static void free_chain(STACK_OF(X509) *chain)
{
	sk_X509_pop_free(chain, X509_free);
}

void smtp_session_wipe(struct smtp_session *session)
{
	SSL_SESSION_free(session->session);
	free_chain(session->chain);
	free_chain(session->sent);
	memset(session, 0, sizeof *session);
}

static bool are_current(const STACK_OF(X509) *chain)
{
	for (int i = 0; i < sk_X509_num(chain); i++) {
		if (!smtp_peer_is_current(sk_X509_value(chain, i)))
			return false;
	}
	return true;
}

/* What verifies the certificate of the session that `ssl` is to resume: trust, dates, name; NULL: nothing does. */
static STACK_OF(X509) *verify(SSL *ssl)
{
	X509 *cert = SSL_SESSION_get0_peer(SSL_get0_session(ssl));
	X509_STORE_CTX *store = X509_STORE_CTX_new();
	STACK_OF(X509) *chain = NULL;
	if (cert && store &&
	    X509_STORE_CTX_init(store, SSL_CTX_get_cert_store(SSL_get_SSL_CTX(ssl)), cert, SSL_get_peer_cert_chain(ssl)) &&
	    X509_STORE_CTX_set_default(store, "ssl_server") &&
	    X509_VERIFY_PARAM_set1(X509_STORE_CTX_get0_param(store), SSL_get0_param(ssl))) {
		X509_VERIFY_PARAM_set_auth_level(X509_STORE_CTX_get0_param(store), SSL_get_security_level(ssl));
		if (X509_verify_cert(store) == 1)
			chain = X509_STORE_CTX_get1_chain(store);
	}
	X509_STORE_CTX_free(store);
	ERR_clear_error();
	return chain;
}

/* Whether the certificate of the session to be resumed is as good as a handshake would ask for now. */
static bool still_verifies(struct smtp_engine *engine)
{
	struct smtp_session *known = &engine->known;
	if (known->chain)
		return are_current(known->chain);
	known->chain = verify(engine->ssl);
	return known->chain != NULL;
}

void smtp_session_offer(struct smtp_engine *engine, const struct smtp_session *session)
{
	struct smtp_session *known = &engine->known;
	if (session->chain && session->sent && memcmp(session->id, known->id, sizeof known->id) == 0 &&
	    strcmp(session->name, known->name) == 0) {
		known->chain = X509_chain_up_ref(session->chain);
		known->sent = X509_chain_up_ref(session->sent);
	}
	if (!session->session)
		return;
	if (SSL_set_session(engine->ssl, session->session) &&
	    (!(SSL_get_verify_mode(engine->ssl) & SSL_VERIFY_PEER) || still_verifies(engine)) &&
	    SSL_SESSION_up_ref(session->session))
		known->session = session->session;
	else
		(void)SSL_set_session(engine->ssl, NULL);
	ERR_clear_error();
}

/* Octet by octet: X509_cmp leaves the signature out where OpenSSL could not make its hash of a certificate. */
static bool is_same(const X509 *one, const X509 *other)
{
	unsigned char *bytes = NULL;
	unsigned char *others = NULL;
	int length = i2d_X509(one, &bytes);
	bool same = length > 0 && i2d_X509(other, &others) == length && memcmp(bytes, others, (size_t)length) == 0;
	OPENSSL_free(bytes);
	OPENSSL_free(others);
	return same;
}

static bool are_same(const STACK_OF(X509) *one, const STACK_OF(X509) *other)
{
	int count = sk_X509_num(one);
	bool same = count > 0 && sk_X509_num(other) == count;
	for (int i = 0; same && i < count; i++)
		same = is_same(sk_X509_value(one, i), sk_X509_value(other, i));
	return same;
}

int smtp_session_judge(X509_STORE_CTX *store, void *unused)
{
	SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
	const struct smtp_engine *engine = SSL_get_app_data(ssl);
	const struct smtp_session *known = &engine->known;
	STACK_OF(X509) *chain = NULL;
	(void)unused;
	if (known->chain && are_same(known->sent, X509_STORE_CTX_get0_untrusted(store)) && are_current(known->chain))
		chain = X509_chain_up_ref(known->chain);
	if (!chain) {
		/* again: OpenSSL does not look whether it found the memory for the name, and without one verifies none */
		if (X509_VERIFY_PARAM_set1(X509_STORE_CTX_get0_param(store), SSL_get0_param(ssl)))
			return X509_verify_cert(store) == 1; /* less than 0 would mean: ask again */
		X509_STORE_CTX_set_error(store, X509_V_ERR_OUT_OF_MEM);
		return 0;
	}
	X509_STORE_CTX_set0_verified_chain(store, chain);
	X509_STORE_CTX_set_error(store, X509_V_OK);
	return 1;
}

void smtp_session_take(const struct smtp_engine *engine, struct smtp_session *session)
{
	SSL_SESSION *last = engine->client && engine->shaken && !engine->failed ? SSL_get0_session(engine->ssl) : NULL;
	if (!last)
		return;
	bool spent = last == engine->known.session && SSL_SESSION_get_protocol_version(last) == TLS1_3_VERSION;
	if (!spent && SSL_SESSION_is_resumable(last) && SSL_SESSION_up_ref(last))
		session->session = last;
	STACK_OF(X509) *chain =
		SSL_session_reused(engine->ssl) ? engine->known.chain : SSL_get0_verified_chain(engine->ssl);
	STACK_OF(X509) *sent = SSL_get_peer_cert_chain(engine->ssl);
	if (chain && sent && (SSL_get_verify_mode(engine->ssl) & SSL_VERIFY_PEER)) {
		memcpy(session->id, engine->known.id, sizeof session->id);
		session->chain = X509_chain_up_ref(chain);
		session->sent = X509_chain_up_ref(sent);
		ERR_clear_error();
		memcpy(session->name, engine->known.name, sizeof session->name);
	}
}
