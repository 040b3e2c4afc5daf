/* Families: what a denoiser with its text encoders is, how it is sampled and what a request gets by default. One row per
 * family of latent UNets; the row is chosen by what the UNet takes. Schedules and sizes are those of the published models
 * (Rombach et al. 2022; Podell et al. 2023; Luo et al. 2023, LCM; Li et al. 2024, Playground v2.5). */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "cpu/cpu.h"
#include "model/detect_impl.h"

/* Encoders a family reads, in order; pad: see sm_text_use. */
typedef struct use_row {
    const char *component;
    int skip;
    bool final_norm;
    int pad;
} use_row;

typedef struct family_row {
    const char *label;
    use_row use[SM_TEXTS];
    int texts, size;
} family_row;

typedef enum family { SD1, SD2, XL, REFINER, FAMILIES } family;

/* Tokenizers pad with the end mark for OpenAI's CLIP and with 0 for OpenCLIP's. XL reads the layer before the last, raw. Version
 * 2 reads it too, with the final norm: in diffusers' folders the last layer is left out of the file already (skip_last). */
static const family_row ROWS[FAMILIES] = {
    [SD1] = {"Stable Diffusion 1.x", {{"text_encoder", 0, true, -1}}, 1, 512},
    [SD2] = {"Stable Diffusion 2.x", {{"text_encoder", 0, true, 0}}, 1, 512},
    [XL] = {"Stable Diffusion XL", {{"text_encoder", 1, false, -1}, {"text_encoder_2", 1, false, 0}}, 2, 1024},
    [REFINER] = {"Stable Diffusion XL refiner", {{"text_encoder_2", 1, false, 0}}, 1, 1024},
};
enum { WHOLE_OPENCLIP_H = 24 }; /* layers of the published text encoder of version 2 with its last one */

static family family_of(const sm_unet_config *c)
{
    int ids = sm_unet_time_ids(c);
    if (ids)
        return ids == 5 ? REFINER : XL;
    return c->use_linear_projection || c->cross_attention_dim >= 1024 ? SD2 : SD1;
}

/* ---- traits ------------------------------------------------------------------------------------------------------ */

static void use_text(sm_text_use *to, const use_row *row, const sm_clip_config *clip, family f)
{
    *to = (sm_text_use){.component = row->component, .clip = *clip, .skip = row->skip, .final_norm = row->final_norm,
                        .pad = row->pad};
    if (f == SD2 && clip->num_hidden_layers == WHOLE_OPENCLIP_H)
        to->skip = 1;
    to->skip = SM_MIN(to->skip, clip->num_hidden_layers);
}

static void edm(sm_traits *t)
{
    t->prediction = "edm";
    t->beta_schedule = "";
    t->beta_start = t->beta_end = 0;
    t->sigma_min = 0.002;
    t->sigma_max = 80;
    t->sigma_data = 0.5;
    t->steps = 50;
    t->cfg_scale = 3;
}

static void assume(sm_traits *t, const char *prediction, int size)
{
    t->prediction = prediction;
    t->width = t->height = size;
}

/* What a mark of the file says beats what the family usually is. */
static void marks(sm_traits *t, const sm_layout_report *r, family f, const sm_unet_config *c)
{
    t->assumed = f == SD2 && t->extra == SM_EXTRA_NONE && !(r && r->v_prediction);
    if (t->assumed || (r && r->v_prediction))
        assume(t, "v_prediction", f == SD2 ? 768 : t->width);
    t->zero_snr = r && r->zero_snr;
    if (r && r->edm_mark) {
        edm(t);
        t->assumed = false;
        t->latents_stats = true;
        memcpy(t->latents_mean, r->latents_mean, sizeof t->latents_mean);
        memcpy(t->latents_std, r->latents_std, sizeof t->latents_std);
    }
    if (c->time_cond_proj_dim && !(r && r->edm_mark)) {
        t->steps = 4;
        t->cfg_scale = 8.5f;
        t->sampler = "lcm";
        t->schedule = "lcm";
    }
}

static void name_it(sm_traits *t, const sm_layout_report *r, family f, const sm_unet_config *c)
{
    static const char *const extras[] = {"", " inpainting", " InstructPix2Pix"};
    bool playground = r && r->edm_mark;
    snprintf(t->label, sizeof t->label, "%s%s%s%s", playground ? "Playground v2.5" : ROWS[f].label,
             f == XL && !t->extra && !playground ? " base" : "", extras[t->extra], c->time_cond_proj_dim ? " (LCM)" : "");
}

static void unet_traits(const sm_unet_config *c, family f, const sm_layout_report *r, sm_traits *t)
{
    t->prediction = "epsilon";
    t->beta_schedule = "scaled_linear";
    t->beta_start = 0.00085;
    t->beta_end = 0.012;
    t->time_ids = sm_unet_time_ids(c);
    t->zero_empty = t->time_ids == 6; /* the refiner's model_index.json says no */
    int beside = c->in_channels - c->out_channels;
    t->extra = beside == c->out_channels + 1 ? SM_EXTRA_INPAINT : beside == c->out_channels ? SM_EXTRA_EDIT : SM_EXTRA_NONE;
    t->steps = 20;
    t->cfg_scale = 7;
    t->width = t->height = ROWS[f].size;
    t->sampler = "dpmpp_2m";
    t->schedule = "karras";
    marks(t, r, f, c);
    name_it(t, r, f, c);
}

