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

enum { STEPS = 192, MAX_TASKS = 64 };

/* Keys of a tile, queries of a unit at most: its queries, outputs and a tile are to stay in 512 KiB of second cache, and the
 * copy of a tile is to serve many. */
static int64_t tile_of(const attn *a) { return SM_MAX(a->d, a->dv) > 256 ? 64 : 128; }
static int64_t most_of(const attn *a) { return a->d + a->dv <= 160 ? 384 : a->d + a->dv <= 320 ? 256 : 192; }

/* ---- some queries, one tile of keys ---- */

typedef struct part {
    int nv;                        /* w / SM_VL */
    int64_t i, rows, j, keys;      /* queries [i, i + rows), keys [j, j + keys) of the head */
    float *q;                      /* [d][w], scaled; lanes from `rows` on are 0 */
    const float *k, *v;            /* [keys up to AT_ROWS][d], panels [dv / AT_ROWS][keys][AT_ROWS] */
    const float *bias;             /* that of query i and key j, or NULL */
    float *s, *bias_t;             /* [keys up to AT_ROWS][w], [keys][w] */
    float *o, *max, *sum;          /* [dv up to AT_ROWS][w], [w], [w] */
} part;

/* Steps [from, to) of d of all scores; with the last, the maxima of keys [0, top). */
AT_FLAT void score_steps(const int nv, const part *p, int64_t d, int64_t from, int64_t to, int64_t top)
{
    const int64_t w = nv * SM_VL, keys = p->keys;
    const float *k = p->k + from, *q = p->q + from * w;
    float *s = p->s;
    vf max[AT_VECS], acc[AT_ROWS][AT_VECS];
    AT_UNROLL for (int v = 0; v < nv; v++)
        max[v] = vload(p->max + v * SM_VL);
    for (int64_t j = 0; j < keys; j += AT_ROWS, k += AT_ROWS * d, s += AT_ROWS * w) {
        if (from)
            at_load(nv, acc, s, w);
        else
            at_zero(nv, acc);
        at_product(nv, acc, k, d, 1, q, w, to - from);
        at_store(nv, acc, s, w);
        if (j + AT_ROWS <= top)
            AT_UNROLL for (int i = 0; i < AT_ROWS; i++)
                AT_UNROLL for (int v = 0; v < nv; v++)
                    max[v] = vmax(acc[i][v], max[v]);
    }
    AT_UNROLL for (int v = 0; v < nv; v++)
        vstore(p->max + v * SM_VL, max[v]);
}

/* O = fix O + V P; of the first tile V P. */
AT_FLAT void values(const int nv, const part *p, int64_t dv, const float *fix)
{
    const int64_t w = nv * SM_VL, keys = p->keys;
    const float *x = p->v, *s = p->s;
    float *o = p->o;
    vf acc[AT_ROWS][AT_VECS];
    for (int64_t c = 0; c < dv; c += AT_ROWS, x += AT_ROWS * keys, o += AT_ROWS * w) {
        if (p->j)
            at_scaled(nv, acc, o, w, fix);
        else
            at_zero(nv, acc);
        at_product(nv, acc, x, 1, AT_ROWS, s, w, keys);
        at_store(nv, acc, o, w);
    }
}

#define BOTH(NV)                                                                                                     \
    static __attribute__((noinline)) void steps_##NV(const part *p, int64_t d, int64_t from, int64_t to, int64_t top) \
    {                                                                                                                \
        score_steps(NV, p, d, from, to, top);                                                                        \
    }                                                                                                                \
    static __attribute__((noinline)) void values_##NV(const part *p, int64_t dv, const float *fix) { values(NV, p, dv, fix); }
BOTH(1) BOTH(2) BOTH(3)
static void (*const steps_of[AT_VECS])(const part *, int64_t, int64_t, int64_t, int64_t) = {steps_1, steps_2, steps_3};
static void (*const values_of[AT_VECS])(const part *, int64_t, const float *) = {values_1, values_2, values_3};

