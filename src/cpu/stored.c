/* Storage types of weights as f32 (see graph.h). Block formats follow ggml; the reference is the `gguf` package (gguf.quants),
 * whose values these are, bit for bit: scale of the block times scale of the group first, then times the integer, then minus or
 * plus the offset, every step rounded to f32. FP8 follows "FP8 Formats for Deep Learning" (Micikevicius et al., 2022). */
#include "cpu/cpu.h"

#include <string.h>

static float half_at(const uint8_t *p) { return sm_f16_f32((uint16_t)(p[0] | p[1] << 8)); }

/* ---- blocks of 32 ------------------------------------------------------------------------------------------------ */

/* The low nibbles are values 0..15, the high ones 16..31. Q5 types keep the fifth bits in one little-endian word. */

static void load_q4_0(const uint8_t *b, float *y) /* d, 16 bytes of nibbles */
{
    float d = half_at(b);
    for (int i = 0; i < 16; i++)
        y[i] = d * (float)((b[2 + i] & 15) - 8);
    for (int i = 0; i < 16; i++)
        y[16 + i] = d * (float)((b[2 + i] >> 4) - 8);
}

static void load_q4_1(const uint8_t *b, float *y) /* d, minimum, nibbles */
{
    float d = half_at(b), m = half_at(b + 2);
    for (int i = 0; i < 16; i++)
        y[i] = d * (float)(b[4 + i] & 15) + m;
    for (int i = 0; i < 16; i++)
        y[16 + i] = d * (float)(b[4 + i] >> 4) + m;
}

static int fifth_bit(const uint8_t *h, int i) { return (h[i / 8] >> i % 8 & 1) << 4; }

static void load_q5_0(const uint8_t *b, float *y) /* d, fifth bits, nibbles */
{
    float d = half_at(b);
    for (int i = 0; i < 32; i++)
        y[i] = d * (float)(((b[6 + i % 16] >> i / 16 * 4 & 15) | fifth_bit(b + 2, i)) - 16);
}

static void load_q5_1(const uint8_t *b, float *y) /* d, minimum, fifth bits, nibbles */
{
    float d = half_at(b), m = half_at(b + 2);
    for (int i = 0; i < 32; i++)
        y[i] = d * (float)((b[8 + i % 16] >> i / 16 * 4 & 15) | fifth_bit(b + 4, i)) + m;
}

static void load_q8_0(const uint8_t *b, float *y) /* d, 32 signed bytes */
{
    float d = half_at(b);
    for (int i = 0; i < 32; i++)
        y[i] = d * (float)(int8_t)b[2 + i];
}

/* ---- blocks of 256 ----------------------------------------------------------------------------------------------- */

/* Two-bit fields lie four to a byte: within each half of 128 values, byte l holds values l, 32 + l, 64 + l, 96 + l. */
static int two_bits(const uint8_t *q, int i) { return q[i / 128 * 32 + i % 32] >> i / 32 % 4 * 2 & 3; }
/* Nibbles of Q4_K and Q5_K: within each quarter of 64 values, byte l holds values l and 32 + l. */
static int nibble(const uint8_t *q, int i) { return q[i / 64 * 32 + i % 32] >> i / 32 % 2 * 4 & 15; }

static void load_q2_k(const uint8_t *b, float *y) /* 16 scales and offsets of 4 bits, 64 bytes of values, d, dmin */
{
    float d = half_at(b + 80), dmin = half_at(b + 82);
    for (int g = 0; g < 16; g++) {
        float dl = d * (float)(b[g] & 15), ml = dmin * (float)(b[g] >> 4);
        for (int i = 16 * g; i < 16 * g + 16; i++)
            y[i] = dl * (float)two_bits(b + 16, i) - ml;
    }
}

/* Scale k of the 16: low four bits in byte k % 8, high two in byte 8 + k % 4. */
static int q3_scale(const uint8_t *s, int k)
{
    return ((s[k % 8] >> k / 8 * 4 & 15) | (s[8 + k % 4] >> k / 4 * 2 & 3) << 4) - 32;
}

