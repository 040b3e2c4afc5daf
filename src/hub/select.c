/* Which files of a repository sumi needs. A folder in diffusers' layout (model_index.json): the components' configurations,
 * tokenizers and one set of weights each. A component alone (config.json beside weights): the same for the root. Otherwise the
 * single-file checkpoint, if there is but one. Which set of weights: io/weight_files.h, as when the folder is loaded. */
#include <ctype.h>
#include <fnmatch.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "hub/listing.h"
#include "io/weight_files.h"

static const char *const folders[] = {"text_encoder", "text_encoder_2", "text_encoder_3", "tokenizer", "tokenizer_2",
                                      "tokenizer_3",
                                      "unet", "transformer", "vae", "scheduler"};
static const char *const single[] = {"safetensors", "gguf", "ckpt", "pt", "pth", "bin"}; /* in order of preference */

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && !strcmp(s + n - m, end);
}

static const char *extension(const char *path)
{
    const char *dot = strrchr(path, '.');
    return dot && !strchr(dot, '/') ? dot + 1 : "";
}

/* ---- a component's weights ----------------------------------------------------------------------------------------- */

/* The file's name below folder ("" is the root), NULL when it is not directly in it. */
static const char *inside(const char *path, const char *folder)
{
    size_t n = strlen(folder);
    if (n && (strncmp(path, folder, n) || path[n] != '/'))
        return NULL;
    path += n ? n + 1 : 0;
    return strchr(path, '/') ? NULL : path;
}

static bool is_config(const char *file)
{
    const char *x = extension(file);
    return !strcmp(x, "json") || !strcmp(x, "txt") || !strcmp(x, "model");
}

/* Marks a component's files; *has becomes true when it has the wanted variant. */
static void take_component(sm_listing *l, const char *folder, const char *variant, bool *has)
{
    sm_wf_name w, best = {0};
    bool any = false;
    for (size_t i = 0; i < l->n; i++) {
        const char *file = inside(l->at[i].path, folder);
        if (!file || !sm_wf_read(file, &w) || !sm_wf_counts(&w) || (any && !sm_wf_better(&w, &best, variant)))
            continue;
        any = true;
        best = w;
    }
    *has |= any && sm_wf_rank(&best, variant) >= SM_WF_WANTED;
    for (size_t i = 0; i < l->n; i++) {
        const char *file = inside(l->at[i].path, folder);
        bool weights = file && sm_wf_read(file, &w);
        if (weights)
            l->at[i].taken |= any && sm_wf_same_set(&w, &best);
        else if (file)
            l->at[i].taken |= is_config(file) && !strstr(file, ".index.");
    }
}

/* ---- single files -------------------------------------------------------------------------------------------------- */

/* "fp16" as a word of "sd_xl_base_1.0.fp16.safetensors" or "model-fp16.ckpt". */
static bool has_word(const char *path, const char *word)
{
    size_t n = strlen(word);
    for (const char *s = strcasestr(path, word); s; s = strcasestr(s + 1, word))
        if ((s == path || !isalnum((unsigned char)s[-1])) && !isalnum((unsigned char)s[n]))
            return true;
    return false;
}

/* Candidates of one extension, marked. *first names some of them. */
static size_t take_single(sm_listing *l, const char *ext, const char *variant, char *names, size_t size)
{
    size_t n = 0, at = 0;
    for (size_t i = 0; i < l->n; i++) {
        sm_hub_file *f = &l->at[i];
        f->taken = !strcasecmp(extension(f->path), ext) && (!variant || has_word(f->path, variant));
        if (!f->taken)
            continue;
        if (n < 3 && at < size)
            at += (size_t)snprintf(names + at, size - at, "%s%.60s", n ? ", " : "", f->path);
        n++;
    }
    return n;
}

static sumi_status select_single(sm_listing *l, const sm_hub_wish *w, const char *label, sm_err *e)
{
    char names[240] = "";
    size_t n = 0;
    for (size_t k = 0; k < SM_COUNT(single) && !n; k++)
        n = take_single(l, single[k], w->variant, names, sizeof names);
    if (!n)
        return sm_fail(e, SUMI_E_MODEL, "%s has no model that sumi reads (neither model_index.json nor .safetensors, .gguf, "
                       ".ckpt%s%s); --include PATTERN takes other files", label, w->variant ? "; variant " : "",
                       w->variant ? w->variant : "");
    if (n > 1)
        return sm_fail(e, SUMI_E_ARG, "%s holds %zu models (%s%s): name one, as in %s/FILE, or say --include PATTERN", label, n,
                       names,
                       n > 3 ? ", ..." : "", label);
    return SUMI_OK;
}

/* ---- the wish ------------------------------------------------------------------------------------------------------ */

/* Whether a path matches one of the patterns between commas. */
static bool matches(const char *path, const char *patterns)
{
    char one[256];
    while (patterns && *patterns) {
        size_t n = strcspn(patterns, ",");
        if (n && n < sizeof one) {
            memcpy(one, patterns, n);
            one[n] = 0;
            if (!fnmatch(one, path, 0) || (ends_with(one, "/") && !strncmp(one, path, n)))
                return true;
        }
        patterns += n + (patterns[n] == ',');
    }
    return false;
}

static sumi_status select_folder(sm_listing *l, const sm_hub_wish *w, const char *label, sm_err *e)
{
    bool has = false;
    sm_hub_file *index = sm_listing_find(l, "model_index.json");
    if (index) {
        index->taken = true;
        for (size_t i = 0; i < SM_COUNT(folders); i++)
            take_component(l, folders[i], w->variant, &has);
    } else {
        take_component(l, "", w->variant, &has);
    }
    if (w->variant && !has)
        return sm_fail(e, SUMI_E_ARG, "%s has no weights of the variant '%.40s'; without --variant it takes the ones there are",
                       label, w->variant);
    return SUMI_OK;
}

static bool root_weights(const sm_listing *l)
{
    sm_wf_name w;
    for (size_t i = 0; i < l->n; i++)
        if (!strchr(l->at[i].path, '/') && sm_wf_read(l->at[i].path, &w))
            return true;
    return false;
}

sumi_status sm_listing_select(sm_listing *l, const sm_hub_wish *w, const char *label, sm_err *e)
{
    size_t n = 0;
    for (size_t i = 0; i < l->n; i++)
        l->at[i].taken = false;
    if (w->path[0]) {
        sm_hub_file *f = sm_listing_find(l, w->path);
        if (!f)
            return sm_fail(e, SUMI_E_ARG, "%s has no file '%.200s'", label, w->path);
        f->taken = true;
        return SUMI_OK;
    }
    if (w->include && w->include[0])
        for (size_t i = 0; i < l->n; i++)
            l->at[i].taken = matches(l->at[i].path, w->include);
    else if (sm_listing_find(l, "model_index.json") || (sm_listing_find(l, "config.json") && root_weights(l)))
        select_folder(l, w, label, e);
    else
        select_single(l, w, label, e);
    for (size_t i = 0; i < l->n && !e->code; i++) {
        l->at[i].taken &= !matches(l->at[i].path, w->exclude);
        n += l->at[i].taken;
    }
    if (!n && !e->code)
        return sm_fail(e, SUMI_E_ARG, "%s: no file is left to take after --include and --exclude; it has %zu", label, l->n);
    return e->code;
}