static void add_bias(const attn *a, const part *p)
{
    const int64_t w = p->nv * SM_VL;
    if (a->bias_q) {
        sm_transpose(p->bias, a->bias_q, p->bias_t, w, p->keys, p->rows);
        for (int64_t j = 0; j < p->keys && p->rows < w; j++)
            memset(p->bias_t + j * w + p->rows, 0, sizeof(float) * (size_t)(w - p->rows));
    }
    for (int64_t j = 0; j < p->keys; j++)
        for (int64_t l = 0; l < w; l += SM_VL) {
            float *s = p->s + j * w + l;
            vstore(s, vload(s) + (a->bias_q ? vload(p->bias_t + j * w + l) : vset(p->bias[j])));
        }
}

/* Scores of keys that a query may not look at become -infinity. */
static void hide_future(const attn *a, const part *p)
{
    vi lane;
    for (int l = 0; l < SM_VL; l++)
        lane[l] = l;
    for (int64_t j = 0; j < p->keys; j++) {
        int64_t first = p->j + j - (p->i + a->tk - a->tq); /* the first lane that sees key j */
        for (int v = 0; v < p->nv && first > v * SM_VL; v++) {
            float *s = p->s + (j * p->nv + v) * SM_VL;
            vstore(s, vsel((vi)(lane < viset((int32_t)SM_MIN(first - v * SM_VL, SM_VL))), vset(-INFINITY), vload(s)));
        }
    }
}

static void scores(const attn *a, const part *p)
{
    const int64_t w = p->nv * SM_VL;
    bool future = attn_visible(a, p->i) < p->j + p->keys;
    int64_t top = p->bias || future ? 0 : p->keys / AT_ROWS * AT_ROWS;
    for (int64_t from = 0; from < a->d; from += STEPS)
        steps_of[p->nv - 1](p, a->d, from, SM_MIN(from + STEPS, a->d), from + STEPS < a->d ? 0 : top);
    if (p->bias)
        add_bias(a, p);
    if (future)
        hide_future(a, p);
    for (int64_t l = 0; l < w; l += SM_VL) {
        vf max = vload(p->max + l);
        for (int64_t j = top; j < p->keys; j++)
            max = vmax(vload(p->s + j * w + l), max);
        vstore(p->max + l, max);
    }
}

/* A vector of S becomes weights; returns what earlier tiles' results are to be multiplied with. */
static vf weigh(const part *p, int64_t at, vf old)
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

