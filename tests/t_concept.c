/* The concept score finds pictures again that were moved, shrunk, blurred, noised or tinted, does not find what is not there,
 * and counts right. On drawn shapes in six colours; figures on the real pictures: tools/pictograms/README.md. */
#include "test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "concept_check.h"
#include "synth.h"

enum { S = 48 };

static sm_dataset *shapes(unsigned splits, sm_mem *mem, sm_err *e)
{
    const char *pixels = test_tmp("shapes.safetensors"), *index = test_tmp("shapes.jsonl");
    if (!synth_write(pixels, index, SYNTH_THINGS))
        return sm_fail(e, SUMI_E_FILE, "cannot write the made-up data set"), NULL;
    return sm_dataset_open(pixels, index, &(sm_data_filter){.splits = splits}, mem, e);
}

static void draw_at(const sm_dataset *d, int64_t i, float x, float y, float scale, uint8_t *rgb)
{
    sm_scene s = {.picture = {i, i}, .place = {.n = 1, .at = {{x, y, scale}}}};
    sm_err e = {0};
    CHECKF(sm_dataset_draw(d, &s, S, rgb, &e) == SUMI_OK, "%s", e.msg);
}

/* Mean over f x f blocks. */
static void mosaic(uint8_t *rgb, int f)
{
    for (int y = 0; y < S; y += f)
        for (int x = 0; x < S; x += f)
            for (int c = 0; c < 3; c++) {
                int sum = 0;
                for (int k = 0; k < f * f; k++)
                    sum += rgb[((y + k / f) * S + x + k % f) * 3 + c];
                for (int k = 0; k < f * f; k++)
                    rgb[((y + k / f) * S + x + k % f) * 3 + c] = (uint8_t)(sum / f / f);
            }
}

static void add_noise(uint8_t *rgb, float deviation, uint64_t stream)
{
    float n[S * S * 3];
    sm_rng_normal(4, stream, 0, n, SM_COUNT(n));
    for (int i = 0; i < S * S * 3; i++)
        rgb[i] = (uint8_t)SM_MAX(0.0f, SM_MIN(255.0f, (float)rgb[i] + deviation * n[i]));
}

static void tint(uint8_t *rgb)
{
    for (int i = 0; i < S * S * 3; i++)
        rgb[i] = (uint8_t)(255 - SM_MIN(255, (255 - rgb[i]) * (i % 3 == 1 ? 110 : 92) / 100));
}

TEST(concept_finds_degraded)
{
    sm_err e = {0};
    sm_dataset *d = shapes(7, NULL, &e);
    sm_gallery *g = d ? sm_gallery_new(d, 0, NULL, &e) : NULL;
    CHECKF(g && sm_gallery_count(g) == SYNTH_THINGS, "%s", e.msg);
    static const char *const kind[] = {"as it is", "moved", "shrunk", "mosaic", "noise", "tinted"};
    for (int k = 0; g && k < 6; k++) {
        sm_concept_tally t = {0};
        for (int64_t i = 0; i < SYNTH_THINGS; i++) {
            uint8_t rgb[S * S * 3];
            float move = k == 1 ? (float)(i % 7 - 3) / 48 : 0;
            draw_at(d, i, k == 2 ? 0.02f : move, k == 2 ? 0.15f : -move, k == 2 ? 0.8f : 1, rgb);
            if (k == 3)
                mosaic(rgb, 3);
            if (k == 4)
                add_noise(rgb, 10, (uint64_t)i);
            if (k == 5)
                tint(rgb);
            sm_concept_hit hit;
            CHECK(sm_gallery_find(g, rgb, S, S, sm_dataset_picture(d, i)->caption, &hit, &e) == SUMI_OK);
            CHECKF(k || (hit.rank == 1 && hit.nearest[0] == i), "thing %lld: rank %d", (long long)i, hit.rank);
            sm_concept_tally_add(&t, &hit);
        }
        /* The shapes differ as much as pictograms do: one confusion is allowed. */
        CHECKF(t.n == SYNTH_THINGS && t.top1 >= t.n - 1 && t.top5 == t.n, "%s: top 1 %lld, top 5 %lld of %lld", kind[k],
               (long long)t.top1,
               (long long)t.top5, (long long)t.n);
    }
    sm_gallery_free(g);
    sm_dataset_free(d);
}

