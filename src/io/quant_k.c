/* Writing the types of 256 values to a block (see quant.h). Values x of a group, 16 or 32 of them, become scale * q - offset with
 * small integers q; scales and offsets of the groups are integers themselves, times two half floats d and dmin of the block.
 *
 * Scales are found by least squares: for integers that are given, the best scale (and offset) is a linear regression, and for a
 * scale that is given the best integers are the nearest ones. Each group tries several first scales around the simplest one; the
 * block then tries neighbouring integers for the groups' scales and fits d and dmin to all 256 values. What comes out is compared
 * with the simplest choice, largest value over largest integer everywhere, and the better of the two is written.
 *
 * Q2_K: 16 groups, q 2 bits, scale and offset 4 bits. Q4_K, Q5_K: 8 groups, q 4 or 5 bits, scale and offset 6 bits. Q3_K, Q6_K:
 * 16 groups, no offset, q of 3 or 6 bits with sign, scale of 6 or 8 bits with sign. */
#include "io/quant.h"

#include <string.h>

#include "cpu/cpu.h"

enum { N = 256 };

/* A type: integers low..high, n_group values to a group; scales are integers from slow to shigh. */
typedef struct form { int group, low, high, slow, shigh; bool offset; } form;

/* A block as it is being made. */
typedef struct block {
    float d, dmin;            /* as the half floats hold them */
    int scale[16], min[16];   /* integers of the groups */
    int8_t q[N];
    float error;              /* sum of squared differences */
} block;

static float nearest(float x) { return x + 12582912.0f - 12582912.0f; } /* to even; |x| < 2^22 */
static float clamp(float x, float a, float b) { return x < a ? a : x > b ? b : x; }
static int limit(float x, int a, int b) { return (int)clamp(nearest(clamp(x, -4e6f, 4e6f)), (float)a, (float)b); }
static float half(float x) { return sm_f16_f32(sm_f32_f16(x)); }

/* Sums in eight lanes, so that the order is one the compiler may keep in vectors. */
static float total(const float *v)
{
    return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
}

/* q = the integers nearest to (x + offset) / scale. */
static void round_group(const float *x, const form *f, float inverse, float offset, float *q)
{
    for (int i = 0; i < f->group; i++)
        q[i] = nearest(clamp((x[i] + offset) * inverse, (float)f->low, (float)f->high));
}

static float group_error(const float *x, const form *f, float scale, float offset, const float *q)
{
    float e[8] = {0};
    for (int i = 0; i < f->group; i += 8)
        for (int l = 0; l < 8; l++) {
            float d = x[i + l] - (scale * q[i + l] - offset);
            e[l] += d * d;
        }
    return total(e);
}

/* The regression of x on q: scale, and where the form has one, an offset that is not negative. */
static void regress(const float *x, const form *f, const float *q, float *scale, float *offset)
{
    float sx[8] = {0}, sq[8] = {0}, sqq[8] = {0}, sxq[8] = {0}, n = (float)f->group;
    for (int i = 0; i < f->group; i += 8)
        for (int l = 0; l < 8; l++) {
            sx[l] += x[i + l];
            sq[l] += q[i + l];
            sqq[l] += q[i + l] * q[i + l];
            sxq[l] += x[i + l] * q[i + l];
        }
    float x1 = total(sx), q1 = total(sq), q2 = total(sqq), xq = total(sxq), det = n * q2 - q1 * q1;
    *offset = 0;
    if (f->offset && det > 0) {
        *scale = (n * xq - x1 * q1) / det;
        *offset = (*scale * q1 - x1) / n;
        if (*offset >= 0)
            return;
        *offset = 0;
    }
    *scale = q2 > 0 ? xq / q2 : 0;
}

/* The simplest scale of a group: its range over that of the integers; without offset, the value that is largest without its
 * sign becomes the lowest integer. */
static void simple_group(const float *x, const form *f, float *scale, float *offset)
{
    float low = x[0], high = x[0];
    for (int i = 1; i < f->group; i++) {
        low = x[i] < low ? x[i] : low;
        high = x[i] > high ? x[i] : high;
    }
    if (f->offset) {
        low = low < 0 ? low : 0;
        *scale = high > low ? (high - low) / (float)f->high : 0;
        *offset = -low;
    } else {
        *scale = (-low > high ? low : high) / (float)f->low;
        *offset = 0;
    }
}

static float inverse(float x)
{
    float r = 1 / x;
    return x == 0 || r > __FLT_MAX__ || r < -__FLT_MAX__ ? 0 : r;
}

