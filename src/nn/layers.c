/* Single layers: linear, convolution, norms, embedding, activation. Each records under its own name and leaves the graph's
 * scope at its owner's path. */
#include "nn/nn.h"

#include <stdio.h>

enum { NAME = 128 };

/* "layer.tensor" */
static const char *tensor(char buf[NAME], const char *layer, const char *t)
{
    snprintf(buf, NAME, "%s.%s", layer, t);
    return buf;
}

static int64_t channels(const sm_node *x) { return x->rank ? x->dims[x->rank - 1] : 1; }

/* Whether the layer has a bias: as the table says or, `fresh`, a new one gets it. To be asked before its weight is made. */
static bool has_bias(const nn_scope *s, const char *name, bool fresh)
{
    char b[NAME], w[NAME];
    return nn_wants(s, tensor(b, name, "bias"), tensor(w, name, "weight"), fresh);
}

static sm_node *bias_of(const nn_scope *s, const char *name, bool has, int64_t n, nn_fill fill, int64_t fan)
{
    char b[NAME];
    return has ? NN_PARAM(s, tensor(b, name, "bias"), fill, fan, n) : NULL;
}

static sm_node *linear(const nn_scope *s, const char *name, sm_node *x, int64_t n, bool bias, nn_fill fill)
{
    char w[NAME];
    int64_t k = channels(x);
    bool biased = has_bias(s, name, bias);
    nn_enter(s, name);
    sm_node *weight = NN_PARAM(s, tensor(w, name, "weight"), fill, k, n, k);
    sm_node *y = nn_lora_add(s, name, x, sm_linear(x, weight, bias_of(s, name, biased, n, fill, k)));
    nn_here(s);
    return y;
}

sm_node *nn_linear(const nn_scope *s, const char *name, sm_node *x, int64_t n, bool bias)
{
    return linear(s, name, x, n, bias, NN_UNIFORM_FAN_IN);
}

sm_node *nn_linear_zero(const nn_scope *s, const char *name, sm_node *x, int64_t n)
{
    return linear(s, name, x, n, true, NN_ZEROS);
}

/* x [N,H,W,C] -> [N,Ho,Wo,out]. A 1x1 kernel without padding is recorded as a linear layer over the pixels. */
static sm_node *conv(const nn_scope *s, const char *name, sm_node *x, int64_t out, int kernel, sm_conv c, bool bias, nn_fill fill)
{
    char w[NAME];
    int64_t in = channels(x), dims[4] = {out, in, kernel, kernel}, fan = in * kernel * kernel;
    bool pointwise = kernel == 1 && c.stride == 1 && !c.pad && !c.use_pad4, biased = has_bias(s, name, bias);
    nn_enter(s, name);
    sm_node *weight = nn_param_as(s, tensor(w, name, "weight"), fill, fan, 4, dims, pointwise ? 2 : 4);
    sm_node *b = bias_of(s, name, biased, out, fill, fan);
    c.dil = c.groups = 1;
    c.circular[0] = s->circular[0];
    c.circular[1] = s->circular[1];
    sm_node *y = pointwise ? sm_linear(x, weight, b) : sm_conv2d(x, weight, b, &c);
    nn_here(s);
    return y;
}

sm_node *nn_conv(const nn_scope *s, const char *name, sm_node *x, int64_t out, int kernel, int stride, int pad, bool bias)
{
    return conv(s, name, x, out, kernel, (sm_conv){.stride = stride, .pad = pad}, bias, NN_UNIFORM_FAN_IN);
}

sm_node *nn_conv_zero(const nn_scope *s, const char *name, sm_node *x, int64_t out, int kernel, int pad)
{
    return conv(s, name, x, out, kernel, (sm_conv){.stride = 1, .pad = pad}, true, NN_ZEROS);
}

sm_node *nn_downsample(const nn_scope *s, const char *name, sm_node *x, int64_t out, bool trailing)
{
    sm_conv c = {.stride = 2, .pad = 1, .use_pad4 = trailing, .pad4 = {0, 1, 0, 1}};
    return conv(s, name, x, out, 3, c, true, NN_UNIFORM_FAN_IN);
}

/* The weight of a norm (ones) and, in *b, its bias (zeros). */
static sm_node *norm_params(const nn_scope *s, const char *name, int64_t c, sm_node **b)
{
    char w[NAME];
    bool biased = has_bias(s, name, true);
    sm_node *weight = NN_PARAM(s, tensor(w, name, "weight"), NN_ONES, 0, c);
    *b = bias_of(s, name, biased, c, NN_ZEROS, 0);
    return weight;
}

sm_node *nn_group_norm(const nn_scope *s, const char *name, sm_node *x, int groups, float eps)
{
    sm_node *b;
    nn_enter(s, name);
    sm_node *w = norm_params(s, name, channels(x), &b), *by = s->norms ? s->norms->at(s->norms, x, groups) : NULL;
    sm_node *y = by ? sm_group_norm_by(x, by, w, b, eps) : sm_group_norm(x, w, b, groups, eps);
    nn_here(s);
    return y;
}

sm_node *nn_layer_norm(const nn_scope *s, const char *name, sm_node *x, float eps, bool affine)
{
    sm_node *w = NULL, *b = NULL;
    nn_enter(s, name);
    if (affine)
        w = norm_params(s, name, channels(x), &b);
    sm_node *y = sm_layer_norm(x, w, b, eps);
    nn_here(s);
    return y;
}

sm_node *nn_rms_norm(const nn_scope *s, const char *name, sm_node *x, float eps)
{
    char w[NAME];
    nn_enter(s, name);
    sm_node *y = sm_rms_norm(x, NN_PARAM(s, tensor(w, name, "weight"), NN_ONES, 0, channels(x)), eps);
    nn_here(s);
    return y;
}

sm_node *nn_embedding(const nn_scope *s, const char *name, sm_node *ids, int64_t rows, int64_t width, nn_fill fill)
{
    char w[NAME];
    nn_enter(s, name);
    sm_node *y = sm_gather(NN_PARAM(s, tensor(w, name, "weight"), fill, 0, rows, width), ids);
    nn_here(s);
    return y;
}

sm_node *nn_act(sm_node *x, sm_act act)
{
    switch (act) {
    case SM_ACT_NONE:
        return x;
    case SM_ACT_SILU:
        return sm_silu(x);
    case SM_ACT_GELU_TANH:
        return sm_gelu_tanh(x);
    case SM_ACT_GELU_ERF:
        return sm_gelu_erf(x);
    case SM_ACT_QUICK_GELU:
        return sm_quick_gelu(x);
    case SM_ACT_RELU:
        return sm_unary(SM_OP_RELU, x);
    }
    return sm_graph_fail(x->g, "unknown activation %d", (int)act);
}
