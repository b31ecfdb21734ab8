/* status: what a call in the C core came to.
 *
 * OK and MORE are progress; everything negative is an error. The wire keeps the first error it meets (errors are
 * sticky).
 */
#ifndef SMTP_STATUS_H
#define SMTP_STATUS_H

#if defined(__GNUC__)
#define SMTP_MUST_USE __attribute__((warn_unused_result))
#else
#define SMTP_MUST_USE
#endif

enum smtp_status {
	SMTP_OK = 0,
	SMTP_MORE = 1,        /* nothing yet: feed more bytes */
	SMTP_E_MEMORY = -1,   /* the allocator said no */
	SMTP_E_LIMIT = -2,    /* a buffer's cap, or a line longer than allowed */
	SMTP_E_INPUT = -3,    /* a value that must not be sent: control byte in a command, bad base64 */
	SMTP_E_PROTOCOL = -4, /* the peer broke the protocol */
	SMTP_E_CLOSED = -5,   /* the peer is gone */
	SMTP_E_MISSING = -6,  /* a library that the host may have is not there */
};

/* A phrase for an error, never NULL. */
const char *smtp_status_text(enum smtp_status status);

#endif
