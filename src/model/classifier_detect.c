/* What a table of tensors is as a noisy classifier (see classifier.h). A residual block that halves the picture has the very
 * tensors of one that does not, so which blocks those are follows from their number: levels have equally many blocks, each but
 * the last ends in a halving one, which changes no width and has no attention; within a level width and attention do not change
 * (how guided-diffusion builds them). */
#include <stdio.h>
#include <string.h>

#include "model/classifier.h"
#include "model/detect_impl.h"

#define FIRST "input_blocks.0.0.weight"

typedef struct blocks {
    look l;
    int count;                           /* block 0 among them */
    int in[SM_CLASSIFIER_BLOCKS], out[SM_CLASSIFIER_BLOCKS];
    bool attention[SM_CLASSIFIER_BLOCKS];
} blocks;

/* What stands before the names, without its dot. */
static bool find_component(const sm_weights *w, char *out, size_t size)
{
    size_t n = strlen(FIRST);
    for (size_t i = 0; i < sm_weights_count(w); i++) {
        const char *name = sm_weights_at(w, i)->name;
        size_t all = strlen(name);
        if (all > n && all - n <= size && name[all - n - 1] == '.' && !strcmp(name + all - n, FIRST)) {
            snprintf(out, size, "%.*s", (int)(all - n - 1), name);
            return true;
        }
    }
    return false;
}

/* One more than the highest number of an input block; blocks that halve by a mean have no tensors. */
static int count_blocks(const sm_weights *w, const char *component)
{
    char head[100];
    int n = snprintf(head, sizeof head, "%s.input_blocks.", component), count = 0;
    for (size_t i = 0; i < sm_weights_count(w); i++) {
        const char *name = sm_weights_at(w, i)->name;
        int k = 0;
        if (!strncmp(name, head, (size_t)n) && sscanf(name + n, "%5d.", &k) == 1 && k >= 0)
            count = SM_MAX(count, k + 1);
    }
    return count;
}

/* Fills the block's kind as far as its own tensors tell. */
static sumi_status read_block(blocks *b, sm_classifier_config *c, int i, const char *what, sm_err *e)
{
    const look *l = &b->l;
    bool residual = sm_look(l, "input_blocks.%d.0.in_layers.0.weight", i), conv = sm_look(l, "input_blocks.%d.0.op.weight", i);
    if (i == 0) {
        b->in[0] = sm_look_dim(l, 1, FIRST);
        b->out[0] = sm_look_dim(l, 0, FIRST);
        return SUMI_OK;
    }
    b->in[i] = b->out[i] = b->out[i - 1];
    if (residual || conv) {
        b->out[i] = sm_look_dim(l, 0, residual ? "input_blocks.%d.0.in_layers.2.weight" : "input_blocks.%d.0.op.weight", i);
        b->attention[i] = sm_look(l, "input_blocks.%d.1.qkv.weight", i);
        if (!b->out[i])
            return sm_fail(e, SUMI_E_MODEL, "%s: input block %d of the classifier lacks its convolution (in_layers.2.weight)",
                           what, i);
    }
    c->down[i] = residual ? SM_DOWN_NONE : conv ? SM_DOWN_CONV : SM_DOWN_POOL;
    c->halvings += !residual;
    return SUMI_OK;
}

/* Whether every `period`-th block may be the halving one. */
static bool periodic(const blocks *b, int period)
{
    if (b->count % period)
        return false;
    for (int i = 1; i < b->count; i++) {
        bool changes = b->in[i] != b->out[i], down = i % period == 0, first = i % period == 1 || period == 1;
        if (down ? changes || b->attention[i] : !first && (changes || b->attention[i] != b->attention[i - 1]))
            return false;
    }
    return true;
}

/* Where all blocks are residual: which of them halve, if there is one answer. */
static sumi_status find_halving(const blocks *b, const sm_classifier_hints *h, sm_classifier_config *c, const char *what,
                                sm_err *e)
{
    int found = 0, ways = 0;
    for (int period = 2; period <= b->count; period++)
        if ((!h->num_res_blocks || period == h->num_res_blocks + 1) && periodic(b, period)) {
            found = period;
            ways++;
        }
    if (ways > 1)
        return sm_fail(e, SUMI_E_MODEL,
                       "%s: its tensors do not tell how many residual blocks the classifier has between two halvings: say it "
                       "in the safetensors metadata, \"num_res_blocks\"",
                       what);
    if (!ways)
        return sm_fail(e, SUMI_E_MODEL, "%s: the classifier's %d input blocks do not make levels%s", what, b->count,
                       h->num_res_blocks ? " of as many residual blocks as its metadata says (num_res_blocks)" : "");
    for (int i = found; i < b->count; i += found) {
        c->down[i] = SM_DOWN_RES;
        c->halvings++;
    }
    return SUMI_OK;
}

