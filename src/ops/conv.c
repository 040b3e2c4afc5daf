/* conv2d and its two adjoints: rules and record functions. p.conv of a recorded node is complete: every field resolved. */
#include "ops/rules.h"

static sm_param resolve(const sm_conv *c)
{
    sm_conv d = c ? *c : (sm_conv){0};
    sm_param p = {0};
    for (int i = 0; i < 2; i++) {
        p.conv.stride[i] = d.stride ? d.stride : 1;
        p.conv.dil[i] = d.dil ? d.dil : 1;
        p.conv.circular[i] = d.circular[i];
    }
    p.conv.groups = d.groups ? d.groups : 1;
    for (int i = 0; i < 4; i++)
        p.conv.pad[i] = d.use_pad4 ? d.pad4[i] : d.pad;
    return p;
}

sm_node *sm_conv2d(sm_node *x, sm_node *w, sm_node *b, const sm_conv *c)
{
    sm_param p = resolve(c);
    return SM_REC(SM_OP_CONV2D, &p, x, w, b);
}

sm_node *sm_conv2d_dx(sm_node *dy, sm_node *w, sm_node *b, const sm_param *conv, int h, int w_)
{
    sm_param p = *conv;
    p.conv.size[0] = h;
    p.conv.size[1] = w_;
    return SM_REC(SM_OP_CONV2D_DX, &p, dy, w, b);
}

sm_node *sm_conv2d_dw(sm_node *x, sm_node *dy, const sm_param *conv, int kh, int kw)
{
    sm_param p = *conv;
    p.conv.size[0] = kh;
    p.conv.size[1] = kw;
    return SM_REC(SM_OP_CONV2D_DW, &p, x, dy);
}

/* Output size along one axis (0 is y), -1 when the kernel is larger than the padded input. */
static int64_t out_size(const sm_param *p, int axis, int64_t in, int64_t kernel)
{
    int64_t room = in + p->conv.pad[2 * axis] + p->conv.pad[2 * axis + 1] - (int64_t)p->conv.dil[axis] * (kernel - 1) - 1;
    return room < 0 ? -1 : room / p->conv.stride[axis] + 1;
}

static bool params_ok(sm_node *n, int64_t h, int64_t w)
{
    const sm_param *p = &n->p;
    for (int i = 0; i < 2; i++)
        if (p->conv.stride[i] < 1 || p->conv.stride[i] > 4096 || p->conv.dil[i] < 1 || p->conv.dil[i] > 4096)
            return sm_node_fail(n, "stride %d, dilation %d must be in 1..4096", p->conv.stride[i], p->conv.dil[i]);
    for (int i = 0; i < 4; i++)
        if (p->conv.pad[i] < 0 || p->conv.pad[i] > 4096 || (p->conv.circular[i / 2] && p->conv.pad[i] > (i < 2 ? h : w)))
            return sm_node_fail(n, "padding %d is negative or too large", p->conv.pad[i]);
    return p->conv.groups >= 1 || sm_node_fail(n, "%d groups", p->conv.groups);
}

bool shape_conv2d(sm_node *n)
{
    const sm_node *x = n->src[0], *w = n->src[1];
    char s[96], t[96];
    if (!sm_want_f32(n, 6) || !sm_want_rank(n, 0, 4) || !sm_want_rank(n, 1, 4) || !params_ok(n, x->dims[1], x->dims[2]))
        return false;
    int64_t g = n->p.conv.groups;
    if (w->dims[1] * g != x->dims[3] || w->dims[0] % g)
        return sm_node_fail(n, "input %s does not fit weight %s with %lld groups", sm_dims_str(x, s), sm_dims_str(w, t),
                            (long long)g);
    n->rank = 4;
    n->dims[0] = x->dims[0];
    n->dims[1] = out_size(&n->p, 0, x->dims[1], w->dims[2]);
    n->dims[2] = out_size(&n->p, 1, x->dims[2], w->dims[3]);
    n->dims[3] = w->dims[0];
    if (n->dims[1] < 1 || n->dims[2] < 1)
        return sm_node_fail(n, "input %s is smaller than the kernel of %s", sm_dims_str(x, s), sm_dims_str(w, t));
    return sm_want_vector(n, 2, w->dims[0]);
}