static void load_q3_k(const uint8_t *b, float *y) /* 32 bytes of high bits (set: no offset of -4), 64 of low bits, 12 of scales,
                                                     d */
{
    float d = half_at(b + 108);
    for (int g = 0; g < 16; g++) {
        float dl = d * (float)q3_scale(b + 96, g);
        for (int i = 16 * g; i < 16 * g + 16; i++) {
            int high = b[i % 32] >> i / 32 & 1;
            y[i] = dl * (float)(two_bits(b + 32, i) - (high ? 0 : 4));
        }
    }
}

/* Six-bit scale and offset k of 8 from 12 bytes: the first four lie low in bytes 0..3 and 4..7, whose top two bits complete
 * the nibbles of bytes 8..11 to the last four. */
static void k_scale(const uint8_t *s, int k, float *scale, float *offset)
{
    int a = k < 4 ? s[k] & 63 : (s[4 + k] & 15) | (s[k - 4] >> 2 & 48);
    int m = k < 4 ? s[4 + k] & 63 : s[4 + k] >> 4 | (s[k] >> 2 & 48);
    *scale = (float)a;
    *offset = (float)m;
}

static void load_q4_k(const uint8_t *b, float *y) /* d, dmin, 12 bytes of scales and offsets, 128 of nibbles */
{
    float d = half_at(b), dmin = half_at(b + 2), scale, offset;
    for (int g = 0; g < 8; g++) {
        k_scale(b + 4, g, &scale, &offset);
        float dl = d * scale, ml = dmin * offset;
        for (int i = 32 * g; i < 32 * g + 32; i++)
            y[i] = dl * (float)nibble(b + 16, i) - ml;
    }
}

static void load_q5_k(const uint8_t *b, float *y) /* as Q4_K, with 32 bytes of fifth bits before the nibbles */
{
    float d = half_at(b), dmin = half_at(b + 2), scale, offset;
    for (int g = 0; g < 8; g++) {
        k_scale(b + 4, g, &scale, &offset);
        float dl = d * scale, ml = dmin * offset;
        for (int i = 32 * g; i < 32 * g + 32; i++)
            y[i] = dl * (float)(nibble(b + 48, i) | (b[16 + i % 32] >> g & 1) << 4) - ml;
    }
}

static void load_q6_k(const uint8_t *b, float *y) /* 128 bytes of nibbles, 64 of high bits, 16 signed scales, d */
{
    float d = half_at(b + 208);
    for (int g = 0; g < 16; g++) {
        float dl = d * (float)(int8_t)b[192 + g];
        for (int i = 16 * g; i < 16 * g + 16; i++) {
            int low = b[i / 128 * 64 + i % 64] >> i / 64 % 2 * 4 & 15; /* byte l of a half holds values l and 64 + l */
            y[i] = dl * (float)((low | two_bits(b + 128, i) << 4) - 32);
        }
    }
}

/* ---- one value to a block ---------------------------------------------------------------------------------------- */

static void load_f32(const uint8_t *b, int64_t n, float *y) { memcpy(y, b, (size_t)n * 4); }

static void load_f16(const uint8_t *b, int64_t n, float *y)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = half_at(b + 2 * i);
}

static void load_bf16(const uint8_t *b, int64_t n, float *y)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = sm_bf16_f32((uint16_t)(b[2 * i] | b[2 * i + 1] << 8));
}

static void load_i32(const uint8_t *b, int64_t n, float *y)
{
    for (int64_t i = 0; i < n; i++) {
        int32_t v;
        memcpy(&v, b + 4 * i, 4);
        y[i] = (float)v;
    }
}

/* Exponent and mantissa of an FP8 value moved to where f32 has them: right but for the exponent's bias, which a multiplication
 * mends, subnormal values included. special: the codes from which on a value is no number, turned into what f32 has. */
