/* Reductions. Joined dimensions give a shape [A, R, K] with R summed (any other pattern takes the plain path at the end).
 * K = 1: blocks of 4096 along R, sixteen lanes in each. K > 1: blocks of 128 rows, each column adding its rows in order.
 * The blocks of one sum are then added as a tree: the first half takes the second until one is left. */
#include "cpu/cpu.h"
#include "cpu/simd.h"

enum { RUN = 4096, ROWS = 128 };

typedef struct extent {
    int64_t a, r, k, blocks, block;
    bool plain;                 /* not of the form [A, R, K] */
    int n;                      /* plain: joined dimensions, outermost first */
    int64_t dims[SM_MAX_DIMS];
    bool summed[SM_MAX_DIMS];
} extent;

static extent extent_of(const sm_node *n)
{
    const sm_node *x = n->src[0];
    extent e = {.a = 1, .r = 1, .k = 1};
    for (int d = 0; d < x->rank; d++) {
        int k = d - (x->rank - n->rank);
        bool summed = k < 0 || n->dims[k] != x->dims[d];
        if (x->dims[d] == 1)
            continue;
        if (e.n && e.summed[e.n - 1] == summed) {
            e.dims[e.n - 1] *= x->dims[d];
        } else {
            e.dims[e.n] = x->dims[d];
            e.summed[e.n++] = summed;
        }
    }
    int at = 0;
    if (at < e.n && !e.summed[at])
        e.a = e.dims[at++];
    if (at < e.n)
        e.r = e.dims[at++];
    if (at < e.n)
        e.k = e.dims[at++];
    e.plain = at < e.n;
    e.block = e.k > 1 ? ROWS : RUN;
    e.blocks = (e.r + e.block - 1) / e.block;
    return e;
}

static float sum_run(const float *x, int64_t n)
{
    vf acc[SM_LV];
    for (int l = 0; l < SM_LV; l++)
        acc[l] = vset(0);
    int64_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (int l = 0; l < SM_LV; l++)
            acc[l] += vload(x + i + l * SM_VL);
    for (int l = 0; i < n && l < SM_LV; l++)
        acc[l] += vload16(x, i, n, l, 0);
    return sm_fold16(acc);
}

/* out[k] = sum of rows x[0..rows)[k], `width` columns of rows `stride` apart. */
static void sum_rows(const float *x, int64_t rows, int64_t stride, int64_t width, float *out)
{
    int64_t k = 0;
    for (; k + 4 * SM_VL <= width; k += 4 * SM_VL) {
        vf s0 = vset(0), s1 = s0, s2 = s0, s3 = s0;
        for (int64_t r = 0; r < rows; r++) {
            const float *p = x + r * stride + k;
            s0 += vload(p);
            s1 += vload(p + SM_VL);
            s2 += vload(p + 2 * SM_VL);
            s3 += vload(p + 3 * SM_VL);
        }
        vstore(out + k, s0);
        vstore(out + k + SM_VL, s1);
        vstore(out + k + 2 * SM_VL, s2);
        vstore(out + k + 3 * SM_VL, s3);
    }
    for (; k < width; k += SM_VL) {
        int n = (int)SM_MIN(width - k, SM_VL);
        vf s = vset(0);
        for (int64_t r = 0; r < rows; r++)
            s += vload_part(x + r * stride + k, n, 0);
        vstore_part(out + k, s, n);
    }
}

static void pass_blocks(const sm_kcall *c, const extent *e, int task, int tasks)
{
    const float *x = c->src[0].data;
    float *out = e->blocks > 1 ? c->work : c->dst.data;
    int64_t from, to;
    sm_range(e->a * e->blocks, task, tasks, &from, &to);
    for (int64_t i = from; i < to; i++) {
        int64_t a = i / e->blocks, r = i % e->blocks * e->block, n = SM_MIN(e->block, e->r - r);
        const float *p = x + (a * e->r + r) * e->k;
        if (e->k > 1)
            sum_rows(p, n, e->k, e->k, out + i * e->k);
        else
            out[i] = sum_run(p, n);
    }
}