static void flow_traits(sm_traits *t)
{
    snprintf(t->label, sizeof t->label, "rectified-flow transformer");
    t->prediction = "flow_prediction";
    t->beta_schedule = "";
    t->shift = 3;
    t->steps = 28;
    t->cfg_scale = 7;
    t->width = t->height = 1024;
    t->sampler = "euler";
    t->schedule = "simple";
}

/* texts encoders, each under the component that `components` names. */
static void traits_for(const sm_denoiser *d, const sm_denoiser_config *c, const char *const *components,
                       const sm_clip_config *text, int texts, const sm_layout_report *r, sm_traits *out)
{
    *out = (sm_traits){.prediction = "", .beta_schedule = "", .sampler = "", .schedule = ""};
    bool unet = d->kind == SM_MODEL_UNET;
    family f = unet ? family_of(&c->unet) : SD1;
    if (unet)
        unet_traits(&c->unet, f, r, out);
    else
        flow_traits(out);
    for (int i = 0; i < texts && out->texts < SM_TEXTS; i++) {
        use_row row = ROWS[f].use[0];
        for (int k = 0; k < ROWS[f].texts; k++)
            if (!strcmp(ROWS[f].use[k].component, components[i]))
                row = ROWS[f].use[k];
        row.component = components[i];
        use_text(&out->text[out->texts++], &row, &text[i], f);
    }
}

void sm_traits_for(const sm_denoiser *d, const sm_denoiser_config *c, const sm_clip_config *text, int texts,
                   const sm_layout_report *r, sm_traits *out)
{
    const char *components[SM_TEXTS] = {"text_encoder", "text_encoder_2"};
    if (d->kind == SM_MODEL_UNET && texts == 1 && family_of(&c->unet) == REFINER)
        components[0] = "text_encoder_2";
    traits_for(d, c, components, text, SM_MIN(texts, SM_TEXTS), r, out);
}

/* ---- version 2's prediction -------------------------------------------------------------------------------------- */

static double value_at(const sm_tensor *t, int64_t i)
{
    const uint16_t *half = t->data;
    if (t->dtype == SM_F32)
        return (double)((const float *)t->data)[i];
    return (double)(t->dtype == SM_F16 ? sm_f16_f32(half[i]) : sm_bf16_f32(half[i]));
}

/* Standard deviation of a vector of n floats; < 0 where it is none. */
static double spread(const sm_weight *w, int n)
{
    double sum = 0, squares = 0;
    if (!w || w->t.rank != 1 || w->t.dims[0] != n || (w->t.dtype != SM_F32 && w->t.dtype != SM_F16 && w->t.dtype != SM_BF16))
        return -1;
    for (int i = 0; i < n; i++) {
        double x = value_at(&w->t, i);
        sum += x;
        squares += x * x;
    }
    return sqrt(fmax(squares / n - sum / n * (sum / n), 0));
}

/* The published models of version 2 are alike in every name and shape, half of them made for v at 768 pixels. ComfyUI tells
 * them by how far the values of one bias spread, more than 0.09 in those for v; a guess, but one that many files were tried
 * with. Where that tensor cannot be read, v as in diffusers' loader of single files. */
static void guess_prediction(const sm_weights *w, const sm_unet_config *c, sm_traits *t)
{
    look l = {w, "unet"};
    int last = c->blocks - 1;
    double s = spread(sm_look(&l, "up_blocks.%d.attentions.%d.transformer_blocks.0.norm1.bias", last, c->layers_per_block[0]),
                      c->block_out_channels[0]);
    if (t->assumed && s >= 0 && s <= 0.09)
        assume(t, "epsilon", 512);
}

/* ---- the table --------------------------------------------------------------------------------------------------- */

static bool has_part(const sm_weights *w, const char *component, const char *tensor)
{
    look l = {w, component};
    return sm_look(&l, "%s", tensor);
}

static const char TOKENS[] = "text_model.embeddings.token_embedding.weight";

static void lacks(char *missing, size_t size, const char *what)
{
    size_t n = strlen(missing);
    snprintf(missing + n, size - n, "%s%s", n ? "; " : "", what);
}

void sm_traits_missing(const sm_denoiser *d, const sm_denoiser_config *c, const sm_traits *t, char *out, size_t size)
{
    family f = d->kind == SM_MODEL_UNET ? family_of(&c->unet) : SD1;
    out[0] = 0;
    for (int k = 0; k < ROWS[f].texts && t->texts < ROWS[f].texts; k++) {
        const char *name = ROWS[f].use[k].component;
        bool there = false, second = !strcmp(name, "text_encoder_2");
        for (int i = 0; i < t->texts; i++)
            there |= !strcmp(t->text[i].component, name);
        if (!there)
            lacks(out, size, second ? "no second text encoder (--text-encoder-2 FILE)" : "no text encoder (--text-encoder FILE)");
    }
}

