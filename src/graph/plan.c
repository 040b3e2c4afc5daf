/* Planning: dead ops are dropped, storage is laid out by liveness (greedy by size, as in TFLite's planner), element-wise
 * ops work in place, reshapes and contiguous slices are views. What a run does with the plan is in plan_run.c. */
#include "graph/plan_impl.h"

#include <string.h>

/* A weight that does not stay packed is packed in parts of about this size, which are multiplied before the caches have lost
 * them; each part reads the left operand again (measured, share of the peak at 1, 2 and 4 MiB: 4608x3072 to 3072 65, 84 and 87%
 * with AVX-512, 87, 90 and 90% with AVX2; 256x1280 to 1280 82, 84 and 84, 87, 85 and 85%). At least one unit, up to 3 MB for the
 * widest convolutions. */
enum { PART = 2 << 20 };

/* A weight of which each value is used more often in a run is never kept packed: packing costs about as much as fifteen
 * uses, so this is 1.5%. */
enum { MANY_USES = 1024 };

static size_t node_bytes(const sm_node *n) { return sm_dtype_bytes(n->dtype, sm_numel(n)); }
static bool is_leaf(const sm_node *n) { return n->op == SM_OP_INPUT || n->op == SM_OP_PARAM || n->op == SM_OP_CONST; }

/* A slice is a view when everything outside its axis has size 1. */
static bool is_view(const sm_node *n)
{
    if (n->op == SM_OP_RESHAPE)
        return true;
    if (n->op != SM_OP_SLICE)
        return false;
    for (int i = 0; i < n->p.slice.axis; i++)
        if (n->dims[i] != 1)
            return false;
    return true;
}

static size_t view_offset(const sm_node *n)
{
    if (n->op != SM_OP_SLICE)
        return 0;
    int64_t inner = 1;
    for (int i = n->p.slice.axis + 1; i < n->rank; i++)
        inner *= n->dims[i];
    return (size_t)(n->p.slice.start * inner) * sm_dtype_size(n->dtype);
}

static sumi_status no_memory(sm_err *e) { return sm_fail(e, SUMI_E_MEMORY, "out of memory while planning"); }

static int new_store(sm_plan *p, size_t bytes, int from, int to)
{
    if (p->nstores == p->cap) {
        int cap = p->cap ? p->cap * 2 : 256;
        storage *s = sm_realloc(p->mem, SM_MEM_GRAPH, p->stores, sizeof *s * (size_t)cap);
        if (!s)
            return -1;
        p->stores = s;
        p->cap = cap;
    }
    p->stores[p->nstores] = (storage){.bytes = (bytes + 63) & ~(size_t)63, .from = from, .to = to};
    return p->nstores++;
}

/* Marks what the outputs need; sources have smaller ids, so one backward sweep is enough. */
static void mark_live(sm_plan *p, int n, sm_node *const *outputs)
{
    for (int i = 0; i < n; i++)
        p->places[outputs[i]->id].live = true;
    for (int i = p->nodes - 1; i >= 0; i--)
        for (int k = 0; p->places[i].live && k < p->g->nodes[i]->nsrc; k++)
            if (p->g->nodes[i]->src[k])
                p->places[p->g->nodes[i]->src[k]->id].live = true;
}

static sumi_status place_leaf(sm_plan *p, sm_node *n, sm_err *e)
{
    place *at = &p->places[n->id];
    at->at = -1;
    at->data = n->data;
    if (n->op == SM_OP_INPUT) {
        at->at = new_store(p, node_bytes(n), 0, INT32_MAX);
        return at->at < 0 ? no_memory(e) : SUMI_OK;
    }
    return n->data ? SUMI_OK : sm_fail(e, SUMI_E_MODEL, "%s has no data", n->name);
}

/* The step's last use of a storage is pushed to t. */
static void touch(sm_plan *p, int at, int t)
{
    if (at >= 0 && p->stores[at].to < t)
        p->stores[at].to = t;
}

/* last[i]: the last step that reads storage-root of node i, computed before placing; INT32_MAX for outputs. */
static sumi_status last_uses(sm_plan *p, int n, sm_node *const *outputs, int *last, int *root)
{
    int t = 0;
    for (int i = 0; i < p->nodes; i++) {
        const sm_node *x = p->g->nodes[i];
        root[i] = is_view(x) ? root[x->src[0]->id] : i;
        last[i] = -1;
        if (!p->places[i].live || is_leaf(x) || is_view(x))
            continue;
        for (int k = 0; k <= sm_plan_maker(p, x)->nsrc; k++) {
            const sm_node *s = sm_plan_source(p, x, k);
            if (s)
                last[root[s->id]] = t;
            if (s && p->places[s->id].held && !p->places[i].held)
                p->places[root[s->id]].kept = true;
        }
        t++;
    }
    for (int i = 0; i < n; i++)
        p->places[root[outputs[i]->id]].kept |= p->places[outputs[i]->id].held;
    for (int i = 0; i < p->nodes; i++)
        if (p->places[i].kept)
            last[i] = INT32_MAX;
    for (int i = 0; i < n; i++)
        last[root[outputs[i]->id]] = INT32_MAX;
    return SUMI_OK;
}

