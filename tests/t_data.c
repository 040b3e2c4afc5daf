/* Composed pictures, the picture index and the data set, hostile files included. Expected pixels are worked out by hand. */
#include "test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "synth.h"
#include "train/dataset.h"

static const uint8_t white[3] = {255, 255, 255};

static void fill_rgba(uint8_t *p, int side, uint8_t r, uint8_t g, uint8_t b, uint8_t a)
{
    for (int i = 0; i < side * side; i++, p += 4)
        p[0] = r, p[1] = g, p[2] = b, p[3] = a;
}

/* ---- composing --------------------------------------------------------------------------------------------------- */

TEST(compose_identity_and_shift)
{
    enum { S = 16 };
    uint8_t rgba[S * S * 4], out[S * S * 3];
    for (int i = 0; i < S * S * 4; i++)
        rgba[i] = i % 4 == 3 ? 255 : (uint8_t)(i * 37 + i / 64 * 11);
    sm_layer l = {rgba, S, 0, 0, 1};
    CHECK(sm_compose(&l, 1, white, S, out, NULL, NULL) == SUMI_OK);
    int wrong = 0;
    for (int i = 0; i < S * S * 3; i++)
        wrong += out[i] != rgba[i / 3 * 4 + i % 3];
    CHECKF(!wrong, "identity: %d bytes differ", wrong);
    l.x = 3.0f / S, l.y = -2.0f / S; /* whole pixels: cut above, white at the left */
    CHECK(sm_compose(&l, 1, white, S, out, NULL, NULL) == SUMI_OK);
    for (int y = 0; y < S; y++)
        for (int x = 0; x < S; x++)
            for (int c = 0; c < 3; c++) {
                int sx = x - 3, sy = y + 2;
                wrong += out[(y * S + x) * 3 + c] != (sx < 0 || sy >= S ? 255 : rgba[(sy * S + sx) * 4 + c]);
            }
    CHECKF(!wrong, "shift: %d bytes differ", wrong);
}

TEST(compose_alpha_over_background)
{
    enum { S = 8 };
    uint8_t rgba[S * S * 4], out[S * S * 3];
    static const uint8_t bg[3] = {10, 100, 200}, alpha[4] = {0, 64, 128, 255};
    for (int k = 0; k < 4; k++) {
        fill_rgba(rgba, S, 250, 20, 60, alpha[k]);
        sm_layer l = {rgba, S, 0, 0, 1};
        CHECK(sm_compose(&l, 1, bg, S, out, NULL, NULL) == SUMI_OK);
        double a = alpha[k] / 255.0, want[3] = {250 * a + 10 * (1 - a), 20 * a + 100 * (1 - a), 60 * a + 200 * (1 - a)};
        for (int i = 0; i < S * S * 3; i++)
            CHECKF(out[i] >= want[i % 3] - 0.51 && out[i] <= want[i % 3] + 0.51, "alpha %d: %d, not %g", alpha[k], out[i],
                   want[i % 3]);
    }
    CHECK(sm_compose(NULL, 0, bg, S, out, NULL, NULL) == SUMI_OK && !memcmp(out, bg, 3) && !memcmp(out + (S * S - 1) * 3, bg, 3));
}

/* The colour under full transparency must never show, at any scale. */
TEST(compose_no_bleeding)
{
    enum { S = 16 };
    uint8_t rgba[S * S * 4], out[24 * 24 * 3];
    fill_rgba(rgba, S, 0, 255, 0, 0);
    for (int i = 0; i < S * S; i++)
        if (i % S < S / 2)
            memcpy(rgba + i * 4, (uint8_t[4]){255, 0, 0, 255}, 4);
    static const float scale[] = {0.3f, 0.5f, 0.77f, 1.0f, 1.9f};
    static const uint8_t black[3] = {0, 0, 0};
    for (size_t k = 0; k < SM_COUNT(scale); k++) {
        sm_layer l = {rgba, S, 0.05f, 0.1f, scale[k]};
        CHECK(sm_compose(&l, 1, black, 24, out, NULL, NULL) == SUMI_OK);
        int green = 0, red = 0;
        for (int i = 0; i < 24 * 24; i++)
            green += out[i * 3 + 1], red += out[i * 3];
        CHECKF(!green && red, "scale %g: green %d, red %d", (double)scale[k], green, red);
    }
}

