/* Attention whose two products round what they multiply to bfloat16 (bf16.h); maxima, weights and their sums are f32. Everything is
 * computed transposed as in k_attention.c, queries in lanes: of a block of W queries and a tile of keys
 *   scores  S[key][W] = K Q over pairs of d,    weights P = 2^(S - largest so far),    values  O[dv][W] += V P over pairs of keys.
 * Keys and values become pairs once for all queries, in a pass of their own. A row depends on its own scores alone and tiles on
 * nothing, so bits do not depend on blocks, threads or the batch. What is biased, causal or of few keys goes the f32 way.
 *
 * Floor of a block of 8 keys and 48 queries with d = dv = 40: 480 cycles for 960 instructions of two units. Weights take about 12
 * instructions a vector beside them, of which half go to other units. */
#include "cpu/attention.h"
#include "cpu/bf16.h"

/* FEW: keys up to which nothing is gained (64 queries and keys, d 64: 46% of the f32 peak so and 29% rounded). */
enum { WIDE = AT_VECS * SM_VL, MOST = 64, PANEL = AT_ROWS, FEW = 128 };

static sm_kernel plain; /* the f32 row; constant once the tables are filled */

static bool rounds(const sm_node *n)
{
    attn a = attn_sizes(n);
    return !a.causal && !(n->nsrc > 3 && n->src[3]) && a.tk > FEW;
}

/* Keys of a tile: scores, weights, keys and values stay in L1 where heads are narrow; where they are wide, results that are scaled
 * with every tile are the larger part (measured, GFLOP/s with 32 and 128: 8x1024^2 d80 286 and 257, 8x256^2 d160 220 and 259). */
static int64_t tile_of(const attn *a) { return a->d + a->dv <= 192 ? 32 : 128; }

/* Words of a head's keys [key][pairs of d] and values [dv / PANEL][pairs of keys][PANEL], both in whole PANELs. */
static int64_t keys_of(const attn *a) { return at_up(a->tk, PANEL) * bf16_pairs(a->d); }
static int64_t values_of(const attn *a) { return at_up(a->dv, PANEL) * bf16_pairs(a->tk); }
static int64_t packed_of(const attn *a) { return at_up(a->n * a->h * (keys_of(a) + values_of(a)), 16); }

/* ---- the task's own memory ----------------------------------------------------------------------------------------- */

typedef struct scratch {
    float *q;                   /* [d up to 2][WIDE], of the block's queries, scaled */
    uint32_t *pairs;            /* the same rounded, [pairs of d][WIDE] */
    float *s;                   /* [tile][WIDE] */
    uint32_t *p;                /* [tile / 2][WIDE] */
    float *o;                   /* [dv up to PANEL][WIDE] */
    float *max, *sum, *fix;     /* [WIDE] */
} scratch;

/* Floats of it; at NULL: that alone. */
static int64_t lay_out(const attn *a, float *at, scratch *m)
{
    int64_t d = 2 * bf16_pairs(a->d), tile = tile_of(a), used = 0;
    int64_t sizes[] = {d * WIDE, d / 2 * WIDE, tile * WIDE, tile / 2 * WIDE, at_up(a->dv, PANEL) * WIDE, WIDE, WIDE, WIDE};
    float *to[SM_COUNT(sizes)];
    for (size_t i = 0; i < SM_COUNT(sizes); i++) {
        to[i] = at ? at + used : NULL;
        used += sizes[i];
    }
    *m = (scratch){to[0], (uint32_t *)to[1], to[2], (uint32_t *)to[3], to[4], to[5], to[6], to[7]};
    return used;
}

/* ---- pairs --------------------------------------------------------------------------------------------------------- */

static vf some(const float *x, int64_t n) { return n > 0 ? vload_part(x, (int)SM_MIN(n, SM_VL), 0) : vset(0); }

/* Keys [j, j + n) of a head: rows of d values. */
static void pack_keys(const attn *a, const float *k, int64_t j, int64_t n, uint32_t *to)
{
    int64_t pairs = bf16_pairs(a->d);
    for (int64_t r = j; r < j + n; r++)
        for (int64_t c = 0; c < a->d; c += 32) {
            const float *x = k + r * a->h * a->d + c;
            __m512i y = (__m512i)_mm512_cvtne2ps_pbh((__m512)some(x + 16, a->d - c - 16), (__m512)some(x, a->d - c));
            int64_t words = SM_MIN(pairs - c / 2, 16);
            _mm512_mask_storeu_epi32(to + r * pairs + c / 2, (__mmask16)((1u << words) - 1), y);
        }
}

