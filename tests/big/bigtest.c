/* What a large model takes: bigtest make MODEL DIR writes it, bigtest PART DIR SIZE [low] runs one component in a process of its
 * own and prints the seconds and the most memory that was resident, mapped pages included (VmHWM), beside what the plan said.
 * PART: text, unet, decode, tiled, tiled-encode. bigtest output MODEL DIR FIXTURE compares the UNet's output with diffusers'
 * (tools/fixtures/make_big.py), through the public call. bigtest many DIR SIZE draws a hundred pictures in one context: nothing
 * may grow. */
#include "bigmodel.h"

#include <malloc.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/cpu.h"
#include "io/safetensors.h"
#include "io/tensors.h"
#include "pipeline/context.h"
#include "pipeline/vae_tiles.h"
#include "../process.h"
#include "sumi.h"

typedef struct run {
    const char *dir;
    sm_plan_opts opts;
    sm_weights *w;
    sm_pool *pool;
    const sm_backend *be;
    sm_err e;
    double started;
} run;

static void die(const char *what, const char *why)
{
    fprintf(stderr, "bigtest: %s: %s\n", what, why);
    exit(1);
}

/* A line of /proc/self/status, MB. */
static double status(const char *key) { return process_memory(key) * 1e-6; }

static void load(run *r, const big_part *part, void *config)
{
    char path[600], prefix[64];
    snprintf(path, sizeof path, "%s/%s", r->dir, part->name);
    snprintf(prefix, sizeof prefix, "%s.", part->name);
    r->started = sm_now();
    r->w = sm_weights_new(NULL, &r->e);
    if (!r->w || sm_tensors_load(path, r->w, prefix, NULL, &r->e) ||
        sm_config_read(part->kind, part->config, strlen(part->config), config, &r->e))
        die(path, r->e.msg);
}

static size_t weight_bytes(const sm_weights *w)
{
    size_t n = 0;
    for (size_t i = 0; i < sm_weights_count(w); i++)
        n += sm_weights_at(w, i)->bytes;
    return n;
}

/* Plans, fills the inputs with numbers of about unit size, runs, prints. */
static void measure(run *r, const char *what, sm_graph *g, sm_node *y, int inputs, sm_node *const *in)
{
    double before = status("VmRSS");
    sm_plan *p = sm_plan_new_with(g, 1, &y, r->be, &r->opts, &r->e);
    if (!p)
        die(what, r->e.msg);
    double planned = sm_now() - r->started;
    for (int i = 0; i < inputs; i++) {
        int64_t n = sm_numel(in[i]);
        for (int64_t k = 0; k < n; k++)
            if (in[i]->dtype == SM_I32)
                ((int32_t *)sm_plan_data(p, in[i]))[k] = (int32_t)(k * 31 % 49408);
            else
                ((float *)sm_plan_data(p, in[i]))[k] = big_value((uint64_t)i, k, 2, 1, false);
    }
    double t = sm_now();
    if (sm_plan_run(p, r->pool, NULL, &r->e))
        die(what, r->e.msg);
    t = sm_now() - t;
    double act = (double)sm_plan_activation_bytes(p) * 1e-6, packed = (double)sm_plan_packed_bytes(p) * 1e-6;
    double mapped = (double)sm_plan_mapped_bytes(p) * 1e-6, peak = before + act + packed + mapped;
    const float *out = sm_plan_data(p, y);
    printf("%s: opened and planned in %.2f s, %.2f TFLOP in %.2f s (%.0f GFLOP/s)\n", what, planned,
           sm_plan_cost(p).flops * 1e-12, t, sm_plan_cost(p).flops / t * 1e-9);
    printf("  weights resident %.0f MB, packed %.0f, activations %.0f (least possible with these steps: %.0f), before %.0f: "
           "foreseen %.0f MB\n", mapped, packed, act, (double)sm_plan_floor_bytes(p) * 1e-6, before, peak);
    printf("  VmHWM %.0f MB, %.3f of foreseen; first values %.6g %.6g\n", status("VmHWM"), status("VmHWM") / peak, out[0],
           out[1]);
    sm_buf b = {0};
    sm_plan_memory(p, &b);
    printf("%s", b.data);
    sm_buf_free(&b);
    sm_plan_free(p);
}