/* Shrinking by two is the mean of four; any shrinking inside the frame keeps area times scale squared. */
TEST(compose_area)
{
    enum { S = 32 };
    uint8_t rgba[S * S * 4], out[S * S * 3];
    for (int i = 0; i < S * S; i++)
        memcpy(rgba + i * 4, (uint8_t[4]){(uint8_t)(i * 7), (uint8_t)(i / S * 8), (uint8_t)(i * 29 % 251), 255}, 4);
    sm_layer l = {rgba, S, 0, 0, 1};
    CHECK(sm_compose(&l, 1, white, S / 2, out, NULL, NULL) == SUMI_OK);
    for (int y = 0; y < S / 2; y++)
        for (int x = 0; x < S / 2; x++)
            for (int c = 0; c < 3; c++) {
                const uint8_t *p = rgba + ((2 * y) * S + 2 * x) * 4 + c;
                double want = (p[0] + p[4] + p[S * 4] + p[S * 4 + 4]) / 4.0;
                double d = out[(y * S / 2 + x) * 3 + c] - want;
                CHECKF(d >= -0.51 && d <= 0.51, "(%d, %d): off by %g", x, y, d);
            }
    for (int k = 0; k < SYNTH_THINGS; k += 5) {
        static const uint8_t black[3] = {0, 0, 0};
        double full = 0, small = 0;
        synth_rgba(k, S, rgba);
        for (int i = 0; i < S * S; i++)
            full += rgba[i * 4 + 3] / 255.0 * rgba[i * 4];
        float scale = 0.45f + 0.011f * (float)k;
        l = (sm_layer){rgba, S, 0.02f, 0.01f, scale > 0.95f ? 0.95f : scale};
        CHECK(sm_compose(&l, 1, black, S, out, NULL, NULL) == SUMI_OK);
        for (int i = 0; i < S * S; i++)
            small += out[i * 3];
        double want = full * l.scale * l.scale; /* rounding to bytes: half a step a pixel at most, random in sign */
        CHECKF(small > want * 0.99 - 30 && small < want * 1.01 + 30, "thing %d: area %g, not %g", k, small, want);
    }
}

TEST(compose_bad_arguments)
{
    uint8_t rgba[8 * 8 * 4] = {0}, out[16 * 16 * 3];
    const sm_layer bad[] = {{NULL, 8, 0, 0, 1}, {rgba, 0, 0, 0, 1}, {rgba, 9000, 0, 0, 1}, {rgba, 8, 0, 0, 0},
                            {rgba, 8, 0, 0, -1},
                            {rgba, 8, 0.0f / 0.0f, 0, 1}, {rgba, 8, 0, 1e30f, 1}, {rgba, 8, 0, 0, 1.0f / 0.0f},
                            {rgba, 8, 0, 0, 0.0f / 0.0f}};
    for (size_t i = 0; i < SM_COUNT(bad); i++) {
        sm_err e = {0};
        CHECKF(sm_compose(&bad[i], 1, white, 16, out, NULL, &e) == SUMI_E_ARG && *e.msg, "bad layer %zu", i);
    }
    sm_layer fine = {rgba, 8, 5, -7, 1}; /* wholly outside: nothing drawn */
    CHECK(sm_compose(&fine, 1, white, 16, out, NULL, NULL) == SUMI_OK && out[0] == 255 && out[16 * 16 * 3 - 1] == 255);
    static const int sizes[] = {-1, 0, 7, 2049};
    for (size_t i = 0; i < SM_COUNT(sizes); i++)
        CHECK(sm_compose(&fine, 1, white, sizes[i], out, NULL, NULL) == SUMI_E_ARG);
}

