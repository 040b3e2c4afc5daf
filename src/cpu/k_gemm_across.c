/* Panels of a right operand whose steps are runs in memory: value (tap, k, j) is element base + k * step + j * taps + tap. So
 * lies a weight [O, C, kh, kw] that gradients of the layer's input are multiplied by. A step's columns become f32 side by side in
 * L1 and leave it a tap apart. */
#include "cpu/gemm.h"

/* LINES: steps are pages apart as a rule, so no hardware fetches them ahead; about so many lines are asked for at a time. */
enum { MOST_TAPS = 16, LINES = 40 };

bool SM_K(sm_gemm_runs_across)(const sm_pack_src *s)
{
    return s->col == s->taps && s->taps <= MOST_TAPS && (s->taps == 1 || (s->taps >= 4 && s->tap_step == 1));
}

static inline __attribute__((always_inline)) void widen(const uint16_t *p, int64_t n, bool half, float *out)
{
    int64_t i = 0;
    for (; i + SM_VL <= n; i += SM_VL)
        vstore(out + i, half ? vload_f16(p + i) : vload_bf16(p + i));
    for (; i < n; i++)
        out[i] = half ? sm_f16_f32(p[i]) : sm_bf16_f32(p[i]);
}

static void values(const sm_tensor *t, int64_t at, int64_t n, float *out)
{
    const uint16_t *p = (const uint16_t *)t->data + at;
    if (t->dtype == SM_F32)
        memcpy(out, (const float *)t->data + at, (size_t)n * sizeof *out);
    else if (t->dtype == SM_F16)
        widen(p, n, true, out);
    else if (t->dtype == SM_BF16)
        widen(p, n, false, out);
    else
        sm_load_values(t, at, n, out);
}

/* x [width][taps] to out [taps][apart]. */
static inline __attribute__((always_inline)) void part_taps(const float *x, int width, int taps, float *out, int64_t apart)
{
    for (int j = 0; j < width; j += 4)
        for (int tap = 0; tap < taps; tap += 4) {
            int from = tap + 4 <= taps ? tap : taps - 4; /* the last four come twice in part */
            sm_transpose4(x + j * taps + from, taps, out + from * apart + j, apart);
        }
}

void SM_K(sm_gemm_pack_across)(const sm_pack_src *s, int64_t j, const int64_t steps[2], int width, int cols, float *out)
{
    float x[SM_NR * MOST_TAPS];
    int taps = (int)s->taps;
    /* of a run, of a step */
    int64_t run = (int64_t)cols * taps, bytes = (int64_t)sm_dtype_bytes(s->t.dtype, s->step * s->k) / s->k;
    int64_t lines = ((int64_t)(sm_dtype_bytes(s->t.dtype, SM_MAX_BLOCK) * (size_t)run) / SM_MAX_BLOCK + 63) / 64 + 1;
    const char *from = (const char *)s->t.data + sm_dtype_bytes(s->t.dtype, s->base + j * taps);
    int64_t ahead = SM_MAX(LINES / lines, 4);
    memset(x, 0, sizeof x);
    for (int64_t k = steps[0]; k < steps[1]; k++) {
        int64_t at = s->base + k * s->step + j * taps;
        for (int64_t l = 0; l < lines; l++)
            __builtin_prefetch(from + (k + ahead) * bytes + 64 * l);
        if (taps == 1) {
            values(&s->t, at, cols, out + k * width);
            continue;
        }
        values(&s->t, at, run, x);
        if (taps == 9)
            part_taps(x, width, 9, out + k * width, s->k * width);
        else
            part_taps(x, width, taps, out + k * width, s->k * width);
    }
}
