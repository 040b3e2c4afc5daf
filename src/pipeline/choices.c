/* The words that parameters take: which ones, and how A1111 spells them in its infotext. One row a parameter; it serves checking,
 * the JSON schema, the reference page, and writing and reading infotexts. Spellings are those of AUTOMATIC1111's
 * stable-diffusion-webui 1.10 (modules/sd_samplers*.py, processing.py, infotext_utils.py). */
#include <string.h>
#include <strings.h>

#include "pipeline/params.h"
#include "pipeline/randn.h"
#include "sample/guidance.h"
#include "sample/sampler.h"
#include "sample/schedule.h"

static const char *sampler(size_t i, const char **a1111)
{
    size_t n = (size_t)sm_sampler_count;
    *a1111 = i < n ? sm_samplers[i].a1111 : NULL;
    for (size_t k = 0, at = n; i >= n && k < n; k++) /* then rows with another name, once more */
        if (sm_samplers[k].alias && at++ == i) {
            *a1111 = sm_samplers[k].alias;
            return sm_samplers[k].name;
        }
    return *a1111 ? sm_samplers[i].name : NULL;
}

static const char *schedule(size_t i, const char **a1111)
{
    size_t n = (size_t)sm_schedule_count;
    *a1111 = i < n ? sm_schedules[i].a1111 : NULL;
    for (size_t k = 0, at = n; i >= n && k < n; k++) /* then rows with another name, once more */
        if (sm_schedules[k].alias && at++ == i) {
            *a1111 = sm_schedules[k].alias;
            return sm_schedules[k].name;
        }
    return *a1111 ? sm_schedules[i].name : NULL;
}

/* A1111's GPU and NV give the same numbers on its usual machines, CUDA's philox. */
static const sm_choice rng[] = {{"sumi", "sumi"}, {"torch", "CPU"}, {"philox", "NV"}, {"philox", "GPU"}, {0}};
static const sm_choice prediction[] = {{"epsilon", "epsilon"}, {"v_prediction", "v_prediction"}, {"sample", "sample"},
                                       {"flow_prediction", "flow_prediction"}, {"edm", "edm"}, {0}};
static const sm_choice emphasis[] = {{"original", "Original"}, {"no_norm", "No norm"}, {"ignore", "Ignore"}, {"none", "None"},
                                     {"comfy", "ComfyUI"}, {"compel", "compel"}, {"diffusers", "diffusers"}, {0}};
static const char *curve(size_t i, const char **a1111)
{
    *a1111 = i < (size_t)sm_curve_count ? sm_curves[i].a1111 : NULL;
    return *a1111 ? sm_curves[i].name : NULL;
}
static const sm_choice guidance[] = {{"cfg", "cfg"}, {"apg", "apg"}, {"apg_x0", "apg_x0"}, {0}};
static const sm_choice step_cache[] = {{"deepcache", "deepcache"}, {"taylorseer", "taylorseer"}, {"easycache", "easycache"},
                                       {"teacache", "teacache"}, {0}};
static const sm_choice p2p_mode[] = {{"replace", "replace"}, {"refine", "refine"}, {0}};
static const sm_choice startpoint[] = {{"mean", "MEAN"}, {"zero", "ZERO"}, {0}};
static const sm_choice variability[] = {{"ad", "AD"}, {"std", "STD"}, {0}};
static const sm_choice freeu[] = {{"v1", "v1"}, {"v2", "v2"}, {"diffusers", "diffusers"}, {0}};
/* Switches whose two states have names. */
static const sm_choice mask_mode[] = {{"0", "Inpaint masked"}, {"1", "Inpaint not masked"}, {0}};
static const sm_choice mask_area[] = {{"0", "Whole picture"}, {"1", "Only masked"}, {0}};
static const sm_choice tile[] = {{"both", "True"}, {"x", "x"}, {"y", "y"}, {0}};
static const sm_choice edit_rules[] = {{"a1111", "A1111"}, {"diffusers", "diffusers"}, {0}};
static const sm_choice resize_mode[] = {{"resize", "Just resize"}, {"crop", "Crop and resize"}, {"fill", "Resize and fill"},
                                        {"latent", "Just resize (latent upscale)"}, {0}};
static const sm_choice resize_filter[] = {{"lanczos", "Lanczos"}, {"bicubic", "Bicubic"}, {"bilinear", "Bilinear"},
                                          {"hamming", "Hamming"},
                                          {"box", "Box"}, {"nearest", "Nearest"}, {0}};