/* Values [j, j + n) of a head, j even, by pairs of keys. */
static void pack_values(const attn *a, const float *v, int64_t j, int64_t n, uint32_t *to)
{
    int64_t apart = bf16_pairs(a->tk) * PANEL, stride = a->h * a->dv;
    for (int64_t r = j; r < j + n; r += 2)
        for (int64_t c = 0; c < a->dv; c += SM_VL) {
            const float *x = v + r * stride + c;
            __m512i y = bf16_paired(some(x, a->dv - c), r + 1 < a->tk ? some(x + stride, a->dv - c) : vset(0));
            uint32_t *at = to + c / PANEL * apart + r / 2 * PANEL;
            _mm256_storeu_si256((__m256i *)at, _mm512_castsi512_si256(y));
            if (c + PANEL < a->dv)
                _mm256_storeu_si256((__m256i *)(at + apart), _mm512_extracti64x4_epi64(y, 1));
        }
}

static int64_t tiles_of(const attn *a) { return (a->tk + tile_of(a) - 1) / tile_of(a); }

/* All keys and values, a tile of a head at a time. */
static void run_pack(const attn *a, uint32_t *work, int task, int tasks)
{
    int64_t from, to, pairs = bf16_pairs(a->d), tile = tile_of(a);
    sm_range(a->n * a->h * tiles_of(a), task, tasks, &from, &to);
    for (int64_t i = from; i < to; i++) {
        int64_t head = i / tiles_of(a), j = i % tiles_of(a) * tile, n = SM_MIN(tile, a->tk - j);
        int64_t first = head / a->h * a->tk * a->h + head % a->h;
        uint32_t *keys = work + head * keys_of(a), *values = work + a->n * a->h * keys_of(a) + head * values_of(a);
        pack_keys(a, a->k + first * a->d, j, n, keys);
        memset(keys + (j + n) * pairs, 0, sizeof *keys * (size_t)((at_up(n, PANEL) - n) * pairs));
        pack_values(a, a->v + first * a->dv, j, n, values);
    }
}

/* ---- products of blocks: PANEL rows by nv vectors of queries ------------------------------------------------------- */

/* acc[i][v] += sum over steps of the pairs a[i ai + step ak] b[step w + v] */
SM_FLAT void product(const int nv, __m512 (*acc)[AT_VECS], const uint32_t *a, const int64_t ai, const int64_t ak, const uint32_t *b,
                     int64_t steps)
{
    for (; steps; steps--, a += ak, b += nv * SM_VL) {
        vf q[AT_VECS];
        SM_UNROLL(8) for (int v = 0; v < nv; v++)
            q[v] = at_keep(vload((const float *)b + v * SM_VL));
        SM_UNROLL(8) for (int i = 0; i < PANEL; i++) {
            vf x = at_keep((vf)_mm512_set1_epi32((int)a[i * ai]));
            SM_UNROLL(8) for (int v = 0; v < nv; v++)
                acc[i][v] = _mm512_dpbf16_ps(acc[i][v], (__m512bh)x, (__m512bh)q[v]);
        }
    }
}

SM_FLAT void scores(const int nv, const attn *a, const uint32_t *k, int64_t keys, const scratch *m)
{
    int64_t pairs = bf16_pairs(a->d);
    float *s = m->s;
    for (int64_t j = 0; j < keys; j += PANEL, k += PANEL * pairs, s += PANEL * nv * SM_VL) {
        __m512 acc[PANEL][AT_VECS];
        SM_UNROLL(8) for (int i = 0; i < PANEL; i++)
            SM_UNROLL(8) for (int v = 0; v < nv; v++)
                acc[i][v] = _mm512_setzero_ps();
        product(nv, acc, k, pairs, 1, m->pairs, pairs);
        SM_UNROLL(8) for (int i = 0; i < PANEL; i++)
            SM_UNROLL(8) for (int v = 0; v < nv; v++)
                _mm512_storeu_ps(s + (i * nv + v) * SM_VL, acc[i][v]);
    }
}

