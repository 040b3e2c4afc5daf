/* Classifier guidance of a request (see classify.h): the gradient's plan and its runs. */
#include "pipeline/classify.h"

#include <math.h>
#include <string.h>

#include "pipeline/denoise.h"

enum { SEEN, TIME }; /* inputs of the part */

/* d log p(label | x, t) / d x [n,h,w,c] as p->out. */
static sumi_status record(const sm_job *j, sm_part *p, int64_t n, int h, int w, sm_err *e)
{
    const sm_classify *k = j->classify;
    p->g = sm_graph_new(j->mem, e);
    if (!p->g)
        return e->code;
    p->in[SEEN] = sm_input(p->g, "x", SM_F32, 4, (int64_t[]){n, h, w, k->c.in_channels});
    p->in[TIME] = sm_input(p->g, "timestep", SM_F32, 1, &n);
    nn_scope root = nn_root(p->g, k->w, NULL), s = nn_sub(&root, "%s", k->c.component);
    sm_node *logits = sm_classifier(&s, &k->c, p->in[SEEN], p->in[TIME]);
    if (!sm_poisoned(logits))
        sm_grad(sm_sum_all(sm_slice(sm_log_softmax(logits), -1, k->label, 1)), 1, &p->in[SEEN], &p->out);
    return p->g->err.code ? sm_fail(e, p->g->err.code, "--classifier: %s: %s", j->r.classifier, p->g->err.msg) : SUMI_OK;
}

/* ---- sizes --------------------------------------------------------------------------------------------------------- */

/* What is left of a side of so many latents. */
static int left_of(const sm_classifier_config *c, int side)
{
    for (int i = 1; i < c->blocks; i++)
        side = c->down[i] == SM_DOWN_CONV ? (side + 1) / 2 : c->down[i] ? side / 2 : side;
    return side;
}

/* Pixels on a side that become one place; files may claim any number of halvings. */
static int pixels_of_one(const sm_job *j) { return sm_vae_factor(&j->m->vae) << SM_MIN(j->classify->c.halvings, 13); }

static sumi_status wrong_places(const sm_job *j, int h, int w, sm_err *e)
{
    const sm_classifier_config *c = &j->classify->c;
    int f = sm_vae_factor(&j->m->vae), side = (int)sqrt((double)c->places);
    int fits = side <= 8192 / pixels_of_one(j) ? side * pixels_of_one(j) : 0;
    if ((int64_t)side * side == c->places && fits > 0)
        return sm_fail(e, SUMI_E_ARG,
                       "--classifier: %s was made for pictures of %dx%d, this pass draws %dx%d; give --size %dx%d, or a "
                       "classifier with another pool than attention, which takes any size",
                       j->r.classifier, fits, fits, w * f, h * f, fits, fits);
    return sm_fail(e, SUMI_E_ARG,
                   "--classifier: %s pools %lld places, pictures of %dx%d have %dx%d; give another --size, or a classifier with "
                   "another pool than attention, which takes any size",
                   j->r.classifier, (long long)c->places, w * f, h * f, left_of(c, w), left_of(c, h));
}

sumi_status sm_classify_fits(const sm_job *j, int h, int w, sm_err *e)
{
    const sm_classifier_config *c = &j->classify->c;
    int rows = left_of(c, h), columns = left_of(c, w);
    sm_part trial = {0};
    if (rows < 1 || columns < 1)
        return sm_fail(e, SUMI_E_ARG,
                       "--classifier: %s halves pictures %d times, which leaves nothing of %dx%d latents; draw at least %dx%d",
                       j->r.classifier, c->halvings, w, h, pixels_of_one(j), pixels_of_one(j));
    if (c->places && (int64_t)rows * columns != c->places)
        return wrong_places(j, h, w, e);
    record(j, &trial, 1, h, w, e);
    sm_part_close(&trial);
    return e->code;
}

/* ---- running ------------------------------------------------------------------------------------------------------- */

static int batch_of(const sm_denoise *d) { return d->j->m->low_memory ? 1 : d->n; }

sumi_status sm_classify_part(sm_denoise *d, sm_err *e)
{
    sm_plan_opts opts = sm_job_plan_opts(d->j);
    if (d->classifier.p)
        return SUMI_OK;
    for (; d->j->m->low_memory && d->nparts; d->nparts--)
        sm_part_close(&d->parts[d->nparts - 1].part);
    sm_part_close(&d->classifier);
    if (!record(d->j, &d->classifier, batch_of(d), d->h, d->w, e))
        d->classifier.p = sm_plan_new_with(d->classifier.g, 1, &d->classifier.out, d->j->be, &opts, e);
    return e->code;
}

sumi_status sm_classify_flops(sm_denoise *d, double *flops, sm_err *e)
{
    if (!sm_classify_part(d, e))
        *flops = sm_plan_cost(d->classifier.p).flops * ((d->n + batch_of(d) - 1) / batch_of(d));
    return e->code;
}

/* x0 += by * g; false where g is no number. */
static bool push(double by, const float *g, float *x0, int64_t n)
{
    bool ok = true;
    for (int64_t i = 0; i < n; i++) {
        ok = ok && isfinite(g[i]);
        x0[i] = (float)(x0[i] + by * g[i]);
    }
    return ok;
}

sumi_status sm_classify_push(sm_denoise *d, double by, const float *x, double c_in, double t, float *x0, sm_err *e)
{
    int64_t each = (int64_t)d->h * d->w * d->c;
    int batch = batch_of(d);
    bool ok = true;
    if (sm_classify_part(d, e))
        return e->code;
    const sm_part *p = &d->classifier;
    for (int first = 0; first < d->n && ok; first += batch) {
        float *seen = sm_plan_data(p->p, p->in[SEEN]), *time = sm_plan_data(p->p, p->in[TIME]);
        for (int64_t i = 0; i < batch * each; i++)
            seen[i] = (float)(c_in * x[first * each + i]);
        for (int k = 0; k < batch; k++)
            time[k] = (float)t;
        if (sm_plan_run(p->p, d->j->pool, sm_job_cancel(d->j), e))
            return e->code;
        ok = push(by, sm_plan_data(p->p, p->out), x0 + first * each, batch * each);
    }
    return ok ? SUMI_OK
              : sm_fail(e, SUMI_E_NUMERIC,
                        "--classifier: %s gives a gradient that is no number at timestep %g; its weights may be damaged or "
                        "meant for other latents",
                        d->j->r.classifier, t);
}

void sm_classify_done(sm_denoise *d)
{
    sm_part_close(&d->classifier);
    if (d->j && d->j->classify && sm_job_large(d->j->m))
        sm_weights_drop(d->j->classify->w, NULL);
}
