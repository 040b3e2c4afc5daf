/* Training: a run that is stopped or killed goes on bit for bit; the order of examples is a permutation; checkpoints and
 * configurations that are wrong are refused; learning rates follow their formula. */
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "io/safetensors.h"
#include "test.h"
#include "tiny.h"
#include "train/stages.h"

static bool same_file(const char *a, const char *b, const char *name)
{
    char pa[400], pb[400];
    sm_buf x = {0}, y = {0};
    snprintf(pa, sizeof pa, "%s/%s", a, name);
    snprintf(pb, sizeof pb, "%s/%s", b, name);
    bool ok = !sm_file_read(pa, 1 << 26, &x, NULL) && !sm_file_read(pb, 1 << 26, &y, NULL) && x.len == y.len && x.len &&
        !memcmp(x.data, y.data, x.len);
    sm_buf_free(&x);
    sm_buf_free(&y);
    return ok;
}

static void check_resume(const char *name, tiny_kind kind)
{
    tiny s = tiny_setup(name, kind, "");
    char whole[300], parts[300], msg[640];
    snprintf(whole, sizeof whole, "%s-whole", s.dir);
    snprintf(parts, sizeof parts, "%s-parts", s.dir);
    CHECKF(!tiny_train(&s, whole, 0, 0, 2, msg), "%s", msg);
    for (int i = 0; i < 5; i++) /* other cuts and other thread counts than the whole run's */
        CHECKF(!tiny_train(&s, parts, i > 0, 4, 1 + i % 3, msg), "part %d: %s", i, msg);
    CHECK(same_file(whole, parts, "autoencoder.ckpt"));
    CHECK(same_file(whole, parts, "flow.ckpt"));
    CHECKF(!tiny_train(&s, parts, 1, 0, 1, msg), "%s", msg);
    CHECK(same_file(whole, parts, "tiny.safetensors"));
}

TEST(train_resume_equals_no_interruption) { check_resume("resume", TINY_UNET); }

/* Whether the optimiser has moved a tensor: its second moment is not all zero. */
static bool has_learned(const char *ckpt, const char *tensor)
{
    char name[160];
    float most = 0;
    sm_err e = {0};
    sm_st *f = sm_st_open(ckpt, NULL, &e);
    snprintf(name, sizeof name, "v.%s", tensor);
    const sm_st_entry *x = f ? sm_st_find(f, name) : NULL;
    for (size_t i = 0; x && i < x->bytes / sizeof(float); i++) {
        float v;
        memcpy(&v, x->data + i * sizeof v, sizeof v);
        most = fmaxf(most, v);
    }
    sm_st_close(f);
    return most > 0;
}

TEST(train_resume_with_pooled_text)
{
    char ckpt[300], sheet[300];
    check_resume("pooled", TINY_MMDIT);
    snprintf(ckpt, sizeof ckpt, "%s", test_tmp("pooled-whole/flow.ckpt"));
    snprintf(sheet, sizeof sheet, "%s", test_tmp("pooled-whole/validate-0000010.png"));
    CHECK(has_learned(ckpt, "text_encoder.text_projection.weight"));
    CHECK(has_learned(ckpt, "transformer.time_text_embed.text_embedder.linear_1.weight"));
    CHECK(!has_learned(ckpt, "transformer.pos_embed.pos_embed"));
    CHECK(!access(sheet, F_OK));
}

TEST(train_killed_run_goes_on_bit_for_bit)
{
    tiny s = tiny_setup("kill", TINY_UNET, "");
    char whole[300], killed[300], ckpt[320], msg[640];
    snprintf(whole, sizeof whole, "%s-whole", s.dir);
    snprintf(killed, sizeof killed, "%s-killed", s.dir);
    snprintf(ckpt, sizeof ckpt, "%s/flow.ckpt", killed);
    CHECK(!tiny_train(&s, whole, 0, 0, 1, NULL));
    fflush(NULL);
    pid_t child = fork();
    if (!child) {
        for (;;) /* once the run is done, again: a kill always finds it at work */
            if (tiny_train(&s, killed, 1, 0, 1, NULL))
                _exit(3);
    }
    for (int i = 0; i < 20000 && access(ckpt, F_OK); i++)
        usleep(500);
    kill(child, SIGKILL);
    int status;
    waitpid(child, &status, 0);
    CHECK(WIFSIGNALED(status));
    CHECKF(!tiny_train(&s, killed, 1, 0, 1, msg), "%s", msg);
    CHECK(same_file(whole, killed, "flow.ckpt"));
    CHECK(same_file(whole, killed, "tiny.safetensors"));
}

TEST(train_output_in_use_needs_resume)
{
    tiny s = tiny_setup("inuse", TINY_UNET, "");
    char msg[640];
    CHECK(!tiny_train(&s, NULL, 0, 2, 1, msg));
    CHECK(tiny_train(&s, NULL, 0, 2, 1, msg) == SUMI_E_FILE);
    CHECKF(strstr(msg, "autoencoder.ckpt exists") && strstr(msg, "--resume"), "%s", msg);
}

