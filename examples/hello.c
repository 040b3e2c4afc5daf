/* The shortest useful program: one prompt, one picture, with the built-in model and nothing but sumi.h.
 *     hello [FILE.png [PROMPT]]
 */
#include <stdio.h>
#include <string.h>
#include <sumi.h>

int main(int argc, char **argv)
{
    sumi_context *ctx;
    sumi_model *model = NULL;
    sumi_images *out = NULL;
    if (argc > 1 && !strcmp(argv[1], "--version"))
        return printf("sumi %s\n", sumi_version()) < 0;

    const char *file = argc > 1 ? argv[1] : "apple.png";
    sumi_request r = sumi_request_default();
    r.prompt = argc > 2 ? argv[2] : "a red apple";
    r.seed = 1;

    int bad = sumi_context_new(NULL, &ctx) || sumi_model_load(ctx, NULL, &model) || sumi_generate(ctx, model, &r, NULL, &out) ||
              sumi_image_save(ctx, sumi_images_at(out, 0), file);
    if (bad)
        fprintf(stderr, "hello: %s\n", sumi_error(ctx));
    else
        printf("%s: %s\n", file, sumi_model_summary(model));
    sumi_images_free(out);
    sumi_model_free(model);
    sumi_context_free(ctx);
    return bad;
}