static void attend(const attn *a, const part *p)
{
    float fix[AT_VECS * SM_VL];
    memcpy(fix, p->max, sizeof(float) * (size_t)(p->nv * SM_VL));
    scores(a, p);
    for (int l = 0; l < p->nv * SM_VL; l += SM_VL)
        vstore(fix + l, weigh(p, l, vload(fix + l)));
    values_of[p->nv - 1](p, a->dv, fix);
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

/* y[c][lane] = k x[lane][c] for c < d and n lanes, zeros in the others; y's rows are w apart. */
static void pack_lanes(const float *x, int64_t stride, int64_t n, int64_t d, float k, float *y, int64_t w)
{
    int64_t c = 0;
    for (; c + 4 <= d; c += 4) {
        vf t[4];
        for (int r = 0; r < 4; r++)
            t[r] = at_gather(x + c + r * stride, stride, n - r);
        at_transpose(t);
        for (int r = 0; r < 4; r++)
            vstore(y + (c + r) * w, t[r] * k);
    }
    for (; c < d; c++)
        for (int64_t l = 0; l < SM_VL; l++)
            y[c * w + l] = l < n ? x[l * stride + c] * k : 0;
}

/* x[lane][c] = y[c][lane] k[lane]: y has whole fours of rows. */
static void unpack_lanes(const float *y, int64_t w, vf k, int64_t n, int64_t d, float *x, int64_t stride)
{
    for (int64_t c = 0; c < d; c += 4) {
        vf t[4];
        for (int r = 0; r < 4; r++)
            t[r] = vload(y + (c + r) * w) * k;
        if (c + 4 > d) {
            for (int64_t r = 0; r < d - c; r++)
                for (int64_t l = 0; l < SM_MIN(n, SM_VL); l++)
                    x[l * stride + c + r] = t[r][l];
            break;
        }
        at_transpose(t);
        for (int r = 0; r < 4; r++)
            at_scatter(t[r], x + c + r * stride, stride, n - r);
    }
}

static void pack_keys(const float *k, int64_t stride, int64_t keys, int64_t d, float *to)
{
    for (int64_t j = 0; j < keys; j++)
        memcpy(to + j * d, k + j * stride, sizeof(float) * (size_t)d);
    memset(to + keys * d, 0, sizeof(float) * (size_t)((at_up(keys, AT_ROWS) - keys) * d));
}

/* Four keys at a time: whole cache lines are written, of few rows. */
static void pack_values(const float *v, int64_t stride, int64_t keys, int64_t dv, float *to)
{
    for (int64_t j0 = 0; j0 < keys; j0 += 4)
        for (int64_t c = 0; c < dv; c += AT_ROWS)
            for (int64_t j = j0; j < SM_MIN(j0 + 4, keys); j++) {
                const float *x = v + j * stride + c;
                float *y = to + c * keys + j * AT_ROWS;
                if (c + AT_ROWS <= dv)
                    memcpy(y, x, sizeof(float) * AT_ROWS);
                else
                    for (int64_t i = 0; i < AT_ROWS; i++)
                        y[i] = c + i < dv ? x[i] : 0;
            }
}

typedef struct unit { int64_t n, h, i, rows; } unit;

static const float *k_of(const attn *a, const unit *u) { return a->k + (u->n * a->tk * a->h + u->h) * a->d; }
static const float *v_of(const attn *a, const unit *u) { return a->v + (u->n * a->tk * a->h + u->h) * a->dv; }

/* Rows [from, to) of width d into the cache: short rows far apart are not seen coming by the processor. Inlined
 * always: gcc drops calls of a function that does nothing else. */
AT_FLAT void fetch(const float *x, int64_t stride, int64_t d, int64_t from, int64_t to)
{
    for (int64_t r = from; r < to; r++)
        for (int64_t c = 0; c < d + 15; c += 16)
            __builtin_prefetch(x + r * stride + SM_MIN(c, d - 1), 0, 3);
}

static void begin(const attn *a, const part *p, const float *q, int64_t stride)
{
    const int64_t w = p->nv * SM_VL;
    for (int64_t l = 0; l < w; l += SM_VL) {
        pack_lanes(q + l * stride, stride, p->rows - l, a->d, a->scale, p->q + l, w);
        vstore(p->max + l, vset(-INFINITY));
        vstore(p->sum + l, vset(0));
    }
}

static void end(const attn *a, const part *p, float *y, int64_t stride)
{
    const int64_t w = p->nv * SM_VL;
    for (int64_t l = 0; l < w; l += SM_VL) {
        vf sum = vload(p->sum + l), inv = vsel((vi)(sum == vset(0)), vset(0), 1 / sum);
        unpack_lanes(p->o + l, w, inv, p->rows - l, a->dv, y + l * stride, stride);
    }
}

/* One tile of keys for all queries of a unit. Each block sees to what is copied after it. */
static void run_tile(const attn *a, const unit *u, int64_t j, bool last, float *out, const scratch *m)
{
    int64_t qs = a->h * a->d, vs = a->h * a->dv, first = (u->n * a->tq + u->i) * a->h + u->h;
    int64_t next = SM_MIN(j + tile_of(a), a->tk), ahead = SM_MIN(tile_of(a), a->tk - next); /* the next tile */
    const float *q = a->q + first * a->d, *k = k_of(a, u), *v = v_of(a, u), *bias = attn_bias(a, u->n, u->h, 0);
    float *y = out + first * a->dv;
    part p = {.j = j, .keys = next - j, .k = m->k, .v = m->v, .s = m->s, .bias_t = m->bias_t};
    pack_keys(k + j * qs, qs, p.keys, a->d, m->k);
    pack_values(v + j * vs, vs, p.keys, a->dv, m->v);
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
            fetch(q, qs, a->d, to, after);
        }
        if (last)
            fetch(y, vs, a->dv, i, to);
        else {
            fetch(k, qs, a->d, next + ahead * i / u->rows, next + ahead * to / u->rows);
            fetch(v, vs, a->dv, next + ahead * i / u->rows, next + ahead * to / u->rows);
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
