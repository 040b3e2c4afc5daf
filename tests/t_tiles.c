/* The autoencoder in tiles against itself untiled: exactly equal where statistics are, no step at the seams, bounded memory. */
#include "test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/cpu.h"
#include "pipeline/vae_tiles.h"

typedef struct vae {
    sm_vae_config c;
    sm_weights *w;
    sm_pool *pool;
    const sm_backend *be;
    sm_err e;
} vae;

/* Random weights; the invented ones have biases of zero and norms of one, which would hide mistakes, so all vectors move. */
static bool vae_open(vae *v, bool encode)
{
    static const nn_init init = {.seed = 5};
    *v = (vae){.c = {.in_channels = 3, .out_channels = 3, .latent_channels = 4, .blocks = 3, .block_out_channels = {8, 16, 16},
                     .layers_per_block = 1, .norm_num_groups = 4, .use_quant_conv = true, .use_post_quant_conv = true,
                     .mid_block_add_attention = true}};
    v->be = sm_cpu_backend(NULL, &v->e);
    v->w = sm_weights_new(NULL, &v->e);
    v->pool = sm_pool_new(NULL, 2, &v->e);
    sm_graph *g = sm_graph_new(NULL, &v->e);
    nn_scope root = nn_root(g, v->w, &init), s = nn_sub(&root, "vae");
    if (encode)
        sm_vae_encode(&s, &v->c, sm_input(g, "image", SM_F32, 4, (int64_t[]){1, 16, 16, 3}));
    else
        sm_vae_decode(&s, &v->c, sm_input(g, "z", SM_F32, 4, (int64_t[]){1, 4, 4, 4}));
    for (size_t i = 0; i < sm_weights_count(v->w); i++) {
        sm_weight *t = sm_weights_at(v->w, i);
        float x[64];
        for (int64_t k = 0; t->t.rank == 1 && k < t->t.dims[0]; k++) {
            if (k % 64 == 0)
                test_fill(x, 64, i + 1, -0.2f, 0.2f);
            ((float *)t->t.data)[k] += x[k % 64];
        }
        t->mutable_data = false;
    }
    CHECKF(!g->err.code && !v->e.code, "%s%s", g->err.msg, v->e.msg);
    bool ok = !g->err.code && !v->e.code;
    sm_graph_free(g);
    return ok;
}

static void vae_close(vae *v)
{
    sm_pool_free(v->pool);
    sm_weights_unref(&v->w);
}

/* The untiled computation, of a recording of its own; circular as in a scope. */
static float *untiled(vae *v, bool encode, const float *x, int h, int w, const int circular[2])
{
    int f = sm_vae_factor(&v->c);
    sm_graph *g = sm_graph_new(NULL, &v->e);
    nn_scope root = nn_root(g, v->w, NULL), s = nn_sub(&root, "vae");
    s.circular[0] = circular[0];
    s.circular[1] = circular[1];
    sm_node *in = encode ? sm_input(g, "image", SM_F32, 4, (int64_t[]){1, h * f, w * f, 3})
                         : sm_input(g, "z", SM_F32, 4, (int64_t[]){1, h, w, 4});
    sm_node *out = encode ? sm_vae_encode(&s, &v->c, in) : sm_vae_decode(&s, &v->c, in);
    sm_plan *p = sm_plan_new(g, 1, &out, v->be, &v->e);
    float *y = malloc(sizeof *y * (size_t)sm_numel(out));
    if (p) {
        memcpy(sm_plan_data(p, in), x, sizeof *x * (size_t)sm_numel(in));
        sm_plan_run(p, v->pool, NULL, &v->e);
        memcpy(y, sm_plan_data(p, out), sizeof *y * (size_t)sm_numel(out));
    }
    CHECKF(!v->e.code, "%s", v->e.msg);
    sm_plan_free(p);
    sm_graph_free(g);
    return y;
}

static float *tiled(vae *v, bool encode, const float *x, int h, int w, int tile, int rounds, const int circular[2])
{
    int f = sm_vae_factor(&v->c);
    size_t n = encode ? (size_t)(h * w * 8) : (size_t)(h * w * f * f * 3);
    float *y = malloc(sizeof *y * n);
    sm_tiled_vae t = {.be = v->be, .pool = v->pool, .w = v->w, .component = "vae", .c = &v->c, .opts = {.packed = 1 << 20},
                      .tile = tile, .rounds = rounds, .circular = {circular[0], circular[1]}};
    sumi_status st = encode ? sm_vae_encode_tiled(&t, x, h, w, y, &v->e) : sm_vae_decode_tiled(&t, x, h, w, y, &v->e);
    CHECKF(!st, "%s", v->e.msg);
    return y;
}

