/* sign: see sign.h. */
#include "sign.h"

#include "context.h"

#include <limits.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>

enum { RSA_BITS_MIN = 1024 };

const char *smtp_signer_init(struct smtp_signer *signer, const char *pem, size_t length)
{
	bool locked = false;
	if (length > INT_MAX)
		return "too long for a private key";
	ERR_clear_error();
	BIO *bio = BIO_new_mem_buf(pem, (int)length);
	if (bio)
		signer->key = PEM_read_bio_PrivateKey(bio, NULL, smtp_no_password, &locked);
	BIO_free(bio);
	if (smtp_fault_memory())
		return SMTP_FAULT_MEMORY;
	if (locked)
		return "the private key is locked with a password: give it without one";
	if (!signer->key)
		return "no PEM private key";
	signer->rsa = EVP_PKEY_is_a(signer->key, "RSA");
	if (!signer->rsa && !EVP_PKEY_is_a(signer->key, "ED25519"))
		return "a private key that is neither RSA nor Ed25519";
	if (signer->rsa && EVP_PKEY_get_bits(signer->key) < RSA_BITS_MIN)
		return "an RSA key of fewer than 1024 bits, which receivers must not accept (RFC 8301)";
	if (smtp_signer_size(signer) > SMTP_SIGNATURE_MAX)
		return "an RSA key of more than 16384 bits";
	return NULL;
}

void smtp_signer_wipe(struct smtp_signer *signer)
{
	EVP_PKEY_free(signer->key);
	signer->key = NULL;
}

size_t smtp_signer_size(const struct smtp_signer *signer)
{
	return (size_t)EVP_PKEY_get_size(signer->key);
}

enum smtp_status smtp_signer_sign(const struct smtp_signer *signer, const void *bytes, size_t length,
                                  unsigned char signature[SMTP_SIGNATURE_MAX], size_t *signature_length)
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	const unsigned char *data = bytes;
	*signature_length = SMTP_SIGNATURE_MAX;
	ERR_clear_error();
	bool ok = true;
	if (!signer->rsa) {
		/* RFC 8463 3: what PureEdDSA signs is the digest */
		ok = EVP_Q_digest(NULL, "SHA256", NULL, bytes, length, digest, &length);
		data = digest;
	}
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	ok = ok && ctx && EVP_DigestSignInit_ex(ctx, NULL, signer->rsa ? "SHA256" : NULL, NULL, NULL, signer->key, NULL) &&
	     EVP_DigestSign(ctx, signature, signature_length, data, length) == 1;
	EVP_MD_CTX_free(ctx);
	ERR_clear_error();
	return ok ? SMTP_OK : SMTP_E_MEMORY;
}
