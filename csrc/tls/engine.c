/* engine: see engine.h. */
#include "engine.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <string.h>

void smtp_engine_wipe(struct smtp_engine *engine)
{
	SSL_free(engine->ssl);
	engine->ssl = NULL;
	smtp_session_wipe(&engine->known);
	smtp_peer_wipe(&engine->peer);
}

static enum smtp_status refuse(struct smtp_engine *engine, enum smtp_status status, const char *text)
{
	smtp_fault_set(&engine->fault, text, NULL);
	return status;
}

static enum smtp_status fail(struct smtp_engine *engine)
{
	engine->failed = smtp_fault_explain(engine);
	return engine->failed;
}

/* Keeps the name as certificates write it: no brackets, no trailing dot. */
static enum smtp_status keep_name(struct smtp_engine *engine, const char *name, size_t length)
{
	if (length > 2 && name[0] == '[' && name[length - 1] == ']') {
		name++;
		length -= 2;
	} else if (length > 1 && name[length - 1] == '.') {
		length--;
	}
	if (length == 0 || length >= sizeof engine->known.name || name[0] == '.')
		return refuse(engine, SMTP_E_INPUT, "the server name is not a host name");
	for (size_t i = 0; i < length; i++) {
		/* NUL among them: a name that ends early for one reader is another name for the next */
		if (name[i] <= 0x20 || name[i] >= 0x7F)
			return refuse(engine, SMTP_E_INPUT, "the server name has a byte that no host name has");
	}
	memcpy(engine->known.name, name, length);
	engine->known.name[length] = 0;
	return SMTP_OK;
}

/* SNI, and what the certificate has to say. */
static enum smtp_status expect_name(struct smtp_engine *engine)
{
	const char *name = engine->known.name;
	X509_VERIFY_PARAM *param = SSL_get0_param(engine->ssl);
	X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NEVER_CHECK_SUBJECT | X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	if (X509_VERIFY_PARAM_set1_ip_asc(param, name))
		return SMTP_OK;
	ERR_clear_error();
	if (!X509_VERIFY_PARAM_set1_host(param, name, 0) || !SSL_set_tlsext_host_name(engine->ssl, name)) {
		smtp_fault_drain(&engine->fault, "cannot use the server name");
		return SMTP_E_INPUT;
	}
	return SMTP_OK;
}

static bool make(struct smtp_engine *engine, SSL_CTX *ctx)
{
	engine->ssl = SSL_new(ctx);
	engine->in = BIO_new(BIO_s_mem());
	engine->out = BIO_new(BIO_s_mem());
	if (!engine->ssl || !engine->in || !engine->out || !SSL_set_app_data(engine->ssl, engine)) {
		BIO_free(engine->in);
		BIO_free(engine->out);
		return false;
	}
	BIO_set_mem_eof_return(engine->in, -1);
	BIO_set_mem_eof_return(engine->out, -1);
	SSL_set_bio(engine->ssl, engine->in, engine->out);
	return true;
}

int smtp_engine_lacks(SSL *ssl, X509 **cert, EVP_PKEY **key)
{
	struct smtp_engine *engine = SSL_get_app_data(ssl);
	(void)cert;
	(void)key;
	engine->asked = true;
	return 0;
}

enum smtp_status smtp_engine_init(struct smtp_engine *engine, const struct smtp_context *context, const char *name,
                                  size_t length)
{
	enum smtp_status status = SMTP_OK;
	memset(engine, 0, sizeof *engine);
	smtp_peer_init(&engine->peer);
	memcpy(engine->known.id, context->id, sizeof engine->known.id);
	engine->client = !context->server;
	ERR_clear_error();
	if (engine->client && !name && context->verify)
		return refuse(engine, SMTP_E_INPUT, "a server name is needed to verify the server's certificate");
	if (engine->client && name)
		status = keep_name(engine, name, length);
	if (status != SMTP_OK)
		return status;
	if (!make(engine, context->ctx)) {
		smtp_fault_drain(&engine->fault, "cannot set up TLS");
		return SMTP_E_MEMORY;
	}
	if (!engine->client) {
		SSL_set_accept_state(engine->ssl);
		return SMTP_OK;
	}
	SSL_set_connect_state(engine->ssl);
	return name ? expect_name(engine) : SMTP_OK;
}

enum smtp_status smtp_engine_handshake(struct smtp_engine *engine)
{
	if (engine->failed)
		return engine->failed;
	if (engine->shaken)
		return SMTP_OK;
	ERR_clear_error();
	int result = SSL_do_handshake(engine->ssl);
	if (result != 1) {
		if (SSL_get_error(engine->ssl, result) != SSL_ERROR_WANT_READ)
			return fail(engine);
		ERR_clear_error();
		return SMTP_MORE;
	}
	ERR_clear_error();
	engine->shaken = true;
	return SMTP_OK;
}

