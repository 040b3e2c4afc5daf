/* Token merging: UNets against tomesd's own package, the matching of a hand-made picture, requests that merge. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "cpu/cpu.h"
#include "families.h"
#include "io/json.h"
#include "reference.h"
#include "requests.h"
#include "test.h"
#include "tiny.h"

/* ---- against tomesd (tools/fixtures/make_tome.py) ------------------------------------------------------------------ */

typedef struct merged { reference unet; sm_graph *g; sm_node *in[3], *out; nn_merging m; } merged;

static sm_node *input_of(merged *x, const reference *tome, const char *name, const char *what)
{
    const sm_weight *w = reference_find(tome, "in.%s.%s", name, what);
    return w ? sm_input(x->g, what, w->t.dtype, w->t.rank, w->t.dims) : x->g->poison;
}

static bool record(merged *x, const reference *tome, const cJSON *c)
{
    static const char *const inputs[] = {"sample", "timestep", "encoder_hidden_states"};
    char file[80];
    sm_unet_config u;
    snprintf(file, sizeof file, "%s.safetensors", cJSON_GetObjectItem(c, "unet")->valuestring);
    *x = (merged){0};
    if (!reference_open(&x->unet, file) || !reference_config(&x->unet, SM_MODEL_UNET, &u))
        return false;
    x->g = sm_graph_new(&x->unet.mem, &x->unet.err);
    for (int i = 0; i < 3; i++)
        x->in[i] = input_of(x, tome, c->string, inputs[i]);
    x->m = (nn_merging){.ratio = cJSON_GetObjectItem(c, "ratio")->valuedouble, .cell = 2,
                        .max_downsample = cJSON_GetObjectItem(c, "max_downsample")->valueint};
    sm_unet_tweaks tweaks = {.merging = &x->m};
    sm_unet_cond cond = {.tweaks = &tweaks};
    nn_scope root = nn_root(x->g, x->unet.w, NULL), s = nn_sub(&root, "w");
    x->out = sm_unet(&s, &u, x->in[0], x->in[1], x->in[2], &cond);
    CHECKF(!x->g->err.code, "%s: %s", c->string, x->g->err.msg);
    return !x->g->err.code;
}

static void fill(const merged *x, const sm_plan *p, const reference *tome, const char *name)
{
    static const char *const inputs[] = {"sample", "timestep", "encoder_hidden_states"};
    for (int i = 0; i < 3; i++) {
        const sm_weight *w = reference_find(tome, "in.%s.%s", name, inputs[i]);
        memcpy(sm_plan_data(p, x->in[i]), w->t.data, w->bytes);
    }
    for (int i = 0; i < x->m.count; i++) {
        char chosen[64];
        snprintf(chosen, sizeof chosen, "chosen.%s.%d", name, i);
        const sm_weight *w = sm_weights_find(tome->w, chosen);
        size_t bytes = sizeof(int32_t) * (size_t)sm_numel(x->m.chosen[i]);
        CHECKF(!w || w->bytes == bytes, "%s: %s has another size", name, chosen);
        if (w && w->bytes == bytes)
            memcpy(sm_plan_data(p, x->m.chosen[i]), w->t.data, bytes);
        else
            memset(sm_plan_data(p, x->m.chosen[i]), 0, bytes);
    }
}

static void check_case(const reference *tome, const cJSON *c)
{
    const sm_backend *be[4];
    merged x;
    char out[64];
    snprintf(out, sizeof out, "out.%s", c->string);
    int n = record(&x, tome, c) ? sm_cpu_backends(be) : 0;
    CHECKF(!n || x.m.count >= 3, "%s: %d attentions merge", c->string, x.m.count);
    for (int b = 0; b < n; b++) {
        sm_err e = {0};
        sm_plan *p = sm_plan_new(x.g, 1, &x.out, be[b], &e);
        if (p)
            fill(&x, p, tome, c->string);
        CHECKF(p && !sm_plan_run(p, NULL, NULL, &e), "%s", e.msg);
        if (p)
            reference_near(tome, out, sm_plan_data(p, x.out), sm_numel(x.out), 1e-4, be[b]->name);
        sm_plan_free(p);
    }
    sm_graph_free(x.g);
    reference_close(&x.unet);
}

