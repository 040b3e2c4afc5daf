/* What a picture file says of its making: A1111's infotext, which most programs write, and the graphs that ComfyUI keeps in PNG
 * texts "prompt" (what ran) and "workflow" (what was on the screen), in WebP as EXIF's Make and Model. */
#include <stdio.h>
#include <string.h>

#include "io/image.h"
#include "io/json.h"
#include "pipeline/infotext.h"
#include "pipeline/params.h"

typedef struct facts {
    const char *path;
    sm_image im;
    sumi_infotext *info;             /* NULL: there is no infotext */
    const char *infotext;
    const char *graph, *workflow;    /* ComfyUI's, NULL: none */
} facts;

/* A text by its PNG key or, behind "key:", in one of EXIF's. */
static const char *comfy_text(const sm_image *im, const char *key)
{
    static const char *const exif[] = {"Make", "Model", "Description"};
    const char *t = sm_image_text_find(im, key);
    size_t n = strlen(key);
    for (size_t i = 0; !t && i < SM_COUNT(exif); i++) {
        const char *x = sm_image_text_find(im, exif[i]);
        t = x && !strncmp(x, key, n) && x[n] == ':' ? x + n + 1 : NULL;
    }
    return t && t[strspn(t, " \t\n")] == '{' ? t : NULL;
}

static sumi_status read_facts(facts *f, const char *path, sm_mem *mem, sm_err *e)
{
    *f = (facts){.path = path};
    if (sm_image_load(&f->im, path, mem, e))
        return e->code;
    f->graph = comfy_text(&f->im, "prompt");
    f->workflow = comfy_text(&f->im, "workflow");
    f->infotext = sm_image_text_find(&f->im, "parameters");
    if (f->infotext && f->infotext[0])
        sm_infotext_read(mem, f->infotext, &f->info, e);
    return e->code;
}

static void free_facts(facts *f)
{
    sumi_infotext_free(f->info);
    sm_image_free(&f->im);
}

/* ---- for people ------------------------------------------------------------------------------------------------------ */

static void put_input(const cJSON *v, sm_buf *b)
{
    if (cJSON_IsArray(v) && cJSON_GetArraySize(v) == 2 && cJSON_IsString(v->child)) /* a link: the node it comes from */
        sm_buf_fmt(b, " %s <- %s", v->string, v->child->valuestring);
    else if (cJSON_IsString(v))
        sm_buf_fmt(b, " %s \"%s\"", v->string, v->valuestring);
    else if (cJSON_IsNumber(v))
        sm_buf_fmt(b, " %s %.15g", v->string, v->valuedouble);
    else if (cJSON_IsBool(v))
        sm_buf_fmt(b, " %s %s", v->string, cJSON_IsTrue(v) ? "true" : "false");
    else
        sm_buf_fmt(b, " %s ...", v->string);
}

static void put_graph(const facts *f, sm_mem *mem, sm_buf *b)
{
    sm_err why = {0};
    cJSON *root = f->graph ? sm_json_parse(mem, f->graph, strlen(f->graph), 32, 1 << 20, "ComfyUI's graph", &why) : NULL;
    sm_buf_fmt(b, "ComfyUI's graph%s\n", !f->graph ? ": only its workflow is here; --json prints it"
                                                   : why.code ? ", which cannot be read" : "");
    for (const cJSON *n = root ? root->child : NULL; n; n = n->next) {
        const cJSON *type = cJSON_GetObjectItemCaseSensitive(n, "class_type"),
                    *in = cJSON_GetObjectItemCaseSensitive(n, "inputs");
        if (!n->string || !cJSON_IsString(type))
            continue;
        sm_buf_fmt(b, "  %s %s:", n->string, type->valuestring);
        for (const cJSON *v = cJSON_IsObject(in) ? in->child : NULL; v; v = v->next)
            put_input(v, b);
        sm_buf_fmt(b, "\n");
    }
    cJSON_Delete(root);
}

static void put_people(const facts *f, sm_mem *mem, sm_buf *b)
{
    const char *sep = "(not understood by sumi: ";
    if (f->info)
        sm_buf_fmt(b, "%s\n", f->infotext);
    for (size_t i = 0; f->info && i < f->info->count; i++)
        if (!f->info->field[i].understood) {
            sm_buf_fmt(b, "%s%s", sep, f->info->field[i].key);
            sep = ", ";
        }
    if (sep[0] == ',')
        sm_buf_fmt(b, ")\n");
    if (f->graph || f->workflow)
        put_graph(f, mem, b);
}

