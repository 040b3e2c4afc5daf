/* A whole request: rounds of pictures that share the denoiser's runs, each through one pass or, with hires fix, two, then decoded
 * and laid back into the picture that was edited. Which round a picture is in does not change its bits. */
#include "pipeline/generate.h"

#include <string.h>

#include "pipeline/drawing.h"
#include "pipeline/merging.h"
#include "sample/sampler.h"

/* Pictures of a round: small latents fill the kernels better together, large ones only cost memory. */
enum { ROUND = 8, ROUND_TOKENS = 4096 };

/* Pixels of the round's results where they are not the pictures that come out. */
static sumi_status open_pixels(sm_drawing *d, sm_err *e)
{
    const sm_job *j = d->j;
    if (!j->edit || !j->edit->under)
        return SUMI_OK;
    d->pixels = sm_alloc(j->mem, SM_MEM_DATA, (size_t)d->round * (size_t)j->r.width * (size_t)j->r.height * 3);
    return d->pixels ? SUMI_OK
                     : sm_fail(e, SUMI_E_MEMORY, "out of memory for %d pictures of %dx%d", d->round, j->r.width, j->r.height);
}

static int round_of(const sm_job *j)
{
    int f = sm_vae_factor(&j->m->vae), w = j->edit ? j->r.width : j->out_width, h = j->edit ? j->r.height : j->out_height;
    if (j->m->low_memory || sm_sampler_find(j->r.sampler)->alone)
        return 1;
    return SM_MAX(1, SM_MIN(SM_MIN(ROUND, j->r.count), ROUND_TOKENS / SM_MAX(w / f * (h / f), 1)));
}

static sumi_status open_pass(sm_drawing *d, int i, int width, int height, sm_stretch s, sm_err *e)
{
    sm_pass *p = &d->pass[i];
    sm_job j = *d->j;
    if (i > 0) {
        j.r.init_latents = ""; /* the start of the first */
        sm_merging_hires(&j.r);
    }
    if (sm_pass_open(p, &j, width, height, s, d->round, i == d->passes - 1, &d->evals, e))
        return e->code;
    return sm_edit_latents_open(&p->edit, &p->j, p->h, p->w, d->round, i > 0, e);
}

sumi_status sm_drawing_open(sm_drawing *d, const sm_job *j, sm_err *e)
{
    sm_stretch first = {.all = j->r.steps, .run = j->r.steps}, second;
    bool hires = sm_hires_wanted(&j->r);
    *d = (sm_drawing){.j = j, .passes = hires ? 2 : 1, .round = round_of(j)};
    if ((j->edit && sm_edit_stretch(j, j->r.steps, &first, e)) || open_pass(d, 0, j->r.width, j->r.height, first, e))
        return e->code;
    if (hires && (sm_hires_stretch(j, &second, e) || open_pass(d, 1, j->out_width, j->out_height, second, e)))
        return e->code;
    int64_t calls = 0;
    for (int i = 0; i < d->passes; i++) {
        d->pass[i].earlier = i ? j->r.steps : 0;
        calls += sm_pass_evals(&d->pass[i]);
    }
    for (int i = 0; i < d->passes; i++)
        d->pass[i].all = calls * ((j->r.count + d->round - 1) / d->round);
    return open_pixels(d, e);
}

void sm_drawing_close(sm_drawing *d)
{
    for (int i = 0; i < d->passes; i++)
        sm_pass_close(&d->pass[i]);
    sm_free(d->pixels);
}

static sumi_status decode(sm_drawing *d, sm_pass *last, int first, int n, uint8_t *out, sm_err *e)
{
    const sm_job *j = d->j;
    size_t each = (size_t)j->out_width * (size_t)j->out_height * 3, drawn = (size_t)j->r.width * (size_t)j->r.height * 3;
    if (!d->pixels)
        return sm_decode_run(&last->dec, last->latents, first, n, out, e);
    sm_decode_run(&last->dec, last->latents, first, n, d->pixels, e);
    for (int k = 0; k < n && !e->code; k++)
        sm_edit_finish(j, d->pixels + (size_t)k * drawn, out + (size_t)k * each, e);
    return e->code;
}

static void tell_cache(const sm_drawing *d)
{
    int64_t asked = 0, spared = 0;
    for (int i = 0; i < d->passes; i++) {
        asked += d->pass[i].den.cache.asked + d->pass[i].refine.den.cache.asked;
        spared += d->pass[i].den.cache.spared + d->pass[i].refine.den.cache.spared;
    }
    sm_step_cache_tell(d->j, asked, spared);
}

static sumi_status draw_round(sm_drawing *d, int first, uint8_t *out, sm_err *e)
{
    int n = SM_MIN(d->round, d->j->r.count - first);
    sm_pass *last = &d->pass[d->passes - 1];
    if (!sm_pass_run(&d->pass[0], first, n, e) && d->passes == 2 && !sm_hires_enlarge(&d->pass[0], &d->pass[1], first, n, e))
        sm_pass_run(&d->pass[1], first, n, e);
    if (!e->code)
        decode(d, last, first, n, out, e);
    sm_decode_done(&last->dec);
    return e->code;
}

sumi_status sm_job_run(sm_job *j, uint8_t *rgb, sm_err *e)
{
    sm_drawing d;
    j->started = sm_now();
    size_t bytes = (size_t)j->out_width * (size_t)j->out_height * 3;
    sm_drawing_open(&d, j, e);
    for (int i = 0; i < d.passes && !e->code; i++)
        sm_edit_encode(&d.pass[i].edit, e);
    for (int k = 0; k < j->r.count && !e->code; k += d.round)
        draw_round(&d, k, rgb + (size_t)k * bytes, e);
    if (!e->code)
        tell_cache(&d);
    if (!e->code)
        sm_kept_write(&d.pass[d.passes - 1].kept, &d.pass[d.passes - 1].j, e);
    if (!e->code)
        sm_kept_write(&d.pass[0].inverse.kept, &d.pass[0].inverse.j, e);
    sm_drawing_close(&d);
    return e->code;
}
