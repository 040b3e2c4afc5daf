/* What attention's two passes share: sizes, masks, and one microkernel. Both compute everything transposed, queries in the lanes
 * of vectors: see k_attention.c. */
#ifndef SM_ATTENTION_H
#define SM_ATTENTION_H

#include "cpu/cpu.h"
#include "cpu/vmath.h"

/* A block of the microkernel: rows of outputs by vectors, 12 or 24 accumulators beside 3 operands and a broadcast. */
void SM_K(sm_attention_grad_kernels)(sm_kernel *k); /* k_attention_grad.c */
void SM_K(sm_softmax_kernels)(sm_kernel *k);        /* k_softmax.c */

enum { AT_ROWS = SM_VL == 8 ? 4 : 8, AT_VECS = 3 };
/* 32 registers have room for sums of weights beside the first block of values; 16: as they are made, in the same order. */
enum { AT_SUMS = SM_VL == 16 };



/* q [n, tq, h, d], k [n, tk, h, d], v [n, tk, h, dv]; bias strides are 0 where it broadcasts. */
typedef struct attn {
    int64_t n, h, tq, tk, d, dv;
    const float *q, *k, *v, *bias;
    int64_t bias_n, bias_h, bias_q;
    float scale;
    bool causal;
} attn;

static inline attn attn_sizes(const sm_node *node)
{
    const sm_node *q = node->src[0], *k = node->src[1], *v = node->src[2];
    attn a = {.n = q->dims[0], .h = q->dims[2], .tq = q->dims[1], .tk = k->dims[1], .d = q->dims[3], .dv = v->dims[3]};
    a.scale = node->p.attn.scale != 0 ? node->p.attn.scale : 1 / __builtin_sqrtf((float)a.d);
    a.causal = node->p.attn.causal;
    return a;
}

/* bias is the index of its source. */
static inline attn attn_of(const sm_kcall *c, int bias)
{
    attn a = attn_sizes(c->node);
    a.q = c->src[0].data;
    a.k = c->src[1].data;
    a.v = c->src[2].data;
    if (bias < c->nsrc && c->src[bias].data) {
        const int64_t *d = c->src[bias].dims;
        a.bias = c->src[bias].data;
        a.bias_q = d[2] == 1 ? 0 : a.tk;
        a.bias_h = d[1] == 1 ? 0 : d[2] * a.tk;
        a.bias_n = d[0] == 1 ? 0 : d[1] * d[2] * a.tk;
    }
    return a;
}

/* Keys that query i may look at: the last query sees them all. */
static inline int64_t attn_visible(const attn *a, int64_t i)
{
    int64_t n = a->causal ? i + a->tk - a->tq + 1 : a->tk;
    return SM_MAX(SM_MIN(n, a->tk), 0);
}

/* Bias of query i for key 0, or NULL. */
static inline const float *attn_bias(const attn *a, int64_t n, int64_t h, int64_t i)
{
    return a->bias ? a->bias + n * a->bias_n + h * a->bias_h + i * a->bias_q : NULL;
}

static inline int64_t at_up(int64_t x, int64_t to) { return (x + to - 1) / to * to; }

/* Vectors of the next block where `left` remain: 3, but 2 and 2 rather than 3 and 1, which would wait for its multiply-adds. */
static inline int at_vecs(int64_t left) { return left == 4 ? 2 : (int)SM_MIN(left, AT_VECS); }

/* ---- 4 x 4 transpositions in every group of four lanes ---- */

SM_FLAT void at_transpose(vf x[4])
{
#if SM_VL == 16
#define AT_OP(op, a, b) (vf)_mm512_##op##_ps((__m512)(a), (__m512)(b))
#define AT_OP2(op, a, b) (vf)_mm512_##op##_pd((__m512d)(a), (__m512d)(b))
#elif SM_VL == 8
#define AT_OP(op, a, b) (vf)_mm256_##op##_ps((__m256)(a), (__m256)(b))
#define AT_OP2(op, a, b) (vf)_mm256_##op##_pd((__m256d)(a), (__m256d)(b))
#else
#define unpacklo vzip1q
#define unpackhi vzip2q
#define AT_JOIN(op, type) op##_##type
#define AT_OP(op, a, b) (vf)AT_JOIN(op, f32)((float32x4_t)(a), (float32x4_t)(b))
#define AT_OP2(op, a, b) (vf)AT_JOIN(op, f64)((float64x2_t)(a), (float64x2_t)(b))
#endif
    vf ab = AT_OP(unpacklo, x[0], x[1]), cd = AT_OP(unpacklo, x[2], x[3]);
    vf ba = AT_OP(unpackhi, x[0], x[1]), dc = AT_OP(unpackhi, x[2], x[3]);
    x[0] = AT_OP2(unpacklo, ab, cd);
    x[1] = AT_OP2(unpackhi, ab, cd);
    x[2] = AT_OP2(unpacklo, ba, dc);
    x[3] = AT_OP2(unpackhi, ba, dc);
}

