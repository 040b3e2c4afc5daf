/* What the system says of the running process: memory, open files; and whether a sanitizer takes memory of its own. Where there
 * is no /proc, every value is 0. */
#ifndef SM_TEST_PROCESS_H
#define SM_TEST_PROCESS_H

#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Built with AddressSanitizer or ThreadSanitizer, which hold freed memory back and map more than there is. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

/* A line of /proc/self/status in bytes: "VmRSS" is resident, "VmHWM" the most of it so far, "VmSize" all that is mapped. */
static inline double process_memory(const char *key)
{
    char line[200];
    double kb = 0;
    size_t n = strlen(key);
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f))
        if (!strncmp(line, key, n) && line[n] == ':')
            kb = atof(line + n + 1);
    if (f)
        fclose(f);
    return kb * 1024;
}

/* The peak of resident memory starts again at what is resident now; false where the system does not let it. */
static inline bool process_reset_peak(void)
{
    FILE *f = fopen("/proc/self/clear_refs", "w");
    bool ok = f && fputs("5", f) >= 0;
    if (f)
        ok &= fclose(f) == 0;
    return ok && process_memory("VmHWM") < process_memory("VmRSS") + 4e6;
}

/* How many files are open, and some that are always counted along. */
static inline int process_files(void)
{
    int n = 0;
    DIR *d = opendir("/proc/self/fd");
    while (d && readdir(d))
        n++;
    if (d)
        closedir(d);
    return n;
}

#endif
