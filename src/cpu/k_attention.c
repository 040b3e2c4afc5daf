/* Attention without the score matrix, forward: online softmax (Milakov and Gimelshein 2018, Dao et al. 2022), blocks of queries
 * against tiles of keys. Everything is computed transposed, queries in the lanes of vectors: the maximum, the sum and the
 * correction of a row are lane by lane, nothing is ever added across a vector, any head size is a number of rows, and keys
 * and values are only broadcast, so a copy of their rows is all the packing they need.
 *
 * One to three vectors of queries, w lanes, and a tile of keys:
 *   scores  S[key][w] = K Q, the largest of each query found on the way, from registers
 *   weights P = exp(S - max) in place, their sum
 *   values  O[dv][w] = exp(old max - max) O + V P
 * Sizes of tiles depend on head sizes alone and every element is one chain of multiply-adds in the order of d or of keys, so
 * a row's bits depend neither on the rest of the batch nor on blocks, threads or the instruction set.
 *
 * Floor, in cycles of two 8-lane multiply-add units: a vector of scores takes (d + dv) / 2 for the two products and 4 for the 8
 * multiply-adds and products of the exponential, so 91% of the peak is the end at d = 40, 95% at 80, 98% at 160. Bytes: queries
 * and results once, keys and values once per unit: (d + dv) / 384 floats a score, 3% of what its flops need at 20 GB/s.
 * The gradient is k_attention_grad.c, softmax and rotary embedding k_softmax.c. */
#include "cpu/attention.h"

enum { MAX_TASKS = 64 };

/* Keys of a tile, queries of a unit at most: its queries, outputs and a tile are to stay in 512 KiB of second cache, and the
 * copy of a tile is to serve many. */
static int64_t tile_of(const attn *a) { return SM_MAX(a->d, a->dv) > 256 ? 64 : 128; }
static int64_t most_of(const attn *a) { return a->d + a->dv <= 160 ? 384 : a->d + a->dv <= 320 ? 256 : 192; }

/* ---- some queries, one tile of keys ---- */

/* A vector of S becomes weights; returns what earlier tiles' results are to be multiplied with. */
static vf weigh(const at_part *p, int64_t at, vf old)
{
    const int64_t w = p->nv * SM_VL;
    float *s = p->s + at, *end = s + p->keys * w;
    vf m = vload(p->max + at), sum = vset(0);
    m = vsel((vi)(m == vset(-INFINITY)), vset(0), m);
    for (; s < end; s += w) {
        vf e = at_exp(vload(s) - m);
        sum += e;
        vstore(s, e);
    }
    vf fix = at_exp(old - m);
    vstore(p->sum + at, vfma(vload(p->sum + at), fix, sum));
    return fix;
}

static void attend(const attn *a, const at_part *p)
{
    float fix[AT_VECS * SM_VL];
    memcpy(fix, p->max, sizeof(float) * (size_t)(p->nv * SM_VL));
    SM_K(sm_attention_scores)(a, p);
    for (int l = 0; l < p->nv * SM_VL; l += SM_VL)
        vstore(fix + l, weigh(p, l, vload(fix + l)));
    SM_K(sm_attention_values)(p, a->dv, p->j ? fix : NULL);
}

/* ---- a unit: some queries of a head, all its keys ---- */

/* A task's memory: q [d][unit], o [dv][unit], max and sum [unit]; k and v of a tile; s and bias_t [tile][AT_VECS vectors].
 * Rows of dv and of keys are rounded up to AT_ROWS. */
typedef struct scratch { float *q, *o, *max, *sum, *k, *v, *s, *bias_t; } scratch;

static int64_t units_of(const attn *a) { return (a->tq + most_of(a) - 1) / most_of(a); }
/* Queries of a unit: about equal parts, whole blocks. */
static int64_t unit_of(const attn *a) { return at_up((a->tq + units_of(a) - 1) / units_of(a), AT_VECS * SM_VL); }

static size_t layout(const attn *a, bool bias, float *at, scratch *m)
{
    int64_t unit = SM_MIN(unit_of(a), at_up(a->tq, SM_VL)), dv = at_up(a->dv, AT_ROWS);
    int64_t keys = at_up(SM_MIN(tile_of(a), a->tk), AT_ROWS), s = keys * AT_VECS * SM_VL;
    int64_t sizes[] = {a->d * unit, dv * unit, unit, unit, keys * a->d, keys * dv, s, bias ? s : 0};
    float **parts[] = {&m->q, &m->o, &m->max, &m->sum, &m->k, &m->v, &m->s, &m->bias_t};
    int64_t sum = 0;
    for (size_t i = 0; i < SM_COUNT(sizes); i++) {
        *parts[i] = at ? at + sum : NULL;
        sum += at_up(sizes[i], 16);
    }
    return (size_t)sum;
}

typedef struct unit { int64_t n, h, i, rows; } unit;

static const float *k_of(const attn *a, const unit *u) { return a->k + (u->n * a->tk * a->h + u->h) * a->d; }
static const float *v_of(const attn *a, const unit *u) { return a->v + (u->n * a->tk * a->h + u->h) * a->dv; }

