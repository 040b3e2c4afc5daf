/* Writing storage types (see quant.h): blocks of 32 values, FP8, plain floats. */
#include "io/quant.h"

#include <string.h>
#include <strings.h>

#include "cpu/cpu.h"

/* ---- blocks of 32 ------------------------------------------------------------------------------------------------ */

/* The low nibbles are values 0..15, the high ones 16..31. Q5 types keep the fifth bits in one little-endian word. */

/* A half float; false when it is not finite. */
static bool put_half(uint8_t *p, float v)
{
    uint16_t h = sm_f32_f16(v);
    p[0] = (uint8_t)h;
    p[1] = (uint8_t)(h >> 8);
    return (h & 0x7c00) != 0x7c00;
}

/* 1/d, or 0 where d is 0 or so small that 1/d is infinite. */
static float reciprocal(float d)
{
    float r = 1 / d;
    return d == 0 || r > __FLT_MAX__ || r < -__FLT_MAX__ ? 0 : r;
}

static int clip(float v, int top) { return v >= (float)top ? top : (int)v; }

/* The value that is largest without its sign, the first of several. */
static float peak(const float *x)
{
    float best = x[0];
    for (int i = 1; i < 32; i++)
        if (__builtin_fabsf(x[i]) > __builtin_fabsf(best))
            best = x[i];
    return best;
}

static void range(const float *x, float *low, float *high)
{
    *low = *high = x[0];
    for (int i = 1; i < 32; i++) {
        *low = x[i] < *low ? x[i] : *low;
        *high = x[i] > *high ? x[i] : *high;
    }
}

/* Integers of 4 or 5 bits: nibbles, and the fifth bits where fifth is not NULL. */
static void put_bits(const int *q, uint8_t *nibbles, uint8_t *fifth)
{
    for (int i = 0; i < 16; i++)
        nibbles[i] = (uint8_t)((q[i] & 15) | (q[16 + i] & 15) << 4);
    for (int i = 0; fifth && i < 32; i++)
        fifth[i / 8] = (uint8_t)((i % 8 ? fifth[i / 8] : 0) | (q[i] >> 4 & 1) << i % 8);
}

/* Q4_0, Q5_0: the peak becomes -top/2 exactly. The reference rounds x/d + top/2 + 1/2 as one fused multiply-add does:
 * computed in double precision, then rounded to float. */
static bool save_symmetric(const float *x, int top, uint8_t *scale, uint8_t *fifth, uint8_t *nibbles)
{
    int half = (top + 1) / 2, q[32];
    float d = peak(x) / (float)-half, id = reciprocal(d);
    for (int i = 0; i < 32; i++)
        q[i] = clip((float)((double)x[i] * (double)id + ((double)half + 0.5)), top);
    put_bits(q, nibbles, fifth);
    return put_half(scale, d);
}

/* Q4_1, Q5_1: from minimum to maximum. */
static bool save_range(const float *x, int top, uint8_t *scale, uint8_t *fifth, uint8_t *nibbles)
{
    float low, high;
    int q[32];
    range(x, &low, &high);
    float d = (high - low) / (float)top, id = reciprocal(d);
    if (!put_half(scale, d) || !put_half(scale + 2, low))
        return false;
    for (int i = 0; i < 32; i++)
        q[i] = clip((x[i] - low) * id + 0.5f, top);
    put_bits(q, nibbles, fifth);
    return true;
}

static bool save_q4_0(const float *x, uint8_t *b) { return save_symmetric(x, 15, b, NULL, b + 2); }
static bool save_q5_0(const float *x, uint8_t *b) { return save_symmetric(x, 31, b, b + 2, b + 6); }
static bool save_q4_1(const float *x, uint8_t *b) { return save_range(x, 15, b, NULL, b + 4); }
static bool save_q5_1(const float *x, uint8_t *b) { return save_range(x, 31, b, b + 4, b + 8); }

static bool save_q8_0(const float *x, uint8_t *b)
{
    float d = __builtin_fabsf(peak(x)) / 127, id = reciprocal(d);
    for (int i = 0; i < 32; i++)
        b[2 + i] = (uint8_t)(int8_t)__builtin_roundf(x[i] * id);
    return put_half(b, d);
}

/* ---- FP8 --------------------------------------------------------------------------------------------------------- */

static uint32_t f32_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

