/* Latents in files (see latents.h). */
#include "pipeline/latents.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "io/tensors.h"
#include "sample/sampler.h"

/* [n, c, h, w] to [n, h, w, c]. */
static void to_last(const float *x, int n, int c, int hw, float *out)
{
    for (int k = 0; k < n; k++)
        for (int i = 0; i < hw; i++)
            for (int q = 0; q < c; q++)
                out[((int64_t)k * hw + i) * c + q] = x[((int64_t)k * c + q) * hw + i];
}

static sumi_status read_from(const sm_weights *w, const sm_job *j, int h, int wd, int c, float *out, sm_err *e)
{
    const char *path = j->r.init_latents;
    const sm_weight *x = sm_weights_find(w, "latents");
    if (!x)
        return sm_fail(e, SUMI_E_FORMAT, "--init-latents: %s holds no tensor 'latents'", path);
    const int64_t *d = x->t.dims;
    int64_t at = j->r.init_latents_at, n = at + j->r.count;
    if (x->t.dtype != SM_F32 || x->t.rank != 4 || d[0] < n || d[1] != c || d[2] != h || d[3] != wd)
        return sm_fail(e, SUMI_E_FORMAT,
                       "--init-latents: %s: 'latents' must be f32 of shape [%lld, %d, %d, %d] (pictures, channels, height/%d, "
                       "width/%d) for this request", path, (long long)n, c, h, wd, j->r.height / h, j->r.width / wd);
    const float *v = (const float *)x->t.data + at * c * h * wd;
    for (int64_t i = 0; i < (int64_t)j->r.count * c * h * wd; i++)
        if (v[i] - v[i] != 0)
            return sm_fail(e, SUMI_E_NUMERIC, "--init-latents: %s: 'latents' holds NaN or infinity", path);
    to_last(v, j->r.count, c, h * wd, out);
    return SUMI_OK;
}

sumi_status sm_latents_read(const sm_job *j, int h, int w, int c, float *out, sm_err *e)
{
    sm_weights *t = sm_weights_new(j->mem, e);
    if (t && !sm_tensors_load(j->r.init_latents, t, NULL, j->mem, e))
        read_from(t, j, h, w, c, out, e);
    sm_weights_unref(&t);
    return e->code;
}

/* Said before the work rather than after it, which would be lost. */
static sumi_status check_folder(const char *path, const char *flag, sm_err *e)
{
    const char *slash = strrchr(path, '/');
    char folder[4096];
    int n = !slash ? snprintf(folder, sizeof folder, ".")
                   : snprintf(folder, sizeof folder, "%.*s", (int)(slash - path) + 1, path);
    if (n < (int)sizeof folder && access(folder, W_OK | X_OK))
        return sm_fail(e, SUMI_E_FILE, "--%s: %.300s: the folder cannot be written to: %s", flag, path, strerror(errno));
    return SUMI_OK;
}

sumi_status sm_kept_open(sm_kept *k, const sm_job *j, const char *flag, int h, int w, int c, sm_err *e)
{
    *k = (sm_kept){.count = j->r.count, .h = h, .w = w, .c = c, .first = j->r.save_steps ? 0 : j->r.steps};
    k->blocks = j->r.steps + 1 - k->first;
    if (!j->r.save_latents[0])
        return SUMI_OK;
    if (j->r.save_steps && sm_sampler_find(j->r.sampler)->alone)
        return sm_fail(e, SUMI_E_ARG,
                       "--save-steps: %s takes another number of steps for each picture; without it the result is kept",
                       j->r.sampler);
    if (check_folder(j->r.save_latents, flag, e))
        return e->code;
    k->all = sm_alloc(j->mem, SM_MEM_DATA,
                      sizeof(float) * (size_t)k->blocks * (size_t)k->count * (size_t)h * (size_t)w * (size_t)c);
    return k->all ? SUMI_OK : sm_fail(e, SUMI_E_MEMORY, "out of memory for the latents of %d steps", k->blocks);
}

void sm_kept_close(sm_kept *k) { sm_free(k->all); }

void sm_kept_put(sm_kept *k, int step, int first, int n, const float *x)
{
    int64_t hw = (int64_t)k->h * k->w, each = hw * k->c;
    int block = step - k->first;
    if (!k->all || block < 0 || block >= k->blocks)
        return;
    if (block < k->blocks - 1)
        k->moves = SM_MAX(k->moves, block + 1);
    float *to = k->all + ((int64_t)block * k->count + first) * each;
    for (int p = 0; p < n; p++)
        for (int64_t i = 0; i < hw; i++)
            for (int q = 0; q < k->c; q++)
                to[p * each + q * hw + i] = x[p * each + i * k->c + q];
}

sumi_status sm_kept_write(const sm_kept *k, const sm_job *j, sm_err *e)
{
    if (!k->all)
        return SUMI_OK;
    int64_t block = (int64_t)k->count * k->c * k->h * k->w;
    sm_st_item *item = sm_alloc0(j->mem, SM_MEM_MISC, sizeof *item * (size_t)k->blocks);
    char (*name)[24] = sm_alloc(j->mem, SM_MEM_MISC, sizeof *name * (size_t)k->blocks);
    for (int i = 0; item && name && i <= k->moves; i++) {
        bool result = i == k->moves;
        float *data = k->all + (result ? k->blocks - 1 : i) * block;
        snprintf(name[i], sizeof name[i], result ? "latents" : "latents.%d", i);
        item[i] = (sm_st_item){.name = name[i],
                               .t = {.dtype = SM_F32, .rank = 4, .dims = {k->count, k->c, k->h, k->w}, .data = data}};
    }
    if (item && name)
        sm_st_write(j->r.save_latents, (size_t)k->moves + 1, item, 0, NULL, j->mem, e);
    else
        sm_fail(e, SUMI_E_MEMORY, "out of memory writing %s", j->r.save_latents);
    sm_free(item);
    sm_free(name);
    return e->code;
}