/* What depends on fixed inputs and on nothing that changes. */
static void mark_held(sm_plan *p)
{
    for (int i = 0; i < p->nodes; i++) {
        const sm_node *x = p->g->nodes[i];
        bool held = x->op == SM_OP_INPUT && x->fixed, varies = x->op == SM_OP_INPUT && !x->fixed;
        for (int k = 0; k < x->nsrc; k++) {
            const sm_node *s = x->src[k];
            held |= s && p->places[s->id].held;
            varies |= s && !p->places[s->id].held && !p->places[s->id].constant;
        }
        p->places[i].held = held && !varies;
        p->places[i].constant = !held && !varies && !x->mutable_data;
    }
}

/* Another source in the same storage would be overwritten while it is still read: in place of an addend any, in place of what the
 * kernel itself goes through those of another size. */
static bool shares(const sm_plan *p, const sm_node *n, int i)
{
    int sources = sm_plan_maker(p, n)->nsrc, at = p->places[sm_plan_source(p, n, i)->id].at;
    for (int k = 0; k <= sources; k++) {
        const sm_node *s = k == i ? NULL : sm_plan_source(p, n, k);
        if (s && p->places[s->id].at == at && (i == sources || k == sources || sm_numel(s) != sm_numel(n)))
            return true;
    }
    return false;
}

/* The storage of a source that ends here and has the result's size, when the kernel may overwrite it; else -1. */
static int inplace_store(sm_plan *p, const sm_node *n, const sm_kernel *k, int t, const int *last, const int *root)
{
    int sources = sm_plan_maker(p, n)->nsrc;
    for (int i = 0; i <= sources; i++) {
        const sm_node *s = sm_plan_source(p, n, i);
        if (!s || s->dtype != n->dtype || sm_numel(s) != sm_numel(n) || !(i == sources || k->inplace))
            continue;
        int r = root[s->id];
        const sm_node *rn = p->g->nodes[r];
        place *at = &p->places[s->id];
        if (is_leaf(rn) || last[r] != t || at->at < 0 || at->offset || sm_numel(rn) != sm_numel(n) || shares(p, n, i))
            continue;
        return at->at;
    }
    return -1;
}

/* How often one value of the weight is used in a run: the rows of a matrix product, the pixels of a convolution. */
static double uses(const sm_node *n) { return sm_ops[n->op].cost(n).flops / (2.0 * (double)sm_numel(n->src[1])); }

/* Of the prepared weight; with a gate both halves of as many columns. */
static size_t unit_bytes(const step *s)
{
    return (s->k->prep_unit ? s->k->prep_unit(s->call.node) : 0) * (s->call.finish.gate ? 2 : 1);
}

/* Whether the weight of step s stays packed is decided when all steps are known; the others' buffers are made here. */
static void plan_prep(sm_plan *p, step *s, const int *root)
{
    const sm_node *n = s->call.node;
    size_t bytes = s->k->prep_bytes ? s->k->prep_bytes(n) : 0, unit = bytes ? unit_bytes(s) : 0;
    if (!bytes)
        return;
    const sm_node *w = p->g->nodes[root[n->src[1]->id]];
    bool fixed = (w->op == SM_OP_PARAM || w->op == SM_OP_CONST) && !w->mutable_data;
    s->prep_tasks = s->k->prep_tasks ? s->k->prep_tasks(n) : 1;
    s->units = unit ? (int64_t)((bytes + unit - 1) / unit) : 1;
    s->part = unit ? SM_MIN(SM_MAX(PART / (int64_t)unit, 1), s->units) : 1;
    s->keep = fixed && !s->held && uses(n) <= MANY_USES;
    if (s->keep)
        p->packed_bytes += bytes;
}

/* All or none of the weights that are worth it stay packed: a model that does not fit is read once a run in any case. */
static sumi_status choose_packed(sm_plan *p, sm_err *e)
{
    bool fits = p->packed_bytes <= p->opts.packed;
    for (int i = 0; i < p->nsteps; i++) {
        step *s = &p->steps[i];
        s->keep &= fits;
        p->npacked += s->keep;
        if (!s->prep_tasks || s->keep || (s->k->unprepared && s->k->unprepared(s->call.node)))
            continue;
        size_t bytes = s->k->prep_bytes(s->call.node);
        if (s->part < s->units)
            bytes = unit_bytes(s) * (size_t)s->part;
        if ((s->prep = new_store(p, bytes, i, i)) < 0)
            return no_memory(e);
    }
    if (!fits)
        p->packed_bytes = 0;
    return SUMI_OK;
}

