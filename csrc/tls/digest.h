/* digest: hashes, at once and as a stream, keyed hashes, and keys from passwords, through EVP. RFC 1321, 2104, 6234, 8018.
 * Called by the bindings. */
#ifndef SMTP_DIGEST_H
#define SMTP_DIGEST_H

#include "../wire/status.h"

#include <stdbool.h>
#include <stddef.h>

enum { SMTP_DIGEST_MAX = 64 };

/* `algorithm`: an OpenSSL digest name ("SHA256"). Errors: SMTP_E_INPUT (not offered here, as MD5 under FIPS),
 * SMTP_E_MEMORY. */
SMTP_MUST_USE enum smtp_status smtp_digest_hash(const char *algorithm, const void *bytes, size_t length,
                                                unsigned char digest[SMTP_DIGEST_MAX], size_t *digest_length);
SMTP_MUST_USE enum smtp_status smtp_digest_hmac(const char *algorithm, const void *key, size_t key_length,
                                                const void *bytes, size_t length, unsigned char digest[SMTP_DIGEST_MAX],
                                                size_t *digest_length);

/* PBKDF2 with HMAC, a key as long as the digest, in steps: it takes time in proportion to its iterations. RFC 8018 5.2 */
struct smtp_derivation {
	struct evp_md_ctx_st *inner; /* EVP_MD_CTX: HMAC's two hashes after their halves of the password; NULL as below */
	struct evp_md_ctx_st *outer;
	struct evp_md_ctx_st *work;
	unsigned char last[SMTP_DIGEST_MAX];
	unsigned char key[SMTP_DIGEST_MAX];
	size_t length; /* of the key */
	unsigned left; /* iterations */
};

/* Errors: SMTP_E_INPUT (not offered here), SMTP_E_MEMORY; then wipe it, as after use. */
SMTP_MUST_USE enum smtp_status smtp_derivation_init(struct smtp_derivation *derivation, const char *algorithm,
                                                    const void *password, size_t password_length, const void *salt,
                                                    size_t salt_length, unsigned iterations);
void smtp_derivation_wipe(struct smtp_derivation *derivation);

/* So many iterations more; the key is there when none is left. Errors: SMTP_E_MEMORY (or OpenSSL refused). */
SMTP_MUST_USE enum smtp_status smtp_derivation_step(struct smtp_derivation *derivation, unsigned count);

/* Whether two stretches of bytes are the same, in a time that does not tell where they differ. */
SMTP_MUST_USE bool smtp_digest_same(const void *a, const void *b, size_t length);

/* A hash over bytes that come one piece after the other. */
struct smtp_hasher {
	struct evp_md_ctx_st *ctx; /* EVP_MD_CTX; NULL before init and after wipe */
};

/* Errors: SMTP_E_INPUT (not offered here), SMTP_E_MEMORY; then wipe it. */
SMTP_MUST_USE enum smtp_status smtp_hasher_init(struct smtp_hasher *hasher, const char *algorithm);
void smtp_hasher_wipe(struct smtp_hasher *hasher);

/* Errors: SMTP_E_MEMORY (or OpenSSL refused). */
SMTP_MUST_USE enum smtp_status smtp_hasher_update(struct smtp_hasher *hasher, const void *bytes, size_t length);

/* Gives the digest, and is ready for a new run. Errors: SMTP_E_MEMORY (or OpenSSL refused). */
SMTP_MUST_USE enum smtp_status smtp_hasher_finish(struct smtp_hasher *hasher, unsigned char digest[SMTP_DIGEST_MAX],
                                                  size_t *digest_length);

#endif
