/* Panels of the right operand, and how a product is cut into pieces. */
#include "cpu/gemm.h"

typedef float load_fn(const void *p, int64_t i);
static inline float load_f32(const void *p, int64_t i) { return ((const float *)p)[i]; }
static inline float load_f16(const void *p, int64_t i)
{
#if SM_VL == 4
    return (float)((const __fp16 *)p)[i];
#else
    return _cvtsh_ss(((const uint16_t *)p)[i]);
#endif
}
static inline float load_bf16(const void *p, int64_t i)
{
    uint32_t u = (uint32_t)((const uint16_t *)p)[i] << 16;
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

/* Blocks of 16 steps keep the written lines in the cache. Within one, the smaller source stride runs innermost. */
static inline __attribute__((always_inline)) void pack_as(load_fn *load, const sm_pack_src *s, int64_t j0, int cols, int width, float *out)
{
    for (int64_t k0 = 0; k0 < s->k; k0 += 16) {
        int64_t k1 = SM_MIN(k0 + 16, s->k), kn = k1 - k0;
        bool cols_inner = s->col < s->step;
        int64_t outer = cols_inner ? kn : cols, inner = cols_inner ? cols : kn;
        for (int64_t o = 0; o < outer; o++)
            for (int64_t i = 0; i < inner; i++) {
                int64_t k = k0 + (cols_inner ? o : i), j = cols_inner ? i : o, at = s->base + (j0 + j) * s->col + k * s->step;
                for (int64_t tap = 0; tap < s->taps; tap++)
                    out[(tap * s->k + k) * width + j] = load(s->t.data, at + tap * s->tap_step);
            }
    }
}

static void pack_rows(const sm_pack_src *s, int64_t j, int cols, int width, float *out)
{
    const float *p = (const float *)s->t.data + s->base + j;
    if (cols == SM_NR)
        for (int64_t k = 0; k < s->k; k++)
        {
            for (int l = 0; l < SM_NR; l += 16)
                __builtin_prefetch(p + (k + 16) * s->step + l);
            memcpy(out + k * SM_NR, p + k * s->step, SM_NR * sizeof(float));
        }
    else
        for (int64_t k = 0; k < s->k; k++)
            memcpy(out + k * width, p + k * s->step, (size_t)cols * sizeof(float));
}

void SM_K(sm_gemm_pack)(const sm_pack_src *s, int64_t j, float *out)
{
    int width = sm_panel_width(s->n, j), cols = (int)SM_MIN(width, s->n - j);
    if (cols < width)
        memset(out, 0, (size_t)(s->taps * s->k * width) * sizeof *out);
    if (s->t.dtype == SM_F16)
        pack_as(load_f16, s, j, cols, width, out);
    else if (s->t.dtype == SM_BF16)
        pack_as(load_bf16, s, j, cols, width, out);
    else if (s->col == 1 && s->taps == 1)
        pack_rows(s, j, cols, width, out);
    else
        pack_as(load_f32, s, j, cols, width, out);
}

/* Estimated time of a cut: padded arithmetic at 32 multiply-adds a cycle, operands re-read by every piece at four floats
 * a cycle, 3000 cycles a piece, idle threads at the end for two to four threads. */
static double grid_cost(int64_t m, int64_t n, double k, double a, int tm, int tn)
{
    double rows = (double)((m + tm - 1) / tm + SM_MR - 1) / SM_MR * SM_MR * tm;
    double cols = (double)((sm_panels(n) + tn - 1) / tn) * SM_NR * tn, idle = 0;
    int pieces = tm * tn;
    for (int t = 2; t <= 4; t++)
        idle += (double)((pieces + t - 1) / t * t) / pieces / 3;
    return rows * cols * k / 32 * idle + 0.25 * (tm * k * (double)n + tn * (double)m * a) + 3000.0 * pieces;
}

sm_grid SM_K(sm_gemm_grid)(int64_t m, int64_t n, double k, double a, int most)
{
    static const int cuts[] = {1, 2, 3, 4, 6, 8, 12, 16, 24, 32};
    sm_grid best = {1, 1};
    double least = grid_cost(m, n, k, a, 1, 1);
    for (size_t i = 0; i < SM_COUNT(cuts); i++)
        for (size_t j = 0; j < SM_COUNT(cuts) && cuts[i] * cuts[j] <= most; j++) {
            if ((cuts[i] > 1 && m < cuts[i] * SM_MR) || cuts[j] > sm_panels(n))
                break;
            double c = grid_cost(m, n, k, a, cuts[i], cuts[j]);
            if (c < least) {
                least = c;
                best = (sm_grid){cuts[i], cuts[j]};
            }
        }
    return best;
}

void SM_K(sm_gemm_piece)(sm_grid g, int piece, int64_t m, int64_t n, int64_t r[2], int64_t j[2])
{
    sm_range(m, piece % g.tm, g.tm, &r[0], &r[1]);
    sm_range(sm_panels(n), piece / g.tm, g.tn, &j[0], &j[1]);
    j[0] *= SM_NR;
    j[1] = SM_MIN(j[1] * SM_NR, n);
}