/* O = fix O + V P, V P with the first tile. */
SM_FLAT void values(const int nv, const attn *a, const uint32_t *x, int64_t keys, bool first, const scratch *m)
{
    const int64_t apart = bf16_pairs(a->tk) * PANEL;
    float *o = m->o;
    for (int64_t c = 0; c < a->dv; c += PANEL, x += apart, o += PANEL * nv * SM_VL) {
        __m512 acc[PANEL][AT_VECS];
        SM_UNROLL(8) for (int i = 0; i < PANEL; i++)
            SM_UNROLL(8) for (int v = 0; v < nv; v++)
                acc[i][v] = _mm512_setzero_ps();
        if (!first)
            SM_UNROLL(8) for (int i = 0; i < PANEL; i++)
                SM_UNROLL(8) for (int v = 0; v < nv; v++)
                    acc[i][v] = (__m512)(vload(o + (i * nv + v) * SM_VL) * vload(m->fix + v * SM_VL));
        product(nv, acc, x, 1, PANEL, m->p, bf16_pairs(keys));
        SM_UNROLL(8) for (int i = 0; i < PANEL; i++)
            SM_UNROLL(8) for (int v = 0; v < nv; v++)
                _mm512_storeu_ps(o + (i * nv + v) * SM_VL, acc[i][v]);
    }
}

/* ---- weights ------------------------------------------------------------------------------------------------------- */

/* Of vector v of the block: the largest score so far, by how much what there is shrinks, and P of this tile with its sum. */
SM_FLAT void weigh(const int nv, int64_t keys, bool first, const scratch *m)
{
    const int64_t w = nv * SM_VL;
    vf max[AT_VECS], sum[AT_VECS];
    SM_UNROLL(8) for (int v = 0; v < nv; v++)
        max[v] = first ? vload(m->s + v * SM_VL) : vload(m->max + v * SM_VL);
    for (int64_t j = 0; j < keys; j++)
        SM_UNROLL(8) for (int v = 0; v < nv; v++)
            max[v] = vmax(vload(m->s + j * w + v * SM_VL), max[v]);
    SM_UNROLL(8) for (int v = 0; v < nv; v++) {
        vf fix = first ? vset(0) : at_exp2(vload(m->max + v * SM_VL) - max[v]);
        sum[v] = first ? vset(0) : vload(m->sum + v * SM_VL) * fix;
        vstore(m->fix + v * SM_VL, fix);
        vstore(m->max + v * SM_VL, max[v]);
    }
    for (int64_t j = 0; j < keys; j += 2)
        SM_UNROLL(8) for (int v = 0; v < nv; v++) {
            const float *s = m->s + j * w + v * SM_VL;
            vf even = at_exp2(vload(s) - max[v]), odd = j + 1 < keys ? at_exp2(vload(s + w) - max[v]) : vset(0);
            sum[v] = sum[v] + even + odd;
            _mm512_storeu_si512(m->p + j / 2 * w + v * SM_VL, bf16_paired(even, odd));
        }
    SM_UNROLL(8) for (int v = 0; v < nv; v++)
        vstore(m->sum + v * SM_VL, sum[v]);
}

#define EACH(NV)                                                                                                  \
    static __attribute__((noinline)) void scores_##NV(const attn *a, const uint32_t *k, int64_t n, const scratch *m) \
    {                                                                                                             \
        scores(NV, a, k, n, m);                                                                                   \
    }                                                                                                             \
    static __attribute__((noinline)) void weigh_##NV(int64_t n, bool first, const scratch *m) { weigh(NV, n, first, m); } \
    static __attribute__((noinline)) void values_##NV(const attn *a, const uint32_t *x, int64_t n, bool first, const scratch *m) \
    {                                                                                                             \
        values(NV, a, x, n, first, m);                                                                            \
    }
EACH(1) EACH(2) EACH(3)

/* ---- a block of queries of a head ---------------------------------------------------------------------------------- */

