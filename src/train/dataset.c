/* The picture data set (see dataset.h). Files are those of tools/pictograms/prepare.py. */
#include "train/dataset.h"

#include <stdio.h>
#include <string.h>

#include "io/safetensors.h"

struct sm_dataset {
    sm_mem *mem;
    sm_arena arena;     /* the index's strings */
    sm_st *pixels;      /* owner of the mapping */
    const uint8_t *raw; /* [rows, side, side, 4] */
    int side;
    int64_t rows, count;
    sm_picture *pic;               /* [count], after the filter, in file order */
    int64_t *mate;                 /* indices of train pictures, style by style */
    int64_t mates[SM_STYLES + 1];  /* mate[mates[s] .. mates[s + 1]) are those of style s */
};

/* True when name is an entry of the comma-separated list. */
static bool listed(const char *list, const char *name)
{
    size_t n = strlen(name);
    for (const char *p = list; p && *p; p += strcspn(p, ",")) {
        p += strspn(p, ", ");
        size_t k = strcspn(p, ",");
        while (k && p[k - 1] == ' ')
            k--;
        if (k == n && !memcmp(p, name, n))
            return true;
    }
    return false;
}

/* Every entry of the list names a style; the styles' bits. */
static sumi_status style_bits(const char *list, unsigned *bits, sm_err *e)
{
    *bits = 0;
    for (int s = 0; s < SM_STYLES; s++)
        if (!list || !*list || listed(list, sm_styles[s].id) || listed(list, sm_styles[s].name))
            *bits |= 1u << s;
    for (const char *p = list; p && *p;) {
        p += strspn(p, ", ");
        char name[64];
        size_t k = strcspn(p, ",");
        snprintf(name, sizeof name, "%.*s", (int)SM_MIN(k, sizeof name - 1), p);
        for (size_t n = strlen(name); n && name[n - 1] == ' '; n--)
            name[n - 1] = 0;
        if (*name && sm_style_find(name) < 0)
            return sm_fail(e, SUMI_E_ARG, "data styles: '%s' is none of noto, noto-v1, twemoji, fluent-emoji, fluent-emoji-flat, "
                           "emojione, "
                           "fxemoji, streamline-emojis", name);
        p += k;
    }
    return SUMI_OK;
}

/* The tensor `rgba` of the file, checked to be U8 [rows, side, side, 4]. */
static sumi_status open_pixels(sm_dataset *d, const char *path, sm_err *e)
{
    d->pixels = sm_st_open(path, d->mem, e);
    if (!d->pixels)
        return e->code;
    const sm_st_entry *t = sm_st_find(d->pixels, "rgba");
    if (!t)
        return sm_fail(e, SUMI_E_FORMAT, "%s: has no tensor 'rgba'; it was not written by tools/pictograms/prepare.py", path);
    if (strcmp(t->dtype, "U8") || t->rank != 4 || t->dims[1] != t->dims[2] || t->dims[3] != 4 || t->dims[0] < 1)
        return sm_fail(e, SUMI_E_FORMAT, "%s: tensor 'rgba' must be U8 [pictures, side, side, 4], is %s of %d dimensions", path,
                       t->dtype, t->rank);
    if (t->dims[1] < 8 || t->dims[1] > 1024)
        return sm_fail(e, SUMI_E_FORMAT, "%s: tensor 'rgba' holds pictures of %lld pixels; 8 to 1024 are possible", path,
                       (long long)t->dims[1]);
    d->raw = t->data;
    d->rows = t->dims[0];
    d->side = (int)t->dims[1];
    return SUMI_OK;
}

static sumi_status apply_filter(sm_dataset *d, sm_picture *all, const sm_data_filter *f, const char *index, sm_err *e)
{
    unsigned styles, splits = f->splits ? f->splits : SM_SPLIT_TRAIN;
    if (style_bits(f->styles, &styles, e) != SUMI_OK)
        return e->code;
    for (int64_t i = 0; i < d->rows; i++) {
        const sm_picture *p = &all[i];
        if ((styles >> p->style_row & 1) && (splits & p->split) && !listed(f->groups_out, p->group) &&
            !listed(f->groups_out, p->sub))
            all[d->count++] = *p;
    }
    d->pic = all;
    if (!d->count)
        return sm_fail(e, SUMI_E_ARG, "%s: the filter (styles, groups, splits) leaves none of its %lld pictures", index,
                       (long long)d->rows);
    return SUMI_OK;
}

static sumi_status list_mates(sm_dataset *d, sm_err *e)
{
    d->mate = sm_arena_get(&d->arena, sizeof *d->mate * (size_t)d->count);
    if (!d->mate)
        return sm_fail(e, SUMI_E_MEMORY, "data set: out of memory");
    int64_t n = 0;
    for (int s = 0; s < SM_STYLES; s++) {
        d->mates[s] = n;
        for (int64_t i = 0; i < d->count; i++)
            if (d->pic[i].style_row == s && d->pic[i].split == SM_SPLIT_TRAIN)
                d->mate[n++] = i;
    }
    d->mates[SM_STYLES] = n;
    return SUMI_OK;
}

