/* sumi schedule: the noise levels that a request visits, as a table or JSON. */
#include <math.h>
#include <stddef.h>

#include "cli/cli.h"

/* JSON has no infinity. */
static void json_number(const char *name, double x, const char *end)
{
    if (isfinite(x))
        printf("\"%s\": %.15g%s", name, x, end);
    else
        printf("\"%s\": null%s", name, end);
}

static void json_text(const char *s)
{
    putchar('"');
    for (; *s; s++)
        printf((unsigned char)*s < 32 ? "\\u%04x" : *s == '"' || *s == '\\' ? "\\%c" : "%c", (unsigned char)*s);
    putchar('"');
}

static void print_json(const sumi_levels *l)
{
    printf("{\"model\": ");
    json_text(l->model);
    printf(", \"kind\": \"%s\", \"schedule\": \"%s\", \"source\": \"%s\", \"steps\": %zu, ", l->kind, l->schedule, l->source,
           l->count - 1);
    json_number("sigma_min", l->sigma_min, ", ");
    json_number("sigma_max", l->sigma_max, ", ");
    printf("\"levels\": [");
    for (size_t i = 0; i < l->count; i++) {
        const sumi_level *v = &l->at[i];
        printf("%s{", i ? ",\n " : "\n ");
        json_number("sigma", v->sigma, ", ");
        json_number("timestep", v->sigma > 0 ? v->timestep : INFINITY, ", ");
        json_number("alpha", v->alpha, ", ");
        json_number("log_snr", v->log_snr, "}");
    }
    printf("]}\n");
}

static void print_table(const sumi_levels *l)
{
    printf("%s (%s, sigma %.6g to %.6g), %s: %s, %zu steps\n\n", l->model, l->kind, l->sigma_max, l->sigma_min, l->schedule,
           l->source, l->count - 1);
    printf("%5s %14s %14s %12s %10s\n", "step", "sigma", "timestep", "alpha", "log SNR");
    for (size_t i = 0; i < l->count; i++) {
        const sumi_level *v = &l->at[i];
        printf("%5zu %14.8g ", i, v->sigma);
        if (v->sigma > 0)
            printf("%14.8g", v->timestep);
        else
            printf("%14s", "-");
        printf(" %12.6g %10.4g\n", v->alpha, v->log_snr);
    }
}

static int run(cli_args *a)
{
    cli_session s;
    sumi_levels *l = NULL;
    if (!cli_words(a, 0, "no words"))
        return EXIT_USAGE;
    if (a->v.family && a->v.load.path)
        return cli_fail(EXIT_USAGE, "schedule takes --model or --family, not both");
    int rc = cli_open(&s, a);
    if (!rc && !a->v.family)
        rc = cli_open_model(&s, a);
    if (!rc) {
        sumi_status st = sumi_schedule_levels(s.ctx, s.model, a->v.family, &s.request, &l);
        rc = st ? cli_failed(s.ctx, st) : 0;
    }
    if (!rc && a->v.json)
        print_json(l);
    else if (!rc)
        print_table(l);
    sumi_levels_free(l);
    cli_close(&s);
    return rc;
}

static const cli_option options[] = {
    {"family", 0, CLI_TEXT, "NAME", CLI_AT(family), 0, 0,
     "no model: sd15, sdxl, vp:BETA[:START:END], edm[:MIN:MAX], flow[:SHIFT]; BETA as in --beta-schedule"},
    CLI_OPT_MODEL, CLI_OPT_JSON, CLI_OPT_HELP, {0},
};

static const char *const examples[] = {
    "sumi schedule --schedule karras --steps 10", "the built-in model's levels",
    "sumi schedule --family sd15 --schedule align_your_steps --steps 10", "Stable Diffusion's, without a model",
    "sumi schedule --family sdxl --zero-snr 1 --steps 5", "betas rescaled to zero terminal SNR",
    "sumi schedule --family flow:3 --schedule beta --steps 20 --json", "a flow model of shift 3, for programs",
    "sumi schedule --family edm:0.002:700 --sigmas 700,54.5,15.9,4.2,1,0.1,0", "what a list of one's own means",
    "sumi schedule --family vp:linear:0.0001:0.02 --schedule normal --steps 50", "DDPM's betas",
    NULL,
};

const cli_command cmd_schedule = {
    .name = "schedule",
    .summary = "print the noise levels and timesteps of a request's steps",
    .usage = "schedule [options] [--model FILE|DIR | --family NAME] [--json]",
    .about = "Prints what sampling with the same flags visits: each level's sigma (noise in x = x0 + sigma n; of flow\n"
             "models in x = (1 - sigma) x0 + sigma n), the timestep that the model sees for it, the picture's factor\n"
             "alpha in the model's own input and the log of the signal-to-noise ratio. Flags that have nothing to do\n"
             "with it are ignored.",
    .request = true,
    .options = options,
    .examples = examples,
    .run = run,
};
