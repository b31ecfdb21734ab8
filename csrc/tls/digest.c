/* digest: see digest.h. */
#include "digest.h"

#include "fault.h"

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <string.h>

/* What OpenSSL's no means: where it offers the algorithm memory was short, whatever it says. */
static enum smtp_status refusal(const char *algorithm)
{
	bool memory = smtp_fault_memory();
	EVP_MD *md = EVP_MD_fetch(NULL, algorithm, NULL);
	memory = memory || md;
	EVP_MD_free(md);
	ERR_clear_error();
	return memory ? SMTP_E_MEMORY : SMTP_E_INPUT;
}

enum smtp_status smtp_digest_hash(const char *algorithm, const void *bytes, size_t length,
                                  unsigned char digest[SMTP_DIGEST_MAX], size_t *digest_length)
{
	ERR_clear_error();
	return EVP_Q_digest(NULL, algorithm, NULL, bytes, length, digest, digest_length) ? SMTP_OK : refusal(algorithm);
}

enum smtp_status smtp_digest_hmac(const char *algorithm, const void *key, size_t key_length, const void *bytes,
                                  size_t length, unsigned char digest[SMTP_DIGEST_MAX], size_t *digest_length)
{
	ERR_clear_error();
	const unsigned char *made = EVP_Q_mac(NULL, "HMAC", NULL, algorithm, NULL, key, key_length, bytes, length, digest,
	                                      SMTP_DIGEST_MAX, digest_length);
	return made ? SMTP_OK : refusal(algorithm);
}

/* A hash that has taken in the password as HMAC wants it: padded to a block, each byte with `pad` (RFC 2104 2). */
static EVP_MD_CTX *half(const EVP_MD *md, const unsigned char block[EVP_MAX_MD_SIZE * 2], size_t size,
                        unsigned char pad)
{
	unsigned char padded[EVP_MAX_MD_SIZE * 2];
	for (size_t i = 0; i < size; i++)
		padded[i] = block[i] ^ pad;
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	if (ctx && !(EVP_DigestInit_ex2(ctx, md, NULL) && EVP_DigestUpdate(ctx, padded, size))) {
		EVP_MD_CTX_free(ctx);
		ctx = NULL;
	}
	OPENSSL_cleanse(padded, sizeof padded);
	return ctx;
}

/* What HMAC makes of the bytes that the work hash has taken in after the inner half. */
static bool finish_hmac(struct smtp_derivation *d)
{
	return EVP_DigestFinal_ex(d->work, d->last, NULL) && EVP_MD_CTX_copy_ex(d->work, d->outer) &&
	       EVP_DigestUpdate(d->work, d->last, d->length) && EVP_DigestFinal_ex(d->work, d->last, NULL);
}

static bool prepare(struct smtp_derivation *d, const EVP_MD *md, const void *password, size_t password_length,
                    const void *salt, size_t salt_length)
{
	static const unsigned char first_block[] = {0, 0, 0, 1};
	unsigned char block[EVP_MAX_MD_SIZE * 2] = {0};
	size_t size = (size_t)EVP_MD_get_block_size(md);
	bool ok = size <= sizeof block;
	if (password_length > size)
		ok = ok && EVP_Digest(password, password_length, block, NULL, md, NULL);
	else if (password_length > 0)
		memcpy(block, password, password_length);
	if (ok) {
		d->length = (size_t)EVP_MD_get_size(md);
		d->inner = half(md, block, size, 0x36);
		d->outer = half(md, block, size, 0x5c);
		d->work = EVP_MD_CTX_new();
	}
	OPENSSL_cleanse(block, sizeof block);
	return ok && d->inner && d->outer && d->work && EVP_MD_CTX_copy_ex(d->work, d->inner) &&
	       EVP_DigestUpdate(d->work, salt, salt_length) && EVP_DigestUpdate(d->work, first_block, sizeof first_block) &&
	       finish_hmac(d);
}

enum smtp_status smtp_derivation_init(struct smtp_derivation *d, const char *algorithm, const void *password,
                                      size_t password_length, const void *salt, size_t salt_length, unsigned iterations)
{
	*d = (struct smtp_derivation){.left = iterations - 1};
	ERR_clear_error();
	EVP_MD *md = EVP_MD_fetch(NULL, algorithm, NULL);
	if (!md)
		return refusal(algorithm);
	enum smtp_status status = prepare(d, md, password, password_length, salt, salt_length) ? SMTP_OK : SMTP_E_MEMORY;
	memcpy(d->key, d->last, sizeof d->key);
	EVP_MD_free(md);
	ERR_clear_error();
	return status;
}

void smtp_derivation_wipe(struct smtp_derivation *d)
{
	EVP_MD_CTX_free(d->inner);
	EVP_MD_CTX_free(d->outer);
	EVP_MD_CTX_free(d->work);
	OPENSSL_cleanse(d, sizeof *d);
}

enum smtp_status smtp_derivation_step(struct smtp_derivation *d, unsigned count)
{
	bool ok = 1;
	ERR_clear_error();
	for (; ok && count > 0 && d->left > 0; count--, d->left--) {
		ok = EVP_MD_CTX_copy_ex(d->work, d->inner) && EVP_DigestUpdate(d->work, d->last, d->length) && finish_hmac(d);
		for (size_t i = 0; i < d->length; i++)
			d->key[i] ^= d->last[i];
	}
	ERR_clear_error();
	return ok ? SMTP_OK : SMTP_E_MEMORY;
}

bool smtp_digest_same(const void *a, const void *b, size_t length)
{
	return CRYPTO_memcmp(a, b, length) == 0;
}

enum smtp_status smtp_hasher_init(struct smtp_hasher *hasher, const char *algorithm)
{
	ERR_clear_error();
	EVP_MD *md = EVP_MD_fetch(NULL, algorithm, NULL);
	if (!md)
		return refusal(algorithm);
	hasher->ctx = EVP_MD_CTX_new();
	bool ok = hasher->ctx && EVP_DigestInit_ex2(hasher->ctx, md, NULL);
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
	bool ok = EVP_DigestUpdate(hasher->ctx, bytes, length);
	ERR_clear_error();
	return ok ? SMTP_OK : SMTP_E_MEMORY;
}

enum smtp_status smtp_hasher_finish(struct smtp_hasher *hasher, unsigned char digest[SMTP_DIGEST_MAX],
                                    size_t *digest_length)
{
	unsigned length = 0;
	ERR_clear_error();
	bool ok = EVP_DigestFinal_ex(hasher->ctx, digest, &length) && EVP_DigestInit_ex2(hasher->ctx, NULL, NULL);
	*digest_length = length;
	ERR_clear_error();
	return ok ? SMTP_OK : SMTP_E_MEMORY;
}
