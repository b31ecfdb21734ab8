/* mint: see mint.h. */
#include "mint.h"

#include <openssl/asn1.h>
#include <openssl/bio.h>
#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdbool.h>
#include <string.h>

enum { PEM_CAP = 1 << 20, HOUR = 3600, DAY = 24 * HOUR };

void smtp_mint_init(struct smtp_mint *mint)
{
	memset(mint, 0, sizeof *mint);
	smtp_buf_init(&mint->cert, PEM_CAP);
	smtp_buf_init(&mint->key, PEM_CAP);
}

void smtp_mint_wipe(struct smtp_mint *mint)
{
	GENERAL_NAMES_free(mint->names);
	smtp_buf_wipe(&mint->cert);
	smtp_buf_wipe(&mint->key);
	smtp_mint_init(mint);
}

static ASN1_STRING *host(const char *name, size_t length)
{
	ASN1_IA5STRING *text = ASN1_IA5STRING_new();
	if (text && !ASN1_STRING_set(text, name, (int)length)) {
		ASN1_IA5STRING_free(text);
		text = NULL;
	}
	return text;
}

enum smtp_status smtp_mint_name(struct smtp_mint *mint, const char *name, size_t length)
{
	if (length == 0 || length > 253)
		return SMTP_E_INPUT;
	for (size_t i = 0; i < length; i++) {
		if (name[i] <= 0x20 || name[i] >= 0x7F)
			return SMTP_E_INPUT;
	}
	if (!mint->names && !(mint->names = GENERAL_NAMES_new()))
		return SMTP_E_MEMORY;
	if (!*mint->common && length < sizeof mint->common)
		memcpy(mint->common, name, length + 1);
	GENERAL_NAME *entry = GENERAL_NAME_new();
	if (!entry)
		return SMTP_E_MEMORY;
	int type = GEN_IPADD;
	ASN1_STRING *value = a2i_IPADDRESS(name);
	ERR_clear_error();
	if (!value) {
		type = GEN_DNS;
		value = host(name, length);
	}
	if (!value) {
		GENERAL_NAME_free(entry);
		return SMTP_E_MEMORY;
	}
	GENERAL_NAME_set0_value(entry, type, value);
	if (!sk_GENERAL_NAME_push(mint->names, entry)) {
		GENERAL_NAME_free(entry);
		return SMTP_E_MEMORY;
	}
	return SMTP_OK;
}

static bool set_serial(X509 *cert)
{
	BIGNUM *number = BN_new();
	bool ok = number && BN_rand(number, 127, BN_RAND_TOP_ONE, BN_RAND_BOTTOM_ANY) &&
	          BN_to_ASN1_INTEGER(number, X509_get_serialNumber(cert));
	BN_free(number);
	return ok;
}

static bool set_subject(X509 *cert, const char *common)
{
	X509_NAME *name = X509_get_subject_name(cert);
	return X509_NAME_add_entry_by_NID(name, NID_commonName, MBSTRING_ASC, (const unsigned char *)common, -1, -1, 0) &&
	       X509_set_issuer_name(cert, name);
}

static bool add(X509 *cert, X509V3_CTX *context, int nid, const char *value)
{
	X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, context, nid, value);
	bool ok = extension && X509_add_ext(cert, extension, -1);
	X509_EXTENSION_free(extension);
	return ok;
}

static bool set_extensions(X509 *cert, GENERAL_NAMES *names)
{
	X509V3_CTX context;
	X509V3_set_ctx(&context, cert, cert, NULL, NULL, 0);
	return add(cert, &context, NID_basic_constraints, "critical,CA:FALSE") &&
	       add(cert, &context, NID_key_usage, "critical,digitalSignature") &&
	       add(cert, &context, NID_ext_key_usage, "serverAuth") &&
	       add(cert, &context, NID_subject_key_identifier, "hash") &&
	       X509_add1_ext_i2d(cert, NID_subject_alt_name, names, 0, X509V3_ADD_DEFAULT) == 1;
}

static bool fill(X509 *cert, EVP_PKEY *key, const struct smtp_mint *mint)
{
	return X509_set_version(cert, X509_VERSION_3) && set_serial(cert) && X509_set_pubkey(cert, key) &&
	       set_subject(cert, *mint->common ? mint->common : "smtp") &&
	       X509_gmtime_adj(X509_getm_notBefore(cert), -(long)HOUR) &&
	       X509_gmtime_adj(X509_getm_notAfter(cert), 30L * DAY - HOUR) && set_extensions(cert, mint->names) &&
	       X509_sign(cert, key, EVP_sha256()) > 0;
}

static bool keep(struct smtp_buf *into, BIO *bio, bool written)
{
	char *text;
	long length = written ? BIO_get_mem_data(bio, &text) : 0;
	return length > 0 && smtp_buf_append(into, text, (size_t)length) == SMTP_OK;
}

enum smtp_status smtp_mint_strike(struct smtp_mint *mint)
{
	ERR_clear_error();
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *cert = X509_new();
	BIO *cert_pem = BIO_new(BIO_s_mem());
	BIO *key_pem = BIO_new(BIO_s_mem());
	bool ok = key && cert && cert_pem && key_pem && fill(cert, key, mint) &&
	          keep(&mint->cert, cert_pem, PEM_write_bio_X509(cert_pem, cert)) &&
	          keep(&mint->key, key_pem, PEM_write_bio_PKCS8PrivateKey(key_pem, key, NULL, NULL, 0, NULL, NULL));
	BIO_free(key_pem);
	BIO_free(cert_pem);
	X509_free(cert);
	EVP_PKEY_free(key);
	ERR_clear_error();
	return ok ? SMTP_OK : SMTP_E_MEMORY;
}
