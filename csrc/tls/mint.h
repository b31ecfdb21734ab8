/* mint: a self-signed server certificate for the run: EC P-256, a random serial, valid from an hour ago for 30 days.
 *
 * For tests, development and small receivers. It is no authority (CA:FALSE): whoever wants to trust it takes it as
 * ca_file. Called by the bindings. RFC 5280.
 */
#ifndef SMTP_MINT_H
#define SMTP_MINT_H

#include "../wire/buf.h"

struct stack_st_GENERAL_NAME;

struct smtp_mint {
	struct stack_st_GENERAL_NAME *names;
	char common[65];      /* the first name, where it fits */
	struct smtp_buf cert; /* PEM */
	struct smtp_buf key;  /* PEM, unencrypted PKCS #8 */
};

void smtp_mint_init(struct smtp_mint *mint);
void smtp_mint_wipe(struct smtp_mint *mint);

/* An address (by its look) or a host name. Errors: SMTP_E_INPUT, SMTP_E_MEMORY. */
SMTP_MUST_USE enum smtp_status smtp_mint_name(struct smtp_mint *mint, const char *name, size_t length);

/* Makes cert and key for the names given. Errors: SMTP_E_MEMORY (or OpenSSL refused). */
SMTP_MUST_USE enum smtp_status smtp_mint_strike(struct smtp_mint *mint);

#endif
