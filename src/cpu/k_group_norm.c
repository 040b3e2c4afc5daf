/* Group norm over channels-last pictures. Vectors run over channels: a block of rows gives each channel its mean and sum of
 * squared deviations (two sweeps over a block that stays in cache), the blocks and the channels of a group are joined in
 * double (Chan, Golub, LeVeque 1979), then one sweep applies. The backward sums sum(dy) and sum(dy (x - mean)) come from
 * the same sweep, relative to the block's mean, and are moved to the group's mean when joined. Formulas in ref_norm.c.
 *
 * Small samples are done whole by one task; large ones in three passes (blocks, join, apply) with the same arithmetic. */
#include "cpu/cpu.h"
#include "cpu/activation.h"

#include <math.h>

enum { MEAN, M2, S1, S2, SUMS }; /* per block and channel */
enum { A_MEAN, A_SCALE, A_1, A_2, APPLY }; /* per sample and channel, what the last sweep needs */

/* n samples of s rows of c channels in g groups of d; blocks of `rows` rows. */
typedef struct dims { int64_t n, s, c, g, d, rows, blocks; } dims;

static dims dims_of(const sm_node *node)
{
    const sm_node *x = node->src[0];
    dims m = {.n = x->dims[0], .c = x->dims[x->rank - 1], .g = node->p.norm.groups};
    m.s = sm_numel(x) / m.n / m.c;
    m.d = m.c / m.g;
    m.rows = SM_MAX(SM_MIN(32768 / m.c, 256), 16);
    m.blocks = (m.s + m.rows - 1) / m.rows;
    return m;
}

static bool whole(const dims *m) { return m->s * m->c <= 32768 || (m->n >= 8 && m->s * m->c <= 262144); }

/* Columns [k, k + width) of a block; width = V vectors, or a part of one. */
static inline __attribute__((always_inline)) void block_columns(const float *x, const float *dy, int64_t rows, int64_t c, int V,
                                                                int part, float *out)
{
    vf sum[4], m2[4], s1[4], s2[4], first[4];
    for (int v = 0; v < V; v++)
        sum[v] = m2[v] = s1[v] = s2[v] = vset(0);
#define LOAD(p) (part ? vload_part((p) + v * SM_VL, part, 0) : vload((p) + v * SM_VL))
    for (int v = 0; v < V; v++)
        first[v] = LOAD(x);
    for (int64_t r = 0; r < rows; r++)
        for (int v = 0; v < V; v++)
            sum[v] += LOAD(x + r * c) - first[v];
    for (int v = 0; v < V; v++)
        sum[v] = vfma(sum[v], vset(1 / (float)rows), first[v]);
    for (int64_t r = 0; r < rows; r++)
        for (int v = 0; v < V; v++) {
            vf d = LOAD(x + r * c) - sum[v];
            m2[v] = vfma(d, d, m2[v]);
            if (dy) {
                vf g = LOAD(dy + r * c);
                s1[v] += g;
                s2[v] = vfma(g, d, s2[v]);
            }
        }
#undef LOAD
    for (int v = 0; v < V; v++) {
        int n = part ? part : SM_VL;
        vstore_part(out + MEAN * c + v * SM_VL, sum[v], n);
        vstore_part(out + M2 * c + v * SM_VL, m2[v], n);
        if (dy) {
            vstore_part(out + S1 * c + v * SM_VL, s1[v], n);
            vstore_part(out + S2 * c + v * SM_VL, s2[v], n);
        }
    }
}

/* out [SUMS][C] */
static void block(const float *x, const float *dy, int64_t rows, int64_t c, float *out)
{
    int64_t k = 0;
    if (dy) {
        for (; k + 2 * SM_VL <= c; k += 2 * SM_VL)
            block_columns(x + k, dy + k, rows, c, 2, 0, out + k);
        for (; k < c; k += SM_VL)
            block_columns(x + k, dy + k, rows, c, 1, (int)SM_MIN(c - k, SM_VL), out + k);
        return;
    }
    for (; k + 4 * SM_VL <= c; k += 4 * SM_VL)
        block_columns(x + k, NULL, rows, c, 4, 0, out + k);
    for (; k < c; k += SM_VL)
        block_columns(x + k, NULL, rows, c, 1, (int)SM_MIN(c - k, SM_VL), out + k);
}

/* The op's sources and its work memory: sums [n][blocks][SUMS][C], then apply [n][APPLY][C]. */
typedef struct job {
    dims m;
    sm_op_id op;
    const float *x, *dy;
    const sm_tensor *w, *b;
    float eps, *sums, *apply;
    bool silu;      /* of the result */
} job;

