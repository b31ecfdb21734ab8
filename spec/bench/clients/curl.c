/* libcurl peer: curl WORKLOAD PORT N [RCPTS]; keep keeptls compose cold big bigtls (env RAW=1 on big: send big.eml as is) */
#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static char *msg; static size_t len, pos;
static size_t rd(char *p, size_t s, size_t n, void *u) { (void)u; n *= s; if (n > len - pos) n = len - pos; memcpy(p, msg + pos, n); pos += n; return n; }
static char *slurp(const char *f, size_t *n) { FILE *h = fopen(f, "rb"); fseek(h, 0, SEEK_END); *n = ftell(h); rewind(h); char *p = malloc(*n + 1); if (fread(p, 1, *n, h) != *n) exit(1); p[*n] = 0; fclose(h); return p; }
static size_t frd(char *p, size_t s, size_t n, void *u) { return fread(p, 1, s * n, u); }
static CURL *make(const char *w, const char *url, struct curl_slist *to) {
  CURL *c = curl_easy_init();
  curl_easy_setopt(c, CURLOPT_URL, url);
  curl_easy_setopt(c, CURLOPT_MAIL_FROM, "<a@example.com>");
  curl_easy_setopt(c, CURLOPT_MAIL_RCPT, to);
  curl_easy_setopt(c, CURLOPT_SSL_VERIFYPEER, 0L), curl_easy_setopt(c, CURLOPT_SSL_VERIFYHOST, 0L);
  if (!strcmp(w, "cold")) curl_easy_setopt(c, CURLOPT_USERNAME, "user"), curl_easy_setopt(c, CURLOPT_PASSWORD, "secret"),
    curl_easy_setopt(c, CURLOPT_LOGIN_OPTIONS, "AUTH=PLAIN"), curl_easy_setopt(c, CURLOPT_SASL_IR, 1L);
  return c;
}
static struct curl_slist *headers(void) {
  struct curl_slist *h = curl_slist_append(NULL, "From: Alice Example <a@example.com>");
  h = curl_slist_append(h, "To: Bob Example <b@example.net>"), h = curl_slist_append(h, "Subject: Quarterly report, small test message");
  h = curl_slist_append(h, "Date: Sun, 23 Nov 2025 17:00:00 +0000"), h = curl_slist_append(h, "Message-ID: <0123456789abcdef@example.com>");
  return h;
}
int main(int argc, char **argv) {
  const char *w = argv[1]; int port = atoi(argv[2]), n = atoi(argv[3]), rc = argc > 4 ? atoi(argv[4]) : 1;
  int tls = strstr(w, "tls") || !strcmp(w, "cold");
  char url[64], b[64]; sprintf(url, "%s://127.0.0.1:%d/localhost", tls ? "smtps" : "smtp", port);
  curl_global_init(CURL_GLOBAL_ALL);
  struct curl_slist *to = NULL;
  for (int i = 0; i < rc; i++) sprintf(b, "<b%d@example.net>", i), to = curl_slist_append(to, b);
  int big = !strncmp(w, "big", 3), raw = getenv("RAW") != NULL;
  if (!big) msg = slurp(!strcmp(w, "compose") ? "data/small.txt" : "data/small.eml", &len);
  CURL *c = NULL; struct curl_slist *h = headers();
  for (int i = 0; i < n; i++) {
    if (!c) c = make(w, url, to);
    curl_mime *m = NULL; FILE *f = NULL;
    if (big && raw) {
      f = fopen("data/big.eml", "rb");
      curl_easy_setopt(c, CURLOPT_READFUNCTION, frd), curl_easy_setopt(c, CURLOPT_READDATA, f), curl_easy_setopt(c, CURLOPT_UPLOAD, 1L);
    } else if (big || !strcmp(w, "compose")) {
      m = curl_mime_init(c);
      curl_mimepart *p = curl_mime_addpart(m);
      if (big) { curl_mime_data(p, "See attached.\r\n", CURL_ZERO_TERMINATED); p = curl_mime_addpart(m); curl_mime_filedata(p, "data/att.bin"), curl_mime_encoder(p, "base64"), curl_mime_type(p, "application/octet-stream"); }
      else curl_mime_data(p, msg, len);
      curl_easy_setopt(c, CURLOPT_HTTPHEADER, h), curl_easy_setopt(c, CURLOPT_MIMEPOST, m);
    } else pos = 0, curl_easy_setopt(c, CURLOPT_READFUNCTION, rd), curl_easy_setopt(c, CURLOPT_UPLOAD, 1L), curl_easy_setopt(c, CURLOPT_INFILESIZE_LARGE, (curl_off_t)len);
    if (getenv("UPBUF")) curl_easy_setopt(c, CURLOPT_UPLOAD_BUFFERSIZE, atol(getenv("UPBUF")));
    CURLcode r = curl_easy_perform(c);
    if (r) { fprintf(stderr, "curl: %s\n", curl_easy_strerror(r)); return 1; }
    if (m) curl_mime_free(m);
    if (f) fclose(f);
    if (!strcmp(w, "cold")) curl_easy_cleanup(c), c = NULL;
  }
  if (c) curl_easy_cleanup(c);
  return 0;
}
