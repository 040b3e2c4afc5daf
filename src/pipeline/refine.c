/* The hand-over to a refiner (see refine.h). */
#include "pipeline/refine.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "pipeline/origin.h"

static sumi_status check(const sumi_model *a, const sumi_model *b, const char *name, sm_err *e)
{
    if (b->family->kind != SM_MODEL_UNET || b->traits.extra != SM_EXTRA_NONE)
        return sm_fail(e, SUMI_E_SUPPORT, "--refiner: %s is %s; a UNet that takes latents and text is needed", name,
                       b->traits.label);
    if (a->vae.latent_channels != b->vae.latent_channels || sm_vae_factor(&a->vae) != sm_vae_factor(&b->vae) ||
        a->vae.scaling_factor != b->vae.scaling_factor || strcmp(a->traits.prediction, b->traits.prediction))
        return sm_fail(e, SUMI_E_ARG, "--refiner: %s has other latents or another prediction than the model it would go on from",
                       name);
    for (int i = 0; i < b->traits.texts; i++)
        if (b->traits.text[i].clip.vocab_size != a->traits.text[0].clip.vocab_size)
            return sm_fail(e, SUMI_E_ARG, "--refiner: %s has another vocabulary than the model", name);
    return SUMI_OK;
}

/* A1111's infotexts say "NAME [HASH]", eight or ten digits, whatever folder the file is in: its length without the hash; 0 for
 * others. */
static size_t titled(const char *name)
{
    size_t n = strlen(name), at = n;
    while (at && name[at - 1] != '[')
        at--;
    size_t digits = strspn(name + at, "0123456789abcdef");
    return at > 2 && name[at - 2] == ' ' && (digits == 8 || digits == 10) && at + digits + 1 == n &&
           name[n - 1] == ']' ? at - 2 : 0;
}

/* The file of such a name beside the model, into path. */
static sumi_status find_titled(const sm_job *j, size_t n, char *path, size_t size, sm_err *e)
{
    static const char *const ends[] = {".safetensors", ".ckpt"};
    const char *file = j->m->origin ? sm_origin_file(j->m->origin) : NULL, *slash = file ? strrchr(file, '/') : NULL;
    for (size_t i = 0; file && i < SM_COUNT(ends); i++) {
        int len = snprintf(path, size, "%.*s%.*s%s", slash ? (int)(slash - file) + 1 : 0, file, (int)n, j->r.refiner, ends[i]);
        if (len > 0 && (size_t)len < size && !access(path, R_OK))
            return SUMI_OK;
    }
    return sm_fail(e, SUMI_E_FILE,
                   "--refiner: '%.200s' is A1111's name of a checkpoint, and beside the model there is no %.*s.safetensors or "
                   ".ckpt; "
                   "say where it is: --refiner FILE", j->r.refiner, (int)SM_MIN(n, (size_t)200), j->r.refiner);
}

sumi_status sm_refine_load(sm_job *j, sm_err *e)
{
    const char *name = j->r.refiner;
    char found[4096];
    size_t n = access(name, F_OK) ? titled(name) : 0;
    sumi_model_options o = {.path = n ? found : name, .low_memory = j->m->low_memory};
    sm_err why = {0};
    if (!name[0])
        return SUMI_OK;
    if (n && find_titled(j, n, found, sizeof found, e))
        return e->code;
    if (sm_model_open(&j->refiner, j->mem, &o, false, &why))
        return sm_fail(e, why.code, "--refiner: %s", why.msg);
    const char *hash = n && j->refiner->origin ? sm_origin_hash(j->refiner->origin) : "";
    if (n && strlen(name) - n == strlen(" [0123456789]") && strncmp(hash, name + n + 2, 10))
        return sm_fail(e, SUMI_E_ARG,
                       "--refiner: %.300s has the hash %s, not that of '%.100s'; say which file it is: --refiner FILE", found,
                       hash, name);
    if (!j->refiner->bpe) /* both read the same words */
        j->refiner->bpe = j->m->bpe;
    return check(j->m, j->refiner, name, e);
}

sumi_status sm_refine_open(sm_refine *r, const sm_job *j, int h, int w, sm_err *e)
{
    *r = (sm_refine){0};
    if (!j->refiner)
        return SUMI_OK;
    r->j = *j;
    r->j.m = j->refiner;
    return sm_denoise_init(&r->den, &r->j, h, w, e);
}

void sm_refine_close(sm_refine *r)
{
    if (!r->j.m)
        return;
    sm_text_close(&r->text);
    sm_denoise_close(&r->den);
}

bool sm_refine_due(const sm_refine *r, const sm_noise *base, double sigma)
{
    double at = round(r->j.r.refiner_switch_at * 1e6) / 1e6; /* the number as it was written, which a float is not */
    return r->j.m && sm_noise_t(base, sigma) < round(base->steps - at * base->steps);
}

sumi_status sm_refine_take(sm_refine *r, sm_denoise *base, int first, int n, int earlier, sm_err *e)
{
    int64_t calls = base->evals;
    sm_denoise_done(base);
    sm_job_release(base->j, base->j->m->family->component);
    sm_text_close(&r->text);
    if (sm_text_open(&r->text, &r->j, first, n, earlier, e) || sm_text_encode(&r->text, &r->j, e) ||
        sm_denoise_open(&r->den, n, &r->text, e))
        return e->code;
    r->den.evals = calls; /* prompts and guidance go on counting */
    r->den.sigmas = base->sigmas;
    r->den.steps = base->steps;
    r->on = true;
    return SUMI_OK;
}

void sm_refine_done(sm_refine *r)
{
    if (!r->j.m)
        return;
    sm_denoise_done(&r->den);
    if (r->on)
        sm_job_release(&r->j, r->j.m->family->component);
    r->on = false;
}