/* Four floats each of rows 0, 4, 8, 12 of x; rows from n on are zeros and not written. */
SM_FLAT vf at_gather(const float *x, int64_t stride, int64_t n)
{
    static const float none[4];
    const float *r[4];
    for (int g = 0; g < SM_VL / 4; g++)
        r[g] = 4 * g < n ? x + 4 * g * stride : none;
#if SM_VL == 4
    return vload(r[0]);
#else
    __m256 lo = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(r[0])), _mm_loadu_ps(r[1]), 1);
#if SM_VL == 8
    return (vf)lo;
#else
    __m256 hi = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(r[2])), _mm_loadu_ps(r[3]), 1);
    return (vf)_mm512_insertf32x8(_mm512_castps256_ps512(lo), hi, 1);
#endif
#endif
}
SM_FLAT void at_scatter(vf y, float *x, int64_t stride, int64_t n)
{
#if SM_VL == 4
    if (n > 0)
        vstore(x, y);
#else
#if SM_VL == 8
    __m128 part[] = {_mm256_castps256_ps128((__m256)y), _mm256_extractf128_ps((__m256)y, 1)};
#else
    __m512 z = (__m512)y;
    __m128 part[] = {_mm512_castps512_ps128(z), _mm512_extractf32x4_ps(z, 1), _mm512_extractf32x4_ps(z, 2),
                     _mm512_extractf32x4_ps(z, 3)};
#endif
    SM_UNROLL(8) for (int g = 0; g < SM_VL / 4; g++)
        if (4 * g < n)
            _mm_storeu_ps(x + 4 * g * stride, part[g]);
#endif
}

/* ---- copies ---- */

/* y[c][lane] = k x[lane][c] for c < d and n lanes, zeros in the others; y's rows are w apart. */
static inline void at_pack_lanes(const float *x, int64_t stride, int64_t n, int64_t d, float k, float *y, int64_t w)
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
static inline void at_unpack_lanes(const float *y, int64_t w, vf k, int64_t n, int64_t d, float *x, int64_t stride)
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

/* Rows of keys side by side, zeros up to a multiple of AT_ROWS. */
static inline void at_pack_keys(const float *k, int64_t stride, int64_t keys, int64_t d, float *to)
{
    for (int64_t j = 0; j < keys; j++)
        memcpy(to + j * d, k + j * stride, sizeof(float) * (size_t)d);
    memset(to + keys * d, 0, sizeof(float) * (size_t)((at_up(keys, AT_ROWS) - keys) * d));
}

/* Panels of AT_ROWS columns and room for `panel` keys. Four keys at a time: whole cache lines are written, of few rows. */
static inline void at_pack_values(const float *v, int64_t stride, int64_t keys, int64_t dv, int64_t panel, float *to)
{
    for (int64_t j0 = 0; j0 < keys; j0 += 4)
        for (int64_t c = 0; c < dv; c += AT_ROWS)
            for (int64_t j = j0; j < SM_MIN(j0 + 4, keys); j++) {
                const float *x = v + j * stride + c;
                float *y = to + c * panel + j * AT_ROWS;
                if (c + AT_ROWS <= dv)
                    memcpy(y, x, sizeof(float) * AT_ROWS);
                else
                    for (int64_t i = 0; i < AT_ROWS; i++)
                        y[i] = c + i < dv ? x[i] : 0;
            }
}

/* Rows [from, to) of width d into the cache: short rows far apart are not seen coming by the processor. Inlined
 * always: gcc drops calls of a function that does nothing else. */
SM_FLAT void at_fetch(const float *x, int64_t stride, int64_t d, int64_t from, int64_t to)
{
    for (int64_t r = from; r < to; r++) {
        uintptr_t row = (uintptr_t)(x + r * stride), end = row + sizeof(float) * (size_t)d;
        for (uintptr_t line = row & ~(uintptr_t)63; line < end; line += 64)
            __builtin_prefetch((const void *)line, 0, 3);
    }
}

