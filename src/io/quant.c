/* Values of the storage types (see quant.h). One function per block format; each multiplies in the reference's order, so that
 * the results are the same bits: scale of the block times scale of the group first, then times the integer, then minus or
 * plus the offset, every step rounded to f32. */
#include "io/quant.h"

#include <string.h>
#include <strings.h>

#include "cpu/cpu.h"

static float half_at(const uint8_t *p) { return sm_f16_f32((uint16_t)(p[0] | p[1] << 8)); }

/* ---- blocks of 32 ------------------------------------------------------------------------------------------------ */

/* The low nibbles are values 0..15, the high ones 16..31. Q5 types keep the fifth bits in one little-endian word. */

static void load_q4_0(const uint8_t *b, float *y) /* d, 16 bytes of nibbles */
{
    float d = half_at(b);
    for (int i = 0; i < 32; i++)
        y[i] = d * (float)((b[2 + i % 16] >> i / 16 * 4 & 15) - 8);
}

static void load_q4_1(const uint8_t *b, float *y) /* d, minimum, nibbles */
{
    float d = half_at(b), m = half_at(b + 2);
    for (int i = 0; i < 32; i++)
        y[i] = d * (float)(b[4 + i % 16] >> i / 16 * 4 & 15) + m;
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
    for (int i = 0; i < 256; i++) {
        float dl = d * (float)(b[i / 16] & 15), ml = dmin * (float)(b[i / 16] >> 4);
        y[i] = dl * (float)two_bits(b + 16, i) - ml;
    }
}

/* Scale k of the 16: low four bits in byte k % 8, high two in byte 8 + k % 4. */
static int q3_scale(const uint8_t *s, int k) { return ((s[k % 8] >> k / 8 * 4 & 15) | (s[8 + k % 4] >> k / 4 * 2 & 3) << 4) - 32; }

