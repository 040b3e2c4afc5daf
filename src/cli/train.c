/* sumi train: runs a training configuration. */
#include <stddef.h>

#include "cli/cli.h"

static int run(cli_args *a)
{
    cli_session s;
    if (!cli_words(a, 1, "a configuration"))
        return EXIT_USAGE;
    int rc = cli_open(&s, a);
    if (!rc) {
        cli_progress p;
        sumi_callbacks cb = cli_progress_start(&p, a->v.quiet, 10);
        sumi_train_options o = {.resume = a->v.resume, .output = a->v.output, .stage = a->v.stage, .max_steps = a->v.max_steps};
        sumi_status st = sumi_train(s.ctx, a->word[0], &o, &cb);
        cli_progress_end(&p);
        if (st == SUMI_E_CANCELLED && cli_stopped())
            rc = cli_fail(128 + cli_stopped(), "stopped; sumi train --resume %.200s goes on from the last checkpoint",
                          a->word[0]);
        else if (st)
            rc = cli_failed(s.ctx, st);
    }
    cli_close(&s);
    return rc;
}

static const cli_option options[] = {
    {"resume", 0, CLI_SWITCH, NULL, CLI_AT(resume), 0, 0, "go on from the output folder's checkpoints"},
    {"output", 'o', CLI_TEXT, "DIR", CLI_AT(output), 0, 0,
     "folder for checkpoints, log and model; the configuration's without it"},
    {"stage", 0, CLI_TEXT, "NAME", CLI_AT(stage), 0, 0,
     "end with this stage: autoencoder, latents, flow; export takes the checkpoints as they are"},
    {"max-steps", 0, CLI_INT64, "N", CLI_AT(max_steps), 1, 1e15, "stop after N steps of this call, with a checkpoint"},
    CLI_OPT_CONTEXT,
    CLI_OPT_QUIET,
    CLI_OPT_HELP,
    {0},
};

static const char *const examples[] = {
    "sumi train recipe.json", "every stage, one after the other",
    "sumi train recipe.json --resume", "after an interruption: as if there had been none",
    "sumi train recipe.json --resume --stage flow --max-steps 1000", "a share of one stage",
    NULL,
};

const cli_command cmd_train = {
    .name = "train",
    .summary = "train a model from a configuration",
    .usage = "train [options] CONFIG",
    .about = "Runs the configuration's stages that are not finished: autoencoder, latents, flow, export. Checkpoints\n"
             "are written as the configuration says and when the run is stopped; the log is OUTPUT/log.jsonl. The keys\n"
             "of the configuration are described in docs/TRAINING.md.",
    .options = options,
    .examples = examples,
    .run = run,
};
