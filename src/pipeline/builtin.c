/* The search for the built-in model (see builtin.h). */
#include "pipeline/builtin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef SUMI_SHARE
#define SUMI_SHARE "/usr/local/share/sumi"
#endif
#define BUILTIN "sumi-pictograms.safetensors"

/* Where the built-in model may be; false past the last place. */
static bool builtin_place(int i, char *out, size_t size)
{
    char exe[400];
    const char *env = getenv("SUMI_MODEL");
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    exe[n > 0 ? n : 0] = 0;
    char *slash = strrchr(exe, '/');
    if (slash)
        *slash = 0;
    switch (i) {
    case 0: snprintf(out, size, "%s", env ? env : ""); return true;
    case 1: snprintf(out, size, "%s/../models/pictograms/" BUILTIN, exe); return true;
    case 2: snprintf(out, size, "%s/../share/sumi/" BUILTIN, exe); return true;
    case 3: snprintf(out, size, SUMI_SHARE "/" BUILTIN); return true;
    default: return false;
    }
}

sumi_status sm_builtin_find(char *out, size_t size, sm_err *e)
{
    for (int i = 0; builtin_place(i, out, size); i++) {
        if (out[0] && !access(out, R_OK))
            return SUMI_OK;
        if (i == 0 && out[0])
            return sm_fail(e, SUMI_E_FILE, "%s: cannot be read (named by the environment's SUMI_MODEL)", out);
    }
    return sm_fail(e, SUMI_E_FILE, BUILTIN ": the built-in model is not beside the program nor in " SUMI_SHARE
                   "; give --model FILE or set SUMI_MODEL");
}
