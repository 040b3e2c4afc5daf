/* What a request would take, from the plans it would make. An open part holds what it will hold when it runs, so the peak is
 * counted, not guessed. */
#include "graph/packs.h"
#include "pipeline/drawing.h"
#include "sample/sampler.h"

/* Prepared weights of the model that this context holds; another one's model counts there. */
static size_t packs(const sm_job *j) { return j->m->mem == j->mem ? sm_packs_bytes(sm_weights_packs(j->m->w)) : 0; }

/* What is there whatever runs: pictures, and the mapped weights of all models. And the most that was held at once beside prepared
 * weights: from the second round on those of all components are there. */
typedef struct rest { size_t pictures, mapped, *beside; } rest;

/* Of a large model only that component's weights are in memory, of a small one all. */
static void peak(const sm_job *j, const rest *r, size_t bytes, size_t mapped, sumi_plan_info *out)
{
    size_t all = sm_job_held(j) + r->pictures + bytes + (sm_job_large(j->m) ? mapped : r->mapped);
    out->peak_bytes = SM_MAX(out->peak_bytes, all);
    *r->beside = SM_MAX(*r->beside, all - packs(j));
}

/* Weights that are resident while tiles are drawn: in low memory they are dropped as they are used. */
static size_t tiles_mapped(const sm_job *j, const char *part) { return j->m->low_memory ? 0 : sm_job_mapped(j->m, part); }

static void add_part(const sm_part *p, const sm_job *j, const rest *r, sumi_plan_info *out)
{
    out->packed_bytes += sm_plan_packed_bytes(p->p);
    out->activation_bytes = SM_MAX(out->activation_bytes, sm_plan_activation_bytes(p->p));
    peak(j, r, 0, sm_plan_mapped_bytes(p->p), out);
}

/* beside: bytes that are held meanwhile. */
static void plan_decoder(sm_pass *p, size_t beside, const rest *r, sumi_plan_info *out, sm_err *e)
{
    const sm_job *j = &p->j;
    sm_vae_tiles_info tiles;
    size_t before = sm_job_held(j);
    if (sm_decode_tiled(&p->dec)) {
        if (sm_decode_plan_tiles(&p->dec, &tiles, e))
            return;
        size_t bytes = beside + tiles.bytes + sizeof(float) * 3 * (size_t)j->r.width * (size_t)j->r.height -
                       (sm_job_held(j) - before);
        out->activation_bytes = SM_MAX(out->activation_bytes, tiles.bytes);
        peak(j, r, bytes, tiles_mapped(j, "vae.decoder."), out);
        out->decode_flops += tiles.flops * j->r.count;
    } else if (!sm_decode_open(&p->dec, e)) {
        const sm_part *part = sm_decode_part(&p->dec);
        add_part(part, j, r, out);
        peak(j, r, beside, sm_plan_mapped_bytes(part->p), out);
        out->decode_flops += sm_decode_flops(&p->dec) * j->r.count;
    }
    sm_decode_done(&p->dec);
}

/* A picture of h x w latents as the encoder reads it. */
static size_t read_bytes(const sm_pass *p, int h, int w)
{
    size_t f = (size_t)sm_vae_factor(&p->j.m->vae);
    return sizeof(float) * 3 * (size_t)h * f * (size_t)w * f;
}

/* times pictures of h x w latents are encoded, one after the other. */
static void plan_encoder(const sm_pass *p, int h, int w, int times, size_t beside, const rest *r, sumi_plan_info *out, sm_err *e)
{
    const sm_job *j = &p->j;
    sm_encode_info info;
    size_t before = sm_job_held(j); /* of what it opened and closed again some may wait */
    if (!times || sm_encode_plan(j, h, w, &info, e))
        return;
    out->packed_bytes += info.packed;
    out->activation_bytes = SM_MAX(out->activation_bytes, info.activation);
    peak(j, r, info.bytes + beside - (sm_job_held(j) - before), tiles_mapped(j, "vae.encoder."), out);
    out->encode_flops += info.flops * times;
}

