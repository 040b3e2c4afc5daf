/* Opening one file: sumi's own kind, which carries its configuration, or any checkpoint, whose tensors say what it is; parts
 * that stand in other files; the tokenizer. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "pipeline/model.h"

/* ---- parts in files of their own ---- */

static sumi_status add_all(sm_weights *to, const sm_weights *from, const char *except, sm_err *e)
{
    size_t n = except ? strlen(except) : 0;
    for (size_t i = 0; i < sm_weights_count(from) && !e->code; i++) {
        const sm_weight *w = sm_weights_at(from, i);
        if (!except || strncmp(w->name, except, n) || w->name[n] != '.')
            sm_weights_add(to, w->name, &w->t, e);
    }
    return e->code ? e->code : sm_weights_map_as(to, from, e);
}

static void drop(void *w)
{
    sm_weights *table = w;
    sm_weights_unref(&table);
}

/* m->w becomes a table of the part's tensors and all others of the model, which it keeps alive. */
static sumi_status merge(sumi_model *m, sm_weights *part, const char *component, sm_err *e)
{
    sm_weights *both = sm_weights_new(m->mem, e);
    if (both && !add_all(both, part, NULL, e) && !add_all(both, m->w, component, e) &&
        !sm_weights_keep(both, drop, sm_weights_ref(part), e) && !sm_weights_keep(both, drop, sm_weights_ref(m->w), e)) {
        sm_weights_unref(&m->w);
        m->w = both;
        return SUMI_OK;
    }
    sm_weights_unref(&both);
    return e->code;
}

static void add_marks(sm_layout_report *to, const sm_layout_report *r)
{
    to->v_prediction |= r->v_prediction;
    to->zero_snr |= r->zero_snr;
    to->edm_v |= r->edm_v;
    if (r->edm_mark) {
        to->edm_mark = true;
        memcpy(to->latents_mean, r->latents_mean, sizeof r->latents_mean);
        memcpy(to->latents_std, r->latents_std, sizeof r->latents_std);
    }
}

/* marks: of the whole model, to which those of the part's file are added; may be NULL. */
static sumi_status replace(sumi_model *m, sm_component c, const char *path, const char *flag, sm_layout_report *marks,
                           sm_err *e)
{
    sm_layout_report r = {0};
    const char *name = sm_component_names[c];
    sm_weights *part = sm_weights_new(m->mem, e);
    sm_tensors *f = part ? sm_tensors_open(path, m->mem, e) : NULL;
    if (f && !sm_layout_into(f, part, c, &r, m->mem, e)) {
        if (!r.found[c])
            sm_fail(e, SUMI_E_MODEL, "--%s: %s holds no tensors of a %s%s%.100s", flag, path, name,
                    r.unknown ? "; one of its own is " : "", r.first_unknown);
        else
            merge(m, part, name, e);
    }
    sm_weights_unref(&part);
    if (marks && c == SM_COMPONENT_UNET)
        add_marks(marks, &r);
    return e->code;
}

/* The model's configuration was known before: the new parts' own sizes hold now, how they are used stays. */
static sumi_status reconfigure(sumi_model *m, const sumi_model_options *o, sm_err *e)
{
    float scale = m->vae.scaling_factor, shift = m->vae.shift_factor;
    if (o->unet && m->family->kind != SM_MODEL_UNET)
        return sm_fail(e, SUMI_E_ARG, "--unet: %s has a %s", o->path, m->family->class_name);
    if (o->unet && sm_detect_unet(m->w, "unet", &m->denoiser.unet, e))
        return e->code;
    if (o->vae && !sm_detect_vae(m->w, "vae", &m->vae, e) && scale) {
        m->vae.scaling_factor = scale;
        m->vae.shift_factor = shift;
    }
    for (int i = 0; i < m->traits.texts && !e->code; i++)
        if (!strcmp(m->traits.text[i].component, "text_encoder") ? o->text_encoder : o->text_encoder_2)
            sm_detect_clip(m->w, m->traits.text[i].component, &m->traits.text[i].clip, e);
    return e->code;
}

sumi_status sm_open_parts(sumi_model *m, const sumi_model_options *o, sm_layout_report *marks, sm_err *e)
{
    const struct { sm_component c; const char *path, *flag; } part[] = {
        {SM_COMPONENT_VAE, o->vae, "vae"},
        {SM_COMPONENT_TEXT, o->text_encoder, "text-encoder"},
        {SM_COMPONENT_TEXT_2, o->text_encoder_2, "text-encoder-2"},
        {SM_COMPONENT_UNET, o->unet, "unet"},
    };
    for (size_t i = 0; i < SM_COUNT(part) && !e->code; i++)
        if (part[i].path)
            replace(m, part[i].c, part[i].path, part[i].flag, marks, e);
    return e->code || !m->family ? e->code : reconfigure(m, o, e);
}

/* ---- tokenizers ---- */

