/* Grids: axes mean what they mean in A1111's X/Y/Z plot (ranges by its documented examples and Python's range, numpy.linspace and
 * arange), cells are the pictures that the same request draws alone, and stand where they belong; labels have ink. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pipeline/grid.h"
#include "pipeline/label.h"
#include "test.h"
#include "tiny.h"

static void join(const sm_axis *x, char *out, size_t size)
{
    size_t n = 0;
    out[0] = 0;
    for (int i = 0; i < x->n && n < size; i++)
        n += (size_t)snprintf(out + n, size - n, "%s%s", i ? ";" : "", x->value[i]);
}

TEST(grid_axes_read)
{
    static const struct { const char *text, *values; } cases[] = {
        {"steps=10,20, 30", "10;20;30"}, {"steps=1-5", "1;2;3;4;5"}, {"Steps=1-10 (+2)", "1;3;5;7;9"},
        {"steps=10-1 (-3)", "10;7;4"},
        {"steps=1-10 [5]", "1;3;5;7;10"}, {"steps=1-3, 10", "1;2;3;10"}, {"seed=7", "7"}, {"cfg=1-3", "1;2;3"},
        {"cfg=1-2 (+0.25)", "1;1.25;1.5;1.75;2"},
        {"CFG scale=1.5-2.5 [3]", "1.5;2;2.5"}, {"cfg=7.5, 1", "7.5;1"}, {"sampler=Euler a, heun", "Euler a;heun"},
        {"prompt=\"a, b\",c , \"say \"\"x\"\"\"", "a, b;c;say \"x\""}, {"Prompt S/R=red,green,", "red;green;"},
        {"negative=,blurry", ";blurry"},
        {"clip-skip=1-2", "1;2"}, {"clip_skip=0", "0"}};
    for (size_t i = 0; i < SM_COUNT(cases); i++) {
        sm_arena a = {0};
        sm_err e = {0};
        sm_axis x;
        char got[200];
        CHECKF(!sm_axis_read(&x, cases[i].text, &a, &e), "%s: %s", cases[i].text, e.msg);
        join(&x, got, sizeof got);
        CHECKF(!strcmp(got, cases[i].values), "%s: %s", cases[i].text, got);
        sm_arena_free(&a);
    }
}

TEST(grid_axes_refused)
{
    static const char *const cases[][2] = {
        {"steps", "is not NAME=VALUES"}, {"stps=1", "unknown parameter 'stps'"}, {"steps=", "has no values"},
        {"steps=0-2000", "more than 1000 values"},
        {"steps=a", "not a whole number"}, {"steps=5000", "out of range"}, {"sampler=nobody", "'nobody' is unknown"},
        {"count=1,2", "count cannot be one"},
        {"save-inverted=a,b", "save_inverted cannot be one"},
        {"Prompt S/R=red", "has no values"}, {"Prompt S/R=,red", "has no values"},
        {"Prompt order=a,b,c,d,e,f,g", "7 words, at most 6"},
        {"steps=1-10 (+0)", "not a whole number"}, {"steps=1-10 [0]", "not a whole number"}, {"steps=1.5", "not a whole number"},
        {"a\xff=1", "UTF-8"}};
    for (size_t i = 0; i < SM_COUNT(cases); i++) {
        sm_arena a = {0};
        sm_err e = {0};
        sm_axis x;
        CHECKF(sm_axis_read(&x, cases[i][0], &a, &e) == SUMI_E_ARG && strstr(e.msg, cases[i][1]), "%s: %s", cases[i][0], e.msg);
        sm_arena_free(&a);
    }
}

/* The orders of itertools.permutations; the text between the words stays where it is. */
TEST(grid_prompt_order_and_replacement)
{
    static const char *const want[] = {"fire, then air or sea.", "fire, then sea or air.", "air, then fire or sea.",
                                       "air, then sea or fire.", "sea, then fire or air.", "sea, then air or fire."};
    sm_arena a = {0};
    sm_err e = {0};
    sm_axis x;
    CHECKF(!sm_axis_read(&x, "Prompt order=fire,air,sea", &a, &e) && x.n == 6, "%s", e.msg);
    for (int i = 0; i < x.n; i++) {
        sumi_request r = sumi_request_default();
        r.prompt = "fire, then air or sea.";
        CHECKF(!sm_axis_apply(&x, i, &r, &a, &e) && !strcmp(r.prompt, want[i]), "%d: %s", i, r.prompt);
    }
    sumi_request r = sumi_request_default();
    CHECKF(!sm_axis_read(&x, "Prompt order=sea,fire,air", &a, &e), "%s", e.msg);
    r.prompt = "fire, then air or sea."; /* the words' order on the axis is not theirs in the prompt */
    CHECKF(!sm_axis_apply(&x, 0, &r, &a, &e) && !strcmp(r.prompt, "sea, then fire or air."), "%s", r.prompt);
    r.prompt = "fire and air";
    CHECK(sm_axis_apply(&x, 0, &r, &a, &e) == SUMI_E_ARG && strstr(e.msg, "'sea' is not in the prompt"));
    sm_err_clear(&e);
    CHECKF(!sm_axis_read(&x, "sr=red,blue", &a, &e) && x.n == 2, "%s", e.msg);
    r.prompt = "a red, red ball";
    r.negative_prompt = "redder";
    CHECK(!sm_axis_apply(&x, 1, &r, &a, &e) && !strcmp(r.prompt, "a blue, blue ball") && !strcmp(r.negative_prompt, "blueder"));
    CHECK(sm_axis_apply(&x, 1, &r, &a, &e) == SUMI_E_ARG && strstr(e.msg, "'red' is in neither prompt"));
    sm_arena_free(&a);
}