TEST(token_merging_as_tomesd)
{
    reference tome;
    sm_err e = {0};
    int cases = 0;
    cJSON *config = reference_open(&tome, "tome.safetensors") ? sm_json_parse(NULL, tome.config, strlen(tome.config), 8,
                                                                              1000, "tome", &e) : NULL;
    for (const cJSON *c = config ? config->child : NULL; c; c = c->next, cases++)
        check_case(&tome, c);
    CHECK(cases == 5);
    cJSON_Delete(config);
    reference_close(&tome);
}

/* ---- by hand ------------------------------------------------------------------------------------------------------- */

/* Two cells of 2x2 and a last column without one. Tokens that stay: 1 (first cell's second) along x, 2 (the second's first) along
 * y. Of the others 6 lies exactly along y, 0 and 5 almost along x, 0 nearer; 3, 4, 8, 9 are far from both, 7 as near as 5. */
TEST(token_merging_by_hand)
{
    enum { T = 10 };
    static const float x[T][2] = {{10, 1}, {2, 0}, {0, 0.5f}, {-1, -1}, {-3, 1}, {5, 1}, {0, 9}, {10, 2}, {1, -4}, {-2, -1}};
    static const int32_t chosen[2] = {1, 0};
    static const struct { int64_t merged; int32_t row[T]; } want[] = {
        {0, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}},
        {1, {0, 1, 2, 3, 4, 5, 2, 6, 7, 8}},
        {2, {0, 0, 1, 2, 3, 4, 1, 5, 6, 7}},
        {3, {0, 0, 1, 2, 3, 0, 1, 4, 5, 6}}, /* 5 and 7 are equally near: the first */
        {4, {0, 0, 1, 2, 3, 0, 1, 0, 4, 5}},
        {8, {0, 0, 1, 0, 1, 0, 1, 0, 0, 1}}, /* 3 is as far from both: the first cell */
    };
    const sm_backend *be[4];
    for (size_t k = 0; k < SM_COUNT(want); k++)
        for (int b = 0, n = sm_cpu_backends(be); b < n; b++) {
            sm_err e = {0};
            sm_graph *g = sm_graph_new(NULL, &e);
            sm_node *in = sm_input(g, "x", SM_F32, 3, (int64_t[]){1, T, 2}),
                    *c = sm_input(g, "chosen", SM_I32, 1, (int64_t[]){2});
            sm_node *row = sm_token_match(in, c, &(sm_cells){{2, 5}, {2, 2}}, want[k].merged);
            sm_node *fewer = sm_token_merge(in, row, T - want[k].merged), *back = sm_token_part(fewer, row);
            sm_plan *p = sm_plan_new(g, 3, (sm_node *[]){row, fewer, back}, be[b], &e);
            CHECKF(p, "%s", e.msg);
            if (p) {
                memcpy(sm_plan_data(p, in), x, sizeof x);
                memcpy(sm_plan_data(p, c), chosen, sizeof chosen);
                CHECK(!sm_plan_run(p, NULL, NULL, &e));
                const int32_t *got = sm_plan_data(p, row);
                const float *y = sm_plan_data(p, fewer), *z = sm_plan_data(p, back);
                for (int t = 0; t < T; t++)
                    CHECKF(got[t] == want[k].row[t], "%s, %d join: token %d has row %d", be[b]->name, (int)want[k].merged, t,
                           got[t]);
                if (want[k].merged == 4) /* tokens 0, 1, 5, 7: the means of 10, 2, 5, 10 and 1, 0, 1, 2 */
                    CHECK(y[0] == 6.75f && y[1] == 1 && z[10] == 6.75f && z[14] == 6.75f);
            }
            sm_plan_free(p);
            sm_graph_free(g);
        }
}

