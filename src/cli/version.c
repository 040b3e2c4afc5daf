/* sumi version. */
#include <stddef.h>

#include "cli/cli.h"

static int run(cli_args *a)
{
    cli_session s;
    if (!cli_words(a, 0, NULL))
        return EXIT_USAGE;
    int rc = cli_open(&s, a);
    if (!rc)
        printf("sumi %s (%s, %d threads)\n", sumi_version(), sumi_context_cpu(s.ctx), sumi_context_threads(s.ctx));
    cli_close(&s);
    return rc;
}

static const cli_option options[] = {CLI_OPT_CONTEXT, CLI_OPT_HELP, {0}};
static const char *const examples[] = {"sumi version", "version, instruction set in use, threads", NULL};

const cli_command cmd_version = {
    .name = "version",
    .summary = "print the version, the instruction set in use and the number of threads",
    .usage = "version",
    .about = "Prints one line.",
    .options = options,
    .examples = examples,
    .run = run,
};
