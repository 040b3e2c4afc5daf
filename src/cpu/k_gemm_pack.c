/* Panels of the right operand, and how a product is cut into pieces. */
#include "cpu/gemm.h"
#include "cpu/turn.h"

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

/* Any strides: columns [c0, c1) of the panel, steps [k0, k1). The smaller source stride runs innermost. */
static inline __attribute__((always_inline)) void pack_as(load_fn *load, const sm_pack_src *s, int64_t j0, const int cols[2],
                                                          const int64_t steps[2], int width, float *out)
{
    for (int64_t k0 = steps[0]; k0 < steps[1]; k0 += 16) { /* few enough to keep the written lines in the cache */
        int64_t kn = SM_MIN(16, steps[1] - k0), cn = cols[1] - cols[0];
        bool cols_inner = s->col < s->step;
        int64_t outer = cols_inner ? kn : cn, inner = cols_inner ? cn : kn;
        for (int64_t o = 0; o < outer; o++)
            for (int64_t i = 0; i < inner; i++) {
                int64_t k = k0 + (cols_inner ? o : i), j = cols[0] + (cols_inner ? i : o);
                int64_t at = s->base + (j0 + j) * s->col + k * s->step;
                for (int64_t tap = 0; tap < s->taps; tap++)
                    out[(tap * s->k + k) * width + j] = load(s->t.data, at + tap * s->tap_step);
            }
    }
}

static void pack_any(const sm_pack_src *s, int64_t j, const int cols[2], const int64_t steps[2], int width, float *out)
{
    if (s->t.dtype == SM_F16)
        pack_as(load_f16, s, j, cols, steps, width, out);
    else if (s->t.dtype == SM_BF16)
        pack_as(load_bf16, s, j, cols, steps, width, out);
    else if (s->t.dtype != SM_F32)
        SM_K(sm_gemm_pack_stored)(s, j, cols, steps, width, out);
    else
        pack_as(load_f32, s, j, cols, steps, width, out);
}

/* A column of a weight as checkpoints store it is one run of k * taps values. RUN values of ROWS columns at a time become
 * f32 in a block that stays in L1 and leave it transposed, four by four. PAD keeps its rows in different sets. */
enum { ROWS = 16, RUN = SM_MAX_BLOCK, PAD = 16 };

static void run_f32(const sm_tensor *t, int64_t at, int64_t n, float *out)
{
    int64_t i = 0;
    if (t->dtype > SM_BF16) {
        sm_load_values(t, at, n, out);
        return;
    }
    if (t->dtype == SM_F32) {
        memcpy(out, (const float *)t->data + at, (size_t)n * sizeof *out);
        return;
    }
    const uint16_t *p = (const uint16_t *)t->data + at;
    if (t->dtype == SM_F16) {
        for (; i + SM_VL <= n; i += SM_VL)
            vstore(out + i, vload_f16(p + i));
        for (; i < n; i++)
            out[i] = load_f16(p, i);
        return;
    }
    for (; i + SM_VL <= n; i += SM_VL)
        vstore(out + i, vload_bf16(p + i));
    for (; i < n; i++)
        out[i] = load_bf16(p, i);
}

/* y[r[i]] of four rows = column i of a 4x4 block. */
static inline void transpose_to(const float *x, int64_t xs, float *const r[4])
{
    typedef float v4 __attribute__((vector_size(16)));
    v4 a, b, c, d;
    memcpy(&a, x, 16);
    memcpy(&b, x + xs, 16);
    memcpy(&c, x + 2 * xs, 16);
    memcpy(&d, x + 3 * xs, 16);
    v4 ab = __builtin_shufflevector(a, b, 0, 4, 1, 5), ba = __builtin_shufflevector(a, b, 2, 6, 3, 7);
    v4 cd = __builtin_shufflevector(c, d, 0, 4, 1, 5), dc = __builtin_shufflevector(c, d, 2, 6, 3, 7);
    a = __builtin_shufflevector(ab, cd, 0, 1, 4, 5);
    b = __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
    c = __builtin_shufflevector(ba, dc, 0, 1, 4, 5);
    d = __builtin_shufflevector(ba, dc, 2, 3, 6, 7);
    memcpy(r[0], &a, 16);
    memcpy(r[1], &b, 16);
    memcpy(r[2], &c, 16);
    memcpy(r[3], &d, 16);
}

/* A run's next values: the block after this one is of the same runs as a rule. Runs lie pages apart, so no hardware fetches them
 * ahead, and weights of a model larger than the caches come from memory in every run. */
static inline void fetch_run(const sm_tensor *t, int64_t at, int64_t n)
{
    const char *p = (const char *)t->data + sm_dtype_bytes(t->dtype, at), *end = p + sm_dtype_bytes(t->dtype, n);
    for (; p < end; p += 64)
        __builtin_prefetch(p);
}

