/* Fuzz entry of sumi_convert: the first byte chooses type, layout and format, the rest is the file that goes in. What comes out
 * is a file that opens; what fails leaves none and says why in one line. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "io/tensors.h"

static void check(bool ok)
{
    if (!ok)
        abort();
}

/* Where the output goes: memory, where there is such a folder. */
static const char *out_path(void)
{
    static char path[64];
    if (!path[0])
        snprintf(path, sizeof path, "%s/sumi-fuzz-%ld.out", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm", (long)getpid());
    return path;
}

static void convert(const char *in, const sumi_convert_options *o)
{
    static sumi_context *ctx;
    char *summary = NULL;
    const char *out = out_path();
    if (!ctx)
        check(!sumi_context_new(&(sumi_context_options){.threads = 1}, &ctx));
    sumi_status st = sumi_convert(ctx, in, out, o, NULL, &summary);
    const char *msg = sumi_error(ctx);
    check((st != SUMI_OK) == (access(out, F_OK) != 0) && (st ? msg[0] && !strchr(msg, '\n') : summary != NULL));
    if (!st) {
        sm_err e = {0};
        sm_tensors *f = sm_tensors_open(out, NULL, &e);
        check(f != NULL);
        sm_tensors_close(f);
        check(!unlink(out));
    }
    sumi_text_free(summary);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const types[] = {"keep", "f32", "f16", "bf16", "f8_e4m3", "q8_0", "q4_0", "q4_k"};
    static const char *const layouts[] = {"keep", "original", "diffusers", "keep"}, *const formats[] = {"safetensors", "gguf"};
    char in[40];
    if (!size)
        return 0;
    sumi_convert_options o = {.type = types[data[0] & 7], .layout = layouts[data[0] >> 3 & 3],
                              .format = formats[data[0] >> 5 & 1]};
    int fd = memfd_create("in", 0);
    snprintf(in, sizeof in, "/proc/self/fd/%d", fd);
    check(fd >= 0 && write(fd, data + 1, size - 1) == (ssize_t)size - 1);
    convert(in, &o);
    close(fd);
    return 0;
}