static void plan_text(sm_text_cond *c, const sm_job *j, int n, int earlier, const rest *r, sumi_plan_info *out, sm_err *e)
{
    if (sm_text_open(c, j, 0, n, earlier, e))
        return;
    for (int i = 0; i < j->m->traits.texts && !e->code; i++) {
        sm_part part = {0};
        if (!sm_text_open_part(&part, j, i, sm_text_batch(c), e)) {
            add_part(&part, j, r, out);
            out->encode_flops += sm_plan_cost(part.p).flops / sm_text_batch(c) * sm_text_sequences(c);
        }
        sm_part_close(&part);
    }
}

/* The classifier works between the denoiser's runs: without --low-memory the plans and weights of both stay. */
static void add_classifier(sm_denoise *d, const rest *r, sumi_plan_info *out, sm_err *e)
{
    size_t beside = 0;
    for (int i = 0; i < d->nparts && !d->j->m->low_memory; i++)
        beside = SM_MAX(beside, sm_plan_mapped_bytes(d->parts[i].part.p));
    if (d->guide.classifier == 0 || sm_classify_part(d, e))
        return;
    add_part(&d->classifier, d->j, r, out);
    peak(d->j, r, 0, beside + sm_plan_mapped_bytes(d->classifier.p), out);
}

static void plan_denoiser(sm_denoise *d, const sm_text_cond *text, double calls, int n, const rest *r,
                          sumi_plan_info *out, sm_err *e)
{
    const sm_job *j = d->j;
    double call = 0;
    if (!sm_denoise_open(d, n, text, e) && !sm_denoise_plan(d, sm_sampler_find(j->r.sampler)->cfgpp, &call, e)) {
        double step = call / n * j->r.count;
        for (int i = 0; i < d->nparts; i++)
            add_part(&d->parts[i].part, j, r, out);
        add_classifier(d, r, out, e);
        out->step_flops = SM_MAX(out->step_flops, step);
        out->total_flops += step * calls;
    }
    sm_denoise_done(d);
}

/* The inversion's, then both models of a pass that is handed over, by the steps that are either's. */
static void plan_steps(sm_pass *p, int n, const rest *r, sumi_plan_info *out, sm_err *e)
{
    int late = 0, steps = p->j.r.steps;
    sm_inversion *v = &p->inverse;
    double inverse = (double)sm_inversion_evals(v), calls = SM_MAX((double)sm_pass_evals(p) - inverse, 0);
    for (int i = 0; i < steps; i++)
        late += sm_refine_due(&p->refine, &p->den.noise, p->sigmas[i]);
    plan_text(&p->text, &p->j, n, p->earlier, r, out, e);
    if (v->j.m && !e->code) { /* the same weights are prepared again for drawing */
        size_t packed = out->packed_bytes;
        out->steps += (int)inverse;
        plan_text(&v->text, &v->j, n, 0, r, out, e);
        if (!e->code)
            plan_denoiser(&v->den, &v->text, inverse, n, r, out, e);
        out->packed_bytes = packed;
    }
    p->den.beside = p->edit.beside; /* edit models predict without the picture, too */
    if (!e->code)
        plan_denoiser(&p->den, &p->text, calls * (steps - late) / steps, n, r, out, e);
    if (!late || e->code)
        return;
    p->refine.den.sigmas = p->sigmas;
    p->refine.den.steps = steps;
    plan_text(&p->refine.text, &p->refine.j, n, p->earlier, r, out, e);
    if (!e->code)
        plan_denoiser(&p->refine.den, &p->refine.text, calls * late / steps, n, r, out, e);
}

/* A pass of a later round: as in sm_pass_run, only texts that differ from picture to picture are laid out anew. */
static void plan_again(sm_pass *p, int first, int n, const rest *r, sumi_plan_info *out, sm_err *e)
{
    sm_inversion *v = &p->inverse;
    if (p->j.prompts || sm_p2p_wanted(&p->j.r)) {
        sm_text_close(&p->text);
        sm_text_open(&p->text, &p->j, first, n, p->earlier, e);
    }
    if (v->j.m && v->j.prompts && !e->code) {
        sm_text_close(&v->text);
        sm_text_open(&v->text, &v->j, first, n, 0, e);
    }
    if (v->j.m && !e->code)
        plan_denoiser(&v->den, &v->text, 0, n, r, out, e);
    if (!e->code)
        plan_denoiser(&p->den, &p->text, 0, n, r, out, e);
    if (!p->refine.den.sigmas || e->code) /* no step is the refiner's */
        return;
    sm_text_close(&p->refine.text);
    if (!sm_text_open(&p->refine.text, &p->refine.j, first, n, p->earlier, e))
        plan_denoiser(&p->refine.den, &p->refine.text, 0, n, r, out, e);
}

