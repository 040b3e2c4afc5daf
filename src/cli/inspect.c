/* sumi inspect: what a model file holds. */
#include <stddef.h>

#include "cli/cli.h"

static int run(cli_args *a)
{
    cli_session s;
    char *text = NULL;
    if (!cli_words(a, 1, "a file or folder"))
        return EXIT_USAGE;
    int rc = cli_open(&s, a);
    if (!rc) {
        sumi_status st = sumi_inspect(s.ctx, a->word[0], a->v.json, &text);
        rc = st ? cli_failed(s.ctx, st) : 0;
    }
    if (!rc)
        fputs(text, stdout);
    sumi_text_free(text);
    cli_close(&s);
    return rc;
}

static const cli_option options[] = {CLI_OPT_JSON, CLI_OPT_HELP, {0}};

static const char *const examples[] = {
    "sumi inspect model.safetensors", "family, components, parameters, types",
    "sumi inspect old.ckpt", "a PyTorch checkpoint (.ckpt .pt .pth .bin), without running what it holds",
    "sumi inspect --json lora.safetensors", "the same for programs",
    NULL,
};

const cli_command cmd_inspect = {
    .name = "inspect",
    .summary = "say what a model file or folder holds",
    .usage = "inspect [--json] FILE|DIR",
    .about = "Prints the family, its components with their parameters and types, and which tensors are missing or\n"
             "unexpected. Any safetensors file or PyTorch checkpoint can be inspected, also one that is no whole model.",
    .options = options,
    .examples = examples,
    .run = run,
};
