/* The other direction of layout.c: the tensors of a table in the form of a single file of the original programs. The rows and
 * the relations of numbers are the same; what is decided here is which of the original forms a model has. */
#include "model/layout_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The form of one component. */
typedef struct target {
    const char *prefix;
    const sm_alias_table *table; /* NULL: the component has no original form */
} target;

typedef struct exporting {
    const sm_weights *w;
    target to[SM_COMPONENTS];
    sm_shape shape[SM_COMPONENTS];
    sm_layout_context back; /* of the names that are stored */
} exporting;

/* One canonical tensor's place; sorted by the stored name, then the part. */
typedef struct piece {
    char name[sizeof ((sm_layout_export *)0)->name];
    const sm_alias *row;
    const sm_weight *weight;
} piece;

/* The component of a canonical name and what follows; SM_COMPONENTS for none. */
static sm_component split(const char *name, const char **rest)
{
    for (int c = 0; c < SM_COMPONENTS; c++) {
        size_t n = strlen(sm_component_names[c]);
        if (!strncmp(name, sm_component_names[c], n) && name[n] == '.' && name[n + 1]) {
            *rest = name + n + 1;
            return (sm_component)c;
        }
    }
    return SM_COMPONENTS;
}

static const sm_weight *any_of(const sm_weights *w, const char *component, const char *tail)
{
    size_t n = strlen(component), k = strlen(tail);
    for (size_t i = 0; i < sm_weights_count(w); i++) {
        const sm_weight *x = sm_weights_at(w, i);
        size_t len = strlen(x->name);
        if (!strncmp(x->name, component, n) && x->name[n] == '.' && len > n + k && !strcmp(x->name + len - k, tail))
            return x;
    }
    return NULL;
}

/* SD 2.x and its text encoder, OpenCLIP's, came with linear projections around attention; SD 1.x has convolutions. A text
 * encoder alone is told by its width, 1024 against 768. */
static bool is_openclip(const sm_weights *w)
{
    const sm_weight *proj = any_of(w, "unet", ".proj_in.weight");
    const sm_weight *t = sm_weights_find(w, "text_encoder.text_model.embeddings.token_embedding.weight");
    return proj ? proj->t.rank == 2 : t && t->t.rank == 2 && t->t.dims[1] == 1024;
}

/* XL has two text encoders, its refiner the second only. */
static void choose(exporting *g)
{
    bool first = any_of(g->w, "text_encoder", ".weight") != NULL, second = any_of(g->w, "text_encoder_2", ".weight") != NULL;
    g->to[SM_COMPONENT_UNET] = (target){"model.diffusion_model.", &sm_aliases_unet};
    g->to[SM_COMPONENT_VAE] = (target){"first_stage_model.", &sm_aliases_vae};
    g->to[SM_COMPONENT_TEXT_2] = (target){first ? "conditioner.embedders.1.model." : "conditioner.embedders.0.model.",
                                          &sm_aliases_openclip};
    if (second)
        g->to[SM_COMPONENT_TEXT] = (target){"conditioner.embedders.0.transformer.", &sm_aliases_clip};
    else if (is_openclip(g->w))
        g->to[SM_COMPONENT_TEXT] = (target){"cond_stage_model.model.", &sm_aliases_openclip};
    else
        g->to[SM_COMPONENT_TEXT] = (target){"cond_stage_model.transformer.", &sm_aliases_clip};
}

static void relate(exporting *g)
{
    const char *rest = NULL;
    for (size_t i = 0; i < sm_weights_count(g->w); i++) {
        const sm_weight *x = sm_weights_at(g->w, i);
        sm_component c = split(x->name, &rest);
        if (c == SM_COMPONENT_UNET)
            sm_shape_note_unet(&g->shape[c], rest, x->t.rank, x->t.dims);
        if (c == SM_COMPONENT_VAE)
            sm_shape_note_vae(&g->shape[c], rest);
    }
    sm_shape_relate_unet(&g->shape[SM_COMPONENT_UNET]);
    sm_shape_relate_vae(&g->shape[SM_COMPONENT_VAE]);
}

static sumi_status place(const exporting *g, const sm_weight *x, piece *p, sm_err *e)
{
    static const sm_alias mark = {"", "", SM_NUM_SAME, SM_AS_IS, 0};
    const char *rest = NULL;
    sm_component c = split(x->name, &rest);
    p->weight = x;
    if (sm_layout_mark(x->name)) {
        p->row = &mark;
        snprintf(p->name, sizeof p->name, "%s", x->name);
        return SUMI_OK;
    }
    if (c == SM_COMPONENT_TRANSFORMER)
        return sm_fail(e, SUMI_E_SUPPORT,
                       "tensor %.200s is a transformer's: only UNets have a single-file layout of other programs; "
                       "use --layout diffusers, which writes one file too", x->name);
    if (c == SM_COMPONENTS || !g->to[c].table)
        return sm_fail(e, SUMI_E_SUPPORT,
                       "tensor %.200s belongs to no model that has a single-file layout; use --layout diffusers", x->name);
    const sm_alias_table *t = g->to[c].table;
    size_t n = strlen(g->to[c].prefix);
    memcpy(p->name, g->to[c].prefix, n);
    for (size_t i = 0; i < t->count; i++)
        if (sm_alias_export(&t->rows[i], &g->shape[c], rest, p->name + n, sizeof p->name - n)) {
            p->row = &t->rows[i];
            return SUMI_OK;
        }
    return sm_fail(e, SUMI_E_SUPPORT, "tensor %.200s has no name in the single-file layout; use --layout diffusers", x->name);
}

