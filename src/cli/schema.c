/* sumi schema: the parameters for programs. */
#include <stddef.h>

#include "cli/cli.h"

static int run(cli_args *a)
{
    cli_session s;
    char *text = NULL;
    if (!cli_words(a, 0, NULL))
        return EXIT_USAGE;
    int rc = cli_open(&s, a);
    if (!rc) {
        sumi_status st = sumi_schema(s.ctx, a->v.markdown, &text);
        rc = st ? cli_failed(s.ctx, st) : 0;
    }
    if (!rc)
        fputs(text, stdout);
    sumi_text_free(text);
    cli_close(&s);
    return rc;
}

static const cli_option options[] = {
    {"markdown", 0, CLI_SWITCH, NULL, CLI_AT(markdown), 0, 0, "the reference page docs/PARAMETERS.md instead"},
    CLI_OPT_HELP,
    {0},
};

static const char *const examples[] = {"sumi schema > request.schema.json",
                                       "to check JSON lines for --prompts with, or to build a form from", NULL};

const cli_command cmd_schema = {
    .name = "schema",
    .summary = "print the parameters of pictures as JSON Schema",
    .usage = "schema [--markdown]",
    .about = "Prints every parameter's type, default, range, words and meaning as JSON Schema (draft 2020-12).",
    .options = options,
    .examples = examples,
    .run = run,
};
