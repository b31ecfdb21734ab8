/* context: see context.h. */
#include "context.h"

#include "../wire/buf.h"
#include "anchors.h"
#include "engine.h"

#include <ctype.h>
#include <dirent.h>
#include <limits.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void smtp_context_wipe(struct smtp_context *context)
{
	SSL_CTX_free(context->ctx);
	context->ctx = NULL;
}

enum { PATH_SHOWN = 120 };

int smtp_no_password(char *into, int size, int writing, void *asked)
{
	(void)into;
	(void)size;
	(void)writing;
	if (asked)
		*(bool *)asked = true;
	return -1;
}

static bool is_pem(const struct smtp_context_text *text)
{
	return strstr(text->bytes, "-----BEGIN") != NULL;
}

/* What an option is called in an error: with its path, but never with what may be a text or a key in disguise (its
 * first or last line lost, say). */
static void call(char *label, size_t size, const char *option, const struct smtp_context_text *text)
{
	bool is_path = !is_pem(text) && strlen(text->bytes) <= PATH_SHOWN;
	if (strcmp(option, "key") == 0 || strcmp(option, "client_key") == 0)
		is_path = is_path && access(text->bytes, F_OK) == 0;
	for (const char *at = text->bytes; is_path && *at; at++)
		is_path = (unsigned char)*at >= 0x20 && *at != 0x7F;
	if (is_path)
		(void)snprintf(label, size, "%s \"%s\"", option, text->bytes);
	else
		(void)snprintf(label, size, "%s", option);
}

static void fail(struct smtp_fault *fault, const char *format, const char *option, const struct smtp_context_text *text)
{
	char label[256];
	char what[400];
	call(label, sizeof label, option, text);
	(void)snprintf(what, sizeof what, format, label);
	smtp_fault_drain(fault, what);
}

static BIO *open_text(const struct smtp_context_text *text, const char *option, struct smtp_fault *fault)
{
	BIO *bio = NULL;
	if (is_pem(text)) {
		if (text->length <= INT_MAX)
			bio = BIO_new_mem_buf(text->bytes, (int)text->length);
	} else if (strlen(text->bytes) == text->length) {
		bio = BIO_new_file(text->bytes, "r");
	}
	if (!bio) {
		/* the first entry is the system's own word ("No such file or directory") */
		fail(fault, "cannot read %s", option, text);
	}
	return bio;
}

/* Whether reading PEM objects one after the other stopped because there are no more. */
static bool at_end(void)
{
	unsigned long code = ERR_peek_last_error();
	return ERR_GET_LIB(code) == ERR_LIB_PEM && ERR_GET_REASON(code) == PEM_R_NO_START_LINE;
}

/* A server names those it trusts to its clients. */
static bool take_anchor(SSL_CTX *ctx, X509 *cert)
{
	return X509_STORE_add_cert(SSL_CTX_get_cert_store(ctx), cert) && SSL_CTX_add_client_CA(ctx, cert);
}

/* The first is the peer's own, the rest its chain. */
static bool take_own(SSL_CTX *ctx, X509 *cert)
{
	bool first = !SSL_CTX_get0_certificate(ctx);
	return (first ? SSL_CTX_use_certificate(ctx, cert) : SSL_CTX_add1_chain_cert(ctx, cert)) == 1;
}

static int take_each(SSL_CTX *ctx, BIO *bio, bool (*take)(SSL_CTX *ctx, X509 *cert))
{
	int count = 0;
	bool taken = true;
	X509 *cert;
	while (taken && (cert = PEM_read_bio_X509_AUX(bio, NULL, smtp_no_password, NULL))) {
		taken = take(ctx, cert);
		count++;
		X509_free(cert);
	}
	return count;
}

static enum smtp_status lack_memory(struct smtp_fault *fault)
{
	ERR_clear_error();
	smtp_fault_set(fault, SMTP_FAULT_MEMORY, NULL);
	return SMTP_E_MEMORY;
}

/* Gives every certificate in `text` to `take`; NULL: to the store, as anchors. */
static enum smtp_status each_cert(SSL_CTX *ctx, const struct smtp_context_text *text, const char *option,
                                  bool (*take)(SSL_CTX *ctx, X509 *cert), struct smtp_fault *fault)
{
	BIO *bio = open_text(text, option, fault);
	if (!bio)
		return SMTP_E_INPUT;
	bool damaged = false;
	int count = take ? take_each(ctx, bio, take) : smtp_anchors_read(SSL_CTX_get_cert_store(ctx), bio, &damaged);
	BIO_free(bio);
	if (count < 0)
		return lack_memory(fault);
	bool whole = at_end();
	if (whole)
		ERR_clear_error();
	if (count && whole && !damaged)
		return SMTP_OK;
	fail(fault,
	     !count    ? "%s holds no PEM certificate"
	     : damaged ? "%s is not usable: a certificate in it is damaged"
	               : "%s is not usable",
	     option, text);
	return SMTP_E_INPUT;
}