/* Who reads what is stored must find the same model: numbers with gaps, for one, would be closed up. */
static sumi_status read_back(exporting *g, const piece *p, size_t count, sm_err *e)
{
    char rest[SM_LAYOUT_NAME + 64];
    for (size_t i = 0; i < count; i++)
        sm_layout_note(&g->back, p[i].name, p[i].weight->t.rank, p[i].weight->t.dims);
    sm_layout_relate(&g->back);
    for (size_t i = 0; i < count; i++) {
        const char *want = NULL;
        if (sm_layout_mark(p[i].name))
            continue;
        sm_component c = split(p[i].weight->name, &want);
        sm_name n = sm_layout_place(&g->back, p[i].name);
        if (n.kind == SM_NAME_TENSOR)
            sm_layout_resolve(&g->back, &n);
        bool same = n.kind == SM_NAME_TENSOR && n.component == c;
        if (same && n.row)
            same = sm_alias_read(n.row + p[i].row->part, &g->back.shape[c], n.rest, rest, sizeof rest) && !strcmp(rest, want);
        else if (same)
            same = !strcmp(n.rest, want);
        if (!same)
            return sm_fail(e, SUMI_E_SUPPORT,
                           "tensor %.200s cannot be told apart in the single-file layout; use --layout diffusers",
                           p[i].weight->name);
    }
    return SUMI_OK;
}

static int by_name(const void *a, const void *b)
{
    const piece *x = a, *y = b;
    int c = strcmp(x->name, y->name);
    return c ? c : x->row->part - y->row->part;
}

/* The shape that is stored, of the first part. */
static bool stored_shape(const piece *p, sm_layout_export *x)
{
    const sm_tensor *t = &p->weight->t;
    x->rank = t->rank;
    memcpy(x->dims, t->dims, sizeof x->dims);
    if (p->row->how == SM_LINEAR && t->rank == 2) {
        x->rank = 4;
        x->dims[2] = x->dims[3] = 1;
    }
    if (p->row->how == SM_TRANSPOSED) {
        x->transpose = true;
        x->dims[0] = t->dims[1];
        x->dims[1] = t->dims[0];
        return t->rank == 2;
    }
    return p->row->how != SM_THIRD || (t->rank >= 1 && t->rank <= 2 && t->dims[0] <= INT64_MAX / 3);
}

/* Types may differ: who writes converts. */
static bool same_shape(const sm_tensor *a, const sm_tensor *b)
{
    return a->rank == b->rank && !memcmp(a->dims, b->dims, (size_t)a->rank * sizeof *a->dims);
}

/* The pieces at p that make one stored tensor; *used of them. */
static sumi_status join(const piece *p, size_t left, sm_layout_export *x, size_t *used, sm_err *e)
{
    int parts = p->row->how == SM_THIRD ? 3 : 1;
    *x = (sm_layout_export){.parts = parts};
    memcpy(x->name, p->name, sizeof x->name);
    if (!stored_shape(p, x))
        return sm_fail(e, SUMI_E_MODEL, "tensor %.200s has %d dimensions, which the single-file layout cannot hold",
                       p->weight->name,
                       p->weight->t.rank);
    for (int i = 0; i < parts; i++) {
        if ((size_t)i >= left || strcmp(p[i].name, p->name) || p[i].row->part != i)
            return sm_fail(e, SUMI_E_MODEL, "tensor %.160s lacks a part beside %.160s", p->name, p->weight->name);
        if (!same_shape(&p[i].weight->t, &p->weight->t))
            return sm_fail(e, SUMI_E_MODEL, "tensors %.160s and %.160s have unlike shapes and cannot be one", p->weight->name,
                           p[i].weight->name);
        x->part[i] = p[i].weight;
    }
    if (parts == 3)
        x->dims[0] *= 3;
    *used = (size_t)parts;
    return SUMI_OK;
}

static sumi_status export_all(exporting *g, piece *p, sm_layout_export *out, size_t *n, sm_err *e)
{
    size_t count = sm_weights_count(g->w), used = 0;
    sumi_status st = SUMI_OK;
    choose(g);
    relate(g);
    for (size_t i = 0; st == SUMI_OK && i < count; i++)
        st = place(g, sm_weights_at(g->w, i), &p[i], e);
    if (st == SUMI_OK)
        st = read_back(g, p, count, e);
    if (st == SUMI_OK)
        qsort(p, count, sizeof *p, by_name);
    for (size_t i = 0; st == SUMI_OK && i < count; i += used) {
        st = join(p + i, count - i, &out[*n], &used, e);
        if (st == SUMI_OK && *n && !strcmp(out[*n - 1].name, out[*n].name))
            st = sm_fail(e, SUMI_E_MODEL, "tensors %.160s and %.160s would both be stored as %.160s", out[*n - 1].part[0]->name,
                         out[*n].part[0]->name, out[*n].name);
        ++*n;
    }
    return st;
}

sumi_status sm_layout_original(const sm_weights *w, sm_layout_export **out, size_t *n, sm_mem *mem, sm_err *e)
{
    size_t count = sm_weights_count(w);
    exporting *g = sm_alloc0(mem, SM_MEM_MISC, sizeof *g);
    piece *p = sm_alloc0(mem, SM_MEM_MISC, (count + 1) * sizeof *p);
    *out = sm_alloc0(mem, SM_MEM_MISC, (count + 1) * sizeof **out);
    *n = 0;
    sumi_status st = SUMI_OK;
    if (!g || !p || !*out) {
        st = sm_fail(e, SUMI_E_MEMORY, "out of memory for the names of %zu tensors", count);
    } else {
        g->w = w;
        st = export_all(g, p, *out, n, e);
    }
    sm_free(g);
    sm_free(p);
    if (st != SUMI_OK) {
        sm_free(*out);
        *out = NULL;
        *n = 0;
    }
    return st;
}