/* Adds the blocks [blocks][k] of columns [k0, k1) as a tree; the sum lands in block 0. */
static void tree(float *v, int64_t blocks, int64_t k, int64_t k0, int64_t k1)
{
    for (int64_t n = blocks; n > 1;) {
        int64_t h = (n + 1) / 2;
        for (int64_t b = h; b < n; b++)
            for (int64_t j = k0; j < k1; j++)
                v[(b - h) * k + j] += v[b * k + j];
        n = h;
    }
}

static void pass_tree(const sm_kcall *c, const extent *e, int task, int tasks)
{
    float *v = c->work, *y = c->dst.data;
    int64_t from, to;
    sm_range(e->a * e->k, task, tasks, &from, &to);
    for (int64_t i = from; i < to;) {
        int64_t a = i / e->k, k0 = i % e->k, k1 = SM_MIN(e->k, k0 + to - i);
        tree(v + a * e->blocks * e->k, e->blocks, e->k, k0, k1);
        memcpy(y + i, v + a * e->blocks * e->k + k0, sizeof *y * (size_t)(k1 - k0));
        i += k1 - k0;
    }
}

/* Any pattern of summed dimensions: sixteen lanes over the summed elements in order, then the fold. */
static void plain(const sm_kcall *c, const extent *e, int task, int tasks)
{
    const float *x = c->src[0].data;
    float *y = c->dst.data;
    int64_t from, to, count = 1, stride[SM_MAX_DIMS];
    for (int d = e->n - 1; d >= 0; d--) {
        stride[d] = d == e->n - 1 ? 1 : stride[d + 1] * e->dims[d + 1];
        if (e->summed[d])
            count *= e->dims[d];
    }
    sm_range(sm_numel(c->node), task, tasks, &from, &to);
    for (int64_t o = from; o < to; o++) {
        float lane[16] = {0};
        int64_t base = 0, rest = o;
        for (int d = e->n - 1; d >= 0; d--)
            if (!e->summed[d]) {
                base += rest % e->dims[d] * stride[d];
                rest /= e->dims[d];
            }
        for (int64_t i = 0; i < count; i++) {
            int64_t at = base, left = i;
            for (int d = e->n - 1; d >= 0; d--)
                if (e->summed[d]) {
                    at += left % e->dims[d] * stride[d];
                    left /= e->dims[d];
                }
            lane[i % 16] += x[at];
        }
        for (int h = 8; h; h >>= 1)
            for (int j = 0; j < h; j++)
                lane[j] += lane[j + h];
        y[o] = lane[0];
    }
}

static void run_sum(const sm_kcall *c, int task, int tasks)
{
    extent e = extent_of(c->node);
    if (e.plain && c->pass == 0)
        plain(c, &e, task, tasks);
    else if (!e.plain && c->pass == 0)
        pass_blocks(c, &e, task, tasks);
    else if (!e.plain && e.blocks > 1)
        pass_tree(c, &e, task, tasks);
}

static int sum_tasks(const sm_node *n, int pass)
{
    extent e = extent_of(n);
    int64_t by_size = sm_numel(n->src[0]) / 16384, items = e.plain ? sm_numel(n) : e.a * e.blocks;
    if (pass) {
        items = e.blocks > 1 && !e.plain ? e.a * e.k : 1;
        by_size = items * e.blocks / 16384;
    }
    return (int)SM_MAX(SM_MIN(SM_MIN(by_size, items), 64), 1);
}

static size_t sum_work(const sm_node *n)
{
    extent e = extent_of(n);
    return e.blocks > 1 && !e.plain ? sizeof(float) * (size_t)(e.a * e.blocks * e.k) : 0;
}

void SM_K(sm_cpu_reduce)(sm_kernel *k)
{
    k[SM_OP_SUM] = k[SM_OP_SUM_TO] = (sm_kernel){.run = run_sum, .passes = 2, .tasks = sum_tasks, .work = sum_work};
}
