/* Group, layer and RMS norm with their backward ops: rules and record functions. */
#include "ops/rules.h"

sm_node *sm_group_norm(sm_node *x, sm_node *w, sm_node *b, int groups, float eps)
{
    return SM_REC(SM_OP_GROUP_NORM, &((sm_param){.norm = {.groups = groups, .eps = eps}}), x, w, b);
}

sm_node *sm_group_stats(sm_node *x, int groups, const int margin[4])
{
    sm_param p = {.norm = {.groups = groups}};
    for (int i = 0; i < 4 && margin; i++)
        p.norm.margin[i] = margin[i];
    return SM_REC(SM_OP_GROUP_STATS, &p, x);
}

sm_node *sm_group_norm_by(sm_node *x, sm_node *stats, sm_node *w, sm_node *b, float eps)
{
    sm_param p = {.norm = {.groups = (int)stats->dims[1], .eps = eps}};
    return SM_REC(SM_OP_GROUP_NORM_BY, &p, x, stats, w, b);
}

sm_node *sm_layer_norm(sm_node *x, sm_node *w, sm_node *b, float eps)
{
    return SM_REC(SM_OP_LAYER_NORM, &((sm_param){.norm = {.groups = 1, .eps = eps}}), x, w, b);
}

sm_node *sm_rms_norm(sm_node *x, sm_node *w, float eps)
{
    return SM_REC(SM_OP_RMS_NORM, &((sm_param){.norm = {.groups = 1, .eps = eps}}), x, w);
}

static int64_t channels(const sm_node *x) { return x->dims[x->rank - 1]; }

static bool groups_ok(sm_node *n)
{
    const sm_node *x = n->src[0];
    char s[96];
    if (x->rank < 2 || n->p.norm.groups < 1 || channels(x) % n->p.norm.groups)
        return sm_node_fail(n, "channels of %s do not divide into %d groups", sm_dims_str(x, s), n->p.norm.groups);
    return true;
}

/* Forward: x, then `vectors` optional per-channel vectors. */
static bool forward(sm_node *n, int vectors)
{
    const sm_node *x = n->src[0];
    if (x->rank < 1)
        return sm_node_fail(n, "a scalar cannot be normalised");
    sm_take_shape(n, x);
    for (int i = 1; i <= vectors; i++)
        if (!sm_want_vector(n, i, channels(x)))
            return false;
    return sm_want_f32(n, 6);
}

bool shape_group_norm(sm_node *n) { return groups_ok(n) && forward(n, 2); }
bool shape_group_stats(sm_node *n)
{
    const sm_node *x = n->src[0];
    const int *m = n->p.norm.margin;
    char s[96];
    if (!sm_want_rank(n, 0, 4) || !groups_ok(n) || !sm_want_f32(n, 0))
        return false;
    if (m[0] < 0 || m[1] < 0 || m[2] < 0 || m[3] < 0 || (int64_t)m[0] + m[1] >= x->dims[1] || (int64_t)m[2] + m[3] >= x->dims[2])
        return sm_node_fail(n, "margins %d, %d, %d, %d leave nothing of %s", m[0], m[1], m[2], m[3], sm_dims_str(x, s));
    n->rank = 2;
    n->dims[0] = 2;
    n->dims[1] = n->p.norm.groups;
    return true;
}

/* x, statistics, then optional w and b */
bool shape_group_norm_by(sm_node *n)
{
    const sm_node *x = n->src[0], *t = n->src[1];
    char s[96];
    if (!groups_ok(n))
        return false;
    if (t->rank != 2 || t->dims[0] != 2 || t->dims[1] != n->p.norm.groups)
        return sm_node_fail(n, "statistics %s are not those of %d groups", sm_dims_str(t, s), n->p.norm.groups);
    sm_take_shape(n, x);
    return sm_want_vector(n, 2, channels(x)) && sm_want_vector(n, 3, channels(x)) && sm_want_f32(n, 12);
}

bool shape_layer_norm(sm_node *n) { return forward(n, 2); }
bool shape_rms_norm(sm_node *n) { return forward(n, 1); }

/* (x, dy, w or none) -> like x */
static bool backward_x(sm_node *n)
{
    return shape_same2(n) && sm_want_vector(n, 2, channels(n->src[0]));
}

bool shape_group_norm_dx(sm_node *n) { return groups_ok(n) && backward_x(n); }
bool shape_layer_norm_dx(sm_node *n) { return backward_x(n); }
bool shape_rms_norm_dx(sm_node *n) { return backward_x(n); }

/* (x, dy) -> [rows, C] */
static bool backward_params(sm_node *n, int rows)
{
    int64_t c = channels(n->src[0]);
    if (!shape_same2(n))
        return false;
    n->rank = 2;
    n->dims[0] = rows;
    n->dims[1] = c;
    for (int i = 2; i < SM_MAX_DIMS; i++)
        n->dims[i] = 1;
    return true;
}

bool shape_group_norm_dp(sm_node *n) { return groups_ok(n) && backward_params(n, 2); }
bool shape_layer_norm_dp(sm_node *n) { return backward_params(n, 2); }
bool shape_rms_norm_dp(sm_node *n) { return backward_params(n, 1); }

/* The _DP node of n for dy, shared by the weight's and the bias's gradient: the last one recorded is looked for. Another
 * norm of the same x may have got the same dy, so the parameters count too. */
static sm_node *params_grad(sm_node *n, sm_op_id op, sm_node *dy)
{
    sm_graph *g = n->g;
    for (int i = g->count - 1; i >= 0 && i >= g->count - 8; i--) {
        sm_node *c = g->nodes[i];
        if (c->op == op && c->src[0] == n->src[0] && c->src[1] == dy && c->p.norm.groups == n->p.norm.groups &&
            c->p.norm.eps == n->p.norm.eps)
            return c;
    }
    return SM_REC(op, &n->p, n->src[0], dy);
}

static sm_node *norm_grad(sm_node *n, int i, sm_node *dy, sm_op_id dx, sm_op_id dp)
{
    if (i == 0)
        return SM_REC(dx, &n->p, n->src[0], dy, n->src[1]);
    sm_node *both = params_grad(n, dp, dy);
    return sm_reshape(sm_slice(both, 0, i - 1, 1), 1, n->src[i]->dims);
}

sm_node *grad_group_norm(sm_node *n, int i, sm_node *dy) { return norm_grad(n, i, dy, SM_OP_GROUP_NORM_DX, SM_OP_GROUP_NORM_DP); }
sm_node *grad_layer_norm(sm_node *n, int i, sm_node *dy) { return norm_grad(n, i, dy, SM_OP_LAYER_NORM_DX, SM_OP_LAYER_NORM_DP); }
sm_node *grad_rms_norm(sm_node *n, int i, sm_node *dy) { return norm_grad(n, i, dy, SM_OP_RMS_NORM_DX, SM_OP_RMS_NORM_DP); }
