/* Answers that are known (see known.h). */
#include "known.h"

#include <math.h>

#include "base/file.h"
#include "test.h"

cJSON *known_json(const char *name)
{
    sm_buf text = {0};
    sm_err e = {0};
    CHECKF(!sm_file_read(test_fixture(name), 4 << 20, &text, &e), "%s", e.msg);
    cJSON *j = cJSON_ParseWithLength(text.data ? text.data : "", text.len);
    CHECKF(j != NULL, "%s is no JSON", name);
    sm_buf_free(&text);
    return j;
}

const double known_share[3] = {0.5, 0.3, 0.2}, known_mean[3] = {-1.2, 0.4, 1.7}, known_dev[3] = {0.3, 0.5, 0.2};

double known_x0(double x, double sigma, double alpha, double shift)
{
    const double *mean = known_mean, *dev = known_dev;
    double p[3], top = -INFINITY, sum = 0, out = 0;
    for (int k = 0; k < 3; k++) {
        double var = alpha * alpha * dev[k] * dev[k] + sigma * sigma, d = x - alpha * (mean[k] + shift);
        p[k] = log(known_share[k]) - 0.5 * log(var) - d * d / (2 * var);
        top = fmax(top, p[k]);
    }
    for (int k = 0; k < 3; k++) {
        double var = alpha * alpha * dev[k] * dev[k] + sigma * sigma, w = exp(p[k] - top);
        sum += w;
        out += w * (mean[k] + shift + alpha * dev[k] * dev[k] / var * (x - alpha * (mean[k] + shift)));
    }
    return out / sum;
}
