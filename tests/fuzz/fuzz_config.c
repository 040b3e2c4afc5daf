/* Fuzz entry of the configurations: the first byte says whose (a kind of model's config.json, or anything else: a training
 * run's), the rest is the text. What is read is written and read again as the same; what is not must say why in one line. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "model/registry.h"
#include "train/config.h"

static void check(bool ok)
{
    if (!ok)
        abort();
}

static bool one_line(const sm_err *e) { return e->code != SUMI_OK && e->msg[0] && !strchr(e->msg, '\n'); }

typedef union any_config { sm_clip_config clip; sm_vae_config vae; sm_denoiser_config denoiser; } any_config;

static void model(sm_model_kind kind, const char *text, size_t n)
{
    any_config a = {0}, b = {0};
    sm_err e = {0};
    sm_buf out = {0};
    if (sm_config_read(kind, text, n, &a, &e)) {
        check(one_line(&e));
        return;
    }
    sm_config_write(kind, &a, &out);
    check(!out.oom && sm_config_read(kind, out.data, out.len, &b, &e) == SUMI_OK && !memcmp(&a, &b, sizeof a));
    sm_buf_free(&out);
}

/* A training configuration comes from a path: that of a file in memory. */
static void training(const char *text, size_t n)
{
    char path[40];
    sm_mem mem = {0};
    sm_err e = {0};
    sm_train_config c;
    int fd = memfd_create("config", 0);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    check(fd >= 0 && write(fd, text, n) == (ssize_t)n);
    if (sm_train_config_load(&c, &mem, path, &e))
        check(one_line(&e));
    else
        check(c.name[0] && c.data.size >= 8 && c.autoencoder.opt.batch > 0 && c.flow.opt.steps > 0 &&
              c.validate.nprompts <= SM_MAX_PROMPTS);
    sm_train_config_free(&c);
    check(mem.total == 0);
    close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int kind = size ? data[0] - '0' : -1;
    if (size && kind >= 0 && kind < SM_MODEL_KINDS)
        model((sm_model_kind)kind, (const char *)data + 1, size - 1);
    else if (size)
        training((const char *)data + 1, size - 1);
    return 0;
}
