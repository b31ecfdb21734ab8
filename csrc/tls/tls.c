/* tls: see tls.h. */
#include "tls.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>
#include <string.h>

static void free_chain(STACK_OF(X509) *chain)
{
	sk_X509_pop_free(chain, X509_free);
}

void smtp_tls_wipe(struct smtp_tls *tls)
{
	SSL_free(tls->ssl);
	tls->ssl = NULL;
	SSL_SESSION_free(tls->offered);
	tls->offered = NULL;
	free_chain(tls->chain);
	tls->chain = NULL;
	free_chain(tls->sent);
	tls->sent = NULL;
	smtp_peer_wipe(&tls->peer);
}

static enum smtp_status refuse(struct smtp_tls *tls, enum smtp_status status, const char *text)
{
	smtp_fault_set(&tls->fault, text, NULL);
	return status;
}

static enum smtp_status fail(struct smtp_tls *tls)
{
	struct smtp_fault_scene scene = {
	    .ssl = tls->ssl,
	    .peer = &tls->peer,
	    .name = tls->name,
	    .client = tls->client,
	    .shaken = tls->shaken,
	    .asked = tls->asked,
	    .ended = tls->ended,
	    .heard = tls->heard,
	    .first = tls->first,
	};
	smtp_fault_explain(&tls->fault, &scene);
	tls->failed = 1;
	return SMTP_E_PROTOCOL;
}

/* Keeps the name as certificates write it: no brackets, no trailing dot. */
static enum smtp_status keep_name(struct smtp_tls *tls, const char *name, size_t length)
{
	if (length > 2 && name[0] == '[' && name[length - 1] == ']') {
		name++;
		length -= 2;
	} else if (length > 1 && name[length - 1] == '.') {
		length--;
	}
	if (length == 0 || length >= sizeof tls->name || name[0] == '.')
		return refuse(tls, SMTP_E_INPUT, "the server name is not a host name");
	for (size_t i = 0; i < length; i++) {
		/* NUL among them: a name that ends early for one reader is another name for the next */
		if (name[i] <= 0x20 || name[i] >= 0x7F)
			return refuse(tls, SMTP_E_INPUT, "the server name has a byte that no host name has");
	}
	memcpy(tls->name, name, length);
	tls->name[length] = 0;
	return SMTP_OK;
}

/* SNI, and what the certificate has to say. */
static enum smtp_status expect_name(struct smtp_tls *tls)
{
	X509_VERIFY_PARAM *param = SSL_get0_param(tls->ssl);
	X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NEVER_CHECK_SUBJECT | X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	if (X509_VERIFY_PARAM_set1_ip_asc(param, tls->name))
		return SMTP_OK;
	ERR_clear_error();
	if (!X509_VERIFY_PARAM_set1_host(param, tls->name, 0) || !SSL_set_tlsext_host_name(tls->ssl, tls->name)) {
		smtp_fault_drain(&tls->fault, "cannot use the server name");
		return SMTP_E_INPUT;
	}
	return SMTP_OK;
}

static int make(struct smtp_tls *tls, SSL_CTX *ctx)
{
	tls->ssl = SSL_new(ctx);
	tls->in = BIO_new(BIO_s_mem());
	tls->out = BIO_new(BIO_s_mem());
	if (!tls->ssl || !tls->in || !tls->out || !SSL_set_app_data(tls->ssl, tls)) {
		BIO_free(tls->in);
		BIO_free(tls->out);
		return 0;
	}
	BIO_set_mem_eof_return(tls->in, -1);
	BIO_set_mem_eof_return(tls->out, -1);
	SSL_set_bio(tls->ssl, tls->in, tls->out);
	return 1;
}

/* Whether all the certificates are within their dates. */
static int is_current(const STACK_OF(X509) *chain)
{
	for (int i = 0; i < sk_X509_num(chain); i++) {
		const X509 *cert = sk_X509_value(chain, i);
		if (X509_cmp_current_time(X509_get0_notBefore(cert)) >= 0 || X509_cmp_current_time(X509_get0_notAfter(cert)) <= 0)
			return 0;
	}
	return 1;
}

