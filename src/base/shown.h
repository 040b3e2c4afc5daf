/* Texts from files and servers, made fit for a terminal, a log of lines or JSON. */
#ifndef SM_SHOWN_H
#define SM_SHOWN_H

#include <stddef.h>

/* Writes s to out, which has size bytes (at least 8) and is NUL-terminated valid UTF-8 afterwards: control characters (C0, DEL,
 * C1, the marks that turn a line's direction) and bytes that are no UTF-8 become \xNN, byte by byte; what does not fit in is
 * left out, "..." at the end says so. Returns out. */
char *sm_shown(const char *s, char *out, size_t size);

#endif
