/* Detection of whole models from names and shapes alone: every configuration found is, written as a config.json, that of the
 * reference's own model (tests/fixtures/detect.json.gz, made on torch's meta device), and the traits are those of the family. */
#include "model/detect.h"
#include "test.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

/* ---- the fixture ------------------------------------------------------------------------------------------------- */

static cJSON *all; /* of the running test */

static bool open_models(void)
{
    gzFile f = gzopen(test_fixture("detect.json.gz"), "rb");
    sm_buf b = {0};
    char part[8192];
    int n = 0;
    while (f && (n = gzread(f, part, sizeof part)) > 0)
        sm_buf_add(&b, part, (size_t)n);
    if (f)
        gzclose(f);
    all = b.data && !b.oom && !n ? cJSON_ParseWithLength(b.data, b.len) : NULL;
    sm_buf_free(&b);
    CHECK(all != NULL);
    return all != NULL;
}

static void close_models(void)
{
    cJSON_Delete(all);
    all = NULL;
}

static const cJSON *model_of(const char *name)
{
    const cJSON *m = cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(all, "models"), name);
    CHECKF(m != NULL, "no model %s in the fixture", name);
    return m;
}

/* Whether the component of a tensor's name is among "a|b". */
static bool listed(const char *list, const char *name)
{
    size_t n = strcspn(name, ".");
    for (const char *p = list; *p; p += strcspn(p, "|"), p += *p == '|')
        if (strcspn(p, "|") == n && !strncmp(p, name, n))
            return true;
    return false;
}

/* Adds the model's tensors without data: all, or those of the components listed; what is there stays. */
static void add_tensors(sm_weights *w, const char *name, const char *only, sm_err *e)
{
    static const float nothing[4096];
    const cJSON *m = model_of(name), *t;
    cJSON_ArrayForEach(t, cJSON_GetObjectItemCaseSensitive(m, "tensors"))
    {
        if ((only && !listed(only, t->string)) || sm_weights_find(w, t->string))
            continue;
        sm_tensor x = {.data = (void *)(uintptr_t)nothing, .dtype = SM_F16};
        const cJSON *d;
        cJSON_ArrayForEach(d, t) x.dims[x.rank++] = (int64_t)d->valuedouble;
        sm_weights_add(w, t->string, &x, e);
    }
}

static sm_weights *table(const char *name, const char *only)
{
    sm_err e = {0};
    sm_weights *w = sm_weights_new(NULL, &e);
    if (w)
        add_tensors(w, name, only, &e);
    CHECKF(w && !e.code, "%s", e.msg);
    return w;
}

static sumi_status detect(const char *name, const char *only, const sm_layout_report *r, sm_detected *d, sm_err *e)
{
    *e = (sm_err){0};
    sm_weights *w = table(name, only);
    sumi_status st = w ? sm_detect(w, r, name, d, e) : SUMI_E_MEMORY;
    sm_weights_unref(&w);
    return st;
}

/* ---- configurations ---------------------------------------------------------------------------------------------- */

static const struct { sm_model_kind kind; const char *component; } COMPONENTS[] = {
    {SM_MODEL_UNET, "unet"}, {SM_MODEL_VAE, "vae"}, {SM_MODEL_CLIP, "text_encoder"}, {SM_MODEL_CLIP, "text_encoder_2"},
};

typedef union any { sm_unet_config unet; sm_vae_config vae; sm_clip_config clip; } any;

/* The config.json's end mark 2 is CLIP's 49407; a CLIPTextModel has no layer for the projection that its config tells. */
static void settle_clip(sm_clip_config *c, bool projects)
{
    c->projection_dim = projects ? c->projection_dim : 0;
    if (c->vocab_size == 49408 && c->eos_token_id == 2)
        c->eos_token_id = 49407;
}

/* Levels without attention have a number of transformer layers that means nothing; detection writes 1. */
static void settle_unet(sm_unet_config *c)
{
    for (int i = 0; i < c->blocks; i++)
        if (!c->down_attention[i] && !c->up_attention[c->blocks - 1 - i] && !(i == c->blocks - 1 && c->mid_block == SM_MID_CROSS))
            c->transformer_layers_per_block[i] = 1;
}

