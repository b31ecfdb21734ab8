/* sign: signatures with a private key, as DKIM makes them: RSA (PKCS #1 v1.5) over SHA-256, and Ed25519 over a SHA-256
 * digest.
 *
 * It never asks for a password, and no reason it gives holds anything of the key. RFC 6376 3.3, RFC 8301, RFC 8463.
 * Called by the bindings.
 */
#ifndef SMTP_SIGN_H
#define SMTP_SIGN_H

#include "../wire/status.h"

#include <stdbool.h>
#include <stddef.h>

enum { SMTP_SIGNATURE_MAX = 2048 }; /* octets: RSA of 16384 bits */

struct smtp_signer {
	struct evp_pkey_st *key; /* EVP_PKEY; NULL before init and after wipe */
	bool rsa;                /* else Ed25519 */
};

/* From the PEM text of a private key. Returns NULL, or why the key cannot be used; then wipe it. */
SMTP_MUST_USE const char *smtp_signer_init(struct smtp_signer *signer, const char *pem, size_t length);

/* Frees the key; OpenSSL overwrites it. */
void smtp_signer_wipe(struct smtp_signer *signer);

/* Octets of each signature. */
size_t smtp_signer_size(const struct smtp_signer *signer);

/* Errors: SMTP_E_MEMORY (or OpenSSL refused). */
SMTP_MUST_USE enum smtp_status smtp_signer_sign(const struct smtp_signer *signer, const void *bytes, size_t length,
                                                unsigned char signature[SMTP_SIGNATURE_MAX], size_t *signature_length);

#endif
