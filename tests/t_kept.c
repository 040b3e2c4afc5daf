/* Memory that is kept for who comes next: large blocks of activations in a context, prepared weights in a table of weights. That
 * nothing grows, that plans share what they may and nothing else, and that bits do not know of it. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "cpu/cpu.h"
#include "graph/packs.h"
#include "nn/nn.h"
#include "pipeline/context.h"
#include "process.h"
#include "test.h"
#include "tiny.h"

enum { MIB = 1 << 20 };

/* ---- blocks -------------------------------------------------------------------------------------------------------- */

TEST(kept_blocks_are_taken_up_again)
{
    sm_mem mem = {.keep = 8 * MIB};
    char *a = sm_alloc(&mem, SM_MEM_ACTIVATION, 3 * MIB), *b = sm_alloc(&mem, SM_MEM_ACTIVATION, 2 * MIB);
    CHECK(a && b && mem.total == 5 * MIB && mem.now[SM_MEM_ACTIVATION] == 5 * MIB);
    memset(a, 1, 3 * MIB);
    sm_free(a);
    sm_free(b);
    CHECK(mem.total == 0 && mem.kept == 5 * MIB && mem.peak == 5 * MIB);
    char *c = sm_alloc(&mem, SM_MEM_ACTIVATION, MIB + 5); /* the smaller one that fits */
    CHECK(c == b && mem.total == 2 * MIB && mem.kept == 3 * MIB);
    char *d = sm_alloc0(&mem, SM_MEM_ACTIVATION, 3 * MIB); /* cleared, whatever it held */
    CHECK(d == a && !d[0] && !d[3 * MIB - 1] && mem.kept == 0 && mem.peak == 5 * MIB);
    sm_free(c);
    char *e = sm_alloc(&mem, SM_MEM_ACTIVATION, 4 * MIB); /* nothing fits: what waited goes first */
    CHECK(e && mem.kept == 0 && mem.total == 7 * MIB && mem.peak == 7 * MIB);
    sm_free(d);
    sm_free(e);
    CHECK(mem.kept == 7 * MIB && mem.spare_bytes == 7 * MIB);
    mem.fail_at = 1;
    CHECK(!sm_alloc(&mem, SM_MEM_ACTIVATION, MIB) && mem.kept == 7 * MIB);
    sm_mem_trim(&mem);
    CHECK(mem.kept == 0 && mem.total == 0 && mem.spare_bytes == 0);
}

TEST(kept_blocks_are_activations_and_bounded)
{
    sm_mem mem = {.keep = 4 * MIB}, none = {0};
    sm_free(sm_alloc(&mem, SM_MEM_DATA, 2 * MIB));
    sm_free(sm_alloc(&mem, SM_MEM_ACTIVATION, MIB - 1));
    sm_free(sm_alloc(&mem, SM_MEM_ACTIVATION, 4 * MIB + 1));
    sm_free(sm_alloc(&none, SM_MEM_ACTIVATION, 2 * MIB));
    CHECK(!mem.kept && !none.kept && !mem.total && !none.total);
    void *p[4];
    for (int i = 0; i < 4; i++)
        p[i] = sm_alloc(&mem, SM_MEM_ACTIVATION, 3 * MIB / 2);
    for (int i = 0; i < 4; i++)
        sm_free(p[i]);
    CHECKF(mem.kept == 3 * MIB && mem.total == 0, "%zu bytes wait", mem.kept);
    sm_mem_trim(&mem);
    CHECK(!sm_alloc(NULL, SM_MEM_DATA, SIZE_MAX) && !sm_alloc(NULL, SM_MEM_DATA, SIZE_MAX - 2 * MIB) &&
          !sm_alloc(NULL, SM_MEM_DATA, SIZE_MAX / 2 + 1));
}