static void run_text(run *r, const big_model *m)
{
    sm_clip_config c;
    load(r, &m->part[0], &c);
    sm_graph *g = sm_graph_new(NULL, &r->e);
    nn_scope root = nn_root(g, r->w, NULL), s = nn_sub(&root, "text_encoder");
    sm_node *ids = sm_input(g, "ids", SM_I32, 2, (int64_t[]){2, 77});
    measure(r, "text encoder, 2 prompts", g, sm_clip_text(&s, &c, ids, NULL).last, 1, &ids);
}

static void run_unet(run *r, const big_model *m, int side)
{
    sm_unet_config c;
    load(r, &m->part[1], &c);
    sm_graph *g = sm_graph_new(NULL, &r->e);
    nn_scope root = nn_root(g, r->w, NULL), s = nn_sub(&root, "unet");
    sm_node *in[3] = {sm_input(g, "x", SM_F32, 4, (int64_t[]){2, side, side, c.in_channels}),
                      sm_input(g, "t", SM_F32, 1, (int64_t[]){2}),
                      sm_input(g, "ctx", SM_F32, 3, (int64_t[]){2, 77, c.cross_attention_dim})};
    measure(r, "UNet, one step with guidance", g, sm_unet(&s, &c, in[0], in[1], in[2], NULL), 3, in);
}

static void run_decode(run *r, const big_model *m, int side)
{
    sm_vae_config c;
    load(r, &m->part[2], &c);
    sm_graph *g = sm_graph_new(NULL, &r->e);
    nn_scope root = nn_root(g, r->w, NULL), s = nn_sub(&root, "vae");
    sm_node *z = sm_input(g, "z", SM_F32, 4, (int64_t[]){1, side / 8, side / 8, c.latent_channels});
    measure(r, "decoder", g, sm_vae_decode(&s, &c, z), 1, &z);
}

/* A whole picture in tiles. */
static void run_tiled(run *r, const big_model *m, int side, bool encode)
{
    sm_vae_config c;
    sm_vae_tiles_info info;
    load(r, &m->part[2], &c);
    int n = side / 8;
    int64_t pixels = (int64_t)side * side * 3, cells = (int64_t)n * n * 8;
    float *z = malloc(sizeof *z * (size_t)cells), *x = malloc(sizeof *x * (size_t)pixels);
    sm_tiled_vae v = {.be = r->be, .pool = r->pool, .w = r->w, .component = "vae", .c = &c, .opts = r->opts,
                      .tile = r->opts.drop_pages ? 48 : 0};
    if (!z || !x || sm_vae_tiles_plan(&v, encode, n, n, &info, &r->e))
        die("tiles", r->e.msg);
    printf("%s in %dx%d tiles: %.1f TFLOP, %.0f MB beside weights, input and output\n", encode ? "encoder" : "decoder", info.down,
           info.across, info.flops * 1e-12, (double)info.bytes * 1e-6);
    fflush(stdout);
    double before = status("VmRSS");
    for (int64_t i = 0; i < cells; i++)
        z[i] = big_value(1, i, 2, 1, false);
    for (int64_t i = 0; i < pixels; i++)
        x[i] = big_value(2, i, 2, 3, false);
    double t = sm_now(), io = (double)(sizeof(float) * (size_t)(cells + pixels)) * 1e-6;
    if (encode ? sm_vae_encode_tiled(&v, x, n, n, z, &r->e) : sm_vae_decode_tiled(&v, z, n, n, x, &r->e))
        die("tiles", r->e.msg);
    double half = (double)weight_bytes(r->w) * 1e-6 * (encode ? 0.41 : 0.59); /* of the weights is the encoder's, the decoder's */
    double peak = before + io + (double)info.bytes * 1e-6 + (r->opts.drop_pages ? 0 : half);
    printf("  %.0f s, VmHWM %.0f MB, %.3f of %.0f foreseen\n", sm_now() - t, status("VmHWM"), status("VmHWM") / peak, peak);
    free(z);
    free(x);
}

