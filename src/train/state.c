/* AdamW, moving average and checkpoints of a training run (see state.h). */
#include "train/state.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/optim.h"
#include "io/safetensors.h"

/* ---- setting up ---- */

static bool is_trained(const sm_node *n) { return n->op == SM_OP_PARAM && n->mutable_data; }

static sm_weight *weight_of(const sm_weights *w, const sm_node *n)
{
    sm_weight *x = sm_weights_find(w, n->name);
    return x && x->t.data == n->data ? x : NULL;
}

static sumi_status collect(sm_train_state *s, sm_weights *w, sm_graph *g, sm_err *e)
{
    int n = 0;
    for (int i = 0; i < g->count; i++)
        n += is_trained(g->nodes[i]);
    s->t = sm_alloc0(s->mem, SM_MEM_WEIGHT, sizeof *s->t * (size_t)(n + 1));
    if (!s->t)
        return sm_fail(e, SUMI_E_MEMORY, "out of memory for the training state");
    for (int i = 0; i < g->count; i++) {
        sm_node *p = g->nodes[i];
        if (!is_trained(p))
            continue;
        sm_trained *t = &s->t[s->count++];
        *t = (sm_trained){.w = weight_of(w, p), .param = p, .n = sm_numel(p)};
        if (!t->w)
            return sm_fail(e, SUMI_E_INTERNAL, "%s: trained tensor is not in the weight table", p->name);
        for (int k = 0; k + 1 < s->count; k++)
            if (s->t[k].w == t->w)
                return sm_fail(e, SUMI_E_SUPPORT, "%s: used twice in the graph; its gradients would have to be added", p->name);
    }
    return n ? SUMI_OK : sm_fail(e, SUMI_E_MODEL, "nothing to train: no tensor of the model may change");
}

static sumi_status append_gradients(sm_train_state *s, sm_node *loss, sm_err *e)
{
    sm_node **nodes = sm_alloc(s->mem, SM_MEM_MISC, sizeof *nodes * 2 * (size_t)s->count), **grads = nodes + s->count;
    if (!nodes)
        return sm_fail(e, SUMI_E_MEMORY, "out of memory for gradients");
    for (int i = 0; i < s->count; i++)
        nodes[i] = s->t[i].param;
    bool ok = sm_grad(loss, s->count, nodes, grads);
    for (int i = 0; i < s->count; i++)
        s->t[i].grad = grads[i];
    sm_free(nodes);
    return ok ? SUMI_OK : sm_fail(e, loss->g->err.code, "%s", loss->g->err.msg);
}

static sumi_status make_moments(sm_train_state *s, bool ema, sm_err *e)
{
    int64_t total = 0;
    for (int i = 0; i < s->count; i++)
        total += (s->t[i].n + 15) & ~(int64_t)15;
    s->block = sm_alloc0(s->mem, SM_MEM_WEIGHT, sizeof(float) * (size_t)total * (ema ? 3 : 2));
    if (!s->block)
        return sm_fail(e, SUMI_E_MEMORY, "out of memory for optimiser state of %.1f M parameters", (double)total / 1e6);
    float *at = s->block;
    for (int i = 0; i < s->count; i++) {
        sm_trained *t = &s->t[i];
        t->m = at;
        t->v = at + total;
        t->ema = ema ? at + 2 * total : NULL;
        if (ema)
            memcpy(t->ema, t->w->t.data, sizeof(float) * (size_t)t->n);
        at += (t->n + 15) & ~(int64_t)15;
    }
    return SUMI_OK;
}

sumi_status sm_state_init(sm_train_state *s, sm_mem *mem, sm_weights *w, sm_node *loss, bool ema, sm_err *e)
{
    *s = (sm_train_state){.mem = mem};
    if (loss->g->err.code)
        return sm_fail(e, loss->g->err.code, "%s", loss->g->err.msg);
    sumi_status st = collect(s, w, loss->g, e);
    if (!st)
        st = append_gradients(s, loss, e);
    if (!st)
        st = make_moments(s, ema, e);
    if (st)
        sm_state_free(s);
    return st;
}

void sm_state_free(sm_train_state *s)
{
    sm_free(s->t);
    sm_free(s->block);
    *s = (sm_train_state){.mem = s->mem};
}

void sm_state_freeze(sm_train_state *s, int i)
{
    sm_trained *t = &s->t[i];
    t->frozen = true;
    if (t->ema)
        memcpy(t->w->t.data, t->ema, sizeof(float) * (size_t)t->n);
}