static void load_q3_k(const uint8_t *b, float *y) /* 32 bytes of high bits (set: no offset of -4), 64 of low bits, 12 of scales, d */
{
    float d = half_at(b + 108);
    for (int i = 0; i < 256; i++) {
        float dl = d * (float)q3_scale(b + 96, i / 16);
        int high = b[i % 32] >> i / 32 & 1;
        y[i] = dl * (float)(two_bits(b + 32, i) - (high ? 0 : 4));
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
    for (int i = 0; i < 256; i++) {
        k_scale(b + 4, i / 32, &scale, &offset);
        y[i] = d * scale * (float)nibble(b + 16, i) - dmin * offset;
    }
}

static void load_q5_k(const uint8_t *b, float *y) /* as Q4_K, with 32 bytes of fifth bits before the nibbles */
{
    float d = half_at(b), dmin = half_at(b + 2), scale, offset;
    for (int i = 0; i < 256; i++) {
        k_scale(b + 4, i / 32, &scale, &offset);
        int q = nibble(b + 48, i) | (b[16 + i % 32] >> i / 32 & 1) << 4;
        y[i] = d * scale * (float)q - dmin * offset;
    }
}

static void load_q6_k(const uint8_t *b, float *y) /* 128 bytes of nibbles, 64 of high bits, 16 signed scales, d */
{
    float d = half_at(b + 208);
    for (int i = 0; i < 256; i++) {
        int low = b[i / 128 * 64 + i % 64] >> i / 64 % 2 * 4 & 15; /* byte l of a half holds values l and 64 + l */
        float dl = d * (float)(int8_t)b[192 + i / 16];
        y[i] = dl * (float)((low | two_bits(b + 128, i) << 4) - 32);
    }
}

/* ---- plain types ------------------------------------------------------------------------------------------------- */

static void load_f32(const uint8_t *b, float *y) { memcpy(y, b, 4); }
static void load_f16(const uint8_t *b, float *y) { *y = half_at(b); }
static void load_bf16(const uint8_t *b, float *y) { *y = sm_bf16_f32((uint16_t)(b[0] | b[1] << 8)); }
static void load_f8_e5m2(const uint8_t *b, float *y) { *y = sm_f16_f32((uint16_t)(b[0] << 8)); }

static void load_i32(const uint8_t *b, float *y)
{
    int32_t i;
    memcpy(&i, b, 4);
    *y = (float)i;
}

static void load_f8_e4m3(const uint8_t *b, float *y)
{
    int m = *b & 7, e = *b >> 3 & 15;
    float v = e ? (float)(8 + m) * 0x1p-10f * (float)(1 << e) : (float)m * 0x1p-9f; /* (1 + m/8) 2^(e-7); m 2^-9 */
    if (e == 15 && m == 7)
        v = __builtin_nanf("");
    *y = *b & 128 ? -v : v;
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

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

/* ---- the table --------------------------------------------------------------------------------------------------- */

static const struct row {
    const char *name;
    int block;
    size_t bytes;
    void (*load)(const uint8_t *b, float *y);
    bool (*save)(const float *x, uint8_t *b); /* NULL: read only */
} rows[SM_STORES] = {
    [SM_STORE_F32] = {"F32", 1, 4, load_f32, save_f32},
    [SM_STORE_F16] = {"F16", 1, 2, load_f16, save_f16},
    [SM_STORE_BF16] = {"BF16", 1, 2, load_bf16, save_bf16},
    [SM_STORE_I32] = {"I32", 1, 4, load_i32, NULL},
    [SM_STORE_F8_E4M3] = {"F8_E4M3", 1, 1, load_f8_e4m3, NULL},
    [SM_STORE_F8_E5M2] = {"F8_E5M2", 1, 1, load_f8_e5m2, NULL},
    [SM_STORE_Q4_0] = {"Q4_0", 32, 18, load_q4_0, save_q4_0},
    [SM_STORE_Q4_1] = {"Q4_1", 32, 20, load_q4_1, save_q4_1},
    [SM_STORE_Q5_0] = {"Q5_0", 32, 22, load_q5_0, save_q5_0},
    [SM_STORE_Q5_1] = {"Q5_1", 32, 24, load_q5_1, save_q5_1},
    [SM_STORE_Q8_0] = {"Q8_0", 32, 34, load_q8_0, save_q8_0},
    [SM_STORE_Q2_K] = {"Q2_K", 256, 84, load_q2_k, NULL},
    [SM_STORE_Q3_K] = {"Q3_K", 256, 110, load_q3_k, NULL},
    [SM_STORE_Q4_K] = {"Q4_K", 256, 144, load_q4_k, NULL},
    [SM_STORE_Q5_K] = {"Q5_K", 256, 176, load_q5_k, NULL},
    [SM_STORE_Q6_K] = {"Q6_K", 256, 210, load_q6_k, NULL},
};

const char *sm_store_name(sm_store t) { return rows[t].name; }
int sm_store_block(sm_store t) { return rows[t].block; }
size_t sm_store_block_bytes(sm_store t) { return rows[t].bytes; }
bool sm_store_writable(sm_store t) { return rows[t].save != NULL; }

int sm_store_find(const char *name)
{
    for (int t = 0; t < SM_STORES; t++)
        if (!strcasecmp(name, rows[t].name))
            return t;
    return -1;
}

void sm_store_load(sm_store t, const void *src, int64_t n, float *out)
{
    const struct row *r = &rows[t];
    const uint8_t *p = src;
    for (int64_t i = 0; i < n; i += r->block, p += r->bytes)
        r->load(p, out + i);
}

bool sm_store_save(sm_store t, const float *x, int64_t n, void *out)
{
    const struct row *r = &rows[t];
    uint8_t *p = out;
    if (!r->save || n % r->block)
        return false;
    for (int64_t i = 0; i < n; i += r->block, p += r->bytes) {
        for (int k = 0; r->block > 1 && k < r->block; k++)
            if (!__builtin_isfinite(x[i + k]))
                return false;
        if (!r->save(x + i, p))
            return false;
    }
    return true;
}
