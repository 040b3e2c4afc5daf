/* Fuzz entry of the index of sharded safetensors: a JSON text. Files it names must be plain names. */
#include <stdlib.h>
#include <string.h>

#include "io/safetensors.h"

static sumi_status see(void *arg, const char *tensor, const char *file, sm_err *e)
{
    if (!*tensor || strchr(file, '/') || !strcmp(file, "..") || strlen(file) > 255)
        abort();
    ++*(int *)arg;
    return SUMI_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    sm_mem mem = {0};
    sm_err e = {0};
    int n = 0;
    sumi_status st = sm_st_index_each((const char *)data, size, "fuzz", &mem, see, &n, &e);
    if (st != e.code || (st == SUMI_OK ? !n : !e.msg[0]) || mem.total)
        abort();
    return 0;
}
