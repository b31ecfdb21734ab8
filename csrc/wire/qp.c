/* qp: see qp.h. A blank is held back for one byte, since it must be encoded if a line end follows. */
#include "qp.h"

#include "text.h"

enum {
	WIDTH = 75,  /* a line's characters without the '=' of a soft break */
	SLICE = 512, /* bytes encoded per reservation, so that room for the worst case is little */
	WORST = 6,   /* the most characters a byte can become: a soft break and =XX */
};

static unsigned char *soft_break(struct smtp_qp *qp, unsigned char *spot, size_t width)
{
	if (qp->column + width > WIDTH) {
		*spot++ = '=';
		*spot++ = '\r';
		*spot++ = '\n';
		qp->column = 0;
	}
	qp->column += width;
	return spot;
}

static unsigned char *put_plain(struct smtp_qp *qp, unsigned char *spot, unsigned char byte)
{
	spot = soft_break(qp, spot, 1);
	*spot++ = byte;
	return spot;
}

static unsigned char *put_encoded(struct smtp_qp *qp, unsigned char *spot, unsigned char byte)
{
	spot = soft_break(qp, spot, 3);
	*spot++ = '=';
	return smtp_text_hex(spot, byte, true);
}

static unsigned char *put_line_end(struct smtp_qp *qp, unsigned char *spot)
{
	if (qp->blank)
		spot = put_encoded(qp, spot, qp->blank);
	qp->blank = 0;
	qp->column = 0;
	*spot++ = '\r';
	*spot++ = '\n';
	return spot;
}

static unsigned char *put(struct smtp_qp *qp, unsigned char *spot, unsigned char byte)
{
	bool after_cr = qp->cr;
	qp->cr = byte == '\r';
	if (byte == '\n' && after_cr)
		return spot;
	if (byte == '\r' || byte == '\n')
		return put_line_end(qp, spot);

	if (qp->blank)
		spot = put_plain(qp, spot, qp->blank);
	qp->blank = 0;
	if (byte == ' ' || byte == '\t') {
		qp->blank = byte;
		return spot;
	}
	if (byte > ' ' && byte <= '~' && byte != '=')
		return put_plain(qp, spot, byte);
	return put_encoded(qp, spot, byte);
}

void smtp_qp_init(struct smtp_qp *qp)
{
	*qp = (struct smtp_qp){0};
}

enum smtp_status smtp_qp_update(struct smtp_qp *qp, const void *bytes, size_t length, struct smtp_buf *out)
{
	const unsigned char *in = bytes;
	while (length > 0) {
		size_t slice = length < SLICE ? length : SLICE;
		unsigned char *start;
		/* One byte more than the slice: a blank may be held back from the one before. */
		enum smtp_status status = smtp_buf_reserve(out, (slice + 1) * WORST, &start);
		if (status != SMTP_OK)
			return status;
		unsigned char *spot = start;
		for (size_t i = 0; i < slice; i++)
			spot = put(qp, spot, in[i]);
		smtp_buf_commit(out, (size_t)(spot - start));
		in += slice;
		length -= slice;
	}
	return SMTP_OK;
}

enum smtp_status smtp_qp_finish(struct smtp_qp *qp, struct smtp_buf *out)
{
	unsigned char *spot;
	if (qp->blank) {
		enum smtp_status status = smtp_buf_reserve(out, WORST, &spot);
		if (status != SMTP_OK)
			return status;
		smtp_buf_commit(out, (size_t)(put_encoded(qp, spot, qp->blank) - spot));
	}
	smtp_qp_init(qp);
	return SMTP_OK;
}
