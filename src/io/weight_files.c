/* Names of weights' files and the choice among them (see weight_files.h). */
#include "io/weight_files.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const bases[] = {"diffusion_pytorch_model", "model", "pytorch_model"};

/* ---- names --------------------------------------------------------------------------------------------------------- */

/* Length of "-00001-of-00002" at s, 0 for anything else. */
static size_t read_shard(const char *s, sm_wf_name *n)
{
    size_t a = *s == '-' ? strspn(s + 1, "0123456789") : 0;
    size_t b = a && !strncmp(s + 1 + a, "-of-", 4) ? strspn(s + 5 + a, "0123456789") : 0;
    if (!b || a > 6 || b > 6)
        return 0;
    n->shard = atoi(s + 1);
    n->shards = atoi(s + 5 + a);
    return n->shard >= 1 && n->shard <= n->shards ? 5 + a + b : 0;
}

static bool is(const char *s, size_t k, const char *word) { return strlen(word) == k && !strncmp(s, word, k); }

/* One word between dots, after BASE. kind: .safetensors or .bin was met; end: nothing may follow. */
static bool read_word(const char *s, size_t k, sm_wf_name *n, bool *kind)
{
    if (is(s, k, "safetensors") || is(s, k, "bin")) {
        n->safetensors = *s == 's';
        return !*kind && (*kind = true);
    }
    if (is(s, k, "index") && *kind && !n->index)
        return n->index = true;
    if (is(s, k, "json"))
        return n->index && !s[k];
    bool place = !*kind || n->index; /* "model.safetensors.index.fp16.json" */
    if (n->variant[0] || k >= sizeof n->variant || !place)
        return false;
    memcpy(n->variant, s, k);
    return true;
}

bool sm_wf_read(const char *file, sm_wf_name *n)
{
    size_t at = 0;
    bool kind = false;
    *n = (sm_wf_name){.base = -1};
    for (size_t i = 0; i < SM_COUNT(bases) && !at; i++) {
        size_t k = strlen(bases[i]);
        at = !strncmp(file, bases[i], k) && (file[k] == '.' || file[k] == '-') ? k : 0;
        n->base = (int)i;
    }
    for (const char *s = file + at; at && *s;) {
        size_t shard = n->shards || kind ? 0 : read_shard(s, n), k = *s == '.' ? strcspn(s + 1, ".-") : 0;
        if (!shard && (!k || !read_word(s + 1, k, n, &kind)))
            return false;
        s += shard ? shard : 1 + k;
    }
    return at && kind && (!n->index || !strcmp(file + strlen(file) - 5, ".json"));
}

bool sm_wf_counts(const sm_wf_name *n) { return !n->index || n->safetensors; }

int sm_wf_rank(const sm_wf_name *n, const char *variant)
{
    static const struct { const char *variant; int bin, safetensors; } ranks[] = {{"", 7, 8}, {"fp16", 4, 6}, {"bf16", 3, 5}};
    if (variant && !strcmp(n->variant, variant))
        return SM_WF_WANTED + n->safetensors;
    for (size_t i = 0; i < SM_COUNT(ranks); i++)
        if (!strcmp(n->variant, ranks[i].variant))
            return n->safetensors ? ranks[i].safetensors : ranks[i].bin;
    return 1 + n->safetensors;
}

static bool several(const sm_wf_name *n) { return n->shards || n->index; }

bool sm_wf_better(const sm_wf_name *a, const sm_wf_name *b, const char *variant)
{
    int by[] = {sm_wf_rank(a, variant) - sm_wf_rank(b, variant), b->base - a->base, several(b) - several(a),
                strcmp(b->variant, a->variant), a->index - b->index, b->shards - a->shards, b->shard - a->shard};
    for (size_t i = 0; i < SM_COUNT(by); i++)
        if (by[i])
            return by[i] > 0;
    return false;
}

bool sm_wf_same_set(const sm_wf_name *a, const sm_wf_name *b)
{
    return a->safetensors == b->safetensors && a->base == b->base && several(a) == several(b) && !strcmp(a->variant, b->variant);
}

/* ---- a folder ------------------------------------------------------------------------------------------------------ */

/* The name of shard k of n's set; where the variant stands is told by n's own name. */
static const char *shard_path(sm_wf_set *s, const char *folder, const char *file, const sm_wf_name *n, int k)
{
    const char *dash = strchr(file + strlen(bases[n->base]), '-'), *of = strstr(dash, "-of-");
    return sm_arena_fmt(&s->arena, "%s/%.*s-%0*d%s", folder, (int)(dash - file), file, (int)(of - dash) - 1, k, of);
}

static sumi_status no_memory(const char *folder, sm_err *e)
{
    return sm_fail(e, SUMI_E_MEMORY, "%s: out of memory for its list of files", folder);
}

/* file is the best of the folder: an index of safetensors stands for its set, shards are all listed. */
static sumi_status take(sm_wf_set *s, const char *folder, const char *file, const sm_wf_name *n, sm_err *e)
{
    if (n->shards > SM_WF_MOST)
        return sm_fail(e, SUMI_E_FORMAT, "%s/%s: one of more than %d files", folder, file, SM_WF_MOST);
    s->n = SM_MAX(n->shards, 1);
    for (int k = 0; k < s->n; k++) {
        s->path[k] = n->shards ? shard_path(s, folder, file, n, k + 1) : sm_arena_fmt(&s->arena, "%s/%s", folder, file);
        if (!s->path[k])
            return no_memory(folder, e);
        if (n->shards && access(s->path[k], F_OK))
            return sm_fail(e, SUMI_E_FILE, "%s is missing, one of %d files", s->path[k], n->shards);
    }
    return SUMI_OK;
}

sumi_status sm_wf_find(const char *folder, sm_mem *mem, sm_wf_set *out, sm_err *e)
{
    char best[260] = "";
    sm_wf_name n, top = {0};
    out->n = 0;
    sm_arena_init(&out->arena, mem, SM_MEM_MISC);
    DIR *d = opendir(folder);
    if (!d)
        return sm_fail(e, errno == ENOENT ? SUMI_E_MODEL : SUMI_E_FILE, "cannot open %s: %s", folder, strerror(errno));
    for (struct dirent *x; (x = readdir(d));)
        if (strlen(x->d_name) < sizeof best && sm_wf_read(x->d_name, &n) && sm_wf_counts(&n) &&
            (!best[0] || sm_wf_better(&n, &top, NULL))) {
            strcpy(best, x->d_name);
            top = n;
        }
    closedir(d);
    if (!best[0])
        return sm_fail(e, SUMI_E_MODEL, "%s: no weights (diffusion_pytorch_model.safetensors, model.safetensors, their .bin or "
                       "fp16 forms, their shards)", folder);
    return take(out, folder, best, &top, e);
}

void sm_wf_free(sm_wf_set *s) { sm_arena_free(&s->arena); }
