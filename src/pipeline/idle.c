/* Parameters that have no effect in a request, because what they belong to is off. They are told, not refused: infotexts of A1111
 * carry such keys (a mask's blur without the mask, which no infotext holds), and one flag less should not make others wrong. */
#include "pipeline/params.h"

#include <string.h>

#include "pipeline/hires.h"
#include "pipeline/p2p.h"

static bool picture(const sumi_request *r) { return r->init_image[0]; }
static bool mask(const sumi_request *r) { return r->mask[0]; }
static bool masked(const sumi_request *r)
{
    return r->mask[0] || r->outpaint_left || r->outpaint_right || r->outpaint_up || r->outpaint_down;
}
static bool only_masked(const sumi_request *r) { return r->only_masked; }
static bool inverts(const sumi_request *r) { return r->invert; }
static bool refiner(const sumi_request *r) { return r->refiner[0]; }
static bool variation(const sumi_request *r) { return r->variation_strength > 0; }
static bool mimics(const sumi_request *r) { return r->mimic_scale > 0; }
static bool curved(const sumi_request *r)
{
    return strcmp(r->cfg_mode, "constant") || (mimics(r) && strcmp(r->mimic_mode, "constant"));
}
static bool bent(const sumi_request *r) { return strcmp(r->cfg_mode, "constant"); }
static bool limited(const sumi_request *r) { return r->dynamic_thresholding_ratio > 0; }
static bool projects(const sumi_request *r) { return strcmp(r->guidance, "cfg"); }
static bool perturbs(const sumi_request *r) { return r->pag_scale > 0; }
static bool attends(const sumi_request *r) { return r->sag_scale != 0; }
static bool freeu(const sumi_request *r) { return r->freeu[0]; }
static bool merges(const sumi_request *r)
{
    return r->token_merging_ratio > 0 || (sm_hires_wanted(r) && r->token_merging_ratio_hr > 0);
}
static bool blends(const sumi_request *r) { return r->p2p_blend[0]; }
static bool churns(const sumi_request *r) { return r->s_churn > 0; }
static bool classifies(const sumi_request *r) { return r->classifier[0]; }
static bool caches(const sumi_request *r) { return r->step_cache[0]; }
static bool caches_deep(const sumi_request *r) { return !strcmp(r->step_cache, "deepcache"); }
static bool caches_tea(const sumi_request *r) { return !strcmp(r->step_cache, "teacache"); }
static bool caches_by_steps(const sumi_request *r) { return caches_deep(r) || !strcmp(r->step_cache, "taylorseer"); }
static bool caches_by_change(const sumi_request *r) { return caches_tea(r) || !strcmp(r->step_cache, "easycache"); }
static bool latents(const sumi_request *r) { return r->init_latents[0]; }
static bool tiles(const sumi_request *r)
{
    return strcmp(r->vae_decoder, "taesd") || (strcmp(r->vae_encoder, "taesd") && sm_request_encodes(r));
}

bool sm_request_encodes(const sumi_request *r) { return r->init_image[0] || (sm_hires_wanted(r) && sm_hires_pixels(r)); }