static void check_component(const char *model, const sm_weights *w, int k, const char *json)
{
    sm_model_kind kind = COMPONENTS[k].kind;
    const char *component = COMPONENTS[k].component;
    any found, want;
    sm_err e = {0};
    char projection[64];
    sumi_status st = kind == SM_MODEL_UNET  ? sm_detect_unet(w, component, &found.unet, &e)
                     : kind == SM_MODEL_VAE ? sm_detect_vae(w, component, &found.vae, &e)
                                            : sm_detect_clip(w, component, &found.clip, &e);
    st = st ? st : sm_config_read(kind, json, strlen(json), &want, &e);
    CHECKF(!st, "%s: %s", model, e.msg);
    if (st)
        return;
    snprintf(projection, sizeof projection, "%s.text_projection.weight", component);
    if (kind == SM_MODEL_CLIP)
        settle_clip(&want.clip, sm_weights_find(w, projection));
    if (kind == SM_MODEL_UNET)
        settle_unet(&want.unet);
    if (kind == SM_MODEL_VAE && !strcmp(model, "playground25")) /* told by the file's mark, see below */
        want.vae.scaling_factor = 0.13025f;
    sm_buf a = {0}, b = {0};
    sm_config_write(kind, &found, &a);
    sm_config_write(kind, &want, &b);
    CHECKF(a.data && b.data && !strcmp(a.data, b.data), "%s: %s found as %s, is %s", model, component, a.data, b.data);
    sm_buf_free(&a);
    sm_buf_free(&b);
}

static const char *const REFUSED[] = {"unclip", "kandinsky"};

static bool refused(const char *name)
{
    for (size_t i = 0; i < SM_COUNT(REFUSED); i++)
        if (!strcmp(name, REFUSED[i]))
            return true;
    return false;
}

TEST(detect_every_size_from_names_and_shapes)
{
    const cJSON *m, *configs;
    int models = 0;
    if (!open_models())
        return;
    cJSON_ArrayForEach(m, cJSON_GetObjectItemCaseSensitive(all, "models"))
    {
        if (refused(m->string))
            continue;
        sm_weights *w = table(m->string, NULL);
        configs = cJSON_GetObjectItemCaseSensitive(m, "configs");
        for (size_t k = 0; w && k < SM_COUNT(COMPONENTS); k++) {
            const cJSON *json = cJSON_GetObjectItemCaseSensitive(configs, COMPONENTS[k].component);
            if (json)
                check_component(m->string, w, (int)k, json->valuestring);
        }
        sm_weights_unref(&w);
        models++;
    }
    CHECK(models >= 25);
    close_models();
}

/* What was detected can be recorded on the same table: every shape fits and no tensor is left over. */
static void check_recording(const char *name)
{
    sm_detected d;
    sm_err e = {0};
    sm_weights *w = table(name, NULL);
    sm_graph *g = sm_graph_new(NULL, &e);
    if (w && g && !sm_detect(w, NULL, name, &d, &e)) {
        const sm_unet_config *c = &d.denoiser.unet;
        nn_scope root = nn_root(g, w, NULL), s = nn_sub(&root, "unet");
        int pooled = d.family->pooled_width(&d.denoiser);
        sm_conditions cond = {.ctx = sm_input(g, "ctx", SM_F32, 3, (int64_t[]){1, 7, c->cross_attention_dim})};
        if (pooled)
            cond.pooled = sm_input(g, "pooled", SM_F32, 2, (int64_t[]){1, pooled});
        if (c->time_cond_proj_dim)
            cond.timestep_cond = sm_input(g, "cond", SM_F32, 2, (int64_t[]){1, c->time_cond_proj_dim});
        sm_node *t = sm_input(g, "t", SM_F32, 1, (int64_t[]){1}),
                *x = sm_input(g, "x", SM_F32, 4, (int64_t[]){1, 16, 8, c->in_channels});
        sm_node *y = d.family->record(&s, &d.denoiser, x, t, &cond);
        CHECKF(!g->err.code && y->dims[1] == 16 && y->dims[3] == c->out_channels, "%s: %s", name, g->err.msg);
        for (size_t i = 0; i < sm_weights_count(w); i++)
            CHECKF(sm_weights_at(w, i)->used || strncmp(sm_weights_at(w, i)->name, "unet.", 5), "%s: %s is left over", name,
                   sm_weights_at(w, i)->name);
    }
    CHECKF(!e.code, "%s: %s", name, e.msg);
    sm_graph_free(g);
    sm_weights_unref(&w);
}