static sumi_status add_step(sm_plan *p, sm_node *n, const sm_backend *be, const int *last, const int *root, sm_err *e)
{
    const sm_node *m = sm_plan_maker(p, n);
    const sm_kernel *k = &be->k[m->op];
    int t = p->nsteps;
    place *at = &p->places[n->id];
    if (!k->run)
        return sm_fail(e, SUMI_E_SUPPORT, "%s: the %s backend has no kernel for %s", n->name, be->name, sm_ops[n->op].name);
    int end = SM_MAX(last[n->id], t);
    at->at = inplace_store(p, n, k, t, last, root);
    if (at->at >= 0)
        touch(p, at->at, end);
    else if ((at->at = new_store(p, node_bytes(n), t, end)) < 0)
        return no_memory(e);
    else
        p->stores[at->at].first = n;
    if (at->kept)
        p->stores[at->at].from = 0;
    step *s = &p->steps[p->nsteps++];
    *s = (step){.k = k, .passes = k->passes ? k->passes : 1, .work = -1, .prep = -1, .out = n, .held = at->held,
                .cost = sm_plan_step_cost(p, n)};
    s->call.node = m;
    s->call.nsrc = m->nsrc;
    s->call.finish = p->fuse[n->id].f;
    bool finishes = m != n;
    size_t work = (k->work ? k->work(m) : 0) + (finishes && k->finish_work ? k->finish_work(m) : 0);
    if (work && (s->work = new_store(p, work, t, t)) < 0)
        return no_memory(e);
    plan_prep(p, s, root);
    p->cost.flops += s->cost.flops;
    p->cost.bytes += s->cost.bytes;
    return SUMI_OK;
}

static sumi_status add_steps(sm_plan *p, int n, sm_node *const *outputs, const sm_backend *be, sm_err *e)
{
    int *last = sm_alloc(p->mem, SM_MEM_GRAPH, sizeof *last * 2 * (size_t)p->nodes), *root = last + p->nodes;
    if (!last)
        return no_memory(e);
    sumi_status st = last_uses(p, n, outputs, last, root);
    for (int i = 0; i < p->nodes && !st; i++) {
        sm_node *x = p->g->nodes[i];
        if (!p->places[i].live)
            continue;
        if (is_leaf(x)) {
            st = place_leaf(p, x, e);
        } else if (is_view(x)) {
            p->places[i] = p->places[x->src[0]->id];
            p->places[i].offset += view_offset(x);
            if (p->places[i].data)
                p->places[i].data = (const char *)p->places[i].data + view_offset(x);
        } else {
            st = add_step(p, x, be, last, root, e);
        }
    }
    sm_free(last);
    return st;
}

static void sort_stores(const storage *s, int *idx, int n)
{
    /* Shell sort by falling size, then by start: no global comparator state. */
    for (int gap = n / 2; gap; gap /= 2)
        for (int i = gap; i < n; i++) {
            int v = idx[i], j = i;
            for (; j >= gap; j -= gap) {
                const storage *a = &s[idx[j - gap]], *b = &s[v];
                if (a->bytes > b->bytes || (a->bytes == b->bytes && a->from <= b->from))
                    break;
                idx[j] = idx[j - gap];
            }
            idx[j] = v;
        }
}

/* Lowest offset at which store v fits between the placed stores (done, sorted by offset) that are alive with it. */
static size_t lowest_fit(const storage *s, const int *done, int n, const storage *v)
{
    size_t at = 0;
    for (int i = 0; i < n; i++) {
        const storage *o = &s[done[i]];
        if (o->to < v->from || v->to < o->from)
            continue;
        if (at + v->bytes <= o->offset)
            break;
        at = SM_MAX(at, o->offset + o->bytes);
    }
    return at;
}

static sumi_status lay_out(sm_plan *p, sm_err *e)
{
    int n = p->nstores;
    int *idx = sm_alloc(p->mem, SM_MEM_GRAPH, sizeof *idx * 2 * (size_t)(n + 1)), *done = idx + n;
    if (!idx)
        return no_memory(e);
    for (int i = 0; i < n; i++)
        idx[i] = i;
    sort_stores(p->stores, idx, n);
    for (int i = 0; i < n; i++) {
        storage *v = &p->stores[idx[i]];
        v->offset = lowest_fit(p->stores, done, i, v);
        p->arena_bytes = SM_MAX(p->arena_bytes, v->offset + v->bytes);
        int j = i;
        for (; j > 0 && p->stores[done[j - 1]].offset > v->offset; j--)
            done[j] = done[j - 1];
        done[j] = idx[i];
    }
    sm_free(idx);
    return SUMI_OK;
}

