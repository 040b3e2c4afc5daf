/* What the parts of a request share: progress, cancelling, options of plans, giving memory back between components. */
#include <stdio.h>
#include <string.h>

#include "pipeline/classify.h"
#include "pipeline/edit.h"

void sm_part_close(sm_part *p)
{
    sm_plan_free(p->p);
    sm_graph_free(p->g);
    *p = (sm_part){0};
}

size_t sm_job_held(const sm_job *j)
{
    return __atomic_load_n(&j->mem->total, __ATOMIC_RELAXED) + __atomic_load_n(&j->mem->kept, __ATOMIC_RELAXED);
}

void sm_job_done(sm_job *j)
{
    sm_edit_free(j->edit);
    j->edit = NULL;
    if (j->refiner && j->refiner->bpe == j->m->bpe)
        j->refiner->bpe = NULL; /* borrowed */
    sumi_model_free(j->refiner);
    j->refiner = NULL;
    sm_classify_free(j->classify);
    j->classify = NULL;
    sm_free(j->sigmas);
    j->sigmas = NULL;
}

const int *sm_job_cancel(const sm_job *j) { return j->cb ? j->cb->cancel : NULL; }

void sm_job_tell(const sm_job *j, const char *stage, int64_t step, int64_t steps, double eta)
{
    if (!j->cb || !j->cb->progress)
        return;
    sumi_progress p = {.stage = stage, .step = step, .steps = steps, .seconds = sm_now() - j->started, .eta = eta};
    j->cb->progress(j->cb->user, &p);
}

sm_plan_opts sm_job_plan_opts(const sm_job *j)
{
    return (sm_plan_opts){.packed = j->m->low_memory ? 0 : SM_PACKED_USUAL, .drop_pages = j->m->low_memory};
}

size_t sm_job_mapped(const sumi_model *m, const char *prefix)
{
    size_t n = 0;
    for (size_t i = 0; i < sm_weights_count(m->w); i++) {
        const sm_weight *w = sm_weights_at(m->w, i);
        n += w->mapped && (!prefix || !strncmp(w->name, prefix, strlen(prefix))) ? w->bytes : 0;
    }
    return n;
}

/* Below this nothing is given back between components. */
enum { LARGE_MODEL = 256 << 20 };

bool sm_job_large(const sumi_model *m) { return sm_job_mapped(m, NULL) > LARGE_MODEL; }

void sm_job_release(const sm_job *j, const char *component)
{
    char prefix[64];
    snprintf(prefix, sizeof prefix, "%s.", component);
    if (sm_job_large(j->m))
        sm_weights_drop(j->m->w, prefix);
}

nn_scope sm_job_scope(const sm_job *j, sm_graph *g, const char *component)
{
    nn_scope root = nn_root(g, j->m->w, NULL), s = nn_sub(&root, "%s", component);
    s.circular[0] = j->circular[0];
    s.circular[1] = j->circular[1];
    return s;
}