/* The best found scale and offset of a group, as real numbers. */
static void fit_group(const float *x, const form *f, float *scale, float *offset)
{
    float q[32], s0, o0, s, o, best;
    simple_group(x, f, &s0, &o0);
    *scale = s0;
    *offset = o0;
    round_group(x, f, inverse(s0), o0, q);
    best = group_error(x, f, s0, o0, q);
    float range = (float)(f->offset ? f->high : -f->low);
    for (int t = -9; t <= 6 && s0 != 0; t += 3) { /* more steps than there are integers cut the peak off; fewer spread less */
        float first = s0 * range / (range + 0.15f * (float)t * (range < 8 ? 1 : 2));
        round_group(x, f, inverse(first), o0, q);
        for (int again = 0; again < 2; again++) {
            regress(x, f, q, &s, &o);
            if (s == 0 || (f->offset && s < 0))
                break;
            round_group(x, f, inverse(s), o, q);
            float e = group_error(x, f, s, o, q);
            if (e < best) {
                best = e;
                *scale = s;
                *offset = o;
            }
        }
    }
}

/* Integers and error of group g for its scale and offset as they are stored. */
static float set_group(const float *x, const form *f, const block *b, int g, int scale, int min, int8_t *out)
{
    float q[32], s = b->d * (float)scale, o = b->dmin * (float)min;
    round_group(x + g * f->group, f, inverse(s), o, q);
    for (int i = 0; i < f->group; i++)
        out[g * f->group + i] = (int8_t)q[i];
    return group_error(x + g * f->group, f, s, o, q);
}

/* Integers of all groups' scales for d and dmin, nearest or, with `around`, the best of the neighbours; then all q. */
static void set_block(const float *x, const form *f, const float *scale, const float *offset, bool around, block *b)
{
    float id = inverse(b->d), im = inverse(b->dmin);
    int8_t q[N];
    b->error = 0;
    for (int g = 0; g < N / f->group; g++) {
        int s0 = limit(scale[g] * id, f->slow, f->shigh), m0 = limit(offset[g] * im, 0, f->shigh), r = around ? 1 : 0,
            rm = f->offset ? r : 0;
        float best = __builtin_inff();
        for (int s = SM_MAX(s0 - r, f->slow); s <= SM_MIN(s0 + r, f->shigh); s++)
            for (int m = SM_MAX(m0 - rm, 0); m <= SM_MIN(m0 + rm, f->shigh); m++) {
                float e = set_group(x, f, b, g, s, m, q);
                if (e < best) {
                    best = e;
                    b->scale[g] = s;
                    b->min[g] = m;
                    memcpy(b->q + g * f->group, q + g * f->group, (size_t)f->group);
                }
            }
        b->error += best;
    }
}

/* d and dmin so that the largest of the groups' scales and offsets is the largest integer. */
static void simple_block(const form *f, const float *scale, const float *offset, block *b)
{
    float top = 0, low = 0;
    for (int g = 0; g < N / f->group; g++) {
        if (__builtin_fabsf(scale[g]) > __builtin_fabsf(top))
            top = scale[g];
        low = offset[g] > low ? offset[g] : low;
    }
    b->d = half(top / (float)(f->slow ? f->slow : f->shigh));
    b->dmin = half(low / (float)f->shigh);
}

/* The regression of all values on scale * q and the groups' offsets. */
static void regress_block(const float *x, const form *f, block *b)
{
    double aa = 0, ab = 0, bb = 0, ax = 0, bx = 0;
    for (int i = 0; i < N; i++) {
        double a = (double)(b->scale[i / f->group] * b->q[i]), m = -(double)b->min[i / f->group];
        aa += a * a;
        ab += a * m;
        bb += m * m;
        ax += a * x[i];
        bx += m * x[i];
    }
    double det = aa * bb - ab * ab;
    if (f->offset && det > 1e-9 * aa * bb && aa * bb > 0) {
        b->d = half((float)((ax * bb - bx * ab) / det));
        b->dmin = half((float)((bx * aa - ax * ab) / det));
    } else if (aa > 0) {
        b->d = half((float)(ax / aa));
    }
}

static bool finite_block(const block *b) { return __builtin_isfinite(b->d) && __builtin_isfinite(b->dmin); }

/* False when the scales do not fit half floats. */
static bool make_block(const float *x, const form *f, block *best)
{
    float scale[16], offset[16];
    block b = {0};
    for (int g = 0; g < N / f->group; g++)
        simple_group(x + g * f->group, f, &scale[g], &offset[g]);
    simple_block(f, scale, offset, best);
    if (!finite_block(best))
        return false;
    set_block(x, f, scale, offset, false, best);
    for (int g = 0; g < N / f->group; g++)
        fit_group(x + g * f->group, f, &scale[g], &offset[g]);
    simple_block(f, scale, offset, &b);
    for (int again = 0; again < 3 && finite_block(&b) && b.dmin >= 0; again++) {
        set_block(x, f, scale, offset, true, &b);
        if (b.error < best->error)
            *best = b;
        regress_block(x, f, &b);
    }
    return true;
}