/* One picture of 32x32 latents at timestep 500 through sumi_run_module; max |d| <= 1e-3 rms of the reference. */
static int compare_output(const char *name, const char *dir, const char *fixture)
{
    static const float time = 500, ids[6] = {1024, 1024, 0, 0, 1024, 1024};
    bool xl = !strcmp(name, "sdxl");
    int64_t dims[5][4] = {{1, 4, 32, 32}, {1}, {1, 77, xl ? 2048 : 768}, {1, 1280}, {1, 6}},
            n[5] = {4096, 1, 77 * dims[2][2], 1280, 6};
    static const char *const names[5] = {"sample", "timestep", "encoder_hidden_states", "added_cond_kwargs.text_embeds",
                                         "added_cond_kwargs.time_ids"};
    static const int rank[5] = {4, 1, 3, 2, 2}, seed[5] = {1, 0, 2, 3, 0};
    sm_st_item item[5];
    sm_err e = {0};
    for (int i = 0; i < 5; i++) {
        float *x = malloc(sizeof *x * (size_t)n[i]);
        for (int64_t k = 0; x && k < n[i]; k++)
            x[k] = i == 1 ? time : i == 4 ? ids[k] : big_value((uint64_t)seed[i] << 40, k, 2, 1, false);
        item[i] = (sm_st_item){.name = names[i], .t = {.dtype = SM_F32, .rank = rank[i], .data = x}};
        memcpy(item[i].t.dims, dims[i], sizeof dims[i]);
    }
    char in[600], out[600];
    snprintf(in, sizeof in, "%s/in.safetensors", dir);
    snprintf(out, sizeof out, "%s/out.safetensors", dir);
    sumi_context *ctx;
    sm_weights *w = sm_weights_new(NULL, &e), *r = sm_weights_new(NULL, &e);
    double started = sm_now();
    if (sm_st_write(in, xl ? 5 : 3, item, 0, NULL, NULL, &e))
        die(in, e.msg);
    if (sumi_context_new(NULL, &ctx) || sumi_run_module(ctx, &(sumi_model_options){.path = dir}, "unet", in, out))
        die(name, sumi_error(ctx));
    if (!w || !r || sm_tensors_load(out, w, "", NULL, &e) || sm_tensors_load(fixture, r, "", NULL, &e))
        die(fixture, e.msg);
    const sm_weight *got = sm_weights_find(w, "sample"), *want = sm_weights_find(r, "out.sample");
    if (!got || !want || got->bytes != want->bytes)
        die(fixture, "not the output of this model");
    double rms = 0, most = 0;
    for (int k = 0; k < 4096; k++) {
        double a = ((const float *)want->t.data)[k], d = fabs(((const float *)got->t.data)[k] - a);
        rms += a * a / 4096;
        most = d > most ? d : most;
    }
    bool good = most <= 1e-3 * sqrt(rms);
    printf("%s UNet: max |d| %.2e of rms %.4g (%s), %.0f s, VmHWM %.0f MB\n", name, most / sqrt(rms), sqrt(rms),
           good ? "good" : "FAR OFF", sm_now() - started, status("VmHWM"));
    for (int i = 0; i < 5; i++)
        free((void *)item[i].t.data);
    sm_weights_unref(&w);
    sm_weights_unref(&r);
    sumi_context_free(ctx);
    return !good;
}

/* ---- a hundred pictures ---------------------------------------------------------------------------------------------- */

static void draw(sumi_context *ctx, sumi_model *m, int k, int side)
{
    static const char *const samplers[] = {"euler", "dpmpp_2m", "heun", "ddim"};
    static const char *const prompts[] = {"a red apple", "two (blue:1.2) rings on a table", "green",
                                          "a [red|black] cat AND a hat"};
    sumi_images *im;
    sumi_request r = sumi_request_default();
    r.seed = k;
    k %= 20;
    r.prompt = prompts[k % 4];
    r.sampler = samplers[k / 2 % 4];
    r.steps = 1 + k % 2;
    r.width = side + side / 2 * (k % 3);
    r.height = side + side / 2 * (k / 3 % 3);
    if (sumi_generate(ctx, m, &r, NULL, &im))
        die("many", sumi_error(ctx));
    sumi_images_free(im);
}