/* ---- one update ---- */

float sm_lr_at(const sm_opt_config *c, int64_t step)
{
    if (step < c->warmup)
        return c->lr * (float)(step + 1) / (float)c->warmup;
    double span = (double)SM_MAX(c->steps - c->warmup, 1), x = SM_MIN((double)(step - c->warmup) / span, 1);
    return (float)(c->min_lr + 0.5 * (c->lr - c->min_lr) * (1 + cos(M_PI * x)));
}

/* Pieces of this many values, each one task: the sums of squares then add up in one order for any number of threads. */
enum { PIECE = 16384 };

typedef struct piece { const sm_trained *t; const float *g; int64_t at, n; double squares; } piece;
typedef struct update { piece *p; const sm_optim *fn; sm_adamw h; } update;

static void squares_task(void *arg, int task, int tasks)
{
    update *u = arg;
    piece *p = &u->p[task];
    p->squares = u->fn->sum_squares(p->g, p->n);
}

static void update_task(void *arg, int task, int tasks)
{
    const update *u = arg;
    const piece *p = &u->p[task];
    sm_adamw h = u->h;
    if (p->t->w->t.rank < 2)
        h.weight_decay = 0;
    u->fn->adamw((float *)p->t->w->t.data + p->at, p->t->m + p->at, p->t->v + p->at, p->t->ema ? p->t->ema + p->at : NULL, p->g,
                 p->n, &h);
}

static piece *make_pieces(const sm_train_state *s, const sm_plan *plan, int *count)
{
    int n = 0;
    for (int i = 0; i < s->count; i++)
        n += (int)((s->t[i].n + PIECE - 1) / PIECE);
    piece *p = sm_alloc(s->mem, SM_MEM_MISC, sizeof *p * (size_t)n);
    *count = 0;
    for (int i = 0; p && i < s->count; i++) {
        if (s->t[i].frozen)
            continue;
        const float *g = sm_plan_data(plan, s->t[i].grad);
        for (int64_t at = 0; at < s->t[i].n; at += PIECE)
            p[(*count)++] = (piece){&s->t[i], g + at, at, SM_MIN((int64_t)PIECE, s->t[i].n - at), 0};
    }
    return p;
}

sumi_status sm_state_step(sm_train_state *s, const sm_opt_config *c, const sm_plan *plan, const char *isa, sm_pool *pool,
                          double *norm, sm_err *e)
{
    int n;
    update u = {.p = make_pieces(s, plan, &n), .fn = sm_optim_for(isa)};
    if (!u.p)
        return sm_fail(e, SUMI_E_MEMORY, "out of memory for an optimiser step");
    sm_pool_run(pool, squares_task, &u, n);
    double squares = 0;
    for (int i = 0; i < n; i++)
        squares += u.p[i].squares;
    *norm = sqrt(squares);
    if (!isfinite(*norm)) {
        sm_free(u.p);
        return sm_fail(e, SUMI_E_NUMERIC, "step %lld: the gradients' norm is %g", (long long)s->step + 1, *norm);
    }
    double k = (double)s->step + 1;
    u.h = (sm_adamw){.lr = sm_lr_at(c, s->step), .beta1 = c->beta1, .beta2 = c->beta2, .eps = c->eps,
                     .weight_decay = c->weight_decay,
                     .bias1 = (float)(1 - pow(c->beta1, k)), .bias2 = (float)(1 - pow(c->beta2, k)),
                     .grad_scale = c->clip > 0 && *norm > c->clip ? (float)(c->clip / *norm) : 1,
                     .average = 1 - (float)SM_MIN((double)c->ema, (1 + k) / (10 + k))};
    sm_pool_run(pool, update_task, &u, n);
    sm_free(u.p);
    s->step++;
    return SUMI_OK;
}

/* ---- checkpoints ---- */

typedef struct part { const char *prefix; float *(*of)(const sm_trained *t); } part;
static float *part_w(const sm_trained *t) { return t->w->t.data; }
static float *part_m(const sm_trained *t) { return t->m; }
static float *part_v(const sm_trained *t) { return t->v; }
static float *part_e(const sm_trained *t) { return t->ema; }
static const part parts[] = {{"w.", part_w}, {"m.", part_m}, {"v.", part_v}, {"e.", part_e}};

