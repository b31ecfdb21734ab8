/* floor WORK PORT N [RCPTS]: the least that a sender can do: ready bytes out, replies counted, nothing else. What it
 * takes is the floor that others are held against. Reads BENCH/small.eml, BENCH/att.bin and BENCH/pki/ca.pem.
 *
 *   keep  one connection, MAIL + RCPT + BDAT LAST and the content in one write; WINDOW messages before their replies
 *   cold  connect, EHLO, AUTH, the message and QUIT in one write, N times; RESUME=1: of TLS sessions
 *   big   BENCH/att.bin, encoded as it goes, N times, by DATA; BLOCK octets read at a time
 *
 * TLS=1: TLS from the first byte.
 */
#include "b64.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LONGEST = 65536 };

static int fd, port;
static SSL_CTX *context;
static SSL *ssl;
static SSL_SESSION *session;
static char in[LONGEST];
static size_t held;

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "floor: %s\n", what);
	ERR_print_errors_fp(stderr);
	exit(1);
}

static size_t number(const char *name, size_t otherwise)
{
	const char *value = getenv(name);
	return value ? strtoul(value, NULL, 10) : otherwise;
}

static const char *file(const char *name)
{
	static char path[4096];
	snprintf(path, sizeof path, "%s/%s", getenv("BENCH"), name);
	return path;
}

static void put(const char *bytes, size_t length)
{
	while (length > 0) {
		ssize_t sent = ssl ? SSL_write(ssl, bytes, (int)length) : write(fd, bytes, length);
		if (sent <= 0)
			die("write");
		bytes += sent;
		length -= (size_t)sent;
	}
}

/* Waits for so many replies; all must be 2xx or 3xx. */
static void expect(size_t replies)
{
	while (replies > 0) {
		size_t at = 0;
		char *end;
		while (replies > 0 && (end = memchr(in + at, '\n', held - at)) != NULL) {
			if (in[at] != '2' && in[at] != '3')
				die("reply");
			if (in[at + 3] != '-')
				replies--;
			at = (size_t)(end + 1 - in);
		}
		held -= at;
		memmove(in, in + at, held);
		if (replies == 0)
			return;
		ssize_t got = ssl ? SSL_read(ssl, in + held, (int)(LONGEST - held)) : read(fd, in + held, LONGEST - held);
		if (got <= 0)
			die("read");
		held += (size_t)got;
	}
}

static int on_session(SSL *of, SSL_SESSION *fresh)
{
	(void)of;
	SSL_SESSION_free(session);
	session = fresh;
	return 1;
}

static void make_context(void)
{
	context = SSL_CTX_new(TLS_client_method());
	if (SSL_CTX_load_verify_locations(context, file("pki/ca.pem"), NULL) != 1)
		die("ca.pem");
	SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
	SSL_CTX_set_read_ahead(context, 1);
	if (getenv("RESUME")) {
		SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
		SSL_CTX_sess_set_new_cb(context, on_session);
	}
}

static void dial(void)
{
	int one = 1;
	struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	fd = socket(AF_INET, SOCK_STREAM, 0);
	held = 0;
	if (connect(fd, (struct sockaddr *)&server, sizeof server))
		die("connect");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	if (getenv("TLS")) {
		if (!context)
			make_context();
		ssl = SSL_new(context);
		X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), "127.0.0.1");
		if (session)
			SSL_set_session(ssl, session);
		SSL_set_fd(ssl, fd);
		if (SSL_connect(ssl) != 1)
			die("handshake");
	}
	expect(1);
	put("EHLO localhost\r\n", 16);
	expect(1);
}

static void hang_up(void)
{
	if (ssl)
		SSL_shutdown(ssl); /* else OpenSSL makes the session unusable */
	SSL_free(ssl);
	ssl = NULL;
	close(fd);
}

static char *slurp(const char *name, size_t *length)
{
	struct stat status;
	int from = open(file(name), O_RDONLY);
	if (from < 0 || fstat(from, &status))
		die(name);
	*length = (size_t)status.st_size;
	char *bytes = malloc(*length);
	if (!bytes || read(from, bytes, *length) != status.st_size)
		die(name);
	close(from);
	return bytes;
}