typedef struct state { double resident, peak, used, kept, heap; int files; } state;

static state now(const sumi_context *ctx)
{
    struct mallinfo2 h = mallinfo2();
    return (state){status("VmRSS"), status("VmHWM"), (double)ctx->mem.total * 1e-6, (double)ctx->mem.kept * 1e-6,
                   (double)(h.fordblks) * 1e-6, process_files()};
}

static void tell(const char *when, const state *s)
{
    printf("  %s: resident %.1f MB (most so far %.1f), in use %.2f, kept for the next %.2f, free in the C library's heap %.2f, "
           "%d open files\n", when, s->resident, s->peak, s->used, s->kept, s->heap, s->files);
    fflush(stdout);
}

/* What is in use must be equal, the resident set within 2 MB; sizes, samplers and prompts change from picture to picture. */
static int many(const char *dir, int side)
{
    sumi_context *ctx;
    sumi_model *m;
    state early, late;
    double t = sm_now();
    if (sumi_context_new(NULL, &ctx) || sumi_model_load(ctx, dir, &m))
        die(dir, sumi_error(ctx));
    for (int k = 0; k < 20; k++)
        draw(ctx, m, k, side);
    early = now(ctx);
    tell("after 20 pictures", &early);
    for (int k = 20; k < 100; k++)
        draw(ctx, m, k, side);
    late = now(ctx);
    tell("after 100 pictures", &late);
    bool good = late.used == early.used && late.kept <= early.kept && late.files == early.files &&
                late.resident < early.resident + 2;
    printf("a hundred pictures of %d to %d pixels a side in %.0f s: %s\n", side, 2 * side, sm_now() - t,
           good ? "nothing grows" : "GROWS");
    sumi_model_free(m);
    sumi_context_free(ctx);
    return !good;
}

int main(int argc, char **argv)
{
    const big_model *m = big_model_find("sd15");
    run r = {.opts = {.packed = SM_PACKED_USUAL}};
    if (argc == 4 && !strcmp(argv[1], "make")) {
        if (!(m = big_model_find(argv[2])))
            die(argv[2], "no such model; there are sd15 and sdxl");
        return big_model_write(m, argv[3]) ? 0 : 1;
    }
    if (argc == 5 && !strcmp(argv[1], "output"))
        return compare_output(argv[2], argv[3], argv[4]);
    if (argc == 4 && !strcmp(argv[1], "many"))
        return many(argv[2], atoi(argv[3]));
    if (argc < 4)
        die("usage",
            "bigtest make sd15|sdxl DIR | bigtest output sd15|sdxl DIR FIXTURE | bigtest many DIR SIZE | bigtest "
            "text|unet|decode|tiled|tiled-encode DIR SIZE [low]");
    r.dir = argv[2];
    if (argc > 4 && !strcmp(argv[4], "low"))
        r.opts = (sm_plan_opts){.packed = 0, .drop_pages = true};
    r.be = sm_cpu_backend(NULL, &r.e);
    r.pool = sm_pool_new(NULL, sm_cpu_count(), &r.e);
    if (!r.be || !r.pool)
        die("start", r.e.msg);
    int side = atoi(argv[3]);
    if (!strcmp(argv[1], "text"))
        run_text(&r, m);
    else if (!strcmp(argv[1], "unet"))
        run_unet(&r, m, side / 8);
    else if (!strcmp(argv[1], "decode"))
        run_decode(&r, m, side);
    else if (!strcmp(argv[1], "tiled"))
        run_tiled(&r, m, side, false);
    else if (!strcmp(argv[1], "tiled-encode"))
        run_tiled(&r, m, side, true);
    else
        die(argv[1], "no such part");
    return 0;
}
