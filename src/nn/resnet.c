/* The residual block of the convolutional models: diffusers' ResnetBlock2D (models/resnet.py). */
#include "nn/nn.h"

/* silu(temb) through time_emb_proj, as [N,1,1,width]; the width that the table has, or out. */
static sm_node *time_shift(const nn_scope *s, sm_node *temb, int64_t out)
{
    int64_t width = nn_dim(s, "time_emb_proj.weight", 0, out);
    sm_node *t = nn_linear(s, "time_emb_proj", sm_silu(temb), width, true);
    return SM_RESHAPE(t, t->dims[0], 1, 1, width);
}

sm_node *nn_resnet_block(const nn_scope *s, sm_node *x, sm_node *temb, int64_t out, int groups, float eps)
{
    bool shortcut = nn_wants(s, "conv_shortcut.weight", "conv1.weight", x->dims[3] != out);
    /* x is free sooner */
    sm_node *early = shortcut && out <= x->dims[3] ? nn_conv(s, "conv_shortcut", x, out, 1, 1, 0, true) : NULL;
    sm_node *h = nn_conv(s, "conv1", sm_silu(nn_group_norm(s, "norm1", x, groups, eps)), out, 3, 1, 1, true);
    sm_node *t = temb ? time_shift(s, temb, out) : NULL;
    bool scales = t && t->dims[3] == 2 * out;
    if (t && !scales)
        h = sm_add(h, t);
    h = nn_group_norm(s, "norm2", h, groups, eps);
    if (scales)
        h = sm_add(sm_mul(h, sm_affine(sm_slice(t, -1, 0, out), 1, 1)), sm_slice(t, -1, out, out));
    h = sm_silu(h);
    h = temb ? nn_conv_zero(s, "conv2", h, out, 3, 1) : nn_conv(s, "conv2", h, out, 3, 1, 1, true);
    return sm_add(early ? early : shortcut ? nn_conv(s, "conv_shortcut", x, out, 1, 1, 0, true) : x, h);
}
