/* The public concept score on a tiny model: every pair counted with and without sheets, stopped by the caller, folders that
 * are not there. What a score is worth is tested in t_concept.c. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "synth.h"
#include "test.h"
#include "tiny.h"

enum { PICTURES = 104 }; /* more than a sheet holds */

/* The shapes twice and some more, every fourth held out as a pair. */
static bool write_data(const char *pixels, const char *index)
{
    enum { BYTES = SYNTH_SIDE * SYNTH_SIDE * 4 };
    char header[160];
    uint8_t rgba[BYTES];
    snprintf(header, sizeof header, "{\"rgba\":{\"dtype\":\"U8\",\"shape\":[%d,%d,%d,4],\"data_offsets\":[0,%d]}}", PICTURES,
             SYNTH_SIDE, SYNTH_SIDE,
             PICTURES * BYTES);
    bool ok = synth_tensor_file(pixels, header, 0);
    FILE *f = fopen(pixels, "ab"), *j = fopen(index, "wb");
    ok = ok && f && j;
    for (int k = 0; ok && k < PICTURES; k++) {
        synth_rgba(k % SYNTH_THINGS, SYNTH_SIDE, rgba);
        ok = fwrite(rgba, 1, BYTES, f) == BYTES &&
             fprintf(j, "{\"style\": \"noto\", \"name\": \"thing-%d\", \"caption\": \"%s\", \"tags\": [\"drawn\"], \"hex\": "
                     "\"1F%03X\", "
                        "\"group\": \"objects\", \"sub\": \"shape\", \"split\": \"%s\"}\n",
                     k, synth_caption(k % SYNTH_THINGS), k, k % 4 == 3 ? "pair" : "train") > 0;
    }
    ok = (!f || !fclose(f)) && ok;
    return (!j || !fclose(j)) && ok;
}

typedef struct watch { int cancel, calls; int64_t stop_at, last; } watch;

static void on_progress(void *user, const sumi_progress *p)
{
    watch *w = user;
    CHECK(!strcmp(p->stage, "score") && p->step > w->last && p->step <= p->steps);
    w->last = p->step;
    w->calls++;
    if (w->stop_at && p->step >= w->stop_at)
        w->cancel = 1;
}

/* One score with a context of its own; w may be NULL. */
static sumi_status score(const char *save_dir, int limit, watch *w, sumi_score *out, char msg[640])
{
    char pixels[256], index[256];
    sumi_context *ctx;
    sumi_model *m = NULL;
    sumi_context_options co = {.threads = 2};
    snprintf(pixels, sizeof pixels, "%s", test_tmp("score-data.safetensors"));
    snprintf(index, sizeof index, "%s", test_tmp("score-data.jsonl"));
    sumi_score_options o = {.pictures = pixels, .index = index, .steps = 1, .cfg_scale = 1, .seed = 1, .limit = limit,
                            .save_dir = save_dir};
    sumi_callbacks cb = {.progress = on_progress, .user = w, .cancel = w ? &w->cancel : NULL};
    CHECK(write_data(pixels, index));
    sumi_status st = sumi_context_new(&co, &ctx);
    if (!st)
        st = sumi_model_load(ctx, tiny_model(TINY_UNET), &m);
    if (!st)
        st = sumi_score_concepts(ctx, m, &o, w ? &cb : NULL, out);
    snprintf(msg, 640, "%s", sumi_error(ctx));
    sumi_model_free(m);
    sumi_context_free(ctx);
    return st;
}

TEST(score_counts_every_pair_without_sheets)
{
    sumi_score s;
    char msg[640];
    watch w = {0};
    CHECKF(!score(NULL, 0, &w, &s, msg), "%s", msg);
    CHECKF(s.trained.pairs == PICTURES * 3 / 4 && s.held_pairs.pairs == PICTURES / 4 && !s.held_concepts.pairs, "%d and %d",
           s.trained.pairs,
           s.held_pairs.pairs);
    CHECK(s.trained.top1 <= s.trained.top5 && s.trained.top5 <= s.trained.pairs && s.seconds_per_picture > 0);
    CHECK(w.calls == PICTURES / 8 && w.last == PICTURES);
}

TEST(score_writes_its_sheets)
{
    sumi_score s, plain;
    char msg[640], dir[256], second[300];
    snprintf(dir, sizeof dir, "%s", test_tmp("score-data.jsonl"));
    *strrchr(dir, '/') = 0;
    snprintf(second, sizeof second, "%s/score-001.png", dir);
    CHECKF(!score(dir, 0, NULL, &s, msg), "%s", msg);
    CHECK(!access(second, R_OK));
    CHECK(!score(NULL, 0, NULL, &plain, msg) && plain.trained.top5 == s.trained.top5);
    CHECK(score("/nonexistent/folder", 0, NULL, &s, msg) == SUMI_E_FILE && strstr(msg, "/nonexistent/folder"));
}

TEST(score_stops_when_asked)
{
    sumi_score s;
    char msg[640];
    watch w = {.stop_at = 16};
    CHECKF(score(NULL, 0, &w, &s, msg) == SUMI_E_CANCELLED, "%s", msg);
    CHECK(w.last == 16);
    CHECKF(!score(NULL, 5, NULL, &s, msg) && s.trained.pairs + s.held_pairs.pairs == 5, "%s", msg);
}