/* Columns [c0, c0 + ROWS) of the panel at out, values [v0, v0 + n) of each one's run. */
static void turn_block(const sm_pack_src *s, int64_t j, int64_t v0, int64_t n, int width, float *out)
{
    float x[ROWS * (RUN + PAD)];
    for (int r = 0; r < ROWS; r++) {
        int64_t at = s->base + (j + r) * s->col + v0;
        fetch_run(&s->t, at + n, n);
        run_f32(&s->t, at, n, x + r * (RUN + PAD));
    }
    int64_t k = v0 / s->taps, tap = v0 % s->taps;
    for (int64_t v = 0; v < n; v += 4) {
        float *row[4];
        float spare[ROWS]; /* for rows past the end */
        for (int i = 0; i < 4; i++) {
            row[i] = v + i < n ? out + (tap * s->k + k) * width : spare;
            if (++tap == s->taps) {
                tap = 0;
                k++;
            }
        }
        for (int c = 0; c < ROWS; c += 4) {
            float *const at[4] = {row[0] + c, row[1] + c, row[2] + c, row[3] + c};
            transpose_to(x + c * (RUN + PAD) + v, RUN + PAD, at);
        }
    }
}

/* Values [v0, v1) of SM_VL columns by k_turn.c, as far as that goes: returns where it ended. */
static int64_t turn_columns(const sm_pack_src *s, int64_t j, int64_t v0, int64_t v1, int width, float *out)
{
    enum { FEW = 32 };
    float x[FEW * SM_VL];
    int64_t at = s->base + j * s->col, part = ((int64_t)1 << sm_turn_unit_shift(s->t.dtype)) - 1;
    if (!sm_turn_fits(&s->t, at + v0, s->col))
        return v0;
    int64_t ahead = (int64_t)1 << sm_turn_shift(s->t.dtype); /* a block's scales may be at its end */
    v1 -= (v1 - v0) & part;
    for (int64_t v = v0, n; v < v1; v += n) {
        n = SM_MIN(s->taps == 1 ? RUN : FEW, v1 - v);
        SM_K(sm_turn_fetch)(&s->t, at + v + SM_MAX(n, ahead), s->col, n, SM_VL);
        if (s->taps == 1) {
            SM_K(sm_turn)(&s->t, at + v, s->col, n, out + v * width, width);
            continue;
        }
        SM_K(sm_turn)(&s->t, at + v, s->col, n, x, SM_VL);
        int64_t k = v / s->taps, tap = v % s->taps;
        for (int64_t i = 0; i < n; i++) {
            vstore(out + (tap * s->k + k) * width, vload(x + i * SM_VL));
            if (++tap == s->taps) {
                tap = 0;
                k++;
            }
        }
    }
    return v1;
}

static void pack_runs(const sm_pack_src *s, int64_t j, int cols, const int64_t steps[2], int width, float *out)
{
    int64_t v0 = steps[0] * s->taps, v1 = steps[1] * s->taps, from = v1;
    int c = 0;
    for (int wide; c + SM_VL <= cols; c += wide) {
        wide = c + ROWS <= cols ? ROWS : SM_VL;
        for (int l = 0; l < wide; l += SM_VL)
            from = turn_columns(s, j + c + l, v0, v1, width, out + c + l);
        for (int64_t v = from; v < v1 && wide == ROWS; v += RUN)
            turn_block(s, j + c, v, SM_MIN(RUN, v1 - v), width, out + c);
        if (from < v1 && wide < ROWS)
            break;
    }
    if (c < cols)
        pack_any(s, j, (const int[]){c, cols}, steps, width, out);
}

static void pack_rows(const sm_pack_src *s, int64_t j, int cols, const int64_t steps[2], int width, float *out)
{
    const float *p = (const float *)s->t.data + s->base + j;
    for (int64_t k = steps[0]; k < steps[1]; k++) {
        for (int l = 0; l < cols; l += 16)
            __builtin_prefetch(p + (k + 16) * s->step + l);
        if (cols == SM_NR)
            memcpy(out + k * SM_NR, p + k * s->step, SM_NR * sizeof(float));
        else
            memcpy(out + k * width, p + k * s->step, (size_t)cols * sizeof(float));
    }
}

void SM_K(sm_gemm_pack)(const sm_pack_src *s, int64_t j, const int64_t steps[2], float *out)
{
    int width = sm_panel_width(s->n, j), cols = (int)SM_MIN(width, s->n - j);
    for (int64_t tap = 0; tap < s->taps && cols < width; tap++)
        memset(out + (tap * s->k + steps[0]) * width, 0, (size_t)((steps[1] - steps[0]) * width) * sizeof *out);
    if (s->t.dtype == SM_F32 && s->col == 1 && s->taps == 1)
        pack_rows(s, j, cols, steps, width, out);
    else if (s->step == s->taps && (s->taps == 1 || s->tap_step == 1))
        pack_runs(s, j, cols, steps, width, out);
    else if (SM_K(sm_gemm_runs_across)(s))
        SM_K(sm_gemm_pack_across)(s, j, steps, width, cols, out);
    else
        pack_any(s, j, (const int[]){0, cols}, steps, width, out);
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
