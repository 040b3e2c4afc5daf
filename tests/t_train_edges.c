/* The edges of training: stopping by request, exporting half way, an encoder that must stay as it is, names and sizes in the
 * configuration that cannot be, allocations that fail. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "io/safetensors.h"
#include "test.h"
#include "tiny.h"

/* Replaces the first `from` of the configuration. */
static void edit(const tiny *s, const char *from, const char *to)
{
    sm_buf old = {0}, new = {0};
    sm_err e = {0};
    char *at = sm_file_read(s->config, 1 << 16, &old, &e) ? NULL : strstr(old.data, from);
    CHECKF(at != NULL, "%s is not in the configuration: %s", from, e.msg);
    if (at) {
        *at = 0;
        sm_buf_fmt(&new, "%s%s%s", old.data, to, at + strlen(from));
        CHECK(!new.oom && !sm_file_write(s->config, new.data, new.len, &e));
    }
    sm_buf_free(&old);
    sm_buf_free(&new);
}

static const char *in_folder(const tiny *s, const char *name)
{
    static char path[2][1024];
    static int at;
    char *p = path[at++ % 2];
    snprintf(p, sizeof path[0], "%s/%s", s->dir, name);
    return p;
}

static sumi_status train_stage(const tiny *s, const char *stage, const sumi_callbacks *cb, char msg[640])
{
    sumi_context *ctx;
    sumi_context_options co = {.threads = 1};
    sumi_train_options o = {.resume = 1, .stage = stage};
    sumi_status st = sumi_context_new(&co, &ctx);
    if (!st)
        st = sumi_train(ctx, s->config, &o, cb);
    snprintf(msg, 640, "%s", sumi_error(ctx));
    sumi_context_free(ctx);
    return st;
}

/* All values of the tensors whose names begin with prefix, one tensor after the other. */
static sm_buf values(const char *file, const char *prefix)
{
    sm_buf b = {0};
    sm_err e = {0};
    sm_st *f = sm_st_open(file, NULL, &e);
    CHECKF(f != NULL, "%s", e.msg);
    for (size_t i = 0; f && i < sm_st_count(f); i++)
        if (!strncmp(sm_st_at(f, i)->name, prefix, strlen(prefix)))
            sm_buf_add(&b, sm_st_at(f, i)->data, sm_st_at(f, i)->bytes);
    CHECKF(b.len > 0, "%s: no %s", file, prefix);
    sm_st_close(f);
    return b;
}

/* Compares and frees. */
static bool same(sm_buf a, sm_buf b)
{
    bool ok = a.len && a.len == b.len && !memcmp(a.data, b.data, a.len);
    sm_buf_free(&a);
    sm_buf_free(&b);
    return ok;
}

static bool same_files(const tiny *a, const tiny *b, const char *name)
{
    return same(values(in_folder(a, name), ""), values(in_folder(b, name), ""));
}

static void stop_at_four(void *user, const sumi_progress *p)
{
    if (p->step >= 4)
        *(int *)user = 1;
}

TEST(train_stopped_by_the_caller_goes_on_bit_for_bit)
{
    tiny whole = tiny_setup("stop-whole", TINY_UNET, ""), s = tiny_setup("stop", TINY_UNET, "");
    char msg[640];
    int cancel = 0;
    sumi_callbacks cb = {.progress = stop_at_four, .user = &cancel, .cancel = &cancel};
    CHECK(train_stage(&s, NULL, &cb, msg) == SUMI_E_CANCELLED);
    CHECKF(strstr(msg, "autoencoder.ckpt (step 4)"), "%s", msg);
    cancel = 1;
    CHECK(train_stage(&s, NULL, &cb, msg) == SUMI_E_CANCELLED); /* before its first step: nothing is lost, nothing moves */
    CHECKF(strstr(msg, "autoencoder.ckpt (step 4)"), "%s", msg);
    CHECKF(!train_stage(&s, NULL, NULL, msg) && !train_stage(&whole, NULL, NULL, msg), "%s", msg);
    CHECK(same_files(&whole, &s, "autoencoder.ckpt") && same_files(&whole, &s, "flow.ckpt"));
}

