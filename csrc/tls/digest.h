/* digest: hashes and keyed hashes, through EVP. RFC 1321, 2104, 6234. Called by the bindings. */
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

#endif
