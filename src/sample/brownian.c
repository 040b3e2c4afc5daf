/* Brownian paths (see brownian.h). */
#include "sample/brownian.h"

#include <math.h>
#include <string.h>

#include "base/rng.h"
#include "base/seedseq.h"

sumi_status sm_brownian_open(sm_brownian *b, sm_mem *mem, size_t n, sm_normals *torch, sm_err *e)
{
    size_t bytes;
    *b = (sm_brownian){.n = n, .torch = torch};
    if (sm_mul_ok(n, 3 * sizeof(double) + sizeof(float), &bytes))
        b->block = sm_alloc(mem, SM_MEM_MISC, bytes);
    if (!b->block)
        return sm_fail(e, SUMI_E_MEMORY, "out of memory for a Brownian path of %zu numbers", n);
    b->point[0] = b->block;
    b->point[1] = b->point[0] + n;
    b->part = b->point[1] + n;
    b->room = (float *)(b->part + n);
    return SUMI_OK;
}

void sm_brownian_close(sm_brownian *b)
{
    sm_free(b->block);
    *b = (sm_brownian){0};
}

/* ---- both ---- */

/* Levy's construction: part is how much the path grows over an interval of length left + right, the normals in room tell how much
 * of that in its left part. part becomes the left's or, where point is to lie in the right, the right's, and point moves over the
 * left. */
static void halve(sm_brownian *b, double left, double right, bool go_left, double *point)
{
    double share = left / (left + right), k = sqrt(left * right / (left + right));
    for (size_t i = 0; i < b->n; i++) {
        double grown = share * b->part[i] + k * b->room[i];
        if (go_left)
            b->part[i] = grown;
        else {
            point[i] += grown;
            b->part[i] -= grown;
        }
    }
}

/* ---- torchsde's ---- */

enum { ENTROPY_POOL = 24 };

/* Python's round(x, 6): to the nearest millionth of the exact value, halves to even. The product's error tells what rounding
 * hid. */
static double millionth(double x)
{
    double p = x * 1e6, err = fma(x, 1e6, -p), r = rint(p), d = (p - r) + err;
    if (d > 0.5)
        r += 1;
    else if (d < -0.5)
        r -= 1;
    return r / 1e6;
}

/* point = B(t) - B(low), t in the range. */
static void torch_point(sm_brownian *b, double t, double *point)
{
    double start = millionth(b->low), end = millionth(b->high);
    uint64_t key[2] = {0, 0}; /* the interval among those of its depth, and the depth */
    memset(point, 0, sizeof *point * b->n);
    t = millionth(fmin(fmax(t, b->low), b->high));
    if (t <= start)
        return;
    b->torch(sm_seedseq_word(b->seed, NULL, 0, ENTROPY_POOL), b->room, b->n);
    for (size_t i = 0; i < b->n; i++)
        b->part[i] = sqrt(b->high - b->low) * b->room[i];
    while (t < end) {
        double mid = millionth(0.5 * (end + start));
        bool left = t <= mid;
        b->torch(sm_seedseq_word(b->seed, key, 2, ENTROPY_POOL), b->room, b->n);
        halve(b, mid - start, end - mid, left, point);
        *(left ? &end : &start) = mid;
        key[0] = 2 * key[0] + !left;
        key[1]++;
    }
    for (size_t i = 0; i < b->n; i++)
        point[i] += b->part[i];
}

/* ---- sumi's own ---- */

/* Streams of a picture's seed. Octave e, from 2^e to 2^(e + 1), has those from TREE + (e + 2048) 2^40: its whole, then as in a
 * heap its halves. Below TREE are the start and the draws of other samplers. */
static const uint64_t TREE = (uint64_t)1 << 62;
enum { DEPTH = 20 };

static void own_normals(sm_brownian *b, int octave, uint64_t node)
{
    sm_rng_normal(b->seed, TREE + ((uint64_t)(octave + 2048) << 40) + node, 0, b->room, b->n);
}

/* point = B(t), t rounded to 2^-20 of its octave. */
static void own_point(sm_brownian *b, double t, double *point)
{
    int octave;
    double f = 2 * frexp(t, &octave) - 1;
    octave--; /* t = 2^octave (1 + f) */
    uint32_t cell = (uint32_t)rint(f * (1 << DEPTH));
    memset(point, 0, sizeof *point * b->n);
    for (int o = SM_MIN(octave, 0); o < SM_MAX(octave, 0); o++) {
        double k = (octave < 0 ? -1 : 1) * sqrt(ldexp(1, o));
        own_normals(b, o, 0);
        for (size_t i = 0; i < b->n; i++)
            point[i] += k * b->room[i];
    }
    if (!cell)
        return;
    own_normals(b, octave, 0);
    for (size_t i = 0; i < b->n; i++)
        b->part[i] = sqrt(ldexp(1, octave)) * b->room[i];
    uint32_t start = 0, size = 1 << DEPTH;
    for (uint64_t node = 1; start + size != cell; size /= 2) {
        uint32_t mid = start + size / 2;
        bool left = cell <= mid;
        double half = ldexp(size / 2, octave - DEPTH);
        own_normals(b, octave, node);
        halve(b, half, half, left, point);
        start = left ? start : mid;
        node = 2 * node + !left;
    }
    for (size_t i = 0; i < b->n; i++)
        point[i] += b->part[i];
}

/* ---- asking ---- */

void sm_brownian_start(sm_brownian *b, uint64_t seed, double low, double high)
{
    b->seed = seed;
    b->low = (float)low;
    b->high = (float)high;
    b->at[0] = b->at[1] = 0;
}

/* B(t), kept as the newest point: a sampler asks for steps that begin where others do. */
static const double *point_at(sm_brownian *b, double t)
{
    if (b->at[0] == t)
        return b->point[0];
    bool known = b->at[1] == t;
    double *p = b->point[1];
    b->point[1] = b->point[0];
    b->at[1] = b->at[0];
    b->point[0] = p;
    b->at[0] = t;
    if (!known) {
        if (b->torch)
            torch_point(b, t, p);
        else
            own_point(b, t, p);
    }
    return p;
}

void sm_brownian_step(sm_brownian *b, double from, double to, float *out)
{
    if (b->torch) {
        from = (float)from;
        to = (float)to;
    }
    const double *high = point_at(b, from), *low = point_at(b, to);
    double k = from > to ? 1 / sqrt(from - to) : 0; /* float32 may not tell them apart */
    for (size_t i = 0; i < b->n; i++)
        out[i] = (float)(k * (low[i] - high[i]));
}
