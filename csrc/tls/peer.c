/* peer: see peer.h. */
#include "peer.h"

#include "../wire/text.h"

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

/* Characters that are not seen but change how others look, or that end a line: of category Cf, Zl and Zp, C1 controls,
 * and what else Unicode calls ignorable by default. */
static bool is_hidden(uint32_t code)
{
	static const unsigned ranges[][2] = {
		{0x0000, 0x001F},   {0x007F, 0x009F},   {0x00AD, 0x00AD},   {0x034F, 0x034F},   {0x0600, 0x0605},
		{0x061C, 0x061C},   {0x06DD, 0x06DD},   {0x070F, 0x070F},   {0x0890, 0x0891},   {0x08E2, 0x08E2},
		{0x115F, 0x1160},   {0x17B4, 0x17B5},   {0x180B, 0x180F},   {0x200B, 0x200F},   {0x2028, 0x202E},
		{0x2060, 0x206F},   {0x3164, 0x3164},   {0xFE00, 0xFE0F},   {0xFEFF, 0xFEFF},   {0xFFA0, 0xFFA0},
		{0xFFF0, 0xFFFB},   {0x110BD, 0x110BD}, {0x110CD, 0x110CD}, {0x13430, 0x1343F}, {0x1BCA0, 0x1BCA3},
		{0x1D173, 0x1D17A}, {0xE0000, 0xE0FFF},
	};
	for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
		if (code >= ranges[i][0] && code <= ranges[i][1])
			return true;
	}
	return false;
}

/* The octets of the character at `at`; *hidden: it is to be escaped, as is an octet that belongs to none. */
static size_t next_character(const unsigned char *at, size_t left, bool *hidden)
{
	size_t size = *at < 0x80 ? 1 : smtp_text_character(at, left);
	*hidden = size == 0 || is_hidden(size == 1 ? *at : smtp_text_code(at, size));
	return size == 0 ? 1 : size;
}

/* Copies a text to a field, as much of it as fits. What is escaped is so as RFC 4514 2.4 has it: "\E2\80\AE". */
static void show(struct smtp_buf *field, const unsigned char *text, size_t length)
{
	size_t room = length < FIELD_CAP / 3 ? length * 3 + 1 : FIELD_CAP;
	size_t used = 0;
	unsigned char *spot;
	if (smtp_buf_reserve(field, room, &spot) != SMTP_OK)
		return;
	while (length > 0) {
		bool hidden;
		size_t size = next_character(text, length, &hidden);
		if (used + size * (hidden ? 3 : 1) >= room)
			break;
		for (size_t i = 0; i < size; i++) {
			if (!hidden) {
				spot[used++] = text[i];
				continue;
			}
			spot[used] = '\\';
			(void)smtp_text_hex(spot + used + 1, text[i], true);
			used += 3;
		}
		text += size;
		length -= size;
	}
	spot[used++] = 0;
	smtp_buf_commit(field, used);
}

static void read_name(struct smtp_buf *field, const X509_NAME *name)
{
	BIO *bio = BIO_new(BIO_s_mem());
	char *text;
	/* UTF-8 stays readable: only control bytes and separators are escaped by OpenSSL */
	if (bio && X509_NAME_print_ex(bio, name, 0, XN_FLAG_RFC2253 & ~(unsigned long)ASN1_STRFLGS_ESC_MSB) >= 0) {
		long length = BIO_get_mem_data(bio, &text);
		show(field, (const unsigned char *)text, length < 0 ? 0 : (size_t)length);
	}
	BIO_free(bio);
}

int smtp_peer_cut(const char *text, size_t most)
{
	size_t length = strlen(text);
	size_t kept = 0;
	bool hidden;
	while (kept < length) {
		size_t size = next_character((const unsigned char *)text + kept, length - kept, &hidden);
		if (kept + size > most)
			break;
		kept += size;
	}
	return (int)kept;
}

bool smtp_peer_is_current(const X509 *cert)
{
	return X509_cmp_current_time(X509_get0_notBefore(cert)) < 0 && X509_cmp_current_time(X509_get0_notAfter(cert)) > 0;
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
	unsigned char *spot;
	size_t used = 0;
	if (length > 1024 || smtp_buf_reserve(names, length * 4 + 1, &spot) != SMTP_OK)
		return;
	for (size_t i = 0; i < length; i++) {
		if (bytes[i] > 0x20 && bytes[i] < 0x7F && bytes[i] != '\\') {
			spot[used++] = bytes[i];
		} else {
			spot[used] = '\\';
			spot[used + 1] = 'x';
			(void)smtp_text_hex(spot + used + 2, bytes[i], true);
			used += 4;
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
