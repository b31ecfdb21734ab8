/* sys: what the operating system knows: time, randomness, the host's name. Never waits. Called by bind/net. */
#ifndef SMTP_SYS_H
#define SMTP_SYS_H

#include "../wire/status.h"

#include <stdbool.h>
#include <stddef.h>

/* Seconds of a clock that never jumps; only differences mean something. */
double smtp_sys_now(void);

/* Fills from the system's CSPRNG; false if it has none to give. */
SMTP_MUST_USE bool smtp_sys_random(void *bytes, size_t length);

/* The host's own name as configured, no look-up made; "" if it has none. Always ends with NUL. */
void smtp_sys_hostname(char *name, size_t size);

#endif