static int part_count(const sm_train_state *s) { return s->count && s->t[0].ema ? 4 : 3; }

static const char *part_name(const sm_trained *t, const part *p, char buf[320])
{
    snprintf(buf, 320, "%s%.300s", p->prefix, t->w->name);
    return buf;
}

static sm_st_item *make_items(const sm_train_state *s, sm_arena *a)
{
    int k = part_count(s);
    sm_st_item *it = sm_arena_get(a, sizeof *it * (size_t)(s->count * k));
    for (int i = 0; it && i < s->count * k; i++) {
        const sm_trained *t = &s->t[i / k];
        const part *p = &parts[i % k];
        char buf[320];
        it[i] = (sm_st_item){.name = sm_arena_str(a, part_name(t, p, buf)), .t = t->w->t};
        it[i].t.data = p->of(t);
        if (!it[i].name)
            return NULL;
    }
    return it;
}

/* A sum of x - x is NaN when one value is NaN or infinite; tensor by tensor it stays exact otherwise. */
static bool all_finite(const sm_train_state *s)
{
    for (int i = 0; i < s->count; i++)
        for (int k = 0; k < part_count(s); k++) {
            const float *x = parts[k].of(&s->t[i]);
            float odd = 0;
            for (int64_t j = 0; j < s->t[i].n; j++)
                odd += x[j] - x[j];
            if (odd != 0)
                return false;
        }
    return true;
}

sumi_status sm_state_save(const sm_train_state *s, const char *path, const char *what, sm_err *e)
{
    sm_arena a;
    if (!all_finite(s))
        return sm_fail(e, SUMI_E_NUMERIC, "%s: step %lld: a weight is NaN or infinite; lower lr or raise warmup or eps", what,
                       (long long)s->step);
    char step[32];
    sm_arena_init(&a, s->mem, SM_MEM_MISC);
    sm_st_item *it = make_items(s, &a);
    snprintf(step, sizeof step, "%lld", (long long)s->step);
    sm_st_meta meta[] = {{"step", step}, {"stage", what}, {"words", s->words}};
    if (it)
        sm_st_write(path, (size_t)(s->count * part_count(s)), it, s->words[0] ? 3 : 2, meta, s->mem, e);
    else
        sm_fail(e, SUMI_E_MEMORY, "out of memory writing %s", path);
    sm_arena_free(&a);
    return e->code;
}

static sumi_status load_part(const sm_st *f, const sm_trained *t, const part *p, const char *path, sm_err *e)
{
    char name[320];
    const sm_st_entry *x = sm_st_find(f, part_name(t, p, name));
    if (!x)
        return sm_fail(e, SUMI_E_MODEL, "%s: %s is missing: a checkpoint of another configuration", path, name);
    if (!x->computable || x->type != SM_F32 || x->bytes != sizeof(float) * (size_t)t->n)
        return sm_fail(e, SUMI_E_MODEL, "%s: %s has another size than the configuration's", path, name);
    memcpy(p->of(t), x->data, x->bytes);
    return SUMI_OK;
}

sumi_status sm_state_load(sm_train_state *s, const char *path, const char *what, sm_err *e)
{
    sm_st *f = sm_st_open(path, s->mem, e);
    if (!f)
        return e->code;
    const char *step = sm_st_metadata(f, "step"), *stage = sm_st_metadata(f, "stage"), *words = sm_st_metadata(f, "words");
    if (!step || !stage || strcmp(stage, what) || sm_st_count(f) != (size_t)(s->count * part_count(s)))
        sm_fail(e, SUMI_E_MODEL, "%s: not a checkpoint of the %s stage of this configuration", path, what);
    else if (words && s->words[0] && strcmp(words, s->words))
        sm_fail(e, SUMI_E_MODEL,
                "%s: was trained with another tokenizer than the merges.txt beside it: put that one back, or begin "
                "anew in another --output", path);
    for (int i = 0; i < s->count && !e->code; i++)
        for (int k = 0; k < part_count(s) && !e->code; k++)
            load_part(f, &s->t[i], &parts[k], path, e);
    char *end = NULL;
    if (!e->code)
        s->step = strtoll(step, &end, 10);
    if (!e->code && (end == step || *end || s->step < 0 || s->step > (int64_t)1 << 50))
        sm_fail(e, SUMI_E_FORMAT, "%s: its step '%.40s' is no number of steps", path, step);
    sm_st_close(f);
    return e->code;
}
