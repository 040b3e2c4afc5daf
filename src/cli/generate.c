/* sumi generate, which `sumi "a red apple"` is short for: draws pictures and writes them. */
#include <stddef.h>
#include <string.h>

#include "cli/cli.h"

static int save(cli_session *s, const cli_output *pattern, const sumi_images *im)
{
    char path[4096];
    cli_output names = *pattern, *o = &names;
    o->same_seeds = s->request.variation_strength > 0;
    int n = (int)sumi_images_count(im);
    for (int k = 0; k < n; k++) {
        const sumi_image *at = sumi_images_at(im, (size_t)k);
        if (!cli_output_path(o, k, n, at->seed, s->request.prompt, path, sizeof path))
            return EXIT_USAGE;
        sumi_status st = sumi_image_save(s->ctx, at, path);
        if (st)
            return cli_failed(s->ctx, st);
        printf("%s\n", path);
    }
    return 0;
}

static int draw(cli_session *s, const cli_args *a, const cli_output *o)
{
    cli_preview p;
    sumi_images *im = NULL;
    sumi_callbacks cb = cli_progress_start(&p.progress, a->v.quiet, 5);
    int rc = cli_preview_start(&p, a, &s->request, &cb);
    if (rc) {
        cli_preview_end(&p);
        return rc;
    }
    sumi_status st = sumi_generate(s->ctx, s->model, &s->request, &cb, &im);
    cli_progress_end(&p.progress);
    cli_preview_end(&p);
    rc = st ? cli_failed(s->ctx, st) : save(s, o, im);
    if (!rc && !a->v.quiet)
        fprintf(stderr, "seed %lld, %s, %d threads, at most %s of memory\n", (long long)sumi_images_at(im, 0)->seed,
                sumi_context_cpu(s->ctx), sumi_context_threads(s->ctx), cli_amount((double)sumi_memory_peak(s->ctx), 1000, "B"));
    sumi_images_free(im);
    return rc;
}

static int run(cli_args *a)
{
    cli_session s;
    cli_output o;
    int rc = cli_open(&s, a);
    if (!rc && a->v.resume && !a->v.prompts)
        rc = cli_fail(EXIT_USAGE, "--resume goes with --prompts");
    rc = rc ? rc : cli_prompt(&s, a, !a->v.prompts);
    rc = rc ? rc : cli_output_open(&o, a->v.output);
    if (!rc && a->v.prompts)
        rc = cli_batch(&s, a, &o);
    else {
        rc = rc ? rc : cli_open_model(&s, a);
        rc = rc ? rc : draw(&s, a, &o);
    }
    cli_close(&s);
    return rc;
}

static const cli_option options[] = {
    CLI_OPT_SIZE,
    {"output", 'o', CLI_TEXT, "PATTERN", CLI_AT(output), 0, 0,
     "file to write (.png, .jpg, .webp), or a folder; %d or %03d: number, {seed}, {prompt}; PROMPT-SEED.png without it"},
    {"preview", 0, CLI_TEXT, "PATTERN", CLI_AT(preview), 0, 0, "file to write pictures of the state to, as -o"},
    {"preview-method", 0, CLI_TEXT, "METHOD", CLI_AT(preview_method), 0, 0,
     "full (small pictures, each costs a decoding), taesd (by the decoder of --taesd), approx-cheap (small, rough, for nothing)"},
    {"preview-every", 0, CLI_INT, "N", CLI_AT(preview_every), 1, 1000, "steps from one preview to the next; 5 without it"},
    CLI_OPT_FROM,
    {"prompts", 0, CLI_TEXT, "FILE", CLI_AT(prompts), 0, 0,
     "draw every line of the file (-: standard input): a prompt with flags, or a JSON object of parameters; # begins a comment"},
    {"resume", 0, CLI_SWITCH, NULL, CLI_AT(resume), 0, 0,
     "with --prompts: skip what is there already; -o names the pictures by their number"},
    CLI_OPT_MODEL,
    CLI_OPT_PARTS,
    CLI_OPT_CONTEXT,
    CLI_OPT_QUIET,
    CLI_OPT_HELP,
    {0},
};

