/* sumi convert: another type, layout or format for a model file. */
#include <stddef.h>

#include "cli/cli.h"

static int run(cli_args *a)
{
    cli_session s;
    cli_progress p = {0};
    char *summary = NULL;
    if (!cli_words(a, 1, "a file or folder"))
        return EXIT_USAGE;
    if (!a->v.output)
        return cli_fail(EXIT_USAGE, "convert needs an output; -o FILE");
    int rc = cli_open(&s, a);
    if (!rc) {
        sumi_callbacks cb = cli_progress_start(&p, a->v.quiet, 5);
        sumi_status st = sumi_convert(s.ctx, a->word[0], a->v.output, &a->v.convert, &cb, &summary);
        cli_progress_end(&p);
        rc = st ? cli_failed(s.ctx, st) : 0;
    }
    if (!rc && !a->v.quiet)
        fputs(summary, stdout);
    sumi_text_free(summary);
    cli_close(&s);
    return rc;
}

static const cli_option options[] = {
    {"output", 'o', CLI_TEXT, "FILE", CLI_AT(output), 0, 0, "the file to write"},
    {"type", 0, CLI_TEXT, "TYPE", CLI_AT(convert.type), 0, 0,
     "f32, f16, bf16, f8_e4m3, f8_e5m2, q8_0, q4_0, q4_1, q5_0, q5_1, q2_k, q3_k, q4_k, q5_k, q6_k, keep; keep without it"},
    {"layout", 0, CLI_TEXT, "LAYOUT", CLI_AT(convert.layout), 0, 0,
     "names of tensors: diffusers, original (models with a UNet), keep; keep without it"},
    {"format", 0, CLI_TEXT, "FORMAT", CLI_AT(convert.format), 0, 0, "safetensors, gguf; by the output's extension without it"},
    {"vae", 0, CLI_TEXT, "FILE", CLI_AT(convert.vae), 0, 0, "take the autoencoder of this file"},
    {"keep-type", 0, CLI_TEXT, "PATTERNS", CLI_AT(convert.keep_type), 0, 0,
     "tensors that keep their type: names with * and ?, between commas"},
    {"threads", 0, CLI_INT, "N", CLI_AT(context.threads), 1, 1024, "threads; every processor without it"},
    CLI_OPT_QUIET,
    CLI_OPT_HELP,
    {0},
};

static const char *const examples[] = {
    "sumi convert old.ckpt -o new.safetensors --type f16", "a PyTorch checkpoint as a safetensors file of half the size",
    "sumi convert model.safetensors -o model-q8_0.gguf --type q8_0", "quantised, for sumi, stable-diffusion.cpp and ComfyUI-GGUF",
    "sumi convert FOLDER -o model.safetensors --layout original",
    "a diffusers folder as one file with the names other programs know",
    "sumi convert model.safetensors -o m.gguf --type q4_k --keep-type '*.to_out.*'", "some layers as they are",
    NULL,
};

const cli_command cmd_convert = {
    .name = "convert",
    .summary = "write a model file in another type, layout or format",
    .usage = "convert FILE|DIR -o FILE [--type TYPE] [--layout LAYOUT] [--format FORMAT]",
    .about = "Reads safetensors (one file, or shards by their index), PyTorch checkpoints, GGUF and folders in diffusers'\n"
             "layout, and writes one file, whole or not at all. Memory stays far below the model's size. Values that keep\n"
             "their type keep their bits. FP8 and block types (q...) are given to matrices alone: biases, norms, embeddings,\n"
             "first and last layers and the autoencoder keep their type, and where rows are no whole number of blocks f32\n"
             "becomes f16; lines at the end say which. Block types need GGUF, FP8 needs safetensors.",
    .options = options,
    .examples = examples,
    .run = run,
};
