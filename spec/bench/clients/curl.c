/* curl WORK PORT N [RCPTS]: libcurl; keep (FORM=raw|compose), cold, big. */
#include <curl/curl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char text[65536];
static size_t length, at;

static size_t on_read(char *to, size_t size, size_t count, void *unused)
{
	(void)unused;
	size_t most = size * count < length - at ? size * count : length - at;
	memcpy(to, text + at, most);
	at += most;
	return most;
}

static const char *file(const char *name)
{
	static char path[4096];
	snprintf(path, sizeof path, "%s/%s", getenv("BENCH"), name);
	return path;
}

static void slurp(const char *name)
{
	FILE *from = fopen(file(name), "rb");
	length = from ? fread(text, 1, sizeof text - 1, from) : 0;
	if (length == 0)
		exit(1);
	fclose(from);
}

static CURL *make(bool cold, int port, struct curl_slist *to)
{
	char url[64];
	CURL *curl = curl_easy_init();
	snprintf(url, sizeof url, "%s://127.0.0.1:%d/localhost", getenv("TLS") ? "smtps" : "smtp", port);
	curl_easy_setopt(curl, CURLOPT_URL, url);
	curl_easy_setopt(curl, CURLOPT_MAIL_FROM, "<ada@example.org>");
	curl_easy_setopt(curl, CURLOPT_MAIL_RCPT, to);
	curl_easy_setopt(curl, CURLOPT_CAINFO, file("pki/ca.pem"));
	if (cold) {
		curl_easy_setopt(curl, CURLOPT_USERNAME, "user");
		curl_easy_setopt(curl, CURLOPT_PASSWORD, "secret");
		curl_easy_setopt(curl, CURLOPT_LOGIN_OPTIONS, "AUTH=PLAIN");
		curl_easy_setopt(curl, CURLOPT_SASL_IR, 1L);
	}
	return curl;
}

static curl_mime *compose(CURL *curl, bool big)
{
	curl_mime *mime = curl_mime_init(curl);
	curl_mimepart *part = curl_mime_addpart(mime);
	curl_mime_data(part, big ? "See attached.\r\n" : text, CURL_ZERO_TERMINATED);
	if (big) {
		part = curl_mime_addpart(mime);
		curl_mime_filedata(part, file("att.bin"));
		curl_mime_encoder(part, "base64");
		curl_mime_type(part, "application/octet-stream");
	}
	return mime;
}

int main(int argc, char **argv)
{
	if (argc < 4 || !getenv("BENCH"))
		return 2;
	int port = atoi(argv[2]), count = atoi(argv[3]), rcpts = argc > 4 ? atoi(argv[4]) : 1;
	bool cold = !strcmp(argv[1], "cold"), big = !strcmp(argv[1], "big");
	const char *form = getenv("FORM");
	bool composes = big || (form && !strcmp(form, "compose"));
	struct curl_slist *to = NULL, *headers = NULL;
	static const char *const fields[] = {"From: Ada <ada@example.org>", "To: Bob <bob@example.net>",
	                                     "Subject: A small message", "Date: Sun, 23 Nov 2025 17:00:00 +0000",
	                                     "Message-ID: <0123456789@example.org>"};
	CURL *curl = NULL;
	curl_global_init(CURL_GLOBAL_ALL);
	for (int i = 0; i < rcpts; i++) {
		char address[64];
		snprintf(address, sizeof address, "<b%d@example.net>", i);
		to = curl_slist_append(to, address);
	}
	for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
		headers = curl_slist_append(headers, fields[i]);
	slurp(composes ? "small.txt" : "small.eml");
	for (int i = 0; i < count; i++) {
		curl_mime *mime = NULL;
		if (!curl)
			curl = make(cold, port, to);
		if (composes) {
			mime = compose(curl, big);
			curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
			curl_easy_setopt(curl, CURLOPT_MIMEPOST, mime);
		} else {
			at = 0;
			curl_easy_setopt(curl, CURLOPT_READFUNCTION, on_read);
			curl_easy_setopt(curl, CURLOPT_UPLOAD, 1L);
			curl_easy_setopt(curl, CURLOPT_INFILESIZE_LARGE, (curl_off_t)length);
		}
		CURLcode result = curl_easy_perform(curl);
		if (result != CURLE_OK) {
			fprintf(stderr, "curl: %s\n", curl_easy_strerror(result));
			return 1;
		}
		curl_mime_free(mime);
		if (cold) {
			curl_easy_cleanup(curl);
			curl = NULL;
		}
	}
	curl_easy_cleanup(curl);
	return 0;
}