enum smtp_status smtp_engine_feed(struct smtp_engine *engine, const void *bytes, size_t length)
{
	size_t written;
	if (length == 0)
		return SMTP_OK;
	if (length > SMTP_ENGINE_FEED_CAP || BIO_ctrl_pending(engine->in) > SMTP_ENGINE_FEED_CAP - length)
		return refuse(engine, SMTP_E_LIMIT, "more bytes from the peer than can be kept");
	if (!engine->heard) {
		engine->heard = true;
		engine->first = *(const unsigned char *)bytes;
	}
	if (!BIO_write_ex(engine->in, bytes, length, &written)) {
		smtp_fault_drain(&engine->fault, "cannot keep the peer's bytes");
		return SMTP_E_MEMORY;
	}
	return SMTP_OK;
}

void smtp_engine_eof(struct smtp_engine *engine)
{
	BIO_set_mem_eof_return(engine->in, 0);
	engine->ended = true;
}

enum smtp_status smtp_engine_write(struct smtp_engine *engine, const void *bytes, size_t length)
{
	size_t written;
	if (engine->failed)
		return engine->failed;
	if (!engine->shaken)
		return refuse(engine, SMTP_E_PROTOCOL, "the TLS handshake is not over");
	if (length == 0)
		return SMTP_OK;
	ERR_clear_error();
	if (!SSL_write_ex(engine->ssl, bytes, length, &written))
		return fail(engine);
	return SMTP_OK;
}

/* Whether there is nothing to read: OpenSSL takes as long to say so as for a reply. */
static bool is_idle(const struct smtp_engine *engine)
{
	return !engine->ended && BIO_ctrl_pending(engine->in) == 0 && !SSL_has_pending(engine->ssl) &&
	       !(SSL_get_shutdown(engine->ssl) & SSL_RECEIVED_SHUTDOWN);
}

enum smtp_status smtp_engine_read(struct smtp_engine *engine, void *bytes, size_t room, size_t *length)
{
	*length = 0;
	if (engine->failed)
		return engine->failed;
	if (!engine->shaken)
		return refuse(engine, SMTP_E_PROTOCOL, "the TLS handshake is not over");
	if (is_idle(engine))
		return SMTP_MORE;
	ERR_clear_error();
	int result = SSL_read_ex(engine->ssl, bytes, room, length);
	if (result == 1)
		return SMTP_OK;
	switch (SSL_get_error(engine->ssl, result)) {
	case SSL_ERROR_WANT_READ:
		ERR_clear_error();
		return SMTP_MORE;
	case SSL_ERROR_ZERO_RETURN:
		ERR_clear_error();
		return refuse(engine, SMTP_E_CLOSED, "the peer closed the connection");
	default:
		return fail(engine);
	}
}

size_t smtp_engine_waiting(const struct smtp_engine *engine)
{
	return BIO_ctrl_pending(engine->out);
}

size_t smtp_engine_show(const struct smtp_engine *engine, void *bytes, size_t room)
{
	char *data = NULL;
	long length = BIO_get_mem_data(engine->out, &data);
	size_t shown = length <= 0 ? 0 : (size_t)length < room ? (size_t)length : room;
	if (shown > 0)
		memcpy(bytes, data, shown);
	return shown;
}

void smtp_engine_drop(struct smtp_engine *engine, size_t length)
{
	/* read away, since a reset would clear the whole memory the queue ever had, each time */
	char scrap[4096];
	while (length > 0) {
		int count = BIO_read(engine->out, scrap, length < sizeof scrap ? (int)length : (int)sizeof scrap);
		if (count <= 0)
			return;
		length -= (size_t)count;
	}
}

enum smtp_status smtp_engine_drain(struct smtp_engine *engine, struct smtp_buf *out)
{
	size_t length = BIO_ctrl_pending(engine->out);
	unsigned char *spot;
	if (length == 0)
		return SMTP_OK;
	enum smtp_status status = smtp_buf_reserve(out, length, &spot);
	if (status == SMTP_OK && !BIO_read_ex(engine->out, spot, length, &length))
		status = SMTP_E_MEMORY;
	if (status != SMTP_OK) {
		engine->failed = status; /* whoever called does not know what of it the peer will see */
		return refuse(engine, status, "more bytes for the peer than can be kept");
	}
	smtp_buf_commit(out, length);
	return SMTP_OK;
}

void smtp_engine_shutdown(struct smtp_engine *engine)
{
	if (engine->failed || !engine->shaken)
		return;
	ERR_clear_error();
	/* 0 and -1 come from the peer's close_notify, which is not waited for */
	(void)SSL_shutdown(engine->ssl);
	ERR_clear_error();
}

const char *smtp_engine_version(const struct smtp_engine *engine)
{
	return SSL_get_version(engine->ssl);
}

const char *smtp_engine_cipher(const struct smtp_engine *engine)
{
	return SSL_get_cipher_name(engine->ssl);
}

bool smtp_engine_resumed(const struct smtp_engine *engine)
{
	return SSL_session_reused(engine->ssl);
}

bool smtp_engine_peer(const struct smtp_engine *engine, struct smtp_peer *peer)
{
	X509 *cert = engine->shaken ? SSL_get0_peer_certificate(engine->ssl) : NULL;
	if (cert)
		smtp_peer_read(peer, cert);
	return cert != NULL;
}