static int ink(const sm_font *f, const char *text, int px)
{
    uint8_t rgb[200 * 60 * 3];
    int n = 0;
    memset(rgb, 255, sizeof rgb);
    sm_font_draw(f, &(sm_canvas){rgb, 200, 60}, 5, 2, text, strlen(text), px, 0);
    for (size_t i = 0; i < sizeof rgb; i += 3)
        n += 255 - rgb[i];
    return n / 255;
}

TEST(grid_labels)
{
    sm_err e = {0};
    sm_font *f = sm_font_open(NULL, &e);
    size_t next;
    CHECKF(f, "%s", e.msg);
    if (!f)
        return;
    /* DejaVu Sans is 2048 units to the em; H advances by 1540, a blank by 651 of them; a line is 1.25 em. */
    CHECK(sm_font_width(f, "H", 1, 1.25 * 2048) > 1540 - 12 && sm_font_width(f, "H", 1, 1.25 * 2048) < 1540 + 12);
    CHECK(sm_font_width(f, " ", 1, 1.25 * 2048) > 651 - 12 && sm_font_width(f, " ", 1, 1.25 * 2048) < 651 + 12);
    CHECK(ink(f, " ", 40) == 0 && ink(f, "H", 40) > 100 && ink(f, ".", 40) > 5 && ink(f, "H", 40) > 3 * ink(f, ".", 40));
    /* apple, Zhe, han */
    CHECK(ink(f, "\xe8\x8b\xb9", 40) > 100 && ink(f, "\xd0\x96", 40) > 100 && ink(f, "\xed\x95\x9c", 40) > 80);
    CHECK(ink(f, "\xf0\x9f\x8d\x8e", 40) == ink(f, "\xef\xbf\xbd", 40)); /* an emoji is not known */
    /* Ink grows with the square of the size. */
    double a = ink(f, "Hxg", 20), b = ink(f, "Hxg", 40);
    CHECKF(b / a > 3.6 && b / a < 4.4, "%g", b / a);
    const char *line = "two words";
    CHECK(sm_font_fit(f, line, 9, 20, 1000, &next) == 9 && next == 9);
    CHECK(sm_font_fit(f, line, 9, 20, sm_font_width(f, "two wor", 7, 20), &next) == 3 && next == 4);
    CHECK(sm_font_fit(f, line, 9, 20, 1, &next) == 1 && next == 1);
    CHECK(sm_font_fit(f, "a\nb", 3, 20, 1000, &next) == 1 && next == 2);
    sm_font_close(f);
}

