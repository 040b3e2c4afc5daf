/* sumi prompt: what is made of a prompt. */
#include <stddef.h>

#include "cli/cli.h"

static int run(cli_args *a)
{
    cli_session s;
    char *text = NULL;
    int rc = cli_open(&s, a);
    rc = rc ? rc : cli_prompt(&s, a, true);
    rc = rc ? rc : cli_open_model(&s, a);
    if (!rc) {
        sumi_status st = sumi_prompt_explain(s.ctx, s.model, &s.request, a->v.json, &text);
        rc = st ? cli_failed(s.ctx, st) : 0;
    }
    if (!rc)
        fputs(text, stdout);
    sumi_text_free(text);
    cli_close(&s);
    return rc;
}

static const cli_option options[] = {CLI_OPT_MODEL, CLI_OPT_JSON, CLI_OPT_HELP, {0}};

static const char *const examples[] = {
    "sumi prompt \"a (red:1.3) [apple:pear:0.5]\" --steps 20", "the weights, and the call from which it is a pear",
    "sumi prompt \"a cat++ on the (mat)0.8\" --emphasis compel --json", "another grammar; token ids",
    NULL,
};

const cli_command cmd_prompt = {
    .name = "prompt",
    .summary = "print what is made of a prompt: texts by step, weights, chunks",
    .usage = "prompt [options] \"PROMPT\"",
    .about = "Prints which text holds at which calls of the denoiser ([a:b:0.5], [a|b]; samplers with two calls a step have\n"
             "twice as many calls as steps), the sides of AND with their weights, and each text's chunks as the text\n"
             "encoder reads them with the weight of every word. Prompts are written as in A1111; --emphasis chooses\n"
             "another grammar. Takes the flags of generate, of which those about the prompt, steps and sampler matter.",
    .request = true,
    .options = options,
    .examples = examples,
    .run = run,
};