/* Noise whose strength and mean change over the picture, so that tiles differ in their statistics. */
static float *uneven(int h, int w, int c)
{
    float *x = malloc(sizeof *x * (size_t)(h * w * c));
    test_fill(x, h * w * c, 3, -1, 1);
    for (int y = 0; y < h; y++)
        for (int i = 0; i < w * c; i++)
            x[y * w * c + i] = x[y * w * c + i] * (0.2f + 1.5f * (float)i / (float)(w * c)) + (y < h / 2 ? 0.8f : -0.3f);
    return x;
}

/* Largest mean |step| from a column of pixels to the next: where tiles meet (every `every` pixels), and elsewhere. */
static void steps(const float *x, int h, int w, int c, int every, double *seam, double *rest)
{
    *seam = *rest = 0;
    for (int col = 1; col < w; col++) {
        double s = 0, *to = col % every ? rest : seam;
        for (int y = 0; y < h; y++)
            for (int k = 0; k < c; k++)
                s += fabs((double)x[(y * w + col) * c + k] - x[(y * w + col - 1) * c + k]);
        *to = fmax(*to, s / (h * c));
    }
}

/* Weight of pixel i of n in a window that overlaps its neighbours by `over` pixels. */
static float ramp(int i, int n, int over, bool before, bool after)
{
    float a = before && i < over ? ((float)i + 0.5f) / (float)over : 1;
    float b = after && i >= n - over ? ((float)(n - i) - 0.5f) / (float)over : 1;
    return a * b;
}

/* What peers do: windows that overlap by a quarter, each with statistics of its own, blended. */
static float *blended(vae *v, const float *z, int h, int w, int tile)
{
    static const int plain[2] = {0, 0};
    int f = sm_vae_factor(&v->c), step = tile * 3 / 4, over = (tile - step) * f;
    float *sum = calloc((size_t)(h * w * f * f * 3), sizeof *sum), *weight = calloc((size_t)(h * w * f * f), sizeof *weight);
    for (int y = 0; y < h; y += step)
        for (int x = 0; x < w; x += step) {
            int th = SM_MIN(tile, h - y), tw = SM_MIN(tile, w - x);
            float *part = malloc(sizeof *part * (size_t)(th * tw * 4));
            for (int i = 0; i < th; i++)
                memcpy(part + i * tw * 4, z + ((y + i) * w + x) * 4, sizeof *part * (size_t)(tw * 4));
            float *t = untiled(v, false, part, th, tw, plain);
            for (int i = 0; i < th * f * tw * f; i++) {
                int row = i / (tw * f), col = i % (tw * f), at = (y * f + row) * w * f + x * f + col;
                float a = ramp(row, th * f, over, y > 0, y + tile < h) * ramp(col, tw * f, over, x > 0, x + tile < w);
                weight[at] += a;
                for (int k = 0; k < 3; k++)
                    sum[at * 3 + k] += a * t[i * 3 + k];
            }
            free(part);
            free(t);
        }
    for (int i = 0; i < h * w * f * f * 3; i++)
        sum[i] /= weight[i / 3];
    free(weight);
    return sum;
}

/* The RMS of a - b; a becomes it. */
static double difference(float *a, const float *b, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        a[i] -= b[i];
    return test_rms(a, n);
}

/* As many rounds as there are norms: nothing is left of the sample's error. */
TEST(tiles_decode_equals_untiled_with_all_statistics)
{
    static const int plain[2] = {0, 0}, around[2] = {1, 1};
    vae v;
    if (vae_open(&v, false)) {
        float *z = uneven(37, 52, 4), *want = untiled(&v, false, z, 37, 52, plain),
              *got = tiled(&v, false, z, 37, 52, 24, 12, plain);
        int64_t n = 37 * 52 * 16 * 3;
        double d = test_maxdiff(got, want, n), rms = test_rms(want, n);
        CHECKF(d <= 1e-4 * rms, "differs by %.3g of rms %.3g", d, rms);
        free(want);
        free(got);
        want = untiled(&v, false, z, 37, 52, around);
        got = tiled(&v, false, z, 37, 52, 24, 12, around);
        d = test_maxdiff(got, want, n);
        CHECKF(d <= 1e-4 * rms, "circular: differs by %.3g of rms %.3g", d, rms);
        free(want);
        free(got);
        free(z);
    }
    vae_close(&v);
}