TEST(detect_unets_record_with_every_tensor)
{
    static const char *const names[] = {"sd15_inpaint", "sd15_lcm", "sd2", "bk_small", "bk_tiny", "xl", "xl_unet",
                                        "refiner", "refiner_unet",
                                        "ssd1b", "vega", "koala_700m", "koala_1b", "tiny_sd1", "tiny_xl", "tiny_refiner"};
    if (!open_models())
        return;
    for (size_t i = 0; i < SM_COUNT(names); i++)
        check_recording(names[i]);
    close_models();
}

/* ---- config.json with nested depths ------------------------------------------------------------------------------ */

static sumi_status read_unet(const char *tail, sm_unet_config *c, sm_err *e)
{
    char json[1024];
    *e = (sm_err){0};
    int n = snprintf(json, sizeof json,
                     "{\"block_out_channels\": [8, 8, 8], \"layers_per_block\": [2, 2, 1], \"down_block_types\": "
                     "[\"DownBlock2D\","
                     " \"CrossAttnDownBlock2D\", \"CrossAttnDownBlock2D\"], \"up_block_types\": [\"CrossAttnUpBlock2D\","
                     " \"CrossAttnUpBlock2D\", \"UpBlock2D\"]%s}", tail);
    return sm_config_read(SM_MODEL_UNET, json, (size_t)n, c, e);
}

TEST(detect_nested_depths_in_configs)
{
    sm_unet_config c, again;
    sm_err e;
    CHECKF(!read_unet(", \"transformer_layers_per_block\": [1, [2, 3], [4]],"
                      " \"reverse_transformer_layers_per_block\": [[4, 5], 2, 7]", &c, &e), "%s", e.msg);
    CHECK(c.transformer_layers_per_block[0] == 1 && c.transformer_layers_per_block[1] == 2 &&
          c.transformer_layers_per_block[2] == 4);
    CHECK(sm_unet_depth(&c, false, 1, 0) == 2 && sm_unet_depth(&c, false, 1, 1) == 3 && sm_unet_depth(&c, false, 2, 0) == 4);
    CHECK(sm_unet_depth(&c, true, 2, 0) == 4 && sm_unet_depth(&c, true, 2, 1) == 5 && sm_unet_depth(&c, true, 1, 2) == 2);
    CHECK(c.down_depth[1][1] == 3 && !c.down_depth[2][0] && c.up_depth[0][1] == 5 && !c.up_depth[1][0] && !c.up_depth[2][0]);
    sm_buf b = {0};
    sm_config_write(SM_MODEL_UNET, &c, &b);
    CHECK(b.data && strstr(b.data, "\"transformer_layers_per_block\": [1, [2, 3], 4]") &&
          strstr(b.data, "\"reverse_transformer_layers_per_block\": [[4, 5], 2, 1]") &&
          strstr(b.data, "\"num_class_embeds\": null"));
    CHECK(b.data && !sm_config_read(SM_MODEL_UNET, b.data, b.len, &again, &e) && !memcmp(&again, &c, sizeof c));
    sm_buf_free(&b);
    /* the same numbers everywhere are no lists */
    CHECK(!read_unet(", \"transformer_layers_per_block\": [1, [2, 2], 3],"
                     " \"reverse_transformer_layers_per_block\": [[3, 3], [2, 2, 2], 1]", &c, &e));
    CHECK(!c.down_depth[1][0] && !c.up_depth[0][0] && !c.up_depth[1][0] && c.transformer_layers_per_block[2] == 3);
    /* a number for a level may differ between down and up */
    CHECK(!read_unet(", \"transformer_layers_per_block\": 2, \"reverse_transformer_layers_per_block\": [1, 3, 1]", &c, &e));
    CHECK(sm_unet_depth(&c, true, 2, 1) == 1 && sm_unet_depth(&c, true, 1, 2) == 3 && sm_unet_depth(&c, false, 2, 0) == 2);
}