static job job_of(const sm_kcall *c)
{
    job j = {.m = dims_of(c->node), .op = c->node->op, .eps = c->node->p.norm.eps, .x = c->src[0].data, .sums = c->work,
             .silu = c->finish.act == SM_OP_SILU};
    int w = j.op == SM_OP_GROUP_NORM ? 1 : 2;
    if (w == 2)
        j.dy = c->src[1].data;
    j.w = w < c->nsrc && c->src[w].data ? &c->src[w] : NULL;
    j.b = w == 1 && c->nsrc > 2 && c->src[2].data ? &c->src[2] : NULL;
    j.apply = j.sums + j.m.n * j.m.blocks * SUMS * j.m.c;
    return j;
}

static void sum_block(const job *j, int64_t i)
{
    int64_t n = i / j->m.blocks, r = i % j->m.blocks * j->m.rows, at = (n * j->m.s + r) * j->m.c;
    block(j->x + at, j->dy ? j->dy + at : NULL, SM_MIN(j->m.rows, j->m.s - r), j->m.c, j->sums + i * SUMS * j->m.c);
}

/* Mean and 1/sqrt(var + eps) of channels [c0, c0 + d) of sample n. */
static void group_stats(const job *j, int64_t n, int64_t c0, double *mean, double *rstd)
{
    const dims *m = &j->m;
    const float *s = j->sums + n * m->blocks * SUMS * m->c;
    double total = 0, m2 = 0, count = (double)(m->s * m->d);
    for (int64_t b = 0; b < m->blocks; b++) {
        double rows = (double)SM_MIN(m->rows, m->s - b * m->rows), t = 0;
        for (int64_t k = c0; k < c0 + m->d; k++)
            t += s[(b * SUMS + MEAN) * m->c + k];
        total += rows * t;
    }
    total /= count;
    for (int64_t b = 0; b < m->blocks; b++) {
        double rows = (double)SM_MIN(m->rows, m->s - b * m->rows);
        for (int64_t k = c0; k < c0 + m->d; k++) {
            double d = s[(b * SUMS + MEAN) * m->c + k] - total;
            m2 += s[(b * SUMS + M2) * m->c + k] + rows * d * d;
        }
    }
    *mean = total;
    *rstd = 1 / sqrt(m2 / count + j->eps);
}

/* sum dy and sum dy (x - mean) of channel k of sample n. */
static void channel_sums(const job *j, int64_t n, int64_t k, double mean, double *s1, double *s2)
{
    const dims *m = &j->m;
    const float *s = j->sums + n * m->blocks * SUMS * m->c + k;
    *s1 = *s2 = 0;
    for (int64_t b = 0; b < m->blocks; b++, s += SUMS * m->c) {
        *s1 += s[S1 * m->c];
        *s2 += s[S2 * m->c] + (s[MEAN * m->c] - mean) * s[S1 * m->c];
    }
}

static double weight(const sm_tensor *t, int64_t k, double absent) { return t ? sm_load_f32(t, k) : absent; }

/* Fills apply for sample n: y = (x - mean) scale + a1, dx = dy scale - (x - mean) a1 - a2;
 * for dp a1, a2 are the sample's dw, db. */
static void join(const job *j, int64_t n)
{
    const dims *m = &j->m;
    float *out = j->apply + n * APPLY * m->c;
    for (int64_t c0 = 0; c0 < m->c; c0 += m->d) {
        double mean, rstd, g = 0, gx = 0, s1, s2;
        group_stats(j, n, c0, &mean, &rstd);
        for (int64_t k = c0; k < c0 + m->d; k++) {
            double w = weight(j->w, k, 1);
            out[A_MEAN * m->c + k] = (float)mean;
            out[A_SCALE * m->c + k] = (float)(rstd * w);
            out[A_1 * m->c + k] = (float)weight(j->b, k, 0);
            if (!j->dy)
                continue;
            channel_sums(j, n, k, mean, &s1, &s2);
            g += w * s1;
            gx += w * s2;
            out[A_1 * m->c + k] = (float)(s2 * rstd);
            out[A_2 * m->c + k] = (float)s1;
        }
        for (int64_t k = c0; k < c0 + m->d && j->op == SM_OP_GROUP_NORM_DX; k++) {
            out[A_1 * m->c + k] = (float)(gx * rstd * rstd * rstd / (double)(m->s * m->d));
            out[A_2 * m->c + k] = (float)(g * rstd / (double)(m->s * m->d));
        }
    }
}

/* `rows` rows (1 or 4) from x on. */
static inline __attribute__((always_inline)) void apply_rows(const float *x, const float *dy, float *y, const float *a, int64_t c,
                                                             int rows, bool silu)
{
    for (int64_t k = 0; k < c; k += SM_VL) {
        int part = (int)SM_MIN(c - k, SM_VL);
        bool full = part == SM_VL;
#define LOAD(p) (full ? vload(p) : vload_part(p, part, 0))
        vf mean = LOAD(a + A_MEAN * c + k), scale = LOAD(a + A_SCALE * c + k), a1 = LOAD(a + A_1 * c + k), a2 = a1;
        if (dy)
            a2 = LOAD(a + A_2 * c + k);
        for (int r = 0; r < rows; r++) {
            vf d = LOAD(x + r * c + k) - mean;
            vf v = dy ? vfma(LOAD(dy + r * c + k), scale, -vfma(d, a1, a2)) : vfma(d, scale, a1);
            if (silu)
                v = sm_v_silu(v);
            if (full)
                vstore(y + r * c + k, v);
            else
                vstore_part(y + r * c + k, v, part);
        }
#undef LOAD
    }
}