/* Frames hold what is placed; shares are those asked for (4000 throws: 5 deviations are 0.04). */
TEST(compose_placement)
{
    enum { N = 4000 };
    sm_compose_opts o = {.p_white = 0.4f, .p_two = 0.25f, .scale_min = 0.7f, .scale_max = 0.9f};
    int whites = 0, twos = 0, same = 0, colours[SM_COLOURS] = {0};
    for (int i = 0; i < N; i++) {
        sm_dice d = sm_dice_new(1, SM_DICE_SCENE, (uint64_t)i / 10, 1 + (uint64_t)i % 10);
        sm_placement p;
        sm_place(&o, 1 + (uint64_t)i % 10, true, &d, &p);
        whites += p.colour == SM_WHITE;
        colours[p.colour]++;
        twos += p.n == 2;
        same += p.same;
        if (p.n == 1)
            CHECK(p.at[0].scale >= 0.7f && p.at[0].scale <= 0.9f && p.at[0].x >= 0 && p.at[0].y >= 0 &&
                  p.at[0].x + p.at[0].scale <= 1.0001f &&
                  p.at[0].y + p.at[0].scale <= 1.0001f);
        else
            CHECK(p.at[0].x + p.at[0].scale / 2 < 0.3f && p.at[1].x + p.at[1].scale / 2 > 0.7f && p.at[0].scale == p.at[1].scale);
    }
    CHECKF(whites > N * 0.36 && whites < N * 0.44, "%d white", whites);
    CHECKF(twos > N * 0.21 && twos < N * 0.29, "%d of two", twos);
    CHECKF(same > twos * 0.4 && same < twos * 0.6, "%d of %d twice the same", same, twos);
    for (int c = 0; c < SM_COLOURS; c++)
        CHECKF(colours[c] > 30, "colour %d only %d times", c, colours[c]);
    sm_dice d = sm_dice_new(1, SM_DICE_SCENE, 0, 0);
    sm_placement p;
    sm_place(&o, 0, true, &d, &p);
    CHECK(p.n == 1 && p.colour == SM_WHITE && p.at[0].scale == 1.0f && p.at[0].x == 0 && p.at[0].y == 0);
}

/* ---- index ------------------------------------------------------------------------------------------------------- */

#define GOOD "{\"style\":\"noto\",\"name\":\"n\",\"caption\":\"cat\",\"tags\":[\"pet\"]," \
    "\"group\":\"g\",\"sub\":\"s\",\"split\":\"train\"}"

static sumi_status parse(const char *text, size_t n, sm_picture **pics, int64_t *count, sm_arena *a, sm_err *e)
{
    sm_arena_init(a, NULL, SM_MEM_DATA);
    return sm_picture_index_parse(text, n, "index.jsonl", a, pics, count, e);
}

TEST(data_index_good)
{
    static const char text[] = GOOD "\n" GOOD " \r\n"
        "{\"split\":\"pair\",\"style\":\"fxemoji\",\"caption\":\"pi\\u00f1ata "
            "\\ud83d\\ude00\",\"name\":\"x\",\"tags\":[],\"group\":\"g\",\"sub\":\"s\",\"more\":[1,{}]}";
    sm_arena a;
    sm_picture *p = NULL;
    int64_t n = 0;
    sm_err e = {0};
    CHECKF(parse(text, strlen(text), &p, &n, &a, &e) == SUMI_OK && n == 3, "%s", e.msg);
    if (n == 3) {
        CHECK(!strcmp(p[0].caption, "cat") && p[0].n_tags == 1 && !strcmp(p[0].tags[0], "pet") && p[0].split == SM_SPLIT_TRAIN &&
              p[1].row == 1);
        CHECK(!strcmp(p[2].caption, "pi\xc3\xb1" "ata \xf0\x9f\x98\x80") && p[2].n_tags == 0 && p[2].split == SM_SPLIT_PAIR);
        CHECK(p[2].style_row == sm_style_find("firefox"));
    }
    sm_arena_free(&a);
}