static void begin(const attn *a, const at_part *p, const float *q, int64_t stride)
{
    const int64_t w = p->nv * SM_VL;
    for (int64_t l = 0; l < w; l += SM_VL) {
        at_pack_lanes(q + l * stride, stride, p->rows - l, a->d, a->scale, p->q + l, w);
        vstore(p->max + l, vset(-INFINITY));
        vstore(p->sum + l, vset(0));
    }
}

static void end(const attn *a, const at_part *p, float *y, int64_t stride)
{
    const int64_t w = p->nv * SM_VL;
    for (int64_t l = 0; l < w; l += SM_VL) {
        vf sum = vload(p->sum + l), inv = vsel((vi)(sum == vset(0)), vset(0), 1 / sum);
        at_unpack_lanes(p->o + l, w, inv, p->rows - l, a->dv, y + l * stride, stride);
    }
}

/* One tile of keys for all queries of a unit. Each block sees to what is copied after it. */
static void run_tile(const attn *a, const unit *u, int64_t j, bool last, float *out, const scratch *m)
{
    int64_t qs = a->h * a->d, vs = a->h * a->dv, first = (u->n * a->tq + u->i) * a->h + u->h;
    int64_t next = SM_MIN(j + tile_of(a), a->tk), ahead = SM_MIN(tile_of(a), a->tk - next); /* the next tile */
    const float *q = a->q + first * a->d, *k = k_of(a, u), *v = v_of(a, u), *bias = attn_bias(a, u->n, u->h, 0);
    float *y = out + first * a->dv;
    at_part p = {.j = j, .keys = next - j, .k = m->k, .v = m->v, .panel = next - j, .s = m->s, .bias_t = m->bias_t};
    at_pack_keys(k + j * qs, qs, p.keys, a->d, m->k);
    at_pack_values(v + j * vs, vs, p.keys, a->dv, m->v);
    for (int64_t i = 0; i < u->rows; i += p.nv * SM_VL) {
        p.nv = at_vecs((u->rows - i + SM_VL - 1) / SM_VL);
        p.i = u->i + i;
        p.rows = SM_MIN(u->rows - i, p.nv * SM_VL);
        p.q = m->q + i * a->d;
        p.bias = bias ? bias + p.i * a->bias_q + j : NULL;
        p.o = m->o + i * at_up(a->dv, AT_ROWS);
        p.max = m->max + i;
        p.sum = m->sum + i;
        int64_t to = i + p.rows, after = SM_MIN(to + p.rows, u->rows);
        if (!j) {
            begin(a, &p, q + i * qs, qs);
            at_fetch(q, qs, a->d, to, after);
        }
        if (last)
            at_fetch(y, vs, a->dv, i, to);
        else {
            at_fetch(k, qs, a->d, next + ahead * i / u->rows, next + ahead * to / u->rows);
            at_fetch(v, vs, a->dv, next + ahead * i / u->rows, next + ahead * to / u->rows);
        }
        if (!j || j < attn_visible(a, p.i + p.rows - 1))
            attend(a, &p);
        if (last)
            end(a, &p, y + i * vs, vs);
    }
}

static void run_attention(const sm_kcall *c, int task, int tasks)
{
    attn a = attn_of(c, 3);
    scratch m;
    size_t floats = layout(&a, a.bias, NULL, &m);
    layout(&a, a.bias, (float *)c->work + floats * (size_t)task, &m);
    int64_t units = units_of(&a), tile = tile_of(&a), from, to;
    sm_range(a.n * a.h * units, task, tasks, &from, &to);
    for (int64_t i = from; i < to; i++) {
        int64_t head = i / units, row = i % units * unit_of(&a);
        unit u = {head / a.h, head % a.h, row, SM_MIN(a.tq - row, unit_of(&a))};
        int64_t last = SM_MAX(attn_visible(&a, row + u.rows - 1), 1);
        for (int64_t j = 0; j < last && u.rows > 0; j += tile)
            run_tile(&a, &u, j, j + tile >= last, c->dst.data, &m);
    }
}

static int tasks_of(const sm_node *n, int pass)
{
    attn a = attn_sizes(n);
    double work = (double)(a.n * a.h * a.tq) * (double)(a.tk * (a.d + a.dv));
    double t = SM_MIN(work / 262144 + 1, (double)(a.n * a.h * units_of(&a)));
    return (int)SM_MIN(t, MAX_TASKS);
}

static size_t work_of(const sm_node *n)
{
    attn a = attn_sizes(n);
    scratch m;
    return sizeof(float) * layout(&a, n->nsrc > 3 && n->src[3], NULL, &m) * (size_t)tasks_of(n, 0);
}

void SM_K(sm_cpu_attention)(sm_kernel *k)
{
    k[SM_OP_ATTENTION] = (sm_kernel){.run = run_attention, .tasks = tasks_of, .work = work_of};
    SM_K(sm_attention_grad_kernels)(k);
    SM_K(sm_softmax_kernels)(k);
}
