/* sumi help: texts and the man page, all from the commands' tables and the library's table of parameters. */
#include <stddef.h>
#include <string.h>

#include "cli/cli.h"

/* ---- what both forms walk over ---- */

typedef struct row { char flag[64]; const char *help; } row;

/* The i-th option of a command as "--name ARG" and its help: first the request's parameters, then the command's own. */
static bool option_row(const cli_command *c, size_t i, row *r)
{
    static const char *const args[] = {"TEXT", "N", "N", "X"}; /* by sumi_param_type */
    size_t n = 0;
    const sumi_param_info *t = sumi_params(&n);
    n = c->request ? n : 0;
    if (i < n) {
        snprintf(r->flag, sizeof r->flag, "    --%s %s", t[i].flag, args[t[i].type]);
        r->help = t[i].help;
        return true;
    }
    const cli_option *o = c->options;
    for (i -= n; i && o->name; i--)
        o++;
    if (!o->name)
        return false;
    char letter[8] = "    ";
    if (o->letter)
        snprintf(letter, sizeof letter, "-%c, ", o->letter);
    snprintf(r->flag, sizeof r->flag, "%s--%s%s%s", letter, o->name, o->arg ? " " : "", o->arg ? o->arg : "");
    r->help = o->help;
    return true;
}

typedef const char *named(size_t i, const char **advice);

/* ---- plain text ---- */

/* text after a flag, wrapped at 100 columns. */
static void wrap(FILE *f, int indent, const char *text)
{
    int at = indent;
    while (*text) {
        int n = (int)strcspn(text, " ");
        if (at > indent && at + 1 + n > 100) {
            fprintf(f, "\n%*s", indent, "");
            at = indent;
        } else if (at > indent) {
            fputc(' ', f);
            at++;
        }
        fprintf(f, "%.*s", n, text);
        at += n;
        text += n;
        text += *text == ' ';
    }
    fputc('\n', f);
}

static void print_names(FILE *f, const char *title, named *next)
{
    const char *name, *advice = NULL;
    fprintf(f, "\n%s\n", title);
    for (size_t i = 0; (name = next(i, &advice)); i++) {
        fprintf(f, "  %-24s ", name);
        wrap(f, 27, advice ? advice : "");
    }
}

void cli_help(FILE *f, const cli_command *c)
{
    row r;
    fprintf(f, "Usage: sumi %s\n\n%s\n\nOptions\n", c->usage, c->about);
    for (size_t i = 0; option_row(c, i, &r); i++) {
        fprintf(f, "  %-24s ", r.flag);
        wrap(f, 27, r.help);
    }
    if (c->request) {
        print_names(f, "Samplers", sumi_sampler_name);
        print_names(f, "Schedules", sumi_schedule_name);
    }
    fprintf(f, "\nExamples\n");
    for (int i = 0; c->examples[i]; i += 2)
        fprintf(f, "  %s\n      %s\n", c->examples[i], c->examples[i + 1]);
}

void cli_usage(FILE *f)
{
    fprintf(f, "sumi %s draws pictures from text, and trains, inspects and measures the models that do.\n\n"
               "Usage: sumi \"PROMPT\" [options]\n       sumi COMMAND ...\n\nCommands\n", sumi_version());
    for (int i = 0; cli_commands[i]; i++)
        fprintf(f, "  %-10s %s\n", cli_commands[i]->name, cli_commands[i]->summary);
    fprintf(f,
            "\nExamples\n  sumi \"a red apple\" -o apple.png\n  sumi \"a smiling cat, noto style\" --count 4 -o cat-%%d.png\n"
            "  sumi help generate\n\n"
            "Exit status: 0 done, 1 failed, 2 wrong call, 130 stopped.\n");
}

/* ---- roff ---- */

/* Dashes, dots and quotes at a line's start, and backslashes mean something to roff. */
static void roff(FILE *f, const char *s)
{
    for (bool start = true; *s; start = *s++ == '\n') {
        if (start && (*s == '.' || *s == '\''))
            fputs("\\&", f);
        fputs(*s == '\\' ? "\\e" : *s == '-' ? "\\-" : *s == '"' ? "\\(dq" : (char[]){*s, 0}, f);
    }
}

static void man_item(FILE *f, const char *head, const char *text)
{
    fputs(".TP\n.B ", f);
    roff(f, head + strspn(head, " "));
    fputc('\n', f);
    roff(f, text);
    fputc('\n', f);
}