static const sm_choice vae_encode[] = {{"sample", "sample"}, {"mean", "mean"}, {0}};
static const sm_choice compute[] = {{"f32", "f32"}, {"bf16", "bf16"}, {0}};
static const sm_choice vae_decoder[] = {{"full", "Full"}, {"taesd", "TAESD"}, {0}};
static const sm_choice content[] = {{"original", "original"}, {"fill", "fill"}, {"latent noise", "latent noise"},
                                    {"latent nothing", "latent nothing"}, {0}};
static const sm_choice upscaler[] = {{"Latent", "Latent"}, {"Latent (antialiased)", "Latent (antialiased)"},
                                     {"Latent (bicubic)", "Latent (bicubic)"},
                                     {"Latent (bicubic antialiased)", "Latent (bicubic antialiased)"},
                                     {"Latent (nearest)", "Latent (nearest)"},
                                     {"Latent (nearest-exact)", "Latent (nearest-exact)"}, {"Lanczos", "Lanczos"},
                                     {"Nearest", "Nearest"}, {"None", "None"}, {0}};
static const sm_choice zero_snr[] = {{"0", "Default"}, {"1", "Zero Terminal SNR"}, {0}};
static const sm_choice discard[] = {{"0", "False"}, {"1", "True"}, {0}};
static const sm_choice on_off[] = {{"0", "False"}, {"1", "True"}, {0}};

static const struct {
    const char *field;
    const sm_choice *list;                                 /* or */
    const char *(*next)(size_t i, const char **a1111);
} sets[] = {
    {"emphasis", emphasis, NULL}, {"sampler", NULL, sampler}, {"schedule", NULL, schedule}, {"rng", rng, NULL},
    {"prediction", prediction, NULL},
    {"mask_invert", mask_mode, NULL}, {"only_masked", mask_area, NULL}, {"tile", tile, NULL},
    {"edit_rules", edit_rules, NULL}, {"resize_mode", resize_mode, NULL}, {"resize_filter", resize_filter, NULL},
    {"vae_encode", vae_encode, NULL}, {"vae_decoder", vae_decoder, NULL}, {"vae_encoder", vae_decoder, NULL},
    {"masked_content", content, NULL}, {"hires_upscaler", upscaler, NULL},
    {"zero_snr", zero_snr, NULL}, {"discard_next_to_last_sigma", discard, NULL},
    {"guidance", guidance, NULL}, {"cfg_mode", NULL, curve}, {"mimic_mode", NULL, curve},
    {"scaling_startpoint", startpoint, NULL},
    {"variability_measure", variability, NULL}, {"freeu", freeu, NULL}, {"step_cache", step_cache, NULL},
    {"p2p_mode", p2p_mode, NULL}, {"compute", compute, NULL},
};

bool sm_choice_at(const sumi_param_info *p, size_t i, sm_choice *out)
{
    const sm_choice *list = p->type == SUMI_PARAM_INT && p->low == 0 && p->high == 1 ? on_off : NULL;
    const char *(*next)(size_t, const char **) = NULL;
    for (size_t k = 0; k < SM_COUNT(sets); k++)
        if (!strcmp(sets[k].field, p->name)) {
            list = sets[k].list;
            next = sets[k].next;
        }
    *out = (sm_choice){0};
    if (next)
        out->name = next(i, &out->a1111);
    else if (list) {
        for (size_t k = 0; k < i && list->name; k++)
            list++;
        *out = *list;
    }
    return out->name != NULL;
}

bool sm_choice_find(const sumi_param_info *p, const char *word, sm_choice *out)
{
    for (size_t i = 0; sm_choice_at(p, i, out); i++)
        if (!strcasecmp(out->name, word) || !strcasecmp(out->a1111, word))
            return true;
    return false;
}

const char *sm_choice_word(const sumi_param_info *p, size_t *i)
{
    sm_choice c, before;
    for (; sm_choice_at(p, *i, &c); ++*i) {
        size_t k = 0;
        while (k < *i && sm_choice_at(p, k, &before) && strcmp(before.name, c.name))
            k++;
        if (k == *i) {
            ++*i;
            return c.name;
        }
    }
    return NULL;
}

const char *sumi_param_choice(const char *name, size_t i, const char **a1111)
{
    sm_choice c = {0};
    const sumi_param_info *p = sm_param_find(name);
    if (p)
        sm_choice_at(p, i, &c);
    if (a1111)
        *a1111 = c.a1111;
    return c.name;
}
