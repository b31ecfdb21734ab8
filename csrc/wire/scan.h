/* scan: what is in a text: control bytes, bytes beyond ASCII, broken UTF-8, long lines; all in one pass.
 *
 * It never changes what it looks at, and knows nothing of what the text is for. Called by draft, the wire and the binding of the codecs.
 * RFC 3629 (no overlong forms, no surrogates, nothing above U+10FFFF).
 */
#ifndef SMTP_SCAN_H
#define SMTP_SCAN_H

#include <stdbool.h>
#include <stddef.h>

/* Offsets are of the first such byte; SMTP_SCAN_NONE: there is none. */
#define SMTP_SCAN_NONE ((size_t)-1)

struct smtp_scan {
	size_t control; /* below 0x20 or 0x7F, but not TAB, CR or LF */
	size_t blank;   /* TAB */
	size_t end;     /* CR or LF */
	size_t invalid; /* where it stops being UTF-8 */
	size_t longest; /* octets of the longest line, its CR and LF not counted */
	size_t lone;    /* how many CR without LF and LF without CR there are */
	bool eightbit;  /* a byte of 0x80 or above */
};

void smtp_scan(struct smtp_scan *scan, const unsigned char *bytes, size_t length);

/* How many octets of printable ASCII come first. */
size_t smtp_scan_printable(const unsigned char *bytes, size_t length);

/* The same, and copies them to a place that has room for all of `length`. */
size_t smtp_scan_copy(unsigned char *to, const unsigned char *bytes, size_t length);

/* A sieve holds back what may have one of some words in it: bits, by a hash of each word's first octets. */
#define SMTP_SIEVE_SIZE 512
#define SMTP_SIEVE_WORD 4 /* octets: no word is shorter */

/* Adds the word that begins with these octets to a sieve, which is all zero at first. */
void smtp_sieve_add(unsigned char *sieve, const unsigned char *word);

/* Whether one of the words may stand in the text. False is certain. */
bool smtp_sieve_holds(const unsigned char *sieve, const unsigned char *text, size_t length);

#endif