static void on_progress(void *user, const sumi_progress *p)
{
    double *last = user;
    CHECK(!strcmp(p->stage, "grid") && p->steps == 2 + 3 + 2 + 3 && (double)p->step >= last[0] && p->step <= p->steps);
    CHECK(p->step == 0 || (p->eta >= 0 && p->eta < 1e6));
    last[0] = (double)p->step;
}

/* Where in the sheet the picture is: *x, *y of its upper left corner; false: nowhere. */
static bool find_in(const sumi_image *sheet, const sumi_image *im, int *x, int *y)
{
    for (*y = 0; *y + im->height <= sheet->height; ++*y)
        for (*x = 0; *x + im->width <= sheet->width; ++*x) {
            int row = 0;
            while (row < im->height && !memcmp(sheet->pixels + 3 * ((size_t)(*y + row) * (size_t)sheet->width + (size_t)*x),
                                               im->pixels + 3 * (size_t)row * (size_t)im->width, 3 * (size_t)im->width))
                row++;
            if (row == im->height)
                return true;
        }
    return false;
}

static void check_cells(sumi_context *c, sumi_model *m, const sumi_request *base, const sumi_images *im)
{
    const sumi_image *sheet = sumi_images_at(im, 0);
    int x[4] = {0}, y[4] = {0};
    for (int i = 0; i < 4; i++) {
        sumi_images *one = NULL;
        sumi_request r = *base;
        r.steps = 2 + i % 2;
        r.prompt = i / 2 ? "blue disc" : "red disc";
        CHECKF(!sumi_generate(c, m, &r, NULL, &one), "%s", sumi_error(c));
        const sumi_image *want = sumi_images_at(one, 0), *got = sumi_images_at(im, 1 + (size_t)i);
        bool same = want && got && want->width == got->width &&
                    !memcmp(want->pixels, got->pixels, 3 * (size_t)want->width * (size_t)want->height);
        CHECKF(same && !strcmp(want->infotext, got->infotext), "picture %d", i);
        CHECKF(same && find_in(sheet, got, &x[i], &y[i]), "picture %d is not on the sheet", i);
        sumi_images_free(one);
    }
    CHECK(x[0] < x[1] && x[0] == x[2] && x[1] == x[3] && y[0] < y[2] && y[0] == y[1] && y[2] == y[3]);
}

