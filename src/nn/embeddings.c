/* Embeddings of scalars: sinusoidal timesteps (Ho et al. 2020, section B; diffusers' get_timestep_embedding) and the
 * two-layer perceptron that follows them. */
#include "nn/nn.h"

#include <math.h>

/* [1, half]: scale * max_period^(-i / (half - shift)), rounded to f32 where PyTorch rounds. */
static sm_node *frequencies(sm_graph *g, int half, float shift, float scale, float max_period)
{
    enum { MOST = 4096 };
    if (half < 1 || half > MOST || (float)half <= shift)
        return sm_graph_fail(g, "timestep embedding: %d frequencies, must be 1 to %d and more than the shift %g", half, MOST,
                             (double)shift);
    float f[MOST], slope = (float)-log((double)max_period);
    for (int i = 0; i < half; i++) {
        float exponent = slope * (float)i / ((float)half - shift);
        f[i] = scale * (float)exp((double)exponent);
    }
    return sm_const(g, SM_F32, 2, (int64_t[]){1, half}, f);
}

sm_node *nn_timestep_embedding(sm_node *t, int64_t dim, bool flip_sin_to_cos, float freq_shift, float scale, float max_period)
{
    sm_graph *g = t->g;
    if (sm_poisoned(t))
        return t;
    int half = (int)SM_MIN(dim / 2, 1 << 20);
    sm_node *a = sm_mul(SM_RESHAPE(t, sm_numel(t), 1), frequencies(g, half, freq_shift, scale, max_period));
    sm_node *sin = sm_unary(SM_OP_SIN, a), *cos = sm_unary(SM_OP_COS, a);
    sm_node *y = flip_sin_to_cos ? sm_concat2(cos, sin, -1) : sm_concat2(sin, cos, -1);
    return dim % 2 ? sm_pad(y, -1, 0, 1) : y;
}

sm_node *nn_mlp2(const nn_scope *s, sm_node *x, int64_t hidden, int64_t out, sm_act act)
{
    return nn_linear(s, "linear_2", nn_act(nn_linear(s, "linear_1", x, hidden, true), act), out, true);
}