static const struct {
    const char *field;
    bool (*acts)(const sumi_request *r); /* words are spelled as the tables have them */
    const char *needs;
} rows[] = {
    {"variation_seed", variation, "--variation-strength"},
    {"s_tmin", churns, "--s-churn"},
    {"s_tmax", churns, "--s-churn"},
    {"cfg_scale_min", bent, "--cfg-mode"},
    {"sched_val", curved, "--cfg-mode"},
    {"threshold_percentile", mimics, "--mimic-scale"},
    {"mimic_mode", mimics, "--mimic-scale"},
    {"mimic_scale_min", mimics, "--mimic-scale"},
    {"separate_feature_channels", mimics, "--mimic-scale"},
    {"scaling_startpoint", mimics, "--mimic-scale"},
    {"variability_measure", mimics, "--mimic-scale"},
    {"interpolate_phi", mimics, "--mimic-scale"},
    {"sample_max_value", limited, "--dynamic-thresholding-ratio"},
    {"apg_eta", projects, "--guidance apg"},
    {"apg_momentum", projects, "--guidance apg"},
    {"apg_norm_threshold", projects, "--guidance apg"},
    {"pag_adaptive_scale", perturbs, "--pag"},
    {"pag_applied_layers", perturbs, "--pag"},
    {"sag_blur_sigma", attends, "--sag"},
    {"freeu_b1", freeu, "--freeu"},
    {"freeu_b2", freeu, "--freeu"},
    {"freeu_s1", freeu, "--freeu"},
    {"freeu_s2", freeu, "--freeu"},
    {"cache_interval", caches_by_steps, "--step-cache deepcache or taylorseer"},
    {"cache_order", caches_by_steps, "--step-cache deepcache or taylorseer"},
    {"cache_branch", caches_deep, "--step-cache deepcache"},
    {"cache_threshold", caches_by_change, "--step-cache easycache or teacache"},
    {"cache_coefficients", caches_tea, "--step-cache teacache"},
    {"cache_start", caches, "--step-cache"},
    {"cache_end", caches, "--step-cache"},
    {"token_merging_ratio_hr", sm_hires_wanted, "--hires-upscale"},
    {"token_merging_max_downsample", merges, "--token-merging-ratio"},
    {"token_merging_random", merges, "--token-merging-ratio"},
    {"classifier_class", classifies, "--classifier"},
    {"classifier_scale", classifies, "--classifier"},
    {"classifier_hash", classifies, "--classifier"},
    {"p2p_mode", sm_p2p_wanted, "--edit-from-prompt"},
    {"p2p_cross_steps", sm_p2p_wanted, "--edit-from-prompt"},
    {"p2p_self_steps", sm_p2p_wanted, "--edit-from-prompt"},
    {"p2p_self_size", sm_p2p_wanted, "--edit-from-prompt"},
    {"p2p_blend", sm_p2p_wanted, "--edit-from-prompt"},
    {"p2p_blend_subtract", blends, "--p2p-blend"},
    {"p2p_blend_start", blends, "--p2p-blend"},
    {"p2p_blend_threshold", blends, "--p2p-blend"},
    {"exact_steps", picture, "--init-image"},
    {"edit_rules", picture, "--init-image"},
    {"resize_mode", picture, "--init-image"},
    {"resize_filter", picture, "--init-image"},
    {"vae_encode", sm_request_encodes, "--init-image"},
    {"vae_encoder", sm_request_encodes, "--init-image"},
    {"invert_prompt", inverts, "--invert 1"},
    {"invert_cfg", inverts, "--invert 1"},
    {"invert_steps", inverts, "--invert 1"},
    {"invert_refine", inverts, "--invert 1"},
    {"mask_blur", masked, "--mask"},
    {"mask_invert", mask, "--mask"},
    {"masked_content", masked, "--mask"},
    {"mask_padding", only_masked, "--only-masked 1"},
    {"hires_upscaler", sm_hires_wanted, "--hires-upscale"},
    {"hires_steps", sm_hires_wanted, "--hires-upscale"},
    {"refiner_switch_at", refiner, "--refiner"},
    {"vae_tile", tiles, "--vae-decoder full"},
    {"init_latents_at", latents, "--init-latents"},
};

/* What the encoder does although the request has no picture. */
static bool acts_in_encoder(size_t row, const sumi_request *r)
{
    return rows[row].acts == sm_request_encodes || (rows[row].acts == tiles && strcmp(r->vae_encoder, "taesd"));
}

void sm_request_idle(const sumi_request *given, bool encodes, sm_buf *out)
{
    sumi_request r = *given;
    const char *needs = NULL;
    sm_request_spell(&r);
    for (size_t i = 0; i < SM_COUNT(rows); i++) {
        const sumi_param_info *p = sm_param_find(rows[i].field);
        if (sm_param_is_default(p, &r) || rows[i].acts(&r) || (encodes && acts_in_encoder(i, &r)))
            continue;
        if (needs && strcmp(needs, rows[i].needs))
            sm_buf_fmt(out, " without %s; ", needs);
        sm_buf_fmt(out, "%s--%s", !needs ? "no effect: " : strcmp(needs, rows[i].needs) ? "" : ", ", p->flag);
        needs = rows[i].needs;
    }
    if (needs)
        sm_buf_fmt(out, " without %s", needs);
}
