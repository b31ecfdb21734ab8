/* binding: see binding.h. */
#include "binding.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <string.h>

static enum smtp_status refuse(struct smtp_engine *engine, enum smtp_status status, const char *text)
{
	smtp_fault_set(&engine->fault, text, NULL);
	return status;
}

static enum smtp_status export_keys(struct smtp_engine *engine, unsigned char *binding, size_t *length)
{
	static const char label[] = "EXPORTER-Channel-Binding";
	*length = 32;
	/* without it two connections can have one master secret, and so one binding (RFC 9266 2) */
	if (SSL_version(engine->ssl) < TLS1_3_VERSION && SSL_get_extms_support(engine->ssl) != 1)
		return refuse(engine, SMTP_E_INPUT, "tls-exporter needs TLS 1.3, or TLS 1.2 with the extended master secret");
	/* the context is an empty one, which in TLS 1.2 is not the same as none */
	if (SSL_export_keying_material(engine->ssl, binding, *length, label, sizeof label - 1, (const unsigned char *)"", 0,
	                               1) == 1)
		return SMTP_OK;
	smtp_fault_drain(&engine->fault, "cannot export the channel binding");
	return SMTP_E_MEMORY;
}

static enum smtp_status hash_certificate(struct smtp_engine *engine, unsigned char *binding, size_t *length)
{
	X509 *cert = engine->client ? SSL_get0_peer_certificate(engine->ssl) : SSL_get_certificate(engine->ssl);
	int algorithm = NID_undef;
	unsigned digest_length = 0;
	if (!cert || !X509_get_signature_info(cert, &algorithm, NULL, NULL, NULL))
		algorithm = NID_undef;
	if (algorithm == NID_md5 || algorithm == NID_sha1)
		algorithm = NID_sha256;
	const EVP_MD *digest = algorithm == NID_undef ? NULL : EVP_get_digestbynid(algorithm);
	if (!digest)
		return refuse(engine, SMTP_E_INPUT, "tls-server-end-point is not defined for this certificate's signature");
	if (!X509_digest(cert, digest, binding, &digest_length)) {
		smtp_fault_drain(&engine->fault, "cannot hash the certificate");
		return SMTP_E_MEMORY;
	}
	*length = digest_length;
	return SMTP_OK;
}

enum smtp_status smtp_binding(struct smtp_engine *engine, const char *kind, unsigned char binding[SMTP_BINDING_MAX],
                              size_t *length)
{
	enum smtp_status status;
	if (engine->failed)
		return engine->failed;
	if (!engine->shaken)
		return refuse(engine, SMTP_E_PROTOCOL, "the TLS handshake is not over");
	ERR_clear_error();
	if (strcmp(kind, "tls-exporter") == 0)
		status = export_keys(engine, binding, length);
	else if (strcmp(kind, "tls-server-end-point") == 0)
		status = hash_certificate(engine, binding, length);
	else
		status = refuse(engine, SMTP_E_INPUT, "not a channel binding that is offered here");
	ERR_clear_error();
	return status;
}