TEST(detect_nested_depths_that_are_wrong)
{
    static const struct { const char *tail, *part; } cases[] = {
        {", \"transformer_layers_per_block\": [1, [2, 3], 4]", "reverse_transformer_layers_per_block\" must be given"},
        {", \"transformer_layers_per_block\": [1, [2], 4], \"reverse_transformer_layers_per_block\": [1, 1, 1]",
         "one for each layer"},
        {", \"transformer_layers_per_block\": [1, 2]", "as long as block_out_channels"},
        {", \"transformer_layers_per_block\": [1, [[2], 2], 1]", "one for each layer"},
        {", \"transformer_layers_per_block\": [1, \"2\", 1]", "one for each layer"},
        {", \"reverse_transformer_layers_per_block\": [[1], 1, 1]", "one for each layer"},
        {", \"reverse_transformer_layers_per_block\": [1, 1]", "as long as block_out_channels"},
        {", \"reverse_transformer_layers_per_block\": 1", "as long as block_out_channels"},
        {", \"reverse_transformer_layers_per_block\": [[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1], 1, 1]", "one for each layer"},
    };
    sm_unet_config c;
    sm_err e;
    for (size_t i = 0; i < SM_COUNT(cases); i++) {
        CHECKF(read_unet(cases[i].tail, &c, &e) == SUMI_E_FORMAT, "%s", cases[i].tail);
        CHECKF(strstr(e.msg, cases[i].part), "%s: %s", cases[i].tail, e.msg);
    }
}

/* ---- families ---------------------------------------------------------------------------------------------------- */

static const struct {
    const char *model, *label, *prediction;
    bool assumed;
    int time_ids, extra, texts, size, steps;
    const char *missing;
} FAMILIES[] = {
    {"sd15", "Stable Diffusion 1.x", "epsilon", false, 0, SM_EXTRA_NONE, 1, 512, 20, ""},
    {"sd15_inpaint", "Stable Diffusion 1.x inpainting", "epsilon", false, 0, SM_EXTRA_INPAINT, 0, 512, 20,
     "no text encoder (--text-encoder FILE); no autoencoder (--vae FILE)"},
    {"sd15_edit", "Stable Diffusion 1.x InstructPix2Pix", "epsilon", false, 0, SM_EXTRA_EDIT, 0, 512, 20,
     "no text encoder (--text-encoder FILE); no autoencoder (--vae FILE)"},
    {"sd15_lcm", "Stable Diffusion 1.x (LCM)", "epsilon", false, 0, SM_EXTRA_NONE, 0, 512, 4,
     "no text encoder (--text-encoder FILE); no autoencoder (--vae FILE)"},
    {"sd2", "Stable Diffusion 2.x", "epsilon", true, 0, SM_EXTRA_NONE, 1, 512, 20, ""},
    {"bk_tiny", "Stable Diffusion 1.x", "epsilon", false, 0, SM_EXTRA_NONE, 0, 512, 20,
     "no text encoder (--text-encoder FILE); no autoencoder (--vae FILE)"},
    {"xl", "Stable Diffusion XL base", "epsilon", false, 6, SM_EXTRA_NONE, 2, 1024, 20, ""},
    {"xl_unet", "Stable Diffusion XL base", "epsilon", false, 6, SM_EXTRA_NONE, 0, 1024, 20,
     "no text encoder (--text-encoder FILE); no second text encoder (--text-encoder-2 FILE); no autoencoder (--vae FILE)"},
    {"xl_inpaint", "Stable Diffusion XL inpainting", "epsilon", false, 6, SM_EXTRA_INPAINT, 0, 1024, 20,
     "no text encoder (--text-encoder FILE); no second text encoder (--text-encoder-2 FILE); no autoencoder (--vae FILE)"},
    {"refiner", "Stable Diffusion XL refiner", "epsilon", false, 5, SM_EXTRA_NONE, 1, 1024, 20, ""},
    {"refiner_unet", "Stable Diffusion XL refiner", "epsilon", false, 5, SM_EXTRA_NONE, 0, 1024, 20,
     "no second text encoder (--text-encoder-2 FILE); no autoencoder (--vae FILE)"},
    {"tiny_sd1", "Stable Diffusion 1.x", "epsilon", false, 0, SM_EXTRA_NONE, 1, 512, 20, ""},
    {"tiny_sd2", "Stable Diffusion 2.x", "v_prediction", true, 0, SM_EXTRA_NONE, 1, 768, 20, ""},
    {"tiny_xl", "Stable Diffusion XL base", "epsilon", false, 6, SM_EXTRA_NONE, 2, 1024, 20, ""},
    {"tiny_refiner", "Stable Diffusion XL refiner", "epsilon", false, 5, SM_EXTRA_NONE, 1, 1024, 20, ""},
};