/* The parts that the family has and the table lacks. */
static void find_missing(sm_detected *d)
{
    sm_traits_missing(d->family, &d->denoiser, &d->traits, d->missing, sizeof d->missing);
    if (!d->has_vae)
        lacks(d->missing, sizeof d->missing, "no autoencoder (--vae FILE)");
}

/* Playground v2.5's marks divide: four numbers each, the deviations above 0. */
static bool stats_ok(const sm_layout_report *r)
{
    bool ok = true;
    for (int i = 0; i < 4; i++)
        ok &= isfinite(r->latents_mean[i]) && isfinite(r->latents_std[i]) && r->latents_std[i] > 0;
    return ok;
}

/* Widths of the contexts side by side are what the UNet takes, where all are there. */
static sumi_status check_widths(const sm_detected *d, family f, const char *what, sm_err *e)
{
    int sum = 0, want = d->denoiser.unet.cross_attention_dim;
    for (int i = 0; i < d->traits.texts; i++)
        sum += d->traits.text[i].clip.hidden_size;
    if (d->traits.texts == ROWS[f].texts && sum != want)
        return sm_fail(e, SUMI_E_MODEL, "%s: the unet (%s) takes text of width %d, the text encoder%s %d", what, d->traits.label,
                       want, d->traits.texts > 1 ? "s together give" : " gives", sum);
    if (d->has_vae && d->vae.latent_channels != d->denoiser.unet.out_channels)
        return sm_fail(e, SUMI_E_MODEL, "%s: the unet makes %d latent channels, the vae has %d", what,
                       d->denoiser.unet.out_channels, d->vae.latent_channels);
    return SUMI_OK;
}

static sumi_status check_input(const sm_unet_config *c, const char *what, sm_err *e)
{
    int in = c->in_channels, out = c->out_channels;
    if (in == out || in == 2 * out || in == 2 * out + 1)
        return SUMI_OK;
    const char *beside = in == out + 1 ? ", a depth map beside the latent"
                                       : in == out + 3 ? ", a small picture beside the latent" : "";
    return sm_fail(e, SUMI_E_SUPPORT,
                   "%s: the unet takes %d channels%s; supported are %d (text to image), %d (InstructPix2Pix) and "
                   "%d (inpainting)", what, in, beside, out, 2 * out, 2 * out + 1);
}

static sumi_status detect_unet(const sm_weights *w, const sm_layout_report *r, const char *what, sm_detected *d, sm_err *e)
{
    static const char *const encoders[SM_TEXTS] = {"text_encoder", "text_encoder_2"};
    const char *found[SM_TEXTS];
    sm_clip_config clip[SM_TEXTS];
    int texts = 0;
    if (sm_detect_unet(w, "unet", &d->denoiser.unet, e) || check_input(&d->denoiser.unet, what, e))
        return e->code;
    if (r && r->edm_v)
        return sm_fail(e, SUMI_E_SUPPORT, "%s: made for v-prediction over EDM's noise (CosXL), which is not supported", what);
    if (r && r->edm_mark && !stats_ok(r))
        return sm_fail(e, SUMI_E_FORMAT,
                       "%s: edm_mean and edm_std, the mean and deviation of its latents, must be 4 numbers each, "
                       "edm_std's above 0", what);
    family f = family_of(&d->denoiser.unet);
    for (int i = 0; i < SM_TEXTS; i++) {
        bool wanted = false;
        for (int k = 0; k < ROWS[f].texts; k++)
            wanted |= !strcmp(ROWS[f].use[k].component, encoders[i]);
        if (!wanted || !has_part(w, encoders[i], TOKENS))
            continue;
        if (sm_detect_clip(w, encoders[i], &clip[texts], e))
            return e->code;
        found[texts++] = encoders[i];
    }
    traits_for(d->family, &d->denoiser, found, clip, texts, r, &d->traits);
    if (r && r->edm_mark)
        d->vae.scaling_factor = 0.5f;
    guess_prediction(w, &d->denoiser.unet, &d->traits);
    find_missing(d);
    return check_widths(d, f, what, e);
}

sumi_status sm_detect(const sm_weights *w, const sm_layout_report *r, const char *what, sm_detected *out, sm_err *e)
{
    *out = (sm_detected){.family = NULL};
    sm_err why = {0};
    out->has_vae = has_part(w, "vae", "decoder.conv_in.weight");
    if (out->has_vae && sm_detect_vae(w, "vae", &out->vae, &why))
        return sm_fail(e, why.code, "%s: %s", what, why.msg);
    const sm_denoiser *d = sm_denoiser_detect(w);
    if (!d)
        return SUMI_OK;
    if (d->kind != SM_MODEL_UNET)
        return sm_fail(e, SUMI_E_SUPPORT,
                       "%s: the sizes of a %s are not read off its tensors; give a folder with its config.json",
                       what, d->class_name);
    out->family = d;
    return detect_unet(w, r, what, out, e);
}