/* The second round and the last one count for memory alone: small plans take none of the large blocks that wait since the round
 * before, and fewer pictures have plans of their own. Returns the bytes of weights that are prepared for them. */
static size_t plan_later(sm_drawing *d, const rest *r, sumi_plan_info *out, sm_err *e)
{
    int n = d->round, count = d->j->r.count, left = count % n;
    sumi_plan_info later = {0};
    for (int i = 0; i < d->passes && count >= 2 * n && !e->code; i++)
        plan_again(&d->pass[i], n, n, r, &later, e);
    for (int i = 0; i < d->passes && left && !e->code; i++)
        plan_again(&d->pass[i], count - left, left, r, &later, e);
    out->peak_bytes = SM_MAX(out->peak_bytes, later.peak_bytes);
    out->activation_bytes = SM_MAX(out->activation_bytes, later.activation_bytes);
    return later.packed_bytes;
}

/* Hires fix between its passes. */
static void plan_enlarging(sm_drawing *d, const rest *r, sumi_plan_info *out, sm_err *e)
{
    sm_pass *from = &d->pass[0], *to = &d->pass[1];
    size_t beside = sm_hires_bytes(from, to, d->round);
    peak(&to->j, r, beside, 0, out);
    if (!sm_hires_pixels(&from->j.r))
        return;
    plan_decoder(from, beside, r, out, e);
    if (!e->code)
        plan_encoder(to, to->h, to->w, to->j.r.count, beside, r, out, e);
}

sumi_status sm_job_plan(sm_job *j, sumi_plan_info *out, sm_err *e)
{
    sm_drawing d;
    *out = (sumi_plan_info){0};
    for (size_t i = 0; i < sm_weights_count(j->m->w); i++)
        out->weight_bytes += sm_weights_at(j->m->w, i)->bytes;
    for (size_t i = 0; j->refiner && i < sm_weights_count(j->refiner->w); i++)
        out->weight_bytes += sm_weights_at(j->refiner->w, i)->bytes;
    size_t most = 0;
    rest r = {.beside = &most, .pictures = (size_t)j->r.count * (size_t)j->out_width * (size_t)j->out_height * 3,
              .mapped = sm_job_mapped(j->m, NULL) + (j->refiner ? sm_job_mapped(j->refiner, NULL) : 0)};
    for (size_t i = 0; j->classify && i < sm_weights_count(j->classify->w); i++) {
        const sm_weight *w = sm_weights_at(j->classify->w, i);
        out->weight_bytes += w->bytes;
        r.mapped += w->mapped ? w->bytes : 0;
    }
    out->peak_bytes = sm_job_held(j) + 2 * r.pictures; /* at the end, when the pictures are handed out */
    sm_drawing_open(&d, j, e);
    for (int i = 0; i < d.passes && !e->code; i++) {
        sm_pass *p = &d.pass[i];
        int eh = p->edit.eh, ew = p->edit.ew;
        out->steps += p->j.r.steps;
        plan_steps(p, d.round, &r, out, e);
        if (!e->code)
            plan_encoder(p, eh, ew, p->edit.moments != NULL, read_bytes(p, eh, ew), &r, out, e);
        if (!e->code)
            plan_encoder(p, p->h, p->w, p->edit.masked != NULL, read_bytes(p, p->h, p->w), &r, out, e);
        if (!e->code && i == 1)
            plan_enlarging(&d, &r, out, e);
        if (!e->code && i == d.passes - 1)
            plan_decoder(p, 0, &r, out, e);
    }
    size_t later = e->code ? 0 : plan_later(&d, &r, out, e);
    if (!j->refiner && !j->classify && packs(j)) /* batches of several sizes use the same */
        out->packed_bytes = SM_MIN(out->packed_bytes + later, packs(j));
    if (d.round < j->r.count)
        out->peak_bytes = SM_MAX(out->peak_bytes, most + packs(j));
    bool known = !e->code && sm_pass_evals(&d.pass[0]) > 0;
    out->total_flops = known ? out->total_flops + out->encode_flops + out->decode_flops : 0;
    sm_drawing_close(&d);
    return e->code;
}
