/* A request's guidance: from its parameters to sample/guidance.h's numbers, and what does not go together, in one line each. */
#include "pipeline/denoise.h"
#include "pipeline/merging.h"

#include <regex.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

/* ---- layers by name ------------------------------------------------------------------------------------------------ */

/* The next of a list between commas, without blanks around it; false past the last. */
static bool next_pattern(const char **list, char *out, size_t room)
{
    *list += strspn(*list, ", \t");
    size_t n = strcspn(*list, ",");
    const char *from = *list;
    *list += n;
    while (n && (from[n - 1] == ' ' || from[n - 1] == '\t'))
        n--;
    snprintf(out, room, "%.*s", (int)n, from);
    return n > 0;
}

bool sm_layers_match(void *arg, const char *path)
{
    sm_layers *l = arg;
    const char *list = l->list;
    char pattern[256];
    size_t skip = strlen(l->component);
    bool found = false;
    if (!strncmp(path, l->component, skip) && path[skip] == '.')
        path += skip + 1;
    while (!found && next_pattern(&list, pattern, sizeof pattern)) {
        regex_t r;
        if (regcomp(&r, pattern, REG_EXTENDED | REG_NOSUB))
            continue;
        found = !regexec(&r, path, 0, NULL, 0);
        regfree(&r);
    }
    l->found += found;
    return found;
}

static sumi_status check_layers(const char *list, sm_err *e)
{
    char pattern[256];
    int n = 0;
    for (; next_pattern(&list, pattern, sizeof pattern); n++) {
        regex_t r;
        if (strlen(pattern) == sizeof pattern - 1 || regcomp(&r, pattern, REG_EXTENDED | REG_NOSUB))
            return sm_fail(e, SUMI_E_ARG, "--pag-layers: '%.60s' is no regular expression (POSIX extended, up to 254 bytes)",
                           pattern);
        regfree(&r);
    }
    return n ? SUMI_OK : sm_fail(e, SUMI_E_ARG, "--pag-layers: no layer is named; mid is usual");
}

/* ---- what goes together -------------------------------------------------------------------------------------------- */

static sumi_status check_model(const sm_denoise *d, sm_err *e)
{
    const sumi_request *r = &d->j->r;
    const sumi_model *m = d->j->m;
    const char *inside = r->pag_scale != 0 ? "pag" : r->sag_scale != 0 ? "sag" : r->freeu[0] ? "freeu" : NULL;
    const char *outside = r->mimic_scale != 0                               ? "mimic-scale"
                          : r->guidance_rescale != 0                        ? "guidance-rescale"
                          : strcasecmp(r->guidance, "cfg")                  ? "guidance"
                          : strcasecmp(r->cfg_mode, "constant")             ? "cfg-mode"
                          : r->guidance_start != 0 || r->guidance_stop != 1 ? "guidance-start"
                          : r->guidance_sigma_min != 0 || r->guidance_sigma_max != 0 ? "guidance-sigma-min"
                                                                            : NULL;
    if (inside && m->family->kind != SM_MODEL_UNET)
        return sm_fail(e, SUMI_E_ARG, "--%s: changes the inside of UNets; %s is a transformer", inside, m->name);
    if (outside && d->embedded)
        return sm_fail(e, SUMI_E_ARG,
                       "--%s: %s takes the guidance scale as an input and has no unconditional prediction to change", outside,
                       m->name);
    if (r->sag_scale != 0 && m->denoiser.unet.mid_block != SM_MID_CROSS)
        return sm_fail(e, SUMI_E_ARG, "--sag: this model has no attention in its middle, which self-attention guidance looks at");
    if (r->pag_adaptive_scale != 0 && d->pred == SM_PRED_EDM)
        return sm_fail(e, SUMI_E_ARG, "--pag-adaptive: goes by timesteps, which %s does not have; leave it 0", m->name);
    return SUMI_OK;
}