TEST(token_merging_shapes_are_checked)
{
    static const struct { int64_t t, cells; sm_cells c; int64_t merged; const char *says; } bad[] = {
        {12, 3, {{3, 4}, {2, 2}}, 2, "must be [2]"},
        {12, 2, {{3, 5}, {2, 2}}, 2, "are not 3 x 5 tokens"},
        {12, 2, {{3, 4}, {2, 2}}, 11, "11 of [1, 12, 3] tokens cannot join 2"},
        {3, 1, {{1, 3}, {2, 2}}, 1, "cannot join 0"},
    };
    for (size_t i = 0; i < SM_COUNT(bad); i++) {
        sm_graph *g = sm_graph_new(NULL, NULL);
        sm_token_match(sm_input(g, "x", SM_F32, 3, (int64_t[]){1, bad[i].t, 3}),
                       sm_input(g, "chosen", SM_I32, 1, (int64_t[]){bad[i].cells}), &bad[i].c, bad[i].merged);
        CHECKF(strstr(g->err.msg, bad[i].says), "'%s' was expected, it says: %s", bad[i].says, g->err.msg);
        sm_graph_free(g);
    }
}

/* ---- requests ------------------------------------------------------------------------------------------------------ */

typedef struct session { sumi_context *ctx; sumi_model *m; char told[600]; } session;

static void hear(void *user, const sumi_progress *p)
{
    session *s = user;
    if (p->message)
        snprintf(s->told, sizeof s->told, "%s", p->message);
}

static bool begin(session *s, const char *family, int threads)
{
    sumi_model_options o = {.path = family_model(family, FAMILY_FOLDER), .tokenizer = family_tokenizer()};
    *s = (session){0};
    CHECK(!sumi_context_new(&(sumi_context_options){.threads = threads}, &s->ctx));
    CHECKF(!sumi_model_load_with(s->ctx, &o, &s->m), "%s", sumi_error(s->ctx));
    return s->m != NULL;
}

static void end(session *s)
{
    sumi_model_free(s->m);
    sumi_context_free(s->ctx);
}

static sumi_request small(void)
{
    sumi_request r = sumi_request_default();
    r.prompt = "a red ring";
    r.seed = 40;
    r.steps = 3;
    r.width = r.height = 48;
    r.cfg_scale = 3;
    r.token_merging_ratio = 0.5f;
    r.token_merging_max_downsample = 2;
    return r;
}

static sumi_images *draw(session *s, const sumi_request *r)
{
    sumi_images *im = NULL;
    sumi_callbacks cb = {.progress = hear, .user = s};
    s->told[0] = 0;
    CHECKF(!sumi_generate(s->ctx, s->m, r, &cb, &im), "%s", sumi_error(s->ctx));
    return im;
}

static bool equal(const sumi_images *a, size_t i, const sumi_images *b, size_t k)
{
    const sumi_image *x = sumi_images_at(a, i), *y = sumi_images_at(b, k);
    return x && y && x->width == y->width && x->height == y->height &&
           !memcmp(x->pixels, y->pixels, 3 * (size_t)x->width * (size_t)x->height);
}

/* Whether two requests of a session give one picture. */
static bool alike(session *s, const sumi_request *a, const sumi_request *b)
{
    sumi_images *x = draw(s, a), *y = draw(s, b);
    bool same = equal(x, 0, y, 0);
    sumi_images_free(x);
    sumi_images_free(y);
    return same;
}

TEST(token_merging_same_bits)
{
    session one, many;
    sumi_request r = small();
    r.count = 3;
    if (begin(&one, "sd1", 1)) {
        sumi_images *a = draw(&one, &r);
        for (int threads = 2; threads <= 4 && begin(&many, "sd1", threads); threads++) {
            sumi_images *b = draw(&many, &r);
            for (size_t k = 0; k < 3; k++)
                CHECKF(equal(a, k, b, k), "picture %zu, %d threads", k, threads);
            sumi_images_free(b);
            end(&many);
        }
        sumi_request alone = r;
        alone.count = 1;
        alone.seed += 2;
        sumi_images *c = draw(&one, &alone);
        CHECK(equal(a, 2, c, 0));
        sumi_images_free(a);
        sumi_images_free(c);
    }
    end(&one);
}

