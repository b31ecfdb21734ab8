/* qp: text to quoted-printable (RFC 2045 6.7), as a stream.
 *
 * CR, LF and CRLF all are line ends and come out as CRLF, lines have at most 76 characters, and none ends in a blank.
 * It is for text: bytes whose CR and LF must survive as they are want base64. Called by the binding of the codecs.
 */
#ifndef SMTP_QP_H
#define SMTP_QP_H

#include "buf.h"

#include <stdbool.h>

struct smtp_qp {
	size_t column;       /* characters in the line being written */
	unsigned char blank; /* a space or tab held back until it is known what follows; 0 for none */
	bool cr;             /* the last byte was a CR: an LF now belongs to it */
};

void smtp_qp_init(struct smtp_qp *qp);

/* Errors: SMTP_E_MEMORY, SMTP_E_LIMIT; some of the text may be appended then. */
SMTP_MUST_USE enum smtp_status smtp_qp_update(struct smtp_qp *qp, const void *bytes, size_t length,
                                              struct smtp_buf *out);

/* Appends what was held back, adds no line end, and is ready for a new run. Errors: SMTP_E_MEMORY, SMTP_E_LIMIT. */
SMTP_MUST_USE enum smtp_status smtp_qp_finish(struct smtp_qp *qp, struct smtp_buf *out);

#endif