static sumi_status check_together(const sm_denoise *d, sm_err *e)
{
    const sumi_request *r = &d->j->r;
    bool edits = d->j->m->traits.extra == SM_EXTRA_EDIT, apg = strcasecmp(r->guidance, "cfg"), plain = r->cfg_scale == 1;
    if (apg && r->mimic_scale != 0)
        return sm_fail(e, SUMI_E_ARG,
                       "--mimic-scale: dynamic thresholding and --guidance %s both replace the guided prediction; choose one",
                       r->guidance);
    if (edits && (apg || r->mimic_scale != 0) && r->image_guidance_scale != 1)
        return sm_fail(e, SUMI_E_ARG, "--%s: has one scale, edit models two; --image-cfg 1 leaves it one",
                       apg ? "guidance" : "mimic-scale");
    if (edits && r->sag_scale != 0)
        return sm_fail(e, SUMI_E_ARG, "--sag: is defined for the unconditional prediction of a text, not of an edit model");
    if (plain && (apg || r->mimic_scale != 0 || r->guidance_rescale != 0))
        return sm_fail(e, SUMI_E_ARG, "--%s: changes guidance, but --cfg is 1, which is none",
                       apg ? "guidance" : r->mimic_scale != 0 ? "mimic-scale" : "guidance-rescale");
    if (r->guidance_start >= r->guidance_stop)
        return sm_fail(e, SUMI_E_ARG, "--guidance-start: %g is not before --guidance-stop %g", (double)r->guidance_start,
                       (double)r->guidance_stop);
    if (r->guidance_sigma_max > 0 && r->guidance_sigma_min > r->guidance_sigma_max)
        return sm_fail(e, SUMI_E_ARG, "--guidance-sigma-min: %g is above --guidance-sigma-max %g", (double)r->guidance_sigma_min,
                       (double)r->guidance_sigma_max);
    return r->pag_scale != 0 ? check_layers(r->pag_applied_layers, e) : SUMI_OK;
}

/* ---- numbers ------------------------------------------------------------------------------------------------------- */

/* The row's strength, or the version's own: ComfyUI's defaults, diffusers' advice for 1.x. */
static void freeu(const sumi_request *r, sm_unet_tweaks *t)
{
    static const struct { const char *name; sm_freeu how; float b[2], s[2]; } versions[] = {
        {"v1", SM_FREEU_1, {1.1f, 1.2f}, {0.9f, 0.2f}},
        {"v2", SM_FREEU_2, {1.3f, 1.4f}, {0.9f, 0.2f}},
        {"diffusers", SM_FREEU_DIFFUSERS, {1.5f, 1.6f}, {0.9f, 0.2f}},
    };
    const float b[2] = {r->freeu_b1, r->freeu_b2}, s[2] = {r->freeu_s1, r->freeu_s2};
    for (size_t i = 0; i < SM_COUNT(versions); i++)
        if (!strcasecmp(r->freeu, versions[i].name)) {
            t->freeu = versions[i].how;
            for (int k = 0; k < 2; k++) {
                t->b[k] = b[k] < 0 ? versions[i].b[k] : b[k];
                t->s[k] = s[k] < 0 ? versions[i].s[k] : s[k];
            }
        }
}

static double lowest(const sm_curve *c, double given) { return given > -1000 ? given : c ? c->low : 0; }

static sm_mimic mimic(const sumi_request *r)
{
    sm_mimic m = {.scale = r->mimic_scale,
                  .percentile = r->threshold_percentile / 100,
                  .phi = r->interpolate_phi,
                  .curve = sm_curve_find(r->mimic_mode),
                  .together = !r->separate_feature_channels,
                  .from_zero = !strcasecmp(r->scaling_startpoint, "zero"),
                  .deviation = !strcasecmp(r->variability_measure, "std")};
    m.low = lowest(m.curve, r->mimic_scale_min);
    return m;
}

sumi_status sm_denoise_guidance(sm_denoise *d, sm_err *e)
{
    const sumi_request *r = &d->j->r;
    sm_guidance *g = &d->guide;
    if (check_model(d, e) || check_together(d, e) || sm_merging_check(d->j, e))
        return e->code;
    *g = (sm_guidance){.scale = d->embedded ? 1 : r->cfg_scale,
                       .image_scale = d->j->m->traits.extra == SM_EXTRA_EDIT ? r->image_guidance_scale : 1,
                       .rescale = r->guidance_rescale,
                       .low = r->guidance_sigma_min,
                       .high = r->guidance_sigma_max,
                       .start = r->guidance_start,
                       .stop = r->guidance_stop,
                       .curve = sm_curve_find(r->cfg_mode),
                       .power = r->sched_val,
                       .eta = r->apg_eta,
                       .momentum = r->apg_momentum,
                       .norm = r->apg_norm_threshold,
                       .mimic = mimic(r),
                       .pag = r->pag_scale,
                       .pag_adaptive = r->pag_adaptive_scale,
                       .sag = r->sag_scale,
                       .classifier = d->j->classify ? r->classifier_scale : 0,
                       .clamp = r->dynamic_thresholding_ratio,
                       .clamp_max = r->sample_max_value};
    g->kind = !strcasecmp(r->guidance, "apg")      ? SM_GUIDE_APG
              : !strcasecmp(r->guidance, "apg_x0") ? SM_GUIDE_APG_X0
                                                   : SM_GUIDE_CFG;
    g->curve_low = lowest(g->curve, r->cfg_scale_min);
    if (g->curve && !strcmp(g->curve->name, "constant"))
        g->curve = NULL;
    if (g->mimic.curve && !strcmp(g->mimic.curve->name, "constant"))
        g->mimic.curve = NULL;
    freeu(r, &d->tweaks);
    return SUMI_OK;
}
