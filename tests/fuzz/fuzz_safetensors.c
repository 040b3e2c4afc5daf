/* Fuzz entry of the safetensors reader: bytes of a file. What opens must keep its promises and load into a table of weights;
 * what does not must say why. */
#include <stdlib.h>
#include <string.h>

#include "io/safetensors.h"

static void check(bool ok)
{
    if (!ok)
        abort();
}

static void visit(const sm_st *f, const uint8_t *data, size_t size)
{
    size_t bytes = 0;
    uint8_t sum = 0;
    for (size_t i = 0; i < sm_st_count(f); i++) {
        const sm_st_entry *t = sm_st_at(f, i);
        check(sm_st_find(f, t->name) == t && t->dtype && t->rank >= 0 && t->rank <= SM_ST_MAX_DIMS);
        check(t->data >= data && t->data + t->bytes <= data + size);
        for (size_t k = 0; k < t->bytes; k++)
            sum ^= t->data[k];
        bytes += t->bytes;
    }
    check(bytes < size);
    for (size_t i = 0; i < sm_st_metadata_count(f); i++)
        check(!strcmp(sm_st_metadata(f, sm_st_metadata_at(f, i).key), sm_st_metadata_at(f, i).value));
    volatile uint8_t keep = sum;
    (void)keep;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    sm_mem mem = {0};
    sm_err e = {0};
    sm_st *f = sm_st_open_mem(data, size, "fuzz", &mem, &e);
    check(f ? e.code == SUMI_OK : e.code != SUMI_OK && e.msg[0]);
    if (f) {
        visit(f, data, size);
        sm_weights *w = sm_weights_new(&mem, &e);
        check(w && sm_st_into(f, w, "p.", &mem, &e) == SUMI_OK);
        for (size_t i = 0; i < sm_weights_count(w); i++)
            check((uintptr_t)sm_weights_at(w, i)->t.data % sm_dtype_size(sm_weights_at(w, i)->t.dtype) == 0);
        sm_weights_unref(&w);
    }
    check(mem.total == 0);
    return 0;
}
