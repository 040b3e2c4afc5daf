/* sumi run: one part of a model on given tensors; for those who compare numbers. */
#include <stddef.h>
#include <stdlib.h>

#include "cli/cli.h"

static int list(cli_session *s, const cli_args *a)
{
    char *text = NULL;
    sumi_status st = sumi_list_module(s->ctx, &a->v.load, a->nword ? a->word[0] : NULL, &text);
    if (!st)
        fputs(text, stdout);
    sumi_text_free(text);
    return st ? cli_failed(s->ctx, st) : 0;
}

/* --repeat, --profile: the seconds of each evaluation, a line each, and the table. */
static int time_module(cli_session *s, const cli_args *a)
{
    int times = a->v.repeat ? a->v.repeat : 1;
    double *seconds = calloc((size_t)times, sizeof *seconds);
    char *table = NULL;
    if (!seconds)
        return cli_fail(EXIT_BAD, "out of memory");
    sumi_status st = a->v.profile ?
        sumi_profile_module(s->ctx, &a->v.load, a->word[0], a->v.in, a->v.output, times, seconds, &table) :
        sumi_time_module(s->ctx, &a->v.load, a->word[0], a->v.in, a->v.output, times, seconds);
    for (int i = 0; i < times && !st; i++)
        printf("evaluation %d: %.6f s\n", i + 1, seconds[i]);
    if (table)
        printf("\n%s", table);
    sumi_text_free(table);
    free(seconds);
    return st ? cli_failed(s->ctx, st) : 0;
}

static int run(cli_args *a)
{
    cli_session s;
    bool all = a->v.list && !a->nword;
    if (!all && !cli_words(a, 1, "a module: text_encoder, text_encoder_2, unet, transformer, vae_encoder or vae_decoder"))
        return EXIT_USAGE;
    if (!a->v.list && (!a->v.in || !a->v.output))
        return cli_fail(EXIT_USAGE, "run needs --in FILE and --out FILE; --list says what belongs into the first");
    int rc = cli_open(&s, a);
    if (!rc && a->v.list)
        rc = list(&s, a);
    else if (!rc && (a->v.repeat || a->v.profile))
        rc = time_module(&s, a);
    else if (!rc) {
        sumi_status st = sumi_run_module(s.ctx, &a->v.load, a->word[0], a->v.in, a->v.output);
        rc = st ? cli_failed(s.ctx, st) : 0;
    }
    cli_close(&s);
    return rc;
}

static const cli_option options[] = {
    {"in", 'i', CLI_TEXT, "FILE", CLI_AT(in), 0, 0, "tensors that the module takes: safetensors, or what else models may be"},
    {"out", 'o', CLI_TEXT, "FILE", CLI_AT(output), 0, 0, "safetensors file to write what it gives to, in f32"},
    {"list", 0, CLI_SWITCH, NULL, CLI_AT(list), 0, 0,
     "names and shapes of what the module takes and gives; without MODULE, of all that the model has"},
    {"repeat", 0, CLI_INT, "N", CLI_AT(repeat), 1, 100000, "evaluate N times and print the seconds of each, loading left out"},
    {"profile", 0, CLI_SWITCH, NULL, CLI_AT(profile), 0, 0,
     "print where the time went, by operation; with --repeat of all evaluations but the first"},
    CLI_OPT_MODEL,
    {"vae", 0, CLI_TEXT, "FILE|DIR", CLI_AT(load.vae), 0, 0, "autoencoder to use instead of the model's"},
    {"text-encoder", 0, CLI_TEXT, "FILE|DIR", CLI_AT(load.text_encoder), 0, 0, "text encoder to use instead of the model's"},
    {"text-encoder-2", 0, CLI_TEXT, "FILE|DIR", CLI_AT(load.text_encoder_2), 0, 0,
     "second text encoder to use instead of the model's"},
    {"unet", 0, CLI_TEXT, "FILE|DIR", CLI_AT(load.unet), 0, 0, "denoiser to use instead of the model's"},
    {"compute", 0, CLI_TEXT, "TYPE", CLI_AT(context.compute), 0, 0,
     "f32, or bf16: matrix products round what they multiply; needs AVX512_BF16; faster, not exact"},
    CLI_OPT_CONTEXT,
    CLI_OPT_HELP,
    {0},
};

static const char *const examples[] = {
    "sumi run --list", "modules of the built-in model, their inputs and outputs",
    "sumi run unet --model sd15.safetensors --in in.safetensors --out out.safetensors",
    "sample, timestep, encoder_hidden_states give sample",
    "sumi run text_encoder --model sdxl -i ids.safetensors -o text.safetensors",
    "input_ids give last_hidden_state, hidden_states.N, pooler_output, text_embeds",
    "sumi run vae_decoder --model vae-ft-mse.safetensors -i latents.safetensors -o picture.safetensors",
    "a file of the autoencoder alone is enough",
    "sumi run unet -i in.safetensors -o out.safetensors --repeat 5 --threads 2",
    "times five evaluations; the first also brings the weights into memory",
    "sumi run unet -i in.safetensors -o out.safetensors --repeat 3 --profile --threads 1",
    "where the time of the second and third went, operation by operation",
    NULL,
};

const cli_command cmd_run = {
    .name = "run",
    .summary = "run one part of a model on tensors of a file",
    .usage = "run MODULE --in FILE --out FILE [--model FILE|DIR]",
    .about = "Runs text_encoder, text_encoder_2, unet, transformer, vae_encoder or vae_decoder once. Tensors have the names\n"
             "and shapes of diffusers' and transformers' arguments and results, pictures and latents as [N, C, H, W]; a.b\n"
             "is the entry b of the argument a. F32, F16, BF16 and F64 are taken, I64 and I32 for ids; f32 is written.\n"
             "The model need not have any other part. Nothing is scaled on the way in or out: vae_decoder takes raw\n"
             "latents, vae_encoder gives mean and logvar (clamped to -30..20) of the raw ones.",
    .options = options,
    .examples = examples,
    .run = run,
};
