/* Pages of mapped files (see file.h) that need not stay in memory. */
#ifndef SM_PAGES_H
#define SM_PAGES_H

#include <stddef.h>

/* Gives the pages back to the system's cache, those included that hold only a part of the n bytes; they are read again on the
 * next use. Only for memory inside of an sm_map: anonymous memory would be lost. */
void sm_pages_drop(const void *p, size_t n);

#endif