uint8_t sm_f32_f8_e4m3(float f)
{
    uint32_t u = f32_bits(f), sign = u >> 24 & 128, a = u & 0x7fffffff;
    if (a > 0x7f800000)
        return (uint8_t)(sign | 127);
    if (a > 0x43e80000) /* 464, the tie between 448 and what would be 480 */
        return (uint8_t)(sign | 126);
    if (a < 0x3c800000) /* below 2^-6: a multiple of 2^-9, rounded by the addition */
        return (uint8_t)(sign | (f32_bits(__builtin_fabsf(f) + 0x1p14f) - 0x46800000));
    a += 0x7ffff + (a >> 20 & 1);
    return (uint8_t)(sign | (a - (120u << 23)) >> 20);
}

uint8_t sm_f32_f8_e5m2(float f)
{
    uint32_t u = f32_bits(f), sign = u >> 24 & 128, a = u & 0x7fffffff;
    if (a > 0x7f800000)
        return (uint8_t)(sign | 127);
    if (a >= 0x47700000) /* 61440 rounds to infinity */
        return (uint8_t)(sign | 124);
    if (a < 0x38800000) /* below 2^-14: a multiple of 2^-16 */
        return (uint8_t)(sign | (f32_bits(__builtin_fabsf(f) + 0x1p7f) - 0x43000000));
    a += 0xfffff + (a >> 21 & 1);
    return (uint8_t)(sign | (a - (112u << 23)) >> 21);
}

/* ---- one value to a block ---------------------------------------------------------------------------------------- */

static bool save_f32(const float *x, uint8_t *b)
{
    memcpy(b, x, 4);
    return true;
}

static bool save_f16(const float *x, uint8_t *b) { return put_half(b, *x) || !__builtin_isfinite(*x); }

static bool save_bf16(const float *x, uint8_t *b)
{
    uint16_t h = sm_f32_bf16(*x);
    b[0] = (uint8_t)h;
    b[1] = (uint8_t)(h >> 8);
    return (h & 0x7f80) != 0x7f80 || !__builtin_isfinite(*x);
}

static bool save_f8_e4m3(const float *x, uint8_t *b)
{
    *b = sm_f32_f8_e4m3(*x);
    return !(*x > 464 || *x < -464); /* NaN fits */
}

static bool save_f8_e5m2(const float *x, uint8_t *b)
{
    *b = sm_f32_f8_e5m2(*x);
    return (*b & 127) != 124 || !__builtin_isfinite(*x);
}

/* ---- the table --------------------------------------------------------------------------------------------------- */

static const struct row {
    const char *name;
    bool (*save)(const float *x, uint8_t *b); /* of one block; NULL: read only */
} rows[SM_DTYPES] = {
    [SM_F32] = {"F32", save_f32},     [SM_F16] = {"F16", save_f16},              [SM_BF16] = {"BF16", save_bf16},
    [SM_I32] = {"I32", NULL},         [SM_F8_E4M3] = {"F8_E4M3", save_f8_e4m3},  [SM_F8_E5M2] = {"F8_E5M2", save_f8_e5m2},
    [SM_Q4_0] = {"Q4_0", save_q4_0},  [SM_Q4_1] = {"Q4_1", save_q4_1},           [SM_Q5_0] = {"Q5_0", save_q5_0},
    [SM_Q5_1] = {"Q5_1", save_q5_1},  [SM_Q8_0] = {"Q8_0", save_q8_0},           [SM_Q2_K] = {"Q2_K", sm_save_q2_k},
    [SM_Q3_K] = {"Q3_K", sm_save_q3_k}, [SM_Q4_K] = {"Q4_K", sm_save_q4_k},      [SM_Q5_K] = {"Q5_K", sm_save_q5_k},
    [SM_Q6_K] = {"Q6_K", sm_save_q6_k},
};

const char *sm_store_name(sm_dtype t) { return rows[t].name; }
bool sm_store_writable(sm_dtype t) { return rows[t].save != NULL; }

int sm_store_find(const char *name)
{
    for (int t = 0; t < SM_DTYPES; t++)
        if (!strcasecmp(name, rows[t].name))
            return t;
    return -1;
}

bool sm_store_save(sm_dtype t, const float *x, int64_t n, void *out)
{
    const struct row *r = &rows[t];
    uint8_t *p = out;
    int block = sm_dtype_block(t);
    size_t bytes = sm_dtype_block_bytes(t);
    if (!r->save || n % block)
        return false;
    for (int64_t i = 0; i < n; i += block, p += bytes) {
        for (int k = 0; block > 1 && k < block; k++)
            if (!__builtin_isfinite(x[i + k]))
                return false;
        if (!r->save(x + i, p))
            return false;
    }
    return true;
}
