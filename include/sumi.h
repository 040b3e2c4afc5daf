/* sumi: a diffusion engine. This is the library's only public header.
 *
 * Conventions: every fallible call returns a sumi_status (0 is success) and leaves one line of text in its context
 * (sumi_error). Handles are opaque; x_new / x_free pairs own what they made. Nothing here prints, exits or aborts. */
#ifndef SUMI_H
#define SUMI_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum sumi_status {
    SUMI_OK = 0,
    SUMI_E_ARG,       /* a caller's argument or a request's parameter is wrong */
    SUMI_E_FILE,      /* a file cannot be opened, read or written */
    SUMI_E_FORMAT,    /* a file's content is not what its format says */
    SUMI_E_MODEL,     /* a model lacks a tensor or has one of another shape */
    SUMI_E_MEMORY,    /* an allocation failed */
    SUMI_E_SUPPORT,   /* known, but not supported by this build or backend */
    SUMI_E_NUMERIC,   /* NaN or infinity where a number was needed */
    SUMI_E_CANCELLED, /* the caller asked to stop */
    SUMI_E_INTERNAL   /* a bug in sumi */
} sumi_status;

#ifdef __cplusplus
}
#endif
#endif
