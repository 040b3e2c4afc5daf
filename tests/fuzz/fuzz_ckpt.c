/* Fuzz entry of the checkpoint reader: bytes of a file, zip archive or stream. What opens must keep its promises and load into
 * a table of weights; what does not must say why. The same bytes are read as a bare pickle too, so that changes of one need no
 * archive around them. */
#include <stdlib.h>
#include <string.h>

#include "io/ckpt.h"
#include "io/pickle.h"

static void check(bool ok)
{
    if (!ok)
        abort();
}

static void visit(const sm_ckpt *f)
{
    uint8_t sum = 0;
    for (size_t i = 0; i < sm_ckpt_count(f); i++) {
        const sm_st_entry *t = sm_ckpt_at(f, i);
        check(sm_ckpt_find(f, t->name) == t && t->dtype && t->rank >= 0 && t->rank <= SM_ST_MAX_DIMS && t->data);
        size_t n = t->bytes;
        for (int d = 0; d < t->rank && t->computable; d++)
            check(t->dims[d] > 0 && n % (size_t)t->dims[d] == 0), n /= (size_t)t->dims[d];
        check(!t->computable || n == sm_dtype_size(t->type));
        for (size_t k = 0; k < t->bytes; k += 1 + t->bytes / 4096) /* the ends and enough between */
            sum ^= t->data[k];
        sum ^= t->bytes ? t->data[t->bytes - 1] : 0;
    }
    volatile uint8_t keep = sum;
    (void)keep;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    sm_mem mem = {0};
    sm_err e = {0};
    sm_ckpt *f = sm_ckpt_open_mem(data, size, "fuzz", &mem, &e);
    check(f ? e.code == SUMI_OK : e.code != SUMI_OK && e.msg[0]);
    check(!f || sm_ckpt_is(data, size < 512 ? size : 512));
    if (f) {
        visit(f);
        sm_weights *w = sm_weights_new(&mem, &e);
        check(w && sm_ckpt_into(f, w, "p.", &mem, &e) == SUMI_OK);
        for (size_t i = 0; i < sm_weights_count(w); i++)
            check((uintptr_t)sm_weights_at(w, i)->t.data % sm_dtype_size(sm_weights_at(w, i)->t.dtype) == 0);
        sm_weights_unref(&w);
    }
    sm_pickle p;
    size_t used = 0;
    e = (sm_err){0};
    sm_pickle_init(&p, &mem);
    const sm_pk_value *v = sm_pickle_read(&p, data, size, "fuzz", &used, &e);
    check(used <= size && (v ? e.code == SUMI_OK : e.code != SUMI_OK && e.msg[0]));
    sm_pickle_free(&p);
    check(mem.total == 0);
    return 0;
}
