/* sign: smtp.tls.hash, hmac, pbkdf2, same, xor, saslprep, hasher and signer. Used by lua/smtp/protocol/sasl, scram and
 * saslprep and by lua/smtp/mail/dkim. */
#include "../tls/sign.h"

#include "../tls/digest.h"
#include "../tls/saslprep.h"
#include "../wire/buf.h"
#include "tls.h"

#define DERIVATION "smtp.tls.derivation"
#define HASHER "smtp.tls.hasher"
#define SIGNER "smtp.tls.signer"

static const char no_algorithm[] = "this OpenSSL does not offer the algorithm";

static const char *check_algorithm(lua_State *L)
{
	static const char *const names[] = {"md5", "sha1", "sha256", "sha512", NULL};
	static const char *const openssl_names[] = {"MD5", "SHA1", "SHA256", "SHA512"};
	return openssl_names[luaL_checkoption(L, 1, NULL, names)];
}

static int push_digest(lua_State *L, enum smtp_status status, unsigned char *digest, size_t length)
{
	if (status < 0)
		return smtp_fail(L, status == SMTP_E_INPUT ? no_algorithm : smtp_status_text(status));
	lua_pushlstring(L, (const char *)digest, length);
	smtp_wipe(digest, length);
	return 1;
}

/* tls.hash(algorithm, bytes) -> digest | nil, text */
static int hash(lua_State *L)
{
	unsigned char digest[SMTP_DIGEST_MAX];
	size_t digest_length = 0;
	size_t length;
	const char *algorithm = check_algorithm(L);
	const char *bytes = luaL_checklstring(L, 2, &length);
	enum smtp_status status = smtp_digest_hash(algorithm, bytes, length, digest, &digest_length);
	return push_digest(L, status, digest, digest_length);
}

/* tls.hmac(algorithm, key, bytes) -> digest | nil, text */
static int hmac(lua_State *L)
{
	unsigned char digest[SMTP_DIGEST_MAX];
	size_t digest_length = 0;
	size_t key_length;
	size_t length;
	const char *algorithm = check_algorithm(L);
	const char *key = luaL_checklstring(L, 2, &key_length);
	const char *bytes = luaL_checklstring(L, 3, &length);
	enum smtp_status status = smtp_digest_hmac(algorithm, key, key_length, bytes, length, digest, &digest_length);
	return push_digest(L, status, digest, digest_length);
}

/* tls.pbkdf2(algorithm, password, salt, iterations) -> derivation | nil, text */
static int pbkdf2(lua_State *L)
{
	size_t password_length;
	size_t salt_length;
	const char *algorithm = check_algorithm(L);
	const char *password = luaL_checklstring(L, 2, &password_length);
	const char *salt = luaL_checklstring(L, 3, &salt_length);
	int iterations = smtp_check_number(L, 4, 1);
	struct smtp_derivation *derivation = smtp_new(L, sizeof *derivation, DERIVATION);
	enum smtp_status status =
		smtp_derivation_init(derivation, algorithm, password, password_length, salt, salt_length, (unsigned)iterations);
	if (status == SMTP_E_INPUT)
		return smtp_fail(L, no_algorithm);
	if (status < 0)
		return luaL_error(L, "%s", smtp_status_text(status));
	return 1;
}

/* derivation:step(count) -> key as long as the digest | false: more iterations are to be done */
static int derivation_step(lua_State *L)
{
	int count = smtp_check_number(L, 2, 1);
	struct smtp_derivation *derivation = luaL_checkudata(L, 1, DERIVATION);
	luaL_argcheck(L, derivation->work, 1, "the derivation is closed");
	enum smtp_status status = smtp_derivation_step(derivation, (unsigned)count);
	if (status < 0)
		return luaL_error(L, "%s", smtp_status_text(status));
	if (derivation->left > 0)
		lua_pushboolean(L, 0);
	else
		lua_pushlstring(L, (const char *)derivation->key, derivation->length);
	return 1;
}

static int derivation_gc(lua_State *L)
{
	smtp_derivation_wipe(luaL_checkudata(L, 1, DERIVATION));
	return 0;
}

/* tls.same(a, b) -> boolean, in a time that tells no more than their lengths */
static int same(lua_State *L)
{
	size_t a_length;
	size_t b_length;
	const char *a = luaL_checklstring(L, 1, &a_length);
	const char *b = luaL_checklstring(L, 2, &b_length);
	lua_pushboolean(L, a_length == b_length && smtp_digest_same(a, b, a_length));
	return 1;
}

/* tls.xor(a, b) -> each byte of one with that of the other; two digests of the same length */
static int mix(lua_State *L)
{
	unsigned char mixed[SMTP_DIGEST_MAX];
	size_t length;
	size_t b_length;
	const char *a = luaL_checklstring(L, 1, &length);
	const char *b = luaL_checklstring(L, 2, &b_length);
	luaL_argcheck(L, length == b_length && length <= sizeof mixed, 2, "not two digests of the same length");
	for (size_t i = 0; i < length; i++)
		mixed[i] = (unsigned char)(a[i] ^ b[i]);
	return push_digest(L, SMTP_OK, mixed, length);
}

