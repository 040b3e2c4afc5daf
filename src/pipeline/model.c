/* Models as the public calls see them: opening what a path holds, releasing. */
#include "pipeline/model.h"

#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "graph/packs.h"
#include "hub/hub.h"
#include "hub/name.h"
#include "pipeline/builtin.h"
#include "pipeline/generate.h"
#include "pipeline/origin.h"
#include "pipeline/tiny.h"

static sumi_status check_vocabulary(const sumi_model *m, const char *path, sm_err *e)
{
    for (int i = 0; i < m->traits.texts; i++)
        if (sm_bpe_size(m->bpe) > m->traits.text[i].clip.vocab_size)
            return sm_fail(e, SUMI_E_MODEL, "%s: the tokenizer has %d tokens, the %s's vocab_size is %d", path,
                           (int)sm_bpe_size(m->bpe), m->traits.text[i].component, m->traits.text[i].clip.vocab_size);
    return SUMI_OK;
}

static void summarise(sumi_model *m)
{
    double n = 0;
    for (size_t i = 0; i < sm_weights_count(m->w); i++) {
        const sm_tensor *t = &sm_weights_at(m->w, i)->t;
        double c = 1;
        for (int d = 0; d < t->rank; d++)
            c *= (double)t->dims[d];
        n += c;
    }
    snprintf(m->summary, sizeof m->summary, "%s: %s, %s, %.1f M parameters, %dx%d%s%s", m->name, m->traits.label,
             m->family->class_name, n / 1e6,
             m->traits.width, m->traits.height, m->traits.assumed ? ", assumed " : "",
             m->traits.assumed ? m->traits.prediction : "");
}

static sumi_status open_path(sumi_model *m, const sumi_model_options *o, bool words, sm_err *e)
{
    struct stat st;
    bool folder = !stat(o->path, &st) && S_ISDIR(st.st_mode);
    if ((folder ? sm_open_folder : sm_open_file)(m, o, e) || sm_parts_config(m, o, e) || (words && sm_open_tokenizer(m, o, e)))
        return e->code;
    if (sm_components_fit(m->family, &m->denoiser, &m->traits, &m->vae, o->path, e) || !words)
        return e->code;
    bool encoder = m->traits.extra == SM_EXTRA_INPAINT; /* sees a picture even where none is given */
    return check_vocabulary(m, o->path, e) ? e->code : sm_model_complete(m, encoder, o->path, e);
}

sumi_status sm_model_find_pulled(const char **path, sm_mem *mem, char *found, size_t size, sm_err *e)
{
    if (!access(*path, F_OK) || !sm_hub_is_name(*path) || sm_hub_find(*path, mem, found, size, e))
        return e->code;
    *path = found;
    return SUMI_OK;
}

sumi_status sm_model_open(sumi_model **out, sm_mem *mem, const sumi_model_options *o, bool words, sm_err *e)
{
    char found[4096];
    sumi_model_options given = *o;
    *out = NULL;
    if (o->path ? sm_model_find_pulled(&given.path, mem, found, sizeof found, e) : sm_builtin_find(found, sizeof found, e))
        return e->code;
    given.path = o->path ? given.path : found;
    sumi_model *m = sm_alloc0(mem, SM_MEM_WEIGHT, sizeof *m);
    if (!m)
        return sm_fail(e, SUMI_E_MEMORY, "out of memory opening %s", given.path);
    m->mem = mem;
    m->low_memory = o->low_memory;
    m->w = sm_weights_new(mem, e);
    m->origin = sm_origin_new(o, given.path, mem, e);
    if (m->w && m->origin && !open_path(m, &given, words, e) && !(o->taesd && sm_tiny_load(m, o->taesd, e))) {
        summarise(m);
        sm_packs_keep(sm_weights_packs(m->w), m->low_memory || sm_job_large(m) ? 0 : SM_PACKED_USUAL);
        *out = m;
    } else {
        sumi_model_free(m);
    }
    return e->code;
}

void sumi_model_free(sumi_model *m)
{
    if (!m)
        return;
    sm_weights_unref(&m->w);
    sm_bpe_free(m->bpe);
    sm_tiny_free(m->tiny);
    sm_free(m->trained_betas);
    sm_origin_free(m->origin);
    sm_free(m);
}

const char *sumi_model_hash(const sumi_model *m) { return m->origin ? sm_origin_hash(m->origin) : ""; }