TEST(detect_families_and_what_is_missing)
{
    if (!open_models())
        return;
    for (size_t i = 0; i < SM_COUNT(FAMILIES); i++) {
        sm_detected d;
        sm_err e;
        CHECKF(!detect(FAMILIES[i].model, NULL, NULL, &d, &e), "%s: %s", FAMILIES[i].model, e.msg);
        const sm_traits *t = &d.traits;
        CHECKF(!e.code && d.family && !strcmp(t->label, FAMILIES[i].label) && !strcmp(t->prediction, FAMILIES[i].prediction) &&
               t->assumed == FAMILIES[i].assumed && t->time_ids == FAMILIES[i].time_ids && (int)t->extra == FAMILIES[i].extra &&
               t->texts == FAMILIES[i].texts && t->width == FAMILIES[i].size && t->height == t->width &&
               t->steps == FAMILIES[i].steps,
               "%s: %s, %s%s, %d time ids, extra %d, %d texts, %dx%d, %d steps", FAMILIES[i].model, t->label, t->prediction,
               t->assumed ? " (assumed)" : "", t->time_ids, (int)t->extra, t->texts, t->width, t->height, t->steps);
        CHECKF(!strcmp(d.missing, FAMILIES[i].missing), "%s: missing \"%s\"", FAMILIES[i].model, d.missing);
        CHECK(t->beta_start == 0.00085 && t->beta_end == 0.012 && !strcmp(t->beta_schedule, "scaled_linear") && !t->zero_snr);
    }
    close_models();
}

/* The layer that is read, the final norm and the padding, as diffusers' pipelines have them. */
TEST(detect_how_text_is_used)
{
    static const struct { const char *model; int k; const char *component; int skip; bool norm; int pad; } uses[] = {
        {"sd15", 0, "text_encoder", 0, true, -1},
        {"sd2", 0, "text_encoder", 0, true, 0},
        {"sd2_whole_text", 0, "text_encoder", 1, true, 0},
        {"xl", 0, "text_encoder", 1, false, -1},
        {"xl", 1, "text_encoder_2", 1, false, 0},
        {"refiner", 0, "text_encoder_2", 1, false, 0},
    };
    if (!open_models())
        return;
    for (size_t i = 0; i < SM_COUNT(uses); i++) {
        sm_detected d;
        sm_err e;
        CHECKF(!detect(uses[i].model, NULL, NULL, &d, &e), "%s", e.msg);
        const sm_text_use *u = &d.traits.text[uses[i].k];
        CHECKF(d.traits.texts > uses[i].k && !strcmp(u->component, uses[i].component) && u->skip == uses[i].skip &&
               u->final_norm == uses[i].norm && u->pad == uses[i].pad, "%s: %s, skip %d, norm %d, pad %d",
               uses[i].model, u->component, u->skip, u->final_norm, u->pad);
    }
    /* the same from configurations alone, as a folder has them */
    sm_detected xl, refiner;
    sm_err e;
    sm_traits t;
    if (!detect("xl", NULL, NULL, &xl, &e) && !detect("refiner", NULL, NULL, &refiner, &e)) {
        sm_clip_config both[] = {xl.traits.text[0].clip, xl.traits.text[1].clip};
        xl.denoiser.unet.time_ids = refiner.denoiser.unet.time_ids = 0;
        sm_traits_for(xl.family, &xl.denoiser, both, 2, NULL, &t);
        CHECK(t.texts == 2 && t.time_ids == 6 && !strcmp(t.label, "Stable Diffusion XL base") &&
              t.text[1].pad == 0 && t.text[0].pad == -1);
        CHECK(t.text[1].clip.hidden_size == 1280 && !strcmp(t.text[1].component, "text_encoder_2"));
        sm_traits_for(refiner.family, &refiner.denoiser, both + 1, 1, NULL, &t);
        CHECK(t.texts == 1 && t.time_ids == 5 && !strcmp(t.text[0].component, "text_encoder_2") && t.text[0].skip == 1);
        sm_denoiser_settle(refiner.family, &refiner.denoiser, both + 1);
        sm_denoiser_settle(xl.family, &xl.denoiser, both + 1);
        CHECK(refiner.denoiser.unet.time_ids == 5 && xl.denoiser.unet.time_ids == 6);
    }
    close_models();
}

