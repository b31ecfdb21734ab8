/* fault: see fault.h. The advice follows RFC 3207 and RFC 8314 (which port speaks what), RFC 6125 (names) and RFC
 * 8446 6 (alerts).
 */
#include "fault.h"

#include "engine.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509_vfy.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define FORMAT(text, arguments) __attribute__((format(printf, text, arguments)))

static void FORMAT(2, 3) say(struct smtp_fault *fault, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	(void)vsnprintf(fault->text, sizeof fault->text, format, arguments);
	va_end(arguments);
}

static void FORMAT(2, 3) advise(struct smtp_fault *fault, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	(void)vsnprintf(fault->hint, sizeof fault->hint, format, arguments);
	va_end(arguments);
}

void smtp_fault_set(struct smtp_fault *fault, const char *text, const char *hint)
{
	say(fault, "%s", text);
	advise(fault, "%s", hint ? hint : "");
}

/* The phrase of an error code. ERR_reason_error_string has none for system errors, hence the long form. */
static const char *reason(unsigned long code, char *scratch, size_t size)
{
	ERR_error_string_n(code, scratch, size);
	const char *phrase = strstr(scratch, "::");
	return phrase ? phrase + 2 : scratch;
}

/* Whether an error says that memory was short: BIO_new and its like tell of no more than that. */
static bool lacks_memory(unsigned long code)
{
	return ERR_GET_REASON(code) == ERR_R_MALLOC_FAILURE || ERR_GET_REASON(code) == ERR_R_INIT_FAIL;
}

/* Empties the queue; gives the first error of the TLS layer, else the first of all, else 0. *memory: it was short. */
static unsigned long drain(bool *memory)
{
	/* where there is not even the memory for an error OpenSSL says nothing, or something else */
	void *probe = OPENSSL_malloc(4096);
	unsigned long first = 0;
	unsigned long code;
	OPENSSL_free(probe);
	*memory = !probe;
	while ((code = ERR_get_error())) {
		if (!first || (ERR_GET_LIB(first) != ERR_LIB_SSL && ERR_GET_LIB(code) == ERR_LIB_SSL))
			first = code;
		*memory = *memory || lacks_memory(code);
	}
	return first;
}

bool smtp_fault_memory(void)
{
	bool memory;
	(void)drain(&memory);
	return memory;
}

void smtp_fault_drain(struct smtp_fault *fault, const char *what)
{
	char scratch[256];
	bool memory;
	unsigned long code = drain(&memory);
	smtp_fault_set(fault, what, NULL);
	if (memory)
		say(fault, SMTP_FAULT_MEMORY);
	else if (code)
		say(fault, "%s: %s", what, reason(code, scratch, sizeof scratch));
}

/* The first certificate of the chain that is outside its dates: index 0 is the peer's own. */
static X509 *out_of_date(SSL *ssl, int *index)
{
	STACK_OF(X509) *chain = SSL_get0_verified_chain(ssl);
	for (*index = 0; *index < sk_X509_num(chain); ++*index) {
		X509 *cert = sk_X509_value(chain, *index);
		if (!smtp_peer_is_current(cert))
			return cert;
	}
	return NULL;
}

static void explain_date(struct smtp_engine *engine, const char *whose, bool expired)
{
	struct smtp_fault *fault = &engine->fault;
	int index;
	X509 *cert = out_of_date(engine->ssl, &index);
	if (cert)
		smtp_peer_read(&engine->peer, cert);
	const char *date = !cert ? "a date unknown" : expired ? engine->peer.not_after : engine->peer.not_before;
	const char *verb = expired ? "expired on" : "is not valid before";
	const char *subject = smtp_peer_text(&engine->peer.subject);
	if (index == 0 || !cert)
		say(fault, "the %s's certificate %s %s", whose, verb, date);
	else
		say(fault, "the certificate \"%.*s\" in the %s's chain %s %s", smtp_peer_cut(subject, 200), subject, whose,
		    verb, date);
	if (expired)
		advise(fault, "the certificate has to be renewed, unless this machine's clock is wrong");
	else
		advise(fault, "this machine's clock may be wrong");
}

