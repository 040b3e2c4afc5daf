/* Operations that another one's kernel does beside (sm_finish): an activation, a gate or a sum after the one that makes its
 * input, where nobody else reads that, and the doubling of a picture before a convolution. The step runs where the last of them
 * stood. What is joined depends on the graph and the backend; no bit of a result does on what is joined. */
#include "graph/plan_impl.h"

typedef struct fuser {
    sm_plan *p;
    const sm_backend *be;
    const int *uses; /* how often a node's result is read, by id; results of the plan count as well */
} fuser;

static bool is_leaf(const sm_node *n) { return n->op == SM_OP_INPUT || n->op == SM_OP_PARAM || n->op == SM_OP_CONST; }

/* What makes x, if x alone reads it, maybe in another shape, and nothing follows it yet; else NULL. */
static const sm_node *maker_of(const fuser *u, const sm_node *x)
{
    while (x->op == SM_OP_RESHAPE && u->uses[x->id] == 1)
        x = x->src[0];
    const sm_node *joined = u->p->fuse[x->id].maker;
    return u->uses[x->id] == 1 && !is_leaf(x) && x->op != SM_OP_RESHAPE && (!joined || joined == x) ? x : NULL;
}

/* x and the shapes of it down to the maker are nobody's any more. */
static void absorb(const fuser *u, const sm_node *x, const sm_node *maker)
{
    for (;; x = x->src[0]) {
        u->p->places[x->id].live = false;
        if (x == maker)
            return;
    }
}

static bool join(fuser *u, const sm_node *n, const sm_node *m, sm_finish f, const sm_node *add)
{
    const sm_kernel *k = &u->be->k[m->op];
    const sm_fuse *own = &u->p->fuse[m->id];
    f.doubled = own->f.doubled;
    if (!k->fuses || !k->fuses(m, &f))
        return false;
    u->p->fuse[n->id] = (sm_fuse){.maker = m, .add = add, .small = own->small, .f = f};
    return true;
}

static bool join_act(fuser *u, const sm_node *n)
{
    const sm_node *m = maker_of(u, n->src[0]);
    if (!m || sm_numel(m) != sm_numel(n) || !join(u, n, m, (sm_finish){.act = n->op}, NULL))
        return false;
    absorb(u, n->src[0], m);
    return true;
}

/* Rows of n, [.., C], that share a row of x: 1 where x is like n, 0 where x is broadcast otherwise. */
static int64_t add_rows(const sm_node *n, const sm_node *x)
{
    if (x->dtype != SM_F32 || !x->rank || x->rank != n->rank || x->dims[x->rank - 1] != n->dims[n->rank - 1])
        return 0;
    if (sm_same_shape(x, n))
        return 1;
    for (int i = 1; i + 1 < x->rank; i++)
        if (x->dims[i] != 1)
            return 0;
    return x->rank > 1 && (x->dims[0] == n->dims[0] || x->dims[0] == 1) ? sm_numel(n) / sm_numel(x) : 0;
}

/* Either of the two may be the one that is made here: the one that is made later. */
static bool join_add(fuser *u, const sm_node *n)
{
    int later = n->src[1]->id > n->src[0]->id;
    for (int i = 0; i < 2; i++) {
        const sm_node *x = n->src[i ? !later : later], *other = n->src[i ? later : !later], *m = maker_of(u, x);
        int64_t rows = add_rows(n, other);
        if (!m || !rows || sm_numel(m) != sm_numel(n) || m->dims[m->rank - 1] != n->dims[n->rank - 1])
            continue;
        if (join(u, n, m, (sm_finish){.add_rows = rows}, other)) {
            absorb(u, x, m);
            return true;
        }
    }
    return false;
}

static bool is_half(const sm_node *x, const sm_node *of, int half)
{
    return x->op == SM_OP_SLICE && x->src[0] == of && x->p.slice.axis == of->rank - 1 &&
           x->p.slice.len * 2 == of->dims[of->rank - 1] && x->p.slice.start == half * x->p.slice.len;
}