/* ---- the microkernel: acc[i][v] += sum over k of a[i ai + k ak] b[k ldb + v], one chain each, k ascending ---- */

/* x in a register: gcc short of them would load it again for every use. */
SM_FLAT vf at_keep(vf x)
{
#ifdef __x86_64__
    __asm__("" : "+v"(x));
#else
    __asm__("" : "+w"(x));
#endif
    return x;
}

/* sum takes in b, unless NULL. */
SM_FLAT void at_step(const int nv, vf (*acc)[AT_VECS], const float *a, const int64_t ai, const float *b, vf *sum)
{
    vf bv[AT_VECS];
    SM_UNROLL(8) for (int v = 0; v < nv; v++)
        bv[v] = at_keep(vload(b + v * SM_VL));
    if (sum)
        SM_UNROLL(8) for (int v = 0; v < nv; v++)
            sum[v] += bv[v];
    SM_UNROLL(8) for (int i = 0; i < AT_ROWS; i++) {
        vf av = vset(a[i * ai]);
        SM_UNROLL(8) for (int v = 0; v < nv; v++)
            acc[i][v] = vfma(av, bv[v], acc[i][v]);
    }
}

SM_FLAT void at_product(const int nv, vf (*acc)[AT_VECS], const float *a, const int64_t ai, const int64_t ak, const float *b,
                        const int64_t ldb, int64_t steps, vf *sum)
{
    do {
        at_step(nv, acc, a, ai, b, sum);
        a += ak;
        b += ldb;
    } while (--steps);
}

SM_FLAT void at_zero(const int nv, vf (*acc)[AT_VECS])
{
    SM_UNROLL(8) for (int i = 0; i < AT_ROWS; i++)
        SM_UNROLL(8) for (int v = 0; v < nv; v++)
            acc[i][v] = vset(0);
}
SM_FLAT void at_load(const int nv, vf (*acc)[AT_VECS], const float *c, const int64_t ldc)
{
    SM_UNROLL(8) for (int i = 0; i < AT_ROWS; i++)
        SM_UNROLL(8) for (int v = 0; v < nv; v++)
            acc[i][v] = vload(c + i * ldc + v * SM_VL);
}
/* acc = c, its columns times k */
SM_FLAT void at_scaled(const int nv, vf (*acc)[AT_VECS], const float *c, const int64_t ldc, const float *k)
{
    SM_UNROLL(8) for (int i = 0; i < AT_ROWS; i++)
        SM_UNROLL(8) for (int v = 0; v < nv; v++)
            acc[i][v] = vload(c + i * ldc + v * SM_VL) * vload(k + v * SM_VL);
}
SM_FLAT void at_store(const int nv, vf (*acc)[AT_VECS], float *c, const int64_t ldc)
{
    SM_UNROLL(8) for (int i = 0; i < AT_ROWS; i++)
        SM_UNROLL(8) for (int v = 0; v < nv; v++)
            vstore(c + i * ldc + v * SM_VL, acc[i][v]);
}

/* k 2^r for |r| <= 1/2, k a power of two. Coefficients: our own minimax fit of (2^r - 1) / r, relative error of 2^r 9.2e-8. */
#define AT_POWER 0.693146978f, 0.240222421f, 0.0555073374f, 0.00967151264f, 0.00132647272f
SM_FLAT vf at_power(vf r, const float k)
{
    const float c[] = {AT_POWER};
    return vfma(r, vpoly4(r, k * c[0], k * c[1], k * c[2], k * c[3], k * c[4]), vset(k));
}

/* 2^x to 2 ulp for x <= 127: exactly 1 at 0 and exactly 0 below -126.5, so that what is masked has no weight. NaN gives NaN. 2^n
 * comes from the low bits of t, whose upper ones the shift drops; the clamp is where n = -127 makes the scale 0. */
#define AT_UNIT 1.44269504f /* log2 e, which scores are multiplied with */
SM_FLAT vf at_exp2(vf x)
{
    const float magic = SM_ROUND_MAGIC + 127;
    x = vmax(vset(-127), x);
    vf t = x + magic;
    return at_power(x - (t - magic), 1) * (vf)((vu)t << 23);
}