TEST(data_index_hostile)
{
    static char deep[6000], long_caption[700], many_tags[900];
    memset(deep, '[', sizeof deep - 1);
    snprintf(long_caption, sizeof long_caption, "{\"style\":\"noto\",\"name\":\"n\",\"caption\":\"%0400d\"}", 1);
    strcpy(many_tags, "{\"style\":\"noto\",\"name\":\"n\",\"caption\":\"c\",\"group\":\"g\",\"sub\":\"s\",\"tags\":[\"t\"");
    for (int i = 0; i < 65; i++)
        strcat(many_tags, ",\"t\"");
    strcat(many_tags, "],\"split\":\"train\"}");
    const char *const bad[][2] = {
        {"", "empty"}, {"\n", "JSON"}, {"null", "object"}, {"[]", "object"}, {"{}", "style"}, {"{", "JSON"}, {deep, "nested"},
        {"\xff\xfe", "UTF-8"},
        {GOOD "x", "not valid"}, {GOOD GOOD, "not valid"}, {GOOD "\n\n" GOOD, ":2:"}, {GOOD "\n{\"style\":\"noto\"}", ":2: name"},
        {"{\"style\":1}", "style"}, {"{\"style\":\"cubist\",\"name\":\"n\",\"caption\":\"c\",\"group\":\"g\",\"sub\":\"s\"}",
                                     "not known"},
        {"{\"style\":\"noto\",\"name\":\"\"}", "empty"}, {long_caption, "160"}, {many_tags, "64"},
        {"{\"style\":\"noto\",\"name\":\"n\",\"caption\":\"a\\nb\"}", "control"}, {"{\"style\":\"noto\",\"name\":null}", "name"},
        {"{\"style\":\"noto\",\"name\":\"n\",\"caption\":\"c\",\"group\":\"g\",\"sub\":\"s\",\"tags\":{}}", "tags"},
        {"{\"style\":\"noto\",\"name\":\"n\",\"caption\":\"c\",\"group\":\"g\",\"sub\":\"s\",\"tags\":[1]}", "tags"},
        {"{\"style\":\"noto\",\"name\":\"n\",\"caption\":\"c\",\"group\":\"g\",\"sub\":\"s\",\"tags\":[]}", "split"},
        {"{\"style\":\"noto\",\"name\":\"n\",\"caption\":\"c\",\"group\":\"g\",\"sub\":\"s\",\"tags\":[],\"split\":\"test\"}",
         "split"},
        {"{\"style\":\"noto\",\"name\":\"\\ud800\"}", "not valid"}, {"{\"style\":\"noto\",\"style\":\"noto\"}", "twice"},
        {"{\"style\":\"no\\u0000to\"}", "NUL"}};
    for (size_t i = 0; i < SM_COUNT(bad); i++) {
        sm_arena a;
        sm_picture *p = NULL;
        int64_t n = -1;
        sm_err e = {0};
        sumi_status st = parse(bad[i][0], strlen(bad[i][0]), &p, &n, &a, &e);
        CHECKF(st == SUMI_E_FORMAT && strstr(e.msg, "index.jsonl") && strstr(e.msg, bad[i][1]) && n == -1, "%.60s: %s", bad[i][0],
               e.msg);
        sm_arena_free(&a);
        CHECK(parse(bad[i][0], strlen(bad[i][0]), &p, &n, &a, NULL) == SUMI_E_FORMAT); /* without an error to write to */
        sm_arena_free(&a);
    }
    sm_arena a;
    sm_picture *p;
    int64_t n;
    sm_err e = {0};
    CHECK(parse("{\"a\0\":1}", 9, &p, &n, &a, &e) == SUMI_E_FORMAT); /* a NUL byte */
    sm_arena_free(&a);
    for (size_t cut = 0; cut < strlen(GOOD); cut++) { /* every truncation */
        CHECKF(parse(GOOD, cut, &p, &n, &a, NULL) == SUMI_E_FORMAT, "cut at %zu", cut);
        sm_arena_free(&a);
    }
}

/* ---- data set ---------------------------------------------------------------------------------------------------- */

static sm_dataset *open_made(int n, const sm_data_filter *f, sm_mem *mem, sm_err *e)
{
    const char *pixels = test_tmp("made.safetensors"), *index = test_tmp("made.jsonl");
    if (!synth_write(pixels, index, n))
        return sm_fail(e, SUMI_E_FILE, "cannot write the made-up data set"), NULL;
    return sm_dataset_open(pixels, index, f, mem, e);
}

static int64_t count_with(const char *styles, const char *groups_out, unsigned splits)
{
    sm_err e = {0};
    sm_data_filter f = {styles, groups_out, splits};
    sm_dataset *d = open_made(SYNTH_THINGS, &f, NULL, &e);
    int64_t n = d ? sm_dataset_count(d) : -(int64_t)e.code;
    sm_dataset_free(d);
    return n;
}

TEST(data_filters)
{
    /* 48 things: concept at k % 7 == 6 (6), of the rest pair at k % 5 == 4 (9 less k = 34), train the others. */
    int train = 0, pair = 0, concept = 0, odd = 0;
    for (int k = 0; k < SYNTH_THINGS; k++) {
        concept += k % 7 == 6;
        pair += k % 7 != 6 && k % 5 == 4;
        train += k % 7 != 6 && k % 5 != 4;
        odd += k % 7 != 6 && k % 5 != 4 && k % 2;
    }
    CHECK(count_with(NULL, NULL, 0) == train);
    CHECK(count_with("noto", NULL, SM_SPLIT_TRAIN) == train);
    CHECK(count_with("twemoji, noto ,firefox", "", SM_SPLIT_TRAIN | SM_SPLIT_PAIR | SM_SPLIT_CONCEPT) == SYNTH_THINGS);
    CHECK(count_with(NULL, NULL, SM_SPLIT_PAIR) == pair && count_with(NULL, NULL, SM_SPLIT_CONCEPT) == concept);
    CHECK(count_with(NULL, "animals-nature,time", 0) == odd);
    CHECK(count_with(NULL, "animals", 0) == train); /* names are whole words */
    CHECK(count_with(NULL, "crescent", 7) == SYNTH_THINGS - SYNTH_COLOURS);
    CHECK(count_with("twemoji", NULL, 0) == -SUMI_E_ARG && count_with("cubist", NULL, 0) == -SUMI_E_ARG);
    CHECK(count_with(NULL, "objects,animals-nature", 0) == -SUMI_E_ARG);
}