/* A small plan may hold a large block for a while; then it goes, and the process is as small as what it does. */
TEST(kept_blocks_that_are_too_large_go)
{
    sm_mem mem = {.keep = 64 * MIB};
    char *large = sm_alloc(&mem, SM_MEM_ACTIVATION, 32 * MIB);
    memset(large, 1, 32 * MIB);
    sm_free(large);
    double before = process_memory("VmRSS"), after = 0;
    for (int i = 0; i < 40; i++) {
        char *p = sm_alloc(&mem, SM_MEM_ACTIVATION, 2 * MIB);
        memset(p, 1, 2 * MIB);
        CHECKF(i >= 16 || p == large, "allocation %d maps another block", i);
        CHECKF(i < 16 || mem.total == 2 * MIB, "allocation %d of %d bytes holds %zu", i, 2 * MIB, mem.total);
        after = process_memory("VmRSS");
        sm_free(p);
    }
    CHECKF(mem.kept == 2 * MIB && mem.total == 0, "%zu bytes wait", mem.kept);
    CHECKF(SANITIZED || before == 0 || after < before - 28 * MIB, "%.1f MB resident, %.1f before", after * 1e-6, before * 1e-6);
    for (int i = 0; i < 20; i++) /* others pass by */
        sm_free(sm_alloc(&mem, SM_MEM_ACTIVATION, 1000));
    CHECK(mem.kept == 0 && mem.spare_bytes == 0);
}

/* What somebody needs half of now and then stays. */
TEST(kept_blocks_that_are_needed_stay)
{
    sm_mem mem = {.keep = 64 * MIB};
    char *large = sm_alloc(&mem, SM_MEM_ACTIVATION, 8 * MIB), *p;
    sm_free(large);
    for (int i = 0; i < 100; i++) {
        p = sm_alloc(&mem, SM_MEM_ACTIVATION, i % 12 ? 2 * MIB : 4 * MIB);
        CHECK(p == large && mem.total == 8 * MIB);
        sm_free(p);
    }
    sm_mem_trim(&mem);
    CHECK(mem.kept == 0);
}

/* Memory is short by what waits: it goes back, and who asked for memory of another kind gets it. */
TEST(kept_blocks_go_when_memory_is_short)
{
    sm_mem mem = {.keep = 64 * MIB};
    struct rlimit old, low;
    sm_free(sm_alloc(&mem, SM_MEM_ACTIVATION, 48 * MIB));
    double mapped = process_memory("VmSize");
    if (SANITIZED || mapped == 0 || getrlimit(RLIMIT_AS, &old)) {
        test_skip(SANITIZED ? "a sanitizer maps more than there is" : "this system does not tell the size of a process");
    } else {
        low = old;
        low.rlim_cur = (rlim_t)mapped + 16 * MIB;
        CHECK(mem.kept == 48 * MIB && !setrlimit(RLIMIT_AS, &low));
        char *p = sm_alloc(&mem, SM_MEM_DATA, 32 * MIB);
        CHECK(!setrlimit(RLIMIT_AS, &old) && p && mem.kept == 0 && mem.total == 32 * MIB);
        sm_free(p);
    }
    sm_mem_trim(&mem);
}

/* All of a block can be written and nothing of its neighbours is touched. */
TEST(kept_blocks_do_not_overlap)
{
    enum { N = 12 };
    static const size_t size[4] = {MIB, 2 * MIB, 2 * MIB + 1, 5 * MIB / 2 + 77};
    char *p[N];
    for (int i = 0; i < N; i++) {
        p[i] = sm_alloc0(NULL, SM_MEM_DATA, size[i % 4]);
        CHECK(p[i] && (uintptr_t)p[i] % 64 == 0 && !p[i][0] && !p[i][size[i % 4] - 1]);
        memset(p[i], i + 1, size[i % 4]);
        if (i % 3 == 2) {
            sm_free(p[i - 1]);
            p[i - 1] = NULL;
        }
    }
    for (int i = 0; i < N; i++) {
        if (p[i])
            CHECK(p[i][0] == i + 1 && p[i][size[i % 4] - 1] == i + 1);
        sm_free(p[i]);
    }
}

/* ---- prepared weights ---------------------------------------------------------------------------------------------- */

enum { CHANNELS = 48, CONV = CHANNELS * CHANNELS * 9, LINEAR = CHANNELS * CHANNELS };

/* A table whose tensors are told to lie in a mapped file. */
static sm_weights *table(float *values, sm_mem *mem)
{
    sm_weights *w = sm_weights_new(mem, NULL);
    sm_tensor conv = {.data = values, .rank = 4, .dims = {CHANNELS, CHANNELS, 3, 3}};
    sm_tensor linear = {.data = values + CONV, .rank = 2, .dims = {CHANNELS, CHANNELS}};
    CHECK(w && !sm_weights_map(w, values, sizeof(float) * (CONV + LINEAR), NULL) &&
          !sm_weights_add(w, "conv.weight", &conv, NULL) && !sm_weights_add(w, "linear.weight", &linear, NULL));
    return w;
}

