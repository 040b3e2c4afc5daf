/* sumi grid: a picture for every combination of some parameters' values, side by side. */
#include <stddef.h>
#include <string.h>

#include "cli/cli.h"

static int save_one(cli_session *s, const cli_output *o, const sumi_image *im, int k, int n)
{
    char path[4096];
    if (!cli_output_path(o, k, n, im->seed, s->request.prompt, path, sizeof path))
        return EXIT_USAGE;
    sumi_status st = sumi_image_save(s->ctx, im, path);
    if (st)
        return cli_failed(s->ctx, st);
    printf("%s\n", path);
    return 0;
}

static int save(cli_session *s, const cli_output *sheet, const cli_output *cell, const sumi_images *im, int sheets)
{
    int n = (int)sumi_images_count(im), rc = 0;
    for (int k = 0; k < sheets && !rc; k++)
        rc = save_one(s, sheet, sumi_images_at(im, (size_t)k), k, sheets);
    for (int k = sheets; cell && k < n && !rc; k++)
        rc = save_one(s, cell, sumi_images_at(im, (size_t)k), k - sheets, n - sheets);
    return rc;
}

static int draw(cli_session *s, const cli_args *a, const cli_output *sheet, const cli_output *cell)
{
    cli_progress p;
    sumi_images *im = NULL;
    int sheets = 0;
    sumi_grid_options o = a->v.grid;
    sumi_callbacks cb = cli_progress_start(&p, a->v.quiet, 5);
    o.legend = !a->v.no_legend;
    sumi_status st = sumi_grid(s->ctx, s->model, &s->request, &o, &cb, &sheets, &im);
    cli_progress_end(&p);
    int rc = st ? cli_failed(s->ctx, st) : save(s, sheet, cell, im, sheets);
    sumi_images_free(im);
    return rc;
}

static int run(cli_args *a)
{
    cli_session s;
    cli_output sheet, cell;
    int rc = cli_open(&s, a);
    if (!rc && !a->v.grid.x && !a->v.grid.y && !a->v.grid.z)
        rc = cli_fail(EXIT_USAGE, "grid needs an axis, such as --x steps=10,20,30");
    rc = rc ? rc : cli_prompt(&s, a, true);
    rc = rc ? rc : cli_output_open(&sheet, a->v.output ? a->v.output : "grid-{prompt}.png");
    if (!rc && a->v.cells)
        rc = cli_output_open(&cell, a->v.cells);
    rc = rc ? rc : cli_open_model(&s, a);
    rc = rc ? rc : draw(&s, a, &sheet, a->v.cells ? &cell : NULL);
    cli_close(&s);
    return rc;
}

#define AXIS(LETTER, WHERE) {#LETTER, 0, CLI_TEXT, "NAME=VALUES", CLI_AT(grid.LETTER), 0, 0, WHERE}

static const cli_option options[] = {
    AXIS(x, "columns: a parameter and its values, between commas; ranges as 1-5, 1-10 (+2), 1-10 [5]; Prompt S/R and Prompt "
            "order change words"),
    AXIS(y, "rows"),
    AXIS(z, "sheets"),
    CLI_OPT_SIZE,
    {"output", 'o', CLI_TEXT, "PATTERN", CLI_AT(output), 0, 0, "the sheet's file, as for generate; grid-PROMPT.png without it"},
    {"cells", 0, CLI_TEXT, "PATTERN", CLI_AT(cells), 0, 0, "files for the single pictures too, as -o"},
    {"no-legend", 0, CLI_SWITCH, NULL, CLI_AT(no_legend), 0, 0, "pictures only, without titles and parameters"},
    {"margin", 0, CLI_INT, "N", CLI_AT(grid.margin), 0, 256, "pixels between pictures; 4 without it"},
    CLI_OPT_FROM,
    CLI_OPT_MODEL,
    CLI_OPT_PARTS,
    CLI_OPT_CONTEXT,
    CLI_OPT_QUIET,
    CLI_OPT_HELP,
    {0},
};

static const char *const examples[] = {
    "sumi grid \"a red apple\" --x steps=5,10,20 --y 'cfg=1-7 (+3)' -o grid.png", "three columns, three rows",
    "sumi grid \"a red apple\" --x 'Prompt S/R=red,green,blue' --y seed=1-3", "words of the prompt, replaced",
    "sumi grid \"fire, water, air\" --x 'Prompt order=fire,water,air' --seed 5", "the six orders of three words",
    "sumi grid --from cat.png --x sampler=euler,heun,dpmpp_2m --y 'steps=10,20' --cells 'cell-%02d.png'",
    "from a picture's parameters; the pictures as files too", NULL,
};

const cli_command cmd_grid = {
    .name = "grid",
    .summary = "draw pictures for combinations of parameters, on a sheet",
    .usage = "grid [options] --x NAME=VALUES [--y ...] [--z ...] \"PROMPT\"",
    .about = "Draws the request once for every combination of the axes' values and lays the pictures out with titles and a\n"
             "legend. NAME is a parameter's flag, field or A1111's name for it. The sheet's metadata tell the axes.",
    .request = true,
    .options = options,
    .examples = examples,
    .run = run,
};