/* ---- for programs ---------------------------------------------------------------------------------------------------- */

static void put_member(sm_buf *b, const char *key, const char *value)
{
    sm_buf_fmt(b, ", ");
    sm_json_put_text(b, key);
    sm_buf_fmt(b, ": ");
    sm_json_put_text(b, value);
}

static bool said_again(const sumi_infotext *t, size_t i)
{
    for (size_t k = i + 1; k < t->count; k++)
        if (!strcmp(t->field[k].key, t->field[i].key))
            return true;
    return false;
}

/* What differs from the default, as a line of --prompts takes it. */
static void put_request(const sumi_request *r, sm_buf *b)
{
    size_t n;
    const sumi_param_info *t = sumi_params(&n);
    const char *sep = "";
    sm_buf_fmt(b, ", \"request\": {");
    for (size_t i = 0; i < n; i++) {
        if (sm_param_is_default(&t[i], r))
            continue;
        sm_buf_fmt(b, "%s\"%s\": ", sep, t[i].name);
        if (t[i].type == SUMI_PARAM_TEXT)
            sm_json_put_text(b, sm_param_text(&t[i], r));
        else
            sm_param_put(&t[i], r, b);
        sep = ", ";
    }
    sm_buf_fmt(b, "}");
}

static void put_info(const sumi_infotext *t, sm_buf *b)
{
    const char *sep = "";
    put_member(b, "prompt", t->request.prompt);
    put_member(b, "negative_prompt", t->request.negative_prompt);
    put_member(b, "model", t->model_name);
    put_member(b, "model_hash", t->model_hash);
    sm_buf_fmt(b, ", \"fields\": {");
    for (size_t i = 0; i < t->count; i++) {
        if (said_again(t, i))
            continue;
        sm_buf_fmt(b, "%s", sep);
        sm_json_put_text(b, t->field[i].key);
        sm_buf_fmt(b, ": ");
        sm_json_put_text(b, t->field[i].value);
        sep = ", ";
    }
    sep = "";
    sm_buf_fmt(b, "}, \"not_understood\": [");
    for (size_t i = 0; i < t->count; i++) {
        if (t->field[i].understood || said_again(t, i))
            continue;
        sm_buf_fmt(b, "%s", sep);
        sm_json_put_text(b, t->field[i].key);
        sep = ", ";
    }
    sm_buf_fmt(b, "]");
    put_request(&t->request, b);
}

static void put_json(const facts *f, sm_buf *b)
{
    const char *program = f->info && !strncmp(f->info->version, "sumi", 4) ? "sumi" : f->info && f->info->count ? "a1111"
                        : f->graph || f->workflow ? "comfyui" : "";
    const char *sep = "";
    bool utf8 = sm_utf8_valid(f->path, strlen(f->path));
    sm_buf_fmt(b, "{\"file\": ");
    sm_json_put_text(b, utf8 ? f->path : "");
    sm_buf_fmt(b, ", \"width\": %d, \"height\": %d, \"program\": \"%s\"", f->im.width, f->im.height, program);
    if (f->info)
        put_info(f->info, b);
    sm_buf_fmt(b, ", \"texts\": {");
    for (int i = 0; i < f->im.ntext; i++) {
        if (sm_image_text_find(&f->im, f->im.text[i].key) != f->im.text[i].value) /* a key's first text counts */
            continue;
        sm_buf_fmt(b, "%s", sep);
        sm_json_put_text(b, f->im.text[i].key);
        sm_buf_fmt(b, ": ");
        sm_json_put_text(b, f->im.text[i].value);
        sep = ", ";
    }
    sm_buf_fmt(b, "}}\n");
}

sumi_status sumi_picture_info(sumi_context *ctx, const char *path, int json, int *found, char **out)
{
    sm_err *e = sm_begin(ctx);
    facts f;
    sm_buf b = {.mem = &ctx->mem};
    *out = NULL;
    *found = 0;
    if (!read_facts(&f, path, &ctx->mem, e)) {
        sm_buf_fmt(&b, "%s", "");
        *found = f.info || f.graph || f.workflow;
        if (json)
            put_json(&f, &b);
        else
            put_people(&f, &ctx->mem, &b);
        if (b.oom) {
            sm_buf_free(&b);
            sm_fail(e, SUMI_E_MEMORY, "out of memory for %s", path);
        }
        *out = b.data;
    }
    free_facts(&f);
    return e->code;
}
