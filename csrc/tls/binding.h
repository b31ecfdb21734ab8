/* binding: what only the two ends of one TLS connection know, or what names the server's certificate: a login that is
 * mixed with it cannot be passed on by somebody in between.
 *
 * tls-exporter (RFC 9266) and tls-server-end-point (RFC 5929 4). tls-unique is not offered: unsafe before TLS 1.3, and not
 * defined for it. Called by the bindings.
 */
#ifndef SMTP_BINDING_H
#define SMTP_BINDING_H

#include "engine.h"

enum { SMTP_BINDING_MAX = 64 }; /* most octets of one */

/* `kind`: "tls-exporter" or "tls-server-end-point". Errors leave words in engine->fault, and the connection as it was:
 * SMTP_E_INPUT (not offered, or not defined for this connection), SMTP_E_PROTOCOL (the handshake is not over),
 * SMTP_E_MEMORY; also what the engine has failed with. */
SMTP_MUST_USE enum smtp_status smtp_binding(struct smtp_engine *engine, const char *kind,
                                            unsigned char binding[SMTP_BINDING_MAX], size_t *length);

#endif
