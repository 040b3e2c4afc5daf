/* The training loop: fill, run, update, log, save. Everything a step uses is computed from the seed and its number, so a
 * run that was killed goes on from its last checkpoint bit for bit. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "io/safetensors.h"
#include "train/stages.h"

typedef struct loop {
    sm_stage *stage;
    sm_trainer *t;
    sm_train_state state;
    sm_plan *plan;
    char ckpt[512];
    int64_t first, saved;     /* steps: at which this call began, of the checkpoint (-1: there is none) */
    double t0, loss_sum, norm_sum, last_log;
    int64_t in_sum;
} loop;

void sm_task_failed(sm_err *to, const sm_err *from)
{
    sumi_status none = SUMI_OK;
    if (__atomic_compare_exchange_n(&to->code, &none, from->code, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        memcpy(to->msg, from->msg, sizeof to->msg);
}

const char *sm_out_path(const sm_trainer *t, const char *name, char buf[512])
{
    snprintf(buf, 512, "%s/%s", t->out, name);
    return buf;
}

/* Appends one JSON line to log.jsonl. A log that cannot be written stops the run: a full disk is told early. */
static sumi_status write_log(const loop *l, double loss, double norm, double rate, sm_err *e)
{
    char path[512];
    FILE *f = fopen(sm_out_path(l->t, "log.jsonl", path), "a");
    if (!f)
        return sm_fail(e, SUMI_E_FILE, "%s: %s", path, strerror(errno));
    fprintf(f, "{\"stage\":\"%s\",\"step\":%lld,\"loss\":%.6g,\"grad_norm\":%.6g,\"lr\":%.6g,"
            "\"pictures_per_s\":%.4g,\"seconds\":%.1f}\n",
            l->stage->name, (long long)l->state.step, loss, norm, sm_lr_at(l->stage->opt, l->state.step - 1), rate,
                sm_now() - l->t0);
    bool bad = fflush(f) || ferror(f);
    int why = errno;
    if (fclose(f) && !bad) {
        bad = true;
        why = errno;
    }
    return bad ? sm_fail(e, SUMI_E_FILE, "%s: %s", path, strerror(why)) : SUMI_OK;
}

static sumi_status report(loop *l, bool log, sm_err *e)
{
    const sm_opt_config *o = l->stage->opt;
    double now = sm_now(), dt = now - l->t0;
    double rate = (double)(l->state.step - l->first) * o->batch / SM_MAX(dt, 1e-9);
    double loss = l->loss_sum / (double)SM_MAX(l->in_sum, 1), norm = l->norm_sum / (double)SM_MAX(l->in_sum, 1);
    const sumi_callbacks *cb = l->t->cb;
    if (cb && cb->progress && (log || now - l->last_log > 1)) {
        sumi_progress p = {.stage = l->stage->name, .step = l->state.step, .steps = o->steps, .seconds = dt, .loss = loss,
                           .lr = sm_lr_at(o, l->state.step), .rate = rate};
        p.eta = (double)(o->steps - l->state.step) * o->batch / SM_MAX(rate, 1e-9);
        cb->progress(cb->user, &p);
        l->last_log = now;
    }
    if (!log)
        return SUMI_OK;
    l->loss_sum = l->norm_sum = 0;
    l->in_sum = 0;
    return write_log(l, loss, norm, rate, e);
}

static sumi_status save(loop *l, sm_err *e)
{
    if (!sm_state_save(&l->state, l->ckpt, l->stage->name, e))
        l->saved = l->state.step;
    return e->code;
}

static sumi_status one_step(loop *l, sm_err *e)
{
    sm_stage *s = l->stage;
    sm_trainer *t = l->t;
    const int *cancel = t->cb ? t->cb->cancel : NULL;
    double norm;
    sm_err why = {0};
    if (s->fill(s, t, l->plan, l->state.step, e) || sm_plan_run(l->plan, t->pool, cancel, e))
        return e->code;
    float loss = *(float *)sm_plan_data(l->plan, s->loss);
    if (!isfinite(loss))
        return sm_fail(e, SUMI_E_NUMERIC, "%s: step %lld: the loss is %g; lower lr or raise warmup", s->name,
                       (long long)l->state.step + 1, loss);
    if (sm_state_step(&l->state, s->opt, l->plan, t->be->name, t->pool, &norm, &why))
        return sm_fail(e, why.code, "%s: %s", s->name, why.msg);
    l->loss_sum += loss;
    l->norm_sum += norm;
    l->in_sum++;
    return SUMI_OK;
}

/* Steps until done, out of budget, cancelled or broken. */
static sumi_status steps(loop *l, sm_err *e)
{
    const sm_opt_config *o = l->stage->opt;
    sm_trainer *t = l->t;
    int64_t every = l->stage->validate ? t->cfg.validate.every : 0;
    while (l->state.step < o->steps && t->steps_left != 0) {
        if (one_step(l, e))
            return e->code;
        if (t->steps_left > 0)
            t->steps_left--;
        int64_t k = l->state.step;
        if (report(l, k % o->log_every == 0 || k == o->steps, e))
            return e->code;
        if ((k % o->save_every == 0 || k == o->steps) && save(l, e))
            return e->code;
        if (every && (k % every == 0 || k == o->steps) && l->stage->validate(l->stage, t, &l->state, k, e))
            return e->code;
    }
    return SUMI_OK;
}

/* What is said when a run stops early: the cause, and the checkpoint to go on from. After a cancel the state is whole (a
 * step is all or nothing), so it is saved; after NaN or a full disk the last good checkpoint stands. */
static sumi_status stopped(loop *l, const sm_err *why, sm_err *e)
{
    sm_err second = {0};
    if (why->code == SUMI_E_CANCELLED)
        save(l, &second);
    const char *but = second.code ? "; " : "";
    if (l->saved >= 0)
        return sm_fail(e, why->code, "%s%s%s; go on with --resume from %s (step %lld)", why->msg, but, second.msg, l->ckpt,
                       (long long)l->saved);
    return sm_fail(e, why->code, "%s%s%s; no checkpoint was written yet", why->msg, but, second.msg);
}

/* Where to begin: the checkpoint, if there is one and the caller wants to go on. */
static sumi_status load(loop *l, sm_err *e)
{
    sm_stage *s = l->stage;
    sm_trainer *t = l->t;
    bool there = sm_file_exists(l->ckpt);
    if (there && !t->resume)
        return sm_fail(e, SUMI_E_FILE, "%s exists: go on with --resume, or choose another --output", l->ckpt);
    if (!there && t->as_is)
        return sm_fail(e, SUMI_E_FILE, "%s: there is no such checkpoint to export", l->ckpt);
    if (there && sm_state_load(&l->state, l->ckpt, s->name, e))
        return e->code;
    l->saved = there ? l->state.step : -1;
    for (int i = 0; s->frozen && i < l->state.count; i++)
        if (s->frozen(t, l->state.t[i].w->name)) {
            if (!there)
                return sm_fail(e, SUMI_E_ARG, "%s.decoder_only: there is no trained encoder yet, %s is missing", s->name,
                               l->ckpt);
            sm_state_freeze(&l->state, i);
        }
    return SUMI_OK;
}

static sumi_status start(loop *l, sm_err *e)
{
    sm_stage *s = l->stage;
    sm_trainer *t = l->t;
    char name[64];
    snprintf(name, sizeof name, "%s.ckpt", s->name);
    sm_out_path(t, name, l->ckpt);
    if (sm_state_init(&l->state, t->mem, s->weights, s->loss, s->opt->ema > 0, e))
        return e->code;
    if (s->reads_text)
        snprintf(l->state.words, sizeof l->state.words, "%016llx", (unsigned long long)sm_hash64(t->merges, strlen(t->merges)));
    if (load(l, e))
        return e->code;
    sm_node **out = sm_alloc(t->mem, SM_MEM_MISC, sizeof *out * (size_t)(l->state.count + 1));
    if (!out)
        return sm_fail(e, SUMI_E_MEMORY, "out of memory for a training plan");
    int n = 0;
    for (int i = 0; i < l->state.count; i++)
        if (!l->state.t[i].frozen)
            out[n++] = l->state.t[i].grad;
    out[n++] = s->loss;
    l->plan = sm_plan_new(s->g, n, out, t->be, e);
    sm_free(out);
    return l->plan ? SUMI_OK : e->code;
}

/* What a stage hands on is its moving average. */
static void take_average(sm_train_state *s)
{
    for (int i = 0; i < s->count; i++)
        if (s->t[i].ema)
            memcpy(s->t[i].w->t.data, s->t[i].ema, sizeof(float) * (size_t)s->t[i].n);
}

sumi_status sm_loop_run(sm_stage *s, sm_trainer *t, bool *done, sm_err *e)
{
    loop l = {.stage = s, .t = t, .saved = -1};
    *done = false;
    sumi_status st = start(&l, e);
    if (!st) {
        sm_err why = {0};
        l.first = l.state.step;
        l.t0 = sm_now();
        if (steps(&l, &why))
            st = stopped(&l, &why, e);
        else if (l.state.step != l.first && l.state.step != l.saved)
            st = save(&l, e);
        *done = !st && l.state.step >= s->opt->steps;
    }
    if (!st)
        take_average(&l.state);
    sm_plan_free(l.plan);
    sm_state_free(&l.state);
    return st;
}
