/* Self-attention among fewer tokens (Bolya and Hoffman 2023, as dbolya/tomesd applies it): before it those that look most alike
 * become one, their mean; after it each gets what the one got. Likeness is that of the tokens before the layer's norm. */
#include "nn/nn.h"

sm_node *nn_merging_rows(nn_merging *m, sm_node *x, int64_t h, int64_t w, int downsample)
{
    sm_cells c = {{(int)h, (int)w}, {m->cell, m->cell}};
    int64_t cells = h >= m->cell && w >= m->cell ? sm_cells_count(&c) : 0, t = h * w;
    int64_t joins = SM_MIN((int64_t)((double)t * m->ratio), t - cells);
    if (downsample > m->max_downsample || joins < 1 || cells < 1 || sm_poisoned(x))
        return NULL;
    if (m->count == NN_MERGINGS)
        return sm_graph_fail(x->g, "token merging: more than %d attentions", NN_MERGINGS);
    sm_node *chosen = sm_input(x->g, "token_merging.chosen", SM_I32, 1, &cells);
    m->chosen[m->count++] = chosen;
    m->left = t - joins;
    return sm_token_match(x, chosen, &c, joins);
}

sm_node *nn_merge(const nn_merging *m, sm_node *rows, sm_node *x) { return rows ? sm_token_merge(x, rows, m->left) : x; }
sm_node *nn_part(sm_node *rows, sm_node *x) { return rows ? sm_token_part(x, rows) : x; }
