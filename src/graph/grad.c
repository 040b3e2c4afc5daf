/* Reverse-mode autodiff: appends gradient operations to the graph, newest node first. */
#include "graph/graph.h"
#include "ops/ops.h"

#include <string.h>

/* Marks every node that a wanted leaf flows into: only these need gradients. */
static bool mark_needed(sm_graph *g, int count, int n, sm_node *const *wrt, bool *need)
{
    for (int i = 0; i < n; i++)
        if (wrt[i]->id >= 0 && wrt[i]->id < count)
            need[wrt[i]->id] = true;
    for (int i = 0; i < count; i++) {
        sm_node *x = g->nodes[i];
        for (int k = 0; k < x->nsrc && !need[i]; k++)
            need[i] = x->src[k] && need[x->src[k]->id];
    }
    return true;
}

static void push(sm_node *x, int i, sm_node *dy, const bool *need, sm_node **grad)
{
    sm_node *s = x->src[i];
    if (!s || !need[s->id])
        return;
    const sm_op_row *row = &sm_ops[x->op];
    if (!row->grad) {
        sm_graph_fail(x->g, "%s has no gradient, but one is wanted through it", row->name);
        return;
    }
    sm_node *d = row->grad(x, i, dy);
    if (!d || sm_poisoned(d))
        return;
    if (!sm_same_shape(d, s)) {
        char a[96], b[96];
        sm_graph_fail(x->g, "%s: gradient of source %d has shape %s, the source %s", row->name, i, sm_dims_str(d, a),
                      sm_dims_str(s, b));
        return;
    }
    grad[s->id] = grad[s->id] ? sm_add(grad[s->id], d) : d;
}

static sm_node *zeros_like(sm_node *x)
{
    sm_node *z = sm_const_f32(x->g, 0);
    return sm_expand(z, x->rank, x->dims);
}

bool sm_grad(sm_node *loss, int n, sm_node *const *wrt, sm_node **out)
{
    sm_graph *g = loss->g;
    for (int i = 0; i < n; i++)
        out[i] = g->poison;
    if (g->err.code || sm_poisoned(loss))
        return false;
    if (sm_numel(loss) != 1) {
        sm_graph_fail(g, "gradient of a loss with %lld elements, must be 1", (long long)sm_numel(loss));
        return false;
    }
    int count = g->count;
    sm_node **grad = sm_arena_get(&g->arena, sizeof *grad * (size_t)count);
    bool *need = sm_arena_get(&g->arena, (size_t)count);
    if (!grad || !need) {
        sm_fail(&g->err, SUMI_E_MEMORY, "out of memory for gradients");
        return false;
    }
    mark_needed(g, count, n, wrt, need);
    char scope[sizeof g->scope];
    memcpy(scope, g->scope, sizeof scope);
    float one = 1;
    grad[loss->id] = sm_reshape(sm_const(g, SM_F32, 1, (int64_t[]){1}, &one), loss->rank, loss->dims);
    for (int i = loss->id; i >= 0 && !g->err.code; i--) {
        sm_node *x = g->nodes[i];
        if (!grad[i] || !need[i])
            continue;
        strncpy(g->scope, x->name ? x->name : "", sizeof g->scope - 1);
        for (int k = 0; k < x->nsrc; k++)
            push(x, k, grad[i], need, grad);
    }
    memcpy(g->scope, scope, sizeof scope);
    for (int i = 0; i < n && !g->err.code; i++)
        out[i] = grad[wrt[i]->id] ? grad[wrt[i]->id] : zeros_like(wrt[i]);
    return !g->err.code;
}
