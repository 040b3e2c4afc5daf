/* What commands that work with the library begin and end with: the context, the request from a picture and the flags, the
 * model. */
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"

/* The parameters in --from's picture become the request. */
static int read_from(cli_session *s, const cli_args *a)
{
    const char *path = a->v.from;
    sumi_status st = sumi_image_load(s->ctx, path, &s->picture);
    const char *text = st ? "" : sumi_images_at(s->picture, 0)->infotext;
    st = st ? st : sumi_infotext_parse(s->ctx, text, &s->from);
    if (st)
        return cli_failed(s->ctx, st);
    if (!s->from->count)
        return cli_fail(EXIT_BAD, "--from: %s has no generation parameters; sumi info shows what it has", path);
    s->request = s->from->request;
    for (size_t i = 0; i < s->from->count && !a->v.quiet; i++)
        if (!s->from->field[i].understood)
            fprintf(stderr, "not used of %s: %s: %.80s\n", path, s->from->field[i].key, s->from->field[i].value);
    return 0;
}

/* Whether the flag of that parameter was given. */
static bool given(const cli_args *a, const char *flag)
{
    for (int i = 0; i < a->nset; i++)
        if (!strcmp(a->set[i].name, flag))
            return true;
    return false;
}

/* --exact: the instruction set of --cpu or SUMI_CPU in its form with direct sums. `name` holds what o points to. */
static void choose_exact(sumi_context_options *o, char *name, size_t size)
{
    const char *cpu = o->cpu ? o->cpu : getenv("SUMI_CPU");
    bool best = !cpu || !*cpu || !strcmp(cpu, "auto");
    snprintf(name, size, "%s%s", best ? "exact" : cpu, best || strstr(cpu, "exact") ? "" : "-exact");
    o->cpu = name;
}

int cli_open(cli_session *s, const cli_args *a)
{
    sumi_context_options context = a->v.context;
    char cpu[64];
    *s = (cli_session){.request = sumi_request_default()};
    if (a->v.exact)
        choose_exact(&context, cpu, sizeof cpu);
    sumi_status st = sumi_context_new(&context, &s->ctx);
    if (st)
        return cli_failed(s->ctx, st);
    int rc = a->v.from ? read_from(s, a) : 0;
    if (!rc && a->v.from && !given(a, "choices") && (a->nword || a->v.prompts || given(a, "prompt") || given(a, "negative")))
        s->request.choices = sumi_request_default().choices; /* these words are no result of choices yet */
    for (int i = 0; i < a->nset && !rc && !st; i++)
        st = sumi_request_set(s->ctx, &s->request, a->set[i].name, a->set[i].value);
    return rc ? rc : st ? cli_failed(s->ctx, st) : 0;
}

int cli_prompt(cli_session *s, const cli_args *a, bool needed)
{
    if (a->nword > 1)
        return cli_fail(EXIT_USAGE, "more than one prompt ('%.40s', '%.40s'): put quotes around the prompt", a->word[0],
                        a->word[1]);
    if (a->nword == 1)
        s->request.prompt = a->word[0];
    if (needed && !s->request.prompt[strspn(s->request.prompt, " \t\r\n")])
        return cli_fail(EXIT_USAGE, "the prompt is empty: say what to draw, as in sumi \"a red apple\"");
    return 0;
}

/* ---- model ----------------------------------------------------------------------------------------------------------- */

/* A file that --from's picture names, where no flag names one. */
static void take(const char **to, const char *from) { *to = *to ? *to : from; }

/* The picture's model against the one at hand: without --model they must be the same. */
static int check_model(const cli_session *s, const cli_args *a)
{
    const sumi_infotext *t = s->from;
    const char *hash = sumi_model_hash(s->model), *summary = sumi_model_summary(s->model);
    size_t n = strlen(t->model_name);
    bool same = t->model_hash[0] && hash[0] ? !strcmp(t->model_hash, hash)
                                            : !n || (!strncmp(summary, t->model_name, n) && summary[n] == ':');
    if (same)
        return 0;
    if (!a->v.load.path)
        return cli_fail(EXIT_BAD,
                        "--from: %s was drawn with the model %s (hash %s), and this is %.60s (hash %s); give the right one with "
                        "--model", a->v.from, t->model_name, t->model_hash, summary, hash);
    if (!a->v.quiet)
        fprintf(stderr, "%s was drawn with another model: %s (hash %s)\n", a->v.from, t->model_name, t->model_hash);
    return 0;
}

int64_t cli_seed(const sumi_request *r, int k) { return r->seed + (r->variation_strength > 0 ? 0 : k); }

bool cli_drawn(const cli_session *s, const sumi_request *r) { return s->from && r->prompt == s->from->request.prompt; }

int cli_open_model(cli_session *s, const cli_args *a)
{
    sumi_model_options o = a->v.load;
    o.low_memory = a->v.low_memory;
    if (s->from) {
        const sumi_model_options *f = &s->from->model;
        take(&o.path, f->path);
        take(&o.vae, f->vae);
        take(&o.text_encoder, f->text_encoder);
        take(&o.text_encoder_2, f->text_encoder_2);
        take(&o.unet, f->unet);
        take(&o.tokenizer, f->tokenizer);
        take(&o.taesd, f->taesd);
        o.low_memory |= f->low_memory;
    }
    sumi_status st = sumi_model_load_with(s->ctx, &o, &s->model);
    if (!st && !cli_drawn(s, &s->request))
        st = sumi_request_midjourney(s->ctx, s->model, &s->request, &s->texts);
    return st ? cli_failed(s->ctx, st) : s->from ? check_model(s, a) : 0;
}

void cli_close(cli_session *s)
{
    sumi_model_free(s->model);
    sumi_text_free(s->texts);
    sumi_infotext_free(s->from);
    sumi_images_free(s->picture);
    sumi_context_free(s->ctx);
}

const char *cli_amount(double x, double base, const char *unit)
{
    static char text[2][32];
    static int at;
    const char *prefix = " kMGTP";
    char *t = text[at++ % 2];
    int k = 0;
    for (; x >= base && k < 5; k++)
        x /= base;
    snprintf(t, sizeof text[0], "%.*f %.*s%s", k && x < 99.95 ? 1 : 0, x, k > 0, prefix + k, unit);
    return t;
}
