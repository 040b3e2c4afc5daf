/* --preview: small pictures of what a request has so far, written over each other while it draws. */
#include "cli/cli.h"

static void write_preview(void *user, int index, int step, int width, int height, const uint8_t *rgb)
{
    cli_preview *v = user;
    char path[4096];
    sumi_image im = {.width = width, .height = height, .channels = 3, .pixels = (uint8_t *)rgb,
                     .seed = v->seed + (v->output.same_seeds ? 0 : index)};
    (void)step;
    if (v->failed)
        return;
    v->failed = !cli_output_path(&v->output, index, v->count, im.seed, v->prompt, path, sizeof path) ||
                (sumi_image_save(v->ctx, &im, path) && cli_fail(EXIT_BAD, "no more previews: %s", sumi_error(v->ctx)));
}

int cli_preview_start(cli_preview *v, const cli_args *a, const sumi_request *r, sumi_callbacks *cb)
{
    v->ctx = NULL;
    if (!a->v.preview)
        return !a->v.preview_method && !a->v.preview_every ? 0 :
               cli_fail(EXIT_USAGE, "--preview-%s goes with --preview", a->v.preview_method ? "method" : "every");
    int rc = cli_output_open(&v->output, a->v.preview);
    if (rc)
        return rc;
    sumi_status st = sumi_context_new(&(sumi_context_options){.threads = 1}, &v->ctx);
    if (st)
        return cli_failed(v->ctx, st);
    v->prompt = r->prompt;
    v->seed = r->seed < 0 ? 0 : r->seed;
    v->count = r->count;
    v->output.same_seeds = r->variation_strength > 0;
    v->failed = false;
    cb->preview = write_preview;
    cb->preview_method = a->v.preview_method;
    cb->preview_every = a->v.preview_every ? a->v.preview_every : 5;
    return 0;
}

void cli_preview_end(cli_preview *v) { sumi_context_free(v->ctx); }