sm_dataset *sm_dataset_open(const char *pixels, const char *index, const sm_data_filter *f, sm_mem *mem, sm_err *e)
{
    sm_err local = {0};
    sm_data_filter all = {0};
    e = e ? e : &local;
    sm_dataset *d = sm_alloc0(mem, SM_MEM_DATA, sizeof *d);
    if (!d)
        return sm_fail(e, SUMI_E_MEMORY, "data set: out of memory"), NULL;
    d->mem = mem;
    sm_arena_init(&d->arena, mem, SM_MEM_DATA);
    sm_picture *pics = NULL;
    int64_t lines = 0;
    sumi_status st = open_pixels(d, pixels, e);
    if (st == SUMI_OK)
        st = sm_picture_index_read(index, &d->arena, &pics, &lines, e);
    if (st == SUMI_OK && lines != d->rows)
        st = sm_fail(e, SUMI_E_FORMAT, "%s has %lld lines but %s has %lld pictures: they are not of one run of prepare.py", index,
                     (long long)lines, pixels, (long long)d->rows);
    if (st == SUMI_OK)
        st = apply_filter(d, pics, f ? f : &all, index, e);
    if (st == SUMI_OK)
        st = list_mates(d, e);
    if (st == SUMI_OK)
        return d;
    sm_dataset_free(d);
    return NULL;
}

void sm_dataset_free(sm_dataset *d)
{
    if (!d)
        return;
    sm_st_close(d->pixels);
    sm_arena_free(&d->arena);
    sm_free(d);
}

int64_t sm_dataset_count(const sm_dataset *d) { return d->count; }
int sm_dataset_side(const sm_dataset *d) { return d->side; }
const sm_picture *sm_dataset_picture(const sm_dataset *d, int64_t i) { return &d->pic[i]; }

const uint8_t *sm_dataset_rgba(const sm_dataset *d, int64_t i)
{
    return d->raw + (size_t)d->pic[i].row * (size_t)d->side * (size_t)d->side * 4;
}

sm_scene sm_dataset_scene(const sm_dataset *d, const sm_compose_opts *o, uint64_t seed, int64_t i, uint64_t variant)
{
    const sm_picture *p = &d->pic[i];
    sm_dice dice = sm_dice_new(seed, SM_DICE_SCENE, (uint64_t)p->row, variant);
    sm_scene s = {.picture = {i, i}};
    sm_place(o, variant, sm_caption_countable(p->caption), &dice, &s.place);
    if (s.place.n == 1 || s.place.same)
        return s;
    /* The other thing is any train picture of the style with another caption; a few throws find one unless there is none. */
    const int64_t *mate = d->mate + d->mates[p->style_row];
    int64_t n = d->mates[p->style_row + 1] - d->mates[p->style_row];
    int64_t other = i;
    for (int tries = 0; n > 0 && tries < 8 && !strcmp(d->pic[other].caption, p->caption); tries++)
        other = mate[sm_dice_pick(&dice, n)];
    if (!strcmp(d->pic[other].caption, p->caption)) {
        int colour = s.place.colour;
        s.place = (sm_placement){.n = 1, .colour = colour};
        s.place.at[0].scale = 1.0f;
        return s;
    }
    s.picture[sm_dice_pick(&dice, 2)] = other; /* on either side */
    return s;
}

sumi_status sm_dataset_draw(const sm_dataset *d, const sm_scene *s, int size, uint8_t *rgb, sm_err *e)
{
    sm_layer layer[2];
    for (int k = 0; k < s->place.n; k++)
        layer[k] = (sm_layer){sm_dataset_rgba(d, s->picture[k]), d->side, s->place.at[k].x, s->place.at[k].y,
                              s->place.at[k].scale};
    return sm_compose(layer, s->place.n, sm_colours[s->place.colour].rgb, size, rgb, d->mem, e);
}

static sm_scene_words words_of(const sm_dataset *d, const sm_scene *s)
{
    sm_scene_words w = {.n = s->place.n, .same = s->place.same, .style = d->pic[s->picture[0]].style_row,
                        .colour = s->place.colour};
    for (int k = 0; k < 2; k++) {
        const sm_picture *p = &d->pic[s->picture[k]];
        w.thing[k] = (sm_thing){p->caption, p->tags, p->n_tags};
    }
    return w;
}

void sm_dataset_caption(const sm_dataset *d, const sm_scene *s, uint64_t seed, uint64_t draw, char *out, size_t cap)
{
    sm_scene_words w = words_of(d, s);
    sm_dice dice = sm_dice_new(seed, SM_DICE_CAPTION, (uint64_t)d->pic[s->picture[0]].row, draw);
    sm_caption_draw(&w, &dice, out, cap);
}