/* left half of h times act(right half of h) */
static bool join_gate(fuser *u, const sm_node *n)
{
    const sm_node *a = n->src[0], *act = n->src[1], *b = act->nsrc == 1 ? act->src[0] : NULL;
    if (a->op != SM_OP_SLICE || !b || b->op != SM_OP_SLICE)
        return false;
    const sm_node *h = a->src[0];
    if (h->op != SM_OP_LINEAR || u->uses[h->id] != 2 || u->p->fuse[h->id].maker || !is_half(a, h, 0) || !is_half(b, h, 1) ||
        u->uses[a->id] != 1 || u->uses[b->id] != 1 || u->uses[act->id] != 1)
        return false;
    if (!join(u, n, h, (sm_finish){.act = act->op, .gate = true}, NULL))
        return false;
    absorb(u, a, h);
    absorb(u, b, h);
    u->p->places[act->id].live = false;
    u->p->fuse[act->id].maker = NULL;
    return true;
}

/* A convolution of a picture twice the size of the one there is. */
static bool join_double(fuser *u, const sm_node *n)
{
    const sm_node *big = n->src[0], *small = big->nsrc ? big->src[0] : NULL;
    sm_finish f = {.doubled = 1};
    if (big->op != SM_OP_RESIZE_NEAREST || u->uses[big->id] != 1 || big->dims[1] != 2 * small->dims[1] ||
        big->dims[2] != 2 * small->dims[2])
        return false;
    if (!u->be->k[n->op].fuses || !u->be->k[n->op].fuses(n, &f))
        return false;
    u->p->fuse[n->id] = (sm_fuse){.maker = n, .small = small, .f = f};
    u->p->places[big->id].live = false;
    return true;
}

static void count_uses(const sm_plan *p, int n, sm_node *const *outputs, int *uses)
{
    for (int i = 0; i < p->nodes; i++)
        for (int k = 0; p->places[i].live && k < p->g->nodes[i]->nsrc; k++)
            if (p->g->nodes[i]->src[k])
                uses[p->g->nodes[i]->src[k]->id]++;
    for (int i = 0; i < n; i++) /* as if read twice: stays */
        uses[outputs[i]->id] += 2;
}

sumi_status sm_plan_fuse(sm_plan *p, int n, sm_node *const *outputs, const sm_backend *be, sm_err *e)
{
    int *uses = sm_alloc0(p->mem, SM_MEM_GRAPH, sizeof *uses * (size_t)(p->nodes + 1));
    p->fuse = sm_alloc0(p->mem, SM_MEM_GRAPH, sizeof *p->fuse * (size_t)(p->nodes + 1));
    if (!uses || !p->fuse) {
        sm_free(uses);
        return sm_fail(e, SUMI_E_MEMORY, "out of memory while planning");
    }
    fuser u = {p, be, uses};
    count_uses(p, n, outputs, uses);
    for (int i = 0; i < p->nodes; i++) {
        const sm_node *x = p->g->nodes[i];
        if (!p->places[i].live)
            continue;
        switch (x->op) {
        case SM_OP_SILU: case SM_OP_GELU_TANH: case SM_OP_GELU_ERF: case SM_OP_QUICK_GELU: case SM_OP_RELU:
            join_act(&u, x); break;
        case SM_OP_ADD: join_add(&u, x); break;
        case SM_OP_MUL: join_gate(&u, x); break;
        case SM_OP_CONV2D: join_double(&u, x); break;
        default: break;
        }
    }
    sm_free(uses);
    return SUMI_OK;
}

const sm_node *sm_plan_maker(const sm_plan *p, const sm_node *n) { return p->fuse[n->id].maker ? p->fuse[n->id].maker : n; }

const sm_node *sm_plan_source(const sm_plan *p, const sm_node *n, int k)
{
    const sm_fuse *f = &p->fuse[n->id];
    const sm_node *m = sm_plan_maker(p, n);
    if (k == m->nsrc)
        return f->add;
    return k == 0 && f->small ? f->small : m->src[k];
}

sm_cost sm_plan_step_cost(const sm_plan *p, const sm_node *n)
{
    const sm_fuse *f = &p->fuse[n->id];
    const sm_node *m = sm_plan_maker(p, n);
    sm_cost c = sm_ops[m->op].cost(m);
    if (m != n)
        c.flops += sm_ops[n->op].cost(n).flops;
    if (f->f.gate) {
        c.flops += sm_ops[n->src[1]->op].cost(n->src[1]).flops;
        c.bytes -= 4.0 * (double)sm_numel(n);
    }
    if (f->add)
        c.bytes += 4.0 * (double)sm_numel(f->add);
    if (f->small)
        c.bytes -= 12.0 * (double)sm_numel(f->small);
    return c;
}