static sumi_status load_tokenizer(sumi_model *m, const char *path, sm_err *e)
{
    char vocab[600], merges[600];
    struct stat st;
    if (!stat(path, &st) && !S_ISDIR(st.st_mode)) {
        m->bpe = sm_bpe_load_openai(m->mem, path, e);
        return e->code;
    }
    snprintf(vocab, sizeof vocab, "%.500s/vocab.json", path);
    snprintf(merges, sizeof merges, "%.500s/merges.txt", path);
    m->bpe = sm_bpe_load(m->mem, vocab, merges, e);
    return e->code;
}

sumi_status sm_open_tokenizer(sumi_model *m, const sumi_model_options *o, sm_err *e)
{
    if (o->tokenizer) {
        sm_bpe_free(m->bpe);
        return load_tokenizer(m, o->tokenizer, e);
    }
    if (m->bpe)
        return SUMI_OK;
    if (!m->traits.texts || m->traits.text[0].clip.vocab_size < 49408)
        return sm_fail(e, SUMI_E_MODEL,
                       "%s: its text encoder has %d tokens, CLIP's tokenizer 49408: give --tokenizer FOLDER (vocab.json, "
                       "merges.txt)", o->path, m->traits.text[0].clip.vocab_size);
    m->bpe = sm_bpe_clip(m->mem, e);
    return e->code;
}

/* ---- one file ---- */

sumi_status sm_own_into(sm_tensors *f, const sm_denoiser *family, sm_weights *w, sm_mem *mem, sm_err *e)
{
    char marker[160];
    sm_layout_report r;
    snprintf(marker, sizeof marker, "%s.%s", family->component, family->marker);
    return sm_tensors_find(f, marker) ? sm_tensors_into(f, w, NULL, mem, e) : sm_layout_into(f, w, SM_COMPONENTS, &r, mem, e);
}

static sumi_status open_own(sumi_model *m, sm_tensors *f, const char *config, const char *path, sm_err *e)
{
    const char *merges = sm_tensors_metadata(f, "merges");
    sm_err why = {0};
    if (!sm_model_configure(m, config, path, e) && merges &&
        !(m->bpe = sm_bpe_from_merges(m->mem, merges, strlen(merges), &why)))
        sm_fail(e, why.code, "%s: %s", path, why.msg);
    if (!e->code)
        return sm_own_into(f, m->family, m->w, m->mem, e);
    sm_tensors_close(f);
    return e->code;
}

/* What a file is that is no whole model. */
static sumi_status no_model(const sm_layout_report *r, const sm_detected *d, const char *path, sm_err *e)
{
    const char *what = r->lora         ? "it is a LoRA, which goes on top of a model"
                       : r->controlnet ? "it is a ControlNet, which goes on top of a model"
                       : r->embedding  ? "it is a textual inversion, which goes into a prompt"
                       : d->has_vae    ? "it is an autoencoder alone: give a model and this file with --vae"
                       : r->found[SM_COMPONENT_TEXT] || r->found[SM_COMPONENT_TEXT_2]
                           ? "it is a text encoder alone: give a model and this file with --text-encoder"
                           : "no component of it is known";
    return sm_fail(e, SUMI_E_MODEL, "%s: not a whole model: %s%s%.100s", path, what, r->first_unknown[0] ? "; a tensor is " : "",
                   r->first_unknown);
}

static void take_detected(sumi_model *m, const sm_detected *d, const char *path)
{
    const char *base = strrchr(path, '/'), *name = base && base[1] ? base + 1 : path, *dot = strrchr(name, '.');
    m->family = d->family;
    m->denoiser = d->denoiser;
    m->vae = d->vae;
    m->traits = d->traits;
    snprintf(m->name, sizeof m->name, "%.*s",
             (int)SM_MIN(dot && dot > name ? (size_t)(dot - name) : strlen(name), sizeof m->name - 1), name);
    for (char *p = m->name; *p; p++)
        *p = (unsigned char)*p < 0x20 || *p == 0x7f ? ' ' : *p;
}

static sumi_status open_any(sumi_model *m, sm_tensors *f, const sumi_model_options *o, sm_err *e)
{
    sm_layout_report r = {0};
    sm_detected d = {0};
    if (sm_layout_into(f, m->w, SM_COMPONENTS, &r, m->mem, e) || sm_open_parts(m, o, &r, e) ||
        sm_detect(m->w, &r, o->path, &d, e))
        return e->code;
    if (!d.family)
        return no_model(&r, &d, o->path, e);
    if (d.missing[0])
        return sm_fail(e, SUMI_E_MODEL, "%s: %s: %s", o->path, d.traits.label, d.missing);
    take_detected(m, &d, o->path);
    return SUMI_OK;
}

sumi_status sm_open_file(sumi_model *m, const sumi_model_options *o, sm_err *e)
{
    sm_tensors *f = sm_tensors_open(o->path, m->mem, e);
    if (!f)
        return e->code;
    const char *config = sm_tensors_metadata(f, "sumi.model");
    if (!config)
        return open_any(m, f, o, e);
    return open_own(m, f, config, o->path, e) ? e->code : sm_open_parts(m, o, NULL, e);
}
