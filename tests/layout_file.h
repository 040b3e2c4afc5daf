/* Checkpoints made in memory for tests of layouts: items become a safetensors file, which is read into a table. */
#ifndef SM_TEST_LAYOUT_FILE_H
#define SM_TEST_LAYOUT_FILE_H

#include "model/layout.h"

/* A tensor of a file. */
typedef struct item {
    char name[200];
    const char *type;    /* NULL: F32 */
    int rank;
    int64_t dims[SM_MAX_DIMS];
    uint32_t crc;        /* expected content of a canonical one */
    const void *data;    /* NULL: the formula of tools/fixtures/make_layouts.py, zeros for other types than F32 and I32 */
} item;

item layout_item(const char *name, int rank, int64_t a, int64_t b, int64_t c, int64_t d);
size_t layout_numel(const item *x);
void layout_formula(const char *name, size_t n, float *out);
/* A safetensors file of the items; sm_buf_free. */
sm_buf layout_file(const item *x, size_t n);
/* Reads such a file into *w, which is made when it is NULL; the file must outlive it. */
sumi_status layout_read(const sm_buf *file, sm_component only, sm_weights **w, sm_layout_report *r, sm_err *e);
/* Both at once into a new table, which keeps the file. */
sumi_status layout_read_items(const item *x, size_t n, sm_component only, sm_weights **w, sm_layout_report *r, sm_err *e);

#endif