TEST(train_export_takes_what_is_there)
{
    tiny s = tiny_setup("export", TINY_UNET, ""), whole = tiny_setup("export-whole", TINY_UNET, "");
    char msg[640];
    CHECK(train_stage(&s, "export", NULL, msg) == SUMI_E_FILE && strstr(msg, "autoencoder.ckpt"));
    CHECK(!tiny_train(&s, NULL, 1, 3, 1, msg));
    CHECK(train_stage(&s, "export", NULL, msg) == SUMI_E_FILE && strstr(msg, "latents.safetensors"));
    CHECK(access(in_folder(&s, "latents.safetensors"), F_OK)); /* latents of a half-trained encoder would stay */
    CHECK(!tiny_train(&s, NULL, 1, 8, 1, msg));
    CHECKF(!train_stage(&s, "export", NULL, msg) && !access(in_folder(&s, "tiny.safetensors"), F_OK), "%s", msg);
    CHECKF(!train_stage(&s, NULL, NULL, msg) && !train_stage(&whole, NULL, NULL, msg), "%s", msg);
    CHECK(same_files(&whole, &s, "flow.ckpt") && same_files(&whole, &s, "tiny.safetensors"));
}

TEST(train_latents_of_another_encoder_are_refused)
{
    tiny s = tiny_setup("stale", TINY_UNET, "");
    char msg[640];
    CHECKF(!train_stage(&s, "latents", NULL, msg), "%s", msg);
    CHECKF(!train_stage(&s, "latents", NULL, msg), "%s", msg); /* the same again: read, not refused */
    edit(&s, "\"steps\":8", "\"steps\":11");
    CHECK(train_stage(&s, "latents", NULL, msg) == SUMI_E_FORMAT);
    CHECKF(strstr(msg, "latents.safetensors: latents of another data set or model; delete it"), "%s", msg);
    CHECK(!unlink(in_folder(&s, "latents.safetensors")) && !train_stage(&s, "latents", NULL, msg));
}

/* With eps 0, Adam divides 0 by 0 where no gradient came: at words that no caption of the first step has. The loss does not
 * see them yet, but a checkpoint with them would be no good one. */
TEST(train_nan_is_never_saved)
{
    tiny s = tiny_setup("nan-saved", TINY_UNET, "");
    char msg[640];
    edit(&s, "\"batch\":4,\"save_every\":3", "\"eps\":0,\"batch\":4,\"save_every\":1");
    CHECK(train_stage(&s, NULL, NULL, msg) == SUMI_E_NUMERIC);
    CHECKF(!strcmp(msg, "flow: step 1: a weight is NaN or infinite; lower lr or raise warmup or eps; no checkpoint was written "
                   "yet"), "%s", msg);
    CHECK(access(in_folder(&s, "flow.ckpt"), F_OK));
}

/* As many pictures of another style are other latents. */
TEST(train_latents_of_other_pictures_are_refused)
{
    tiny s = tiny_setup("other", TINY_UNET, "");
    char msg[640];
    sm_buf old = {0}, new = {0};
    sm_err e = {0};
    CHECKF(!train_stage(&s, "latents", NULL, msg), "%s", msg);
    CHECKF(!sm_file_read(s.index, 1 << 16, &old, &e), "%s", e.msg);
    for (const char *at = old.data, *end; at && *at; at = end) {
        const char *style = strstr(at, "\"noto\"");
        end = style ? style + 6 : at + strlen(at);
        sm_buf_fmt(&new, "%.*s%s", (int)((style ? style : end) - at), at, style ? "\"twemoji\"" : "");
    }
    CHECKF(!new.oom && !sm_file_write(s.index, new.data, new.len, &e), "%s", e.msg);
    CHECK(train_stage(&s, "latents", NULL, msg) == SUMI_E_FORMAT);
    CHECKF(strstr(msg, "latents.safetensors: latents of another data set or model; delete it"), "%s", msg);
    sm_buf_free(&old);
    sm_buf_free(&new);
}