/* A drawing of another thing is not taken for the wanted one; an empty frame finds about as much as chance. */
TEST(concept_refuses_wrong)
{
    sm_err e = {0};
    sm_dataset *d = shapes(7, NULL, &e);
    sm_gallery *g = d ? sm_gallery_new(d, 0, NULL, &e) : NULL;
    CHECKF(g != NULL, "%s", e.msg);
    sm_concept_tally wrong = {0}, blank = {0};
    for (int64_t i = 0; g && i < SYNTH_THINGS; i++) {
        uint8_t rgb[S * S * 3];
        const char *want = sm_dataset_picture(d, i)->caption;
        sm_concept_hit hit;
        draw_at(d, (i + 17) % SYNTH_THINGS, 0, 0, 1, rgb);
        CHECK(sm_gallery_find(g, rgb, S, S, want, &hit, &e) == SUMI_OK);
        sm_concept_tally_add(&wrong, &hit);
        memset(rgb, 255, sizeof rgb);
        CHECK(sm_gallery_find(g, rgb, S, S, want, &hit, &e) == SUMI_OK);
        sm_concept_tally_add(&blank, &hit);
    }
    CHECKF(wrong.top1 == 0, "%lld wrong things taken for right", (long long)wrong.top1);
    CHECKF(blank.top1 <= 1 && blank.top5 <= 5, "a blank frame is right %lld times", (long long)blank.top1);
    sm_gallery_free(g);
    sm_dataset_free(d);
}

TEST(concept_held_out_and_counts)
{
    sm_err e = {0};
    sm_dataset *d = shapes(SM_SPLIT_TRAIN, NULL, &e);
    sm_gallery *g = d ? sm_gallery_new(d, 0, NULL, &e) : NULL;
    CHECKF(g != NULL, "%s", e.msg);
    if (!g)
        return;
    uint8_t rgb[S * S * 3];
    const uint8_t *drawn[3] = {rgb, rgb, rgb};
    draw_at(d, 3, 0, 0, 1, rgb);
    const char *const wanted[3] = {sm_dataset_picture(d, 3)->caption, synth_caption(6) /* split concept: not here */,
                                   sm_dataset_picture(d, 9)->caption};
    sm_concept_tally t = {0};
    int rank[3];
    CHECK(sm_concept_score(g, 3, drawn, S, wanted, &t, rank, &e) == SUMI_OK);
    CHECK(rank[0] == 1 && rank[1] == 0 && rank[2] > 1);
    CHECK(t.n == 3 && t.top1 == 1 && t.top5 == 1 + (rank[2] <= 5) && fabs(t.reciprocal - 1 - 1.0 / rank[2]) < 1e-12);
    sm_concept_hit hit;
    CHECK(sm_gallery_find(g, rgb, S, S, wanted[0], &hit, &e) == SUMI_OK);
    for (int a = 0; a < 5; a++)
        for (int b = 0; b < a; b++)
            CHECK(hit.nearest[a] >= 0 && hit.nearest[a] != hit.nearest[b]);
    CHECKF(hit.similarity > 0.9f && hit.similarity <= 1.0001f, "similarity %g", (double)hit.similarity);
    CHECK(sm_gallery_find(g, rgb, 7, S, wanted[0], &hit, &e) == SUMI_E_ARG);
    sm_err_clear(&e);
    CHECK(!sm_gallery_new(d, 1, NULL, &e) && e.code == SUMI_E_ARG && !sm_gallery_new(d, 99, NULL, NULL));
    sm_gallery_free(g);
    sm_dataset_free(d);
}

