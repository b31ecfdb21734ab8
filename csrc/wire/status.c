/* status: the words for each result code. Called by the bindings when they report an error. */
#include "status.h"

const char *smtp_status_text(enum smtp_status status)
{
	switch (status) {
	case SMTP_OK:
		return "ok";
	case SMTP_MORE:
		return "more bytes needed";
	case SMTP_E_MEMORY:
		return "out of memory";
	case SMTP_E_LIMIT:
		return "larger than allowed";
	case SMTP_E_INPUT:
		return "not a valid value";
	case SMTP_E_PROTOCOL:
		return "the peer broke the protocol";
	case SMTP_E_CLOSED:
		return "the peer closed the connection";
	case SMTP_E_MISSING:
		return "not installed";
	}
	return "unknown status";
}