static enum smtp_status use_key(SSL_CTX *ctx, const struct smtp_context_text *text, const char *option,
                                struct smtp_fault *fault)
{
	bool locked = false;
	bool used = false;
	BIO *bio = open_text(text, option, fault);
	if (!bio)
		return SMTP_E_INPUT;
	EVP_PKEY *key = PEM_read_bio_PrivateKey(bio, NULL, smtp_no_password, &locked);
	BIO_free(bio);
	if (key)
		used = SSL_CTX_use_PrivateKey(ctx, key) == 1;
	EVP_PKEY_free(key);
	if (used)
		return SMTP_OK;
	/* the decoders' entries say less than the words below */
	if ((locked || !key) && smtp_fault_memory())
		return lack_memory(fault);
	fail(fault,
	     locked ? "the private key in %s is locked with a password: give it without one"
	     : key  ? "the private key in %s cannot be used with the certificate"
	            : "%s holds no PEM private key",
	     option, text);
	return SMTP_E_INPUT;
}

/* Whether a file is called as OpenSSL looks certificates up by: "4a6481c9.0". */
static bool is_hash(const char *name)
{
	return strspn(name, "0123456789abcdef") == 8 && name[8] == '.' && isdigit((unsigned char)name[9]);
}

/* Whether a directory has such a file. */
static bool is_hashed(const char *path)
{
	bool found = false;
	const struct dirent *entry;
	DIR *dir = opendir(path);
	while (dir && !found && (entry = readdir(dir)))
		found = is_hash(entry->d_name);
	if (dir)
		(void)closedir(dir);
	return found;
}

/* Whether one of the directories in a list separated by colons is such a one. */
static bool any_hashed(const char *list)
{
	char path[PATH_MAX];
	bool found = false;
	while (!found && *list) {
		size_t length = strcspn(list, ":");
		if (length < sizeof path) {
			memcpy(path, list, length);
			path[length] = 0;
			found = is_hashed(path);
		}
		list += length + (list[length] == ':');
	}
	return found;
}

/* A variable of the environment; who gave a program its environment has no say where it may do more than they. */
static const char *look_around(const char *name)
{
#ifdef __linux__
	return secure_getenv(name);
#else
	return issetugid() ? NULL : getenv(name);
#endif
}

/* How many certificates the file holds; -1 where there is no memory. */
static int trust_file(SSL_CTX *ctx, const char *path)
{
	bool damaged;
	BIO *bio = BIO_new_file(path, "r");
	int count = bio ? smtp_anchors_read(SSL_CTX_get_cert_store(ctx), bio, &damaged) : 0;
	BIO_free(bio);
	return smtp_fault_memory() ? -1 : count;
}

/* The system's store: what OpenSSL was built to use, or the environment says; else, since a copy of OpenSSL that did not
 * come with the system may have none of its own, the files where systems are known to keep theirs. Where certificates can
 * be looked up in its folder by their names, its file, most often the same ones, is read only for what is not there. */
static enum smtp_status trust_system(SSL_CTX *ctx, struct smtp_fault *fault)
{
	static const char *const files[] = {
		"/etc/ssl/certs/ca-certificates.crt",
		"/etc/pki/tls/certs/ca-bundle.crt",
		"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
		"/etc/ssl/cert.pem",
		"/etc/ssl/ca-bundle.pem",
		"/opt/homebrew/etc/openssl@3/cert.pem",
		"/usr/local/etc/openssl@3/cert.pem",
	};
	const char *file = look_around(X509_get_default_cert_file_env());
	const char *list = look_around(X509_get_default_cert_dir_env());
	bool hashed = any_hashed(list ? list : X509_get_default_cert_dir());
	bool later = hashed && !file; /* a file that is named comes before the folder */
	int found = later ? 0 : trust_file(ctx, file ? file : X509_get_default_cert_file());
	if (found < 0)
		return lack_memory(fault);
	if (!SSL_CTX_set_default_verify_dir(ctx) ||
	    (later && smtp_anchors_later(SSL_CTX_get_cert_store(ctx), X509_get_default_cert_file()) != SMTP_OK)) {
		smtp_fault_drain(fault, "cannot use the system's trust store");
		return SMTP_E_MEMORY;
	}
	if (found || hashed)
		return SMTP_OK;
	/* who names a store means that one and no other */
	if (file || list) {
		smtp_fault_set(fault, "no trusted certificates: none where SSL_CERT_FILE or SSL_CERT_DIR point",
		               "correct the environment, or give ca_file");
		return SMTP_E_INPUT;
	}
	for (size_t i = 0; i < sizeof files / sizeof *files && found == 0; i++)
		found = trust_file(ctx, files[i]);
	if (found != 0)
		return found < 0 ? lack_memory(fault) : SMTP_OK;
	smtp_fault_set(fault, "no trusted certificates: this system has no store of them where it is looked for",
	               "install the system's package of authorities (ca-certificates), or give ca_file");
	return SMTP_E_INPUT;
}