/* The window follows the drawing: moving it by whole pixels inside the frame changes nothing but rounding. */
TEST(concept_feature_moves_along)
{
    enum { W = 64 };
    static float a[SM_CONCEPT_DIM], b[SM_CONCEPT_DIM];
    static uint8_t p[W * W * 3], q[W * W * 3];
    memset(p, 255, sizeof p);
    memset(q, 255, sizeof q);
    for (int y = 0; y < 24; y++)
        for (int x = 0; x < 30; x++) {
            uint8_t c[3] = {(uint8_t)(x * 8), (uint8_t)(y * 10), (uint8_t)((x ^ y) * 8)};
            memcpy(p + ((y + 5) * W + x + 3) * 3, c, 3);
            memcpy(q + ((y + 31) * W + x + 27) * 3, c, 3);
        }
    CHECK(sm_concept_feature(p, W, W, a, NULL, NULL) == SUMI_OK && sm_concept_feature(q, W, W, b, NULL, NULL) == SUMI_OK);
    double d = test_maxdiff(a, b, SM_CONCEPT_DIM);
    CHECKF(d < 1e-3, "features differ by %g", d);
    CHECK(sm_concept_feature(p, W, 9000, a, NULL, NULL) == SUMI_E_ARG);
}

/* The table of tools/pictograms/README.md on a small data set. Its last row is an empty frame, which must not be found. */
TEST(concept_check_table)
{
    sm_err e = {0};
    sm_dataset *d = shapes(7, NULL, &e);
    sm_gallery *g = d ? sm_gallery_new(d, 0, NULL, &e) : NULL;
    sm_concept_tally t[SM_SPOILS], again[SM_SPOILS];
    CHECKF(g && sm_concept_check(g, d, 0, 1, 7, t, NULL, &e) == SUMI_OK, "%s", e.msg);
    CHECKF(g && sm_concept_check(g, d, 0, 1, 7, again, NULL, &e) == SUMI_OK && !memcmp(t, again, sizeof t),
           "the check repeats itself");
    for (int k = 0; g && k < SM_SPOILS; k++) {
        bool last = k == SM_SPOILS - 1;
        CHECKF(t[k].n == SYNTH_THINGS && (last ? t[k].top1 <= 3 : t[k].top5 >= t[k].n - 2), "%s: top 1 %lld, top 5 %lld of %lld",
               sm_spoil_names[k],
               (long long)t[k].top1, (long long)t[k].top5, (long long)t[k].n);
    }
    CHECK(t[0].top1 == SYNTH_THINGS && t[1].top1 >= SYNTH_THINGS - 1);
    uint8_t tiny[8 * 8 * 3];
    CHECK(sm_spoil(1, 0, 0, 8, tiny, NULL, NULL) == SUMI_E_ARG);
    sm_gallery_free(g);
    sm_dataset_free(d);
}

TEST(concept_allocations_fail)
{
    uint8_t rgb[S * S * 3];
    memset(rgb, 90, sizeof rgb);
    bool finished = false;
    for (int64_t k = 1; k < 2000 && !finished; k += k < 40 ? 1 : 37) {
        sm_err e = {0};
        sm_dataset *d = shapes(SM_SPLIT_PAIR, NULL, &e);
        sm_mem mem = {.fail_at = k};
        sm_gallery *g = sm_gallery_new(d, 0, &mem, &e);
        sm_concept_hit hit;
        if (g)
            sm_gallery_find(g, rgb, S, S, "red disc", &hit, &e);
        finished = e.code == SUMI_OK;
        CHECKF(finished || e.code == SUMI_E_MEMORY, "allocation %lld: %s", (long long)k, e.msg);
        sm_gallery_free(g);
        sm_dataset_free(d);
        CHECK(mem.total == 0);
    }
    CHECK(finished);
}