TEST(train_decoder_only_leaves_the_encoder)
{
    tiny s = tiny_setup("decoder", TINY_UNET, ""), parts = tiny_setup("decoder-parts", TINY_UNET, "");
    char msg[640];
    tiny fresh = tiny_setup("decoder-fresh", TINY_UNET, ",\"decoder_only\":true");
    CHECK(train_stage(&fresh, NULL, NULL, msg) == SUMI_E_ARG);
    CHECKF(strstr(msg, "decoder_only") && strstr(msg, "autoencoder.ckpt"), "%s", msg);
    CHECKF(!train_stage(&s, "latents", NULL, msg) && !train_stage(&parts, "latents", NULL, msg), "%s", msg);
    sm_buf encoder = values(in_folder(&s, "autoencoder.ckpt"), "e.vae.encoder."),
        decoder = values(in_folder(&s, "autoencoder.ckpt"), "e.vae.decoder.");
    edit(&s, "\"steps\":8", "\"decoder_only\":true,\"steps\":13");
    edit(&parts, "\"steps\":8", "\"decoder_only\":true,\"steps\":13");
    CHECKF(!train_stage(&s, "autoencoder", NULL, msg), "%s", msg);
    for (int k = 0; k < 5; k++)
        CHECKF(!tiny_train(&parts, NULL, 1, 1, 1, msg), "%s", msg);
    const char *ckpt = in_folder(&s, "autoencoder.ckpt");
    CHECK(same(encoder, values(ckpt, "e.vae.encoder.")));
    CHECK(same(values(ckpt, "w.vae.encoder."), values(ckpt, "e.vae.encoder.")));
    CHECK(!same(decoder, values(ckpt, "e.vae.decoder.")));
    CHECK(same_files(&s, &parts, "autoencoder.ckpt"));
    CHECKF(!train_stage(&s, "latents", NULL, msg), "%s", msg); /* the latents are still good */
}

TEST(train_names_that_need_quotes_or_are_refused)
{
    tiny s = tiny_setup("quotes", TINY_UNET, "");
    char msg[640];
    sumi_context *ctx;
    sumi_model *m = NULL;
    edit(&s, "\"name\":\"tiny\"", "\"name\":\"my \\\"best\\\" \\\\ model\"");
    CHECKF(!train_stage(&s, NULL, NULL, msg), "%s", msg);
    CHECK(!sumi_context_new(NULL, &ctx));
    CHECKF(!sumi_model_load(ctx, in_folder(&s, "my \"best\" \\ model.safetensors"), &m), "%s", sumi_error(ctx));
    CHECK(m && strstr(sumi_model_summary(m), "my \"best\" \\ model: ") == sumi_model_summary(m));
    sumi_model_free(m);
    sumi_context_free(ctx);
}

TEST(train_configurations_that_cannot_be)
{
    static const struct { tiny_kind kind; const char *from, *to, *want; } cases[] = {
        {TINY_UNET, "\"name\":\"tiny\"", "\"name\":\"../tiny\"", "name: "},
        {TINY_UNET, "\"name\":\"tiny\"", "\"name\":\"\"", "name: is empty"},
        {TINY_UNET, "\"name\":\"tiny\"", "\"name\":\"a\\nb\"", "name: "},
        {TINY_UNET, "\"size\":16", "\"styles\":[],\"styles\":[],\"size\":16", "'styles' appears twice"},
        {TINY_UNET, "\"seed\":7", "\"seed\":[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]", "nested too deeply"},
        {TINY_UNET, "\"latent_channels\":4", "\"in_channels\":1,\"latent_channels\":4", "in_channels 1"},
        {TINY_UNET, "\"latent_channels\":4", "\"out_channels\":1,\"latent_channels\":4", "out_channels 1"},
        {TINY_UNET, "\"out_channels\":4", "\"out_channels\":1", "makes 1 latent channels"},
        {TINY_UNET, "\"in_channels\":4", "\"in_channels\":9", "sample"},
        {TINY_UNET, "\"max_position_embeddings\":16", "\"max_position_embeddings\":0", "max_position_embeddings 0"},
        {TINY_UNET, "\"seed\":7", "\"seed\":7.5", "seed: 7.5 is not a whole number"},
        {TINY_UNET, "\"size\":16", "\"size\":17", "does not divide"},
        {TINY_MMDIT, "\"patch_size\":2", "\"patch_size\":0", "patch_size"},
        {TINY_MMDIT, "\"patch_size\":2", "\"patch_size\":16777216", "patch_size"},
        {TINY_MMDIT, "SD3Transformer2DModel", "FluxTransformer2DModel", "denoiser._class_name: 'FluxTransformer2DModel' is none"},
        {TINY_MMDIT, "\"SD3Transformer2DModel\"", "7", "denoiser._class_name: must be a text"},
        /* a class named elsewhere is not the denoiser's */
        {TINY_UNET, "\"in_channels\":4", "\"note\":\"SD3Transformer2DModel\",\"in_channels\":9", "sample"},
    };
    for (size_t i = 0; i < SM_COUNT(cases); i++) {
        char msg[640], name[32];
        snprintf(name, sizeof name, "cannot%zu", i);
        tiny s = tiny_setup(name, cases[i].kind, "");
        edit(&s, cases[i].from, cases[i].to);
        CHECKF(tiny_train(&s, NULL, 0, 0, 1, msg) != SUMI_OK, "case %zu trains", i);
        CHECKF(strstr(msg, cases[i].want) && !strchr(msg, '\n'), "case %zu: %s", i, msg);
    }
    tiny s = tiny_setup("cannot", TINY_UNET, "");
    char msg[640], name[500];
    memset(name, 'x', sizeof name - 1);
    name[sizeof name - 1] = 0;
    CHECK(tiny_train(&s, name, 0, 1, 1, msg) == SUMI_E_ARG && strstr(msg, "output"));
    CHECK(tiny_train(&s, "", 0, 1, 1, msg) == SUMI_E_ARG && strstr(msg, "output"));
}