typedef struct net { sm_graph *g; sm_plan *p; sm_node *x, *y; } net;

static net open_net(sm_weights *w, sm_mem *mem, const char *cpu, int batch, int side, int pad)
{
    net n = {.g = sm_graph_new(mem, NULL)};
    sm_err e = {0};
    nn_scope s = nn_root(n.g, w, NULL);
    n.x = sm_input(n.g, "x", SM_F32, 4, (int64_t[]){batch, side, side, CHANNELS});
    sm_node *h = nn_conv(&s, "conv", n.x, CHANNELS, 3, 1, pad, false);
    n.y = nn_linear(&s, "linear", h, CHANNELS, false);
    n.p = sm_plan_new(n.g, 1, &n.y, sm_cpu_backend(cpu, &e), &e);
    CHECKF(n.p != NULL, "%s", e.msg);
    return n;
}

static void close_net(net *n)
{
    sm_plan_free(n->p);
    sm_graph_free(n->g);
}

/* Sum of the first picture's results; those of the others must be the same. */
static double run_net(net *n, sm_pool *pool)
{
    int64_t batch = n->x->dims[0], in = sm_numel(n->x) / batch, out = sm_numel(n->y) / batch;
    for (int64_t k = 0; k < batch; k++)
        test_fill((float *)sm_plan_data(n->p, n->x) + k * in, in, 9, -1, 1);
    CHECK(!sm_plan_run(n->p, pool, NULL, NULL));
    const float *y = sm_plan_data(n->p, n->y);
    double sum = 0;
    for (int64_t i = 0; i < out; i++)
        sum += y[i] * (double)(i % 7 + 1);
    for (int64_t k = 1; k < batch; k++)
        CHECK(!memcmp(y, y + k * out, sizeof *y * (size_t)out));
    return sum;
}

TEST(kept_weights_are_shared_by_plans)
{
    static float values[CONV + LINEAR];
    sm_mem mem = {0};
    sm_pool *pool = sm_pool_new(NULL, 2, NULL);
    test_fill(values, CONV + LINEAR, 5, -0.2f, 0.2f);
    sm_weights *w = table(values, &mem);
    sm_packs *s = sm_weights_packs(w);
    net one = open_net(w, &mem, NULL, 1, 8, 1);
    size_t each = sm_plan_packed_bytes(one.p), held = mem.now[SM_MEM_PACKED];
    CHECK(each >= sizeof values && sm_packs_bytes(s) >= each && held == sm_packs_bytes(s));
    net three = open_net(w, &mem, NULL, 3, 8, 1); /* another batch: the same copies, whoever runs first */
    CHECK(mem.now[SM_MEM_PACKED] == held);
    double a = run_net(&three, pool), b = run_net(&one, pool);
    CHECKF(a == b && a != 0, "%.9g %.9g", a, b);
    net padless = open_net(w, &mem, NULL, 1, 8, 0); /* other parameters: a copy of its own, the linear layer's is shared */
    CHECK(mem.now[SM_MEM_PACKED] > held && mem.now[SM_MEM_PACKED] <= 2 * held - sizeof(float) * LINEAR);
    double c = run_net(&padless, NULL);
    close_net(&one);
    close_net(&padless);
    CHECK(mem.now[SM_MEM_PACKED] == held && run_net(&three, NULL) == a && mem.kept == 0); /* keep is 0 */
    close_net(&three);
    CHECK(mem.now[SM_MEM_PACKED] == 0 && sm_packs_bytes(s) == 0);

    sm_packs_keep(s, 2 * held); /* now they stay */
    size_t before = mem.total;
    for (int k = 0; k < 3; k++) {
        one = open_net(w, &mem, NULL, 1 + k, 8, 1);
        CHECK(run_net(&one, pool) == a);
        close_net(&one);
        CHECKF(mem.total == before && sm_packs_bytes(s) == held && mem.kept >= held, "%zu bytes in use, %zu wait", mem.total,
               mem.kept);
    }
    one = open_net(w, &mem, NULL, 1, 8, 0); /* there is room for both, not for a third: the oldest goes */
    CHECK(run_net(&one, NULL) == c && sm_packs_bytes(s) > held);
    close_net(&one);
    one = open_net(w, &mem, "scalar", 1, 8, 1);
    run_net(&one, NULL);
    close_net(&one);
    one = open_net(w, &mem, "exact", 1, 8, 1);
    close_net(&one);
    CHECKF(sm_packs_bytes(s) <= 2 * held, "%zu bytes", sm_packs_bytes(s));
    sm_packs_keep(s, 0);
    CHECK(sm_packs_bytes(s) == 0 && mem.kept == 0 && mem.total == before);
    sm_weights_unref(&w);
    CHECK(mem.total == 0);
    sm_pool_free(pool);
}

