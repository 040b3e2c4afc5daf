/* Writing a tensor's values in pieces (see out.h). What is copied goes out in large pieces as it lies; what is converted becomes
 * f32 and then the file's type in batches of pieces that threads share. */
#include "io/out.h"

#include <string.h>

#include "base/pages.h"
#include "cpu/cpu.h"

enum {
    PIECE = 8192,            /* values a thread converts at a time: a multiple of every block */
    BATCH = 32,              /* pieces between two writes: 1 MB of f32 */
    COPY = 4 << 20           /* bytes copied between two reports */
};

sm_out_tensor sm_out_of(const char *name, const sm_tensor *t, sm_dtype as)
{
    sm_out_tensor o = {.name = name, .rank = t->rank, .as = as, .parts = 1, .part = {{.t = *t, .n = 1}}};
    for (int i = 0; i < t->rank && i < SM_MAX_DIMS; i++) {
        o.dims[i] = t->dims[i];
        if (t->dims[i] < 0 || __builtin_mul_overflow(o.part[0].n, t->dims[i], &o.part[0].n))
            o.part[0].n = -1; /* sm_out_check refuses it */
    }
    return o;
}

static int64_t values(const sm_out_tensor *t)
{
    int64_t n = 1;
    for (int i = 0; i < t->rank; i++)
        n *= t->dims[i];
    return n;
}

size_t sm_out_bytes(const sm_out_tensor *t) { return t->parts ? sm_dtype_bytes(t->as, values(t)) : t->raw_bytes; }

static bool shape_ok(const sm_out_tensor *t)
{
    int64_t n = 8, parts = 0;
    bool ok = t->rank >= 0 && t->rank <= SM_ST_MAX_DIMS && t->parts >= 0 && t->parts <= 3 && (unsigned)t->as < SM_DTYPES;
    for (int i = 0; ok && i < t->rank; i++)
        ok = t->dims[i] >= 0 && !__builtin_mul_overflow(n, t->dims[i], &n);
    for (int i = 0; ok && i < t->parts; i++) {
        ok = (unsigned)t->part[i].t.dtype < SM_DTYPES && t->part[i].n >= 0 && t->part[i].n <= n / 8;
        parts += t->part[i].n;
    }
    return ok && (!t->parts || parts == n / 8) && (!t->transpose || (t->parts == 1 && t->rank == 2));
}

static bool copies(const sm_out_tensor *t, int i) { return t->part[i].t.dtype == t->as && !t->part[i].t.scale && !t->transpose; }

sumi_status sm_out_check(const sm_out_tensor *t, const char *path, sm_err *e)
{
    if (!shape_ok(t))
        return sm_fail(e, SUMI_E_ARG, "cannot write %s: tensor %s has a bad type or shape", path, t->name);
    for (int i = 0; i < t->parts; i++) {
        sm_dtype from = t->part[i].t.dtype;
        if (!copies(t, i) && (from == SM_I32) != (t->as == SM_I32))
            return sm_fail(e, SUMI_E_ARG, "cannot write %s: tensor %s cannot be made %s from %s", path, t->name,
                           sm_store_name(t->as), sm_store_name(from));
        int64_t row = t->rank ? t->dims[t->rank - 1] : 1;
        if (row % sm_dtype_block(t->as))
            return sm_fail(e, SUMI_E_ARG, "cannot write %s: tensor %s has rows of %lld values, no whole number of %s blocks",
                           path, t->name, (long long)row, sm_store_name(t->as));
        if (t->part[i].n % sm_dtype_block(t->as) || t->part[i].n % sm_dtype_block(from))
            return sm_fail(e, SUMI_E_ARG, "cannot write %s: a part of tensor %s is no whole number of blocks", path, t->name);
    }
    return SUMI_OK;
}

static sumi_status told(const sm_out *o, size_t bytes, sm_err *e) { return o->wrote ? o->wrote(o->arg, bytes, e) : SUMI_OK; }

/* ---- copying ----------------------------------------------------------------------------------------------------- */

