/* Zip archives as torch.save writes them, seen without unpacking: an entry that is stored is a view of the archive's bytes.
 * Read here rather than by a library, because those of Debian 12 do not serve: minizip 1.1 does not see zip64's 64-bit places on
 * a 64-bit system (archives past 4 GB), libzip does not say where a content lies. */
#ifndef SM_ZIP_H
#define SM_ZIP_H

#include "base/base.h"

typedef struct sm_zip_entry {
    const char *name;
    const uint8_t *header, *data;  /* the local header; what follows it: the content, when stored */
    size_t size, packed;           /* of the content, in the archive */
    bool stored;                   /* else deflated */
    uint32_t crc;
} sm_zip_entry;

typedef struct sm_zip sm_zip;

/* The archive's bytes must outlive the result. Refused: encrypted entries, methods other than stored and deflated, names that
 * are empty, absolute, not UTF-8 or have '..' or '\' in them, names twice, entries that overlap or reach out of the file.
 * NULL on failure. */
sm_zip *sm_zip_open_mem(const void *data, size_t size, const char *label, sm_mem *mem, sm_err *e);
void sm_zip_close(sm_zip *z); /* takes NULL */

/* Sorted by name (bytewise). */
size_t sm_zip_count(const sm_zip *z);
const sm_zip_entry *sm_zip_at(const sm_zip *z, size_t i);
const sm_zip_entry *sm_zip_find(const sm_zip *z, const char *name); /* NULL when absent */

/* Fills out, x->size bytes, with the content; the checksum must fit. */
sumi_status sm_zip_inflate(const sm_zip *z, const sm_zip_entry *x, void *out, sm_err *e);

#endif