static void explain_name(struct smtp_engine *engine, X509 *leaf)
{
	struct smtp_fault *fault = &engine->fault;
	char names[512] = "";
	size_t used = 0;
	unsigned left = 0;
	bool misplaced = false; /* an iPAddress that is the same would have done */
	if (leaf)
		smtp_peer_read(&engine->peer, leaf);
	for (const char *name = smtp_peer_names(&engine->peer, NULL); name; name = smtp_peer_names(&engine->peer, name)) {
		if (!left && used + strlen(name) + 3 <= sizeof names)
			used += (size_t)snprintf(names + used, sizeof names - used, "%s%s", used ? ", " : "", name);
		else
			left++;
		misplaced = misplaced || strcmp(name, engine->known.name) == 0;
	}
	say(fault, "the server's certificate is not for %s", engine->known.name);
	if (misplaced) {
		advise(fault,
		       "the certificate has the address as a dNSName, where it does not count: it has to be made anew with "
		       "an iPAddress (in OpenSSL IP:%s)",
		       engine->known.name);
		return;
	}
	if (!used && !left)
		advise(fault, "the certificate names no host at all (a common name alone does not count)");
	else if (left)
		advise(fault, "the certificate is for %s and %u more: set server_name if one of them is meant", names, left);
	else
		advise(fault, "the certificate is for %s: set server_name if that is who is meant", names);
}

static void explain_certificate(struct smtp_engine *engine, long result)
{
	struct smtp_fault *fault = &engine->fault;
	const char *whose = engine->client ? "server" : "client";
	STACK_OF(X509) *chain = SSL_get0_verified_chain(engine->ssl);
	X509 *leaf = chain ? sk_X509_value(chain, 0) : NULL;
	const char *issuer;
	switch (result) {
	case X509_V_ERR_HOSTNAME_MISMATCH:
	case X509_V_ERR_IP_ADDRESS_MISMATCH:
		explain_name(engine, leaf);
		break;
	case X509_V_ERR_CERT_HAS_EXPIRED:
		explain_date(engine, whose, true);
		break;
	case X509_V_ERR_CERT_NOT_YET_VALID:
		explain_date(engine, whose, false);
		break;
	case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
		say(fault, "the %s's certificate is self-signed and not trusted here", whose);
		advise(fault, "to trust it, give the certificate itself as ca_file");
		break;
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
	case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
	case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
		if (chain)
			smtp_peer_read(&engine->peer, sk_X509_value(chain, sk_X509_num(chain) - 1));
		issuer = smtp_peer_text(&engine->peer.issuer);
		say(fault, "the %s's certificate comes from an authority that is not trusted here: %.*s", whose,
		    smtp_peer_cut(issuer, 300), issuer);
		advise(fault, "to trust it, give that authority's certificate as ca_file%s",
		       result == X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN
		           ? ""
		           : "; but if it is an intermediate authority, the server should send its certificate and does not");
		break;
	case X509_V_ERR_INVALID_PURPOSE:
		say(fault, "the %s's certificate is not meant for a TLS %s", whose, whose);
		break;
	default:
		say(fault, "the %s's certificate is not acceptable: %s", whose, X509_verify_cert_error_string(result));
	}
}

/* What is wrong with a peer's certificate, or that there is none (RFC 8446 6.2). */
static bool is_about_certificate(int alert)
{
	switch (alert) {
	case SSL_AD_BAD_CERTIFICATE:
	case SSL_AD_UNSUPPORTED_CERTIFICATE:
	case SSL_AD_CERTIFICATE_REVOKED:
	case SSL_AD_CERTIFICATE_EXPIRED:
	case SSL_AD_CERTIFICATE_UNKNOWN:
	case SSL_AD_UNKNOWN_CA:
	case SSL_AD_ACCESS_DENIED:
	case SSL_AD_CERTIFICATE_REQUIRED:
		return true;
	default:
		return false;
	}
}

/* Whether the alert means that a certificate was asked for and none came; TLS 1.2 has no alert of its own for that. */
static bool wants_certificate(const struct smtp_engine *engine, int alert)
{
	return alert == SSL_AD_CERTIFICATE_REQUIRED ||
	       (engine->asked && (alert == SSL_AD_HANDSHAKE_FAILURE || is_about_certificate(alert)));
}