/* Whether such a file, where it can be opened, holds certificates and only whole ones; -1 where there is no memory. */
static int is_sound(const char *path)
{
	bool damaged = false;
	BIO *bio = BIO_new_file(path, "r");
	X509_STORE *store = bio ? X509_STORE_new() : NULL; /* for this look only */
	int count = store ? smtp_anchors_read(store, bio, &damaged) : 1;
	int sound = count > 0 && !damaged && (!store || at_end());
	X509_STORE_free(store);
	BIO_free(bio);
	return smtp_fault_memory() || count < 0 ? -1 : sound;
}

/* OpenSSL opens the files of a folder when a chain asks for them, and says nothing of those that it cannot use. `alone`:
 * without one there would be nothing to trust. */
static enum smtp_status check_folder(const struct smtp_context_text *folder, bool alone, struct smtp_fault *fault)
{
	char path[PATH_MAX];
	int sound = 1;
	bool any = false;
	const struct dirent *entry;
	DIR *dir = opendir(folder->bytes);
	while (dir && sound > 0 && (entry = readdir(dir))) {
		if (!is_hash(entry->d_name))
			continue;
		(void)snprintf(path, sizeof path, "%s/%s", folder->bytes, entry->d_name);
		any = true;
		sound = is_sound(path);
	}
	if (dir)
		(void)closedir(dir);
	if (sound < 0)
		return lack_memory(fault);
	if (!sound) {
		const struct smtp_context_text file = {path, strlen(path)};
		fail(fault, "%s holds no PEM certificate, or a damaged one", "ca_path", &file);
		return SMTP_E_INPUT;
	}
	if (any || !alone)
		return SMTP_OK;
	fail(fault, "%s holds no certificates by the names that \"openssl rehash\" gives them", "ca_path", folder);
	return SMTP_E_INPUT;
}

static enum smtp_status set_trust(SSL_CTX *ctx, const struct smtp_context_options *options, struct smtp_fault *fault)
{
	struct stat stat_of;
	enum smtp_status status = SMTP_OK;
	if (!options->ca_file.bytes && !options->ca_path.bytes)
		return trust_system(ctx, fault);
	/* what the caller names is trusted as it stands, an intermediate or a server's own certificate too */
	X509_STORE_set_flags(SSL_CTX_get_cert_store(ctx), X509_V_FLAG_PARTIAL_CHAIN);
	if (options->ca_file.bytes)
		status = each_cert(ctx, &options->ca_file, "ca_file", options->server ? take_anchor : NULL, fault);
	if (status == SMTP_OK && options->ca_path.bytes) {
		const struct smtp_context_text *path = &options->ca_path;
		if (strlen(path->bytes) != path->length || stat(path->bytes, &stat_of) != 0 || !S_ISDIR(stat_of.st_mode) ||
		    !SSL_CTX_load_verify_dir(ctx, path->bytes)) {
			fail(fault, "%s is not a directory that can be read", "ca_path", path);
			status = SMTP_E_INPUT;
		} else {
			status = check_folder(path, !options->ca_file.bytes, fault);
		}
	}
	return status;
}

static bool set_versions(SSL_CTX *ctx, const struct smtp_context_options *options)
{
	int min = options->min == 13 ? TLS1_3_VERSION : TLS1_2_VERSION;
	/* the system's configuration may ask for more, never for less */
	if (SSL_CTX_get_min_proto_version(ctx) < min && !SSL_CTX_set_min_proto_version(ctx, min))
		return false;
	if (options->max && !SSL_CTX_set_max_proto_version(ctx, options->max == 13 ? TLS1_3_VERSION : TLS1_2_VERSION))
		return false;
	return true;
}