/* MAIL and as many RCPTs. */
static size_t envelope(char *to, size_t rcpts)
{
	size_t length = (size_t)sprintf(to, "MAIL FROM:<ada@example.org>\r\n");
	for (size_t i = 0; i < rcpts; i++)
		length += (size_t)sprintf(to + length, "RCPT TO:<b%zu@example.net>\r\n", i);
	return length;
}

/* The envelope and the small message, by BDAT. */
static size_t whole(char *to, size_t rcpts)
{
	size_t content, length = envelope(to, rcpts);
	char *message = slurp("small.eml", &content);
	length += (size_t)sprintf(to + length, "BDAT %zu LAST\r\n", content);
	memcpy(to + length, message, content);
	free(message);
	return length + content;
}

static void keep(size_t count, size_t rcpts)
{
	static char one[LONGEST];
	size_t length = whole(one, rcpts), window = number("WINDOW", 1);
	char *flight = malloc(length * window);
	if (!flight)
		die("memory");
	for (size_t i = 0; i < window; i++)
		memcpy(flight + i * length, one, length);
	dial();
	for (size_t i = 0; i < count; i += window) {
		put(flight, length * window);
		expect(window * (rcpts + 2));
	}
	put("QUIT\r\n", 6);
	expect(1);
	hang_up();
}

static void cold(size_t count, size_t rcpts)
{
	static char one[LONGEST];
	size_t length = whole(one, rcpts);
	memcpy(one + length, "QUIT\r\n", 6);
	for (size_t i = 0; i < count; i++) {
		dial();
		put("AUTH PLAIN AHVzZXIAc2VjcmV0\r\n", 29);
		expect(1);
		put(one, length + 6);
		expect(rcpts + 3);
		hang_up();
	}
}

static void big(size_t count, size_t rcpts)
{
	static const char header[] = "From: ada@example.org\r\nTo: bob@example.net\r\nSubject: Big\r\nMIME-Version: 1.0\r\n"
								 "Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\n";
	size_t block = number("BLOCK", 3360 * 57) / 57 * 57;
	unsigned char *raw = malloc(block + 64);
	char *encoded = malloc(block / 57 * 78 + 256), commands[1024];
	size_t length = envelope(commands, rcpts);
	length += (size_t)sprintf(commands + length, "DATA\r\n");
	if (!raw || !encoded)
		die("memory");
	dial();
	for (size_t i = 0; i < count; i++) {
		int from = open(file("att.bin"), O_RDONLY);
		ssize_t got;
		put(commands, length);
		expect(rcpts + 2);
		put(header, sizeof header - 1);
		while ((got = read(from, raw, block)) > 0) {
			size_t lines = (size_t)got / 57, rest = (size_t)got % 57, size = lines * 78;
			b64_lines(encoded, raw, lines);
			if (rest > 0) {
				size += (size_t)EVP_EncodeBlock((unsigned char *)encoded + size, raw + lines * 57, (int)rest);
				size += (size_t)sprintf(encoded + size, "\r\n");
			}
			put(encoded, size);
		}
		close(from);
		put(".\r\n", 3);
		expect(1);
	}
	put("QUIT\r\n", 6);
	expect(1);
	hang_up();
}

int main(int argc, char **argv)
{
	if (argc < 4 || !getenv("BENCH"))
		die("usage: see the head of floor.c");
	port = atoi(argv[2]);
	size_t count = strtoul(argv[3], NULL, 10), rcpts = argc > 4 ? strtoul(argv[4], NULL, 10) : 1;
	b64_pairs_init();
	if (!strcmp(argv[1], "keep"))
		keep(count, rcpts);
	else if (!strcmp(argv[1], "cold"))
		cold(count, rcpts);
	else if (!strcmp(argv[1], "big"))
		big(count, rcpts);
	else
		die("which work?");
	return 0;
}
