/* Token merging of a request (see merging.h), with the words and defaults of A1111, and tomesd's random choice. */
#include "pipeline/merging.h"

#include <math.h>

#include "base/rng.h"
#include "pipeline/hires.h"

enum { CELL = 2 }; /* tokens a side: tomesd's sx, sy */
#define SEED 0x746f6b656e73u /* of the random choice, which no request's seed changes: pictures of any batch share a call's */

void sm_merging_hires(sumi_request *r)
{
    if (r->token_merging_ratio_hr > 0)
        r->token_merging_ratio = r->token_merging_ratio_hr;
}

nn_merging sm_merging_of(const sm_job *j)
{
    double ratio = round(j->r.token_merging_ratio * 1e6) / 1e6; /* the number as it was written, which a float is not */
    return (nn_merging){.ratio = ratio, .cell = CELL, .max_downsample = j->r.token_merging_max_downsample};
}

void sm_merging_choose(const sm_denoise *d, const sm_denoise_part *p)
{
    for (int i = 0; i < p->merging.count; i++) {
        const sm_node *node = p->merging.chosen[i];
        int32_t *to = sm_plan_data(p->part.p, node);
        for (int64_t k = 0; to && k < node->dims[0]; k++)
            to[k] = d->j->r.token_merging_random
                        ? (int32_t)(sm_rng_u32(SEED, (uint64_t)d->evals * NN_MERGINGS + (uint64_t)i, (uint64_t)k) % (CELL * CELL))
                        : 0;
    }
}

static bool wanted(const sumi_request *r)
{
    return r->token_merging_ratio > 0 || (sm_hires_wanted(r) && r->token_merging_ratio_hr > 0);
}

sumi_status sm_merging_check(const sm_job *j, sm_err *e)
{
    int n = j->r.token_merging_max_downsample;
    if (n & (n - 1))
        return sm_fail(e, SUMI_E_ARG, "--token-merging-max-downsample: %d; 1, 2, 4, 8 .. were expected", n);
    if (wanted(&j->r) && j->m->family->kind != SM_MODEL_UNET)
        return sm_fail(e, SUMI_E_ARG, "--token-merging-ratio: merges the tokens of UNets; %s is a transformer", j->m->name);
    return SUMI_OK;
}

/* How many times fewer places a side than the latents the first attention of a UNet sees; 0: it has none. */
static int first_attention(const sm_unet_config *c)
{
    for (int i = 0; i < c->blocks; i++)
        if (c->down_attention[i] || c->up_attention[c->blocks - 1 - i] || (i == c->blocks - 1 && c->mid_block == SM_MID_CROSS))
            return 1 << i;
    return 0;
}

void sm_merging_idle(const sm_job *j, sm_buf *line)
{
    int at = wanted(&j->r) && j->m->family->kind == SM_MODEL_UNET ? first_attention(&j->m->denoiser.unet) : 1;
    if (at && at <= j->r.token_merging_max_downsample)
        return;
    sm_buf_fmt(line, "%s--token-merging-ratio: this model has no self-attention", line->len ? "; " : "no effect: ");
    if (at)
        sm_buf_fmt(line, " on more than 1/%d of the latents' places a side, which --token-merging-max-downsample %d allows", at,
                   at);
}
