/* anchors: see anchors.h. */
#include "anchors.h"

#include <openssl/asn1.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509_vfy.h>
#include <stdlib.h>
#include <string.h>

struct anchor {
	struct anchor *next;
	unsigned char *bytes;
	long length;
	unsigned letters; /* of its subject */
};

struct anchors {
	X509_LOOKUP_METHOD *method;
	struct anchor *first;
	char *path; /* of a file not yet read, or NULL */
};

static void drop(struct anchor *anchor)
{
	OPENSSL_free(anchor->bytes);
	free(anchor);
}

static void drop_all(X509_LOOKUP *lookup)
{
	struct anchors *anchors = X509_LOOKUP_get_method_data(lookup);
	free(anchors->path);
	while (anchors->first) {
		struct anchor *anchor = anchors->first;
		anchors->first = anchor->next;
		drop(anchor);
	}
	X509_LOOKUP_meth_free(anchors->method); /* each store has its own, and is done with it after this call */
	free(anchors);
}

/* RFC 5280 4.1: Certificate and TBSCertificate begin, then version (may be missing), serialNumber, signature, issuer,
 * validity, subject. NULL: this is something else. */
static const unsigned char *find_subject(const unsigned char *at, long length, long *size)
{
	enum { OUTER = 2, SUBJECT = 7 };
	const unsigned char *end = at + length;
	for (int field = 0; at < end; field++) {
		const unsigned char *began = at;
		int tag;
		int class;
		if (ASN1_get_object(&at, size, &tag, &class, end - at) & 0x80)
			return NULL;
		if (field == OUTER && class != V_ASN1_CONTEXT_SPECIFIC)
			field++;
		if (field >= OUTER)
			at += *size;
		if (field == SUBJECT) {
			*size = at - began;
			return began;
		}
	}
	return NULL;
}

/* Whether the bytes are whole values, to all depths (X.690 8.1): what was cut or mistyped is not. */
static bool is_whole(const unsigned char *at, long length, int depth)
{
	const unsigned char *end = at + length;
	while (at < end) {
		long size;
		int tag;
		int class;
		int form = ASN1_get_object(&at, &size, &tag, &class, end - at);
		if (form & 0x81) /* an error, or a length that is not said */
			return false;
		if ((form & V_ASN1_CONSTRUCTED) && (depth == 0 || !is_whole(at, size, depth - 1)))
			return false;
		at += size;
	}
	return true;
}

/* A number that two names share if OpenSSL calls them equal. Since that does not depend on case, blanks or kinds of
 * strings, only ASCII letters count. To make names of the bytes, to compare them, would take a hundred times as long. */
static unsigned sum_letters(const unsigned char *at, long length)
{
	const unsigned char *end = at + length;
	unsigned sum = 0;
	long size;
	int tag;
	int class;
	while (at < end) {
		int form = ASN1_get_object(&at, &size, &tag, &class, end - at);
		if (form & 0x80)
			break;
		if (form & V_ASN1_CONSTRUCTED)
			continue;
		int width = tag == V_ASN1_BMPSTRING ? 2 : tag == V_ASN1_UNIVERSALSTRING ? 4 : 1;
		unsigned long letter = 0;
		for (long i = 0; tag != V_ASN1_OBJECT && i < size; i++) {
			letter = i % width ? letter << 8 | at[i] : at[i];
			if (i % width == width - 1 && ((letter >= 'A' && letter <= 'Z') || (letter >= 'a' && letter <= 'z')))
				sum += (unsigned)letter | 0x20;
		}
		at += size;
	}
	return sum;
}