static void run_block(const attn *a, const float *q, const uint32_t *k, const uint32_t *v, int64_t rows, float *y, const scratch *m)
{
    static void (*const scores_of[])(const attn *, const uint32_t *, int64_t, const scratch *) = {scores_1, scores_2, scores_3};
    static void (*const weigh_of[])(int64_t, bool, const scratch *) = {weigh_1, weigh_2, weigh_3};
    static void (*const add_of[])(const attn *, const uint32_t *, int64_t, bool, const scratch *) = {values_1, values_2, values_3};
    const int64_t nv = (rows + SM_VL - 1) / SM_VL, w = nv * SM_VL, pairs = bf16_pairs(a->d), qs = a->h * a->d, ys = a->h * a->dv;
    for (int64_t l = 0; l < w; l += SM_VL)
        at_pack_lanes(q + l * qs, qs, SM_MIN(rows - l, SM_VL), a->d, a->scale * AT_UNIT, m->q + l, w);
    if (a->d % 2)
        memset(m->q + a->d * w, 0, sizeof(float) * (size_t)w);
    for (int64_t p = 0; p < pairs; p++)
        for (int64_t l = 0; l < w; l += SM_VL)
            _mm512_storeu_si512(m->pairs + p * w + l, bf16_paired(vload(m->q + 2 * p * w + l), vload(m->q + (2 * p + 1) * w + l)));
    for (int64_t j = 0; j < a->tk; j += tile_of(a)) {
        int64_t keys = SM_MIN(tile_of(a), a->tk - j);
        scores_of[nv - 1](a, k + j * pairs, keys, m);
        weigh_of[nv - 1](keys, !j, m);
        add_of[nv - 1](a, v + j / 2 * PANEL, keys, !j, m);
    }
    for (int64_t l = 0; l < w; l += SM_VL)
        at_unpack_lanes(m->o + l, w, 1 / vload(m->sum + l), SM_MIN(rows - l, SM_VL), a->dv, y + l * ys, ys);
}

/* Blocks of a head's queries, of about as many vectors each: one alone would wait for its products. */
static int64_t blocks_of(const attn *a) { return (a->tq + WIDE - 1) / WIDE; }
static int64_t row_of(const attn *a, int64_t block)
{
    return SM_MIN(block * ((a->tq + SM_VL - 1) / SM_VL) / blocks_of(a) * SM_VL, a->tq);
}

static int tasks_of(const sm_node *n, int pass)
{
    attn a = attn_sizes(n);
    if (!rounds(n))
        return plain.tasks(n, pass);
    if (!pass)
        return (int)SM_MIN(a.n * a.h * tiles_of(&a), 16);
    double work = (double)(a.n * a.h * a.tq) * (double)(a.tk * (a.d + a.dv)) / 524288 + 1;
    return (int)SM_MIN(SM_MIN(work, (double)(a.n * a.h * blocks_of(&a))), MOST);
}

static void run(const sm_kcall *c, int task, int tasks)
{
    if (!rounds(c->node)) {
        if (c->pass) /* the f32 way has one */
            plain.run(c, task, tasks);
        return;
    }
    attn a = attn_of(c, 3);
    scratch m;
    int64_t from, to, floats = lay_out(&a, NULL, &m);
    if (!c->pass) {
        run_pack(&a, c->work, task, tasks);
        return;
    }
    const uint32_t *keys = c->work, *values = keys + a.n * a.h * keys_of(&a);
    lay_out(&a, (float *)c->work + packed_of(&a) + task * floats, &m);
    sm_range(a.n * a.h * blocks_of(&a), task, tasks, &from, &to);
    for (int64_t i = from; i < to; i++) {
        int64_t head = i / blocks_of(&a), row = row_of(&a, i % blocks_of(&a)), rows = row_of(&a, i % blocks_of(&a) + 1) - row;
        int64_t first = (head / a.h * a.tq + row) * a.h + head % a.h;
        run_block(&a, a.q + first * a.d, keys + head * keys_of(&a), values + head * values_of(&a), rows,
                  (float *)c->dst.data + first * a.dv, &m);
    }
}

static size_t work_of(const sm_node *n)
{
    if (!rounds(n))
        return plain.work(n);
    attn a = attn_sizes(n);
    scratch m;
    return sizeof(float) * (size_t)(packed_of(&a) + lay_out(&a, NULL, &m) * tasks_of(n, 1));
}

static const char *how(const sm_node *n) { return rounds(n) ? "bf16" : NULL; }

void sm_bf16_attention_rows(sm_kernel *k)
{
    plain = k[SM_OP_ATTENTION];
    k[SM_OP_ATTENTION] = (sm_kernel){.run = run, .passes = 2, .tasks = tasks_of, .work = work_of, .how = how};
}