static sumi_status make_arena(sm_plan *p, sm_err *e)
{
    p->arena = sm_alloc(p->mem, SM_MEM_ACTIVATION, p->arena_bytes);
    return p->arena ? SUMI_OK
                    : sm_fail(e, SUMI_E_MEMORY, "out of memory: the plan needs %.1f MB for activations",
                              (double)p->arena_bytes / 1e6);
}

static void *place_data(const sm_plan *p, const sm_node *n)
{
    const place *at = &p->places[n->id];
    return at->at < 0 ? (void *)at->data : p->arena + p->stores[at->at].offset + at->offset;
}

/* n as it is stored at the place of `at`, which is n or what it became. */
static sm_tensor tensor_of(const sm_plan *p, const sm_node *n, const sm_node *at)
{
    sm_tensor t = {.data = place_data(p, at), .dtype = n->dtype, .rank = n->rank};
    memcpy(t.dims, n->dims, sizeof t.dims);
    while (n->op == SM_OP_RESHAPE)
        n = n->src[0];
    t.scale = n->scale;
    t.scale_run = n->scale_run;
    return t;
}

static void resolve(sm_plan *p)
{
    for (int i = 0; i < p->nsteps; i++) {
        step *s = &p->steps[i];
        const sm_node *n = s->call.node;
        for (int k = 0; k < n->nsrc; k++) {
            const sm_node *x = sm_plan_source(p, s->out, k);
            if (x)
                s->call.src[k] = tensor_of(p, x, x);
        }
        s->call.dst = tensor_of(p, n, s->out);
        const sm_node *add = sm_plan_source(p, s->out, n->nsrc);
        s->call.finish.add = add ? place_data(p, add) : NULL;
        s->call.work = s->work < 0 ? NULL : p->arena + p->stores[s->work].offset;
        s->call.prep = s->prep_each_run = s->prep < 0 ? NULL : p->arena + p->stores[s->prep].offset;
    }
}

static sumi_status build(sm_plan *p, int n, sm_node *const *outputs, const sm_backend *be, sm_err *e)
{
    p->places = sm_alloc0(p->mem, SM_MEM_GRAPH, sizeof *p->places * (size_t)(p->nodes + 1));
    p->steps = sm_alloc0(p->mem, SM_MEM_GRAPH, sizeof *p->steps * (size_t)(p->nodes + 1));
    if (!p->places || !p->steps)
        return no_memory(e);
    mark_live(p, n, outputs);
    mark_held(p);
    sumi_status st = sm_plan_fuse(p, n, outputs, be, e);
    if (!st)
        st = add_steps(p, n, outputs, be, e);
    if (!st)
        st = choose_packed(p, e);
    if (!st)
        st = lay_out(p, e);
    if (!st)
        st = make_arena(p, e);
    if (st)
        return st;
    resolve(p);
    return sm_plan_prepare(p, e);
}

sm_plan *sm_plan_new(sm_graph *g, int n, sm_node *const *outputs, const struct sm_backend *be, sm_err *e)
{
    static const sm_plan_opts usual = {.packed = SM_PACKED_USUAL};
    return sm_plan_new_with(g, n, outputs, be, &usual, e);
}

sm_plan *sm_plan_new_with(sm_graph *g, int n, sm_node *const *outputs, const struct sm_backend *be, const sm_plan_opts *o,
                          sm_err *e)
{
    if (g->err.code) {
        sm_fail(e, g->err.code, "%s", g->err.msg);
        return NULL;
    }
    sm_plan *p = sm_alloc0(g->mem, SM_MEM_GRAPH, sizeof *p);
    if (!p) {
        no_memory(e);
        return NULL;
    }
    p->g = g;
    p->mem = g->mem;
    p->opts = *o;
    p->nodes = g->count;
    p->stale = true;
    if (build(p, n, outputs, be, e)) {
        sm_plan_free(p);
        return NULL;
    }
    return p;
}

void sm_plan_free(sm_plan *p)
{
    if (!p)
        return;
    sm_plan_unpack(p);
    sm_free(p->arena);
    if (p->opts.drop_pages) /* memory is short: nothing waits for the next plan */
        sm_mem_trim(p->mem);
    sm_free(p->stores);
    sm_free(p->places);
    sm_free(p->fuse);
    sm_free(p->steps);
    sm_free(p);
}

void *sm_plan_data(const sm_plan *p, const sm_node *n)
{
    return n->id < 0 || n->id >= p->nodes || !p->places[n->id].live ? NULL : place_data(p, n);
}

void sm_plan_put(sm_plan *p, const sm_node *input, size_t at, const void *data, size_t bytes)
{
    char *to = sm_plan_data(p, input);
    if (!to || (input->fixed && !p->stale && !memcmp(to + at, data, bytes)))
        return;
    memcpy(to + at, data, bytes);
    p->stale |= input->fixed;
}
