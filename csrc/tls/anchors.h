/* anchors: the trusted certificates of a PEM file, each of which is made only when a chain asks for its subject.
 *
 * To make a certificate of its bytes takes OpenSSL a fraction of a millisecond; a system trusts more than a hundred, and
 * a chain needs one. What is found so goes into the store, and is judged there as any other. Called by context.
 */
#ifndef SMTP_ANCHORS_H
#define SMTP_ANCHORS_H

#include "../wire/status.h"

#include <stdbool.h>

struct bio_st;
struct x509_store_st;

/* Lets `store` trust the certificates of a PEM text, and returns how many those are; -1 where there is no memory. What is
 * no certificate is left out, and *damaged tells whether it was to be one. Why it read no further stays in OpenSSL's error
 * queue: at the end of the text that there is no more. */
SMTP_MUST_USE int smtp_anchors_read(struct x509_store_st *store, struct bio_st *bio, bool *damaged);

/* The same with a file that is read only when a chain asks for a subject that nothing hung on the store before has; what
 * is wrong with it is not told. Errors: SMTP_E_MEMORY. */
SMTP_MUST_USE enum smtp_status smtp_anchors_later(struct x509_store_st *store, const char *path);

#endif