/* Leaves, of the cipher suites that OpenSSL and the system's configuration chose for TLS 1.2, those with forward secrecy. */
static enum smtp_status set_ciphers(SSL_CTX *ctx, bool server, struct smtp_fault *fault)
{
	const STACK_OF(SSL_CIPHER) *ciphers = SSL_CTX_get_ciphers(ctx);
	struct smtp_buf names;
	bool ok = true;
	if (SSL_CTX_get_min_proto_version(ctx) >= TLS1_3_VERSION)
		return SMTP_OK; /* which has no others */
	smtp_buf_init(&names, 65536);
	for (int i = 0; ok && i < sk_SSL_CIPHER_num(ciphers); i++) {
		const SSL_CIPHER *cipher = sk_SSL_CIPHER_value(ciphers, i);
		const char *name = SSL_CIPHER_get_name(cipher);
		int exchange = SSL_CIPHER_get_kx_nid(cipher);
		if (exchange == NID_kx_ecdhe || exchange == NID_kx_dhe)
			ok = smtp_buf_append(&names, name, strlen(name)) == SMTP_OK && smtp_buf_append(&names, ":", 1) == SMTP_OK;
	}
	if (ok && smtp_buf_length(&names) == 0) {
		smtp_fault_set(fault,
		               "this system's configuration of OpenSSL allows no cipher suite of TLS 1.2 with forward secrecy",
		               server ? NULL : "use tls_min = \"1.3\", or let CipherString in openssl.cnf allow ECDHE");
		return SMTP_E_INPUT;
	}
	ok = ok && smtp_buf_append(&names, "", 1) == SMTP_OK &&
	     SSL_CTX_set_cipher_list(ctx, (const char *)smtp_buf_view(&names));
	smtp_buf_wipe(&names);
	if (!ok)
		smtp_fault_drain(fault, "cannot set up TLS");
	return ok ? SMTP_OK : SMTP_E_MEMORY;
}

static bool set_policy(SSL_CTX *ctx, const struct smtp_context_options *options)
{
	SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
	SSL_CTX_clear_options(ctx, SSL_OP_IGNORE_UNEXPECTED_EOF | SSL_OP_ALLOW_UNSAFE_LEGACY_RENEGOTIATION);
	SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
	SSL_CTX_set_default_passwd_cb(ctx, smtp_no_password);
	if (!options->server && SSL_CTX_get_security_level(ctx) < 2)
		SSL_CTX_set_security_level(ctx, 2);
	return set_versions(ctx, options) && SSL_CTX_set_max_early_data(ctx, 0) &&
	       SSL_CTX_set_session_id_context(ctx, (const unsigned char *)"smtp", 4);
}

enum smtp_status smtp_context_init(struct smtp_context *context, const struct smtp_context_options *options,
                                   struct smtp_fault *fault)
{
	enum smtp_status status;
	smtp_fault_set(fault, "", NULL);
	ERR_clear_error();
	context->server = options->server;
	/* a server asks for a certificate when it is told whom to trust */
	context->verify = options->server ? options->ca_file.bytes || options->ca_path.bytes : options->verify;
	context->ctx = SSL_CTX_new(options->server ? TLS_server_method() : TLS_client_method());
	if (!context->ctx || !set_policy(context->ctx, options) || RAND_bytes(context->id, sizeof context->id) != 1) {
		smtp_fault_drain(fault, "cannot set up TLS");
		return SMTP_E_MEMORY;
	}
	if (!context->server)
		SSL_CTX_set_client_cert_cb(context->ctx, smtp_engine_lacks);
	status = set_ciphers(context->ctx, options->server, fault);
	if (status == SMTP_OK && context->verify) {
		SSL_CTX_set_verify(context->ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
		if (!context->server)
			SSL_CTX_set_cert_verify_callback(context->ctx, smtp_session_judge, NULL);
		status = set_trust(context->ctx, options, fault);
	} else {
		SSL_CTX_set_verify(context->ctx, SSL_VERIFY_NONE, NULL);
	}
	if (status == SMTP_OK && options->cert.bytes) {
		const char *cert = options->server ? "cert" : "client_cert";
		status = each_cert(context->ctx, &options->cert, cert, take_own, fault);
		if (status == SMTP_OK)
			status = options->key.bytes
			             ? use_key(context->ctx, &options->key, options->server ? "key" : "client_key", fault)
			             : use_key(context->ctx, &options->cert, cert, fault);
	} else if (status == SMTP_OK && (options->server || options->key.bytes)) {
		smtp_fault_set(fault, options->server ? "a TLS server needs cert" : "client_key is given without client_cert",
		               NULL);
		status = SMTP_E_INPUT;
	}
	ERR_clear_error();
	return status;
}