TEST(data_examples)
{
    enum { S = 24 };
    sm_err e = {0};
    sm_dataset *d = open_made(SYNTH_THINGS, NULL, NULL, &e),
        *part = open_made(SYNTH_THINGS, &(sm_data_filter){.groups_out = "animals-nature"}, NULL, &e);
    CHECKF(d && part, "%s", e.msg);
    if (!d || !part)
        return;
    CHECK(sm_dataset_side(d) == SYNTH_SIDE);
    uint8_t want[SYNTH_SIDE * SYNTH_SIDE * 4], rgb[S * S * 3], again[S * S * 3];
    sm_compose_opts o = {.p_white = 0.5f, .p_two = 0.5f, .scale_min = 0.8f, .scale_max = 1.0f};
    int partners = 0;
    for (int64_t i = 0; i < sm_dataset_count(d); i++) {
        const sm_picture *p = sm_dataset_picture(d, i);
        synth_rgba((int)p->row, SYNTH_SIDE, want);
        CHECK(!memcmp(want, sm_dataset_rgba(d, i), sizeof want) && !strcmp(p->caption, synth_caption((int)p->row)));
        for (uint64_t v = 0; v < 6; v++) {
            char text[320];
            sm_scene s = sm_dataset_scene(d, &o, 42, i, v), t = sm_dataset_scene(d, &o, 42, i, v);
            CHECK(!memcmp(&s.place, &t.place, sizeof s.place) && s.picture[0] == t.picture[0] && s.picture[1] == t.picture[1]);
            CHECK(s.picture[0] == i || s.picture[1] == i);
            for (int k = 0; k < s.place.n; k++)
                CHECK(sm_dataset_picture(d, s.picture[k])->split == SM_SPLIT_TRAIN);
            bool differ = strcmp(sm_dataset_picture(d, s.picture[0])->caption, sm_dataset_picture(d, s.picture[1])->caption) != 0;
            CHECK(differ == (s.place.n == 2 && !s.place.same));
            partners += differ;
            CHECK(sm_dataset_draw(d, &s, S, rgb, &e) == SUMI_OK && sm_dataset_draw(d, &t, S, again, &e) == SUMI_OK &&
                  !memcmp(rgb, again, sizeof rgb));
            sm_dataset_caption(d, &s, 42, v, text, sizeof text);
            CHECK(*text);
        }
    }
    CHECKF(partners > 30, "%d pictures of two things", partners);
    /* What is shown where depends on the row in the file, not on the filter. */
    for (int64_t i = 0, k = 0; i < sm_dataset_count(part); i++) {
        while (sm_dataset_picture(d, k)->row != sm_dataset_picture(part, i)->row)
            k++;
        sm_scene s = sm_dataset_scene(d, &o, 42, k, 3), t = sm_dataset_scene(part, &o, 42, i, 3);
        CHECK(!memcmp(&s.place, &t.place, sizeof s.place));
    }
    sm_dataset_free(part);
    sm_dataset_free(d);
}

/* One picture alone: no partner is to be had, so it stays alone. */
TEST(data_single_picture)
{
    sm_err e = {0};
    sm_dataset *d = open_made(1, NULL, NULL, &e);
    CHECKF(d != NULL, "%s", e.msg);
    sm_compose_opts o = {.p_two = 1.0f, .scale_min = 1, .scale_max = 1};
    for (uint64_t v = 1; d && v < 50; v++) {
        sm_scene s = sm_dataset_scene(d, &o, 1, 0, v);
        CHECK(s.picture[0] == 0 && s.picture[1] == 0 && (s.place.n == 1 || s.place.same));
    }
    sm_dataset_free(d);
}

