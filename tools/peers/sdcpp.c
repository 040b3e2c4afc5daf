/* stable-diffusion.cpp as a peer (tools/peers/compare.py starts it): draws a picture through its public header and prints the
 * seconds of each step, then of the decoding, as `sumi run --repeat` does. Written against the header of
 * stable-diffusion-cpp-python 0.4.7. sdcpp unet|guided|vae MODEL_DIR SIZE THREADS TIMES [fa] [direct] | sdcpp version Its steps
 * go through sampler and prompt, some hundredths of a percent of an evaluation's time; guided is two evaluations a step. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "stable-diffusion.h"

typedef struct timing {
    double last;
    int done, steps;
    bool decode; /* else the program ends after the last step */
} timing;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void on_step(int step, int steps, float seconds, void *data)
{
    timing *t = data;
    double at = now();
    if (step > t->done && step <= t->steps && !t->decode)
        printf("evaluation %d: %.6f s\n", step, at - t->last);
    t->done = step;
    t->last = at;
    if (step == t->steps && !t->decode) {
        fflush(stdout);
        _exit(0);
    }
}

static void on_log(enum sd_log_level_t level, const char *text, void *data)
{
    timing *t = data;
    if (t->decode && strstr(text, "decoding 1 latents"))
        t->last = now();
    else if (t->decode && strstr(text, "decode_first_stage completed"))
        printf("evaluation 1: %.6f s\n", now() - t->last);
    else if (level == SD_LOG_ERROR)
        fputs(text, stderr);
}

static bool given(int argc, char **argv, const char *word)
{
    for (int i = 6; i < argc; i++)
        if (!strcmp(argv[i], word))
            return true;
    return false;
}

int main(int argc, char **argv)
{
    if (argc == 2 && !strcmp(argv[1], "version")) {
        printf("stable-diffusion.cpp %s, %s", sd_version(), sd_get_system_info());
        return 0;
    }
    if (argc < 6) {
        fprintf(stderr, "sdcpp unet|guided|vae MODEL_DIR SIZE THREADS TIMES [fa] [direct]\n");
        return 2;
    }
    timing t = {.decode = !strcmp(argv[1], "vae")};
    t.steps = t.decode ? 1 : atoi(argv[5]);
    sd_set_log_callback(on_log, &t);
    sd_ctx_params_t c;
    sd_ctx_params_init(&c);
    c.model_path = argv[2];
    c.n_threads = atoi(argv[4]);
    c.diffusion_flash_attn = c.flash_attn = given(argc, argv, "fa");
    c.diffusion_conv_direct = c.vae_conv_direct = given(argc, argv, "direct");
    sd_ctx_t *ctx = new_sd_ctx(&c);
    if (!ctx) {
        fprintf(stderr, "sdcpp: %s could not be loaded\n", argv[2]);
        return 1;
    }
    sd_img_gen_params_t p;
    sd_img_gen_params_init(&p);
    p.prompt = "a photograph of a cat";
    p.negative_prompt = "";
    p.width = p.height = atoi(argv[3]);
    p.seed = 1;
    p.sample_params.sample_method = EULER_SAMPLE_METHOD;
    p.sample_params.scheduler = DISCRETE_SCHEDULER;
    p.sample_params.sample_steps = t.steps;
    p.sample_params.guidance.txt_cfg = strcmp(argv[1], "guided") ? 1.0f : 7.0f;
    t.last = now();
    sd_set_progress_callback(on_step, &t);
    sd_image_t *image = generate_image(ctx, &p);
    if (!image || !image->data) {
        fprintf(stderr, "sdcpp: no picture was drawn\n");
        return 1;
    }
    return 0;
}
