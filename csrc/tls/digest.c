/* digest: see digest.h. */
#include "digest.h"

#include <limits.h>
#include <openssl/crypto.h>
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

enum smtp_status smtp_digest_pbkdf2(const char *algorithm, const void *password, size_t password_length,
                                    const void *salt, size_t salt_length, unsigned iterations,
                                    unsigned char key[SMTP_DIGEST_MAX], size_t *key_length)
{
	if (password_length > INT_MAX || salt_length > INT_MAX || iterations < 1 || iterations > INT_MAX)
		return SMTP_E_INPUT;
	ERR_clear_error();
	EVP_MD *md = EVP_MD_fetch(NULL, algorithm, NULL);
	int length = md ? EVP_MD_get_size(md) : 0;
	int ok = length > 0 && PKCS5_PBKDF2_HMAC(password, (int)password_length, salt, (int)salt_length,
	                                         (int)iterations, md, length, key);
	EVP_MD_free(md);
	ERR_clear_error();
	*key_length = ok ? (size_t)length : 0;
	return ok ? SMTP_OK : SMTP_E_INPUT;
}

bool smtp_digest_same(const void *a, const void *b, size_t length)
{
	return CRYPTO_memcmp(a, b, length) == 0;
}

enum smtp_status smtp_hasher_init(struct smtp_hasher *hasher, const char *algorithm)
{
	ERR_clear_error();
	EVP_MD *md = EVP_MD_fetch(NULL, algorithm, NULL);
	if (!md) {
		ERR_clear_error();
		return SMTP_E_INPUT;
	}
	hasher->ctx = EVP_MD_CTX_new();
	int ok = hasher->ctx && EVP_DigestInit_ex2(hasher->ctx, md, NULL);
	EVP_MD_free(md);
	ERR_clear_error();
	return ok ? SMTP_OK : SMTP_E_MEMORY;
}

void smtp_hasher_wipe(struct smtp_hasher *hasher)
{
	EVP_MD_CTX_free(hasher->ctx);
	hasher->ctx = NULL;
}

enum smtp_status smtp_hasher_update(struct smtp_hasher *hasher, const void *bytes, size_t length)
{
	ERR_clear_error();
	int ok = EVP_DigestUpdate(hasher->ctx, bytes, length);
	ERR_clear_error();
	return ok ? SMTP_OK : SMTP_E_MEMORY;
}

enum smtp_status smtp_hasher_finish(struct smtp_hasher *hasher, unsigned char digest[SMTP_DIGEST_MAX],
                                    size_t *digest_length)
{
	unsigned length = 0;
	ERR_clear_error();
	int ok = EVP_DigestFinal_ex(hasher->ctx, digest, &length) && EVP_DigestInit_ex2(hasher->ctx, NULL, NULL);
	*digest_length = length;
	ERR_clear_error();
	return ok ? SMTP_OK : SMTP_E_MEMORY;
}