TEST(detect_marks_of_a_file)
{
    sm_detected d;
    sm_err e;
    if (!open_models())
        return;
    CHECK(!detect("sd2", NULL, &(sm_layout_report){.v_prediction = true}, &d, &e));
    CHECK(!strcmp(d.traits.prediction, "v_prediction") && !d.traits.assumed && d.traits.width == 768 && !d.traits.zero_snr);
    CHECK(!detect("xl", NULL, &(sm_layout_report){.v_prediction = true, .zero_snr = true}, &d, &e));
    CHECK(!strcmp(d.traits.prediction, "v_prediction") && d.traits.zero_snr && d.traits.width == 1024);
    sm_layout_report edm = {.edm_mark = true, .latents_std = {1, 2, 3, 4}};
    CHECK(!detect("playground25", NULL, &edm, &d, &e));
    CHECK(!strcmp(d.traits.prediction, "edm") && !strcmp(d.traits.label, "Playground v2.5") && d.traits.beta_schedule[0] == 0);
    CHECK(d.traits.sigma_min == 0.002 && d.traits.sigma_max == 80 && d.traits.sigma_data == 0.5 && d.vae.scaling_factor == 0.5f);
    static const float bad[] = {0, -1, NAN, INFINITY}; /* latents are divided by it */
    for (size_t i = 0; i < SM_COUNT(bad); i++) {
        edm.latents_std[2] = bad[i];
        CHECKF(detect("playground25", NULL, &edm, &d, &e) == SUMI_E_FORMAT && strstr(e.msg, "edm_std"), "%g: %s", bad[i], e.msg);
    }
    edm.latents_std[2] = 1;
    edm.latents_mean[0] = NAN;
    CHECKF(detect("playground25", NULL, &edm, &d, &e) == SUMI_E_FORMAT, "%s", e.msg);
    close_models();
}

/* Version 2: for v where the values of one bias spread beyond 0.09, whatever type they are stored in. */
static void check_guess(sm_dtype type, const void *values, const char *prediction, int size)
{
    sm_err e = {0};
    sm_detected d;
    sm_weights *w = table("sd2", "unet");
    sm_weight *bias = w ? sm_weights_find(w, "unet.up_blocks.3.attentions.2.transformer_blocks.0.norm1.bias") : NULL;
    CHECK(bias != NULL);
    if (bias) {
        bias->t.dtype = type;
        bias->t.data = (void *)(uintptr_t)values;
        CHECKF(!sm_detect(w, NULL, "guess", &d, &e) && d.traits.assumed, "%s", e.msg);
        CHECKF(!strcmp(d.traits.prediction, prediction) && d.traits.width == size, "%s at %d",
               d.traits.prediction, d.traits.width);
    }
    sm_weights_unref(&w);
}

TEST(detect_prediction_of_version_2)
{
    float wide[320], narrow[320];
    uint16_t half[320], brain[320];
    if (!open_models())
        return;
    for (int i = 0; i < 320; i++) {
        wide[i] = i % 2 ? 0.5f : 0.3f;   /* deviation 0.1 */
        narrow[i] = i % 2 ? 0.58f : 0.42f; /* 0.08 */
        half[i] = i % 2 ? 0x3800 : 0x34cd; /* 0.5, 0.3 */
        brain[i] = i % 2 ? 0x3f00 : 0x3e9a;
    }
    check_guess(SM_F32, wide, "v_prediction", 768);
    check_guess(SM_F32, narrow, "epsilon", 512);
    check_guess(SM_F16, half, "v_prediction", 768);
    check_guess(SM_BF16, brain, "v_prediction", 768);
    check_guess(SM_I32, wide, "v_prediction", 768);
    close_models();
}

/* ---- what is no such model --------------------------------------------------------------------------------------- */