/* Writes a checkpoint again with other metadata. */
static void with_metadata(const char *path, size_t nmeta, const sm_st_meta *meta)
{
    enum { MOST = 2000 };
    sm_st *f = sm_st_open(path, NULL, NULL);
    static sm_st_item item[MOST];
    size_t n = f ? sm_st_count(f) : 0;
    for (size_t k = 0; k < n && k < MOST; k++) {
        const sm_st_entry *x = sm_st_at(f, k);
        item[k] = (sm_st_item){.name = x->name, .t = {.data = (void *)x->data, .dtype = x->type, .rank = x->rank}};
        memcpy(item[k].t.dims, x->dims, sizeof item[k].t.dims);
    }
    CHECK(n && n < MOST && !sm_st_write(path, n, item, nmeta, meta, NULL, NULL));
    sm_st_close(f);
}

/* The folder is locked while a run is at work in it, and by nothing that a killed one could leave. */
TEST(train_two_runs_in_one_folder)
{
    tiny s = tiny_setup("two", TINY_UNET, "");
    char msg[640];
    int ready[2], go[2];
    char x = 0;
    CHECK(!tiny_train(&s, NULL, 0, 0, 1, msg) && !pipe(ready) && !pipe(go));
    fflush(NULL);
    pid_t child = fork();
    if (!child) { /* holds the lock as a run does, from its beginning to its end */
        int fd = open(s.dir, O_RDONLY | O_DIRECTORY);
        x = fd < 0 || flock(fd, LOCK_EX | LOCK_NB);
        (void)!write(ready[1], &x, 1);
        (void)!read(go[0], &x, 1);
        _exit(0);
    }
    CHECK(read(ready[0], &x, 1) == 1 && !x);
    CHECKF(train_stage(&s, NULL, NULL, msg) == SUMI_E_FILE && strstr(msg, "another run") && strstr(msg, s.dir), "%s", msg);
    CHECKF(!train_stage(&s, "export", NULL, msg), "%s", msg); /* what is there may be taken */
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    CHECKF(!train_stage(&s, NULL, NULL, msg), "%s", msg);
    for (int i = 0; i < 2; i++) {
        close(ready[i]);
        close(go[i]);
    }
}

/* Temporary files of writers that were killed go; those of living ones, and what only looks like them, stay. */
TEST(train_sweeps_its_folder)
{
    tiny s = tiny_setup("sweep", TINY_UNET, "");
    char msg[640], name[5][80];
    pid_t gone = fork();
    if (!gone)
        _exit(0);
    waitpid(gone, NULL, 0);
    CHECK(!tiny_train(&s, NULL, 0, 1, 1, msg));
    snprintf(name[0], sizeof name[0], "flow.ckpt.sumi-%ld-0.tmp", (long)gone);
    snprintf(name[1], sizeof name[1], "flow.ckpt.sumi-%ld-0.tmp", (long)getpid());
    snprintf(name[2], sizeof name[2], "flow.ckpt.sumi-%ld.tmp", (long)gone);
    snprintf(name[3], sizeof name[3], "notes.sumi-%ld-0.tmp.txt", (long)gone);
    snprintf(name[4], sizeof name[4], ".sumi-%ld-0.tmp", (long)gone);
    for (int i = 0; i < 5; i++)
        CHECK(!sm_file_write(in_folder(&s, name[i]), "x", 1, NULL));
    CHECKF(!tiny_train(&s, NULL, 1, 1, 1, msg), "%s", msg);
    for (int i = 0; i < 5; i++)
        CHECKF(!access(in_folder(&s, name[i]), F_OK) == (i > 0), "%s", name[i]);
}

