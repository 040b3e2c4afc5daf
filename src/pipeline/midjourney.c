/* The public call that gives Midjourney's suffixes (text/mj.h) their meaning here: one row each. What is none of Midjourney's may
 * be any parameter of the request by its flag. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "pipeline/model.h"
#include "pipeline/params.h"
#include "text/mj.h"

typedef struct asked {
    const sumi_model *m;
    sumi_request *r;
    sm_arena *room;
    const char *name, *value;
    sm_err *e;
} asked;

static double number(asked *a, double low, double high)
{
    sumi_request r = *a->r;
    sumi_param_info p = {SUMI_PARAM_FLOAT, a->name, a->name, "", "", low, high, offsetof(sumi_request, cfg_scale)};
    sm_param_set(&p, &r, a->value, a->e);
    return a->e->code ? low : (double)r.cfg_scale;
}

static void set(asked *a, const char *field, const char *value)
{
    sm_param_set(sm_param_find(field), a->r, value, a->e);
}

/* ---- the suffixes ---------------------------------------------------------------------------------------------------- */

/* The proportions at the area that was asked for or is the model's; sides are multiples of 64 where pictures are large, as the
 * models were trained, else of what the model needs. */
static void aspect(asked *a)
{
    int w = 0, h = 0, used = 0;
    sumi_request *r = a->r;
    if (sscanf(a->value, "%5d:%5d%n", &w, &h, &used) != 2 || a->value[used] || w < 1 || h < 1 || w > 8 * h || h > 8 * w) {
        sm_fail(a->e, SUMI_E_ARG, "--%s: '%.40s' is not of the form 16:9, or further than 8:1", a->name, a->value);
        return;
    }
    int width = r->width ? r->width : a->m->traits.width, height = r->height ? r->height : a->m->traits.height;
    int step = sm_vae_factor(&a->m->vae) * a->m->family->multiple(&a->m->denoiser);
    double area = (double)width * height;
    int grid = area >= 384 * 384 && 64 % step == 0 ? 64 : step;
    r->width = SM_MAX(1, (int)lround(sqrt(area * w / h) / grid)) * grid;
    r->height = SM_MAX(1, (int)lround(sqrt(area * h / w) / grid)) * grid;
}

static void no(asked *a)
{
    const char *old = a->r->negative_prompt;
    char *to = sm_arena_fmt(a->room, "%s%s%s", old, old[0] && a->value[0] ? ", " : "", a->value);
    if (to)
        a->r->negative_prompt = to;
    else
        sm_fail(a->e, SUMI_E_MEMORY, "out of memory for the negative prompt");
}

static void seed(asked *a) { set(a, "seed", a->value); }
static void image(asked *a) { set(a, "init_image", a->value); }
static void repeat(asked *a) { set(a, "count", a->value); }
static void tile(asked *a) { set(a, "tile", a->value[0] ? a->value : "both"); }

/* Guidance fixes a composition at the highest noise levels: without it there, seeds differ more (Kynkaanniemi et al. 2024). */
static void chaos(asked *a) { a->r->guidance_start = (float)(number(a, 0, 100) / 200); }

/* 100 changes nothing, less keeps to the words, more lets the model have its way. */
static void stylize(asked *a)
{
    double s = number(a, 0, 1000);
    sumi_request *r = a->r;
    r->cfg_scale = (r->cfg_scale == SUMI_CFG_DEFAULT ? a->m->traits.cfg_scale : r->cfg_scale) * (float)exp2((100 - s) / 600);
}

static void quality(asked *a)
{
    double q = number(a, 0.05, 20);
    int steps = a->r->steps ? a->r->steps : a->m->traits.steps;
    a->r->steps = SM_MAX(1, SM_MIN(1000, (int)lround(steps * q)));
}

/* 1 is the usual strength 0.75. */
static void image_weight(asked *a) { a->r->strength = (float)(1 - number(a, 0, 3) / 4); }

static void nothing(asked *a) {}

static const struct { const char *name; void (*apply)(asked *a); bool bare; } suffixes[] = {
    {"ar", aspect, false}, {"aspect", aspect, false}, {"no", no, false}, {"seed", seed, false}, {"sameseed", seed, false},
    {"chaos", chaos, false}, {"c", chaos, false}, {"stylize", stylize, false}, {"s", stylize, false}, {"quality", quality, false},
    {"q", quality, false}, {"tile", tile, true}, {"image", image, false}, {"iw", image_weight, false}, {"repeat", repeat, false},
    {"r", repeat, false},
    /* Midjourney's own models and queues */
    {"v", nothing, true}, {"version", nothing, true}, {"niji", nothing, true}, {"style", nothing, true}, {"raw", nothing, true},
    {"fast", nothing, true}, {"relax", nothing, true}, {"turbo", nothing, true}, {"draft", nothing, true},
    {"stealth", nothing, true},
    {"public", nothing, true},
};

static void apply(asked *a)
{
    for (size_t i = 0; i < SM_COUNT(suffixes); i++)
        if (!strcasecmp(a->name, suffixes[i].name)) {
            if (!a->value[0] && !suffixes[i].bare)
                sm_fail(a->e, SUMI_E_ARG, "--%s in the prompt needs a value", a->name);
            else
                suffixes[i].apply(a);
            return;
        }
    const sumi_param_info *p = sm_param_find(a->name);
    if (p && !strcmp(p->name, "prompt"))
        p = NULL;
    if (!p || !a->value[0])
        sm_fail(a->e, SUMI_E_ARG, p ? "--%.40s in the prompt needs a value"
                                    : "--%.40s in the prompt is unknown: --ar 16:9, --no, --seed, --chaos, --stylize, "
                "--quality, --tile, --image, --iw, --repeat, or a flag of `sumi generate --help`", a->name);
    else
        sm_param_set(p, a->r, a->value, a->e);
}

/* Copies of all texts of r in one block, to which they point then. NULL when memory is out. */
static char *own_texts(sumi_request *r, sm_mem *mem)
{
    size_t rows, bytes = 1, at = 0;
    const sumi_param_info *p = sumi_params(&rows);
    for (size_t i = 0; i < rows; i++)
        bytes += p[i].type == SUMI_PARAM_TEXT ? strlen(sm_param_text(&p[i], r)) + 1 : 0;
    char *to = sm_alloc(mem, SM_MEM_MISC, bytes);
    for (size_t i = 0; to && i < rows; i++) {
        if (p[i].type != SUMI_PARAM_TEXT)
            continue;
        const char **field = (const char **)((char *)r + p[i].offset);
        size_t n = strlen(*field) + 1;
        *field = memcpy(to + at, *field, n);
        at += n;
    }
    return to;
}

sumi_status sumi_request_midjourney(sumi_context *ctx, const sumi_model *m, sumi_request *r, char **texts)
{
    sm_err *e = sm_begin(ctx);
    sm_arena room;
    sumi_request changed = *r;
    sm_suffix *s;
    char *text;
    int n;
    *texts = NULL;
    sm_arena_init(&room, &ctx->mem, SM_MEM_MISC);
    if (!sm_suffixes_split(r->prompt, &room, &text, &s, &n, e) && n) {
        changed.prompt = text;
        for (int i = 0; i < n && !e->code; i++) {
            asked a = {m, &changed, &room, s[i].name, s[i].value, e};
            apply(&a);
        }
        if (!e->code && !(*texts = own_texts(&changed, &ctx->mem)))
            sm_fail(e, SUMI_E_MEMORY, "out of memory for the texts of a request");
        if (*texts)
            *r = changed;
    }
    sm_arena_free(&room);
    return e->code;
}