/* tls.saslprep(text) -> text as it is to be compared | nil, words ("libidn is not installed" where it is not) */
static int saslprep(lua_State *L)
{
	char prepared[SMTP_SASLPREP_MAX];
	size_t length;
	const char *text = luaL_checklstring(L, 1, &length);
	const char *reason;
	enum smtp_status status = smtp_saslprep(prepared, text, length, &reason);
	if (status != SMTP_OK)
		return smtp_fail(L, status == SMTP_E_MISSING ? "libidn is not installed" : reason);
	lua_pushstring(L, prepared);
	smtp_wipe(prepared, sizeof prepared);
	return 1;
}

/* tls.hasher(algorithm) -> hasher | nil, text */
static int hasher_new(lua_State *L)
{
	const char *algorithm = check_algorithm(L);
	struct smtp_hasher *hasher = smtp_new(L, sizeof *hasher, HASHER);
	enum smtp_status status = smtp_hasher_init(hasher, algorithm);
	if (status == SMTP_E_INPUT)
		return smtp_fail(L, no_algorithm);
	if (status < 0)
		return luaL_error(L, "%s", smtp_status_text(status));
	return 1;
}

static struct smtp_hasher *check_hasher(lua_State *L)
{
	struct smtp_hasher *hasher = luaL_checkudata(L, 1, HASHER);
	luaL_argcheck(L, hasher->ctx, 1, "the hasher is closed");
	return hasher;
}

static int hasher_update(lua_State *L)
{
	size_t length;
	const char *bytes = luaL_checklstring(L, 2, &length);
	enum smtp_status status = smtp_hasher_update(check_hasher(L), bytes, length);
	if (status < 0)
		return luaL_error(L, "%s", smtp_status_text(status));
	return 0;
}

static int hasher_finish(lua_State *L)
{
	unsigned char digest[SMTP_DIGEST_MAX];
	size_t length;
	enum smtp_status status = smtp_hasher_finish(check_hasher(L), digest, &length);
	if (status < 0)
		return luaL_error(L, "%s", smtp_status_text(status));
	return push_digest(L, status, digest, length);
}

static int hasher_gc(lua_State *L)
{
	smtp_hasher_wipe(luaL_checkudata(L, 1, HASHER));
	return 0;
}

/* tls.signer(pem) -> signer | nil, text */
static int signer_new(lua_State *L)
{
	size_t length;
	const char *pem = luaL_checklstring(L, 1, &length);
	struct smtp_signer *signer = smtp_new(L, sizeof *signer, SIGNER);
	const char *why = smtp_signer_init(signer, pem, length);
	if (why) {
		smtp_signer_wipe(signer);
		return smtp_fail(L, why);
	}
	return 1;
}

static struct smtp_signer *check_signer(lua_State *L)
{
	struct smtp_signer *signer = luaL_checkudata(L, 1, SIGNER);
	luaL_argcheck(L, signer->key, 1, "the signer is closed");
	return signer;
}

static int signer_algorithm(lua_State *L)
{
	lua_pushstring(L, check_signer(L)->rsa ? "rsa-sha256" : "ed25519-sha256");
	return 1;
}

static int signer_size(lua_State *L)
{
	lua_pushinteger(L, (lua_Integer)smtp_signer_size(check_signer(L)));
	return 1;
}

/* signer:sign(bytes) -> signature | nil, text */
static int signer_sign(lua_State *L)
{
	unsigned char signature[SMTP_SIGNATURE_MAX];
	size_t length;
	size_t signature_length;
	const char *bytes = luaL_checklstring(L, 2, &length);
	if (smtp_signer_sign(check_signer(L), bytes, length, signature, &signature_length) < 0)
		return smtp_fail(L, "OpenSSL could not sign with the key");
	lua_pushlstring(L, (const char *)signature, signature_length);
	return 1;
}

static int signer_gc(lua_State *L)
{
	smtp_signer_wipe(luaL_checkudata(L, 1, SIGNER));
	return 0;
}

void smtp_open_sign(lua_State *L)
{
	static const luaL_Reg derivation_methods[] = {{"step", derivation_step}, {NULL, NULL}};
	static const luaL_Reg hasher_methods[] = {{"update", hasher_update}, {"finish", hasher_finish}, {NULL, NULL}};
	static const luaL_Reg signer_methods[] = {
		{"algorithm", signer_algorithm}, {"size", signer_size}, {"sign", signer_sign}, {NULL, NULL}};
	static const luaL_Reg functions[] = {
		{"hash", hash},         {"hmac", hmac},         {"pbkdf2", pbkdf2},     {"same", same}, {"xor", mix},
		{"saslprep", saslprep}, {"hasher", hasher_new}, {"signer", signer_new}, {NULL, NULL},
	};
	smtp_class(L, DERIVATION, derivation_methods, NULL, derivation_gc);
	smtp_class(L, HASHER, hasher_methods, NULL, hasher_gc);
	smtp_class(L, SIGNER, signer_methods, NULL, signer_gc);
	smtp_setfuncs(L, functions);
}