TEST(tiles_encode_equals_untiled_with_all_statistics)
{
    static const int plain[2] = {0, 0};
    vae v;
    if (vae_open(&v, true)) {
        float *x = uneven(4 * 41, 4 * 30, 3), *want = untiled(&v, true, x, 41, 30, plain);
        float *got = tiled(&v, true, x, 41, 30, 20, 12, plain);
        double d = test_maxdiff(got, want, 41 * 30 * 8), rms = test_rms(want, 41 * 30 * 8);
        CHECKF(d <= 1e-4 * rms, "differs by %.3g of rms %.3g", d, rms);
        free(want);
        free(got);
        free(x);
    }
    vae_close(&v);
}

/* One round: where tiles meet, what differs from the untiled picture steps no more than elsewhere, and far less than the
 * picture; it is less than what blended tiles differ by. */
TEST(tiles_have_no_seams)
{
    static const int plain[2] = {0, 0};
    enum { H = 60, W = 64, N = H * W * 48, MEET = 16 * 4 }; /* window 24, reach 4: tiles of 16 cells */
    vae v;
    if (vae_open(&v, false)) {
        CHECK(sm_vae_reach(&v.c, false) == 4);
        float *z = uneven(H, W, 4), *want = untiled(&v, false, z, H, W, plain), *got = tiled(&v, false, z, H, W, 24, 1, plain);
        float *peers = blended(&v, z, H, W, 24);
        double seam, rest, seam0, rest0;
        steps(want, H * 4, W * 4, 3, MEET, &seam0, &rest0);
        double rms = test_rms(want, N), d = difference(got, want, N), theirs = difference(peers, want, N);
        CHECKF(d < 0.15 * rms && d < 0.5 * theirs, "differs by %.3g of the rms, blended tiles by %.3g", d / rms, theirs / rms);
        steps(got, H * 4, W * 4, 3, MEET, &seam, &rest);
        CHECKF(seam <= rest && seam < 0.3 * seam0,
               "the difference steps by %.3g at seams, %.3g elsewhere; the picture by %.3g, %.3g", seam, rest, seam0, rest0);
        free(peers);
        free(want);
        free(got);
        free(z);
    }
    vae_close(&v);
}

/* What fits is not cut, and has the bits of the untiled computation. */
TEST(tiles_small_pictures_are_computed_whole)
{
    static const int plain[2] = {0, 0};
    vae v;
    if (vae_open(&v, false)) {
        float *z = uneven(9, 12, 4), *want = untiled(&v, false, z, 9, 12, plain), *got = tiled(&v, false, z, 9, 12, 24, 1, plain);
        CHECK(!memcmp(want, got, sizeof(float) * 9 * 12 * 48));
        free(want);
        free(got);
        free(z);
    }
    vae_close(&v);
}

/* The plan of a tiled picture says what it takes, and that grows by little with the picture. */
TEST(tiles_plan_foresees_memory)
{
    vae v;
    if (vae_open(&v, false)) {
        static sm_mem mem;
        sm_vae_tiles_info small, large, whole;
        sm_tiled_vae t = {.mem = &mem, .be = v.be, .pool = v.pool, .w = v.w, .component = "vae", .c = &v.c, .tile = 48};
        CHECK(!sm_vae_tiles_plan(&t, false, 96, 96, &small, &v.e));
        CHECK(!sm_vae_tiles_plan(&t, false, 192, 192, &large, &v.e));
        t.tile = 192;
        CHECK(!sm_vae_tiles_plan(&t, false, 192, 192, &whole, &v.e));
        t.tile = 48;
        CHECKF(whole.down == 1 && large.down == 5 && large.across == 5, "%d and %dx%d tiles", whole.down,
               large.down, large.across);
        CHECKF(large.bytes < whole.bytes / 2, "%zu bytes in tiles, %zu whole", large.bytes, whole.bytes);
        CHECKF(large.flops < 2 * whole.flops, "%.3g flops in tiles, %.3g whole", large.flops, whole.flops);
        float *z = uneven(96, 96, 4), *out = malloc(sizeof *out * 96 * 96 * 48);
        mem.peak = mem.total;
        CHECKF(!sm_vae_decode_tiled(&t, z, 96, 96, out, &v.e), "%s", v.e.msg);
        double peak = (double)mem.peak, said = (double)small.bytes; /* beside graphs and the room to align a plan's memory */
        CHECKF(peak > 0.9 * said && peak < 1.1 * said + 3e6, "%.0f bytes, %.0f foreseen", peak, said);
        free(z);
        free(out);
    }
    vae_close(&v);
}
