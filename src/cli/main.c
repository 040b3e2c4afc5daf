/* The command `sumi`: finds the subcommand. A first word that names none is a prompt: `sumi "a red apple"` draws. */
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"

const cli_command *const cli_commands[] = {
    &cmd_generate, &cmd_grid, &cmd_info, &cmd_inspect, &cmd_plan, &cmd_schedule, &cmd_train, &cmd_score, &cmd_tokenize,
    &cmd_prompt, &cmd_run, &cmd_convert, &cmd_pull, &cmd_models, &cmd_schema, &cmd_version, &cmd_help, NULL,
};

const cli_command *cli_find(const char *name)
{
    for (int i = 0; cli_commands[i]; i++)
        if (!strcmp(cli_commands[i]->name, name))
            return cli_commands[i];
    return NULL;
}

static int run(const cli_command *c, int argc, char **argv)
{
    cli_args a;
    int rc = EXIT_USAGE;
    if (cli_parse(&a, c, argc, argv)) {
        if (a.help)
            cli_help(stdout, c);
        rc = a.help ? 0 : c->run(&a);
    }
    cli_args_free(&a);
    return rc;
}

int main(int argc, char **argv)
{
    const cli_command *c = argc > 1 ? cli_find(argv[1]) : NULL;
    int rc;
    if (argc < 2) {
        cli_usage(stderr);
        return EXIT_USAGE;
    }
    if (c)
        rc = run(c, argc - 2, argv + 2);
    else if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))
        rc = run(&cmd_help, argc - 2, argv + 2);
    else if (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-V"))
        rc = run(&cmd_version, argc - 2, argv + 2);
    else
        rc = run(&cmd_generate, argc - 1, argv + 1);
    /* What was printed may still meet a full disk. */
    if (fflush(stdout) && !rc)
        rc = cli_fail(EXIT_BAD, "cannot write to standard output");
    return rc;
}
