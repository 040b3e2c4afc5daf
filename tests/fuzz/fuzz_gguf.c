/* Fuzz entry of the GGUF reader: bytes of a file. What opens must keep its promises and load into a table of weights; what
 * does not must say why in one line. */
#include <stdlib.h>
#include <string.h>

#include "cpu/cpu.h"
#include "io/gguf.h"

static void check(bool ok)
{
    if (!ok)
        abort();
}

static uint8_t sum; /* of everything the reader points to, so that each byte is read */

static void add(const void *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        sum ^= ((const uint8_t *)p)[i];
}

static void visit_value(const sm_gguf_value *v)
{
    static const uint8_t sizes[SM_GGUF_TYPES] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    if (v->type == SM_GGUF_STRING)
        add(v->s, v->n);
    if (v->type != SM_GGUF_ARRAY)
        return;
    if (sizes[v->of])
        add(v->raw, v->n * sizes[v->of]);
    for (uint64_t i = 0; !sizes[v->of] && i < v->n; i++) {
        check(v->items[i].type == v->of);
        visit_value(&v->items[i]);
    }
}

static void visit(const sm_gguf *f, const uint8_t *data, size_t size)
{
    for (size_t i = 0; i < sm_gguf_count(f); i++) {
        const sm_st_entry *t = sm_gguf_at(f, i);
        check(sm_gguf_find(f, t->name) == t && t->dtype && t->rank >= 0 && t->rank <= SM_GGUF_MAX_DIMS);
        check(t->data >= data && t->data <= data + size && t->bytes <= (size_t)(data + size - t->data));
        add(t->data, t->bytes);
    }
    for (size_t i = 0; i < sm_gguf_metadata_count(f); i++) {
        const sm_gguf_meta *m = sm_gguf_metadata_at(f, i);
        check(sm_gguf_metadata(f, m->key) == &m->value);
        check(m->value.type != SM_GGUF_STRING || strlen(m->value.s) == m->value.n);
        visit_value(&m->value);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    sm_mem mem = {0};
    sm_err e = {0};
    sm_gguf *f = sm_gguf_open_mem(data, size, "fuzz", &mem, &e);
    check(f ? e.code == SUMI_OK : e.code == SUMI_E_FORMAT && e.msg[0] && !strchr(e.msg, '\n'));
    if (f) {
        sm_weights *w = sm_weights_new(&mem, &e);
        visit(f, data, size);
        check(sm_gguf_into(f, w, "p.", &mem, &e) == SUMI_OK);
        for (size_t i = 0; i < sm_weights_count(w); i++) {
            const sm_weight *x = sm_weights_at(w, i);
            size_t each = sm_dtype_size(x->t.dtype), block = (size_t)sm_dtype_block(x->t.dtype);
            float y[SM_MAX_BLOCK];
            check(!each || (uintptr_t)x->t.data % each == 0);
            add(x->t.data, x->bytes);
            sm_load_values(&x->t, 0, (int64_t)block, y);
            add(y, block * sizeof *y);
        }
        sm_weights_unref(&w);
    }
    volatile uint8_t keep = sum;
    (void)keep;
    check(mem.total == 0);
    return 0;
}
