/* peer: see peer.h. */
#include "peer.h"

#include <arpa/inet.h>
#include <openssl/asn1.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { FIELD_CAP = 4096, NAMES_CAP = 65536 };

void smtp_peer_init(struct smtp_peer *peer)
{
	memset(peer, 0, sizeof *peer);
	smtp_buf_init(&peer->subject, FIELD_CAP);
	smtp_buf_init(&peer->issuer, FIELD_CAP);
	smtp_buf_init(&peer->names, NAMES_CAP);
}

void smtp_peer_wipe(struct smtp_peer *peer)
{
	smtp_buf_wipe(&peer->subject);
	smtp_buf_wipe(&peer->issuer);
	smtp_buf_wipe(&peer->names);
	smtp_peer_init(peer);
}

const char *smtp_peer_text(const struct smtp_buf *field)
{
	return (const char *)smtp_buf_view(field);
}

const char *smtp_peer_names(const struct smtp_peer *peer, const char *name)
{
	const char *first = smtp_peer_text(&peer->names);
	const char *end = first + smtp_buf_length(&peer->names);
	const char *next = name ? name + strlen(name) + 1 : first;
	return next < end ? next : NULL;
}

static void read_name(struct smtp_buf *field, const X509_NAME *name)
{
	BIO *bio = BIO_new(BIO_s_mem());
	char *text;
	/* UTF-8 stays readable: only control bytes and separators are escaped */
	if (bio && X509_NAME_print_ex(bio, name, 0, XN_FLAG_RFC2253 & ~(unsigned long)ASN1_STRFLGS_ESC_MSB) >= 0) {
		long length = BIO_get_mem_data(bio, &text);
		size_t kept = length < 0 ? 0 : length < FIELD_CAP ? (size_t)length : FIELD_CAP - 1;
		unsigned char *spot;
		if (smtp_buf_reserve(field, kept + 1, &spot) == SMTP_OK) {
			if (kept)
				memcpy(spot, text, kept);
			spot[kept] = 0;
			/* C1 controls are UTF-8 too, and some terminals obey them */
			for (size_t i = 0; i + 1 < kept; i++)
				if (spot[i] == 0xC2 && spot[i + 1] < 0xA0)
					spot[i] = spot[i + 1] = '?';
			smtp_buf_commit(field, kept + 1);
		}
	}
	BIO_free(bio);
}

static void read_time(char *text, size_t size, const ASN1_TIME *time)
{
	struct tm tm;
	if (ASN1_TIME_to_tm(time, &tm))
		(void)snprintf(text, size, "%04d-%02d-%02dT%02d:%02d:%02dZ", (tm.tm_year + 1900) % 10000, tm.tm_mon + 1,
		               tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec);
}

static void add_host(struct smtp_buf *names, const unsigned char *bytes, size_t length)
{
	static const char digits[] = "0123456789ABCDEF";
	unsigned char *spot;
	size_t used = 0;
	if (length > 1024 || smtp_buf_reserve(names, length * 4 + 1, &spot) != SMTP_OK)
		return;
	for (size_t i = 0; i < length; i++) {
		if (bytes[i] > 0x20 && bytes[i] < 0x7F && bytes[i] != '\\') {
			spot[used++] = bytes[i];
		} else {
			spot[used++] = '\\';
			spot[used++] = 'x';
			spot[used++] = (unsigned char)digits[bytes[i] >> 4];
			spot[used++] = (unsigned char)digits[bytes[i] & 15];
		}
	}
	spot[used++] = 0;
	smtp_buf_commit(names, used);
}

static void add_address(struct smtp_buf *names, const unsigned char *bytes, size_t length)
{
	char text[INET6_ADDRSTRLEN];
	if ((length == 4 || length == 16) && inet_ntop(length == 4 ? AF_INET : AF_INET6, bytes, text, sizeof text))
		add_host(names, (const unsigned char *)text, strlen(text));
}

static void read_pin(char pin[48], X509 *cert)
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned digest_length;
	unsigned char *info = NULL;
	int length = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(cert), &info);
	if (length > 0 && EVP_Digest(info, (size_t)length, digest, &digest_length, EVP_sha256(), NULL))
		(void)EVP_EncodeBlock((unsigned char *)pin, digest, (int)digest_length);
	OPENSSL_free(info);
}

void smtp_peer_read(struct smtp_peer *peer, X509 *cert)
{
	smtp_peer_wipe(peer);
	read_name(&peer->subject, X509_get_subject_name(cert));
	read_name(&peer->issuer, X509_get_issuer_name(cert));
	read_time(peer->not_before, sizeof peer->not_before, X509_get0_notBefore(cert));
	read_time(peer->not_after, sizeof peer->not_after, X509_get0_notAfter(cert));
	read_pin(peer->pin, cert);
	GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
	for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
		int type;
		const ASN1_STRING *value = GENERAL_NAME_get0_value(sk_GENERAL_NAME_value(names, i), &type);
		if (type == GEN_DNS)
			add_host(&peer->names, ASN1_STRING_get0_data(value), (size_t)ASN1_STRING_length(value));
		else if (type == GEN_IPADD)
			add_address(&peer->names, ASN1_STRING_get0_data(value), (size_t)ASN1_STRING_length(value));
	}
	GENERAL_NAMES_free(names);
	ERR_clear_error();
}