/* The same bits for x from -AT_LEAST to AT_MOST, 2^-AT_LEAST below (4e-34: nothing beside 1), with five multiply-adds
 * and what other units of the processor do: n is added to the exponent. Above, where n reaches 128 - AT_LEAST and t has bits
 * outside of AT_MASK, and for NaN the result means nothing, and the range is not at_inside any more. */
enum { AT_LEAST = 111 };
#define AT_MOST 16.5f
#if SM_VL == 16
/* Compared into a mask, and 2^n is an instruction for units beside the multiply-adds'. Constants come from memory: the products
 * around leave four registers, and gcc would spill accumulators for more. */
typedef __mmask16 at_range;
static const at_range at_any = 0xffff;
SM_FLAT bool at_inside(at_range r) { return r == at_any; }
SM_FLAT vf at_weight(vf x, at_range *r)
{
    static const float constants[] = {AT_MOST, -AT_LEAST, SM_ROUND_MAGIC, 1, AT_POWER};
    const float *k = constants;
    __asm__("" : "+r"(k));
    *r = _mm512_mask_cmp_ps_mask(*r, (__m512)x, (__m512)vset(k[0]), _CMP_LE_OQ);
    x = vmax(vset(k[1]), x);
    vf n = x + vset(k[2]) - vset(k[2]), f = x - n;
    return (vf)_mm512_scalef_ps((__m512)vfma(f, vpoly4(f, k[4], k[5], k[6], k[7], k[8]), vset(k[3])), (__m512)n);
}
#else
#define AT_MASK 0x4b40007fu
typedef vu at_range;
static const at_range at_any;
SM_FLAT bool at_inside(at_range seen) { return !vany((vi)((seen & ~AT_MASK) != 0)); }
SM_FLAT vf at_weight(vf x, at_range *seen)
{
    const float magic = SM_ROUND_MAGIC + AT_LEAST;
    x = vmax(vset(-AT_LEAST), x);
    vf t = x + magic;
    *seen |= (vu)t;
    return (vf)((vu)at_power(x - (t - magic), 0x1p-111f) + ((vu)t << 23));
}
#endif

/* ---- some queries and keys of a head (k_attention_tile.c) ---- */

/* Rows of width d that will be needed next, `each` of all of them to be fetched with every AT_HEAD keys. */
typedef struct at_rows { const float *x; int64_t stride, d, rows; } at_rows;
typedef struct at_ahead { int count, at; int64_t each; at_rows rows[4]; } at_ahead;

typedef struct at_part {
    int nv;                        /* w / SM_VL */
    int64_t i, rows, j, keys;      /* queries [i, i + rows), keys [j, j + keys) of the head */
    float *q;                      /* [d][w], scaled; lanes from `rows` on are 0 */
    const float *k, *v;            /* [keys up to AT_ROWS][d], panels [dv / AT_ROWS][panel][AT_ROWS] */
    int64_t panel;
    const float *bias;             /* that of query i and key j, or NULL */
    float *s, *bias_t;             /* [keys up to AT_ROWS][w], [keys][w] */
    float *o, *max, *sum;          /* [dv up to AT_ROWS][w], [w], [w] */
    float *part;                   /* [w] sums of this tile's weights; NULL in the gradient */
    at_ahead *ahead;               /* or NULL */
} at_part;

/* S = K Q, and the maxima of the first `top` keys, whole AT_ROWS; without them K and Q may be any rows and lanes. */
void SM_K(sm_attention_product)(const at_part *p, int64_t d, int64_t top);
/* S = K Q + bias, -infinity where the future is hidden; max takes in the maxima. */
void SM_K(sm_attention_scores)(const attn *a, const at_part *p);
/* S = 2^(K Q - max), part their sums unless AT_SUMS; where j is 0 max becomes the maximum of the first AT_HEAD keys. False: some
 * exponent is above AT_MOST or not a number, and S and part mean nothing. */
enum { AT_HEAD = 8 };
bool SM_K(sm_attention_weights)(const at_part *p, int64_t d);
/* O = fix O + V S, lane by lane, O + V S where there is no fix, V S where j is 0. Where AT_SUMS, part, unless NULL, = the sums
 * of S. */
void SM_K(sm_attention_values)(const at_part *p, int64_t dv, const float *fix);
/* c[key][ld] = S[key] times the rows of p's queries [rows][ld], added to c unless they are the head's first; ld is a multiple of
 * SM_VL. */
void SM_K(sm_attention_key_rows)(const at_part *p, const float *rows, int64_t ld, float *c);

#endif
