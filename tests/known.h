/* What several tests know the answer of: fixtures in JSON, and a mixture of Gaussians whose denoiser is exact. */
#ifndef KNOWN_H
#define KNOWN_H

#include <cjson/cJSON.h>

/* A file of tests/fixtures, for cJSON_Delete; NULL and a failed check where it cannot be read. */
cJSON *known_json(const char *name);

/* The mixture's parts: shares, means, deviations. */
extern const double known_share[3], known_mean[3], known_dev[3];
/* E[x0 | alpha x0 + sigma n = x] under the mixture, all means moved by shift: the model of tools/fixtures/make_samplers.py and of
 * the other makers of trajectories. */
double known_x0(double x, double sigma, double alpha, double shift);

#endif
