/* Panels of a right operand that is stored as FP8 or in blocks: whole runs of its values become f32 at a time, so that a block's
 * scales are unpacked once. */
#include "cpu/gemm.h"

/* Values [v0, v0 + n) of the k * taps values of column c of the panel, from x. */
static void put_column(const sm_pack_src *s, const float *x, int64_t v0, int64_t n, int c, int width, float *out)
{
    int64_t k = v0 / s->taps, tap = v0 % s->taps;
    for (int64_t i = 0; i < n; i++) {
        out[(tap * s->k + k) * width + c] = x[i];
        if (++tap == s->taps) {
            tap = 0;
            k++;
        }
    }
}

/* A column is one run, as in a linear layer's weight and a convolution's. */
static void pack_columns(const sm_pack_src *s, int64_t j, const int cols[2], const int64_t steps[2], int width, float *out)
{
    float x[SM_MAX_BLOCK];
    for (int c = cols[0]; c < cols[1]; c++) {
        int64_t from = s->base + (j + c) * s->col;
        for (int64_t v = steps[0] * s->taps, end = steps[1] * s->taps, n; v < end; v += n) {
            n = SM_MIN(SM_MAX_BLOCK - (from + v) % SM_MAX_BLOCK, end - v);
            sm_load_values(&s->t, from + v, n, x);
            put_column(s, x, v, n, c, width, out);
        }
    }
}

/* A step's columns are one run, as where the gradient of a convolution's input is computed. */
static void pack_steps(const sm_pack_src *s, int64_t j, const int cols[2], const int64_t steps[2], int width, float *out)
{
    float x[SM_MAX_BLOCK];
    for (int64_t k = steps[0]; k < steps[1]; k++) {
        int64_t from = s->base + j * s->taps + k * s->step;
        for (int64_t v = cols[0] * s->taps, end = cols[1] * s->taps, n; v < end; v += n) {
            n = SM_MIN(SM_MAX_BLOCK - (from + v) % SM_MAX_BLOCK, end - v);
            sm_load_values(&s->t, from + v, n, x);
            for (int64_t i = 0; i < n; i++)
                out[((v + i) % s->taps * s->k + k) * width + (v + i) / s->taps] = x[i];
        }
    }
}

void SM_K(sm_gemm_pack_stored)(const sm_pack_src *s, int64_t j, const int cols[2], const int64_t steps[2], int width, float *out)
{
    bool runs = s->taps == 1 || s->tap_step == 1;
    if (runs && s->step == s->taps)
        pack_columns(s, j, cols, steps, width, out);
    else if (runs && s->col == s->taps)
        pack_steps(s, j, cols, steps, width, out);
    else
        for (int64_t k = steps[0]; k < steps[1]; k++)
            for (int64_t i = (int64_t)cols[0] * s->taps; i < (int64_t)cols[1] * s->taps; i++) {
                int64_t c = i / s->taps, tap = i % s->taps;
                sm_load_values(&s->t, s->base + (j + c) * s->col + k * s->step + tap * s->tap_step, 1,
                               &out[(tap * s->k + k) * width + c]);
            }
}