static inline float load_f8(uint8_t b, int shift, float bias, unsigned special, uint32_t add)
{
    unsigned a = b & 127u;
    uint32_t u = (uint32_t)a << shift;
    float f;
    memcpy(&f, &u, 4);
    f *= bias;
    memcpy(&u, &f, 4);
    u = (a >= special ? u | add : u) | (uint32_t)(b & 128) << 24;
    memcpy(&f, &u, 4);
    return f;
}

static void load_f8_e4m3(const uint8_t *b, int64_t n, float *y) /* bias 7, no infinities, NaN is 127 */
{
    for (int64_t i = 0; i < n; i++)
        y[i] = load_f8(b[i], 20, 0x1p120f, 127, 0x7fc00000);
}

static void load_f8_e5m2(const uint8_t *b, int64_t n, float *y) /* bias 15, infinity 124, NaN above; quiet, as the others */
{
    for (int64_t i = 0; i < n; i++) {
        y[i] = load_f8(b[i], 21, 0x1p112f, 124, 0x7f800000);
        if ((b[i] & 127) > 124)
            y[i] = __builtin_copysignf(__builtin_nanf(""), b[i] & 128 ? -1.0f : 1.0f);
    }
}

/* ---- the table --------------------------------------------------------------------------------------------------- */

static const struct row {
    void (*block)(const uint8_t *b, float *y);            /* a block, or */
    void (*values)(const uint8_t *b, int64_t n, float *y); /* n values of a type without blocks */
} rows[SM_DTYPES] = {
    [SM_F32] = {.values = load_f32},      [SM_F16] = {.values = load_f16},         [SM_BF16] = {.values = load_bf16},
    [SM_I32] = {.values = load_i32},      [SM_F8_E4M3] = {.values = load_f8_e4m3}, [SM_F8_E5M2] = {.values = load_f8_e5m2},
    [SM_Q4_0] = {.block = load_q4_0},     [SM_Q4_1] = {.block = load_q4_1},        [SM_Q5_0] = {.block = load_q5_0},
    [SM_Q5_1] = {.block = load_q5_1},     [SM_Q8_0] = {.block = load_q8_0},        [SM_Q2_K] = {.block = load_q2_k},
    [SM_Q3_K] = {.block = load_q3_k},     [SM_Q4_K] = {.block = load_q4_k},        [SM_Q5_K] = {.block = load_q5_k},
    [SM_Q6_K] = {.block = load_q6_k},
};

void sm_load_blocks(sm_dtype t, const void *src, int64_t n, float *out)
{
    const uint8_t *p = src;
    int block = sm_dtype_block(t);
    size_t bytes = sm_dtype_block_bytes(t);
    if (rows[t].values) {
        rows[t].values(p, n, out);
        return;
    }
    for (int64_t i = 0; i < n; i += block, p += bytes)
        rows[t].block(p, out + i);
}

void sm_load_values(const sm_tensor *t, int64_t at, int64_t n, float *out)
{
    int64_t block = sm_dtype_block(t->dtype), i = 0;
    size_t bytes = sm_dtype_block_bytes(t->dtype);
    const uint8_t *p = (const uint8_t *)t->data + (size_t)(at / block) * bytes;
    float part[SM_MAX_BLOCK];
    while (i < n) {
        int64_t skip = (at + i) % block, whole = skip ? 0 : (n - i) / block * block;
        if (whole) {
            sm_load_blocks(t->dtype, p, whole, out + i);
            i += whole;
            p += (size_t)(whole / block) * bytes;
        } else {
            int64_t k = SM_MIN(block - skip, n - i);
            sm_load_blocks(t->dtype, p, block, part);
            memcpy(out + i, part + skip, (size_t)k * sizeof *out);
            i += k;
            p += bytes;
        }
    }
    if (t->scale)
        for (i = 0; i < n; i++)
            out[i] *= t->scale[(at + i) / t->scale_run];
}