/* ---- the formats ------------------------------------------------------------------------------------------------- */

static void put_half(uint8_t *p, float v)
{
    uint16_t h = sm_f32_f16(v);
    p[0] = (uint8_t)h;
    p[1] = (uint8_t)(h >> 8);
}

/* Two-bit fields lie four to a byte: within each half of 128 values, byte l holds values l, 32 + l, 64 + l, 96 + l. */
static void put_two_bits(uint8_t *p, int i, int q) { p[i / 128 * 32 + i % 32] |= (uint8_t)((q & 3) << i / 32 % 4 * 2); }

bool sm_save_q2_k(const float *x, uint8_t *out)
{
    static const form f = {16, 0, 3, 0, 15, true};
    block b = {0};
    if (!make_block(x, &f, &b))
        return false;
    memset(out, 0, 84);
    for (int g = 0; g < 16; g++)
        out[g] = (uint8_t)(b.scale[g] | b.min[g] << 4);
    for (int i = 0; i < N; i++)
        put_two_bits(out + 16, i, b.q[i]);
    put_half(out + 80, b.d);
    put_half(out + 82, b.dmin);
    return true;
}

bool sm_save_q3_k(const float *x, uint8_t *out)
{
    static const form f = {16, -4, 3, -32, 31, false};
    block b = {0};
    if (!make_block(x, &f, &b))
        return false;
    memset(out, 0, 110);
    for (int i = 0; i < N; i++) {
        put_two_bits(out + 32, i, b.q[i] + 4);
        out[i % 32] |= (uint8_t)(((b.q[i] + 4) >> 2) << i / 32);
    }
    for (int g = 0; g < 16; g++) { /* low four bits in byte g % 8, high two in byte 8 + g % 4 */
        int s = b.scale[g] + 32;
        out[96 + g % 8] |= (uint8_t)((s & 15) << g / 8 * 4);
        out[104 + g % 4] |= (uint8_t)((s >> 4) << g / 4 * 2);
    }
    put_half(out + 108, b.d);
    return true;
}

/* d, dmin and the 12 bytes of six-bit scales and offsets of 8 groups: the first four lie low in bytes 0..3 and 4..7, whose top
 * two bits complete the nibbles of bytes 8..11 to the last four. */
static void put_scales(const block *b, uint8_t *out)
{
    put_half(out, b->d);
    put_half(out + 2, b->dmin);
    uint8_t *s = out + 4;
    for (int g = 0; g < 4; g++) {
        s[g] = (uint8_t)(b->scale[g] | b->scale[4 + g] >> 4 << 6);
        s[4 + g] = (uint8_t)(b->min[g] | b->min[4 + g] >> 4 << 6);
        s[8 + g] = (uint8_t)((b->scale[4 + g] & 15) | (b->min[4 + g] & 15) << 4);
    }
}

/* Within each quarter of 64 values, byte l of the nibbles holds values l and 32 + l. */
static void put_nibble(uint8_t *p, int i, int q) { p[i / 64 * 32 + i % 32] |= (uint8_t)((q & 15) << i / 32 % 2 * 4); }

bool sm_save_q4_k(const float *x, uint8_t *out)
{
    static const form f = {32, 0, 15, 0, 63, true};
    block b = {0};
    if (!make_block(x, &f, &b))
        return false;
    memset(out, 0, 144);
    put_scales(&b, out);
    for (int i = 0; i < N; i++)
        put_nibble(out + 16, i, b.q[i]);
    return true;
}

bool sm_save_q5_k(const float *x, uint8_t *out)
{
    static const form f = {32, 0, 31, 0, 63, true};
    block b = {0};
    if (!make_block(x, &f, &b))
        return false;
    memset(out, 0, 176);
    put_scales(&b, out);
    for (int i = 0; i < N; i++) {
        put_nibble(out + 48, i, b.q[i]);
        out[16 + i % 32] |= (uint8_t)((b.q[i] >> 4) << i / 32);
    }
    return true;
}

bool sm_save_q6_k(const float *x, uint8_t *out)
{
    static const form f = {16, -32, 31, -128, 127, false};
    block b = {0};
    if (!make_block(x, &f, &b))
        return false;
    memset(out, 0, 210);
    for (int i = 0; i < N; i++) {
        int q = b.q[i] + 32; /* byte l of a half's nibbles holds values l and 64 + l */
        out[i / 128 * 64 + i % 64] |= (uint8_t)((q & 15) << i / 64 % 2 * 4);
        put_two_bits(out + 128, i, q >> 4);
    }
    for (int g = 0; g < 16; g++)
        out[192 + g] = (uint8_t)(int8_t)b.scale[g];
    put_half(out + 208, b.d);
    return true;
}
