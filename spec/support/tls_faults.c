/* tls_faults CERTIFICATE KEY: what the TLS room says while memory is short: in turn each allocation of OpenSSL's fails, and
 * all behind it; with digests also it alone. It prints what is neither done nor told as what it is. */
#include "../../csrc/tls/digest.h"
#include "../../csrc/tls/engine.h"
#include "../../csrc/tls/sign.h"

#include <openssl/crypto.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static long left = -1; /* allocations until one fails; less than 0: none does */
static bool all;       /* those behind it fail, too */

static bool fails(void)
{
	if (left < 0)
		return false;
	if (left > 0)
		return left--, false;
	left = all ? 0 : -2;
	return true;
}

static void *get(size_t size, const char *file, int line)
{
	(void)file, (void)line;
	return fails() ? NULL : malloc(size);
}

static void *change(void *old, size_t size, const char *file, int line)
{
	(void)file, (void)line;
	return fails() ? NULL : realloc(old, size);
}

static void give(void *old, const char *file, int line)
{
	(void)file, (void)line;
	free(old);
}

static struct smtp_context_text cert, key, path;
static struct smtp_context_options client_options = {.verify = true}, server_options = {.server = true};

static const char *digests(void)
{
	unsigned char digest[SMTP_DIGEST_MAX];
	size_t length;
	struct smtp_hasher hasher = {0};
	struct smtp_derivation derivation = {0};
	enum smtp_status status = smtp_digest_hash("SHA256", "x", 1, digest, &length);
	if (status == SMTP_OK)
		status = smtp_digest_hmac("SHA256", "k", 1, "x", 1, digest, &length);
	if (status == SMTP_OK)
		status = smtp_hasher_init(&hasher, "SHA256");
	if (status == SMTP_OK)
		status = smtp_derivation_init(&derivation, "SHA256", "p", 1, "s", 1, 2);
	smtp_hasher_wipe(&hasher);
	smtp_derivation_wipe(&derivation);
	return status == SMTP_OK ? NULL : smtp_status_text(status);
}

static const char *signing(void)
{
	struct smtp_signer signer = {0};
	const char *why = smtp_signer_init(&signer, key.bytes, key.length);
	smtp_signer_wipe(&signer);
	/* this one is of another kind than DKIM's: no more than that is to be said */
	return why && strstr(why, "neither RSA nor Ed25519") ? NULL : why;
}

static const char *context(const struct smtp_context_options *options)
{
	static struct smtp_fault fault;
	struct smtp_context made = {0};
	enum smtp_status status = smtp_context_init(&made, options, &fault);
	smtp_context_wipe(&made);
	return status == SMTP_OK ? NULL : fault.text;
}

static const char *trust_text(void)
{
	client_options.ca_file = cert;
	return context(&client_options);
}

static const char *trust_file(void)
{
	client_options.ca_file = path;
	return context(&client_options);
}

static const char *own(void)
{
	return context(&server_options);
}

static void carry(struct smtp_engine *from, struct smtp_engine *to)
{
	char bytes[16384];
	size_t length = smtp_engine_show(from, bytes, sizeof bytes);
	enum smtp_status ignored = smtp_engine_feed(to, bytes, length);
	(void)ignored;
	smtp_engine_drop(from, length);
}

/* The client's words; the server has all the memory it wants. */
static const char *handshake(void)
{
	static struct smtp_fault fault;
	struct smtp_context of_client = {0}, of_server = {0};
	struct smtp_engine client = {0}, server = {0};
	long short_of = left;
	char bytes[64];
	size_t length;
	left = -1;
	client_options.ca_file = cert;
	enum smtp_status status = smtp_context_init(&of_client, &client_options, &fault);
	if (status == SMTP_OK)
		status = smtp_context_init(&of_server, &server_options, &fault);
	if (status == SMTP_OK)
		status = smtp_engine_init(&server, &of_server, NULL, 0);
	left = short_of;
	if (status == SMTP_OK)
		status = smtp_engine_init(&client, &of_client, "mail.example.org", 16);
	bool made = status == SMTP_OK;
	for (int i = 0; made && i < 8 && status >= 0; i++) {
		status = smtp_engine_handshake(&client);
		short_of = left;
		left = -1;
		carry(&client, &server);
		enum smtp_status ignored = smtp_engine_handshake(&server);
		(void)ignored;
		carry(&server, &client);
		left = short_of;
	}
	if (status == SMTP_OK)
		status = smtp_engine_write(&client, "QUIT", 4);
	if (status == SMTP_OK && (status = smtp_engine_read(&client, bytes, sizeof bytes, &length)) == SMTP_MORE)
		status = SMTP_OK;
	if (made || status < 0)
		fault = client.fault;
	smtp_engine_wipe(&client);
	smtp_engine_wipe(&server);
	smtp_context_wipe(&of_client);
	smtp_context_wipe(&of_server);
	return status == SMTP_OK ? NULL : fault.text;
}

static char *slurp(const char *name, struct smtp_context_text *text)
{
	FILE *file = fopen(name, "rb");
	char *bytes = calloc(1, 65536);
	text->bytes = bytes;
	text->length = file && bytes ? fread(bytes, 1, 65535, file) : 0;
	if (file)
		(void)fclose(file);
	return bytes;
}

int main(int count, char **words)
{
	static const struct {
		const char *name;
		const char *(*run)(void);
	} cases[] = {
		{"digests", digests},          {"signing", signing}, {"trust, a text", trust_text},
		{"trust, a file", trust_file}, {"own", own},         {"handshake", handshake},
	};
	if (count != 3 || !CRYPTO_set_mem_functions(get, change, give))
		return 1;
	char *texts[] = {slurp(words[1], &cert), slurp(words[2], &key)};
	path = (struct smtp_context_text){words[1], strlen(words[1])};
	server_options.cert = cert;
	server_options.key = key;
	for (size_t i = 0; i <= sizeof cases / sizeof *cases; i++) {
		size_t at = i > 0 ? i - 1 : 0;
		const char *said = cases[at].run(); /* so that what OpenSSL makes once is there */
		long number = 0;
		long told = 0;
		all = i > 0;
		bool over = said != NULL;
		while (!over) {
			left = number;
			number += 1 + number / 32; /* there may be thousands */
			said = cases[at].run();
			over = left > 0; /* none failed */
			left = -1;
			told += said != NULL;
			if (said && strcmp(said, "out of memory") != 0)
				printf("%s, %ld%s: %s\n", cases[at].name, number, all ? " and behind" : "", said);
		}
		if (told == 0)
			printf("%s: nothing failed\n", cases[at].name);
	}
	free(texts[0]);
	free(texts[1]);
	return 0;
}
