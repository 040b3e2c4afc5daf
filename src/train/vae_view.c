/* What the autoencoder makes of sixteen pictures: rows of originals above their reconstructions, OUTPUT/autoencoder-STEP.png. */
#include <stdio.h>
#include <string.h>

#include "io/image.h"
#include "pipeline/sheet.h"
#include "train/model_view.h"

enum { PICTURES = 16, COLUMNS = 8 };

typedef struct view {
    sm_graph *g;
    sm_plan *p;
    sm_node *image, *out;
} view;

static sumi_status open_view(view *v, sm_trainer *t, sm_weights *w, sm_err *e)
{
    int64_t s = t->cfg.data.size;
    v->g = sm_graph_new(t->mem, e);
    if (!v->g)
        return e->code;
    nn_scope root = nn_root(v->g, w, NULL), vae = nn_sub(&root, "vae");
    v->image = sm_input(v->g, "image", SM_F32, 4, (int64_t[]){1, s, s, t->vae.in_channels});
    v->out = sm_vae_decode(&vae, &t->vae, sm_slice(sm_vae_encode(&vae, &t->vae, v->image), -1, 0, t->vae.latent_channels));
    v->p = sm_plan_new(v->g, 1, &v->out, t->be, e);
    return e->code;
}

/* Picture k into both of its places: row pairs of COLUMNS originals, then COLUMNS reconstructions. */
static sumi_status show(view *v, sm_trainer *t, int k, uint8_t *rgb, sm_err *e)
{
    int size = t->cfg.data.size, place = k / COLUMNS * 2 * COLUMNS + k % COLUMNS;
    int64_t n = (int64_t)size * size * 3, count = sm_dataset_count(t->data);
    sm_scene s = sm_dataset_scene(t->data, &t->compose, t->init.seed, k * count / PICTURES, (uint64_t)(k % 4));
    uint8_t *above = rgb + place * n, *below = above + COLUMNS * n;
    if (sm_dataset_draw(t->data, &s, size, above, e))
        return e->code;
    sm_rgb_to_float(above, n, sm_plan_data(v->p, v->image));
    if (sm_plan_run(v->p, t->pool, t->cb ? t->cb->cancel : NULL, e))
        return e->code;
    sm_pixels_from_float(sm_plan_data(v->p, v->out), n, below);
    return SUMI_OK;
}

sumi_status sm_vae_validate(sm_stage *stage, sm_trainer *t, const sm_train_state *st, int64_t step, sm_err *e)
{
    int size = t->cfg.data.size, w, h;
    char path[512], name[64];
    view v = {0};
    uint8_t *sheet = NULL, *rgb = sm_alloc(t->mem, SM_MEM_DATA, (size_t)size * (size_t)size * 3 * 2 * PICTURES);
    sm_weights *now = sm_view_weights(t, st, e);
    if (!rgb)
        sm_fail(e, SUMI_E_MEMORY, "out of memory for a sheet of reconstructions");
    if (!e->code && !open_view(&v, t, now, e)) {
        for (int k = 0; k < PICTURES && !e->code; k++)
            show(&v, t, k, rgb, e);
        if (!e->code && !sm_sheet_make(rgb, 2 * PICTURES, size, size, COLUMNS, t->mem, &sheet, &w, &h, e)) {
            snprintf(name, sizeof name, "autoencoder-%07lld.png", (long long)step);
            sm_image_save(&(sm_image){.width = w, .height = h, .channels = 3, .pixels = sheet}, sm_out_path(t, name, path), NULL,
                          t->mem, e);
        }
    }
    sm_plan_free(v.p);
    sm_graph_free(v.g);
    sm_weights_unref(&now);
    sm_free(sheet);
    sm_free(rgb);
    return e->code;
}
