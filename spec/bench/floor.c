/* floor.c - hand-written minimal SMTP senders: what the physical floor of each workload looks like on this machine.
 *   floor WORKLOAD PORT N [RCPTS]     env: TLS=1, WINDOW=k, B64=avx512|avx2|pairs|scalar
 * WORKLOAD  lockstep  one command per round trip, body in one write: 4 round trips a message
 *           pipe      MAIL+RCPT+DATA | body+dot                      2
 *           pipe2     MAIL+RCPT+DATA of the next with the dot        1
 *           bdat      MAIL+RCPT+BDAT LAST+body, WINDOW (1) messages in flight: 1/WINDOW
 *           cold      connect+TLS+EHLO+AUTH PLAIN+message+QUIT, N times (RESUME=1: TLS session reuse)
 *           big       one 25 MB attachment, read in 57 KB pieces, base64 in lines, N times, BDAT in chunks (DATA=1: DATA)

 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>
#include "b64.h"

static int fd, port, rcpts = 1;
static SSL_CTX *ctx;
static SSL *ssl;
static SSL_SESSION *sess;
static char in[65536];
static size_t in_len;

static void die(const char *what) { fprintf(stderr, "floor: %s\n", what); ERR_print_errors_fp(stderr); exit(1); }
static void put(const char *p, size_t n) {
  while (n) {
    ssize_t r = ssl ? SSL_write(ssl, p, (int)n) : write(fd, p, n);
    if (r <= 0) die("write");
    p += r, n -= (size_t)r;
  }
}
/* waits for n final replies; all must be 2xx or 3xx */
static void expect(int n) {
  while (n) {
    char *nl;
    size_t i = 0;
    while (n && (nl = memchr(in + i, '\n', in_len - i))) {
      if (in[i] != '2' && in[i] != '3') die("reply");
      if (in[i + 3] != '-') n--;
      i = (size_t)(nl + 1 - in);
    }
    memmove(in, in + i, in_len -= i);
    if (!n) return;
    ssize_t r = ssl ? SSL_read(ssl, in + in_len, (int)(sizeof in - in_len)) : read(fd, in + in_len, sizeof in - in_len);
    if (r <= 0) die("read");
    in_len += (size_t)r;
  }
}
static int on_session(SSL *s, SSL_SESSION *n) { (void)s; if (sess) SSL_SESSION_free(sess); sess = n; return 1; }
static void dial(int tls) {
  int one = 1;
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  fd = socket(AF_INET, SOCK_STREAM, 0), in_len = 0, ssl = NULL;
  if (connect(fd, (void *)&a, sizeof a)) die("connect");
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  if (tls) {
    if (!ctx) {
      ctx = SSL_CTX_new(TLS_client_method());
      if (getenv("RESUME")) SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL), SSL_CTX_sess_set_new_cb(ctx, on_session);
      SSL_CTX_set_read_ahead(ctx, 1);
    }
    ssl = SSL_new(ctx);
    if (sess) SSL_set_session(ssl, sess);
    SSL_set_fd(ssl, fd);
    if (SSL_connect(ssl) != 1) die("handshake");
  }
  expect(1);
}
static void bye(void) { if (ssl) SSL_shutdown(ssl), SSL_free(ssl); /* without the shutdown OpenSSL makes the session unusable */ close(fd); ssl = NULL; }
static char *slurp(const char *f, size_t *n) {
  int h = open(f, O_RDONLY); struct stat s;
  if (h < 0 || fstat(h, &s)) die(f);
  char *p = malloc(*n = (size_t)s.st_size);
  if (read(h, p, *n) != s.st_size) die(f);
  close(h);
  return p;
}