TEST(detect_refuses_what_sumi_lacks)
{
    static const struct { const char *model, *part; } cases[] = {
        {"unclip", "Stable unCLIP"}, {"kandinsky", "IP-Adapter, Kandinsky"}, {"depth", "a depth map beside the latent"},
        {"upscaler", "a small picture beside the latent"},
    };
    sm_detected d;
    sm_err e;
    if (!open_models())
        return;
    for (size_t i = 0; i < SM_COUNT(cases); i++) {
        CHECKF(detect(cases[i].model, NULL, NULL, &d, &e) == SUMI_E_SUPPORT, "%s", cases[i].model);
        CHECKF(strstr(e.msg, cases[i].part), "%s", e.msg);
    }
    CHECK(detect("xl", NULL, &(sm_layout_report){.edm_v = true}, &d, &e) == SUMI_E_SUPPORT && strstr(e.msg, "CosXL"));
    CHECK(!detect("vae_plain", NULL, NULL, &d, &e) && !d.family && d.has_vae && d.vae.latent_channels == 16);
    CHECK(!detect("xl", "text_encoder", NULL, &d, &e) && !d.family && !d.has_vae);
    close_models();
}

/* A table of `base`'s parts, then those of `other`. */
static void check_mixed(const char *base, const char *parts, const char *other, const char *others, const char *message)
{
    sm_detected d;
    sm_err e = {0};
    sm_weights *w = table(base, parts);
    add_tensors(w, other, others, &e);
    CHECK(sm_detect(w, NULL, "mixed", &d, &e) == SUMI_E_MODEL);
    CHECKF(strstr(e.msg, message), "%s", e.msg);
    sm_weights_unref(&w);
}

TEST(detect_parts_that_do_not_fit)
{
    if (!open_models())
        return;
    check_mixed("sd15", "unet", "sd2", "text_encoder", "takes text of width 768, the text encoder gives 1024");
    check_mixed("xl", "unet|text_encoder_2", "sd2", "text_encoder", "width 2048, the text encoders together give 2304");
    check_mixed("sd15", "unet|text_encoder", "vae_plain", "vae", "the unet makes 4 latent channels, the vae has 16");
    close_models();
}

/* With any one tensor missing, of another rank or huge, a table is detected or refused, never worse; without the tensors that
 * sizes are read off it is refused. */
TEST(detect_damaged_tables)
{
    static const char *const needed[] = {"unet.conv_in.weight", "unet.conv_out.weight",
                                         "unet.down_blocks.1.resnets.0.conv1.weight",
        "unet.up_blocks.0.resnets.2.conv1.weight", "unet.up_blocks.1.resnets.0.conv1.weight",
        "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight",
        "unet.down_blocks.1.attentions.1.transformer_blocks.0.attn1.to_q.weight", "vae.decoder.conv_out.weight",
        "vae.decoder.up_blocks.0.resnets.0.conv1.weight", "text_encoder.text_model.encoder.layers.0.mlp.fc1.weight",
        "text_encoder_2.text_model.embeddings.position_embedding.weight"};
    if (!open_models())
        return;
    sm_detected d;
    sm_err e = {0};
    sm_weights *w = table("tiny_xl", NULL);
    for (size_t i = 0; w && i < sm_weights_count(w); i++) {
        sm_weight *x = sm_weights_at(w, i), whole = *x;
        for (int how = 0; how < 4; how += 1 + (int)(i % 3)) {
            x->t.rank = how == 1 ? 0 : whole.t.rank;
            x->t.dims[0] = how == 2 ? (int64_t)1 << 40 : how == 3 ? 7 : whole.t.dims[0];
            x->name = how == 0 ? "" : whole.name;
            e = (sm_err){0};
            sumi_status st = sm_detect(w, NULL, "damaged", &d, &e);
            CHECK((st == SUMI_OK) == !e.msg[0] && st == e.code);
            for (size_t k = 0; how == 0 && k < SM_COUNT(needed); k++)
                CHECKF(st || strcmp(whole.name, needed[k]), "detected without %s", needed[k]);
        }
        *x = whole;
    }
    e = (sm_err){0};
    CHECKF(w && !sm_detect(w, NULL, "whole", &d, &e), "%s", e.msg);
    sm_weights_unref(&w);
    close_models();
}
