/* digest: hashes, at once and as a stream, and keyed hashes, through EVP. RFC 1321, 2104, 6234. Called by the bindings. */
#ifndef SMTP_DIGEST_H
#define SMTP_DIGEST_H

#include "../wire/status.h"

#include <stddef.h>

enum { SMTP_DIGEST_MAX = 64 };

/* `algorithm`: an OpenSSL digest name ("SHA256"). Errors: SMTP_E_INPUT (not offered here, as MD5 under FIPS). */
SMTP_MUST_USE enum smtp_status smtp_digest_hash(const char *algorithm, const void *bytes, size_t length,
                                                unsigned char digest[SMTP_DIGEST_MAX], size_t *digest_length);
SMTP_MUST_USE enum smtp_status smtp_digest_hmac(const char *algorithm, const void *key, size_t key_length,
                                                const void *bytes, size_t length, unsigned char digest[SMTP_DIGEST_MAX],
                                                size_t *digest_length);

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