/* Reads the text; see smtp_anchors_read. */
static int read_all(struct anchors *anchors, BIO *bio, bool *damaged)
{
	enum { DEEPEST = 32 };
	int count = 0;
	char *label = NULL;
	char *header = NULL;
	unsigned char *bytes = NULL;
	long length;
	struct anchor **last = &anchors->first;
	*damaged = false;
	while (count >= 0 && PEM_read_bio(bio, &label, &header, &bytes, &length)) {
		bool is_cert = strcmp(label, PEM_STRING_X509) == 0 || strcmp(label, PEM_STRING_X509_OLD) == 0 ||
		               strcmp(label, PEM_STRING_X509_TRUSTED) == 0;
		long size = 0;
		bool whole = is_cert && is_whole(bytes, length, DEEPEST);
		const unsigned char *subject = whole ? find_subject(bytes, length, &size) : NULL;
		struct anchor *anchor = subject ? calloc(1, sizeof *anchor) : NULL;
		if (anchor) {
			anchor->letters = sum_letters(subject, size);
			anchor->bytes = bytes;
			anchor->length = length;
			*last = anchor;
			last = &anchor->next;
			count++;
		} else {
			OPENSSL_clear_free(bytes, (size_t)length); /* perhaps a key */
			*damaged = *damaged || (is_cert && !subject);
			count = subject ? -1 : count;
		}
		OPENSSL_free(label);
		OPENSSL_free(header);
	}
	return count;
}

/* Reads the file that was left for later. */
static void read_late(struct anchors *anchors)
{
	bool damaged;
	BIO *bio = BIO_new_file(anchors->path, "r");
	if (!bio)
		return; /* perhaps too many files are open: whoever asks next may find it */
	(void)read_all(anchors, bio, &damaged);
	BIO_free(bio);
	free(anchors->path);
	anchors->path = NULL;
}

/* Moves what may have that name to the store. */
static void move(struct anchors *anchors, const X509_NAME *name, X509_STORE *store)
{
	struct anchor **at = &anchors->first;
	const unsigned char *bytes;
	size_t length;
	if (!X509_NAME_get0_der(name, &bytes, &length))
		return;
	unsigned letters = sum_letters(bytes, (long)length);
	while (*at) {
		struct anchor *anchor = *at;
		if (anchor->letters != letters) {
			at = &anchor->next;
			continue;
		}
		bytes = anchor->bytes;
		X509 *cert = d2i_X509_AUX(NULL, &bytes, anchor->length);
		if (cert)
			(void)X509_STORE_add_cert(store, cert);
		X509_free(cert);
		*at = anchor->next;
		drop(anchor);
	}
}

/* What OpenSSL calls for a subject that its store does not have yet. */
static int find(X509_LOOKUP *lookup, X509_LOOKUP_TYPE type, const X509_NAME *name, X509_OBJECT *found)
{
	struct anchors *anchors = X509_LOOKUP_get_method_data(lookup);
	X509_STORE *store = X509_LOOKUP_get_store(lookup);
	if (type != X509_LU_X509)
		return 0;
	(void)ERR_set_mark();
	if (anchors->path)
		read_late(anchors);
	move(anchors, name, store);
	(void)X509_STORE_lock(store);
	const X509_OBJECT *kept = X509_OBJECT_retrieve_by_subject(X509_STORE_get0_objects(store), type, name);
	X509 *cert = kept ? X509_OBJECT_get0_X509(kept) : NULL;
	bool any = cert && X509_OBJECT_set1_X509(found, cert);
	if (any)
		X509_free(cert); /* `found` is to point to what the store has, and own none of it */
	(void)X509_STORE_unlock(store);
	(void)ERR_pop_to_mark();
	return any;
}

static struct anchors *hang_on(X509_STORE *store)
{
	X509_LOOKUP *lookup = NULL;
	struct anchors *anchors = calloc(1, sizeof *anchors);
	X509_LOOKUP_METHOD *method = X509_LOOKUP_meth_new("smtp anchors");
	if (anchors && method && X509_LOOKUP_meth_set_get_by_subject(method, find))
		lookup = X509_STORE_add_lookup(store, method);
	if (lookup && X509_LOOKUP_set_method_data(lookup, anchors) && X509_LOOKUP_meth_set_free(method, drop_all)) {
		anchors->method = method;
		return anchors;
	}
	if (!lookup)
		X509_LOOKUP_meth_free(method);
	free(anchors);
	return NULL;
}

int smtp_anchors_read(struct x509_store_st *store, struct bio_st *bio, bool *damaged)
{
	struct anchors *anchors = hang_on(store);
	*damaged = false;
	return anchors ? read_all(anchors, bio, damaged) : -1;
}

enum smtp_status smtp_anchors_later(struct x509_store_st *store, const char *path)
{
	struct anchors *anchors = hang_on(store);
	if (anchors)
		anchors->path = strdup(path);
	return anchors && anchors->path ? SMTP_OK : SMTP_E_MEMORY;
}
