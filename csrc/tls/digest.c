/* digest: see digest.h. */
#include "digest.h"

#include <openssl/err.h>
#include <openssl/evp.h>

enum smtp_status smtp_digest_hash(const char *algorithm, const void *bytes, size_t length,
                                  unsigned char digest[SMTP_DIGEST_MAX], size_t *digest_length)
{
	ERR_clear_error();
	int ok = EVP_Q_digest(NULL, algorithm, NULL, bytes, length, digest, digest_length);
	ERR_clear_error();
	return ok ? SMTP_OK : SMTP_E_INPUT;
}

enum smtp_status smtp_digest_hmac(const char *algorithm, const void *key, size_t key_length, const void *bytes,
                                  size_t length, unsigned char digest[SMTP_DIGEST_MAX], size_t *digest_length)
{
	ERR_clear_error();
	const unsigned char *made = EVP_Q_mac(NULL, "HMAC", NULL, algorithm, NULL, key, key_length, bytes, length, digest,
	                                      SMTP_DIGEST_MAX, digest_length);
	ERR_clear_error();
	return made ? SMTP_OK : SMTP_E_INPUT;
}
