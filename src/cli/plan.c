/* sumi plan: memory and work of a request, before anything is drawn. */
#include <stddef.h>

#include "cli/cli.h"

static void print_json(const sumi_plan_info *p)
{
    printf("{\"weight_bytes\": %zu, \"packed_bytes\": %zu, \"activation_bytes\": %zu, \"peak_bytes\": %zu, \"steps\": %d, "
           "\"encode_flops\": %.0f, \"step_flops\": %.0f, \"decode_flops\": %.0f, \"total_flops\": %.0f}\n",
           p->weight_bytes, p->packed_bytes, p->activation_bytes, p->peak_bytes, p->steps, p->encode_flops, p->step_flops,
               p->decode_flops,
           p->total_flops);
}

static void print_bytes(const char *name, size_t n, const char *note)
{
    printf("%-14s %10s   %s\n", name, cli_amount((double)n, 1000, "B"), note);
}
static void print_flops(const char *name, double x, const char *note)
{
    printf("%-14s %10s   %s\n", name, cli_amount(x, 1000, "FLOP"), note);
}

static void print_plan(const cli_session *s, const sumi_plan_info *p)
{
    char steps[80];
    snprintf(steps, sizeof steps, "each of %d, guidance included", p->steps);
    printf("%s\n%d picture%s\n\n", sumi_model_summary(s->model), s->request.count, s->request.count == 1 ? "" : "s");
    print_bytes("weights", p->weight_bytes, "the model's tensors, mapped from its file");
    print_bytes("prepared", p->packed_bytes, "weights as the kernels want them, all components");
    print_bytes("activations", p->activation_bytes, "of the largest component");
    print_bytes("peak", p->peak_bytes, "the most held at once");
    print_flops("text", p->encode_flops, "once");
    print_flops("step", p->step_flops, steps);
    print_flops("decode", p->decode_flops, "once");
    if (p->total_flops > 0)
        print_flops("in all", p->total_flops, "");
    else
        printf("%-14s %10s   the sampler takes the steps that a picture needs\n", "in all", "?");
}

static int run(cli_args *a)
{
    cli_session s;
    sumi_plan_info info;
    int rc = cli_open(&s, a);
    rc = rc ? rc : cli_prompt(&s, a, false);
    if (!rc && !s.request.prompt[0])
        s.request.prompt = "a picture"; /* the plan does not depend on the words */
    rc = rc ? rc : cli_open_model(&s, a);
    if (!rc) {
        sumi_status st = sumi_plan_request(s.ctx, s.model, &s.request, &info);
        rc = st ? cli_failed(s.ctx, st) : 0;
    }
    if (!rc && a->v.json)
        print_json(&info);
    else if (!rc)
        print_plan(&s, &info);
    cli_close(&s);
    return rc;
}

static const cli_option options[] = {CLI_OPT_SIZE, CLI_OPT_MODEL, CLI_OPT_PARTS, CLI_OPT_CONTEXT, CLI_OPT_JSON, CLI_OPT_HELP,
                                     {0}};

static const char *const examples[] = {
    "sumi plan", "the built-in model at its defaults",
    "sumi plan --size 256x256 --count 8 --steps 40", "a larger request",
    "sumi plan --model folder/ --json", "another model, for programs",
    "sumi plan --model sd15.safetensors --low-memory", "how far --low-memory goes down",
    NULL,
};

const cli_command cmd_plan = {
    .name = "plan",
    .summary = "say what a request would take, without drawing",
    .usage = "plan [options] [\"PROMPT\"]",
    .about = "Plans the request that the same flags would draw and prints the memory it would hold and the floating\n"
             "point operations it would do.",
    .request = true,
    .options = options,
    .examples = examples,
    .run = run,
};