/* Rows [from, to) of all n * s rows. */
static void apply(const job *j, float *y, int64_t from, int64_t to)
{
    const dims *m = &j->m;
    for (int64_t r = from; r < to;) {
        int rows = to - r >= 4 && r / m->s == (r + 3) / m->s ? 4 : 1;
        const float *a = j->apply + r / m->s * APPLY * m->c, *x = j->x + r * m->c, *dy = j->dy ? j->dy + r * m->c : NULL;
        if (j->silu)
            apply_rows(x, NULL, y + r * m->c, a, m->c, rows, true);
        else if (rows == 4 && dy)
            apply_rows(x, dy, y + r * m->c, a, m->c, 4, false);
        else if (rows == 4)
            apply_rows(x, NULL, y + r * m->c, a, m->c, 4, false);
        else
            apply_rows(x, dy, y + r * m->c, a, m->c, 1, false);
        r += rows;
    }
}

/* dw, db of channels [from, to): the samples in order. */
static void sum_samples(const job *j, float *out, int64_t from, int64_t to)
{
    for (int64_t k = from; k < to; k++)
        for (int row = 0; row < 2; row++) {
            double s = 0;
            for (int64_t n = 0; n < j->m.n; n++)
                s += j->apply[(n * APPLY + A_1 + row) * j->m.c + k];
            out[row * j->m.c + k] = (float)s;
        }
}

static void finish(const job *j, const sm_kcall *c, int64_t from, int64_t to)
{
    if (j->op == SM_OP_GROUP_NORM_DP)
        sum_samples(j, c->dst.data, from, to);
    else
        apply(j, c->dst.data, from, to);
}

static void run_sample(const job *j, const sm_kcall *c, int64_t n)
{
    for (int64_t b = 0; b < j->m.blocks; b++)
        sum_block(j, n * j->m.blocks + b);
    join(j, n);
    if (j->op != SM_OP_GROUP_NORM_DP)
        apply(j, c->dst.data, n * j->m.s, (n + 1) * j->m.s);
}

/* What pass `pass` cuts into tasks. */
static int64_t items(const dims *m, sm_op_id op, int pass)
{
    if (pass == 2)
        return op == SM_OP_GROUP_NORM_DP ? m->c : whole(m) ? 0 : m->n * m->s;
    return whole(m) ? (pass ? 0 : m->n) : pass ? m->n : m->n * m->blocks;
}

static void run(const sm_kcall *c, int task, int tasks)
{
    job j = job_of(c);
    int64_t from, to;
    sm_range(items(&j.m, j.op, c->pass), task, tasks, &from, &to);
    if (c->pass == 2) {
        finish(&j, c, from, to);
        return;
    }
    for (int64_t i = from; i < to; i++)
        if (whole(&j.m))
            run_sample(&j, c, i);
        else if (c->pass)
            join(&j, i);
        else
            sum_block(&j, i);
}

static int tasks_of(const sm_node *n, int pass)
{
    dims m = dims_of(n);
    int64_t most = items(&m, n->op, pass), size = m.n * m.s * m.c; /* elements touched */
    if (pass == 1)
        size = m.n * m.c * 4;
    else if (pass == 2 && n->op == SM_OP_GROUP_NORM_DP)
        size = m.n * m.c;
    return (int)SM_MAX(SM_MIN(SM_MIN(most, (size + 16383) / 16384), 64), 1);
}

static size_t work_of(const sm_node *n)
{
    dims m = dims_of(n);
    return sizeof(float) * (size_t)(m.n * m.c * (m.blocks * SUMS + APPLY));
}

static bool fuses(const sm_node *n, const sm_finish *f)
{
    return f->act == SM_OP_SILU && !f->gate && !f->add_rows && !f->doubled;
}

void SM_K(sm_group_norm_kernels)(sm_kernel *k);

void SM_K(sm_group_norm_kernels)(sm_kernel *k)
{
    k[SM_OP_GROUP_NORM_DP] = (sm_kernel){.run = run, .passes = 3, .tasks = tasks_of, .work = work_of};
    k[SM_OP_GROUP_NORM] = k[SM_OP_GROUP_NORM_DX] = k[SM_OP_GROUP_NORM_DP];
    k[SM_OP_GROUP_NORM].fuses = fuses;
    k[SM_OP_GROUP_NORM].inplace = k[SM_OP_GROUP_NORM_DX].inplace = true;
}