int main(int argc, char **argv) {
  const char *w = argv[1], *e;
  port = atoi(argv[2]);
  int n = atoi(argv[3]), tls = getenv("TLS") != NULL, window = (e = getenv("WINDOW")) ? atoi(e) : 1;
  if (argc > 4) rcpts = atoi(argv[4]);
  size_t len, el = 0;
  char *msg = slurp("data/small.eml", &len), env[65536], one[65536 + 2048];
  el += (size_t)sprintf(env + el, "MAIL FROM:<a@example.com>\r\n");
  for (int i = 0; i < rcpts; i++) el += (size_t)sprintf(env + el, "RCPT TO:<b%d@example.net>\r\n", i);
  if (!strcmp(w, "cold")) {
    size_t ol = 0;
    memcpy(one, env, el), ol = el;
    ol += (size_t)sprintf(one + ol, "BDAT %zu LAST\r\n", len);
    memcpy(one + ol, msg, len), ol += len;
    memcpy(one + ol, "QUIT\r\n", 6), ol += 6;
    int gather = getenv("GATHER") != NULL; /* AUTH in one flight with the message */
    for (int i = 0; i < n; i++) {
      dial(1);
      put("EHLO localhost\r\n", 16), expect(1);
      char *auth = "AUTH PLAIN AHVzZXIAc2VjcmV0\r\n";
      if (gather) {
        static char all[70000]; size_t al = strlen(auth);
        memcpy(all, auth, al), memcpy(all + al, one, ol);
        put(all, al + ol), expect(rcpts + 4);
      } else put(auth, strlen(auth)), expect(1), put(one, ol), expect(rcpts + 3);
      bye();
    }
    return 0;
  }
  dial(tls);
  put("EHLO localhost\r\n", 16), expect(1);
  if (!strcmp(w, "lockstep")) {
    memcpy(one, msg, len), memcpy(one + len, ".\r\n", 3);
    for (int i = 0; i < n; i++) {
      put("MAIL FROM:<a@example.com>\r\n", 27), expect(1);
      char *p = env + 27;
      for (int k = 0; k < rcpts; k++) { char *q = strchr(p, '\n') + 1; put(p, (size_t)(q - p)), expect(1), p = q; }
      put("DATA\r\n", 6), expect(1), put(one, len + 3), expect(1);
    }
  } else if (!strcmp(w, "pipe")) {
    memcpy(env + el, "DATA\r\n", 6), el += 6, memcpy(one, msg, len), memcpy(one + len, ".\r\n", 3);
    for (int i = 0; i < n; i++) put(env, el), expect(rcpts + 2), put(one, len + 3), expect(1);
  } else if (!strcmp(w, "pipe2")) {
    memcpy(env + el, "DATA\r\n", 6), el += 6, memcpy(one, msg, len), memcpy(one + len, ".\r\n", 3), memcpy(one + len + 3, env, el);
    put(env, el), expect(rcpts + 2);
    for (int i = 0; i + 1 < n; i++) put(one, len + 3 + el), expect(rcpts + 3);
    put(one, len + 3), expect(1);
  } else if (!strcmp(w, "bdat")) {
    /* with WINDOW=k, k messages go out in one write and then k replies are awaited: half a window overlaps */
    char *batch = malloc((size_t)window * (len + el + 32));
    size_t bl = 0;
    for (int k = 0; k < window; k++) {
      memcpy(batch + bl, env, el), bl += el;
      bl += (size_t)sprintf(batch + bl, "BDAT %zu LAST\r\n", len);
      memcpy(batch + bl, msg, len), bl += len;
    }
    for (int i = 0; i < n; i += window) put(batch, bl), expect(window * (rcpts + 2));
  } else if (!strcmp(w, "big")) {
    size_t LINES = (e = getenv("LINES")) ? (size_t)atoi(e) : 840, CHUNK = LINES * 57; /* 840: 47,880 bytes in, 65,520 out: four TLS records */
    unsigned char *raw = malloc(CHUNK + 64);
    char *out = malloc(LINES * 78 + 256);
    int map = getenv("MMAP") != NULL;
    e = getenv("B64");
    void (*enc)(char *, const unsigned char *, size_t) = !e || !strcmp(e, "avx512") ? b64_lines_avx512c : !strcmp(e, "avx2") ? b64_lines_avx2 :
      !strcmp(e, "pairs") ? b64_lines_pairs : b64_lines_scalar;
    b64_pairs_init();
    int dataw = getenv("DATA") != NULL;
    for (int i = 0; i < n; i++) {
      const char *head = "From: a@example.com\r\nTo: b@example.net\r\nSubject: Big\r\nMIME-Version: 1.0\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\n";
      int h = open("data/att.bin", O_RDONLY), replies = 0;
      put(env, el);
      if (dataw) put("DATA\r\n", 6), expect(rcpts + 2), put(head, strlen(head));
      else { char b[1024]; int k = sprintf(b, "BDAT %zu\r\n%s", strlen(head), head); put(b, (size_t)k), replies = rcpts + 2; }
      ssize_t r;
      size_t off = 0, total = (size_t)lseek(h, 0, SEEK_END); lseek(h, 0, SEEK_SET);
      unsigned char *m = map ? mmap(NULL, total, PROT_READ, MAP_PRIVATE | (getenv("POPULATE") ? MAP_POPULATE : 0), h, 0) : NULL;
      while ((r = map ? (ssize_t)(total - off < CHUNK ? total - off : CHUNK) : read(h, raw, CHUNK)) > 0) {
        if (map) raw = m + off, off += (size_t)r;
        size_t lines = (size_t)r / 57, rest = (size_t)r % 57, ol;
        char *o = out + 64;
        enc(o, raw, lines), ol = lines * 78;
        if (rest) { ol += (size_t)EVP_EncodeBlock((unsigned char *)o + ol, raw + lines * 57, (int)rest); o[ol++] = '\r', o[ol++] = '\n'; }
        if (!dataw) { char b[32]; int k = sprintf(b, "BDAT %zu\r\n", ol); memcpy(o -= k, b, (size_t)k), ol += (size_t)k, replies++; }
        put(o, ol);
        if (!dataw && replies > 8) expect(1), replies--; /* keep a window of chunks in flight */
      }
      close(h);
      if (map) munmap(m, total);
      if (dataw) put(".\r\n", 3), expect(1);
      else put("BDAT 0 LAST\r\n", 13), expect(replies + 1);
    }
  } else die("which workload?");
  put("QUIT\r\n", 6), expect(1);
  bye();
  return 0;
}
