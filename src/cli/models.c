/* sumi models: what lies in the cache, and removing it. */
#include <stddef.h>
#include <string.h>

#include "cli/cli.h"

static void print_quoted(const char *s)
{
    putchar('"');
    for (; *s; s++) {
        if ((unsigned char)*s < 32)
            printf("\\u%04x", (unsigned char)*s);
        else
            printf(*s == '"' || *s == '\\' ? "\\%c" : "%c", *s);
    }
    putchar('"');
}

static void print_json(const sumi_models *m)
{
    putchar('[');
    for (size_t i = 0; i < sumi_models_count(m); i++) {
        const sumi_model_entry *x = sumi_models_at(m, i);
        printf(i ? ",\n {\"name\": " : "\n {\"name\": ");
        print_quoted(x->name);
        printf(", \"family\": ");
        print_quoted(x->family);
        printf(", \"bytes\": %llu, \"files\": %d, \"finished\": %s, \"shared\": %s, \"path\": ", (unsigned long long)x->bytes,
               x->files,
               x->finished ? "true" : "false", x->shared ? "true" : "false");
        print_quoted(x->path);
        putchar('}');
    }
    printf("\n]\n");
}

static void print_table(const sumi_models *m)
{
    size_t width = 4;
    for (size_t i = 0; i < sumi_models_count(m); i++) {
        size_t n = strlen(sumi_models_at(m, i)->name);
        width = n > width ? n : width;
    }
    width = width > 60 ? 60 : width;
    for (size_t i = 0; i < sumi_models_count(m); i++) {
        const sumi_model_entry *x = sumi_models_at(m, i);
        const char *what = !x->finished ? "not finished: pull it again" : x->family[0] ? x->family : "unknown";
        printf("%-*s %9s  %-32s %s\n", (int)width, x->name, cli_amount((double)x->bytes, 1000, "B"), what, x->path);
    }
}

static int list(cli_session *s, const cli_args *a)
{
    sumi_models *m = NULL;
    sumi_status st = sumi_models_list(s->ctx, NULL, &m);
    if (st)
        return cli_failed(s->ctx, st);
    if (a->v.json)
        print_json(m);
    else if (sumi_models_count(m))
        print_table(m);
    else
        fprintf(stderr, "no models; sumi pull OWNER/NAME fetches one\n");
    sumi_models_free(m);
    return 0;
}

static int drop(cli_session *s, const cli_args *a)
{
    uint64_t freed = 0, all = 0;
    for (int i = 1; i < a->nword; i++) {
        sumi_status st = sumi_models_remove(s->ctx, NULL, a->word[i], &freed);
        if (st)
            return cli_failed(s->ctx, st);
        all += freed;
    }
    if (!a->v.quiet)
        fprintf(stderr, "%s freed\n", cli_amount((double)all, 1000, "B"));
    return 0;
}

static int run(cli_args *a)
{
    cli_session s;
    bool rm = a->nword && !strcmp(a->word[0], "rm");
    if (a->nword && !rm)
        return cli_fail(EXIT_USAGE, "models takes nothing, or rm and names; '%.80s' is neither", a->word[0]);
    if (rm && a->nword < 2)
        return cli_fail(EXIT_USAGE, "models rm needs a model's name; sumi models lists them");
    int rc = cli_open(&s, a);
    rc = rc ? rc : rm ? drop(&s, a) : list(&s, a);
    cli_close(&s);
    return rc;
}

static const cli_option options[] = {CLI_OPT_JSON, CLI_OPT_QUIET, CLI_OPT_HELP, {0}};

static const char *const examples[] = {
    "sumi models", "name, size, family and path of each",
    "sumi models --json", "the same for programs",
    "sumi models rm owner/name", "all revisions of a model",
    "sumi models rm owner/name@v2", "one revision, and what no other needs",
    NULL,
};

const cli_command cmd_models = {
    .name = "models",
    .summary = "list the models that were pulled, or remove one",
    .usage = "models [--json] | models rm NAME...",
    .about = "Lists what lies in the cache, the built-in model and the models in huggingface_hub's own cache, which are\n"
             "only read. Names are what --model takes. rm removes models from sumi's cache.",
    .options = options,
    .examples = examples,
    .run = run,
};