/* Minimal filtering wants other copies for larger pictures, direct sums others again; none takes another's. */
TEST(kept_weights_of_other_kinds_are_not_shared)
{
    static const int sides[] = {4, 8, 16, 32, 8};
    static const char *const cpus[] = {"avx2", "avx512", "avx2-exact", "avx512-exact", "neon", "neon-exact", "scalar"};
    static float values[CONV + LINEAR];
    test_fill(values, CONV + LINEAR, 6, -0.2f, 0.2f);
    sm_weights *shared = table(values, NULL);
    sm_packs_keep(sm_weights_packs(shared), 64 * MIB);
    for (int again = 0; again < 2; again++)
        for (size_t c = 0; c < SM_COUNT(cpus); c++)
            for (size_t i = 0; i < SM_COUNT(sides) && sm_cpu_backend(cpus[c], NULL); i++) {
                sm_weights *own = table(values, NULL);
                net a = open_net(shared, NULL, cpus[c], 1, sides[i], 1), b = open_net(own, NULL, cpus[c], 1, sides[i], 1);
                CHECKF(run_net(&a, NULL) == run_net(&b, NULL), "%s, %dx%d: other bits with shared weights",
                       cpus[c], sides[i], sides[i]);
                close_net(&a);
                close_net(&b);
                sm_weights_unref(&own);
            }
    sm_weights_unref(&shared);
}

TEST(kept_weights_survive_failing_allocations)
{
    static float values[CONV + LINEAR];
    sm_mem mem = {0};
    test_fill(values, CONV + LINEAR, 7, -0.2f, 0.2f);
    sm_weights *w = table(values, &mem);
    net first = open_net(w, &mem, NULL, 1, 8, 1);
    double a = run_net(&first, NULL);
    sm_packs_keep(sm_weights_packs(w), 64 * MIB);
    sm_plan *p = NULL;
    for (int at = 1; !p && at < 200; at++) {
        sm_err e = {0};
        net n = {.g = sm_graph_new(&mem, NULL)};
        nn_scope s = nn_root(n.g, w, NULL);
        n.x = sm_input(n.g, "x", SM_F32, 4, (int64_t[]){1, 9, 9, CHANNELS});
        n.y = nn_linear(&s, "linear", nn_conv(&s, "conv", n.x, CHANNELS, 3, 1, 0, false), CHANNELS, false);
        size_t before = mem.total;
        mem.fail_at = at;
        p = n.p = sm_plan_new(n.g, 1, &n.y, sm_cpu_backend(NULL, &e), &e);
        mem.fail_at = 0;
        CHECKF(p || (e.code == SUMI_E_MEMORY && mem.total == before), "allocation %d: %s, %zu bytes left", at,
               e.msg, mem.total - before);
        close_net(&n);
    }
    CHECK(p && run_net(&first, NULL) == a);
    close_net(&first);
    sm_weights_unref(&w);
    CHECK(mem.total == 0 && mem.kept == 0);
}

typedef struct reader { sm_weights *w; int side; double sum; } reader;

static void *read_net(void *arg)
{
    reader *r = arg;
    sm_mem mem = {.keep = 4 * MIB};
    for (int k = 0; k < 6; k++) {
        net n = open_net(r->w, &mem, NULL, 1 + k % 3, r->side, 1);
        double sum = run_net(&n, NULL);
        CHECK(!k || sum == r->sum);
        r->sum = sum;
        close_net(&n);
    }
    sm_mem_trim(&mem);
    return NULL;
}