TEST(data_hostile_files)
{
    const char *pixels = test_tmp("p.safetensors"), *index = test_tmp("i.jsonl");
    CHECK(synth_text_file(index, GOOD "\n" GOOD "\n"));
    const struct {
        const char *header;
        size_t bytes;
        const char *says;
    } bad[] = {
        {"{\"rgba\":{\"dtype\":\"U8\",\"shape\":[3,8,8,4],\"data_offsets\":[0,768]}}", 768, "2 lines"},
        {"{\"rgba\":{\"dtype\":\"U8\",\"shape\":[2,8,8,3],\"data_offsets\":[0,384]}}", 384, "rgba"},
        {"{\"rgba\":{\"dtype\":\"U8\",\"shape\":[2,8,16,4],\"data_offsets\":[0,1024]}}", 1024, "rgba"},
        {"{\"rgba\":{\"dtype\":\"U8\",\"shape\":[512],\"data_offsets\":[0,512]}}", 512, "rgba"},
        {"{\"rgba\":{\"dtype\":\"F16\",\"shape\":[2,8,8,4],\"data_offsets\":[0,1024]}}", 1024, "U8"},
        {"{\"rgba\":{\"dtype\":\"U8\",\"shape\":[2,4,4,4],\"data_offsets\":[0,128]}}", 128, "4 pixels"},
        {"{\"rgba\":{\"dtype\":\"U8\",\"shape\":[0,8,8,4],\"data_offsets\":[0,0]}}", 0, "rgba"},
        {"{\"pictures\":{\"dtype\":\"U8\",\"shape\":[2,8,8,4],\"data_offsets\":[0,512]}}", 512, "no tensor 'rgba'"},
        {"{\"rgba\":{\"dtype\":\"U8\",\"shape\":[2,8,8,4],\"data_offsets\":[0,512]}}", 511, "p.safetensors"},
        {"{\"rgba\":{\"dtype\":\"U8\",\"shape\":[4611686018427387904,8,8,4],\"data_offsets\":[0,512]}}", 512, "p.safetensors"},
        {"not a header", 512, "p.safetensors"}};
    for (size_t i = 0; i < SM_COUNT(bad); i++) {
        sm_err e = {0};
        CHECK(synth_tensor_file(pixels, bad[i].header, bad[i].bytes));
        sm_dataset *d = sm_dataset_open(pixels, index, NULL, NULL, &e);
        CHECKF(!d && e.code != SUMI_OK && strstr(e.msg, bad[i].says), "case %zu: %s", i, e.msg);
        CHECK(!sm_dataset_open(pixels, index, NULL, NULL, NULL));
        sm_dataset_free(d);
    }
    sm_err e = {0};
    CHECK(!sm_dataset_open(test_tmp("absent"), index, NULL, NULL, &e) && e.code == SUMI_E_FILE && strstr(e.msg, "absent"));
    CHECK(synth_tensor_file(pixels, "{\"rgba\":{\"dtype\":\"U8\",\"shape\":[2,8,8,4],\"data_offsets\":[0,512]}}", 512));
    sm_err_clear(&e);
    CHECK(!sm_dataset_open(pixels, test_tmp("absent"), NULL, NULL, &e) && e.code == SUMI_E_FILE && strstr(e.msg, "absent"));
    sm_err_clear(&e);
    sm_dataset *d = sm_dataset_open(pixels, index, NULL, NULL, &e);
    CHECKF(d != NULL, "%s", e.msg);
    sm_dataset_free(d);
}

/* Each allocation refused in turn is an error, never a crash or a leak. */
TEST(data_allocations_fail)
{
    const char *pixels = test_tmp("a.safetensors"), *index = test_tmp("a.jsonl");
    CHECK(synth_write(pixels, index, 12));
    uint8_t rgb[16 * 16 * 3];
    bool finished = false;
    for (int64_t k = 1; k < 200 && !finished; k++) {
        sm_mem mem = {.fail_at = k};
        sm_err e = {0};
        sm_dataset *d = sm_dataset_open(pixels, index, NULL, &mem, &e);
        sm_scene s = {0};
        if (d) {
            s = sm_dataset_scene(d, &SM_COMPOSE_DEFAULT, 1, 0, 0);
            sm_dataset_draw(d, &s, 16, rgb, &e);
        }
        finished = e.code == SUMI_OK;
        CHECKF(finished || e.code == SUMI_E_MEMORY, "allocation %lld: %s", (long long)k, e.msg);
        sm_dataset_free(d);
        CHECKF(mem.total == 0, "allocation %lld: %zu bytes left", (long long)k, mem.total);
    }
    CHECK(finished);
}