static void man_names(FILE *f, const char *title, named *next)
{
    const char *name, *advice = NULL;
    fprintf(f, ".SS %s\n", title);
    for (size_t i = 0; (name = next(i, &advice)); i++)
        man_item(f, name, advice ? advice : "");
}

static void man_command(FILE *f, const cli_command *c)
{
    row r;
    fprintf(f, ".SH SUMI %s\n.B sumi ", c->name);
    roff(f, c->usage);
    fputs("\n.PP\n", f);
    roff(f, c->about);
    fputc('\n', f);
    for (size_t i = 0; option_row(c, i, &r); i++)
        man_item(f, r.flag, r.help);
    if (c == &cmd_generate) {
        man_names(f, "Samplers", sumi_sampler_name);
        man_names(f, "Schedules", sumi_schedule_name);
    }
    fputs(".SS Examples\n", f);
    for (int i = 0; c->examples[i]; i += 2)
        man_item(f, c->examples[i], c->examples[i + 1]);
}

void cli_man(FILE *f)
{
    fprintf(f,
            ".\\\" Written by `make man` from the commands' tables.\n.TH SUMI 1 \"\" \"sumi %s\"\n.SH NAME\n"
            "sumi \\- draw pictures from text\n"
            ".SH SYNOPSIS\n", sumi_version());
    for (int i = 0; cli_commands[i]; i++) {
        fputs(".B sumi ", f);
        roff(f, cli_commands[i]->usage);
        fputs("\n.br\n", f);
    }
    fputs(".SH DESCRIPTION\n.B sumi\ndraws pictures from text with diffusion models, on the processor it runs on, and trains, "
          "inspects and\n"
          "measures such models. Only pull uses the network. Files are written whole or not at all.\n", f);
    for (int i = 0; cli_commands[i]; i++)
        man_command(f, cli_commands[i]);
    fputs(".SH ENVIRONMENT\n", f);
    man_item(f, "SUMI_MODEL", "model file used when --model is not given.");
    man_item(f, "SUMI_CPU", "instruction set used when --cpu is not given.");
    man_item(f, "SUMI_CACHE", "folder that pull fetches into; without it XDG_CACHE_HOME/sumi or ~/.cache/sumi.");
    man_item(f, "HF_TOKEN", "token for private and gated models; sent to the hub alone.");
    man_item(f, "HF_ENDPOINT", "the hub's address; without it https://huggingface.co.");
    man_item(f, "HF_HUB_CACHE, HF_HOME", "where huggingface_hub keeps its models, which are found, too.");
    man_item(f, "SSL_CERT_FILE", "certificates that are trusted instead of the system's.");
    fputs(".SH EXIT STATUS\n0 done, 1 failed, 2 wrong call, 130 stopped by SIGINT, 143 by SIGTERM. Every failure is one line on "
          "standard error.\n", f);
}

/* ---- the command ---- */

static const char *command_name(const void *arg, size_t i) { return cli_commands[i] ? cli_commands[i]->name : NULL; }

static int run(cli_args *a)
{
    if (a->v.man) {
        cli_man(stdout);
        return 0;
    }
    if (a->nword == 0) {
        cli_usage(stdout);
        return 0;
    }
    if (!cli_words(a, 1, "one command's name"))
        return EXIT_USAGE;
    const cli_command *c = cli_find(a->word[0]);
    if (c) {
        cli_help(stdout, c);
        return 0;
    }
    const char *near = cli_nearest(a->word[0], strlen(a->word[0]), command_name, NULL);
    return cli_fail(EXIT_USAGE, near ? "no command '%.40s'; did you mean %s?" : "no command '%.40s'; sumi help lists them",
                    a->word[0], near);
}

static const cli_option options[] = {
    {"man", 0, CLI_SWITCH, NULL, CLI_AT(man), 0, 0, "the man page, as roff"},
    CLI_OPT_HELP,
    {0},
};
static const char *const examples[] = {"sumi help generate", "options and examples of generate", "sumi help --man | man -l -",
                                       "the man page", NULL};

const cli_command cmd_help = {
    .name = "help",
    .summary = "list the commands, or describe one",
    .usage = "help [COMMAND]",
    .about = "Without a command it lists them all.",
    .options = options,
    .examples = examples,
    .run = run,
};
