/* sumi score: how many of the data set's things the model draws so that they can be told from all others. */
#include <stddef.h>

#include "cli/cli.h"

static void print_row(const char *name, const sumi_score_part *p)
{
    if (p->pairs)
        printf("%-16s %7d %7.1f%% %7.1f%%\n", name, p->pairs, 100.0 * p->top1 / p->pairs, 100.0 * p->top5 / p->pairs);
    else
        printf("%-16s %7d %8s %8s\n", name, 0, "-", "-");
}

static void print_json_part(const char *name, const sumi_score_part *p)
{
    printf("\"%s\": {\"pairs\": %d, \"top1\": %d, \"top5\": %d}, ", name, p->pairs, p->top1, p->top5);
}

static void print_score(const sumi_score *s, bool json)
{
    if (json) {
        printf("{");
        print_json_part("trained", &s->trained);
        print_json_part("held_pairs", &s->held_pairs);
        print_json_part("held_concepts", &s->held_concepts);
        printf("\"seconds_per_picture\": %.3f}\n", s->seconds_per_picture);
        return;
    }
    printf("%-16s %7s %8s %8s\n", "", "pairs", "top-1", "top-5");
    print_row("trained", &s->trained);
    print_row("held-out pairs", &s->held_pairs);
    print_row("held-out things", &s->held_concepts);
    printf("%.3f s a picture\n", s->seconds_per_picture);
}

static int run(cli_args *a)
{
    cli_session s;
    sumi_score score;
    if (!cli_words(a, 0, NULL))
        return EXIT_USAGE;
    if (!a->v.score.pictures || !a->v.score.index)
        return cli_fail(EXIT_USAGE, "score needs --pictures FILE and --index FILE, as tools/pictograms/prepare.py writes them");
    int rc = cli_open(&s, a);
    rc = rc ? rc : cli_open_model(&s, a);
    if (!rc) {
        cli_progress p;
        sumi_callbacks cb = cli_progress_start(&p, a->v.quiet, 10);
        sumi_status st = sumi_score_concepts(s.ctx, s.model, &a->v.score, &cb, &score);
        cli_progress_end(&p);
        rc = st ? cli_failed(s.ctx, st) : 0;
    }
    if (!rc)
        print_score(&score, a->v.json);
    cli_close(&s);
    return rc;
}

#define AT(field) offsetof(cli_values, score.field)
static const cli_option options[] = {
    {"pictures", 0, CLI_TEXT, "FILE", AT(pictures), 0, 0, "the data set's pictures (.safetensors)"},
    {"index", 0, CLI_TEXT, "FILE", AT(index), 0, 0, "the data set's index (.jsonl)"},
    {"styles", 0, CLI_TEXT, "LIST", AT(styles), 0, 0, "styles to score, with commas between them; all without it"},
    {"limit", 0, CLI_INT, "N", AT(limit), 0, 1e9, "score about N pairs, evenly spread; 0: all"},
    {"steps", 0, CLI_INT, "N", AT(steps), 0, 1000, "sampling steps; 0: the model's default"},
    {"cfg", 0, CLI_FLOAT, "X", AT(cfg_scale), -1, 100, "classifier-free guidance scale; -1: the model's default"},
    {"seed", 0, CLI_INT64, "N", AT(seed), 0, 9007199254740991, "noise of the first picture; 1 without it"},
    {"save", 0, CLI_TEXT, "DIR", AT(save_dir), 0, 0, "write contact sheets of what was drawn to this folder"},
    CLI_OPT_MODEL,
    CLI_OPT_CONTEXT,
    CLI_OPT_JSON,
    CLI_OPT_QUIET,
    CLI_OPT_HELP,
    {0},
};

static const char *const examples[] = {
    "sumi score --pictures pictograms-128.safetensors --index pictograms.jsonl", "every pair of thing and style once",
    "sumi score --pictures p.safetensors --index p.jsonl --styles noto --limit 200 --save sheets/", "a quick look at one style",
    NULL,
};

const cli_command cmd_score = {
    .name = "score",
    .summary = "measure how many known things the model draws recognisably",
    .usage = "score --pictures FILE --index FILE [options]",
    .about = "Draws `CAPTION, STYLE style` once for every pair of the data set and looks for the nearest picture of that\n"
             "style: the score is how often it shows the right thing. Pairs and things that were held out of training\n"
             "are counted apart. docs/MODEL.md says how nearness is measured.",
    .options = options,
    .examples = examples,
    .run = run,
};