static const char *const examples[] = {
    "sumi \"a red apple\"", "writes a-red-apple-SEED.png",
    "sumi \"a smiling cat, noto style, on a blue background\" -o cat.png", "a style and a background",
    "sumi \"two red apples\" --count 4 --seed 7 -o apple-%d.png", "apple-1.png with seed 7 to apple-4.png with seed 10",
    "sumi \"a clock\" --steps 40 --cfg 5 --sampler heun --schedule karras", "another way through the noise",
    "sumi \"a castle\" --model sd15.safetensors --vae vae-ft-mse.safetensors --negative \"blurry\" --clip-skip 2",
    "a checkpoint with another autoencoder",
    "sumi \"a castle\" --model sd15.safetensors --rng philox --seed 42 --preview now.png",
    "A1111's seeds; the state every five steps",
    "sumi \"a castle\" --model sd15.safetensors --cfg 12 --mimic-scale 7 --pag 2 --freeu v2",
    "guidance of several kinds together",
    "sumi \"panda\" --cfg 1.5 --classifier backgrounds.safetensors --class blue --classifier-scale 8",
    "towards a class that a classifier of noisy latents knows",
    "sumi \"a red apple\" --seed 7 --variation-seed 1 --variation-strength 0.2 --count 4 -o apple-%d.png",
    "four close to the picture of seed 7",
    "sumi --from apple-2.png -o again.png", "the same picture, bit for bit, from the parameters in its file",
    "sumi --from apple-2.png --steps 60 -o better.png", "with one thing changed",
    "sumi --prompts list.txt --steps 20 -o 'out/%04d.png' --resume", "a line a picture; what was drawn before is skipped",
    "sumi \"a {red|green|blue} ball, __style__\" --wildcards lists/ --count 9",
    "choices, by each picture's seed; lists/style.txt has a line a style",
    "sumi \"a green apple\" --edit-from-prompt \"a red apple\" --seed 7", "Prompt-to-Prompt: the red apple of seed 7, made green",
    "sumi \"a smiling face with sunglasses\" --p2p-reweight \"sunglasses:2\" --seed 7", "more of one word",
    "sumi \"a castle in snow\" --init-image castle.png --strength 0.6 -o snow.png", "drawn over, from six tenths of the noise",
    "sumi \"a red door\" --init-image castle.png --mask door.png --only-masked 1 -o door.png",
    "where the mask is white, at full size",
    "sumi \"a castle\" --init-image castle.png --outpaint-left 128 -o wide.png", "with 128 pixels more on the left",
    "sumi \"a green apple\" --init-image apple.png --invert 1 --invert-prompt \"a red apple\" --cfg 1.5 -o green.png",
    "from the picture's own noise",
    "sumi \"a castle\" --hires-upscale 2 --hires-upscaler Lanczos -o large.png", "drawn small, enlarged, drawn over",
    "sumi \"moss\" --tile both -o moss.png", "a pattern without seams",
    "sumi generate \"train\" -o pictures/{prompt}-{seed}.webp", "a prompt that is also a command's name",
    NULL,
};

const cli_command cmd_generate = {
    .name = "generate",
    .summary = "draw pictures from a prompt; `sumi \"PROMPT\"` is short for it",
    .usage = "[generate] [options] \"PROMPT\"",
    .about = "Draws what the prompt says and writes it with the parameters in the file's metadata. The files' names\n"
             "go to standard output, everything else to standard error. The same model, prompt, seed and flags give\n"
             "the same picture, whatever the number of threads or pictures. A file that -o names is replaced; the\n"
             "default name never is.",
    .request = true,
    .options = options,
    .examples = examples,
    .run = run,
};