static sumi_status copy(sm_file_writer *w, const sm_out *o, const void *data, size_t n, bool mapped, sm_err *e)
{
    const char *p = data;
    sumi_status st = SUMI_OK;
    for (size_t at = 0; at < n && st == SUMI_OK; at += COPY) {
        size_t k = SM_MIN(n - at, (size_t)COPY);
        st = sm_file_writer_append(w, p + at, k, e);
        if (mapped)
            sm_pages_drop(p + at, k);
        if (st == SUMI_OK)
            st = told(o, k, e);
    }
    return st;
}

/* ---- converting -------------------------------------------------------------------------------------------------- */

/* Values [at, at + n) of part k of t. */
typedef struct batch {
    const sm_out_tensor *t;
    const sm_out_part *part;
    int64_t at, n;
    float *values; /* room for BATCH pieces */
    uint8_t *bytes;
    bool misfit[BATCH];
} batch;

static void convert_piece(void *arg, int task, int tasks)
{
    batch *b = arg;
    const sm_out_tensor *t = b->t;
    int64_t from = (int64_t)task * PIECE, n = SM_MIN(PIECE, b->n - from);
    float *x = b->values + from;
    if (!t->transpose)
        sm_load_values(&b->part->t, b->at + from, n, x);
    for (int64_t i = 0; t->transpose && i < n; i++) {
        int64_t v = b->at + from + i;
        sm_load_values(&b->part->t, v % t->dims[1] * t->dims[0] + v / t->dims[1], 1, &x[i]);
    }
    b->misfit[task] = !sm_store_save(t->as, x, n, b->bytes + sm_dtype_bytes(t->as, from));
}

static sumi_status write_batch(sm_file_writer *w, const sm_out *o, batch *b, const char *path, sm_err *e)
{
    int tasks = (int)((b->n + PIECE - 1) / PIECE);
    sm_pool_run(o->pool, convert_piece, b, tasks);
    for (int i = 0; i < tasks; i++)
        if (b->misfit[i])
            return sm_fail(e, SUMI_E_NUMERIC, "cannot write %s: tensor %s has values that are too large for %s or not finite",
                           path, b->t->name, sm_store_name(b->t->as));
    size_t bytes = sm_dtype_bytes(b->t->as, b->n);
    sumi_status st = sm_file_writer_append(w, b->bytes, bytes, e);
    return st == SUMI_OK ? told(o, bytes, e) : st;
}

static sumi_status convert(sm_file_writer *w, const sm_out *o, const sm_out_tensor *t, const sm_out_part *p, const char *path,
                           sm_mem *mem, sm_err *e)
{
    enum { MOST = BATCH * PIECE };
    size_t room = (size_t)SM_MIN(p->n, (int64_t)MOST);
    batch *b = sm_alloc(mem, SM_MEM_MISC, sizeof *b);
    float *x = sm_alloc(mem, SM_MEM_MISC, room * sizeof *x);
    uint8_t *y = sm_alloc(mem, SM_MEM_MISC, room * 4);
    sumi_status st = b && x && y ? SUMI_OK : sm_fail(e, SUMI_E_MEMORY, "out of memory for writing %s", path);
    for (int64_t at = 0; at < p->n && st == SUMI_OK; at += MOST) {
        *b = (batch){.t = t, .part = p, .at = at, .n = SM_MIN(MOST, p->n - at), .values = x, .bytes = y};
        st = write_batch(w, o, b, path, e);
        if (p->mapped && !t->transpose)
            sm_pages_drop((const char *)p->t.data + sm_dtype_bytes(p->t.dtype, at), sm_dtype_bytes(p->t.dtype, b->n));
    }
    sm_free(b);
    sm_free(x);
    sm_free(y);
    return st;
}

sumi_status sm_out_data(sm_file_writer *w, const sm_out *o, const sm_out_tensor *t, const char *path, sm_mem *mem, sm_err *e)
{
    sumi_status st = t->parts ? SUMI_OK : copy(w, o, t->raw_data, t->raw_bytes, false, e);
    for (int i = 0; i < t->parts && st == SUMI_OK; i++) {
        const sm_out_part *p = &t->part[i];
        st = copies(t, i) ? copy(w, o, p->t.data, sm_dtype_bytes(t->as, p->n), p->mapped, e) : convert(w, o, t, p, path, mem, e);
    }
    return st;
}
