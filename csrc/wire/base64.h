/* base64: bytes to base64 and back.
 *
 * Two forms of it: a stream in MIME lines of 76 characters ended by CRLF (RFC 2045 6.8), for content, and one string
 * without lines (RFC 4648 4), for AUTH. It never looks outside the bytes it is given, and never decodes leniently.
 * Called by the binding of the codecs.
 */
#ifndef SMTP_BASE64_H
#define SMTP_BASE64_H

#include "buf.h"

enum smtp_base64_kernel {
	SMTP_BASE64_PORTABLE,
	SMTP_BASE64_AVX2,
};

struct smtp_base64 {
	enum smtp_base64_kernel kernel; /* what encodes whole lines; a spec may set it after init */
	size_t carried;                 /* bytes in carry: always less than a line between calls */
	unsigned char carry[57];        /* the start of a line not yet complete */
};

/* The fastest kernel of this processor. */
enum smtp_base64_kernel smtp_base64_best(void);

void smtp_base64_init(struct smtp_base64 *base64);

/* Appends the lines that are complete. Errors: SMTP_E_MEMORY, SMTP_E_LIMIT; then nothing was taken in. */
SMTP_MUST_USE enum smtp_status smtp_base64_update(struct smtp_base64 *base64, const void *bytes, size_t length,
                                                  struct smtp_buf *out);

/* Appends the last line, its CRLF too, and is ready for a new run. Errors: SMTP_E_MEMORY, SMTP_E_LIMIT. */
SMTP_MUST_USE enum smtp_status smtp_base64_finish(struct smtp_base64 *base64, struct smtp_buf *out);

/* All at once, no line ends. Errors: SMTP_E_MEMORY, SMTP_E_LIMIT. */
SMTP_MUST_USE enum smtp_status smtp_base64_encode(const void *bytes, size_t length, struct smtp_buf *out);

/* Takes only what smtp_base64_encode gives: any other character, missing padding or a bit set in the part of the last
 * character that is thrown away is SMTP_E_INPUT. Errors: also SMTP_E_MEMORY, SMTP_E_LIMIT; nothing is appended then. */
SMTP_MUST_USE enum smtp_status smtp_base64_decode(const void *text, size_t length, struct smtp_buf *out);

#endif