/* For ThreadSanitizer as much as for its own checks. */
TEST(kept_weights_on_threads)
{
    static float values[CONV + LINEAR];
    pthread_t th[4];
    reader r[4];
    test_fill(values, CONV + LINEAR, 8, -0.2f, 0.2f);
    sm_weights *w = table(values, NULL);
    sm_packs_keep(sm_weights_packs(w), 200000);
    for (int i = 0; i < 4; i++) {
        r[i] = (reader){.w = w, .side = i % 2 ? 8 : 16};
        if (pthread_create(&th[i], NULL, read_net, &r[i]))
            exit(2);
    }
    for (int i = 0; i < 4; i++)
        pthread_join(th[i], NULL);
    CHECK(r[0].sum == r[2].sum && r[1].sum == r[3].sum && r[0].sum != r[1].sum);
    sm_weights_unref(&w);
}

/* ---- a hundred pictures -------------------------------------------------------------------------------------------- */

static void draw(sumi_context *ctx, sumi_model *m, int k, int side)
{
    static const char *const samplers[] = {"euler", "dpmpp_2m", "heun", "euler_ancestral"};
    static const char *const prompts[] = {"a red apple, noto style", "two (blue:1.2) rings", "green",
                                          "a [red|black] cat AND a hat"};
    sumi_images *im = NULL;
    sumi_request r = sumi_request_default();
    r.seed = k;
    k %= 20;
    r.prompt = prompts[k % 4];
    r.sampler = samplers[k / 2 % 4];
    r.steps = 1 + (k % 7 == 0);
    r.count = 1 + (k % 10 == 0);
    r.width = side + side / 2 * (k % 3);
    r.height = side + side / 2 * (k / 3 % 3);
    CHECKF(!sumi_generate(ctx, m, &r, NULL, &im), "picture %d: %s", k, sumi_error(ctx));
    sumi_images_free(im);
}

/* From the 20th picture on the same requests come again with other seeds. What is in use is the
 * same after every picture; the resident set may move by what the C library keeps of small blocks. */
TEST(kept_memory_does_not_grow)
{
    sumi_context *ctx = NULL;
    sumi_model *m = NULL;
    const char *builtin = "models/pictograms/sumi-pictograms.safetensors";
    bool large = !access(builtin, R_OK);
    CHECK(!sumi_context_new(&(sumi_context_options){.threads = 2}, &ctx) &&
          !sumi_model_load(ctx, large ? builtin : tiny_model(TINY_UNET), &m));
    size_t total = 0, kept[2] = {0};
    double rss[2] = {0};
    for (int k = 0; m && k < 100; k++) {
        draw(ctx, m, k, large ? 32 : 16);
        total = k ? total : ctx->mem.total;
        CHECKF(ctx->mem.total == total, "picture %d: %zu bytes in use, %zu after the first", k, ctx->mem.total, total);
        rss[k >= 20] = process_memory("VmRSS");
        kept[k >= 20] = SM_MAX(kept[k >= 20], ctx->mem.kept);
    }
    CHECKF(kept[1] <= kept[0] && kept[1] <= ctx->mem.keep + SM_PACKED_USUAL, "%zu bytes wait, %zu before", kept[1], kept[0]);
    CHECKF(SANITIZED || rss[1] < rss[0] + 4e6, "%.1f MB resident after 100 pictures, %.1f after 20",
           rss[1] * 1e-6, rss[0] * 1e-6);
    sumi_model_free(m);
    CHECKF(!ctx || ctx->mem.now[SM_MEM_PACKED] == 0, "packed weights are left");
    sumi_context_free(ctx);
}

TEST(kept_contexts_come_and_go)
{
    int files = process_files();
    double rss = 0;
    for (int k = 0; k < 100; k++) {
        sumi_context *ctx = NULL;
        sumi_model *m = NULL;
        CHECK(!sumi_context_new(&(sumi_context_options){.threads = 1 + k % 3}, &ctx) &&
              !sumi_model_load(ctx, tiny_model(TINY_UNET), &m));
        if (k % 10 == 0)
            draw(ctx, m, k, 16);
        sumi_model_free(m);
        CHECK(ctx->mem.total <= 8192); /* the pool's */
        sumi_context_free(ctx);
        rss = k == 20 ? process_memory("VmRSS") : rss;
    }
    CHECKF(process_files() == files, "%d files are open, %d were", process_files(), files);
    CHECKF(SANITIZED || process_memory("VmRSS") < rss + 4e6, "%.1f MB resident after 100 contexts, %.1f after 20",
           process_memory("VmRSS") * 1e-6, rss * 1e-6);
}