TEST(token_merging_in_requests)
{
    session s;
    sumi_request r = small(), off = r, plain = r, high = r, other;
    off.token_merging_ratio = 0;
    plain.token_merging_random = 0;
    if (begin(&s, "sd1", 2)) {
        CHECK(!alike(&s, &r, &off) && !alike(&s, &r, &plain) && !alike(&s, &plain, &off));
        high.hires_upscale = 2;
        other = high;
        other.token_merging_ratio_hr = 0.5f; /* as the first without it */
        CHECK(alike(&s, &high, &other));
        other.token_merging_ratio_hr = 0.25f;
        CHECK(!alike(&s, &high, &other));
        off.token_merging_ratio_hr = 0.5f;
        off.token_merging_max_downsample = 1;
        sumi_images_free(draw(&s, &off));
        CHECKF(strstr(s.told, "--token-merging-ratio-hr without --hires-upscale"), "it says: %s", s.told);
        other = r;
        other.token_merging_max_downsample = 3;
        sumi_images *im = NULL;
        CHECK(sumi_generate(s.ctx, s.m, &other, NULL, &im) == SUMI_E_ARG &&
              strstr(sumi_error(s.ctx), "--token-merging-max-downsample: 3"));
        requests_out_of_memory(s.ctx, s.m, &r);
    }
    end(&s);
}

TEST(token_merging_infotext)
{
    session s;
    sumi_request r = small();
    r.token_merging_ratio = 0.3f;
    r.token_merging_random = 0;
    sumi_infotext *t = NULL;
    if (begin(&s, "sd1", 2)) {
        sumi_images *im = draw(&s, &r);
        const char *text = im ? sumi_images_at(im, 0)->infotext : "";
        CHECKF(strstr(text, "Token merging ratio: 0.3, ") && strstr(text, "Token merging random: False"), "%s", text);
        CHECK(!sumi_infotext_parse(s.ctx, text, &t));
        CHECK(t && t->request.token_merging_ratio == 0.3f && t->request.token_merging_max_downsample == 2 &&
              !t->request.token_merging_random);
        sumi_infotext_free(t);
        CHECK(!sumi_infotext_parse(s.ctx, "x\nSteps: 20, Token merging ratio: 0.5, Token merging ratio hr: 0.6", &t));
        CHECK(t && t->request.token_merging_ratio == 0.5f && t->request.token_merging_ratio_hr == 0.6f);
        CHECK(t && !t->request.token_merging_random); /* A1111's use_rand=False */
        sumi_infotext_free(t);
        CHECK(!sumi_infotext_parse(s.ctx, "x\nSteps: 20, Token merging ratio: 0.5, Version: sumi 1", &t));
        CHECK(t && t->request.token_merging_random);
        sumi_infotext_free(t);
        sumi_images_free(im);
    }
    end(&s);
}

TEST(token_merging_where_it_cannot_act)
{
    session s;
    sumi_request r = small();
    sumi_images *im = NULL;
    r.token_merging_max_downsample = 1;
    r.width = r.height = 0;
    if (begin(&s, "xl", 1)) { /* no attention at the first level */
        sumi_images_free(draw(&s, &r));
        CHECKF(strstr(s.told, "no effect: --token-merging-ratio: ") && strstr(s.told, "--token-merging-max-downsample 2 allows"),
               "it says: %s", s.told);
    }
    end(&s);
    CHECK(!sumi_context_new(NULL, &s.ctx));
    s.m = NULL;
    if (!sumi_model_load(s.ctx, tiny_model(TINY_MMDIT), &s.m))
        CHECKF(sumi_generate(s.ctx, s.m, &r, NULL, &im) == SUMI_E_ARG &&
               strstr(sumi_error(s.ctx), "--token-merging-ratio: merges the tokens of UNets"), "it says: %s", sumi_error(s.ctx));
    end(&s);
}
