/* sumi info: what pictures were drawn with. */
#include <stddef.h>

#include "cli/cli.h"

static int show(cli_session *s, const cli_args *a, const char *path, bool heading)
{
    char *text = NULL;
    int found = 0;
    sumi_status st = sumi_picture_info(s->ctx, path, a->v.json, &found, &text);
    if (st)
        return cli_failed(s->ctx, st);
    if (a->v.json)
        fputs(text, stdout);
    else if (found)
        printf(heading ? "%s:\n%s\n" : "%.0s%s", path, text);
    sumi_text_free(text);
    return found ? 0 : cli_fail(EXIT_BAD, "%s: the picture does not say what it was drawn with", path);
}

static int run(cli_args *a)
{
    cli_session s;
    if (!a->nword)
        return cli_fail(EXIT_USAGE, "info needs pictures; see sumi help info");
    int rc = cli_open(&s, a), opened = rc;
    for (int i = 0; i < a->nword && !opened; i++) {
        int one = show(&s, a, a->word[i], a->nword > 1);
        rc = rc ? rc : one;
    }
    cli_close(&s);
    return rc;
}

static const cli_option options[] = {CLI_OPT_JSON, CLI_OPT_HELP, {0}};

static const char *const examples[] = {
    "sumi info apple.png", "prompt, steps, sampler, seed, model ...",
    "sumi info --json *.webp", "a line of JSON for each, with what sumi makes of it",
    NULL,
};

const cli_command cmd_info = {
    .name = "info",
    .summary = "say what pictures were drawn with",
    .usage = "info [--json] PICTURE...",
    .about = "Prints the parameters in a PNG, JPEG or WebP file, in A1111's format as sumi, A1111 and many programs\n"
             "write them, and the nodes of ComfyUI's graphs. `sumi generate --from PICTURE` draws from them. A picture\n"
             "that says nothing of its making is an error.",
    .options = options,
    .examples = examples,
    .run = run,
};
