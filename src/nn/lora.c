/* Low-rank adapters (Hu et al. 2021, "LoRA"): a layer y = x W^T + b becomes y + scale (x A^T) B^T with A [rank, in] and
 * B [out, rank], under the names that PEFT gives them. W is not touched: where nothing else may change, autodiff records neither
 * its gradient nor anything below the first adapter. */
#include "nn/nn.h"

#include <stdio.h>
#include <string.h>

enum { NAME = 128 };

/* Whether `path.name` ends in one of the targets, whole components long ("to_q", "to_out.0"). */
static bool is_target(const nn_scope *s, const nn_lora *l, const char *name)
{
    char full[sizeof s->path + NAME];
    int n = snprintf(full, sizeof full, "%s.%s", s->path, name);
    for (int i = 0; i < l->ntargets; i++) {
        int len = (int)strlen(l->targets[i]);
        if (len < n && n < (int)sizeof full && !strcmp(full + n - len, l->targets[i]) && full[n - len - 1] == '.')
            return true;
    }
    return false;
}

sm_node *nn_lora_add(const nn_scope *s, const char *name, sm_node *x, sm_node *y)
{
    const nn_lora *l = s->lora;
    char a[NAME], b[NAME];
    if (!l || sm_poisoned(x) || sm_poisoned(y) || !is_target(s, l, name))
        return y;
    nn_scope own = *s;
    own.w = l->w;
    own.init = l->init;
    snprintf(a, sizeof a, "%s.lora_A.weight", name);
    snprintf(b, sizeof b, "%s.lora_B.weight", name);
    if (!nn_has(&own, a) && !l->init)
        return y;
    int64_t in = x->dims[x->rank - 1], out = y->dims[y->rank - 1], rank = nn_dim(&own, a, 0, l->rank);
    sm_node *down = NN_PARAM(&own, a, NN_UNIFORM_FAN_IN, in, rank, in), *up = NN_PARAM(&own, b, NN_ZEROS, 0, out, rank);
    sm_node *h = sm_linear(x, down, NULL);
    if (l->scale != 1)
        h = sm_affine(h, l->scale, 0);
    return sm_add(y, sm_linear(h, up, NULL));
}
