/* The encoder of a request (see encode.h). The log variance is cut to -30..20 as in diffusers' DiagonalGaussianDistribution. */
#include "pipeline/encode.h"

#include <math.h>
#include <string.h>

#include "pipeline/decode.h"
#include "pipeline/hires.h"
#include "pipeline/tiny.h"
#include "pipeline/vae_tiles.h"

static sm_tiled_vae tiles_of(const sm_job *j, int tile)
{
    return (sm_tiled_vae){.mem = j->mem, .be = j->be, .pool = j->pool, .w = j->m->w, .component = "vae", .c = &j->m->vae,
                          .opts = sm_job_plan_opts(j), .tile = tile, .circular = {j->circular[0], j->circular[1]},
                          .cancel = sm_job_cancel(j)};
}

static sumi_status open_whole(sm_part *p, const sm_job *j, int h, int w, sm_err *e)
{
    int f = sm_vae_factor(&j->m->vae);
    p->g = sm_graph_new(j->mem, e);
    if (!p->g)
        return e->code;
    nn_scope s = sm_job_scope(j, p->g, "vae");
    p->in[0] = sm_input(p->g, "image", SM_F32, 4, (int64_t[]){1, h * f, w * f, j->m->vae.in_channels});
    p->out = sm_vae_encode(&s, &j->m->vae, p->in[0]);
    sm_plan_opts opts = sm_job_plan_opts(j);
    p->p = sm_plan_new_with(p->g, 1, &p->out, j->be, &opts, e);
    return e->code;
}

static sumi_status run_whole(const sm_job *j, int h, int w, const float *image, float *moments, sm_err *e)
{
    sm_part p = {0};
    if (!open_whole(&p, j, h, w, e)) {
        memcpy(sm_plan_data(p.p, p.in[0]), image, sizeof *image * (size_t)sm_numel(p.in[0]));
        if (!sm_plan_run(p.p, j->pool, sm_job_cancel(j), e))
            memcpy(moments, sm_plan_data(p.p, p.out), sizeof *moments * (size_t)sm_numel(p.out));
    }
    sm_part_close(&p);
    return e->code;
}

sumi_status sm_encode_run(const sm_job *j, int h, int w, const float *image, float *moments, sm_err *e)
{
    int tile = 0;
    bool tiny = sm_tiny_encodes(j);
    if (!tiny && sm_job_vae_tile(j, true, h, w, &tile, e))
        return e->code;
    sm_tiled_vae v = tiles_of(j, tile);
    if (tiny)
        sm_tiny_encode(j, h, w, image, moments, e);
    else if (tile)
        sm_vae_encode_tiled(&v, image, h, w, moments, e);
    else
        run_whole(j, h, w, image, moments, e);
    float sum = 0; /* 0 * x is 0 for numbers alone */
    for (int64_t i = 0; !e->code && i < (int64_t)h * w * 2 * j->m->vae.latent_channels; i++)
        sum += 0 * moments[i];
    sm_job_release(j, "vae");
    const char *what = sm_hires_wanted(&j->r) ? "--hires-upscaler" : j->r.init_image[0] ? "--init-image" : j->m->name;
    return sum == 0 ? e->code : sm_fail(e, SUMI_E_NUMERIC, "%s: the autoencoder gave NaN or infinity", what);
}

static sumi_status plan_tiny(const sm_job *j, int h, int w, sm_encode_info *out, sm_err *e)
{
    if (sm_tiny_wanted(j->m, true, "vae-encoder", e))
        return e->code;
    sm_tiny_bands b = sm_tiny_bands_of(j, true, h, w);
    size_t before = sm_job_held(j);
    if (!sm_tiny_open(&b, e))
        *out = (sm_encode_info){.bytes = sm_job_held(j) - before, .packed = sm_plan_packed_bytes(b.part.p),
                                .activation = sm_plan_activation_bytes(b.part.p), .flops = sm_tiny_flops(&b)};
    sm_tiny_close(&b);
    return e->code;
}

sumi_status sm_encode_plan(const sm_job *j, int h, int w, sm_encode_info *out, sm_err *e)
{
    int tile = 0;
    *out = (sm_encode_info){0};
    if (sm_tiny_encodes(j))
        return plan_tiny(j, h, w, out, e);
    if (sm_job_vae_tile(j, true, h, w, &tile, e))
        return e->code;
    if (tile) {
        sm_tiled_vae v = tiles_of(j, tile);
        sm_vae_tiles_info t;
        if (!sm_vae_tiles_plan(&v, true, h, w, &t, e))
            *out = (sm_encode_info){.bytes = t.bytes, .activation = t.bytes, .flops = t.flops};
        return e->code;
    }
    sm_part p = {0};
    size_t before = sm_job_held(j); /* an open part holds what it will hold when it runs */
    if (!open_whole(&p, j, h, w, e))
        *out = (sm_encode_info){.bytes = sm_job_held(j) - before, .packed = sm_plan_packed_bytes(p.p),
                                .activation = sm_plan_activation_bytes(p.p), .flops = sm_plan_cost(p.p).flops};
    sm_part_close(&p);
    return e->code;
}

void sm_encode_latent(const sumi_model *m, const float *moments, const float *noise, bool scaled, int64_t pixels, float *out)
{
    const sm_traits *t = &m->traits;
    int c = m->vae.latent_channels;
    double factor = m->vae.scaling_factor, shift = m->vae.shift_factor;
    for (int64_t i = 0; i < pixels; i++)
        for (int k = 0; k < c; k++) {
            double z = moments[i * 2 * c + k], logvar = fmin(fmax(moments[i * 2 * c + c + k], -30), 20);
            z += noise ? exp(0.5 * logvar) * noise[i * c + k] : 0;
            if (scaled && t->latents_stats)
                z = (z - t->latents_mean[k]) * factor / t->latents_std[k];
            else if (scaled)
                z = (z - shift) * factor;
            out[i * c + k] = (float)z;
        }
}