bool shape_conv2d_dx(sm_node *n)
{
    const sm_node *y = n->src[0], *w = n->src[1];
    char s[96], t[96];
    int64_t h = n->p.conv.size[0], wd = n->p.conv.size[1], g = n->p.conv.groups;
    if (!sm_want_f32(n, 6) || !sm_want_rank(n, 0, 4) || !sm_want_rank(n, 1, 4) || !params_ok(n, h, wd))
        return false;
    if (w->dims[0] != y->dims[3] || w->dims[0] % g || out_size(&n->p, 0, h, w->dims[2]) != y->dims[1] ||
        out_size(&n->p, 1, wd, w->dims[3]) != y->dims[2])
        return sm_node_fail(n, "%s and weight %s do not give a %lldx%lld input", sm_dims_str(y, s), sm_dims_str(w, t),
                            (long long)h, (long long)wd);
    n->rank = 4;
    n->dims[0] = y->dims[0];
    n->dims[1] = h;
    n->dims[2] = wd;
    n->dims[3] = w->dims[1] * g;
    return sm_want_vector(n, 2, n->dims[3]);
}

bool shape_conv2d_dw(sm_node *n)
{
    const sm_node *x = n->src[0], *y = n->src[1];
    char s[96], t[96];
    int64_t kh = n->p.conv.size[0], kw = n->p.conv.size[1], g = n->p.conv.groups;
    if (!sm_want_f32(n, 0) || !sm_want_rank(n, 0, 4) || !sm_want_rank(n, 1, 4) || !params_ok(n, x->dims[1], x->dims[2]))
        return false;
    if (x->dims[0] != y->dims[0] || x->dims[3] % g || y->dims[3] % g || kh < 1 || kw < 1 ||
        out_size(&n->p, 0, x->dims[1], kh) != y->dims[1] || out_size(&n->p, 1, x->dims[2], kw) != y->dims[2])
        return sm_node_fail(n, "%s and %s do not fit a %lldx%lld kernel", sm_dims_str(x, s), sm_dims_str(y, t), (long long)kh,
                            (long long)kw);
    n->rank = 4;
    n->dims[0] = y->dims[3];
    n->dims[1] = x->dims[3] / g;
    n->dims[2] = kh;
    n->dims[3] = kw;
    return true;
}

sm_node *grad_conv2d(sm_node *n, int i, sm_node *dy)
{
    sm_node *x = n->src[0], *w = n->src[1];
    if (i == 0)
        return sm_conv2d_dx(dy, w, NULL, &n->p, (int)x->dims[1], (int)x->dims[2]);
    if (i == 1)
        return sm_conv2d_dw(x, dy, &n->p, (int)w->dims[2], (int)w->dims[3]);
    return sm_sum_to(dy, 1, w->dims);
}

sm_node *grad_conv2d_dx(sm_node *n, int i, sm_node *dy)
{
    sm_node *y = n->src[0], *w = n->src[1];
    if (i == 0) {
        sm_param p = n->p;
        return SM_REC(SM_OP_CONV2D, &p, dy, w, NULL);
    }
    if (i == 1)
        return sm_conv2d_dw(dy, y, &n->p, (int)w->dims[2], (int)w->dims[3]);
    return sm_sum_to(dy, 1, &n->dims[3]);
}

/* flops of the direct algorithm; `out` has O channels, each the sum over C/groups * kh * kw products. */
static double conv_flops(const sm_node *out, double c_per_group, double kh, double kw)
{
    return 2 * (double)sm_numel(out) * c_per_group * kh * kw;
}

sm_cost cost_conv2d(const sm_node *n)
{
    const sm_node *w = n->src[1];
    return (sm_cost){conv_flops(n, (double)w->dims[1], (double)w->dims[2], (double)w->dims[3]), sm_io_bytes(n)};
}

sm_cost cost_conv2d_dx(const sm_node *n)
{
    const sm_node *w = n->src[1];
    return (sm_cost){conv_flops(n->src[0], (double)w->dims[1], (double)w->dims[2], (double)w->dims[3]), sm_io_bytes(n)};
}

sm_cost cost_conv2d_dw(const sm_node *n)
{
    return (sm_cost){conv_flops(n->src[1], (double)n->dims[1], (double)n->dims[2], (double)n->dims[3]), sm_io_bytes(n)};
}