/* The pool, and how many classes it tells apart. */
static bool find_pool(const look *l, sm_classifier_config *c)
{
    const sm_weight *first = sm_look(l, "out.0.weight"), *table = sm_look(l, "out.2.positional_embedding");
    bool flat = first && first->t.rank == 2;
    c->pool = table                        ? SM_POOL_ATTENTION
              : !flat                      ? SM_POOL_ADAPTIVE
              : sm_look(l, "out.3.weight") ? SM_POOL_SPATIAL_V2
                                           : SM_POOL_SPATIAL;
    switch (c->pool) {
    case SM_POOL_ATTENTION: c->classes = sm_look_dim(l, 0, "out.2.c_proj.weight"); break;
    case SM_POOL_SPATIAL: c->classes = sm_look_dim(l, 0, "out.2.weight"); break;
    default: c->classes = sm_look_dim(l, 0, "out.3.weight");
    }
    c->places = table ? SM_MAX(sm_look_dim(l, 1, "out.2.positional_embedding") - 1, 0) : 0;
    return first && c->classes > 0;
}

/* Heads, groups: what is usual at these widths. */
static void fill_rest(const blocks *b, const sm_classifier_hints *h, sm_classifier_config *c)
{
    int widths[SM_CLASSIFIER_BLOCKS + 1], n = b->count, last = b->out[n - 1];
    bool wide = last % 64 == 0;
    memcpy(widths, b->out, sizeof *widths * (size_t)n);
    if (c->pool == SM_POOL_SPATIAL_V2)
        widths[n++] = SM_MAX(sm_look_dim(&b->l, 0, "out.0.weight"), 1);
    c->groups = sm_detect_groups(widths, n);
    for (int i = 0; i < b->count; i++)
        wide = wide && (!b->attention[i] || b->out[i] % 64 == 0);
    c->head_channels = h->num_head_channels ? h->num_head_channels : wide && !h->num_heads ? 64 : 0;
    c->heads = h->num_heads ? h->num_heads : 1;
    c->new_order = h->use_new_attention_order;
}

sumi_status sm_detect_classifier(const sm_weights *w, const sm_classifier_hints *hints, sm_classifier_config *c, const char *what,
                                 sm_err *e)
{
    blocks b = {.l = {.w = w}};
    *c = (sm_classifier_config){0};
    if (!find_component(w, c->component, sizeof c->component))
        return sm_fail(e, SUMI_E_MODEL, "%s: no classifier in guided-diffusion's layout: it has no tensor " FIRST, what);
    b.l.component = c->component;
    if (sm_look(&b.l, "output_blocks.0.0.in_layers.0.weight"))
        return sm_fail(e, SUMI_E_MODEL, "%s: a denoiser (it has output_blocks), where a classifier is needed", what);
    b.count = c->blocks = count_blocks(w, c->component);
    if (b.count > SM_CLASSIFIER_BLOCKS)
        return sm_fail(e, SUMI_E_MODEL, "%s: the classifier has %d input blocks, at most %d are possible", what, b.count,
                       SM_CLASSIFIER_BLOCKS);
    for (int i = 0; i < b.count; i++)
        if (read_block(&b, c, i, what, e))
            return e->code;
    c->in_channels = b.in[0];
    c->model_channels = sm_look_dim(&b.l, 1, "time_embed.0.weight");
    if (!b.in[0] || !b.out[0] || !c->model_channels || !find_pool(&b.l, c))
        return sm_fail(e, SUMI_E_MODEL,
                       "%s: no classifier in guided-diffusion's layout: time_embed.0, " FIRST " or out is missing or has no "
                                                                                              "sizes",
                       what);
    fill_rest(&b, hints, c);
    if (c->halvings == 0 && b.count > 1 && find_halving(&b, hints, c, what, e))
        return e->code;
    return SUMI_OK;
}