/* A checkpoint's ids mean words of one merges.txt; one of an older version does not say which. */
TEST(train_checkpoint_belongs_to_its_words)
{
    tiny s = tiny_setup("words", TINY_UNET, "");
    char msg[640];
    sm_buf merges = {0}, other = {0};
    CHECKF(!tiny_train(&s, NULL, 0, 0, 1, msg), "%s", msg);
    CHECK(!sm_file_read(in_folder(&s, "merges.txt"), 1 << 20, &merges, NULL));
    char *first = strchr(merges.data, '\n') + 1, *second = strchr(first, '\n') + 1, *rest = strchr(second, '\n') + 1;
    sm_buf_fmt(&other, "%.*s%.*s%.*s%s", (int)(first - merges.data), merges.data, (int)(rest - second), second,
               (int)(second - first), first, rest); /* two ids exchanged */
    CHECK(!sm_file_write(in_folder(&s, "merges.txt"), other.data, other.len, NULL));
    CHECKF(train_stage(&s, "flow", NULL, msg) == SUMI_E_MODEL && strstr(msg, "merges.txt") && strstr(msg, "flow.ckpt"), "%s",
           msg);
    CHECK(train_stage(&s, "export", NULL, msg) == SUMI_E_MODEL);
    CHECK(!sm_file_write(in_folder(&s, "merges.txt"), merges.data, merges.len, NULL));
    CHECKF(!train_stage(&s, NULL, NULL, msg), "%s", msg);
    with_metadata(in_folder(&s, "flow.ckpt"), 2, (sm_st_meta[]){{"stage", "flow"}, {"step", "3"}});
    CHECKF(!train_stage(&s, "export", NULL, msg) && !train_stage(&s, "flow", NULL, msg), "%s", msg);
    sm_buf_free(&merges);
    sm_buf_free(&other);
}

TEST(train_checkpoint_with_a_wrong_step_is_refused)
{
    static const char *const steps[] = {"-3", "1e99", "9223372036854775807", "x"};
    tiny s = tiny_setup("wrongstep", TINY_UNET, "");
    char msg[640];
    CHECK(!tiny_train(&s, NULL, 0, 3, 1, msg));
    for (size_t i = 0; i < SM_COUNT(steps); i++) {
        with_metadata(in_folder(&s, "autoencoder.ckpt"), 2, (sm_st_meta[]){{"stage", "autoencoder"}, {"step", steps[i]}});
        CHECKF(train_stage(&s, "autoencoder", NULL, msg) == SUMI_E_FORMAT && strstr(msg, steps[i]), "%s: %s", steps[i], msg);
    }
}

/* Every allocation of a short run of each stage fails once: out of memory is said, and nothing stays behind. */
TEST(train_every_allocation_may_fail)
{
    tiny s = tiny_setup("memory", TINY_UNET, "");
    int failures = 0;
    bool enough = false;
    edit(&s, "\"steps\":8", "\"steps\":1");
    edit(&s, "\"steps\":10", "\"steps\":1");
    for (int64_t at = 1; at < 2000000 && !enough; at += 1 + at / 9) {
        char out[64], folder[300];
        sumi_context *ctx;
        sumi_context_options co = {.threads = 1};
        snprintf(out, sizeof out, "memory-%lld", (long long)at);
        snprintf(folder, sizeof folder, "%s", test_tmp(out));
        sumi_train_options o = {.output = folder};
        CHECK(!sumi_context_new(&co, &ctx));
        sm_mem *mem = (sm_mem *)ctx; /* the context's first member */
        size_t before = mem->total;
        mem->fail_at = at;
        sumi_status st = sumi_train(ctx, s.config, &o, NULL);
        CHECKF(!st || st == SUMI_E_MEMORY, "allocation %lld: %d %s", (long long)at, st, sumi_error(ctx));
        CHECKF(mem->total == before, "allocation %lld failing leaks %zd bytes: %s", (long long)at, mem->total - before,
               sumi_error(ctx));
        failures += st == SUMI_E_MEMORY;
        enough = !st && mem->fail_at > 0;
        sumi_context_free(ctx);
    }
    CHECKF(enough && failures > 20, "only %d failing allocations", failures);
}