/* What verifies the certificate of the session that `ssl` is to resume: trust, dates, name; NULL: nothing does. */
static STACK_OF(X509) *verify(SSL *ssl, SSL_CTX *ctx)
{
	X509 *cert = SSL_SESSION_get0_peer(SSL_get0_session(ssl));
	X509_STORE_CTX *store = X509_STORE_CTX_new();
	STACK_OF(X509) *chain = NULL;
	if (cert && store &&
	    X509_STORE_CTX_init(store, SSL_CTX_get_cert_store(ctx), cert, SSL_get_peer_cert_chain(ssl)) &&
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

/* Keeps what the same context has found good for the same name: of that only the dates can have changed. */
static void recall(struct smtp_tls *tls, const struct smtp_session *session)
{
	if (session->chain && session->sent && memcmp(session->id, tls->id, sizeof tls->id) == 0 &&
	    strcmp(session->name, tls->name) == 0) {
		tls->chain = X509_chain_up_ref(session->chain);
		tls->sent = X509_chain_up_ref(session->sent);
	}
}

/* Whether the certificate in it is as good as a handshake would ask for now: a resumed one shows none, and OpenSSL then
 * checks none of this again. */
static int still_verifies(struct smtp_tls *tls, SSL_CTX *ctx)
{
	if (tls->chain)
		return is_current(tls->chain);
	tls->chain = verify(tls->ssl, ctx);
	return tls->chain != NULL;
}

/* A session that cannot be resumed is no error: the handshake is then a full one. */
static void offer(struct smtp_tls *tls, const struct smtp_context *context, SSL_SESSION *session)
{
	if (SSL_set_session(tls->ssl, session) && (!context->verify || still_verifies(tls, context->ctx)) &&
	    SSL_SESSION_up_ref(session))
		tls->offered = session;
	else
		(void)SSL_set_session(tls->ssl, NULL);
	ERR_clear_error();
}

/* Octet by octet: X509_cmp leaves the signature out where OpenSSL could not make its hash of a certificate. */
static int is_same(const X509 *one, const X509 *other)
{
	unsigned char *bytes = NULL;
	unsigned char *others = NULL;
	int length = i2d_X509(one, &bytes);
	int same = length > 0 && i2d_X509(other, &others) == length && memcmp(bytes, others, (size_t)length) == 0;
	OPENSSL_free(bytes);
	OPENSSL_free(others);
	return same;
}

static int are_same(const STACK_OF(X509) *one, const STACK_OF(X509) *other)
{
	int count = sk_X509_num(one);
	int same = count > 0 && sk_X509_num(other) == count;
	for (int i = 0; same && i < count; i++)
		same = is_same(sk_X509_value(one, i), sk_X509_value(other, i));
	return same;
}

/* What OpenSSL calls with the certificates a server has sent, instead of verifying them itself: the same that this
 * context has verified before, for this name, need no second look but at their dates. */
static int judge(X509_STORE_CTX *store, void *unused)
{
	SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
	const struct smtp_tls *tls = SSL_get_app_data(ssl);
	STACK_OF(X509) *chain = NULL;
	(void)unused;
	if (tls->chain && are_same(tls->sent, X509_STORE_CTX_get0_untrusted(store)) && is_current(tls->chain))
		chain = X509_chain_up_ref(tls->chain);
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

/* What OpenSSL calls when the server asks for a certificate and the context has none. */
static int have_none(SSL *ssl, X509 **cert, EVP_PKEY **key)
{
	struct smtp_tls *tls = SSL_get_app_data(ssl);
	(void)cert;
	(void)key;
	tls->asked = 1;
	return 0;
}

void smtp_session_wipe(struct smtp_session *session)
{
	SSL_SESSION_free(session->session);
	free_chain(session->chain);
	free_chain(session->sent);
	memset(session, 0, sizeof *session);
}

enum smtp_status smtp_tls_init(struct smtp_tls *tls, const struct smtp_context *context, const char *name,
                               size_t length, const struct smtp_session *session)
{
	enum smtp_status status = SMTP_OK;
	memset(tls, 0, sizeof *tls);
	smtp_peer_init(&tls->peer);
	memcpy(tls->id, context->id, sizeof tls->id);
	tls->client = !context->server;
	ERR_clear_error();
	if (tls->client && !name && context->verify)
		return refuse(tls, SMTP_E_INPUT, "a server name is needed to verify the server's certificate");
	if (tls->client && name)
		status = keep_name(tls, name, length);
	if (status != SMTP_OK)
		return status;
	if (!make(tls, context->ctx)) {
		smtp_fault_drain(&tls->fault, "cannot set up TLS");
		return SMTP_E_MEMORY;
	}
	if (!tls->client) {
		SSL_set_accept_state(tls->ssl);
		return SMTP_OK;
	}
	SSL_set_connect_state(tls->ssl);
	SSL_CTX_set_client_cert_cb(context->ctx, have_none);
	if (context->verify)
		SSL_CTX_set_cert_verify_callback(context->ctx, judge, NULL);
	if (name)
		status = expect_name(tls);
	if (status != SMTP_OK || !session)
		return status;
	recall(tls, session);
	if (session->session)
		offer(tls, context, session->session);
	ERR_clear_error();
	return SMTP_OK;
}

enum smtp_status smtp_tls_handshake(struct smtp_tls *tls)
{
	if (tls->failed)
		return SMTP_E_PROTOCOL;
	if (tls->shaken)
		return SMTP_OK;
	ERR_clear_error();
	int result = SSL_do_handshake(tls->ssl);
	if (result != 1) {
		if (SSL_get_error(tls->ssl, result) != SSL_ERROR_WANT_READ)
			return fail(tls);
		ERR_clear_error();
		return SMTP_MORE;
	}
	ERR_clear_error();
	tls->shaken = 1;
	return SMTP_OK;
}

enum smtp_status smtp_tls_feed(struct smtp_tls *tls, const void *bytes, size_t length)
{
	size_t written;
	if (length == 0)
		return SMTP_OK;
	if (length > SMTP_TLS_FEED_CAP || BIO_ctrl_pending(tls->in) > SMTP_TLS_FEED_CAP - length)
		return refuse(tls, SMTP_E_LIMIT, "more bytes from the peer than can be kept");
	if (!tls->heard) {
		tls->heard = 1;
		tls->first = *(const unsigned char *)bytes;
	}
	if (!BIO_write_ex(tls->in, bytes, length, &written)) {
		smtp_fault_drain(&tls->fault, "cannot keep the peer's bytes");
		return SMTP_E_MEMORY;
	}
	return SMTP_OK;
}

void smtp_tls_eof(struct smtp_tls *tls)
{
	BIO_set_mem_eof_return(tls->in, 0);
	tls->ended = 1;
}

enum smtp_status smtp_tls_write(struct smtp_tls *tls, const void *bytes, size_t length)
{
	size_t written;
	if (tls->failed)
		return SMTP_E_PROTOCOL;
	if (!tls->shaken)
		return refuse(tls, SMTP_E_PROTOCOL, "the TLS handshake is not over");
	if (length == 0)
		return SMTP_OK;
	ERR_clear_error();
	if (!SSL_write_ex(tls->ssl, bytes, length, &written))
		return fail(tls);
	return SMTP_OK;
}

/* Whether there is nothing to read: OpenSSL takes as long to say so as for a reply. */
static int is_idle(const struct smtp_tls *tls)
{
	return !tls->ended && BIO_ctrl_pending(tls->in) == 0 && !SSL_has_pending(tls->ssl) &&
	       !(SSL_get_shutdown(tls->ssl) & SSL_RECEIVED_SHUTDOWN);
}

enum smtp_status smtp_tls_read(struct smtp_tls *tls, void *bytes, size_t room, size_t *length)
{
	*length = 0;
	if (tls->failed)
		return SMTP_E_PROTOCOL;
	if (!tls->shaken)
		return refuse(tls, SMTP_E_PROTOCOL, "the TLS handshake is not over");
	if (is_idle(tls))
		return SMTP_MORE;
	ERR_clear_error();
	int result = SSL_read_ex(tls->ssl, bytes, room, length);
	if (result == 1)
		return SMTP_OK;
	switch (SSL_get_error(tls->ssl, result)) {
	case SSL_ERROR_WANT_READ:
		ERR_clear_error();
		return SMTP_MORE;
	case SSL_ERROR_ZERO_RETURN:
		ERR_clear_error();
		return SMTP_OK;
	default:
		return fail(tls);
	}
}

size_t smtp_tls_waiting(const struct smtp_tls *tls)
{
	return BIO_ctrl_pending(tls->out);
}

size_t smtp_tls_show(const struct smtp_tls *tls, void *bytes, size_t room)
{
	char *data = NULL;
	long length = BIO_get_mem_data(tls->out, &data);
	size_t shown = length <= 0 ? 0 : (size_t)length < room ? (size_t)length : room;
	if (shown > 0)
		memcpy(bytes, data, shown);
	return shown;
}

void smtp_tls_drop(struct smtp_tls *tls, size_t length)
{
	/* read away, since a reset would clear the whole memory the queue ever had, each time */
	char scrap[4096];
	while (length > 0) {
		int count = BIO_read(tls->out, scrap, length < sizeof scrap ? (int)length : (int)sizeof scrap);
		if (count <= 0)
			return;
		length -= (size_t)count;
	}
}

enum smtp_status smtp_tls_drain(struct smtp_tls *tls, struct smtp_buf *out)
{
	size_t length = BIO_ctrl_pending(tls->out);
	unsigned char *spot;
	if (length == 0)
		return SMTP_OK;
	enum smtp_status status = smtp_buf_reserve(out, length, &spot);
	if (status == SMTP_OK && !BIO_read_ex(tls->out, spot, length, &length))
		status = SMTP_E_MEMORY;
	if (status != SMTP_OK) {
		tls->failed = 1; /* whoever called does not know what of it the peer will see */
		return refuse(tls, status, "more bytes for the peer than can be kept");
	}
	smtp_buf_commit(out, length);
	return SMTP_OK;
}

void smtp_tls_shutdown(struct smtp_tls *tls)
{
	if (tls->failed || !tls->shaken)
		return;
	ERR_clear_error();
	/* 0 and -1 come from the peer's close_notify, which is not waited for */
	(void)SSL_shutdown(tls->ssl);
	ERR_clear_error();
}

const char *smtp_tls_version(const struct smtp_tls *tls)
{
	return SSL_get_version(tls->ssl);
}

const char *smtp_tls_cipher(const struct smtp_tls *tls)
{
	return SSL_get_cipher_name(tls->ssl);
}

int smtp_tls_resumed(const struct smtp_tls *tls)
{
	return SSL_session_reused(tls->ssl);
}

void smtp_tls_session(const struct smtp_tls *tls, struct smtp_session *session)
{
	SSL_SESSION *last = tls->client && tls->shaken && !tls->failed ? SSL_get0_session(tls->ssl) : NULL;
	if (!last)
		return;
	int spent = last == tls->offered && SSL_SESSION_get_protocol_version(last) == TLS1_3_VERSION;
	if (!spent && SSL_SESSION_is_resumable(last) && SSL_SESSION_up_ref(last))
		session->session = last;
	STACK_OF(X509) *chain = SSL_session_reused(tls->ssl) ? tls->chain : SSL_get0_verified_chain(tls->ssl);
	STACK_OF(X509) *sent = SSL_get_peer_cert_chain(tls->ssl);
	if (chain && sent && (SSL_get_verify_mode(tls->ssl) & SSL_VERIFY_PEER)) {
		memcpy(session->id, tls->id, sizeof session->id);
		session->chain = X509_chain_up_ref(chain);
		session->sent = X509_chain_up_ref(sent);
		ERR_clear_error();
		memcpy(session->name, tls->name, sizeof session->name);
	}
}

static enum smtp_status export_binding(struct smtp_tls *tls, unsigned char *binding, size_t *length)
{
	static const char label[] = "EXPORTER-Channel-Binding";
	*length = 32;
	/* without it two connections can have one master secret, and so one binding (RFC 9266 2) */
	if (SSL_version(tls->ssl) < TLS1_3_VERSION && SSL_get_extms_support(tls->ssl) != 1)
		return refuse(tls, SMTP_E_INPUT, "tls-exporter needs TLS 1.3, or TLS 1.2 with the extended master secret");
	/* the context is an empty one, which in TLS 1.2 is not the same as none */
	if (SSL_export_keying_material(tls->ssl, binding, *length, label, sizeof label - 1, (const unsigned char *)"", 0,
	                               1) == 1)
		return SMTP_OK;
	smtp_fault_drain(&tls->fault, "cannot export the channel binding");
	return SMTP_E_MEMORY;
}

static enum smtp_status hash_certificate(struct smtp_tls *tls, unsigned char *binding, size_t *length)
{
	X509 *cert = tls->client ? SSL_get0_peer_certificate(tls->ssl) : SSL_get_certificate(tls->ssl);
	int algorithm = NID_undef;
	unsigned digest_length = 0;
	if (!cert || !X509_get_signature_info(cert, &algorithm, NULL, NULL, NULL))
		algorithm = NID_undef;
	if (algorithm == NID_md5 || algorithm == NID_sha1)
		algorithm = NID_sha256;
	const EVP_MD *digest = algorithm == NID_undef ? NULL : EVP_get_digestbynid(algorithm);
	if (!digest)
		return refuse(tls, SMTP_E_INPUT, "tls-server-end-point is not defined for this certificate's signature");
	if (!X509_digest(cert, digest, binding, &digest_length)) {
		smtp_fault_drain(&tls->fault, "cannot hash the certificate");
		return SMTP_E_MEMORY;
	}
	*length = digest_length;
	return SMTP_OK;
}

enum smtp_status smtp_tls_binding(struct smtp_tls *tls, const char *kind, unsigned char binding[SMTP_TLS_BINDING_MAX],
                                  size_t *length)
{
	enum smtp_status status;
	if (tls->failed)
		return SMTP_E_PROTOCOL;
	if (!tls->shaken)
		return refuse(tls, SMTP_E_PROTOCOL, "the TLS handshake is not over");
	ERR_clear_error();
	if (strcmp(kind, "tls-exporter") == 0)
		status = export_binding(tls, binding, length);
	else if (strcmp(kind, "tls-server-end-point") == 0)
		status = hash_certificate(tls, binding, length);
	else
		status = refuse(tls, SMTP_E_INPUT, "not a channel binding that is offered here");
	ERR_clear_error();
	return status;
}

int smtp_tls_peer(const struct smtp_tls *tls, struct smtp_peer *peer)
{
	X509 *cert = tls->shaken ? SSL_get0_peer_certificate(tls->ssl) : NULL;
	if (cert)
		smtp_peer_read(peer, cert);
	return cert != NULL;
}