static void explain_alert(struct smtp_engine *engine, unsigned long code)
{
	struct smtp_fault *fault = &engine->fault;
	const char *whose = engine->client ? "server" : "client";
	int alert = ERR_GET_REASON(code) - SSL_AD_REASON_OFFSET;
	char scratch[256];
	/* "tlsv13 alert certificate required", "tlsv1 unrecognized name": the version is that of the alert's first RFC */
	const char *phrase = reason(code, scratch, sizeof scratch);
	const char *words = strstr(phrase, "alert ");
	words = words ? words + 6 : strchr(phrase, ' ') ? strchr(phrase, ' ') + 1 : "an alert without a name";
	if (engine->client && wants_certificate(engine, alert)) {
		smtp_fault_set(fault, "the server wants a client certificate",
		               SSL_get_certificate(engine->ssl) ? "it takes none of the kind that client_cert is of"
		                                                : "set client_cert and client_key");
		return;
	}
	say(fault, "the %s %s: %s", whose, engine->shaken ? "ended TLS" : "refused the TLS handshake", words);
	bool strict = SSL_get_min_proto_version(engine->ssl) > TLS1_2_VERSION;
	if (alert == SSL_AD_PROTOCOL_VERSION && engine->client)
		advise(fault, strict ? "the server only speaks an older TLS: tls_min = \"1.2\" may do"
		                     : "the server only speaks an older TLS than 1.2: it has to be updated");
	else if (alert == SSL_AD_HANDSHAKE_FAILURE && engine->client && !SSL_get_pending_cipher(engine->ssl))
		advise(fault, strict ? "the server may only speak an older TLS: tls_min = \"1.2\" may do"
		                     : "the server may know no cipher suite with forward secrecy: it has to be updated");
	else if (is_about_certificate(alert) && engine->client && SSL_get_certificate(engine->ssl))
		advise(fault, "the server does not accept the certificate in client_cert");
	else if (alert == SSL_AD_UNRECOGNIZED_NAME && engine->client)
		advise(fault, "the server does not know the name %s: set server_name", engine->known.name);
	else if ((alert == SSL_AD_UNKNOWN_CA || alert == SSL_AD_BAD_CERTIFICATE || alert == SSL_AD_CERTIFICATE_UNKNOWN) &&
	         !engine->client)
		advise(fault, "the client does not trust this server's certificate");
}

static bool is_letter(unsigned char byte)
{
	return (byte >= 'A' && byte <= 'Z') || (byte >= 'a' && byte <= 'z');
}

/* The peer's first byte is neither that of a handshake record (22) nor of an alert (21). */
static void explain_not_tls(struct smtp_engine *engine)
{
	struct smtp_fault *fault = &engine->fault;
	if (engine->client) {
		say(fault, "the server did not answer in TLS");
		if (engine->first >= '0' && engine->first <= '9')
			advise(fault, "this port speaks plain SMTP first: use tls = \"starttls\"");
	} else {
		say(fault, "the client did not start with TLS");
		if (is_letter(engine->first))
			advise(fault, "the client speaks plain SMTP to a port that speaks TLS from the first byte");
	}
}

enum smtp_status smtp_fault_explain(struct smtp_engine *engine)
{
	struct smtp_fault *fault = &engine->fault;
	const char *whose = engine->client ? "server" : "client";
	char scratch[256];
	bool memory;
	unsigned long code = drain(&memory);
	int why = ERR_GET_LIB(code) == ERR_LIB_SSL ? ERR_GET_REASON(code) : 0;
	long result = SSL_get_verify_result(engine->ssl);
	/* of a close_notify in the handshake OpenSSL has no words */
	bool ended = engine->ended || (SSL_get_shutdown(engine->ssl) & SSL_RECEIVED_SHUTDOWN);
	smtp_fault_set(fault, "", NULL);
	if (memory || (!code && !ended)) {
		say(fault, SMTP_FAULT_MEMORY);
	} else if (why == SSL_R_UNEXPECTED_EOF_WHILE_READING || !code) {
		if (engine->shaken) {
			say(fault, "connection cut without TLS close_notify");
			return SMTP_E_CLOSED;
		}
		say(fault, "the %s closed the connection during the TLS handshake", whose);
	} else if (!engine->shaken && engine->heard && engine->first != 21 && engine->first != 22) {
		explain_not_tls(engine);
	} else if (why == SSL_R_CERTIFICATE_VERIFY_FAILED && result != X509_V_OK) {
		explain_certificate(engine, result);
	} else if (why == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE) {
		say(fault, "the client gave no certificate");
	} else if (why >= SSL_AD_REASON_OFFSET && why < SSL_AD_REASON_OFFSET + 256) {
		explain_alert(engine, code);
	} else {
		say(fault, "%s: %s", engine->shaken ? "TLS failed" : "the TLS handshake failed",
		    reason(code, scratch, sizeof scratch));
		if (why == SSL_R_UNSUPPORTED_PROTOCOL || why == SSL_R_WRONG_SSL_VERSION || why == SSL_R_VERSION_TOO_LOW)
			advise(fault, "the %s only speaks an older TLS", whose);
	}
	return SMTP_E_PROTOCOL;
}