TEST(grid_draws)
{
    sumi_context *c = NULL;
    sumi_model *m = NULL;
    sumi_images *im = NULL;
    sumi_request r = sumi_request_default();
    sumi_grid_options o = {.x = "steps=2,3", .y = "Prompt S/R=red,blue", .legend = 1, .margin = 4};
    int sheets = 0;
    double last = 0;
    sumi_callbacks cb = {.progress = on_progress, .user = &last};
    CHECK(!sumi_context_new(&(sumi_context_options){.threads = 2}, &c) && !sumi_model_load(c, tiny_model(TINY_UNET), &m));
    r.prompt = "red disc";
    r.seed = 3;
    CHECKF(m && !sumi_grid(c, m, &r, &o, &cb, &sheets, &im) && sheets == 1 && sumi_images_count(im) == 5, "%s", sumi_error(c));
    if (im) {
        check_cells(c, m, &r, im);
        const char *text = sumi_images_at(im, 0)->infotext;
        CHECKF(strstr(text,
                      ", Script: X/Y/Z plot, X Type: Steps, X Values: \"2, 3\", Y Type: Prompt S/R, Y Values: \"red, blue\", "
                      "Version: sumi "), "%s", text);
    }
    sumi_images_free(im);
    o = (sumi_grid_options){.x = "seed=1-3", .z = "cfg=1,2", .margin = 1};
    r.steps = 2;
    CHECKF(m && !sumi_grid(c, m, &r, &o, NULL, &sheets, &im) && sheets == 2 && sumi_images_count(im) == 8, "%s", sumi_error(c));
    /* Without titles a sheet is its pictures of 16 pixels and the margins around them. */
    CHECK(im && sumi_images_at(im, 0)->width == 1 + 3 * 17 && sumi_images_at(im, 1)->height == 1 + 17);
    sumi_images_free(im);
    r.count = 2;
    CHECK(sumi_grid(c, m, &r, &o, NULL, &sheets, &im) == SUMI_E_ARG && !im && strstr(sumi_error(c), "one picture for each"));
    r.count = 1;
    r.save_latents = "x.safetensors";
    CHECK(sumi_grid(c, m, &r, &o, NULL, &sheets, &im) == SUMI_E_ARG && strstr(sumi_error(c), "the same file"));
    r.save_latents = "";
    o.x = "width=17";
    CHECK(sumi_grid(c, m, &r, &o, NULL, &sheets, &im) == SUMI_E_ARG && strstr(sumi_error(c), "multiples of 2"));
    o.x = "seed=1-1000", o.y = "steps=1-1000";
    CHECK(sumi_grid(c, m, &r, &o, NULL, &sheets, &im) == SUMI_E_ARG && strstr(sumi_error(c), "at most 10000"));
    sumi_model_free(m);
    sumi_context_free(c);
}

/* What a step cache fills in differs from cell to cell: the legend has what all have, the titles have the rest. */
TEST(grid_legend_tells_what_all_have)
{
    sumi_context *c = NULL;
    sumi_model *m = NULL;
    sumi_images *im = NULL;
    sumi_request r = sumi_request_default();
    sumi_grid_options o = {.x = "step_cache=taylorseer,easycache", .legend = 1, .margin = 4};
    int sheets = 0;
    CHECK(!sumi_context_new(&(sumi_context_options){.threads = 1}, &c) && !sumi_model_load(c, tiny_model(TINY_UNET), &m));
    r.prompt = "red disc";
    r.seed = 3;
    r.steps = 4;
    r.sampler = "euler";
    CHECKF(m && !sumi_grid(c, m, &r, &o, NULL, &sheets, &im) && sumi_images_count(im) == 3, "%s", sumi_error(c));
    if (im) {
        const sumi_image cells[2] = {*sumi_images_at(im, 1), *sumi_images_at(im, 2)}, *got = sumi_images_at(im, 0);
        const char *end = strstr(cells[0].infotext, ", Step cache: ");
        char text[1000];
        CHECKF(end && strstr(end, ", Cache interval: 3, Cache order: 1, Cache start: 0.15, Cache end: 0.95") &&
               strstr(cells[1].infotext, ", Cache threshold: 0.1, Cache start: 0.15, Cache end: 0.95"), "%s\n%s",
               cells[0].infotext, cells[1].infotext);
        snprintf(text, sizeof text, "%.*s, Cache start: 0.15, Cache end: 0.95", (int)(end ? end - cells[0].infotext : 0),
                 cells[0].infotext);
        sm_sheet s = {.columns = 2, .rows = 1,
                      .column_title = (const char *const[]){"Step cache: taylorseer", "Step cache: easycache"}, .legend = text,
                      .cell = cells, .margin = 4};
        sumi_image want = {0};
        sm_err e = {0};
        CHECKF(!sm_sheet_draw(&s, NULL, &want, &e) && want.width == got->width && want.height == got->height &&
               !memcmp(want.pixels, got->pixels, (size_t)want.width * (size_t)want.height * 3), "the legend is another than '%s'",
               text);
        sm_free(want.pixels);
    }
    sumi_images_free(im);
    sumi_model_free(m);
    sumi_context_free(c);
}