/* Every weight moves by 5 in the first step: the second one's loss is NaN, on every machine. */
TEST(train_nan_stops_and_names_the_checkpoint)
{
    tiny s = tiny_setup("nan", TINY_UNET, ",\"lr\":10,\"clip\":0,\"eps\":0,\"beta2\":0"),
        good = tiny_setup("nan-later", TINY_UNET, "");
    char msg[640], want[640];
    CHECK(tiny_train(&s, NULL, 0, 0, 1, msg) == SUMI_E_NUMERIC);
    CHECKF(!strcmp(msg, "autoencoder: step 2: the loss is nan; lower lr or raise warmup; no checkpoint was written yet"), "%s",
           msg);
    CHECKF(!tiny_train(&good, NULL, 0, 4, 1, msg), "%s", msg); /* four good steps, then the bad settings */
    snprintf(want, sizeof want, "autoencoder: step 6: the loss is nan; lower lr or raise warmup; go on with --resume from "
             "%s/autoencoder.ckpt (step 4)", good.dir);
    CHECK(!rename(s.config, good.config));
    CHECK(tiny_train(&good, good.dir, 1, 0, 1, msg) == SUMI_E_NUMERIC);
    CHECKF(!strcmp(msg, want), "%s", msg);
}

TEST(train_full_disk_stops_with_one_line)
{
    tiny s = tiny_setup("full", TINY_UNET, "");
    char msg[640], log[300];
    CHECK(!mkdir(s.dir, 0777));
    snprintf(log, sizeof log, "%s/log.jsonl", s.dir);
    CHECK(!symlink("/dev/full", log));
    CHECK(tiny_train(&s, NULL, 0, 0, 1, msg) == SUMI_E_FILE);
    CHECKF(strstr(msg, "log.jsonl") && strstr(msg, "No space left"), "%s", msg);
}

TEST(train_config_errors_name_the_key)
{
    static const struct { const char *extra, *want; } cases[] = {
        {",\"stepz\":3", "autoencoder.stepz: unknown key"}, {",\"lr\":-1", "autoencoder.lr"},
        {",\"beta1\":\"x\"", "autoencoder.beta1: must be a number"},
        {",\"crop\":9", "the name 'crop' appears twice"}, {",\"ema\":1", "autoencoder.ema"},
        {",\"decoder_only\":1", "autoencoder.decoder_only: must be true or false"}, {",", "not a JSON object"},
    };
    for (size_t i = 0; i < SM_COUNT(cases); i++) {
        char msg[640], name[32];
        snprintf(name, sizeof name, "config%zu", i);
        tiny s = tiny_setup(name, TINY_UNET, cases[i].extra);
        CHECK(tiny_train(&s, NULL, 0, 1, 1, msg) != SUMI_OK);
        CHECKF(strstr(msg, cases[i].want) != NULL, "case %zu: %s", i, msg);
    }
}

TEST(train_epoch_order_is_a_permutation)
{
    enum { N = 37 };
    int moved = 0, others = 0;
    for (int epoch = 0; epoch < 4; epoch++) {
        int seen[N] = {0};
        for (int k = 0; k < N; k++) {
            int64_t x = sm_epoch_order(5, N, epoch * N + k);
            CHECK(x >= 0 && x < N);
            if (x >= 0 && x < N)
                seen[x]++;
            moved += x != k;
            others += x != sm_epoch_order(5, N, k); /* in the first epoch */
        }
        for (int k = 0; k < N; k++)
            CHECKF(seen[k] == 1, "epoch %d: %d comes %d times", epoch, k, seen[k]);
    }
    CHECK(moved > N * 3);
    CHECKF(others > N * 2, "%d of %d places differ from the first epoch's", others, 3 * N);
    CHECK(sm_epoch_order(5, 1, 3) == 0);
}

/* The plain variant has its own chance and its share of the rest; the others are equally likely: within four deviations. */
TEST(train_variants_have_their_shares)
{
    enum { N = 40000, VARIANTS = 4 };
    for (int plain = 0; plain <= 2; plain++) {
        sm_train_config c = {.data.variants = VARIANTS, .flow.plain = 0.5f * (float)plain};
        int n[VARIANTS] = {0};
        for (uint64_t at = 0; at < N; at++)
            n[sm_flow_variant(&c, 3, at)]++;
        for (int k = 0; k < VARIANTS; k++) {
            double p = (1 - 0.5 * plain) / VARIANTS + (k ? 0 : 0.5 * plain);
            CHECKF(fabs(n[k] - N * p) <= 4 * sqrt(N * p * (1 - p)), "plain %g: variant %d came %d times of %d",
                   0.5 * plain, k, n[k], N);
        }
    }
}

TEST(train_learning_rate_formula)
{
    sm_opt_config c = {.steps = 110, .warmup = 10, .lr = 2, .min_lr = 0.5f};
    CHECK(fabsf(sm_lr_at(&c, 0) - 0.2f) < 1e-6f);
    CHECK(fabsf(sm_lr_at(&c, 9) - 2) < 1e-6f);
    CHECK(fabsf(sm_lr_at(&c, 60) - 1.25f) < 1e-6f);
    CHECK(fabsf(sm_lr_at(&c, 110) - 0.5f) < 1e-6f);
}
