/* Cases of requests on the tiny model `deep` (or another) whose latents of every step a fixture holds: its metadata names the
 * cases and their parameters, `noise` is what they begin from, latents.CASE [steps + 1, pictures, C, h, w] what the reference
 * came to. */
#ifndef REQUEST_CASES_H
#define REQUEST_CASES_H

#include "io/json.h"
#include "reference.h"
#include "sumi.h"

typedef struct request_cases {
    reference f;
    sumi_context *ctx;
    sumi_model *m;
    cJSON *cases;
    char noise[2][256], saved[256]; /* files: noise of one and of two pictures, latents of every step */
    bool ok;
} request_cases;

/* The fixture NAME.safetensors and `deep` in a new context; what fails is a failed check. Close in any case. */
void request_cases_open(request_cases *x, const char *name, int low_memory, int threads);
void request_cases_close(request_cases *x);
/* base with what the case says. */
sumi_request request_cases_named(request_cases *x, const char *name, const sumi_request *base);
/* The same without the fixture's noise and without files. */
sumi_request request_cases_plain(request_cases *x, const char *name, const sumi_request *base);
/* What the cases have in common: 48x32, CFG 5, seed 1, prompts that diffusers cuts. */
sumi_request request_cases_base(int steps, const char *sampler);

/* Sets a parameter by its flag's name; a failed check where that cannot be. */
void request_set(sumi_context *ctx, sumi_request *r, const char *name, const char *value);
/* Noise of so many pictures, the tensor `name` of the fixture, as a file of latents. */
bool request_noise(const reference *f, const char *name, int pictures, const char *path);
/* The saved latents of every step against latents.NAME: 1e-4 of the reference's rms. where: for the message. */
void request_steps_near(const reference *f, const char *name, const char *path, int steps, const char *where);
/* Draws and copies the pictures' bytes one after the other; how many. */
size_t request_pixels(sumi_context *ctx, sumi_model *m, const sumi_request *r, uint8_t *rgb);
/* The planned peak of the named cases is what they take, within a twentieth, usual and in low memory. */
void request_cases_plan_is_taken(const char *fixture, const char *const *names, size_t n, const sumi_request *base);
/* The case's three pictures have the same bits on other threads, in low memory and drawn alone; the steps are base's. */
void request_cases_same_bits(const char *fixture, const char *const *names, size_t n, const sumi_request *base);

#endif
